package egress

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestUnescape(t *testing.T) {
	for v, want := range map[string]string{
		"":                           "",
		"plain":                      "",
		"100% & \\":                  "",
		"%":                          "",
		"&amp":                       "",
		"&none;":                     "",
		`\u12`:                       "",
		`\ud83d`:                     "",
		`\ud83d\u0041`:               `\ud83dA`,
		"a%2bb%2Fc%zz":               "a+b/c%zz",
		`a\u002bb\u002Bc\/d`:         "a+b+c/d",
		`p\u00e4ss \"\\\n`:           "päss \"\\\n",
		`\ud83d\ude00`:               "😀",
		"a&#43;b&#x2F;c&quot;":       `a+b/c"`,
		"&apos;&lt;&toolongtobeone;": "'<&toolongtobeone;",
	} {
		plain, at := unescape(v)
		if plain != want || (at == nil) != (want == "") || at != nil && (len(at) != len(plain)+1 || at[len(plain)] != len(v)) {
			t.Errorf("%s: got %q and places %v, want %q", v, plain, at, want)
		}
	}
}

func TestMaskingSeesThroughEscapes(t *testing.T) {
	secrets := inEveryForm([]string{"pä+s/w=r'd"})
	coded := base64.StdEncoding.EncodeToString([]byte("user:pä+s/w=r'd"))
	for _, c := range []struct{ name, v, want string }{
		{"as .NET has JSON", `{"a":"p\u00E4\u002Bs/w=r\u0027d"}`, `{"a":"*************************"}`},
		{"as PHP and Python have JSON", `["p\u00e4+s\/w=r'd"]`, `["****************"]`},
		{"JSON in a text of JSON", `"{\"a\":\"p\\u00e4+s\\/w=r'd\"}"`, `"{\"a\":\"******************\"}"`},
		{"a URL as .NET has it", "/?a=p%c3%a4%2bs%2fw%3dr%27d&b=1", "/?a=***********************&b=1"},
		{"such a URL in another", "/?u=p%25c3%25a4%252bs%252fw%253dr%2527d&b=1", "/?u=***********************************&b=1"},
		{"HTML", "<p>p&auml;&#43;s&#x2F;w&#61;r&#39;d</p>", "<p>********************************</p>"},
		{"hexadecimal", "x70c3a42b732f773d722764y", "x**********************y"},
		{"HEXADECIMAL", "x70C3A42B732F773D722764y", "x**********************y"},
		{"nothing of it", `{"a":"p\u00e4+s\/w=r'e"}`, `{"a":"p\u00e4+s\/w=r'e"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := maskSecrets(c.v, secrets); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got, want := holdsSecretBytes([]byte(c.v), secrets), c.v != c.want; got != want {
				t.Errorf("got a secret %v, want %v", got, want)
			}
		})
	}
	t.Run("base64, wherever it begins", func(t *testing.T) {
		for _, before := range []string{"", "u", "us", "user:"} {
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
				v := encoding.EncodeToString([]byte(before + "pä+s/w=r'd" + "and more"))
				got := maskSecrets(v, secrets)
				plain, err := encoding.DecodeString(strings.ReplaceAll(got, "*", "A"))
				if err != nil || strings.Contains(string(plain), "s/w") || !strings.Contains(got, "*************") {
					t.Errorf("%s became %s, that is %q", v, got, plain)
				}
			}
		}
		if got := maskSecrets(`{"a":"`+strings.ReplaceAll(coded, "/", `\/`)+`"}`, secrets); strings.Contains(got, coded[10:16]) {
			t.Errorf("got %s", got)
		}
	})
}

func TestWhatIsWrittenWithEscapesIsFoundWithoutThemInEveryForm(t *testing.T) {
	secrets := inEveryForm([]string{"s3cr3t%2Fof%20a%20query"})
	for _, v := range []string{
		base64.StdEncoding.EncodeToString([]byte("s3cr3t/of a query")), hex.EncodeToString([]byte("s3cr3t/of a query")),
		hex.EncodeToString([]byte("s3cr3t%2Fof%20a%20query")),
	} {
		if got := maskSecrets(v, secrets); strings.Count(got, "*") < len(v)-3 { // the end of base64 may stay
			t.Errorf("%s became %s", v, got)
		}
	}
}

func FuzzMaskingSeesThroughEscapes(f *testing.F) {
	f.Add("a+b/c&d", "x", "y")
	f.Add(`p\u0041`, "%", "41")
	f.Add("äöü<>'\"", "\\", "u0041")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if len(secret) < minKnown || len(secret) > 100 || strings.ContainsAny(secret, "\x00*") || strings.ToValidUTF8(secret, "") != secret {
			return
		}
		secrets := spellings([]string{secret})
		quoted, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, r := range secret {
			if r > 0xffff {
				return
			}
			fmt.Fprintf(&all, `\u%04X`, r)
		}
		for _, spelled := range []string{
			secret, string(quoted[1 : len(quoted)-1]), all.String(), html.EscapeString(secret), url.QueryEscape(secret),
			strings.ToLower(url.PathEscape(strings.ToLower(secret))),
		} {
			if strings.ToLower(secret) != secret && spelled == strings.ToLower(url.PathEscape(strings.ToLower(secret))) {
				continue
			}
			v := []byte(before + " " + spelled + " " + after)
			maskBytes(v, secrets)
			if got := string(v[len(before)+1 : len(before)+1+len(spelled)]); strings.Trim(got, "*") != "" {
				t.Fatalf("%q within %q and %q became %q", spelled, before, after, got)
			}
		}
	})
}

func TestInBase64(t *testing.T) {
	if got := inBase64([]string{"1234567"}); got != nil {
		t.Errorf("got %q, want nothing of a short text", got)
	}
	want := []string{"MTIzNDU2Nz", "EyMzQ1Njc4", "xMjM0NTY3O"}
	if got := inBase64([]string{"12345678"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
