package match

// selector is one of those of RFC 9535, section 2.3. apply calls visit for each child of a node that it selects, in
// order, and returns false as soon as visit does or e is spent.
type selector interface {
	apply(e *evaluation, at uint32, visit func(uint32) bool) bool
}

type (
	nameSelector   string
	wildcard       struct{}
	indexSelector  int64
	sliceSelector  struct{ start, end, step *int64 } // nil is what was not written
	filterSelector struct{ condition condition }
)

func (s nameSelector) apply(e *evaluation, at uint32, visit func(uint32) bool) bool {
	child, ok := e.member(at, string(s))
	return (!ok || visit(child)) && e.left >= 0
}

func (wildcard) apply(e *evaluation, at uint32, visit func(uint32) bool) bool {
	return e.children(at, visit)
}

func (s indexSelector) apply(e *evaluation, at uint32, visit func(uint32) bool) bool {
	child, ok := e.element(at, int64(s))
	return (!ok || visit(child)) && e.left >= 0
}

func (s filterSelector) apply(e *evaluation, at uint32, visit func(uint32) bool) bool {
	return e.children(at, func(child uint32) bool {
		return !s.condition.holds(e, child) || visit(child)
	})
}

// apply is the algorithm of section 2.3.4.2.2, without its loop over elements that are not selected.
func (s sliceSelector) apply(e *evaluation, at uint32, visit func(uint32) bool) bool {
	n := &e.tree.nodes[at]
	step := valueOr(s.step, 1)
	if n.kind != kindArray || step == 0 {
		return true
	}
	length := int64(n.count)
	clamp := func(i *int64, absent, low, high int64) int64 {
		switch {
		case i == nil:
			return absent
		case *i < 0:
			return min(max(*i+length, low), high)
		default:
			return min(max(*i, low), high)
		}
	}
	if step > 0 {
		from, to := clamp(s.start, 0, 0, length), clamp(s.end, length, 0, length)
		return e.forward(at, from, to, step, visit)
	}
	from, to := clamp(s.start, length-1, -1, length-1), clamp(s.end, -1, -1, length-1)
	return e.backward(at, from, to, step, visit)
}

func valueOr(i *int64, absent int64) int64 {
	if i == nil {
		return absent
	}
	return *i
}

// forward visits the elements from one index to before another.
func (e *evaluation) forward(at uint32, from, to, step int64, visit func(uint32) bool) bool {
	i := int64(0)
	for child := at + 1; i < to; child = e.tree.nodes[child].next {
		if !e.spend(1) {
			return false
		}
		if i >= from && (i-from)%step == 0 && !visit(child) {
			return false
		}
		i++
	}
	return e.left >= 0
}

// backward visits the elements from one index down to before another, the step being negative.
func (e *evaluation) backward(at uint32, from, to, step int64, visit func(uint32) bool) bool {
	if !e.spend(int(max(from, 0))) {
		return false
	}
	// The elements can be walked in one direction only, so the wanted ones are noted on the way.
	var wanted []uint32
	i := int64(0)
	for child := at + 1; i <= from; child = e.tree.nodes[child].next {
		if i > to && (from-i)%-step == 0 {
			wanted = append(wanted, child)
		}
		i++
	}
	for i := len(wanted) - 1; i >= 0; i-- {
		if !e.spend(1) || !visit(wanted[i]) {
			return false
		}
	}
	return true
}

// children visits each element or member value of a node.
func (e *evaluation) children(at uint32, visit func(uint32) bool) bool {
	end := e.tree.nodes[at].next
	for child := at + 1; child < end; child = e.tree.nodes[child].next {
		if !e.spend(1) || !visit(child) {
			return false
		}
	}
	return e.left >= 0
}

// member returns the value of a member of an object.
func (e *evaluation) member(at uint32, name string) (uint32, bool) {
	n := &e.tree.nodes[at]
	if n.kind != kindObject {
		return 0, false
	}
	for child := at + 1; child < n.next && e.spend(1); child = e.tree.nodes[child].next {
		if e.tree.nodes[child].name == name {
			return child, true
		}
	}
	return 0, false
}

// element returns an element of an array, counted from 0, or from -1 backwards.
func (e *evaluation) element(at uint32, index int64) (uint32, bool) {
	n := &e.tree.nodes[at]
	if n.kind != kindArray {
		return 0, false
	}
	length := int64(n.count)
	if index < 0 {
		index += length
	}
	switch {
	case index < 0 || index >= length:
		return 0, false
	case n.next-at == n.count+1:
		return at + 1 + uint32(index), true // no element has others within it, so they lie side by side
	}
	child := at + 1
	for range index {
		if !e.spend(1) {
			return 0, false
		}
		child = e.tree.nodes[child].next
	}
	return child, true
}
