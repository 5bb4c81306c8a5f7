package lane

import (
	"context"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// BenchmarkLane measures what a lane adds to a delivery: one that is stored already, with a sender and a store that
// take no time.
func BenchmarkLane(b *testing.B) {
	mem := storetest.NewMemory(storetest.MemoryOptions{MaxPending: int64(b.N) + 1})
	for range b.N {
		accept(b, mem, "alerts", 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{}, 1024)
	l := &Lane{
		Name: "alerts", Queue: mem,
		Sender:  sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassOK) }),
		Observe: func(store.Delivery, store.Delivery, store.Attempt) { left <- struct{}{} },
	}
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	for range b.N {
		<-left
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWake measures a lane that is woken for each delivery while others wait for their retry.
func BenchmarkWake(b *testing.B) {
	mem := storetest.NewMemory(storetest.MemoryOptions{MaxPending: int64(b.N) + 1000})
	for range 1000 {
		accept(b, mem, "alerts", time.Hour)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Lane{
		Name: "alerts", Queue: mem,
		Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassOK) }),
	}
	ended := make(chan struct{}, 1024)
	l.Observe = func(store.Delivery, store.Delivery, store.Attempt) { ended <- struct{}{} }
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			l.Wake(accept(b, mem, "alerts", 0).Cursor())
		}
	}()
	for range b.N {
		<-ended
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
