package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
)

const (
	maxTarget  = 8 << 10 // bytes of the request line's target
	maxHeaders = 128     // header fields
)

// door lets requests in, or answers them itself. See the package comment for the order of its checks.
type door struct {
	next     http.Handler
	log      *zap.Logger
	now      func() time.Time
	public   func(path string) bool // paths that need no token
	metrics  *doorMetrics
	failures failures
	checks   []check // what each request has to pass before its token counts, in this order

	setting sync.Mutex             // held while the tokens are replaced
	tokens  atomic.Pointer[tokens] // in force; an empty list lets everybody in

	secure   *secure // nil without TLS
	loopback bool    // the Host rule applies, but with TLS
	open     bool    // other hosts can reach it: a token is required
	address  string  // that is bound, for a person
	key      string  // of the tokens in the config, for a person
	port     string  // of it, for the Host rule
}

func newDoor(o Options) (*door, error) {
	d := &door{next: o.Handler, log: o.Log, now: o.Now, public: o.Public, metrics: o.Metrics.of(o.Name), key: o.TokensKey}
	d.checks = []check{
		{closedFraming, checkFraming}, {closedSize, checkSize}, {closedHost, d.checkHost}, {closedClient, d.checkClient},
		{closedOrigin, checkOrigin},
	}
	d.tokens.Store(new(tokens))
	return d, d.setTokens(o.Tokens)
}

// check refuses requests for one reason.
type check struct {
	reason closed
	refuse func(*http.Request) error // nil for a request that may go on
}

// checkTokens says why a list cannot be put in force.
func (d *door) checkTokens(list []Token) error {
	if d.open && len(list) == 0 {
		return d.tokenRequired()
	}
	return checkTokens(list)
}

// setTokens replaces the tokens. What was let in with one that is gone is cut off.
func (d *door) setTokens(list []Token) error {
	d.setting.Lock()
	defer d.setting.Unlock()
	if err := d.checkTokens(list); err != nil {
		return err
	}
	before := *d.tokens.Load()
	after := newTokens(list, before, d.metrics)
	d.tokens.Store(&after)
	d.metrics.settle(before, after)
	before.retire(after)
	return nil
}

// bound tells the door the address that it guards, before the first request. It judges the address that is really
// bound, since a name may turn out to be anything.
func (d *door) bound(address net.Addr) error {
	if _, ok := address.(*net.UnixAddr); ok {
		return nil // no browser gets there, and the mode of its file says who may
	}
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return &ConfigError{fmt.Errorf("listen on %q: want a TCP or a Unix socket, not one of %s", address, address.Network())}
	}
	d.loopback = tcp.IP.IsLoopback()
	d.open = !d.loopback
	d.address, d.port = tcp.String(), strconv.Itoa(tcp.Port)
	if d.open && len(*d.tokens.Load()) == 0 {
		return d.tokenRequired()
	}
	return nil
}

func (d *door) tokenRequired() error {
	return &ConfigError{fmt.Errorf("listen on %q: a token is required on an address that is not loopback; "+
		"set %s, or listen on 127.0.0.1 or a Unix socket", d.address, d.key)}
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A handler cannot see that a Content-Length stood beside "Transfer-Encoding: chunked", or a Transfer-Encoding in
	// HTTP/1.0: net/http drops it. Whoever sent that may take the rest of the stream for another request than we do,
	// so there is none.
	if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) {
		w.Header().Set("Connection", "close")
	}
	with, err := d.admit(r)
	if d.log.Core().Enabled(zap.DebugLevel) {
		var write func()
		w, write = d.journal(w, r, with)
		defer write()
	}
	if err != nil {
		problem.Write(w, r, d.log, err)
		return
	}
	if with == nil {
		d.next.ServeHTTP(w, r)
		return
	}
	if with.requests != nil {
		with.requests.Inc()
	}
	ctx, leave := with.visits.begin(r.Context())
	defer leave()
	if with.Holder != nil {
		ctx = context.WithValue(ctx, holderKey{}, with.Holder)
	}
	d.next.ServeHTTP(w, r.WithContext(ctx))
}

// admit returns nil for a request that may come in, with the token that it has brought; that is nil where none is asked
// for.
func (d *door) admit(r *http.Request) (with *entry, err error) {
	for _, c := range d.checks {
		if err := c.refuse(r); err != nil {
			d.metrics.turnAway(c.reason)
			return nil, err
		}
	}
	list := *d.tokens.Load()
	if path := r.URL.Path; len(list) == 0 || path == "/livez" || path == "/readyz" || d.public != nil && d.public(path) {
		return nil, nil
	}
	with, why := list.authenticate(r)
	if why != "" {
		return nil, d.refuse(r, why)
	}
	return with, nil
}

// checkFraming refuses requests that mean a proxy, or that a proxy could read otherwise (RFC 9112, sections 3.2.2 to
// 3.2.4, 6.3 and 11.2). What is malformed beyond that never comes here: net/http answers 400, 501 or 505 and closes.
func checkFraming(r *http.Request) error {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return problem.New(http.StatusNotImplemented, "method %s is not supported here", r.Method).Closing()
	case "PRI":
		return problem.New(http.StatusHTTPVersionNotSupported, "HTTP/2 without TLS is not supported; use HTTP/1.1").Closing()
	}
	if !strings.HasPrefix(r.RequestURI, "/") {
		return problem.New(http.StatusBadRequest, "the request target must be a path that starts with /; "+
			"this is no proxy").Closing()
	}
	// In HTTP/1.0 a body needs a length (RFC 1945, section 7.2.2). A chunked one, which that version does not know,
	// looks to us like this as well.
	_, hasLength := r.Header["Content-Length"]
	if !r.ProtoAtLeast(1, 1) && !hasLength && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return problem.New(http.StatusLengthRequired, "HTTP/1.0 needs a Content-Length; send one, or use HTTP/1.1").Closing()
	}
	return nil
}

func checkSize(r *http.Request) error {
	if len(r.RequestURI) > maxTarget {
		return problem.New(http.StatusRequestURITooLong, "the request target has %d bytes; at most %d are allowed",
			len(r.RequestURI), maxTarget).Closing()
	}
	fields := 0
	for _, values := range r.Header {
		fields += len(values)
	}
	if fields > maxHeaders {
		return problem.New(http.StatusRequestHeaderFieldsTooLarge, "the request has %d header fields; at most %d are allowed",
			fields, maxHeaders).Closing()
	}
	return nil
}

func (d *door) checkHost(r *http.Request) error {
	switch {
	case d.secure != nil:
		return d.secure.checkHost(r)
	case d.loopback && !d.ourHost(r):
		return problem.New(http.StatusMisdirectedRequest, "the Host header does not name this listener; use http://%s", d.address).Closing()
	}
	return nil
}

func (d *door) checkClient(r *http.Request) error {
	if d.secure == nil {
		return nil
	}
	return d.secure.checkClient(r)
}

func checkOrigin(r *http.Request) error {
	if !fromAnotherSite(r) {
		return nil
	}
	return problem.New(http.StatusForbidden, "this request comes from a page of another site, which may not use Postern; "+
		"call it from a program, without an Origin header").Closing()
}

// ourHost reports whether the request's Host is a loopback name with our port, or without a port. A page whose name
// has been rebound to 127.0.0.1 sends its own name (threat T25). Only HTTP/1.0, which no browser speaks, may do
// without.
func (d *door) ourHost(r *http.Request) bool {
	if r.Host == "" {
		return !r.ProtoAtLeast(1, 1)
	}
	host, port, err := splitHost(r.Host)
	if err != nil || port != "" && port != d.port {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.IsLoopback()
}

// splitHost reads a Host header (RFC 9110, section 7.2). An IPv6 address comes without its brackets, and a port that
// is not there is empty.
func splitHost(s string) (host, port string, err error) {
	bracketed := strings.HasPrefix(s, "[")
	if bracketed && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1], "", nil
	}
	if !strings.Contains(s, ":") {
		return s, "", nil
	}
	host, port, err = net.SplitHostPort(s)
	if err == nil && strings.Contains(host, ":") != bracketed {
		err = errors.New("brackets are for IPv6 addresses")
	}
	if err == nil && port == "" {
		err = errors.New("the port is empty")
	}
	return host, port, err
}

// fromAnotherSite reports whether a browser sent the request on behalf of a page that is not ours (threat T24). A
// browser says so by Sec-Fetch-Site (W3C Fetch Metadata, section 2.4), an older one by Origin (RFC 6454, section 7).
// "same-site" is another site here: to a browser all ports of localhost are one site. A person who follows a link
// may come in: that is a GET, and its answer is shown to nobody else.
func fromAnotherSite(r *http.Request) bool {
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" && !followsLink(r) {
			return true
		}
	}
	for _, origin := range r.Header["Origin"] {
		if origin != "http://"+r.Host && origin != "https://"+r.Host {
			return true
		}
	}
	return false
}

func followsLink(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document"
}
