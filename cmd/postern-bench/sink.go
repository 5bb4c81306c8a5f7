package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// The receiver's names and addresses. The second one offers no HTTP/2, and at the third nobody listens.
const (
	hostH2, addressH2     = "h2.bench.test", "127.0.68.1"
	hostH1, addressH1     = "h1.bench.test", "127.0.68.2"
	hostDead, addressDead = "dead.bench.test", "127.0.68.3"
)

// received is what the receiver counts from one expect to the next. It is written to by many goroutines, and costs
// each of them little.
type received struct {
	want    int64
	times   bool // keep the time from post to receipt
	count   atomic.Int64
	first   atomic.Int64 // nanoseconds since 1970
	reached chan struct{}
	at      time.Time // of the last one that is wanted; written before reached is closed

	mu   sync.Mutex // guards ages
	ages []time.Duration
}

// arrivals is what the receiver tells of what it has counted.
type arrivals struct {
	Count   int           `json:"count"`
	First   time.Time     `json:"first"`   // of the first one
	Reached time.Time     `json:"reached"` // of the last one that was wanted; zero if it has not come
	P50     time.Duration `json:"p50"`     // from post to receipt
	P99     time.Duration `json:"p99"`
}

func (r *received) arrived(body []byte) {
	now := time.Now()
	if r.times {
		if posted, ok := postedAt(body); ok {
			r.mu.Lock()
			r.ages = append(r.ages, now.Sub(posted))
			r.mu.Unlock()
		}
	}
	switch n := r.count.Add(1); {
	case n == 1:
		r.first.Store(now.UnixNano())
		if r.want == 1 {
			r.at = now
			close(r.reached)
		}
	case n == r.want:
		r.at = now
		close(r.reached)
	}
}

func (r *received) report() arrivals {
	a := arrivals{Count: int(r.count.Load())}
	if first := r.first.Load(); first != 0 {
		a.First = time.Unix(0, first)
	}
	select {
	case <-r.reached:
		a.Reached = r.at
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.ages)
	a.P50, a.P99 = percentile(r.ages, 0.5), percentile(r.ages, 0.99)
	return a
}

// serveSink is the receiver: the fastest that Go's HTTPS server can be. It writes the certificate of its authority
// to caFile, and is asked what has arrived at an address of its own.
func serveSink(caFile string) error {
	ca, err := receiver.NewCA("bench")
	if err != nil {
		return err
	}
	cert, err := ca.Issue(hostH2, hostH1)
	if err != nil {
		return err
	}
	var now atomic.Pointer[received]
	now.Store(&received{reached: make(chan struct{})})
	heads := sync.Pool{New: func() any { b := make([]byte, 64); return &b }}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := heads.Get().(*[]byte)
		defer heads.Put(head)
		n, err := io.ReadFull(r.Body, *head)
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		now.Load().arrived((*head)[:n])
		w.WriteHeader(http.StatusOK)
	})
	serve := func(address string, h2 bool) error {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "443"))
		if err != nil {
			return fmt.Errorf("%w; binding port 443 needs root or CAP_NET_BIND_SERVICE", err)
		}
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(h2)
		server := &http.Server{
			Handler: handler, Protocols: protocols,
			ErrorLog:  log.New(io.Discard, "", 0), // of connections that a relay gives up when it is stopped or killed
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		}
		go func() { fatal(server.ServeTLS(listener, "", "")) }()
		return nil
	}
	if err := errors.Join(serve(addressH2, true), serve(addressH1, false)); err != nil {
		return err
	}
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		return err
	}
	return serveAndSay(controlOf(&now))
}

// controlOf answers what this program asks its receiver.
func controlOf(now *atomic.Pointer[received]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /expect", func(w http.ResponseWriter, r *http.Request) {
		want, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
		now.Store(&received{want: want, times: r.FormValue("times") == "true", reached: make(chan struct{})})
	})
	answer := func(w http.ResponseWriter, r *received) {
		_ = json.NewEncoder(w).Encode(r.report()) // the asker sees a cut answer
	}
	mux.HandleFunc("GET /arrivals", func(w http.ResponseWriter, _ *http.Request) { answer(w, now.Load()) })
	mux.HandleFunc("GET /reached", func(w http.ResponseWriter, r *http.Request) {
		counting := now.Load()
		select {
		case <-counting.reached:
		case <-r.Context().Done():
		}
		answer(w, counting)
	})
	return mux
}

// serveAndSay serves on a free loopback port, and says in one line which.
func serveAndSay(h http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second}
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}
