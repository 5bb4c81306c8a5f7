package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// sideFile holds the number of the last commit group outside of Badger, so that an end that Badger lost can be seen.
// The number is written before a group is answered, which survives an end of the process; it is synced a little
// later, so after an end of the machine it may be up to syncEvery old, and only what came before it is checked.
//
// There are two slots of {format 4, number 8, CRC32C 4}, written in turn, so a torn write costs one of them.
type sideFile struct {
	f    *os.File
	next int64 // the slot to write; owned by the committer

	wake chan struct{} // a write is to be synced
	stop chan struct{}
	done sync.WaitGroup
}

const (
	sideFormat = 0x50486d31 // "PHm1"
	sideSlot   = 16
	syncEvery  = 250 * time.Millisecond
)

func encodeSide(seq uint64) []byte {
	raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, sideFormat), seq)
	return binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli()))
}

// decodeSide returns the highest number of the slots that hold one, and where it stands; ok is false if none does.
func decodeSide(raw []byte) (seq uint64, slot int64, ok bool) {
	for i := int64(0); i < 2 && len(raw) >= sideSlot; i++ {
		one := raw[:sideSlot]
		raw = raw[sideSlot:]
		if binary.BigEndian.Uint32(one) != sideFormat ||
			binary.BigEndian.Uint32(one[12:]) != crc32.Checksum(one[:12], castagnoli()) {
			continue
		}
		if n := binary.BigEndian.Uint64(one[4:]); !ok || n > seq {
			seq, slot, ok = n, i, true
		}
	}
	return seq, slot, ok
}

// readSide returns the number in the side file; exists says whether there is such a file, ok whether it is readable.
func readSide(path string) (seq uint64, exists, ok bool, err error) {
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, false, false, nil
	case err != nil:
		return 0, true, false, fmt.Errorf("read side file: %w", err)
	}
	seq, _, ok = decodeSide(raw)
	return seq, true, ok, nil
}

// createSide writes a new side file, or a new state of one, so that it is there whole or not at all.
func createSide(path string, seq uint64) error {
	one := encodeSide(seq)
	if err := replaceFile(path, append(one, one...)); err != nil {
		return fmt.Errorf("create side file: %w", err)
	}
	return nil
}

// openSide opens an existing side file for writing and starts to sync it.
func openSide(path string) (*sideFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open side file: %w", err)
	}
	raw := make([]byte, 2*sideSlot)
	if _, err := f.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, fmt.Errorf("read side file: %w", err)
	}
	_, latest, _ := decodeSide(raw)
	s := &sideFile{f: f, next: 1 - latest, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	s.done.Go(s.syncLoop)
	return s, nil
}

func (s *sideFile) write(seq uint64) error {
	if _, err := s.f.WriteAt(encodeSide(seq), s.next*sideSlot); err != nil {
		return fmt.Errorf("write side file: %w", err)
	}
	s.next = 1 - s.next
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// syncLoop syncs the file some time after a write. A failure makes the report after a power loss weaker, and loses
// nothing: the next start compares with an older number.
func (s *sideFile) syncLoop() {
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			return
		}
		select {
		case <-time.After(syncEvery):
		case <-s.stop:
			return
		}
		_ = s.f.Sync()
	}
}

func (s *sideFile) close() error {
	close(s.stop)
	s.done.Wait()
	if err := errors.Join(s.f.Sync(), s.f.Close()); err != nil {
		return fmt.Errorf("close side file: %w", err)
	}
	return nil
}
