package listen

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store/storetest"
)

func TestRenewAt(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, c := range []struct {
		name   string
		length time.Duration
		choice time.Duration // after from; 0 for none
		want   time.Duration
	}{
		{"when a third is left", 90 * day, 0, 60 * day},
		{"a short one too", 9 * time.Second, 0, 6 * time.Second},
		{"at the authority's time", 90 * day, 70 * day, 70 * day},
		{"earlier than a third", 90 * day, 10 * day, 10 * day},
		{"not while it rests", 90 * day, time.Hour, 6 * time.Hour},
		{"not while it rests, before its life", 90 * day, -day, 6 * time.Hour},
		{"not while a short one rests", 9 * time.Second, time.Second, 3 * time.Second},
		{"not in the last fifth", 90 * day, 89 * day, 72 * day},
	} {
		t.Run(c.name, func(t *testing.T) {
			var choice time.Time
			if c.choice != 0 {
				choice = from.Add(c.choice)
			}
			if got := renewAt(life{from, from.Add(c.length)}, choice).Sub(from); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	w := renewalInfo{start: start, end: start.Add(time.Hour)}
	for fraction, want := range map[float64]time.Time{0: start, 0.5: start.Add(30 * time.Minute)} {
		if got := choose(w, fraction); !got.Equal(want) {
			t.Errorf("%v: got %s, want %s", fraction, got, want)
		}
	}
	if got := choose(renewalInfo{start: start, end: start}, 0.5); !got.IsZero() {
		t.Errorf("an empty window: got %s, want no time", got)
	}
}

func TestAskAgain(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ wanted, want time.Duration }{
		{0, askEvery}, {time.Second, askNotBelow}, {-time.Hour, askNotBelow}, {2 * time.Hour, 2 * time.Hour}, {1000 * time.Hour, askAtLeast},
	} {
		var wanted time.Time
		if c.wanted != 0 {
			wanted = now.Add(c.wanted)
		}
		if got := askAgain(now, wanted).Sub(now); got != c.want {
			t.Errorf("%s: got %s, want %s", c.wanted, got, c.want)
		}
	}
}

func TestVaultStorage(t *testing.T) {
	s := &vaultStorage{vault: storetest.NewMemory(storetest.MemoryOptions{})}
	ctx := t.Context()
	t.Run("what is not there does not exist", func(t *testing.T) {
		_, loadErr := s.Load(ctx, "a")
		_, statErr := s.Stat(ctx, "a")
		_, listErr := s.List(ctx, "a", true)
		for what, err := range map[string]error{"Load": loadErr, "Stat": statErr, "List": listErr} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got error %v, want fs.ErrNotExist", what, err)
			}
		}
		if s.Exists(ctx, "a") || s.Delete(ctx, "a") != nil {
			t.Error("it exists, or cannot be deleted")
		}
	})
	for _, key := range []string{"a/b/c.crt", "a/b/c.key", "a/d", "ab"} {
		if err := s.Store(ctx, key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("keys and folders", func(t *testing.T) {
		text, err := s.Load(ctx, "a/b/c.key")
		if err != nil || string(text) != "value of a/b/c.key" {
			t.Errorf("Load: got %q, error %v", text, err)
		}
		if _, err := s.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load of a folder: got error %v, want fs.ErrNotExist", err)
		}
		for key, terminal := range map[string]bool{"a": false, "a/b": false, "a/d": true, "ab": true} {
			info, err := s.Stat(ctx, key)
			if err != nil || info.IsTerminal != terminal || info.Key != key || info.Modified.IsZero() || terminal != (info.Size > 0) {
				t.Errorf("Stat(%q): got %+v, error %v; want terminal %t", key, info, err, terminal)
			}
			if !s.Exists(ctx, key) {
				t.Errorf("Exists(%q): got false", key)
			}
		}
	})
	t.Run("lists", func(t *testing.T) {
		for _, c := range []struct {
			folder    string
			recursive bool
			want      []string
		}{
			{"a", false, []string{"a/b", "a/d"}},
			{"a", true, []string{"a/b", "a/b/c.crt", "a/b/c.key", "a/d"}},
			{"a/b", false, []string{"a/b/c.crt", "a/b/c.key"}},
			{"", false, []string{"a", "ab"}},
		} {
			got, err := s.List(ctx, c.folder, c.recursive)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("List(%q, %t): got %q, error %v; want %q", c.folder, c.recursive, got, err, c.want)
			}
		}
	})
	t.Run("a folder is deleted with all in it", func(t *testing.T) {
		if err := s.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if s.Exists(ctx, "a/b/c.key") || s.Exists(ctx, "a") || !s.Exists(ctx, "ab") {
			t.Error("want a gone and ab there")
		}
	})
}

func TestLocks(t *testing.T) {
	newStorage := func() *vaultStorage {
		return &vaultStorage{vault: storetest.NewMemory(storetest.MemoryOptions{})}
	}
	t.Run("one holder at a time, each name by itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStorage()
			inside, most := 0, 0
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if err := s.Lock(t.Context(), "a"); err != nil {
						t.Errorf("Lock: %v", err)
						return
					}
					inside++ // guarded by the lock itself
					most = max(most, inside)
					time.Sleep(time.Second)
					inside--
					if err := s.Unlock(t.Context(), "a"); err != nil {
						t.Errorf("Unlock: %v", err)
					}
				})
			}
			if err := s.Lock(t.Context(), "b"); err != nil {
				t.Errorf("another name: %v", err)
			}
			all.Wait()
			if most != 1 {
				t.Errorf("got %d holders at a time, want 1", most)
			}
		})
	})
	t.Run("the end of the context ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStorage()
			if err := s.Lock(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v, want that of the context", err)
			}
			if err := s.Unlock(t.Context(), "a"); err != nil {
				t.Errorf("Unlock: %v", err)
			}
			if err := s.Lock(t.Context(), "a"); err != nil {
				t.Errorf("then: %v", err)
			}
		})
	})
	t.Run("trying does not wait", func(t *testing.T) {
		s := newStorage()
		for i, want := range []bool{true, false, false} {
			if got, err := s.TryLock(t.Context(), "a"); got != want || err != nil {
				t.Errorf("try %d: got %t, error %v; want %t", i, got, err, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := s.TryLock(ctx, "b"); got || err == nil {
			t.Errorf("after the end of the context: got %t, error %v", got, err)
		}
	})
	t.Run("what is not locked cannot be unlocked", func(t *testing.T) {
		if err := newStorage().Unlock(t.Context(), "a"); err == nil {
			t.Error("got no error")
		}
	})
}

func TestCertmagicIsHeardAtDebugOnly(t *testing.T) {
	for _, level := range []zapcore.Level{zapcore.DebugLevel, zapcore.InfoLevel} {
		core, logs := observer.New(level)
		log := zap.New(demoted{core}).With(zap.String("a", "b"))
		log.Error("boom")
		log.Info("waiting on internal rate limiter")
		want := 0
		if level == zapcore.DebugLevel {
			want = 2
		}
		if got := logs.FilterLevelExact(zapcore.DebugLevel).Len(); got != want || logs.Len() != want {
			t.Errorf("at %s: got %d debug lines of %d, want %d", level, got, logs.Len(), want)
		}
	}
}

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for text, want := range map[string]string{
		"relay.example.com": "relay.example.com", "Relay.Example.COM.": "relay.example.com", "relay": "relay", "xn--bcher-kva.example": "xn--bcher-kva.example",
		"1.example": "1.example", long + ".example": long + ".example",
	} {
		if got, err := ParseName(text); got != want || err != nil {
			t.Errorf("%q: got %q, error %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ".", "*.example.com", "127.0.0.1", "::1", "https://relay.example.com", "relay.example.com:443", "relay.example.com/x", "a..b", "-a.example",
		"a-.example", "bücher.example", "a_b.example", long + "a.example", strings.Repeat("a.", 127) + "aa", "a b.example", "1.2.3", "relay.1",
	} {
		if got, err := ParseName(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		} else if !strings.Contains(err.Error(), ";") {
			t.Errorf("%q: error %q does not say what to do", text, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"relay.example.com", "a.", "..", "xn--", "1", "A-b.C"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseName(s)
		if err != nil {
			return
		}
		if again, err := ParseName(name); err != nil || again != name {
			t.Errorf("%q: again got %q, error %v", name, again, err)
		}
	})
}

func TestKeptAccount(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	account := acme.Account{Status: acme.StatusValid, Location: "https://acme.example.com/1", PrivateKey: key, ExternalAccountBinding: json.RawMessage(`{"a":1}`)}
	text, err := encodeAccount(account)
	if err != nil {
		t.Fatal(err)
	}
	back, err := parseAccount(text)
	if err != nil || back.Location != account.Location || !key.Equal(back.PrivateKey) || back.ExternalAccountBinding != nil {
		t.Errorf("got %+v, error %v; want the account without the binding", back, err)
	}
	for _, bad := range []string{"", "{}", "null", `{"account": {"status": "valid", "location": "x"}, "private_key": "x"}`, strings.Replace(string(text), "valid", "revoked", 1)} {
		if got, err := parseAccount([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func FuzzKept(f *testing.F) {
	ca, err := receiver.NewCA("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	cert, err := ca.Issue("relay.example.com")
	if err != nil {
		f.Fatal(err)
	}
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(keptPair{Issuer: "x", Certificate: string(chain), PrivateKey: string(key)})
	if err != nil {
		f.Fatal(err)
	}
	if got, issuer, err := parsePair(text, "relay.example.com"); err != nil || issuer != "x" || got.Leaf == nil {
		f.Fatalf("parsePair: got %v of %q, error %v", got, issuer, err)
	}
	if _, _, err := parsePair(text, "other.example.com"); err == nil {
		f.Fatal("parsePair for another name: got no error")
	}
	f.Add(text)
	f.Add([]byte(`{"account": {"status": "valid", "location": "x"}, "private_key": "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"}`))
	f.Add([]byte(`{"issuer": "x"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if cert, _, err := parsePair(text, "relay.example.com"); err == nil && (cert.Leaf == nil || cert.Leaf.VerifyHostname("relay.example.com") != nil) {
			t.Error("got a pair that is not for the name")
		}
		if account, err := parseAccount(text); err == nil && (account.PrivateKey == nil || account.Location == "") {
			t.Error("got half an account")
		}
	})
}
