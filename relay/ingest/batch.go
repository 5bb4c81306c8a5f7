package ingest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"mime"
	"net/http"

	"github.com/postern-relay/postern/relay/problem"
)

// jsonType is the content type of what a line of a batch brings.
const jsonType = "application/json"

// serveBatch takes POST /batch: a JSON object a line, each of which is one message.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, head header) error {
	if err := checkBatchHeader(head); err != nil {
		return err
	}
	in, err := openSeveral(w, r)
	if err != nil {
		return err
	}
	memory := &share{h: h}
	defer memory.release()
	s := several{h: h, place: "line", key: "id", span: head.span, caller: head.caller, parts: &batch{
		lines: lineReader{in: in, limit: int(h.maxBody()) + partSlop, memory: memory}, head: head, maxBody: h.maxBody(),
	}}
	return s.serve(w, r)
}

// checkBatchHeader refuses what a batch cannot honour as a whole.
func checkBatchHeader(head header) error {
	switch {
	case head.hasKey:
		return problem.New(http.StatusBadRequest, `Idempotency-Key is for single messages; give each line its own "id"`)
	case head.order != "":
		return problem.New(http.StatusBadRequest, `Postern-Key is for single messages; give each line its own "key"`)
	case head.timed:
		return problem.New(http.StatusBadRequest, `Postern-Delay and Postern-Deliver-At are for single messages; give each `+
			`line its own "delay" or "deliver_at"`)
	}
	if head.contentType == "" {
		return nil
	}
	switch media, _, _ := mime.ParseMediaType(head.contentType); media {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/jsonlines":
		return nil
	default:
		return problem.New(http.StatusUnsupportedMediaType, "Content-Type %.60q is not supported here; send one JSON object a line "+
			"as application/x-ndjson", head.contentType)
	}
}

// batch reads the lines of a batch.
type batch struct {
	lines   lineReader
	head    header
	maxBody int64
	read    int // messages so far
}

func (b *batch) next() (in incoming, place int, err error) {
	raw, err := b.lines.next()
	if err == io.EOF && b.read == 0 {
		return incoming{}, 0, problem.New(http.StatusBadRequest, `the batch is empty; send one object a line, such as `+
			`{"to":"alerts","data":{}}`)
	}
	if err == io.EOF {
		return incoming{}, 0, io.EOF
	}
	if err == nil {
		b.read++
		in, err = b.post(raw)
	}
	return in, b.lines.number, err
}

// post reads the message of a line.
func (b *batch) post(raw []byte) (incoming, error) {
	l, err := parseLine(raw)
	if err != nil {
		return incoming{}, problem.New(http.StatusBadRequest, "%v", err)
	}
	if int64(len(l.data)) > b.maxBody {
		return incoming{}, problem.New(http.StatusRequestEntityTooLarge, `"data" is larger than %d bytes (listen.max_body); send less`,
			b.maxBody)
	}
	in := incoming{
		post: Post{
			Destination: l.to, Event: l.event, Key: l.key, ContentType: jsonType, Body: l.data, Caller: b.head.caller,
		},
		timing: l.timing, hops: b.head.hops, always: b.head.trace, header: l.header,
	}
	if len(l.header[traceParent]) > 0 {
		in.always = b.head.span.contextOfPart(traceContext(l.header))
	}
	if l.id != "" {
		target := toPath + l.to
		if l.event != "" {
			target = eventsPath + l.event
		}
		in.idempotency = repeat{
			key: sha256.Sum256([]byte(l.id)), target: target, contentType: jsonType, order: l.key, bounded: bounded(b.head.caller),
		}.fingerprint(l.data)
	}
	return in, nil
}

// lineReader reads lines, all of them into one buffer. It begins small and grows with the longest line.
type lineReader struct {
	in     io.Reader
	limit  int    // most bytes of a line, with its end
	memory *share // that the buffer is taken from

	number     int    // of the line that was read last, from 1
	buf        []byte // what has been read
	start, end int    // of what has not been handed out
	seen       int    // up to where there is no line's end
	over       bool   // nothing more comes
}

// next returns the next line that is not empty, without its end, valid until the following call, or io.EOF.
func (l *lineReader) next() ([]byte, error) {
	for {
		if n := bytes.IndexByte(l.buf[l.seen:l.end], '\n'); n >= 0 {
			line := l.buf[l.start : l.seen+n]
			l.start = l.seen + n + 1
			l.seen = l.start
			l.number++
			if line = bytes.Trim(line, " \t\r"); len(line) > 0 {
				return line, nil
			}
			continue
		}
		l.seen = l.end
		if l.over {
			line := bytes.Trim(l.buf[l.start:l.end], " \t\r")
			l.start = l.end
			l.number++
			if len(line) > 0 {
				return line, nil
			}
			return nil, io.EOF
		}
		if err := l.fill(); err != nil {
			l.number++
			return nil, err
		}
	}
}

// fill reads more behind what there is.
func (l *lineReader) fill() error {
	if l.end == len(l.buf) {
		if err := l.room(); err != nil {
			return err
		}
	}
	n, err := l.in.Read(l.buf[l.end:])
	l.end += n
	if err == io.EOF {
		l.over = true
		return nil
	}
	return err
}

// room makes some at the end of the buffer.
func (l *lineReader) room() error {
	unread := l.buf[l.start:l.end]
	if len(unread) >= l.limit {
		return problem.New(http.StatusRequestEntityTooLarge, "it is longer than %d bytes; send less", l.limit)
	}
	if size := min(max(2*len(l.buf), freeBody), l.limit); len(unread) >= len(l.buf)/2 && size > len(l.buf) {
		if err := l.memory.grow(int64(size)); err != nil {
			return err
		}
		l.buf = make([]byte, size)
	}
	l.end = copy(l.buf, unread)
	l.start, l.seen = 0, l.end
	return nil
}
