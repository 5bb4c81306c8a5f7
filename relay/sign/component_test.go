package sign

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
)

// TestComponents holds the values of section 2 of the RFC, mostly its own examples.
func TestComponents(t *testing.T) {
	header := http.Header{
		"X-Ows-Header": {"  Leading and trailing whitespace.\t"}, "X-Empty-Header": {""},
		"Cache-Control": {"max-age=60", "   must-revalidate"},
		"Example-Dict":  {`a=1,    b=2;x=1;y=2`, `c=(a   b   c), d`},
		"X-Line":        {"a\r\nb"},
	}
	for _, tt := range []struct{ component, url, want string }{
		{"x-ows-header", "https://h/", "Leading and trailing whitespace."},
		{"x-empty-header", "https://h/", ""},
		{"cache-control", "https://h/", "max-age=60, must-revalidate"},
		{"cache-control;bs", "https://h/", ":bWF4LWFnZT02MA==:, :bXVzdC1yZXZhbGlkYXRl:"},
		{`example-dict;key="a"`, "https://h/", "1"},
		{`example-dict;key="b"`, "https://h/", "2;x=1;y=2"},
		{`example-dict;key="c"`, "https://h/", "(a b c)"},
		{`example-dict;key="d"`, "https://h/", "?1"},
		{"@method", "https://h/", "POST"},
		{"@authority", "https://WWW.Example.com/path", "www.example.com"},
		{"@authority", "https://example.com:443/", "example.com"},
		{"@authority", "https://example.com:8443/", "example.com:8443"},
		{"@authority", "http://example.com:80/", "example.com"},
		{"@authority", "http://example.com:443/", "example.com:443"},
		{"@authority", "https://[::1]:443/", "[::1]"},
		{"@authority", "https://bücher.example/", "xn--bcher-kva.example"},
		{"@scheme", "HTTPS://example.com/", "https"},
		{"@path", "https://example.com/path?param=value", "/path"},
		{"@path", "https://example.com", "/"},
		{"@path", "https://example.com?a", "/"},
		{"@path", "https://example.com/a%2Fb/%C3%BC/", "/a%2Fb/%C3%BC/"},
		{"@query", "https://example.com/path?param=value&foo=bar&baz=bat%2Dman", "?param=value&foo=bar&baz=bat%2Dman"},
		{"@query", "https://example.com/path?queryString", "?queryString"},
		{"@query", "https://example.com/path", "?"},
		{"@query", "https://example.com/path?", "?"},
		{"@request-target", "https://example.com/path?param=value", "/path?param=value"},
		{"@request-target", "https://example.com", "/"},
		{"@target-uri", "https://www.example.com/path?param=value", "https://www.example.com/path?param=value"},
		{"@target-uri", "https://WWW.example.com:443", "https://www.example.com/"},
		{`@query-param;name="baz"`, "https://h/path?param=value&foo=bar&baz=batman&qux=", "batman"},
		{`@query-param;name="qux"`, "https://h/path?param=value&foo=bar&baz=batman&qux=", ""},
		{
			`@query-param;name="var"`, "https://h/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace",
			"this%20is%20a%20big%0Amultiline%20value",
		},
		{`@query-param;name="bar"`, "https://h/parameters?bar=with+plus+whitespace", "with%20plus%20whitespace"},
		{`@query-param;name="fa%C3%A7ade%22%3A%20"`, "https://h/p?fa%C3%A7ade%22%3A%20=something", "something"},
		{`@query-param;name="a"`, "https://h/p?a=*~-._", "*%7E-._"},
	} {
		t.Run(tt.component+" of "+tt.url, func(t *testing.T) {
			c, err := parseComponent(tt.component)
			if err != nil {
				t.Fatalf("parseComponent: %v", err)
			}
			u, err := url.Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Request{Method: "POST", URL: u, Header: header}.message().value(c)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	for _, tt := range []struct{ component, query, want string }{
		{"x-missing", "", "x-missing"},
		{`example-dict;key="e"`, "", `no member "e"`},
		{`x-ows-header;key="e"`, "", "not a dictionary"},
		{"x-line", "", "line end"},
		{`@query-param;name="a"`, "a=1&a=2", "2 parameters"},
		{`@query-param;name="a"`, "b=1", "0 parameters"},
		{`@query-param;name="a"`, "a=%zz", "taken apart"},
	} {
		t.Run("no "+tt.component+" of ?"+tt.query, func(t *testing.T) {
			c, err := parseComponent(tt.component)
			if err != nil {
				t.Fatalf("parseComponent: %v", err)
			}
			u := &url.URL{Scheme: "https", Host: "h", RawQuery: tt.query}
			_, err = Request{URL: u, Header: header}.message().value(c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for component, want := range map[string]string{
		"@status": "not known", "": "not the name", "a b": "not the name", `a";b="`: "", "signature": "made by the signature",
		"@query-param": "lacks the name", "date;sf": `parameter "sf"`, "@method;bs": `parameter "bs"`, "date;req": `"req"`, "date;": "cannot be read",
	} {
		t.Run("component "+component+" is refused", func(t *testing.T) {
			if _, err := parseComponent(component); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
		})
	}
}

func FuzzParseComponent(f *testing.F) {
	for _, s := range []string{"content-type", `"@query-param";name="a"`, "date;bs", "@method;", `a";b="`, "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseComponent(s)
		if err != nil {
			return
		}
		// What is accepted must come back as the same from Signature-Input, or no verifier could read it.
		list, err := httpsfv.UnmarshalDictionary([]string{"x=(" + c.text + ")"})
		if err != nil {
			t.Fatalf("%q: %v", c.text, err)
		}
		member, _ := list.Get("x")
		again, err := components(member.(httpsfv.InnerList))
		if err != nil || len(again) != 1 || again[0].text != c.text {
			t.Errorf("%q: got %v, %v", c.text, again, err)
		}
	})
}
