package badgerstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// A log of Badger, .mem or .vlog, is
//
//	<id of Badger's own key 8> <nonce 12> then entries: <meta 1> <user meta 1> <key length> <value length> <expiry> <key> <value> <CRC32C 4>
//
// with lengths and expiry as varints. An entry that is not what its checksum says ends it.
const logHead = 20

// readyLog changes a write-ahead log, which has been set aside, so that Badger can read it up to where it is damaged and
// no further. By itself it refuses one whose head is damaged, although nothing of ours is in that. It allocates what an
// entry says that it takes before it looks at the checksum: a flipped bit makes that gigabytes, or a panic.
func (g *gate) readyLog(name string) (err error) {
	f, err := os.OpenFile(filepath.Join(g.badgerPath(), name), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("check log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("check log: %w", err)
	}
	if info.Size() < logHead {
		return nil // Badger takes it for an empty one
	}
	headed, end, err := checkLog(f, info.Size())
	if err != nil {
		return fmt.Errorf("check log %q: %w", name, err)
	}
	if !headed {
		g.log.Warn("head of a log is damaged and made anew", zap.String("file", name))
		_, err = f.WriteAt(make([]byte, 8), 0)
	}
	if end < info.Size() {
		g.log.Warn("log is damaged and cut", zap.String("file", name), zap.Int64("at_byte", end))
		err = errors.Join(err, f.Truncate(end))
	}
	if !headed || end < info.Size() {
		err = errors.Join(err, f.Sync())
	}
	if err != nil {
		return fmt.Errorf("mend log %q: %w", name, err)
	}
	return nil
}

// checkLog reports whether the head of a log is that of one without Badger's own encryption, and returns where it has to
// be cut so that Badger does not stumble: size if nowhere.
func checkLog(f io.ReaderAt, size int64) (headed bool, end int64, err error) {
	var id [8]byte
	if _, err := f.ReadAt(id[:], 0); err != nil {
		return false, 0, err
	}
	headed = id == [8]byte{}
	from := &counter{in: bufio.NewReaderSize(io.NewSectionReader(f, logHead, size-logHead), 64<<10), at: logHead}
	for {
		end := from.at
		whole, stumbles, err := from.entry(size)
		switch {
		case err != nil:
			return headed, 0, err
		case stumbles:
			return headed, end, nil
		case !whole:
			return headed, size, nil // Badger stops here by itself
		}
	}
}

// counter reads the entries of a log.
type counter struct {
	in  *bufio.Reader
	at  int64
	sum uint32 // CRC32C of what was read since it was zero
}

// ReadByte implements io.ByteReader.
func (c *counter) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.at++
		c.sum = crc32.Update(c.sum, castagnoli(), []byte{b})
	}
	return b, err
}

// entry reads an entry of a log of some size, and reports whether it is whole, or else whether Badger would stumble over
// it.
func (c *counter) entry(size int64) (whole, stumbles bool, err error) {
	c.sum = 0
	var lengths [3]uint64 // of key and value; the third is the expiry
	for i := range len("mu") + len(lengths) {
		switch {
		case i < 2:
			_, err = c.ReadByte()
		default:
			lengths[i-2], err = binary.ReadUvarint(c)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return false, false, nil
		case errors.As(err, new(*fs.PathError)):
			return false, false, err
		case err != nil:
			return false, true, nil // a varint that is too long
		}
	}
	key, value := int64(uint32(lengths[0])), int64(uint32(lengths[1])) // as Badger does
	if key > 1<<16 {
		return false, false, nil
	}
	if key+value+crc32.Size > size-c.at {
		return false, true, nil
	}
	for left := key + value; left > 0; {
		piece, err := c.in.Peek(int(min(left, int64(c.in.Size()))))
		if len(piece) == 0 {
			return false, false, err
		}
		c.sum = crc32.Update(c.sum, castagnoli(), piece)
		n, _ := c.in.Discard(len(piece)) // as many as there are
		left, c.at = left-int64(n), c.at+int64(n)
	}
	var sum [crc32.Size]byte
	if _, err := io.ReadFull(c.in, sum[:]); err != nil {
		return false, false, err
	}
	c.at += crc32.Size
	return binary.BigEndian.Uint32(sum[:]) == c.sum, false, nil
}

// idle reports whether a file of Badger's that holds nothing of ours is as it always is: KEYREGISTRY without a key,
// DISCARD and value logs empty. Badger makes each of them anew if it is missing, and stumbles over one that is damaged.
func idle(path string) (bool, error) {
	raw, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return true, err // not ours to move
	}
	name, from := filepath.Base(path), int64(0)
	switch {
	case name == badger.KeyRegistryFileName:
		text := make([]byte, 16+len(registryText))
		if _, err := io.ReadFull(raw, text); err != nil || info.Size() != int64(len(text)) {
			return false, nil
		}
		return string(text[16:]) == registryText, nil
	case filepath.Ext(name) == ".vlog":
		from = logHead
		id := make([]byte, 8)
		if _, err := io.ReadFull(raw, id); err != nil || info.Size() < from || !zero(id) {
			return false, nil
		}
	default:
		if info.Size() != discardSize {
			return false, nil
		}
	}
	return zeroFrom(raw, from, info.Size())
}

const (
	registryText = "Hello Badger" // behind a nonce of 16 bytes
	discardName  = "DISCARD"
	discardSize  = 1 << 20
)

func zero(raw []byte) bool { return len(bytes.Trim(raw, "\x00")) == 0 }

// zeroFrom reports whether a file holds nothing but zeros from a place on. Holes are not read.
func zeroFrom(f *os.File, from, size int64) (bool, error) {
	all := true
	err := eachData(f, from, size, func(start, end int64) error {
		piece := make([]byte, 64<<10)
		for at := start; at < end && all; at += int64(len(piece)) {
			piece = piece[:min(int64(len(piece)), end-at)]
			if _, err := f.ReadAt(piece, at); err != nil {
				return err
			}
			all = zero(piece)
		}
		return nil
	})
	return all, err
}
