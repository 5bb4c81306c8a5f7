package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// stormWorkers is how many requests of the app are under way at a time in a storm.
const stormWorkers = 6

// storm is a relay that has all sorts of things to do at once, over many lives of its process: posts of every kind,
// retries, replays, pauses, reloads. Lives are numbered, and each request says in which it was made.
type storm struct {
	*site
	t       *testing.T
	chance  *rand.Rand // of the test's goroutine
	ledger  *ledger
	app     *load
	stopped context.CancelFunc
	others  sync.WaitGroup

	mu       sync.Mutex      // guards the fields below and, while the storm goes on, those of site that configure reads
	running  *process        // that may be sent a hangup; nil while there is none
	killed   map[string]bool // lives that ended by a kill
	replayed map[string]int  // the highest round that was answered to a replay, by delivery
	lost     map[string]bool // deliveries of which a replay was not answered
	done     struct{ replays, pauses, reloads, hangups int }
}

// newStorm makes a relay with four destinations on the addresses prefix2 to prefix5 and begins to post; prefix1 is its
// own. Nothing runs yet.
func newStorm(t *testing.T, prefix, storeKeys, program string) *storm {
	t.Helper()
	own := ", breaker: {failures: 5, probe_every: 200ms}"
	st := &storm{
		t: t, chance: seeded(t), ledger: newLedger(), killed: map[string]bool{}, replayed: map[string]int{}, lost: map[string]bool{},
		site: newSite(t, siteOptions{
			IP: prefix + "1", Store: storeKeys, Config: "log: {format: json, level: warn}", Program: program,
			Destinations: []destination{
				{Name: "far", IP: prefix + "2", Keys: quickRetries + own + ", concurrency: 16"},
				{Name: "lined", IP: prefix + "3", Keys: quickRetries + own + ", order: key"},
				{Name: "left", IP: prefix + "4", Keys: quickRetries + own + `, events: ["order.**"]`},
				{Name: "right", IP: prefix + "5", Keys: quickRetries + `, breaker: none, events: ["order.**"]`, HTTP1: true},
			},
		}),
	}
	ctx, stop := context.WithCancel(context.Background())
	st.stopped = stop
	st.app = st.load(st.chance, st.ledger, stormWorkers, st.next)
	for _, f := range []func(context.Context, *rand.Rand){st.replay, st.pause, st.reload} {
		own := rand.New(rand.NewPCG(st.chance.Uint64(), st.chance.Uint64()))
		st.others.Go(func() { f(ctx, own) })
	}
	t.Cleanup(func() { stop(); st.app.stopping(); st.others.Wait(); st.app.workers.Wait() })
	return st
}

// next is one post of the app. A worker has ordering keys of its own, and posts under them one after the other until
// each is accepted: so the order of acceptance is known.
func (st *storm) next(r *rand.Rand, n int) outgoing {
	size := 200
	switch r.IntN(50) {
	case 0:
		size = 150_000 // in chunks
	case 1, 2, 3:
		size = 9000
	}
	body := uniqueBody(r, "storm", n, size)
	key := fmt.Sprintf("post-%d", n)
	line := fmt.Sprintf("line-%d-%d", n%stormWorkers, r.IntN(2))
	o := outgoing{path: "/to/far", body: body, header: http.Header{"Idempotency-Key": {key}}, again: true}
	switch r.IntN(20) {
	case 0, 1, 2:
		o.header, o.again = nil, false
	case 3, 4, 5, 6:
		o.path = "/to/lined"
		o.header.Set("Postern-Key", line)
	case 7, 8:
		o.path = "/events/order.paid"
	case 9:
		o.path = "/cloudevents"
		o.header = http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {key}, "Ce-Source": {"/storm"}, "Ce-Type": {"order.made"}}
	case 10:
		o.header.Set("Postern-Delay", "1s")
	case 11:
		o.header.Set("Prefer", "wait=1")
	case 12:
		return batchOf(r, n, line)
	}
	return o
}

// batchOf is a batch with messages for a line, a destination and an event.
func batchOf(r *rand.Rand, n int, line string) outgoing {
	o := outgoing{path: "/batch", header: http.Header{"Content-Type": {"application/x-ndjson"}}, again: true}
	var body bytes.Buffer
	for i := range 2 + r.IntN(20) {
		data := uniqueBody(r, fmt.Sprintf("batch-%d", n), i, 100)
		target, key := `"to":"far"`, ""
		switch i % 3 {
		case 0:
			target, key = `"to":"lined"`, line
		case 1:
			target = `"event":"order.late"`
		}
		fmt.Fprintf(&body, `{%s,"data":%s,"id":"batch-%d-%d"`, target, data, n, i)
		if key != "" {
			fmt.Fprintf(&body, `,"key":%q`, key)
		}
		body.WriteString("}\n")
		o.parts, o.lines = append(o.parts, data), append(o.lines, key)
	}
	o.body = body.Bytes()
	return o
}

// replay has deliveries that have arrived made again, but none of a line: who is replayed leaves it.
func (st *storm) replay(ctx context.Context, r *rand.Rand) {
	client := st.client()
	client.Timeout = 10 * time.Second
	for ctx.Err() == nil {
		pause(ctx, time.Duration(r.IntN(60))*time.Millisecond)
		f := st.fars[[]string{"far", "left", "right"}[r.IntN(3)]]
		id := f.anyID(r)
		entry, ok := st.ledger.find(id)
		if !ok {
			continue
		}
		for i, name := range entry.to {
			if name != f.name {
				continue
			}
			delivery := entry.deliveries[i]
			d, err := client.Replay(context.WithoutCancel(ctx), delivery)
			st.mu.Lock()
			if err != nil {
				st.lost[delivery] = true
			} else {
				st.replayed[delivery] = max(st.replayed[delivery], d.Round)
				st.done.replays++
			}
			st.mu.Unlock()
		}
	}
}

// pause pauses a destination and resumes it. What was answered must hold, whatever was killed in between.
func (st *storm) pause(ctx context.Context, r *rand.Rand) {
	client, name := st.client(), "right"
	client.Timeout = 10 * time.Second
	for ctx.Err() == nil {
		if _, err := client.Pause(ctx, name, "storm"); err != nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		pause(ctx, time.Duration(r.IntN(300))*time.Millisecond)
		if d, err := client.Destination(ctx, name); err == nil && d.Pause == nil {
			st.t.Errorf("%s was paused, and is not any more", name)
		}
		for ctx.Err() == nil {
			if _, err := client.Resume(ctx, name); err == nil {
				st.mu.Lock()
				st.done.pauses++
				st.mu.Unlock()
				break
			}
			pause(ctx, 20*time.Millisecond)
		}
		pause(ctx, time.Duration(r.IntN(500))*time.Millisecond)
		if d, err := client.Destination(ctx, name); err == nil && d.Pause != nil {
			st.t.Errorf("%s was resumed, and is paused again", name)
		}
	}
}

// reload changes the config and has it read again: by a hangup, by the API, or because the file has changed.
func (st *storm) reload(ctx context.Context, r *rand.Rand) {
	client := st.client()
	client.Timeout = 10 * time.Second
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, time.Duration(r.IntN(400))*time.Millisecond)
		how := r.IntN(3)
		st.mu.Lock()
		for i, d := range st.Destinations {
			keys, _, _ := strings.Cut(d.Keys, ", timeout:")
			st.Destinations[i].Keys = fmt.Sprintf("%s, timeout: %ds", keys, 20+(n+i)%3)
		}
		if err := st.reconfigure(); err != nil {
			st.t.Errorf("write config: %v", err)
		}
		if how == 0 && st.running != nil {
			st.running.signalGroup(syscall.SIGHUP)
			st.done.hangups++
		}
		st.mu.Unlock()
		if how == 1 {
			if _, err := client.Reload(ctx); err == nil {
				st.mu.Lock()
				st.done.reloads++
				st.mu.Unlock()
			}
		}
	}
}

// begin is the beginning of a life: its config, and perhaps receivers that are ill.
func (st *storm) begin(life int) {
	st.mu.Lock()
	st.life = life
	err := st.reconfigure()
	st.mu.Unlock()
	if err != nil {
		st.t.Fatal(err)
	}
	for _, name := range []string{"far", "lined", "left", "right"} {
		f := st.fars[name]
		f.SetFault(receiver.Fault{})
		f.Outage(false)
		switch st.chance.IntN(4) {
		case 0:
			f.Outage(true)
		case 1:
			f.SetFault(receiver.Fault{Kind: receiver.Status, Fraction: 0.2})
		}
	}
}

// ready waits until a process is ready, which from now on may be told to reload.
func (st *storm) ready(p *process) {
	st.t.Helper()
	p.ready(st.t, 30*time.Second)
	st.hangups(p)
}

// hangups has a process told to reload, by hangups; nil ends that.
func (st *storm) hangups(p *process) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.running = p
}

// kill ends a life by kill -9.
func (st *storm) kill(p *process) {
	st.t.Helper()
	st.hangups(nil)
	p.kill(st.t)
	st.ended(p, true)
}

// ended notes how a life ended, and looks at what the process has said in it.
func (st *storm) ended(p *process, killed bool) {
	st.t.Helper()
	st.hangups(nil)
	st.mu.Lock()
	if killed {
		st.killed[fmt.Sprint(st.life)] = true
	}
	st.mu.Unlock()
	if log := p.log.String(); strings.Contains(log, `"level":"error"`) || strings.Contains(log, "config not reloaded") {
		st.t.Errorf("life %d: postern printed:\n%s", st.life, log)
	}
}

// calm ends the storm: receivers are well, everything that was accepted is to arrive in one more life, and the process
// stops in good order.
func (st *storm) calm(life int) tally {
	st.t.Helper()
	st.begin(life)
	for _, f := range st.fars {
		f.SetFault(receiver.Fault{})
		f.Outage(false)
	}
	p := st.start(st.t)
	st.hangups(p)
	st.stopped()
	st.app.stop()
	st.others.Wait()
	st.hangups(nil)
	if _, err := st.client().Resume(context.Background(), "right"); err != nil {
		st.t.Errorf("resume: %v", err)
	}
	c := st.settle(st.ledger, 5*time.Minute)
	waitUntil(st.t, time.Minute, "nothing is pending", func() bool {
		o, err := st.client().Overview(context.Background())
		return err == nil && o.Pending == 0
	})
	p.stop(st.t)
	st.ended(p, false)
	return c
}

// anyID returns an id that has arrived, or nothing.
func (f *far) anyID(r *rand.Rand) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.order) == 0 {
		return ""
	}
	return f.order[r.IntN(len(f.order))]
}

// find returns what was accepted under an id.
func (l *ledger) find(id string) (accepted, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.accepted[id]
	return a, ok
}
