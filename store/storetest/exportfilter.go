package storetest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// exported returns the ids of the messages in an export.
func exported(tb testing.TB, raw []byte) (ids []store.MessageID) {
	tb.Helper()
	r, err := store.ReadExport(bytes.NewReader(raw))
	if err != nil {
		tb.Fatalf("ReadExport: %v", err)
	}
	for x, err := range r.Messages() {
		if err != nil {
			tb.Fatalf("read export: %v", err)
		}
		ids = append(ids, x.Message.ID)
	}
	return ids
}

func testExportFilter(t *testing.T, open Open) {
	s := open(t, Options{})
	var ids []store.MessageID
	for n := range 6 {
		m := message(t, "alerts", "audit")
		m.AcceptedAt = start.Add(time.Duration(n) * time.Minute)
		switch n {
		case 0:
			m.Recipients = nil
		case 1:
			m.Recipients = m.Recipients[1:]
		}
		accept(t, s, m, "")
		ids = append(ids, m.ID)
		if n > 3 {
			state := []store.State{store.Failed, store.Delivered}[n-4]
			after, a := end(m.Delivery(0), state, start)
			record(t, s, m.Delivery(0), after, a)
		}
	}
	for name, c := range map[string]struct {
		filter store.Filter
		want   []store.MessageID
	}{
		"all":                 {store.Filter{}, ids},
		"of a destination":    {store.Filter{Destination: "alerts"}, ids[2:]},
		"in a state":          {store.Filter{State: store.Failed}, ids[4:5]},
		"since":               {store.Filter{Since: start.Add(2 * time.Minute)}, ids[2:]},
		"until":               {store.Filter{Until: start.Add(2 * time.Minute)}, ids[:2]},
		"all at once":         {store.Filter{Destination: "alerts", State: store.Pending, Since: start.Add(3 * time.Minute), Until: start.Add(5 * time.Minute)}, ids[3:4]},
		"of one without any":  {store.Filter{Destination: "nobody"}, nil},
		"before the earliest": {store.Filter{Until: start}, nil},
	} {
		t.Run("a filter chooses messages "+name, func(t *testing.T) {
			raw, _ := export(t, s, c.filter)
			equal(t, "messages", exported(t, raw), c.want)
		})
	}
	t.Run("what is pending and does not pass is not delivered after an import", func(t *testing.T) {
		raw, counts := export(t, s, store.Filter{Destination: "alerts"})
		equal(t, "counts", counts, store.ExportCounts{Messages: 4, Deliveries: 8, Pending: 2, LeftOut: 4, Attempts: 2})
		again := open(t, Options{})
		done := mustImport(t, again, raw)
		equal(t, "imported", done, store.Imported{Messages: 4, Deliveries: 8, Pending: 2, Attempts: 2})
		names, err := again.PendingDestinations(t.Context())
		if err != nil {
			t.Fatalf("PendingDestinations: %v", err)
		}
		equal(t, "destinations", names, []string{"alerts"})
		d, err := again.Delivery(t.Context(), ids[2].Delivery(1))
		if err != nil || d.State != store.Canceled || !d.EndedAt.Equal(start.Add(time.Hour)) || !strings.Contains(d.Reason, "left out") {
			t.Errorf("the other: got %+v, error %v; want it canceled with the reason, at the time of the export", d, err)
		}
		rest, _ := export(t, s, store.Filter{Destination: "audit"})
		equal(t, "existing", mustImport(t, again, rest).Existing, int64(4))
	})
}

func testImportRefuses(t *testing.T, open Open) {
	one := func(spoil func(x *store.Exported)) store.Exported {
		m := message(t, "alerts")
		d, a := end(m.Delivery(0), store.Delivered, start)
		x := store.Exported{Message: m, Deliveries: []store.ExportedDelivery{{Delivery: d, History: []store.Attempt{a}}}}
		spoil(&x)
		return x
	}
	s := open(t, Options{}).(portable)
	t.Run("what is right is taken", func(t *testing.T) {
		if err := s.CheckImport(one(func(*store.Exported) {})); err != nil {
			t.Errorf("CheckImport: %v", err)
		}
	})
	for name, c := range map[string]struct {
		spoil func(x *store.Exported)
		want  error
	}{
		"no id":                         {func(x *store.Exported) { x.Message.ID = store.MessageID{} }, store.ErrBadID},
		"the id of a delivery":          {func(x *store.Exported) { x.Message.ID = store.MessageID(x.Deliveries[0].ID) }, store.ErrBadID},
		"no time":                       {func(x *store.Exported) { x.Message.AcceptedAt = time.Time{} }, store.ErrInvalid},
		"a long key":                    {func(x *store.Exported) { x.Message.Key = strings.Repeat("x", store.MaxKey+1) }, store.ErrInvalid},
		"too many hops":                 {func(x *store.Exported) { x.Message.Hops = store.MaxHops + 1 }, store.ErrInvalid},
		"another size":                  {func(x *store.Exported) { x.Body = []byte("x") }, store.ErrInvalid},
		"a large part of a body":        {func(x *store.Exported) { x.Message.Reduced, x.Body = true, make([]byte, store.MaxReduced+1) }, store.ErrTooLarge},
		"a delivery too many":           {func(x *store.Exported) { x.Deliveries = append(x.Deliveries, x.Deliveries[0]) }, store.ErrInvalid},
		"a delivery of another message": {func(x *store.Exported) { x.Deliveries[0].ID = message(t).ID.Delivery(0) }, store.ErrInvalid},
		"another delivery's number":     {func(x *store.Exported) { x.Deliveries[0].ID = x.Message.ID.Delivery(1) }, store.ErrInvalid},
		"another destination":           {func(x *store.Exported) { x.Deliveries[0].Destination = "b" }, store.ErrInvalid},
		"no destination":                {func(x *store.Exported) { x.Deliveries[0].Destination, x.Message.Recipients[0].Destination = "", "" }, store.ErrInvalid},
		"a zero byte in a destination": {func(x *store.Exported) {
			x.Deliveries[0].Destination, x.Message.Recipients[0].Destination = "\x00", "\x00"
		}, store.ErrInvalid},
		"a line of another":              {func(x *store.Exported) { x.Deliveries[0].Order = "=k" }, store.ErrInvalid},
		"a long order":                   {func(x *store.Exported) { x.Message.Recipients[0].Order = strings.Repeat("x", store.MaxKey+2) }, store.ErrInvalid},
		"no state":                       {func(x *store.Exported) { x.Deliveries[0].State = 0 }, store.ErrInvalid},
		"an unknown state":               {func(x *store.Exported) { x.Deliveries[0].State = 5 }, store.ErrInvalid},
		"round 0":                        {func(x *store.Exported) { x.Deliveries[0].Round = 0 }, store.ErrInvalid},
		"a round beyond the last":        {func(x *store.Exported) { x.Deliveries[0].Round = store.MaxRound + 1 }, store.ErrInvalid},
		"fewer attempts than none":       {func(x *store.Exported) { x.Deliveries[0].Attempts = -1 }, store.ErrInvalid},
		"more attempts than can be":      {func(x *store.Exported) { x.Deliveries[0].Made = store.MaxAttempts + 1 }, store.ErrInvalid},
		"no end":                         {func(x *store.Exported) { x.Deliveries[0].EndedAt = time.Time{} }, store.ErrInvalid},
		"no due time":                    {func(x *store.Exported) { x.Deliveries[0].State = store.Pending }, store.ErrInvalid},
		"blocking without a line":        {func(x *store.Exported) { x.Deliveries[0].State, x.Deliveries[0].Blocking = store.Failed, true }, store.ErrInvalid},
		"a latest attempt of no class":   {func(x *store.Exported) { x.Deliveries[0].Last.Class = 99 }, store.ErrInvalid},
		"an attempt of another delivery": {func(x *store.Exported) { x.Deliveries[0].History[0].Delivery = x.Message.ID.Delivery(1) }, store.ErrInvalid},
		"an attempt of a later round":    {func(x *store.Exported) { x.Deliveries[0].History[0].Round = 2 }, store.ErrInvalid},
		"attempt 0":                      {func(x *store.Exported) { x.Deliveries[0].History[0].Number = 0 }, store.ErrInvalid},
		"an attempt twice":               {func(x *store.Exported) { d := &x.Deliveries[0]; d.History = append(d.History, d.History[0]) }, store.ErrInvalid},
		"an attempt of no class":         {func(x *store.Exported) { x.Deliveries[0].History[0].Class = 0 }, store.ErrInvalid},
		"an attempt before it began":     {func(x *store.Exported) { x.Deliveries[0].History[0].Took = -1 }, store.ErrInvalid},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			x := one(c.spoil)
			if err := s.CheckImport(x); !errors.Is(err, c.want) {
				t.Errorf("CheckImport: got error %v, want %v", err, c.want)
			}
			done, err := s.Import(t.Context(), func(yield func(store.Exported, error) bool) { yield(x, nil) })
			if !errors.Is(err, c.want) || done != (store.Imported{}) {
				t.Errorf("Import: got %+v, error %v; want nothing and %v", done, err, c.want)
			}
		})
	}
}
