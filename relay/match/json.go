package match

import (
	"bytes"
	"fmt"
	"math"
)

// MaxDepth is how deep arrays and objects may be nested in a document; T23.
const MaxDepth = 512

// MaxValues is how many values a document may hold; T18. Each takes some dozen bytes of memory.
const MaxValues = 500_000

// Doc is a parsed JSON document. The zero Doc holds no value, so that nothing is selected in it. A Doc never
// changes; it may be copied and used from several goroutines. It takes some 60 bytes for each value and each member
// of the document, beside a copy of its text.
type Doc struct{ tree *tree }

// tree holds the values of a document in document order, each before the values within it. So the values within
// nodes[i] are those up to nodes[i].next, and a walk over all descendants is a loop.
type tree struct {
	text  string
	nodes []node
}

type node struct {
	kind       kind
	start, end uint32 // of its JSON in the document
	next       uint32 // index of the first value behind it that is not within it
	count      uint32 // elements or members
	name       string // decoded, of a member
	text       string // as written of a number, decoded of a string
}

// ParseJSON reads a document, strictly (RFC 8259 as RFC 7493 narrows it): valid UTF-8 without lone surrogates, no
// name twice in an object, at most MaxDepth levels and MaxValues values, one value and nothing behind it. The error is fit for the
// client: it says what is wrong and at which byte, counted from 0, and quotes of the document no more than a
// character. b is not kept. The caller bounds its length.
func ParseJSON(b []byte) (Doc, error) {
	if uint64(len(b)) > math.MaxUint32 {
		return Doc{}, fmt.Errorf("the document has %d bytes; at most %d can be read", len(b), uint32(math.MaxUint32))
	}
	t := &tree{text: string(b)}
	s := scanner{in: t.text, tree: t}
	// Each value but the first stands behind one of these bytes. There can be more of them, in strings and in what
	// is no JSON at all, so that the length is a bound too.
	values := 1 + bytes.Count(b, []byte{','}) + bytes.Count(b, []byte{'['}) + bytes.Count(b, []byte{'{'})
	t.nodes = make([]node, 0, min(values, MaxValues, 64+len(b)/8))
	if err := s.document(); err != nil {
		return Doc{}, err
	}
	return Doc{t}, nil
}

// CheckJSON returns nil if b is a document that ParseJSON would read, and ParseJSON's error if not. It is cheaper,
// since it keeps nothing.
func CheckJSON(b []byte) error {
	s := scanner{in: string(b)}
	return s.document()
}
