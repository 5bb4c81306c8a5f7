package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	maxReplay     = 100_000         // deliveries in one request
	maxUnasked    = 100             // as many are replayed without being told how many they are (T37)
	replayAtOnce  = 16              // transactions at a time: the engine syncs them together
	maxReplayTime = 5 * time.Minute // of one request
)

// BulkReplay says which ended deliveries are to be replayed.
type BulkReplay struct {
	// Filter chooses them; those that are pending are left alone.
	Filter DeliveryFilter `json:"filter,omitzero"`
	// DryRun counts and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
	// ExpectCount is what a dry run has counted: nothing is replayed if the count differs now. Above 100, and without a
	// filter, it is required.
	ExpectCount *int `json:"expect_count,omitempty" jsonschema:"minimum=0"`
}

// BulkReplayed is what came of it.
type BulkReplayed struct {
	// Matched deliveries that have ended and pass the filter.
	Matched int `json:"matched"`
	// Replayed of them. It is less than matched after a dry run, if some were deleted or replayed by others meanwhile, if
	// the bodies of some are not kept, or if time ran out after five minutes.
	Replayed int `json:"replayed"`
	// Capped means that there are more than the 100,000 latest, which are left for a further request.
	Capped bool `json:"capped"`
}

// bulkReplay replays what a filter chooses, the oldest first. It ends with the request: who hangs up stops it.
func (h *Handler) bulkReplay(ctx context.Context, in input[none, BulkReplay]) (BulkReplayed, error) {
	filter, err := h.filter(in.Body.Filter)
	if err != nil {
		return BulkReplayed{}, err
	}
	if filter.State == store.Pending {
		return BulkReplayed{}, problem.New(http.StatusBadRequest, "the filter wants pending deliveries; only those that have ended are replayed")
	}
	if in.Body.Filter == (DeliveryFilter{}) && in.Body.ExpectCount == nil && !in.Body.DryRun {
		return BulkReplayed{}, problem.New(http.StatusBadRequest, "without a filter all that has ended is replayed, also what was "+
			"delivered; write \"filter\", or count first with \"dry_run\": true and send the count as \"expect_count\"")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxReplayTime, errReplayTime)
	defer cancel()
	chosen, capped, err := h.ended(ctx, filter)
	switch {
	case errors.Is(context.Cause(ctx), errReplayTime):
		return BulkReplayed{}, &problem.Error{
			Status: http.StatusServiceUnavailable, Cause: err,
			Detail: fmt.Sprintf("it took more than %v to count what the filter chooses, and nothing was replayed; choose fewer by since and until", maxReplayTime),
		}
	case err != nil:
		return BulkReplayed{}, refused(fmt.Errorf("list deliveries: %w", err))
	}
	out := BulkReplayed{Matched: len(chosen), Capped: capped}
	if in.Body.DryRun {
		return out, nil
	}
	if expected := in.Body.ExpectCount; expected == nil && len(chosen) > maxUnasked || expected != nil && *expected != len(chosen) {
		return BulkReplayed{}, problem.New(http.StatusConflict, "the filter chooses %d deliveries; if that is what you want, "+
			"send the request again with \"expect_count\": %d", len(chosen), len(chosen))
	}
	slices.Reverse(chosen) // the list is the latest first
	out.Replayed, err = h.replayAll(ctx, chosen)
	if err != nil && !errors.Is(context.Cause(ctx), errReplayTime) {
		err = refused(err)
		if p, ok := errors.AsType[*problem.Error](err); ok {
			p.Detail = fmt.Sprintf("%d of %d deliveries were replayed, then: %s", out.Replayed, out.Matched, p.Detail)
		}
		return BulkReplayed{}, err
	}
	return out, nil
}

var errReplayTime = fmt.Errorf("a replay takes at most %v", maxReplayTime)

// choice is a delivery that is to be replayed, as it was when it was counted.
type choice struct {
	id    store.DeliveryID
	round int
}

// ended returns the deliveries that pass a filter and have ended, the latest first, and whether there are more.
func (h *Handler) ended(ctx context.Context, f store.Filter) (chosen []choice, capped bool, err error) {
	for place := (store.Place{}); ; {
		found, next, err := h.Records.Deliveries(ctx, f, place, maxPage)
		if err != nil {
			return nil, false, err
		}
		for _, d := range found {
			if !d.State.Ended() {
				continue
			}
			if len(chosen) == maxReplay {
				return chosen, true, nil
			}
			chosen = append(chosen, choice{d.ID, d.Round})
		}
		if next == (store.Place{}) {
			return chosen, false, nil
		}
		place = next
	}
}

// replayAll replays deliveries in their order, but for the few that are replayed together, and returns how many it
// did.
func (h *Handler) replayAll(ctx context.Context, chosen []choice) (int, error) {
	var done atomic.Int64
	for together := range slices.Chunk(chosen, replayAtOnce) {
		if err := ctx.Err(); err != nil {
			return int(done.Load()), err
		}
		group, ctx := errgroup.WithContext(ctx)
		for _, c := range together {
			group.Go(func() error {
				replayed, err := h.replayChosen(ctx, c)
				if replayed {
					done.Add(1)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return int(done.Load()), err
		}
	}
	return int(done.Load()), nil
}

// replayChosen replays a delivery, unless it was swept, its body is not kept, or somebody else has replayed it since it was counted: to replay
// thousands takes a while, and who asked for them did not ask for one of them twice.
func (h *Handler) replayChosen(ctx context.Context, c choice) (bool, error) {
	now, err := h.Records.Delivery(ctx, c.id)
	if err == nil && now.Round != c.round {
		return false, nil
	}
	if err == nil {
		now, err = h.replayWhole(ctx, c.id)
	}
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, errReduced):
		return false, nil
	case err != nil:
		return false, err
	}
	h.Changes.Delivery(now)
	return true, nil
}
