package egress

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// compiler checks one tree of a template and puts our own calls into it: text/template cannot be interrupted, so each
// turn of a loop and each template that is called asks whether it may go on, and all that is written goes through a
// function of ours, as html/template does it for its escaping.
type compiler struct {
	*program
	set  *template.Template // all trees, to look up those that are called
	tree *parse.Tree

	within int // how many branches the place is in
	loops  int // how many of them are loops
}

// How deep branches may be nested. Together with maxRenderNested these bound the stack of a rendering: its overflow
// could not be caught, and an error on its way up through thousands of loops, each of which recovers it and panics
// anew, takes minutes.
const (
	maxBranches = 100
	maxLoops    = 6
)

func (c *compiler) rewrite(top bool) error {
	if c.tree == nil || c.tree.Root == nil {
		return nil
	}
	root := c.tree.Root
	enter := c.hook(root.Pos, enterHook, weight(root))
	if err := c.list(root, top); err != nil {
		return err
	}
	root.Nodes = slices.Concat([]parse.Node{enter}, root.Nodes, []parse.Node{c.hook(root.Pos, leaveHook)})
	return nil
}

// weight is what it costs to go through l once: its length in bytes, as it is written.
func weight(l *parse.ListNode) parse.Node {
	n := len(l.String())
	return &parse.NumberNode{NodeType: parse.NodeNumber, Pos: l.Pos, IsInt: true, Int64: int64(n), Text: strconv.Itoa(n)}
}

// hook is {{if name}}{{end}}: it calls a function that returns false, and writes nothing.
func (c *compiler) hook(pos parse.Pos, name string, args ...parse.Node) parse.Node {
	pipe := &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{c.command(pos, name, args...)}}
	list := &parse.ListNode{NodeType: parse.NodeList, Pos: pos}
	return &parse.IfNode{BranchNode: parse.BranchNode{NodeType: parse.NodeIf, Pos: pos, Pipe: pipe, List: list}}
}

func (c *compiler) command(pos parse.Pos, name string, args ...parse.Node) *parse.CommandNode {
	ident := parse.NewIdentifier(name).SetPos(pos).SetTree(c.tree)
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: append([]parse.Node{ident}, args...)}
}

// list checks and changes the nodes of l. root tells that the dot is the message there.
func (c *compiler) list(l *parse.ListNode, root bool) error {
	if l == nil {
		return nil
	}
	for _, n := range l.Nodes {
		if err := c.node(n, root); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) node(n parse.Node, root bool) error {
	switch n := n.(type) {
	case *parse.TextNode:
		c.literals = append(c.literals, string(n.Text))
	case *parse.ActionNode:
		names, err := c.pipe(n.Pipe, root)
		if err != nil {
			return err
		}
		if len(n.Pipe.Decl) == 0 {
			name := &parse.StringNode{NodeType: parse.NodeString, Pos: n.Pos, Quoted: `""`, Text: names}
			n.Pipe.Cmds = append(n.Pipe.Cmds, c.command(n.Pos, writeHook, name))
		}
	case *parse.IfNode:
		return c.branch(&n.BranchNode, root, root)
	case *parse.WithNode:
		return c.branch(&n.BranchNode, root, false)
	case *parse.RangeNode:
		if c.loops++; c.loops > maxLoops {
			return fmt.Errorf("%s: loops are nested more than %d deep", c.place(n), maxLoops)
		}
		defer func() { c.loops-- }()
		turn := c.hook(n.Pos, stepHook, weight(n.List))
		if err := c.branch(&n.BranchNode, root, false); err != nil {
			return err
		}
		n.Pipe.Cmds = append(n.Pipe.Cmds, c.command(n.Pos, itemsHook))
		n.List.Nodes = append([]parse.Node{turn}, n.List.Nodes...)
	case *parse.TemplateNode:
		if c.set.Lookup(n.Name) == nil {
			return fmt.Errorf("%s: there is no template of that name; define it in the same text", c.place(n))
		}
		if n.Pipe != nil {
			_, err := c.pipe(n.Pipe, root)
			return err
		}
	}
	return nil
}

func (c *compiler) branch(n *parse.BranchNode, root, within bool) error {
	c.branches = true
	if c.within++; c.within > maxBranches {
		return fmt.Errorf("%s: if, with and range are nested more than %d deep", c.place(n), maxBranches)
	}
	defer func() { c.within-- }()
	if _, err := c.pipe(n.Pipe, root); err != nil {
		return err
	}
	if err := c.list(n.List, within); err != nil {
		return err
	}
	return c.list(n.ElseList, root)
}

// pipe checks a pipeline. It returns the fields that it is made of, to be named should one be missing.
func (c *compiler) pipe(p *parse.PipeNode, root bool) (names string, err error) {
	var all []string
	for i, cmd := range p.Cmds {
		given := len(cmd.Args) - 1
		if i > 0 {
			given++ // the value of the command before it
		}
		for j, arg := range cmd.Args {
			if j > 0 {
				given = 0
			}
			found, err := c.arg(arg, given, root)
			if err != nil {
				return "", err
			}
			if found != "" && !slices.Contains(all, found) {
				all = append(all, found)
			}
		}
		names = strings.Join(all, ", ")
		for _, n := range []parse.Node{cmd, cmd.Args[0]} {
			location, _ := c.tree.ErrorContext(n)
			c.names[place(location)] = names
		}
	}
	return names, nil
}

// arg checks one word of a command, where a function gets the given number of arguments.
func (c *compiler) arg(n parse.Node, given int, root bool) (name string, err error) {
	switch n := n.(type) {
	case *parse.PipeNode:
		return c.pipe(n, root)
	case *parse.StringNode:
		c.literals = append(c.literals, n.Text)
	case *parse.IdentifierNode:
		return "", c.call(n, given)
	case *parse.FieldNode:
		if root {
			err = c.field(n, n.Ident[0])
		}
		return n.String(), err
	case *parse.VariableNode:
		if len(n.Ident) > 1 {
			// In another template than the first, $ is what that one was called with.
			if n.Ident[0] == "$" && c.tree == c.set.Tree {
				err = c.field(n, n.Ident[1])
			}
			return n.String(), err
		}
	case *parse.ChainNode:
		name, err = c.arg(n.Node, 0, root)
		return name, err
	}
	return "", nil
}

// field checks a name that stands for something of the message.
func (c *compiler) field(n parse.Node, name string) error {
	t := reflect.TypeFor[*view]()
	if _, ok := t.MethodByName(name); ok {
		return nil
	}
	if f, ok := t.Elem().FieldByName(name); ok && f.IsExported() {
		return nil
	}
	return fmt.Errorf("%s: there is no such field; there are %s", c.place(n), strings.Join(viewNames(), ", "))
}

// withoutCall are the functions of text/template that stay: they make nothing new. Their value is the least and the
// most number of arguments; -1 is any.
var withoutCall = map[string][2]int{"and": {1, -1}, "or": {1, -1}, "not": {1, 1}, "slice": {1, 4}}

// call checks that a function may be called, with that number of arguments.
func (c *compiler) call(n *parse.IdentifierNode, given int) error {
	least, most := 0, 0
	if f, ok := new(run).functions()[n.Ident]; ok {
		t := reflect.TypeOf(f)
		least, most = t.NumIn(), t.NumIn()
		if t.IsVariadic() {
			least, most = least-1, -1
		}
	} else if bounds, ok := withoutCall[n.Ident]; ok {
		least, most = bounds[0], bounds[1]
	} else {
		return fmt.Errorf("%s: the function %s is not available; there are %s", c.place(n), n.Ident, functionNames())
	}
	if given < least || most >= 0 && given > most {
		return fmt.Errorf("%s: %s gets %d arguments; write %s", c.place(n), n.Ident, given, arity(least, most))
	}
	return nil
}

func arity(least, most int) string {
	switch {
	case most < 0:
		return fmt.Sprintf("at least %d", least)
	case least < most:
		return fmt.Sprintf("%d to %d", least, most)
	}
	return fmt.Sprint(least)
}

func functionNames() string {
	var names []string
	for name := range new(run).functions() {
		names = append(names, name)
	}
	for name := range withoutCall {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// viewNames are the names that a template has for the message.
func viewNames() []string {
	t := reflect.TypeFor[*view]()
	var names []string
	for i := range t.NumMethod() {
		names = append(names, "."+t.Method(i).Name)
	}
	for i := range t.Elem().NumField() {
		if f := t.Elem().Field(i); f.IsExported() {
			names = append(names, "."+f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// place says where n stands, for a person.
func (c *compiler) place(n parse.Node) string {
	location, _ := c.tree.ErrorContext(n)
	return spell(place(location))
}
