package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Exporter reads all messages at one moment, in a form that knows nothing of an engine. Like Importer it is no part of
// Store: what does both is a command, for a store that no relay works on.
type Exporter interface {
	// Export yields each message of which a delivery passes f (without any delivery: which f lets pass by its times
	// alone), as all of them were at one moment. They come in the order of their ids, but for one thing: of each line,
	// whatever stands before another comes before it, so that whoever puts them in line as they come has the order of
	// the line. What is yielded is good until the next. f.Text is not looked at.
	//
	// A message of which a record is damaged is left out, and so is an attempt that is; damaged tells of each. Any error
	// that is yielded ends it: ErrClosed, ErrBroken, an end of ctx.
	Export(ctx context.Context, f Filter, damaged func(error)) iter.Seq2[Exported, error]
}

// Importer takes in what an Exporter has read.
type Importer interface {
	// CheckImport returns ErrInvalid, ErrBadID or ErrTooLarge, wrapped, for a message that Import would refuse, whatever
	// else is stored.
	CheckImport(x Exported) error

	// Import writes messages with all that belongs to them, and returns when they are on disk. Of a message whose id is
	// there already nothing is written. A crash leaves each message whole or not at all, and those that came before
	// others before those: so it can be repeated with the same messages. The bound of pending deliveries does not hold,
	// since they have been accepted. A delivery that stands in a line comes behind those that stand in it already; one
	// that is Blocking blocks only if it is the first.
	//
	// An idempotency key that another message has is not taken from it.
	//
	// An error that messages yields ends it and is returned as it is. Others are those of CheckImport, ErrNoSpace,
	// ErrClosed, ErrBroken and an end of ctx. Imported counts what has been written then.
	Import(ctx context.Context, messages iter.Seq2[Exported, error]) (Imported, error)
}

// Exported is a message with all that belongs to it.
type Exported struct {
	Message Message
	Body    []byte // what Load returns

	// Deliveries are those of Message.Recipients, in their order.
	Deliveries []ExportedDelivery
}

// ExportedDelivery is a delivery with its attempts.
type ExportedDelivery struct {
	Delivery
	History []Attempt // oldest first

	// Omitted is how many attempts are on record and not in History, older than those: there is a bound, MaxHistory.
	Omitted int
}

// MaxHistory bounds the attempts of one message in an export, in bytes. That of the deliveries in turn, and of each the
// latest attempts, are taken until there is no more room.
const MaxHistory = 32 << 20

// attemptOverhead is what an attempt counts for besides its texts, generously.
const attemptOverhead = 512

// weight is what an attempt counts for.
func (a Attempt) weight() int {
	n := attemptOverhead + len(a.Error) + len(a.Peer) + len(a.Body) + len(a.Request.URL) + len(a.Request.Body)
	for name, values := range a.Header {
		for _, v := range values {
			n += len(name) + len(v) + 32
		}
	}
	for _, f := range a.Request.Header {
		n += len(f.Name) + len(f.Value) + 32
	}
	return n
}

// HistoryRoom is how much room is left for the attempts of a message. NewHistoryRoom makes one for each message.
type HistoryRoom struct{ left int }

// NewHistoryRoom returns room for MaxHistory bytes.
func NewHistoryRoom() *HistoryRoom { return &HistoryRoom{left: MaxHistory} }

// Take returns the latest of a delivery's attempts, which come oldest first, as far as there is room, and how many it
// has left out. It never holds much more than there is room for. An error of attempts ends it.
func (r *HistoryRoom) Take(attempts iter.Seq2[Attempt, error]) (history []Attempt, omitted int, err error) {
	used := 0
	for a, err := range attempts {
		if err != nil {
			return nil, 0, err
		}
		history = append(history, a)
		used += a.weight()
		for used > r.left {
			used -= history[0].weight()
			history[0] = Attempt{}
			history = history[1:]
			omitted++
		}
	}
	r.left -= used
	return history, omitted, nil
}

// Passes reports whether a message is exported: one of its deliveries passes f, or it has none and f asks for nothing
// that only a delivery has.
func (x Exported) Passes(f Filter) bool {
	f.Text = ""
	for _, d := range x.Deliveries {
		if f.Match(d.Delivery, x.Message) {
			return true
		}
	}
	if len(x.Deliveries) > 0 || f.Destination != "" || f.State != 0 || f.Class != 0 {
		return false
	}
	return f.Match(Delivery{Event: x.Message.Event, AcceptedAt: x.Message.AcceptedAt}, x.Message)
}

// Imported counts what became of the messages of an import.
type Imported struct {
	Messages   int64 `json:"messages"`   // that were written
	Existing   int64 `json:"existing"`   // that were there already
	Deliveries int64 `json:"deliveries"` // of those that were written, like what follows
	Pending    int64 `json:"pending"`    // deliveries
	Attempts   int64 `json:"attempts"`   // on record
	// KeysTaken are messages whose idempotency key another message has: the app's next post under it means that one.
	KeysTaken int64 `json:"keys_taken"`
	// Unblocked are failed deliveries that held up their line, and do not since others stood in it before them.
	Unblocked int64 `json:"unblocked"`
}

// Add adds what has become of more messages.
func (n *Imported) Add(more Imported) {
	n.Messages += more.Messages
	n.Existing += more.Existing
	n.Deliveries += more.Deliveries
	n.Pending += more.Pending
	n.Attempts += more.Attempts
	n.KeysTaken += more.KeysTaken
	n.Unblocked += more.Unblocked
}

// Count counts a message that has been written.
func (n *Imported) Count(x Exported) {
	n.Messages++
	n.Deliveries += int64(len(x.Deliveries))
	for _, d := range x.Deliveries {
		n.Attempts += int64(len(d.History))
		if d.State == Pending {
			n.Pending++
		}
	}
}

// ErrExport says that what is to be imported is no export, or not a whole one. An *ExportError says where.
var ErrExport = errors.New("not a whole export of Postern")

// ExportError is what is wrong with an export. It is an ErrExport.
type ExportError struct {
	Line int // from 1
	Err  error
}

func (e *ExportError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns ErrExport and the cause.
func (e *ExportError) Unwrap() []error { return []error{ErrExport, e.Err} }
