package match

// evaluation is one run of a query on one document.
type evaluation struct {
	budget
	tree     *tree
	compiled map[pattern]*regex // patterns that came from the document; nil for one that is no I-Regexp
}

// pattern is what a regular expression is compiled from.
type pattern struct {
	text  string
	whole bool
}

func newEvaluation(t *tree) *evaluation { return &evaluation{budget: budget{left: maxSteps}, tree: t} }

// maxCompiled is how many patterns an evaluation keeps compiled.
const maxCompiled = 16

// compile returns the compiled pattern, or nil if it is no I-Regexp or e is spent.
func (e *evaluation) compile(text string, whole bool) *regex {
	key := pattern{text, whole}
	if !e.spend(len(text) / bytesPerStep) {
		return nil
	}
	if r, ok := e.compiled[key]; ok {
		return r
	}
	if !e.spend(stepsPerCompiled * (1 + min(len(text), maxPattern))) {
		return nil
	}
	r, err := compileRegex(text, whole)
	if err != nil || !e.spend(stepsPerCompiled*r.size) {
		r = nil
	}
	if e.compiled == nil {
		e.compiled = map[pattern]*regex{}
	}
	if len(e.compiled) < maxCompiled {
		e.compiled[key] = r
	}
	return r
}

// walk applies the segments one after the other, beginning at a node, and calls visit for each node that the last
// one selects, in the order of RFC 9535, section 2.1.2. It returns false as soon as visit does or e is spent.
func (e *evaluation) walk(segments []segment, at uint32, visit func(uint32) bool) bool {
	if len(segments) == 0 {
		return visit(at)
	}
	if len(segments) > 1 {
		last := visit
		visit = func(child uint32) bool { return e.walk(segments[1:], child, last) }
	}
	end := at + 1
	if segments[0].descendant {
		end = e.tree.nodes[at].next
	}
	for ; at < end; at++ {
		for _, s := range segments[0].selectors {
			if !e.spend(1) || !s.apply(e, at, visit) {
				return false
			}
		}
	}
	return true
}

// each calls visit for each node that the query selects, with the node at as @.
func (q *query) each(e *evaluation, at uint32, visit func(uint32) bool) bool {
	if !q.relative {
		at = 0
	}
	return e.walk(q.segments, at, visit)
}

// only returns the node that a singular query selects, if it does.
func (q *query) only(e *evaluation, at uint32) (uint32, bool) {
	if !q.relative {
		at = 0
	}
	for _, segment := range q.segments {
		ok := false
		switch s := segment.selectors[0].(type) {
		case nameSelector:
			at, ok = e.member(at, string(s))
		case indexSelector:
			at, ok = e.element(at, int64(s))
		}
		if !ok {
			return 0, false
		}
	}
	return at, true
}

func (c anyOf) holds(e *evaluation, at uint32) bool {
	for _, term := range c {
		if term.holds(e, at) {
			return true
		}
	}
	return false
}

func (c allOf) holds(e *evaluation, at uint32) bool {
	for _, term := range c {
		if !term.holds(e, at) {
			return false
		}
	}
	return true
}

func (c not) holds(e *evaluation, at uint32) bool { return !c.condition.holds(e, at) }

func (c exists) holds(e *evaluation, at uint32) bool {
	found := false
	c.query.each(e, at, func(uint32) bool {
		found = true
		return false
	})
	return found
}

func (c comparison) holds(e *evaluation, at uint32) bool {
	v, w := c.left.value(e, at), c.right.value(e, at)
	switch c.operator {
	case "==":
		return equal(v, w, &e.budget)
	case "!=":
		return !equal(v, w, &e.budget)
	case "<":
		return less(v, w, &e.budget)
	case ">":
		return less(w, v, &e.budget)
	case "<=":
		return less(v, w, &e.budget) || equal(v, w, &e.budget)
	default:
		return less(w, v, &e.budget) || equal(v, w, &e.budget)
	}
}

func (l literal) value(*evaluation, uint32) value { return l.v }

func (s singular) value(e *evaluation, at uint32) value {
	if at, ok := s.query.only(e, at); ok {
		return e.tree.value(at)
	}
	return value{}
}
