package egress

import (
	"net/url"
	"slices"
	"testing"
)

func TestSpellings(t *testing.T) {
	for text, want := range map[string][]string{
		"plain":    {"plain"},
		"a b/c":    {"a%20b%2Fc", `a%20b\/c`, "a%20b/c", "a+b%2Fc", `a b\/c`, `a+b\/c`, "a b/c", "a+b/c"},
		"a%2fb":    {"a%252fb", "a%2Fb", "a%2fb", `a\/b`, "a/b"},
		"<&>":      {`\u003c\u0026\u003e`, "&lt;&amp;&gt;", `%3C\u0026%3E`, "%3C&amp;%3E", "%3C%26%3E", "%3C&%3E", "<&>"},
		`say "x"`:  {"say &#34;x&#34;", "say+&#34;x&#34;", "say%20%22x%22", "say+%22x%22", `say \"x\"`, `say+\"x\"`, `say "x"`, `say+"x"`},
		"100%":     {"100%25", "100%"},
		"\xff":     {"%FF", "\xff"},
		"%":        {"%25", "%"},
		"a;b,c\td": {"a%3Bb%2Cc%09d", "a;b,c%09d", `a;b,c\td`, "a;b,c\td"},
	} {
		if got := spellings([]string{text}); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	if got, want := spellings([]string{"b", "", "a", "long", "a"}), []string{"long", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEverySecretIsKnownInAllSpellings(t *testing.T) {
	const secret = `q/"&<1234567`
	spelled := []string{secret, `q/\"&<1234567`, `q\/\"&<1234567`, `q/\"\u0026\u003c1234567`, "q/&#34;&amp;&lt;1234567", "q%2F%22%26%3C1234567", "q%2F%22&%3C1234567", "q/%22&%3C1234567"}
	for name, change := range map[string]func(*Options){
		"basic":   func(o *Options) { o.Auth.Basic = &Basic{Username: "u", Password: secret} },
		"bearer":  func(o *Options) { o.Auth.Bearer = &Bearer{Token: secret} },
		"api_key": func(o *Options) { o.Auth.APIKey = &APIKey{Header: "X-Key", Value: secret} },
		"oauth2": func(o *Options) {
			o.Auth.OAuth2 = &OAuth2{ClientID: "c", ClientSecrets: []string{secret}, TokenURL: o.URL}
		},
		"oauth2, the second secret": func(o *Options) {
			o.Auth.OAuth2 = &OAuth2{ClientID: "c", ClientSecrets: []string{"another", secret}, TokenURL: o.URL}
		},
		"header":             func(o *Options) { o.Header = []Header{{Name: "X-Any", Value: secret}} },
		"template":           func(o *Options) { o.Header = []Header{{Name: "X-Any", Value: "{{ .Event }}" + secret}} },
		"text in a template": func(o *Options) { o.Header = []Header{{Name: "X-Any", Value: "{{ print `" + secret + "` .Event }}"}} },
		"query":              func(o *Options) { o.URL.RawQuery = "a=q/%22%26%3c1234567&b=%zz" },
		"query of a token endpoint": func(o *Options) {
			o.Auth.OAuth2 = &OAuth2{ClientID: "c", ClientSecrets: []string{"s"}, TokenURL: &url.URL{Scheme: "https", Host: "h", RawQuery: "a=q/%22%26%3c1234567"}}
		},
		"further": func(o *Options) { o.Secrets = []string{secret} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, change)
			for _, want := range spelled {
				if !slices.Contains(s.secrets, want) {
					t.Errorf("got %q, want %s among them", s.secrets, want)
				}
			}
		})
	}
	t.Run("token", func(t *testing.T) {
		s := newSender(t, nil).hiding(secret)
		for _, want := range spelled {
			if !slices.Contains(s.secrets, want) {
				t.Errorf("got %q, want %s among them", s.secrets, want)
			}
		}
	})
	t.Run("a value of a query as it is written, and as it is meant", func(t *testing.T) {
		s := newSender(t, func(o *Options) { o.URL.RawQuery = "a=long%2fas+it+is" })
		for _, want := range []string{"long%2fas+it+is", "long/as it is", "long%2Fas%20it%20is", "long%2Fas+it+is"} {
			if !slices.Contains(s.secrets, want) {
				t.Errorf("got %q, want %s among them", s.secrets, want)
			}
		}
	})
}

func TestSecretParts(t *testing.T) {
	for text, want := range map[string][]string{
		"12345":                        {},
		"123456":                       {"123456"},
		"a secret/":                    {"a secret/"},
		"whsec_a/b+c=":                 {"whsec_a/b+c=", "a/b+c="},
		"whsk_abc/def":                 {"whsk_abc/def", "abc/def"},
		"https://h/":                   {},
		"https://h/abcde":              {},
		"https://h/abcde?a=1":          {"abcde?a=1"},
		"https://h/abcdef/?a=1":        {"abcdef?a=1", "abcdef"},
		"HTTPS://H:443/long%2Fenough":  {"long%2Fenough"},
		"https://h?key=a-secret-value": {"?key=a-secret-value", "key=a-secret-value", "a-secret-value"},
		"db://u:p@h/":                  {"db://u:p@h/"},
		"https://u:p@h/":               {"https://u:p@h/"},
		"T0/of-16-bytes-here?sig=%zz":  {"T0/of-16-bytes-here?sig=%zz", "T0/of-16-bytes-here", "sig=%zz", "of-16-bytes-here"},
		"T0/of-15-bytes-her":           {"T0/of-15-bytes-her"},
	} {
		if got := secretParts(text); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestCredentialParts(t *testing.T) {
	for value, want := range map[string][]string{
		"":                                   {},
		"plain":                              {},
		"a-token-of-24-characters":           {},
		"Bearer short":                       {},
		"bearer of-six":                      {"of-six"},
		"Basic dTpvZi1zaXg=":                 {"dTpvZi1zaXg=", "of-six"},
		"Basic dTpmaXZl_":                    {"dTpmaXZl_"},
		"GenieKey of-16-bytes-here":          {"of-16-bytes-here"},
		`Mine key="of-16-bytes-here", id=me`: {"of-16-bytes-here"},
		"key=of-15-bytes-her":                {},
	} {
		if got := credentialParts(value); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}
