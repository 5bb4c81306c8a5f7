package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// What a process is told that this program starts to hold a crowd.
const (
	crowdAddress = "POSTERN_FAULTS_CROWD_ADDRESS"
	crowdNumber  = "POSTERN_FAULTS_CROWD_NUMBER"
	crowdText    = "POSTERN_FAULTS_CROWD_TEXT"
)

// distantCrowd is a crowd in a process of its own, which has a limit on descriptors of its own.
type distantCrowd struct {
	opened int
	leave  func()
}

// gatherElsewhere is gather for more connections than this process may have. The kernel's limit holds for each process.
func gatherElsewhere(t *testing.T, address string, n int, text string) *distantCrowd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), crowdAddress+"="+address, crowdNumber+"="+strconv.Itoa(n), crowdText+"="+text)
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &distantCrowd{leave: func() {
		_ = hold.Close()
		_ = cmd.Wait() // how it ends says nothing about the relay
	}}
	t.Cleanup(c.leave)
	line, err := bufio.NewReader(says).ReadString('\n')
	if err != nil {
		t.Fatalf("a crowd does not gather: %v", err)
	}
	if c.opened, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatalf("a crowd says %q, want how many it is", line)
	}
	return c
}

// disperse closes all connections.
func (c *distantCrowd) disperse() { c.leave() }

// beCrowd is the process of a crowd: it says how many connections it has, and holds them until its input ends.
func beCrowd(address, number, text string) (code int) {
	n, err := strconv.Atoi(number)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := raise(uint64(n) + 500); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := openCrowd(address, n, text)
	fmt.Println(c.count())
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
	c.disperse()
	return 0
}
