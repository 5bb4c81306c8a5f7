package egress

import (
	"fmt"
	"strconv"
	"strings"
)

// printf formats values by verbs of package fmt: %s, %v and %q, %d, %x and %X, %f, %e and %g, %t, %%. Widths and
// precisions have at most two digits.
func (r *run) printf(format any, values ...any) (string, error) {
	f, err := r.text(format)
	if err != nil {
		return "", err
	}
	var b []byte
	for f != "" {
		plain, rest, found := strings.Cut(f, "%")
		b, f = append(b, plain...), rest
		if !found {
			break
		}
		n := verbLength(f)
		if n == 0 {
			return "", faulty("printf has a verb that it does not know; write %%s, %%d, %%.2f, %%q, %%x or %%t")
		}
		spec, verb := "%"+f[:n], f[n-1]
		f = f[n:]
		if verb == '%' {
			b = append(b, '%')
			continue
		}
		if len(values) == 0 {
			return "", faulty("printf has more verbs than values")
		}
		v, err := r.operand(verb, values[0])
		if err != nil {
			return "", err
		}
		values = values[1:]
		if b = fmt.Appendf(b, spec, v); len(b) > maxOutput {
			return "", limited("a function makes more than %d bytes", maxOutput)
		}
	}
	if len(values) > 0 {
		return "", faulty("printf has more values than verbs")
	}
	return r.result(b)
}

// verbLength returns the length of the verb at the start of f, without its percent sign, and 0 for one that is not
// known.
func verbLength(f string) int {
	digits := func(i int) int {
		for range 2 {
			if i < len(f) && f[i] >= '0' && f[i] <= '9' {
				i++
			}
		}
		return i
	}
	i := 0
	for i < len(f) && i < 5 && strings.IndexByte("+-# 0", f[i]) >= 0 {
		i++
	}
	i = digits(i)
	if i < len(f) && f[i] == '.' {
		i = digits(i + 1)
	}
	if i < len(f) && strings.IndexByte("svqdxXfegt", f[i]) >= 0 || f != "" && f[0] == '%' {
		return i + 1
	}
	return 0
}

// operand makes of v what the verb can write: package fmt puts its complaints into the text instead.
func (r *run) operand(verb byte, v any) (any, error) {
	switch verb {
	case 't':
		b, ok := v.(bool)
		if ok || r.sample && v == nil {
			return b, nil
		}
		return nil, faulty("%%t of printf needs true or false")
	case 'd', 'f', 'e', 'g':
		if r.sample && v == nil {
			v = 0
		}
		if err := r.chargeFor(v); err != nil { // its precision may leave little of a long number
			return nil, err
		}
		text, ok := numberText(v)
		if !ok {
			return nil, faulty("%%%c of printf needs a number", verb)
		}
		if verb == 'd' {
			n, ok := integer(text)
			if !ok {
				return nil, faulty("%%d of printf needs a whole number")
			}
			return n, nil
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, faulty("a number for printf is too large")
		}
		return f, nil
	}
	if n, ok := v.(int); ok && (verb == 'x' || verb == 'X') {
		return n, nil
	}
	if n, ok := v.(int64); ok && (verb == 'x' || verb == 'X') {
		return n, nil
	}
	return r.text(v)
}
