package egress_test

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// TestSecretsInThePathAreMasked sends to addresses whose path a reference stands for, in whole or in part, and to a
// receiver that repeats the path in every spelling that servers have for it.
func TestSecretsInThePathAreMasked(t *testing.T) {
	const token = "canary-0123456789"
	expectation, err1 := match.NewExpectation("$.error", []any{"none"})
	message, err2 := sign.NewRFC9421(sign.RFC9421Options{
		Secret: "of-the-signature-itself", Algorithm: "hmac-sha256", Components: []string{"@path", "@target-uri", "@request-target", "@query"},
	})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	f := newFarEnd(t)
	f.serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		plain := r.URL.Path
		segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
		forms := []string{
			r.RequestURI, plain, url.QueryEscape(plain), url.PathEscape(plain), segments[len(segments)-1], "https://" + r.Host + r.RequestURI,
		}
		w.Header().Set("Location", "/login?next="+url.QueryEscape(plain))
		w.Header()["X-Form"] = forms
		if r.URL.Query().Get("judge") != "" {
			if err := json.NewEncoder(w).Encode(map[string]string{"error": plain + " is gone"}); err != nil {
				t.Error(err)
			}
			return
		}
		w.WriteHeader(http.StatusFound)
		if err := json.NewEncoder(w).Encode(forms); err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprint(w, forms, strings.ReplaceAll(strconv.Quote(plain), "/", `\/`), html.EscapeString(plain))
	})
	for _, c := range []struct {
		name, path string // path with query, as the config has it
		secret     string // what the reference stands for
		want       string // path with query, on record
	}{
		{"a part of the path", "/hook/" + token, token, "/hook/***"},
		{"a part of a segment", "/bot" + token + "/send", token, "/bot***/send"},
		{"twice", "/" + token + "/x/" + token, token, "/***/x/***"},
		{"encoded", "/hook/a%2Fb%20canary%22", "a%2Fb%20canary%22", "/hook/***"},
		{"encoded in lower case", "/hook/a%2fb%c3%a9canary", "a%2fb%c3%a9canary", "/hook/***"},
		{"encoded without need", "/hook/%63anary%2D1", "%63anary%2D1", "/hook/***"},
		{"with what a path may hold", "/hook/a!$&'()*+,;=:@canary", "a!$&'()*+,;=:@canary", "/hook/***"},
		{"some segments", "/hook/T0/" + token + "/x", "T0/" + token + "/", "/hook/***x"},
		{"the path", "/T0/" + token, "/T0/" + token, "/***"},
		{"path and query", "/T0/" + token + "?v=1&sig=canary-9", "T0/" + token + "?v=1&sig=canary-9", "/***"},
		{"the address", "/services/T0/" + token, "https://" + farHost + "/services/T0/" + token, "/***"},
		{"the address with a slash at its end", "/T0/" + token + "/", "https://" + strings.ToUpper(farHost) + ":443/T0/" + token + "/", "/***/"},
		{"the address with a query", "/T0/" + token + "?a=b", "https://" + farHost + "/T0/" + token + "?a=b", "/***"},
	} {
		for more, suffix := range map[string]string{"": "", "/more": "/more", "?judge=1": "?judge=1"} {
			t.Run(c.name+" and "+more, func(t *testing.T) {
				s := f.sender(t, func(o *egress.Options) {
					o.URL, o.Secrets, o.ForwardPath = parseURL(t, "https://"+farHost+c.path), []string{c.secret}, true
					o.Expect, o.Signers = []*match.Expectation{expectation}, append(o.Signers, message)
					o.Messages = posted{m: store.Message{Path: more}}
				})
				d := newDelivery(t)
				a := s.Send(t.Context(), d)
				if want := strings.Contains(more, "judge"); (a.Class == store.ClassExpect) != want || want != strings.Contains(a.Error, "is gone") {
					t.Errorf("got %v, %s, want the answer in the error %v", a.Class, a.Error, want)
				}
				if !strings.Contains(c.path, "?") { // else what the app adds stands somewhere else
					if want := "https://" + farHost + strings.TrimSuffix(c.want, suffixSlash(more)) + suffix; a.Request.URL != want {
						t.Errorf("got %s on record, want %s", a.Request.URL, want)
					}
				}
				r, err := s.RenderDelivery(t.Context(), d)
				if err != nil {
					t.Fatal(err)
				}
				if r.Request.URL != a.Request.URL || !strings.Contains(r.Curl, "SECRET_URL") || len(r.Bases) != 2 || len(r.Bases[1].Base) == 0 {
					t.Errorf("got %+v, want the same URL, a parameter and two bases", r)
				}
				record := fmt.Sprint(a.Error, a.Request, a.Header, string(a.Body), r.Curl, r.Request.URL, r.Request.Header, string(r.Bases[1].Base))
				for range 3 { // what is encoded twice is
					if i := strings.Index(record, "canary"); i >= 0 {
						t.Errorf("…%s… is in it", record[max(0, i-40):min(len(record), i+40)])
					}
					record = strings.NewReplacer("%63", "c", "%2D", "-", "%25", "%").Replace(record)
				}
			})
		}
	}
	t.Run("in an error before the request", func(t *testing.T) {
		s := f.sender(t, func(o *egress.Options) {
			o.URL, o.Secrets = parseURL(t, "https://"+token+".example.test/"+token), []string{token}
			o.Timeout = 10 * time.Second
		})
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassDNS, 0)
		if strings.Contains(a.Error, "canary") || !strings.Contains(a.Error, ".example.test") {
			t.Errorf("got %s, want the name without the secret", a.Error)
		}
	})
}

// suffixSlash is what joining takes off the end of a path.
func suffixSlash(more string) string {
	if strings.HasPrefix(more, "/") {
		return "/"
	}
	return ""
}
