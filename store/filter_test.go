package store_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestFilter(t *testing.T) {
	at := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	id, err := store.ParseDeliveryID("dlv_0199e3a1b2c37def8123456789abc002")
	if err != nil {
		t.Fatalf("ParseDeliveryID: %v", err)
	}
	m := store.Message{ID: id.Message(), Key: "Customer 7"}
	d := store.Delivery{
		ID: id, Destination: "alerts", Event: "Alert.fired", State: store.Failed, AcceptedAt: at, Reason: "used up",
		Last: store.Outcome{Class: store.ClassTimeout, Error: "no answer"},
	}
	for name, c := range map[string]struct {
		filter store.Filter
		want   bool
	}{
		"nothing":                       {store.Filter{}, true},
		"its destination":               {store.Filter{Destination: "alerts"}, true},
		"another destination":           {store.Filter{Destination: "alert"}, false},
		"its state":                     {store.Filter{State: store.Failed}, true},
		"another state":                 {store.Filter{State: store.Canceled}, false},
		"its event":                     {store.Filter{Event: "Alert.fired"}, true},
		"its event in other letters":    {store.Filter{Event: "alert.fired"}, false},
		"its class":                     {store.Filter{Class: store.ClassTimeout}, true},
		"another class":                 {store.Filter{Class: store.ClassOK}, false},
		"since its time":                {store.Filter{Since: at}, true},
		"since later":                   {store.Filter{Since: at.Add(1)}, false},
		"until its time":                {store.Filter{Until: at}, false},
		"until later":                   {store.Filter{Until: at.Add(1)}, true},
		"all at once":                   {store.Filter{Destination: "alerts", State: store.Failed, Class: store.ClassTimeout, Since: at, Text: "alert"}, true},
		"one of them not":               {store.Filter{Destination: "alerts", State: store.Failed, Class: store.ClassDNS, Since: at, Text: "alert"}, false},
		"text of the event":             {store.Filter{Text: "aLERT.F"}, true},
		"text of the key":               {store.Filter{Text: "customer 7"}, true},
		"text of the reason":            {store.Filter{Text: "USED"}, true},
		"text of the error":             {store.Filter{Text: "No Answer"}, true},
		"text of the middle of an id":   {store.Filter{Text: "A1B2C37"}, true},
		"text of its own id":            {store.Filter{Text: "c002"}, true},
		"text of its message's id":      {store.Filter{Text: "c000"}, true},
		"text of the destination":       {store.Filter{Text: "alerts"}, false},
		"its id":                        {store.Filter{Text: id.String()}, true},
		"its message's id":              {store.Filter{Text: strings.ToUpper(m.ID.String())}, true},
		"the beginning of its id":       {store.Filter{Text: "dlv_0199e"}, true},
		"the beginning of another":      {store.Filter{Text: "dlv_0199f"}, false},
		"the middle of its id":          {store.Filter{Text: "dlv_199e"}, false},
		"another delivery's id":         {store.Filter{Text: "dlv_0199e3a1b2c37def8123456789abc003"}, false},
		"its digits as a message's id":  {store.Filter{Text: "msg_0199e3a1b2c37def8123456789abc002"}, false},
		"no more than a prefix":         {store.Filter{Text: "msg_"}, true},
		"an id that is too long":        {store.Filter{Text: id.String() + "0"}, false},
		"what is no id and not in it":   {store.Filter{Text: "msg_xyz"}, false},
		"text in another field's order": {store.Filter{Text: "answer no"}, false},
	} {
		if got := c.filter.Match(d, m); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                                     {"00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"},
		"alert":                                {"00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"},
		"msg_0":                                {"00000000000000000000000000000000", "0fffffffffffffffffffffffffffffff"},
		"DLV_0199E":                            {"0199e000000000000000000000000000", "0199efffffffffffffffffffffffffff"},
		"dlv_0199e3a1b2c37def8123456789abc002": {"0199e3a1b2c37def8123456789abc002", "0199e3a1b2c37def8123456789abc002"},
		"msg_0199e3a1b2c37def8123456789abc000": {"0199e3a1b2c37def8123456789abc000", "0199e3a1b2c37def8123456789abcfff"},
		"msg_0199e3a1b2c37def8123456789abc":    {"0199e3a1b2c37def8123456789abc000", "0199e3a1b2c37def8123456789abcfff"},
	} {
		first, last := store.Filter{Text: text}.Bounds()
		if got := [2]string{first.String()[4:], last.String()[4:]}; got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestOutcome(t *testing.T) {
	at := time.Date(2026, 3, 14, 15, 9, 26, 999_999, time.FixedZone("far", 3600))
	long := strings.Repeat("x", store.MaxReason-1)
	got := store.Attempt{StartedAt: at, Class: store.ClassStatus, Status: 500, Error: long + "\u00e9"}.Outcome()
	want := store.Outcome{At: time.Date(2026, 3, 14, 14, 9, 26, 0, time.UTC), Class: store.ClassStatus, Status: 500, Error: long}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := store.CutReason(long + "\xff"); got != long+"\xff" {
		t.Errorf("CutReason at the bound: got %d bytes, want it whole", len(got))
	}
}

func FuzzFilterText(f *testing.F) {
	f.Add("msg_0199e3a1", []byte{1, 0x99, 0xe3, 0xa1})
	f.Add("dlv_0199e3a1b2c37def8123456789abc002", []byte{1, 0x99})
	f.Add("DLV_\xff", []byte{})
	f.Add("msg_0199e3a1b2c37def8123456789abcdef0", []byte{1})
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		var id store.DeliveryID
		copy(id[:], raw)
		filter := store.Filter{Text: text}
		first, last := filter.Bounds()
		if bytes.Compare(first[:], last[:]) > 0 {
			t.Fatalf("%q: bounds %s to %s", text, first, last)
		}
		within := bytes.Compare(first[:], id[:]) <= 0 && bytes.Compare(id[:], last[:]) <= 0
		if filter.Match(store.Delivery{ID: id, Event: text}, store.Message{}) && !within {
			t.Errorf("%q matches %s, which is not within %s and %s", text, id, first, last)
		}
	})
}
