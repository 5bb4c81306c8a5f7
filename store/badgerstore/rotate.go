package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// A rotation encrypts anew what an earlier key has encrypted. What is written gets the first key from the start on, so
// one walk over all values finds the rest. It takes a group of them at a time through the committer, like any other
// writer, and rests three times as long as each took. A kill ends it anywhere: the next start walks again, and what has
// its key by then is passed over. A second walk looks whether any value that opens has another key still; only then the
// file keys names the first key alone.
const (
	rotateKeys  = 500       // values in a group
	rotateBytes = 256 << 10 // of them
	rotateLooks = 20_000    // values that one transaction walks over
	rotateRest  = 10 * time.Millisecond
	rotateWait  = 30 * time.Second // when the disk is short
)

// errStopped says that a rotation has ended with the store.
var errStopped = errors.New("the store ends")

// rotate runs until it is done, or the store ends.
func (s *Store) rotate() {
	primary := s.keys.ids[0]
	log := s.log.With(zap.Stringer("key", primary), zap.String("earlier", joinIDs((*s.needed.Load())[1:])))
	log.Info("encryption keys are being rotated")
	begun := time.Now()
	written, lost, err := s.relockAll(primary)
	if err == nil {
		err = s.noteRotated(primary)
	}
	switch {
	case s.closed.Load() || s.Err() != nil || errors.Is(err, errStopped):
	case errors.Is(err, errDatabase):
		_ = s.fail(err)
	case err != nil:
		log.Error("encryption keys not rotated, the earlier ones are needed still, and the next start goes on", zap.Error(err))
	default:
		log.Info("encryption keys rotated, the earlier ones are not needed any more",
			zap.Int64("values", written), zap.Int64("damaged", lost), zap.Duration("took_seconds", time.Since(begun)))
	}
}

// relockAll encrypts all values with a key, the first. It returns how many had another, and how many of those do not open.
func (s *Store) relockAll(primary keyID) (written, lost int64, err error) {
	waiting := false
	for from := []byte{0}; from != nil; {
		begun := time.Now()
		keys, next, err := s.lockedByOthers(from, primary)
		if err != nil {
			return written, lost, err
		}
		pause := rotateRest
		if len(keys) > 0 {
			n, bad, err := s.relock(keys)
			switch {
			case errors.Is(err, store.ErrNoSpace):
				if next, pause = keys[0], rotateWait; !waiting {
					waiting = true
					s.log.Warn("rotation of encryption keys waits for free disk space", zap.Error(err))
				}
			case err != nil:
				return written, lost, fmt.Errorf("encrypt anew: %w", err)
			}
			written, lost, waiting = written+n, lost+bad, err != nil
		}
		if from = next; !s.rest(max(pause, 3*time.Since(begun))) {
			return written, lost, errStopped
		}
	}
	return written, lost, nil
}

// noteRotated notes that the store needs one key alone, unless there is a value that another one opens.
func (s *Store) noteRotated(primary keyID) error {
	for from := []byte{0}; from != nil; {
		begun := time.Now()
		var left string
		next, err := s.others(from, primary, func(txn *view, key, value []byte) bool {
			if _, err := txn.open(key, value); err == nil {
				left = describe(key)
			}
			return left == ""
		})
		switch {
		case err != nil:
			return err
		case left != "":
			return fmt.Errorf("%s has been left out", left)
		}
		if from = next; !s.rest(max(rotateRest, 3*time.Since(begun))) {
			return errStopped
		}
	}
	done := []keyID{primary}
	if err := writeKeys((&gate{path: s.path}).keysPath(), done); err != nil {
		return err
	}
	s.needed.Store(&done)
	return nil
}

// rest waits, and returns false if the store ends.
func (s *Store) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.stop:
	case <-s.broken:
	}
	return false
}

// lockedByOthers returns the keys of the next values, from a key on, that another key than the given one has encrypted,
// and where to go on; nil at the end.
func (s *Store) lockedByOthers(from []byte, primary keyID) (keys [][]byte, next []byte, err error) {
	size := int64(0)
	next, err = s.others(from, primary, func(_ *view, key, value []byte) bool {
		size += int64(len(value))
		if len(keys) == rotateKeys || len(keys) > 0 && size > rotateBytes {
			return false
		}
		keys = append(keys, bytes.Clone(key))
		return true
	})
	return keys, next, err
}

// others walks over values, from a key on, and calls fn for each that another key than the given one has encrypted. It
// returns where to go on, which is where fn has returned false or a step is over; nil at the end.
func (s *Store) others(from []byte, primary keyID, fn func(txn *view, key, value []byte) bool) (next []byte, err error) {
	err = s.db.View(func(txn *view) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		looks := 0
		for it.Seek(from); it.Valid(); it.Next() {
			if it.Item().Key()[0] == kindCommit {
				// As many as half a million, none of which is encrypted.
				if it.Seek([]byte{kindCommit + 1}); !it.Valid() {
					return nil
				}
			}
			item, goOn := it.Item(), looks < rotateLooks
			err := item.Value(func(value []byte) error {
				if id := lockedBy(value); goOn && id != (keyID{}) && id != primary {
					goOn = fn(txn, item.Key(), value)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if !goOn {
				next = item.KeyCopy(nil)
				return nil
			}
			looks++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for values of earlier keys: %w: %w", errDatabase, err)
	}
	return next, nil
}

// relock encrypts the values of some keys with the first key. It returns how many it has, and how many do not open and
// stay as they are.
func (s *Store) relock(keys [][]byte) (n, lost int64, err error) {
	err = s.submitUnlessStopped(&request{size: s.maxGroupSize, entries: int64(len(keys)), stage: func(g *group) error {
		if g.low {
			return s.noSpace(s.reserve)
		}
		for _, key := range keys {
			content, err := g.get(key)
			switch {
			case g.isDatabase(err):
				g.fail(err)
				return nil
			case err != nil:
				lost++
			case content != nil: // else deleted meanwhile
				g.set(key, content)
				n++
			}
		}
		return nil
	}})
	return n, lost, err
}

// submitUnlessStopped is submit for a goroutine of the store's own, which Close waits for.
func (s *Store) submitUnlessStopped(r *request) error {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return store.ErrClosed
	}
	return s.submitAlways(r)
}

// Keys returns the fingerprints of the keys that the store needs: its own first, then those of values that have not been
// encrypted anew yet. Empty for a store that is not encrypted.
func (s *Store) Keys() []string {
	var out []string
	if needed := s.needed.Load(); needed != nil { // else it is being opened
		for _, id := range *needed {
			out = append(out, id.String())
		}
	}
	return out
}
