package badgerstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-relay/postern/store"
)

// RecordAndAccept implements store.Queue. Both are one request to the committer, and so in one group, or the record is
// alone.
func (s *Store) RecordAndAccept(
	ctx context.Context, before, after store.Delivery, a store.Attempt, p store.Post,
) (recorded store.Recorded, err error) {
	if err := s.begin(ctx); err != nil {
		return store.Recorded{}, err
	}
	defer s.use.RUnlock()
	defer func() {
		if err != nil {
			recorded, err = store.Recorded{}, fmt.Errorf("record attempt of %s: %w", before.ID, err)
		}
	}()
	record, outcome, err := s.recordRequest(before, after, a)
	if err != nil {
		return store.Recorded{}, err
	}
	follow, refused := s.followRequest(record, p)
	if refused == nil {
		if err = s.submit(ctx, follow.both(record, outcome)); err == nil {
			refused = follow.refused
		} else if errors.Is(err, store.ErrTooLarge) {
			refused = err // the two together: each has been found small enough
		}
	}
	if follow == nil || errors.Is(err, store.ErrTooLarge) {
		err = s.submit(ctx, record)
	}
	if err == nil {
		err = outcome.err()
	}
	if err != nil {
		return store.Recorded{}, err
	}
	if recorded.Released = outcome.released; refused != nil {
		recorded.Refused = fmt.Errorf("accept message %s: %w", p.Message.ID, refused)
		return recorded, nil
	}
	recorded.Accepted = store.Accepted{Message: follow.message.Brief()}
	if earlier := *follow.earlier; earlier != nil {
		recorded.Accepted = store.Accepted{Message: earlier.Brief(), Existing: true}
	}
	return recorded, nil
}

// following is a message that is accepted with a record. Its fields but message are the committer's until it has answered.
type following struct {
	message store.Message
	accept  *request
	earlier **store.Message
	refused error // by the committer
}

// followRequest returns what is to be accepted with a record, or why that cannot be.
func (s *Store) followRequest(record *request, p store.Post) (*following, error) {
	if n := len(p.Body); n > store.MaxFollowUp {
		return nil, fmt.Errorf("body of %d bytes: %w", n, store.ErrTooLarge)
	}
	m, err := s.normal(p.Message, p.Body)
	if err != nil {
		return nil, err
	}
	r, earlier, err := s.acceptRequest(m, p.Body)
	if err != nil {
		return nil, err
	}
	if !s.fits(record.size+r.size, record.entries+r.entries) {
		return nil, fmt.Errorf("%d recipients beside a record of %d bytes: %w", len(m.Recipients), record.size, store.ErrTooLarge)
	}
	return &following{message: m, accept: r, earlier: earlier}, nil
}

// both returns a request for the record, and for the message if the record is made and nothing stands against it then.
func (f *following) both(record *request, outcome *recorded) *request {
	return &request{
		size: record.size + f.accept.size, entries: record.entries + f.accept.entries,
		stage: func(g *group) error {
			if err := record.stage(g); err != nil {
				return err
			}
			if outcome.overtaken == nil {
				f.refused = f.accept.stage(g)
			}
			return nil
		},
	}
}
