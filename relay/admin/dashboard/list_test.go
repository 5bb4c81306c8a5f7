package dashboard_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// serveList answers a list as it is now, though maybe later.
func (a *fakeAPI) serveList(w http.ResponseWriter, r *http.Request) {
	made := httptest.NewRecorder()
	a.serve(made, r)
	a.mu.Lock()
	held := a.held
	a.mu.Unlock()
	if held != nil {
		<-held
	}
	maps.Copy(w.Header(), made.Header())
	w.WriteHeader(made.Code)
	_, _ = w.Write(made.Body.Bytes())
}

func TestListThatIsSlow(t *testing.T) {
	api := newFakeAPI(t)
	p := openTab(t, startBrowser(t), api.server.URL)
	p.open("/")
	held := make(chan struct{})
	api.mu.Lock()
	api.held = held
	api.mu.Unlock()
	p.eval(`location.hash = "#/deliveries"`)
	p.until(`performance.getEntriesByType("resource").length > 0 && document.querySelector("[role=status]") !== null`)
	wait := func() {
		p.eval(`window.begun = performance.now()`)
		p.until(`performance.now() - window.begun > 700`)
	}
	wait() // the list is made, and on its way
	api.accept(newDelivery(300, api.destinations[0], "while.loading", time.Now()))
	wait() // and the page is told what is not in it
	close(held)
	p.until(`document.querySelectorAll("[data-row]").length > 0`)
	p.shows("[data-row]", "while.loading")
}
