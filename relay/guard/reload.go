package guard

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	lookEvery = time.Second // at least between two looks at the files

	// A client certificate is near its end when less than this is left of it, or than a quarter of its life if
	// that is shorter: who renews automatically does so at a third.
	nearEnd = 14 * 24 * time.Hour
)

// Transport is a transport of one destination whose certificates come from files and follow them. Before a request,
// and at most once a second, it looks at the files; when they hold something else, a new http.Transport takes over
// for this and later requests, and the connections of the old one are closed: the idle ones at once, all when its
// last request has ended. So no connection outlives the certificate it was opened with by more than its requests.
// (MaxConnsPerHost bounds the old and the new one apart.)
//
// Files that LoadTransport would refuse leave all as it is: that is logged at warn once for each change, and tried
// again at the next one. A Transport may be used from several goroutines; requests do not wait for one another's
// look at the files.
type Transport struct {
	options TransportOptions
	files   TLSFiles

	looking sync.Mutex // held while the files are looked at; guards the fields below
	looked  time.Time
	stamp   stamp
	unsure  bool   // the stamp may not tell of a change
	trouble string // why what was read last is not used, or empty
	used    identity
	warned  validity // what has been said of the certificate in use

	mu      sync.Mutex // guards the field below, and the fields of all generations
	current *generation
}

// LoadTransport makes the transport of one destination as NewTransport does, with the certificates in files: if they
// name roots, those take the place of o.RootCAs, and their client certificate that of o.Certificate. The error joins
// a *FileError for each fault of the files. Call CloseIdleConnections when the destination goes.
func LoadTransport(o TransportOptions, files TLSFiles) (*Transport, error) {
	if files.Log == nil {
		files.Log = zap.NewNop()
	}
	if files.Now == nil {
		files.Now = time.Now
	}
	t := &Transport{options: o, files: files, looked: files.Now()}
	t.stamp = files.look() // before the files are read, so that a change in between is seen
	t.unsure = t.stamp.fresh(t.looked)
	id, err := files.load()
	if err != nil {
		return nil, err
	}
	t.use(id)
	t.warnReadable()
	t.warn(t.looked)
	return t, nil
}

// Client returns a client over t that follows no redirect, as NewClient does.
func (t *Transport) Client() *http.Client { return newClient(t) }

// RoundTrip makes one request; see http.RoundTripper. The body of the answer must be closed, as ever.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.follow()
	t.mu.Lock()
	g := t.current
	g.requests++
	t.mu.Unlock()
	resp, err := g.transport.RoundTrip(r)
	if err != nil || resp.Body == http.NoBody {
		t.done(g)
		return resp, err
	}
	resp.Body = &answer{resp.Body, sync.OnceFunc(func() { t.done(g) })}
	return resp, nil
}

// answer is the body of an answer that tells when it is closed.
type answer struct {
	io.ReadCloser
	done func()
}

func (a *answer) Close() error {
	defer a.done()
	return a.ReadCloser.Close()
}

// CloseIdleConnections closes the connections that carry no request now. Those of earlier certificates are closed
// by themselves.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	g := t.current
	t.mu.Unlock()
	g.transport.CloseIdleConnections()
}

// follow looks at the files, unless that was done within a second or is being done.
func (t *Transport) follow() {
	if t.files.CA == "" && t.files.Cert == "" || !t.looking.TryLock() {
		return
	}
	defer t.looking.Unlock()
	now := t.files.Now()
	// A clock that was set back must not end the looking.
	if since := now.Sub(t.looked); 0 <= since && since < lookEvery {
		return
	}
	t.looked = now
	defer t.warn(now)
	stamp := t.files.look()
	changed := !stamp.same(t.stamp)
	if !changed && !t.unsure {
		return
	}
	t.stamp, t.unsure = stamp, stamp.fresh(now)
	id, err := t.files.load()
	if err != nil {
		// What kept us from reading, a lack of descriptors or of a permission, can end without a trace in the stamp.
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			t.unsure = true
		}
		if changed || t.trouble != err.Error() {
			t.files.Log.Warn("certificate files refused, the earlier ones stay in use", zap.Error(err))
		}
		t.trouble = err.Error()
		return
	}
	t.trouble = ""
	if id.equal(t.used) {
		return
	}
	t.use(id)
	t.files.Log.Info("certificate files reloaded")
	t.warnReadable()
}

// use lets a new generation take over. The caller holds looking, or is the only one to know t.
func (t *Transport) use(id identity) {
	o := t.options
	if id.roots != nil {
		o.RootCAs = id.roots
	}
	if id.cert != nil {
		o.Certificate = id.cert
	}
	g := &generation{mu: &t.mu, dial: o.dialer().DialContext, open: make(map[*trackedConn]struct{})}
	g.transport = newTransport(o, g.dialContext)
	t.used, t.warned = id, valid
	t.mu.Lock()
	old := t.current
	t.current = g
	if old != nil {
		old.retired = true
	}
	t.mu.Unlock()
	if old != nil {
		old.closeUnused()
	}
}

// done notes that a request of g has ended.
func (t *Transport) done(g *generation) {
	t.mu.Lock()
	g.requests--
	retired := g.retired
	t.mu.Unlock()
	if retired {
		g.closeUnused()
	}
}

// validity is where now stands in the life of a certificate.
type validity uint8

const (
	valid validity = iota
	nearlyExpired
	expired
	notYetValid
)

func judgeValidity(leaf *x509.Certificate, now time.Time) validity {
	left := leaf.NotAfter.Sub(now)
	switch {
	case now.Before(leaf.NotBefore):
		return notYetValid
	case left < 0:
		return expired
	case left < min(nearEnd, leaf.NotAfter.Sub(leaf.NotBefore)/4):
		return nearlyExpired
	}
	return valid
}

// warn says once of each certificate that it is near its end, once that it is beyond, and once that its time is to
// come. The caller holds looking, or is the only one to know t.
func (t *Transport) warn(now time.Time) {
	if t.used.cert == nil {
		return
	}
	leaf := t.used.cert.Leaf
	is := judgeValidity(leaf, now)
	if is == t.warned {
		return
	}
	t.warned = is
	times := []zap.Field{zap.Time("valid_from", leaf.NotBefore.UTC()), zap.Time("expires_at", leaf.NotAfter.UTC())}
	switch is {
	case nearlyExpired:
		t.files.Log.Warn("client certificate expires soon", times...)
	case expired:
		t.files.Log.Warn("client certificate has expired", times...)
	case notYetValid:
		t.files.Log.Warn("client certificate is not valid yet", times...)
	}
}

// warnReadable says that the key is no secret on this machine (T33), as the config says it of its secrets. The caller
// holds looking, or is the only one to know t.
func (t *Transport) warnReadable() {
	if info := t.stamp[keyFile]; info != nil && info.Mode().Perm()&0o004 != 0 {
		t.files.Log.Warn("every user of this machine may read the key file", zap.String("path", t.files.Key))
	}
}

// generation is a transport with one set of certificates. It knows its connections: http.Transport has no way to
// close one as soon as it carries no request, and an HTTP/2 connection may miss the moment of CloseIdleConnections,
// because its last stream is forgotten only after the request has ended.
type generation struct {
	transport *http.Transport
	dial      func(ctx context.Context, network, address string) (net.Conn, error)

	mu       *sync.Mutex // that of the Transport; guards the fields below
	requests int         // begun and not ended
	retired  bool        // no request will begin
	open     map[*trackedConn]struct{}
}

// closeUnused closes the idle connections of a retired generation, and all of them if no request is left.
func (g *generation) closeUnused() {
	g.transport.CloseIdleConnections() // with the farewells of TLS and HTTP/2
	g.mu.Lock()
	var rest []*trackedConn
	if g.overLocked() {
		rest = make([]*trackedConn, 0, len(g.open))
		for c := range g.open {
			rest = append(rest, c)
		}
	}
	g.mu.Unlock()
	for _, c := range rest {
		_ = c.Close() // nothing is underway on it
	}
}

func (g *generation) overLocked() bool { return g.retired && g.requests == 0 }

// dialContext makes a connection and remembers it while it is open. http.Transport goes on with a dial that no
// request waits for any more, so it may come when all is over.
func (g *generation) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, g: g}
	g.mu.Lock()
	over := g.overLocked()
	if !over {
		g.open[c] = struct{}{}
	}
	g.mu.Unlock()
	if over {
		_ = conn.Close() // unused
		return nil, errors.New("the certificates of this connection were replaced")
	}
	return c, nil
}

// trackedConn is a connection of a generation.
type trackedConn struct {
	net.Conn
	g *generation
}

func (c *trackedConn) Close() error {
	c.g.mu.Lock()
	delete(c.g.open, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}
