package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"
)

// groupFile appends records to a file and syncs many of them at once, as Postern's committer does: it takes
// whatever is waiting, writes it, syncs, and answers all.
type groupFile struct {
	file    *os.File
	waiting chan record
}

type record struct {
	data []byte
	done chan error
}

func (g *groupFile) run() {
	const most = 1000
	for first := range g.waiting {
		group := []record{first}
		for more := true; more && len(group) < most; {
			select {
			case r := <-g.waiting:
				group = append(group, r)
			default:
				more = false
			}
		}
		var buf []byte
		for _, r := range group {
			buf = append(buf, r.data...)
		}
		_, err := g.file.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(g.file.Fd()))
		}
		for _, r := range group {
			r.done <- err
		}
	}
}

// serveFile is the bound for accepts: it runs until it is killed.
func serveFile(address, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	g := &groupFile{file: file, waiting: make(chan record, 4096)}
	go g.run()
	server := &http.Server{
		Addr: address, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			done := make(chan error, 1)
			g.waiting <- record{data: data, done: done}
			if err := <-done; err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(w, `{"id":"msg_%032d","deliveries":[]}`, len(data))
		}),
	}
	return server.ListenAndServe()
}
