package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

var columns = []string{"figure", "Postern", "bound", "ratio", "goal", "met"}

// row returns what stands in the columns.
func (f figure) row() []string {
	cells := []string{f.Name, value(f.Postern, f.Unit), "", "", f.Goal.String(), f.met()}
	if f.Note != "" {
		cells[1] += " (" + f.Note + ")"
	}
	if !f.Goal.Ratio && f.Goal != (goal{}) {
		cells[4] += unitSuffix(f.Unit)
	}
	if f.Bound != 0 {
		cells[2] = value(f.Bound, f.Unit) + ": " + f.BoundName
		cells[3] = strconv.FormatFloat(f.ratio(), 'f', 2, 64)
	}
	return cells
}

// value writes a figure with three digits or more, and its unit.
func value(x float64, unit string) string { return number(x) + unitSuffix(unit) }

func unitSuffix(unit string) string {
	if unit == "" || strings.HasPrefix(unit, "/") {
		return unit
	}
	return " " + unit
}

func number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 1000:
		return grouped(int64(math.Round(x)))
	case a >= 100 || x == 0:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

// grouped writes n with a comma before each three digits.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func printPlain(w io.Writer, figures []figure) {
	rows := [][]string{columns}
	for _, f := range figures {
		rows = append(rows, f.row())
	}
	widths := make([]int, len(columns))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func printMarkdown(w io.Writer, figures []figure) {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, f := range figures {
		fmt.Fprintf(w, "| %s |\n", strings.Join(f.row(), " | "))
	}
}

func printJSON(w io.Writer, figures []figure) {
	type result struct {
		figure
		Ratio float64 `json:"ratio,omitempty"`
		Met   string  `json:"met,omitempty"`
	}
	results := make([]result, 0, len(figures))
	for _, f := range figures {
		results = append(results, result{f, f.ratio(), f.met()})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(results) // to standard output; a broken pipe ends the program
}

// readFigures reads what printJSON has printed.
func readFigures(files []string) (figures []figure, err error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var some []figure
		if err := json.Unmarshal(text, &some); err != nil {
			return nil, fmt.Errorf("read %q: %w", file, err)
		}
		figures = append(figures, some...)
	}
	return figures, nil
}
