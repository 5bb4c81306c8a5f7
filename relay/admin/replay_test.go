package admin_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// inTurn notes the order of replays.
type inTurn struct {
	*fake
	ids  chan store.DeliveryID
	fail error // of every replay
}

func (r inTurn) Replay(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	if r.fail != nil {
		return store.Delivery{}, r.fail
	}
	r.ids <- id
	return r.fake.Replay(ctx, id)
}

func failMany(t testing.TB, a *api, n int) []store.Delivery {
	t.Helper()
	var list []store.Delivery
	for range n {
		list = append(list, a.end(t, a.accept(t, store.Message{Event: "a.b"}, "{}", "alerts")[0], store.Failed, store.ClassStatus, 500))
	}
	return list
}

func TestBulkReplay(t *testing.T) {
	const filter = `"filter":{"state":"failed"}`
	t.Run("a dry run counts and changes nothing", func(t *testing.T) {
		a := newAPI(t)
		populate(t, a)
		got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{"dry_run":true}`)
		if got != (admin.BulkReplayed{Matched: 2}) || a.store.Pending() != 2 {
			t.Errorf("got %+v and %d pending; want the two that have ended, and both still ended", got, a.store.Pending())
		}
	})
	t.Run("what is pending is left alone", func(t *testing.T) {
		a := newAPI(t)
		_, _, pending, _ := populate(t, a)
		if status, answer := a.do(t, "POST", "/api/v1/replay", `{}`); status != 400 || !strings.Contains(answer, "without a filter") {
			t.Errorf("without filter and count: got %d %s, want 400", status, answer)
		}
		got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{"expect_count":2}`)
		if got != (admin.BulkReplayed{Matched: 2, Replayed: 2}) || a.store.Pending() != 4 {
			t.Errorf("got %+v and %d pending, want 2 of 2 and 4", got, a.store.Pending())
		}
		if d, err := a.store.Delivery(t.Context(), pending.ID); err != nil || d.Round != 1 {
			t.Errorf("got %+v, %v; want its first round", d, err)
		}
	})
	t.Run("up to 100 need no count, and the oldest comes first", func(t *testing.T) {
		a := newAPI(t)
		failed := failMany(t, a, 100)
		ids := make(chan store.DeliveryID, 200)
		a.Deliveries = inTurn{fake: a.relay, ids: ids}
		got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{`+filter+`}`)
		if got != (admin.BulkReplayed{Matched: 100, Replayed: 100}) {
			t.Errorf("got %+v, want 100 of 100", got)
		}
		place := map[store.DeliveryID]int{}
		for i, d := range failed {
			place[d.ID] = i
		}
		for n := range 100 {
			if at := place[<-ids]; at/16 != n/16 { // so many are replayed together
				t.Errorf("the replay number %d was of number %d, want them in the order of acceptance", n, at)
			}
		}
	})
	t.Run("more need the count of a dry run", func(t *testing.T) {
		a := newAPI(t)
		failMany(t, a, 101)
		for _, body := range []string{`{` + filter + `}`, `{` + filter + `,"expect_count":100}`} {
			status, answer := a.do(t, "POST", "/api/v1/replay", body)
			if status != 409 || !strings.Contains(answer, `\"expect_count\": 101`) || a.store.Pending() != 0 {
				t.Errorf("%s: got %d %s and %d pending, want 409 and nothing done", body, status, answer, a.store.Pending())
			}
		}
		count := 101
		got, err := a.client.ReplayAll(t.Context(), admin.BulkReplay{Filter: admin.DeliveryFilter{State: "failed"}, ExpectCount: &count})
		if err != nil || got != (admin.BulkReplayed{Matched: 101, Replayed: 101}) {
			t.Errorf("got %+v, %v; want all", got, err)
		}
	})
	t.Run("a count that is given must be right, however few they are", func(t *testing.T) {
		a := newAPI(t)
		failMany(t, a, 4)
		for _, count := range []string{"3", "0", "-1", "5"} {
			status, answer := a.do(t, "POST", "/api/v1/replay", `{`+filter+`,"expect_count":`+count+`}`)
			if status != 409 || !strings.Contains(answer, `\"expect_count\": 4`) || a.store.Pending() != 0 {
				t.Errorf("%s: got %d %s and %d pending, want 409 and nothing done", count, status, answer, a.store.Pending())
			}
		}
		got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{`+filter+`,"expect_count":4}`)
		if got != (admin.BulkReplayed{Matched: 4, Replayed: 4}) {
			t.Errorf("got %+v, want all", got)
		}
	})
	t.Run("what somebody else replays meanwhile is not replayed again", func(t *testing.T) {
		a := newAPI(t)
		failed := failMany(t, a, 3)
		a.Records = listed{Records: a.store, then: func() {
			if _, err := a.store.Replay(t.Context(), failed[1].ID, epoch()); err != nil {
				t.Error(err)
			}
		}}
		got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{`+filter+`}`)
		if got != (admin.BulkReplayed{Matched: 3, Replayed: 2}) {
			t.Errorf("got %+v, want the two others", got)
		}
		if d, err := a.store.Delivery(t.Context(), failed[1].ID); err != nil || d.Round != 2 {
			t.Errorf("got %+v, %v; want its second round", d, err)
		}
	})
	t.Run("what is gone meanwhile does not end it", func(t *testing.T) {
		a := newAPI(t)
		failMany(t, a, 3)
		a.Deliveries = inTurn{fake: a.relay, fail: fmt.Errorf("replay: %w", store.ErrNotFound)}
		if got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{`+filter+`}`); got != (admin.BulkReplayed{Matched: 3}) {
			t.Errorf("got %+v, want none of 3", got)
		}
	})
	t.Run("a full store ends it, and the answer tells how far it came", func(t *testing.T) {
		a := newAPI(t)
		failMany(t, a, 3)
		a.Deliveries = inTurn{fake: a.relay, fail: fmt.Errorf("replay: %w", store.ErrBacklog)}
		status, answer := a.do(t, "POST", "/api/v1/replay", `{`+filter+`}`)
		if status != 429 || !strings.Contains(answer, "0 of 3 deliveries were replayed, then: too many") {
			t.Errorf("got %d %s, want 429", status, answer)
		}
	})
}

// listed does something when a list has been read.
type listed struct {
	admin.Records
	then func()
}

func (l listed) Deliveries(ctx context.Context, f store.Filter, after store.Place, limit int) ([]store.Delivery, store.Place, error) {
	list, next, err := l.Records.Deliveries(ctx, f, after, limit)
	l.then()
	return list, next, err
}

// many lists more deliveries than one replay takes.
type many struct{ admin.Records }

func (many) Deliveries(_ context.Context, _ store.Filter, after store.Place, limit int) ([]store.Delivery, store.Place, error) {
	list := make([]store.Delivery, limit)
	id := after.ID
	for i := range list {
		for at := 13; at >= 0; at-- {
			if id[at]++; id[at] != 0 {
				break
			}
		}
		id[15] = 1
		list[i] = store.Delivery{ID: id, State: store.Failed}
	}
	return list, store.Place{ID: id}, nil
}

func TestBulkReplayIsCapped(t *testing.T) {
	a := newAPI(t)
	a.Records = many{a.store}
	got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{"dry_run":true}`)
	if got != (admin.BulkReplayed{Matched: 100_000, Capped: true}) {
		t.Errorf("got %+v, want 100,000 and that there are more", got)
	}
}

// endless lists nothing until time has run out.
type endless struct{ admin.Records }

func (endless) Deliveries(ctx context.Context, _ store.Filter, _ store.Place, _ int) ([]store.Delivery, store.Place, error) {
	<-ctx.Done()
	return nil, store.Place{}, ctx.Err()
}

func TestBulkReplayHasTimeToCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newHandler()
		a.Handler.Records = endless{a.store}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/replay", strings.NewReader(`{"dry_run":true}`)))
		if w.Code != 503 || !strings.Contains(w.Body.String(), "choose fewer by since and until") {
			t.Errorf("got %d %s, want 503 that says what to do", w.Code, w.Body)
		}
	})
}

func TestWhoHangsUpIsNoErrorOfOurs(t *testing.T) {
	a := newHandler()
	core, logs := observer.New(zap.DebugLevel)
	a.Log = zap.New(core)
	a.Handler.Records = endless{a.store}
	for _, request := range [][3]string{{"POST", "/api/v1/replay", `{"dry_run":true}`}, {"GET", "/api/v1/deliveries"}} {
		ctx, hangUp := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, hangUp)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequestWithContext(ctx, request[0], request[1], strings.NewReader(request[2])))
		if w.Code != 408 || w.Header().Get("Connection") != "close" || logs.Len() != 0 {
			t.Errorf("%s: got %d %s and %v in the log, want 408 and nothing", request[1], w.Code, w.Body, logs.All())
		}
	}
}

func TestWhatIsNotKeptIsNotReplayed(t *testing.T) {
	a := newAPI(t)
	delivered := a.end(t, a.accept(t, store.Message{}, `{"card":1}`, "alerts")[0], store.Delivered, store.ClassOK, 200)
	if err := a.store.Reduce(t.Context(), delivered.ID.Message(), nil); err != nil {
		t.Fatal(err)
	}
	status, answer := a.do(t, "POST", "/api/v1/deliveries/"+delivered.ID.String()+"/replay", "")
	if status != 410 || !strings.Contains(answer, "no longer kept") {
		t.Errorf("got %d %s, want 410", status, answer)
	}
	whole := a.end(t, a.accept(t, store.Message{}, `{"card":2}`, "alerts")[0], store.Delivered, store.ClassOK, 200)
	got := into[admin.BulkReplayed](t, a, "POST", "/api/v1/replay", `{"filter":{"state":"delivered"}}`)
	if got != (admin.BulkReplayed{Matched: 2, Replayed: 1}) {
		t.Errorf("got %+v of both, want the whole one replayed", got)
	}
	for id, want := range map[store.DeliveryID]store.State{delivered.ID: store.Delivered, whole.ID: store.Pending} {
		if d, err := a.store.Delivery(t.Context(), id); err != nil || d.State != want {
			t.Errorf("got %+v, %v; want it %s", d, err, want)
		}
	}
}
