package dashboard_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/admin/dashboard"
)

func TestHandler(t *testing.T) {
	page := get(t, "GET", "/")
	assets := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page.Body.String(), -1)
	if len(assets) != 3 {
		t.Fatalf("got the assets %q in the page, want a script, a style sheet and an icon", assets)
	}
	const immutable = "public, max-age=31536000, immutable"
	for _, tc := range []struct {
		name, method, path string
		status             int
		mediaType, cache   string
	}{
		{"the page is not kept", "GET", "/", 200, "text/html; charset=utf-8", "no-store"},
		{"HEAD has no body", "HEAD", "/", 200, "text/html; charset=utf-8", "no-store"},
		{"an asset is kept for ever", "GET", "/" + assets[0][1], 200, "image/svg+xml", immutable},
		{"a style sheet", "GET", "/" + assets[1][1], 200, "text/css; charset=utf-8", immutable},
		{"a script", "GET", "/" + assets[2][1], 200, "text/javascript; charset=utf-8", immutable},
		{"another path is not the page", "GET", "/deliveries", 404, "application/problem+json", "no-store"},
		{"a folder is not listed", "GET", "/assets/", 404, "application/problem+json", "no-store"},
		{"the hash of the source is not served", "GET", "/source.sha256", 404, "application/problem+json", "no-store"},
		{"a path that climbs", "GET", "/assets/../index.html", 404, "application/problem+json", "no-store"},
		{"POST", "POST", "/", 405, "application/problem+json", "no-store"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := get(t, tc.method, tc.path)
			if got.Code != tc.status || got.Header().Get("Content-Type") != tc.mediaType {
				t.Errorf("got %d %q, want %d %q", got.Code, got.Header().Get("Content-Type"), tc.status, tc.mediaType)
			}
			if tc.status != http.StatusOK {
				return
			}
			for name, want := range map[string]string{
				"Cache-Control": tc.cache, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
					"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
			} {
				if got := got.Header().Get(name); got != want {
					t.Errorf("got %s: %q, want %q", name, got, want)
				}
			}
			if tc.method == "HEAD" && got.Body.Len() > 0 {
				t.Errorf("got %d bytes of body", got.Body.Len())
			}
		})
	}
}

func get(t testing.TB, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	dashboard.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w
}

// TestBuildIsUpToDate compares the source with what dist was built from, as build.mjs does, so that nobody needs Node
// to notice that make dashboard was forgotten.
func TestBuildIsUpToDate(t *testing.T) {
	names := []string{"build.mjs", "package-lock.json", "package.json", "tsconfig.json"}
	err := filepath.WalkDir(filepath.Join("ui", "src"), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, filepath.ToSlash(strings.TrimPrefix(name, "ui"+string(filepath.Separator))))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 20 {
		t.Fatalf("got the sources %q: this tests nothing", names)
	}
	slices.Sort(names)
	hash := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join("ui", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(hash, "%s %d\n", name, len(content))
		hash.Write(content)
	}
	recorded, err := os.ReadFile(filepath.Join("dist", "source.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(recorded)), hex.EncodeToString(hash.Sum(nil)); got != want {
		t.Errorf("dist was built from other sources (%s, not %s); run make dashboard", got, want)
	}
}

func TestBuildIsSmall(t *testing.T) {
	const most = 200 << 10
	size := 0
	err := filepath.WalkDir("dist", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		size += len(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if size == 0 || size > most {
		t.Errorf("got %d bytes, want 1 to %d", size, most)
	}
}

// TestLockNamesNoHost holds that packages come from wherever npm is set up to take them from.
func TestLockNamesNoHost(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("ui", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), `"resolved"`) || !strings.Contains(string(raw), `"integrity": "sha512-`) {
		t.Error("package-lock.json must pin by hash and name no host; .npmrc sees to it")
	}
}
