package main

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
)

// host is what doctor asks the system; tests put other answers in.
type host struct {
	uid        int
	stat       func(path string) (fs.FileInfo, error)
	writable   func(path string) bool
	fileSystem func(path string) (kind fsKind, name string, err error)
	space      func(path string) (space, error)
	files      func() (uint64, error)                          // that this process may have open
	memory     func() (limit int64, ok bool)                   // of the container, in bytes; ok is false without one
	heap       func() int64                                    // soft limit of the Go heap, in bytes; math.MaxInt64 for none
	kept       func() (synchronised bool, ok bool)             // whether something keeps the clock; ok is false if the system does not say
	built      func() (at time.Time, known bool)               // when this program was made
	bind       func(ctx context.Context, address string) error // why nobody can listen there; nil if one can
	group      func(name string) string                        // why a socket cannot be given to a group; empty if it can
}

func thisHost() host {
	return host{
		uid: os.Getuid(), stat: os.Stat, writable: writable, fileSystem: fileSystemOf, space: spaceOf,
		files: func() (uint64, error) {
			var limit syscall.Rlimit
			err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
			return uint64(limit.Cur), err
		},
		memory: containerMemory, heap: func() int64 { return debug.SetMemoryLimit(-1) }, kept: clockKept,
		built: func() (time.Time, bool) { return builtAt(debug.ReadBuildInfo()) }, bind: bindable, group: groupFault,
	}
}

// fsKind is what a file system means for a store.
type fsKind uint8

const (
	localFS fsKind = iota
	networkFS
	layerFS   // of a container, gone with it
	memoryFS  // gone with the machine's next start
	unknownFS // may be either
)

// space is what a file system has left.
type space struct {
	free             int64  // bytes that this account may still write
	files, freeFiles uint64 // that it can hold, and still takes; 0 and 0 where there is no such bound
}

func spaceOf(path string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}, fmt.Errorf("ask for free space: %w", err)
	}
	return space{int64(st.Bavail) * int64(st.Bsize), st.Files, st.Ffree}, nil //nolint:unconvert // the type of Bsize differs between systems
}

// amount writes a number of bytes, of which there may be more than an int holds.
func amount(n int64) string {
	switch {
	case n < 10<<20:
		return size(int(n))
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

// fewestFiles is what a relay needs of descriptors: for the store and its files, and for a few apps.
const fewestFiles = 256 + 16

// openFiles compares the limit on descriptors with what the config can use.
func (d *doctor) openFiles(cfg *config.Config) {
	limit, err := d.host.files()
	if err != nil {
		d.add("open files", relay.Warning, "ask for the limit: "+err.Error(), "see by hand that it is 65536 or so: ulimit -n")
		return
	}
	c := relay.ShareConnections(limit, cfg)
	detail := fmt.Sprintf("at most %d, so that each listener takes %d connections, and %d go out, of which the destinations can use %d", limit, c.Each, c.Out, c.Wanted)
	switch {
	case limit < fewestFiles:
		d.add("open files", relay.Problem, detail+fmt.Sprintf("; less than the %d that the store and a few apps need", fewestFiles), "raise the limit: LimitNOFILE=65536 in systemd, or ulimit -n")
	case len(c.Cut) > 0:
		d.add("open files", relay.Warning, detail+fmt.Sprintf("; the concurrency of %d is cut", len(c.Cut)), "raise the limit, LimitNOFILE= in systemd or ulimit -n, or lower concurrency")
	default:
		d.add("open files", relay.Fine, detail, "")
	}
}

// memoryBeside is what a busy relay takes beside the Go heap: code, stacks, maps of files.
const memoryBeside = 64 << 20

// memory compares the limit of the container with that of the heap, for so many destinations.
func (d *doctor) memory(destinations int) {
	heap := d.host.heap()
	if d.getenv("GOMEMLIMIT") == "" {
		heap = heapLimit(destinations) // as run sets it
	}
	limit, limited := d.host.memory()
	text := "the heap is kept to " + amount(heap)
	if heap == math.MaxInt64 {
		text = "the heap has no limit (GOMEMLIMIT)"
	}
	switch {
	case !limited:
		d.add("memory", relay.Fine, text+"; no other limit", "")
	case heap >= limit:
		d.add("memory", relay.Problem, fmt.Sprintf("%s, and the container may have %s: it is killed before the heap is kept small", text, amount(limit)),
			fmt.Sprintf("set GOMEMLIMIT to %dMiB or less, or give the container more", max(limit-memoryBeside, limit/2)>>20))
	case heap+memoryBeside > limit:
		d.add("memory", relay.Warning, fmt.Sprintf("%s, and the container may have %s: little is left for the rest", text, amount(limit)),
			fmt.Sprintf("give the container %dMiB, or set GOMEMLIMIT to %dMiB", (heap+memoryBeside)>>20, max(limit-memoryBeside, limit/2)>>20))
	default:
		d.add("memory", relay.Fine, fmt.Sprintf("%s, and the container may have %s", text, amount(limit)), "")
	}
}

const (
	// neverBefore is a time that no right clock shows any more, for programs that were built without a commit's time.
	neverBefore = "2026-11-01T00:00:00Z"

	// longAfter is how long after its making a program is hardly in use.
	longAfter = 15 * 365 * 24 * time.Hour
)

// builtAt is the time of the commit that this program was built from, or neverBefore if the build does not say.
func builtAt(info *debug.BuildInfo, ok bool) (at time.Time, known bool) {
	at, err := time.Parse(time.RFC3339, neverBefore)
	if err != nil {
		panic(err) // a constant of ours
	}
	if !ok {
		return at, false
	}
	for _, s := range info.Settings {
		if s.Key != "vcs.time" {
			continue
		}
		if commit, err := time.Parse(time.RFC3339, s.Value); err == nil && commit.After(at) {
			return commit, true
		}
	}
	return at, false
}

// clock holds the clock against what is known without asking anybody.
func (d *doctor) clock() {
	now := d.now()
	built, known := d.host.built()
	what := "this Postern's commit"
	if !known {
		what = "this Postern's source"
	}
	const advice = "set the clock, and have chrony or systemd-timesyncd keep it: receivers refuse signatures with a wrong time, and certificates look expired"
	stated := fmt.Sprintf("it is %s by this machine", now.UTC().Format(time.RFC3339))
	switch {
	case now.Before(built):
		d.add("clock", relay.Problem, fmt.Sprintf("%s, which is before %s, of %s", stated, what, built.UTC().Format(time.DateOnly)), advice)
		return
	case now.After(built.Add(longAfter)):
		d.add("clock", relay.Warning, fmt.Sprintf("%s, which is long after %s, of %s", stated, what, built.UTC().Format(time.DateOnly)), advice)
		return
	}
	if kept, ok := d.host.kept(); ok && !kept {
		d.add("clock", relay.Warning, stated+", and the kernel says that nothing keeps it right", "run chrony or systemd-timesyncd on the machine; whether it is right now is not known here")
		return
	}
	d.add("clock", relay.Fine, stated, "")
}
