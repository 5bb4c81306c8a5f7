package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
)

// ward is a site with ill receivers beside a healthy one.
type ward struct {
	*site
	process  *process
	patients []*patient
	rounds   int // attempts that a delivery has
	client   *http.Client
}

// patient is an ill receiver, its destination and what was posted to it.
type patient struct {
	ailment
	*rogue
	destination string
	deliveries  []string // ids
}

// healthy is the name of the good destination of a ward.
const healthy = "healthy"

// newWard makes a site whose relay has the healthy destination and one for each ailment, and starts it. ips gives the
// addresses: the first is that of relay and healthy receiver.
func newWard(t *testing.T, program string, ills []ailment, ip func(n int) string) *ward {
	t.Helper()
	w := &ward{
		site:   newSite(t, siteOptions{IP: ip(0), Program: program, Config: "log: {level: error}", Destinations: []destination{{Name: healthy, IP: ip(0)}}}),
		rounds: pick(1, 2), client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	t.Cleanup(w.client.CloseIdleConnections)
	var names, lines strings.Builder
	for n, a := range ills {
		p := &patient{ailment: a, destination: fmt.Sprintf("ill-%d", n+1)}
		host := w.host(p.destination)
		p.rogue = newRogue(t, ip(n+1), identity(t, w.site, a, host, ip(n+1)), a.serve)
		fmt.Fprintf(&names, "%s: %s, ", host, ip(n+1))
		keys := a.conf
		if !strings.Contains(keys, "timeout:") {
			keys += ", timeout: " + a.patience()
		}
		fmt.Fprintf(&lines, "  %s: {url: \"https://%s/hook\", tls: {ca_file: %q}, allow_networks: [127.0.0.0/8], breaker: none, "+
			"retry: {schedule: [%s], jitter: 0}, concurrency: 2, %s}\n", p.destination, host, w.caFile, pick("0s", "0s, 50ms"), strings.TrimPrefix(keys, ", "))
		w.patients = append(w.patients, p)
	}
	text := strings.NewReplacer("egress: {resolve: {", "egress: {resolve: {"+names.String(), "listen: {", "listen: {max_body: 8MiB, ").Replace(w.text())
	writeFile(t, w.config, text+lines.String())
	w.process = w.launchWith(t, []string{"--drain", "1s"}) // some attempts are meant to be cut off
	w.process.ready(t, 30*time.Second)
	return w
}

// patience is the time of an attempt: short where it is meant to run out, though enough for a busy machine to get so far,
// and else longer than anything takes.
func (a ailment) patience() string {
	if a.class == "timeout" || a.waits {
		return "3s"
	}
	return "20s"
}

// admit posts some messages to each ill receiver.
func (w *ward) admit(t *testing.T, each int) {
	t.Helper()
	for n := range each {
		for _, p := range w.patients {
			p.deliveries = append(p.deliveries, w.post(t, p.destination, fmt.Sprintf(`{"n":%d,"pad":%q}`, n, strings.Repeat("x", p.body))))
		}
	}
}

// postTo posts a message to a destination.
func (s *site) postTo(ctx context.Context, client *http.Client, destination, body string) (answer, error) {
	status, text, err := send(ctx, client, "http://"+s.ingest+"/to/"+destination, nil, []byte(body))
	if err != nil {
		return answer{}, err
	}
	if status != http.StatusAccepted {
		return answer{}, fmt.Errorf("answered %d: %s", status, text)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || len(a.Deliveries) == 0 {
		return answer{}, fmt.Errorf("read answer %q: %w", text, err)
	}
	return a, nil
}

// post is postTo for a post that must be taken. It returns the id of the delivery.
func (w *ward) post(t *testing.T, destination, body string) string {
	t.Helper()
	a, err := w.postTo(t.Context(), w.client, destination, body)
	if err != nil {
		t.Fatalf("post to %s: %v", destination, err)
	}
	return a.Deliveries[0].ID
}

// discharge waits until every delivery to the ill has ended, and looks at each attempt.
func (w *ward) discharge(t *testing.T, within time.Duration) (attempts int) {
	t.Helper()
	waitUntil(t, within, "each delivery to the ill receivers has ended", func() bool {
		time.Sleep(50 * time.Millisecond)
		return w.pending(t) == 0 && w.waiting(t)
	})
	for _, p := range w.patients {
		t.Run(p.name, func(t *testing.T) { attempts += w.examine(t, p) })
	}
	return attempts
}

// pending is how many deliveries to the ill receivers have not ended, but for those that were asked to wait.
func (w *ward) pending(t *testing.T) (n int64) {
	t.Helper()
	list, err := w.site.client().Destinations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if slices.ContainsFunc(w.patients, func(p *patient) bool { return p.destination == d.Name && (p.hint == 0 || w.rounds == 1) }) {
			n += d.Pending
		}
	}
	return n
}

// waiting reports whether those that are asked to wait have all been attempted.
func (w *ward) waiting(t *testing.T) bool {
	t.Helper()
	for _, p := range w.patients {
		if p.hint > 0 && p.requests.Load() < int64(len(p.deliveries)) {
			return false
		}
	}
	return true
}

// examine compares what is on record of a patient with what must be.
func (w *ward) examine(t *testing.T, p *patient) (attempts int) {
	t.Helper()
	state, each := "failed", w.rounds
	switch {
	case p.class == "ok":
		state, each = "delivered", 1
	case p.hint > 0 && w.rounds > 1:
		state, each = "pending", 1
	}
	for _, id := range p.deliveries {
		d, err := w.site.client().Delivery(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if d.State != state || len(d.History) != each {
			t.Errorf("got %s after %d attempts, want %s after %d", d.State, len(d.History), state, each)
		}
		for _, a := range d.History {
			p.judge(t, a)
		}
		if state == "pending" && len(d.History) > 0 { // a delay counts from the end of an attempt; jitter only lengthens it
			wait := d.DueAt.Sub(d.History[0].StartedAt) - time.Duration(d.History[0].TookSeconds*float64(time.Second))
			if wait < p.hint-time.Second || wait > p.hint+p.hint/4 {
				t.Errorf("the next attempt is due after %v, want %v to %v", wait, p.hint, p.hint+p.hint/4)
			}
		}
		attempts += len(d.History)
	}
	most := p.most
	if most == 0 {
		most = 8 << 20
	}
	if got := p.wrote.Load() / int64(attempts); got > most {
		t.Errorf("it got rid of %d bytes in each attempt, want at most %d", got, most)
	}
	if got := p.requests.Load(); got < p.least || p.tls != "" && p.tls != "none" && got > 0 {
		t.Errorf("it has read %d requests in %d attempts, want %d or more", got, attempts, p.least)
	} else if got > int64(attempts) {
		t.Errorf("it has read %d requests in %d attempts: no attempt may be two", got, attempts)
	}
	return attempts
}

// judge compares one attempt.
func (p *patient) judge(t *testing.T, a admin.Attempt) {
	t.Helper()
	usual := slices.Contains(strings.Split(p.class, "|"), a.Class) && a.Status == p.status && strings.Contains(a.Error, p.text)
	if !usual && (a.Status != 0 || !slices.Contains(strings.Split(p.or, "|"), a.Class)) {
		t.Errorf("got %s %d (%s), want %s %d with %q, or one of %q", a.Class, a.Status, a.Error, p.class, p.status, p.text, p.or)
	}
	if strings.Contains(a.Error, "canary") {
		t.Errorf("the record has what the receiver has made up: %s", a.Error)
	}
	if got := time.Duration(a.RetryHintSeconds * float64(time.Second)).Round(time.Second); got != p.hint {
		t.Errorf("got a hint of %v, want %v", got, p.hint)
	}
	if a.TookSeconds > atOnce.Seconds() {
		t.Errorf("it took %.1f s, and the time of an attempt is a second or some", a.TookSeconds)
	}
}

// beside is what the healthy neighbour felt: the times from each post to its receipt.
type beside []time.Duration

func (b beside) quantile(q float64) time.Duration {
	if len(b) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(b))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (b beside) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
	return fmt.Sprintf("p50 %s, p99 %s of %d", ms(b.quantile(0.5)), ms(b.quantile(0.99)), len(b))
}

// neighbour posts to the healthy destination, one after the other at an even pace, until done says so and there were at
// least as many as least; then it returns how long each took to arrive. One that has not arrived within the time is an
// error of the test.
func (w *ward) neighbour(t *testing.T, least int, within time.Duration, done func() bool) beside {
	t.Helper()
	const pace = 20 * time.Millisecond
	posted := map[string]time.Time{}
	for n, end := 0, time.Now().Add(time.Minute); (n < least || !done()) && time.Now().Before(end); n++ {
		begin := time.Now()
		a, err := w.postTo(t.Context(), w.client, healthy, fmt.Sprintf(`{"neighbour":%d,"at":%d}`, n, begin.UnixNano()))
		if err != nil {
			t.Fatalf("post to the healthy destination: %v", err)
		}
		posted[a.ID] = begin
		time.Sleep(time.Until(begin.Add(pace)))
	}
	f := w.fars[healthy]
	var all beside
	for id, begin := range posted {
		end := begin.Add(within)
		for len(f.arrivals(id)) == 0 && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
		}
		arrived := f.arrivals(id)
		if len(arrived) == 0 || arrived[0].at.Sub(begin) > within {
			t.Errorf("a message to the healthy destination was not there %v after its post", within)
			continue
		}
		all = append(all, arrived[0].at.Sub(begin))
	}
	return all
}

// usage is what a process holds.
type usage struct {
	files, goroutines int
	sockets           int   // of the files
	anonymous         int64 // bytes of memory that are its own alone
	resident          int64
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d of them sockets, %d goroutines, %d MiB resident (%d MiB of its own)", u.files, u.sockets, u.goroutines, u.resident>>20, u.anonymous>>20)
}

// usage asks the kernel, and the process itself for its goroutines.
func (p *process) usage(t *testing.T) usage {
	t.Helper()
	var u usage
	files, sockets := p.files(t)
	u.files, u.sockets = files, len(sockets)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	u.anonymous, u.resident = statusBytes(t, string(status), "RssAnon"), statusBytes(t, string(status), "VmRSS")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.site.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			if u.goroutines, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if u.goroutines == 0 {
		t.Fatal("the metrics do not tell the goroutines")
	}
	return u
}

// files returns how many files the process has open, and the inodes of those that are sockets.
func (p *process) files(t *testing.T) (n int, sockets map[string]bool) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	open, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sockets = map[string]bool{}
	for _, f := range open {
		to, _ := os.Readlink(filepath.Join(dir, f.Name())) // nothing if it was closed just now
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return len(open), sockets
}

// statusBytes reads a line of /proc/PID/status, in bytes.
func statusBytes(t *testing.T, status, name string) int64 {
	t.Helper()
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatalf("read %q: %v", line, err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in /proc/PID/status", name)
	return 0
}
