package badgerstore

import "testing"

func TestWhenToTrim(t *testing.T) {
	const mib = 1 << 20
	type tick struct {
		resident int64 // bytes of mapped files in memory, MiB
		want     bool
		left     int64 // by the trim, MiB, if there is one
	}
	for _, tc := range []struct {
		name  string
		ticks []tick
	}{
		{"what a start has read goes, and then only what has come in", []tick{
			{7, false, 0}, {300, true, 20}, {27, false, 0}, {28, true, 20}, {21, false, 0}, {27, false, 0}, {28, true, 20},
		}},
		{"what went by itself does not count as there", []tick{
			{100, true, 100}, {30, false, 0}, {37, false, 0}, {38, true, 30},
		}},
		{"what a merge kept is tried again after a second, though nothing comes in", []tick{
			{30, true, 20}, {200, true, 150}, {150, false, 0}, {150, false, 0}, {150, false, 0}, {150, false, 0}, {150, false, 0},
			{150, false, 0}, {150, false, 0}, {150, false, 0}, {150, false, 0}, {150, true, 20}, {20, false, 0},
		}},
		{"a busy one is tried again when much comes in, too", []tick{
			{30, true, 20}, {200, true, 150}, {158, true, 150},
		}},
		{"little above the best is left alone", []tick{
			{30, true, 20}, {27, false, 0}, {27, false, 0}, {27, false, 0}, {27, false, 0}, {27, false, 0}, {27, false, 0},
			{27, false, 0}, {27, false, 0}, {27, false, 0}, {27, false, 0}, {27, false, 0},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var trims trimming
			for i, k := range tc.ticks {
				got := trims.due(k.resident * mib)
				if got != k.want {
					t.Fatalf("tick %d, %d MiB: got %t, want %t", i+1, k.resident, got, k.want)
				}
				if got {
					trims.done(k.left * mib)
				}
			}
		})
	}
}
