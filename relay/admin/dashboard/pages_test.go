package dashboard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// screenshotsVariable names the folder that TestPages writes its pictures to; make screenshots sets it.
const screenshotsVariable = "POSTERN_SCREENSHOTS"

// TestPages looks at each view at a desk and on a phone, in light and in dark: nothing is wider than the window, and
// axe-core finds nothing to complain of.
func TestPages(t *testing.T) {
	folder := os.Getenv(screenshotsVariable)
	if folder == "" {
		folder = t.TempDir()
	} else if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	browser := startBrowser(t)
	api := newFakeAPI(t)
	failed := api.deliveries[6].ID
	views := []struct {
		name, hash string
		prepare    func(p *tab)
		refused    string // what the browser says of an answer that leaves the view unfinished; empty for none
	}{
		{"overview", "/", nil, ""},
		{"deliveries", "/deliveries", nil, ""},
		{"deliveries-filtered", "/deliveries?state=failed&destination=billing&range=24h", nil, ""},
		{"deliveries-none", "/deliveries?q=nowhere", nil, ""},
		{"delivery", "/deliveries/" + failed, nil, ""},
		{"delivery-delivered", "/deliveries/" + api.deliveries[3].ID, nil, ""},
		{"delivery-missing", "/deliveries/dlv_gone", func(p *tab) { p.shows("main", "Not Found") }, "404 (Not Found)"},
		{"destination", "/destinations/billing", nil, ""},
		{"destination-paused", "/destinations/crm?tab=config", nil, ""},
		{"destination-test", "/destinations/alerts?tab=test", func(p *tab) {
			p.click("button", "Send test")
			p.shows("#exchange-title", "The exchange")
		}, ""},
		{"replay", "/replay?state=failed&destination=billing", nil, ""},
		{"help", "/", func(p *tab) {
			p.press("?")
			p.shows("dialog", "Keyboard shortcuts")
		}, ""},
		{"token", "/", func(p *tab) {
			api.ask("s3cret") // from here on
			p.do(chromedp.Reload())
			p.shows("dialog", "This relay wants a token")
		}, "401 (Unauthorized)"},
		{"token-wrong", "/", func(p *tab) {
			p.fill("dialog input", "wrong")
			p.press(kb.Enter)
			p.shows("dialog .callout", "does not know the token")
		}, "401 (Unauthorized)"},
	}
	for _, view := range views {
		t.Run(view.name, func(t *testing.T) {
			p := openTab(t, browser, api.server.URL)
			if view.refused != "" {
				p.expecting(view.refused)
			}
			for _, screen := range []struct {
				name          string
				width, height int64
			}{{"", 1280, 900}, {"-phone", 390, 844}} {
				for _, scheme := range []string{"light", "dark"} {
					p.size(screen.width, screen.height)
					p.theme(scheme)
					if view.refused != "" {
						p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(api.server.URL+"/#"+view.hash))
					} else {
						p.open(view.hash)
					}
					if view.prepare != nil {
						view.prepare(p)
					}
					p.fits()
					p.accessible()
					p.eval(`(document.activeElement?.closest("dialog") || document.activeElement?.blur(), scrollTo(0, 0), "")`)
					picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatalf("take a picture: %v", err)
					}
					if !strings.HasPrefix(string(picture), "\x89PNG") {
						t.Fatalf("the picture is no PNG: %.8q", picture)
					}
					name := view.name + screen.name + "-" + scheme + ".png"
					if err := os.WriteFile(filepath.Join(folder, name), picture, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
