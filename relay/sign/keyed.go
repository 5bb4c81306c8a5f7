package sign

import (
	"crypto/hmac"
	"encoding/base64"
	"hash"
	"strconv"
	"sync"
)

// keyed hands out HMAC states of one key. Setting up a state hashes the key twice and allocates; resetting a used
// one does neither, and a relay signs with the same key all day.
type keyed struct {
	pool sync.Pool // of *state
}

type state struct {
	mac hash.Hash
	buf []byte // scratch: what goes through an interface is on the heap, so keep it
}

func newKeyed(algorithm func() hash.Hash, key []byte) *keyed {
	return &keyed{pool: sync.Pool{New: func() any { return &state{mac: hmac.New(algorithm, key)} }}}
}

func (k *keyed) get() *state { return k.pool.Get().(*state) }

func (k *keyed) put(s *state) {
	s.mac.Reset()
	k.pool.Put(s)
}

// appendStandard appends "v1," and the signature of id, timestamp and body.
func (k *keyed) appendStandard(dst []byte, id string, unix int64, body []byte) []byte {
	s := k.get()
	defer k.put(s)
	s.buf = append(s.buf[:0], id...)
	s.buf = append(s.buf, '.')
	s.buf = strconv.AppendInt(s.buf, unix, 10)
	s.buf = append(s.buf, '.')
	s.mac.Write(s.buf)
	s.mac.Write(body)
	s.buf = s.mac.Sum(s.buf[:0])
	dst = append(dst, version1...)
	return base64.StdEncoding.AppendEncode(dst, s.buf)
}

// appendBody appends prefix and the encoded signature of the body alone.
func (k *keyed) appendBody(dst []byte, prefix string, encode func(dst, sum []byte) []byte, body []byte) []byte {
	s := k.get()
	defer k.put(s)
	s.mac.Write(body)
	s.buf = s.mac.Sum(s.buf[:0])
	dst = append(dst, prefix...)
	return encode(dst, s.buf)
}
