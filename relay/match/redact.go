package match

import (
	"cmp"
	"slices"
)

// redacted is what stands in place of a value that is not to be kept.
const redacted = `"***"`

// RedactJSON returns body with "***" in place of each value that one of the paths selects: whole objects and arrays too,
// whatever is within them. It returns body itself if there is nothing to replace, and never changes it.
//
// It would rather lose a body than keep what it was asked not to. What begins like JSON, with { or [, but is none that
// ParseJSON reads (such as NDJSON, or a document that was cut off), and a document on which a path takes too many steps,
// become a single "***". Any other body that is no JSON is returned as it is, and false with it: paths mean nothing there.
//
// It may be called from several goroutines. The caller bounds the length of body.
func RedactJSON(body []byte, paths []*Path) ([]byte, bool) {
	if len(paths) == 0 {
		return body, true
	}
	doc, err := ParseJSON(body)
	if err != nil {
		if beginsLikeJSON(body) {
			return []byte(redacted), true
		}
		return body, false
	}
	var nodes []Node
	for _, p := range paths {
		selected, err := p.Select(doc)
		if err != nil {
			return []byte(redacted), true
		}
		nodes = append(nodes, selected...)
	}
	if len(nodes) == 0 {
		return body, true
	}
	// In document order a value stands before all that is within it.
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.at, b.at) })
	out := make([]byte, 0, len(body)+len(redacted))
	done := 0
	for _, n := range nodes {
		start, end := n.Span()
		if start < done { // within one that is gone, or selected twice
			continue
		}
		out = append(append(out, body[done:start]...), redacted...)
		done = end
	}
	return append(out, body[done:]...), true
}

// beginsLikeJSON reports whether body begins as an object or array does, in any encoding of Unicode.
func beginsLikeJSON(body []byte) bool {
	for _, c := range body {
		switch c {
		case '{', '[':
			return true
		case ' ', '\t', '\r', '\n', 0, 0xef, 0xbb, 0xbf, 0xfe, 0xff: // the last five are of byte order marks
		default:
			return false
		}
	}
	return false
}
