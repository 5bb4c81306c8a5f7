package relay

import (
	"context"
	"errors"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/admin"
)

func TestAPIReloads(t *testing.T) {
	r := newRig(t, `destinations: {a: {url: "https://a.test/"}, b: {url: "https://b.test/"}}`, func(r *rig) { r.Version = "1.2.3" })
	client := admin.Client{Address: r.backAddr()}
	overview, err := client.Overview(t.Context())
	if err != nil || overview.Reload != nil || overview.Version != "1.2.3" {
		t.Fatalf("got %+v, %v; want a version and no reload yet", overview, err)
	}

	r.write(t, `destinations: {a: {url: "https://a.test/", timeout: 5s}, c: {url: "https://c.test/"}}
store: {retention: 1h, max_pending: 7}`)
	got, err := client.Reload(t.Context())
	if err != nil || !got.OK || got.Error != "" {
		t.Fatalf("got %+v, %v; want it done", got, err)
	}
	if want := []string{"destinations.a", "destinations.b", "destinations.c", "store.retention"}; !reflect.DeepEqual(got.Changed, want) {
		t.Errorf("changed: got %q, want %q", got.Changed, want)
	}
	if want := []string{"store.max_pending"}; !reflect.DeepEqual(got.RestartNeeded, want) {
		t.Errorf("restart needed: got %q, want %q", got.RestartNeeded, want)
	}
	if detail, err := client.Destination(t.Context(), "a"); err != nil || !strings.Contains(string(detail.Config), "5s") {
		t.Errorf("got %s, %v; want the config in force", detail.Config, err)
	}

	t.Run("a wrong file is refused with its faults", func(t *testing.T) {
		r.write(t, `destinations: {a: {url: "http://a.test/", concurrency: 0}}`)
		_, err := client.Reload(t.Context())
		refusal, ok := errors.AsType[*admin.Refusal](err)
		if !ok || refusal.Status != http.StatusUnprocessableEntity || len(refusal.Errors) != 2 {
			t.Fatalf("got %v, want 422 and two faults", err)
		}
		if f := refusal.Errors[0]; f.Path != "destinations.a.url" || f.Line != 1 || f.Column == 0 || f.File != r.path || f.Message == "" {
			t.Errorf("got %+v, want the place of the fault", f)
		}
		if overview, err := client.Overview(t.Context()); err != nil || overview.Reload == nil || overview.Reload.OK || overview.Reload.Error == "" {
			t.Errorf("got %+v, %v; want a reload that was refused", overview, err)
		}
	})
	t.Run("a file that is gone is refused", func(t *testing.T) {
		if err := os.Remove(r.path); err != nil {
			t.Fatal(err)
		}
		_, err := client.Reload(t.Context())
		if refusal, ok := errors.AsType[*admin.Refusal](err); !ok || refusal.Status != http.StatusUnprocessableEntity || len(refusal.Errors) != 1 {
			t.Errorf("got %v, want 422 and one fault", err)
		}
	})
}

func TestAPITellsWhatChanges(t *testing.T) {
	r := newRig(t, `destinations: {a: {url: "https://a.test/"}}`)
	client := admin.Client{Address: r.backAddr()}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	told := map[string]bool{}
	for event, err := range client.Events(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case event.Name == admin.EventConnected:
			r.accept(t, "a")
		case event.Delivery != nil:
			told[event.Delivery.State] = true
			if event.Delivery.State == "delivered" {
				if err := r.Reload(ctx); err != nil {
					t.Fatal(err)
				}
			}
		case event.Destination != nil:
			told[event.Destination.Name] = true
		case event.Reload != nil:
			told["reload"] = true
		}
		if told["delivered"] && told["a"] && told["reload"] {
			break
		}
	}
	if !told["delivered"] || !told["a"] || !told["reload"] {
		t.Errorf("got %v, want to be told of the delivery, its destination and the reload", told)
	}
	d, err := client.Destination(t.Context(), "a")
	if err != nil || d.LastHour.Delivered != 1 || d.LastHour.Attempts != 1 {
		t.Errorf("got %+v, %v; want one delivery in the last hour", d.LastHour, err)
	}
}
