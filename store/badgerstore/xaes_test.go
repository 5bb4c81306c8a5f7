package badgerstore

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestXAES(t *testing.T) {
	for name, c := range map[string]struct {
		key  byte
		data string
		want string
	}{
		// C2SP, XAES-256-GCM, "Test vectors": one key for each most significant bit of L.
		"most significant bit 0": {1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		"most significant bit 1": {3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		t.Run("the vector of the specification, "+name, func(t *testing.T) {
			nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
			x := newXAES(bytes.Repeat([]byte{c.key}, 32)).derive([xaesPrefix]byte(nonce))
			sealed := x.Seal(nil, nonce[xaesPrefix:], []byte("XAES-256-GCM"), []byte(c.data))
			if got := hex.EncodeToString(sealed); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
