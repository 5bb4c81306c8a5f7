package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		args string
		want options
		err  string
	}{
		{"", options{only: categories(), timeout: 6 * time.Hour}, ""},
		{"-only kill,disk -quick -fuzztime 10m", options{only: []string{"kill", "disk"}, quick: true, fuzzTime: 10 * time.Minute, timeout: 6 * time.Hour}, ""},
		{"-only kills", options{}, `no category "kills"`},
		{"kill", options{}, "unexpected"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			got, err := parse(strings.Fields(tc.args), io.Discard)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || !slices.Equal(got.only, tc.want.only) || got.quick != tc.want.quick || got.fuzzTime != tc.want.fuzzTime ||
				got.timeout != tc.want.timeout {
				t.Errorf("got %+v, error %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestTheSourceTellsTheCategories(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x_test.go", `package x
func TestFaultA(t *testing.T) { t.Attr("fault", "kill: 3 rounds") }
func TestFaultB(t *testing.T) { report(t, "disk", "2 kill: 3") }
func TestFaultC(t *testing.T) { helper(t) }
func TestFaultDiskFull(t *testing.T) { helper(t) }
func TestFaultsOfAPlan(t *testing.T) {}
func TestFaultyThings(t *testing.T) {}
func TestFault(t *testing.T) {}
func FuzzX(f *testing.F) {}
func (x) TestFaultMethod() {}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	var p testPackage
	p.add(f)
	for only, want := range map[string]string{
		"kill": "TestFaultA TestFaultC", "disk": "TestFaultB TestFaultC TestFaultDiskFull", "soak": "TestFaultC",
	} {
		names, err := p.chosen(options{only: []string{only}})
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("-only %s: got %q, error %v, want %q", only, names, err, want)
		}
	}
	if !slices.Equal(p.fuzz, []string{"FuzzX"}) {
		t.Errorf("got fuzz targets %q, want FuzzX", p.fuzz)
	}
}

func TestSummary(t *testing.T) {
	attr := func(test, value string) event { return event{Action: "attr", Test: test, Key: "fault", Value: value} }
	for _, tc := range []struct {
		name   string
		events []event
		quick  bool
		failed bool // as go test says
		table  []string
		faults []string
	}{
		{
			"a test and its subtests pass",
			[]event{attr("TestFaultA", "kill: 3 rounds"), attr("TestFaultA/b", "kill: a|b"), {Action: "pass", Test: "TestFaultA/b"}, {Action: "pass", Test: "TestFaultA"}},
			false, false, []string{"| kill | 3 rounds | `x TestFaultA` | passed |", `| kill | a\|b | `}, nil,
		},
		{
			"a test fails",
			[]event{attr("TestFaultA", "kill: 3 rounds"), {Action: "fail", Test: "TestFaultA"}},
			false, true, []string{"| **failed** |"}, []string{"x TestFaultA has failed"},
		},
		{"a test says nothing", []event{{Action: "pass", Test: "TestFaultA"}}, false, false, nil, []string{"said nothing", "nothing of the category kill"}},
		{"a test that has no quick form says nothing", []event{{Action: "pass", Test: "TestFaultA"}}, true, false, nil, []string{"nothing of the category kill"}},
		{"the process dies", []event{attr("TestFaultA", "kill: 3 rounds")}, false, true, nil, []string{"not run to its end", "x has failed"}},
		{"there is no such category", []event{attr("TestFaultA", "kilt: 3"), {Action: "pass", Test: "TestFaultA"}}, false, false, nil, []string{`"kilt"`, "nothing of the category kill"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all summary
			c := &collector{path: "x", progress: io.Discard, keep: t.TempDir(), output: map[string]*bytes.Buffer{}, quick: tc.quick, all: &all}
			for _, e := range tc.events {
				c.take(e)
			}
			c.end(tc.failed, []string{"TestFaultA"})
			table := all.table([]string{"kill"})
			for _, want := range tc.table {
				if !strings.Contains(table, want) {
					t.Errorf("got the table %q, want in it %q", table, want)
				}
			}
			err := all.verdict(options{only: []string{"kill"}})
			if (err == nil) != (tc.faults == nil) {
				t.Errorf("got verdict %v, want %q", err, tc.faults)
			}
			for _, want := range tc.faults {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("got verdict %v, want in it %q", err, want)
				}
			}
		})
	}
}
