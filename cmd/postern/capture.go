package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/relay/sign"
)

const (
	maxCapture = 32 << 20 // bytes of a captured request
	maxFields  = 1000     // header fields of one
)

// parseCapture reads a request as it was captured: a start line, which may be left out, header fields, an empty line,
// and the body, byte for byte, up to the end. Lines end in CR LF or LF. A chunked body is put together.
func parseCapture(raw []byte) (sign.Request, error) {
	r := sign.Request{Header: http.Header{}}
	target := ""
	for n := 0; ; n++ {
		line, rest, found := bytes.Cut(raw, []byte("\n"))
		if !found {
			return r, errors.New("there is no empty line between headers and body; capture the whole request")
		}
		raw = rest
		text := string(bytes.TrimSuffix(line, []byte("\r")))
		if text == "" {
			break
		}
		if n > maxFields {
			return r, fmt.Errorf("there are more than %d headers", maxFields)
		}
		if n == 0 {
			if method, path, ok := startLine(text); ok {
				r.Method, target = method, path
				continue
			}
		}
		if err := addField(r.Header, text); err != nil {
			return r, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	r.Body = raw
	if strings.EqualFold(r.Header.Get("Transfer-Encoding"), "chunked") {
		if whole, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(raw))); err == nil {
			r.Body = whole
		}
	}
	u, err := captureURL(target, r.Header.Get("Host"))
	if err != nil {
		return r, err
	}
	r.URL = u
	return r, nil
}

// startLine reads the first line of a request (RFC 9112, section 3).
func startLine(line string) (method, target string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || !strings.HasPrefix(fields[2], "HTTP/") || !httpguts.ValidHeaderFieldName(fields[0]) {
		return "", "", false
	}
	return fields[0], fields[1], true
}

// captureURL puts together what the sender has asked for. Postern sends by HTTPS only.
func captureURL(target, host string) (*url.URL, error) {
	if target == "" {
		target = "/"
	}
	if strings.HasPrefix(target, "/") {
		target = "https://" + host + target
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, errors.New("the target of the start line is no URL")
	}
	return u, nil
}

// addField adds a header field as it stands in a request. Its error does not repeat a line that is none, which may be a
// secret: of the wrong file, say.
func addField(h http.Header, line string) error {
	name, value, found := strings.Cut(line, ":")
	if !found || !httpguts.ValidHeaderFieldName(name) {
		return errors.New("this is no header; write Name: value")
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	h[key] = append(h[key], strings.Trim(value, " \t"))
	return nil
}
