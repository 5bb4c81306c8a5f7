package main

import (
	"os"
	"runtime"
	"syscall"
)

// groupFile appends bodies to a file and syncs many of them at once, as Postern's committer does: it takes whatever
// is waiting, writes it, syncs, and answers all.
type groupFile struct {
	file    *os.File
	waiting chan fileRecord
}

type fileRecord struct {
	data []byte
	done chan error
}

const groupMost = 1000 // records of one commit group, as Postern has it

func (g *groupFile) run() {
	for first := range g.waiting {
		group := []fileRecord{first}
		runtime.Gosched() // those who were just answered may join
		for more := true; more && len(group) < groupMost; {
			select {
			case r, open := <-g.waiting:
				if more = open; open {
					group = append(group, r)
				}
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

// serveFile is bound (a).
func serveFile(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	g := &groupFile{file: file, waiting: make(chan fileRecord, 4096)}
	go g.run()
	return serveAndSay(accepting(g.accept))
}

// accept returns when body is on disk.
func (g *groupFile) accept(body []byte) error {
	done := make(chan error, 1)
	g.waiting <- fileRecord{body, done}
	return <-done
}
