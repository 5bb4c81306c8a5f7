package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the folder that holds the programs under test, and removes it at the end.
func TestMain(m *testing.M) {
	if address := os.Getenv(crowdAddress); address != "" {
		os.Exit(beCrowd(address, os.Getenv(crowdNumber), os.Getenv(crowdText)))
	}
	dir, err := os.MkdirTemp("", "postern-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.Setenv(programsVariable, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// programsVariable names the folder of the programs under test.
const programsVariable = "POSTERN_FAULTS_PROGRAMS"

// full reports whether the long form of the tests was asked for, which make test-faults does.
func full() bool { return os.Getenv("POSTERN_FAULTS") == "full" }

// pick returns a number for the quick form of a test, or that for the long one.
func pick[T any](quick, long T) T {
	if full() {
		return long
	}
	return quick
}

// seeded returns a source of chance, and logs its seed; POSTERN_FAULTS_SEED repeats a run. Only one goroutine at a time
// may use it: give each a source of its own by rand.New(rand.NewPCG(r.Uint64(), r.Uint64())).
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("POSTERN_FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("POSTERN_FAULTS_SEED: %q is not a number", text)
		}
	}
	t.Logf("to repeat the chances of this run: POSTERN_FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// report says what a test has run, for the summary: its category (kill, power, damage, disk, resources, receivers, time,
// herd, soak, fuzz) and one line with the figures of this run. Call it once, at the end of a test.
func report(t *testing.T, category, format string, args ...any) {
	t.Helper()
	t.Attr("fault", category+": "+fmt.Sprintf(format, args...))
}

// need fails a test that cannot be run without some programs, and says which are missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("this test needs %s, which is not installed: make faulttools installs it", name)
		}
	}
}

// postern returns the path of the program, built once with the race detector.
func postern(t testing.TB) string {
	t.Helper()
	path, err := racing()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// plainPostern returns the path of the program as it is released, without the race detector: for figures of memory and
// time, and where system calls are counted.
func plainPostern(t testing.TB) string {
	t.Helper()
	path, err := released()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	racing   = sync.OnceValues(func() (string, error) { return build("postern-race", "1", "-race") })
	released = sync.OnceValues(func() (string, error) { return build("postern", "0", "-trimpath") })
)

// build builds the program. It does so in the folder build, where the next run finds it and need not link it again, and
// returns another link to it, which nobody replaces while the tests run.
func build(name, cgo string, flags ...string) (path string, err error) {
	root := filepath.Join("..", "..")
	if err := readTree(root); err != nil {
		return "", err
	}
	kept := filepath.Join(root, "build", "faults")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(kept, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %q: %w", lock.Name(), err)
	}
	from := filepath.Join(kept, name)
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", from, root+"/cmd/postern")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	path = filepath.Join(cmp.Or(os.Getenv(programsVariable), os.TempDir()), name)
	if err := os.Link(from, path); err == nil {
		return path, nil
	}
	program, err := os.ReadFile(from) // another file system
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, program, 0o700)
}

// readTree looks at each folder of the source, so that Go's test cache knows what the program is made of.
func readTree(root string) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || name == filepath.Join(root, "bin") ||
			name == filepath.Join(root, "build")):
			return fs.SkipDir
		}
		return nil
	})
}

// waitUntil asks until ok says yes, and fails the test if that takes longer than within.
func waitUntil(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// writeFile writes a file that only its owner may read.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sum adds the counts.
func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// listed says counts in words, the largest first.
func listed(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return strings.Join(names, ", ")
}
