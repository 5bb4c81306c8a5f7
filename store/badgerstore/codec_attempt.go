package badgerstore

import (
	"encoding/binary"
	"fmt"
	"net/http"

	"github.com/postern-relay/postern/store"
)

// encodeAttempt returns the content of an a value, which has neither the delivery nor round and number: these are in its
// key. Durations are nanoseconds.
//
//	<class 1> <truncated 1> <reused 1> <probe 1> <has a request 1>
//	started at, certificate expires at, status
//	took, retry hint, DNS, connect, TLS, first byte
//	error, peer, body
//	number of names in the answer's header, then of each: name, number of values, values
//
// and of the request, if there was one:
//
//	<rendered 1> <truncated 1> method, URL, body, number of header fields, then of each: name, value
func encodeAttempt(a store.Attempt) []byte {
	f := append(make(fields, 0, 512), byte(a.Class))
	sent := !isZero(a.Request)
	for _, b := range [...]bool{a.Truncated, a.Reused, a.Probe, sent} {
		f.flag(b)
	}
	f.time(a.StartedAt)
	f.time(a.CertExpires)
	f.int(a.Status)
	f.took(a.Took)
	f.took(a.RetryHint)
	f.took(a.Timing.DNS)
	f.took(a.Timing.Connect)
	f.took(a.Timing.TLS)
	f.took(a.Timing.FirstByte)
	f.text(a.Error)
	f.text(a.Peer)
	f.bytes(a.Body)
	f.uint(uint64(len(a.Header)))
	for name, values := range a.Header {
		f.name(name)
		f.uint(uint64(len(values)))
		for _, v := range values {
			f.text(v)
		}
	}
	if sent {
		f.flag(a.Request.Rendered)
		f.flag(a.Request.Truncated)
		f.text(a.Request.Method)
		f.text(a.Request.URL)
		f.bytes(a.Request.Body)
		f.header(a.Request.Header)
	}
	return f
}

// isZero reports whether nothing could be sent.
func isZero(s store.Sent) bool {
	return s.Method == "" && s.URL == "" && len(s.Header) == 0 && len(s.Body) == 0 && !s.Rendered && !s.Truncated
}

// decodeAttempt reads the content of an a value, whose key it also needs.
func decodeAttempt(key, content []byte) (store.Attempt, error) {
	if len(key) != 1+16+2+2 || key[0] != kindAttempt {
		return store.Attempt{}, errBadKey
	}
	r := reading{rest: content}
	a := store.Attempt{
		Delivery: store.DeliveryID(key[1:17]),
		Round:    int(binary.BigEndian.Uint16(key[17:])), Number: int(binary.BigEndian.Uint16(key[19:])),
		Class:     store.Class(r.byte()),
		Truncated: r.flag(), Reused: r.flag(), Probe: r.flag(),
	}
	sent := r.flag()
	a.StartedAt, a.CertExpires, a.Status = r.time(), r.time(), r.int()
	a.Took, a.RetryHint = r.took(), r.took()
	a.Timing = store.Timing{DNS: r.took(), Connect: r.took(), TLS: r.took(), FirstByte: r.took()}
	a.Error, a.Peer, a.Body = r.text(), r.text(), r.bytes()
	if n := r.count(); n > 0 {
		a.Header = make(http.Header, min(n, 64)) // n is only as good as the record
		for range n {
			name := r.name()
			values := make([]string, 0, 1)
			for range r.count() {
				values = append(values, r.text())
			}
			if r.bad {
				break
			}
			a.Header[name] = values
		}
	}
	if sent {
		a.Request = store.Sent{
			Rendered: r.flag(), Truncated: r.flag(), Method: r.text(), URL: r.text(), Body: r.bytes(), Header: r.header(),
		}
	}
	if err := r.end(); err != nil {
		return store.Attempt{}, fmt.Errorf("decode attempt: %w", err)
	}
	return a, nil
}
