package listen

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/store/storetest"
)

// homeVariable tells the test below that it is to be what runs with an empty home directory; it is the path of Pebble.
const homeVariable = "POSTERN_TEST_HOME"

func TestNothingIsWrittenBelowTheHomeDirectory(t *testing.T) {
	if binary := os.Getenv(homeVariable); binary != "" {
		ca := acmetest.Start(t, acmetest.Options{Binary: binary})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		return
	}
	home := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.Env = append(os.Environ(), homeVariable+"="+acmetest.Build(t), "HOME="+home)
	for _, name := range []string{"DATA", "CONFIG", "CACHE", "STATE"} {
		folder := filepath.Join(home, strings.ToLower(name))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "XDG_"+name+"_HOME="+folder)
	}
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("run with an empty home directory: %v\n%s%s", err, out.String(), complaints.String())
	}
	// What is left to itself, certmagic has a logger that writes there.
	if complaints.Len() > 0 {
		t.Errorf("on standard error: got %q, want nothing", complaints.String())
	}
	err := filepath.WalkDir(home, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			t.Errorf("below the home directory: got %s, want nothing", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if folders, err := os.ReadDir(home); err != nil || len(folders) != 4 {
		t.Errorf("below the home directory: got %v, error %v; want the four folders of before", folders, err)
	}
}
