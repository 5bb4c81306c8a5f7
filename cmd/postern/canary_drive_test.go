package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// watch is one run of the program over a config of canaries, and everything that it showed.
type watch struct {
	*aviary
	far   *parrot
	seen  *surfaces
	file  string // of the config
	relay *process

	posts int // so far
}

// start runs the program, and returns when it listens.
func (w *watch) start() {
	w.Helper()
	cmd := exec.Command("postern", "run", "--config", w.file, "--drain", "2s")
	cmd.Env = w.env
	w.relay = launch(w.T, cmd)
	w.logged(`"message":"listening"`)
}

// logged waits for a line of the log with all of the parts.
func (w *watch) logged(parts ...string) {
	w.Helper()
	waitUntil(w.T, 30*time.Second, strings.Join(parts, " and ")+" in the log", func() bool {
		for line := range strings.Lines(w.relay.log.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// ended keeps what the program has printed.
func (w *watch) ended() { w.seen.add(onLog, w.relay.cmd.String(), []byte(w.relay.log.String())) }

func (w *watch) ingestToken() string { return w.made[literally+" ingest token"] }
func (w *watch) adminToken() string  { return w.made[literally+" admin token"] }

// command runs a command within this process: what it does with its words is the same.
func (w *watch) command(stdin string, args ...string) (code int, out string) {
	w.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	code = run(ctx, args, w.env, strings.NewReader(stdin), &stdout, &stderr)
	w.seen.add(onTerminal, "postern "+strings.Join(args, " "), append(stdout.Bytes(), stderr.Bytes()...))
	return code, stdout.String() + stderr.String()
}

// must is command for one that ends with a code.
func (w *watch) must(code int, args ...string) string {
	w.Helper()
	got, out := w.command("", args...)
	if got != code {
		w.Errorf("postern %v: exit code %d, want %d:\n%s", args, got, code, out)
	}
	return out
}

// messages posts one message for each outcome to each destination, and waits until all have ended.
func (w *watch) messages() {
	w.Helper()
	var all sync.WaitGroup
	post := func(path, mode, body string) {
		w.posts++
		n := w.posts
		header := http.Header{
			"Authorization": {"Bearer " + w.ingestToken()}, "Content-Type": {"application/json"}, "Prefer": {"wait=20"},
			"X-Mode": {mode}, "X-Request-Id": {w.content(fmt.Sprintf("request id %d", n))},
			"X-App-Token":     {w.credential(fmt.Sprintf("forwarded token %d", n), "-/+ ")},
			"Idempotency-Key": {w.secret(fmt.Sprintf("idempotency key %d", n), "-")},
			"Postern-Key":     {w.content(fmt.Sprintf("ordering key %d", n))},
			"Cookie":          {"app=" + w.secret(fmt.Sprintf("cookie of an app %d", n), "")},
			"X-Not-Forwarded": {w.secret(fmt.Sprintf("header that nobody forwards %d", n), "-")},
			"Traceparent":     {fmt.Sprintf("00-%032x-%016x-01", n, n)},
		}
		if path == "/to/later" {
			header.Del("Prefer")
		}
		all.Go(func() {
			status, answer := answerOf(w.T, http.DefaultClient, "http://"+w.Ingest+path, body, header)
			if status != http.StatusOK && path != "/to/later" || status/100 != 2 {
				w.Errorf("post to %s: got %d %s", path, status, answer)
			}
			w.seen.add(onIngest, path, []byte(answer))
		})
	}
	body := func() string { return fmt.Sprintf(`{"a": %q}`, w.content(fmt.Sprintf("body %d", w.posts))) }
	for _, way := range []string{literally, byEnv, byFile} {
		for _, kind := range []string{"header", "bearer", "basic", "api-key", "oauth2"} {
			for _, mode := range []string{"200", "500"} {
				post("/to/"+way+"-"+kind, mode, body())
			}
		}
		post("/to/"+way+"-oauth2", "401", body())
	}
	for _, name := range []string{
		"mtls", "stranger", "nowhere", "blocked", "refused", "later", "made", "broken", "forgetful", "overridden", "untokened", "untrusted",
	} {
		post("/to/"+name, "404", body())
	}
	post("/to/slow", "hang", body())
	post("/to/mtls", "reset", body())
	post("/to/redacting", "same", fmt.Sprintf(`{"card": {"number": %q}}`, w.secret(fmt.Sprintf("card %d", w.posts), "-")))
	post("/to/onward/a?api_key="+w.credential(fmt.Sprintf("key in a path %d", w.posts), "%2F%2B"), "500", body())
	all.Wait()
}

// strangers try what is no token of ours, in all places where one could be, at all listeners.
func (w *watch) strangers(round int) {
	w.Helper()
	for i, place := range []string{"Bearer", "Basic", "query", "Cookie", "X-Api-Key", "two"} {
		for _, base := range []string{"http://" + w.Ingest + "/to/mtls", "http://" + w.Admin + "/api/v1/overview"} {
			wrong := w.secret(fmt.Sprintf("wrong token %d %d %s", round, i, base), "-._~")
			header := http.Header{}
			switch place {
			case "Bearer", "Basic":
				header.Set("Authorization", place+" "+wrong)
			case "query":
				base += "?token=" + wrong + "&access_token=" + wrong
			case "Cookie":
				header.Set("Cookie", "token="+wrong)
			case "two":
				header["Authorization"] = []string{"Bearer " + w.adminToken()[1:] + wrong, "Bearer " + wrong}
			default:
				header.Set(place, wrong)
			}
			status, answer := answerOf(w.T, http.DefaultClient, base, "{}", header)
			if status != http.StatusUnauthorized && status != http.StatusMethodNotAllowed && status != http.StatusBadRequest {
				w.Errorf("a %s with a wrong token to %s: got %d %s", place, base, status, answer)
			}
			w.seen.add(onRefusal, place+" to "+base, []byte(answer))
		}
	}
}

// wrongConfigs has commands, and the relay, read files that are wrong in a way that has to do with a secret.
func (w *watch) wrongConfigs(right string) {
	w.Helper()
	const log = "log: {format: json, level: debug}\n"
	listen, _, _ := strings.Cut(right, "\n  https:")
	file := w.path("wrong.yaml")
	for i, c := range wrongConfigs() {
		secret := w.secret("wrong config: "+c.name, c.odd)
		writeFile(w.T, w.path(fmt.Sprintf("wrong-%d", i)), secret+"\n")
		w.env = append(w.env, fmt.Sprintf("CANARY_WRONG_%d=%s", i, secret))
		text := strings.NewReplacer(
			"SECRET", secret, "QUOTED", yamlText(secret), "VARIABLE", fmt.Sprintf("${env:CANARY_WRONG_%d}", i),
			"REFERENCE", fmt.Sprintf("${file:wrong-%d}", i), "FILE", fmt.Sprintf("wrong-%d", i),
		).Replace(c.text) + "\n"
		if c.top {
			text += log + "destinations: {overridden: {url: \"https://far.test/\"}}\n"
		} else {
			text = log + "destinations:\n  overridden: {url: \"https://far.test/\"}\n" + text
		}
		text = listen + "\n" + text
		writeFile(w.T, file, text)
		if code, out := w.command("", "validate", file); code != exitUsage {
			w.Errorf("%s: validate ends with %d, so this tests nothing:\n%s\n%s", c.name, code, out, text)
		}
		w.command("", "validate", "--json", file)
		// The relay has another environment: what is not there is a fault as well.
		writeFile(w.T, w.file, text)
		if status, answer := w.ask(onAPI, http.MethodPost, "/api/v1/reload", w.adminToken(), nil); status/100 == 2 {
			w.Errorf("%s: a reload answers %d %s", c.name, status, answer)
		}
	}
	for _, command := range []string{"run", "config", "doctor", "backup"} {
		w.command("", command, "--config", file)
	}
	writeFile(w.T, w.file, right)
	w.reload()
}

// reload has the relay read a file that is right.
func (w *watch) reload() {
	w.Helper()
	if status, answer := w.ask(onAPI, http.MethodPost, "/api/v1/reload", w.adminToken(), nil); status != http.StatusOK {
		w.Fatalf("reload: got %d %s", status, answer)
	}
}

// commands runs what asks the running relay, and what needs none.
func (w *watch) commands() {
	w.Helper()
	with := []string{"--config", w.file}
	for _, args := range [][]string{
		{"validate", w.file}, {"validate", "--json", w.file}, {"config"}, {"config", "--json"}, {"stats"}, {"stats", "--json"},
		{"list", "--all"}, {"list", "--all", "--json"}, {"reload"}, {"replay", "--destination", "mtls", "--state", "any", "--dry-run"},
		{"render", "env-bearer"}, {"render", "file-bearer", "--json"}, {"render", "made"},
		{"send", "literal-basic", "--data", "{}", "--wait", "10s"}, {"pause", "mtls", "--reason", "for a test"}, {"resume", "mtls"},
	} {
		if !strings.Contains(strings.Join(args, " "), w.file) {
			args = append(args, with...)
		}
		w.must(exitOK, args...)
	}
	for _, args := range [][]string{
		{"test", "file-oauth2", "-H", "X-Mode: 500"}, {"test", "env-header", "--json", "-H", "X-Mode: 500"}, {"test", "refused"}, {"test", "untokened"},
		{"healthcheck"}, {"doctor"}, {"doctor", "--json"}, // the authority takes no account, the token endpoint nobody
	} {
		w.must(exitFailed, append(args, with...)...)
	}
	// Without the config file, which takes a while to read.
	tokenFile := w.path("admin-token")
	writeFile(w.T, tokenFile, w.adminToken()+"\n")
	there := []string{"--admin", w.Admin, "--admin-token-file", tokenFile}
	for _, d := range w.oneOfEach() {
		w.must(exitOK, append([]string{"show", d.ID, "--all"}, there...)...)
		w.must(exitOK, append([]string{"show", d.ID, "--json"}, there...)...)
		w.command("", append([]string{"render", "--delivery", d.ID}, there...)...)
		if d.Destination == "later" {
			w.command("", append([]string{"cancel", d.ID, "--reason", "for a test"}, there...)...)
		}
	}
	own := w.env
	defer func() { w.env = own }()
	w.env = append(own[:len(own):len(own)], "POSTERN_ADMIN_TOKEN="+w.secret("wrong token of a command", "-"), "POSTERN_TOKEN="+w.secret("wrong token of a post", "-"))
	w.must(exitFailed, append([]string{"stats"}, with...)...)
	w.must(exitFailed, append([]string{"send", "mtls", "--data", "{}"}, with...)...)
	w.env = append(own[:len(own):len(own)], "POSTERN_ADMIN_TOKEN="+w.secret("token with a line in it", "-\n-"))
	w.must(exitUsage, append([]string{"stats"}, with...)...)
	w.must(exitUsage, append([]string{"stats", "--admin-token-file", w.secret("token for the name of its file", "-")}, with...)...)
}

// verify checks a request by secrets that have not signed it.
func (w *watch) verify() {
	w.Helper()
	request := "POST /hook HTTP/1.1\nHost: far.test\nContent-Type: application/json\nwebhook-id: msg_1\nwebhook-timestamp: " +
		fmt.Sprint(time.Now().Unix()) + "\nwebhook-signature: v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" +
		"X-Hub-Signature-256: sha256=" + strings.Repeat("0", 64) + "\n\n{}"
	captured := w.path("request.txt")
	writeFile(w.T, captured, request)
	for i, make := range []func(string) string{
		w.kind("standard"), w.kind("ed25519"), w.kind("text"), w.kind("rfc9421-ed25519"),
		func(name string) string { return "whsec_" + w.kind("text")(name) },
	} {
		secret := make(fmt.Sprintf("verified with %d", i))
		file := w.path(fmt.Sprintf("verify-%d", i))
		writeFile(w.T, file, secret+"\n")
		for _, scheme := range []string{"standard", "github"} {
			w.command("", "verify", captured, "--secret-file", file, "--scheme", scheme)
			w.command("", "verify", captured, "--secret-file", file, "--scheme", scheme, "--json")
		}
		w.command("", "verify", captured, secret)
		w.command("", "verify", captured, "--secret-file", secret)
	}
}

// tail runs the command that follows what happens, until the returned func is called.
func (w *watch) tail() func() {
	w.Helper()
	ctx, stop := context.WithCancel(w.Context())
	var all sync.WaitGroup
	for _, args := range [][]string{{"tail"}, {"tail", "--json"}} {
		args = append(args, "--config", w.file)
		env := w.env
		all.Go(func() {
			var out syncBuffer
			run(ctx, args, env, strings.NewReader(""), &out, &out)
			w.seen.add(onTerminal, strings.Join(args, " "), []byte(out.String()))
		})
	}
	return func() { stop(); all.Wait() }
}
