package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	cfg := mustParseFile(t, `
listen:
  tokens:
    - ${env:OLD}
    - name: shop
      token: ${env:SHOP}
      destinations: [alerts]
      events: ["order.*", "stock.**"]
      rate: 600/m
  admin_tokens: [ops-canary-0123456789, {name: ci, token: "${env:CI}"}]
destinations: {alerts: {url: https://a.example}}
`, "OLD=canary-old-0123456789", "SHOP=canary-shop-0123456789", "CI=canary-ci-0123456789")
	l := cfg.Listen
	if len(l.Tokens) != 2 || len(l.AdminTokens) != 2 {
		t.Fatalf("got %d and %d tokens, want 2 and 2", len(l.Tokens), len(l.AdminTokens))
	}
	if first := l.Tokens[0]; first.Name != "" || first.Token.Reveal() != "canary-old-0123456789" || first.Destinations != nil || first.Rate != nil {
		t.Errorf("got %+v, want a token without a name and bounds", first)
	}
	shop := l.Tokens[1]
	if got, want := fmt.Sprint(shop.Name, shop.Destinations, shop.Events, shop.Rate), "shop[alerts] [order.* stock.**] 600/m"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := l.AdminTokens[0].Token.Reveal() + " " + l.AdminTokens[1].Name + " " + l.AdminTokens[1].Token.Reveal(); got != "ops-canary-0123456789 ci canary-ci-0123456789" {
		t.Errorf("got %s", got)
	}
	t.Run("they are shown by name and fingerprint", func(t *testing.T) {
		for name, render := range map[string]func(Form) ([]byte, error){"YAML": cfg.Masked, "JSON": cfg.MaskedJSON} {
			out, err := render(Form{Fingerprints: true})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(out), "canary") {
				t.Errorf("%s: a token is in\n%s", name, out)
			}
			for _, token := range []string{"canary-old-0123456789", "canary-shop-0123456789", "ops-canary-0123456789", "canary-ci-0123456789"} {
				sum := sha256.Sum256([]byte(token))
				if want := "*** sha256:" + hex.EncodeToString(sum[:])[:8]; strings.Count(string(out), want) != 1 {
					t.Errorf("%s: got no %q for %s in\n%s", name, want, token, out)
				}
			}
		}
	})
	t.Run("they print as nothing", func(t *testing.T) {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(format, l); strings.Contains(got, "canary") || strings.Contains(got, hex.EncodeToString([]byte("canary"))) {
				t.Errorf("%s: got %s", format, got)
			}
		}
	})
}

func TestCheckToken(t *testing.T) {
	for token, want := range map[string]string{
		"0123456789abcdef":                 "",
		"0123456789abcde":                  "too short",
		"a b-0123456789abcdef":             "cannot be sent",
		"0123456789abcdef\n":               "cannot be sent",
		"0123456789abcdeé":                 "cannot be sent",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "too easy to guess",
		"abcdeabcdeabcdeabcdeabcdeabcde":   "too easy to guess",
		"abcdefabcdefabcdefabcdefabcdef":   "",
	} {
		got := checkToken(NewSecret(token))
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", token, got, want)
		}
		if token != "" && strings.Contains(got, token) {
			t.Errorf("%q is in its own error %q", token, got)
		}
	}
}

func TestListenersOnOtherAddresses(t *testing.T) {
	const destinations = "\ndestinations: {a: {url: https://a.example}}"
	for _, c := range []struct {
		name, listen, warning string
	}{
		{"loopback needs no token", "{admin: '127.0.0.1:1'}", ""},
		{"a socket needs none", "{admin: 'unix:///run/admin.sock'}", ""},
		{"another address with one", "{admin: '0.0.0.0:1', admin_tokens: [0123456789abcdef]}", "listen.admin: tokens and history cross the network without encryption"},
		{"ingest on loopback needs no token", "{ingest: '[::ffff:127.9.9.9]:1'}", ""},
		{"ingest at another address with one", "{ingest: ':1', tokens: [0123456789abcdef]}", "listen.ingest: tokens and messages cross the network without encryption"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got strings.Builder
			for _, w := range mustParseFile(t, "listen: "+c.listen+destinations).Warnings() {
				got.WriteString(w.Error())
			}
			if (got.String() == "") != (c.warning == "") || !strings.Contains(got.String(), c.warning) {
				t.Errorf("got warnings %q, want %q", got.String(), c.warning)
			}
		})
	}
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]Mode{"0600": 0o600, "660": 0o660, "0666": 0o666, "0777": 0o777, "0000": 0} {
		got, err := ParseMode(text)
		if err != nil || got != want {
			t.Errorf("%q: got %v and error %v, want %v", text, got, err, want)
		}
		if again, err := ParseMode(got.String()); err != nil || again != got {
			t.Errorf("%v reads as %v and error %v", got, again, err)
		}
	}
	for _, text := range []string{"", "0", "60", "06000", "1600", "0o600", "0688", "rw-------", "+660", "-600", "06 0", "0_60"} {
		if got, err := ParseMode(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
