package egress

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/template"
	"time"
)

// Bounds of a template (T10). The steps and the bytes bound it in a way that is the same on every machine; the time
// is what they come to on one that is not much too slow.
const (
	maxTemplate     = 64 << 10               // bytes of its text
	maxOutput       = 1 << 20                // bytes of what it writes
	maxRenderTime   = 100 * time.Millisecond // of one rendering
	maxRenderSteps  = 1_000_000              // turns of loops, calls of functions and of templates
	maxRenderBytes  = 16 << 20               // bytes that one rendering goes through and makes, kept or not
	maxRenderNested = 30                     // calls of templates within templates
)

// Before it has done this much, a rendering is not held to its time: it is the machine that stood still then, and a
// message must not fail for that.
const (
	freeSteps = 10_000
	freeBytes = 2 << 20
)

// program is a template that is ready to be rendered by many goroutines at once.
type program struct {
	base     *template.Template // only ever cloned
	runs     sync.Pool          // of *run
	names    map[string]string  // what an expression is made of, by its place, as in "3:14"
	literals []string           // the texts and strings that are written in it
	branches bool               // it has an if, a with or a range
}

// isTemplate reports whether the value of h is a template.
func (h Header) isTemplate() bool { return !h.Literal && strings.Contains(h.Value, "{{") }

// compile reads a template. Its error is for the one who wrote it: it says the place and the cause, and repeats nothing
// of the text, of which an expanded secret may be a part.
func compile(text string) (*program, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("the template has %d bytes; at most %d are allowed", len(text), maxTemplate)
	}
	t, err := template.New("t").Funcs(new(run).functions()).Parse(text)
	if err != nil {
		return nil, parseFault(err)
	}
	p := &program{names: make(map[string]string)}
	for _, each := range t.Templates() {
		c := compiler{program: p, set: t, tree: each.Tree}
		if err := c.rewrite(each == t); err != nil {
			return nil, err
		}
	}
	p.base = t.Funcs(new(run).hooks())
	return p, nil
}

// run is the state of one rendering. text/template gives functions no context, so that each state has a clone of the
// template to itself, with functions that are bound to it.
type run struct {
	template *template.Template
	output   []byte
	begin    time.Time // by the monotonic clock
	steps    int
	made     int
	nested   int
	now      time.Time // the time of the attempt
	sample   bool      // the data is not known, and what is missing is made up
	guessed  bool      // something was made up
}

// newRun returns a run that is ready, from the pool if there is one.
func (p *program) newRun() (*run, error) {
	if r, ok := p.runs.Get().(*run); ok {
		return r, nil
	}
	t, err := p.base.Clone()
	if err != nil {
		return nil, fmt.Errorf("copy the template: %w", err)
	}
	r := new(run)
	r.template = t.Funcs(r.functions()).Funcs(r.hooks())
	return r, nil
}

// render returns what the template makes of v. An error is a *renderFault: its text is built from the place and the
// cause, since text/template quotes the expression, where an expanded secret may stand.
func (p *program) render(v *view) ([]byte, error) {
	r, err := p.newRun()
	if err != nil {
		return nil, err
	}
	*r = run{template: r.template, output: r.output[:0], begin: time.Now(), now: v.now, sample: v.sample}
	err = r.execute(v)
	v.guessed = v.guessed || r.guessed
	if err != nil {
		return nil, p.explain(err, v) // and r is left to the collector: who knows in what state it is
	}
	out := append([]byte(nil), r.output...)
	p.runs.Put(r)
	return out, nil
}

// execute turns a panic of text/template, which lets those of the runtime through, into an error: a message that
// brings one about would bring it about after each restart again (T49).
func (r *run) execute(v *view) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("panic")
		}
	}()
	return r.template.Execute(r, v)
}

// Write is where the template writes to.
func (r *run) Write(b []byte) (int, error) {
	if len(r.output)+len(b) > maxOutput {
		return 0, limited("it makes more than %d bytes", maxOutput)
	}
	r.output = append(r.output, b...)
	return len(b), nil
}

// step is called in each turn of a loop, and by each function.
func (r *run) step() error {
	if r.steps++; r.steps > maxRenderSteps {
		return limited("it takes more than %d steps", maxRenderSteps)
	}
	if (r.steps > freeSteps || r.made > freeBytes) && time.Since(r.begin) > maxRenderTime {
		return limited("it takes longer than %v", maxRenderTime)
	}
	return nil
}

// charge counts n bytes that a function makes or goes through, or of the template itself that are executed again.
func (r *run) charge(n int) error {
	if n > maxRenderBytes || r.made > maxRenderBytes-n {
		return limited("it goes through more than %d bytes", maxRenderBytes)
	}
	r.made += n
	return nil
}

// spend is charge as the step of a function.
func (r *run) spend(n int) error {
	if err := r.charge(n); err != nil {
		return err
	}
	return r.step()
}

// chargeFor counts what it costs to look at values once: a text and a number may be as long as the body.
func (r *run) chargeFor(values ...any) error {
	for _, v := range values {
		n := 0
		switch v := v.(type) {
		case string:
			n = len(v)
		case number:
			n = len(v)
		}
		if err := r.charge(n); err != nil {
			return err
		}
	}
	return nil
}

// result counts what a function has made.
func (r *run) result(b []byte) (string, error) {
	if len(b) > maxOutput {
		return "", limited("a function makes more than %d bytes", maxOutput)
	}
	return string(b), r.spend(len(b))
}

// The names of the functions that the compiler puts into a template. They are bound after parsing, so no template can
// call them itself.
const (
	stepHook  = "_step"
	enterHook = "_enter"
	leaveHook = "_leave"
	itemsHook = "_items"
	writeHook = "_write"
)

func (r *run) hooks() template.FuncMap {
	return template.FuncMap{
		stepHook: func(weight int) (bool, error) { return false, r.spend(weight) },
		enterHook: func(weight int) (bool, error) {
			if r.nested++; r.nested > maxRenderNested {
				return false, limited("its templates call one another more than %d deep", maxRenderNested)
			}
			return false, r.spend(weight)
		},
		leaveHook: func() bool { r.nested--; return false },
		itemsHook: r.items,
		writeHook: r.write,
	}
}
