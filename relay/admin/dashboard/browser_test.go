package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	waitBound = 20 * time.Second // for one step in a page: far more than it needs, on a busy machine too
	tabBound  = 3 * time.Minute
)

// startBrowser starts a headless Chromium that lives until the test ends. There is no test without it.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		// The locale decides how times are written. The test's own pages need no sandbox, which root cannot have.
		chromedp.NoSandbox, chromedp.Flag("lang", "en"), chromedp.WindowSize(1280, 900),
		chromedp.Flag("force-prefers-reduced-motion", true),
	}
	ctx, cancel := chromedp.NewContext(t.Context(), chromedp.WithAllocatorOptions(options...))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v; make chromium installs it", err)
	}
	return ctx
}

// tab is one page of the browser, with storage of its own. It notes whatever should not happen in it, and the test
// fails for that when it ends.
type tab struct {
	testing.TB
	ctx  context.Context
	host string // the only one that may be asked for anything

	mu     sync.Mutex // guards the fields below
	faults []string
	expect []string // parts of faults that this test causes on purpose
}

// openTab opens a tab for the pages of a server.
func openTab(t *testing.T, browserCtx context.Context, server string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browserCtx, chromedp.WithNewBrowserContext())
	bounded, stop := context.WithTimeout(ctx, tabBound)
	t.Cleanup(func() { stop(); cancel() })
	at, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{TB: t, ctx: bounded, host: at.Host}
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of the first call
		t.Fatalf("open a tab: %v", err)
	}
	if err := chromedp.Listen(bounded, p.note); err != nil {
		t.Fatalf("listen to the tab: %v", err)
	}
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, network.Enable, network.EnableParams{}); err != nil {
			return err
		}
		if _, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{}); err != nil {
			return err
		}
		if _, err := cdp.Call(ctx, target, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
			Source: `addEventListener("securitypolicyviolation", (e) => console.error("CSP: " + e.violatedDirective + " " + e.blockedURI))`,
		})
		return err
	}))
	t.Cleanup(func() {
		for _, fault := range p.noted() {
			t.Errorf("in the page: %s", fault)
		}
	})
	return p
}

// note takes down an event if it is a fault: anything on the console, an exception, a violation of the policy, a
// request to another host. Its calls come from the goroutine that reads from the browser.
func (p *tab) note(event any) {
	fault := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			fault = "console." + e.Type.String()
			for _, arg := range e.Args {
				fault += fmt.Sprintf(" %s %s", arg.Value, arg.Description)
			}
		}
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			fault = fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		at, err := url.Parse(e.Request.URL)
		if err != nil || at.Host != p.host && at.Scheme != "blob" && at.Scheme != "about" {
			fault = "request to another host: " + e.Request.URL
		}
	}
	if fault == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fault)
}

// noted returns the faults that were not expected.
func (p *tab) noted() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var unexpected []string
next:
	for _, fault := range p.faults {
		for _, part := range p.expect {
			if strings.Contains(fault, part) {
				continue next
			}
		}
		unexpected = append(unexpected, fault)
	}
	return unexpected
}

// expecting says that faults with this part are the test's own doing.
func (p *tab) expecting(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expect = append(p.expect, part)
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.Fatalf("in the browser: %v", err)
	}
}

// eval returns the value of a JavaScript expression as text: a string as it is, anything else as JSON. It waits for a
// promise.
func (p *tab) eval(expression string) string {
	p.Helper()
	raw, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]byte](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.Fatalf("evaluate %.200s: %v", expression, err)
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// until waits in the page until an expression is true, or fails with what the page shows.
func (p *tab) until(expression string) {
	p.Helper()
	seen := p.eval(fmt.Sprintf(`(async () => {
		const end = performance.now() + %d;
		for (;;) {
			if (%s) return "";
			if (performance.now() > end) return "the page shows " + location.hash + ", " + document.querySelectorAll("[data-row]").length + " lines, the focus on " + document.activeElement?.outerHTML.slice(0, 120) + ": " + [...document.querySelectorAll("dialog, .toasts, main")].map((e) => e.innerText).join("\n").slice(0, 700);
			await new Promise((resolve) => setTimeout(resolve, 15));
		}
	})()`, waitBound.Milliseconds(), expression))
	if seen != "" {
		p.Fatalf("never came true: %s\n%s", expression, seen)
	}
}

// shows waits until a text can be read in the first element that a selector finds.
func (p *tab) shows(selector, text string) {
	p.Helper()
	p.until(fmt.Sprintf(`document.querySelector(%s)?.innerText.includes(%s)`, quoteJS(selector), quoteJS(text)))
}

// open goes to a view, by the part of its address behind the #.
func (p *tab) open(hash string) {
	p.Helper()
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate("http://"+p.host+"/#"+hash))
	p.settled()
}

// settled waits until the view is complete and follows the stream of changes.
func (p *tab) settled() {
	p.Helper()
	p.until(`document.querySelector("main h1") && !document.querySelector(".skeleton") && document.querySelector(".connection.good")`)
	p.eval(`new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve(""))))`)
}

// click clicks with the mouse on the first element that a selector finds and that holds a text. It fails if something
// else lies above it there.
func (p *tab) click(selector, text string) {
	p.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%s)].find((e) => e.innerText.includes(%s) && !e.disabled)`, quoteJS(selector), quoteJS(text))
	p.until(find)
	var at struct {
		X, Y float64
		On   bool
	}
	raw := p.eval(fmt.Sprintf(`(() => {
		const e = %s;
		e.scrollIntoView({block: "center"});
		const box = e.getBoundingClientRect();
		const x = box.x + box.width / 2, y = box.y + box.height / 2;
		const top = document.elementFromPoint(x, y);
		return {X: x, Y: y, On: e.contains(top) || top?.contains(e) || false};
	})()`, find))
	if err := json.Unmarshal([]byte(raw), &at); err != nil {
		p.Fatal(err)
	}
	if !at.On {
		p.Fatalf("%q %q is covered by something else", selector, text)
	}
	p.do(chromedp.MouseClickXY(at.X, at.Y))
}

// press presses keys one after the other.
func (p *tab) press(keys ...string) {
	p.Helper()
	for _, key := range keys {
		if len(key) != 1 || key < " " || key > "~" {
			p.do(chromedp.KeyEvent(key))
			continue
		}
		// As one event with its text, so that a page that prevents the default of the key keeps the text out of a field,
		// as with a real keyboard. KeyEvent sends the text on its own.
		p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			for _, kind := range []input.DispatchKeyEventType{"keyDown", "keyUp"} {
				params := input.DispatchKeyEventParams{Type: kind, Key: key}
				if kind == "keyDown" {
					params.Text = key
				}
				if _, err := cdp.Call(ctx, target, input.DispatchKeyEvent, params); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// fill types into the first field that a selector finds.
func (p *tab) fill(selector, text string) {
	p.Helper()
	p.until(fmt.Sprintf(`document.querySelector(%s)`, quoteJS(selector)))
	p.eval(fmt.Sprintf(`(document.querySelector(%s).focus(), document.activeElement.select?.(), "")`, quoteJS(selector)))
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, input.InsertText, input.InsertTextParams{Text: text})
		return err
	}))
}

// size sets the window to that of a desk or of a phone.
func (p *tab) size(width, height int64) {
	p.Helper()
	p.do(chromedp.EmulateViewport(width, height))
}

// theme has the system prefer light or dark.
func (p *tab) theme(scheme string) {
	p.Helper()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
			},
		})
		return err
	}))
}

// clipboard returns what was copied.
func (p *tab) clipboard() string {
	p.Helper()
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted,
			Origin: "http://" + p.host, BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
		})
		if err != nil {
			p.Fatalf("allow %s: %v", name, err)
		}
	}
	return p.eval(`navigator.clipboard.readText()`)
}

// accessible runs axe-core on the page.
func (p *tab) accessible() {
	p.Helper()
	source, err := os.ReadFile("testdata/axe.min.js")
	if err != nil {
		p.Fatal(err)
	}
	p.eval(`typeof axe === "undefined" ? (() => {` + string(source) + `; return ""})() : ""`)
	found := p.eval(`axe.run({resultTypes: ["violations"]}).then((r) => r.passes.length + r.violations.length === 0 ? "axe checked nothing" :
		r.violations.map((v) => v.id + ": " + v.help + "\n" + v.nodes.slice(0, 3).map((n) => "    " + n.html.slice(0, 200) + "\n    " +
		(n.any[0] ?? n.all[0] ?? n.none[0])?.message).join("\n")).join("\n"))`)
	if found != "" {
		p.Errorf("%s is not accessible:\n%s", p.eval("location.hash"), found)
	}
}

// fits checks that nothing is wider than the window.
func (p *tab) fits() {
	p.Helper()
	wide := p.eval(`document.documentElement.scrollWidth <= innerWidth ? "" :
		[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 &&
		!e.closest("pre, .segmented")).slice(0, 4).map((e) => e.outerHTML.slice(0, 160)).join("\n") || "something"`)
	if wide != "" {
		p.Errorf("%s is wider than the window:\n%s", p.eval("location.hash"), wide)
	}
}

func quoteJS(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
