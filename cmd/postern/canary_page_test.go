package main

import (
	"io"
	"net/http"
	"path"
	"regexp"
	"strings"

	"github.com/chromedp/chromedp"
)

// showView is what a person does: it goes to a view, waits until all of it is there, and sees what it says. It goes by way
// of a page that does not exist, since parts of the view before would pass for parts of this one.
const showView = `(async view => {
	const title = () => document.querySelector("main h1")?.textContent, none = "There is no such page"
	const until = async there => {
		for (const end = Date.now() + 20000; !there(); await new Promise(next => setTimeout(next, 20))) {
			if (Date.now() > end) throw new Error(view + " is not there: " + document.body.innerText)
		}
	}
	location.hash = "#/none"
	await until(() => title() === none)
	location.hash = view
	await until(() => title() && title() !== none && !document.querySelector(".skeleton") && document.querySelector(".connection.good"))
	return document.documentElement.outerHTML + "\n" + document.body.innerText
})`

// pages looks at the dashboard with a real browser.
func (w *watch) pages() {
	w.Helper()
	w.assets()
	ctx, cancel := chromedp.NewContext(w.Context(), chromedp.WithAllocatorOptions(chromedp.NoSandbox))
	defer cancel()
	err := chromedp.Do(ctx,
		chromedp.Navigate("http://"+w.Admin+"/livez"),
		chromedp.Evaluate[chromedp.Void](`sessionStorage.setItem("postern.token", "`+jsonText(w.adminToken())+`")`),
		chromedp.Navigate("http://"+w.Admin+"/"))
	if err != nil {
		w.Fatalf("in Chromium: %v; make chromium installs it", err)
	}
	views := []string{"/", "/deliveries", "/replay"}
	for _, d := range w.oneOfEach() {
		views = append(views, "/deliveries/"+d.ID)
	}
	for _, name := range []string{"env-bearer", "file-oauth2", "overridden"} {
		views = append(views, "/destinations/"+name, "/destinations/"+name+"?tab=config", "/destinations/"+name+"?tab=test")
	}
	for _, view := range views {
		page, err := chromedp.Run(ctx, chromedp.Evaluate[string](showView+`("#`+view+`")`, chromedp.EvalAwaitPromise))
		if name, _, _ := strings.Cut(path.Base(view), "?"); err != nil || !strings.Contains(strings.ToLower(page), name) {
			w.Fatalf("%s: got a page without %q, or error %v:\n%s", view, name, err, page)
		}
		w.seen.add(onPage, view, []byte(page))
	}
}

// assets takes the files that the dashboard consists of.
func (w *watch) assets() {
	w.Helper()
	get := func(path string) string {
		resp, err := http.Get("http://" + w.Admin + path)
		if err != nil {
			w.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			w.Fatalf("GET %s: got %d, error %v", path, resp.StatusCode, err)
		}
		w.seen.add(onAssets, path, raw)
		return string(raw)
	}
	found := regexp.MustCompile(`(?:src|href)="\.?/?(assets/[^"]+)"`).FindAllStringSubmatch(get("/"), -1)
	if len(found) < 2 {
		w.Errorf("the page names %d files", len(found))
	}
	for _, match := range found {
		get("/" + strings.TrimPrefix(match[1], "/"))
	}
}
