package match

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxPattern is the length of the longest regular expression, in bytes.
	maxPattern = 1024
	// maxRegexSize bounds what a regular expression becomes when its repetitions are written out, which is what the
	// time for each byte of a text grows with.
	maxRegexSize = 1000
	// stepsPerCompiled is what compiling costs for each byte of a pattern, and for each unit of its size.
	stepsPerCompiled = 100
)

// regex is a compiled I-Regexp (RFC 9485).
type regex struct {
	re   *regexp.Regexp
	size int // atoms, with repetitions written out
}

// cost returns the steps for a text of n bytes.
func (r *regex) cost(n int) int { return 1 + n*(1+r.size/2) }

// compileRegex checks that a pattern is an I-Regexp and translates it for package regexp, whose time is linear in
// the text. The pattern must match the whole text, or else anything within it.
func compileRegex(pattern string, whole bool) (*regex, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("it has %d bytes; at most %d are allowed", len(pattern), maxPattern)
	}
	t := &translator{in: pattern}
	size, err := t.alternatives()
	switch {
	case err != nil:
		return nil, err
	case t.in != "":
		return nil, errors.New(") has no ( before it; write \\) for the character")
	case size > maxRegexSize:
		return nil, fmt.Errorf("it has %d characters and classes when repetitions are written out; at most %d are allowed", size, maxRegexSize)
	}
	out := t.out.String()
	if whole {
		out = `\A(?:` + out + `)\z`
	}
	re, err := regexp.Compile(out)
	if err != nil {
		return nil, err
	}
	return &regex{re, size}, nil
}

// translator reads an I-Regexp by the grammar of RFC 9485, section 4, and writes it in the syntax of package
// regexp. Its methods return the size of what they have read.
type translator struct {
	in  string
	out strings.Builder
}

// next takes one character, and returns -1 at the end.
func (t *translator) next() rune {
	if t.in == "" {
		return -1
	}
	c, n := utf8.DecodeRuneInString(t.in)
	t.in = t.in[n:]
	return c
}

func (t *translator) peek() byte {
	if t.in == "" {
		return 0
	}
	return t.in[0]
}

func (t *translator) literal(c rune) { t.out.WriteString(regexp.QuoteMeta(string(c))) }

// alternatives reads branches separated by |, up to the end or a ).
func (t *translator) alternatives() (int, error) {
	size := 0
	for {
		n, err := t.branch()
		if err != nil {
			return 0, err
		}
		size = limited(size + n)
		if t.peek() != '|' || t.in == "" {
			return size, nil
		}
		t.next()
		t.out.WriteByte('|')
	}
}

// limited keeps a size from overflowing when repetitions are multiplied.
func limited(size int) int { return min(size, 1<<20) }

func (t *translator) branch() (int, error) {
	size := 0
	for t.in != "" && t.in[0] != '|' && t.in[0] != ')' {
		n, err := t.atom()
		if err != nil {
			return 0, err
		}
		times, err := t.quantifier()
		if err != nil {
			return 0, err
		}
		size = limited(size + n*times)
	}
	return size, nil
}

func (t *translator) atom() (int, error) {
	switch c := t.next(); c {
	case '(':
		t.out.WriteString("(?:")
		size, err := t.alternatives()
		if err != nil {
			return 0, err
		}
		if t.next() != ')' {
			return 0, errors.New("( has no ) behind it; write \\( for the character")
		}
		t.out.WriteByte(')')
		return 1 + size, nil
	case '.':
		t.out.WriteString(`[^\n\r]`)
	case '\\':
		c, err := t.escape()
		if err == nil && c >= 0 {
			t.literal(c)
		}
		return 1, err
	case '[':
		return 1, t.class()
	case '^':
		t.out.WriteString(`\A`)
	case '$':
		t.out.WriteString(`\z`)
	case '*', '+', '?', '{', '}', ']':
		return 0, fmt.Errorf("%c stands where a character is wanted; write \\%c for the character", c, c)
	default:
		t.literal(c)
	}
	return 1, nil
}

// quantifier reads what may follow an atom, and returns how often the atom is written out by it.
func (t *translator) quantifier() (int, error) {
	switch c := t.peek(); c {
	case '*', '+', '?':
		t.out.WriteRune(t.next())
		return 1, nil
	case '{':
	default:
		return 1, nil
	}
	inner, rest, ok := strings.Cut(t.in[1:], "}")
	if !ok {
		return 0, errors.New("{ has no } behind it; write \\{ for the character")
	}
	low, high, ranged := strings.Cut(inner, ",")
	least, err := repetitions(low)
	most := least
	if err == nil && ranged && high != "" {
		most, err = repetitions(high)
	}
	switch {
	case err != nil:
		return 0, err
	case most < least:
		return 0, fmt.Errorf("{%s} has its bounds in the wrong order; write the lower one first", inner)
	}
	t.in = rest
	t.out.WriteString("{" + strconv.Itoa(least))
	if ranged {
		t.out.WriteByte(',')
		if high != "" {
			t.out.WriteString(strconv.Itoa(most))
		}
	}
	t.out.WriteByte('}')
	return max(most, 1), nil
}

func repetitions(s string) (int, error) {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, errors.New("a repetition is no number; write {2}, {2,} or {2,5}")
		}
	}
	n, err := strconv.Atoi(s)
	switch {
	case s == "":
		return 0, errors.New("a repetition has no number; write {2}, {2,} or {2,5}")
	case err != nil || n > maxRegexSize:
		return 0, fmt.Errorf("a repetition is too large; at most %d is allowed", maxRegexSize)
	}
	return n, nil
}
