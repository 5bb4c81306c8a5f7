package badgerstore

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// xaes is XAES-256-GCM (C2SP, XAES-256-GCM v1): AES-256-GCM under a key that is derived, by the counter-mode KDF of
// NIST SP 800-108 with CMAC, from a key and the first half of a nonce of 24 bytes. With so long a nonce chance never
// makes the same twice, where the 12 bytes of GCM allow 2^32 messages under a key, which a busy relay writes in days.
// It is immutable.
type xaes struct {
	block cipher.Block
	mask  [aes.BlockSize]byte // K1 of CMAC (NIST SP 800-38B, section 6.1)
}

const (
	xaesPrefix = 12 // bytes of a nonce that choose the derived key
	xaesNonce  = xaesPrefix + gcmNonce
	gcmNonce   = 12
	gcmTag     = 16
)

// newXAES takes a key of 32 bytes.
func newXAES(key []byte) *xaes {
	if len(key) != 32 {
		panic(fmt.Sprintf("badgerstore: key of %d bytes", len(key)))
	}
	x := &xaes{block: mustAES(key)}
	x.block.Encrypt(x.mask[:], x.mask[:])
	var carry byte
	for i := len(x.mask) - 1; i >= 0; i-- {
		x.mask[i], carry = x.mask[i]<<1|carry, x.mask[i]>>7
	}
	x.mask[len(x.mask)-1] ^= carry * 0b10000111
	return x
}

// derive returns what seals and opens with nonces that begin with prefix; it takes the 12 bytes behind that.
func (x *xaes) derive(prefix [xaesPrefix]byte) cipher.AEAD {
	key := make([]byte, 0, 32)
	for i := range 2 {
		in := [aes.BlockSize]byte{0, byte(i + 1), 'X', 0}
		copy(in[4:], prefix[:])
		for j := range in {
			in[j] ^= x.mask[j]
		}
		var out [aes.BlockSize]byte
		x.block.Encrypt(out[:], in[:])
		key = append(key, out[:]...)
	}
	aead, err := cipher.NewGCM(mustAES(key))
	if err != nil {
		panic(fmt.Sprintf("badgerstore: %v", err)) // only for another size of block
	}
	return aead
}

func mustAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(fmt.Sprintf("badgerstore: %v", err)) // only for another size of key
	}
	return block
}
