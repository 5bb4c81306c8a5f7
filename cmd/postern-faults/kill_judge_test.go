package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inFlight is how many attempts of a destination may have been made and not be on record yet: as many as are made at once,
// which is 16, and those whose outcome waits for its sync (recording in relay/lane).
const inFlight = 16 + 128

// doubles holds what has arrived more than once against when it may: in one life of the process, an attempt of a round
// that the receiver has taken is made once. So whatever comes again must have been in flight when a life ended by a kill.
// It returns how many did, and what is wrong.
func doubles(fars map[string]*far, killed map[string]bool) (again int, faults []string) {
	for name, f := range fars {
		lost := map[string]int{} // attempts in flight at the end of a life
		for _, id := range f.ids() {
			byRound := map[string][]arrival{}
			for _, a := range f.arrivals(id) {
				byRound[a.replay] = append(byRound[a.replay], a)
			}
			for round, arrivals := range byRound {
				seen := map[string]bool{}
				for i, a := range arrivals {
					if seen[a.life] {
						faults = append(faults, fmt.Sprintf("%s: %s came twice in life %s, replay %q", name, id, a.life, round))
					}
					seen[a.life] = true
					if i == len(arrivals)-1 {
						break
					}
					again++
					lost[a.life]++
					if !killed[a.life] {
						faults = append(faults, fmt.Sprintf("%s: %s came in life %s, which ended well, and again", name, id, a.life))
					}
				}
			}
		}
		for life, n := range lost {
			if n > inFlight {
				faults = append(faults, fmt.Sprintf("%s: of life %s came %d again, more than the %d that can be in flight", name, life, n, inFlight))
			}
		}
	}
	return again, faults
}

// disorder holds the first arrivals at a destination against the order in which each line was accepted. It returns the
// number of messages in lines, and what is wrong.
func disorder(messages map[string]accepted, f *far) (inLine int, faults []string) {
	type placed struct {
		accepted
		id string
	}
	lines := map[string][]placed{}
	for id, a := range messages {
		if a.line != "" && slices.Contains(a.to, f.name) {
			lines[a.line] = append(lines[a.line], placed{a, id})
			inLine++
		}
	}
	arrived := map[string]int{}
	for n, id := range f.ids() {
		arrived[id] = n
	}
	for line, all := range lines {
		slices.SortFunc(all, func(a, b placed) int { return cmp.Or(a.begun.Compare(b.begun), a.place-b.place) })
		for i := 1; i < len(all); i++ {
			if arrived[all[i-1].id] > arrived[all[i].id] {
				faults = append(faults, fmt.Sprintf("%s: %s arrived before %s, which was accepted first", line, all[i].id, all[i-1].id))
			}
		}
	}
	if len(lines) == 0 || inLine < 2*len(lines) {
		faults = append(faults, fmt.Sprintf("%d messages were in %d lines: this tests nothing", inLine, len(lines)))
	}
	return inLine, faults
}

// exportedMessage is what judgeRecords reads of a message in an export.
type exportedMessage struct {
	ID         string             `json:"id"`
	Deliveries []exportedDelivery `json:"deliveries"`
}

// exportedDelivery is one of its deliveries.
type exportedDelivery struct {
	ID      string `json:"id"`
	To      string `json:"destination"`
	State   string `json:"state"`
	Round   int    `json:"round"`
	History []struct {
		Round int    `json:"round"`
		Class string `json:"class"`
	} `json:"history"`
}

// taken counts the attempts on record with a good end, by round.
func (d exportedDelivery) taken() map[int]int {
	n := map[int]int{}
	for _, a := range d.History {
		if a.Class == "ok" {
			n[a.Round]++
		}
	}
	return n
}

// export reads the messages in the store of a stopped relay, none of which may be damaged.
func (s *site) export(t *testing.T, take func(exportedMessage)) {
	t.Helper()
	file := filepath.Join(s.dir, "export.ndjson")
	cmd := exec.Command(s.Program, "store", "export", "--config", s.config, "-o", file, "--force")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("export: %v: %s", err, out)
	}
	exported, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer exported.Close()
	last := ""
	lines := bufio.NewScanner(exported)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if last = lines.Text(); !strings.HasPrefix(last, `{"id":`) { // the first and the last one
			continue
		}
		var m exportedMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("read export: %v", err)
		}
		take(m)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("read export: %v", err)
	}
	if !strings.Contains(last, `"damaged":0`) {
		t.Errorf("the export ends with %s", last)
	}
}

// misrecorded returns what is wrong with the records of a delivery, when all is delivered: each round that ended so has
// one attempt that says it, each such attempt has arrived, and a replay that was answered with a round has begun it.
func misrecorded(id string, d exportedDelivery, arrived, round int) (faults []string) {
	taken, total := d.taken(), 0
	for round, n := range taken {
		if total += n; n > 1 {
			faults = append(faults, fmt.Sprintf("%s to %s, round %d: %d attempts are on record as taken", id, d.To, round, n))
		}
	}
	if d.State != "delivered" || taken[d.Round] == 0 {
		faults = append(faults, fmt.Sprintf("%s to %s is %s in round %d, with %v attempts taken", id, d.To, d.State, d.Round, taken))
	}
	if arrived < total {
		faults = append(faults, fmt.Sprintf("%s to %s: %d attempts are on record as taken, and %d have arrived", id, d.To, total, arrived))
	}
	if d.Round < round {
		faults = append(faults, fmt.Sprintf("%s to %s: a replay was answered with round %d, and it is in round %d", id, d.To, round, d.Round))
	}
	return faults
}

// judge looks at all that is known when the relay has stopped: arrivals, their order, and the records. whole says that
// nothing has been swept yet. It returns a line about it.
func (st *storm) judge(c tally, whole bool) string {
	st.t.Helper()
	c.check(st.t)
	again, faults := doubles(st.fars, st.killed)
	inLine, more := disorder(st.ledger.messages(), st.fars["lined"])
	faults = append(faults, more...)
	attempts, missing, replayed := 0, st.ledger.messages(), maps.Clone(st.replayed)
	st.export(st.t, func(m exportedMessage) {
		delete(missing, m.ID)
		for _, d := range m.Deliveries {
			attempts += len(d.History)
			faults = append(faults, misrecorded(m.ID, d, len(st.fars[d.To].arrivals(m.ID)), replayed[d.ID])...)
			delete(replayed, d.ID)
		}
	})
	records := "ended ones swept all the while"
	if whole {
		records = fmt.Sprintf("%d attempts on record", attempts)
		if len(missing) > 0 || len(replayed) > 0 || attempts == 0 {
			faults = append(faults, fmt.Sprintf("of what was accepted, %d messages and %d deliveries that were replayed are not in the records, "+
				"which have %d attempts", len(missing), len(replayed), attempts))
		}
	}
	for _, fault := range faults[:min(len(faults), 50)] {
		st.t.Error(fault)
	}
	return fmt.Sprintf("%d accepted, %d missing, %d altered, came again %d times, each in flight at a kill and under the same id; "+
		"%d in lines, in order; %s; %d replays, %d pauses, %d reloads, %d hangups", c.Accepted, c.Missing, c.Altered, again, inLine,
		records, st.done.replays, st.done.pauses, st.done.reloads, st.done.hangups)
}
