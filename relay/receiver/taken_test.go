package receiver

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestTakenTellsOfEachRequestThatIsTaken(t *testing.T) {
	var told []string
	r := &Receiver{Taken: func(r Request) { told = append(told, r.Header.Get("Webhook-Id")+" "+string(r.Body)) }}
	handler, err := r.Handler()
	if err != nil {
		t.Fatal(err)
	}
	post := func(id, body string) {
		request := httptest.NewRequest("POST", "/hook", strings.NewReader(body))
		request.Header.Set("Webhook-Id", id)
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	post("a", "1")
	r.Outage(true)
	post("b", "2")
	r.Outage(false)
	post("b", "2")
	post("a", "1")
	if want := []string{"a 1", "b 2", "a 1"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}
