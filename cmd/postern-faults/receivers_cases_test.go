package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
	"time"
)

// ailment is one way in which a receiver is ill, and what an attempt must come to. Every attempt of every delivery must.
type ailment struct {
	name  string // a sentence
	group string // what it is counted under in the summary

	tls   string           // by which identity it shows itself; empty is a good one. "none" speaks no TLS
	alpn  string           // "h2" offers HTTP/2 alone; empty HTTP/1.1 alone
	serve func(*rogueLine) // nil never takes a connection from the kernel's queue
	conf  string           // further keys of the destination
	body  int              // bytes of the messages; 0 means a few
	waits bool             // a success whose time is over all the same

	class  string // of each attempt; two by a bar where chance decides
	status int
	text   string // that its error has; with class ok there is none
	or     string // classes by bars that it may be as well, without status and with any text, on a busy machine or in the long form
	hint   time.Duration
	most   int64 // bytes that it may get rid of in one attempt; 0 means 8 MiB, what the buffers of two sockets hold
	least  int64 // 1 where the relay must get as far as a whole request
}

const (
	created = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
	endOK   = "HTTP/1.1 200 OK\r\n"
	expects = `expect: [{path: $.ok}]`
)

// stages are the ailments of a connection, from its beginning to the end of the answer.
func stages(*testing.T) []ailment {
	hang := (*rogueLine).hang
	reset := (*rogueLine).reset
	slow := 20 * time.Millisecond
	return []ailment{
		{name: "hangs before it accepts", group: "hang", serve: nil, class: "timeout", text: "during the TLS handshake"},
		{name: "hangs in the TLS handshake", group: "hang", tls: "none", serve: hang, class: "timeout", text: "during the TLS handshake"},
		{name: "hangs and reads no body", group: "hang", body: 2 << 20, conf: "timeout: 5s", serve: func(l *rogueLine) {
			_, _ = l.in.ReadString('\n')
			l.rest(rogueLife)
		}, class: "timeout"}, // what the kernel holds of it may be all
		{name: "hangs before the answer", group: "hang", serve: after(hang), class: "timeout", text: "while waiting for the answer", least: 1},
		{name: "hangs in its header", group: "hang", serve: after(func(l *rogueLine) { l.say(endOK + "X-A: "); l.hang() }), class: "timeout", text: "while reading the answer", least: 1},
		{name: "hangs in the body of a success", waits: true, group: "hang", serve: after(func(l *rogueLine) { l.say(endOK + "Content-Length: 9\r\n\r\nx"); l.hang() }), class: "ok", status: 200, least: 1},
		{name: "hangs in the body of a success that is to be judged", group: "hang", conf: expects, serve: after(func(l *rogueLine) { l.say(endOK + "Content-Length: 9\r\n\r\nx"); l.hang() }), class: "timeout", status: 200, least: 1},
		{name: "hangs in the body of a failure", waits: true, group: "hang", serve: after(func(l *rogueLine) { l.say("HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nx"); l.hang() }), class: "status", status: 500, least: 1},

		{name: "drips in the handshake", group: "drip", tls: "none", serve: func(l *rogueLine) { l.repeat("\x16", slow) }, class: "tls", most: 100},
		{name: "drips its header", group: "drip", serve: after(func(l *rogueLine) { l.say(endOK); l.repeat("X", slow) }), class: "timeout", text: "while reading the answer", least: 1, most: 1000},
		{name: "drips lines of header", group: "drip", serve: after(func(l *rogueLine) { l.say(endOK); l.repeat("X-A: b\r\n", slow) }), class: "timeout", least: 1, most: 5000},
		{name: "drips the body of a success", waits: true, group: "drip", serve: after(func(l *rogueLine) { l.say(endOK + "\r\n"); l.repeat("x", slow) }), class: "ok", status: 200, least: 1, most: 1000},
		{name: "drips the body of a success that is to be judged", group: "drip", conf: expects, serve: after(func(l *rogueLine) { l.say(endOK + "\r\n"); l.repeat(" ", slow) }), class: "timeout", status: 200, least: 1, most: 1000},
		{name: "drips interim answers", group: "drip", serve: after(func(l *rogueLine) { l.repeat("HTTP/1.1 103 Early Hints\r\n\r\n", slow) }), class: "timeout", least: 1, most: 10_000},

		{name: "resets what it has accepted", group: "reset", tls: "none", serve: reset, class: "tls|connect", text: "connection "}, // reset, or closed if a Write was the first to see it
		{name: "closes what it has accepted", group: "reset", tls: "none", serve: func(*rogueLine) {}, class: "tls"},
		{name: "resets in the handshake", group: "reset", tls: "none", serve: func(l *rogueLine) { _, _ = l.Read(make([]byte, 100)); l.reset() }, class: "tls"},
		{name: "resets in the header of the request", group: "reset", serve: func(l *rogueLine) { _, _ = l.in.ReadString('\n'); l.reset() }, class: "connect", text: "connection "}, // reset, or closed if a Write was the first to see it
		{name: "resets in the body of the request", group: "reset", body: 2 << 20, conf: "timeout: 20s", serve: func(l *rogueLine) { _, _ = l.in.Discard(1 << 20); l.reset() }, class: "connect"},
		{name: "resets after the request", group: "reset", serve: after(reset), class: "connect", text: "reset", least: 1},
		{name: "closes after the request", group: "reset", serve: after(func(*rogueLine) {}), class: "connect", text: "closed", least: 1},
		{name: "resets in the header of the answer", group: "reset", serve: after(func(l *rogueLine) { l.say(endOK + "X-A: b"); l.reset() }), class: "connect", least: 1},
		{name: "resets in the body of a success", group: "reset", serve: after(func(l *rogueLine) { l.say(endOK + "Content-Length: 9\r\n\r\nx"); l.rest(slow); l.reset() }), class: "ok", status: 200, least: 1},
		{name: "answers before the request is there", group: "reset", body: 2 << 20, conf: "timeout: 20s", serve: func(l *rogueLine) {
			_, _ = l.in.Discard(100)
			l.say("HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			l.hang()
		}, class: "status", status: 413},
	}
}

// answersWithout are answers of HTTP/1.1 without end, or that mean more than they are.
func answersWithout(t *testing.T) []ailment {
	long := strings.Repeat("all work and no play ", 3000)
	return []ailment{
		{name: "a success without end", group: "endless", serve: after(func(l *rogueLine) { l.say(endOK + "\r\n"); l.repeat(long, 0) }), class: "ok", status: 200, least: 1},
		{name: "a failure without end", group: "endless", serve: after(func(l *rogueLine) { l.say("HTTP/1.1 500 No\r\n\r\n"); l.repeat(long, 0) }), class: "status", status: 500, least: 1},
		{name: "a success without end that is to be judged", group: "endless", conf: expects, serve: after(func(l *rogueLine) { l.say(endOK + "\r\n"); l.repeat(long, 0) }), class: "expect", status: 200, text: "more than", least: 1},
		{name: "chunks without end", group: "endless", serve: after(func(l *rogueLine) {
			l.say(endOK + "Transfer-Encoding: chunked\r\n\r\n")
			l.repeat(strings.Repeat("1\r\nx\r\n", 1000), 0)
		}), class: "ok", status: 200, least: 1},
		{name: "an extension of a chunk without end", group: "endless", serve: after(func(l *rogueLine) { l.say(endOK + "Transfer-Encoding: chunked\r\n\r\n1;a="); l.repeat(long, 0) }), class: "ok", status: 200, least: 1},
		{name: "trailers without end", group: "endless", serve: after(func(l *rogueLine) {
			l.say(endOK + "Transfer-Encoding: chunked\r\n\r\n0\r\n")
			l.repeat("X-A: b\r\n", 0)
		}), class: "ok", status: 200, least: 1},
		{name: "a length beyond any number", group: "endless", serve: after(func(l *rogueLine) { l.say(endOK + "Content-Length: 99999999999999999999999\r\n\r\n"); l.hang() }), class: "protocol", text: "length", least: 1},
		{name: "a negative length", group: "endless", serve: after(func(l *rogueLine) { l.say(endOK + "Content-Length: -1\r\n\r\n"); l.hang() }), class: "protocol", text: "length", least: 1},

		{name: "a bomb by gzip", group: "compressed", serve: after(bomb(t, "gzip")), class: "ok", status: 200, least: 1},
		{name: "a bomb by gzip that is to be judged", group: "compressed", conf: expects, serve: after(bomb(t, "gzip")), class: "expect", status: 200, least: 1},
		{name: "a bomb by gzip of a gzip", group: "compressed", serve: after(bomb(t, "gzip, gzip")), class: "ok", status: 200, least: 1},
		{name: "a bomb that calls itself br", group: "compressed", serve: after(bomb(t, "br")), class: "ok", status: 200, least: 1},

		{name: "one header field of a megabyte", group: "giant headers", serve: after(func(l *rogueLine) { l.say(endOK + "X-A: " + strings.Repeat("h", 1<<20) + "\r\n\r\n"); l.hang() }), class: "protocol", text: "too large", least: 1},
		{name: "ten thousand header fields", group: "giant headers", serve: after(func(l *rogueLine) { l.say(endOK + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n"); l.hang() }), class: "protocol", text: "too large", least: 1},
		{name: "a header without end", group: "giant headers", serve: after(func(l *rogueLine) { l.say(endOK); l.repeat(strings.Repeat("X-A: b\r\n", 1000), 0) }), class: "protocol", text: "too large", least: 1},
		{name: "a status line without end", group: "giant headers", serve: after(func(l *rogueLine) { l.say("HTTP/1.1 200 "); l.repeat(long, 0) }), class: "protocol", text: "too large", least: 1},

		{name: "a flood of 100", group: "1xx flood", serve: after(func(l *rogueLine) { l.repeat(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), 0) }), class: "protocol", least: 1},
		{name: "a flood of 102", group: "1xx flood", serve: after(func(l *rogueLine) { l.repeat(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000), 0) }), class: "protocol", least: 1},
		{name: "a flood of 103 with fields", group: "1xx flood", serve: after(func(l *rogueLine) {
			l.repeat(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", 1000), 0)
		}), class: "protocol", least: 1},

		{name: "no HTTP", group: "no HTTP", serve: after(func(l *rogueLine) { l.say("220 mail.example ESMTP\r\n"); l.hang() }), class: "protocol", least: 1},
		{name: "bytes at random", group: "no HTTP", serve: after(func(l *rogueLine) { l.say("\x00\xff\x15\x03\x01\n\r\n\r\n\x00"); l.hang() }), class: "protocol", least: 1},
		{name: "two answers to one request", group: "no HTTP", serve: answers(created + created), class: "ok", status: 201, least: 1},
		{name: "switches to another protocol", group: "no HTTP", serve: after(func(l *rogueLine) { l.say("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"); l.hang() }), class: "status", status: 101, least: 1},
	}
}

// bomb answers with a megabyte that would be a gigabyte if it were unpacked.
func bomb(t *testing.T, encoding string) func(*rogueLine) {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat(packed.Bytes(), 1024) // members may be joined (RFC 1952, section 2.2)
	return func(l *rogueLine) {
		l.say(fmt.Sprintf("%sContent-Type: application/json\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n", endOK, encoding, len(body)))
		_, _ = l.Write(body) // as much of it as is taken
		l.hang()
	}
}

// words are answers that ask for something: redirects and Retry-After.
func words(trap string) []ailment {
	var all []ailment
	for _, status := range []int{300, 301, 302, 303, 304, 305, 306, 307, 308} {
		all = append(all, ailment{
			name: fmt.Sprintf("redirects by %d", status), group: "redirects",
			serve: answers(fmt.Sprintf("HTTP/1.1 %d Elsewhere\r\nLocation: https://%s/trap\r\nContent-Length: 0\r\n\r\n", status, trap)),
			class: "status", status: status, text: "never followed", least: 1,
		})
	}
	for _, c := range []struct {
		value string
		hint  time.Duration
	}{
		{"-1", 0}, {"-99999999999999999999", 0}, {"0", 0}, {"1.5", 0}, {"1e9", 0}, {"0x10", 0}, {"soon", 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0}, {"Fri, 31 Dec 9999 23:59:59 GMT", time.Hour}, {"2999-01-01T00:00:00Z", 0},
		{"7200", time.Hour}, {"9223372036854775807", time.Hour}, {"9223372036854775808", time.Hour},
		{"18446744073709551617", time.Hour}, {strings.Repeat("9", 10_000), time.Hour}, {"3599", 3599 * time.Second},
	} {
		shown := c.value
		if len(shown) > 40 {
			shown = fmt.Sprintf("%d digits", len(shown))
		}
		all = append(all, ailment{
			name: "asks for a pause by " + shown, group: "Retry-After",
			serve: answers("HTTP/1.1 500 No\r\nRetry-After: " + c.value + "\r\nContent-Length: 0\r\n\r\n"),
			class: "status", status: 500, hint: c.hint, least: 1,
		})
	}
	return all
}
