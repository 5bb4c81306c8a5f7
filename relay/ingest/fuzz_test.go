package ingest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

func FuzzParseLine(f *testing.F) {
	for _, seed := range []string{
		`{"to":"alerts","data":1}`,
		`{"event":"a.b","data":{"x":[1,"y",null]},"id":"i","key":"k","delay":"90s","headers":{"X-A":"1","x-b":" 2 "}}`,
		`{"data":"\u0041","to":"a","deliver_at":"2026-12-24T18:00:00Z"}`,
		`{"to":"a","data":1,"delay":3}`, `{"to":"a","data":1,"delay":-3}`, `{"to":"a","to":"b","data":1}`, `{"to":"\ud83d","data":1}`,
		`{"to":"a","data":1}{}`, `[]`, `{`, "{\"to\":\"\xff\",\"data\":1}", ` {"to" : "a" , "data" : [ ] } `, `{"to":"a","data":1,"headers":{"Host":"x"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := parseLine(bytes.Clone(raw))
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("parseLine(%q): got error %q, want text", raw, err)
			}
			return
		}
		// Whatever is taken means the same to encoding/json.
		var same struct {
			To, Event, ID, Key string
			Data               json.RawMessage
			Headers            map[string]string
		}
		if err := json.Unmarshal(raw, &same); err != nil {
			t.Fatalf("parseLine(%q): taken, but encoding/json says %v", raw, err)
		}
		if l.to != same.To || l.event != same.Event || l.id != same.ID || l.key != same.Key || !bytes.Equal(l.data, same.Data) {
			t.Errorf("parseLine(%q): got %+v, want %+v", raw, l, same)
		}
		if (l.to == "") == (l.event == "") || len(l.id) > maxKey || len(l.key) > store.MaxKey || !printable(l.id+l.key) || len(l.header) != len(same.Headers) {
			t.Errorf("parseLine(%q): got %+v, want it within bounds", raw, l)
		}
		if l.event != "" && match.CheckEvent(l.event) != nil {
			t.Errorf("parseLine(%q): got event %q, want a good one", raw, l.event)
		}
		for name, values := range l.header {
			if len(values) != 1 || !travels(name) || http.CanonicalHeaderKey(name) != name || !httpguts.ValidHeaderFieldName(name) ||
				!httpguts.ValidHeaderFieldValue(values[0]) {
				t.Errorf("parseLine(%q): got header %q: %q, want one that may be sent on", raw, name, values)
			}
		}
		if _, err := l.timing.from(time.Unix(1_800_000_000, 0)); err != nil && l.timing.at.IsZero() {
			t.Errorf("parseLine(%q): got a delay that is refused later: %v", raw, err)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n  \nc"), 10)
	f.Add([]byte("\n\n"), 3)
	f.Add([]byte(strings.Repeat("x", 100)+"\n"), 50)
	f.Add([]byte(strings.Repeat("line\n", 10_000)), 8)
	f.Add([]byte(strings.Repeat("x", 40_000)+"\nend"), 70_000)
	f.Fuzz(func(t *testing.T, text []byte, limit int) {
		if limit < 1 || limit > 1<<20 {
			return
		}
		for name, in := range map[string]io.Reader{
			"at once": bytes.NewReader(text), "by halves": iotest.HalfReader(bytes.NewReader(text)), "with its end": iotest.DataErrReader(bytes.NewReader(text)),
		} {
			h := &Handler{}
			memory := &share{h: h}
			l := lineReader{in: in, limit: limit, memory: memory}
			for n, want := range bytes.Split(text, []byte("\n")) {
				if want = bytes.Trim(want, " \t\r"); len(want) == 0 {
					continue
				}
				got, err := l.next()
				if err != nil && len(text) >= limit {
					break // a line is too long, or may be with what is around it
				}
				if err != nil || !bytes.Equal(got, want) || l.number != n+1 {
					t.Fatalf("%s: got line %d %q and %v, want line %d %q", name, l.number, got, err, n+1, want)
				}
			}
			if len(text) < limit {
				if got, err := l.next(); err != io.EOF {
					t.Errorf("%s: got %q and %v at the end, want EOF", name, got, err)
				}
			}
			if len(l.buf) > max(limit, freeBody) || int64(len(l.buf)) > max(h.load().bodies.Load(), freeBody) {
				t.Errorf("%s: got a buffer of %d bytes with %d taken, want it within %d and all of it taken", name, len(l.buf), h.load().bodies.Load(), limit)
			}
			if memory.release(); h.load().bodies.Load() != 0 {
				t.Errorf("%s: got %d bytes that were not given back", name, h.load().bodies.Load())
			}
		}
	})
}

func FuzzCloudEvent(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":{"x":1}}`,
		`{"specversion":"1.0","id":"\u00e4","source":"urn:x","type":"a","data_base64":"AA==","ext":null}`,
		`{"specversion":"1.0","id":"","source":"","type":""}`, `{"data":1,"data_base64":""}`, `[]`, `{"id":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseStructured(bytes.Clone(raw))
		if err == nil {
			var same map[string]any
			if err := json.Unmarshal(raw, &same); err != nil {
				t.Fatalf("parseStructured(%q): taken, but encoding/json says %v", raw, err)
			}
			if same["id"] != e.id || same["source"] != e.source || same["type"] != e.kind || same["specversion"] != "1.0" || match.CheckEvent(e.kind) != nil {
				t.Errorf("parseStructured(%q): got %+v, want %v", raw, e, same)
			}
		}
		// The same bytes as a batch of one come out as they were, or are refused as they were.
		h := &Handler{}
		memory := &share{h: h}
		b := newCloudBatch(iotest.HalfReader(io.MultiReader(strings.NewReader(" ["), bytes.NewReader(raw), strings.NewReader("]"))), header{}, 1<<20, memory)
		in, place, batchErr := b.next()
		if err == nil {
			if batchErr != nil || place != 1 || !bytes.Equal(in.post.Body, bytes.Trim(raw, " \t\r\n")) || in.post.Event != e.kind {
				t.Errorf("batch of %q: got %q at %d and %v, want it as alone", raw, in.post.Body, place, batchErr)
			}
			if _, _, err := b.next(); err != io.EOF {
				t.Errorf("batch of %q: got %v behind it, want EOF", raw, err)
			}
		}
		memory.release()
	})
}

func FuzzDecodeAttribute(f *testing.F) {
	for _, seed := range []string{"a", "Euro%20%E2%82%AC", `"a \" b"`, `a"b"c`, "%C0%A0", "%", `"`, `"\`, "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := decodeAttribute(s)
		if err != nil {
			return
		}
		if !utf8.ValidString(text) {
			t.Errorf("decodeAttribute(%q): got %q, want UTF-8", s, text)
		}
		// Encoded as the binding says, it reads back.
		var b strings.Builder
		for i := range len(text) {
			if c := text[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '%' {
				b.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789abcdef"[c&15]))
			} else {
				b.WriteByte(c)
			}
		}
		if again, err := decodeAttribute(b.String()); err != nil || again != text {
			t.Errorf("decodeAttribute(%q): got %q and %v, want %q", b.String(), again, err, text)
		}
	})
}
