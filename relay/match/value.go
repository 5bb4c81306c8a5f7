package match

import (
	"cmp"
	"strconv"
	"strings"
)

// kind is the type of a value.
type kind uint8

const (
	kindNothing kind = iota // no value at all, which is not null; RFC 9535, section 2.4.1
	kindNull
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is what a comparison sees: a value of some document, a literal of a query, or the result of a function. The
// zero value is nothing.
type value struct {
	kind kind
	text string // as written of a number, decoded of a string
	tree *tree  // of an array or object
	at   uint32 // index in tree
}

func (t *tree) value(at uint32) value {
	n := &t.nodes[at]
	return value{kind: n.kind, text: n.text, tree: t, at: at}
}

// equal reports whether two values are equal as RFC 9535, section 2.3.5.2.2, has it. It is over at once, and of no
// meaning, when b is spent.
func equal(v, w value, b *budget) bool {
	if !b.spend(1) || v.kind != w.kind {
		return false
	}
	switch v.kind {
	case kindNumber:
		return compareNumbers(v.text, w.text) == 0
	case kindString:
		return b.spend(len(v.text)/bytesPerStep) && v.text == w.text
	case kindArray:
		return equalArrays(v, w, b)
	case kindObject:
		return equalObjects(v, w, b)
	default:
		return true
	}
}

func equalArrays(v, w value, b *budget) bool {
	if v.tree.nodes[v.at].count != w.tree.nodes[w.at].count {
		return false
	}
	j := w.at + 1
	for i := v.at + 1; i < v.tree.nodes[v.at].next; i = v.tree.nodes[i].next {
		if !equal(v.tree.value(i), w.tree.value(j), b) {
			return false
		}
		j = w.tree.nodes[j].next
	}
	return true
}

// equalObjects compares without regard to order. The members are mostly in the same order, which costs nothing;
// from the first that is not on, an index of the other object keeps the time linear.
func equalObjects(v, w value, b *budget) bool {
	if v.tree.nodes[v.at].count != w.tree.nodes[w.at].count {
		return false
	}
	j := w.at + 1
	var index map[string]uint32
	for i := v.at + 1; i < v.tree.nodes[v.at].next; i = v.tree.nodes[i].next {
		name := v.tree.nodes[i].name
		if index == nil && w.tree.nodes[j].name != name {
			if !b.spend(stepsPerIndexed * int(w.tree.nodes[w.at].count)) {
				return false
			}
			index = w.tree.index(w.at)
		}
		if index != nil {
			var ok bool
			if j, ok = index[name]; !ok {
				return false
			}
		}
		if !equal(v.tree.value(i), w.tree.value(j), b) {
			return false
		}
		j = w.tree.nodes[j].next
	}
	return true
}

// index returns the members of an object by name.
func (t *tree) index(at uint32) map[string]uint32 {
	index := make(map[string]uint32, t.nodes[at].count)
	for i := at + 1; i < t.nodes[at].next; i = t.nodes[i].next {
		index[t.nodes[i].name] = i
	}
	return index
}

// less reports whether v is before w, both numbers or both strings; of all other values none is less than another
// (RFC 9535, section 2.3.5.2.2). Strings compare by their code points, which is how UTF-8 compares by bytes.
func less(v, w value, b *budget) bool {
	if !b.spend(1) || v.kind != w.kind {
		return false
	}
	switch v.kind {
	case kindNumber:
		return compareNumbers(v.text, w.text) < 0
	case kindString:
		return b.spend(len(v.text)/bytesPerStep) && v.text < w.text
	default:
		return false
	}
}

// compareNumbers compares two JSON numbers: exactly if both are written as integers, of whatever length, and as
// float64 else (RFC 7493, section 2.2), where one that is too large is infinite.
func compareNumbers(x, y string) int {
	if x == y {
		return 0
	}
	if isInteger(x) && isInteger(y) {
		return compareIntegers(x, y)
	}
	return cmp.Compare(parseFloat(x), parseFloat(y))
}

func isInteger(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '.' || c == 'e' || c == 'E' {
			return false
		}
	}
	return true
}

func compareIntegers(x, y string) int {
	if x == "-0" {
		x = "0"
	}
	if y == "-0" {
		y = "0"
	}
	x, xNegative := strings.CutPrefix(x, "-")
	y, yNegative := strings.CutPrefix(y, "-")
	switch {
	case xNegative != yNegative && xNegative:
		return -1
	case xNegative != yNegative:
		return 1
	case xNegative:
		x, y = y, x
	}
	// JSON has no leading zeros, so that the longer of two is the larger.
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
}

// parseFloat reads a valid JSON number. The error it drops is that of range, with infinity as the value.
func parseFloat(s string) float64 {
	f, _ := strconv.ParseFloat(s, 64)
	return f
}
