package badgerstore

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// BenchmarkRecord measures attempts that end their deliveries, with an answer of some headers and 1 KiB.
func BenchmarkRecord(b *testing.B) {
	for _, goroutines := range []int{16, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			s, err := Open(Options{Path: b.TempDir(), MaxPending: 1 << 40})
			mustDo(b, err)
			all := make(chan store.Delivery, b.N)
			var accepting sync.WaitGroup
			for range goroutines {
				accepting.Go(func() {
					for range b.N/goroutines + 1 {
						m, _, err := s.Accept(context.Background(), newMessage(b, "alerts"), []byte("x"))
						if err != nil {
							b.Errorf("Accept: %v", err)
							return
						}
						select {
						case all <- m.Delivery(0):
						default:
						}
					}
				})
			}
			accepting.Wait()
			close(all)
			header := map[string][]string{"Content-Type": {"application/json"}, "Date": {"today"}, "Server": {"nginx"}}
			body := bytes.Repeat([]byte("y"), 1024)
			b.ResetTimer()
			var recording sync.WaitGroup
			for range goroutines {
				recording.Go(func() {
					for d := range all {
						now := time.Now()
						after := d
						after.State, after.Made, after.Attempts, after.EndedAt, after.DueAt = store.Delivered, 1, 1, now, time.Time{}
						a := store.Attempt{
							Delivery: d.ID, Round: 1, Number: 1, StartedAt: now, Took: time.Second, Class: store.ClassOK, Status: 200,
							Header: header, Body: body, Peer: "192.0.2.1:443",
						}
						if _, err := s.Record(context.Background(), d, after, a); err != nil {
							b.Errorf("Record: %v", err)
							return
						}
					}
				})
			}
			recording.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			mustDo(b, s.Close())
		})
	}
}
