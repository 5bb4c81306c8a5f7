package relay

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/config"
)

func TestConnectionsForALimit(t *testing.T) {
	for _, tc := range []struct {
		files           uint64
		listeners       int
		each, out, most int // most of all connections
	}{
		{files: 0, listeners: 2, each: 16, out: 16, most: 48},
		{files: 256, listeners: 3, each: 16, out: 16, most: 64},
		{files: 320, listeners: 2, each: 16, out: 32, most: 64},
		{files: 400, listeners: 2, each: 36, out: 72, most: 144},
		{files: 400, listeners: 3, each: 24, out: 72, most: 144},
		{files: 1024, listeners: 2, each: 192, out: 384, most: 768},
		{files: 1028, listeners: 2, each: 192, out: 387, most: 771},
		{files: 65536, listeners: 3, each: 4096, out: 36864, most: 49152},
		{files: 1<<64 - 1, listeners: 2, each: 4096, out: 3<<28 - 8192, most: 3 << 28},
	} {
		c := connectionsFor(tc.files, tc.listeners)
		if c.Each != tc.each || c.Out != tc.out || c.Each*tc.listeners+c.Out > tc.most {
			t.Errorf("%d files, %d listeners: got %d each and %d out, want %d and %d", tc.files, tc.listeners, c.Each, c.Out, tc.each, tc.out)
		}
	}
}

// sharing compiles destinations with the given keys, a to z, under a limit on open files.
func sharing(t *testing.T, files uint64, keys ...string) *Plan {
	t.Helper()
	var text strings.Builder
	text.WriteString("destinations:\n")
	for n, k := range keys {
		fmt.Fprintf(&text, "  d%04d: {url: \"https://d%d.test/\", %s}\n", n, n, k)
	}
	cfg, err := config.Parse("postern.yaml", []byte(text.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, faults := newPlan(cfg, LoadOptions{OpenFiles: files})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDestinationsShareTheConnectionsThatGoOut(t *testing.T) {
	const oauth = "concurrency: 16, auth: {oauth2: {client_id: a, client_secret: b, token_url: \"https://t.test/\"}}"
	for _, tc := range []struct {
		name  string
		files uint64
		keys  []string
		want  []int
		cut   []string
	}{
		{"enough for all", 400, []string{"concurrency: 40", "concurrency: 32"}, []int{40, 32}, nil},
		{"not quite enough", 396, []string{"concurrency: 40", "concurrency: 32"}, []int{38, 32}, []string{"d0000"}},
		{"one that wants a lot takes nothing from the others", 400, []string{"concurrency: 1024", "concurrency: 16", "concurrency: 1"}, []int{55, 16, 1}, []string{"d0000"}},
		{"those that want a lot have the same", 400, []string{"concurrency: 1024", "concurrency: 100", "concurrency: 2"}, []int{35, 35, 2}, []string{"d0000", "d0001"}},
		{"the token endpoint has its own", 400, []string{"concurrency: 1024", oauth}, []int{54, 16}, []string{"d0000"}},
		{"one that is not enabled takes none", 400, []string{"concurrency: 72", "concurrency: 16, enabled: false"}, []int{72, 16}, nil},
		{"each has one", 256, slices.Repeat([]string{"concurrency: 5"}, 20), slices.Repeat([]int{1}, 20), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := sharing(t, tc.files, tc.keys...)
			var got []int
			sum := 0
			for _, name := range p.names {
				got, sum = append(got, p.destinations[name].conns), sum+p.destinations[name].conns
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if tc.cut != nil && (!slices.Equal(p.connections.Cut, tc.cut) || sum > p.connections.Out) {
				t.Errorf("got %q cut, and %d connections of %d; want %q", p.connections.Cut, sum, p.connections.Out, tc.cut)
			}
			if tc.cut == nil && tc.files > spareFiles && len(p.connections.Cut) > 0 {
				t.Errorf("got %q cut, want none", p.connections.Cut)
			}
		})
	}
}

// A destination that a reload adds takes its connections from those that have many, whose lanes then go by fewer.
func TestAReloadSharesTheConnectionsAnew(t *testing.T) {
	const files = 320 // 32 go out
	r := newRig(t, `destinations:
  a: {url: "https://a.test/", concurrency: 100}
`, func(r *rig) {
		inject := map[string]func(context.Context) (net.Conn, error){}
		for _, host := range rigHosts {
			inject[host] = r.far.pipe.Dial
		}
		_, plan, err := LoadWith(r.path, nil, LoadOptions{Inject: inject, OpenFiles: files})
		if err != nil {
			t.Fatal(err)
		}
		r.Plan = plan
	})
	limits := func() (all []int) {
		for _, name := range []string{"a", "b"} {
			if l := r.lane(name); l != nil {
				all = append(all, l.Stats().Limit)
			}
		}
		return all
	}
	until(t, "the only destination has all connections", func() bool { return slices.Equal(limits(), []int{32}) })
	warned := r.logs.FilterMessage("concurrency cut").FilterLevelExact(zapcore.WarnLevel)
	if warned.Len() != 1 || !strings.Contains(fmt.Sprint(warned.All()[0].ContextMap()["reason"]), "LimitNOFILE=") {
		t.Errorf("got %v, want a warning that says what to raise", warned.All())
	}
	r.write(t, `destinations:
  a: {url: "https://a.test/", concurrency: 100}
  b: {url: "https://b.test/", concurrency: 8}
`)
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "both have their share", func() bool { return slices.Equal(limits(), []int{24, 8}) })
	if n := r.logs.FilterMessage("concurrency cut").Len(); n != 2 {
		t.Errorf("got %d warnings, want one more after the reload", n)
	}
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.logs.FilterMessage("concurrency cut").Len(); n != 2 {
		t.Errorf("got %d warnings, want none for a reload that changes nothing", n)
	}
}
