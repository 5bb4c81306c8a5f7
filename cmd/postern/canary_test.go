package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// vaultItem is a private key that the store keeps, and gives away to no one but a backup with --include-keys.
const vaultItem = "key of the vault"

// TestCanary runs the program with a secret of its own in every place where one can be, through successes, failures,
// reloads and wrong configs, and then looks for these secrets in all that it has shown or written.
func TestCanary(t *testing.T) {
	a := newAviary(t)
	w := &watch{aviary: a, far: newParrot(t, a), seen: &surfaces{}, file: a.path("postern.yaml")}
	w.plant()
	config := w.config()
	writeFile(t, w.file, config)
	w.checkComplete(w.file)

	w.start()
	unlisten, untail := w.listen(), w.tail()
	w.messages()
	w.strangers(1)
	w.wrongConfigs(config)
	w.rotate(1)
	if err := w.relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	w.logged(`"message":"config reloaded"`, `"trigger":"signal"`)
	w.messages()
	w.commands()
	w.verify()
	w.walkAPI()
	w.pages()
	w.must(exitOK, "backup", "--config", w.file, w.path("running.backup"))
	w.must(exitOK, "backup", "--config", w.file, "--include-keys", w.path("keys.backup"))
	untail()
	unlisten()
	w.logged(`"part":"listen.https"`, "register account") // so that its key was used
	w.relay.stop(t)
	w.ended()

	w.secondRun()
	w.stopped()

	exports, notices := w.far.kept()
	w.seen.add(onTraces, "all", exports)
	w.seen.add(onNotices, "all", notices)
	if got := w.far.longest.Load(); got > 64<<10 {
		t.Errorf("answers have up to %d bytes, of which the history keeps 64 KiB", got)
	}
	if w.far.issued.Load() == 0 || w.far.tunnels.Load() == 0 || w.far.account.Load() == 0 {
		t.Errorf("got %d tokens, %d tunnels and %d accounts asked for, want some of each", w.far.issued.Load(), w.far.tunnels.Load(), w.far.account.Load())
	}
	all := w.all()
	h := newHunter(all)
	checkHunter(t, h, all)
	w.seen.search(t, h, map[string]int{
		onLog: 50_000, onDump: 10_000, onTerminal: 50_000, onIngest: 5_000, onRefusal: 1_000, onAPI: 500_000, onStream: 10_000,
		onMetrics: 10_000, onPage: 10_000, onAssets: 50_000, onTraces: 10_000, onNotices: 1_000, onDisk: 100_000, onBackup: 50_000,
		onPlain: 100_000, onKeys: 100_000,
	}, func(kind string, c *canary) bool {
		return kind == onKeys && c.name == vaultItem || (kind == onKeys || kind == onPlain) && c.onward
	})
	if !slices.ContainsFunc(w.seen.list, func(s surface) bool {
		return s.kind == onKeys && slices.ContainsFunc(h.find(s.data), func(p *pattern) bool { return p.canary.name == vaultItem })
	}) {
		t.Error("the backup with private keys does not hold the one that there is, so that nothing is shown by the others")
	}
}

// plant puts a private key into the store, as the listener for other hosts does.
func (w *watch) plant() {
	w.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		w.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	w.key(vaultItem, string(text), privateBytes(w.T, private))
	key, err := store.ParseKey(w.made[literally+" store key"])
	if err != nil {
		w.Fatal(err)
	}
	s, err := badgerstore.Open(badgerstore.Options{Path: w.Data, Keys: []store.Key{key}})
	if err != nil {
		w.Fatal(err)
	}
	if err := s.Keep(w.Context(), "certificates/canary/old.test/old.test.key", text); err != nil {
		w.Error(err)
	}
	if err := s.Close(); err != nil {
		w.Fatal(err)
	}
}

// secondRun is one with certificates from files, which ends with a dump of all goroutines while requests are in flight.
func (w *watch) secondRun() {
	w.Helper()
	cert, err := w.ca.Issue("relay.test")
	w.Certificate, w.CertificateKey = w.certificate("relay", cert, err)
	writeFile(w.T, w.file, w.config())
	w.start()
	w.otherHosts()
	before := w.far.requests.Load()
	for range 3 {
		w.posts++
		status, answer := answerOf(w.T, http.DefaultClient, "http://"+w.Ingest+"/to/file-oauth2", `{"a":"`+w.content("body in flight")+`"}`, http.Header{
			"Authorization": {"Bearer " + w.ingestToken()}, "X-Mode": {"hang"},
		})
		if status != http.StatusAccepted {
			w.Fatalf("got %d %s", status, answer)
		}
	}
	waitUntil(w.T, 20*time.Second, "requests are in flight", func() bool { return w.far.requests.Load() >= before+3 })
	w.strangers(2)
	log := len(w.relay.log.String())
	if err := w.relay.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		w.Fatal(err)
	}
	select {
	case <-w.relay.exited:
	case <-time.After(30 * time.Second):
		w.Fatal("SIGQUIT does not end it")
	}
	w.ended()
	dump := w.relay.log.String()[log:]
	if places := strings.Count(dump, "#\t"); places < 100 || !strings.Contains(dump, "egress.(*Sender).roundTrip") {
		w.Errorf("got a dump with %d places, want that of the requests in flight among them:\n%s", places, dump)
	}
	w.seen.add(onDump, "SIGQUIT", []byte(dump))
}

// stopped looks at what is left of a relay that does not run: its folder, backups, and stores made from those.
func (w *watch) stopped() {
	w.Helper()
	w.must(exitOK, "store", "check", "--config", w.file)
	w.must(exitOK, "store", "check", "--config", w.file, "--json")
	w.must(exitOK, "backup", "--config", w.file, "--store", w.Data, w.path("stopped.backup"))
	w.must(exitFailed, "stats", "--config", w.file)
	w.seen.folder(w.T, onDisk, w.Data)
	for _, name := range []string{"running.backup", "keys.backup", "stopped.backup"} {
		raw, err := os.ReadFile(w.path(name))
		if err != nil {
			w.Fatal(err)
		}
		w.seen.add(onBackup, name, raw)
	}
	keys, wrong := w.path("keys"), w.path("wrong-keys")
	writeFile(w.T, keys, w.made[literally+" store key"]+"\n")
	writeFile(w.T, wrong, w.storeKey("wrong key of the store")+"\n"+w.secret("no key of the store", "-")+"\n")
	writeFile(w.T, w.path("plain.yaml"), "destinations: {a: {url: \"https://far.test/\"}}\n")
	for name, kind := range map[string]string{"running": onPlain, "stopped": onPlain, "keys": onKeys} {
		w.command("", "restore", w.path(name+".backup"), "--store", w.path("no"), "--config", w.path("plain.yaml"), "--key-file", wrong)
		w.must(exitKey, "restore", w.path(name+".backup"), "--store", w.path("no"), "--config", w.path("plain.yaml"))
		w.must(exitOK, "restore", w.path(name+".backup"), "--store", w.path("plain-"+name), "--config", w.path("plain.yaml"), "--key-file", keys)
		w.seen.folder(w.T, kind, w.path("plain-"+name))
	}
}
