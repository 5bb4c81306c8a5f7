package relay

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
)

// request turns the keys that shape requests, and judge their answers, into the options of egress.
func (c *compiler) request(key string, d *config.Destination) egress.Options {
	o := egress.Options{
		Method: d.Method, ContentType: d.ContentType, UserAgent: c.cfg.Egress.UserAgent, Body: d.Body,
		ForwardPath: d.ForwardPath, Timeout: time.Duration(d.Timeout), KeepResponse: int(d.Keep.Response),
		Auth: c.auth(key+".auth", d), OmitBody: !d.Keep.Body,
	}
	if o.KeepResponse == 0 {
		o.KeepResponse = -1 // egress takes 0 for its default
	}
	if d.URL == "" {
		c.fault(key+".url", errors.New("missing; write url: https://…"))
	} else if u, err := guard.ParseURL(d.URL, d.AllowNetworks); c.fault(key+".url", err) {
		o.URL = u
	}
	good := d.Success[:0:0]
	for i, text := range d.Success {
		if _, err := egress.ParseSuccess([]string{text}); c.fault(fmt.Sprintf("%s.success[%d]", key, i), err) {
			good = append(good, text)
		}
	}
	success, err := egress.ParseSuccess(good)
	if c.fault(key+".success", err) {
		o.Success = success
	}
	for _, name := range sortedKeys(d.Headers) {
		// Whether it is a template is for the file to say, and not for what a reference stands for.
		o.Header = append(o.Header, egress.Header{
			Name: name, Value: d.Headers[name].Reveal(), Literal: !strings.Contains(d.Headers[name].Written(), "{{"),
		})
		// What the file itself says is no secret, unless the name tells otherwise: egress looks at that.
		if len(c.cfg.Contents(key+".headers."+name)) == 0 {
			o.PlainHeader = append(o.PlainHeader, name)
		}
	}
	for _, name := range d.ForwardHeaders {
		o.ForwardHeader = append(o.ForwardHeader, http.CanonicalHeaderKey(name))
	}
	for i, e := range d.Expect {
		at := fmt.Sprintf("%s.expect[%d]", key, i)
		values := make([]any, len(e.Values))
		for n, v := range e.Values {
			values[n] = v.JSON
		}
		if _, err := match.ParsePath(e.Path); !c.fault(at+".path", err) {
			continue
		}
		expectation, err := match.NewExpectation(e.Path, values)
		if c.fault(at+".values", err) {
			o.Expect = append(o.Expect, expectation)
		}
	}
	for i, text := range d.Keep.Redact {
		path, err := match.ParsePath(text)
		if c.fault(fmt.Sprintf("%s.keep.redact[%d]", key, i), err) {
			o.Redact = append(o.Redact, path)
		}
	}
	// What shapes requests and judges answers comes back in neither.
	o.Secrets = reveal(c.cfg.Contents("egress.user_agent"))
	for _, part := range []string{".url", ".headers", ".body", ".auth", ".sign", ".expect"} {
		o.Secrets = append(o.Secrets, reveal(c.cfg.Contents(key+part))...)
	}
	labelled := 0
	for i, s := range d.Sign {
		if s.RFC9421 != nil {
			labelled++
		}
		if signer := c.signer(fmt.Sprintf("%s.sign[%d]", key, i), s, labelled); signer != nil {
			o.Signers = append(o.Signers, signer)
		}
	}
	c.fault(key+".sign", sign.CheckLabels(o.Signers))
	return o
}

// signer makes one signer; nth is its place among those of RFC 9421, from 1.
func (c *compiler) signer(key string, s config.Sign, nth int) sign.Signer {
	var (
		signer sign.Signer
		err    error
	)
	switch {
	case s.Standard != nil:
		key += ".standard.secrets"
		fine := true
		for i, err := range sign.StandardFaults(reveal(s.Standard.Secrets)) {
			fine = c.fault(fmt.Sprintf("%s[%d]", key, i), err) && fine && s.Standard.Secrets[i].IsSet()
		}
		if !fine {
			return nil
		}
		signer, err = sign.NewStandard(reveal(s.Standard.Secrets))
	case s.HMAC != nil:
		key += ".hmac"
		signer, err = sign.NewHMAC(sign.HMACOptions{
			Header: s.HMAC.Header, Secret: s.HMAC.Secret.Reveal(), Algorithm: s.HMAC.Algorithm,
			Encoding: s.HMAC.Encoding, Prefix: s.HMAC.Prefix,
		})
	case s.Timestamped != nil:
		key += ".timestamped"
		signer, err = sign.NewTimestamped(sign.TimestampedOptions{
			Header: s.Timestamped.Header, Secrets: reveal(s.Timestamped.Secret),
		})
	case s.RFC9421 != nil:
		key += ".rfc9421"
		label := s.RFC9421.Label
		if label == "" {
			label = fmt.Sprintf("sig%d", nth)
		}
		signer, err = sign.NewRFC9421(sign.RFC9421Options{
			Label: label, KeyID: s.RFC9421.KeyID, Algorithm: s.RFC9421.Algorithm, Secret: s.RFC9421.Secret.Reveal(),
			Components: s.RFC9421.Components,
		})
	case s.Profile != nil:
		key += ".profile"
		signer, err = sign.NewProfile(sign.ProfileOptions{
			Name: s.Profile.Name, Secrets: reveal(s.Profile.Secret), Header: s.Profile.Header,
			TimestampHeader: s.Profile.TimestampHeader,
		})
	default:
		return nil // the config has a fault for it
	}
	if !c.fault(key, err) {
		return nil
	}
	return signer
}

func reveal(secrets []config.Secret) []string {
	texts := make([]string, len(secrets))
	for i, s := range secrets {
		texts[i] = s.Reveal()
	}
	return texts
}

func (c *compiler) auth(key string, d *config.Destination) egress.Auth {
	switch a := d.Auth; {
	case a == nil:
	case a.Bearer != nil:
		return egress.Auth{Bearer: &egress.Bearer{Token: a.Bearer.Token.Reveal()}}
	case a.Basic != nil:
		return egress.Auth{Basic: &egress.Basic{Username: a.Basic.Username, Password: a.Basic.Password.Reveal()}}
	case a.APIKey != nil:
		return egress.Auth{APIKey: &egress.APIKey{Header: a.APIKey.Header, Value: a.APIKey.Value.Reveal()}}
	case a.OAuth2 != nil:
		o := &egress.OAuth2{
			ClientID: a.OAuth2.ClientID, ClientSecrets: reveal(a.OAuth2.ClientSecret), Scopes: a.OAuth2.Scopes,
			Audience: a.OAuth2.Audience, SecretIn: a.OAuth2.SecretIn,
		}
		// The token endpoint is under the same rules as the destination itself (T8).
		if a.OAuth2.TokenURL != "" {
			u, err := guard.ParseURL(a.OAuth2.TokenURL, d.AllowNetworks)
			c.fault(key+".oauth2.token_url", err)
			o.TokenURL = u
		}
		return egress.Auth{OAuth2: o}
	}
	return egress.Auth{}
}
