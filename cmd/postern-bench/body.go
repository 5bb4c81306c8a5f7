package main

import (
	"encoding/base64"
	"math/rand/v2"
	"time"
)

// A body is a JSON document whose text does not compress well and is another one in each message:
//
//	{"posted_at":"01763743212000000000","text":"…"}
const (
	bodyHead   = `{"posted_at":"`
	bodyMiddle = `","text":"`
	bodyTail   = `"}`
	digits     = 20 // of a time, nanoseconds since 1970
	textAt     = len(bodyHead) + digits + len(bodyMiddle)
	leastBody  = textAt + 16 + len(bodyTail)
)

// bodies makes bodies of one size. It is for one goroutine.
type bodies struct {
	text []byte // long; each body has a part of it
	at   int
	size int // of the text of a body
}

func newBodies(size int, seed uint64) *bodies {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
	raw := make([]byte, 64<<10)
	_, _ = random.Read(raw) // never fails
	b := &bodies{text: []byte(base64.RawURLEncoding.EncodeToString(raw)), size: max(size, leastBody) - textAt - len(bodyTail)}
	for len(b.text) < 2*b.size+101 {
		b.text = append(b.text, b.text...)
	}
	return b
}

// length returns the length of a body.
func (b *bodies) length() int { return textAt + b.size + len(bodyTail) }

// append appends the next body, with the present time in it.
func (b *bodies) append(to []byte) []byte {
	to = append(to, bodyHead...)
	to = appendDigits(to, time.Now().UnixNano())
	to = append(to, bodyMiddle...)
	to = append(to, b.text[b.at:b.at+b.size]...)
	b.at = (b.at + 101) % (len(b.text) - b.size)
	return append(to, bodyTail...)
}

func appendDigits(to []byte, n int64) []byte {
	at := len(to)
	to = append(to, "00000000000000000000"[:digits]...)
	for i := at + digits - 1; n > 0; i-- {
		to[i] = byte('0' + n%10)
		n /= 10
	}
	return to
}

// postedAt reads the time of a body from its beginning.
func postedAt(body []byte) (time.Time, bool) {
	if len(body) < len(bodyHead)+digits || string(body[:len(bodyHead)]) != bodyHead {
		return time.Time{}, false
	}
	var n int64
	for _, c := range body[len(bodyHead) : len(bodyHead)+digits] {
		if c < '0' || c > '9' {
			return time.Time{}, false
		}
		n = n*10 + int64(c-'0')
	}
	return time.Unix(0, n), true
}
