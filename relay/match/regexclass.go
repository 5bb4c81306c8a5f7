package match

import (
	"errors"
	"fmt"
	"strings"
)

// class reads what follows a [, up to its ].
func (t *translator) class() error {
	t.out.WriteByte('[')
	if t.peek() == '^' {
		t.next()
		t.out.WriteByte('^')
	}
	for first := true; ; first = false {
		switch c := t.next(); {
		case c < 0:
			return errors.New(`[ has no ] behind it; write \[ for the character`)
		case c == ']' && first:
			return errors.New(`a class of characters is empty; write \] for the character`)
		case c == ']':
			t.out.WriteByte(']')
			return nil
		case c == '-' && (first || t.peek() == ']'):
			t.classChar(c)
		default:
			if err := t.classRange(c); err != nil {
				return err
			}
		}
	}
}

// classRange reads a character of a class, or two with a - between them, the first character being taken already.
func (t *translator) classRange(c rune) error {
	low, err := t.classBound(c)
	if err != nil || low < 0 {
		return err
	}
	t.classChar(low)
	if !strings.HasPrefix(t.in, "-") || strings.HasPrefix(t.in, "-]") {
		return nil
	}
	t.next()
	high, err := t.classBound(t.next())
	switch {
	case err != nil:
		return err
	case high < low:
		return errors.New("a range of characters has no end that is beyond its start; write it as [a-z]")
	}
	t.out.WriteByte('-')
	t.classChar(high)
	return nil
}

// classBound returns the character that c is or begins. It is negative if that is a class of its own, which has
// been written then, or the end of the pattern.
func (t *translator) classBound(c rune) (rune, error) {
	switch c {
	case '\\':
		return t.escape()
	case '-', '[', ']':
		return 0, fmt.Errorf(`%c stands in a class where a character is wanted; write \%c for the character`, c, c)
	}
	return c, nil
}

func (t *translator) classChar(c rune) { fmt.Fprintf(&t.out, `\x{%x}`, c) }

// escape reads what follows a backslash. It returns the character that this stands for; if it is a class of
// characters, escape writes that and returns -1.
func (t *translator) escape() (rune, error) {
	switch c := t.next(); {
	case c < 0:
		return 0, errors.New(`the pattern ends with a \; write \\ for the character`)
	case c == 'n':
		return '\n', nil
	case c == 'r':
		return '\r', nil
	case c == 't':
		return '\t', nil
	case strings.ContainsRune(`()*+-.?[\]^{|}`, c):
		return c, nil
	case c == 'p' || c == 'P':
		return -1, t.category(c)
	case c == 'd':
		return 0, errors.New(`\d is no part of I-Regexp; write [0-9]`)
	case c == 'w':
		return 0, errors.New(`\w is no part of I-Regexp; write [A-Za-z0-9_]`)
	case c == 's':
		return 0, errors.New(`\s is no part of I-Regexp; write [ \t\r\n]`)
	default:
		return 0, fmt.Errorf(`\%c is no part of I-Regexp; write [%c] for the character`, c, c)
	}
}

// categories are the letters that may follow the first letter of a general category of Unicode.
func categories(first byte) (seconds string, ok bool) {
	switch first {
	case 'L':
		return "lmotu", true
	case 'M':
		return "cen", true
	case 'N':
		return "dlo", true
	case 'P':
		return "cdefios", true
	case 'Z':
		return "lps", true
	case 'S':
		return "ckmo", true
	case 'C':
		return "cfno", true
	}
	return "", false
}

// category reads what follows \p or \P, and writes it.
func (t *translator) category(p rune) error {
	inner, rest, ok := strings.Cut(strings.TrimPrefix(t.in, "{"), "}")
	if !ok || t.peek() != '{' || len(inner) < 1 || len(inner) > 2 {
		return fmt.Errorf(`\%c has no category behind it; write one such as \%c{L} or \%c{Lu}`, p, p, p)
	}
	seconds, ok := categories(inner[0])
	if !ok || len(inner) == 2 && strings.IndexByte(seconds, inner[1]) < 0 {
		return fmt.Errorf(`%q is no category of Unicode; write one such as \%c{L} or \%c{Lu}`, inner, p, p)
	}
	t.in = rest
	fmt.Fprintf(&t.out, `\%c{%s}`, p, inner)
	return nil
}
