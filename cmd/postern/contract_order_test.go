package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// keyed is the body of a message in TestOrderOfKeysAcrossCrashes.
type keyed struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// TestOrderOfKeysAcrossCrashes kills the real process again and again while apps post under a few ordering keys and the
// receiver fails a third of what it gets: no request of a key may come before one of an earlier message with that key.
func TestOrderOfKeysAcrossCrashes(t *testing.T) {
	c := newContract(t, "127.0.0.46", `order: key
    concurrency: 8
    retry: {attempts: 100, first: 10ms, max: 100ms}
    breaker: none`, nil)
	const keys, rounds = 6, 4
	var (
		posters  sync.WaitGroup
		mu       sync.Mutex // guards accepted
		accepted = map[string]string{}
		next     [keys]int // number of each key's next message; one goroutine at a time uses each
	)
	client := httpClient(t)
	load := func(key int) {
		header := http.Header{"Postern-Key": {fmt.Sprintf("key-%d", key)}}
		for range 5000 {
			body, err := json.Marshal(keyed{header.Get("Postern-Key"), next[key]})
			if err != nil {
				t.Error(err)
				return
			}
			// It counts as posted whatever becomes of it: without an answer it may be stored or not.
			next[key]++
			id, err := postWith(t, client, "http://"+c.ingest+"/to/far", string(body), header)
			if err != nil {
				return // the relay has been killed
			}
			mu.Lock()
			accepted[id] = string(body)
			mu.Unlock()
		}
	}
	for round := range rounds {
		c.start(t)
		c.far.SetFault(receiver.Fault{Kind: []receiver.Kind{receiver.Status, receiver.ResetAfter}[round%2], Fraction: 0.3})
		for key := range keys {
			posters.Go(func() { load(key) })
		}
		begin, had := c.far.Stats().Distinct, time.Duration(randomInt(t, 300))*time.Millisecond
		waitUntil(t, 30*time.Second, "messages arrive", func() bool { return c.far.Stats().Distinct > begin+20 })
		time.Sleep(had) // the moment is what varies
		c.relay.kill(t)
		posters.Wait()
	}
	c.far.SetFault(receiver.Fault{})
	c.start(t)
	waitUntil(t, 90*time.Second, "everything accepted has arrived", func() bool { return c.far.has(accepted) })
	c.relay.stop(t)

	latest := map[string]int{} // number of each key's latest message
	for i, r := range c.far.Latest() {
		var k keyed
		if err := json.Unmarshal(r.Body, &k); err != nil {
			t.Fatalf("request %d has body %q: %v", i, r.Body, err)
		}
		if before, ok := latest[k.Key]; ok && k.N < before {
			t.Errorf("request %d: message %d of %s came after message %d", i, k.N, k.Key, before)
		}
		latest[k.Key] = k.N
	}
	stats := c.far.Stats()
	if len(latest) != keys || stats.Faulted == 0 || stats.Altered > 0 || stats.Unverified > 0 {
		t.Errorf("got %+v and %d keys; want %d keys, some faults, nothing altered", stats, len(latest), keys)
	}
	t.Logf("%d kills, %d accepted over %d keys, %d requests, %d faults, %d duplicates",
		rounds, len(accepted), keys, stats.Requests, stats.Faulted, stats.Duplicates)
}

// postWith is post with headers.
func postWith(t *testing.T, client *http.Client, url, body string, header http.Header) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header = header.Clone()
	answer, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var said struct{ ID string }
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("status %d", answer.StatusCode)
	}
	return said.ID, nil
}
