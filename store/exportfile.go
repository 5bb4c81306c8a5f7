package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// maxExportLine is the most bytes of a line: a body of 64 MiB and MaxHistory, each of which takes up to twice its size in
// JSON, and the largest other parts of a message.
const maxExportLine = 256 << 20

// maxExportObjects is the most JSON objects in a line: those of as many attempts and fields as MaxHistory has room for, and
// of a message. In memory an empty one, of three bytes in the file, takes some hundreds.
const maxExportObjects = 2 << 20

// ExportOptions say what is exported.
type ExportOptions struct {
	Filter Filter    // of it Destination, State, Since and Until
	At     time.Time // when it is; required

	// Damaged is told of each record that could not be read and is left out. nil means nobody is.
	Damaged func(error)

	// Progress is told after each message how many were written. nil means nobody is.
	Progress func(messages int64)
}

// WriteExport writes all that e exports to w, one JSON object a line. It holds one message at a time.
func WriteExport(ctx context.Context, w io.Writer, e Exporter, o ExportOptions) (counts ExportCounts, err error) {
	sum := sha256.New()
	out := bufio.NewWriterSize(w, 64<<10)
	line := newLineWriter(io.MultiWriter(out, sum))
	f := o.Filter
	header := ExportHeader{
		Format: exportFormat, Version: exportVersion, ExportedAt: at(o.At),
		Filter: ExportFilter{Destination: f.Destination, State: stateNames[f.State], Since: f.Since.UTC(), Until: f.Until.UTC()},
	}
	if err := line.Encode(header); err != nil {
		return counts, fmt.Errorf("export: %w", err)
	}
	damaged := func(err error) {
		counts.Damaged++
		if o.Damaged != nil {
			o.Damaged(err)
		}
	}
	for x, err := range e.Export(ctx, f, damaged) {
		if err != nil {
			return counts, fmt.Errorf("export: %w", err)
		}
		m := messageOut(x, func(d Delivery) bool { return !f.Match(d, x.Message) })
		if err := line.Encode(m); err != nil {
			return counts, fmt.Errorf("export message %s: %w", x.Message.ID, err)
		}
		counts.count(m)
		if o.Progress != nil {
			o.Progress(counts.Messages)
		}
	}
	end := exportEnd{ExportCounts: counts, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if err := errors.Join(newLineWriter(out).Encode(end), out.Flush()); err != nil {
		return counts, fmt.Errorf("export: %w", err)
	}
	return counts, nil
}

func newLineWriter(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

func (c *ExportCounts) count(m exportMessage) {
	c.Messages++
	c.Deliveries += int64(len(m.Deliveries))
	for _, d := range m.Deliveries {
		c.Attempts += int64(len(d.History))
		c.Omitted += int64(d.HistoryOmitted)
		switch {
		case d.LeftOut:
			c.LeftOut++
		case d.State == Pending.String():
			c.Pending++
		}
	}
}

// ExportReader reads what WriteExport wrote. ReadExport makes one.
type ExportReader struct {
	in     *bufio.Reader
	sum    hash.Hash
	buf    []byte
	line   int // the one read last, from 1
	header ExportHeader
	counts ExportCounts
}

// ReadExport reads the first line of an export. An error is an *ExportError, or that of r.
func ReadExport(r io.Reader) (*ExportReader, error) {
	e := &ExportReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	raw, last, err := e.next()
	if err != nil {
		return nil, err
	}
	// Not strictly: whatever else is in the line of another version, that it is one is what to say.
	if err := json.Unmarshal(raw, &e.header); err != nil || e.header.Format != exportFormat {
		return nil, e.bad(errors.New("it is not the first line of an export, which begins " + `{"format":"` + exportFormat + `"`))
	}
	switch {
	case e.header.Version != exportVersion:
		return nil, e.bad(fmt.Errorf("the export is of version %d, and this program reads version %d", e.header.Version, exportVersion))
	case e.header.ExportedAt.IsZero():
		return nil, e.bad(invalid("exported_at", "it is missing"))
	case last:
		return nil, e.bad(errCut)
	}
	_, _ = e.sum.Write(raw)
	return e, nil
}

var errEnded = errors.New("the export ends here, and something follows; import several exports one after the other")

var errCut = errors.New("the export is cut off here: its last line, with the counts, is missing")

// Header returns the first line.
func (e *ExportReader) Header() ExportHeader { return e.header }

// Counts returns what has been read so far, and after the end what the last line says.
func (e *ExportReader) Counts() ExportCounts { return e.counts }

// Messages yields the messages, checked by CheckExported, and an error at their end if the export is not whole: an
// *ExportError, or that of the reader. It can be used once.
func (e *ExportReader) Messages() iter.Seq2[Exported, error] {
	return func(yield func(Exported, error) bool) {
		for {
			raw, last, err := e.next()
			if err == nil && last {
				err = e.end(raw)
			}
			if err != nil {
				yield(Exported{}, err)
				return
			}
			if last {
				return
			}
			m, x, err := e.message(raw)
			if err != nil {
				yield(Exported{}, e.bad(err))
				return
			}
			_, _ = e.sum.Write(raw)
			e.counts.count(m)
			if !yield(x, nil) {
				return
			}
		}
	}
}

// message reads one line.
func (e *ExportReader) message(raw []byte) (m exportMessage, x Exported, err error) {
	if countObjects(raw) > maxExportObjects {
		return m, x, fmt.Errorf("it has more than %d JSON objects: %w", maxExportObjects, ErrTooLarge)
	}
	if err := decodeLine(raw, &m); err != nil {
		var end exportEnd
		if decodeLine(raw, &end) == nil && end.SHA256 != "" {
			err = errEnded
		}
		return m, x, err
	}
	p := parser{exportedAt: at(e.header.ExportedAt)}
	x, err = p.message(m)
	return m, x, err
}

// CheckExport reads an export to its end, and returns its header and counts. check is called for each message, as a rule
// an Importer's CheckImport; progress is told after each how many have been read, and may be nil.
func CheckExport(ctx context.Context, r io.Reader, check func(Exported) error, progress func(messages int64)) (ExportHeader, ExportCounts, error) {
	e, err := ReadExport(r)
	if err != nil {
		return ExportHeader{}, ExportCounts{}, err
	}
	for x, err := range e.Messages() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return e.header, e.counts, err
		}
		if err := check(x); err != nil {
			return e.header, e.counts, e.bad(err)
		}
		if progress != nil {
			progress(e.counts.Messages)
		}
	}
	return e.header, e.counts, nil
}

func (e *ExportReader) bad(err error) error { return &ExportError{Line: e.line, Err: err} }

// next returns the next line with its end, and whether it is the last. It is good until the next call.
func (e *ExportReader) next() (raw []byte, last bool, err error) {
	e.line++
	e.buf = e.buf[:0]
	for {
		piece, err := e.in.ReadSlice('\n')
		if len(e.buf)+len(piece) > maxExportLine {
			return nil, false, e.bad(fmt.Errorf("it is longer than %d bytes: %w", maxExportLine, ErrTooLarge))
		}
		e.buf = append(e.buf, piece...)
		switch {
		case err == nil:
			_, err := e.in.Peek(1)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, false, fmt.Errorf("read export: %w", err)
			}
			return e.buf, err != nil, nil
		case errors.Is(err, io.EOF):
			return nil, false, e.bad(errCut)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, fmt.Errorf("read export: %w", err)
		}
	}
}

// countObjects returns how many objects there are in a JSON text.
func countObjects(raw []byte) (n int) {
	inText := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case c == '{' && !inText:
			n++
		}
	}
	return n
}

// decodeLine reads one JSON object that has no other fields.
func decodeLine(raw []byte, v any) error {
	if !utf8.Valid(raw) {
		return errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// end checks the last line.
func (e *ExportReader) end(raw []byte) error {
	var end exportEnd
	if err := decodeLine(raw, &end); err != nil || end.SHA256 == "" {
		return e.bad(errCut)
	}
	if got := hex.EncodeToString(e.sum.Sum(nil)); got != end.SHA256 {
		return e.bad(errors.New("the SHA-256 of the lines before it is another than it says: the export has been changed"))
	}
	e.counts.Damaged = end.Damaged
	if e.counts != end.ExportCounts {
		return e.bad(fmt.Errorf("it says %+v, and there are %+v", end.ExportCounts, e.counts))
	}
	return nil
}
