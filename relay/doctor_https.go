package relay

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/listen"
)

const (
	authorityTime = 10 * time.Second // for the answer of a certificate authority
	maxDirectory  = 64 << 10         // bytes of it; a directory has some hundred
)

// ExamineHTTPS looks at what listen.https needs beside its socket: the certificate, the names, and the way to the
// authority, whose directory is read, without an account or an order. Of certificates that the authority issues, those
// that a running Postern shows are looked at, by e.Served, as an app would see them; they lie in the store, which nobody
// else can open then.
//
// Names are looked up in DNS, and what they lead to is compared with the addresses of this machine: what stands between
// cannot be seen from here. It takes some twenty seconds at most for every 32 names, returns early when ctx ends, and
// returns nothing without listen.https but what a running Postern, by another config, says of its own.
func (p *Plan) ExamineHTTPS(ctx context.Context, e Examination) []Finding {
	if p.https == nil {
		w := way{prefix: "https "}
		w.trouble(e.Trouble)
		return w.findings
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Addresses == nil {
		e.Addresses = machineAddresses
	}
	w := way{now: e.Now(), prefix: "https "}
	if p.https.acme == nil {
		w.certificateFile(p.https.files)
		return w.findings
	}
	w.examineACME(ctx, p.https.acme, e)
	return w.findings
}

// certificateFile looks at the certificate that a file holds.
func (w *way) certificateFile(files guard.TLSFiles) {
	const check = "certificate"
	identity, err := guard.LoadServerIdentity(files)
	if err != nil { // the config has been loaded, so it has changed since
		w.add(check, Problem, oneLine(err.Error()), "mend the files that listen.https names")
		return
	}
	w.ownLeaf(identity.Certificate().Leaf, "of cert_file", "put the next one into cert_file and key_file; no restart is needed")
}

// ownLeaf says how long a certificate of ours is good.
func (w *way) ownLeaf(leaf *x509.Certificate, which, renew string) {
	const check = "certificate"
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	detail := fmt.Sprintf("that %s is for %s, by %s, and has %s left", which, oneLine(strings.Join(names, ", ")),
		quote(oneLine(leaf.Issuer.String())), days(leaf.NotAfter.Sub(w.now)))
	switch left := leaf.NotAfter.Sub(w.now); {
	case left < 0:
		w.add(check, Problem, detail+": it has expired on "+leaf.NotAfter.UTC().Format(time.RFC3339), renew)
	case w.now.Before(leaf.NotBefore):
		w.add(check, Problem, fmt.Sprintf("that %s is not valid before %s", which, leaf.NotBefore.UTC().Format(time.RFC3339)),
			"look at the clock of this machine; if it is right, "+renew)
	case left < soon(leaf):
		w.add(check, Warning, detail, renew)
	default:
		w.add(check, Fine, detail, "")
	}
}

// examineACME looks at the authority, the names, and what is shown for them.
func (w *way) examineACME(ctx context.Context, a *acme, e Examination) {
	w.authority(ctx, a)
	if e.Served == "" {
		w.unseen(e.Trouble)
	}
	own, err := e.Addresses()
	if err != nil {
		w.add("name", Warning, "ask for the addresses of this machine: "+oneLine(err.Error()), "see by hand that the names lead here")
	}
	perName := make([]way, len(a.names))
	var group errgroup.Group
	group.SetLimit(examineParallel)
	for i, name := range a.names {
		perName[i] = way{now: w.now, prefix: w.prefix}
		group.Go(func() error {
			n := &perName[i]
			if err == nil {
				n.leadsHere(ctx, a.dialer, name, own)
			}
			if e.Served != "" {
				n.served(ctx, a, name, e)
			}
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	for _, n := range perName {
		w.findings = append(w.findings, n.findings...)
	}
}

// unseen is for certificates that no listener shows. In a store that is encrypted or in use nobody else can look for them.
func (w *way) unseen(trouble []string) {
	w.trouble(trouble)
	if len(trouble) == 0 {
		w.add("certificate", Fine, "not looked at: whether the store holds any from the authority shows when Postern runs", "")
	}
}

// trouble passes on what a running Postern says.
func (w *way) trouble(said []string) {
	for _, text := range said {
		w.add("certificate", Problem, oneLine(text), noCertificate)
	}
}

const noCertificate = "the log says more (listen.https); it is tried again by itself, and listen.ingest goes on meanwhile"

// authority reads the directory of the authority (RFC 8555, section 7.1.1).
func (w *way) authority(ctx context.Context, a *acme) {
	const check = "authority"
	ctx, cancel := context.WithTimeoutCause(ctx, authorityTime, errors.New("no answer in time"))
	defer cancel()
	begin := time.Now()
	account, err := readDirectory(ctx, a)
	where := a.directory.Redacted()
	switch {
	case err != nil:
		w.add(check, Problem, fmt.Sprintf("%s: %s", where, oneLine(err.Error())),
			"see listen.https.acme (directory, ca_file, allow_networks), egress.proxy, and what firewalls let out; certificates that are there go on meanwhile")
	case account && a.keyID == "":
		w.add(check, Problem, where+" takes accounts only that are bound to one of its own", "set listen.https.acme.external_account to what it has given you")
	default:
		w.add(check, Fine, fmt.Sprintf("%s answered in %s; whether it issues shows with an order only", where, milliseconds(time.Since(begin))), "")
	}
}

// readDirectory asks for the directory, and returns whether an external account is needed.
func readDirectory(ctx context.Context, a *acme) (account bool, err error) {
	dialer, roots := *a.dialer, a.roots
	roots.Log = zap.NewNop()
	client, err := guard.NewAuthorityClient(a.directory, &dialer, roots)
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.directory.String(), nil)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return false, cause
		}
		if _, ok := errors.AsType[*net.DNSError](err); ok {
			return false, fmt.Errorf("DNS could not say where %s is", a.directory.Hostname())
		}
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // without the URL, which is said already
		}
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("answered %d, and not with a directory", resp.StatusCode)
	}
	var directory struct {
		NewOrder string `json:"newOrder"`
		Meta     struct {
			ExternalAccountRequired bool `json:"externalAccountRequired"`
		} `json:"meta"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxDirectory))
	if err != nil {
		return false, fmt.Errorf("read the directory: %w", err)
	}
	if json.Unmarshal(raw, &directory) != nil || directory.NewOrder == "" {
		return false, errors.New("what it answered is no directory of ACME (RFC 8555)")
	}
	return directory.Meta.ExternalAccountRequired, nil
}

// leadsHere compares what DNS says of a name with the addresses of this machine.
func (w *way) leadsHere(ctx context.Context, dialer *guard.Dialer, name string, own []netip.Addr) {
	const check = "name"
	addrs, err := dialer.LookUp(ctx, name)
	if err != nil {
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
			w.add(check, Problem, "DNS has no address for "+name, "make an address record (A or AAAA) for it that leads to this machine")
			return
		}
		w.add(check, Warning, "DNS could not say where "+name+" leads", "look at the DNS of this machine (/etc/resolv.conf)")
		return
	}
	var elsewhere []string
	for _, addr := range addrs {
		if !slices.Contains(own, addr) {
			elsewhere = append(elsewhere, addr.String())
		}
	}
	switch detail := fmt.Sprintf("%s leads to %s", name, strings.Join(elsewhere, ", ")); {
	case len(elsewhere) == 0:
		w.add(check, Fine, name+" leads to this machine", "")
	case slices.ContainsFunc(own, public):
		w.add(check, Warning, detail+", which is not this machine", "mend its address record, unless what is there passes its port 443 on to here, and TLS with it")
	default:
		w.add(check, Fine, detail+"; this machine has private addresses only, so whether port 443 there is passed on to here cannot be seen from here", "")
	}
}

// public reports whether an address may be one that the internet reaches this machine by.
func public(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !netip.MustParsePrefix("100.64.0.0/10").Contains(addr)
}

// served looks at the certificate that a listener of this machine shows for a name.
func (w *way) served(ctx context.Context, a *acme, name string, e Examination) {
	const check = "certificate"
	ctx, cancel := context.WithTimeoutCause(ctx, examineTime, errors.New("no handshake in time"))
	defer cancel()
	dialer := &guard.Dialer{Inject: map[string]func(context.Context) (net.Conn, error){
		name: func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", e.Served) },
	}}
	// Private authorities often issue by the roots that their directory is verified against.
	files := guard.TLSFiles{CA: a.roots.CA, BesideSystem: true, Log: zap.NewNop()}
	transport, err := guard.LoadTransport(guard.TransportOptions{Dialer: dialer}, files)
	if err != nil {
		w.add(check, Problem, oneLine(err.Error()), "mend listen.https.acme.ca_file")
		return
	}
	defer transport.CloseIdleConnections()
	p := transport.Probe(ctx, name)
	if len(p.Certificates) == 0 {
		_, text := egress.Unreached(p)
		text = strings.ReplaceAll(text, "the receiver", "the listener") // whose texts they are
		alert, refused := errors.AsType[*net.OpError](p.Err)
		if refused = refused && alert.Op == "remote error"; !refused {
			w.add(check, Problem, fmt.Sprintf("what is shown for %s cannot be seen at %s: %s", name, e.Served, text),
				"see whether the process that listens there is alive (ss -ltnp), and what its log says")
			return
		}
		for _, trouble := range e.Trouble {
			if why, ok := strings.CutPrefix(trouble, listen.TroubleOf(name, "")); ok {
				text = oneLine(why)
			}
		}
		w.add(check, Problem, fmt.Sprintf("the listener has none for %s: %s", name, text), noCertificate)
		return
	}
	w.ownLeaf(p.Certificates[0], "shown for "+name, "it is renewed by itself; if it is not, the log says why (listen.https)")
}

// machineAddresses returns the addresses of this machine but those that only it knows.
func machineAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if addr := prefix.Addr().Unmap(); err == nil && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			own = append(own, addr)
		}
	}
	return own, nil
}
