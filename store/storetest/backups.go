package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// Restore makes an engine from a backup, and closes it by tb.Cleanup. It returns an error if the backup is refused.
type Restore func(tb testing.TB, from io.Reader) (store.Store, error)

// RunBackups runs the suite of an engine that is a store.Backuper.
func RunBackups(t *testing.T, open Open, restore Restore) {
	t.Run("what is restored goes on as what was backed up", func(t *testing.T) {
		for seed := range uint64(2) {
			s := open(t, Options{MaxPending: MaxModelPending})
			Model(t, seed, 250, s, func(s store.Store) store.Store {
				raw, _ := backup(t, s, store.BackupOptions{})
				if err := s.Close(); err != nil {
					t.Fatalf("Close: %v", err)
				}
				return mustRestore(t, restore, raw)
			})
		}
	})
	t.Run("its counts are right", func(t *testing.T) {
		s := open(t, Options{})
		_, none := backup(t, s, store.BackupOptions{})
		equal(t, "of an empty engine", none, store.BackupCounts{Records: none.Records})
		var heads []store.Delivery
		for n := range 5 {
			m := message(t, "alerts", "audit")
			m.Recipients[1].Order = "a"
			accept(t, s, m, "x")
			if n < 2 {
				heads = append(heads, m.Delivery(0))
			}
		}
		for _, d := range heads {
			after, a := end(d, store.Delivered, start)
			record(t, s, d, after, a)
		}
		_, got := backup(t, s, store.BackupOptions{IncludeKeys: true})
		equal(t, "counts", got, store.BackupCounts{Messages: 5, Pending: 8, Attempts: 2, Records: got.Records})
	})
	t.Run("large and odd bodies come back as they were", func(t *testing.T) {
		s := open(t, Options{})
		bodies := [][]byte{nil, {}, {0}, bytes.Repeat([]byte("ab"), 40_000), bytes.Repeat([]byte{1, 2, 3}, 1<<20)}
		var ids []store.MessageID
		for _, body := range bodies {
			m := message(t, "alerts")
			accept(t, s, m, string(body))
			ids = append(ids, m.ID)
		}
		raw, _ := backup(t, s, store.BackupOptions{})
		again := mustRestore(t, restore, raw)
		for i, id := range ids {
			want, _, err := s.Load(t.Context(), id)
			if err != nil {
				t.Fatalf("Load: %v", err)
			}
			got, body, err := again.Load(t.Context(), id)
			if err != nil || !bytes.Equal(body, bodies[i]) {
				t.Fatalf("body %d: %d bytes, error %v; want %d", i, len(body), err, len(bodies[i]))
			}
			equal(t, "message", got, want)
		}
	})
	t.Run("under load all that was accepted before it began is there", func(t *testing.T) {
		s := open(t, Options{})
		var mu sync.Mutex
		var accepted []store.MessageID
		stop := make(chan struct{})
		var writing sync.WaitGroup
		for range 4 {
			writing.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					m := message(t, "alerts")
					if _, _, err := s.Accept(context.Background(), m, bytes.Repeat([]byte("x"), 500)); err != nil {
						t.Errorf("Accept: %v", err)
						return
					}
					mu.Lock()
					accepted = append(accepted, m.ID)
					mu.Unlock()
				}
			})
		}
		for round := range 5 {
			for count := 0; count < 200*(round+1); {
				mu.Lock()
				count = len(accepted)
				mu.Unlock()
				runtime.Gosched()
			}
			mu.Lock()
			before := append([]store.MessageID(nil), accepted...)
			mu.Unlock()
			raw, counts := backup(t, s, store.BackupOptions{})
			if round < 3 {
				continue // the load goes on, and the next is another moment
			}
			again := mustRestore(t, restore, raw)
			for _, id := range before {
				if m, body, err := again.Load(t.Context(), id); err != nil || len(body) != m.Size {
					t.Fatalf("Load: %d bytes, error %v", len(body), err)
				}
			}
			if got := again.Pending(); got != counts.Pending || got < int64(len(before)) {
				t.Errorf("pending: got %d, want the %d of the backup and at least %d", got, counts.Pending, len(before))
			}
		}
		close(stop)
		writing.Wait()
	})
	t.Run("one is made or read at a time", func(t *testing.T) {
		s := open(t, Options{})
		b, err := s.(store.Backuper).Backup(t.Context(), store.BackupOptions{})
		if err != nil {
			t.Fatalf("Backup: %v", err)
		}
		if _, err := s.(store.Backuper).Backup(t.Context(), store.BackupOptions{}); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a second: got error %v, want ErrBusy", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		backup(t, s, store.BackupOptions{})
	})
	t.Run("what has ended takes none", func(t *testing.T) {
		s := open(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.(store.Backuper).Backup(ctx, store.BackupOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end of its context: got error %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if _, err := s.(store.Backuper).Backup(t.Context(), store.BackupOptions{}); !errors.Is(err, store.ErrClosed) {
			t.Errorf("after Close: got error %v, want ErrClosed", err)
		}
	})
	t.Run("one that was cut or changed anywhere is refused", func(t *testing.T) {
		s := open(t, Options{})
		for range 10 {
			accept(t, s, message(t, "alerts"), "some body")
		}
		raw, _ := backup(t, s, store.BackupOptions{})
		for n := 0; n < len(raw); n += 1 + n/2 {
			if _, err := restore(t, bytes.NewReader(raw[:n])); err == nil {
				t.Errorf("%d of %d bytes: no error", n, len(raw))
			}
		}
		for n := 0; n < len(raw); n += 1 + n/2 {
			bad := bytes.Clone(raw)
			bad[n] ^= 0x10
			if _, err := restore(t, bytes.NewReader(bad)); err == nil {
				t.Errorf("byte %d of %d changed: no error", n, len(raw))
			}
		}
		if _, err := restore(t, bytes.NewReader(append(bytes.Clone(raw), 0))); err == nil {
			t.Error("a byte behind its end: no error")
		}
		if _, err := restore(t, failingReader{bytes.NewReader(raw[:len(raw)/2])}); !errors.Is(err, errReader) {
			t.Errorf("a reader that fails: got error %v, want its own", err)
		}
	})
}

var errReader = errors.New("reader has failed")

// failingReader fails at the end of what it has.
type failingReader struct{ io.Reader }

func (r failingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errReader
	}
	return n, err
}

// backup returns a whole backup.
func backup(tb testing.TB, s store.Store, o store.BackupOptions) ([]byte, store.BackupCounts) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := s.(store.Backuper).Backup(ctx, o)
	if err != nil {
		tb.Fatalf("Backup: %v", err)
	}
	raw, err := io.ReadAll(b)
	if err = errors.Join(err, b.Close()); err != nil || int64(len(raw)) != b.Size {
		tb.Fatalf("read backup: %d bytes of %d, error %v", len(raw), b.Size, err)
	}
	return raw, b.Counts
}

func mustRestore(tb testing.TB, restore Restore, raw []byte) store.Store {
	tb.Helper()
	s, err := restore(tb, bytes.NewReader(raw))
	if err != nil {
		tb.Fatalf("restore: %v", err)
	}
	return s
}
