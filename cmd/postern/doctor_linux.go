package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileSystemOf says on what kind of file system a path is (statfs(2) has the numbers).
func fileSystemOf(path string) (fsKind, string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return unknownFS, "", fmt.Errorf("ask for the file system of %q: %w", path, err)
	}
	kind, name := nameFS(int64(uint32(st.Type))) // its type differs between architectures
	return kind, name, nil
}

// nameFS names a file system by its number.
func nameFS(magic int64) (fsKind, string) {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return localFS, "ext4"
	case unix.XFS_SUPER_MAGIC:
		return localFS, "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return localFS, "btrfs"
	case unix.F2FS_SUPER_MAGIC:
		return localFS, "f2fs"
	case 0x2fc12fc1:
		return localFS, "zfs"
	case unix.NFS_SUPER_MAGIC:
		return networkFS, "nfs"
	case unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.SMB_SUPER_MAGIC:
		return networkFS, "smb"
	case unix.CEPH_SUPER_MAGIC:
		return networkFS, "ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return networkFS, "afs"
	case unix.CODA_SUPER_MAGIC:
		return networkFS, "coda"
	case unix.V9FS_MAGIC:
		return networkFS, "9p"
	case 0x0bd00bd0:
		return networkFS, "lustre"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return layerFS, "overlay"
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return memoryFS, "tmpfs"
	case unix.FUSE_SUPER_MAGIC:
		return unknownFS, "fuse"
	}
	return unknownFS, fmt.Sprintf("file system %#x", magic)
}

// containerMemory returns the memory limit of this process's control group or of the nearest one above it, of version 2
// or 1.
func containerMemory() (limit int64, ok bool) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	return groupMemory("/sys/fs/cgroup", string(groups))
}

// groupMemory reads the limit below root for the groups of /proc/self/cgroup, whose lines are number:controllers:path
// (cgroups(7)). Within a container its own group is often mounted at the root, whatever the path says, so each folder
// up to the root is looked at, and the least limit counts.
func groupMemory(root, groups string) (limit int64, ok bool) {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, file := root, "memory.max"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case strings.Contains(","+parts[1]+",", ",memory,"):
			base, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for dir := filepath.Join("/", parts[2]); ; dir = filepath.Dir(dir) {
			if n, found := readLimit(filepath.Join(base, dir, file)); found && (!ok || n < limit) {
				limit, ok = n, true
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit, ok
}

// readLimit reads one limit. The word max, and the huge number that version 1 has for none, are no limit.
func readLimit(path string) (int64, bool) {
	const none = 1 << 60
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil && n > 0 && n < none
}

// clockKept asks the kernel whether something has adjusted the clock lately (adjtimex(2)); nobody else is asked.
func clockKept() (synchronised, ok bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err == nil
}
