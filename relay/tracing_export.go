package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
)

// Bounds of what is exported. A span takes about 2 KiB of memory.
const (
	maxQueuedSpans = 8192
	maxSpanBatch   = 512              // in one request
	spanDelay      = time.Second      // that a span waits for others
	exportTimeout  = 10 * time.Second // of one request
	exportPatience = time.Minute      // for which one batch is tried again
	firstExportGap = time.Second      // between two tries; it doubles up to maxExportGap
	maxExportGap   = 30 * time.Second
	spanLossEvery  = time.Minute // between two lines of the log about what could not be exported
)

// exporter sends spans to a collector. What does not fit into its queue, or is refused, is dropped and counted: it never
// holds up who adds.
type exporter struct {
	uploader *otlptrace.Exporter
	client   *http.Client
	log      *zap.Logger

	queue   chan sdktrace.ReadOnlySpan
	refused atomic.Int64 // spans that found the queue full, not yet in lost

	retire  sync.Once
	retired chan struct{} // closed by Retire

	// Of Run's goroutine.
	lost    int64     // spans dropped since the last line about it
	told    time.Time // when that line was written; zero before the first
	failing bool      // the latest request failed
}

func newExporter(o tracing, log *zap.Logger) *exporter {
	u := newUploader(o)
	return &exporter{
		uploader: otlptrace.NewUnstarted(u), client: u.client, log: log,
		queue: make(chan sdktrace.ReadOnlySpan, maxQueuedSpans), retired: make(chan struct{}),
	}
}

// Add queues a span that has ended, or drops it. It does not block.
func (e *exporter) Add(s sdktrace.ReadOnlySpan) {
	select {
	case e.queue <- s:
	default:
		e.refused.Add(1)
	}
}

// Retire has Run export what is queued, and end; at the first failure it ends at once. It may be called again.
func (e *exporter) Retire() { e.retire.Do(func() { close(e.retired) }) }

// Run exports until it is retired or ctx ends. It returns nil.
func (e *exporter) Run(ctx context.Context) error {
	defer e.client.CloseIdleConnections()
	batch := make([]sdktrace.ReadOnlySpan, 0, maxSpanBatch)
	for {
		var more bool
		if batch, more = e.gather(ctx, batch[:0]); len(batch) > 0 {
			if !e.send(ctx, batch) && e.isRetired() {
				more = false
			}
			clear(batch)
		}
		if !more || ctx.Err() != nil {
			e.lost += int64(len(e.queue))
			e.tell(nil, true)
			return nil
		}
	}
}

// gather waits for a span and, for a while, for others. more is false if there will be none.
func (e *exporter) gather(ctx context.Context, batch []sdktrace.ReadOnlySpan) (_ []sdktrace.ReadOnlySpan, more bool) {
	var full <-chan time.Time
	for len(batch) < cap(batch) {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); full == nil {
				full = time.After(spanDelay)
			}
		case <-full:
			return batch, true
		case <-ctx.Done():
			return batch, false
		case <-e.retired:
			for len(batch) < cap(batch) {
				select {
				case s := <-e.queue:
					batch = append(batch, s)
				default:
					return batch, false
				}
			}
		}
	}
	return batch, true
}

// send exports a batch, trying again for a while, and reports whether it has arrived.
func (e *exporter) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) bool {
	begin, gap := time.Now(), firstExportGap
	for {
		err := e.try(ctx, batch)
		rejected, partly := errors.AsType[*rejectedError](err)
		if err == nil || partly {
			if e.failing {
				e.failing = false
				e.log.Info("traces are exported again")
			}
			if partly {
				e.lost += rejected.spans
			}
			e.tell(err, false)
			return true
		}
		e.failing = true
		failed, ok := errors.AsType[*uploadError](err)
		wait := gap
		if ok {
			wait = max(wait, min(failed.retryAfter, maxExportGap))
		}
		if final := ok && !failed.temporary; final || e.isRetired() || ctx.Err() != nil || time.Since(begin)+wait > exportPatience {
			e.lost += int64(len(batch))
			e.tell(err, false)
			return false
		}
		e.tell(err, false)
		select {
		case <-time.After(wait):
		case <-e.retired:
		case <-ctx.Done():
		}
		gap = min(2*gap, maxExportGap)
	}
}

func (e *exporter) try(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithTimeoutCause(ctx, exportTimeout, errExportTimeout)
	defer cancel()
	return e.uploader.ExportSpans(ctx, batch)
}

var errExportTimeout = fmt.Errorf("no answer within %v", exportTimeout)

func (e *exporter) isRetired() bool {
	select {
	case <-e.retired:
		return true
	default:
		return false
	}
}

// tell writes what is wrong, if something is: at once for the first time, and then once in a while. last tells it anyway.
func (e *exporter) tell(err error, last bool) {
	e.lost += e.refused.Swap(0)
	if err == nil && e.lost == 0 || !last && !e.told.IsZero() && time.Since(e.told) < spanLossEvery {
		return
	}
	e.log.Warn("traces not exported", zap.Int64("dropped", e.lost), zap.Error(err))
	e.told, e.lost = time.Now(), 0
}
