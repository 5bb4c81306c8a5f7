package receiver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind is a way to misbehave.
type Kind uint8

// The kinds of faults. Those marked "taken" happen after the request was read, verified and recorded: the receiver
// has the message, and only its answer is bad or gone.
const (
	None        Kind = iota
	Status           // answer with Fault.Status
	Hang             // read the request and answer nothing until the client leaves
	ResetBefore      // cut the connection before the body is read
	ResetAfter       // cut the connection after the body is read (taken)
	CutBody          // answer 200 with a body that breaks off (taken)
	HugeBody         // answer 200 with a body that does not end (taken)
	Drip             // answer 200 with a body of one byte every Delay, without end (taken)
	HugeHeader       // answer 200 with 1 MiB of header (taken)
	Redirect         // answer 307 with Fault.Location
	Flood            // answer 103 again and again, and nothing else
	Slow             // answer 200 after Delay (taken)
)

var kindNames = [...]string{
	None: "none", Status: "status", Hang: "hang", ResetBefore: "reset before", ResetAfter: "reset after", CutBody: "cut body",
	HugeBody: "huge body", Drip: "drip", HugeHeader: "huge header", Redirect: "redirect", Flood: "flood", Slow: "slow",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// taken reports whether a request that meets the fault counts as received.
func (k Kind) taken() bool {
	switch k {
	case None, ResetAfter, CutBody, HugeBody, Drip, HugeHeader, Slow:
		return true
	}
	return false
}

// Fault is how a receiver misbehaves. The zero value is good behaviour.
type Fault struct {
	Kind       Kind
	Status     int           // for Status; 0 means 503
	RetryAfter string        // for Status: the value of Retry-After; empty sends none
	Location   string        // for Redirect
	Delay      time.Duration // for Drip and Slow; 0 means 50 ms
	Fraction   float64       // of the requests that meet the fault, at random; 0 means all
}

const (
	defaultDelay = 50 * time.Millisecond
	maxEndless   = 1 << 30 // bytes after which even what does not end does
	maxSteps     = 100_000 // drops or interim answers, likewise
)

// hits reports whether the fault befalls a request.
func (f Fault) hits() bool {
	return f.Kind != None && (f.Fraction <= 0 || rand.Float64() < f.Fraction)
}

func (f Fault) delay() time.Duration {
	if f.Delay > 0 {
		return f.Delay
	}
	return defaultDelay
}

// answer misbehaves. The request has been read, except for ResetBefore.
func (f Fault) answer(w http.ResponseWriter, r *http.Request, conn net.Conn) {
	switch f.Kind {
	case Status:
		status := f.Status
		if status == 0 {
			status = http.StatusServiceUnavailable
		}
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		http.Error(w, http.StatusText(status), status)
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case ResetBefore, ResetAfter:
		reset(conn)
		panic(http.ErrAbortHandler)
	case CutBody:
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("this breaks off"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case HugeBody:
		chunk := []byte(strings.Repeat("all work and no play ", 1560)) // about 32 KiB
		for sent := 0; sent < maxEndless; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	case Drip:
		for range maxSteps {
			_, _ = w.Write([]byte("."))
			if http.NewResponseController(w).Flush() != nil || !f.wait(r) {
				return
			}
		}
	case HugeHeader:
		for i := range 256 {
			w.Header().Set("X-Huge-"+strconv.Itoa(i), strings.Repeat("h", 4096))
		}
		w.WriteHeader(http.StatusOK)
	case Redirect:
		w.Header().Set("Location", f.Location)
		w.WriteHeader(http.StatusTemporaryRedirect)
	case Flood:
		w.Header().Set("Link", "</"+strings.Repeat("f", 1000)+">; rel=preload")
		for range maxSteps {
			w.WriteHeader(http.StatusEarlyHints)
			if r.Context().Err() != nil {
				break
			}
		}
		panic(http.ErrAbortHandler)
	case Slow:
		if !f.wait(r) {
			panic(http.ErrAbortHandler) // a return would answer 200, and a client on its way out may still see that
		}
		w.WriteHeader(http.StatusOK)
	}
}

// wait reports whether the client was still there after the delay.
func (f Fault) wait(r *http.Request) bool {
	timer := time.NewTimer(f.delay())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// reset closes a connection so that its other end sees a reset rather than an orderly end, where there is a
// difference.
func reset(conn net.Conn) {
	for range 4 { // TLS in TCP, or a connection in memory
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = wrapped.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // what is not set is an orderly close, which does as well
	}
	_ = conn.Close()
}
