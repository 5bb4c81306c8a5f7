package sign

import (
	"crypto/hmac"
	"hash"
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

// appendProof appends what a recipe makes of the request with this key: its label is the caller's to write.
func (k *keyed) appendProof(dst []byte, r *recipe, id string, unix int64, body []byte) []byte {
	s := k.get()
	defer k.put(s)
	s.buf = r.appendHead(s.buf[:0], id, unix)
	s.mac.Write(s.buf)
	s.mac.Write(body)
	s.buf = s.mac.Sum(s.buf[:0])
	return r.encode(dst, s.buf)
}

// appendSum appends the HMAC of message itself.
func (k *keyed) appendSum(dst, message []byte) []byte {
	s := k.get()
	defer k.put(s)
	s.mac.Write(message)
	return s.mac.Sum(dst)
}
