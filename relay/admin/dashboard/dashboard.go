// Package dashboard is the page at the root of the admin listener: a single-page app over the admin API, for a person
// who wants to know whether webhooks arrive, and to mend what does not. Its main type is the [http.Handler] that
// [Handler] returns.
//
// What it serves is built and checked in: ui holds the source (Preact, bundled by esbuild), make dashboard writes dist,
// and go build embeds dist, so that building Postern needs no Node. dist/source.sha256 holds the hash of the source it
// was built from, and a test compares the two.
//
// The page holds no data of its own and asks no other host for anything. All that it shows comes from the API as JSON
// and becomes text nodes, never markup; the Content-Security-Policy makes that a rule of the browser's too (T28): no
// inline script or style, no frame, no form, nothing but what this listener serves.
package dashboard

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/postern-relay/postern/relay/problem"
)

// dist is what make dashboard has built. A file below dist/assets has a hash of its content in its name.
//
//go:embed dist/index.html dist/assets
var dist embed.FS

// policy is the Content-Security-Policy of every answer. Styles that the app computes, such as the width of a bar, are
// set through the CSSOM, which style-src does not concern.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// asset is one file, ready to be sent.
type asset struct {
	body      []byte
	mediaType string
	cache     string // Cache-Control
}

// Handler returns the handler of the dashboard: the page at /, and its assets. Every other path is 404. It keeps no
// state and may serve any number of requests at a time. Who may ask is decided by the listener in front of it; the
// page itself holds nothing worth hiding.
func Handler() http.Handler {
	assets, err := load(dist)
	if err != nil {
		panic(err) // the program was built wrong: what is embedded is part of it
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Serve(w, r, nil, func(w http.ResponseWriter, r *http.Request) error {
			return serve(w, r, assets)
		})
	})
}

// load reads the files of a build, by the path they are served at.
func load(files fs.FS) (map[string]asset, error) {
	assets := map[string]asset{}
	err := fs.WalkDir(files, "dist", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		// The system's table of types may say otherwise, or nothing at all: what is not known here is a fault.
		mediaType := map[string]string{
			".html": "text/html; charset=utf-8",
			".js":   "text/javascript; charset=utf-8",
			".css":  "text/css; charset=utf-8",
			".svg":  "image/svg+xml",
		}[path.Ext(name)]
		if mediaType == "" {
			return fmt.Errorf("%q: no media type is known for %q", name, path.Ext(name))
		}
		if name == "dist/index.html" {
			assets["/"] = asset{body, mediaType, "no-store"}
			return nil
		}
		assets[strings.TrimPrefix(name, "dist")] = asset{body, mediaType, "public, max-age=31536000, immutable"}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	if _, ok := assets["/"]; !ok {
		return nil, fmt.Errorf("read the dashboard: there is no dist/index.html")
	}
	return assets, nil
}

func serve(w http.ResponseWriter, r *http.Request, assets map[string]asset) error {
	found, ok := assets[r.URL.Path]
	if !ok {
		return problem.New(http.StatusNotFound, "there is nothing at this path; the dashboard is at /, the API below /api/v1")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return problem.New(http.StatusMethodNotAllowed, "method %s is not supported here; use GET, HEAD", r.Method).Allow("GET, HEAD")
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", found.cache)
	h.Set("Content-Type", found.mediaType)
	h.Set("Content-Length", strconv.Itoa(len(found.body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(found.body) // the client may be gone; there is nobody left to tell
	return nil
}
