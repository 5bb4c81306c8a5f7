package store

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The lines of an export, which docs/export.md describes. What the admin API has too has its name here. A text that is
// not UTF-8 stands in base64 in a field of its own, beside the one that is empty then.

const (
	exportFormat  = "postern-export"
	exportVersion = 1
)

// ExportHeader is the first line of an export.
type ExportHeader struct {
	Format     string       `json:"format"`
	Version    int          `json:"version"`
	ExportedAt time.Time    `json:"exported_at"`
	Filter     ExportFilter `json:"filter,omitzero"`
}

// ExportFilter is what an export was restricted to. What is absent lets all pass.
type ExportFilter struct {
	Destination string    `json:"destination,omitempty"`
	State       string    `json:"state,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	Until       time.Time `json:"until,omitzero"`
}

// ExportCounts are what the last line of an export says.
type ExportCounts struct {
	Messages   int64 `json:"messages"`
	Deliveries int64 `json:"deliveries"`
	Pending    int64 `json:"pending"`  // deliveries, without those that are left out
	LeftOut    int64 `json:"left_out"` // pending deliveries that do not pass the filter
	Attempts   int64 `json:"attempts"`
	Omitted    int64 `json:"omitted"` // attempts beyond MaxHistory
	Damaged    int64 `json:"damaged"` // messages and attempts that could not be read
}

// exportEnd is the last line.
type exportEnd struct {
	ExportCounts
	SHA256 string `json:"sha256"` // of all lines before, in hexadecimal digits
}

type exportMessage struct {
	ID                string             `json:"id"`
	Event             string             `json:"event"`
	EventBase64       []byte             `json:"event_base64,omitempty"`
	ContentType       string             `json:"content_type"`
	ContentTypeBase64 []byte             `json:"content_type_base64,omitempty"`
	AcceptedAt        time.Time          `json:"accepted_at"`
	SizeBytes         int                `json:"size_bytes"`
	Key               string             `json:"key,omitempty"`
	KeyBase64         []byte             `json:"key_base64,omitempty"`
	Path              string             `json:"path,omitempty"`
	PathBase64        []byte             `json:"path_base64,omitempty"`
	Hops              int                `json:"hops,omitempty"`
	Headers           []exportField      `json:"headers"`
	Idempotency       *exportIdempotency `json:"idempotency,omitempty"`
	exportContent
	BodyReduced bool             `json:"body_reduced,omitempty"`
	Deliveries  []exportDelivery `json:"deliveries"`
}

type exportField struct {
	Name        string `json:"name"`
	NameBase64  []byte `json:"name_base64,omitempty"`
	Value       string `json:"value"`
	ValueBase64 []byte `json:"value_base64,omitempty"`
}

type exportIdempotency struct {
	KeySHA256     string `json:"key_sha256"`
	ContentSHA256 string `json:"content_sha256"`
}

type exportContent struct {
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

type exportDelivery struct {
	ID                string          `json:"id"`
	Destination       string          `json:"destination"`
	DestinationBase64 []byte          `json:"destination_base64,omitempty"`
	State             string          `json:"state"`
	LeftOut           bool            `json:"left_out,omitempty"`
	Round             int             `json:"round"`
	Attempts          int             `json:"attempts"`
	Made              int             `json:"made"`
	DelaySeconds      float64         `json:"delay_seconds,omitempty"`
	BegunAt           time.Time       `json:"begun_at,omitzero"`
	DueAt             time.Time       `json:"due_at,omitzero"`
	EndedAt           time.Time       `json:"ended_at,omitzero"`
	Reason            string          `json:"reason,omitempty"`
	ReasonBase64      []byte          `json:"reason_base64,omitempty"`
	Order             string          `json:"order,omitempty"`
	OrderBase64       []byte          `json:"order_base64,omitempty"`
	LeftLine          bool            `json:"left_line,omitempty"`
	Blocking          bool            `json:"blocking"`
	Last              *exportOutcome  `json:"last"`
	History           []exportAttempt `json:"history"`
	HistoryOmitted    int             `json:"history_omitted,omitempty"`
}

type exportOutcome struct {
	At          time.Time `json:"at"`
	Class       string    `json:"class"`
	Status      int       `json:"status,omitempty"`
	Error       string    `json:"error,omitempty"`
	ErrorBase64 []byte    `json:"error_base64,omitempty"`
}

type exportAttempt struct {
	Round                int             `json:"round"`
	Number               int             `json:"number"`
	StartedAt            time.Time       `json:"started_at"`
	TookSeconds          float64         `json:"took_seconds"`
	Class                string          `json:"class"`
	Status               int             `json:"status,omitempty"`
	Error                string          `json:"error,omitempty"`
	ErrorBase64          []byte          `json:"error_base64,omitempty"`
	Probe                bool            `json:"probe"`
	Request              *exportRequest  `json:"request"`
	Response             *exportResponse `json:"response"`
	RetryHintSeconds     float64         `json:"retry_hint_seconds,omitempty"`
	Timing               exportTiming    `json:"timing"`
	Peer                 string          `json:"peer,omitempty"`
	PeerBase64           []byte          `json:"peer_base64,omitempty"`
	Reused               bool            `json:"reused"`
	CertificateExpiresAt time.Time       `json:"certificate_expires_at,omitzero"`
}

type exportRequest struct {
	Method       string        `json:"method"`
	MethodBase64 []byte        `json:"method_base64,omitempty"`
	URL          string        `json:"url"`
	URLBase64    []byte        `json:"url_base64,omitempty"`
	Headers      []exportField `json:"headers"`
	exportContent
	Truncated     bool `json:"truncated"`
	BodyIsMessage bool `json:"body_is_message"`
}

type exportResponse struct {
	Headers []exportField `json:"headers"`
	exportContent
	Truncated bool `json:"truncated"`
}

type exportTiming struct {
	DNSSeconds       float64 `json:"dns_seconds"`
	ConnectSeconds   float64 `json:"connect_seconds"`
	TLSSeconds       float64 `json:"tls_seconds"`
	FirstByteSeconds float64 `json:"first_byte_seconds"`
}

// textOut returns a text, or in its place its bytes if they are not UTF-8.
func textOut(s string) (text string, raw []byte) {
	if utf8.ValidString(s) {
		return s, nil
	}
	return "", []byte(s)
}

// contentOut returns a body as text, or in base64: also one that is text, but takes more than twice the room in JSON, for
// it is made of control characters.
func contentOut(body []byte) exportContent {
	if !utf8.Valid(body) {
		return exportContent{BodyBase64: body}
	}
	size := 0
	for _, c := range body {
		switch {
		case c == '\n', c == '\r', c == '\t', c == '"', c == '\\':
			size += 2
		case c < ' ', c == 0x7f:
			size += 6
		default:
			size++
		}
	}
	if size > 2*len(body) {
		return exportContent{BodyBase64: body}
	}
	return exportContent{Body: string(body)}
}

func (c exportContent) bytes() ([]byte, error) {
	if c.Body != "" && len(c.BodyBase64) > 0 {
		return nil, invalid("body", "there is a body_base64 beside it")
	}
	if c.Body != "" {
		return []byte(c.Body), nil
	}
	if len(c.BodyBase64) == 0 {
		return nil, nil
	}
	return c.BodyBase64, nil
}

func fieldsOut(list []Field) []exportField {
	out := make([]exportField, len(list))
	for i, f := range list {
		out[i].Name, out[i].NameBase64 = textOut(f.Name)
		out[i].Value, out[i].ValueBase64 = textOut(f.Value)
	}
	return out
}

// headerOut lists the fields of an answer in the order of their names.
func headerOut(h http.Header) []exportField {
	var list []Field
	for name, values := range h {
		for _, v := range values {
			list = append(list, Field{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(list, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return fieldsOut(list)
}

// at is a time as the engines keep it and the API writes it.
func at(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

func messageOut(x Exported, leftOut func(Delivery) bool) exportMessage {
	m := x.Message
	out := exportMessage{
		ID: m.ID.String(), AcceptedAt: at(m.AcceptedAt), SizeBytes: m.Size, Hops: m.Hops, Headers: fieldsOut(m.Header),
		exportContent: contentOut(x.Body), BodyReduced: m.Reduced, Deliveries: make([]exportDelivery, len(x.Deliveries)),
	}
	out.Event, out.EventBase64 = textOut(m.Event)
	out.ContentType, out.ContentTypeBase64 = textOut(m.ContentType)
	out.Key, out.KeyBase64 = textOut(m.Key)
	out.Path, out.PathBase64 = textOut(m.Path)
	if pair := m.Idempotency; pair != nil {
		out.Idempotency = &exportIdempotency{KeySHA256: hex.EncodeToString(pair.Key[:]), ContentSHA256: hex.EncodeToString(pair.Content[:])}
	}
	for n, d := range x.Deliveries {
		out.Deliveries[n] = deliveryOut(m.Recipients[n], d)
		out.Deliveries[n].LeftOut = d.State == Pending && leftOut(d.Delivery)
	}
	return out
}

func deliveryOut(to Recipient, d ExportedDelivery) exportDelivery {
	out := exportDelivery{
		ID: d.ID.String(), State: d.State.String(), Round: d.Round, Attempts: d.Attempts, Made: d.Made,
		DelaySeconds: to.Delay.Seconds(), BegunAt: at(d.BegunAt), DueAt: at(d.DueAt), EndedAt: at(d.EndedAt),
		LeftLine: d.Order != to.Order, Blocking: d.Blocking, HistoryOmitted: d.Omitted, History: make([]exportAttempt, len(d.History)),
	}
	out.Destination, out.DestinationBase64 = textOut(d.Destination)
	out.Reason, out.ReasonBase64 = textOut(d.Reason)
	out.Order, out.OrderBase64 = textOut(to.Order)
	if d.Last != (Outcome{}) {
		out.Last = &exportOutcome{At: at(d.Last.At), Class: d.Last.Class.String(), Status: d.Last.Status}
		out.Last.Error, out.Last.ErrorBase64 = textOut(d.Last.Error)
	}
	for i, a := range d.History {
		out.History[i] = attemptOut(a)
	}
	return out
}

func attemptOut(a Attempt) exportAttempt {
	out := exportAttempt{
		Round: a.Round, Number: a.Number, StartedAt: at(a.StartedAt), TookSeconds: a.Took.Seconds(), Class: a.Class.String(),
		Status: a.Status, Probe: a.Probe, RetryHintSeconds: a.RetryHint.Seconds(), Reused: a.Reused,
		CertificateExpiresAt: at(a.CertExpires),
		Timing: exportTiming{
			DNSSeconds: a.Timing.DNS.Seconds(), ConnectSeconds: a.Timing.Connect.Seconds(), TLSSeconds: a.Timing.TLS.Seconds(),
			FirstByteSeconds: a.Timing.FirstByte.Seconds(),
		},
	}
	out.Error, out.ErrorBase64 = textOut(a.Error)
	out.Peer, out.PeerBase64 = textOut(a.Peer)
	if s := a.Request; s.Method != "" || s.URL != "" || len(s.Header) > 0 || len(s.Body) > 0 || s.Rendered || s.Truncated {
		out.Request = &exportRequest{
			Headers: fieldsOut(s.Header), exportContent: contentOut(s.Body), Truncated: s.Truncated, BodyIsMessage: !s.Rendered,
		}
		out.Request.Method, out.Request.MethodBase64 = textOut(s.Method)
		out.Request.URL, out.Request.URLBase64 = textOut(s.URL)
	}
	if a.Status != 0 || len(a.Header) > 0 || len(a.Body) > 0 || a.Truncated {
		out.Response = &exportResponse{Headers: headerOut(a.Header), exportContent: contentOut(a.Body), Truncated: a.Truncated}
	}
	return out
}
