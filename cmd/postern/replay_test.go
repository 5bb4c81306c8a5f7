package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/admin"
)

// counting answers as a relay at which more has failed with each count.
func counting(t *testing.T, answer func(admin.BulkReplay) (admin.BulkReplayed, error)) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked admin.BulkReplay
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		done, err := answer(asked)
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprintf(w, `{"detail":%q}`, err)
			return
		}
		if err := json.NewEncoder(w).Encode(done); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestReplayOfWhatHasChangedSinceItWasCounted(t *testing.T) {
	failed, moving := 3, 2 // failures there are, and how many times another one comes before the replay
	address := counting(t, func(asked admin.BulkReplay) (admin.BulkReplayed, error) {
		if asked.DryRun {
			return admin.BulkReplayed{Matched: failed}, nil
		}
		if moving > 0 {
			moving--
			failed++
		}
		if *asked.ExpectCount != failed {
			return admin.BulkReplayed{}, fmt.Errorf("the filter chooses %d deliveries", failed)
		}
		return admin.BulkReplayed{Matched: failed, Replayed: failed}, nil
	})
	code, out, said := once(t, "replay", "--admin", address, "--destination", "a", "--yes")
	if code != exitOK || out != "5 deliveries replayed\n" {
		t.Errorf("with --yes: got %d %q %q, want all of the five", code, out, said)
	}

	failed, moving = 3, 1
	client := admin.Client{Address: address}
	_, err := replayCounted(t.Context(), client, replayOptions{}, 3)
	if err == nil || !strings.Contains(err.Error(), "3 were counted first, and now there are 4") {
		t.Errorf("after a question: got %v, want that nothing was replayed", err)
	}

	failed, moving = 3, 1<<30
	code, _, said = once(t, "replay", "--admin", address, "--destination", "a", "--yes")
	if code != exitFailed || !strings.Contains(said, "nothing was replayed") {
		t.Errorf("without an end: got %d %q, want that it gives up", code, said)
	}
}

func TestReplayOfSomeTellsHowToGoOn(t *testing.T) {
	address := counting(t, func(asked admin.BulkReplay) (admin.BulkReplayed, error) {
		if asked.DryRun {
			return admin.BulkReplayed{Matched: 3}, nil
		}
		return admin.BulkReplayed{Matched: 3, Replayed: 1}, nil
	})
	for state, want := range map[string]string{
		"failed": "run the command again", "canceled": "run the command again", "delivered": "--since and --until", "any": "--since and --until",
	} {
		code, _, said := once(t, "replay", "--admin", address, "--state", state, "--yes")
		if code != exitFailed || !strings.Contains(said, "2 of 3 were not replayed") || !strings.Contains(said, want) {
			t.Errorf("%s: got %d %q, want %q", state, code, said, want)
		}
	}
}

func TestReplayThatIsBrokenOff(t *testing.T) {
	ctx, breakOff := context.WithCancel(t.Context())
	address := counting(t, func(asked admin.BulkReplay) (admin.BulkReplayed, error) {
		if !asked.DryRun {
			breakOff()
			<-t.Context().Done()
		}
		return admin.BulkReplayed{Matched: 3}, nil
	})
	_, err := replayCounted(ctx, admin.Client{Address: address}, replayOptions{}, 3)
	if err == nil || !strings.Contains(err.Error(), "what was replayed until then goes on") {
		t.Errorf("got %v, want that some may have been replayed", err)
	}
}
