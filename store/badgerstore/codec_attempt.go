package badgerstore

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/postern-relay/postern/store"
)

// attemptRecord is the stored form of an attempt, without what its key says. Durations are nanoseconds.
type attemptRecord struct {
	StartedAt   stamp         `cbor:"1,keyasint,omitempty"`
	Took        time.Duration `cbor:"2,keyasint,omitempty"`
	Class       store.Class   `cbor:"3,keyasint,omitempty"`
	Status      int           `cbor:"4,keyasint,omitempty"`
	Error       string        `cbor:"5,keyasint,omitempty"`
	Header      http.Header   `cbor:"6,keyasint,omitempty"`
	Body        []byte        `cbor:"7,keyasint,omitempty"`
	Truncated   bool          `cbor:"8,keyasint,omitempty"`
	RetryHint   time.Duration `cbor:"9,keyasint,omitempty"`
	DNS         time.Duration `cbor:"10,keyasint,omitempty"`
	Connect     time.Duration `cbor:"11,keyasint,omitempty"`
	TLS         time.Duration `cbor:"12,keyasint,omitempty"`
	FirstByte   time.Duration `cbor:"13,keyasint,omitempty"`
	Peer        string        `cbor:"14,keyasint,omitempty"`
	Reused      bool          `cbor:"15,keyasint,omitempty"`
	CertExpires stamp         `cbor:"16,keyasint,omitempty"`
	Probe       bool          `cbor:"17,keyasint,omitempty"`
	Request     *sentRecord   `cbor:"18,keyasint,omitempty"` // nil for one that could not be sent
}

// sentRecord is the stored form of a request as it was sent.
type sentRecord struct {
	Method    string        `cbor:"1,keyasint,omitempty"`
	URL       string        `cbor:"2,keyasint,omitempty"`
	Header    []fieldRecord `cbor:"3,keyasint,omitempty"`
	Body      []byte        `cbor:"4,keyasint,omitempty"`
	Rendered  bool          `cbor:"5,keyasint,omitempty"`
	Truncated bool          `cbor:"6,keyasint,omitempty"`
}

func recordOfSent(s store.Sent) *sentRecord {
	r := sentRecord{Method: s.Method, URL: s.URL, Body: s.Body, Rendered: s.Rendered, Truncated: s.Truncated}
	if r.Method == "" && r.URL == "" && len(s.Header) == 0 && len(r.Body) == 0 && !r.Rendered && !r.Truncated {
		return nil
	}
	if len(s.Header) > 0 {
		r.Header = make([]fieldRecord, len(s.Header))
		for i, f := range s.Header {
			r.Header[i] = fieldRecord{Name: f.Name, Value: f.Value}
		}
	}
	return &r
}

func (r *sentRecord) sent() store.Sent {
	if r == nil {
		return store.Sent{}
	}
	s := store.Sent{Method: r.Method, URL: r.URL, Rendered: r.Rendered, Truncated: r.Truncated}
	if len(r.Body) > 0 {
		s.Body = r.Body
	}
	for _, f := range r.Header {
		s.Header = append(s.Header, store.Field{Name: f.Name, Value: f.Value})
	}
	return s
}

func encodeAttempt(a store.Attempt) ([]byte, error) {
	raw, err := cbor.Marshal(attemptRecord{
		StartedAt: stamp(stampOf(a.StartedAt)), Took: a.Took, Class: a.Class, Status: a.Status, Error: a.Error,
		Header: a.Header, Body: a.Body, Truncated: a.Truncated, RetryHint: a.RetryHint,
		DNS: a.Timing.DNS, Connect: a.Timing.Connect, TLS: a.Timing.TLS, FirstByte: a.Timing.FirstByte,
		Peer: a.Peer, Reused: a.Reused, CertExpires: stamp(stampOf(a.CertExpires)), Probe: a.Probe,
		Request: recordOfSent(a.Request),
	})
	if err != nil {
		return nil, fmt.Errorf("encode attempt: %w", err)
	}
	return raw, nil
}

// decodeAttempt reads the content of an a value, whose key it also needs.
func decodeAttempt(key, content []byte) (store.Attempt, error) {
	if len(key) != 1+16+2+2 || key[0] != kindAttempt {
		return store.Attempt{}, errBadKey
	}
	var r attemptRecord
	if err := decoder.Unmarshal(content, &r); err != nil {
		return store.Attempt{}, fmt.Errorf("decode attempt: %w", err)
	}
	return store.Attempt{
		Delivery: store.DeliveryID(key[1:17]),
		Round:    int(binary.BigEndian.Uint16(key[17:])), Number: int(binary.BigEndian.Uint16(key[19:])),
		StartedAt: r.StartedAt.time(), Took: r.Took, Class: r.Class, Status: r.Status, Error: r.Error,
		Header: r.Header, Body: r.Body, Truncated: r.Truncated, RetryHint: r.RetryHint,
		Timing: store.Timing{DNS: r.DNS, Connect: r.Connect, TLS: r.TLS, FirstByte: r.FirstByte},
		Peer:   r.Peer, Reused: r.Reused, CertExpires: r.CertExpires.time(), Probe: r.Probe,
		Request: r.Request.sent(),
	}, nil
}
