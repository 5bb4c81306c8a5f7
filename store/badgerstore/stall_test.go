package badgerstore

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

// stalling opens a store whose next commit waits until it is let go.
func stalling(t *testing.T) (s *Store, letGo chan struct{}) {
	t.Helper()
	letGo = make(chan struct{})
	s, err := Open(Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
		<-letGo
		return txn.Commit()
	}})
	mustDo(t, err)
	return s, letGo
}

func TestStall(t *testing.T) {
	t.Run("a commit that hangs for a minute breaks the store", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, letGo := stalling(t)
			begun := time.Now()
			_, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), nil)
			if took := time.Since(begun); !errors.Is(err, store.ErrBroken) || took != commitTimeout {
				t.Errorf("Accept: error %v after %s, want ErrBroken after %s", err, took, commitTimeout)
			}
			select {
			case <-s.Broken():
			default:
				t.Error("Broken is open, want it closed")
			}
			close(letGo)
			mustDo(t, s.Close())
			mustDo(t, s.db.Close()) // Close leaves that to the end of the process
		})
	})
	t.Run("so does a look at the free space that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			letGo := make(chan struct{})
			var hangs atomic.Bool
			s, err := Open(Options{Path: t.TempDir(), free: func(string) (int64, error) {
				if hangs.Load() {
					<-letGo
				}
				return 1 << 40, nil
			}})
			mustDo(t, err)
			hangs.Store(true)
			begun := time.Now()
			_, _, err = s.Accept(t.Context(), newMessage(t, "alerts"), nil)
			if took := time.Since(begun); !errors.Is(err, store.ErrBroken) || took != commitTimeout {
				t.Errorf("Accept: error %v after %s, want ErrBroken after %s", err, took, commitTimeout)
			}
			close(letGo)
			mustDo(t, s.Close())
			mustDo(t, s.db.Close())
		})
	})
	t.Run("Close ends while a commit hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, letGo := stalling(t)
			// Not by Accept: a bubble's time stands still while Close waits for the lock that it holds.
			s.requests <- rivalRequest(t, newMessage(t, "alerts"))
			synctest.Wait()
			begun := time.Now()
			if err := s.Close(); err == nil || time.Since(begun) != closeTimeout {
				t.Errorf("Close: error %v after %s, want one after %s", err, time.Since(begun), closeTimeout)
			}
			select {
			case <-s.Broken():
			default:
				t.Error("Broken is open, want it closed: it ends the calls that wait for the commit")
			}
			close(letGo)
			synctest.Wait()
			mustDo(t, s.db.Close())
		})
	})
}

func TestFull(t *testing.T) {
	t.Run("Full knows of a disk that fills while nothing is written, and of one with room again", func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		var free atomic.Int64
		free.Store(1 << 40)
		path := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(Options{Path: path, Log: zap.New(core), free: func(string) (int64, error) { return free.Load(), nil }})
			mustDo(t, err)
			mustDo(t, s.Full())
			free.Store(s.reserve - 1)
			mustDo(t, s.Full()) // it has not looked again
			time.Sleep(lookEvery + time.Millisecond)
			synctest.Wait()
			if err := s.Full(); !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("got %v, want ErrNoSpace", err)
			}
			free.Store(s.reserve)
			time.Sleep(lookEvery)
			synctest.Wait()
			mustDo(t, s.Full())
			mustDo(t, s.Close())
			if err := s.Full(); !errors.Is(err, store.ErrClosed) {
				t.Errorf("closed: got %v, want ErrClosed", err)
			}
		})
		if got := logs.FilterLevelExact(zap.WarnLevel).FilterField(zap.Int64("free_bytes", 256<<20-1)).Len(); got != 1 {
			t.Errorf("got %d warnings of a full disk, want 1", got)
		}
	})
	t.Run("a broken store is full", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		_ = s.fail(errors.New("input/output error"))
		if err := s.Full(); !errors.Is(err, store.ErrBroken) {
			t.Errorf("got %v, want ErrBroken", err)
		}
		t.Cleanup(func() { mustDo(t, errors.Join(s.Close(), s.db.Close())) })
	})
	t.Run("a store that opens with little room, or a reserve that is too small, says so", func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		s := mustOpen(t, Options{Path: t.TempDir(), MinFree: 1, Log: zap.New(core),
			free: func(string) (int64, error) { return floor - 1, nil }})
		if got := logs.FilterField(zap.Int64("reserve_bytes", floor)).Len(); got != 2 || s.reserve != floor {
			t.Errorf("got %d warnings with the reserve, want 2", got)
		}
	})
}

func TestHalfReserve(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	s := mustOpen(t, Options{Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil }})
	now := time.Now()
	ended := func(d store.Delivery, blocking bool) store.Delivery {
		d.State, d.EndedAt, d.Blocking = store.Failed, now, blocking
		return d
	}
	var all []store.Delivery
	for range 3 {
		m := newMessage(t, "alerts")
		m.Recipients[0].Order = "a"
		m, _, err := s.Accept(t.Context(), m, nil)
		mustDo(t, err)
		all = append(all, m.Delivery(0))
	}
	mustDo(t, s.Pause(t.Context(), "audit", store.Pause{At: now}))
	mustDo(t, s.NoteOutage(t.Context(), "audit", store.Outage{Since: now}))
	t.Run("at half of the reserve deliveries go on", func(t *testing.T) {
		free.Store(1 << 29)
		mustRecord(t, s, all[0], ended(all[0], false), store.Attempt{})
		mustRecord(t, s, all[1], ended(all[1], true), store.Attempt{})
	})
	t.Run("one byte below it nothing is written but what makes room", func(t *testing.T) {
		free.Store(1<<29 - 1)
		_, recordErr := s.Record(t.Context(), all[2], ended(all[2], false), store.Attempt{})
		if !errors.Is(recordErr, store.ErrStale) {
			t.Errorf("Record behind a blocked head: got error %v, want ErrStale", recordErr)
		}
		free.Store(1 << 40)
		if n, err := s.Release(t.Context(), "alerts", 1); n != 1 || err != nil {
			t.Fatalf("Release: %d, error %v; want 1", n, err)
		}
		free.Store(1<<29 - 1)
		_, recordErr = s.Record(t.Context(), all[2], ended(all[2], false), store.Attempt{})
		pauseErr := s.Pause(t.Context(), "alerts", store.Pause{At: now})
		outageErr := s.NoteOutage(t.Context(), "alerts", store.Outage{Since: now})
		for i, err := range []error{recordErr, pauseErr, outageErr} {
			if !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("call %d: got error %v, want ErrNoSpace", i, err)
			}
		}
		mustDo(t, s.Resume(t.Context(), "audit"))
		mustDo(t, s.NoteOutage(t.Context(), "audit", store.Outage{}))
		if n, _, err := s.Sweep(t.Context(), now.Add(time.Hour), 10); n != 2 || err != nil {
			t.Errorf("Sweep: %d, error %v; want the 2 that have ended", n, err)
		}
	})
	t.Run("a release waits for room too", func(t *testing.T) {
		free.Store(1 << 40)
		mustRecord(t, s, all[2], ended(all[2], true), store.Attempt{})
		free.Store(1<<29 - 1)
		if _, err := s.Release(t.Context(), "alerts", 1); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
		free.Store(1 << 40)
		if n, err := s.Release(t.Context(), "alerts", 1); n != 1 || err != nil {
			t.Errorf("Release: %d, error %v; want 1", n, err)
		}
	})
}
