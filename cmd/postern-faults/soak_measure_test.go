package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// soakSample is what the process takes at a moment.
type soakSample struct {
	at          time.Duration
	anonymous   int64 // bytes of memory of its own
	descriptors int
	goroutines  int
	disk        int64 // bytes of blocks that the store's folder takes
	pending     int64
	accepted    int
}

func (s soakSample) String() string {
	return fmt.Sprintf("%8s  %4d MiB of its own, %4d descriptors, %4d goroutines, %6.1f MiB of disk, %6d pending, %7d accepted",
		s.at.Round(time.Second/10), s.anonymous>>20, s.descriptors, s.goroutines, mebibytes(s.disk), s.pending, s.accepted)
}

// take notes what the process takes now.
func (s *soak) take(p *process) soakSample {
	s.t.Helper()
	one := soakSample{at: time.Since(s.begun), accepted: s.ledger.count()}
	dir := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "RssAnon:" {
			kilobytes, _ := strconv.ParseInt(words[1], 10, 64)
			one.anonymous = kilobytes << 10
		}
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	one.descriptors, one.disk = len(open), blocksOf(s.Data)
	one.goroutines = int(s.metric("go_goroutines"))
	if o, err := s.client().Overview(context.Background()); err == nil {
		one.pending = o.Pending
	}
	if one.anonymous == 0 || one.goroutines == 0 {
		s.t.Fatalf("got %+v, want memory and goroutines", one)
	}
	s.series = append(s.series, one)
	s.t.Log(one)
	return one
}

// metric returns the value of a metric without labels, or 0.
func (s *soak) metric(name string) float64 {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			v, _ := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
			return v
		}
	}
	return 0
}

// blocksOf returns the bytes of disk that the files below a folder take.
func blocksOf(path string) (total int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += stat.Blocks * 512
			}
		}
		return nil
	})
	return total
}

// rest looks at an idle process until it takes no more than most, or the time is over, and returns the last look.
func (s *soak) rest(p *process, most soakSample, within time.Duration) soakSample {
	s.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(within / 20) {
		one := s.take(p)
		if one.anonymous <= most.anonymous && one.descriptors <= most.descriptors && one.goroutines <= most.goroutines || time.Now().After(end) {
			return one
		}
	}
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
