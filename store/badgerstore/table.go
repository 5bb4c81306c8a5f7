package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// errDamagedTable says that a table is not what was written, or not there.
var errDamagedTable = errors.New("table is damaged")

// verifyTables reads every table that the manifest lists, and checks its blocks. Badger can do that when it opens
// (options.OnTableRead), but its way of telling of a block that cannot be unpacked is a nil pointer in a goroutine of
// its own (table.go:711 of v4.9.6), which nobody can recover from. So it is done here, once, and not there.
//
// A start waits for it, so several are read at a time. None of it can be put off until the store serves: a merge of
// tables gives what it reads a new checksum, damaged or not.
func verifyTables(folder string, listed map[uint64]badger.TableManifest) error {
	var verifying errgroup.Group
	verifying.SetLimit(verifiers)
	var failed atomic.Bool
	for id, entry := range listed {
		name := table.NewFilename(id, folder)
		verifying.Go(func() error {
			if failed.Load() {
				return nil
			}
			if err := verifyTable(name, entry); err != nil {
				failed.Store(true)
				return fmt.Errorf("verify %s: %w", filepath.Base(name), err)
			}
			return nil
		})
	}
	return verifying.Wait()
}

// verifiers is how many tables are verified at a time: enough to keep a disk busy.
const verifiers = 4

func verifyTable(name string, entry badger.TableManifest) (err error) {
	if err := checkFooter(name); err != nil {
		return err
	}
	file, err := z.OpenMmapFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamagedTable, r)
		}
		err = errors.Join(err, file.Close(-1))
	}()
	_ = unix.Madvise(file.Data, unix.MADV_WILLNEED) // else a disk is read by the page
	t, err := table.OpenTable(file, table.Options{
		ReadOnly: true, Compression: entry.Compression, BlockSize: badgerOptions("").BlockSize, ChkMode: options.NoVerification,
	})
	if err == nil {
		err = t.VerifyChecksum()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errDamagedTable, err)
	}
	return nil
}

// checkFooter checks the sizes at the end of a table, which Badger believes, and ends the process if it reads
// beyond the file: … index, size of it 4, checksum, size of that 4.
func checkFooter(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it is missing", errDamagedTable)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	for range 2 {
		raw := make([]byte, 4)
		if end < int64(len(raw)) {
			return fmt.Errorf("%w: it is too short", errDamagedTable)
		}
		end -= int64(len(raw))
		if _, err := f.ReadAt(raw, end); err != nil {
			return err
		}
		if end -= int64(binary.BigEndian.Uint32(raw)); end < 0 {
			return fmt.Errorf("%w: sizes at its end are out of range", errDamagedTable)
		}
	}
	return nil
}
