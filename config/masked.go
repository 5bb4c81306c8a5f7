package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Form is what Masked shows beyond the config itself. The zero Form is for everyone, and shows nothing more.
type Form struct {
	// Fingerprints puts the beginning of its SHA-256 behind each secret that cannot be guessed with its help, as in
	// *** sha256:1a2b3c4d. It is for those who may read the config file: whether a secret was made at random is a guess.
	Fingerprints bool

	// Certificates is what the files of certificates hold, by the path of the key that names the file.
	Certificates map[string][]Certificate
}

// Certificate is what is shown of one certificate.
type Certificate struct {
	SHA256   string    `json:"sha256"`     // of all of it, in lower-case hexadecimal
	Subject  string    `json:"subject"`    // on one line
	NotAfter time.Time `json:"expires_at"` // in UTC
}

// Masked returns the effective config as YAML: defaults and overrides applied, each destination complete, in a
// stable order. *** are the secrets, the values in the query of a URL, and what a ${} reference stood for in other texts,
// except for addresses and folders of this machine. Certificates are comments above the key of their file.
func (c *Config) Masked(f Form) ([]byte, error) {
	var out bytes.Buffer
	dumper, err := yaml.NewDumper(&out, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("render config: %w", err)
	}
	if err := dumper.Dump(c.tree(f)); err != nil {
		return nil, fmt.Errorf("render config: %w", err)
	}
	if err := dumper.Close(); err != nil {
		return nil, fmt.Errorf("render config: %w", err)
	}
	return out.Bytes(), nil
}

// MaskedJSON is Masked as indented JSON. Certificates are in a member more, certificates, by the path of the key of their
// file; without any there is none.
func (c *Config) MaskedJSON(f Form) ([]byte, error) {
	var compact, out bytes.Buffer
	tree := c.tree(f)
	if err := writeJSON(&compact, tree); err != nil {
		return nil, fmt.Errorf("render config: %w", err)
	}
	if len(f.Certificates) > 0 {
		certificates, err := json.Marshal(f.Certificates)
		if err != nil {
			return nil, fmt.Errorf("render config: %w", err)
		}
		compact.Truncate(compact.Len() - 1) // the brace that closes it
		compact.WriteString(`,"certificates":`)
		compact.Write(certificates)
		compact.WriteString("}")
	}
	if err := json.Indent(&out, compact.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("render config: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func (c *Config) tree(f Form) *yaml.Node {
	p := printer{Config: c, form: f}
	return p.node(reflect.ValueOf(*c), "", rules{})
}

// printer prints one config.
type printer struct {
	*Config
	form Form
}

// node returns a value as it would be written in the file, or nil if it is not set.
func (c printer) node(v reflect.Value, path string, r rules) *yaml.Node {
	switch value := v.Interface().(type) {
	case Secret:
		return c.secretNode(value, path, r)
	case Token:
		if value.Name == "" {
			return c.secretNode(value.Token, path, r)
		}
	case AdminToken:
		if value.Name == "" {
			return c.secretNode(value.Token, path, r)
		}
	case Value:
		return c.jsonNode(value.JSON, path)
	case Retry:
		if value.isNone() {
			return text("none")
		}
	case Breaker:
		if value.isNone() {
			return text("none")
		}
	}
	switch {
	case isScalar(v.Type()):
		return c.scalarNode(v, path, r)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return c.node(v.Elem(), path, r)
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for i := range v.Len() {
			item := c.node(v.Index(i), path+"["+strconv.Itoa(i)+"]", r)
			if item == nil {
				item = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
			}
			if item.Kind == yaml.MappingNode {
				list.Style = 0
			}
			list.Content = append(list.Content, item)
		}
		return list
	case v.Kind() == reflect.Map:
		names := slices.Sorted(maps.Keys(stringKeys(v)))
		if path == "destinations" {
			names = c.src.names
		}
		m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, name := range names {
			m.Content = append(m.Content, text(name), c.node(v.MapIndex(reflect.ValueOf(name)), join(path, name), r))
		}
		return m
	}
	m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fieldsOf(v.Type()) {
		if path == "" && f.key == "defaults" {
			continue
		}
		if n := c.node(v.Field(f.index), join(path, f.key), f.rules); n != nil && !isUnset(v, f, n) {
			key := text(f.key)
			key.HeadComment = certificateComment(c.form.Certificates[join(path, f.key)])
			m.Content = append(m.Content, key, n)
		}
	}
	return m
}

func stringKeys(v reflect.Value) map[string]bool {
	keys := map[string]bool{}
	for _, k := range v.MapKeys() {
		keys[k.String()] = true
	}
	return keys
}

// isUnset reports whether a key would be refused with the value that it has when it is not set: the empty texts, the
// empty lists of a kind that must not be empty, and in retry and https the keys of the form that was not chosen.
func isUnset(v reflect.Value, f field, n *yaml.Node) bool {
	if retry, ok := v.Interface().(Retry); ok {
		switch f.key {
		case "schedule":
			return len(retry.Schedule) == 0
		case "attempts", "first", "max", "factor":
			return len(retry.Schedule) > 0
		}
	}
	if https, ok := v.Interface().(HTTPS); ok && f.key == "acme" {
		return https.CertFile != ""
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		return f.rules.count(0) != nil
	}
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == "" && !f.rules.empty
}

func (c printer) scalarNode(v reflect.Value, path string, r rules) *yaml.Node {
	isURL := strings.HasSuffix(path, "url") || path == "egress.proxy" || path == "tracing.otlp_endpoint"
	if own, ok := c.src.origin(path); ok && !r.clear {
		if shown, ok := c.src.shown[own]; ok {
			if isURL {
				shown = withoutQuery(shown)
			}
			return text(shown)
		}
	}
	switch v.Kind() {
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case reflect.Int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}
	case reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(v.Float(), 'g', -1, 64)}
	}
	s := fmt.Sprint(v.Interface())
	if isURL {
		s = withoutQuery(withoutPassword(s))
	}
	return text(s)
}

// withoutPassword hides the user info of a URL that is refused for it anyway, also where it cannot be parsed.
func withoutPassword(s string) string {
	if u, err := url.Parse(s); err == nil && u.User == nil {
		return s
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if i := strings.LastIndexByte(rest, '@'); ok && i >= 0 {
		return scheme + "://" + mask + rest[i:]
	}
	return s
}

// withoutQuery hides the values in the query of a URL, which may be a key of the receiver's.
func withoutQuery(s string) string {
	before, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, _, ok := strings.Cut(pair, "="); ok {
			pairs[i] = name + "=" + mask
		} else if pair != "" {
			pairs[i] = mask // without a name it may be the key itself
		}
	}
	return before + "?" + strings.Join(pairs, "&")
}

// sensitiveHeader finds headers whose values are secrets though they were written into the file.
var sensitiveHeader = regexp.MustCompile(`(?i)auth|cookie|token|secret|key|passw|credential|signature|session`)

func (c printer) secretNode(s Secret, path string, r rules) *yaml.Node {
	if s.value == nil {
		return nil
	}
	_, header, ok := strings.Cut(path, ".headers.")
	if ok && !sensitiveHeader.MatchString(header) && s.Written() != mask {
		return text(s.Written())
	}
	if c.form.Fingerprints {
		if mark := fingerprint(s, r); mark != "" {
			return text(mask + " " + mark)
		}
	}
	return text(mask)
}

// maxComment is how many certificates of one file stand in a comment; a bundle of public roots has some 150.
const maxComment = 10

// certificateComment returns the lines about the certificates of one file.
func certificateComment(all []Certificate) string {
	var lines []string
	for i, c := range all {
		if i == maxComment {
			lines = append(lines, fmt.Sprintf("# and %d more", len(all)-maxComment))
			break
		}
		lines = append(lines, fmt.Sprintf("# sha256:%s, ends %s, %s", c.SHA256, c.NotAfter.Format(time.RFC3339), c.Subject))
	}
	return strings.Join(lines, "\n")
}

// text returns a string node. Its tag makes the dumper quote what would be read as something else.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func writeJSON(out *bytes.Buffer, n *yaml.Node) error {
	write := func(v any) error {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	switch {
	case n.Kind == yaml.MappingNode, n.Kind == yaml.SequenceNode:
		open, closing := "{", "}"
		if n.Kind == yaml.SequenceNode {
			open, closing = "[", "]"
		}
		out.WriteString(open)
		for i, item := range n.Content {
			isValue := n.Kind == yaml.MappingNode && i%2 == 1
			if isValue {
				out.WriteString(":")
			} else if i > 0 {
				out.WriteString(",")
			}
			if err := writeJSON(out, item); err != nil {
				return err
			}
		}
		out.WriteString(closing)
		return nil
	case n.Tag == "!!str":
		return write(n.Value)
	}
	out.WriteString(n.Value)
	return nil
}
