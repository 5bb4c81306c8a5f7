package config

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxDepth = 64      // of nested lists and mappings
	maxNodes = 200_000 // of the document after following aliases
)

// decoder fills a Config from a document.
type decoder struct {
	cfg     *Config
	src     *source
	dir     string // of the config file
	environ map[string]string
	restore *strings.Replacer

	overrides     map[*yaml.Node]string // nodes made of environment variables, and their names
	nodes         int                   // seen so far
	expandedBytes int                   // that references came to so far
	fileBytes     int                   // read from files so far
	secretFiles   map[string]secretFile
	fields        map[reflect.Type][]field
}

func newDecoder(cfg *Config, dir string, environ []string) *decoder {
	d := &decoder{
		cfg: cfg, src: &cfg.src, dir: dir, environ: map[string]string{}, overrides: map[*yaml.Node]string{},
		secretFiles: map[string]secretFile{}, fields: map[reflect.Type][]field{},
	}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			d.environ[name] = value
		}
	}
	return d
}

// document decodes the whole file and checks what concerns more than one key.
func (d *decoder) document(data []byte) {
	top := place{file: d.src.file, line: 1, col: 1}
	if !utf8.Valid(data) {
		d.src.report(top, "", "the file is not text in UTF-8")
		return
	}
	text, restore, err := shield(string(data))
	if err != nil {
		d.src.report(top, "", err.Error())
		return
	}
	d.restore = restore
	root, ok := d.parse([]byte(text))
	if !ok {
		return
	}
	d.override(root, text)
	d.value(root, reflect.ValueOf(d.cfg).Elem(), "", rules{})
	d.checkListen()
	d.checkHTTPS()
	d.checkDestinations()
}

// parse returns the mapping at the top of the document, or false after reporting why there is none.
func (d *decoder) parse(data []byte) (*yaml.Node, bool) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV4Defaults(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		d.syntaxError(err)
		return nil, false
	}
	var doc, more yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, true
	case err != nil:
		d.syntaxError(err)
		return nil, false
	}
	switch err := loader.Load(&more); {
	case err == nil:
		d.src.report(d.at(&more), "", "a second document begins here; write one document in a file")
		return nil, false
	case !errors.Is(err, io.EOF):
		d.syntaxError(err)
		return nil, false
	}
	root := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		root = doc.Content[0]
	}
	switch {
	case root.Kind == yaml.MappingNode:
		return root, true
	case isNull(root):
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column}, true
	}
	d.src.report(d.at(root), "", "the file must be a mapping of keys, such as destinations:")
	return nil, false
}

// syntaxError reports what the YAML parser says, in its words.
func (d *decoder) syntaxError(err error) {
	at := place{file: d.src.file, line: 1, col: 1}
	msg := err.Error()
	var load *yaml.LoadError
	if errors.As(err, &load) {
		for _, mark := range []yaml.Mark{load.ContextMark, load.Mark} {
			if mark.Line > 0 {
				at.line, at.col = mark.Line, max(1, mark.Column)
			}
		}
		msg = load.Message
		if load.ContextMsg != "" {
			msg = load.ContextMsg + ", " + msg
		}
	}
	// The one thing that they repeat of the file may be a password that begins with an asterisk.
	if strings.Contains(msg, "unknown anchor") {
		msg = "a text that begins with * is the alias of an anchor that is not there; put it in quotes"
	}
	d.src.report(at, "", "not YAML: "+d.text(msg))
}

// at returns the place of a node.
func (d *decoder) at(n *yaml.Node) place {
	if name, ok := d.overrides[n]; ok {
		return place{file: name}
	}
	if n.Line == 0 {
		return place{file: d.src.file, line: 1, col: 1}
	}
	return place{file: d.src.file, line: n.Line, col: n.Column}
}

// text puts the braces of references back.
func (d *decoder) text(s string) string { return d.restore.Replace(s) }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
