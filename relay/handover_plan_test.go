package relay

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/store"
)

// TestALaneEndsItsFirstDeliveryBeforeTheLastLaneHasBegun holds up the start at its second destination until the first
// one has delivered what was pending, and all that follows is over. With many destinations that comes by itself.
func TestALaneEndsItsFirstDeliveryBeforeTheLastLaneHasBegun(t *testing.T) {
	reduced := make(chan struct{}) // closed when the start has seen what it waits for
	r := newRig(t, `destinations:
  a: {url: "https://a.test/", keep: {body: false}}
  b: {url: "https://b.test/"}
`, func(r *rig) {
		ctx := context.Background()
		id, err := store.NewMessageID()
		if err != nil {
			t.Fatal(err)
		}
		to := []store.Recipient{{Destination: "a"}}
		if _, _, err := r.memory.Accept(ctx, store.Message{ID: id, Recipients: to}, []byte("body")); err != nil {
			t.Fatal(err)
		}
		if err := r.memory.Pause(ctx, "b", store.Pause{At: time.Now(), Reason: "a test"}); err != nil {
			t.Fatal(err)
		}
		r.Log = r.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if e.Message != "destination is paused" {
				return nil
			}
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if m, _, err := r.memory.Load(ctx, id); err == nil && m.Reduced {
					close(reduced)
					return nil
				}
			}
			return nil
		}))
	})
	select {
	case <-reduced:
	default:
		t.Error("the body of what was delivered meanwhile has stayed")
	}
	r.stop()
}
