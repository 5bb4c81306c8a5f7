//go:build release

package postern_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a step that must happen is waited for.
const patience = 60 * time.Second

// copyTree copies what is in the repository into a folder of its own, which is no clone.
func copyTree(t *testing.T, to string) {
	t.Helper()
	walk(t, func(name string) {
		raw, err := os.ReadFile(filepath.FromSlash(name))
		if err == nil {
			err = os.MkdirAll(filepath.Join(to, filepath.FromSlash(path.Dir(name))), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.FromSlash(name)), raw, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

// command runs a command in a folder and returns what it printed.
func command(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestReleaseIsReproducible builds twice: in folders of other names and depths, from nothing each time.
func TestReleaseIsReproducible(t *testing.T) {
	var sums []string
	for _, dir := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "much", "deeper", "b")} {
		copyTree(t, dir)
		command(t, dir, []string{"GOCACHE=" + filepath.Join(t.TempDir(), "cache")}, "make", "build", "VERSION=9.9.9")
		raw, err := os.ReadFile(filepath.Join(dir, "bin", "postern"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(dir)) {
			t.Errorf("the binary holds the folder that it was built in, %s", dir)
		}
		sum := sha256.Sum256(raw)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	if sums[0] != sums[1] {
		t.Errorf("got two binaries, %s and %s, want the same", sums[0], sums[1])
	}
}

func TestRelease(t *testing.T) {
	out := t.TempDir()
	command(t, ".", nil, "make", "release", "VERSION=9.9.9", "OUT="+out)
	for name, machine := range map[string]elf.Machine{
		"linux_amd64": elf.EM_X86_64, "linux_arm64": elf.EM_AARCH64, "linux_armv7": elf.EM_ARM,
	} {
		t.Run(name+" is static", func(t *testing.T) {
			f, err := elf.Open(filepath.Join(out, "postern_9.9.9_"+name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Machine != machine {
				t.Errorf("got a program for %v, want %v", f.Machine, machine)
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP {
					t.Error("it wants a dynamic linker")
				}
			}
			if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
				t.Errorf("it wants libraries: %v, %v", libraries, err)
			}
		})
	}
	for name, cpu := range map[string]macho.Cpu{"darwin_amd64": macho.CpuAmd64, "darwin_arm64": macho.CpuArm64} {
		t.Run(name+" is there", func(t *testing.T) {
			f, err := macho.Open(filepath.Join(out, "postern_9.9.9_"+name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Cpu != cpu {
				t.Errorf("got a program for %v, want %v", f.Cpu, cpu)
			}
		})
	}
	t.Run("each file has its checksum, and each program its SBOM", func(t *testing.T) {
		raw, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		sums := map[string]string{}
		for lines.Scan() {
			sum, name, _ := strings.Cut(lines.Text(), "  ")
			sums[name] = sum
		}
		entries, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() == "SHA256SUMS" {
				continue
			}
			text, err := os.ReadFile(filepath.Join(out, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(text)
			if got, want := sums[e.Name()], hex.EncodeToString(sum[:]); got != want {
				t.Errorf("%s: got sum %q, want %q", e.Name(), got, want)
			}
			if !strings.HasSuffix(e.Name(), ".cdx.json") {
				continue
			}
			program := sums[strings.TrimSuffix(e.Name(), ".cdx.json")]
			if program == "" || !strings.Contains(string(text), program) || !strings.Contains(string(text), `"version": "9.9.9"`) {
				t.Errorf("%s is not about version 9.9.9 of the program beside it", e.Name())
			}
		}
		if got := len(sums); got != 10 {
			t.Errorf("got %d files, want five programs with an SBOM each", got)
		}
	})
	t.Run("the program says its version", func(t *testing.T) {
		if got := command(t, ".", nil, filepath.Join(out, "postern_9.9.9_linux_amd64"), "version"); !strings.HasPrefix(got, "postern 9.9.9") {
			t.Errorf("got %q", got)
		}
	})
}

// image is the last stage of a Dockerfile, as far as ours uses it.
type image struct {
	copies     []imageCopy
	env        []string
	uid, gid   int
	volume     string
	entrypoint []string
	cmd        []string
	health     []string
}

type imageCopy struct {
	from, to string
	uid, gid int
	mode     fs.FileMode // 0 leaves it
}

// readDockerfile reads the last stage. A line that it does not know fails the test, so that nothing is passed over.
func readDockerfile(t *testing.T) image {
	t.Helper()
	raw, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), "\\\n", " ")
	_, last, ok := strings.Cut(text, "\nFROM scratch\n")
	if !ok {
		t.Fatal("the last stage is not FROM scratch")
	}
	var i image
	number := func(text string, value any) {
		if _, err := fmt.Sscanf(text, "%v", value); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	list := func(text string) (words []string) {
		if err := json.Unmarshal([]byte(text), &words); err != nil {
			t.Fatalf("%q is not in the form that needs no shell: %v", text, err)
		}
		return words
	}
	owner := func(text string) (uid, gid int) {
		user, group, _ := strings.Cut(text, ":")
		number(user, &uid)
		number(group, &gid)
		return uid, gid
	}
	for line := range strings.Lines(last) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "", "#", "LABEL", "STOPSIGNAL":
		case "COPY":
			var c imageCopy
			var paths []string
			for _, field := range strings.Fields(rest) {
				name, value, _ := strings.Cut(field, "=")
				switch name {
				case "--from":
				case "--chown":
					c.uid, c.gid = owner(value)
				case "--chmod":
					if _, err := fmt.Sscanf(value, "%o", &c.mode); err != nil {
						t.Fatal(err)
					}
				default:
					paths = append(paths, field)
				}
			}
			if len(paths) != 2 {
				t.Fatalf("%q: want one file and its place", line)
			}
			c.from, c.to = paths[0], paths[1]
			i.copies = append(i.copies, c)
		case "USER":
			i.uid, i.gid = owner(rest)
		case "ENV":
			i.env = append(i.env, strings.Fields(rest)...)
		case "VOLUME":
			i.volume = rest
		case "ENTRYPOINT":
			i.entrypoint = list(rest)
		case "CMD":
			i.cmd = list(rest)
		case "HEALTHCHECK":
			_, words, ok := strings.Cut(rest, "CMD ")
			if !ok {
				t.Fatalf("%q: want CMD", line)
			}
			i.health = list(words)
		default:
			if !strings.HasPrefix(word, "#") {
				t.Fatalf("%q is not known here; teach this test what it means", line)
			}
		}
	}
	return i
}

// TestReleaseImage does by hand what an engine does with the Dockerfile: it builds, puts the files of the last stage into
// a folder, and runs them there with nothing else: as the user of the image, in a mount namespace in which that folder is
// the root and read-only, but for the volume.
func TestReleaseImage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test makes mounts and changes its user: run it as root")
	}
	i := readDockerfile(t)
	if i.uid == 0 || i.gid == 0 {
		t.Errorf("the image runs as user %d of group %d, want neither to be root", i.uid, i.gid)
	}
	base := t.TempDir()
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	src, root, volume := filepath.Join(base, "src"), filepath.Join(base, "root"), filepath.Join(base, "volume")
	copyTree(t, src)
	command(t, src, nil, "make", "build", "VERSION=9.9.9")
	for _, c := range i.copies {
		from := map[bool]string{true: filepath.Join(src, strings.TrimPrefix(c.from, "/src/")), false: c.from}[strings.HasPrefix(c.from, "/src/")]
		to := filepath.Join(root, c.to)
		if c.to == i.volume {
			to = volume // a new volume takes over owner and mode of what the image has there
			if err := errors.Join(os.MkdirAll(filepath.Join(root, c.to), 0o755), os.Mkdir(to, c.mode), os.Chown(to, c.uid, c.gid)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatalf("%v; of the base image it needs Debian's ca-certificates", err)
		}
		mode := fs.FileMode(0o644)
		if info, err := os.Stat(from); err == nil && info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, raw, mode)); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	config := fmt.Sprintf("listen: {ingest: \"127.0.0.1:%d\", admin: \"127.0.0.1:%d\"}\ndestinations: {a: {url: https://a.invalid/, enabled: false}}\n", port, freePort(t))
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc", "postern"), 0o755), os.WriteFile(filepath.Join(root, "etc", "postern", "postern.yaml"), []byte(config), 0o644)); err != nil {
		t.Fatal(err)
	}
	start := func(words ...string) (*exec.Cmd, *bytes.Buffer) {
		t.Helper()
		script := `mount --bind "$0" "$0" && mount --bind "$1" "$0$2" && mount -o remount,bind,ro "$0" &&
			if touch "$0/probe" 2>/dev/null; then echo "the root can be written"; exit 99; fi &&
			user=$3 && root=$0 && shift 3 && exec chroot --userspec="$user" --groups= "$root" "$@"`
		args := append([]string{"--mount", "--propagation", "private", "sh", "-c", script, root, volume, i.volume, fmt.Sprintf("%d:%d", i.uid, i.gid)}, words...)
		cmd := exec.Command("unshare", args...)
		cmd.Env = i.env // and nothing of ours
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, &out
	}
	before := treeOf(t, root)
	relay, log := start(append(i.entrypoint, i.cmd...)...)
	t.Run("the health check succeeds", func(t *testing.T) {
		var last string
		for deadline := time.Now().Add(patience); ; {
			check, out := start(i.health...)
			if err := check.Wait(); err == nil {
				return
			}
			if last = out.String(); time.Now().After(deadline) {
				t.Fatalf("got %s\nthe relay said:\n%s", last, log)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	t.Run("a message is taken, and kept in the volume", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/to/a", port), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted {
			t.Errorf("got %s: %s", resp.Status, text)
		}
		info, err := os.Stat(filepath.Join(volume, "hwm"))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != i.uid || info.Mode().Perm() != 0o600 {
			t.Errorf("the store's files belong to user %d with mode %o, want %d and 600", st.Uid, info.Mode().Perm(), i.uid)
		}
	})
	t.Run("the root is read-only, and nothing tries to write to it", func(t *testing.T) {
		probe, out := start(append(i.entrypoint, "config", "--config", "/etc/postern/postern.yaml")...)
		if err := probe.Wait(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if after := treeOf(t, root); after != before {
			t.Errorf("the root was changed:\n%s\nbefore:\n%s", after, before)
		}
		if strings.Contains(log.String(), "read-only file system") {
			t.Errorf("something was to be written:\n%s", log)
		}
	})
	t.Run("doctor finds nothing wrong", func(t *testing.T) {
		doctor, out := start(append(i.entrypoint, "doctor")...)
		if err := doctor.Wait(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
	})
	t.Run("SIGTERM ends it well", func(t *testing.T) {
		if err := relay.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := relay.Wait(); err != nil {
			t.Errorf("%v:\n%s", err, log)
		}
	})
}

// treeOf says what is in a folder.
func treeOf(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
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

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
