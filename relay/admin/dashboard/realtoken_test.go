package dashboard_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// edit replaces a part of the config file, and reloads.
func (r *wholeRelay) edit(before, after string) {
	r.Helper()
	raw, err := os.ReadFile(r.file)
	if err != nil {
		r.Fatal(err)
	}
	text := strings.Replace(string(raw), before, after, 1)
	if text == string(raw) {
		r.Fatalf("%q is not in the config", before)
	}
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	if err := r.whole.Reload(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// asked asks the admin listener for a path with a token.
func (r *wholeRelay) asked(path, token string) (status int, text string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.admin+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// TestWholeRelayWithTokens is TestWholeRelay with admin_tokens in the config.
func TestWholeRelayWithTokens(t *testing.T) {
	browser := startBrowser(t)

	t.Run("a relay that wants a token is given one, and asks again when that is taken away", func(t *testing.T) {
		const first, second = "first-admin-token-01", "second-admin-token-02"
		r := startRelayWith(t, ", admin_tokens: [{name: ops, token: "+first+"}]")
		id := r.post("alerts", `{"n":1}`)
		p := openTab(t, browser, r.admin)
		p.expecting("401 (Unauthorized)")
		p.do(chromedp.Navigate(r.admin + "/#/deliveries/" + id))
		p.shows("dialog", "This relay wants a token")
		p.fill("dialog input", "wrong-admin-token-00")
		p.click("dialog button", "Go on")
		p.shows("dialog .callout", "does not know the token")
		p.fill("dialog input", first)
		p.click("dialog button", "Go on")
		p.until(`!document.querySelector("dialog")`)
		p.settled() // the stream of changes too
		p.shows(".badge", "Delivered")
		p.do(chromedp.Reload())
		p.settled() // the tab still has it
		r.edit(first, second)
		p.shows("dialog", "This relay wants a token") // nobody has touched the page: the stream has ended
		p.fill("dialog input", second)
		p.click("dialog button", "Go on")
		p.until(`!document.querySelector("dialog")`)
		p.settled()
		p.click("button", "Replay")
		p.shows(".timeline", "round 2")
		if got := p.eval(`sessionStorage.length + " " + localStorage.length + " " + document.cookie + location.href.includes("token")`); got != "1 0 false" {
			t.Errorf("got %q, want the token in sessionStorage alone", got)
		}
	})

	t.Run("after too many wrong tokens the right one is still asked for", func(t *testing.T) {
		const right = "right-admin-token-01"
		r := startRelayWith(t, ", admin_tokens: [{name: ops, token: "+right+"}]")
		status := 0
		for range 21 {
			status, _ = r.asked("/api/v1/overview", "wrong-admin-token-01")
		}
		if status != http.StatusTooManyRequests {
			t.Fatalf("got %d for the last of many wrong tokens, want 429", status)
		}
		refused := func() string {
			_, text := r.asked("/metrics", right)
			return strings.Join(regexp.MustCompile(`(?m)^postern_token_refusals_total\{listener="admin".*$`).FindAllString(text, -1), "\n")
		}
		p := openTab(t, browser, r.admin)
		p.expecting("401 (Unauthorized)")
		p.expecting("429 (Too Many Requests)")
		p.do(chromedp.Navigate(r.admin + "/"))
		p.shows("dialog", "This relay wants a token")
		p.fill("dialog input", "wrong-admin-token-00")
		p.click("dialog button", "Go on")
		p.shows("dialog .callout", "does not know the token")
		p.shows("main", "Too Many Requests")
		quiet := false
		for range 5 { // a request from before the dialog may be counted late
			before := refused()
			for _, view := range []string{"/deliveries", "/destinations/alerts", "/"} { // behind the dialog
				p.eval(`(location.hash = "` + view + `", "")`)
				p.shows("main", "The relay wants a token")
			}
			quiet = quiet || refused() == before
		}
		if !quiet {
			t.Errorf("the page goes on asking while it waits for a token: got\n%s", refused())
		}
		p.fill("dialog input", right)
		p.click("dialog button", "Go on")
		p.until(`!document.querySelector("dialog")`)
		p.settled()
		p.shows("main", "alerts")
	})
}
