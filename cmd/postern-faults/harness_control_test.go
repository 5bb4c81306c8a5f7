package main

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// recordedFar is a receiver that has got what is told, without a relay: ids and the life in which each came.
func recordedFar(name string, bodies map[string]string, came ...string) *far {
	f := &far{Receiver: &receiver.Receiver{}, name: name, arrived: map[string][]arrival{}}
	for _, text := range came {
		fields := strings.Fields(text + " 1")
		id, life := fields[0], fields[1]
		if len(f.arrived[id]) == 0 {
			f.order = append(f.order, id)
		}
		f.arrived[id] = append(f.arrived[id], arrival{digest: sha256.Sum256([]byte(bodies[id])), life: life})
	}
	return f
}

// TestTheComparisonFindsWhatIsWrong proves that what the fault tests look for is found when it is there.
func TestTheComparisonFindsWhatIsWrong(t *testing.T) {
	posted := map[string]string{"a": "1", "b": "2", "c": "3"}
	for _, tc := range []struct {
		name    string
		arrived map[string]string // bodies that come in place of those posted
		came    []string
		want    tally
	}{
		{"all is well", nil, []string{"a", "b", "c"}, tally{}},
		{"one is missing", nil, []string{"a", "c"}, tally{Missing: 1}},
		{"one came with the body of another, and so under two ids", map[string]string{"b": "1"}, []string{"a", "b", "c"}, tally{Altered: 1, Doubled: 1}},
		{"one came with a body that nobody has posted", map[string]string{"b": "x"}, []string{"a", "b", "c"}, tally{Altered: 1, Unasked: 1}},
		{"one that nobody has posted", map[string]string{"d": "x"}, []string{"a", "b", "c", "d"}, tally{Unasked: 1}},
		{"one came again", nil, []string{"a", "b", "c", "b 2"}, tally{Twice: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			bodies := maps.Clone(posted)
			maps.Copy(bodies, tc.arrived)
			for id, body := range posted {
				digest := sha256.Sum256([]byte(body))
				l.posted[digest] = true
				l.accepted[id] = accepted{digest: digest, to: []string{"far"}}
			}
			s := &site{fars: map[string]*far{"far": recordedFar("far", bodies, tc.came...)}}
			tc.want.Accepted = len(posted)
			if got := s.settle(l, 0); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestDoublesAreFound(t *testing.T) {
	killed := map[string]bool{"1": true}
	var many []string
	for n := range inFlight + 1 {
		id := string(rune('a'+n%26)) + strings.Repeat("x", n/26)
		many = append(many, id+" 1", id+" 3")
	}
	for _, tc := range []struct {
		name  string
		came  []string
		again int
		want  []string
	}{
		{"once each", []string{"a 1", "b 2"}, 0, nil},
		{"again after a kill", []string{"a 1", "a 2"}, 1, nil},
		{"again after a good end", []string{"a 2", "a 3"}, 1, []string{"which ended well"}},
		{"twice in one life", []string{"a 1", "a 1"}, 1, []string{"twice in life 1"}},
		{"more than can be in flight", many, inFlight + 1, []string{"more than"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			again, faults := doubles(map[string]*far{"far": recordedFar("far", nil, tc.came...)}, killed)
			if again != tc.again || !slices.EqualFunc(faults, tc.want, strings.Contains) {
				t.Errorf("got %d again and %q, want %d and %q", again, faults, tc.again, tc.want)
			}
		})
	}
}

func TestDisorderIsFound(t *testing.T) {
	begun := time.Now()
	messages := map[string]accepted{
		"a": {to: []string{"far"}, line: "l", begun: begun},
		"b": {to: []string{"far"}, line: "l", begun: begun, place: 1},
		"c": {to: []string{"far"}, line: "l", begun: begun.Add(1)},
		"d": {to: []string{"far"}, begun: begun.Add(2)},
	}
	for _, tc := range []struct {
		came string
		want []string
	}{
		{"a b c d", nil},
		{"d a b c", nil},
		{"b a c d", []string{"b arrived before a"}},
		{"a c b d", []string{"c arrived before b"}},
	} {
		inLine, faults := disorder(messages, recordedFar("far", nil, strings.Fields(tc.came)...))
		if inLine != 3 || !slices.EqualFunc(faults, tc.want, strings.Contains) {
			t.Errorf("%s: got %d in line and %q, want 3 and %q", tc.came, inLine, faults, tc.want)
		}
	}
	if _, faults := disorder(nil, recordedFar("far", nil)); len(faults) != 1 {
		t.Errorf("without lines: got %q, want that it tests nothing", faults)
	}
}

func TestMisrecordedDeliveriesAreFound(t *testing.T) {
	type history = []struct {
		Round int    `json:"round"`
		Class string `json:"class"`
	}
	for _, tc := range []struct {
		name           string
		state          string
		round          int
		history        history
		arrived, asked int
		want           []string
	}{
		{"delivered at the second try", "delivered", 1, history{{1, "status"}, {1, "ok"}}, 1, 0, nil},
		{"replayed", "delivered", 2, history{{1, "ok"}, {2, "ok"}}, 2, 2, nil},
		{"an attempt in flight at a kill is not on record", "delivered", 1, history{{1, "ok"}}, 2, 0, nil},
		{"pending", "pending", 1, history{{1, "status"}}, 0, 0, []string{"is pending"}},
		{"sent again after it was recorded", "delivered", 1, history{{1, "ok"}, {1, "ok"}}, 2, 0, []string{"2 attempts are on record"}},
		{"recorded and not sent", "delivered", 1, history{{1, "ok"}}, 0, 0, []string{"0 have arrived"}},
		{"a replay is forgotten", "delivered", 1, history{{1, "ok"}}, 1, 2, []string{"answered with round 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := exportedDelivery{To: "far", State: tc.state, Round: tc.round, History: tc.history}
			if got := misrecorded("a", d, tc.arrived, tc.asked); !slices.EqualFunc(got, tc.want, strings.Contains) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
