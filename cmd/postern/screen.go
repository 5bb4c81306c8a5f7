package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"github.com/postern-relay/postern/relay/admin"
)

// palette is the few styles that the program uses. The zero value leaves texts as they are.
type palette struct {
	strong, good, bad, warn, faint lipgloss.Style
}

// palette returns the styles for an output: colours on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb say
// otherwise.
func (p *program) palette(out io.Writer) palette {
	if !isTerminal(out) || p.getenv("NO_COLOR") != "" || p.getenv("TERM") == "dumb" {
		return palette{}
	}
	colour := func(index string) lipgloss.Style { return lipgloss.NewStyle().Foreground(lipgloss.Color(index)) }
	return palette{
		strong: lipgloss.NewStyle().Bold(true), faint: lipgloss.NewStyle().Faint(true),
		good: colour("2"), bad: colour("1"), warn: colour("3"),
	}
}

// state returns the style of a delivery's state.
func (c palette) state(state string) lipgloss.Style {
	switch state {
	case "delivered":
		return c.good
	case "failed":
		return c.bad
	case "canceled":
		return c.faint
	}
	return c.warn
}

// class returns the style of an attempt's class.
func (c palette) class(class string) lipgloss.Style {
	switch class {
	case "ok":
		return c.good
	case "interrupted":
		return c.faint
	}
	return c.bad
}

// screen is an output for people.
type screen struct {
	palette
	out   io.Writer
	width int       // columns; 0 means that lines may be of any length
	now   time.Time // that ages count to
}

func (p *program) screen() *screen {
	return &screen{palette: p.palette(p.stdout), out: p.stdout, width: columns(p.stdout), now: time.Now()}
}

// columns returns the width of a terminal, and 0 for what is none or does not tell.
func columns(out io.Writer) int {
	width, _ := dimensions(out)
	return width
}

// rows returns the height of the terminal, and 0 likewise.
func (p *program) rows() int {
	_, height := dimensions(p.stdout)
	return height
}

func dimensions(out io.Writer) (width, height int) {
	f, ok := out.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// line writes one line. The texts are clean.
func (s *screen) line(text string) { fmt.Fprintln(s.out, text) }

// heading writes the title of a section after an empty line.
func (s *screen) heading(text string) { fmt.Fprintf(s.out, "\n%s\n", s.strong.Render(text)) }

// field writes a label and its value, which is clean.
func (s *screen) field(label, value string) {
	if value != "" {
		fmt.Fprintf(s.out, "  %s %s\n", s.faint.Render(fmt.Sprintf("%-12s", label)), value)
	}
}

// block writes a text of several lines, indented. The text is not yet clean.
func (s *screen) block(text string) {
	for line := range strings.Lines(cleanBlock(strings.TrimSuffix(text, "\n"))) {
		fmt.Fprintf(s.out, "    %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// age says how long ago a time was, or how far ahead it is, in one unit.
func (s *screen) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := s.now.Sub(t)
	if d < -time.Second/2 {
		return "in " + span(-d)
	}
	return span(max(d, 0)) + " ago"
}

// moment is a time in full with its age.
func (s *screen) moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return clock(t) + s.faint.Render(" ("+s.age(t)+")")
}

// span writes a duration in its largest unit: 4s, 12m, 5h, 3d.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// took writes how long something took, in three digits or so.
func took(seconds float64) string {
	switch ms := seconds * 1000; {
	case ms <= 0:
		return "0"
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0fms", ms)
	case seconds < 100:
		return fmt.Sprintf("%.1fs", seconds)
	case seconds < 600: // so that it is seen which of two is longer
		return fmt.Sprintf("%.1fm", seconds/60)
	}
	return span(time.Duration(seconds * float64(time.Second)))
}

// size writes a number of bytes.
func size(n int) string {
	switch {
	case n == 1:
		return "1 byte"
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// stateOf says how a delivery stands, with what holds it.
func stateOf(d admin.Delivery) string {
	switch {
	case d.Held != "":
		return d.State + ", held: " + string(d.Held)
	case d.Blocking:
		return d.State + ", blocking"
	}
	return d.State
}

// outcomeOf says what came of the latest attempt, for a line. It is not clean.
func outcomeOf(o *admin.Outcome) string {
	switch {
	case o == nil:
		return ""
	case o.Status != 0 && strings.Contains(o.Error, strconv.Itoa(o.Status)):
		return strings.TrimPrefix(o.Error, "answered ")
	case o.Status != 0 && o.Error != "":
		return fmt.Sprintf("%d %s", o.Status, o.Error)
	case o.Status != 0:
		return strconv.Itoa(o.Status)
	case o.Error != "":
		return o.Class + ": " + o.Error
	}
	return o.Class
}
