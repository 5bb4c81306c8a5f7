package guard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRoom(t *testing.T) {
	t.Run("without a bound", func(t *testing.T) {
		var r *Room
		if err := r.enter(t.Context()); err != nil {
			t.Error(err)
		}
		r.leave()
	})
	t.Run("a full one makes room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			r := NewRoom(1, time.Second, func() { asked++ })
			if err := r.enter(t.Context()); err != nil || asked > 0 {
				t.Fatalf("the first one: got %v, asked %d times for room", err, asked)
			}
			begun := time.Now()
			time.AfterFunc(2500*time.Millisecond, r.leave)
			if err := r.enter(t.Context()); err != nil || time.Since(begun) != 2500*time.Millisecond || asked != 3 {
				t.Errorf("got %v after %v, asked %d times; want none after 2.5s, asked 3 times", err, time.Since(begun), asked)
			}
		})
	})
	t.Run("who waits gives up in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := NewRoom(1, time.Second, func() {})
			if err := r.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			if err := r.enter(t.Context()); !errors.Is(err, ErrNoRoom) || time.Since(begun) != dialTimeout {
				t.Errorf("got %v after %v, want %v after %v", err, time.Since(begun), ErrNoRoom, dialTimeout)
			}
			cause := errors.New("a test")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
			defer cancel()
			if err := r.enter(ctx); !errors.Is(err, cause) {
				t.Errorf("got %v, want %v", err, cause)
			}
			r.leave()
			if err := r.enter(t.Context()); err != nil {
				t.Errorf("after one has left: got %v", err)
			}
		})
	})
}
