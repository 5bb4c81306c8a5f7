package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memory is what a process has in RAM, in bytes.
type memory struct {
	resident  int64
	anonymous int64 // its own
	mapped    int64 // pages of files, which the kernel may drop
}

func (m memory) note() string {
	return fmt.Sprintf("%s anonymous, %s of files", number(inMebibytes(m.anonymous)), number(inMebibytes(m.mapped)))
}

func (p *process) memory() (memory, error) {
	fields, err := p.status("status")
	return memory{resident: fields["VmRSS"] << 10, anonymous: fields["RssAnon"] << 10, mapped: fields["RssFile"] << 10}, err
}

// written returns the bytes that the process has caused to be written to disk.
func (p *process) written() (int64, error) {
	fields, err := p.status("io")
	return fields["write_bytes"], err
}

// status reads a file of lines "name: number …" about the process.
func (p *process) status(file string) (map[string]int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); len(words) > 0 {
			if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
				values[name] = n
			}
		}
	}
	return values, nil
}

// cpu returns the processor time of the process so far, user and system, to a hundredth of a second.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, which may hold spaces. utime and stime are fields 14 and 15.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const hertz = 100 // USER_HZ of every Linux that Go runs on
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hertz, nil
}

// mostMemory looks at the memory of the process until stop is called, which returns the largest that it has seen.
func (p *process) mostMemory(ctx context.Context) (stop func() memory) {
	ctx, cancel := context.WithCancel(ctx)
	var most memory
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if m, err := p.memory(); err == nil && m.resident > most.resident {
				most = m
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				return
			}
		}
	})
	return func() memory {
		cancel()
		wg.Wait()
		return most
	}
}

// onDisk returns the bytes of disk that the files below path take, which is less than their sizes where they have
// holes.
func onDisk(path string) (int64, error) {
	var total int64
	err := filepath.Walk(path, func(_ string, info os.FileInfo, err error) error {
		if os.IsNotExist(err) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			total += stat.Blocks * 512
		}
		return nil
	})
	return total, err
}
