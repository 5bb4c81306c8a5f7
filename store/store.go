// Package store holds the records of Postern (message, delivery, attempt) and what every engine that keeps them
// promises. An engine is a [Store]; storetest.Run is the contract in the form of tests.
//
// The life of a record: Accept writes a message and its pending deliveries, Due hands deliveries out in order,
// Record writes each attempt together with the delivery's next state, and Sweep deletes a message with all that
// belongs to it once its last delivery has ended long enough ago.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Errors that callers act on. Engines wrap them.
var (
	ErrNotFound    = errors.New("not found")
	ErrKeyConflict = errors.New("idempotency key was used with another request")
	ErrBacklog     = errors.New("too many pending deliveries")
	ErrNoSpace     = errors.New("free disk space is below the reserve")
	ErrTooLarge    = errors.New("record is too large")
	ErrInvalid     = errors.New("record contradicts itself or is out of range")
	ErrStale       = errors.New("delivery has changed meanwhile")
	ErrClosed      = errors.New("store is closed")
	ErrBroken      = errors.New("store has failed and accepts nothing more")
	ErrBusy        = errors.New("store is busy with another call of the kind")
)

// Acceptor takes messages.
type Acceptor interface {
	// Accept writes m, its body and one pending delivery for each recipient, all or nothing, and returns when
	// they are on disk. It returns m, or the earlier message if m.Idempotency is known with the same content;
	// existing is true then, and nothing is written. m.ID is new, from NewMessageID. The engine sets Size, sets
	// AcceptedAt to now if it is zero, and does not keep body.
	//
	// Errors: ErrKeyConflict (the key is known with other content), ErrBacklog, ErrNoSpace, ErrTooLarge, ErrClosed,
	// ErrBroken. After an end of ctx the message may or may not have been stored.
	Accept(ctx context.Context, m Message, body []byte) (stored Message, existing bool, err error)

	// AcceptAll takes the messages of posts as Accept would, but all of them or none: a crash at any point leaves
	// none. It returns what became of each, in their order; a key that an earlier post of the same sequence has used
	// with the same content means that one. It writes while it reads, so that memory does not grow with the bodies, and
	// takes at most MaxPosts posts with MaxPosts deliveries together.
	//
	// An error that posts yields ends it and is returned as it is. What is wrong with one post is a *PostError around
	// the error that Accept would return. Others are those of Accept.
	AcceptAll(ctx context.Context, posts iter.Seq2[Post, error]) ([]Accepted, error)

	// Full returns the error that a new message would be refused with now (ErrNoSpace, ErrBacklog, ErrClosed,
	// ErrBroken), or nil. It neither blocks nor touches the disk: free space is as of a few seconds ago.
	Full() error
}

// MaxPosts bounds what AcceptAll takes at a time, in messages and in deliveries.
const MaxPosts = 10_000

// Post is one of several messages that are accepted together.
type Post struct {
	Message Message
	Body    []byte // the caller's again as soon as the next post is asked for
}

// Accepted is what became of one post.
type Accepted struct {
	// Message is the Brief of what is stored, the earlier message if Existing: 10,000 messages with all that an app may
	// send along would be too much to hold until the last is read.
	Message  Message
	Existing bool // its idempotency key was known, and nothing was written
}

// PostError says which of several posts is wrong.
type PostError struct {
	Index int // of the post, from 0
	Err   error
}

func (e *PostError) Error() string { return fmt.Sprintf("post %d: %v", e.Index, e.Err) }

func (e *PostError) Unwrap() error { return e.Err }

// Cursor is a place in the queue of a destination, which is ordered by due time, then id. The zero Cursor is the
// place before all.
type Cursor struct {
	DueAt time.Time // to the millisecond
	ID    DeliveryID
}

// Less reports whether c comes before other.
func (c Cursor) Less(other Cursor) bool {
	if !c.DueAt.Equal(other.DueAt) {
		return c.DueAt.Before(other.DueAt)
	}
	return string(c.ID[:]) < string(other.ID[:])
}

// Cursor returns the place of a pending delivery.
func (d Delivery) Cursor() Cursor { return Cursor{DueAt: d.DueAt, ID: d.ID} }

// Queue is what a lane needs: the pending deliveries of its destination.
type Queue interface {
	// Due returns up to limit pending deliveries of a destination, in queue order, from the first behind after.
	// It does not wait, and returns those due in the future too. The cost does not grow with what has ended.
	Due(ctx context.Context, destination string, after Cursor, limit int) ([]Delivery, error)

	// Record writes a and the state of its delivery after it, in one transaction, and returns when it is on disk.
	// before is the delivery as Due returned it. An a with Number 0 is no attempt: only the state is written, as when
	// the attempt is larger than what can be kept. Last is a's Outcome afterwards, or stays as it was without an attempt,
	// whatever before and after say. ErrStale: the stored delivery is no longer before, and nothing was written. One that
	// Expedite has only made due at another time is before all the same. Of one that Cancel or Replay has changed since, an
	// attempt is written and counts, and nothing else: *OvertakenError, which is an ErrStale.
	// Record works below the disk reserve, down to half of it, and with a full backlog; below that half it is ErrNoSpace.
	//
	// ErrTooLarge and ErrInvalid: this record can never be written, however often it is tried. Its round is from 1 to
	// MaxRound and its number from 1 to MaxAttempts, before, after and a are of one delivery, and neither a request, an
	// answer nor a reason is longer than the engine can keep.
	//
	// It does nothing for a delivery that stands behind the head of its line (ErrStale), and keeps Blocking only for a
	// failed one with an Order.
	//
	// When the delivery has ended and is not Blocking, the one behind it in its line becomes visible to Due; released
	// is that one, or the zero Delivery.
	Record(ctx context.Context, before, after Delivery, a Attempt) (released Delivery, err error)

	// RecordAndAccept is Record, and accepts a post in the same transaction: after a crash there are both or neither. The
	// record comes first. If the post cannot be accepted, it is written alone, and Recorded.Refused is the error that
	// Accept would return, ErrTooLarge also for a body of more than MaxFollowUp bytes or for what does not fit into one
	// transaction with the record. A returned error is one of Record, and neither is written then.
	RecordAndAccept(ctx context.Context, before, after Delivery, a Attempt, p Post) (Recorded, error)

	// Release lets go what stands behind Blocking deliveries of a destination, which are Blocking no longer then. It
	// does so for at most limit lines, and returns for how many it did.
	Release(ctx context.Context, destination string, limit int) (int, error)
}

// OvertakenError says that a delivery was canceled, or began another round, while an attempt of it was made: the attempt is
// on record, and the delivery is as Now. It is an ErrStale.
type OvertakenError struct{ Now Delivery }

func (e *OvertakenError) Error() string {
	return fmt.Sprintf("%s is %s in round %d meanwhile", e.Now.ID, e.Now.State, e.Now.Round)
}

// Unwrap returns ErrStale.
func (*OvertakenError) Unwrap() error { return ErrStale }

// MaxFollowUp is the most bytes of a body that RecordAndAccept accepts.
const MaxFollowUp = 64 << 10

// Recorded is what came of RecordAndAccept.
type Recorded struct {
	Released Delivery // as Record returns it
	Accepted Accepted // zero if Refused
	Refused  error    // why the post was not accepted; nil if it was
}

// Pauser keeps which destinations are paused, across restarts.
type Pauser interface {
	// Pause notes that a destination is paused. One that is paused already keeps its note.
	Pause(ctx context.Context, destination string, p Pause) error

	// Resume ends the pause of a destination, if there is one.
	Resume(ctx context.Context, destination string) error

	// Paused returns the destinations that are paused.
	Paused(ctx context.Context) (map[string]Pause, error)
}

// Pause is why a destination is held.
type Pause struct {
	At     time.Time // since when, to the millisecond
	Reason string    // for a person; engines cut it to MaxReason bytes
}

// MaxReason is the most bytes of a Pause's reason.
const MaxReason = 500

// OutageKeeper keeps which destinations are known to be out, across restarts.
type OutageKeeper interface {
	// NoteOutage notes what is known of a destination's outage, in place of what was noted before. The zero Outage
	// removes the note, also below the disk reserve.
	NoteOutage(ctx context.Context, destination string, o Outage) error

	// Outages returns what is noted. A note that cannot be read is as if it were not there.
	Outages(ctx context.Context) (map[string]Outage, error)
}

// Outage is why a destination is left alone for a while by itself. Its times are kept to the millisecond.
type Outage struct {
	Since     time.Time // when its breaker opened; zero if that is closed
	HeldUntil time.Time // its receiver has asked for no attempt before; zero if it has not
}

// Loader reads a message with its body.
type Loader interface {
	// Load returns ErrNotFound for an unknown id. The caller owns the body.
	Load(ctx context.Context, id MessageID) (Message, []byte, error)
}

// History reads what has happened.
type History interface {
	// Delivery returns ErrNotFound for an unknown id.
	Delivery(ctx context.Context, id DeliveryID) (Delivery, error)

	// Deliveries returns up to limit deliveries that pass f, the latest accepted first, from the first behind after; the
	// zero Place is before all. It looks at a bounded number of records: next, if it is not the zero Place, says where
	// to go on, and there may be more even if fewer than limit were found. The cost of a page is the same wherever it
	// begins.
	Deliveries(ctx context.Context, f Filter, after Place, limit int) (found []Delivery, next Place, err error)

	// Backlog returns what waits for each destination. One for which nothing is pending and no line is held up is not in
	// it. The cost grows with the destinations and, up to MaxBlocked, with the lines that are held up.
	Backlog(ctx context.Context) (map[string]Backlog, error)

	// Attempts returns the attempts of a delivery, oldest first, at most limit of them from the latest rounds.
	Attempts(ctx context.Context, id DeliveryID, limit int) ([]Attempt, error)

	// Pending returns the number of pending deliveries of all destinations. It costs nothing.
	Pending() int64

	// PendingDestinations returns the names of the destinations that have pending deliveries, sorted.
	PendingDestinations(ctx context.Context) ([]string, error)
}

// Filter says which deliveries are wanted. A field that is not set lets all pass.
type Filter struct {
	Destination string
	State       State
	Event       string
	Class       Class     // of the latest attempt
	Since       time.Time // accepted at this time or later
	Until       time.Time // accepted before this time

	// Text is contained in one of the ids, the event, the ordering key, the reason or the latest error, in any case of
	// letters. One that is the beginning of an id, msg_ or dlv_ and up to 32 hexadecimal digits, is looked for there
	// alone, and found at once.
	Text string
}

// Place is a place in the list of deliveries, which is ordered by acceptance, the latest first. It is opaque, and zero
// at both ends.
type Place struct{ ID DeliveryID }

// Backlog is what waits for one destination.
type Backlog struct {
	Pending int64     // those behind the heads of lines included
	DueAt   time.Time // of the first that Due returns; zero if there is none, as when all wait behind Blocking ones

	Blocked  int        // lines that a Blocking delivery holds up; of all destinations no more than MaxBlocked are counted
	Blocking DeliveryID // one of those deliveries; zero without any
}

// MaxBlocked is how many lines Backlog counts as held up.
const MaxBlocked = 10_000

// Steerer changes what becomes of deliveries, because a person asks for it. Each call is one transaction, and wakes
// nobody: the lane of the destination has to be told.
type Steerer interface {
	// Replay makes an ended delivery pending again in a new round, or begins the next round of a pending one, due at the
	// given time. It stands in no line then, unless it was Blocking: then it is the head of its line again. If it was
	// the head of a line and pending, the one behind it becomes visible to Due. Last stays. Errors: ErrNotFound,
	// ErrBacklog, ErrNoSpace (as for Accept), ErrTooLarge after MaxRound rounds.
	Replay(ctx context.Context, id DeliveryID, due time.Time) (Delivery, error)

	// Cancel ends a pending delivery as Canceled with a reason, cut to MaxReason bytes, wherever in its line it stands. Of
	// a Blocking one it lets go the line; that one stays Failed, and is Blocking no longer. ErrNotFound; ErrStale if it
	// has ended; ErrNoSpace as for Record. released is as in Queue.Record.
	Cancel(ctx context.Context, id DeliveryID, at time.Time, reason string) (canceled, released Delivery, err error)

	// Expedite makes a pending delivery due at the given time. ErrNotFound; ErrStale if it has ended or stands behind the
	// head of its line; ErrNoSpace as for Record.
	Expedite(ctx context.Context, id DeliveryID, due time.Time) (Delivery, error)

	// Reduce replaces the body of a message whose deliveries have all ended, for what the config does not want kept. nil
	// removes it. The message is Reduced then, and its Size stays that of the body as posted: a sender must not take
	// the rest for the body. ErrNotFound; ErrStale if a delivery is pending; ErrTooLarge for a body over MaxReduced
	// bytes. Of a message that is so large without its body that the engine cannot write both at one moment, it keeps
	// nothing of the body. The engine does not keep body.
	Reduce(ctx context.Context, id MessageID, body []byte) error
}

// MaxReduced is the most bytes of a body that Reduce puts in place of another.
const MaxReduced = 1 << 20

// Sweeper deletes what has outlived the retention.
type Sweeper interface {
	// Sweep deletes messages whose deliveries have all ended before the given time (a message without any
	// delivery counts from its acceptance), with everything that belongs to them. It looks at no more than limit
	// messages, at least 1, returns how many it deleted, and reports whether there may be more to do now. Each call gets
	// further, also one that deletes nothing since others of what it looked at are pending: calls come to an end without more.
	Sweep(ctx context.Context, before time.Time, limit int) (deleted int, more bool, err error)
}

// Store is the sum of the roles: what an engine implements.
type Store interface {
	Acceptor
	Queue
	Pauser
	OutageKeeper
	Loader
	History
	Steerer
	Sweeper
	Vault

	// Broken is closed when the engine cannot go on, after a failed sync for example: the process must end, since
	// what a further sync says about the same data means nothing. Err then tells why.
	Broken() <-chan struct{}
	Err() error

	// Close ends the engine. Calls in progress end first or with ErrClosed.
	Close() error
}
