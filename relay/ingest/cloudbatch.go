package ingest

import (
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/relay/problem"
)

// serveCloudBatch takes a JSON array of events (HTTP binding, section 3.3). It may be empty.
func (h *Handler) serveCloudBatch(w http.ResponseWriter, r *http.Request, head header) error {
	in, err := openSeveral(w, r)
	if err != nil {
		return err
	}
	memory := &share{h: h}
	defer memory.release()
	head.contentType = cloudJSONType
	s := several{h: h, place: "event", key: cloudKey, span: head.span, caller: head.caller, parts: newCloudBatch(in, head, h.maxBody(), memory)}
	return s.serve(w, r)
}

// cloudBatch reads the events of a batch.
type cloudBatch struct {
	in      *partReader
	dec     *jsontext.Decoder
	head    header
	maxBody int64
	begun   bool
	read    int // events so far
}

func newCloudBatch(in io.Reader, head header, maxBody int64, memory *share) *cloudBatch {
	b := &cloudBatch{in: &partReader{in: in, limit: maxBody + partSlop, memory: memory}, head: head, maxBody: maxBody}
	b.dec = jsontext.NewDecoder(b.in)
	b.in.dec = b.dec
	return b
}

func (b *cloudBatch) next() (in incoming, place int, err error) {
	if !b.begun {
		b.begun = true
		if kind := b.dec.PeekKind(); kind != jsontext.KindBeginArray && kind != jsontext.KindInvalid {
			return incoming{}, 0, problem.New(http.StatusBadRequest, "the batch is %s; send a JSON array of events", kindText(kind))
		}
		if _, err := b.dec.ReadToken(); err != nil {
			return incoming{}, 0, b.failed(err)
		}
	}
	if b.dec.PeekKind() == jsontext.KindEndArray {
		if _, err := b.dec.ReadToken(); err != nil {
			return incoming{}, 0, b.failed(err)
		}
		if _, err := b.dec.ReadToken(); err != io.EOF {
			if err == nil {
				err = errors.New("something follows the array")
			}
			return incoming{}, 0, b.failed(err)
		}
		return incoming{}, 0, io.EOF
	}
	b.read++
	raw, err := b.dec.ReadValue()
	if err != nil {
		return incoming{}, b.read, b.failed(err)
	}
	if int64(len(raw)) > b.maxBody {
		return incoming{}, b.read, problem.New(http.StatusRequestEntityTooLarge, "it is larger than %d bytes (listen.max_body); send less",
			b.maxBody)
	}
	event, err := parseStructured(raw)
	if err != nil {
		return incoming{}, b.read, problem.New(http.StatusBadRequest, "%v", err)
	}
	event.contentType = cloudJSONType
	return event.incoming(b.head, raw), b.read, nil
}

// failed turns an error of the decoder into an answer.
func (b *cloudBatch) failed(err error) error {
	if answer, ok := errors.AsType[*problem.Error](err); ok {
		return answer
	}
	return problem.New(http.StatusBadRequest, "%v", badJSON(err))
}

// partReader hands a decoder no more bytes than the largest part has, counted from the end of the part before.
type partReader struct {
	in     io.Reader
	dec    *jsontext.Decoder
	limit  int64
	memory *share
	read   int64
}

func (p *partReader) Read(b []byte) (int, error) {
	open := p.read - p.dec.InputOffset()
	if open >= p.limit {
		return 0, problem.New(http.StatusRequestEntityTooLarge, "it is longer than %d bytes; send less", p.limit)
	}
	if int64(len(b)) > p.limit-open {
		b = b[:p.limit-open]
	}
	if err := p.memory.grow(2 * open); err != nil { // the decoder doubles its buffer
		return 0, err
	}
	n, err := p.in.Read(b)
	p.read += int64(n)
	return n, err
}
