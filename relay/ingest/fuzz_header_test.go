package ingest

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// FuzzParseHeader holds the headers of a post to: what is taken is within its bounds and can be sent on, what is refused is
// an answer for the client that does not repeat keys, and what is there twice where one counts is refused.
func FuzzParseHeader(f *testing.F) {
	for _, seed := range [][2]string{
		{"Content-Type", "application/json"}, {"Content-Type", "a\tb"}, {"Idempotency-Key", `"a\"b"`}, {"Idempotency-Key", "k"}, {"Postern-Key", "é"},
		{"Postern-Delay", "90s"}, {"Postern-Delay", "721h"}, {"Postern-Deliver-At", "2026-12-24T18:00:00Z"}, {"Prefer", "wait=10, respond-async"},
		{store.HopsHeader, "4"}, {store.HopsHeader, "-1"}, {"Content-Encoding", "gzip"}, {"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{"Tracestate", "a=b"}, {"Baggage", "a=b;c=d"}, {"X_y", "z"},
	} {
		f.Add(seed[0], seed[1], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value, other string) {
		name = http.CanonicalHeaderKey(name)
		p, err := parseHeader(http.Header{name: {value}})
		if err != nil {
			fault, ok := errors.AsType[*problem.Error](err)
			if !ok || fault.Status < 400 || fault.Status > 599 || fault.Detail == "" {
				t.Fatalf("%s: got error %v, want an answer", name, err)
			}
			if name == "Idempotency-Key" && len(value) > 12 && strings.Contains(fault.Detail, value) {
				t.Errorf("the answer repeats the key: %s", fault.Detail)
			}
		} else {
			switch {
			case len(p.contentType) > maxContentType || !printable(p.contentType):
				t.Errorf("%s %q: got the content type %q", name, value, p.contentType)
			case p.hasKey && (p.key == "" || len(p.key) > maxKey) || len(p.order) > store.MaxKey || !printable(p.key+p.order):
				t.Errorf("%s %q: got the keys %q and %q", name, value, p.key, p.order)
			case p.hops < 0 || p.hops > store.MaxHops || p.wait < 0 || p.wait > time.Hour:
				t.Errorf("%s %q: got %d hops, wait %s", name, value, p.hops, p.wait)
			}
			if d, err := p.timing.from(time.Unix(1_800_000_000, 0)); err == nil && (d < 0 || d > maxDelay || d%time.Millisecond != 0) {
				t.Errorf("%s %q: got a delay of %s", name, value, d)
			}
			for _, one := range p.trace {
				if !printable(one.Value) || http.CanonicalHeaderKey(one.Name) != one.Name {
					t.Errorf("%s %q: got the trace context %q", name, value, one)
				}
			}
		}
		switch name {
		case "Content-Type", "Idempotency-Key", orderHeader, delayHeader, atHeader, store.HopsHeader:
			if _, err := parseHeader(http.Header{name: {value, other}}); err == nil {
				t.Errorf("%s is there twice, %q and %q: taken", name, value, other)
			}
		}
	})
}
