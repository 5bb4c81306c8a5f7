package sign

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// ProfileOptions names a product whose webhooks the receiver already verifies.
type ProfileOptions struct {
	Name    string   // one of Profiles, required
	Secrets []string // required; as text, but for svix, which takes those of NewStandard. Several where the product has several

	// Header carries the signature, for those products that leave the name to the user; empty means their default.
	Header string

	// TimestampHeader carries the time in Unix seconds, which is then signed too. Only for products that leave it to
	// the user; empty means that the body alone is signed.
	TimestampHeader string
}

// product is one line of the table of profiles.
type product struct {
	name    string
	recipe  recipe
	many    bool // it takes several secrets
	headed  bool // the name of the header is the user's to choose
	clocked bool // the time is optional, in a header that the user names
}

// with changes a recipe of recipeOf.
func with(header string, change func(r *recipe)) recipe {
	r := recipeOf(header)
	change(&r)
	return r
}

// products lists all profiles in the order of their names. What each of them signs is proved by a vector of the
// product or by its own verifier in the tests. What signs the body alone leaves a receiver unable to tell a request
// from its repetition; that is what those products do.
func products() []product {
	labelled := func(label string) func(*recipe) { return func(r *recipe) { r.label = label } }
	return []product{
		{name: "anomalyarmor", recipe: with("X-AnomalyArmor-Signature", labelled("sha256="))},
		{name: "fizzy", recipe: recipeOf("X-Webhook-Signature")},
		{name: "gitea", recipe: recipeOf("X-Gitea-Signature")},
		{name: "github", recipe: with("X-Hub-Signature-256", labelled("sha256="))},
		{name: "grafana", headed: true, clocked: true, recipe: with("X-Grafana-Alerting-Signature", func(r *recipe) {
			r.sep = ":"
		})},
		{name: "hook0", recipe: with("X-Hook0-Signature", func(r *recipe) {
			r.inline, r.timed, r.sep = true, true, "."
			r.label, r.joint, r.each = "v0=", ",", true
		})},
		{name: "outpost", many: true, headed: true, recipe: with("X-Outpost-Signature", func(r *recipe) {
			r.label, r.joint = "v0=", ","
		})},
		{name: "sentry", recipe: recipeOf("Sentry-Hook-Signature")},
		{name: "shopify", recipe: with("X-Shopify-Hmac-Sha256", func(r *recipe) {
			r.encode = base64.StdEncoding.AppendEncode
		})},
		{name: "slack", recipe: with("X-Slack-Signature", func(r *recipe) {
			r.stamp, r.timed, r.before, r.sep = "X-Slack-Request-Timestamp", true, "v0:", ":"
			r.label = "v0="
		})},
		{name: "stripe", many: true, recipe: timestampedRecipe("Stripe-Signature")},
		{name: profileSvix, many: true, recipe: svixRecipe()},
		{name: "webhookx", recipe: with("Webhookx-Signature", func(r *recipe) {
			r.stamp, r.timed, r.sep = "Webhookx-Timestamp", true, "."
			r.label = "v1="
		})},
	}
}

const profileSvix = "svix"

// svixRecipe is Standard Webhooks under the names of headers that it had first.
func svixRecipe() recipe {
	r := standardRecipe()
	r.header, r.id, r.stamp = "Svix-Signature", "Svix-Id", "Svix-Timestamp"
	return r
}

// Profiles returns the names of the products that NewProfile knows, sorted.
func Profiles() []string {
	var names []string
	for _, p := range products() {
		names = append(names, p.name)
	}
	return names
}

// Profile signs as a known product does, for receivers that have the verifier of that product. NewProfile makes
// one. It may be used from several goroutines.
type Profile struct {
	coded    coded
	standard *Standard // in place of coded
}

// NewProfile checks the options. Errors say which option is wrong and never show a secret.
func NewProfile(o ProfileOptions) (*Profile, error) {
	p, err := o.product()
	if err != nil {
		return nil, err
	}
	if p.name == profileSvix {
		v, err := newStandardVerifier(svixRecipe, o.Secrets)
		if err != nil {
			return nil, err
		}
		standard, err := v.signer()
		if err != nil {
			return nil, err
		}
		return &Profile{standard: standard}, nil
	}
	most := 1
	if p.many {
		most = maxSecrets
	}
	keys, err := checkTexts(o.Secrets, most)
	if err != nil {
		return nil, err
	}
	return &Profile{coded: newCoded(p.recipe, keys...)}, nil
}

// product checks all options but the secrets.
func (o ProfileOptions) product() (product, error) {
	var p product
	for _, candidate := range products() {
		if candidate.name == o.Name {
			p = candidate
		}
	}
	if p.name == "" {
		return p, fmt.Errorf("profile %q is not known; there are %s", o.Name, strings.Join(Profiles(), ", "))
	}
	if o.Header != "" {
		if !p.headed {
			return p, fmt.Errorf("the header of profile %s is always %s; remove it here", p.name, p.recipe.header)
		}
		if err := checkHeader(o.Header); err != nil {
			return p, err
		}
		p.recipe.header = o.Header
	}
	if o.TimestampHeader != "" {
		if !p.clocked {
			return p, fmt.Errorf("profile %s leaves no choice of a timestamp header; remove it here", p.name)
		}
		if err := checkHeader(o.TimestampHeader); err != nil {
			return p, fmt.Errorf("timestamp: %w", err)
		}
		if textproto.CanonicalMIMEHeaderKey(o.TimestampHeader) == textproto.CanonicalMIMEHeaderKey(p.recipe.header) {
			return p, errors.New("the timestamp cannot have the header of the signature; choose another name")
		}
		p.recipe.stamp, p.recipe.timed = o.TimestampHeader, true
	}
	return p, nil
}

// Headers returns what the product sends: the signature's header, and those of time and id where it has them.
func (p *Profile) Headers() []Header {
	if p.standard != nil {
		r := &p.standard.verifier.recipe
		return []Header{{Name: r.header}, {Name: r.id}, {Name: r.stamp}}
	}
	return p.coded.headers()
}

// Sign returns these headers. Only svix can refuse an Input: as Standard.Sign does.
func (p *Profile) Sign(in Input) ([]Header, error) {
	if p.standard != nil {
		return p.standard.signSvix(in)
	}
	return p.coded.sign(in)
}

// Base returns what the product signs. Only svix can refuse an Input: as Standard.Sign does.
func (p *Profile) Base(in Input) ([]byte, error) {
	if p.standard != nil {
		return p.standard.Base(in)
	}
	return p.coded.base(in)
}

// Verify checks a request as its receiver got it, now being the receiver's clock, which matters only where the
// product signs the time. The errors are those of StandardVerifier.Verify.
func (p *Profile) Verify(header http.Header, body []byte, now time.Time) error {
	if p.standard != nil {
		return p.standard.Verify(header, body, now)
	}
	return p.coded.verify(header, body, now, Tolerance)
}
