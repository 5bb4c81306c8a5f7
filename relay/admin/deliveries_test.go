package admin_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

func TestDeliveries(t *testing.T) {
	a := newAPI(t)
	delivered, failed, pending, gone := populate(t, a)
	name := map[string]string{
		delivered.ID.String(): "delivered", failed.ID.String(): "failed", pending.ID.String(): "pending", gone.ID.String(): "gone",
	}
	soon := url.QueryEscape(epoch().Add(time.Millisecond).Format(time.RFC3339Nano))
	for _, tc := range []struct{ query, want string }{
		{"", "gone pending failed delivered"},
		{"limit=500", "gone pending failed delivered"},
		{"destination=alerts", "pending delivered"},
		{"destination=alerts&state=pending", "pending"},
		{"state=", "gone pending failed delivered"},
		{"event=alert.fired", "failed delivered"},
		{"event=alert", ""},
		{"class=timeout", "pending"},
		{"state=canceled", ""},
		{"since=1h", "gone pending failed delivered"},
		{"since=" + soon, ""},
		{"until=" + soon, "gone pending failed delivered"},
		{"until=0s", ""},
		{"since=2d&until=1d12h", ""},
		{"q=ALERT", "pending failed delivered"},
		{"q=" + failed.ID.String(), "failed"},
		{"q=" + failed.ID.Message().String(), "failed delivered"},
	} {
		t.Run(tc.query, func(t *testing.T) {
			page := into[admin.DeliveryPage](t, a, "GET", "/api/v1/deliveries?"+tc.query, "")
			var got []string
			for _, d := range page.Deliveries {
				got = append(got, name[d.ID])
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
		})
	}
}

func TestPages(t *testing.T) {
	a := newAPI(t)
	var want []string
	for n := range 7 {
		d := a.accept(t, store.Message{Event: fmt.Sprintf("a.n%d", n)}, "", "alerts")[0]
		want = append([]string{d.ID.String()}, want...)
	}
	t.Run("pages follow one another to the end", func(t *testing.T) {
		for limit := 1; limit <= 8; limit++ {
			var got []string
			query := admin.DeliveryQuery{DeliveryFilter: admin.DeliveryFilter{Destination: "alerts", Since: "1h"}, Limit: limit}
			for d, err := range a.client.AllDeliveries(t.Context(), query) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, d.ID)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("limit %d: got %v, want %v", limit, got, want)
			}
		}
	})
	t.Run("what is accepted meanwhile moves no page", func(t *testing.T) {
		first := into[admin.DeliveryPage](t, a, "GET", "/api/v1/deliveries?limit=3", "")
		a.accept(t, store.Message{}, "", "alerts")
		second := into[admin.DeliveryPage](t, a, "GET", "/api/v1/deliveries?limit=3&cursor="+*first.NextCursor, "")
		if second.Deliveries[0].ID != want[3] {
			t.Errorf("got %s first, want %s", second.Deliveries[0].ID, want[3])
		}
	})
	t.Run("a cursor of another filter is refused", func(t *testing.T) {
		first := into[admin.DeliveryPage](t, a, "GET", "/api/v1/deliveries?limit=3&q=a.n", "")
		status, answer := a.do(t, "GET", "/api/v1/deliveries?limit=3&cursor="+*first.NextCursor, "")
		if status != 400 || !strings.Contains(answer, "another filter") {
			t.Errorf("got %d %s, want 400", status, answer)
		}
		if status, answer := a.do(t, "GET", "/api/v1/deliveries?limit=5&q=a.n&cursor="+*first.NextCursor, ""); status != 200 {
			t.Errorf("another limit: got %d %s, want 200", status, answer)
		}
	})
	t.Run("an error ends a walk", func(t *testing.T) {
		query := admin.DeliveryQuery{DeliveryFilter: admin.DeliveryFilter{State: "none"}}
		calls := 0
		for _, err := range a.client.AllDeliveries(t.Context(), query) {
			if calls++; err == nil {
				t.Error("got a delivery, want an error")
			}
		}
		if calls != 1 {
			t.Errorf("got %d yields, want 1", calls)
		}
	})
}

func TestSteerDelivery(t *testing.T) {
	a := newAPI(t)
	_, failed, pending, _ := populate(t, a)
	d := into[admin.Delivery](t, a, "POST", "/api/v1/deliveries/"+failed.ID.String()+"/replay", "")
	if d.State != "pending" || d.Round != 2 || d.Attempts != 0 || d.MessageID != failed.ID.Message().String() {
		t.Errorf("got %+v, want a second round of the same message", d)
	}
	later := pending
	later.DueAt = epoch().Add(time.Hour)
	if _, err := a.store.Record(t.Context(), pending, later, store.Attempt{}); err != nil {
		t.Fatal(err)
	}
	d = into[admin.Delivery](t, a, "POST", "/api/v1/deliveries/"+pending.ID.String()+"/retry", "")
	if !d.DueAt.Equal(epoch()) {
		t.Errorf("got due %v, want now", d.DueAt)
	}
	d = into[admin.Delivery](t, a, "POST", "/api/v1/deliveries/"+pending.ID.String()+"/cancel", "")
	if d.State != "canceled" || d.Reason != "canceled by hand" || !d.DueAt.IsZero() || d.EndedAt.IsZero() {
		t.Errorf("got %+v, want it canceled with a reason", d)
	}
}
