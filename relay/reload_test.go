package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/store"
)

const twoDestinations = `
destinations:
  a: {url: "https://a.test/", events: ["order.*"]}
  b: {url: "https://b.test/", events: ["order.*"]}
`

// edit returns twoDestinations with something replaced.
func edit(t *testing.T, old, new string) string {
	t.Helper()
	if strings.Count(twoDestinations, old) != 1 {
		t.Fatalf("%q stands there %d times, want once", old, strings.Count(twoDestinations, old))
	}
	return strings.Replace(twoDestinations, old, new, 1)
}

func TestReload(t *testing.T) {
	const a, b = `a: {url: "https://a.test/", events: ["order.*"]}`, `  b: {url: "https://b.test/", events: ["order.*"]}` + "\n"
	for _, tc := range []struct {
		name  string
		after string
		want  Reloaded // what it names
		lanes string   // those whose attempts go through something else than before
	}{
		{"the same again", twoDestinations, Reloaded{}, ""},
		{"only a comment", twoDestinations + "# to whom it may concern\n", Reloaded{}, ""},
		{"the same in other words", edit(t, a, `a: {events: ["order.*"], url: "https://a.test:443/", enabled: true}`), Reloaded{Changed: []string{"a"}}, "a"},
		{"a destination more", twoDestinations + `  c: {url: "https://c.test/"}`, Reloaded{Added: []string{"c"}}, "c"},
		{"a destination less", edit(t, b, ""), Reloaded{Removed: []string{"b"}}, "b"},
		{"another name", edit(t, b, strings.Replace(b, "b:", "c:", 1)), Reloaded{Added: []string{"c"}, Removed: []string{"b"}}, "b c"},
		{"a header", edit(t, a, strings.Replace(a, "}", ", headers: {X-Team: data}}", 1)), Reloaded{Changed: []string{"a"}}, "a"},
		{"only what goes there", edit(t, a, strings.Replace(a, "order", "sale", 1)), Reloaded{Changed: []string{"a"}}, ""},
		{"a filter", edit(t, a, strings.Replace(a, "}", `, when: "$.x"}`, 1)), Reloaded{Changed: []string{"a"}}, ""},
		{"order", edit(t, a, strings.Replace(a, "}", ", order: all}", 1)), Reloaded{Changed: []string{"a"}}, ""},
		{"order that blocks", edit(t, a, strings.Replace(a, "}", ", order: all, order_on_failure: block}", 1)), Reloaded{Changed: []string{"a"}}, "a"},
		{"not enabled", edit(t, a, strings.Replace(a, "}", ", enabled: false}", 1)), Reloaded{Changed: []string{"a"}}, "a"},
		{"a key of all destinations", "egress: {user_agent: Acme/1}" + twoDestinations, Reloaded{Settings: []string{"egress.user_agent"}}, "a b"},
		{"a default", `defaults: {timeout: 5s, tls: {ca_file: ca.pem}, breaker: none}` + twoDestinations, Reloaded{Changed: []string{"a", "b"}}, "a b"},
		{"a key of ingest", `listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0", accepted_status: 200, max_body: 5B}` + "\n" + twoDestinations,
			Reloaded{Settings: []string{"listen.accepted_status", "listen.max_body"}}, ""},
		{"retention", "store: {retention: 1h}" + twoDestinations, Reloaded{Settings: []string{"store.retention"}}, ""},
		{"keys that need a restart beside one that does not", "log: {level: debug, format: json}\nstore: {path: elsewhere, min_free: 1GiB, max_pending: 7}" +
			strings.Replace(twoDestinations, b, "", 1),
			Reloaded{Removed: []string{"b"}, Settings: []string{"log.level"}, NeedRestart: []string{"log.format", "store.max_pending", "store.min_free", "store.path"}}, "b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			level := zap.NewAtomicLevel()
			r := newRig(t, twoDestinations, func(r *rig) { r.Level = &level })
			if got := r.LastReload(); !got.At.IsZero() {
				t.Errorf("before the first reload: got %+v, want nothing", got)
			}
			before := map[string]*outlet{}
			for _, host := range rigHosts {
				before[host[:1]] = r.outlet(host[:1])
			}
			got := r.reloadWith(t, tc.after)
			if got.At.IsZero() || got.Err != nil {
				t.Errorf("got %+v, want a time and no error", got)
			}
			for what, pair := range map[string][2][]string{
				"added": {got.Added, tc.want.Added}, "removed": {got.Removed, tc.want.Removed}, "changed": {got.Changed, tc.want.Changed},
				"settings": {got.Settings, tc.want.Settings}, "needing a restart": {got.NeedRestart, tc.want.NeedRestart},
			} {
				if !slices.Equal(pair[0], pair[1]) {
					t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
				}
			}
			var changed []string
			for _, host := range rigHosts {
				if name := host[:1]; r.outlet(name) != before[name] {
					changed = append(changed, name)
				}
			}
			if got := strings.Join(changed, " "); got != tc.lanes {
				t.Errorf("got other lanes for %q, want them for %q", got, tc.lanes)
			}
			if n := r.logs.FilterMessage("config reloaded").Len(); n != 1 {
				t.Errorf("got %d lines about it in the log, want one", n)
			}
			if n := r.logs.FilterMessage("restart needed").Len(); n != min(1, len(tc.want.NeedRestart)) {
				t.Errorf("got %d lines about a restart in the log", n)
			}
			for name, d := range r.plan.Load().destinations {
				if d.enabled {
					r.awaitState(t, r.accept(t, name), store.Delivered)
				}
			}
		})
	}
}

func TestAWrongConfigChangesNothing(t *testing.T) {
	const secret = "canary-6b1f-token"
	for _, tc := range []struct {
		name, after string
		faults      []string
	}{
		{"faults of the file and of the plan", edit(t, `"https://a.test/"`, `"https://a.test:8443/"`) + "  c: {url: 'https://c.test/', tiemout: 5s, auth: {bearer: {token: " + secret + "}}}\n", []string{"port 8443", "timeout"}},
		{"no YAML", "destinations: [", []string{"not YAML"}},
		{"an empty file", "", []string{"no destinations"}},
		{"a secret that is not there", edit(t, "a: {", `a: {auth: {bearer: {token: "${file:missing}"}}, `), []string{"no such file"}},
		{"a certificate that is not there", edit(t, "a: {", "a: {tls: {ca_file: missing.pem}, "), []string{"ca_file"}},
		{"a token that no header can carry", `listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0", tokens: ["` + secret + `[x]"]}` + twoDestinations, []string{"a token must be"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, twoDestinations)
			a, b, plan := r.outlet("a"), r.outlet("b"), r.plan.Load()
			if tc.after == "" {
				replaceFile(t, r.path, "")
			} else {
				r.write(t, tc.after)
			}
			err := r.Reload(t.Context())
			var faults config.ErrorList
			if !errors.As(err, &faults) || len(faults) < len(tc.faults) {
				t.Fatalf("got %v, want a list of at least %d faults", err, len(tc.faults))
			}
			lines := r.logs.FilterMessage("config not reloaded, the earlier one stays in force").All()
			if len(lines) != 1 || lines[0].Level != zapcore.WarnLevel {
				t.Fatalf("got %d lines in the log, want one warning", len(lines))
			}
			logged := fmt.Sprint(lines[0].ContextMap())
			for _, fault := range tc.faults {
				if !strings.Contains(err.Error(), fault) || !strings.Contains(logged, fault) {
					t.Errorf("got error %q and in the log %s, want both to say %q", err, logged, fault)
				}
			}
			if strings.Contains(err.Error()+logged, "canary") {
				t.Errorf("a secret is shown: %v %s", err, logged)
			}
			if got := r.LastReload(); got.At.IsZero() || got.Err == nil || got.Err.Error() != err.Error() {
				t.Errorf("got last reload %+v, want the error", got)
			}
			if r.outlet("a") != a || r.outlet("b") != b || r.plan.Load() != plan {
				t.Error("something has changed")
			}
			if reasons := r.full(); len(reasons) != 0 {
				t.Errorf("got not ready: %v, want ready", reasons)
			}
			r.awaitState(t, r.accept(t, "a"), store.Delivered)
			if got := r.reloadWith(t, twoDestinations); got.Err != nil || r.outlet("a") != a {
				t.Errorf("after the mistake was mended: got %+v, want it reloaded and the lanes as they were", got)
			}
		})
	}
	t.Run("a file that is gone", func(t *testing.T) {
		r := newRig(t, twoDestinations)
		if err := os.Remove(r.path); err != nil {
			t.Fatal(err)
		}
		if err := r.Reload(t.Context()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want an error that says so", err)
		}
		r.awaitState(t, r.accept(t, "a"), store.Delivered)
	})
	t.Run("a store that does not tell what is paused", func(t *testing.T) {
		broken := errors.New("disk")
		var failing atomic.Bool
		r := newRig(t, twoDestinations, func(r *rig) { r.Store = &pauseTrouble{Store: r.memory, failing: &failing, err: broken} })
		failing.Store(true)
		r.write(t, twoDestinations+"  c: {url: 'https://c.test/'}\n")
		if err := r.Reload(t.Context()); !errors.Is(err, broken) || r.outlet("c") != nil {
			t.Errorf("got %v and a lane %v, want the error and none", err, r.outlet("c"))
		}
		failing.Store(false)
		if err := r.Reload(t.Context()); err != nil || r.outlet("c") == nil {
			t.Errorf("got %v, want it reloaded", err)
		}
		// Nobody may be left waiting for a turn.
		if err := (steering{r.Relay}).Pause(t.Context(), "c", "by hand"); err != nil {
			t.Error(err)
		}
	})
}

// pauseTrouble is a store that cannot read pauses at times.
type pauseTrouble struct {
	store.Store
	failing *atomic.Bool
	err     error
}

func (p *pauseTrouble) Paused(ctx context.Context) (map[string]store.Pause, error) {
	if p.failing.Load() {
		return nil, p.err
	}
	return p.Store.Paused(ctx)
}

func TestReloadTakesSecretsFromTheirFiles(t *testing.T) {
	text := edit(t, "a: {", `a: {auth: {bearer: {token: "${file:token}"}}, `)
	dir := t.TempDir()
	text = strings.Replace(text, "file:token", "file:"+filepath.Join(dir, "token"), 1)
	replaceFile(t, filepath.Join(dir, "token"), "first-canary\n")
	r := newRig(t, text)
	b := r.outlet("b")
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	replaceFile(t, filepath.Join(dir, "token"), "second-canary\n")
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.LastReload(); !slices.Equal(got.Changed, []string{"a"}) || r.outlet("b") != b {
		t.Errorf("got changed %v, want only a", got.Changed)
	}
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	var tokens []string
	for _, req := range r.far.of("a.test") {
		tokens = append(tokens, req.header.Get("Authorization"))
	}
	if want := []string{"Bearer first-canary", "Bearer second-canary"}; !slices.Equal(tokens, want) {
		t.Errorf("got %q, want %q", tokens, want)
	}
	for _, line := range r.logs.All() {
		if strings.Contains(fmt.Sprint(line.Message, line.ContextMap()), "canary") {
			t.Errorf("the log shows a secret: %s %v", line.Message, line.ContextMap())
		}
	}
}

func TestReloadOfListen(t *testing.T) {
	listening := func(more string) string {
		return `listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0"` + more + "}" + twoDestinations
	}
	const first, second = "first-token-of-sixteen", "second-token-of-sixteen"
	r := newRig(t, listening(", tokens: ["+first+"]"))
	status := func(token string) int {
		status, _ := r.post(t, "/to/a", "{}", "Authorization", "Bearer "+token)
		return status
	}
	r.reloadWith(t, listening(", tokens: ["+first+", "+second+"]"))
	if got, other := status(first), status(second); got != 202 || other != 202 {
		t.Errorf("both tokens in force: got %d and %d, want 202", got, other)
	}
	if got := r.reloadWith(t, listening(", tokens: ["+second+"]")); !slices.Equal(got.Settings, []string{"listen.tokens"}) {
		t.Errorf("got settings %v, want the tokens", got.Settings)
	}
	if got, other := status(first), status(second); got != 401 || other != 202 {
		t.Errorf("only the second in force: got %d and %d, want 401 and 202", got, other)
	}
	r.reloadWith(t, listening(", max_body: 4B, accepted_status: 200"))
	if status, _ := r.post(t, "/to/a", "1234"); status != 200 {
		t.Errorf("got %d, want 200, without a token", status)
	}
	if status, _ := r.post(t, "/to/a", "12345"); status != 413 {
		t.Errorf("a body beyond the new bound: got %d, want 413", status)
	}
	t.Run("an address needs a restart, and its tokens stay while they are needed", func(t *testing.T) {
		r := newRig(t, `listen: {ingest: "0.0.0.0:0", admin: "127.0.0.1:0", tokens: [`+first+"]}"+twoDestinations)
		got := r.reloadWith(t, twoDestinations)
		if want := []string{"listen.ingest", "listen.tokens"}; !slices.Equal(got.NeedRestart, want) || len(got.Settings) != 0 {
			t.Errorf("got %+v, want a restart needed for %v", got, want)
		}
		if status, _ := r.post(t, "/to/a", "{}"); status != 401 {
			t.Errorf("got %d without a token, want 401 as before", status)
		}
		got = r.reloadWith(t, `listen: {ingest: "0.0.0.0:0", admin: "127.0.0.1:0", tokens: [`+second+"]}"+twoDestinations)
		if len(got.NeedRestart) != 0 {
			t.Errorf("got a restart needed for %v after the address is as it was, want none", got.NeedRestart)
		}
		if status, _ := r.post(t, "/to/a", "{}", "Authorization", "Bearer "+second); status != 202 {
			t.Errorf("got %d with the new token, want 202", status)
		}
	})
}

func TestReloadOfTheLogLevel(t *testing.T) {
	level := zap.NewAtomicLevel()
	r := newRig(t, twoDestinations, func(r *rig) { r.Level = &level })
	if got := r.reloadWith(t, "log: {level: error}"+twoDestinations); level.Level() != zapcore.ErrorLevel || len(got.NeedRestart) != 0 {
		t.Errorf("got level %s and a restart needed for %v, want error and none", level.Level(), got.NeedRestart)
	}
	r = newRig(t, twoDestinations)
	if got := r.reloadWith(t, "log: {level: error}"+twoDestinations); !slices.Equal(got.NeedRestart, []string{"log.level"}) {
		t.Errorf("without a level: got a restart needed for %v, want log.level", got.NeedRestart)
	}
}

func TestReloadHasItsTime(t *testing.T) {
	t.Run("before Run it is refused", func(t *testing.T) {
		if err := (&Relay{}).Reload(t.Context()); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("after a stop it is refused, and changes nothing", func(t *testing.T) {
		r := newRig(t, twoDestinations)
		r.stop()
		plan := r.plan.Load()
		r.write(t, twoDestinations+"  c: {url: 'https://c.test/'}\n")
		if err := r.Reload(t.Context()); !errors.Is(err, errStopping) {
			t.Errorf("got %v, want %v", err, errStopping)
		}
		if r.plan.Load() != plan || r.outlet("c") != nil || !r.LastReload().At.IsZero() {
			t.Error("something has changed")
		}
	})
	t.Run("a plan without a file has nothing to reload", func(t *testing.T) {
		r := newRig(t, twoDestinations, func(r *rig) { r.Plan.origin.path = "" })
		if err := r.Reload(t.Context()); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("hangups reload", func(t *testing.T) {
		hangups := make(chan os.Signal, 1)
		hangups <- syscall.SIGHUP // before anything runs
		r := newRig(t, twoDestinations, func(r *rig) { r.Hangups = hangups })
		reloaded := func() int { return r.logs.FilterMessage("config reloaded").Len() }
		until(t, "the early hangup has its effect", func() bool { return reloaded() == 1 })
		r.write(t, twoDestinations+"  c: {url: 'https://c.test/'}\n")
		hangups <- syscall.SIGHUP
		until(t, "the hangup has its effect", func() bool { return r.outlet("c") != nil })
		r.write(t, "destinations: [")
		hangups <- syscall.SIGHUP
		until(t, "the mistake is told", func() bool { return r.LastReload().Err != nil })
		r.awaitState(t, r.accept(t, "c"), store.Delivered)
		close(hangups) // whoever sent them is gone, and the relay is not
		r.reloadWith(t, twoDestinations)
		r.awaitState(t, r.accept(t, "a"), store.Delivered)
	})
	t.Run("many at once take turns, also with a stop", func(t *testing.T) {
		r := newRig(t, twoDestinations)
		var all sync.WaitGroup
		for n := range 20 {
			all.Go(func() {
				for range 5 {
					if err := r.Reload(context.Background()); err != nil && !errors.Is(err, errStopping) {
						t.Errorf("reload: %v", err)
					}
				}
				if n == 10 {
					r.stop()
				}
			})
			r.write(t, twoDestinations+fmt.Sprintf("  c: {url: 'https://c.test/%d'}\n", n))
		}
		all.Wait()
	})
}

// Whatever the config can say must either reach what runs or be told as in need of a restart.
func TestEveryKeyIsReloadedOrNeedsARestart(t *testing.T) {
	told, found := map[string]bool{}, map[string]bool{}
	for _, s := range settings(&config.Config{}) {
		told[s.key] = true
	}
	for _, key := range keysOf(reflect.TypeFor[config.Config](), "") {
		for whole := key; !told[key] && strings.Contains(whole, "."); {
			if whole = whole[:strings.LastIndexByte(whole, '.')]; told[whole] {
				key = whole // is compared as a whole
			}
		}
		if !told[key] && !strings.HasPrefix(key, "destinations.") {
			t.Errorf("nobody compares %s at a reload", key)
		}
		found[key] = true
	}
	maps.DeleteFunc(told, func(key string, _ bool) bool { return found[key] })
	if len(told) != 0 {
		t.Errorf("compared at a reload and no key of the config: %v", told)
	}
	// What only routing reads leaves the lane as it is, all else does not.
	routing := []string{"destinations.*.events", "destinations.*.when", "destinations.*.enabled", "destinations.*.order"}
	for key, text := range keyChanges(t) {
		if !strings.HasPrefix(key, "destinations.") && !strings.HasPrefix(key, "egress.") && !strings.HasPrefix(key, "defaults") {
			continue
		}
		before := baseConfig
		for part, variant := range variants {
			if strings.Contains(key, part) {
				before += "    " + variant + "\n"
			}
		}
		old, changed := compile(t, before), compile(t, text)
		if got, want := reflect.DeepEqual(old.laneConfig("alerts"), changed.laneConfig("alerts")), slices.Contains(routing, key); got != want {
			t.Errorf("%s: got a lane that stays as it is: %t, want %t", key, got, want)
		}
		if outcome := compare(old.config, changed.config); len(outcome.Changed)+len(outcome.Settings) != 1 {
			t.Errorf("%s: got %+v, want one thing changed", key, outcome)
		}
	}
	t.Run("a value that becomes a secret", func(t *testing.T) {
		text := func(value string) string {
			return "destinations: {alerts: {url: 'https://a.test/', expect: [{path: $.a, values: ['" + value + "']}]}}"
		}
		plan := func(text string) *Plan {
			cfg, err := config.Parse("postern.yaml", []byte(text), []string{"OWN=canary"})
			if err != nil {
				t.Fatal(err)
			}
			p, faults := newPlan(cfg, LoadOptions{})
			if err := faults.Err(); err != nil {
				t.Fatal(err)
			}
			return p
		}
		if reflect.DeepEqual(plan(text("canary")).laneConfig("alerts"), plan(text("${env:OWN}")).laneConfig("alerts")) {
			t.Error("the lane would go on, and show it")
		}
	})
}
