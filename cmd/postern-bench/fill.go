package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

const (
	fillConns = 4
	fillLines = 500 // of a batch, which is one commit group then
)

// fill posts n messages to a destination as fast as it goes, in batches.
func (b *bench) fill(ctx context.Context, p *process, destination string, n int) error {
	var (
		left atomic.Int64
		errs = make([]error, fillConns)
		wg   sync.WaitGroup
	)
	left.Store(int64(n))
	client := newBatchClient(fillConns)
	defer client.CloseIdleConnections()
	for i := range errs {
		wg.Go(func() {
			var batch []byte
			bodies := newBodies(b.bodySize, uint64(i))
			for errs[i] == nil && ctx.Err() == nil {
				lines := fillLines + min(0, left.Add(-fillLines))
				if lines <= 0 {
					return
				}
				batch = batch[:0]
				for range lines {
					batch = append(batch, `{"to":"`+destination+`","data":`...)
					batch = append(bodies.append(batch), "}\n"...)
				}
				errs[i] = postBatch(ctx, client, p.address, batch)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// removeAll deletes the folder of a bound, or its file.
func removeAll(path string) { _ = os.RemoveAll(path) }
