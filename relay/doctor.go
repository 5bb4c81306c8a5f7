package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
)

const (
	examineTime     = 10 * time.Second // for all that is looked at of one destination
	examineParallel = 32               // destinations, or names; nearly all of it is waiting
)

// Severity says whether somebody has to do something about a finding.
type Severity uint8

// The severities, from the least to the greatest.
const (
	Fine    Severity = iota // as it should be
	Warning                 // works, and is worth a look
	Problem                 // does not work
)

var severityNames = [...]string{Fine: "ok", Warning: "warning", Problem: "problem"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText returns the word for s, and never an error.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is what one check has found. Its texts are on one line each and hold no secret; names that others have chosen,
// such as those in certificates, may hold any printable character.
type Finding struct {
	Destination string   `json:"destination,omitempty"` // that it is about; empty for what is about Postern itself
	Check       string   `json:"check"`                 // what was looked at, in one or two words, such as "tls"
	Status      Severity `json:"status"`
	Detail      string   `json:"detail"`           // what was found
	Advice      string   `json:"advice,omitempty"` // what to do about it; empty for nothing

	TLS *TLSFacts `json:"tls,omitempty"` // of a check of TLS that came far enough
}

// TLSFacts is what a handshake has shown of the other end.
type TLSFacts struct {
	Version  string `json:"version,omitempty"` // such as "TLS 1.3"; empty if the handshake was not completed
	Protocol string `json:"alpn,omitempty"`    // agreed on, such as h2

	Subject   string    `json:"subject"`
	Names     []string  `json:"names"` // that its certificate is for
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"valid_from"`
	NotAfter  time.Time `json:"expires_at"`
	DaysLeft  int       `json:"days_left"` // whole days; negative after the end
	Chain     []string  `json:"chain"`     // subjects, from the receiver's own to the root; to the last one shown if it is not trusted
}

// Examination says how Plan.Examine and Plan.ExamineHTTPS go about it. The zero value is ready for use.
type Examination struct {
	Only []string         // names of the destinations to examine; nil means all of them
	Own  []netip.AddrPort // where this Postern listens, or would; see guard.Dialer.Own
	Now  func() time.Time // wall clock; nil means time.Now

	Served    string                       // host:port at which the https listener answers now; empty if it does not
	Trouble   []string                     // what the running Postern says of its certificates, as listen.Server.Trouble does
	Addresses func() ([]netip.Addr, error) // of this machine; nil asks the system. Loopback and link-local ones do not count
}

// Examine looks at the way to each destination as an attempt would go it, up to where the request would be written:
// look-up, address rule, proxy, connection, TLS and certificates. Nothing is sent to a destination. From the token
// endpoint of an OAuth 2.0 destination a token is fetched, since nothing else would show whether it gives any.
//
// It looks at 32 destinations at a time, at each for ten seconds at most, and returns early when ctx ends. Findings
// are sorted by destination, and those of one are in the order of the way. It may be called from several goroutines.
func (p *Plan) Examine(ctx context.Context, e Examination) []Finding {
	if e.Now == nil {
		e.Now = time.Now
	}
	names := slices.DeleteFunc(p.Destinations(), func(name string) bool { return e.Only != nil && !slices.Contains(e.Only, name) })
	found := make([][]Finding, len(names))
	var group errgroup.Group
	group.SetLimit(examineParallel)
	for i, name := range names {
		group.Go(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, examineTime, fmt.Errorf("no answer within the %v that each destination has", examineTime))
			defer cancel()
			found[i] = p.destinations[name].examine(ctx, e)
			for n := range found[i] {
				found[i][n].Destination = name
			}
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	return slices.Concat(found...)
}

// examine looks at one destination.
func (d *destination) examine(ctx context.Context, e Examination) []Finding {
	if !d.enabled {
		return []Finding{{Check: "enabled", Detail: "enabled: false, so it was not looked at"}}
	}
	out, err := d.wayOut(nil, func() []netip.AddrPort { return e.Own }, zap.NewNop(), e.Now)
	if err != nil {
		return []Finding{{
			Check: "certificates", Status: Problem, Detail: oneLine(err.Error()), Advice: "mend the files that tls names",
		}}
	}
	defer out.closeIdle()
	w := way{now: e.Now(), dialer: d.dialer}
	w.examine(out.receiver.Probe(ctx, d.egress.URL.Hostname()))
	switch auth := d.egress.Auth; {
	case auth.OAuth2 != nil:
		w.findings = append(w.findings, tokenFindings(ctx, w, out, d.egress)...)
	case auth.Bearer != nil:
		w.add("auth", Fine, "a bearer token is set; whether the receiver takes it shows with a request only: postern test", "")
	case auth.Basic != nil:
		w.add("auth", Fine, "user name and password are set; whether the receiver takes them shows with a request only: postern test", "")
	case auth.APIKey != nil:
		w.add("auth", Fine, "an API key is set; whether the receiver takes it shows with a request only: postern test", "")
	}
	return w.findings
}

// tokenFindings is what there is to say about a token endpoint. If the way to it is free, a token is fetched.
func tokenFindings(ctx context.Context, receiver way, out wayOut, o egress.Options) []Finding {
	w := way{now: receiver.now, dialer: receiver.dialer, prefix: "token "}
	p := out.server.Probe(ctx, o.Auth.OAuth2.TokenURL.Hostname())
	w.examine(p)
	if p.Err != nil {
		return w.findings
	}
	s, err := egress.New(out.options(o))
	var until time.Time
	if err == nil {
		until, err = s.FetchToken(ctx)
	}
	switch {
	case errors.Is(err, egress.ErrNoAnswer), err != nil && ctx.Err() != nil:
		w.add("auth", Problem, fmt.Sprintf("%s took the connection and gave no token: %s", p.Host, oneLine(err.Error())),
			"ask the server's owner whether it is well, and see that token_url is right and no proxy or firewall between holds the request up")
		return w.findings
	case err != nil:
		w.add("auth", Problem, oneLine(err.Error()),
			"compare client_id, client_secret, scopes, audience and secret_in with what the server's owner says")
		return w.findings
	}
	w.add("auth", Fine, fmt.Sprintf("%s gave a token, which is used for %s; whether the receiver takes it shows with a request only: postern test",
		p.Host, time.Until(until).Round(time.Second)), "")
	return w.findings
}

// way collects the findings about the way to one host.
type way struct {
	now      time.Time
	dialer   *guard.Dialer // for a destination
	prefix   string        // of each check
	findings []Finding
}

func (w *way) add(check string, status Severity, detail, advice string) {
	w.findings = append(w.findings, Finding{Check: w.prefix + check, Status: status, Detail: detail, Advice: advice})
}

// examine says what a probe has seen, stage by stage up to the one that failed.
func (w *way) examine(p guard.Probe) {
	failed := func(check, advice string) {
		_, text := egress.Unreached(p)
		w.add(check, Problem, text, advice)
	}
	if p.Stage == guard.StageLookUp && p.Err != nil {
		failed("dns", "look at the host of the URL, and at the DNS of this machine (/etc/resolv.conf); egress.resolve gives a name an address")
		return
	}
	w.add("dns", Fine, addresses(p), "")
	if p.Stage == guard.StageJudge {
		failed("guard", w.guardAdvice(p.Err))
		return
	}
	w.add("guard", Fine, "each address may be reached", "")
	if p.Stage == guard.StageConnect {
		advice := "is the receiver up, and does every firewall between let this machine out to port 443?"
		if w.dialer.Proxy != nil {
			advice = "look at egress.proxy, and at what the proxy allows; it is asked for an address, not for a name"
		}
		failed("connect", advice)
		return
	}
	w.add("connect", Fine, connected(p), "")
	w.examineTLS(p)
}

// guardAdvice says what to do about an address that the guard refuses: whether any setting opens it.
func (w *way) guardAdvice(err error) string {
	const elsewhere = "see who answers for the name in the URL, or write another URL"
	blocked, ok := errors.AsType[*guard.BlockedError](err)
	if !ok || !blocked.Addr.IsValid() {
		return elsewhere
	}
	all := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	switch {
	case guard.Judge(blocked.Addr, all, nil) != nil:
		return elsewhere // no setting opens it, as the verdict says
	case guard.Judge(blocked.Addr, all, w.dialer.Deny) != nil:
		return "if the receiver is meant to be there, take its network out of egress.deny_networks; else " + elsewhere
	case guard.Judge(blocked.Addr, w.dialer.Allow, w.dialer.Deny) == nil: // it is refused for another reason: a loop
		return elsewhere
	}
	return "if the receiver is meant to be there, name its network in allow_networks; else see who answers for its name"
}

// addresses says what a host resolves to.
func addresses(p guard.Probe) string {
	const most = 6
	var texts []string
	for _, addr := range p.Addrs[:min(len(p.Addrs), most)] {
		texts = append(texts, addr.String())
	}
	if len(p.Addrs) > most {
		texts = append(texts, fmt.Sprintf("%d more", len(p.Addrs)-most))
	}
	list := strings.Join(texts, ", ")
	switch {
	case len(p.Addrs) == 0:
		return p.Host
	case p.Fixed && list == p.Host:
		return list + ", an address"
	case p.Fixed:
		return fmt.Sprintf("%s is %s by egress.resolve", p.Host, list)
	}
	return fmt.Sprintf("%s is %s, in %s", p.Host, list, milliseconds(p.LookUp))
}

func connected(p guard.Probe) string {
	text := fmt.Sprintf("%s took the connection in %s", p.Peer, milliseconds(p.Connect))
	if p.Proxy != "" {
		text += " through " + p.Proxy
	}
	return text
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// soon is when a certificate's end is worth a warning: three weeks before it, or in the last third of a life that is
// shorter than nine weeks, since who renews by a program does it then.
func soon(c *x509.Certificate) time.Duration {
	const usual = 21 * 24 * time.Hour
	return min(usual, c.NotAfter.Sub(c.NotBefore)/3)
}
