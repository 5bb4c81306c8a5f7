package match

// condition is the logical expression of a filter, or a part of it. holds says whether it is true of the node at a
// place of e's document, which is what @ stands for; the answer has no meaning once e is spent.
type condition interface {
	holds(e *evaluation, at uint32) bool
}

// operand is what can be compared: a literal, a singular query or a function that results in a value.
type operand interface {
	value(e *evaluation, at uint32) value
}

type (
	anyOf      []condition // ||
	allOf      []condition // &&
	not        struct{ condition }
	exists     struct{ query }
	comparison struct {
		operator    string
		left, right operand
	}
	literal  struct{ v value }
	singular struct{ query } // whose only node is the operand
)

// maxNesting is how deep filters, parentheses and functions may be nested in a path.
const maxNesting = 64

// enter counts one more level; leave it with p.depth--.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxNesting {
		return p.fail(p.pos, "filters, parentheses and functions are nested more than %d deep; write fewer", maxNesting)
	}
	return nil
}

// or reads a logical expression (RFC 9535, section 2.3.5.1), and no white space behind it.
func (p *parser) or() (condition, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	terms, err := p.joined("||", p.and)
	if len(terms) == 1 {
		return terms[0], err
	}
	return anyOf(terms), err
}

func (p *parser) and() (condition, error) {
	terms, err := p.joined("&&", p.basic)
	if len(terms) == 1 {
		return terms[0], err
	}
	return allOf(terms), err
}

// joined reads one or more terms with an operator between them.
func (p *parser) joined(operator string, term func() (condition, error)) ([]condition, error) {
	var terms []condition
	for {
		c, err := term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, c)
		end := p.pos
		p.skipBlank()
		if !p.take(operator) {
			p.pos = end
			return terms, nil
		}
		p.skipBlank()
	}
}

// basic reads a comparison, a test for existence, a logical function or a parenthesis.
func (p *parser) basic() (condition, error) {
	start := p.pos
	negated := p.take("!")
	if negated {
		p.skipBlank()
	}
	var c condition
	var err error
	if p.take("(") {
		c, err = p.parenthesis()
	} else {
		c, err = p.comparisonOrTest(negated, start)
	}
	if err == nil && negated {
		c = not{c}
	}
	return c, err
}

func (p *parser) parenthesis() (condition, error) {
	p.skipBlank()
	c, err := p.or()
	if err != nil {
		return nil, err
	}
	p.skipBlank()
	if !p.take(")") {
		return nil, p.unexpected("write an operator or )")
	}
	return c, nil
}

func (p *parser) comparisonOrTest(negated bool, start int) (condition, error) {
	leftAt := p.pos
	left, err := p.term()
	if err != nil {
		return nil, err
	}
	end := p.pos
	p.skipBlank()
	operator := p.operator()
	switch {
	case operator == "" && p.peek() == '=':
		return nil, p.unexpected("write == to compare")
	case operator == "":
		p.pos = end
		return p.test(left, leftAt)
	case negated:
		return nil, p.fail(start, "! cannot stand before a comparison; write !(…) or the opposite of %s", operator)
	}
	c := comparison{operator: operator}
	if c.left, err = p.comparable(left, leftAt); err != nil {
		return nil, err
	}
	p.skipBlank()
	rightAt := p.pos
	right, err := p.term()
	if err != nil {
		return nil, err
	}
	if c.right, err = p.comparable(right, rightAt); err != nil {
		return nil, err
	}
	return c, nil
}

func (p *parser) operator() string {
	for _, operator := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if p.take(operator) {
			return operator
		}
	}
	return ""
}

// test makes a condition of a term that is not compared.
func (p *parser) test(term any, at int) (condition, error) {
	switch t := term.(type) {
	case query:
		return exists{t}, nil
	case condition:
		return t, nil
	case literal:
		return nil, p.fail(at, "a literal alone is no condition; compare it: @.a == …")
	}
	return nil, p.fail(at, "the result of this function is no condition; compare it, as in length(@.a) > 1")
}

// comparable makes an operand of a term that is compared, or given to a function that takes a value.
func (p *parser) comparable(term any, at int) (operand, error) {
	switch t := term.(type) {
	case operand:
		return t, nil
	case query:
		if t.singular() {
			return singular{t}, nil
		}
		return nil, p.fail(at, "the path can select several nodes, and only a single one has a value here; write names and indices only, or value(…), count(…)")
	}
	return nil, p.fail(at, "the result of this function is true or false and not a value; use it alone, or with ! before it")
}

// term reads a query, a literal or a function. It returns a query, a literal, another operand or a condition.
func (p *parser) term() (any, error) {
	switch c := p.peek(); {
	case c == '@' || c == '$':
		p.pos++
		segments, err := p.segments()
		return query{relative: c == '@', segments: segments}, err
	case c == '\'' || c == '"':
		s, err := p.quoted()
		return literal{value{kind: kindString, text: s}}, err
	case c == '-' || isDigit(c):
		return p.number()
	case 'a' <= c && c <= 'z':
		return p.word()
	}
	return nil, p.unexpected("write @ or $ with a path, a function, a number, or a string in quotes")
}

// number reads a number literal, which is written as in JSON.
func (p *parser) number() (any, error) {
	start := p.pos
	digits := func() bool {
		from := p.pos
		for isDigit(p.peek()) {
			p.pos++
		}
		return p.pos > from
	}
	p.take("-")
	from := p.pos
	if !digits() {
		return nil, p.unexpected("write a digit behind the -")
	}
	if p.text[from] == '0' && p.pos > from+1 {
		return nil, p.fail(start, "the number has leading zeros; write it without")
	}
	if p.take(".") && !digits() {
		return nil, p.unexpected("write a digit behind the dot")
	}
	if p.take("e") || p.take("E") {
		if !p.take("-") {
			p.take("+")
		}
		if !digits() {
			return nil, p.unexpected("write the digits of the exponent")
		}
	}
	return literal{value{kind: kindNumber, text: p.text[start:p.pos]}}, nil
}

// word reads true, false, null or a function.
func (p *parser) word() (any, error) {
	start := p.pos
	for c := p.peek(); 'a' <= c && c <= 'z' || c == '_' || isDigit(c); c = p.peek() {
		p.pos++
	}
	switch word := p.text[start:p.pos]; {
	case p.peek() == '(':
		return p.function(word, start)
	case word == "null":
		return literal{value{kind: kindNull}}, nil
	case word == "false":
		return literal{value{kind: kindFalse}}, nil
	case word == "true":
		return literal{value{kind: kindTrue}}, nil
	default:
		return nil, p.fail(start, "%s means nothing here; write a string in quotes, or @.%s for a member", clip(word), clip(word))
	}
}
