package sign

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
	"golang.org/x/net/http/httpguts"
)

// maxComponents is how many components one signature may cover.
const maxComponents = 64

// component is one covered component of a message (RFC 9421, section 2).
type component struct {
	name string       // of a header in lower case, or of a derived component with its @
	item httpsfv.Item // the component identifier
	text string       // the same, serialized: "name";param
}

// derived are the derived components of a request (RFC 9421, section 2.2).
var derived = [...]string{
	"@authority", "@method", "@path", "@query", "@query-param", "@request-target", "@scheme", "@target-uri",
}

// parseComponent reads a component as a user writes it: a name, perhaps with parameters as in
// @query-param;name="q". The quotes of the name may be left out.
func parseComponent(s string) (component, error) {
	name, params, found := strings.Cut(s, ";")
	name = strings.ToLower(strings.Trim(name, `"`))
	if found {
		params = ";" + params
	}
	item, err := httpsfv.UnmarshalItem([]string{`"` + name + `"` + params})
	if err != nil {
		return component{}, fmt.Errorf("component %q cannot be read; write one like content-type or @query-param;name=\"q\"", s)
	}
	return newComponent(item)
}

// newComponent checks a component identifier. Refused are those that this package cannot make the value of.
func newComponent(item httpsfv.Item) (component, error) {
	name, ok := item.Value.(string)
	if !ok {
		return component{}, errors.New("a component is not named by a string")
	}
	text, err := httpsfv.Marshal(item)
	if err != nil {
		return component{}, fmt.Errorf("component %q cannot be written", name)
	}
	c := component{name, item, text}
	isDerived := strings.HasPrefix(name, "@")
	switch {
	case isDerived && !slices.Contains(derived[:], name):
		return c, fmt.Errorf("component %q is not known; there are %s", name, strings.Join(derived[:], " "))
	case !isDerived && (!httpguts.ValidHeaderFieldName(name) || strings.ToLower(name) != name):
		return c, fmt.Errorf("component %q is not the name of a header in lower case", name)
	case name == "signature" || name == "signature-input":
		return c, fmt.Errorf("component %q is made by the signature itself", name)
	}
	for _, param := range item.Params.Names() {
		switch {
		case param == "name" && name == "@query-param", param == "key" && !isDerived, param == "bs" && !isDerived:
		default:
			return c, fmt.Errorf("parameter %q of component %q is not supported", param, name)
		}
	}
	if _, named := item.Params.Get("name"); name == "@query-param" && !named {
		return c, errors.New(`component "@query-param" lacks the name of the parameter; write @query-param;name="q"`)
	}
	return c, nil
}

// message is what components are taken from.
type message struct {
	method string
	url    *url.URL
	field  func(name string) []string // values of a header by its name in lower case
}

func headerField(h http.Header) func(name string) []string {
	return func(name string) []string { return h[textproto.CanonicalMIMEHeaderKey(name)] }
}

// value returns the component's value within m (RFC 9421, sections 2.1 and 2.2).
func (m message) value(c component) (string, error) {
	switch c.name {
	case "@method":
		return m.method, nil
	case "@authority":
		return authority(m.url), nil
	case "@scheme":
		return strings.ToLower(m.url.Scheme), nil
	case "@path":
		return path(m.url), nil
	case "@query":
		return "?" + m.url.RawQuery, nil // section 2.2.7: a request without one has the question mark alone
	case "@request-target":
		return m.url.RequestURI(), nil
	case "@target-uri":
		return strings.ToLower(m.url.Scheme) + "://" + authority(m.url) + m.url.RequestURI(), nil
	case "@query-param":
		return queryParam(m.url, c)
	}
	values := m.field(c.name)
	if len(values) == 0 {
		return "", fmt.Errorf("%w: %s, which the signature covers", ErrMissingHeader, c.name)
	}
	return fieldValue(c, values)
}

// authority is the host as section 2.2.3 has it: in lower case, without a port that is the scheme's own.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if ascii, err := httpguts.PunycodeHostPort(host); err == nil {
		host = ascii
	}
	switch strings.ToLower(u.Scheme) {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return host
}

// path is the path as section 2.2.6 has it: an empty one is a slash.
func path(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

// formEncoding brings what url.QueryEscape makes to the form of section 2.2.8, which is that of the URL standard.
var formEncoding = strings.NewReplacer("+", "%20", "~", "%7E", "%2A", "*")

func queryParam(u *url.URL, c component) (string, error) {
	named, _ := c.item.Params.Get("name")
	exact, ok := named.(string)
	if !ok {
		return "", errors.New(`the name of component "@query-param" is not a string`)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", errors.New("the query cannot be taken apart")
	}
	var values []string
	for name, list := range query {
		if formEncoding.Replace(url.QueryEscape(name)) == exact {
			values = append(values, list...)
		}
	}
	if len(values) != 1 {
		return "", fmt.Errorf("the query has %d parameters %q, which the signature covers; it must be exactly one", len(values), exact)
	}
	return formEncoding.Replace(url.QueryEscape(values[0])), nil
}

// fieldValue is the value of a header as section 2.1 has it.
func fieldValue(c component, values []string) (string, error) {
	_, binary := c.item.Params.Get("bs")
	parts := make([]string, len(values))
	for i, v := range values {
		if strings.ContainsAny(v, "\r\n") {
			return "", fmt.Errorf("the value of %s holds a line end", c.name)
		}
		parts[i] = strings.Trim(v, " \t")
		if !binary {
			continue
		}
		text, err := httpsfv.Marshal(httpsfv.NewItem([]byte(parts[i])))
		if err != nil {
			return "", fmt.Errorf("encode %s: %w", c.name, err)
		}
		parts[i] = text
	}
	key, keyed := c.item.Params.Get("key")
	if !keyed {
		return strings.Join(parts, ", "), nil
	}
	dictionary, err := httpsfv.UnmarshalDictionary(parts)
	if err != nil {
		return "", fmt.Errorf("%w: %s is not a dictionary of structured fields", ErrBadHeader, c.name)
	}
	wanted, _ := key.(string)
	member, ok := dictionary.Get(wanted)
	if !ok {
		return "", fmt.Errorf("%w: %s has no member %q, which the signature covers", ErrMissingHeader, c.name, wanted)
	}
	switch member := member.(type) {
	case httpsfv.Item:
		return httpsfv.Marshal(member)
	case httpsfv.InnerList:
		return httpsfv.Marshal(member)
	}
	return "", fmt.Errorf("%w: member %q of %s", ErrBadHeader, wanted, c.name)
}

// components reads the covered components of a signature.
func components(list httpsfv.InnerList) ([]component, error) {
	if len(list.Items) > maxComponents {
		return nil, fmt.Errorf("%w: it covers %d components; at most %d are looked at", ErrBadHeader, len(list.Items), maxComponents)
	}
	all := make([]component, len(list.Items))
	seen := make(map[string]bool, len(list.Items))
	for i, item := range list.Items {
		c, err := newComponent(item)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadHeader, err)
		}
		if seen[c.text] {
			return nil, fmt.Errorf("%w: component %s is covered twice", ErrBadHeader, c.text)
		}
		seen[c.text] = true
		all[i] = c
	}
	return all, nil
}

// signatureBase returns the bytes that are signed (RFC 9421, section 2.5) and the signature's parameters as they
// stand in Signature-Input. value is that of a message, or of something made to look like one.
func signatureBase(list httpsfv.InnerList, covered []component, value func(component) (string, error)) (base []byte, params string, err error) {
	for _, c := range covered {
		v, err := value(c)
		if err != nil {
			return nil, "", err
		}
		base = append(append(base, c.text...), ": "...)
		base = append(append(base, v...), '\n')
	}
	if params, err = httpsfv.Marshal(list); err != nil {
		return nil, "", fmt.Errorf("write the parameters of the signature: %w", err)
	}
	return append(append(base, `"@signature-params": `...), params...), params, nil
}
