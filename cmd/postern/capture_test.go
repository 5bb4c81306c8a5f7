package main

import (
	"strings"
	"testing"
)

func TestParseCapture(t *testing.T) {
	for _, tt := range []struct {
		name, raw                       string
		method, url, header, body, want string
	}{
		{
			"a request as it travels", "PUT /a?b=c HTTP/1.1\r\nHost: h:1\r\nX-A:  b \r\nx-a: c\r\n\r\nbody\r\n",
			"PUT", "https://h:1/a?b=c", "b, c", "body\r\n", "",
		},
		{"lines may end in LF", "POST /a HTTP/1.1\nHost: h\nX-A: b\n\n\nbody", "POST", "https://h/a", "b", "\nbody", ""},
		{"the start line may be missing", "X-A: b\n\nbody", "", "https:///", "b", "body", ""},
		{"the target may be a whole URL", "GET http://p/a HTTP/1.1\n\n", "GET", "http://p/a", "", "", ""},
		{"the body may be empty", "X-A: b\n\n", "", "https:///", "b", "", ""},
		{
			"a chunked body is put together", "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
			"POST", "https:///", "", "abcd", "",
		},
		{"one that was put together already stays", "Transfer-Encoding: chunked\n\nabcd", "", "https:///", "", "abcd", ""},
		{"no empty line is told", "POST / HTTP/1.1\nHost: h\n", "", "", "", "", "no empty line"},
		{"a line without colon is told", "POST / HTTP/1.1\nHost h\n\n", "", "", "", "", `line 2: this is no header; write Name: value`},
		{"a start line that is none is told", "POST /\n\n", "", "", "", "", "line 1"},
		{"a continued line is told", "X-A: b\n c\n\n", "", "", "", "", "line 2"},
		{"too many headers are told", strings.Repeat("X-A: b\n", 1002) + "\n", "", "", "", "", "more than 1000 headers"},
		{"a target that is no URL is told", "POST /%zz HTTP/1.1\n\n", "", "", "", "", "no URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseCapture([]byte(tt.raw))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("got %v, want none", err)
			}
			if r.Method != tt.method || r.URL.String() != tt.url || strings.Join(r.Header["X-A"], ", ") != tt.header || string(r.Body) != tt.body {
				t.Errorf("got %s %s %v %q; want %s %s %s %q", r.Method, r.URL, r.Header, r.Body, tt.method, tt.url, tt.header, tt.body)
			}
		})
	}
}

func FuzzParseCapture(f *testing.F) {
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"))
	f.Add([]byte("webhook-id: msg_1\n\n{}"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseCapture(raw)
		if err != nil {
			return
		}
		if r.URL == nil || len(r.Body) > len(raw) {
			t.Errorf("got %v and %d bytes of %d", r.URL, len(r.Body), len(raw))
		}
	})
}
