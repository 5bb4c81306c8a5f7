package main

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// ofHTTP2 are ailments that only HTTP/2 has. Several attempts share a connection, and of most of these rogues only the first
// one on it gets what it is ill of. What the others come to is bounded as well, and says so by its class:
//
//   - protocol, when what was sent is too much, or invalid;
//   - timeout, when the attempt's time is over before. What is too much is counted in bytes, to which each attempt adds; of
//     small frames that are answered, such as PING, a busy machine does not read so many in 20 s;
//   - connect, when the connection ended with the attempt on it, since no PING of ours was answered: after 15 s of silence
//     and 5 s more.
func ofHTTP2() []ailment {
	ok := func(fr *http2.Framer, stream uint32, end bool) bool {
		return fr.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: block(":status", "200"), EndHeaders: true, EndStream: end,
		}) == nil
	}
	each := func(do func(*rogueLine, *http2.Framer, uint32)) func(*rogueLine) { return frames(nil, do) }
	// flood writes the same frames again and again. It reads along, for the relay may answer each.
	flood := func(l *rogueLine, step func(*http2.Framer) error) {
		go l.hang()
		l.repeat(framed(step), 0)
	}
	return []ailment{
		{name: "ends the connection (GOAWAY) before any request", group: "GOAWAY", alpn: "h2", serve: func(l *rogueLine) {
			if fr, ok := l.preface(nil); ok && fr.WriteGoAway(0, http2.ErrCodeNo, nil) == nil {
				l.hang()
			}
		}, class: "connect"},
		{name: "ends the connection at a request it has not seen", group: "GOAWAY", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, _ uint32) {
			_ = fr.WriteGoAway(0, http2.ErrCodeNo, []byte("canary"))
		}), class: "connect", text: "GOAWAY", least: 1},
		{name: "ends the connection at a request it has seen, and closes", group: "GOAWAY", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteGoAway(stream, http2.ErrCodeNo, nil)
			_ = l.Close()
		}), class: "connect", least: 1},
		{name: "ends the connection at a request it has seen, and hangs", group: "GOAWAY", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteGoAway(stream, http2.ErrCodeNo, nil)
		}), class: "timeout", least: 1},
		{name: "ends the connection and answers all the same", group: "GOAWAY", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteGoAway(stream, http2.ErrCodeNo, nil)
			ok(fr, stream, true)
		}), class: "ok", status: 200, least: 1},
		{name: "calls for calm (ENHANCE_YOUR_CALM)", group: "GOAWAY", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, _ uint32) {
			_ = fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil)
			_ = l.Close()
		}), class: "connect", least: 1},

		{name: "refuses each stream", group: "RST_STREAM", alpn: "h2", serve: resets(http2.ErrCodeRefusedStream), class: "connect", least: 1},
		{name: "resets each stream without an error", group: "RST_STREAM", alpn: "h2", serve: resets(http2.ErrCodeNo), class: "connect", least: 1},
		{name: "resets each stream by a code that is none", group: "RST_STREAM", alpn: "h2", serve: resets(0xffffffff), class: "connect", least: 1},
		{name: "resets each stream for HTTP/1.1", group: "RST_STREAM", alpn: "h2", serve: resets(http2.ErrCodeHTTP11Required), class: "connect", least: 1},
		{name: "resets a stream in the body of a success", group: "RST_STREAM", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, stream uint32) {
			if ok(fr, stream, false) && fr.WriteData(stream, false, []byte("x")) == nil {
				_ = fr.WriteRSTStream(stream, http2.ErrCodeInternal)
			}
		}), class: "ok", status: 200, least: 1},
		{name: "resets a stream that is not there", group: "RST_STREAM", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteRSTStream(stream+100, http2.ErrCodeCancel)
			ok(fr, stream, true)
		}), class: "ok", status: 200, least: 1},

		{name: "floods with frames of no known type", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			flood(l, func(fr *http2.Framer) error { return fr.WriteRawFrame(0xbe, 0, 0, make([]byte, 1000)) })
		}), class: "protocol", text: "far more", or: "timeout|connect", least: 1},
		{name: "floods with SETTINGS", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			flood(l, func(fr *http2.Framer) error {
				return fr.WriteSettings(slices.Repeat([]http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 14}}, 100)...)
			})
		}), class: "protocol", text: "far more", or: "timeout|connect", least: 1},
		{name: "floods with PING", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			flood(l, func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{1}) })
		}), class: "protocol", text: "far more", or: "timeout|connect", least: 1},
		{name: "floods with PING and reads none of the answers", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			l.repeat(framed(func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{1}) }), 0)
		}), class: "timeout", or: "connect", least: 1},
		{name: "floods with empty DATA", waits: true, group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			ok(fr, stream, false)
			flood(l, func(fr *http2.Framer) error { return fr.WriteData(stream, false, nil) })
		}), class: "ok", status: 200, least: 1},
		{name: "floods with WINDOW_UPDATE", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			flood(l, func(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, 1<<30) })
		}), class: "protocol", least: 1},
		{name: "floods with interim answers", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, stream uint32) {
			flood(l, func(fr *http2.Framer) error {
				return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "103", "link", "</a>; rel=preload"), EndHeaders: true})
			})
		}), class: "protocol", or: "timeout|connect", least: 1},
		{name: "floods with CONTINUATION", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200")})
			flood(l, func(fr *http2.Framer) error {
				return fr.WriteContinuation(stream, false, block("x-a", strings.Repeat("b", 1000)))
			})
		}), class: "protocol", least: 1},
		{name: "floods with empty CONTINUATION", group: "HTTP/2 floods", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200")})
			flood(l, func(fr *http2.Framer) error { return fr.WriteContinuation(stream, false, nil) })
		}), class: "protocol", text: "far more", or: "timeout|connect", least: 1},

		{name: "never opens the window of a stream", group: "flow control", alpn: "h2", body: 500 << 10,
			serve: frames([]http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(*rogueLine, *http2.Framer, uint32) {}), class: "timeout", or: "connect"},
		{name: "never opens the window of a connection", group: "flow control", alpn: "h2", body: 500 << 10,
			serve: each(func(*rogueLine, *http2.Framer, uint32) {}), class: "timeout", or: "connect"},
		{name: "opens the window byte by byte", group: "flow control", alpn: "h2", body: 500 << 10,
			serve: func(l *rogueLine) {
				fr, ok := l.preface([]http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}})
				if !ok {
					return
				}
				go l.hang()
				for fr.WriteWindowUpdate(1, 1) == nil && l.rest(5*time.Millisecond) {
				}
			}, class: "timeout"},
		{name: "allows for no stream", group: "flow control", alpn: "h2",
			serve: frames([]http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, func(*rogueLine, *http2.Framer, uint32) {}), class: "timeout", or: "connect"},
		{name: "sends more than the window", group: "flow control", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			ok(fr, stream, false)
			data := make([]byte, 16<<10)
			flood(l, func(fr *http2.Framer) error { return fr.WriteData(stream, false, data) })
		}), class: "ok", status: 200, least: 1}, // of a stream that has ended the transport drops what comes

		{name: "a header that unpacks to gigabytes (HPACK)", group: "giant headers", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: packed(), EndHeaders: true})
		}), class: "protocol", least: 1},
		{name: "a header that is no HPACK", group: "no HTTP", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
			l.hang()
		}), class: "protocol", least: 1},
		{name: "an answer without a status", group: "no HTTP", alpn: "h2", serve: each(func(_ *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block("x-a", "b"), EndHeaders: true})
		}), class: "protocol", least: 1},
		{name: "a frame longer than its bound", group: "no HTTP", alpn: "h2", serve: each(func(l *rogueLine, _ *http2.Framer, _ uint32) {
			head := make([]byte, 9)
			binary.BigEndian.PutUint32(head, 0xffffff<<8)
			l.say(string(head))
			l.repeat(strings.Repeat("x", 10_000), 0)
		}), class: "protocol", least: 1},
		{name: "HTTP/1.1 where HTTP/2 was agreed", group: "no HTTP", alpn: "h2", serve: func(l *rogueLine) {
			l.say(created)
			l.hang()
		}, class: "protocol|connect"}, // which of both the transport sees first is chance
		{name: "a push that nobody has asked for", group: "no HTTP", alpn: "h2", serve: each(func(l *rogueLine, fr *http2.Framer, stream uint32) {
			_ = fr.WritePushPromise(http2.PushPromiseParam{StreamID: stream, PromiseID: 2, BlockFragment: block(":method", "GET"), EndHeaders: true})
			l.hang()
		}), class: "protocol", least: 1},
	}
}

// framed returns some frames as they are on the wire.
func framed(step func(*http2.Framer) error) string {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	for range 100 {
		if err := step(fr); err != nil {
			panic(err) // our own frames
		}
	}
	return b.String()
}

func resets(code http2.ErrCode) func(*rogueLine) {
	return frames(nil, func(_ *rogueLine, fr *http2.Framer, stream uint32) { _ = fr.WriteRSTStream(stream, code) })
}

// packed is a block of header fields that is small and means a gigabyte: one field of nearly 4 KiB enters the dynamic
// table, and is named again and again by one byte each (RFC 7541, section 6.1).
func packed() []byte {
	var b strings.Builder
	b.WriteByte(0x88) // :status 200
	b.WriteByte(0x40) // a new field, into the table
	for _, text := range []string{"x-a", strings.Repeat("b", 4000)} {
		writeLength(&b, len(text))
		b.WriteString(text)
	}
	b.WriteString(strings.Repeat("\xbe", 12<<10)) // the first of the dynamic table: 12,000 times 4,000 bytes in one frame
	return []byte(b.String())
}
