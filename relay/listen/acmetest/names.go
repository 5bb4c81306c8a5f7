package acmetest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names answers every question for an IPv4 address with the same, over TCP as Pebble asks (RFC 1035, section 4.2.2).
type names struct {
	listener net.Listener
	addr     netip.Addr // its own
	answer   netip.Addr
	ended    chan struct{} // closed at the end of the test

	mu    sync.Mutex // guards the fields below
	asked int
	held  chan struct{} // closed when questions are answered again; nil if they are
}

// serveNames serves until the test ends, on a loopback address that is no other test's, in this process or another one:
// whoever has the port has the address.
func serveNames(tb testing.TB, answer netip.Addr) *names {
	tb.Helper()
	n := &names{answer: answer, ended: make(chan struct{})}
	const most = 250 * 250
	var err error
	for i := range most {
		at := (os.Getpid()*31 + i) % most
		n.addr = netip.AddrFrom4([4]byte{127, 50, byte(1 + at/250), byte(1 + at%250)})
		if n.listener, err = net.Listen("tcp", net.JoinHostPort(n.addr.String(), namesPort)); err == nil {
			break
		}
	}
	if err != nil {
		tb.Fatalf("serve names: %v", err)
	}
	if !n.answer.IsValid() {
		n.answer = n.addr
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := n.listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = n.serve(conn) // whoever asks so badly gets no answer
			})
		}
	})
	tb.Cleanup(func() {
		close(n.ended)
		_ = n.listener.Close()
		serving.Wait()
	})
	return n
}

// serve answers one question.
func (n *names) serve(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	question := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, question); err != nil {
		return err
	}
	text, err := n.reply(question)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.asked++
	held := n.held
	n.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-n.ended:
			return net.ErrClosed
		}
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
	return err
}

// reply returns the answer to a question. Names that begin with nowhere lead nowhere.
func (n *names) reply(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	if len(m.Questions) != 1 {
		return nil, errors.New("not one question")
	}
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Additionals, m.Authorities, m.Answers = nil, nil, nil
	if q.Type == dnsmessage.TypeA && !strings.HasPrefix(q.Name.String(), "nowhere.") {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: n.answer.As4()},
		}}
	}
	return m.Pack()
}

// HoldNames leaves all questions for addresses without an answer until release is called, once: an order that has begun
// stays in its middle.
func (a *Authority) HoldNames() (release func()) {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	held := make(chan struct{})
	a.names.held = held
	return func() {
		a.names.mu.Lock()
		defer a.names.mu.Unlock()
		a.names.held = nil
		close(held)
	}
}

// Questions returns how many questions for addresses there have been: some for each check of a name.
func (a *Authority) Questions() int {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	return a.names.asked
}
