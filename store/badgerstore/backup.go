package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/store"
)

var _ store.Backuper = (*Store)(nil)

const (
	// backupMargin is how many bytes above the disk reserve a backup leaves: it must not be the reason that nothing is
	// accepted any more.
	backupMargin = 64 << 20

	spoolLook = 4 << 20 // bytes between two looks at the free space

	spoolPrefix = "backup-unfinished-"
)

// removeSpools deletes what a kill has left in the instant between the making of a backup's file and its unlinking.
func removeSpools(path string) error {
	entries, err := os.ReadDir(path)
	for _, entry := range entries {
		if entry.Type().IsRegular() && strings.HasPrefix(entry.Name(), spoolPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(path, entry.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove files of backups: %w", err)
	}
	return nil
}

// Backup implements store.Backuper. The copy is a file in the store's folder that has no name any more when it is
// written to: so a kill leaves nothing behind, whoever reads it slowly holds up neither Badger nor the log of its
// deletions, and the snapshot that it comes from lives as long as the local disk takes. A backup of an encrypted store
// is encrypted with its key.
func (s *Store) Backup(ctx context.Context, o store.BackupOptions) (*store.Backup, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	if s.copying.Swap(true) {
		return nil, fmt.Errorf("back up: another backup is being made or read: %w", store.ErrBusy)
	}
	b, err := s.spool(ctx, o)
	if err != nil {
		s.copying.Store(false)
		return nil, fmt.Errorf("back up: %w", err)
	}
	return b, nil
}

// WriteBackup writes a backup to w, for a store that nobody else uses: it holds the snapshot as long as w takes.
func (s *Store) WriteBackup(ctx context.Context, w io.Writer, o store.BackupOptions) (store.BackupCounts, error) {
	if err := s.begin(ctx); err != nil {
		return store.BackupCounts{}, err
	}
	defer s.use.RUnlock()
	counts, err := s.writeBackup(ctx, w, o)
	if err != nil {
		return store.BackupCounts{}, fmt.Errorf("back up: %w", err)
	}
	return counts, nil
}

// spool makes the file of a backup.
func (s *Store) spool(ctx context.Context, o store.BackupOptions) (*store.Backup, error) {
	if err := s.roomToSpool(); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(s.path, spoolPrefix)
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	err = os.Remove(file.Name())
	var counts store.BackupCounts
	if err == nil {
		counts, err = s.writeBackup(ctx, &spoolWriter{file: file, room: s.roomToSpool}, o)
	}
	var size int64
	if err == nil {
		size, err = file.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	release := sync.OnceFunc(func() { s.copying.Store(false) })
	return &store.Backup{ReadCloser: &spooled{File: file, release: release}, Size: size, Counts: counts}, nil
}

// roomToSpool refuses to write more of a backup where that would come near the reserve.
func (s *Store) roomToSpool() error {
	if want := s.reserve + backupMargin; s.look() < want {
		return fmt.Errorf("a backup takes as much free disk as there is data, for as long as it is read: %w", s.noSpace(want))
	}
	return nil
}

// spoolWriter looks at the free space now and then.
type spoolWriter struct {
	file  *os.File
	room  func() error
	since int // bytes since the last look
}

func (w *spoolWriter) Write(p []byte) (int, error) {
	if w.since += len(p); w.since >= spoolLook {
		w.since = 0
		if err := w.room(); err != nil {
			return 0, err
		}
	}
	n, err := w.file.Write(p)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	return n, err
}

// spooled is the file of a backup.
type spooled struct {
	*os.File
	release func()
}

// Close gives the disk back, and lets the next backup begin.
func (f *spooled) Close() error {
	defer f.release()
	return f.File.Close()
}

// writeBackup writes what is stored at this moment. A record that is damaged is logged, counted and left out: it would
// be of no more use in a copy, and must not be in the way of all others. The caller holds s.use.
func (s *Store) writeBackup(ctx context.Context, w io.Writer, o store.BackupOptions) (counts store.BackupCounts, err error) {
	keys, err := s.keys.forPurpose(forBackup)
	if err != nil {
		return counts, err
	}
	b, err := newBackupWriter(w, keys, backupHeader{CreatedAt: s.now().UTC(), Format: formatVersion, IncludeKeys: o.IncludeKeys})
	if err != nil {
		return counts, err
	}
	err = s.db.View(func(txn *view) error {
		return txn.each(ctx, func(key, value []byte) error {
			switch {
			case s.closed.Load():
				return store.ErrClosed
			case !inBackup(key[0], o.IncludeKeys):
				return nil
			case len(value) == 0:
				return b.put(key, nil)
			}
			content, err := txn.open(key, value)
			if err != nil {
				b.counts.Damaged++
				s.log.Error("damaged record left out of a backup", zap.String("record", describe(key)), zap.Error(err))
				return nil
			}
			return b.put(key, content)
		})
	})
	if err == nil {
		err = b.end()
	}
	return b.counts, err
}
