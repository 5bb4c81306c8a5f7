package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBodiesAreJSONOfTheirSizeAndDiffer(t *testing.T) {
	for _, size := range []int{0, leastBody, 1024, 100_000} {
		b := newBodies(size, 7)
		seen := map[string]bool{}
		for range 100 {
			before := time.Now()
			body := b.append(nil)
			if len(body) != b.length() || len(body) != max(size, leastBody) {
				t.Fatalf("size %d: got %d bytes, and length says %d", size, len(body), b.length())
			}
			var read struct {
				PostedAt, Text string
			}
			if err := json.Unmarshal(bytes.ReplaceAll(body, []byte("posted_at"), []byte("PostedAt")), &read); err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if at, ok := postedAt(body); !ok || at.Before(before.Truncate(0).Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
				t.Errorf("size %d: got time %s, %t", size, at, ok)
			}
			if seen[read.Text] {
				t.Errorf("size %d: a text comes twice", size)
			}
			seen[read.Text] = true
		}
	}
	if _, ok := postedAt([]byte(`{"posted_at":"0000x000000000000000","text":""}`)); ok {
		t.Error("a time that is none is taken for one")
	}
}

func TestALoadPostsAsManyAsAskedTurnByTurn(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		got[r.URL.Path]++
		mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	l, err := load{address: address, paths: []string{"/a", "/b", "/c"}, conns: 4, bodySize: 100, most: 30}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l.posts != 30 || len(l.times) != 30 || !slices.IsSorted(l.times) {
		t.Errorf("got %d posts and %d times, want 30", l.posts, len(l.times))
	}
	if _, err := paced(t.Context(), address, []string{"/a", "/b", "/c"}, 100, 30, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for path, n := range got {
		if n != 20 {
			t.Errorf("%s: got %d posts, want 20", path, n)
		}
	}
}

func TestALoadEndsWithAnErrorWhenAPostIsRefused(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if n.Add(1) > 10 {
			http.Error(w, "no more", http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	_, err := load{address: address, paths: []string{"/"}, conns: 2, bodySize: 100, most: 30}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("load: got error %v, want one of status 429", err)
	}
	if _, err := paced(t.Context(), address, []string{"/"}, 100, 30, time.Millisecond); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("paced: got error %v, want one of status 429", err)
	}
}

func TestTheReceiverTellsOfTheLastOneThatIsWanted(t *testing.T) {
	r := &received{want: 3, times: true, reached: make(chan struct{})}
	bodies := newBodies(200, 1)
	for range 2 {
		r.arrived(bodies.append(nil))
	}
	if a := r.report(); a.Count != 2 || a.First.IsZero() || !a.Reached.IsZero() {
		t.Errorf("after 2 of 3: got %+v", a)
	}
	for range 2 {
		r.arrived(bodies.append(nil))
	}
	a := r.report()
	if a.Count != 4 || a.Reached.IsZero() || a.Reached.Before(a.First) || a.P50 <= 0 || a.P99 < a.P50 {
		t.Errorf("after 4, 3 of which were wanted: got %+v", a)
	}
}

func TestAFleetHasEachTenthAlive(t *testing.T) {
	for n, alive := range map[int]int{1: 1, 10: 1, 100: 10, 1000: 100} {
		f := newFleet(n)
		if len(f.destinations) != n || len(f.all) != n || len(f.alive) != alive || len(f.mixed) != 2*(n-alive) {
			t.Errorf("%d: got %d destinations, %d alive, %d mixed", n, len(f.destinations), len(f.alive), len(f.mixed))
		}
		if f.destinations[0].host != hostH2 {
			t.Errorf("%d: the first is dead", n)
		}
	}
}
