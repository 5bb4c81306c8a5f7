package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// outgoing is one request that an app makes.
type outgoing struct {
	path   string      // such as /to/far
	header http.Header // nil for none; a Content-Type of application/json is the default
	body   []byte
	parts  [][]byte // the bodies of a batch, one for each message; nil means that body is the only one
	lines  []string // the ordering keys of a batch, one for each message; nil takes Postern-Key of header for all
	again  bool     // after a lost answer it is made again until there is one; it must have idempotency keys
}

// ledger is what an app knows: what it has posted, and what was answered with 202. Its methods may be called from several
// goroutines.
type ledger struct {
	mu       sync.Mutex // guards the fields below
	posted   map[[sha256.Size]byte]bool
	accepted map[string]accepted // by the id of the message
	refused  map[int]int         // answers other than 202 and 200, by status
	lost     int                 // requests without an answer
	watch    func()              // see onAccepted
}

// accepted is a message that was answered with 202, or with 200 as Prefer: wait may be.
type accepted struct {
	digest     [sha256.Size]byte // of its body
	to         []string          // the destinations that the answer names
	deliveries []string          // their ids, in the order of to
	line       string            // its ordering key, or empty
	begun      time.Time         // when the request was made
	place      int               // in its batch
	at         time.Time         // when the answer was there
}

func newLedger() *ledger {
	return &ledger{posted: map[[sha256.Size]byte]bool{}, accepted: map[string]accepted{}, refused: map[int]int{}}
}

// count returns how many messages were accepted.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// messages returns what was accepted up to now, by id.
func (l *ledger) messages() map[string]accepted {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]accepted, len(l.accepted))
	for id, a := range l.accepted {
		all[id] = a
	}
	return all
}

// onAccepted has f called when an answer has said that something was accepted; nil ends that. It must not wait, nor call
// the ledger.
func (l *ledger) onAccepted(watch func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = watch
}

// answer is what ingest answers to one message, or to several.
type answer struct {
	answeredMessage
	Messages []answeredMessage `json:"messages"`
}

type answeredMessage struct {
	ID         string `json:"id"`
	Deliveries []struct {
		ID          string `json:"id"`
		Destination string `json:"destination"`
	} `json:"deliveries"`
}

// post makes one request and notes what came of it. The error is that of a request without an answer; a status other
// than 202 and 200 is none.
func (l *ledger) post(ctx context.Context, client *http.Client, s *site, o outgoing) (status int, err error) {
	bodies := o.parts
	if bodies == nil {
		bodies = [][]byte{o.body}
	}
	digests := make([][sha256.Size]byte, len(bodies))
	l.mu.Lock()
	for i, body := range bodies {
		digests[i] = sha256.Sum256(body)
		l.posted[digests[i]] = true
	}
	l.mu.Unlock()
	begun := time.Now()
	status, text, err := send(ctx, client, "http://"+s.ingest+o.path, o.header, o.body)
	at := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.lost++
		return 0, err
	case status != http.StatusAccepted && status != http.StatusOK:
		l.refused[status]++
		return status, nil
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return status, fmt.Errorf("read answer %q: %w", text, err)
	}
	messages := a.Messages
	if o.parts == nil {
		messages = []answeredMessage{a.answeredMessage}
	}
	if len(messages) != len(digests) {
		return status, fmt.Errorf("%d messages were answered with %d", len(digests), len(messages))
	}
	for i, m := range messages {
		entry := accepted{digest: digests[i], line: o.header.Get("Postern-Key"), begun: begun, place: i, at: at}
		if o.lines != nil {
			entry.line = o.lines[i]
		}
		for _, d := range m.Deliveries {
			entry.to, entry.deliveries = append(entry.to, d.Destination), append(entry.deliveries, d.ID)
		}
		if _, ok := l.accepted[m.ID]; !ok { // else it is the first answer again
			l.accepted[m.ID] = entry
		}
	}
	if l.watch != nil {
		l.watch()
	}
	return status, nil
}

// appClient returns a client for the posts of a test's own goroutine.
func appClient(t testing.TB) *http.Client {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func send(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, values := range header {
		req.Header[name] = values
	}
	req.GetBody = nil // no second request behind our back
	answer, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// load is an app that posts, until it is stopped.
type load struct {
	stopping context.CancelFunc
	workers  sync.WaitGroup
}

// load begins to post with some workers at a time, what next says: it gets the worker's own source of chance and the
// number of the post, which no other of this load has. A relay that is away is tried again; it may be killed and started
// meanwhile. Call stop.
func (s *site) load(r *rand.Rand, l *ledger, workers int, next func(r *rand.Rand, n int) outgoing) *load {
	ctx, cancel := context.WithCancel(context.Background())
	running := &load{stopping: cancel}
	for w := range workers {
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		running.workers.Go(func() {
			client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := w; ctx.Err() == nil; n += workers {
				o := next(own, n)
				// A request that has begun goes on to its end: what the answer says is what counts.
				for {
					if _, err := l.post(context.WithoutCancel(ctx), client, s, o); err == nil {
						break
					}
					pause(ctx, 5*time.Millisecond)
					if !o.again || ctx.Err() != nil {
						break
					}
				}
			}
		})
	}
	return running
}

// stop ends the posting and waits for the requests in progress.
func (l *load) stop() {
	l.stopping()
	l.workers.Wait()
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// plainPosts returns posts to a destination, with bodies of about so many bytes, none like another: tag tells one load
// from the next.
func plainPosts(destination, tag string, size int) func(*rand.Rand, int) outgoing {
	return func(r *rand.Rand, n int) outgoing {
		return outgoing{path: "/to/" + destination, body: uniqueBody(r, tag, n, size)}
	}
}

// uniqueBody returns JSON that no other tag and number give.
func uniqueBody(r *rand.Rand, tag string, n, size int) []byte {
	var pad strings.Builder
	for pad.Len() < size {
		fmt.Fprintf(&pad, "%016x", r.Uint64())
	}
	return fmt.Appendf(nil, `{"tag":%q,"n":%d,"pad":%q}`, tag, n, pad.String()[:size])
}

// tally is what became of what was accepted.
type tally struct {
	Accepted int // messages that were answered with 202
	Missing  int // of their deliveries, those that have not arrived
	Altered  int // of their deliveries, those that came with another body at least once
	Unasked  int // arrivals with a body that was never posted
	Doubled  int // bodies that arrived under two ids: bodies must be posted once, or again under one idempotency key
	Twice    int // deliveries that arrived more than once under their id; who may, is another question
	Bad      int // requests with a wrong signature
}

// String says it in the words of the summary.
func (c tally) String() string {
	return fmt.Sprintf("%d accepted, %d missing, %d altered, %d came again", c.Accepted, c.Missing, c.Altered, c.Twice)
}

// check fails the test for whatever may never be.
func (c tally) check(t *testing.T) {
	t.Helper()
	if c.Missing > 0 || c.Altered > 0 || c.Unasked > 0 || c.Doubled > 0 || c.Bad > 0 {
		t.Errorf("got %+v, want nothing missing, altered, unasked, doubled or bad", c)
	}
	if c.Accepted == 0 {
		t.Error("nothing was accepted: this tests nothing")
	}
}

// settle waits until all that was accepted has arrived, or until the time is over, and compares. The loads have been
// stopped before.
func (s *site) settle(l *ledger, within time.Duration) tally {
	type expected struct{ id, destination string }
	var open []expected
	for id, entry := range l.messages() {
		for _, name := range entry.to {
			open = append(open, expected{id, name})
		}
	}
	arrived := func(e expected) bool {
		f := s.fars[e.destination]
		return f != nil && len(f.arrivals(e.id)) > 0
	}
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		open = slices.DeleteFunc(open, arrived)
		if len(open) == 0 || time.Now().After(end) {
			return s.compare(l)
		}
	}
}

// compare holds what the receivers have got against what was accepted, as things are now.
func (s *site) compare(l *ledger) tally {
	var c tally
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Accepted = len(l.accepted)
	for _, f := range s.fars {
		c.Bad += f.Stats().Unverified
		f.mu.Lock()
		idOf := make(map[[sha256.Size]byte]string, len(f.arrived))
		for id, all := range f.arrived {
			if len(all) > 1 {
				c.Twice++
			}
			if first, ok := idOf[all[0].digest]; ok && first != id {
				c.Doubled++
			}
			idOf[all[0].digest] = id
			altered := false
			for _, a := range all {
				altered = altered || a.digest != all[0].digest
				if !l.posted[a.digest] {
					c.Unasked++
				}
			}
			if entry, ok := l.accepted[id]; altered || ok && entry.digest != all[0].digest {
				c.Altered++
			}
		}
		f.mu.Unlock()
	}
	for id, entry := range l.accepted {
		for _, name := range entry.to {
			if f := s.fars[name]; f == nil || len(f.arrivals(id)) == 0 {
				c.Missing++
			}
		}
	}
	return c
}
