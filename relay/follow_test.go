package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

func TestFoldersTo(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"etc", "opt/conf", "pod/..2026", "real/secrets"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"etc/postern.yaml", "opt/conf/own.yaml", "pod/..2026/postern.yaml", "real/secrets/token"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"etc/linked.yaml":  "../opt/conf/own.yaml",
		"etc/whole.yaml":   filepath.Join(root, "opt/conf/own.yaml"),
		"pod/..data":       "..2026",
		"pod/postern.yaml": "..data/postern.yaml",
		"secrets":          "real/secrets",
		"etc/loop":         "loop",
		"etc/dangling":     "../nowhere/at/all",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, path string
		want       []string
	}{
		{"a file is watched by its folder", "etc/postern.yaml", []string{"etc"}},
		{"a file that is to come too", "etc/new.yaml", []string{"etc"}},
		{"a folder that is to come is watched by the one around it", "later/on/postern.yaml", []string{"."}},
		{"a link and what it leads to", "etc/linked.yaml", []string{"etc", "opt/conf"}},
		{"a link with an absolute target", "etc/whole.yaml", []string{"etc", "opt/conf"}},
		{"Kubernetes' links", "pod/postern.yaml", []string{"pod", "pod/..2026"}},
		{"a path through Kubernetes' link", "pod/..data/postern.yaml", []string{"pod", "pod/..2026"}},
		{"a folder that is a link", "secrets/token", []string{".", "real/secrets"}},
		{"a link that leads nowhere", "etc/dangling", []string{"etc", "."}},
		{"a link to itself", "etc/loop", []string{"etc"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want []string
			for _, folder := range tc.want {
				want = append(want, filepath.Join(root, folder))
			}
			if got := foldersTo(filepath.Join(root, tc.path)); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// following is a follower that runs, and how often it has said that something has changed.
type following struct {
	calls atomic.Int64
	files atomic.Pointer[[]string]
	logs  *observer.ObservedLogs
}

// follow runs a follower until the test ends, and returns after its first call.
func follow(t *testing.T, files ...string) *following {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	w := &following{logs: logs}
	w.files.Store(&files)
	f := &follower{Files: func() []string { return *w.files.Load() }, Changed: func(context.Context) { w.calls.Add(1) }, Log: zap.New(core)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	w.await(t, 1, "the call at the beginning")
	return w
}

// await waits for the n-th call. It comes sooner than a look without being told would.
func (w *following) await(t *testing.T, n int64, what string) {
	t.Helper()
	for end := time.Now().Add(lookEvery * 3 / 4); w.calls.Load() < n; {
		if time.Now().After(end) {
			t.Fatalf("got %d calls, want %d: %s", w.calls.Load(), n, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if got := w.calls.Load(); got != n {
		t.Errorf("got %d calls, want %d: %s", got, n, what)
	}
}

func writeTo(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFollowerSeesEachWayToChangeAFile(t *testing.T) {
	t.Run("written in place", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		writeTo(t, path, "one")
		w := follow(t, path)
		writeTo(t, path, "two and more")
		w.await(t, 2, "after a write")
	})
	t.Run("written in place within one tick of the file system's clock", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		tick := time.Now().Add(time.Second).Truncate(time.Second)
		write := func(text string) {
			t.Helper()
			writeTo(t, path, text)
			if err := os.Chtimes(path, tick, tick); err != nil {
				t.Fatal(err)
			}
		}
		write("one")
		w := follow(t, path)
		write("two")
		w.await(t, 2, "after another text of the same length and time")
	})
	t.Run("replaced by another", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		writeTo(t, path, "one")
		w := follow(t, path)
		for n := range 3 { // a watch on the file itself would end with the first
			replaceFile(t, path, "two")
			w.await(t, int64(n+2), "after another took its place")
		}
	})
	t.Run("moved away and written anew", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		writeTo(t, path, "one")
		w := follow(t, path)
		if err := os.Rename(path, path+"~"); err != nil { // as some editors do
			t.Fatal(err)
		}
		writeTo(t, path, "two")
		w.await(t, 2, "after both steps, not after each")
	})
	t.Run("swapped by Kubernetes", func(t *testing.T) {
		dir := t.TempDir()
		config, secret := filepath.Join(dir, "postern.yaml"), filepath.Join(dir, "token")
		swap := func(n int) {
			t.Helper()
			version := fmt.Sprintf("..2026_%d", n)
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			writeTo(t, filepath.Join(dir, version, "postern.yaml"), fmt.Sprint(n))
			writeTo(t, filepath.Join(dir, version, "token"), fmt.Sprint(n))
			if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%d", n-1))); err != nil {
					t.Fatal(err)
				}
			}
		}
		swap(0)
		for _, path := range []string{config, secret} {
			if err := os.Symlink(filepath.Join("..data", filepath.Base(path)), path); err != nil {
				t.Fatal(err)
			}
		}
		w := follow(t, config, secret)
		for n := 1; n < 4; n++ {
			swap(n)
			w.await(t, int64(n+1), "after a swap, for both files together")
		}
	})
	t.Run("made where there was none, with its folder", func(t *testing.T) {
		dir := t.TempDir()
		config, secret := filepath.Join(dir, "postern.yaml"), filepath.Join(dir, "run", "secrets", "token")
		writeTo(t, config, "one")
		w := follow(t, config, secret)
		if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
			t.Fatal(err)
		}
		writeTo(t, secret, "s")
		w.await(t, 2, "after it is there")
		replaceFile(t, secret, "t")
		w.await(t, 3, "after another took its place")
		if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
			t.Fatal(err)
		}
		w.await(t, 4, "after it is gone")
		if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
			t.Fatal(err)
		}
		writeTo(t, secret, "u")
		w.await(t, 5, "after it is there again")
	})
	t.Run("made readable", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		writeTo(t, path, "one")
		w := follow(t, path)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		w.await(t, 2, "after a change of its mode")
	})
	t.Run("new in the list", func(t *testing.T) {
		dir, other := t.TempDir(), t.TempDir()
		path, secret := filepath.Join(dir, "postern.yaml"), filepath.Join(other, "token")
		writeTo(t, path, "one")
		writeTo(t, secret, "s")
		w := follow(t, path)
		w.files.Store(&[]string{path, secret})
		replaceFile(t, path, "two")
		w.await(t, 2, "after the first change")
		w.await(t, 2, "and the list is known")
		replaceFile(t, secret, "t")
		w.await(t, 3, "after a change of what is new in the list")
	})
}

func TestFollowerIsNotToldOfWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	path, busy := filepath.Join(dir, "postern.yaml"), filepath.Join(dir, "busy")
	writeTo(t, path, "one")
	w := follow(t, path)
	var (
		stop   atomic.Bool
		writes atomic.Int64
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < 1_000_000 && !stop.Load(); n++ {
			writes.Add(1)
			_ = os.WriteFile(busy, []byte(fmt.Sprint(n)), 0o600)
			_ = os.Remove(busy)
		}
	}()
	until(t, "others have been busy for a while", func() bool { return writes.Load() > 5000 })
	if got := w.calls.Load(); got != 1 {
		t.Errorf("got %d calls while others were busy in the folder, want none but the first", got)
	}
	replaceFile(t, path, "two")
	w.await(t, 2, "others who are busy in the folder do not put it off")
	stop.Store(true)
	<-done
}

// untold is what remains where nobody tells of changes.
func untold() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }

func TestFollowerLooksWithoutBeingTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "postern.yaml")
		writeTo(t, path, "one")
		core, logs := observer.New(zap.DebugLevel)
		var calls atomic.Int64
		begin := time.Now()
		var times []time.Duration
		f := &follower{
			Files: func() []string { return []string{path} }, Log: zap.New(core), NewWatcher: untold,
			Changed: func(context.Context) { calls.Add(1); times = append(times, time.Since(begin)) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(35 * time.Second)
		replaceFile(t, path, "two")
		time.Sleep(lookEvery + settleTime)
		// Somebody who writes again and again cannot put it off for ever.
		from := time.Since(begin)
		for n := range 400 {
			replaceFile(t, path, strings.Repeat("x", n+10))
			time.Sleep(settleTime)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if len(times) < 4 || times[0] != settleTime || times[1] != 4*lookEvery+2*settleTime {
			t.Fatalf("got calls at %v, want the first at once and the second at the next look and when the file had settled", times)
		}
		for n := 3; n < len(times); n++ {
			if gap := times[n] - times[n-1]; times[n-1] > from && gap > lookEvery+longestSettle+2*settleTime {
				t.Errorf("got calls at %v and %v with nothing between, though the file changed all the time", times[n-1], times[n])
			}
		}
		if n := logs.FilterMessage("config files looked at now and then only").Len(); n != 1 {
			t.Errorf("got %d lines about it in the log, want one", n)
		}
	})
}

func TestARelayFollowsItsFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "token")
	replaceFile(t, secret, "first\n")
	text := edit(t, "a: {", `a: {auth: {bearer: {token: "${file:`+secret+`}"}}, `)
	r := newRig(t, text, func(r *rig) { r.Follow = true })
	reloaded := func() int { return r.logs.FilterMessage("config reloaded").Len() }
	refused := func() int { return r.logs.FilterMessage("config not reloaded, the earlier one stays in force").Len() }

	replaceFile(t, secret, "second\n")
	until(t, "the secret is reloaded", func() bool { return reloaded() == 1 })
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	if got := r.far.of("a.test")[0].header.Get("Authorization"); got != "Bearer second" {
		t.Errorf("got %q, want the second secret", got)
	}
	r.write(t, text+"  c: {url: 'https://c.test/'}\n")
	until(t, "the config is reloaded", func() bool { return r.outlet("c") != nil })

	r.write(t, text+"  c: {url: 'https://c.test/', auth: {bearer: {token: '${file:"+secret+"2}'}}}\n")
	until(t, "a secret that is missing is told", func() bool { return refused() == 1 })
	before := r.outlet("c")
	replaceFile(t, secret+"2", "third\n")
	until(t, "the config is reloaded when the secret has come", func() bool { return r.outlet("c") != before })

	r.write(t, "destinations: [")
	until(t, "a mistake is told", func() bool { return refused() == 2 })
	count := reloaded()
	r.write(t, text+"  c: {url: 'https://c.test/', auth: {bearer: {token: '${file:"+secret+"2}'}}}\n")
	until(t, "that it is mended is told", func() bool { return reloaded() == count+1 })
	touched := func() int { return r.logs.FilterMessage("config is as before").Len() }
	earlier := touched()
	if err := os.Chtimes(r.path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	until(t, "a touch is noticed", func() bool { return touched() > earlier })
	if reloaded() != count+1 || refused() != 2 {
		t.Errorf("got %d reloads and %d refusals in the log after a touch, want %d and 2", reloaded(), refused(), count+1)
	}
}
