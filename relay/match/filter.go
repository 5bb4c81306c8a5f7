package match

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Filter decides by a path whether a destination wants a message. It never changes, and may be used from several
// goroutines.
type Filter struct {
	path *Path

	// The path once more, if it begins with filters and nothing else, for a body that is an object.
	conditions []condition // one of which must hold of the body
	rest       []segment   // what the body must have then
}

// ParseFilter reads a filter, such as $[?@.severity == "high"]: a path as ParsePath takes it.
func ParseFilter(text string) (*Filter, error) {
	p, err := ParsePath(text)
	if err != nil {
		if strings.HasPrefix(text, "@") || strings.HasPrefix(text, "?") {
			return nil, fmt.Errorf("the filter does not begin with $; write $[?%s]", clip(strings.TrimPrefix(text, "?")))
		}
		return nil, err
	}
	f := &Filter{path: p}
	if len(p.query.segments) == 0 || p.query.segments[0].descendant {
		return f, nil
	}
	for _, s := range p.query.segments[0].selectors {
		fs, ok := s.(filterSelector)
		if !ok {
			f.conditions = nil
			return f, nil
		}
		f.conditions = append(f.conditions, fs.condition)
	}
	f.rest = p.query.segments[1:]
	return f, nil
}

// Match reports whether the filter's path selects at least one node of a body.
//
// By RFC 9535, $[?…] looks at the children of the root. But nearly every body is one object, and the filter means
// that: so if the path begins with a filter and the body is an object, it is taken for an array of which the body is
// the only element. $[?@.severity == "high"] matches {"severity": "high"}, and $[?@.severity != "low"] does not
// match {"severity": "low", "id": 1}, as it would if the children were looked at too, none of which has a severity.
// A filter on the children of such a body is written as one within: $[?@[?@.severity == "high"]].
//
// The error is ErrBudget or nil.
func (f *Filter) Match(d Doc) (bool, error) {
	if d.tree == nil {
		return false, nil
	}
	e := newEvaluation(d.tree)
	found := false
	visit := func(uint32) bool {
		found = true
		return false
	}
	if f.conditions == nil || d.tree.nodes[0].kind != kindObject {
		e.walk(f.path.query.segments, 0, visit)
		return found, e.err()
	}
	for _, c := range f.conditions {
		if !found && c.holds(e, 0) {
			e.walk(f.rest, 0, visit)
		}
	}
	return found, e.err()
}

// String returns the filter as it was written.
func (f *Filter) String() string { return f.path.text }

// Expectation is what a response must say: a path, and the values that it may select. It never changes, and may be
// used from several goroutines.
type Expectation struct {
	path   *Path
	values []Node
	wanted string // values, for errors
}

// NewExpectation makes an expectation of a path, as ParsePath takes it, and any number of values: nil, bool, string,
// a number, []any or map[string]any, and within the latter the same. Without any, existence is enough.
func NewExpectation(path string, values []any) (*Expectation, error) {
	p, err := ParsePath(path)
	if err != nil {
		return nil, err
	}
	x := &Expectation{path: p}
	var wanted []string
	for i, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("value %d is not one that JSON can hold; write null, true, a number, a string, a list or a map", i+1)
		}
		d, err := ParseJSON(b)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", i+1, err)
		}
		n := Node{d.tree, 0}
		x.values = append(x.values, n)
		wanted = append(wanted, clip(n.json()))
	}
	x.wanted = wantedText(wanted)
	return x, nil
}

// wantedText joins values for an error, the first few of them.
func wantedText(values []string) string {
	const shown = 5
	switch n := len(values); {
	case n == 0:
		return "any value"
	case n == 1:
		return values[0]
	case n > shown:
		return fmt.Sprintf("%s or one of %d more", strings.Join(values[:shown], ", "), n-shown)
	default:
		return strings.Join(values[:n-1], ", ") + " or " + values[n-1]
	}
}

// Check returns nil if the path selects at least one node of the document, and each node that it selects equals one
// of the values. The error is a short text for people that says what was found at which place, clipped to some 100
// bytes, and what was wanted. If the path takes too many steps, it is ErrBudget.
func (x *Expectation) Check(d Doc) error {
	if d.tree == nil {
		return errors.New(x.path.text + ": the document is empty, want " + x.wanted)
	}
	e := newEvaluation(d.tree)
	var first, wrong bool
	var at uint32
	e.walk(x.path.query.segments, 0, func(selected uint32) bool {
		first, at = true, selected
		wrong = !x.accepts(e, selected)
		return !wrong
	})
	switch {
	case e.err() != nil:
		return e.err()
	case !first:
		return fmt.Errorf("%s: selects nothing, want %s", clip(x.path.text), x.wanted)
	case wrong:
		n := Node{d.tree, at}
		return fmt.Errorf("%s: got %s, want %s", clip(n.Path()), clip(n.json()), x.wanted)
	}
	return nil
}

func (x *Expectation) accepts(e *evaluation, at uint32) bool {
	for _, v := range x.values {
		if equal(e.tree.value(at), v.tree.value(v.at), &e.budget) {
			return true
		}
	}
	return len(x.values) == 0
}

// String returns the path as it was written.
func (x *Expectation) String() string { return x.path.text }
