package badgerstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the store open. The error's text names it if it is known.
var ErrLocked = errors.New("store is in use by another process")

// lock takes the store for this process. The lock is the kernel's (flock) and ends with the process; what the file
// says is only a hint for people.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		return nil, lockedBySomeone(f, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	return f, nil
}

// lockedBySomeone says what a lock file that could not be locked means.
func lockedBySomeone(f *os.File, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	raw, _ := io.ReadAll(io.LimitReader(f, 32))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
		return fmt.Errorf("%w (process %d)", ErrLocked, pid)
	}
	return ErrLocked
}

// inodeWorth is how many bytes a free inode counts as: each file of Badger's takes one, and few have less than half of a
// whole table. Without one it ends the process when it begins the next log.
const inodeWorth = tableSize / 2

// freeSpace returns the bytes that this process may still write to the file system of path, or what its free inodes are
// worth if that is less.
func freeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // the type of Bsize differs between systems
	if st.Files > 0 {                          // else it counts none, as btrfs
		free = min(free, int64(min(st.Ffree, 1<<40))*inodeWorth)
	}
	return free, nil
}

// makeFolder makes a folder and those above it, for this user alone, and syncs each entry: a store whose folder is gone
// after a power loss has lost all.
func makeFolder(path string) error {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder: %w", err)
	}
	return syncDir(parent)
}

// replaceFile writes a small file, so that after a kill or a power loss it is there whole or as it was before.
func replaceFile(path string, content []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// dataSize returns the number of bytes that the file really takes, leaving out holes.
func dataSize(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// copySparse copies a file, and leaves the holes of it holes: a write-ahead log is mapped at twice the size of a
// memtable and mostly empty.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	if err := errors.Join(copyData(in, out, info.Size()), out.Truncate(info.Size()), out.Close()); err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	return nil
}

func copyData(in, out *os.File, size int64) error {
	return eachData(in, 0, size, func(start, end int64) error {
		_, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start))
		return err
	})
}

// eachData calls do for each piece of a file, from a place on, that is no hole.
func eachData(f *os.File, from, size int64, do func(start, end int64) error) error {
	for at := from; at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if end <= start {
			return fmt.Errorf("no progress at byte %d", start)
		}
		if err := do(start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}
