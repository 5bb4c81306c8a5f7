package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// said returns the findings of a doctor as lines, and the worst of them.
func (d *doctor) said(t *testing.T) (worst relay.Severity, text string) {
	t.Helper()
	var lines []string
	for _, f := range d.findings {
		worst = max(worst, f.Status)
		lines = append(lines, fmt.Sprintf("%s %s %s → %s", f.Status, f.Check, f.Detail, f.Advice))
		if f.Status != relay.Fine && f.Advice == "" {
			t.Errorf("nothing is advised: %+v", f)
		}
	}
	return worst, strings.Join(lines, "\n")
}

func TestDoctorAsksARunningPostern(t *testing.T) {
	reasons := func(texts ...string) func() []string { return func() []string { return texts } }
	refusing := func(status int) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/readyz", &admin.Handler{})
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprint(w, `{"detail": "the token is not one of those"}`)
		})
		return mux
	}
	for _, tc := range []struct {
		rule    string
		handler http.Handler
		token   string
		status  relay.Severity
		text    string
		trouble []string
	}{
		{
			rule: "a missing certificate is nothing of the store's", handler: &admin.Handler{HTTPS: reasons("certificate of a.test: none")},
			text: "ok store a running Postern has it open, and takes messages", trouble: []string{"certificate of a.test: none"},
		},
		{
			rule: "what keeps messages out is", handler: &admin.Handler{Full: reasons("free disk space is below the reserve"), HTTPS: reasons("certificate of a.test: none")},
			status: relay.Problem, text: "takes no messages: free disk space is below the reserve →", trouble: []string{"certificate of a.test: none"},
		},
		{
			rule: "a token that is not taken is a problem", handler: refusing(http.StatusUnauthorized), token: "canary-1f0e",
			status: relay.Problem, text: "problem admin its admin listener does not take the token given here: the token is not one of those → ",
		},
		{
			rule: "so it is after many", handler: refusing(http.StatusTooManyRequests), token: "canary-1f0e",
			status: relay.Problem, text: "problem admin",
		},
		{rule: "without one nothing is said", handler: refusing(http.StatusUnauthorized), text: "ok store a running Postern has it open, and is ready"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			server := httptest.NewServer(tc.handler)
			defer server.Close()
			d := &doctor{program: &program{}, host: healthy(), client: admin.Client{Address: server.Listener.Addr().String(), Token: tc.token}}
			trouble := d.running(t.Context(), badgerstore.ErrLocked)
			status, text := d.said(t)
			if status != tc.status || !strings.Contains(text, tc.text) || !slices.Equal(trouble, tc.trouble) || strings.Contains(text, "canary") {
				t.Errorf("got %s, trouble %q:\n%s\nwant %s with %q, trouble %q", status, trouble, text, tc.status, tc.text, tc.trouble)
			}
		})
	}
}

func TestDoctorWantsAToken(t *testing.T) {
	dir := t.TempDir()
	file, tokens := filepath.Join(dir, "postern.yaml"), filepath.Join(dir, "token")
	writeFile(t, file, fmt.Sprintf("store: {path: %q}\ndestinations: {a: {url: https://a.test/, enabled: false}}\n", filepath.Join(dir, "data")))
	writeFile(t, tokens, "two words\n")
	for rule, tc := range map[string]struct{ args, environ []string }{
		"a file that holds none":     {args: []string{"--admin-token-file", tokens}},
		"a file that is not there":   {args: []string{"--admin-token-file", tokens + ".no"}},
		"a variable that holds none": {environ: []string{envAdminToken + "=two words"}},
	} {
		t.Run(rule, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := run(context.Background(), append([]string{"doctor", "--config", file}, tc.args...), tc.environ, strings.NewReader(""), &out, &errOut)
			if code != exitUsage || !strings.Contains(errOut.String(), "token") {
				t.Errorf("got exit code %d:\n%s%s\nwant %d", code, out.String(), errOut.String(), exitUsage)
			}
		})
	}
}

// TestDoctorOfAStoreThatCannotBeServed compares what doctor says with what a start does.
func TestDoctorOfAStoreThatCannotBeServed(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "data")
	write := func(name string, keys ...store.Key) string {
		var texts []string
		for _, k := range keys {
			texts = append(texts, k.Text())
		}
		path := filepath.Join(dir, name)
		writeFile(t, path, fmt.Sprintf("listen: {ingest: 'unix://%[1]s/in', admin: 'unix://%[1]s/admin'}\nstore: {path: %[2]q, encryption_key: [%[3]s]}\n"+
			"destinations: {a: {url: https://a.test/, enabled: false}}\n", dir, folder, strings.Join(texts, ", ")))
		return path
	}
	first, second := store.NewKey(), store.NewKey()
	right, wrong := write("right.yaml", first), write("wrong.yaml", second)

	t.Run("half a restore", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(folder, "restoring", "badger"), 0o700); err != nil {
			t.Fatal(err)
		}
		out, _ := execPostern(t, exitFailed, "doctor", "--config", right)
		if !strings.Contains(out, "a restore into it was cut off\n") || !strings.Contains(out, "→ run postern restore again") {
			t.Errorf("doctor says\n%s", out)
		}
		if _, errs := execPostern(t, exitDamaged, "run", "--config", right); !strings.Contains(errs, "a restore into it was cut off") {
			t.Errorf("run says\n%s", errs)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a store that does not say which keys it needs", func(t *testing.T) {
		s, err := badgerstore.Open(badgerstore.Options{Path: folder, Keys: []store.Key{first}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Close(), os.Truncate(filepath.Join(folder, "keys"), 0)); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{right, wrong} {
			out, _ := execPostern(t, exitOK, "doctor", "--config", file)
			if !strings.Contains(out, "whether the keys fit is not known here") || strings.Contains(out, "and the keys fit") {
				t.Errorf("doctor says of %s\n%s", file, out)
			}
		}
		execPostern(t, exitKey, "run", "--config", wrong)
	})
}

// TestDoctorAdvice holds the texts of warnings of the config, which have their advice in themselves.
func TestDoctorAdvice(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	writeFile(t, key, "canary-1f0e-0123456789")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("postern.yaml", []byte(fmt.Sprintf(
		"listen: {ingest: '192.0.2.7:8025', tokens: ['${file:%s}']}\ndestinations: {a: {url: https://a.test/}}", key)), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{program: &program{}, host: healthy()}
	d.secrets(cfg)
	_, text := d.said(t)
	for _, want := range []string{"warning secrets ", fmt.Sprintf("every user of this machine may read %q → run chmod o= on it", key), "warning ingest ", "without encryption → let apps on other hosts use listen.https"} {
		if !strings.Contains(text, want) {
			t.Errorf("got %s\nwant %q in it", text, want)
		}
	}
	if n := strings.Count(text, "chmod"); n != 1 {
		t.Errorf("got %s\nwant one piece of advice about the mode, not %d", text, n)
	}
}

func TestDoctorAdviceOfAFullDisk(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		rule          string
		free, minFree int64
		want, never   string
	}{
		{"below what the store needs no setting helps", 224*mib - 1, 256 * mib, "the reserve is 256 MiB", "lower store.min_free"},
		{"nor where min_free is lower already", 200 * mib, 1 * mib, "the reserve is 224 MiB, which the store needs whatever store.min_free says (1 MiB)", "lower store.min_free"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			d := &doctor{program: &program{}, host: healthy()}
			d.host.space = func(string) (space, error) { return space{tc.free, 1e6, 1e6}, nil }
			d.disk("/data", tc.minFree)
			if status, text := d.said(t); status != relay.Problem || !strings.Contains(text, tc.want) || strings.Contains(text, tc.never) {
				t.Errorf("got %s %s\nwant %q in it, and never %q", status, text, tc.want, tc.never)
			}
		})
	}
}
