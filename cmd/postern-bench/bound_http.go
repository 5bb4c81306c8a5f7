package main

import (
	"fmt"
	"io"
	"net/http"
)

// child runs one of the programs that this one starts beside itself, until it is killed.
func child(name string, args []string) error {
	children := map[string]struct {
		args int
		run  func(args []string) error
	}{
		"receiver":     {1, func(a []string) error { return serveSink(a[0]) }},
		"bound-file":   {1, func(a []string) error { return serveFile(a[0]) }},
		"bound-badger": {1, func(a []string) error { return serveBadger(a[0]) }},
		"bound-relay":  {3, func(a []string) error { return serveRelay(a[0], a[1], a[2]) }},
		"bound-drain":  {5, func(a []string) error { return drainRelay(a[0], a[1], a[2], a[3], a[4]) }},
		"bound-client": {4, func(a []string) error { return postBare(a[0], a[1], a[2], a[3]) }},
	}
	c, ok := children[name]
	if !ok || c.args != len(args) {
		return fmt.Errorf("unknown argument %q; -help lists the flags", name)
	}
	return c.run(args)
}

// accepting answers each post after accept has returned, which makes its body durable: the HTTP server that all
// bounds of accepting have in common.
func accepting(accept func(body []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := accept(body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"id":"msg_%032d","deliveries":[]}`, len(body))
	})
}
