package match

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The functions of RFC 9535, section 2.4. Those that result in a value are operands, the two others conditions.
type (
	lengthOf struct{ of operand }
	countOf  struct{ query }
	valueOf  struct{ query }
	matching struct {
		text, pattern operand
		whole         bool   // match, not search
		compiled      *regex // of a literal pattern; else nil
	}
)

// functions says how many arguments each function takes.
func functions() map[string]int {
	return map[string]int{"length": 1, "count": 1, "value": 1, "match": 2, "search": 2}
}

// argument is a term, as parser.term returns them, and where it stands.
type argument struct {
	term any
	at   int
}

// function reads the arguments of the function that begins at start, and checks their number and types.
func (p *parser) function(name string, start int) (any, error) {
	want, ok := functions()[name]
	if !ok {
		known := slices.Sorted(maps.Keys(functions()))
		return nil, p.fail(start, "there is no function %s; write one of %s", clip(name), strings.Join(known, ", "))
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	args, err := p.arguments()
	switch {
	case err != nil:
		return nil, err
	case len(args) != want:
		return nil, p.fail(start, "%s has %d arguments; it takes %d", name, len(args), want)
	}
	switch name {
	case "count", "value":
		q, ok := args[0].term.(query)
		if !ok {
			return nil, p.fail(args[0].at, "the argument of %s is a path; write one such as @.items[*]", name)
		}
		if name == "count" {
			return countOf{q}, nil
		}
		return valueOf{q}, nil
	case "length":
		of, err := p.comparable(args[0].term, args[0].at)
		return lengthOf{of}, err
	default:
		return p.matching(args, name == "match")
	}
}

func (p *parser) matching(args []argument, whole bool) (any, error) {
	m := matching{whole: whole}
	var err error
	if m.text, err = p.comparable(args[0].term, args[0].at); err != nil {
		return nil, err
	}
	if m.pattern, err = p.comparable(args[1].term, args[1].at); err != nil {
		return nil, err
	}
	if l, ok := m.pattern.(literal); ok && l.v.kind == kindString {
		if m.compiled, err = compileRegex(l.v.text, whole); err != nil {
			return nil, p.fail(args[1].at, "the pattern is no I-Regexp (RFC 9485): %v", err)
		}
	}
	return m, nil
}

// arguments reads what stands between a function's name and the end of its arguments.
func (p *parser) arguments() ([]argument, error) {
	p.pos++ // "("
	p.skipBlank()
	if p.take(")") {
		return nil, nil
	}
	var args []argument
	for {
		at := p.pos
		term, err := p.term()
		if err != nil {
			return nil, err
		}
		args = append(args, argument{term, at})
		p.skipBlank()
		switch {
		case p.take(")"):
			return args, nil
		case !p.take(","):
			return nil, p.unexpected("write ) or a comma; an argument is a path, a literal or a function, and no condition")
		}
		p.skipBlank()
	}
}

func (f lengthOf) value(e *evaluation, at uint32) value {
	switch v := f.of.value(e, at); v.kind {
	case kindString:
		if !e.spend(len(v.text) / bytesPerStep) {
			return value{}
		}
		return integer(utf8.RuneCountInString(v.text))
	case kindArray, kindObject:
		return integer(int(v.tree.nodes[v.at].count))
	default:
		return value{}
	}
}

func integer(i int) value { return value{kind: kindNumber, text: strconv.Itoa(i)} }

func (f countOf) value(e *evaluation, at uint32) value {
	count := 0
	f.query.each(e, at, func(uint32) bool {
		count++
		return true
	})
	return integer(count)
}

func (f valueOf) value(e *evaluation, at uint32) value {
	var v value
	count := 0
	f.query.each(e, at, func(selected uint32) bool {
		count++
		v = e.tree.value(selected)
		return count < 2
	})
	if count != 1 {
		return value{}
	}
	return v
}

func (m matching) holds(e *evaluation, at uint32) bool {
	s := m.text.value(e, at)
	if s.kind != kindString {
		return false
	}
	r := m.compiled
	if r == nil {
		pattern := m.pattern.value(e, at)
		if pattern.kind != kindString {
			return false
		}
		if r = e.compile(pattern.text, m.whole); r == nil {
			return false
		}
	}
	return e.spend(r.cost(len(s.text))) && r.re.MatchString(s.text)
}
