package relay

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const outageConfig = `
  alerts: {url: "https://alerts.example.com/", retry: {schedule: [0s, 1h], jitter: 0}, breaker: {failures: 3, probe_every: 10s}, concurrency: 1}
  chat: {url: "https://chat.example.com/", events: [postern.destination.*]}
`

func TestNoticesOfOutages(t *testing.T) {
	until := func(end time.Time) func(store.Delivery) store.Attempt {
		return func(store.Delivery) store.Attempt {
			if time.Now().Before(end) {
				return store.Attempt{Class: store.ClassConnect, Error: "refused"}
			}
			return store.Attempt{Class: store.ClassOK, Status: 200}
		}
	}
	bubble(t, "a breaker that opens and one that closes", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		begun := time.Now().UTC()
		for range 5 {
			nt.post("alerts", "alert.fired")
		}
		nt.run("alerts", until(begun.Add(25*time.Second)))
		time.Sleep(time.Second)
		paused := told{noticePaused, begun, map[string]any{
			"destination": "alerts", "cause": "outage", "reason": outageReason, "since": begun.Format(time.RFC3339), "pending": 5.0,
		}}
		if got := nt.toldTo("chat"); !reflect.DeepEqual(got, []told{paused}) {
			t.Fatalf("got %+v, want %+v", got, paused)
		}
		time.Sleep(time.Hour)
		recovered := told{noticeRecovered, begun.Add(30 * time.Second), map[string]any{
			"destination": "alerts", "cause": "outage", "since": begun.Format(time.RFC3339), "lasted_seconds": 30.0, "pending": 4.0,
		}}
		got := nt.toldTo("chat")
		if len(got) != 2 || got[1].Type != noticeRecovered || got[1].Data["pending"].(float64) > 5 {
			t.Fatalf("got %+v, want two", got)
		}
		recovered.Data["pending"] = got[1].Data["pending"] // as many as wait when the probe is over, on record or not
		if !reflect.DeepEqual(got[1], recovered) {
			t.Errorf("got %+v, want %+v", got[1], recovered)
		}
	})
	bubble(t, "of a receiver that comes and goes some are told, and what holds in the end", func(t *testing.T) {
		nt := newNoticeTest(t, `
  alerts: {url: "https://alerts.example.com/", retry: none, breaker: {failures: 1, probe_every: 100ms}, concurrency: 1}
  chat: {url: "https://chat.example.com/", events: [postern.destination.*]}
`, storetest.MemoryOptions{})
		up := false
		nt.run("alerts", func(store.Delivery) store.Attempt {
			if up = !up; up {
				return store.Attempt{Class: store.ClassOK, Status: 200}
			}
			return store.Attempt{Class: store.ClassConnect, Error: "refused"}
		})
		const minutes = 5
		for range minutes * 60 * 5 { // every 200 ms
			nt.post("alerts", "alert.fired")
			time.Sleep(200 * time.Millisecond)
		}
		synctest.Wait()
		got := nt.toldTo("chat")
		if most := minutes * (maxNotices + 1); len(got) <= maxNotices || len(got) > most {
			t.Errorf("got %d notices in %d minutes, want more than %d and at most %d", len(got), minutes, maxNotices, most)
		}
		for i, n := range got {
			if want := []string{noticePaused, noticeRecovered}[i%2]; n.Type != want {
				t.Fatalf("notice %d: got %s, want %s", i, n.Type, want)
			}
		}
		time.Sleep(2 * noticeSpan)
		down := nt.lanes["alerts"].Stats().Breaker != lane.BreakerClosed
		all := types(nt.toldTo("chat"))
		if last := all[len(all)-1]; down != (last == noticePaused) {
			t.Errorf("the last told is %s, and down is %t", last, down)
		}
		if want := len(all) + maxNotices; len(all) < len(got) || len(all) > want {
			t.Errorf("got %d notices afterwards, want %d or one more", len(all), len(got))
		}
	})
	bubble(t, "one that a kill has left untold is told at the next start, and no other again", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		since := time.Now().Add(-time.Hour).UTC()
		if err := nt.mem.NoteOutage(nt.ctx, "alerts", store.Outage{Since: since}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			noted, err := nt.mem.Outages(nt.ctx)
			if err != nil {
				t.Fatal(err)
			}
			nt.forget()
			nt.n.remind(nt.ctx, nt.plan, nil, noted)
		}
		if got := nt.toldTo("chat"); len(got) != 1 || got[0].Type != noticePaused || !got[0].Timestamp.Equal(since) {
			t.Fatalf("got %+v, want one", got)
		}
		// Its end is told before the note is gone, and a kill between does not double it.
		o := &outages{Store: failingOutages{nt.mem}, Notices: nt.n}
		for range 3 {
			if err := o.NoteOutage(nt.ctx, "alerts", store.Outage{}); err == nil {
				t.Fatal("the note is gone")
			}
			nt.forget()
			nt.n.remind(nt.ctx, nt.plan, nil, map[string]store.Outage{"alerts": {Since: since}})
		}
		if got, want := types(nt.toldTo("chat")), []string{noticePaused, noticeRecovered}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	bubble(t, "one that is older than the retention is not told at a start", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		old := time.Now().Add(-nt.plan.retention)
		nt.n.remind(nt.ctx, nt.plan, map[string]store.Pause{"alerts": {At: old}}, map[string]store.Outage{"alerts": {Since: old}})
		if got := nt.toldTo("chat"); len(got) > 0 {
			t.Errorf("got %+v, want none", got)
		}
	})
	bubble(t, "one that cannot be noted is not told, and its end is", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		o := &outages{Store: failingOutages{nt.mem}, Notices: nt.n}
		if err := o.NoteOutage(nt.ctx, "alerts", store.Outage{Since: time.Now()}); err == nil {
			t.Fatal("noted")
		}
		if got := nt.toldTo("chat"); len(got) > 0 {
			t.Errorf("got %+v, want none", got)
		}
	})
	bubble(t, "one that a notice has shown is told nobody, nor is its end", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		nt.run("alerts", until(time.Now().Add(15*time.Second)))
		for range 3 {
			nt.post("alerts", noticeFailed)
		}
		time.Sleep(5 * time.Second)
		if nt.lanes["alerts"].Stats().Breaker != lane.BreakerOpen {
			t.Fatal("the breaker is not open")
		}
		time.Sleep(time.Hour)
		if nt.lanes["alerts"].Stats().Breaker != lane.BreakerClosed {
			t.Fatal("the breaker is not closed")
		}
		if got := nt.toldTo("chat"); len(got) > 0 {
			t.Errorf("got %+v, want none", got)
		}
	})
}

// failingOutages is a store.OutageKeeper that keeps nothing.
type failingOutages struct{ store.OutageKeeper }

func (failingOutages) NoteOutage(ctx context.Context, destination string, o store.Outage) error {
	return errors.New("no")
}

func TestNoticesOfPauses(t *testing.T) {
	type step struct {
		do   func(*pauses) error
		want []string // told by it
	}
	pause := func(reason string) func(*pauses) error {
		return func(p *pauses) error { return p.Pause(context.Background(), "alerts", note(reason)) }
	}
	resume := func(p *pauses) error { return p.Resume(context.Background(), "alerts") }
	for _, withLane := range []bool{true, false} {
		name := "by a person, once, and their ends"
		if !withLane {
			name += ", also of a destination without a lane"
		}
		bubble(t, name, func(t *testing.T) {
			nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
			if withLane {
				nt.run("alerts", failing(500))
			}
			p := &pauses{Store: nt.mem, Notices: nt.n, Lane: func(name string) *lane.Lane { return nt.lanes[name] }}
			begun := time.Now().UTC()
			var want []string
			for i, s := range []step{
				{resume, nil},
				{pause("maintenance"), []string{noticePaused}},
				{pause("maintenance goes on"), nil},
				{resume, []string{noticeRecovered}},
				{resume, nil},
				{pause("again"), []string{noticePaused}},
			} {
				if err := s.do(p); err != nil {
					t.Fatal(err)
				}
				want = append(want, s.want...)
				if got := types(nt.toldTo("chat")); !slices.Equal(got, want) {
					t.Fatalf("step %d: got %v, want %v", i+1, got, want)
				}
				time.Sleep(time.Minute)
			}
			at := begun.Add(time.Minute)
			got := nt.toldTo("chat")[:2]
			for i, want := range []told{
				{noticePaused, at, map[string]any{
					"destination": "alerts", "cause": "person", "reason": "maintenance", "since": at.Format(time.RFC3339), "pending": 0.0,
				}},
				{noticeRecovered, at.Add(2 * time.Minute), map[string]any{
					"destination": "alerts", "cause": "person", "since": at.Format(time.RFC3339), "lasted_seconds": 120.0, "pending": 0.0,
				}},
			} {
				if !reflect.DeepEqual(got[i], want) {
					t.Errorf("got %+v, want %+v", got[i], want)
				}
			}
		})
	}
	bubble(t, "by a receiver that is gone, once for all that is in flight", func(t *testing.T) {
		nt := newNoticeTest(t, outageConfig, storetest.MemoryOptions{})
		nt.plan.destinations["alerts"].concurrency = 8
		for range 8 {
			nt.post("alerts", "alert.fired")
		}
		p := &pauses{Store: nt.mem, Notices: nt.n, Lane: func(name string) *lane.Lane { return nt.lanes[name] }}
		nt.run("alerts", func(store.Delivery) store.Attempt {
			time.Sleep(time.Second)
			return store.Attempt{Class: store.ClassStatus, Status: 410}
		}, func(l *lane.Lane) { l.Pauses = p.keeper(l) })
		time.Sleep(time.Minute)
		got := nt.toldTo("chat")
		if len(got) != 1 || got[0].Data["cause"] != "gone" || got[0].Data["reason"] != goneReason {
			t.Errorf("got %+v, want one", got)
		}
	})
}
