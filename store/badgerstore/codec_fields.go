package badgerstore

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/postern-relay/postern/store"
)

// Records are made of fields without names, in a fixed order: numbers as varints, times in milliseconds since the year 1,
// texts and bytes behind their length. They are written and read several times in the life of a message, for which a
// general encoding takes six times as long. What changes here is another format of the store (ring.go).

// fields is a record while it is put together.
type fields []byte

func (f *fields) flag(b bool) {
	if b {
		*f = append(*f, 1)
	} else {
		*f = append(*f, 0)
	}
}

func (f *fields) int(n int)              { *f = binary.AppendVarint(*f, int64(n)) }
func (f *fields) uint(n uint64)          { *f = binary.AppendUvarint(*f, n) }
func (f *fields) time(t time.Time)       { f.uint(stampOf(t)) }
func (f *fields) took(d time.Duration)   { *f = binary.AppendVarint(*f, int64(d)) }
func (f *fields) millis(d time.Duration) { *f = binary.AppendVarint(*f, d.Milliseconds()) }
func (f *fields) text(s string)          { f.uint(uint64(len(s))); *f = append(*f, s...) }
func (f *fields) bytes(b []byte)         { f.uint(uint64(len(b))); *f = append(*f, b...) }
func (f *fields) field(fd store.Field)   { f.name(fd.Name); f.text(fd.Value) }
func (f *fields) header(h []store.Field) {
	f.uint(uint64(len(h)))
	for _, fd := range h {
		f.field(fd)
	}
}

// name writes the name of a header: its number in names, or 0 and the text.
func (f *fields) name(s string) {
	if n, ok := numberOf(s); ok {
		f.uint(n)
		return
	}
	f.uint(0)
	f.text(s)
}

var errFields = errors.New("field out of range")

// reading takes the fields of a record one after the other. From the first that is not there or out of range all are
// zero, and bad is set.
type reading struct {
	rest []byte
	bad  bool
}

func (r *reading) fail() {
	r.rest, r.bad = nil, true
}

// end returns errFields unless all fields were good and nothing is left.
func (r *reading) end() error {
	if r.bad || len(r.rest) > 0 {
		return errFields
	}
	return nil
}

func (r *reading) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reading) flag() bool {
	b := r.byte()
	if b > 1 {
		r.fail()
	}
	return b == 1
}

func (r *reading) int64() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reading) int() int { return int(r.int64()) }

func (r *reading) took() time.Duration { return time.Duration(r.int64()) }

// millis returns a duration of whole milliseconds.
func (r *reading) millis() time.Duration {
	n := r.int64()
	if d := time.Duration(n) * time.Millisecond; d.Milliseconds() == n {
		return d
	}
	r.fail()
	return 0
}

func (r *reading) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reading) time() time.Time { return timeOf(r.uint()) }

// bytes returns part of what is read, and nil for none.
func (r *reading) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.fail()
	}
	if n == 0 || r.bad {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// fill takes as many bytes as b has.
func (r *reading) fill(b []byte) {
	if len(r.rest) < len(b) {
		r.fail()
		return
	}
	r.rest = r.rest[copy(b, r.rest):]
}

func (r *reading) text() string { return string(r.bytes()) }

// count returns how many items follow, each of at least a byte.
func (r *reading) count() int {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reading) header() []store.Field {
	n := r.count()
	if n == 0 {
		return nil
	}
	h := make([]store.Field, 0, min(n, 64)) // n is only as good as the record
	for range n {
		h = append(h, store.Field{Name: r.name(), Value: r.text()})
		if r.bad {
			return nil
		}
	}
	return h
}

func (r *reading) name() string {
	n := r.uint()
	switch {
	case n == 0:
		return r.text()
	case n > uint64(len(names)):
		r.fail()
		return ""
	}
	return names[n-1]
}

// numberOf returns the number of a header in names.
func numberOf(name string) (uint64, bool) {
	at, ok := slices.BinarySearch(names[:], name)
	return uint64(at + 1), ok
}

// names are headers that most requests and answers have: a record holds their numbers, from 1. They are in order, and
// part of the format.
var names = [...]string{
	"Accept", "Accept-Ranges", "Access-Control-Allow-Origin", "Age", "Alt-Svc", "Authorization", "Cache-Control",
	"Cf-Cache-Status", "Cf-Ray", "Connection", "Content-Encoding", "Content-Language", "Content-Length",
	"Content-Security-Policy", "Content-Type", "Date", "Etag", "Expires", "Host", "Idempotency-Key", "Keep-Alive",
	"Last-Modified", "Link", "Location", "Nel", "Postern-Hops", "Postern-Replay", "Pragma", "Referrer-Policy", "Report-To",
	"Retry-After", "Server", "Server-Timing", "Set-Cookie", "Signature", "Signature-Input", "Strict-Transport-Security",
	"Traceparent", "Tracestate", "Transfer-Encoding", "User-Agent", "Vary", "Via", "Webhook-Id", "Webhook-Signature",
	"Webhook-Timestamp", "X-Cache", "X-Content-Type-Options", "X-Correlation-Id", "X-Frame-Options", "X-Github-Event",
	"X-Hub-Signature-256", "X-Powered-By", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset",
	"X-Request-Id", "X-Response-Time", "X-Signature", "X-Xss-Protection",
}
