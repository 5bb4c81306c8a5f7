package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// The headers that every request carries beside those of the config (Standard Webhooks, "Webhook headers").
const (
	idHeader        = "Webhook-Id"
	timestampHeader = "Webhook-Timestamp"
)

const defaultContentType = "application/octet-stream"

// errDeadline is the cause of the end of an attempt whose time is over, and so what tells it from our own stop.
var errDeadline = errors.New("the attempt's time is over")

// errReduced is why a message cannot be sent again.
var errReduced = errors.New("the body was removed from the history (keep), so that it cannot be sent again; post the message anew")

// Send makes one attempt for d and returns when it is over, or soon after ctx has ended: then the attempt is
// ClassInterrupted, unless the receiver had answered already. It needs Messages and Transport.
func (s *Sender) Send(ctx context.Context, d store.Delivery) store.Attempt {
	if s.opt.Messages == nil {
		panic("egress: Send needs Messages")
	}
	return s.try(ctx, d, func(ctx context.Context, a *store.Attempt) (job, bool) {
		m, body, err := s.opt.Messages.Load(ctx, d.ID.Message())
		if err != nil {
			s.loadFailed(ctx, d, a, err)
			return job{}, false
		}
		if m.Reduced {
			a.Class, a.Error = store.ClassRender, errReduced.Error()
			return job{}, false
		}
		return job{d: d, m: m, body: body, now: a.StartedAt}, true
	})
}

// Test makes one attempt, as Send does, for a message that is in no store: the first of a delivery that is never due
// again. The body that a template makes is on record whatever OmitBody says. m has an ID, and its first recipient says the
// destination's name, for templates; body is only read. It needs Transport.
func (s *Sender) Test(ctx context.Context, m store.Message, body []byte) store.Attempt {
	j := sampleJob(m, body)
	return s.try(ctx, j.d, func(_ context.Context, a *store.Attempt) (job, bool) {
		j.now = a.StartedAt
		return j, true
	})
}

// sampleJob is the job of a message that is in no store.
func sampleJob(m store.Message, body []byte) job {
	m.Size = len(body)
	d := store.Delivery{ID: m.ID.Delivery(0), Event: m.Event, State: store.Pending, Round: 1, AcceptedAt: m.AcceptedAt}
	if len(m.Recipients) > 0 {
		d.Destination = m.Recipients[0].Destination
	}
	return job{d: d, m: m, body: body, showBody: true}
}

// try makes an attempt for d. load says what is to be sent, or records why it cannot.
func (s *Sender) try(
	ctx context.Context, d store.Delivery, load func(context.Context, *store.Attempt) (job, bool),
) store.Attempt {
	if s.opt.Transport == nil {
		panic("egress: an attempt needs Transport")
	}
	if s.tokens != nil && !s.tokens.ready() {
		panic("egress: an attempt with OAuth2 needs its Client")
	}
	a := store.Attempt{Delivery: d.ID, Round: d.Round, Number: d.Made + 1, StartedAt: s.opt.Now()}
	// Durations are taken from the monotonic clock, whatever Now is: a wall clock that is set must not show.
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.Timeout, errDeadline)
	defer cancel()
	var span *attemptSpan
	if ctx.Err() != nil {
		a.Class, a.Error = ended(ctx, phaseLoad, s.opt.Timeout)
	} else if j, ok := load(ctx, &a); ok {
		ctx, span = s.beginSpan(ctx, &j, &a, begin)
		s.attempt(ctx, begin, j, &a)
	}
	a.Took = time.Since(begin)
	span.end(s.opt.URL.Hostname(), &a)
	return a
}

func (s *Sender) attempt(ctx context.Context, begin time.Time, j job, a *store.Attempt) {
	if own := s.appSecrets(j.m); len(own) > 0 {
		s = s.hiding(own...)
	}
	req, err := s.render(j)
	if err != nil {
		a.Class, a.Error = store.ClassRender, clean(maskSecrets(err.Error(), s.secrets))
		return
	}
	if s.tokens != nil {
		s.sendWithToken(ctx, begin, req, j, a)
		return
	}
	a.Request = s.sent(req, j.showBody)
	s.roundTrip(ctx, begin, req, a)
}

// roundTrip sends req and records what came of it.
func (s *Sender) roundTrip(ctx context.Context, begin time.Time, req *http.Request, a *store.Attempt) {
	t := &trace{begin: begin}
	of := ctx
	if req.Body == http.NoBody {
		// net/http sends such a request again by itself when an HTTP/2 connection refuses it or ends. It cannot be told
		// not to, and with any other body there would be no Content-Length: 0. But it asks for a connection first, and
		// writes nothing to that for a context that has ended.
		var cancel context.CancelFunc
		of, cancel = context.WithCancel(ctx)
		defer cancel() // when the answer has been read
		t.refuse = cancel
	}
	resp, err := s.opt.Transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(of, t.hooks())))
	seen := t.end()
	a.Timing, a.Peer, a.Reused, a.CertExpires = seen.timing, seen.peer, seen.reused, seen.certExpires()
	if err != nil {
		if class, text, is := blocked(err); is {
			a.Class, a.Error = class, text
		} else if ctx.Err() != nil {
			a.Class, a.Error = ended(ctx, seen.phase, s.opt.Timeout)
		} else if seen.again {
			a.Class, a.Error = store.ClassConnect, "request refused, or connection ended, by the receiver "+seen.phase.String()
		} else {
			a.Class, a.Error = classify(err, seen.phase)
		}
		a.Error = maskSecrets(a.Error, s.secrets)
		return
	}
	s.judge(ctx, resp, a)
}

// loadFailed records why the message could not be read. What the store says goes to the log only: the record of an
// attempt is read by people who have no use for the inside of an engine.
func (s *Sender) loadFailed(ctx context.Context, d store.Delivery, a *store.Attempt, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		a.Class, a.Error = store.ClassRender, "the message is no longer in the store"
	case ctx.Err() != nil:
		a.Class, a.Error = ended(ctx, phaseLoad, s.opt.Timeout)
	case errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrBroken):
		a.Class, a.Error = store.ClassInterrupted, "the store was closed before the request was sent"
	default:
		a.Class, a.Error = store.ClassRender, "the message could not be read from the store; its record may be damaged"
		s.opt.Log.Error("message not loaded", zap.Stringer("message_id", d.ID.Message()),
			zap.Stringer("delivery_id", d.ID), zap.Error(err))
	}
}

// payload is the body of a request. There is deliberately no GetBody to go with it: with one, net/http may send
// a request again by itself, and an attempt would be more than one request.
type payload struct {
	bytes.Reader
	content []byte // all of it; only ever read
}

func newPayload(content []byte) *payload {
	return &payload{*bytes.NewReader(content), content}
}

func (*payload) Close() error { return nil }

// judge reads the answer within its bounds and decides what it means. A success whose body breaks off or lasts
// longer than the attempt may stays a success, unless its body is to be judged too: the receiver has said that it has
// the message.
func (s *Sender) judge(ctx context.Context, resp *http.Response, a *store.Attempt) {
	defer resp.Body.Close() // what was not read is not drained: it may have no end
	a.Status = resp.StatusCode
	a.Header = keepHeader(resp.Header, s.secrets)
	if s.opt.Success.Has(resp.StatusCode) {
		a.Class = store.ClassOK
	} else {
		a.Class, a.Error = store.ClassStatus, statusText(resp.StatusCode)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols { // after which it is no body, but the open connection
		s.readBody(ctx, resp.Body, a)
	}
	if a.Class == store.ClassOK {
		return
	}
	if hint, ok := retryAfter(resp.Header.Get("Retry-After"), s.opt.Now()); ok {
		a.RetryHint = hint
	}
}

// readBody records at most s.kept bytes of the body with secrets masked, and whether it had more or broke off. It has
// a success judged by the bytes as they came.
func (s *Sender) readBody(ctx context.Context, r io.Reader, a *store.Attempt) {
	buffer := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buffer)
	// Reading past what is kept by the length of a secret shows one that the end of the record would cut in two.
	n, whole := readUpTo(r, *buffer)
	read := (*buffer)[:n]
	// A receiver that sees us leave at the deadline may still end its body in good order.
	whole = whole && ctx.Err() == nil
	if a.Class == store.ClassOK && len(s.opt.Expect) > 0 {
		s.expect(ctx, read, whole, a)
	}
	if len(s.opt.Redact) > 0 {
		read, _ = match.RedactJSON(read, s.opt.Redact)
	}
	maskBytes(read, s.secrets)
	kept := min(len(read), s.kept)
	if kept > 0 {
		a.Body = bytes.Clone(read[:kept])
	}
	a.Truncated = kept < len(read) || !whole
}

// readUpTo fills b from r. It returns how much it read, and whether that was all of r; io.ReadFull would not tell
// the end of a body from one that broke off.
func readUpTo(r io.Reader, b []byte) (n int, whole bool) {
	const maxIdle = 100 // reads in a row that bring nothing, as in bufio
	for idle := 0; n < len(b) && idle < maxIdle; {
		m, err := r.Read(b[n:])
		n += m
		if err != nil {
			return n, err == io.EOF
		}
		if m > 0 {
			idle = 0
		} else {
			idle++
		}
	}
	return n, false
}
