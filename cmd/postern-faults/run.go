package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// event is one line of what go test -json prints (go doc test2json), or of what a build prints.
type event struct {
	Action     string
	Test       string
	Elapsed    float64 // seconds
	Output     string
	Key, Value string // of an attribute
}

const (
	maxEvent  = 16 << 20 // bytes of one line
	maxOutput = 64 << 20 // bytes of what one test prints that are kept, the last ones
	maxTold   = 60       // lines of a failed test itself that are shown; all of it goes to a file
)

// runPackage runs some tests of a package and adds what they say. An error means that it could not be run at all, not
// that a test has failed.
func runPackage(ctx context.Context, o options, path string, names []string, all *summary, progress io.Writer) error {
	args := []string{"test", "-race", "-json", "-count=1", "-timeout", o.timeout.String(),
		"-run", "^(" + strings.Join(names, "|") + ")$", path}
	environ := os.Environ()
	if !o.quick {
		environ = append(environ, "POSTERN_FAULTS=full")
	}
	c := &collector{path: short(path), progress: progress, keep: "build/faults", output: map[string]*bytes.Buffer{}, quick: o.quick, all: all}
	fmt.Fprintf(progress, "== %s: %s\n", c.path, strings.Join(names, " "))
	failed, err := goTest(ctx, environ, args, c.take)
	if err != nil {
		return err
	}
	c.end(failed, names)
	return nil
}

// goTest runs go with the arguments and hands each event over. It reports whether go said that something failed.
func goTest(ctx context.Context, environ, args []string, take func(event)) (failed bool, err error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env, cmd.Stderr = environ, os.Stderr
	// What is interrupted is to clean up: tests unmount what they have mounted.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e = event{Action: "output", Output: lines.Text() + "\n"} // not all that go prints is JSON
		}
		take(e)
	}
	scanErr := lines.Err()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		failed, err = true, nil
	}
	return failed, errors.Join(scanErr, err)
}

// short is an import path without that of the module.
func short(path string) string {
	return strings.TrimPrefix(path, "github.com/postern-relay/postern/")
}

// collector follows the tests of one package.
type collector struct {
	path     string
	progress io.Writer
	keep     string                   // the folder for the output of failed tests
	output   map[string]*bytes.Buffer // by test; that of the package under ""
	quick    bool                     // some tests have no quick form, and say nothing
	said     []said
	failed   []string // tests
	passed   []string
	all      *summary
}

// said is an attribute that a test has set.
type said struct{ test, value string }

// take follows one event.
func (c *collector) take(e event) {
	switch e.Action {
	case "run":
		if !strings.Contains(e.Test, "/") {
			fmt.Fprintf(c.progress, "   %s begins\n", e.Test)
		}
	case "output", "build-output":
		b := c.output[e.Test]
		if b == nil {
			b = &bytes.Buffer{}
			c.output[e.Test] = b
		}
		b.WriteString(e.Output)
		if over := b.Len() - maxOutput; over > 0 {
			b.Next(over)
		}
	case "attr":
		if e.Key == "fault" {
			c.said = append(c.said, said{e.Test, e.Value})
			fmt.Fprintf(c.progress, "   %s: %s\n", e.Test, e.Value)
		}
	case "pass", "fail":
		if e.Test == "" {
			return
		}
		if e.Action == "fail" {
			c.failed = append(c.failed, e.Test)
			if b := c.output[e.Test]; b != nil {
				c.tell(e.Test, b.Bytes())
			}
		} else {
			c.passed = append(c.passed, e.Test)
		}
		delete(c.output, e.Test)
		if !strings.Contains(e.Test, "/") {
			fmt.Fprintf(c.progress, "   %s: %s after %s\n", e.Test, e.Action, seconds(e.Elapsed))
		}
	}
}

// tell shows what a failed test itself has said, without the logs of the programs that it ran, and keeps all of it in a
// file.
func (c *collector) tell(test string, output []byte) {
	said := ofTest.FindAll(output, maxTold)
	if len(said) == 0 {
		said = [][]byte{output[max(0, len(output)-4<<10):]}
	}
	fmt.Fprintf(c.progress, "%s\n", bytes.Join(said, []byte("\n")))
	name := filepath.Join(c.keep, strings.NewReplacer("/", "_", " ", "_").Replace(c.path+"_"+test)+".log")
	err := os.MkdirAll(c.keep, 0o755)
	if err == nil {
		err = os.WriteFile(name, output, 0o644)
	}
	if err != nil {
		fmt.Fprintf(c.progress, "   its output is not kept: %v\n", err)
		return
	}
	fmt.Fprintf(c.progress, "   all of its output: %s\n", name)
}

// ofTest finds the lines of a test itself, which begin with a place in its source.
var ofTest = regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: .*$`)

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second / 10)
}

// end adds the lines of the tests, when all of them have ended, and a fault for what has gone wrong without one.
func (c *collector) end(failed bool, names []string) {
	spoken := map[string]bool{}
	for _, s := range c.said {
		top, _, _ := strings.Cut(s.test, "/")
		spoken[top] = true
		category, text, _ := strings.Cut(s.value, ":")
		c.all.lines = append(c.all.lines, line{
			category: category, text: strings.TrimSpace(text), where: c.path + " " + s.test, failed: slices.Contains(c.failed, s.test),
		})
	}
	ended := map[string]bool{}
	for _, test := range c.failed {
		ended[test] = true
		c.all.faults = append(c.all.faults, fmt.Sprintf("%s %s has failed", c.path, test))
	}
	for _, test := range c.passed {
		ended[test] = true
		if !strings.Contains(test, "/") && !spoken[test] && !c.quick {
			c.all.faults = append(c.all.faults, fmt.Sprintf("%s %s has passed, and said nothing about what it has run", c.path, test))
		}
	}
	for _, name := range names {
		if !ended[name] {
			c.all.faults = append(c.all.faults, fmt.Sprintf("%s %s was not run to its end", c.path, name))
		}
	}
	if failed && len(c.failed) == 0 {
		c.all.faults = append(c.all.faults, fmt.Sprintf("%s has failed", c.path))
	}
	if b := c.output[""]; b != nil && failed {
		fmt.Fprintf(c.progress, "%s", b)
	}
}
