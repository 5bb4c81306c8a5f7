package lane

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestNoPieceOfAnAnswerIsInTheLog(t *testing.T) {
	const canary = "canary-7f3a"
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&lines)), zap.DebugLevel))
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		var tries int
		q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
			switch tries++; tries { // each has a line of its own
			case 1:
				return store.Delivery{}, errDisk
			case 2:
				return store.Delivery{}, store.ErrTooLarge
			case 4:
				return store.Delivery{}, store.ErrStale
			}
			return mem.Record(ctx, before, after, a)
		}
		d := accept(t, mem, "alerts", 0)
		start(t, &Lane{
			Name: "alerts", Queue: q, Log: log, Retry: schedule(t, 0, 0, 0, time.Second, time.Second), Concurrency: 1,
			Breaker: Breaker{Failures: 2},
			Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
				a := outcome(store.ClassExpect)
				a.Status, a.Error, a.Body = 500, `$.status: got "`+canary+`", want "ok"`, []byte(canary)
				a.Header, a.RetryHint = map[string][]string{"X-Note": {canary}}, time.Minute
				return a
			}),
		})
		time.Sleep(3 * time.Hour)
		got := checkState(t, mem, d.ID, store.Failed)
		if want := "no success in 3 of 3 attempts; last: the answer does not hold what is expected"; got.Reason != want {
			t.Errorf("got reason %q, want %q", got.Reason, want)
		}
		text := lines.String()
		for _, want := range []string{"attempt not recorded", "attempt not kept whole", "attempt dropped", "attempt made", "delivery ended"} {
			if !strings.Contains(text, `"`+want+`"`) {
				t.Errorf("got no line %q, want it to be looked at too", want)
			}
		}
		if strings.Contains(text, canary) {
			t.Errorf("got a piece of the answer in the log:\n%s", text)
		}
		all, err := mem.Attempts(t.Context(), d.ID, 10)
		if err != nil || len(all) != 3 || !strings.Contains(all[2].Error, canary) {
			t.Errorf("got attempts %+v (%v), want what was wrong in the history", all, err)
		}
	})
}

func TestADeliveryThatFailedIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		core, logs := observer.New(zap.InfoLevel)
		head, behind, free := acceptInLine(t, mem, "k"), acceptInLine(t, mem, "k"), accept(t, mem, "alerts", 0)
		start(t, &Lane{
			Name: "alerts", Queue: mem, Log: zap.New(core), BlockOnFailure: true,
			Sender: sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
				if d.ID == head.ID {
					return answer(400)
				}
				return outcome(store.ClassOK)
			}),
		})
		synctest.Wait()
		checkState(t, mem, behind.ID, store.Pending)
		type line struct {
			level    zapcore.Level
			state    any
			blocking any
		}
		got := map[any]line{}
		for _, e := range logs.FilterMessage("delivery ended").All() {
			fields := e.ContextMap()
			if fields["destination"] != "alerts" {
				t.Errorf("got destination %v, want alerts", fields["destination"])
			}
			got[fields["delivery_id"]] = line{e.Level, fields["state"], fields["blocking"]}
		}
		want := line{zap.WarnLevel, "failed", true}
		if got := got[head.ID.String()]; got != want {
			t.Errorf("the head of the line: got %v, want %v", got, want)
		}
		want = line{zap.InfoLevel, "delivered", nil}
		if got := got[free.ID.String()]; got != want {
			t.Errorf("one that is delivered: got %v, want %v", got, want)
		}
	})
}
