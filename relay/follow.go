package relay

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/guard"
)

const (
	// settleTime is how long files must stay as they are before they are read: who writes in place leaves half a file
	// for a moment, and who replaces several does it one after the other.
	settleTime = 100 * time.Millisecond

	// longestSettle is how long that may be put off by further changes.
	longestSettle = 2 * time.Second

	// lookEvery is how often the files are looked at without being told, as on network file systems, where nobody tells.
	lookEvery = 10 * time.Second

	// maxSummed is more than any of the files has, in bytes.
	maxSummed = 4 << 20

	// maxLinks is how many symbolic links a path may lead through, as in Linux.
	maxLinks = 40
)

// follower watches files, and says when what their paths lead to has changed: by a write, by a file that takes its
// place, or by a symbolic link on the way that leads elsewhere, as when Kubernetes swaps ..data. It watches the folders,
// never the files, since a watch on a file ends with it.
type follower struct {
	Files   func() []string           // what to watch now; asked again after each Changed
	Changed func(ctx context.Context) // called once at the beginning, and then by the same goroutine
	Log     *zap.Logger

	// NewWatcher makes what tells of changes; nil means fsnotify.NewWatcher.
	NewWatcher func() (*fsnotify.Watcher, error)

	watcher *fsnotify.Watcher // nil if there is none to be had
	refused map[string]bool   // folders that it would not take
}

// Run follows the files until ctx ends. It returns nil: without a watcher it goes on by looking now and then.
func (f *follower) Run(ctx context.Context) error {
	var (
		events <-chan fsnotify.Event
		errs   <-chan error
	)
	newWatcher := f.NewWatcher
	if newWatcher == nil {
		newWatcher = fsnotify.NewWatcher
	}
	watcher, err := newWatcher()
	if err != nil {
		f.Log.Warn("config files looked at now and then only", zap.Error(err), zap.Duration("every_seconds", lookEvery))
	} else {
		defer func() { _ = watcher.Close() }() // nothing of it is needed any more
		f.watcher, events, errs = watcher, watcher.Events, watcher.Errors
	}
	f.refused = map[string]bool{}

	// The files may have changed since they were read first, so there is a change to begin with.
	var seen sight
	dirty, since := true, time.Now()
	next := time.NewTimer(0)
	defer next.Stop()
	soon := true // next is due within settleTime
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case _, ok := <-errs: // events were lost, for example
			if !ok {
				errs = nil
			}
		case <-next.C:
			now := f.look(seen)
			changed := !now.same(seen)
			seen = now
			if changed && !dirty {
				dirty, since = true, time.Now()
			}
			soon = dirty
			if dirty && (!changed || time.Since(since) >= longestSettle) {
				f.Changed(ctx)
				// What the files refer to may be new, and then nobody has looked at it before it was read.
				dirty, since = !slices.Equal(seen.paths, f.paths()), time.Now()
				soon = dirty
			}
			if soon {
				next.Reset(settleTime)
			} else {
				next.Reset(lookEvery)
			}
			continue
		}
		if !soon { // a folder in which others are busy does not put it off
			soon = true
			next.Reset(settleTime)
		}
	}
}

// sight is what a look at the files has seen.
type sight struct {
	paths []string
	files []seenFile
}

// seenFile is what one path leads to.
type seenFile struct {
	info  fs.FileInfo       // nil for a file that is not there
	fresh bool              // it may be written once more without looking any different
	sum   [sha256.Size]byte // of its content, if it is fresh or was at the look before; else zero
}

func (s sight) same(other sight) bool {
	return slices.Equal(s.paths, other.paths) && slices.EqualFunc(s.files, other.files, seenFile.same)
}

func (a seenFile) same(b seenFile) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	none := [sha256.Size]byte{}
	return os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() && a.info.Mode() == b.info.Mode() &&
		a.info.ModTime().Equal(b.info.ModTime()) && (a.sum == none || b.sum == none || a.sum == b.sum)
}

// paths returns the files, absolute and sorted.
func (f *follower) paths() []string {
	var paths []string
	for _, path := range f.Files() {
		if path, err := filepath.Abs(path); err == nil { // fails only without a working directory
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// look looks at the files, after having seen to it that changes from now on are told.
func (f *follower) look(before sight) sight {
	s := sight{paths: f.paths()}
	f.watch(s.paths)
	for i, path := range s.paths {
		var file seenFile
		if info, err := os.Stat(path); err == nil {
			file.info, file.fresh = info, guard.Fresh(info, time.Now())
			wasFresh := slices.Equal(before.paths, s.paths) && before.files[i].fresh
			if file.fresh || wasFresh {
				file.sum = sumOf(path, info)
			}
		}
		s.files = append(s.files, file)
	}
	return s
}

// sumOf returns the SHA-256 of a file, or zero for one that cannot be read, or is more than any of ours.
func sumOf(path string, info fs.FileInfo) (sum [sha256.Size]byte) {
	if !info.Mode().IsRegular() || info.Size() > maxSummed { // a pipe would have to be waited for
		return sum
	}
	file, err := os.Open(path)
	if err != nil {
		return sum
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(file, maxSummed)); err != nil {
		return sum
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// watch watches the folders on the way to the files, and no others.
func (f *follower) watch(paths []string) {
	if f.watcher == nil {
		return
	}
	wanted := map[string]bool{}
	for _, path := range paths {
		for _, folder := range foldersTo(path) {
			wanted[folder] = true
		}
	}
	watched := f.watcher.WatchList()
	for _, folder := range watched {
		if !wanted[folder] {
			_ = f.watcher.Remove(folder) // it may be gone
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(wanted)) {
		if slices.Contains(watched, folder) {
			continue
		}
		err := f.watcher.Add(folder)
		if err != nil && !f.refused[folder] {
			f.Log.Warn("config folder looked at now and then only", zap.String("path", folder), zap.Error(err), zap.Duration("every_seconds", lookEvery))
		}
		if f.refused[folder] = err != nil; err == nil {
			delete(f.refused, folder)
		}
	}
}

// foldersTo returns the folders whose entries decide what an absolute path leads to: those of each symbolic link on the
// way, and the last one. Where the way ends too early it is the folder in which it could go on.
func foldersTo(path string) []string {
	var folders []string
	add := func(folder string) {
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	at, rest := "/", strings.Split(filepath.Clean(path), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" {
			continue
		}
		here := filepath.Join(at, name) // of "..", at holds no link any more
		info, err := os.Lstat(here)
		switch {
		case err != nil:
			add(at)
			return folders
		case info.Mode().Type() == fs.ModeSymlink:
			add(at)
			target, err := os.Readlink(here)
			if links++; err != nil || links > maxLinks {
				return folders
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case len(rest) == 0:
			add(at)
		default:
			at = here
		}
	}
	return folders
}
