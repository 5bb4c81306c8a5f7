package store

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	raw := NewKey().raw[:]
	same := func(text string) bool {
		k, err := ParseKey(text)
		return err == nil && string(k.raw[:]) == string(raw)
	}
	for name, text := range map[string]string{
		"hexadecimal digits":         hex.EncodeToString(raw),
		"upper case":                 strings.ToUpper(hex.EncodeToString(raw)),
		"base64":                     base64.StdEncoding.EncodeToString(raw),
		"base64 without padding":     base64.RawStdEncoding.EncodeToString(raw),
		"base64 for URLs":            base64.URLEncoding.EncodeToString(raw),
		"a line end, as in a file":   base64.StdEncoding.EncodeToString(raw) + "\n",
		"what Text prints, in space": " " + Key{raw: (*[32]byte)(raw)}.Text() + "\t",
	} {
		t.Run(name+" is read", func(t *testing.T) {
			if !same(text) {
				t.Errorf("ParseKey(%q) does not give the key", text)
			}
		})
	}
	counting := make([]byte, 32)
	for i := range counting {
		counting[i] = byte(3 * i)
	}
	for name, text := range map[string]string{
		"nothing":           "",
		"a passphrase":      "correct horse battery staple",
		"31 bytes":          hex.EncodeToString(raw[:31]),
		"33 bytes":          hex.EncodeToString(append([]byte{1}, raw...)),
		"16 bytes":          hex.EncodeToString(raw[:16]),
		"zeros":             strings.Repeat("0", 64),
		"a byte repeated":   strings.Repeat("a7", 32),
		"a half twice":      strings.Repeat(hex.EncodeToString(raw[:16]), 2),
		"counted bytes":     hex.EncodeToString(counting),
		"readable text":     base64.StdEncoding.EncodeToString([]byte("The quick brown fox jumps over a")),
		"a Standard secret": "whsec_" + base64.StdEncoding.EncodeToString(raw),
	} {
		t.Run(name+" is refused, and not repeated", func(t *testing.T) {
			k, err := ParseKey(text)
			if err == nil || k.IsSet() {
				t.Fatalf("ParseKey: got no error")
			}
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("got the error %q, want one without the text", err)
			}
		})
	}
	t.Run("no new key is weak", func(t *testing.T) {
		for range 20_000 {
			k := NewKey()
			if _, err := ParseKey(k.Text()); err != nil {
				t.Fatalf("ParseKey of %x: %v", k.raw[:], err)
			}
		}
	})
}

func TestKey(t *testing.T) {
	k := NewKey()
	t.Run("it never prints itself", func(t *testing.T) {
		type holder struct{ k Key }
		encoded, err := json.Marshal(map[string]any{"k": k})
		if err != nil {
			t.Fatal(err)
		}
		all := string(encoded) + fmt.Sprintf("%v %+v %#v %s %x %d %v %+v %#v", k, k, k, k, k, k, holder{k}, holder{k}, &holder{k})
		for _, secret := range []string{k.Text(), hex.EncodeToString(k.raw[:]), fmt.Sprint(k.raw[:])} {
			if strings.Contains(all, secret) {
				t.Errorf("got %q", all)
			}
		}
	})
	t.Run("its fingerprint is its own, and what is derived from it has one purpose", func(t *testing.T) {
		if got := k.Fingerprint(); len(got) != 16 || got == NewKey().Fingerprint() {
			t.Errorf("got %q", got)
		}
		if string(k.Derive("a", 32)) == string(k.Derive("b", 32)) || strings.Contains(hex.EncodeToString(k.Derive("a", 32)), k.Fingerprint()) {
			t.Error("two purposes have the same bytes")
		}
	})
	t.Run("without a key there is nothing to print", func(t *testing.T) {
		if none := (Key{}); none.IsSet() || none.Text() != "" || none.Fingerprint() != "" {
			t.Error("the zero Key has a text")
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(NewKey().Text())
	f.Add(strings.Repeat("0f", 32))
	f.Add("====")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		if again, err := ParseKey(k.Text()); err != nil || again.Fingerprint() != k.Fingerprint() {
			t.Errorf("ParseKey(%q): its Text is another key, error %v", text, err)
		}
	})
}
