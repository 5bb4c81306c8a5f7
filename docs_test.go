package postern_test

import (
	"context"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// outcomeRow is one line of the table in docs/delivery.md: `class` and perhaps a status, what happened, the state
// after it with attempts left, the state after it with none left.
var outcomeRow = regexp.MustCompile("(?m)^\\| `([a-z]+)`( 410)? \\| [^|]+ \\| ([a-z]+) \\| ([a-z]+) \\|$")

// diagramArrow is one arrow of the state diagram in docs/delivery.md.
var diagramArrow = regexp.MustCompile(`(?m)^    (\S+) --> (\S+) : .+$`)

// TestDeliveryDocument holds the life of a delivery, as docs/delivery.md tells it, against what a lane does.
func TestDeliveryDocument(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("docs", "delivery.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)

	classes := map[string]store.Class{}
	for c := store.Class(1); !strings.HasPrefix(c.String(), "Class("); c++ {
		classes[c.String()] = c
	}
	missing := maps.Clone(classes)
	happened := map[string]bool{} // "from to", as the lane did it
	for _, row := range outcomeRow.FindAllStringSubmatch(text, -1) {
		name, gone, more, none := row[1], row[2] != "", row[3], row[4]
		class, known := classes[name]
		if !known {
			t.Errorf("the table has class %q, the store has not", name)
			continue
		}
		delete(missing, name)
		status := 0
		switch {
		case gone:
			status = http.StatusGone
		case class == store.ClassStatus:
			status = http.StatusInternalServerError
		case class == store.ClassOK:
			status = http.StatusOK
		}
		for attempts, want := range map[int]string{2: more, 1: none} {
			got := stateAfter(t, class, status, attempts)
			if got.String() != want {
				t.Errorf("class %s, status %d, the first of %d attempts: got %s, want %s as in the table", name, status, attempts, got, want)
			}
			happened["pending "+got.String()] = true
		}
	}
	for name := range missing {
		t.Errorf("class %q is not in the table", name)
	}

	t.Run("the diagram shows what happens and nothing else", func(t *testing.T) {
		happened["[*] pending"] = true
		for _, arrow := range steered(t) {
			happened[arrow] = true
		}
		for state := store.State(1); !strings.HasPrefix(state.String(), "State("); state++ {
			if happened["pending "+state.String()] && state.Ended() {
				happened[state.String()+" [*]"] = true
			}
		}
		drawn := map[string]bool{}
		for _, arrow := range diagramArrow.FindAllStringSubmatch(text, -1) {
			drawn[arrow[1]+" "+arrow[2]] = true
		}
		got, want := slices.Sorted(maps.Keys(drawn)), slices.Sorted(maps.Keys(happened))
		if !slices.Equal(got, want) {
			t.Errorf("got arrows %q, want %q", got, want)
		}
	})
}

// steered returns the arrows that a person can make happen.
func steered(t *testing.T) (arrows []string) {
	t.Helper()
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	m := store.Message{ID: id, AcceptedAt: time.Now(), Recipients: []store.Recipient{{Destination: "a"}}}
	if _, _, err := mem.Accept(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	for _, end := range []store.State{store.Canceled, store.Delivered, store.Failed} {
		before, err := mem.Delivery(t.Context(), id.Delivery(0))
		if err != nil {
			t.Fatal(err)
		}
		if after := before; end == store.Canceled {
			after, _, err = mem.Cancel(t.Context(), before.ID, time.Now(), "enough")
			arrows = append(arrows, before.State.String()+" "+after.State.String())
		} else {
			after.State, after.EndedAt = end, time.Now()
			_, err = mem.Record(t.Context(), before, after, store.Attempt{})
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := mem.Replay(t.Context(), before.ID, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		arrows = append(arrows, end.String()+" "+after.State.String())
	}
	return arrows
}

// fixedSender is a lane.Sender whose attempts all end alike.
type fixedSender store.Attempt

func (s fixedSender) Send(context.Context, store.Delivery) store.Attempt { return store.Attempt(s) }

// stateAfter returns the state of a delivery after its first attempt, of so many in its schedule.
func stateAfter(t *testing.T, class store.Class, status, attempts int) store.State {
	t.Helper()
	var after store.State
	synctest.Test(t, func(t *testing.T) {
		delays := make([]time.Duration, attempts)
		for i := range delays[1:] {
			delays[i+1] = time.Hour
		}
		schedule, err := lane.NewSchedule(delays, 0, 0)
		if err != nil {
			t.Fatalf("make schedule: %v", err)
		}
		memory := storetest.NewMemory(storetest.MemoryOptions{})
		id, err := store.NewMessageID()
		if err != nil {
			t.Fatalf("make id: %v", err)
		}
		m := store.Message{ID: id, AcceptedAt: time.Now(), Recipients: []store.Recipient{{Destination: "alerts"}}}
		if _, _, err := memory.Accept(t.Context(), m, nil); err != nil {
			t.Fatalf("accept: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		l := &lane.Lane{
			Name: "alerts", Queue: memory, Retry: schedule, Concurrency: 1,
			Sender: fixedSender{Class: class, Status: status, StartedAt: time.Now()},
			Observe: func(_, d store.Delivery, _ store.Attempt) {
				if after == 0 {
					after = d.State
				}
				stop()
			},
		}
		if err := l.Run(ctx); err != nil {
			t.Errorf("run lane: %v", err)
		}
	})
	return after
}

var (
	fence   = regexp.MustCompile("(?s)```.*?```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

func TestLinksInDocuments(t *testing.T) {
	checked := 0
	walk(t, func(name string) {
		if path.Ext(name) != ".md" {
			return
		}
		raw, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		for _, found := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(raw), ""), -1) {
			if strings.Contains(found[1], "://") {
				continue // other people's pages are looked at by hand
			}
			checked++
			file, anchor, _ := strings.Cut(found[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.FromSlash(target)); err != nil {
				t.Errorf("%s: link %q leads nowhere", name, found[1])
				continue
			}
			if anchor != "" && !hasHeading(t, target, anchor) {
				t.Errorf("%s: link %q: there is no such heading", name, found[1])
			}
		}
	})
	if checked == 0 {
		t.Error("no links found: this tests nothing")
	}
}

// hasHeading reports whether a document has a heading with that anchor, as GitHub makes them.
func hasHeading(t testing.TB, name, anchor string) bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Errorf("read: %v", err)
		return false
	}
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(string(raw), ""), -1) {
		slug := strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")
		if regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(slug, "") == anchor {
			return true
		}
	}
	return false
}
