package badgerstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/postern-relay/postern/store"
)

// A backup is
//
//	postern backup 1\n
//	frames: <kind 1> <length 4> <payload> <SHA-256 of all before 32>
//
// The first frame (h) is the header, in JSON. Those behind it (r) hold records, in the order of their keys: <length>
// <key> <length> <content>, the lengths as uvarints. The last (e) holds the counts, in JSON, and nothing follows it. So
// what was cut, changed or mixed up anywhere is noticed before it is used.
//
// A backup of an encrypted store is encrypted, by the store's own key: the payloads of r and e are values as a keyring
// seals them, with the SHA-256 of the header and the number of the frame authenticated along, so that nobody without
// the key can make one or move a frame. A backup of a store without encryption has checksums only.
const (
	backupMagic = "postern backup 1\n"

	frameHeader  = 'h'
	frameRecords = 'r'
	frameEnd     = 'e'

	backupBlock = 256 << 10 // bytes of records that are gathered in a frame
	maxFrame    = 4 << 20   // a record may be alone in its frame
	maxBackKey  = 65_000    // Badger's own bound
)

// ErrBackup says that something is no backup, or not a whole one.
var ErrBackup = errors.New("not a whole backup")

// backupHeader says what a backup is of.
type backupHeader struct {
	CreatedAt   time.Time `json:"created_at"`
	Format      int       `json:"store_format"`
	Key         string    `json:"key,omitempty"` // fingerprint; empty if it is not encrypted
	IncludeKeys bool      `json:"include_keys"`
}

// backupEnd is the last frame.
type backupEnd struct {
	Counts store.BackupCounts `json:"counts"`
}

// inBackup reports whether the records of a kind are in a backup: always, or only with what is secret by itself. Notes
// of commit groups and the format are made anew. A kind that is not listed counts as secret.
func inBackup(kind byte, includeKeys bool) bool {
	switch kind {
	case kindCommit, kindFormat:
		return false
	}
	return includeKeys || strings.IndexByte(backupKinds, kind) >= 0
}

// backupKinds are the kinds of key that every backup holds.
var backupKinds = string([]byte{
	kindMessage, kindChunk, kindBatch, kindQueue, kindLine, kindWaiting, kindBlocked, kindDelivery, kindAttempt, kindEnded,
	kindIdempotency, kindPause, kindOutage, kindIndex, kindSkew,
})

// countRecord adds a record to the counts of a backup.
func countRecord(c *store.BackupCounts, key []byte) {
	c.Records++
	switch kind := key[0]; kind {
	case kindMessage:
		c.Messages++
	case kindQueue, kindWaiting:
		c.Pending++
	case kindAttempt:
		c.Attempts++
	default:
		if !inBackup(kind, false) {
			c.Keys++
		}
	}
}

// backupWriter writes a backup.
type backupWriter struct {
	out    *bufio.Writer
	sum    hash.Hash // of all that was written
	keys   *keyring
	head   [sha256.Size]byte // of the header
	frames uint64
	block  []byte
	counts store.BackupCounts
}

func newBackupWriter(w io.Writer, keys *keyring, h backupHeader) (*backupWriter, error) {
	b := &backupWriter{out: bufio.NewWriterSize(w, 64<<10), sum: sha256.New(), keys: keys}
	if keys.encrypts() {
		h.Key = keys.ids[0].String()
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	b.head = sha256.Sum256(raw)
	if err := b.write([]byte(backupMagic)); err != nil {
		return nil, err
	}
	return b, b.frame(frameHeader, raw)
}

func (b *backupWriter) write(p []byte) error {
	_, _ = b.sum.Write(p) // a hash takes everything
	_, err := b.out.Write(p)
	return err
}

// frame writes one frame as it is.
func (b *backupWriter) frame(kind byte, payload []byte) error {
	b.frames++
	if err := b.write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))); err != nil {
		return err
	}
	if err := b.write(payload); err != nil {
		return err
	}
	return b.write(b.sum.Sum(nil))
}

// sealed writes a frame, encrypted if the backup is.
func (b *backupWriter) sealed(kind byte, payload []byte) error {
	if b.keys.encrypts() {
		payload = b.keys.sealTo(nil, lockedFormat, payload, frameData(b.head, b.frames, kind))
	}
	return b.frame(kind, payload)
}

// frameData is what is authenticated along with a frame.
func frameData(head [sha256.Size]byte, number uint64, kind byte) []byte {
	return append(binary.BigEndian.AppendUint64(head[:], number), kind)
}

// put adds a record. Keys ascend.
func (b *backupWriter) put(key, content []byte) error {
	b.block = append(binary.AppendUvarint(b.block, uint64(len(key))), key...)
	b.block = append(binary.AppendUvarint(b.block, uint64(len(content))), content...)
	countRecord(&b.counts, key)
	if len(b.block) < backupBlock {
		return nil
	}
	return b.flush()
}

func (b *backupWriter) flush() error {
	if len(b.block) == 0 {
		return nil
	}
	err := b.sealed(frameRecords, b.block)
	b.block = b.block[:0]
	return err
}

// end completes the backup.
func (b *backupWriter) end() error {
	if err := b.flush(); err != nil {
		return err
	}
	raw, err := json.Marshal(backupEnd{Counts: b.counts})
	if err != nil {
		return fmt.Errorf("encode counts: %w", err)
	}
	if err := b.sealed(frameEnd, raw); err != nil {
		return err
	}
	return b.out.Flush()
}

// backupReader reads a backup.
type backupReader struct {
	in     *bufio.Reader
	sum    hash.Hash
	keys   *keyring
	head   [sha256.Size]byte
	frames uint64
	header backupHeader
	last   []byte // key of the last record
	counts store.BackupCounts
}

// openBackup reads the header of a backup. keys are to open it with. Errors that say that it is none wrap ErrBackup; one
// of the keys is a *KeyError.
func openBackup(r io.Reader, keys []store.Key) (*backupReader, error) {
	b, err := openSums(r)
	if err != nil {
		return nil, err
	}
	if b.header.Format != formatVersion {
		return nil, fmt.Errorf("backup is of a store of format %d, and this program reads %d; use the version of Postern that made it",
			b.header.Format, formatVersion)
	}
	if b.header.Key == "" {
		b.keys, err = newKeyring(nil, forBackup)
		return b, err
	}
	if b.keys, err = newKeyring(keys, forBackup); err != nil {
		return nil, err
	}
	if id, err := parseKeyID(b.header.Key); err != nil {
		return nil, fmt.Errorf("%w: its header cannot be read", ErrBackup)
	} else if !b.keys.has(id) {
		return nil, &KeyError{Needed: []string{b.header.Key}, Reason: "it is encrypted with the key " + b.header.Key +
			", which has not been given; set store.encryption_key, or name a file with the key by --key-file"}
	}
	return b, nil
}

// openSums reads the header of a backup, of which nothing but the sums can be checked without the keys.
func openSums(r io.Reader) (*backupReader, error) {
	b := &backupReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	magic := make([]byte, len(backupMagic))
	if err := b.read(magic); err != nil {
		return nil, err
	}
	if string(magic) != backupMagic {
		if bytes.HasPrefix(magic, []byte("postern backup ")) {
			return nil, fmt.Errorf("%w: it has another format; use the version of Postern that made it, or a later one", ErrBackup)
		}
		return nil, fmt.Errorf("%w: it does not begin like one", ErrBackup)
	}
	kind, raw, err := b.frame()
	if err == nil && kind != frameHeader {
		err = fmt.Errorf("%w: its header is missing", ErrBackup)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &b.header); err != nil {
		return nil, fmt.Errorf("%w: its header cannot be read", ErrBackup)
	}
	b.head = sha256.Sum256(raw)
	return b, nil
}

// read fills p. What ends before is no whole backup.
func (b *backupReader) read(p []byte) error {
	_, err := io.ReadFull(b.in, p)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends early", ErrBackup)
	case err != nil:
		return fmt.Errorf("read backup: %w", err)
	}
	_, _ = b.sum.Write(p)
	return nil
}

// frame reads one frame and checks its sum.
func (b *backupReader) frame() (kind byte, payload []byte, err error) {
	var head [5]byte
	if err := b.read(head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("%w: frame %d is damaged", ErrBackup, b.frames)
	}
	// A size that is damage is not allocated at once.
	payload, err = io.ReadAll(io.LimitReader(b.in, int64(size)))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("read backup: %w", err)
	case len(payload) != int(size):
		return 0, nil, fmt.Errorf("%w: it ends early", ErrBackup)
	}
	_, _ = b.sum.Write(payload)
	want := b.sum.Sum(nil)
	got := make([]byte, len(want))
	if err := b.read(got); err != nil {
		return 0, nil, err
	}
	if !bytes.Equal(got, want) {
		return 0, nil, fmt.Errorf("%w: frame %d is damaged", ErrBackup, b.frames)
	}
	b.frames++
	return head[0], payload, nil
}

// each calls put for each record, and returns when the end of the backup has been read and its counts are right. Key and
// content are only good until put returns.
func (b *backupReader) each(put func(key, content []byte) error) error {
	for {
		number := b.frames
		kind, payload, err := b.frame()
		if err == nil && b.keys.encrypts() {
			if payload, err = b.keys.open(payload, frameData(b.head, number, kind)); err != nil {
				err = fmt.Errorf("%w: frame %d does not open", ErrBackup, number)
			}
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameRecords:
			if err := b.records(payload, put); err != nil {
				return err
			}
		case frameEnd:
			return b.end(payload)
		default:
			return fmt.Errorf("%w: frame %d is of no known kind", ErrBackup, number)
		}
	}
}

func (b *backupReader) records(payload []byte, put func(key, content []byte) error) error {
	for len(payload) > 0 {
		key, rest, ok := cutField(payload, maxBackKey)
		content, rest, more := cutField(rest, valueThreshold)
		if !ok || !more || len(key) == 0 || !inBackup(key[0], b.header.IncludeKeys) {
			return fmt.Errorf("%w: a record cannot be read", ErrBackup)
		}
		if bytes.Compare(key, b.last) <= 0 {
			return fmt.Errorf("%w: its records are not in order", ErrBackup)
		}
		b.last = append(b.last[:0], key...)
		countRecord(&b.counts, key)
		if err := put(key, content); err != nil {
			return err
		}
		payload = rest
	}
	return nil
}

// cutField takes a field of at most limit bytes off, behind its length.
func cutField(raw []byte, limit uint64) (field, rest []byte, ok bool) {
	size, n := binary.Uvarint(raw)
	if n <= 0 || size > limit || size > uint64(len(raw)-n) {
		return nil, nil, false
	}
	return raw[n : n+int(size)], raw[n+int(size):], true
}

func (b *backupReader) end(payload []byte) error {
	var end backupEnd
	if err := json.Unmarshal(payload, &end); err != nil {
		return fmt.Errorf("%w: its end cannot be read", ErrBackup)
	}
	// What was left out as damaged is not there to be counted.
	want := end.Counts
	want.Damaged = 0
	if b.counts != want {
		return fmt.Errorf("%w: it has %+v, and its end says %+v", ErrBackup, b.counts, want)
	}
	b.counts.Damaged = end.Counts.Damaged
	return b.atEnd()
}

// atEnd returns an error if anything is left to read.
func (b *backupReader) atEnd() error {
	switch _, err := b.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrBackup)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read backup: %w", err)
	}
	return nil
}
