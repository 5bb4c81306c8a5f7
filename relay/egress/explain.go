package egress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// Rendered is a request that has not been sent: for a person who wants to know what a receiver would get, or why it
// refuses it.
type Rendered struct {
	// Request is as in store.Attempt, but that its Body is the whole body, whoever made it, and nothing of it is redacted.
	Request store.Sent

	Bases []Base // what each signer signs; one that cannot show it is left out
	Curl  string // a command for a POSIX shell that sends the same request, see the package comment

	// BodyFile is the name of the file in which Curl looks for the body, for bodies of more than 4 KiB and those that are
	// no plain text. Empty if the command holds the body itself. What is secret of it has to be put into the file.
	BodyFile string
}

// Base is what a signer signs.
type Base struct {
	Signer string // its key in the config of a destination, such as sign[0].standard

	// Base is signed byte for byte, but that what is secret of the URL, the headers and what a template makes of the body
	// is masked in it. Empty if it cannot be shown without.
	Base []byte
}

// Render builds the request that Test would send now, and sends nothing: no token is fetched either, but one is shown
// as Bearer ***. An error is an *OptionError without secrets, or that of ctx.
func (s *Sender) Render(ctx context.Context, m store.Message, body []byte) (Rendered, error) {
	if err := ctx.Err(); err != nil {
		return Rendered{}, err
	}
	return s.explain(sampleJob(m, body))
}

// RenderDelivery is Render for a delivery of a message that is in the store. Errors of Messages come beside those of
// Render, store.ErrNotFound among them. It needs Messages.
func (s *Sender) RenderDelivery(ctx context.Context, d store.Delivery) (Rendered, error) {
	if s.opt.Messages == nil {
		panic("egress: RenderDelivery needs Messages")
	}
	m, body, err := s.opt.Messages.Load(ctx, d.ID.Message())
	if err != nil {
		return Rendered{}, fmt.Errorf("load message: %w", err)
	}
	if m.Reduced {
		return Rendered{}, &OptionError{"keep", errReduced}
	}
	return s.explain(job{d: d, m: m, body: body})
}

func (s *Sender) explain(j job) (Rendered, error) {
	var r Rendered
	j.now, j.showBody = s.opt.Now(), true
	j.watch = func(nth int, in sign.Input) {
		if b, ok := s.base(nth, in); ok {
			r.Bases = append(r.Bases, b)
		}
	}
	req, err := s.render(j)
	if err != nil {
		option := "request"
		if wrong, ok := errors.AsType[*OptionError](err); ok {
			option, err = wrong.Option, wrong.Err
		}
		return Rendered{}, &OptionError{option, errors.New(clean(maskSecrets(err.Error(), s.secrets)))}
	}
	if s.tokens != nil {
		req.Header["Authorization"] = []string{bearerPrefix + masked}
	}
	r.Request = s.sent(req, j.showBody)
	r.Request.Body, r.Request.Truncated = s.shownBody(contentOf(req), masked), false
	c := curl{
		method: req.Method, header: s.sentHeader(req, hole), body: contentOf(req), file: j.m.ID.String() + ".body",
		url: maskURL(req.URL, s.opt.URL, hole, s.secrets),
	}
	if s.hidesBody(c.body) {
		c.shown = s.shownBody(c.body, hole)
	}
	r.Curl = c.String()
	if !c.inline() {
		r.BodyFile = c.file
	}
	return r, nil
}

// hidesBody reports whether a template has put secrets into a body.
func (s *Sender) hidesBody(body []byte) bool {
	return s.templates.body != nil && holdsSecretBytes(body, s.secrets)
}

// shownBody returns a body with mark in place of the secrets that a template has put into it.
func (s *Sender) shownBody(body []byte, mark string) []byte {
	if !s.hidesBody(body) {
		return body
	}
	return []byte(replaceSecrets(string(body), s.secrets, mark))
}

// base returns what the nth signer signs of in, and false if it cannot say. Signatures are no secrets, but a base may
// cover headers and URLs that are, so that it is made of masked ones.
func (s *Sender) base(nth int, in sign.Input) (Base, bool) {
	signer, ok := s.opt.Signers[nth].(sign.Explainer)
	if !ok {
		return Base{}, false
	}
	kind := ""
	switch signer.(type) {
	case *sign.Standard:
		kind = ".standard"
	case *sign.HMAC:
		kind = ".hmac"
	case *sign.Timestamped:
		kind = ".timestamped"
	case *sign.RFC9421:
		kind = ".rfc9421"
	case *sign.Profile:
		kind = ".profile"
	}
	made := Base{Signer: fmt.Sprintf("sign[%d]%s", nth, kind)}
	header := make(http.Header, len(in.Header))
	for key, values := range in.Header {
		for _, v := range values {
			header[key] = append(header[key], s.masks.value(key, v, masked, s.secrets))
		}
	}
	in.Header = header
	u, err := url.Parse(maskURL(in.URL, s.opt.URL, masked, s.secrets))
	if err != nil {
		return made, true
	}
	in.URL = u
	base, err := signer.Base(in)
	if err != nil { // with what is masked; the signature itself will tell if there is more to it
		return made, true
	}
	made.Base = s.shownBody(base, masked)
	return made, true
}
