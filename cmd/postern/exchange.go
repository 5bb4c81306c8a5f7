package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern-relay/postern/relay/admin"
)

// maxHexBytes is how much of a binary body is shown.
const maxHexBytes = 512

// request shows a request as it was or would be sent.
func (s *screen) request(r admin.Request) {
	s.line("  " + s.strong.Render(clean(r.Method)+" "+clean(r.URL)))
	s.headers(r.Headers)
	if r.BodyIsMessage && r.Body == "" && len(r.BodyBase64) == 0 {
		s.line("")
		s.line("    " + s.faint.Render("(the body is the message's, byte for byte)"))
		return
	}
	s.content(r.Content, r.Truncated)
}

// response shows an answer.
func (s *screen) response(r admin.Response) {
	style := s.bad
	if r.Status >= 200 && r.Status < 300 {
		style = s.good
	}
	s.line("  " + style.Render(strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status)))))
	s.headers(r.Headers)
	s.content(r.Content, r.Truncated)
}

func (s *screen) headers(list []admin.Header) {
	for _, h := range list {
		s.line("  " + s.faint.Render(clean(h.Name)+":") + " " + clean(h.Value))
	}
}

// content shows a body after an empty line: JSON laid out, other text as it is, anything else in hexadecimal.
func (s *screen) content(c admin.Content, truncated bool) {
	switch {
	case c.Body != "":
		s.line("")
		s.block(laidOut(c.Body))
	case len(c.BodyBase64) > 0:
		s.line("")
		s.block(hex.Dump(c.BodyBase64[:min(len(c.BodyBase64), maxHexBytes)]))
		if len(c.BodyBase64) > maxHexBytes {
			s.line("    " + s.faint.Render(fmt.Sprintf("… %s in all", size(len(c.BodyBase64)))))
		}
	default:
		return
	}
	if truncated {
		s.line("    " + s.faint.Render("… (there is more of it)"))
	}
}

// laidOut indents JSON without touching its values, and leaves every other text as it is.
func laidOut(body string) string {
	text := strings.TrimSpace(body)
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return body
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return body
	}
	return b.String()
}

// attemptOutcome says what came of an attempt, for a line. It is not clean.
func attemptOutcome(a admin.Attempt) string {
	return outcomeOf(&admin.Outcome{Class: a.Class, Status: a.Status, Error: a.Error})
}

// timing shows where the time of an attempt went, and to whom.
func (s *screen) timing(a admin.Attempt) {
	t := a.Timing
	var parts []string
	for _, phase := range []struct {
		name    string
		seconds float64
	}{{"dns", t.DNSSeconds}, {"connect", t.ConnectSeconds}, {"tls", t.TLSSeconds}, {"first byte", t.FirstByteSeconds}} {
		if phase.seconds > 0 {
			parts = append(parts, phase.name+" "+took(phase.seconds))
		}
	}
	s.field("took", strings.Join(append(parts, "total "+took(a.TookSeconds)), " · "))
	peer := clean(a.Peer)
	if peer != "" && a.Reused {
		peer += ", on a connection that was open"
	}
	s.field("peer", peer)
	s.field("certificate", expiry(s, a))
	if a.RetryHintSeconds > 0 {
		s.field("retry after", took(a.RetryHintSeconds)+", as the receiver asks")
	}
}

func expiry(s *screen, a admin.Attempt) string {
	if a.CertificateExpiresAt.IsZero() {
		return ""
	}
	return "valid until " + s.moment(a.CertificateExpiresAt)
}
