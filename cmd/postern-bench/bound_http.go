package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
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
		"bound-drain": {5, func(a []string) error {
			return withNumbers(a[3:], func(n, size int) error { return drainRelay(a[0], a[1], a[2], n, size) })
		}},
		"bound-client": {4, func(a []string) error {
			return withNumbers(a[2:], func(n, size int) error { return postBare(a[0], a[1], n, size) })
		}},
	}
	c, ok := children[name]
	if !ok || c.args != len(args) {
		return fmt.Errorf("unknown argument %q; -help lists the flags", name)
	}
	return c.run(args)
}

// withNumbers calls run with two arguments: how many bodies, and of which size.
func withNumbers(args []string, run func(n, size int) error) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return run(n, size)
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
