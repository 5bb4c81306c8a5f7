package config

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// FuzzEnvironment holds each variable to: no panic, a Config that prints, faults of one line, and what is not ours or is
// empty changes nothing.
func FuzzEnvironment(f *testing.F) {
	for _, seed := range [][2]string{
		{"STORE_PATH", "/data"}, {"LOG_LEVEL", "debug"}, {"LOG_LEVEL", "loud"}, {"DESTINATIONS_A_URL", "https://b.test/"}, {"STORE_MAX_PENDING", "-1"},
		{"DESTINATIONS_A_RETRY_FIRST", "1s"}, {"LISTEN_INGEST", "unix:///run/a.sock"}, {"STORE_PATHS", "x"}, {"A", "x"}, {"DESTINATIONS__URL", "x"},
		{"DESTINATIONS_A_BREAKER_FAILURES", "9"}, {"SERVICE_HOST", "10.0.0.1"}, {"EGRESS_RESOLVE", "x"}, {"DESTINATIONS_A_AUTH_BEARER_TOKEN", "t"},
	} {
		f.Add(seed[0], seed[1])
	}
	const file = "destinations: {a: {url: https://a.test/}}\n"
	plain, err := Parse("postern.yaml", []byte(file), nil)
	if err != nil {
		f.Fatal(err)
	}
	want, err := plain.Masked(Form{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return // no process can have such a variable
		}
		cfg, err := Parse("postern.yaml", []byte(file), []string{prefix + name + "=" + value})
		if cfg == nil {
			t.Fatal("got no Config")
		}
		masked, renderErr := cfg.Masked(Form{})
		if renderErr != nil {
			t.Fatalf("got %v from Masked", renderErr)
		}
		if (value == "" || notOurs.MatchString(prefix+name)) && (err != nil || !bytes.Equal(masked, want)) {
			t.Errorf("%s=%q: got error %v and\n%s\nwant it left alone", name, value, err, masked)
		}
		if err == nil {
			return
		}
		var list ErrorList
		if !errors.As(err, &list) || len(list) == 0 {
			t.Fatalf("got %T, want an ErrorList with faults", err)
		}
		for _, e := range list {
			if e.Msg == "" || strings.Contains(e.Error(), "\n") && !strings.Contains(name, "\n") {
				t.Errorf("got %#v, want one line of text", e)
			}
		}
	})
}

// FuzzAddresses holds addresses to listen on, networks and addresses to: what is taken means the same when it is written
// again, and nothing with a zone, or bits behind a prefix, is taken.
func FuzzAddresses(f *testing.F) {
	for _, seed := range []string{
		"127.0.0.1:8025", "unix:///run/a.sock", "unix://a", ":443", "[::1]:0", "[::ffff:127.0.0.1]:1", "localhost:65536", "10.20.0.0/16", "10.20.0.1/16",
		"fe80::1%eth0", "::/0", "[fe80::1%eth0]:1", "10.0.0.1", "010.0.0.1:1", "::ffff:10.0.0.0/104", "unix:///run//a", "a:b:c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAddress(text); err == nil {
			switch {
			case a.unix && (a.host[0] != '/' || len(a.host) > 100 || !a.local):
				t.Errorf("%q: got %+v, want a short absolute path", text, a)
			case !a.unix && a.port > 65535:
				t.Errorf("%q: got port %d", text, a.port)
			case !a.unix && a.host != "" && a.host != "localhost":
				ip, err := netip.ParseAddr(a.host)
				if err != nil || ip.Unmap() != ip || a.local != ip.IsLoopback() {
					t.Errorf("%q: got %+v, error %v; want an address in its plain form", text, a, err)
				}
			}
			if !collide(a, a) && (a.unix || a.port != 0) {
				t.Errorf("%q does not collide with itself", text)
			}
		}
		var prefix netip.Prefix
		if err := parseScalar(reflect.ValueOf(&prefix).Elem(), text); err == nil {
			if !prefix.IsValid() || prefix.Masked() != prefix || prefix.Addr().Zone() != "" {
				t.Errorf("%q: got the network %s, want one without bits behind it", text, prefix)
			}
			if again, err := parsePrefix(prefix.String()); err != nil || again != prefix {
				t.Errorf("%q: got %s again, error %v; want %s", text, again, err, prefix)
			}
		}
		var addr netip.Addr
		if err := parseScalar(reflect.ValueOf(&addr).Elem(), text); err == nil && (!addr.IsValid() || addr.Zone() != "") {
			t.Errorf("%q: got the address %s", text, addr)
		}
		var mode Mode
		if err := mode.UnmarshalText([]byte(text)); err == nil && mode > 0o777 {
			t.Errorf("%q: got the mode %o", text, mode)
		}
	})
}
