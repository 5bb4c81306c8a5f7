package relay

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Under constant traffic the config is edited and reloaded a hundred times: destinations come, go and change, and some
// edits are mistakes. All that was answered with 202 must be delivered in the end, nothing be attempted twice at the same
// time, and each line keep its order.
func TestReloadsUnderTrafficLoseNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 7))
	names := []string{"a", "b", "c", "d", "e"}
	// a is always there, and never the same for long; e is there and never changes.
	edited := func() string {
		var b strings.Builder
		b.WriteString("\ndestinations:\n")
		for _, name := range names {
			if name != "a" && name != "e" && rng.IntN(3) == 0 {
				continue
			}
			fmt.Fprintf(&b, "  %s:\n    url: https://%s.test/\n    events: [thing.*]\n    order: key\n", name, name)
			if name == "e" {
				continue
			}
			fmt.Fprintf(&b, "    headers: {X-Edit: '%d'}\n    concurrency: %d\n", rng.IntN(3), 1+rng.IntN(5))
			if name != "a" && rng.IntN(5) == 0 {
				b.WriteString("    enabled: false\n")
			}
			if rng.IntN(3) == 0 {
				b.WriteString("    rate: 500/s\n")
			}
			if rng.IntN(3) == 0 {
				b.WriteString("    batch: {every: 100ms, max: 50}\n")
			}
			if rng.IntN(3) == 0 {
				b.WriteString("    order_on_failure: block\n")
			}
			if rng.IntN(4) == 0 {
				b.WriteString("    retry: none\n")
			}
		}
		return b.String()
	}
	whole := func() string {
		var b strings.Builder
		b.WriteString("\ndestinations:\n")
		for _, name := range names {
			fmt.Fprintf(&b, "  %s: {url: 'https://%s.test/', events: [thing.*], order: key}\n", name, name)
		}
		return b.String()
	}
	r := newRig(t, whole())
	lines := &arrivals{latest: map[string]string{}}
	for _, host := range rigHosts {
		var trouble atomic.Int64
		r.far.answer(host, func(n int) int {
			time.Sleep(time.Duration(trouble.Add(1)%5) * time.Millisecond) // so that attempts overlap with reloads
			if n == 1 && trouble.Load()%4 == 0 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
	}
	untouched := r.outlet("e")

	type taken struct{ host, id string }
	var (
		mu       sync.Mutex // guards accepted
		accepted []taken
		posts    sync.WaitGroup
		stop     atomic.Bool
	)
	for worker := range 4 {
		posts.Go(func() {
			for n := 0; n < 2000 && !stop.Load(); n++ {
				path, key := "/events/thing.happened", fmt.Sprintf("line-%d-%d", worker, n%3) // in its order, since each line has one worker
				if n%2 == 0 {
					path = "/to/" + names[n/2%len(names)]
				}
				status, text, err := r.tryPost(path, "{}", "Postern-Key", key)
				if status == 404 && n%2 == 0 {
					continue // that destination is not there now
				}
				if err != nil || status != 202 {
					t.Errorf("post to %s: got %d %s (%v)", path, status, text, err)
					return
				}
				id := between(text, `"id":"`, `"`)
				mu.Lock()
				for _, name := range names {
					if strings.Contains(text, `"destination":"`+name+`"`) {
						accepted = append(accepted, taken{name + ".test", id})
						lines.expect(name+".test", key, id)
					}
				}
				mu.Unlock()
			}
		})
	}
	valid, invalid := 0, 0
	for n := range 100 {
		text := edited()
		if n%5 == 4 {
			text = strings.Replace(text, "https://", "http://", 1)
		}
		r.write(t, text)
		if err := r.Reload(t.Context()); err != nil {
			invalid++
		} else {
			valid++
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // so that something happens between; nothing depends on how long
	}
	if valid != 80 || invalid != 20 {
		t.Errorf("got %d reloads and %d refusals, want 80 and 20", valid, invalid)
	}
	stop.Store(true)
	posts.Wait()
	r.reloadWith(t, whole())
	until(t, "everything is delivered", func() bool { return r.memory.Pending() == 0 })

	if len(accepted) < 200 {
		t.Errorf("only %d deliveries were accepted: this tests nothing", len(accepted))
	}
	arrived := map[taken]bool{}
	r.far.mu.Lock()
	defer r.far.mu.Unlock()
	for _, req := range r.far.requests {
		arrived[taken{req.host, req.id}] = true
		lines.arrive(t, req.host, req.id)
	}
	lost := 0
	for _, d := range accepted {
		if !arrived[d] {
			lost++
		}
	}
	if lost != 0 || len(r.far.doubled) != 0 {
		t.Errorf("of %d deliveries %d were lost, and attempted twice at the same time were %v", len(accepted), lost, r.far.doubled)
	}
	if r.outlet("e") != untouched {
		t.Error("the lane of a destination that never changed was touched")
	}
}

// arrivals holds requests against the order of their lines.
type arrivals struct {
	place  map[string]int    // of a host and id, in its line
	line   map[string]string // of a host and id
	length map[string]int    // of a line
	latest map[string]string // id that arrived last, of a line
}

// expect notes the next delivery of a line.
func (a *arrivals) expect(host, key, id string) {
	if a.place == nil {
		a.place, a.line, a.length = map[string]int{}, map[string]string{}, map[string]int{}
	}
	line := host + " " + key
	a.place[host+id], a.line[host+id] = a.length[line], line
	a.length[line]++
}

// arrive takes requests by their time.
func (a *arrivals) arrive(t *testing.T, host, id string) {
	line := a.line[host+id]
	if last, ok := a.latest[line]; ok && a.place[host+id] < a.place[host+last] {
		t.Errorf("line %s: place %d came after %d", line, a.place[host+id], a.place[host+last])
	}
	a.latest[line] = id
}

// between returns what stands between two texts, at their first place.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

func TestAReloadOfTheSameReplacesNothing(t *testing.T) {
	text := edit(t, "a: {", `a: {auth: {oauth2: {client_id: "${file:id}", client_secret: "${file:secret}", token_url: "https://a.test/token?k=${file:key}"}}, `)
	dir := t.TempDir()
	for _, name := range []string{"id", "secret", "key"} {
		replaceFile(t, filepath.Join(dir, name), name+"-canary\n")
		text = strings.ReplaceAll(text, "file:"+name, "file:"+filepath.Join(dir, name))
	}
	r := newRig(t, text)
	before := r.outlet("a")
	for range 20 {
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r.outlet("a") != before {
		t.Error("the destination was begun anew, with its connections and its token")
	}
}
