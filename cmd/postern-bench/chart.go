package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"text/template"
)

// The chart has a column of panels for each axis of the growth and a row for each kind of figure.
const (
	panelWidth  = 430
	panelHeight = 150
	plotLeft    = 62 // of a panel, for the labels of its own axis
	plotRight   = 24
	plotTop     = 34
	plotBottom  = 26
	marginTop   = 64
	columnGap   = 20
	marginLeft  = 10
)

// panelKind is a row of the chart.
type panelKind struct {
	title  string
	unit   string
	series []string // at most two
}

func panelKinds() []panelKind {
	return []panelKind{
		{"Accepted durably, 64 connections", "messages a second", []string{seriesAccepts}},
		{"Delivered", "messages a second", []string{seriesDeliver}},
		{"Post to receipt at 100 a second", "milliseconds", []string{seriesReceipt, seriesTail}},
		{"Resident memory, at rest", "MiB", []string{seriesMemory}},
		{"Start to ready after kill -9", "seconds", []string{seriesStart}},
	}
}

// chart is what the template draws.
type chart struct {
	Width, Height int
	Columns       []heading
	Panels        []panel
}

type heading struct {
	X    int
	Text string
}

type panel struct {
	X, Y        int
	Title, Unit string
	Ticks       []tick // of the upright axis
	Marks       []tick // of the other one
	Lines       []line
	Left, Right int // of the plot
	Base        int
}

type tick struct {
	At    float64
	Label string
}

type line struct {
	Class  string
	Points []point
	Path   string
	Name   string // at the right end; empty if the panel has one line
	NameX  float64
	NameY  float64
}

type point struct {
	X, Y   float64
	Label  string
	LabelY float64
}

// writeChart draws the growth into an SVG file.
func writeChart(path string, figures []figure) error {
	c := newChart(figures)
	if len(c.Panels) == 0 {
		return errors.New("nothing to draw: the chart is made of the measurements growth and destinations")
	}
	var out bytes.Buffer
	if err := chartTemplate().Execute(&out, c); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

func newChart(figures []figure) chart {
	c := chart{}
	titles := map[string]string{axisPending: "by pending messages", axisDestinations: "by destinations, 90 % of them dead"}
	for _, axis := range []string{axisPending, axisDestinations} {
		var of []figure
		for _, f := range figures {
			if f.Axis == axis {
				of = append(of, f)
			}
		}
		if len(of) == 0 {
			continue
		}
		x := marginLeft + len(c.Columns)*(panelWidth+columnGap)
		c.Columns = append(c.Columns, heading{x + plotLeft, titles[axis]})
		for row, kind := range panelKinds() {
			c.Panels = append(c.Panels, newPanel(kind, figures, of, x, marginTop+row*panelHeight))
		}
	}
	c.Width = 2*marginLeft + len(c.Columns)*(panelWidth+columnGap) - columnGap
	c.Height = marginTop + len(panelKinds())*panelHeight + 12
	return c
}

// newPanel draws one kind of figure along the axis that of belong to, at the scale of all.
func newPanel(kind panelKind, all, of []figure, x, y int) panel {
	p := panel{X: x, Y: y, Title: kind.title, Unit: kind.unit, Left: plotLeft, Right: panelWidth - plotRight, Base: panelHeight - plotBottom}
	most := 0.0
	for _, f := range all {
		if slices.Contains(kind.series, f.Series) {
			most = max(most, f.Postern)
		}
	}
	step := niceStep(most / 3)
	top := step * math.Ceil(1.15*most/step) // room for the labels above
	if top == 0 {
		top, step = 1, 1
	}
	height := func(v float64) float64 { return float64(p.Base) - v/top*float64(p.Base-plotTop) }
	for v := 0.0; v <= top*1.001; v += step {
		p.Ticks = append(p.Ticks, tick{height(v), axisNumber(v)})
	}
	var xs []float64
	for _, f := range of {
		if !slices.Contains(xs, f.X) {
			xs = append(xs, f.X)
		}
	}
	slices.Sort(xs)
	const inset = 34 // so that labels of the first and the last point stay within
	place := func(v float64) float64 {
		i := slices.Index(xs, v)
		return plotLeft + inset + float64(i)*float64(p.Right-plotLeft-2*inset)/float64(max(1, len(xs)-1))
	}
	for _, v := range xs {
		p.Marks = append(p.Marks, tick{place(v), grouped(int64(v))})
	}
	for i, series := range kind.series {
		l := line{Class: fmt.Sprintf("s%d", i)}
		for _, f := range of {
			if f.Series != series {
				continue
			}
			q := point{X: place(f.X), Y: height(f.Postern), Label: shortNumber(f.Postern)}
			q.LabelY = p.labelY(i, len(kind.series), q)
			l.Points = append(l.Points, q)
			l.Path += fmt.Sprintf("%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[l.Path == ""], q.X, q.Y)
		}
		if n := len(l.Points); n > 0 && len(kind.series) > 1 {
			l.Name = series[len(series)-3:] // p50 or p99
			l.NameX, l.NameY = l.Points[n-1].X+24, l.Points[n-1].LabelY
		}
		p.Lines = append(p.Lines, l)
	}
	return p
}

// labelY returns where the label of a point of the i-th line stands. The lower one of two lines has its labels below, if
// there is room above the base; where there is none, those of the other line keep clear of them.
func (p *panel) labelY(i, lines int, q point) float64 {
	const above, below, apart = 7, 15, 12
	if lines > 1 && i == 0 && q.Y+below+1 < float64(p.Base) {
		return q.Y + below
	}
	y := q.Y - above
	for _, l := range p.Lines {
		for _, other := range l.Points {
			if other.X == q.X {
				y = min(y, other.LabelY-apart)
			}
		}
	}
	return y
}

// niceStep returns the smallest of 1, 2, 5 times a power of ten that is not below x.
func niceStep(x float64) float64 {
	if x <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= x*0.999 {
			return m * power
		}
	}
	return 10 * power
}

func axisNumber(v float64) string {
	if v >= 1000 {
		return grouped(int64(math.Round(v)))
	}
	return fmt.Sprintf("%.4g", v)
}

// shortNumber writes a figure with two or three digits.
func shortNumber(v float64) string {
	if v >= 1000 {
		return grouped(int64(math.Round(v/10)) * 10)
	}
	if v < 1 {
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// chartTemplate has its own colors for light and dark, and a ground of its own, so that it is readable on any page.
func chartTemplate() *template.Template {
	return template.Must(template.New("chart").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" role="img" aria-labelledby="title" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif" font-size="11">
<title id="title">How the cost grows with pending messages and with destinations</title>
<style>
  svg { --g: #ffffff } .ground { fill: var(--g) } .text { fill: #1f2328 } .quiet { fill: #59636e } .grid { stroke: #d1d9e0 } .axis { stroke: #818b98 }
  .s0 { --c: #0969da } .s1 { --c: #bc4c00 }
  .line { fill: none; stroke: var(--c); stroke-width: 2 } .dot { fill: var(--c) } .value { fill: var(--c); font-weight: 600; stroke: var(--g); stroke-width: 3; paint-order: stroke }
  @media (prefers-color-scheme: dark) {
    svg { --g: #0d1117 } .text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #30363d } .axis { stroke: #656c76 }
    .s0 { --c: #58a6ff } .s1 { --c: #f0883e }
  }
</style>
<rect class="ground" width="100%" height="100%" rx="6"/>
<text class="text" x="10" y="24" font-size="16" font-weight="600">How the cost grows</text>
{{range .Columns}}<text class="text" x="{{.X}}" y="50" font-size="13" font-weight="600">{{.Text}}</text>
{{end}}{{range .Panels}}<g transform="translate({{.X}} {{.Y}})">
<text class="text" x="{{.Left}}" y="18" font-weight="600">{{.Title}}<tspan class="quiet" font-weight="400" dx="6">{{.Unit}}</tspan></text>
{{$p := .}}{{range .Ticks}}<line class="grid" x1="{{$p.Left}}" x2="{{$p.Right}}" y1="{{printf "%.1f" .At}}" y2="{{printf "%.1f" .At}}"/><text class="quiet" x="{{$p.Left}}" dx="-6" y="{{printf "%.1f" .At}}" dy="4" text-anchor="end">{{.Label}}</text>
{{end}}<line class="axis" x1="{{.Left}}" x2="{{.Right}}" y1="{{.Base}}" y2="{{.Base}}"/>
{{range .Marks}}<text class="quiet" x="{{printf "%.1f" .At}}" y="{{$p.Base}}" dy="16" text-anchor="middle">{{.Label}}</text>
{{end}}{{range .Lines}}<g class="{{.Class}}"><path class="line" d="{{.Path}}"/>
{{range .Points}}<circle class="dot" cx="{{printf "%.1f" .X}}" cy="{{printf "%.1f" .Y}}" r="3"/>
{{end}}</g>
{{end}}{{range .Lines}}<g class="{{.Class}}">
{{range .Points}}<text class="value" x="{{printf "%.1f" .X}}" y="{{printf "%.1f" .LabelY}}" text-anchor="middle">{{.Label}}</text>
{{end}}{{if .Name}}<text class="value" x="{{printf "%.1f" .NameX}}" y="{{printf "%.1f" .NameY}}">{{.Name}}</text>
{{end}}</g>
{{end}}</g>
{{end}}</svg>
`))
}
