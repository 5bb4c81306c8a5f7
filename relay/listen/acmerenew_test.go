package listen

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/store/storetest"
)

func TestACMERenewal(t *testing.T) {
	t.Run("a certificate is renewed when the authority wants it, and no request is refused meanwhile", func(t *testing.T) {
		t.Parallel()
		// It is left alone for the first third, and then a request or two thirds of the time remain: room enough for a busy
		// machine. Pebble's own window is all of a life as short as this one, up to its last second.
		ca := acmetest.Start(t, acmetest.Options{Validity: 30 * time.Second})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		begun := time.Now()
		wait(t, "the first certificate", func() bool { return f.obtained() == 1 })
		first := f.leaf(t, "relay.example.com")
		ca.RenewNow(t, first)
		config := &tls.Config{RootCAs: ca.Roots(t)}
		requests := 0
		wait(t, "a new one", func() bool {
			requests++
			if status, body, err := f.get(t, "https://relay.example.com/", config); err != nil || status != http.StatusOK {
				t.Fatalf("request %d: got %d %q, error %v", requests, status, body, err)
			}
			return f.obtained() >= 2
		})
		second := f.leaf(t, "relay.example.com")
		t.Logf("renewed after %s, with %d requests", time.Since(begun).Round(time.Millisecond), requests)
		if key, ok := first.PublicKey.(*ecdsa.PublicKey); !ok || key.Equal(second.PublicKey) {
			t.Error("the certificate has the key of the first one, want one of its own")
		}
		if got := second.NotBefore; got.Before(first.NotBefore.Add(first.NotAfter.Sub(first.NotBefore)/3 - time.Second)) { // in whole seconds
			t.Errorf("renewed at %s, want it left alone for a third of its life, which began at %s", got, first.NotBefore)
		}
		if f.logs.FilterMessage("authority has said when to renew").Len() == 0 {
			t.Error("the log does not say that the authority wanted it")
		}
	})
	t.Run("one that is due long before its end is renewed at the start", func(t *testing.T) {
		t.Parallel()
		ca, vault := acmetest.Start(t, acmetest.Options{}), storetest.NewMemory(storetest.MemoryOptions{})
		f := newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com"))
		wait(t, "the first certificate", func() bool { return f.obtained() == 1 })
		first := f.leaf(t, "relay.example.com")
		f.stop()
		ca.RenewNow(t, first)
		later := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(restAfterIssue + time.Hour) } }
		f = newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com"), later)
		wait(t, "a new one", func() bool { return f.obtained() == 1 })
		if f.leaf(t, "relay.example.com").Equal(first) {
			t.Error("got the earlier certificate, want the new one")
		}
	})
	t.Run("an authority that is away leaves the earlier certificate in use, and one that has forgotten us gets to know us anew", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{Validity: 6 * time.Second})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the first certificate", func() bool { return f.obtained() > 0 })
		roots := ca.Roots(t)
		ca.Stop(t)
		f.wantEarlier(t, roots, "connection refused")
		before := f.obtained()
		ca.Restart(t)
		wait(t, "a new certificate", func() bool { return f.obtained() > before })
	})
	t.Run("an authority that refuses leaves the earlier certificate in use, and says why", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{Validity: 6 * time.Second})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the first certificate", func() bool { return f.obtained() > 0 })
		roots := ca.Roots(t)
		ca.Stop(t)
		ca.Block(t, "relay.example.com")
		ca.Restart(t)
		f.wantEarlier(t, roots, "rejectedIdentifier")
		before := f.obtained()
		ca.Stop(t)
		ca.Block(t)
		ca.Restart(t)
		wait(t, "a new certificate", func() bool { return f.obtained() > before })
	})
	t.Run("a clock far ahead makes new certificates look old: that is told, and no further ones are asked for", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{})
		ahead := func(o *Options) { o.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) } }
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"), ahead)
		wait(t, "the reason", func() bool {
			trouble := f.Trouble()
			return len(trouble) == 1 && strings.Contains(trouble[0], "it expired at ") && strings.Contains(trouble[0], "one that has just come is good from ") &&
				strings.HasSuffix(trouble[0], "; check the clock")
		})
		f.leaf(t, "relay.example.com") // by the clock of clients it is good
		// What takes as long as another order would.
		other := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "nowhere.example.com"),
			func(o *Options) { o.Address = ca.Addr().String() + ":0" })
		wait(t, "another listener's order", func() bool { return other.logs.FilterMessage("certificate not obtained").Len() > 1 })
		if got := f.obtained(); got != 1 {
			t.Errorf("got %d certificates, want 1", got)
		}
	})
	t.Run("a clock far behind is told, and the certificate is served", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{})
		behind := func(o *Options) { o.Now = func() time.Time { return time.Now().AddDate(-1, 0, 0) } }
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"), behind)
		wait(t, "the reason", func() bool {
			trouble := f.Trouble()
			return len(trouble) == 1 && strings.Contains(trouble[0], "it is not valid before ") && strings.HasSuffix(trouble[0], "; check the clock")
		})
		f.leaf(t, "relay.example.com")
	})
	t.Run("another authority takes over, and until then the earlier certificate serves", func(t *testing.T) {
		t.Parallel()
		old, vault := acmetest.Start(t, acmetest.Options{}), storetest.NewMemory(storetest.MemoryOptions{})
		f := newFront(t, old, acmeOptions(t, old, vault, "relay.example.com"))
		wait(t, "the first certificate", func() bool { return f.obtained() == 1 })
		oldRoots, first := old.Roots(t), f.leaf(t, "relay.example.com")
		f.stop()
		next := acmetest.Start(t, acmetest.Options{})
		next.Stop(t)
		f = newFront(t, next, acmeOptions(t, next, vault, "relay.example.com"))
		wait(t, "a failure", func() bool { return f.logs.FilterMessageSnippet("certificate not renewed").Len() > 0 })
		if leaf, err := shake(f.Addr().String(), &tls.Config{ServerName: "relay.example.com", RootCAs: oldRoots}); err != nil || !leaf.Equal(first) {
			t.Errorf("got error %v, want the certificate of the earlier authority", err)
		}
		next.Restart(t)
		wait(t, "a new certificate", func() bool { return f.obtained() == 1 })
		f.leaf(t, "relay.example.com")
	})
}

// wantEarlier wants the certificate of now to stay in use when it cannot be renewed, past its end, and the reason to be told.
func (f *front) wantEarlier(t *testing.T, roots *x509.CertPool, reason string) {
	t.Helper()
	wait(t, "a failure", func() bool { return f.logs.FilterMessageSnippet("certificate not renewed").Len() > 0 })
	wait(t, "the reason", func() bool {
		trouble := f.Trouble()
		return len(trouble) == 1 && strings.Contains(trouble[0], "it expired at ") && strings.Contains(trouble[0], reason)
	})
	expires := f.Certificates()[0].Expires
	leaf, err := shake(f.Addr().String(), &tls.Config{
		ServerName: "relay.example.com", RootCAs: roots, Time: func() time.Time { return expires.Add(-time.Second) },
	})
	if err != nil || !leaf.NotAfter.Equal(expires) {
		t.Errorf("meanwhile: error %v, want the earlier certificate", err)
	}
}

func TestRehearsal(t *testing.T) {
	t.Run("a further attempt is rehearsed, and without success the authority gets no order", func(t *testing.T) {
		t.Parallel()
		// The staging environment looks for the names at its own address, where nobody is.
		f, ca, staging := newRehearsed(t, func(*acmetest.Authority) acmetest.Options { return acmetest.Options{} })
		wait(t, "a rehearsal that fails", func() bool {
			trouble := f.Trouble()
			return len(trouble) == 1 && strings.Contains(trouble[0], "rehearsal at "+staging.Addr().String())
		})
		ca.Restart(t)
		before := ca.Orders()
		failures := f.logs.FilterMessage("certificate not obtained").Len()
		wait(t, "more failures", func() bool { return f.logs.FilterMessage("certificate not obtained").Len() > failures+2 })
		if got := ca.Orders() - before; got != 0 {
			t.Errorf("the authority got %d orders, want none before a rehearsal has succeeded", got)
		}
		if f.obtained() != 0 {
			t.Error("got a certificate, want none")
		}
	})
	t.Run("with success the authority gets one, and what was rehearsed is not used", func(t *testing.T) {
		t.Parallel()
		f, ca, staging := newRehearsed(t, func(ca *acmetest.Authority) acmetest.Options { return acmetest.Options{NamesAt: ca.Addr()} })
		wait(t, "a failure", func() bool { return f.logs.FilterMessage("certificate not obtained").Len() > 0 })
		ca.Restart(t)
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		if staging.Orders() == 0 {
			t.Error("the staging environment got no order")
		}
		f.leaf(t, "relay.example.com")
	})
}

// newRehearsed starts a listener whose authority is away at first, and that has a staging environment.
func newRehearsed(t *testing.T, options func(*acmetest.Authority) acmetest.Options) (f *front, ca, staging *acmetest.Authority) {
	t.Helper()
	ca = acmetest.Start(t, acmetest.Options{})
	staging = acmetest.Start(t, options(ca))
	o := acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com")
	rehearsal := acmeOptions(t, staging, o.Vault, "relay.example.com").Authority
	o.Rehearsal = &rehearsal
	ca.Stop(t)
	return newFront(t, ca, o), ca, staging
}
