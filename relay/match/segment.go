package match

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// segments reads as many segments as follow (RFC 9535, section 2.5), and no white space behind the last.
func (p *parser) segments() ([]segment, error) {
	var segments []segment
	for {
		end := p.pos
		p.skipBlank()
		var s segment
		var err error
		switch {
		case p.take(".."):
			s.descendant = true
			if p.peek() == '[' {
				s.selectors, err = p.bracketed()
			} else {
				s.selectors, err = p.shorthand("write a name, * or [ directly behind ..")
			}
		case p.take("."):
			s.selectors, err = p.shorthand("write a name or * directly behind the dot, or a name in brackets: ['a b']")
		case p.peek() == '[':
			s.selectors, err = p.bracketed()
		default:
			p.pos = end
			return segments, nil
		}
		if err != nil {
			return nil, err
		}
		segments = append(segments, s)
	}
}

// shorthand reads the name or * behind a dot.
func (p *parser) shorthand(advice string) ([]selector, error) {
	if p.take("*") {
		return []selector{wildcard{}}, nil
	}
	start := p.pos
	for p.pos < len(p.text) {
		c, size := utf8.DecodeRuneInString(p.text[p.pos:])
		if !isNameFirst(c) && (p.pos == start || c < '0' || c > '9') {
			break
		}
		p.pos += size
	}
	if p.pos == start {
		return nil, p.unexpected(advice)
	}
	return []selector{nameSelector(p.text[start:p.pos])}, nil
}

func isNameFirst(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

// bracketed reads one or more selectors in brackets. It takes white space within them in every query, also where the
// grammar of a singular query has none: that is an oversight of the RFC which nobody follows.
func (p *parser) bracketed() ([]selector, error) {
	p.pos++ // "["
	var selectors []selector
	for {
		p.skipBlank()
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		selectors = append(selectors, s)
		p.skipBlank()
		switch {
		case p.take("]"):
			return selectors, nil
		case !p.take(","):
			return nil, p.unexpected("write ] or a comma and another selector")
		}
	}
}

func (p *parser) selector() (selector, error) {
	switch c := p.peek(); {
	case c == '\'' || c == '"':
		name, err := p.quoted()
		return nameSelector(name), err
	case c == '*':
		p.pos++
		return wildcard{}, nil
	case c == '?':
		p.pos++
		p.skipBlank()
		cond, err := p.or()
		return filterSelector{cond}, err
	case c == ':' || c == '-' || isDigit(c):
		return p.indexOrSlice()
	}
	return nil, p.unexpected("write a name in quotes, a number, a slice, * or a filter such as ?@.a == 1")
}

func (p *parser) indexOrSlice() (selector, error) {
	var s sliceSelector
	var err error
	if s.start, err = p.optionalInteger(); err != nil {
		return nil, err
	}
	end := p.pos
	p.skipBlank()
	if !p.take(":") {
		p.pos = end
		return indexSelector(*s.start), nil
	}
	p.skipBlank()
	if s.end, err = p.optionalInteger(); err != nil {
		return nil, err
	}
	end = p.pos
	p.skipBlank()
	if !p.take(":") {
		p.pos = end
		return s, nil
	}
	p.skipBlank()
	s.step, err = p.optionalInteger()
	return s, err
}

// maxInteger is the largest integer in a path, and its negative the smallest (RFC 9535, section 2.1; RFC 7493).
const maxInteger int64 = 1<<53 - 1

// optionalInteger reads an integer without a fraction, an exponent or leading zeros, or returns nil if none follows.
func (p *parser) optionalInteger() (*int64, error) {
	start := p.pos
	p.take("-")
	for isDigit(p.peek()) {
		p.pos++
	}
	written := p.text[start:p.pos]
	digits := strings.TrimPrefix(written, "-")
	switch {
	case written == "":
		return nil, nil
	case digits == "":
		return nil, p.unexpected("write a digit behind the -")
	case written == "-0":
		return nil, p.fail(start, "-0 is not allowed here; write 0")
	case digits[0] == '0' && len(digits) > 1:
		return nil, p.fail(start, "%s has leading zeros; write it without", clip(written))
	}
	i, err := strconv.ParseInt(written, 10, 64)
	if err != nil || i > maxInteger || i < -maxInteger {
		return nil, p.fail(start, "%s is too large; at most %d is allowed", clip(written), maxInteger)
	}
	return &i, nil
}

// quoted reads a string literal in single or double quotes (RFC 9535, section 2.3.1).
func (p *parser) quoted() (string, error) {
	start := p.pos
	quote := p.text[p.pos]
	p.pos++
	var b strings.Builder
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == quote:
			p.pos++
			return b.String(), nil
		case c < ' ':
			return "", p.fail(p.pos, "a control character is not allowed in a string; write %s", escapeOf(c))
		case c == '\\':
			r, err := p.escape(quote)
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return "", p.fail(start, "the string has no end; write %c behind it", quote)
}

// escapeOf returns how to write a control character.
func escapeOf(c byte) string {
	q := strconv.Quote(string(rune(c)))
	if len(q) == len(`"\n"`) && c != '\a' && c != '\v' {
		return q[1 : len(q)-1]
	}
	return `\u00` + strconv.FormatUint(uint64(c)+0x100, 16)[1:]
}

// escape reads an escape sequence.
func (p *parser) escape(quote byte) (rune, error) {
	start := p.pos
	p.pos++ // "\"
	c := p.peek()
	if c != 0 {
		p.pos++
	}
	if i := strings.IndexByte(`bfnrt/\`, c); i >= 0 {
		return rune("\b\f\n\r\t/\\"[i]), nil
	}
	switch {
	case c == quote:
		return rune(quote), nil
	case c != 'u':
		return 0, p.fail(start, `this is no escape sequence; write one of \b \f \n \r \t \/ \\ \%c, or \u and four hexadecimal digits`, quote)
	}
	r, err := p.hex4(start)
	if err != nil || r < 0xD800 || r > 0xDFFF {
		return r, err
	}
	if r > 0xDBFF || !p.take(`\u`) {
		return 0, p.loneSurrogate(start)
	}
	low, err := p.hex4(start)
	if err == nil && (low < 0xDC00 || low > 0xDFFF) {
		err = p.loneSurrogate(start)
	}
	return 0x10000 + (r-0xD800)<<10 + (low - 0xDC00), err
}

func (p *parser) loneSurrogate(start int) error {
	return p.fail(start, `half of a surrogate pair is no character; write \uD800 to \uDBFF and then \uDC00 to \uDFFF`)
}

// hex4 reads four hexadecimal digits of the escape sequence that begins at start.
func (p *parser) hex4(start int) (rune, error) {
	var r rune
	for range 4 {
		c := p.peek()
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if c == 0 || digit < 0 || c < '0' {
			return 0, p.fail(start, `\u lacks digits; write four hexadecimal ones`)
		}
		r = r<<4 | rune(digit)
		p.pos++
	}
	return r, nil
}
