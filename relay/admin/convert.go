package admin

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-relay/postern/store"
)

const (
	masked       = "***"
	maxShownBody = 256 << 10 // bytes of a body within a JSON answer
)

// instant is a time as the API writes it: in UTC, to the millisecond.
func instant(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

func newDelivery(d store.Delivery, held Held) Delivery {
	out := Delivery{
		ID: d.ID.String(), MessageID: d.ID.Message().String(), Destination: d.Destination, Event: d.Event,
		State: d.State.String(), Round: d.Round, Attempts: d.Attempts, Made: d.Made, AcceptedAt: instant(d.AcceptedAt),
		Reason: d.Reason, Held: held, Blocking: d.Blocking, OrderKey: orderKey(d.Order),
	}
	if d.State.Ended() {
		out.EndedAt = instant(d.EndedAt)
	} else {
		out.DueAt = instant(d.DueAt)
	}
	if !d.Last.At.IsZero() {
		out.Last = &Outcome{At: instant(d.Last.At), Class: d.Last.Class.String(), Status: d.Last.Status, Error: d.Last.Error}
	}
	return out
}

// orderKey returns the ordering key of a line; the line of all has none.
func orderKey(line string) string {
	key, _ := strings.CutPrefix(line, "=")
	if key == line {
		return ""
	}
	return key
}

// newMessage shows a message; body is the whole, or what is left of it.
func newMessage(m store.Message, body []byte) Message {
	out := Message{
		ID: m.ID.String(), Event: m.Event, ContentType: m.ContentType, AcceptedAt: instant(m.AcceptedAt),
		SizeBytes: m.Size, Key: m.Key, Path: MaskQuery(m.Path), Headers: postedHeaders(m.Header),
		BodyRemoved: m.Size > 0 && len(body) == 0,
	}
	out.Content, out.BodyTruncated = newContent(body)
	return out
}

// newContent shows a body up to maxShownBody, and reports whether it is cut.
func newContent(body []byte) (c Content, cut bool) {
	shown := body
	if len(shown) > maxShownBody {
		cut = true
		shown = shown[:maxShownBody]
		for i := 1; i < utf8.UTFMax && len(shown) > 0 && !utf8.RuneStart(body[len(shown)]); i++ {
			shown = shown[:len(shown)-1]
		}
	}
	switch {
	case len(shown) == 0:
	case utf8.Valid(shown):
		c.Body = string(shown)
	default:
		c.BodyBase64 = body[:min(len(body), maxShownBody)]
	}
	return c, cut
}

func newAttempt(a store.Attempt) Attempt {
	out := Attempt{
		Round: a.Round, Number: a.Number, StartedAt: instant(a.StartedAt), TookSeconds: a.Took.Seconds(),
		Class: a.Class.String(), Status: a.Status, Error: a.Error, Probe: a.Probe, RetryHintSeconds: a.RetryHint.Seconds(),
		Timing: Timing{
			DNSSeconds: a.Timing.DNS.Seconds(), ConnectSeconds: a.Timing.Connect.Seconds(), TLSSeconds: a.Timing.TLS.Seconds(),
			FirstByteSeconds: a.Timing.FirstByte.Seconds(), TotalSeconds: a.Took.Seconds(),
		},
		Peer: a.Peer, Reused: a.Reused, CertificateExpiresAt: instant(a.CertExpires),
	}
	if a.Request.Method != "" {
		request := newRequest(a.Request, nil)
		out.Request = &request
	}
	if a.Status != 0 {
		response := Response{Status: a.Status, Headers: recordedHeaders(fields(a.Header)), Truncated: a.Truncated}
		var cut bool
		response.Content, cut = newContent(a.Body)
		response.Truncated = response.Truncated || cut
		out.Response = &response
	}
	return out
}

// newRequest shows a request. The body of the message is shown where that is what was sent; nil leaves it out.
func newRequest(s store.Sent, message []byte) Request {
	out := Request{Method: s.Method, URL: s.URL, Headers: recordedHeaders(s.Header), Truncated: s.Truncated, BodyIsMessage: !s.Rendered}
	body := s.Body
	if out.BodyIsMessage && len(body) == 0 {
		body = message
	}
	var cut bool
	out.Content, cut = newContent(body)
	out.Truncated = out.Truncated || cut
	return out
}

// fields lists the headers of an answer in the order of their names.
func fields(h http.Header) []store.Field {
	list := make([]store.Field, 0, len(h))
	for name, values := range h {
		for _, v := range values {
			list = append(list, store.Field{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(list, func(a, b store.Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// postedHeaders shows header fields as an app has sent them, without the values of those whose name says that they are
// secret.
func postedHeaders(list []store.Field) []Header {
	return maskedHeaders(list, func(f store.Field) bool { return store.SensitiveName(f.Name) })
}

// recordedHeaders shows header fields that were recorded by the sender. They are masked already where it knew what is
// secret, and stay as it left them; what carries a credential is masked here if it was not.
func recordedHeaders(list []store.Field) []Header {
	return maskedHeaders(list, func(f store.Field) bool { return credentialName(f.Name) && !strings.Contains(f.Value, masked) })
}

func maskedHeaders(list []store.Field, secret func(store.Field) bool) []Header {
	out := make([]Header, len(list))
	for i, f := range list {
		out[i] = Header{Name: f.Name, Value: f.Value}
		if secret(f) {
			out[i].Value = masked
		}
	}
	return out
}

// credentialName reports whether a header of that name usually carries a credential.
func credentialName(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "access-key", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// MaskQuery returns a URL, or a path, with *** in place of each value in its query (T32).
func MaskQuery(path string) string {
	before, query, ok := strings.Cut(path, "?")
	if !ok {
		return path
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, _, ok := strings.Cut(pair, "="); ok {
			pairs[i] = name + "=" + masked
		} else if pair != "" {
			pairs[i] = masked // a key alone may be the secret itself
		}
	}
	return before + "?" + strings.Join(pairs, "&")
}
