package match

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads a JSON document from left to right (RFC 8259), and makes a tree of it unless that is nil.
type scanner struct {
	in    string
	pos   int // of the next byte
	depth int // of the containers around it
	tree  *tree

	values int      // begun so far
	names  []string // of the members read so far of each object around pos, one object after the other
}

// document reads the one value and what is around it.
func (s *scanner) document() error {
	if !utf8.ValidString(s.in) {
		return fmt.Errorf("the document is not valid UTF-8, at byte %d", invalidAt(s.in))
	}
	if s.skip(); s.pos == len(s.in) {
		return errors.New("the document is empty")
	}
	if err := s.value(""); err != nil {
		return err
	}
	if s.skip(); s.pos < len(s.in) {
		return fmt.Errorf("something follows the end of the value, at byte %d; a document is one value", s.pos)
	}
	return nil
}

// invalidAt returns where a string stops being UTF-8.
func invalidAt(s string) int {
	for i, c := range s {
		if c == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return len(s)
}

// skip skips white space.
func (s *scanner) skip() {
	for s.pos < len(s.in) && isBlank(s.in[s.pos]) {
		s.pos++
	}
}

// peek returns the next byte, or 0 at the end; a 0 in the document is not allowed anywhere either.
func (s *scanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

// unexpected returns the error that what comes next is not what is wanted.
func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.in) {
		return fmt.Errorf("the document ends where %s is wanted, after %d bytes", want, len(s.in))
	}
	c, _ := utf8.DecodeRuneInString(s.in[s.pos:])
	return fmt.Errorf("%q stands where %s is wanted, at byte %d", c, want, s.pos)
}

// value reads a value that begins at the next byte, and adds it to the tree.
func (s *scanner) value(name string) error {
	start := s.pos
	if s.values++; s.values > MaxValues {
		return fmt.Errorf("the document holds more than %d values, at byte %d", MaxValues, s.pos)
	}
	switch c := s.peek(); {
	case c == '{' || c == '[':
		return s.container(name, c)
	case c == '"':
		str, err := s.string()
		if err != nil {
			return err
		}
		s.add(kindString, name, start, str)
		return nil
	case c == '-' || isDigit(c):
		if err := s.number(); err != nil {
			return err
		}
		s.add(kindNumber, name, start, s.in[start:s.pos])
		return nil
	}
	for _, w := range [...]struct {
		kind kind
		text string
	}{{kindNull, "null"}, {kindTrue, "true"}, {kindFalse, "false"}} {
		if strings.HasPrefix(s.in[s.pos:], w.text) {
			s.pos += len(w.text)
			s.add(w.kind, name, start, "")
			return nil
		}
	}
	return s.unexpected("a value")
}

// add appends a value to the tree that has ended at pos.
func (s *scanner) add(k kind, name string, start int, text string) {
	if s.tree != nil {
		next := uint32(len(s.tree.nodes) + 1)
		s.tree.nodes = append(s.tree.nodes, node{
			kind: k, start: uint32(start), end: uint32(s.pos), next: next, name: name, text: text,
		})
	}
}

// container reads an array or object, which open begins.
func (s *scanner) container(name string, open byte) error {
	if s.depth++; s.depth > MaxDepth {
		return fmt.Errorf("arrays and objects are nested more than %d deep, at byte %d", MaxDepth, s.pos)
	}
	k, read := kindArray, s.elements
	if open == '{' {
		k, read = kindObject, s.members
	}
	var at int
	if s.tree != nil {
		at = len(s.tree.nodes)
	}
	start := s.pos
	s.add(k, name, start, "")
	s.pos++
	s.skip()
	count, err := read()
	if err != nil {
		return err
	}
	s.pos++ // "]" or "}"
	s.depth--
	if s.tree != nil {
		n := &s.tree.nodes[at]
		n.end, n.next, n.count = uint32(s.pos), uint32(len(s.tree.nodes)), count
	}
	return nil
}

// elements reads those of an array, up to its ].
func (s *scanner) elements() (count uint32, err error) {
	if s.peek() == ']' {
		return 0, nil
	}
	for {
		if err := s.value(""); err != nil {
			return 0, err
		}
		count++
		s.skip()
		switch s.peek() {
		case ']':
			return count, nil
		case ',':
			s.pos++
			s.skip()
		default:
			return 0, s.unexpected("a comma or ]")
		}
	}
}

// members reads those of an object, up to its }.
func (s *scanner) members() (count uint32, err error) {
	if s.peek() == '}' {
		return 0, nil
	}
	seen := names{base: len(s.names)}
	defer func() { s.names = s.names[:seen.base] }()
	for {
		start := s.pos
		if s.peek() != '"' {
			return 0, s.unexpected("a name in double quotes")
		}
		name, err := s.string()
		if err != nil {
			return 0, err
		}
		if seen.has(s.names, name) {
			return 0, fmt.Errorf("an object has the same name twice, at byte %d", start)
		}
		s.names = append(s.names, name)
		s.skip()
		if s.peek() != ':' {
			return 0, s.unexpected("a colon")
		}
		s.pos++
		s.skip()
		if err := s.value(name); err != nil {
			return 0, err
		}
		count++
		s.skip()
		switch s.peek() {
		case '}':
			return count, nil
		case ',':
			s.pos++
			s.skip()
		default:
			return 0, s.unexpected("a comma or }")
		}
	}
}

// names finds a name that an object has twice. Most objects are small, where looking at each name is fastest.
type names struct {
	base int                 // where the names of this object begin
	set  map[string]struct{} // of all of them, once they are many
}

// fewNames is up to how many names each is looked at.
const fewNames = 16

// has reports whether a name is among those of the object, which end with all, and takes it for the next of them.
func (n *names) has(all []string, name string) bool {
	own := all[n.base:]
	if len(own) < fewNames {
		return slices.Contains(own, name)
	}
	if n.set == nil {
		n.set = make(map[string]struct{}, 2*fewNames)
		for _, o := range own {
			n.set[o] = struct{}{}
		}
	}
	_, has := n.set[name]
	n.set[name] = struct{}{}
	return has
}

// number reads a number.
func (s *scanner) number() error {
	digits := func() bool {
		from := s.pos
		for isDigit(s.peek()) {
			s.pos++
		}
		return s.pos > from
	}
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !digits() {
		return s.unexpected("a digit")
	}
	if s.peek() == '.' {
		s.pos++
		if !digits() {
			return s.unexpected("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !digits() {
			return s.unexpected("a digit")
		}
	}
	return nil
}

// string reads a string and returns what it stands for, without a copy if it has no escapes.
func (s *scanner) string() (string, error) {
	s.pos++ // the quote
	start := s.pos
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; {
		case c == '"':
			s.pos++
			return s.in[start : s.pos-1], nil
		case c == '\\':
			return s.escapedString(start)
		case c < ' ':
			return "", s.unexpected("a character or escape sequence")
		}
		s.pos++
	}
	return "", s.unexpected("the end of a string")
}

// escapedString reads the rest of a string from its first escape sequence on.
func (s *scanner) escapedString(start int) (string, error) {
	b := []byte(s.in[start:s.pos])
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; {
		case c == '"':
			s.pos++
			return string(b), nil
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		case c < ' ':
			return "", s.unexpected("a character or escape sequence")
		default:
			b = append(b, c)
			s.pos++
		}
	}
	return "", s.unexpected("the end of a string")
}

// escape reads an escape sequence. Half of a surrogate pair is refused (RFC 7493, section 2.1).
func (s *scanner) escape() (rune, error) {
	start := s.pos
	s.pos += 2
	if s.pos > len(s.in) {
		return 0, s.unexpected("an escape sequence")
	}
	c := s.in[start+1]
	if i := strings.IndexByte(`bfnrt/\"`, c); i >= 0 {
		return rune("\b\f\n\r\t/\\\""[i]), nil
	}
	if c == 'u' {
		r, ok := hex4(s.in[s.pos:])
		s.pos += 4
		if ok && utf16.IsSurrogate(r) {
			second, escaped := strings.CutPrefix(s.in[s.pos:], `\u`)
			low, lowOK := hex4(second)
			s.pos += 6
			r = utf16.DecodeRune(r, low)
			ok = escaped && lowOK && r != utf8.RuneError
		}
		if ok {
			return r, nil
		}
	}
	return 0, fmt.Errorf("an escape sequence in a string is not one of JSON's, at byte %d", start)
}

// hex4 reads the four hexadecimal digits that s begins with.
func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	i, err := strconv.ParseUint(s[:4], 16, 16)
	return rune(i), err == nil
}
