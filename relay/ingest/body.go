package ingest

import (
	"errors"
	"io"
	"net/http"
	"os"

	"github.com/postern-relay/postern/relay/problem"
)

const (
	// freeBody is what each request may read without asking for its share of BodyMemory, so that small posts go on
	// while large ones take all of it.
	freeBody = 16 << 10

	// firstBody is the first buffer for a body of unknown or large size. Memory follows what has come, not what was
	// announced.
	firstBody = 64 << 10
)

// readBody reads the whole body. The caller calls release, which is never nil, when it needs the body no more; a
// further call does nothing.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	limit := h.maxBody()
	release = func() {}
	// Judged before reading: net/http asks for the body of an "Expect: 100-continue" with the first read.
	if r.ContentLength > limit {
		return nil, release, tooLarge(limit)
	}
	if r.ContentLength == 0 {
		return nil, release, nil
	}
	if 0 < r.ContentLength && r.ContentLength <= freeBody {
		body = make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, release, unreadable(err)
		}
		return body, release, nil
	}

	var taken int64
	release = func() {
		h.load().bodies.Add(-taken)
		taken = 0
	}
	in := http.MaxBytesReader(w, r.Body, limit)
	buf := make([]byte, 0, freeBody)
	for {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, release, nil
		}
		if err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				return nil, release, tooLarge(limit)
			}
			return nil, release, unreadable(err)
		}
		if len(buf) < cap(buf) {
			continue
		}
		size := max(int64(firstBody), 2*int64(cap(buf)))
		if announced := r.ContentLength; announced >= 0 && announced < 2*size {
			size = announced + 1 // one more, to see the end without growing again
		}
		if !h.takeMemory(size - taken) {
			return nil, release, noMemory()
		}
		taken = size
		buf = append(make([]byte, 0, size), buf...)
	}
}

func (h *Handler) maxBody() int64 {
	if h.MaxBody <= 0 {
		return defaultMaxBody
	}
	return h.MaxBody
}

// takeMemory takes bytes of BodyMemory, if so many are left.
func (h *Handler) takeMemory(n int64) bool {
	most := h.BodyMemory
	if most <= 0 {
		most = 64 * max(h.MaxBody, defaultMaxBody)
	}
	if h.load().bodies.Add(n) > most {
		h.load().bodies.Add(-n)
		return false
	}
	return true
}

var errNoMemory = errors.New("bodies take all of the memory that they may")

func noMemory() error {
	e := problem.New(http.StatusServiceUnavailable, "too many large bodies come in at once; try again soon").
		RetryAfter(retryMemory).Closing()
	e.Cause = errNoMemory
	return e
}

func tooLarge(limit int64) error {
	return problem.New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes (listen.max_body); send less",
		limit).Closing()
}

// unreadable says why a body could not be read to its end.
func unreadable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return problem.New(http.StatusRequestTimeout, "the body did not come in time; send it faster").Closing()
	}
	return problem.New(http.StatusBadRequest, "the body ended early or is not properly chunked; nothing was accepted").Closing()
}
