package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	inFlight     = 16 // requests at a time to one destination, on all sides
	readyTimeout = 2 * time.Minute
)

// site is a folder with the store and the config of one Postern, which may be started several times.
type site struct {
	b      *bench
	folder string
	config string // path
	stores string // path of the store
	params siteParams
}

// siteParams say what stands in the config.
type siteParams struct {
	destinations []destination
	retention    string // empty means Postern's own
}

// destination is one of the config.
type destination struct {
	name string
	host string // hostH2, hostH1 or hostDead
	held bool   // not enabled: what is posted stays pending
}

func (b *bench) newSite(name string, params siteParams) (*site, error) {
	s := &site{b: b, folder: b.folder(name), params: params}
	if err := os.Mkdir(s.folder, 0o700); err != nil {
		return nil, err
	}
	s.config, s.stores = s.folder+"/postern.yaml", s.folder+"/data"
	return s, nil
}

// remove deletes the folder, whose process has ended.
func (s *site) remove() { _ = os.RemoveAll(s.folder) }

// write writes the config, with free ports.
func (s *site) write(ingest, admin string) error {
	var c strings.Builder
	fmt.Fprintf(&c, "listen: {ingest: %q, admin: %q}\n", ingest, admin)
	fmt.Fprintf(&c, "store: {path: %q, max_pending: 100000000%s}\n", s.stores, optional(", retention: ", s.params.retention))
	c.WriteString("log: {format: json, level: warn}\n")
	fmt.Fprintf(&c, "egress: {resolve: {%s: %s, %s: %s, %s: %s}}\n", hostH2, addressH2, hostH1, addressH1, hostDead, addressDead)
	fmt.Fprintf(&c, "defaults:\n  tls: {ca_file: %q}\n  allow_networks: [127.0.0.0/8]\n  concurrency: %d\n", s.b.sink.caFile, inFlight)
	c.WriteString("  sign: [{standard: {secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=]}}]\ndestinations:\n")
	for _, d := range s.params.destinations {
		fmt.Fprintf(&c, "  %s: {url: https://%s/hook, enabled: %t}\n", d.name, d.host, !d.held)
	}
	return os.WriteFile(s.config, []byte(c.String()), 0o600)
}

func optional(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func (s *site) log() string { return s.folder + "/log" }

// explain adds to err what Postern has logged, up to a bound.
func (s *site) explain(err error) error {
	text, _ := os.ReadFile(s.log())
	const most = 4000 // a crash tells what it is about in its first lines, and Postern's log in its last
	if at := bytes.Index(text, []byte("\ngoroutine ")); at >= 0 {
		text = text[max(0, at-most/2):min(len(text), at+most/2)]
	}
	return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-most):])
}

// started is a Postern and what its start took.
type started struct {
	*process
	begun time.Time     // when it was executed
	ready time.Duration // until /readyz answered 200
}

// start runs Postern and waits until it is ready. Posts go to the first destination unless said otherwise.
func (s *site) start(ctx context.Context) (*started, error) {
	ingest, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := s.write(ingest, admin); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.b.binary, "run", "--config", s.config)
	cmd.Stderr = log
	begun := time.Now()
	p, err := spawn(ctx, cmd)
	if err != nil {
		return nil, err
	}
	p.address, p.admin, p.path = ingest, admin, "/to/"+s.params.destinations[0].name
	alive, stop := p.whileAlive(ctx)
	defer stop()
	err = waitFor(alive, readyTimeout, 2*time.Millisecond, func() bool {
		return ask(ctx, http.MethodGet, "http://"+admin+"/readyz", nil) == nil
	})
	if err != nil {
		p.kill()
		return nil, s.explain(fmt.Errorf("postern did not become ready: %w", err))
	}
	return &started{process: p, begun: begun, ready: time.Since(begun)}, nil
}

// run starts the site's Postern, and stops it when use has used it.
func (s *site) run(ctx context.Context, use func(*started) error) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	if err := use(p); err != nil {
		p.kill()
		return s.explain(err)
	}
	if err := p.stop(); err != nil {
		return s.explain(fmt.Errorf("stop postern: %w", err))
	}
	return nil
}

// crash starts the site's Postern, and ends it by SIGKILL as soon as use has used it.
func (s *site) crash(ctx context.Context, use func(*started) error) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer p.kill()
	if err := use(p); err != nil {
		return s.explain(err)
	}
	return nil
}

// timeToReady starts the site's Postern, stops it in good order, and returns how long the start took.
func (s *site) timeToReady(ctx context.Context) (ready time.Duration, err error) {
	err = s.run(ctx, func(p *started) error { ready = p.ready; return nil })
	return ready, err
}

// with is run on a site that is not used again.
func (s *site) with(ctx context.Context, use func(*started) error) error {
	defer s.remove()
	return s.run(ctx, use)
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
