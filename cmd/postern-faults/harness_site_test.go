package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

// siteOptions is what a site is made of.
type siteOptions struct {
	// Destinations that the relay has, at least one, each with a receiver.
	Destinations []destination
	// IP is the loopback address that the relay listens on, with ports that are free. Take one of your own numbers.
	IP string
	// Data is the folder of the store, whose parent must exist; empty means one below the test's temporary folder.
	Data string
	// Store are further keys of the config's store, such as "min_free: 300MiB, max_pending: 100", and Listen of its
	// listeners; Config are further lines at the top level of the file. All may be empty.
	Store, Listen, Config string
	// Program is what is run; empty means postern(t), with the race detector.
	Program string
}

// destination is a destination of the relay, and the receiver behind it.
type destination struct {
	Name string
	// IP is the loopback address whose port 443 the receiver binds. Take one of your own numbers.
	IP string
	// Keys are further keys of the destination in the config, as YAML in flow style without the braces; empty means
	// retries that are quick: "retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}".
	Keys string
	// HTTP1 has the receiver offer HTTP/1.1 only.
	HTTP1 bool
}

const quickRetries = "retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}"

// site is one relay of a test, without its processes: its folder, its config, and the receivers of its destinations.
type site struct {
	siteOptions
	dir    string // of the test; Data lies in it unless it was given
	config string // path of the config file
	ingest string // host:port
	admin  string // host:port
	secret string // of the signatures
	ca     *receiver.CA
	caFile string
	life   int             // configure has each request say it (X-Life), so that arrivals know who sent them; 0 does not
	fars   map[string]*far // by the name of the destination
}

// newSite starts the receivers and writes the config. The receivers end with the test.
func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	s := &site{siteOptions: o, dir: t.TempDir(), secret: sign.NewSecret(), fars: map[string]*far{}}
	if s.Program == "" {
		s.Program = postern(t)
	}
	if s.Data == "" {
		s.Data = filepath.Join(s.dir, "data")
	}
	s.config, s.caFile = filepath.Join(s.dir, "postern.yaml"), filepath.Join(s.dir, "ca.pem")
	var err error
	if s.ca, err = receiver.NewCA("postern faults"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.caFile, string(s.ca.PEM()))
	s.ingest, s.admin = freeAddress(t, o.IP), freeAddress(t, o.IP)
	for _, d := range o.Destinations {
		s.fars[d.Name] = newFar(t, s, d)
	}
	s.configure(t)
	return s
}

// configure writes the config file anew, after a change of the site's options. Whoever reads it sees all of the earlier
// or all of the new one.
func (s *site) configure(t *testing.T) {
	t.Helper()
	if err := s.reconfigure(); err != nil {
		t.Fatal(err)
	}
}

// reconfigure is configure for other goroutines than that of the test.
func (s *site) reconfigure() error {
	fresh := s.config + ".new"
	if err := os.WriteFile(fresh, []byte(s.text()), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, s.config)
}

// text returns the config file.
func (s *site) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {ingest: %q, admin: %q%s}\n", s.ingest, s.admin, prefixed(", ", s.Listen))
	fmt.Fprintf(&b, "store: {path: %q%s}\n", s.Data, prefixed(", ", s.Store))
	b.WriteString("egress: {resolve: {")
	for i, d := range s.Destinations {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %s", s.host(d.Name), d.IP)
	}
	b.WriteString("}}\n")
	if s.Config != "" {
		b.WriteString(s.Config + "\n")
	}
	b.WriteString("destinations:\n")
	for _, d := range s.Destinations {
		keys := d.Keys
		if keys == "" {
			keys = quickRetries
		}
		if s.life > 0 {
			keys += fmt.Sprintf(", headers: {X-Life: \"%d\"}", s.life)
		}
		fmt.Fprintf(&b, "  %s: {url: \"https://%s/hook\", tls: {ca_file: %q}, allow_networks: [127.0.0.0/8], "+
			"sign: [{standard: {secrets: [%s]}}], %s}\n", d.Name, s.host(d.Name), s.caFile, s.secret, keys)
	}
	return b.String()
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// host is the name under which the receiver of a destination is known.
func (s *site) host(destination string) string { return destination + ".faults.test" }

// client returns a client of the relay's admin API.
func (s *site) client() admin.Client { return admin.Client{Address: s.admin} }

// freeAddress returns an address that was free a moment ago, as host:port.
func freeAddress(t testing.TB, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// far is the receiver of a destination, with what has arrived there. It verifies each signature. SetFault and Outage
// make it misbehave.
type far struct {
	*receiver.Receiver
	name string

	mu      sync.Mutex // guards the fields below
	arrived map[string][]arrival
	order   []string      // ids, by their first arrival
	watch   func(arrival) // see onArrival
}

// arrival is one request that a receiver has taken.
type arrival struct {
	at     time.Time
	digest [sha256.Size]byte // of its body
	life   string            // X-Life: the site's at the time when its config was read
	replay string            // Postern-Replay: the number of the replay, empty in the first round
}

func newFar(t *testing.T, s *site, d destination) *far {
	t.Helper()
	cert, err := s.ca.Issue(s.host(d.Name))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(d.IP, "443"))
	if err != nil {
		t.Fatalf("%v; Postern delivers to port 443 only, so this test must bind it: run it as root, or once "+
			"`sysctl net.ipv4.ip_unprivileged_port_start=443`", err)
	}
	f := &far{name: d.Name, arrived: map[string][]arrival{}}
	f.Receiver = &receiver.Receiver{
		Listener: listener, Certificate: cert, Secret: s.secret, HTTP1: d.HTTP1, Taken: f.take,
		MaxMessages: 1, // what arrives is remembered here, in less memory
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("receiver %s: %v", d.Name, err)
		}
	})
	return f
}

func (f *far) take(r receiver.Request) {
	id, a := r.Header.Get("Webhook-Id"), arrival{
		at: r.At, digest: sha256.Sum256(r.Body), life: r.Header.Get("X-Life"), replay: r.Header.Get("Postern-Replay"),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.arrived[id]) == 0 {
		f.order = append(f.order, id)
	}
	f.arrived[id] = append(f.arrived[id], a)
	if f.watch != nil {
		f.watch(a)
	}
}

// onArrival has f called at each arrival, before it is answered; nil ends that. It must not wait, nor call the far.
func (f *far) onArrival(watch func(arrival)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = watch
}

// arrivals returns the requests that were taken under an id, oldest first.
func (f *far) arrivals(id string) []arrival {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived[id]
}

// ids returns the ids that have arrived, by their first arrival.
func (f *far) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.order...)
}
