package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func hexOf(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// slackBody is the sample of "Verifying requests from Slack".
const slackBody = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&" +
	"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&" +
	"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&" +
	"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"

// vectors has at least one request for each profile. Where a product publishes a vector it is that; for the others
// the signed bytes are written out here as their documents give them, and hashed by the standard library.
var vectors = []struct {
	name string
	o    ProfileOptions
	unix int64
	body string
	want map[string]string
}{
	{
		"github: its documented example", ProfileOptions{Name: "github", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!",
		map[string]string{"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	},
	{
		"slack: its documented example", ProfileOptions{Name: "slack", Secrets: []string{"8f742231b10e8888abcd99yyyzzz85a5"}},
		1531420618, slackBody,
		map[string]string{
			"X-Slack-Signature":         "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
			"X-Slack-Request-Timestamp": "1531420618",
		},
	},
	{
		"svix: the vector of Standard Webhooks", ProfileOptions{Name: "svix", Secrets: []string{v1Secret}},
		1614265330, `{"test": 2432232314}`,
		map[string]string{"Svix-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "Svix-Timestamp": "1614265330", "Svix-Signature": v1Proof},
	},
	{
		"stripe: time, full stop, body", ProfileOptions{Name: "stripe", Secrets: []string{"whsec_new secret", "whsec_old secret"}},
		1636936200, "{}",
		map[string]string{"Stripe-Signature": "t=1636936200,v1=" + hexOf("whsec_new secret", "1636936200.{}") +
			",v1=" + hexOf("whsec_old secret", "1636936200.{}")},
	},
	{
		"shopify: the body in base64", ProfileOptions{Name: "shopify", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!", map[string]string{"X-Shopify-Hmac-Sha256": "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc="},
	},
	{
		"gitea: the body in hex", ProfileOptions{Name: "gitea", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!",
		map[string]string{"X-Gitea-Signature": "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	},
	{
		"sentry: the body in hex", ProfileOptions{Name: "sentry", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!",
		map[string]string{"Sentry-Hook-Signature": "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	},
	{
		"fizzy: the body in hex", ProfileOptions{Name: "fizzy", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!",
		map[string]string{"X-Webhook-Signature": "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	},
	{
		"anomalyarmor: as GitHub", ProfileOptions{Name: "anomalyarmor", Secrets: []string{"It's a Secret to Everybody"}},
		1, "Hello, World!",
		map[string]string{"X-AnomalyArmor-Signature": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	},
	{
		"outpost: all signatures behind one label", ProfileOptions{Name: "outpost", Secrets: []string{"whsec_new secret", "old secret"}},
		1, "{}",
		map[string]string{"X-Outpost-Signature": "v0=" + hexOf("whsec_new secret", "{}") + "," + hexOf("old secret", "{}")},
	},
	{
		"webhookx: the time in a header of its own", ProfileOptions{Name: "webhookx", Secrets: []string{"a long secret"}},
		1700000000, "{}",
		map[string]string{"Webhookx-Timestamp": "1700000000", "Webhookx-Signature": "v1=" + hexOf("a long secret", "1700000000.{}")},
	},
	{
		"grafana: the body alone", ProfileOptions{Name: "grafana", Secrets: []string{"a long secret"}},
		1700000000, "{}", map[string]string{"X-Grafana-Alerting-Signature": hexOf("a long secret", "{}")},
	},
	{
		"grafana: with a timestamp header", ProfileOptions{
			Name: "grafana", Secrets: []string{"a long secret"}, Header: "X-Mine", TimestampHeader: "X-Time",
		},
		1700000000, "{}", map[string]string{"X-Mine": hexOf("a long secret", "1700000000:{}"), "X-Time": "1700000000"},
	},
	{
		"hook0: v0", ProfileOptions{Name: "hook0", Secrets: []string{"a long secret"}},
		1636936200, "hello !",
		map[string]string{"X-Hook0-Signature": "t=1636936200,v0=" + hexOf("a long secret", "1636936200.hello !")},
	},
}

func TestProfileVectors(t *testing.T) {
	proved := map[string]bool{}
	for _, tt := range vectors {
		proved[tt.o.Name] = true
		t.Run(tt.name, func(t *testing.T) {
			p, err := NewProfile(tt.o)
			if err != nil {
				t.Fatalf("NewProfile: %v", err)
			}
			in := Input{ID: "msg_p5jXN8AQM9LWM0D4loKWxJek", Time: time.Unix(tt.unix, 0), Body: []byte(tt.body)}
			headers, err := p.Sign(in)
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			got, sent := map[string]string{}, http.Header{}
			for i, h := range headers {
				got[h.Name] = h.Value
				sent.Set(h.Name, h.Value)
				if announced := p.Headers()[i].Name; announced != h.Name {
					t.Errorf("Headers announces %s in place of %s", announced, h.Name)
				}
			}
			if len(got) != len(tt.want) || len(p.Headers()) != len(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: got %q, want %q", name, got[name], want)
				}
			}
			if err := p.Verify(sent, in.Body, in.Time); err != nil {
				t.Errorf("Verify: got %v, want none", err)
			}
			if err := p.Verify(sent, append(in.Body, '\n'), in.Time); !errors.Is(err, ErrNoMatch) {
				t.Errorf("Verify of another body: got %v, want %v", err, ErrNoMatch)
			}
		})
	}
	t.Run("each profile has a vector", func(t *testing.T) {
		for _, name := range Profiles() {
			if !proved[name] {
				t.Errorf("%s has none", name)
			}
		}
	})
	t.Run("Hook0's own vector", func(t *testing.T) {
		// Its secret is shorter than what is allowed here, so it is tried below the check of secrets.
		c := newCoded(products()[slices.Index(Profiles(), "hook0")].recipe, []byte("secret"))
		got, err := c.sign(Input{Time: time.Unix(1636936200, 0), Body: []byte("hello !")})
		if err != nil || got[0].Value != "t=1636936200,v0=1b3d69df55f1e52f05224ba94a5162abeb17ef52cd7f4948c390f810d6a87e98" {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestNewProfile(t *testing.T) {
	if !slices.IsSorted(Profiles()) {
		t.Errorf("not sorted: %v", Profiles())
	}
	one := []string{"correct horse"}
	for _, tt := range []struct {
		name string
		o    ProfileOptions
		want string // in the error
	}{
		{"an unknown name is refused with the list", ProfileOptions{Name: "gitlab", Secrets: one}, `profile "gitlab" is not known; there are anomalyarmor, fizzy, gitea, github, grafana`},
		{"an empty name too", ProfileOptions{Secrets: one}, "is not known"},
		{"a header that is fixed cannot be chosen", ProfileOptions{Name: "github", Secrets: one, Header: "X-A"}, "always X-Hub-Signature-256"},
		{"a header must be allowed", ProfileOptions{Name: "grafana", Secrets: one, Header: "Host"}, "another meaning"},
		{"github has no timestamp", ProfileOptions{Name: "github", Secrets: one, TimestampHeader: "X-A"}, "no choice of a timestamp"},
		{"a timestamp header must be allowed", ProfileOptions{Name: "grafana", Secrets: one, TimestampHeader: "webhook-id"}, "timestamp: header webhook-id"},
		{"time and signature in one header are refused", ProfileOptions{Name: "grafana", Secrets: one, Header: "x-a", TimestampHeader: "X-A"}, "another name"},
		{"github has one secret", ProfileOptions{Name: "github", Secrets: []string{"correct horse", "wrong horse"}}, "only one is allowed"},
		{"no secret is refused", ProfileOptions{Name: "github"}, "there is no secret"},
		{"a short secret is refused", ProfileOptions{Name: "github", Secrets: []string{"short"}}, "secret 1 is shorter"},
		{"svix wants a secret of Standard Webhooks", ProfileOptions{Name: "svix", Secrets: one}, "does not start with whsec_"},
		{"svix cannot sign with a public key", ProfileOptions{Name: "svix", Secrets: []string{v1aPublic}}, "cannot sign"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := NewProfile(tt.o)
			if err == nil || p != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", p, err, tt.want)
			}
		})
	}
}
