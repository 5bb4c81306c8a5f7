package guard

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
	files   followedFiles

	mu      sync.Mutex // guards the field below, and the fields of all generations
	current *generation
}

// LoadTransport makes the transport of one destination as NewTransport does, with the certificates in files: if they
// name roots, those take the place of o.RootCAs, and their client certificate that of o.Certificate. The error joins
// a *FileError for each fault of the files. Call CloseIdleConnections when the destination goes.
func LoadTransport(o TransportOptions, files TLSFiles) (*Transport, error) {
	t := &Transport{options: o}
	if err := t.files.open(files, t.use); err != nil {
		return nil, err
	}
	return t, nil
}

// Client returns a client over t that follows no redirect, as NewClient does.
func (t *Transport) Client() *http.Client { return newClient(t) }

// RoundTrip makes one request; see http.RoundTripper. The body of the answer must be closed, as ever.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.follow()
	t.mu.Lock()
	g := t.current
	g.begun.Add(1)
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
func (t *Transport) follow() { t.files.follow(t.use) }

// use lets a new generation take over. The caller holds files.looking, or is the only one to know t.
func (t *Transport) use(id identity) {
	o := t.options
	if id.roots != nil {
		o.RootCAs = id.roots
	}
	if id.cert != nil {
		o.Certificate = id.cert
	}
	g := &generation{mu: &t.mu, dial: o.dialer().DialContext, room: o.Room, open: make(map[*trackedConn]struct{})}
	g.transport = newTransport(o, g.dialContext)
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
	g.ended.Add(1)
	retired := g.retired
	t.mu.Unlock()
	if retired {
		g.closeUnused()
	}
}

// generation is a transport with one set of certificates. It knows its connections: http.Transport has no way to
// close one as soon as it carries no request, and an HTTP/2 connection may miss the moment of CloseIdleConnections,
// because its last stream is forgotten only after the request has ended.
type generation struct {
	transport *http.Transport
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	room      *Room // for its connections; nil means without a bound

	begun, ended atomic.Int64 // requests; they change under mu, and connections look at them without

	mu      *sync.Mutex // that of the Transport; guards the fields below
	retired bool        // no request will begin
	open    map[*trackedConn]struct{}
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

func (g *generation) overLocked() bool { return g.retired && g.begun.Load() == g.ended.Load() }

// dialContext makes a connection and remembers it while it is open. http.Transport goes on with a dial that no
// request waits for any more, so it may come when all is over.
func (g *generation) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := g.room.enter(ctx); err != nil {
		return nil, err
	}
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		g.room.leave()
		return nil, err
	}
	c := &trackedConn{Conn: newGatherConn(conn), g: g, left: restBytes}
	g.mu.Lock()
	over := g.overLocked()
	if !over {
		g.open[c] = struct{}{}
	}
	g.mu.Unlock()
	if over {
		_ = c.Close() // unused
		return nil, errors.New("the certificates of this connection were replaced")
	}
	return c, nil
}
