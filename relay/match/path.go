package match

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxPath is the length of the longest path or filter, in bytes; T18.
const MaxPath = 4096

// Path is a parsed JSONPath query (RFC 9535). It never changes, and may be used from several goroutines.
//
// It is the whole of the RFC, with these things settled beyond it. The pattern of match or search is an I-Regexp
// (RFC 9485) of at most 1,024 bytes, in which an unescaped ^ and $ stand for the beginning and the end of the text;
// a literal that is not one is refused by ParsePath, since it would never match, while one that comes from the
// document does not match. Numbers compare exactly if both are written as integers, else as float64.
type Path struct {
	text  string
	query query
}

// ParsePath reads a path of up to MaxPath bytes, such as $.data.status or $.items[*].state. The error says at which
// column, counted in characters from 1, what is wrong and what to write instead.
func ParsePath(text string) (*Path, error) {
	q, err := parseQuery(text)
	if err != nil {
		return nil, err
	}
	return &Path{text: text, query: q}, nil
}

// String returns the path as it was written.
func (p *Path) String() string { return p.text }

// Select returns the nodes that the path selects, in the RFC's order, with those selected twice in it twice; members
// are taken in the order of the document. The error is ErrBudget or nil.
func (p *Path) Select(d Doc) ([]Node, error) {
	if d.tree == nil {
		return nil, nil
	}
	e := newEvaluation(d.tree)
	nodes := p.query.nodes(e)
	return nodes, e.err()
}

// nodes returns what the query selects from the root, with nothing of meaning if e is spent.
func (q *query) nodes(e *evaluation) []Node {
	var nodes []Node
	e.walk(q.segments, 0, func(at uint32) bool {
		nodes = append(nodes, Node{e.tree, at})
		return e.spend(stepsPerNode)
	})
	return nodes
}

// Node is one value of a document, with its place in it. The zero Node is of no use.
type Node struct {
	tree *tree
	at   uint32
}

// JSON returns the value as it stands in the document, with the document's white space. The caller owns it.
func (n Node) JSON() []byte { return []byte(n.json()) }

func (n Node) json() string {
	v := &n.tree.nodes[n.at]
	return n.tree.text[v.start:v.end]
}

// Span returns where in the bytes given to ParseJSON the value begins, and where it has ended.
func (n Node) Span() (start, end int) {
	v := &n.tree.nodes[n.at]
	return int(v.start), int(v.end)
}

// Equal reports whether two values are equal (RFC 9535, section 2.3.5.2.2): members in any order, numbers by their
// value. The nodes may be of different documents. It takes time in proportion to the smaller of them.
func (n Node) Equal(m Node) bool {
	unbounded := budget{left: len(n.tree.nodes)*(2+stepsPerIndexed) + len(n.tree.text)}
	return equal(n.tree.value(n.at), m.tree.value(m.at), &unbounded)
}

// Path returns the normalized path of the node (RFC 9535, section 2.7), which selects it and nothing else.
func (n Node) Path() string {
	path := []byte{'$'}
	for i := uint32(0); i != n.at; {
		parent := &n.tree.nodes[i]
		index := 0
		// The child that the node is, or is within.
		for i++; n.tree.nodes[i].next <= n.at; i = n.tree.nodes[i].next {
			index++
		}
		if parent.kind == kindArray {
			path = fmt.Appendf(path, "[%d]", index)
		} else {
			path = appendNormalizedName(path, n.tree.nodes[i].name)
		}
	}
	return string(path)
}

func appendNormalizedName(path []byte, name string) []byte {
	path = append(path, "['"...)
	for _, c := range name {
		if escape := strings.IndexRune("\b\t\n\f\r'\\", c); escape >= 0 {
			path = append(path, '\\', `btnfr'\`[escape])
		} else if c < ' ' {
			path = fmt.Appendf(path, `\u%04x`, c)
		} else {
			path = utf8.AppendRune(path, c)
		}
	}
	return append(path, "']"...)
}

// clippedAt is how many bytes of a value an error may quote.
const clippedAt = 100

// clip returns a value for an error: compact and short.
func clip(s string) string {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(s)) == nil {
		s = compact.String()
	}
	if len(s) <= clippedAt {
		return s
	}
	end := clippedAt
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// query is a path, also one within a filter.
type query struct {
	relative bool // it begins at @, not at $
	segments []segment
}

// singular reports whether the query selects at most one node whatever the document, by its form (RFC 9535,
// section 2.3.5.1).
func (q *query) singular() bool {
	for _, s := range q.segments {
		if s.descendant || len(s.selectors) != 1 {
			return false
		}
		switch s.selectors[0].(type) {
		case nameSelector, indexSelector:
		default:
			return false
		}
	}
	return true
}

// segment applies its selectors to each node that it is given and, if descendant, to all nodes within that.
type segment struct {
	descendant bool
	selectors  []selector
}

// parseQuery reads a whole path.
func parseQuery(text string) (query, error) {
	switch {
	case text == "":
		return query{}, errors.New("the path is empty; write one such as $.data.status")
	case len(text) > MaxPath:
		return query{}, fmt.Errorf("the path has %d bytes; at most %d are allowed", len(text), MaxPath)
	case !utf8.ValidString(text):
		return query{}, errors.New("the path is not valid UTF-8; write it in UTF-8")
	case isBlank(text[0]) || isBlank(text[len(text)-1]):
		return query{}, errors.New("the path has white space around it; remove it")
	case text[0] != '$':
		return query{}, errors.New("column 1: the path does not begin with $; write one such as $.data.status")
	}
	p := &parser{text: text, pos: 1}
	segments, err := p.segments()
	if err != nil {
		return query{}, err
	}
	if p.pos < len(text) {
		return query{}, p.unexpected("write .name, [0] or another segment")
	}
	return query{segments: segments}, nil
}

// parser reads a path from left to right.
type parser struct {
	text  string
	pos   int // of the next byte
	depth int // of filters, parentheses and functions around it
}

// fail returns an error at a byte of the text.
func (p *parser) fail(pos int, format string, args ...any) error {
	return fmt.Errorf("column %d: %s", utf8.RuneCountInString(p.text[:pos])+1, fmt.Sprintf(format, args...))
}

// unexpected returns the error that what comes next cannot stand here.
func (p *parser) unexpected(advice string) error {
	if p.pos == len(p.text) {
		return p.fail(p.pos, "the path ends too early; %s", advice)
	}
	c, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	return p.fail(p.pos, "%s is not allowed here; %s", strconv.QuoteRune(c), advice)
}

// peek returns the next byte, or 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// take consumes s if it comes next.
func (p *parser) take(s string) bool {
	if strings.HasPrefix(p.text[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

func (p *parser) skipBlank() {
	for p.pos < len(p.text) && isBlank(p.text[p.pos]) {
		p.pos++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
