package lane

import (
	"runtime"
	"testing"
)

// TestALaneAtRestIsSmall holds what each destination costs before anything is sent to it: a config may have a thousand.
func TestALaneAtRestIsSmall(t *testing.T) {
	const lanes, most = 100, 16 << 10
	var before, after runtime.MemStats
	runners := make([]*runner, lanes)
	runtime.ReadMemStats(&before)
	for i := range runners {
		runners[i] = newRunner(&Lane{Name: "a"})
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(runners)
	if got := (after.TotalAlloc - before.TotalAlloc) / lanes; got > most {
		t.Errorf("got %d bytes a lane, want %d at most", got, most)
	} else {
		t.Logf("%d bytes a lane", got)
	}
}
