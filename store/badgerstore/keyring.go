package badgerstore

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/postern-relay/postern/store"
)

// An encrypted value is
//
//	<format 2> <id of the key 8> <nonce 24> <content, sealed by XAES-256-GCM with the tag 16>
//
// in place of the checksum: what has been changed, or moved to another key of the database, does not open. The key of
// the database is authenticated along with it, and stays readable, as do values that are empty and the notes of commit
// groups, which are two numbers. Anything else that is not encrypted counts as damaged in an encrypted store, so that
// nobody can slip in a value without the key.
const (
	lockedFormat   = 2
	lockedHead     = 1 + len(keyID{}) + xaesNonce
	lockedOverhead = lockedHead + gcmTag - valueOverhead // bytes by which an encrypted value is longer
)

// keyID is the fingerprint of a key.
type keyID [8]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// parseKeyID reads what String wrote.
func parseKeyID(text string) (id keyID, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) || hex.EncodeToString(raw) != text {
		return id, errors.New("malformed id of a key")
	}
	return keyID(raw), nil
}

// mostKeys is how many keys a store takes at a time.
const mostKeys = 16

// keyring encrypts values, and opens them. One without keys leaves them as they are. Its methods may be called from
// several goroutines.
type keyring struct {
	given []store.Key
	ids   []keyID // of given: the first encrypts; empty for a store that is not encrypted
	keys  map[keyID]*xaes

	// The nonces of one process have the same prefix, by chance another than those of any other process, and count from
	// there: so they differ, and the derived key is made once.
	prefix [xaesPrefix]byte
	writer cipher.AEAD
	count  atomic.Uint64

	mu      sync.RWMutex // guards readers
	readers map[readerKey]cipher.AEAD
}

// readerKey names a derived key: there is one for each key and each process that has written with it.
type readerKey struct {
	id     keyID
	prefix [xaesPrefix]byte
}

// mostReaders bounds the derived keys that are kept, of half a KiB each.
const mostReaders = 512

// purpose is what a keyring's keys are derived for: what is of one place never opens in another.
type purpose string

const (
	forValues purpose = "values, XAES-256-GCM"
	forBackup purpose = "backup, XAES-256-GCM"
)

// newKeyring takes keys, the first of which encrypts. Without any, nothing is encrypted.
func newKeyring(keys []store.Key, p purpose) (*keyring, error) {
	if len(keys) > mostKeys {
		return nil, fmt.Errorf("%d encryption keys; a store takes %d at most", len(keys), mostKeys)
	}
	r := &keyring{given: slices.Clone(keys), keys: make(map[keyID]*xaes), readers: make(map[readerKey]cipher.AEAD)}
	for n, k := range keys {
		if !k.IsSet() {
			return nil, fmt.Errorf("encryption key %d is empty", n+1)
		}
		id, err := parseKeyID(k.Fingerprint())
		if err != nil {
			return nil, err
		}
		if r.keys[id] != nil {
			return nil, fmt.Errorf("encryption key %d is there twice (%s)", n+1, id)
		}
		r.ids, r.keys[id] = append(r.ids, id), newXAES(k.Derive(string(p), 32))
	}
	if len(r.ids) > 0 {
		_, _ = rand.Read(r.prefix[:]) // never returns an error, see its documentation
		r.writer = r.keys[r.ids[0]].derive(r.prefix)
	}
	return r, nil
}

// forPurpose returns one of the same keys for another purpose.
func (r *keyring) forPurpose(p purpose) (*keyring, error) { return newKeyring(r.given, p) }

// encrypts reports whether there is a key.
func (r *keyring) encrypts() bool { return len(r.ids) > 0 }

// has reports whether the key is there.
func (r *keyring) has(id keyID) bool { return slices.Contains(r.ids, id) }

// isOpen reports whether the value of a key stays readable in an encrypted store.
func isOpen(key, value []byte) bool { return len(value) == 0 || len(key) > 0 && key[0] == kindCommit }

// lock encrypts a value of seal for what it is stored under.
func (r *keyring) lock(key, value []byte) []byte {
	if !r.encrypts() || isOpen(key, value) {
		return value
	}
	content := value[1 : len(value)-(valueOverhead-1)]
	return r.sealTo(make([]byte, 0, lockedHead+len(content)+gcmTag), lockedFormat, content, key)
}

// sealTo appends an encrypted value to out.
func (r *keyring) sealTo(out []byte, format byte, content, data []byte) []byte {
	var nonce [gcmNonce]byte
	binary.BigEndian.PutUint64(nonce[4:], r.count.Add(1))
	out = append(append(append(out, format), r.ids[0][:]...), r.prefix[:]...)
	out = append(out, nonce[:]...)
	return r.writer.Seal(out, nonce[:], content, data)
}

var (
	errNoKey   = errors.New("value is encrypted with a key that is not there")
	errPlain   = errors.New("value is not encrypted, in an encrypted store: the record is damaged")
	errAltered = errors.New("value does not open: the record is damaged")
)

// unlock returns the content of a value that was read from key: part of the value, or a copy.
func (r *keyring) unlock(key, value []byte) ([]byte, error) {
	if len(value) == 0 || value[0] != lockedFormat {
		if r.encrypts() && !isOpen(key, value) {
			return nil, errPlain
		}
		return unseal(key, value)
	}
	if !r.encrypts() {
		// The byte may be damage, too.
		return nil, errors.Join(errChecksum, errNoKey)
	}
	return r.open(value, key)
}

// open is the reverse of sealTo. What it returns is a copy, and not nil without an error.
func (r *keyring) open(value, data []byte) ([]byte, error) {
	if len(value) < lockedHead+gcmTag {
		return nil, errAltered
	}
	name := readerKey{id: lockedBy(value)}
	copy(name.prefix[:], value[1+len(name.id):])
	aead := r.reader(name)
	if aead == nil {
		return nil, fmt.Errorf("%w (%s)", errNoKey, name.id)
	}
	// Never nil, which says that there is no such record: what stands in the sweep's index is empty.
	content := make([]byte, 0, len(value)-lockedHead-gcmTag)
	content, err := aead.Open(content, value[lockedHead-gcmNonce:lockedHead], value[lockedHead:], data)
	if err != nil {
		return nil, errAltered
	}
	return content, nil
}

// lockedBy returns the id in an encrypted value, or the zero id.
func lockedBy(value []byte) (id keyID) {
	if len(value) >= lockedHead && value[0] == lockedFormat {
		copy(id[:], value[1:])
	}
	return id
}

// reader returns what opens values of one derived key, or nil without the key it comes from.
func (r *keyring) reader(name readerKey) cipher.AEAD {
	r.mu.RLock()
	aead := r.readers[name]
	r.mu.RUnlock()
	if aead != nil {
		return aead
	}
	key := r.keys[name.id]
	if key == nil {
		return nil
	}
	aead = key.derive(name.prefix)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.readers) >= mostReaders {
		clear(r.readers)
	}
	r.readers[name] = aead
	return aead
}
