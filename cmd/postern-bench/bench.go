package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

const (
	receiverIP   = "127.0.0.14"
	receiverHost = "receiver.bench.test"
	deliverWith  = 16 // connections or streams in flight, on both sides
)

// bench holds what the measurements share.
type bench struct {
	options
	dir  string
	body []byte
}

// relayProcess is one running postern.
type relayProcess struct {
	cmd           *exec.Cmd
	ingest, admin string
}

// startRelay runs the binary on a store of its own and waits until it is ready.
func (b *bench) startRelay(ctx context.Context, name, destination string, ca []byte) (*relayProcess, error) {
	ingest, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	caFile := filepath.Join(b.dir, "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`
listen: {ingest: "%s", admin: "%s"}
store: {path: %q}
log: {format: json, level: warn}
egress: {resolve: {%s: %s}}
destinations:
  bench:
    url: https://%s/hook
    tls: {ca_file: %q}
    allow_networks: [127.0.0.0/8]
    sign: [{standard: {secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=]}}]
    concurrency: %d
    %s
`, ingest, admin, filepath.Join(b.dir, name), receiverHost, receiverIP, receiverHost, caFile, deliverWith, destination)
	path := filepath.Join(b.dir, name+".yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.binary, "run", "--config", path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &relayProcess{cmd: cmd, ingest: ingest, admin: admin}
	if err := waitFor(ctx, 20*time.Second, func() bool {
		answer, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("postern did not become ready: %w", err), r.stop())
	}
	return r, nil
}

func (r *relayProcess) stop() error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return r.cmd.Wait()
}

// memory returns resident memory in MiB: all of it, and the part that is not mapped files.
func (r *relayProcess) memory() (resident, anonymous float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			resident = kib / 1024
		case "RssAnon:":
			anonymous = kib / 1024
		}
	}
	return resident, anonymous, scanner.Err()
}

// accepts compares durable accepts with the bound at several numbers of connections. The destination is not
// enabled, so that nothing but ingest is measured.
func (b *bench) accepts(ctx context.Context) error {
	ca, err := receiver.NewCA("bench")
	if err != nil {
		return err
	}
	r, err := b.startRelay(ctx, "accepts", "enabled: false", ca.PEM())
	if err != nil {
		return err
	}
	defer func() { _ = r.stop() }()
	bound, address, err := b.startFileServer(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = bound.Process.Kill(); _ = bound.Wait() }()

	fmt.Printf("durable accepts, %d-byte bodies\n%12s %14s %14s %8s %10s %10s\n", len(b.body), "connections", "postern/s", "file/s", "ratio", "p50", "p99")
	for _, conns := range []int{1, 16, 64} {
		ours, times, took, err := load(ctx, r.ingest, "/to/bench", b.body, conns, b.duration, 0)
		if err != nil {
			return fmt.Errorf("load postern: %w", err)
		}
		theirs, _, theirTook, err := load(ctx, address, "/", b.body, conns, b.duration, 0)
		if err != nil {
			return fmt.Errorf("load bound: %w", err)
		}
		a, t := rate(ours, took), rate(theirs, theirTook)
		fmt.Printf("%12d %14.0f %14.0f %8.2f %10s %10s\n", conns, a, t, a/t,
			percentile(times, 0.5).Round(time.Microsecond), percentile(times, 0.99).Round(time.Microsecond))
	}
	return nil
}

// lonePost measures the time of one post alone, ten a second, as an app makes it on an ordinary day.
func (b *bench) lonePost(ctx context.Context) error {
	ca, err := receiver.NewCA("bench")
	if err != nil {
		return err
	}
	r, err := b.startRelay(ctx, "lone", "enabled: false", ca.PEM())
	if err != nil {
		return err
	}
	defer func() { _ = r.stop() }()
	bound, address, err := b.startFileServer(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = bound.Process.Kill(); _ = bound.Wait() }()
	fmt.Printf("\none lone post at a time, paused in between\n")
	for _, side := range []struct{ name, address, path string }{{"postern", r.ingest, "/to/bench"}, {"file", address, "/"}} {
		p, err := newPoster(side.address, side.path, b.body)
		if err != nil {
			return err
		}
		var times []time.Duration
		for range 100 {
			time.Sleep(10 * time.Millisecond) // pauses are what is measured here
			begun := time.Now()
			if err := p.post(); err != nil {
				return err
			}
			times = append(times, time.Since(begun))
		}
		_ = p.conn.Close()
		slices.Sort(times)
		fmt.Printf("%12s   p50 %10s   p99 %10s\n", side.name, percentile(times, 0.5).Round(time.Microsecond), percentile(times, 0.99).Round(time.Microsecond))
	}
	return nil
}

// deliveries fills a store while its destination is not enabled, then measures memory and how fast the backlog is
// delivered, beside a bare client.
func (b *bench) deliveries(ctx context.Context) error {
	sink, err := newSink()
	if err != nil {
		return err
	}
	defer sink.close()

	r, err := b.startRelay(ctx, "backlog", "enabled: false", sink.ca.PEM())
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // let a fresh process settle before its idle memory is read
	idle, idleAnon, err := r.memory()
	if err != nil {
		return err
	}
	if _, _, _, err := load(ctx, r.ingest, "/to/bench", b.body, 64, 10*time.Minute, int64(b.backlog)); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	full, fullAnon, err := r.memory()
	if err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return fmt.Errorf("stop after fill: %w", err)
	}
	begun := time.Now()
	r, err = b.startRelay(ctx, "backlog", "enabled: true", sink.ca.PEM())
	if err != nil {
		return err
	}
	ready := time.Since(begun)
	if err := waitFor(ctx, 10*time.Minute, func() bool { return sink.count.Load() >= int64(b.backlog) }); err != nil {
		return fmt.Errorf("drain: %d of %d arrived: %w", sink.count.Load(), b.backlog, err)
	}
	ours := rate(int64(b.backlog), sink.span())
	drained, drainedAnon, err := r.memory()
	if err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return fmt.Errorf("stop after drain: %w", err)
	}

	sink.reset()
	if err := bareClient(ctx, sink, b.body, b.backlog); err != nil {
		return fmt.Errorf("bare client: %w", err)
	}
	bare := rate(int64(b.backlog), sink.span())

	fmt.Printf("\ndrain of %d pending messages, HTTP/2, %d in flight\n", b.backlog, deliverWith)
	fmt.Printf("%12s %10.0f/s\n%12s %10.0f/s\n%12s %10.2f\n", "postern", ours, "bare client", bare, "ratio", ours/bare)
	fmt.Printf("\nmemory, MiB                 resident   of it not mapped files\n")
	fmt.Printf("%-28s %7.0f %12.0f\n", "idle, empty store", idle, idleAnon)
	fmt.Printf("%-28s %7.0f %12.0f\n", fmt.Sprintf("%d pending, just posted", b.backlog), full, fullAnon)
	fmt.Printf("%-28s %7.0f %12.0f\n", "after the drain", drained, drainedAnon)
	fmt.Printf("\nstart to ready with %d pending: %s\n", b.backlog, ready.Round(time.Millisecond))
	return nil
}

// sink is the fastest receiver that Go's HTTPS server can be: it counts and answers.
type sink struct {
	ca     *receiver.CA
	server *http.Server
	count  atomic.Int64

	mu          sync.Mutex // guards first and last
	first, last time.Time
}

func newSink() (*sink, error) {
	ca, err := receiver.NewCA("bench")
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(receiverHost)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(receiverIP, "443"))
	if err != nil {
		return nil, fmt.Errorf("%w; binding port 443 needs root or CAP_NET_BIND_SERVICE", err)
	}
	s := &sink{ca: ca}
	s.server = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			now := time.Now()
			s.mu.Lock()
			if s.first.IsZero() {
				s.first = now
			}
			s.last = now
			s.mu.Unlock()
			s.count.Add(1)
			w.WriteHeader(http.StatusOK)
		}),
	}
	go func() { _ = s.server.ServeTLS(listener, "", "") }()
	return s, nil
}

func (s *sink) span() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Sub(s.first)
}

func (s *sink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.last = time.Time{}, time.Time{}
	s.count.Store(0)
}

func (s *sink) close() { _ = s.server.Close() }

// bareClient posts n bodies with as many in flight as the relay has, and does nothing else.
func bareClient(ctx context.Context, s *sink, body []byte, n int) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ca.PEM())
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(receiverIP, "443"))
		},
	}}
	defer client.CloseIdleConnections()
	var (
		left atomic.Int64
		wg   sync.WaitGroup
		errs = make(chan error, deliverWith)
	)
	left.Store(int64(n))
	for range deliverWith {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+receiverHost+"/hook", bytes.NewReader(body))
				if err != nil {
					errs <- err
					return
				}
				answer, err := client.Do(req)
				if err != nil {
					errs <- err
					return
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func (b *bench) startFileServer(ctx context.Context) (*exec.Cmd, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, self, "file-server", address, filepath.Join(b.dir, "bound.log"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	err = waitFor(ctx, 5*time.Second, func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return cmd, address, err
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// waitFor asks until ok says yes, at most d long.
func waitFor(ctx context.Context, d time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("not within %s", d))
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func rate(n int64, d time.Duration) float64 { return float64(n) / d.Seconds() }
