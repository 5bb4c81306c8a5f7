package badgerstore

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// mappedResident returns how many bytes of mapped files are in the memory of this process (proc_pid_statm(5), shared).
func mappedResident() (int64, error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("read memory in use: %w", err)
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(raw), &size, &resident, &shared); err != nil {
		return 0, fmt.Errorf("read memory in use: %w", err)
	}
	return shared * int64(os.Getpagesize()), nil
}

// unmapTables takes the pages of the given tables in a folder out of the memory of this process, and leaves the mappings
// (madvise(2), MADV_DONTNEED on a shared mapping of a file). The caller sees to it that none of the tables is unmapped
// meanwhile.
func unmapTables(folder string, held map[uint64]bool) error {
	folder, err := filepath.Abs(folder)
	if err == nil {
		folder, err = filepath.EvalSymlinks(folder)
	}
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read mappings: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		from, to, ok := mappingOf(lines.Text(), folder, held)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give back memory of a table: %w", errno)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read mappings: %w", err)
	}
	return nil
}

// mappingOf takes a line of /proc/self/maps apart (proc_pid_maps(5)), and reports whether it is a shared mapping of one of
// the given tables in a folder.
func mappingOf(line, folder string, held map[uint64]bool) (from, to uintptr, ok bool) {
	slash := strings.IndexByte(line, '/')
	if slash < 0 || filepath.Dir(line[slash:]) != folder {
		return 0, 0, false
	}
	if id, isTable := table.ParseFileID(line[slash:]); !isTable || !held[id] {
		return 0, 0, false
	}
	var mode string
	if n, err := fmt.Sscanf(line[:slash], "%x-%x %s", &from, &to, &mode); n != 3 || err != nil {
		return 0, 0, false
	}
	return from, to, strings.HasSuffix(mode, "s") && from < to
}
