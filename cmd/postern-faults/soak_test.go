package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/receiver"
)

// soakToken is what the app's requests carry, since the relay listens for other hosts too.
const soakToken = "soak-0123456789abcdef0123456789abcdef"

// soakTime is how long the load goes on: POSTERN_FAULTS_SOAK, or an hour in the long form.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv("POSTERN_FAULTS_SOAK"))
	switch {
	case os.Getenv("POSTERN_FAULTS_SOAK") == "":
		return pick(2*time.Second, time.Hour)
	case err != nil || d <= 0:
		t.Fatalf("POSTERN_FAULTS_SOAK: %q is no duration, such as 10m", os.Getenv("POSTERN_FAULTS_SOAK"))
	}
	return d
}

// soak is a storm that goes on for long, with more around it: posts over HTTP/2, receivers that are slow, flapping and
// dead, clients that follow the events, backups.
type soak struct {
	*storm
	begun   time.Time
	streams atomic.Int64 // of events that were opened
	backups atomic.Int64 // that were read to their end
	series  []soakSample
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	own := ", breaker: {failures: 5, probe_every: 500ms}"
	st := &storm{
		t: t, chance: seeded(t), ledger: newLedger(), killed: map[string]bool{}, replayed: map[string]int{}, lost: map[string]bool{},
		site: newSite(t, siteOptions{
			IP: "127.0.67.1", Store: "retention: " + pick("10s", "2m"), Config: "log: {format: json, level: warn}", Program: plainPostern(t),
			Listen: fmt.Sprintf("tokens: [{name: app, token: %s}], https: {address: %q, cert_file: https.crt, key_file: https.key}",
				soakToken, freeAddress(t, "127.0.67.1")),
			Destinations: []destination{
				{Name: "far", IP: "127.0.67.2", Keys: quickRetries + own + ", concurrency: 16"},
				{Name: "lined", IP: "127.0.67.3", Keys: quickRetries + own + ", order: key"},
				{Name: "left", IP: "127.0.67.4", Keys: quickRetries + own + `, events: ["order.**"]`},
				{Name: "right", IP: "127.0.67.5", Keys: quickRetries + `, breaker: none, events: ["order.**"]`, HTTP1: true},
				{Name: "slow", IP: "127.0.67.6", Keys: quickRetries + own + ", concurrency: 4"},
				{Name: "dead", IP: "127.0.67.7", Keys: quickRetries + own},
			},
		}),
	}
	cert, err := st.ca.Issue("relay.faults.test")
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(st.dir, "https.crt"), string(chain))
	writeFile(t, filepath.Join(st.dir, "https.key"), string(key))
	return &soak{storm: st, begun: time.Now()}
}

// httpsAddress is where the relay listens for other hosts.
func (s *soak) httpsAddress() string {
	_, rest, _ := strings.Cut(s.Listen, `address: "`)
	address, _, _ := strings.Cut(rest, `"`)
	return address
}

// overHTTPS sends requests to the other listener of a relay, by HTTP/2.
type overHTTPS struct {
	transport *http.Transport
	address   string
}

func (o overHTTPS) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "https", o.address, "relay.faults.test"
	answer, err := o.transport.RoundTrip(r)
	if err == nil && answer.ProtoMajor != 2 {
		answer.Body.Close()
		return nil, fmt.Errorf("answered by %s, want HTTP/2", answer.Proto)
	}
	return answer, err
}

// newSecureClient returns a client for the relay's listener for other hosts.
func (s *soak) newSecureClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.PEM())
	return &http.Client{Timeout: 20 * time.Second, Transport: overHTTPS{&http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "relay.faults.test"}, ForceAttemptHTTP2: true,
	}, s.httpsAddress()}}
}

// next is a post of the storm, with a token and at a bounded rate, and now and then one to a receiver that is ill.
func (s *soak) next(r *rand.Rand, n int) outgoing {
	pause(context.Background(), time.Duration(r.IntN(pick(40, 160)))*time.Millisecond)
	o := s.storm.next(r, n)
	if o.path == "/to/far" {
		switch r.IntN(20) {
		case 0, 1:
			o.path = "/to/slow"
		case 2:
			o.path = "/to/dead"
		}
	}
	o.header = o.header.Clone()
	if o.header == nil {
		o.header = http.Header{}
	}
	o.header.Set("Authorization", "Bearer "+soakToken)
	return o
}

// begins starts all that goes on at the same time. It ends with s.stopped and s.app.stop.
func (s *soak) begins(tag int) {
	ctx, stop := context.WithCancel(context.Background())
	s.stopped = stop
	s.app = s.load(s.chance, s.ledger, stormWorkers, func(r *rand.Rand, n int) outgoing { return s.next(r, n+tag*100_000_000) })
	for _, f := range []func(context.Context, *rand.Rand){s.storm.replay, s.storm.pause, s.storm.reload, s.secure(tag), s.follow, s.backup, s.flap} {
		own := rand.New(rand.NewPCG(s.chance.Uint64(), s.chance.Uint64()))
		s.others.Go(func() { f(ctx, own) })
	}
	s.t.Cleanup(func() { stop(); s.app.stopping(); s.others.Wait(); s.app.workers.Wait() })
}

// secure posts over HTTP/2.
func (s *soak) secure(tag int) func(context.Context, *rand.Rand) {
	return func(ctx context.Context, r *rand.Rand) {
		client := s.newSecureClient()
		defer client.CloseIdleConnections()
		for n := 0; ctx.Err() == nil; n++ {
			o := outgoing{path: "/to/far", header: http.Header{"Authorization": {"Bearer " + soakToken}}, body: uniqueBody(r, fmt.Sprint("h2-", tag), n, 300)}
			_, _ = s.ledger.post(context.WithoutCancel(ctx), client, s.site, o) // the ledger knows what was answered
			pause(ctx, time.Duration(r.IntN(pick(40, 160)))*time.Millisecond)
		}
	}
}

// follow has clients follow the events for a while, and leave. Some read nothing.
func (s *soak) follow(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		ctx, leave := context.WithTimeout(ctx, time.Duration(r.IntN(2000))*time.Millisecond)
		var followers sync.WaitGroup
		for range 1 + r.IntN(8) {
			reads := r.IntN(3) > 0
			followers.Go(func() {
				s.streams.Add(1)
				for e, err := range s.client().Events(ctx, "") {
					if err != nil || e.Name == "" {
						return
					}
					if !reads {
						<-ctx.Done()
					}
				}
			})
		}
		followers.Wait()
		leave()
	}
}

// backup reads a backup now and then.
func (s *soak) backup(ctx context.Context, r *rand.Rand) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(500+r.IntN(pick(500, 60_000)))*time.Millisecond)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.admin+"/api/v1/backup", nil)
		if err != nil {
			return
		}
		answer, err := client.Do(req)
		if err != nil {
			continue
		}
		if n, err := io.Copy(io.Discard, answer.Body); err == nil && answer.StatusCode == http.StatusOK && n > 0 {
			s.backups.Add(1)
		}
		answer.Body.Close()
	}
}

// flap has receivers fail in turn, one be slow and one be dead.
func (s *soak) flap(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		s.fars["slow"].SetFault(receiver.Fault{Kind: receiver.Slow, Delay: time.Duration(50+r.IntN(500)) * time.Millisecond})
		s.fars["dead"].SetFault(receiver.Fault{Kind: receiver.ResetBefore})
		for _, name := range []string{"far", "lined", "left", "right"} {
			f := s.fars[name]
			f.Outage(r.IntN(6) == 0)
			f.SetFault([]receiver.Fault{
				{}, {}, {Kind: receiver.Status, Fraction: 0.2}, {Kind: receiver.ResetAfter, Fraction: 0.05}, {Kind: receiver.HugeBody, Fraction: 0.02},
				{Kind: receiver.Drip, Fraction: 0.02}, {Kind: receiver.Status, Status: 429, RetryAfter: "1", Fraction: 0.02},
			}[r.IntN(7)])
		}
		pause(ctx, time.Duration(r.IntN(pick(1000, 20_000)))*time.Millisecond)
	}
}

// well makes all receivers well.
func (s *soak) well() {
	for _, f := range s.fars {
		f.SetFault(receiver.Fault{})
		f.Outage(false)
	}
}

// ends stops the load, and waits until nothing is pending.
func (s *soak) ends(p *process) {
	s.t.Helper()
	s.stopped()
	s.app.stop()
	s.others.Wait()
	s.hangups(nil)
	s.well()
	client := s.client()
	for _, d := range s.Destinations {
		if _, err := client.Resume(context.Background(), d.Name); err != nil {
			s.t.Errorf("resume %s: %v", d.Name, err)
		}
	}
	waitUntil(s.t, 5*time.Minute, "nothing is pending", func() bool {
		// What was a probe again and again waits for up to ten minutes.
		query := admin.DeliveryQuery{DeliveryFilter: admin.DeliveryFilter{State: "pending"}, Limit: 500}
		for d, err := range client.AllDeliveries(context.Background(), query) {
			if err == nil {
				_, _ = client.Retry(context.Background(), d.ID) // it may have ended, or stand behind another
			}
		}
		o, err := client.Overview(context.Background())
		return err == nil && o.Pending == 0
	})
	s.take(p)
}

// TestFaultSoak has everything go on at once for an hour, with faults: at its end all that was accepted has arrived, and
// the process takes no more than after its first minutes.
func TestFaultSoak(t *testing.T) {
	s, lasts := newSoak(t), soakTime(t)
	warm := min(max(lasts/20, time.Second), 3*time.Minute)
	p := s.start(t)
	s.hangups(p)
	s.begins(1)
	time.Sleep(warm)
	s.ends(p)
	base := s.rest(p, soakSample{anonymous: 1 << 40, descriptors: 1 << 20, goroutines: 1 << 20}, min(warm, time.Minute))

	s.hangups(p)
	s.begins(2)
	kills, every := 0, min(max(lasts/60, 500*time.Millisecond), time.Minute)
	wanted := int(min(10, max(1, lasts/(5*time.Minute))))
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		time.Sleep(min(every, time.Until(end)))
		s.take(p)
		if gone := lasts - time.Until(end); kills < wanted && gone > lasts*time.Duration(kills+1)/time.Duration(wanted+1) {
			kills++
			s.hangups(nil)
			p.kill(t)
			p = s.start(t)
			s.hangups(p)
		}
	}
	s.ends(p)
	c := s.settle(s.ledger, time.Minute)
	c.check(t)

	// What it takes is back where it was, when what is idle has been closed.
	slack := soakSample{anonymous: base.anonymous + pick[int64](48, 24)<<20, descriptors: base.descriptors + pick(60, 16), goroutines: base.goroutines + pick(150, 24)}
	last := s.rest(p, slack, pick(5*time.Second, 3*time.Minute))
	if last.anonymous > slack.anonymous || last.descriptors > slack.descriptors || last.goroutines > slack.goroutines {
		t.Errorf("after the load it takes\n%s\nand after the first %s it took\n%s\nwant no more", last, warm, base)
	}

	// The retention passes, and what was delivered goes.
	full := blocksOf(s.Data)
	s.Store = "retention: 1s"
	p.stop(t)
	s.configure(t)
	time.Sleep(1100 * time.Millisecond)
	p = s.start(t) // which sweeps
	waitUntil(t, 2*time.Minute, "what is older than the retention is deleted", func() bool {
		page, err := s.client().Deliveries(t.Context(), admin.DeliveryQuery{})
		return err == nil && len(page.Deliveries) == 0
	})
	if full > 96<<20 {
		waitUntil(t, 10*time.Minute, "the disk is given back", func() bool { return blocksOf(s.Data) < 96<<20 })
	}
	given := blocksOf(s.Data)
	p.stop(t)
	report(t, "soak", "%s of posts by HTTP/1.1 and 2, batches, lines, six receivers of which some flap, one is slow and one dead, "+
		"%d kills, %d replays, %d pauses, %d reloads, %d streams, %d backups: %s; its own memory %d MiB after %s and %d at the end, "+
		"descriptors %d and %d, goroutines %d and %d; disk %.1f MiB, and %.1f when the retention had passed",
		lasts, kills, s.done.replays, s.done.pauses, s.done.reloads+s.done.hangups, s.streams.Load(), s.backups.Load(), c,
		base.anonymous>>20, warm, last.anonymous>>20, base.descriptors, last.descriptors, base.goroutines, last.goroutines, mebibytes(full), mebibytes(given))
}
