package badgerstore

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// lookEvery is the time between two looks at the free space of an idle store.
const lookEvery = 5 * time.Second

// bottom is the free space below which deletions wait too: they take some before they give any back, and a write without
// a free block kills the process.
const bottom = 16 << 20

// look asks for the free space, and keeps the answer for Full. Not knowing it is treated as having none: a write to a
// full disk would kill the process.
func (s *Store) look() int64 {
	free, err := s.freeSpace(s.path)
	if err != nil {
		free = 0
	}
	s.free.Store(free)
	if low := free < s.reserve; s.low.Swap(low) != low {
		fields := []zap.Field{zap.String("path", s.path), zap.Int64("free_bytes", free), zap.Int64("reserve_bytes", s.reserve)}
		if low {
			s.log.Warn("free disk space is below the reserve, nothing is accepted", append(fields, zap.Error(err))...)
		} else {
			s.log.Info("free disk space is above the reserve again", fields...)
		}
	}
	return free
}

// lookLoop looks now and then, so that Full knows without a commit.
func (s *Store) lookLoop() {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			s.look()
		case <-s.stop:
			return
		}
	}
}

// noSpace is the error of a write that wants more free space than there was at the last look.
func (s *Store) noSpace(want int64) error {
	return fmt.Errorf("%w: %d MiB free, %d MiB wanted (a free inode counts as %d MiB)",
		store.ErrNoSpace, s.free.Load()>>20, want>>20, inodeWorth>>20)
}

// Full implements store.Acceptor.
func (s *Store) Full() error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	if err := s.Err(); err != nil {
		return err
	}
	if s.free.Load() < s.reserve {
		return s.noSpace(s.reserve)
	}
	if s.pending.Load() >= s.maxPending {
		return store.ErrBacklog
	}
	return nil
}
