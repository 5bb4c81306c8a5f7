package dashboard_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestFlows does in a browser what a person does. The subtests share the browser and nothing else.
func TestFlows(t *testing.T) {
	browser := startBrowser(t)
	start := func(t *testing.T) (*fakeAPI, *tab) {
		t.Helper()
		api := newFakeAPI(t)
		return api, openTab(t, browser, api.server.URL)
	}

	t.Run("a failure is seen, opened, read, replayed and watched to its delivery", func(t *testing.T) {
		api, p := start(t)
		p.open("/")
		p.shows(".destination.bad", "billing")
		p.click(".destination a", "billing")
		p.shows("h1", "billing")
		p.click("a.list-more", "All deliveries to billing")
		p.shows("h1", "Deliveries")
		p.click(".segmented button", "Failed")
		p.until(`location.hash === "#/deliveries?destination=billing&state=failed" && document.querySelectorAll("[data-row]").length === 12`)
		p.click("[data-row]", "502 Bad Gateway")
		p.shows("h1", "invoice.paid")
		p.shows("section[aria-label=Request]", "Webhook-Signature")
		p.shows("section[aria-label=Request]", `"sku": "seat-annual"`)
		p.shows("section[aria-label=Response]", "502 Bad Gateway")
		p.shows("section[aria-label=Response]", `"code": "upstream_unavailable"`)
		p.shows(".timing-legend", "TLS 48 ms")
		p.click(".timeline button", "Timeout")
		p.shows("section[aria-label=Response]", "no answer within 30s")
		p.shows("section[aria-label=Response]", "No answer came back.")

		failed := strings.TrimPrefix(p.eval(`location.hash.split("?")[0]`), "#/deliveries/")
		p.click("button", "Replay")
		p.shows(".badge", "Pending")
		p.shows(".toasts", "Replay begun")
		p.shows(".facts", "Due") // and no longer when it ended
		if got, want := api.posted(), "deliveries/"+failed+"/replay "; !slices.Contains(got, want) {
			t.Errorf("got the posts %q, want %q among them", got, want)
		}
		api.deliver(failed) // and the page is told of it
		p.shows(".badge", "Delivered")
		p.shows(".timeline", "round 2")
		p.eval(`location.hash = location.hash.split("?")[0]`)
		p.shows("section[aria-label=Response]", "200 OK")
		p.shows("section[aria-label=Response]", `"received": true`)
	})

	t.Run("what is stored stays text", func(t *testing.T) {
		api, p := start(t)
		d := api.hostile()
		api.accept(d)
		p.open("/deliveries")
		p.shows("[data-row]", hostileScript)
		p.open("/deliveries/" + d.ID)
		p.shows("h1", hostileScript)
		p.shows(".callout.bad", hostileScript)
		p.shows("section[aria-label=Response]", "<!doctype html>"+hostileScript)
		p.until(`document.title.startsWith("<script>")`)
		p.click("button", "Raw")
		p.shows("section[aria-label=Request] .code", `{"html":"<script>`)
		api.mu.Lock()
		api.destinations[0].Pause = &pause{At: stamp(time.Now()), Reason: hostileScript}
		api.full, api.trouble, api.reload = hostileScript, hostileScript, &reload{At: stamp(time.Now()), Error: hostileScript}
		api.mu.Unlock()
		p.open("/")
		p.shows(".callout.bad", hostileScript)
		p.shows(".callout.bad ~ .callout.bad", hostileScript)
		p.shows(".callout.warn", hostileScript)
		p.open("/destinations/alerts")
		p.shows(".callout.warn", hostileScript)
		p.expecting("503 (Service Unavailable)")
		api.mu.Lock()
		api.down = true
		api.mu.Unlock()
		p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(api.server.URL+"/#/deliveries?q="+"%3Cimg%20src=x%20onerror=pwned()%3E"))
		p.shows(".empty", "The store has failed <script>")
		if got := p.eval(`String(window.pwned) + document.querySelectorAll("main img, main script").length`); got != "undefined0" {
			t.Errorf("got %s, want nothing of it run or made into an element", got)
		}
	})

	t.Run("the list follows the stream, and stands still while one reads further down", func(t *testing.T) {
		api, p := start(t)
		p.open("/deliveries")
		p.until(`document.querySelectorAll("[data-row]").length === 50`)
		api.accept(newDelivery(300, api.destinations[0], "first.live", time.Now()))
		p.shows("[data-row]", "first.live")
		p.eval(`scrollTo(0, document.body.scrollHeight)`)
		p.until(`document.querySelectorAll("[data-row]").length === 101`)
		p.eval(`scrollTo(0, document.body.scrollHeight)`)
		p.until(`document.querySelectorAll("[data-row]").length === 131`)
		p.shows(".list-end", "That is all there is.")
		p.eval(`scrollTo(0, 900)`)
		p.until(`scrollY === 900`)
		top := p.eval(`document.querySelectorAll("[data-row]")[12].getBoundingClientRect().top`)
		api.accept(newDelivery(301, api.destinations[0], "second.live", time.Now()))
		p.shows(".news", "1 new delivery")
		if got := p.eval(`document.querySelectorAll("[data-row]")[12].getBoundingClientRect().top`); got != top {
			t.Errorf("got the line at %s, want it still at %s", got, top)
		}
		p.click(".news", "new")
		p.shows("[data-row]", "second.live")
		p.click("[role=switch]", "Live")
		api.accept(newDelivery(302, api.destinations[0], "third.live", time.Now()))
		p.shows(".news", "1 new delivery")
		p.click("[role=switch]", "Live")
		p.shows("[data-row]", "third.live")
	})

	t.Run("after a broken stream the view asks again", func(t *testing.T) {
		api, p := start(t)
		p.open("/deliveries")
		api.mu.Lock()
		api.deliveries = slices.Insert(api.deliveries, 0, newDelivery(300, api.destinations[0], "while.away", time.Now()))
		api.mu.Unlock()
		api.breakStreams()
		p.shows("[data-row]", "while.away")
	})

	t.Run("filters are in the address, and the search goes there when the typing pauses", func(t *testing.T) {
		_, p := start(t)
		p.open("/deliveries?state=failed")
		p.until(`document.querySelectorAll("[data-row]").length === 12`)
		p.press("/")
		p.until(`document.activeElement?.dataset.search === "true"`)
		p.press("c", "o", "n", "n", "e", "c", "t")
		p.until(`location.hash === "#/deliveries?state=failed&q=connect"`)
		p.until(`document.querySelectorAll("[data-row]").length === 0`)
		p.shows(".empty", "No delivery matches")
		p.click("button.link", "clear the filters")
		p.until(`location.hash === "#/deliveries" && document.querySelectorAll("[data-row]").length === 50`)
		p.eval(`(() => { const s = document.querySelector("select"); s.value = "crm"; s.dispatchEvent(new Event("change", {bubbles: true})); return "" })()`)
		p.until(`location.hash === "#/deliveries?destination=crm" && [...document.querySelectorAll(".cell-destination")].every((e) => e.innerText === "crm")`)
	})

	t.Run("the keyboard alone finds, opens and replays", func(t *testing.T) {
		api, p := start(t)
		p.open("/")
		p.press("d")
		p.shows("h1", "Deliveries")
		p.settled()
		p.press("j", "j", "j", "k")
		p.until(`document.activeElement === document.querySelectorAll("[data-row]")[1]`)
		if got := p.eval(`getComputedStyle(document.activeElement).outlineStyle`); got != "solid" {
			t.Errorf("got the outline %s, want the focus to be seen", got)
		}
		p.press(kb.Enter)
		p.shows("h1", "invoice.paid")
		p.press("r")
		p.shows("dialog", "Replay this delivery?")
		p.press(kb.Escape)
		p.until(`!document.querySelector("dialog")`)
		if got := api.posted(); len(got) != 0 {
			t.Errorf("got the posts %q after Escape, want none", got)
		}
		p.press("r")
		p.shows("dialog", "Replay this delivery?")
		p.press(kb.Enter)
		p.shows(".badge", "Pending")
		p.press(kb.Escape)
		p.shows("h1", "Deliveries")
		p.press("?")
		p.shows("dialog", "Keyboard shortcuts")
		p.press(kb.Escape)
		p.until(`!document.querySelector("dialog")`)
		p.press("t")
		p.until(`document.documentElement.dataset.theme === "light"`)
		p.press("t")
		p.until(`document.documentElement.dataset.theme === "dark" && getComputedStyle(document.body.parentElement).backgroundColor === "rgb(13, 16, 22)"`)
		p.press("o")
		p.shows("h1", "Overview")
	})

	t.Run("a pending delivery can be sent now and canceled", func(t *testing.T) {
		api, p := start(t)
		p.open("/deliveries/" + api.deliveries[5].ID)
		p.shows(".timeline", "Next attempt")
		p.click("button", "Retry now")
		p.shows(".toasts", "Due now")
		p.click("button", "Cancel")
		p.fill("dialog input", "no longer wanted")
		p.click("dialog button", "Cancel delivery")
		p.shows(".badge", "Canceled")
		want := "deliveries/" + api.deliveries[5].ID + `/cancel {"reason":"no longer wanted"}`
		if got := api.posted(); !slices.Contains(got, want) {
			t.Errorf("got the posts %q, want %q among them", got, want)
		}
	})

	t.Run("a destination is paused with a reason and resumed", func(t *testing.T) {
		_, p := start(t)
		p.open("/destinations/alerts")
		p.click("button", "Pause")
		p.fill("dialog input", "they are moving")
		p.click("dialog button", "Pause")
		p.shows(".callout.warn", "they are moving")
		p.click("button", "Resume")
		p.until(`!document.querySelector(".callout.warn")`)
	})

	t.Run("a test shows the whole exchange, a rendering sends nothing", func(t *testing.T) {
		api, p := start(t)
		p.open("/destinations/alerts")
		p.click("button", "Send a test")
		p.fill("textarea", `{"amount": 1}`)
		p.click("button", "Send test")
		p.shows("section.attempt", "A delivery would be delivered by this.")
		p.shows("section[aria-label=Response]", "200 OK")
		p.click("button", "Render only")
		p.shows("section.attempt", "nothing was sent")
		p.shows("section.attempt", "What standard signs")
		p.open("/deliveries/" + api.deliveries[0].ID)
		p.click("a", "Render by today's config")
		p.shows("section.attempt", "nothing was sent")
		posts := api.posted()
		if got, want := posts[len(posts)-1], `destinations/alerts/render {"delivery_id":"`+api.deliveries[0].ID+`"}`; got != want {
			t.Errorf("got the post %q, want %q", got, want)
		}
		posts = posts[:len(posts)-1]
		want := []string{"destinations/alerts/test", "destinations/alerts/render"}
		for i, post := range posts {
			if i >= len(want) || post != want[i]+` {"event":"postern.test","content_type":"application/json","body":"{\"amount\": 1}"}` {
				t.Errorf("got the post %q", post)
			}
		}
		if got := len(posts); got != len(want) {
			t.Errorf("got %d posts, want %d", got, len(want))
		}
	})

	t.Run("many are replayed only after a preview, and above a hundred after the number is typed", func(t *testing.T) {
		api, p := start(t)
		p.open("/replay?destination=billing")
		p.shows("#confirm-title", "12 deliveries match")
		if got := api.posted(); len(got) != 1 || !strings.Contains(got[0], `"dry_run":true`) {
			t.Errorf("got the posts %q, want a dry run alone", got)
		}
		p.click("button", "Replay 12 deliveries")
		p.shows(".toasts", "12 deliveries replayed")
		p.shows(".empty", "Nothing to replay")
		p.open("/replay?state=ended")
		p.shows("#confirm-title", "109 deliveries match")
		if got := p.eval(`document.querySelector("form button").disabled`); got != "true" {
			t.Error("the button works before the number is typed")
		}
		p.fill("form input", "109")
		p.click("form button", "Replay 109 deliveries")
		p.shows(".toasts", "109 deliveries replayed")
		if got, want := api.posted()[len(api.posted())-2], `"expect_count":109`; !strings.Contains(got, want) {
			t.Errorf("got the post %q, want %s in it", got, want)
		}
	})

	t.Run("JSON is laid out and never changed", func(t *testing.T) {
		api, p := start(t)
		d := newDelivery(300, api.destinations[0], "exact", time.Now())
		d.message.Body = `{"n":12345678901234567890.10,"a":1,"a":2,"e":"\u0041\/","empty":{},"list":[]}`
		api.accept(d)
		p.open("/deliveries/" + d.ID)
		p.until(`document.querySelector(".message .code")`)
		want := "{\n  \"n\": 12345678901234567890.10,\n  \"a\": 1,\n  \"a\": 2,\n  \"e\": \"\\u0041\\/\",\n  \"empty\": {},\n  \"list\": []\n}"
		if got := p.eval(`document.querySelector(".message .code").textContent`); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})

	t.Run("what is copied as curl is the request, and nothing of it reaches the shell", func(t *testing.T) {
		api, p := start(t)
		d := newDelivery(300, api.destinations[0], "exact", time.Now())
		d.message.Body = "@/etc/passwd 'quoted' $(touch pwned) `x`\nüñ"
		made := sampleAttempt(1, 1, time.Now(), "status", 500)
		made.Request.Headers = []field{{"Content-Length", "9"}, {"X-Quote", "it's; rm -rf $HOME"}, {"X-Empty", ""}}
		d.add(made)
		d.history[0].Request.URL = "https://hooks.example.com/a?b=[1-3]&c='"
		d.State = "failed"
		api.accept(d)
		p.open("/deliveries/" + d.ID)
		p.click("button", "Copy as curl")
		p.shows(".toasts", "copied")
		got := shellArguments(t, p.clipboard())
		want := []string{
			"--globoff", "--request", "POST", "https://hooks.example.com/a?b=[1-3]&c='",
			"--header", "X-Quote: it's; rm -rf $HOME", "--header", "X-Empty;", "--data-raw", d.message.Body,
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	t.Run("a body with control characters is copied as base64", func(t *testing.T) {
		api, p := start(t)
		d := newDelivery(300, api.destinations[0], "exact", time.Now())
		d.message.Body = "a\x1b[201~b"
		d.add(sampleAttempt(1, 1, time.Now(), "status", 500))
		d.State = "failed"
		api.accept(d)
		p.open("/deliveries/" + d.ID)
		p.click("button", "Copy as curl")
		p.shows(".toasts", "copied")
		command := p.clipboard()
		if strings.Contains(command, "\x1b") || !strings.HasPrefix(command, "printf %s 'YRtbMjAxfmI=' | base64 -d | curl ") {
			t.Errorf("got %q", command)
		}
	})

	t.Run("a relay that wants a token is given one", func(t *testing.T) {
		api, p := start(t)
		p.expecting("401 (Unauthorized)")
		api.ask("s3cret")
		p.do(chromedp.Navigate(api.server.URL + "/#/deliveries"))
		p.shows("dialog", "This relay wants a token")
		p.fill("dialog input", "wrong")
		p.press(kb.Enter)
		p.shows("dialog .callout", "does not know the token")
		for range 3 { // the second time the browser asks nobody
			p.press(kb.Escape)
			p.until(`document.querySelector("dialog").open`)
		}
		p.fill("dialog input", "s3cret")
		p.press(kb.Enter)
		p.until(`!document.querySelector("dialog")`)
		p.settled()
		p.until(`document.querySelectorAll("[data-row]").length === 50`)
		if got := p.eval(`sessionStorage.length + " " + localStorage.length + " " + document.cookie + location.href.includes("s3cret")`); got != "1 0 false" {
			t.Errorf("got %q, want the token in sessionStorage alone", got)
		}
	})
}

// TestFaultsAreNoticed holds that a tab notes what the other tests must not find.
func TestFaultsAreNoticed(t *testing.T) {
	browser := startBrowser(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'")
		switch r.URL.Path {
		case "/a.js":
			_, _ = fmt.Fprint(w, `console.error("on the console"); fetch("http://127.0.0.2:9/").catch(() => 0); setTimeout(() => { throw new Error("thrown") })`)
		default:
			_, _ = fmt.Fprint(w, `<!doctype html><body><script>inline()</script><script src="/a.js"></script><p style="color:red">x</p>`)
		}
	}))
	defer server.Close()
	p := openTab(t, browser, server.URL)
	p.do(chromedp.Navigate(server.URL))
	for _, want := range []string{"on the console", "thrown", "CSP: script-src-elem", "CSP: style-src-attr", "CSP: connect-src"} {
		p.eval(`new Promise((resolve) => setTimeout(() => resolve(""), 50))`)
		if got := strings.Join(p.noted(), "\n"); !strings.Contains(got, want) {
			t.Errorf("got the faults %q, want %q among them", got, want)
		}
	}
	p.expecting("") // all of them
}

// shellArguments returns what a shell hands to curl when it runs a command.
func shellArguments(t testing.TB, command string) []string {
	t.Helper()
	sh := exec.CommandContext(t.Context(), "sh", "-c", `curl() { for a; do printf '%s\0' "$a"; done; }`+"\n"+command)
	sh.Dir = t.TempDir()
	out, err := sh.Output()
	if err != nil {
		t.Fatalf("run %q: %v", command, err)
	}
	var arguments []string
	for a := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		arguments = append(arguments, string(a))
	}
	return arguments
}
