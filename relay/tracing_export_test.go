package relay

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"
)

// uploads is the other end of an exporter: it answers by a func, and notes when it was asked and how much came.
type uploads struct {
	answer func(n int) error // of the n-th request, from 1

	mu    sync.Mutex // guards the fields below
	at    []time.Time
	sizes []int
}

func (*uploads) Start(context.Context) error { return nil }

func (*uploads) Stop(context.Context) error { return nil }

func (u *uploads) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	size := 0
	for _, rs := range spans {
		for _, ss := range rs.GetScopeSpans() {
			size += len(ss.GetSpans())
		}
	}
	u.mu.Lock()
	u.at, u.sizes = append(u.at, time.Now()), append(u.sizes, size)
	n := len(u.at)
	u.mu.Unlock()
	if err := u.answer(n); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// testExporter returns an exporter to u, its log, and the func that ends it and waits. It is for a bubble.
func testExporter(t *testing.T, u *uploads) (e *exporter, logs *observer.ObservedLogs, end func()) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	e = &exporter{
		uploader: otlptrace.NewUnstarted(u), client: &http.Client{Transport: &http.Transport{}}, log: zap.New(core),
		queue: make(chan sdktrace.ReadOnlySpan, maxQueuedSpans), retired: make(chan struct{}),
	}
	done := make(chan error, 1)
	go func() { done <- e.Run(t.Context()) }()
	return e, logs, func() {
		e.Retire()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func addSpans(e *exporter, n int) {
	for range n {
		e.Add(tracetest.SpanStub{Name: "x"}.Snapshot())
	}
}

func always(err error) func(int) error { return func(int) error { return err } }

var errDown = &uploadError{temporary: true, err: errors.New("connection refused")}

func TestExporter(t *testing.T) {
	t.Run("spans wait for others, but not long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: always(nil)}
			e, logs, end := testExporter(t, u)
			start := time.Now()
			addSpans(e, 3)
			time.Sleep(spanDelay / 2)
			addSpans(e, 2)
			time.Sleep(10 * time.Second)
			end()
			if len(u.sizes) != 1 || u.sizes[0] != 5 || u.at[0].Sub(start) != spanDelay || logs.Len() != 0 {
				t.Errorf("got %v at %v and %d lines, want 5 after %s and none", u.sizes, u.at, logs.Len(), spanDelay)
			}
		})
	})
	t.Run("a full batch does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: always(nil)}
			e, _, end := testExporter(t, u)
			start := time.Now()
			addSpans(e, 2*maxSpanBatch+1)
			synctest.Wait()
			if len(u.sizes) != 2 || time.Since(start) > 0 {
				t.Errorf("got %v, want two full batches at once", u.sizes)
			}
			end()
			if len(u.sizes) != 3 || u.sizes[2] != 1 {
				t.Errorf("got %v, want the rest at the end", u.sizes)
			}
		})
	})
	t.Run("a batch is tried again, less and less often, and then dropped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: always(errDown)}
			e, _, end := testExporter(t, u)
			addSpans(e, 7)
			time.Sleep(exportPatience + time.Minute)
			end()
			if got := u.at[len(u.at)-1].Sub(u.at[0]); len(u.at) != 6 || got != 31*time.Second {
				t.Errorf("got %d tries in %s, want 6 in 31 s", len(u.at), got)
			}
		})
	})
	t.Run("an hour without a collector is a line a minute, and the spans of it are counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var up atomic.Bool
			u := &uploads{answer: func(int) error {
				if !up.Load() {
					return errDown
				}
				return nil
			}}
			e, logs, end := testExporter(t, u)
			for range 60 {
				addSpans(e, 1000)
				time.Sleep(time.Minute)
			}
			if got := len(e.queue); got > maxQueuedSpans {
				t.Errorf("got %d spans queued, want at most %d", got, maxQueuedSpans)
			}
			up.Store(true)
			time.Sleep(time.Minute)
			end()
			var dropped int64
			for _, line := range logs.FilterMessage("traces not exported").All() {
				dropped += line.ContextMap()["dropped"].(int64)
			}
			arrived := int64(0)
			for n, size := range u.sizes {
				if n >= len(u.sizes)-maxQueuedSpans/maxSpanBatch-1 && u.at[n].After(u.at[0].Add(time.Hour)) {
					arrived += int64(size)
				}
			}
			if lines := logs.FilterMessage("traces not exported").Len(); lines < 30 || lines > 62 {
				t.Errorf("got %d lines in an hour, want about 60", lines)
			}
			if dropped+arrived != 60_000 || arrived == 0 {
				t.Errorf("got %d dropped and %d arrived, want 60000 together", dropped, arrived)
			}
			if logs.FilterMessage("traces are exported again").Len() != 1 {
				t.Error("the log does not tell that it works again")
			}
		})
	})
	t.Run("what is refused is not sent again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: always(&uploadError{err: errors.New("the collector answered 400 Bad Request")})}
			e, logs, end := testExporter(t, u)
			addSpans(e, 7)
			time.Sleep(time.Hour)
			end()
			if len(u.at) != 1 || logs.Len() != 1 || logs.All()[0].ContextMap()["dropped"] != int64(7) {
				t.Errorf("got %d tries and %v, want one and 7 dropped", len(u.at), logs.All())
			}
		})
	})
	t.Run("a Retry-After is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: func(n int) error {
				if n == 1 {
					return &uploadError{temporary: true, retryAfter: 20 * time.Second, err: errors.New("the collector answered 429")}
				}
				return nil
			}}
			e, _, end := testExporter(t, u)
			addSpans(e, 1)
			time.Sleep(time.Minute)
			end()
			if len(u.at) != 2 || u.at[1].Sub(u.at[0]) != 20*time.Second {
				t.Errorf("got tries at %v, want two, 20 s apart", u.at)
			}
		})
	})
	t.Run("what the collector rejects of a batch is counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: always(&rejectedError{spans: 2, message: "too old"})}
			e, logs, end := testExporter(t, u)
			addSpans(e, 7)
			time.Sleep(time.Minute)
			end()
			if len(u.at) != 1 || logs.Len() != 1 || logs.All()[0].ContextMap()["dropped"] != int64(2) {
				t.Errorf("got %d tries and %v, want one and 2 dropped", len(u.at), logs.All())
			}
		})
	})
	t.Run("to add never blocks", func(t *testing.T) {
		e := &exporter{queue: make(chan sdktrace.ReadOnlySpan, 10)} // which nobody exports
		addSpans(e, 25)
		if got := e.refused.Load(); got != 15 {
			t.Errorf("got %d refused, want 15", got)
		}
	})
	t.Run("retired while it waits, it tries once more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := &uploads{answer: func(n int) error {
				if n == 1 {
					return errDown
				}
				return nil
			}}
			e, _, end := testExporter(t, u)
			start := time.Now()
			addSpans(e, 7)
			time.Sleep(spanDelay + firstExportGap/2)
			end()
			if len(u.at) != 2 || time.Since(start) != spanDelay+firstExportGap/2 {
				t.Errorf("got %d tries in %s, want 2 and no more waiting", len(u.at), time.Since(start))
			}
		})
	})
}

func TestPartialSuccess(t *testing.T) {
	encode := func(spans int64, message string) []byte {
		raw, err := proto.Marshal(&coltracepb.ExportTraceServiceResponse{
			PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: spans, ErrorMessage: message},
		})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, tc := range []struct {
		name    string
		answer  []byte
		want    int64
		message string
		none    bool
	}{
		{"nothing", nil, 0, "", true},
		{"an empty one", encode(0, ""), 0, "", true},
		{"some are rejected", encode(3, "too old"), 3, "too old", false},
		{"a warning", encode(0, "deprecated"), 0, "deprecated", false},
		{"absurd numbers", encode(-1, "x"), 0, "x", false},
		{"no protobuf", []byte("<html>"), 0, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := errors.AsType[*rejectedError](partialSuccess(tc.answer))
			if ok == tc.none || ok && (got.spans != tc.want || got.message != tc.message) {
				t.Errorf("got %v, want %d %q", got, tc.want, tc.message)
			}
		})
	}
}

func FuzzPartialSuccess(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x04, 0x08, 0x03, 0x12, 0x00})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte("\x0a\x02\x12\xff"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, ok := errors.AsType[*rejectedError](partialSuccess(answer))
		if ok && (got.spans < 0 || got.spans > maxSpanBatch || strings.ContainsRune(got.message, '\uFFFD') && !strings.Contains(string(answer), "\uFFFD")) {
			t.Errorf("%x: got %+v", answer, got)
		}
		var want coltracepb.ExportTraceServiceResponse
		if proto.Unmarshal(answer, &want) != nil {
			return
		}
		n := min(max(want.GetPartialSuccess().GetRejectedSpans(), 0), maxSpanBatch)
		if n > 0 && (!ok || got.spans != n) {
			t.Errorf("%x: got %v, want %d rejected", answer, got, n)
		}
	})
}
