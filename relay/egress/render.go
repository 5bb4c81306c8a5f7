package egress

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// render builds the request of j: exactly the bytes that are signed are its body, and exactly the headers that are
// sent are signed, but for those that signatures and OAuth2 add. An error is an *OptionError: which key of the
// destination does not go with this message, and why.
func (s *Sender) render(j job) (*http.Request, error) {
	req := *s.request
	req.Header = make(http.Header, len(s.header)+len(s.templates.header)+len(j.m.Header)+5+len(s.opt.Signers))
	// One slice holds the values of all headers that vary, instead of one for each.
	values := make([]string, 0, 5+2*len(s.opt.Signers)+len(s.templates.header))
	set := func(name, value string) {
		values = append(values, value)
		n := len(values)
		req.Header[name] = values[n-1 : n : n]
	}
	for name, v := range s.header {
		req.Header[name] = v
	}
	if err := s.forwardHeader(j.m, req.Header); err != nil {
		return nil, err
	}
	if s.opt.ForwardPath {
		u, err := joinPath(s.opt.URL, j.m.Path)
		if err != nil {
			return nil, &OptionError{"forward_path", err}
		}
		req.URL = u
	}
	var v *view
	if s.templates.any() {
		v = s.newView(j)
	}
	for _, h := range s.templates.header {
		value, err := h.render(v)
		if err != nil {
			return nil, &OptionError{h.option, err}
		}
		set(h.key, value)
	}
	id := j.m.ID.String()
	set(idHeader, id)
	set(store.HopsHeader, strconv.Itoa(j.m.Hops+1))
	if j.d.Round > 1 {
		set(store.ReplayHeader, strconv.Itoa(j.d.Round-1))
	}
	set(timestampHeader, strconv.FormatInt(j.now.Unix(), 10))
	body, err := s.renderBody(j, v, set)
	if err != nil {
		return nil, err
	}
	if len(s.opt.Signers) > 0 {
		in := sign.Input{ID: id, Time: j.now, Body: body, Method: req.Method, URL: req.URL, Header: canonical(req.Header)}
		if err := s.sign(j, in, req.Header, set); err != nil {
			return nil, err
		}
	}
	switch {
	case len(body) > 0:
		req.Body, req.ContentLength = newPayload(body), int64(len(body))
	case s.opt.Method == http.MethodGet:
		// A GET without any Body is what net/http would send again by itself when a pooled connection turns
		// out to be dead. It looks into this one, finds it empty, and sends none.
		req.Body, req.ContentLength = &payload{}, -1
	default:
		req.Body = http.NoBody
	}
	return &req, nil
}

// renderBody returns the body to send and sets its type.
func (s *Sender) renderBody(j job, v *view, set func(name, value string)) ([]byte, error) {
	if s.opt.Method == http.MethodGet {
		return nil, nil // RFC 9110, section 9.3.1: content of a GET has no meaning, and common servers refuse it
	}
	contentType, err := s.contentType(j.m)
	if err != nil {
		return nil, err
	}
	set("Content-Type", contentType)
	if s.templates.body == nil {
		return j.body, nil
	}
	body, err := s.templates.body.render(v)
	// Without a content_type the one that counts is the app's, which a sample cannot know.
	if known := s.opt.ContentType != "" || !j.sample; err == nil && known && isJSON(contentType) {
		if err = checkJSON(body); err != nil && j.sample && (v.guessed || v.touched && s.templates.body.branches) {
			err = nil // with the data of a message it may well be
		}
	}
	if err != nil {
		return nil, &OptionError{"body", err}
	}
	return body, nil
}

func (s *Sender) contentType(m store.Message) (string, error) {
	if s.opt.ContentType != "" {
		return trimValue(s.opt.ContentType), nil
	}
	if checkValue(m.ContentType) != nil {
		return "", &OptionError{"content_type", errors.New("that of the message cannot be sent; set one for the destination")}
	}
	return cmp.Or(trimValue(m.ContentType), defaultContentType), nil
}

// isJSON reports whether a body of that type is a JSON text (RFC 6839, section 3.1).
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || t == "text/json" || strings.HasSuffix(t, "+json"))
}

// canonical returns h with the keys that headerKey writes in lower case in canonical form. It may return h itself.
func canonical(h http.Header) http.Header {
	for _, key := range []string{"idempotency-key", "x-idempotency-key"} {
		if values, ok := h[key]; ok {
			h = maps.Clone(h)
			delete(h, key)
			h[http.CanonicalHeaderKey(key)] = values
		}
	}
	return h
}

// sign sets the headers of all signers in h. Those of one name are joined as the signers say. All signers are given the
// same request, without what any of them adds: their order decides nothing, and none covers the signature of another.
func (s *Sender) sign(j job, in sign.Input, h http.Header, set func(name, value string)) error {
	var all []sign.Header
	for i, signer := range s.opt.Signers {
		if j.watch != nil {
			j.watch(i, in)
		}
		signature, err := signer.Sign(in)
		if err != nil {
			return &OptionError{fmt.Sprintf("sign[%d]", i), err}
		}
		all = append(all, signature...)
	}
	// Only now: in.Header may be h itself.
	for i, made := range all {
		key, value := headerKey(made.Name), made.Value
		if made.Join != "" {
			if slices.Contains(all[:i], made) {
				continue
			}
			for _, earlier := range h[key] {
				value = earlier + made.Join + value
			}
		}
		set(key, value)
	}
	return nil
}
