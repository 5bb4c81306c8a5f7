package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

// demoConfig is what a user would write, but for the folder and the free ports.
const demoConfig = `listen:
  ingest: %q
  admin: %q
store:
  path: %q
  min_free: 1MiB      # the engine's own reserve is larger and holds
log: {format: json, level: info}
defaults:
  tls: {ca_file: %q}
  sign:
    - standard: {secrets: [%s]}
  retry: {attempts: 100, first: 250ms, max: 1s, factor: 2}
  breaker: {probe_every: 1s}
destinations:
  orders:
    url: https://orders.demo.invalid/webhooks
    events: ["order.*"]
  alerts:
    url: https://alerts.demo.invalid/hook
`

// demoStage is everything of the demo but the screen: the receivers, the relay and the app.
type demoStage struct {
	dir       string
	environ   []string
	ingest    string
	receivers map[string]*receiver.Receiver
	start     time.Time
	stop      context.CancelFunc // of the receivers
	running   errgroup.Group     // the receivers
	child     *demoChild         // nil while no relay runs
	kills     int

	mu       sync.Mutex          // guards the fields below
	accepted map[string]demoPost // by message id
	reposts  int
}

// demoPost is what the app remembers of a post.
type demoPost struct {
	destination string
	body        string
}

func newDemoStage(dir string, environ []string) (*demoStage, error) {
	s := &demoStage{dir: dir, environ: environ, receivers: map[string]*receiver.Receiver{}, accepted: map[string]demoPost{}, start: time.Now()}
	ca, err := receiver.NewCA("Postern demo")
	if err != nil {
		return nil, err
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		return nil, fmt.Errorf("write demo CA: %w", err)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s.ingest = ports[0]
	secret := sign.NewSecret()
	text := fmt.Sprintf(demoConfig, ports[0], ports[1], s.dataDir(), caFile, secret)
	if err := os.WriteFile(filepath.Join(dir, "postern.yaml"), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write demo config: %w", err)
	}
	if err := s.openReceivers(ca, secret); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.startRelay(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *demoStage) dataDir() string { return filepath.Join(s.dir, "data") }

// openReceivers starts an HTTPS receiver for each destination, on a socket in the demo's folder.
func (s *demoStage) openReceivers(ca *receiver.CA, secret string) error {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, name := range demoNames {
		cert, err := ca.Issue(name + demoDomain)
		if err != nil {
			return err
		}
		listener, err := net.Listen("unix", filepath.Join(s.dir, name+".sock"))
		if err != nil {
			return fmt.Errorf("open receiver: %w", err)
		}
		r := &receiver.Receiver{Listener: listener, Certificate: cert, Secret: secret}
		s.receivers[name] = r
		s.running.Go(func() error { return r.Run(ctx) })
	}
	return nil
}

// close ends the relay and the receivers, and returns when nothing of them is left.
func (s *demoStage) close() error {
	err := s.kill()
	if s.stop != nil {
		s.stop()
	}
	return errors.Join(err, s.running.Wait())
}

// demoTurn is something that happens in the story.
type demoTurn struct {
	at   float64 // part of the cycle
	good bool
	text string
	do   func() error
}

func (s *demoStage) turns() []demoTurn {
	outage := func(on bool) func() error {
		return func() error { s.receivers["alerts"].Outage(on); return nil }
	}
	return []demoTurn{
		{0.25, false, "the receiver of alerts fails: it answers 503 from now on", outage(true)},
		{0.50, true, "the receiver of alerts is back", outage(false)},
		{0.65, false, "kill -9 of the relay", func() error { s.kills++; return s.kill() }},
		{0.72, true, "the relay is started again, on the same store", s.startRelay},
	}
}

// play makes traffic, and the turns of the story once in each cycle, until ctx ends.
func (s *demoStage) play(ctx context.Context, cycle time.Duration, screen *demoScreen) error {
	app, stopApp := context.WithCancel(ctx)
	var posting sync.WaitGroup
	defer posting.Wait()
	defer stopApp()
	posting.Go(func() { s.post(app) })

	lines, err := s.firstDelivery(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	screen.sample(lines)
	screen.header()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	// watch prints a line a second until the given time, and reports whether the story goes on.
	watch := func(until time.Time) bool {
		due := time.NewTimer(time.Until(until))
		defer due.Stop()
		for {
			select {
			case <-ctx.Done():
				return false
			case <-second.C:
				screen.tally(s.tally())
			case <-due.C:
				return true
			}
		}
	}
	for begun := s.start; ctx.Err() == nil; begun = begun.Add(cycle) {
		for _, turn := range s.turns() {
			if !watch(begun.Add(time.Duration(turn.at * float64(cycle)))) {
				return nil
			}
			screen.turn(time.Since(s.start), turn.good, turn.text)
			if err := turn.do(); err != nil {
				return err
			}
		}
		watch(begun.Add(cycle))
	}
	return nil
}

// settle ends all faults, waits until what was accepted has arrived, and looks at every message.
func (s *demoStage) settle(ctx context.Context, screen *demoScreen) (demoSummary, error) {
	s.receivers["alerts"].Outage(false)
	if err := s.startRelay(); err != nil {
		return demoSummary{}, err
	}
	screen.turn(time.Since(s.start), true, "the app stops posting; the last deliveries are awaited")
	ctx, cancel := context.WithTimeout(ctx, demoSettle)
	defer cancel()
	for s.tally().Waiting > 0 && ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
	}
	sum := demoSummary{demoTally: s.tally(), Kills: s.kills}
	for _, name := range demoNames {
		stats := s.receivers[name].Stats()
		sum.Duplicates += stats.Duplicates
		sum.Unverified += stats.Unverified
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, post := range s.accepted {
		switch m, ok := s.receivers[post.destination].Message(id); {
		case !ok:
			sum.Lost++
		case string(m.Body) != post.body:
			sum.Altered++
		}
	}
	return sum, nil
}

func (s *demoStage) tally() demoTally {
	t := demoTally{Seconds: time.Since(s.start).Seconds()}
	for _, r := range s.receivers {
		stats := r.Stats()
		t.Delivered += stats.Distinct
		t.Refused += stats.Faulted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Accepted, t.Reposts = len(s.accepted), s.reposts
	// A message can arrive before the app has read its 202.
	t.Waiting = max(0, t.Accepted-t.Delivered)
	return t
}

// startRelay starts the relay unless it runs.
func (s *demoStage) startRelay() error {
	if s.child != nil {
		return nil
	}
	child, err := startDemoRelay(s.dir, s.environ)
	if err != nil {
		return err
	}
	s.child = child
	return nil
}

// kill ends the relay by kill -9, if it runs.
func (s *demoStage) kill() error {
	if s.child == nil {
		return nil
	}
	err := s.child.kill()
	s.child = nil
	return err
}

// firstDelivery waits for it and returns it as lines of text.
func (s *demoStage) firstDelivery(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoSettle)
	defer cancel()
	for {
		for _, r := range s.receivers {
			if ids := r.IDs(); len(ids) > 0 {
				m, _ := r.Message(ids[0])
				return describe(m), nil
			}
		}
		select {
		case <-s.child.exited:
			return nil, fmt.Errorf("the demo's relay ended; it said:\n%s", s.relayLog())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, fmt.Errorf("nothing was delivered; the demo's relay said:\n%s", s.relayLog())
			}
			return nil, nil
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// relayLog returns the end of what the relay has logged.
func (s *demoStage) relayLog() string {
	text, err := os.ReadFile(filepath.Join(s.dir, demoLog))
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	return string(text[max(0, len(text)-most):])
}

// describe writes a request down as it came over the wire, its signature shortened.
func describe(m receiver.Message) []string {
	lines := []string{fmt.Sprintf("%s %s %s", m.Method, m.Target, m.Proto)}
	names := slices.Sorted(maps.Keys(m.Header))
	for _, name := range names {
		lines = append(lines, strings.ToLower(name)+": "+m.Header.Get(name))
	}
	return append(lines, "", string(m.Body))
}
