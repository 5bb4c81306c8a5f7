package badgerstore

import "testing"

func TestCompare(t *testing.T) {
	ringOf := func(base, from, to uint64, without ...uint64) ring {
		r := ring{formatted: true, base: base, last: commitRecord{seq: to}, seqs: make([]uint64, ringSize)}
		for seq := from; seq <= to; seq++ {
			r.seqs[seq%ringSize] = seq
		}
		for _, seq := range without {
			r.seqs[seq%ringSize] = 0
		}
		return r
	}
	read := func(seq uint64) sideState { return sideState{seq: seq, exists: true, read: true} }
	const n = ringSize
	for name, c := range map[string]struct {
		ring     ring
		side     sideState
		damaged  bool
		from, to uint64
	}{
		"nothing at all":                    {ring: ring{}},
		"only the side file":                {ring: ring{}, side: read(9), damaged: true, from: 1, to: 9},
		"only an unreadable side file":      {ring: ring{}, side: sideState{exists: true}, damaged: true},
		"all there":                         {ring: ringOf(1, 1, 9), side: read(9)},
		"one behind the side file":          {ring: ringOf(1, 1, 9), side: read(10), damaged: true, from: 10, to: 10},
		"the first missing":                 {ring: ringOf(1, 2, 9), side: read(9), damaged: true, from: 1, to: 1},
		"two apart missing":                 {ring: ringOf(1, 1, 9, 3, 6), side: read(9), damaged: true, from: 3, to: 6},
		"middle and end missing":            {ring: ringOf(1, 1, 9, 3), side: read(12), damaged: true, from: 3, to: 12},
		"before the accepted loss":          {ring: ringOf(7, 7, 9), side: read(9)},
		"all since the accepted loss":       {ring: ringOf(7, 1, 5), side: sideState{}, damaged: true},
		"full ring":                         {ring: ringOf(1, 1, n), side: read(n)},
		"full ring without its first":       {ring: ringOf(1, 2, n), side: read(n), damaged: true, from: 1, to: 1},
		"ring come round":                   {ring: ringOf(1, 2, n+1), side: read(n + 1)},
		"ring come round without its first": {ring: ringOf(1, 3, n+1), side: read(n + 1), damaged: true, from: 2, to: 2},
		"no side file after the first":      {ring: ringOf(1, 1, 2), damaged: true},
		"no side file yet":                  {ring: ringOf(1, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.ring.compare(c.side)
			if (got != nil) != c.damaged {
				t.Fatalf("got %+v, want damage: %t", got, c.damaged)
			}
			if got != nil && (got.From != c.from || got.To != c.to) {
				t.Errorf("got commits %d to %d, want %d to %d", got.From, got.To, c.from, c.to)
			}
		})
	}
}
