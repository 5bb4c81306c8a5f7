package match_test

import (
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

// BenchmarkFilter reads a body of 1 KiB and filters it, as is done for each message of a destination that has one.
func BenchmarkFilter(b *testing.B) {
	body := []byte(`{"id":"al_123","title":"schema \"changed\"","count":12,"labels":{"env":"prod","team":"data"},"items":[` +
		many(14, `{"name":"column_%d","type":"varchar","nullable":true}`) + `],"severity":"high"}`)
	f, err := match.ParseFilter(`$[?@.severity == "high"]`)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := match.ParseJSON(body)
		if err != nil {
			b.Fatal(err)
		}
		if got, err := f.Match(d); !got || err != nil {
			b.Fatalf("got %v, %v, want a match", got, err)
		}
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	b.SetBytes(int64(len(bookstore)))
	b.ReportAllocs()
	for b.Loop() {
		if err := match.CheckJSON([]byte(bookstore)); err != nil {
			b.Fatal(err)
		}
	}
}
