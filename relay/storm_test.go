package relay

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// total returns how many failures notices tell of.
func total(all []told) (sum int) {
	for _, n := range all {
		sum += 1 + int(n.Data["suppressed"].(float64))
	}
	return sum
}

func TestStormsOfNotices(t *testing.T) {
	storm := func(nt *noticeTest, many int) {
		nt.Helper()
		nt.plan.destinations["alerts"].concurrency = 1
		nt.run("alerts", failing(410))
		for range many {
			nt.post("alerts", "alert.fired")
		}
		for range many { // each 410 pauses the lane
			time.Sleep(time.Millisecond)
			nt.lanes["alerts"].Resume()
		}
		synctest.Wait()
	}
	bubble(t, "what is too much for a minute is told in one notice when it is over", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
		storm(nt, 10_000)
		if got := nt.toldTo("chat"); len(got) != maxNotices || total(got) != maxNotices {
			t.Errorf("got %d notices of %d at once, want %d", len(got), total(got), maxNotices)
		}
		time.Sleep(noticeSpan)
		got := nt.toldTo("chat")
		if len(got) != maxNotices+1 || total(got) != 10_000 {
			t.Errorf("got %d notices of %d failures, want one more, and of all 10000", len(got), total(got))
		}
		for range maxNotices {
			nt.post("alerts", "alert.fired")
			nt.lanes["alerts"].Resume()
			time.Sleep(time.Millisecond)
		}
		if got := nt.toldTo("chat"); len(got) != 2*maxNotices || total(got) != 10_000+maxNotices-1 {
			t.Errorf("afterwards: got %d notices of %d, want the next at once, as many as the minute has left", len(got), total(got))
		}
		time.Sleep(time.Hour)
		if got := nt.toldTo("chat"); len(got) != 2*maxNotices+1 || total(got) != 10_000+maxNotices {
			t.Errorf("later: got %d notices of %d, want no more than the last", len(got), total(got))
		}
	})
	bubble(t, "what is left when the relay stops is told then", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
		storm(nt, 50)
		nt.stop()
		nt.n.finish(nt.ctx)
		if got := nt.toldTo("chat"); len(got) != maxNotices+1 || total(got) != 50 {
			t.Errorf("got %d notices of %d, want all 50 told", len(got), total(got))
		}
	})
	bubble(t, "what nobody wants any more is forgotten", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
		storm(nt, 50)
		nt.now.Store(compile(t, "destinations:\n"+outageConfig))
		time.Sleep(time.Hour)
		nt.n.mu.Lock()
		defer nt.n.mu.Unlock()
		if got := nt.n.tales["alerts"].suppressed; got != 0 {
			t.Errorf("got %d to be told still, want none", got)
		}
	})
	bubble(t, "one that is refused is logged, disturbs nothing, and is told when there is room", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig+pagerConfig, storetest.MemoryOptions{MaxPending: 2})
		held := nt.post("quiet", "x")
		nt.run("alerts", failing(410))
		id := nt.post("alerts", "alert.fired")
		time.Sleep(noticeSpan + time.Second)
		if d, err := nt.mem.Delivery(nt.ctx, id); err != nil || d.State != store.Failed || d.EndedAt.After(time.Now().Add(-noticeSpan)) {
			t.Errorf("got %+v, %v; want it failed on record at once", d, err)
		}
		if got := nt.logs.FilterMessage("notice dropped").Len(); got != 2 || len(nt.toldTo("chat")) != 0 {
			t.Errorf("got %d lines and %+v, want a line for each try and no notice", got, nt.toldTo("chat"))
		}
		if _, _, err := nt.mem.Cancel(nt.ctx, held, time.Now(), "by a test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(noticeSpan)
		if chat, pager := nt.toldTo("chat"), nt.toldTo("pager"); len(chat) != 1 || total(chat) != 1 || !reflect.DeepEqual(chat, pager) {
			t.Errorf("got %+v and %+v, want one of that failure for both", chat, pager)
		}
	})
	bubble(t, "one for whom too much waits gets none, and others do", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig+pagerConfig, storetest.MemoryOptions{})
		for range maxNoticeBacklog {
			nt.post("chat", "x")
		}
		nt.run("alerts", failing(410))
		nt.post("alerts", "alert.fired")
		time.Sleep(time.Second)
		if chat, pager := nt.toldTo("chat"), nt.toldTo("pager"); len(chat) != 0 || len(pager) != 1 {
			t.Errorf("got %d for who has too much, and %d for the other; want 0 and 1", len(chat), len(pager))
		}
	})
}
