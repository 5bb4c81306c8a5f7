package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
)

// healthy is a machine on which nothing is wrong.
func healthy() host {
	h := thisHost()
	h.writable = func(string) bool { return true }
	h.fileSystem = func(string) (fsKind, string, error) { return localFS, "ext4", nil }
	h.space = func(string) (space, error) { return space{free: 100 << 30, files: 1e6, freeFiles: 1e6}, nil }
	h.files = func() (uint64, error) { return 65536, nil }
	h.memory = func() (int64, bool) { return 0, false }
	h.heap = func() int64 { return math.MaxInt64 }
	h.kept = func() (bool, bool) { return true, true }
	h.built = func() (time.Time, bool) { return time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), true }
	return h
}

// examined is one case of a check: what the machine is like, and the worst that doctor has to say.
type examined struct {
	rule   string
	host   func(h *host)
	now    time.Time
	env    []string
	folder func(t *testing.T, path string)
	status relay.Severity
	text   string
}

// run returns the findings of one check as lines.
func (e examined) run(t *testing.T, check func(*doctor, *config.Config)) (worst relay.Severity, text string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "data")
	if e.folder != nil {
		e.folder(t, path)
	}
	cfg, err := config.Parse(filepath.Join(dir, "postern.yaml"), []byte(fmt.Sprintf(
		"store: {path: %q}\ndestinations: {a: {url: https://a.test/, concurrency: 1000}, b: {url: https://b.test/, enabled: false, concurrency: 1000}}", path)), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{program: &program{environ: e.env}, host: healthy(), now: func() time.Time { return e.now }}
	if e.host != nil {
		e.host(&d.host)
	}
	check(d, cfg)
	var lines []string
	for _, f := range d.findings {
		worst = max(worst, f.Status)
		lines = append(lines, fmt.Sprintf("%s %s %s → %s", f.Status, f.Check, f.Detail, f.Advice))
		if f.Status == relay.Problem && f.Advice == "" {
			t.Errorf("a problem without advice: %+v", f)
		}
	}
	return worst, strings.Join(lines, "\n")
}

func (e examined) want(t *testing.T, check func(*doctor, *config.Config)) {
	t.Run(e.rule, func(t *testing.T) {
		status, text := e.run(t, check)
		if status != e.status || !strings.Contains(text, e.text) {
			t.Errorf("got %s:\n%s\nwant %s with %q", status, text, e.status, e.text)
		}
	})
}

func mkdir(mode fs.FileMode) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := errors.Join(os.Mkdir(path, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDoctorFolder(t *testing.T) {
	someFS := func(kind fsKind, name string) func(*host) {
		return func(h *host) { h.fileSystem = func(string) (fsKind, string, error) { return kind, name, nil } }
	}
	someSpace := func(free int64, files uint64) func(*host) {
		return func(h *host) { h.space = func(string) (space, error) { return space{free, 1e6, files}, nil } }
	}
	const mib = 1 << 20
	for _, e := range []examined{
		{rule: "a good folder is fine", folder: mkdir(0o700), status: relay.Fine, text: "mode 0700, belongs to this account"},
		{rule: "one that is yet to be made is fine", status: relay.Fine, text: "is not there yet"},
		{
			rule: "unless it cannot be made", host: func(h *host) { h.writable = func(string) bool { return false } },
			status: relay.Problem, text: "install -d -m 0700",
		},
		{rule: "a folder that others may enter is a warning", folder: mkdir(0o750), status: relay.Warning, text: "with mode 0750 → chmod 0700"},
		{
			rule: "a file that others may read is a warning", status: relay.Warning, text: "1 file in ",
			folder: func(t *testing.T, path string) {
				mkdir(0o700)(t, path)
				writeFile(t, filepath.Join(path, "hwm"), "")
				if err := os.Chmod(filepath.Join(path, "hwm"), 0o640); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			rule: "what is no folder is a problem", status: relay.Problem, text: "is not a folder",
			folder: func(t *testing.T, path string) { writeFile(t, path, "") },
		},
		{
			rule: "a folder that this account may not write is a problem", folder: mkdir(0o700), status: relay.Problem, text: "may not write to it → chown -R",
			host: func(h *host) { h.writable = func(string) bool { return false } },
		},
		{
			rule: "a folder of somebody else is a warning", folder: mkdir(0o700), status: relay.Warning, text: "and not to this account, user 12345",
			host: func(h *host) { h.uid = 12345 },
		},
		{
			rule: "a folder that cannot be seen is a problem", status: relay.Problem, text: "permission denied",
			host: func(h *host) {
				h.stat = func(path string) (fs.FileInfo, error) {
					return nil, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrPermission}
				}
			},
		},
		{rule: "a network file system is a problem", host: someFS(networkFS, "nfs"), status: relay.Problem, text: "is on nfs"},
		{rule: "a container's own layer is a warning", host: someFS(layerFS, "overlay"), status: relay.Warning, text: "mount a volume"},
		{rule: "so is memory", host: someFS(memoryFS, "tmpfs"), status: relay.Warning, text: "mount a volume"},
		{rule: "a file system that is not known is told", host: someFS(unknownFS, "fuse"), status: relay.Fine, text: "must be a local one"},
		{rule: "free space below the reserve is a problem", host: someSpace(256*mib-1, 1e6), status: relay.Problem, text: "507 → make room on the disk of "},
		{rule: "a lower reserve would do where the store needs less", host: someSpace(224*mib, 1e6), status: relay.Problem, text: ", or lower store.min_free, to 224 MiB at the least"},
		{rule: "little more is a warning", host: someSpace(256*mib, 1e6), status: relay.Warning, text: "507 when it is reached"},
		{rule: "twice as much is fine", host: someSpace(512*mib, 1e6), status: relay.Fine, text: "the reserve is 256 MiB"},
		{rule: "a file system that takes no files is a warning", host: someSpace(1<<40, 999), status: relay.Warning, text: "999 more files"},
		{rule: "one that takes some is fine", host: someSpace(1<<40, 1000), status: relay.Fine},
	} {
		e.want(t, (*doctor).folder)
	}
}

func TestDoctorClock(t *testing.T) {
	built := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for _, e := range []examined{
		{rule: "a clock after the build is fine", now: built, status: relay.Fine, text: "it is 2026-11-20T00:00:00Z"},
		{rule: "a clock before the build is a problem", now: built.Add(-time.Second), status: relay.Problem, text: "before this Postern's commit, of 2026-11-20"},
		{rule: "a clock long after the build is a warning", now: built.Add(longAfter + time.Second), status: relay.Warning, text: "long after"},
		{rule: "one a little less so is fine", now: built.Add(longAfter), status: relay.Fine},
		{
			rule: "a clock that nobody keeps is a warning", now: built, status: relay.Warning, text: "nothing keeps it right",
			host: func(h *host) { h.kept = func() (bool, bool) { return false, true } },
		},
		{
			rule: "a system that does not say is believed", now: built, status: relay.Fine,
			host: func(h *host) { h.kept = func() (bool, bool) { return false, false } },
		},
		{
			rule: "without a commit's time the source's counts", now: built, status: relay.Problem, text: "before this Postern's source",
			host: func(h *host) { h.built = func() (time.Time, bool) { return built.Add(time.Hour), false } },
		},
	} {
		e.want(t, func(d *doctor, _ *config.Config) { d.clock() })
	}
	t.Run("a store that was written in the future tells of a clock that was set back", func(t *testing.T) {
		for ahead, want := range map[time.Duration]int{time.Minute: 0, time.Minute + time.Second: 1, -time.Hour: 0} {
			d := &doctor{program: &program{}, host: healthy(), now: func() time.Time { return built }}
			if d.lastWrite(built.Add(ahead)); d.count(relay.Warning) != want {
				t.Errorf("%v ahead: got %+v, want %d warnings", ahead, d.findings, want)
			}
		}
	})
}

func TestBuiltAt(t *testing.T) {
	never, err := time.Parse(time.RFC3339, neverBefore)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		rule, value string
		want        time.Time
		known       bool
	}{
		{"the time of the commit counts", "2027-03-01T10:00:00Z", time.Date(2027, 3, 1, 10, 0, 0, 0, time.UTC), true},
		{"a commit from before our time does not", "2020-03-01T10:00:00Z", never, false},
		{"nor does what is no time", "yesterday", never, false},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			at, known := builtAt(&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.time", Value: tc.value}}}, true)
			if !at.Equal(tc.want) || known != tc.known {
				t.Errorf("got %v %t, want %v %t", at, known, tc.want, tc.known)
			}
		})
	}
	if at, known := builtAt(nil, false); !at.Equal(never) || known {
		t.Errorf("without build info: got %v %t, want %v", at, known, never)
	}
}

func TestDoctorLimits(t *testing.T) {
	files := func(n uint64) func(*host) {
		return func(h *host) { h.files = func() (uint64, error) { return n, nil } }
	}
	for _, e := range []examined{
		{rule: "only enabled destinations count", host: files(2664), status: relay.Fine, text: "1000 go out, of which the destinations can use 1000"},
		{rule: "fewer descriptors than all can use are a warning", host: files(2662), status: relay.Warning, text: "the concurrency of 1 is cut"},
		{rule: "so are just enough for the store", host: files(272), status: relay.Warning},
		{rule: "fewer than the store needs are a problem", host: files(271), status: relay.Problem, text: "LimitNOFILE"},
		{
			rule: "a limit that cannot be asked for is a warning", status: relay.Warning, text: "no such thing",
			host: func(h *host) { h.files = func() (uint64, error) { return 0, errors.New("no such thing") } },
		},
	} {
		e.want(t, (*doctor).openFiles)
	}
	const mib = 1 << 20
	memory := func(limit, heap int64) func(*host) {
		return func(h *host) {
			h.memory = func() (int64, bool) { return limit, true }
			h.heap = func() int64 { return heap }
		}
	}
	own := []string{"GOMEMLIMIT=x"}
	for _, e := range []examined{
		{rule: "no limit is fine", status: relay.Fine, text: "128 MiB; no other limit"},
		{rule: "enough is fine", host: memory(192*mib, 1), status: relay.Fine, text: "may have 192 MiB"},
		{rule: "a little less is a warning", host: memory(192*mib-1, 1), status: relay.Warning, text: "set GOMEMLIMIT to 127MiB"},
		{rule: "no more than the heap is a problem", host: memory(128*mib, 1), status: relay.Problem, text: "set GOMEMLIMIT to 64MiB or less"},
		{rule: "GOMEMLIMIT of the environment counts", env: own, host: memory(128*mib, 64*mib), status: relay.Fine, text: "kept to 64 MiB"},
		{rule: "a heap without a limit in a container is a problem", env: own, host: memory(1<<30, math.MaxInt64), status: relay.Problem, text: "no limit"},
	} {
		e.want(t, func(d *doctor, _ *config.Config) { d.memory(0) })
	}
	many := examined{rule: "each destination adds to the heap", host: memory(256*mib, 1), status: relay.Warning, text: "kept to 253 MiB"}
	many.want(t, func(d *doctor, _ *config.Config) { d.memory(1000) })
}

// TestDoctorCommand runs the whole of it, beside a relay that runs and without one.
func TestDoctorCommand(t *testing.T) {
	far := newFarEnd(t, "127.0.0.84", "well.test")
	dir := t.TempDir()
	_, admin := freeAddresses(t)
	key := filepath.Join(dir, "key")
	writeFile(t, key, "canary-1f0e")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "postern.yaml")
	write := func(more string) {
		writeFile(t, file, fmt.Sprintf(`
listen: {ingest: "unix://%[1]s/in.sock", admin: "%[2]s"}
store: {path: "%[1]s/data"}
egress: {resolve: {well.test: 127.0.0.84, ill.test: 127.0.0.85}}
defaults: {allow_networks: [127.0.0.0/8], tls: {ca_file: %[3]q}}
destinations:
  well: {url: "https://well.test/hook", auth: {bearer: {token: "${file:%[4]s}"}}}
%[5]s`, dir, admin, far.caFile, key, more))
	}
	examine := func(args ...string) (code int, report doctorReport, text string) {
		t.Helper()
		var out, errOut bytes.Buffer
		code = run(context.Background(), append([]string{"doctor", "--config", file}, args...), nil, strings.NewReader(""), &out, &errOut)
		if len(args) > 0 && args[len(args)-1] == "--json" && out.Len() > 0 {
			if err := json.Unmarshal(unword(out.Bytes()), &report); err != nil {
				t.Fatalf("%v:\n%s", err, out.String())
			}
		}
		return code, report, out.String() + errOut.String()
	}
	write("")
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Cleanup(func() {
		if names, err := os.ReadDir(home); err != nil || len(names) > 0 {
			t.Errorf("the home directory holds %v, %v; want nothing written to it", names, err)
		}
	})

	t.Run("all well is exit code 0, warnings or not", func(t *testing.T) {
		code, report, text := examine("--json")
		if code != exitOK || !report.OK || report.Problems != 0 || report.Warnings == 0 || report.Config != file {
			t.Errorf("got exit code %d, %+v; want 0, and a warning of the key's mode", code, report)
		}
		if strings.Contains(text, "canary") {
			t.Errorf("a secret is in %s", text)
		}
		for _, want := range []string{`"check": "secrets"`, "chmod o=", `"alpn": "h2"`, "there is none yet", "in.sock is free; who may write to the socket"} {
			if !strings.Contains(text, want) {
				t.Errorf("got %s\nwant %s in it", text, want)
			}
		}
	})
	t.Run("a problem is exit code 1, with what to do", func(t *testing.T) {
		write(`  ill: {url: "https://ill.test/"}`)
		code, _, text := examine()
		if code != exitFailed || !strings.Contains(text, "\nill\n") || !strings.Contains(text, "connection refused") || !strings.Contains(text, "→ is the receiver up") || !strings.Contains(text, "1 problem, ") {
			t.Errorf("got exit code %d:\n%s", code, text)
		}
		if code, _, text := examine("well"); code != exitOK || strings.Contains(text, "ill") {
			t.Errorf("only the other one: got exit code %d:\n%s", code, text)
		}
	})
	t.Run("a destination that is not there is a mistake of the command line", func(t *testing.T) {
		if code, _, text := examine("wel"); code != exitUsage || !strings.Contains(text, `no destination "wel"`) {
			t.Errorf("got exit code %d: %s", code, text)
		}
	})
	t.Run("a config that cannot be used is exit code 2, and the rest is looked at all the same", func(t *testing.T) {
		write("  ill: {url: http://ill.test/}\n  sick: {uri: x}")
		code, report, text := examine("--json")
		if code != exitUsage || report.OK || report.Problems < 2 {
			t.Errorf("got exit code %d, %+v; want 2, and a problem for each fault", code, report)
		}
		for _, want := range []string{"destinations.ill.url", "destinations.sick", `"check": "folder"`, `"check": "clock"`} {
			if !strings.Contains(text, want) {
				t.Errorf("got %s\nwant %s in it", text, want)
			}
		}
		writeFile(t, file, "{")
		if code, _, text := examine(); code != exitUsage || !strings.Contains(text, "problem  config") {
			t.Errorf("no YAML: got exit code %d:\n%s", code, text)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if code, _, text := examine(); code != exitUsage || !strings.Contains(text, "--config") {
			t.Errorf("no file: got exit code %d:\n%s", code, text)
		}
	})
	t.Run("beside a relay that runs, it asks that one and leaves the store alone", func(t *testing.T) {
		write("")
		relay := startPostern(t, admin, "run", "--config", file)
		code, _, text := examine()
		if code != exitOK || !strings.Contains(text, "a running Postern has it open, and is ready; 0 deliveries pending") {
			t.Errorf("got exit code %d:\n%s", code, text)
		}
		if code, _, text := examine("--admin", "127.0.0.85:1"); code != exitFailed || !strings.Contains(text, "in use by another process") || !strings.Contains(text, "--admin") {
			t.Errorf("its admin listener is not found: got exit code %d:\n%s", code, text)
		}
		relay.stop(t)
		if code, _, text := examine(); code != exitOK || !strings.Contains(text, "no process has it open") || !strings.Contains(text, "right checksums") {
			t.Errorf("when it has stopped: got exit code %d:\n%s", code, text)
		}
	})
	t.Run("a damaged store is a problem, and stays as it is", func(t *testing.T) {
		manifest := filepath.Join(dir, "data", "badger", "MANIFEST")
		if err := os.Truncate(manifest, 8); err != nil {
			t.Fatal(err)
		}
		before := listing(t, filepath.Join(dir, "data"))
		code, _, text := examine()
		if code != exitFailed || !strings.Contains(text, "is damaged") || !strings.Contains(text, "copy the folder away first") {
			t.Errorf("got exit code %d:\n%s", code, text)
		}
		if after := listing(t, filepath.Join(dir, "data")); after != before {
			t.Errorf("the folder was changed:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// unword makes the words of severities numbers again, which is how the Go type is decoded.
func unword(report []byte) []byte {
	for n, word := range []string{"ok", "warning", "problem"} {
		report = bytes.ReplaceAll(report, []byte(`"status": "`+word+`"`), fmt.Appendf(nil, `"status": %d`, n))
	}
	return report
}

// listing says what is in a folder, with sizes and times.
func listing(t *testing.T, path string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			fmt.Fprintln(&out, name, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
