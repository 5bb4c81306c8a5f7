package egress

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// maxSentBody is how much of a body that a template made is on record, in bytes.
const maxSentBody = 64 << 10

// sent is the record of a request that is about to be sent: every header that the receiver gets to see, in HTTP/1.1's
// names. It shares what it can with the request. showBody overrides Options.OmitBody.
func (s *Sender) sent(req *http.Request, showBody bool) store.Sent {
	r := store.Sent{Method: req.Method, URL: s.masks.url}
	if req.URL != s.opt.URL { // the app's path is part of it
		r.URL = maskURL(req.URL, s.opt.URL, masked, s.secrets)
	}
	r.Header = s.sentHeader(req, masked)
	if s.templates.body == nil {
		return r
	}
	r.Rendered = true
	if s.opt.OmitBody && !showBody {
		r.Truncated = contentOf(req) != nil
		return r
	}
	body, _ := match.RedactJSON(contentOf(req), s.opt.Redact)
	// A little more than is kept shows a secret that the end of the record would cut in two.
	shown := body[:min(len(body), maxSentBody+s.overread)]
	if holdsSecretBytes(shown, s.secrets) {
		shown = bytes.Clone(shown)
		maskBytes(shown, s.secrets)
	}
	r.Body = shown
	if len(body) > maxSentBody {
		r.Body, r.Truncated = bytes.Clone(shown[:maxSentBody]), true
	}
	return r
}

// sentHeader returns the headers of a request in the order of their names, with mark in place of what is secret.
func (s *Sender) sentHeader(req *http.Request, mark string) []store.Field {
	fields := make([]store.Field, 0, len(req.Header)+2)
	for key, values := range req.Header {
		name := http.CanonicalHeaderKey(key) // see headerKey
		if name == "User-Agent" {            // of which net/http sends one, if it is not empty
			if values = values[:1]; values[0] == "" {
				continue
			}
		}
		if fixed, ok := s.masks.fixed[key]; ok && mark == masked && values[0] == s.header[key][0] {
			fields = append(fields, store.Field{Name: name, Value: fixed})
			continue
		}
		for _, v := range values {
			fields = append(fields, store.Field{Name: name, Value: s.masks.value(name, v, mark, s.secrets)})
		}
	}
	fields = append(fields, store.Field{Name: "Host", Value: replaceSecrets(req.Host, s.secrets, mark)})
	if n := len(contentOf(req)); n > 0 || hasLength(req.Method) {
		fields = append(fields, store.Field{Name: "Content-Length", Value: strconv.Itoa(n)})
	}
	slices.SortStableFunc(fields, func(a, b store.Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}

// hasLength reports whether a request of that method says that its body is empty (RFC 9110, section 8.6), as net/http
// has it.
func hasLength(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// contentOf returns the body of a request that render made; nil for none. Nobody writes to it.
func contentOf(req *http.Request) []byte {
	if p, ok := req.Body.(*payload); ok {
		return p.content
	}
	return nil
}
