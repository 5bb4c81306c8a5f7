package main

import (
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// column of a table. Set its fields, then add rows.
type column struct {
	title string
	right bool // numbers stand at the right
	least int  // columns to which it may be cut; 0 means that it is never cut
	rank  int  // of the columns that can be left out, the one with the highest rank goes first; 0 means it always stays
}

// cell is one value of a row, clean and on one line.
type cell struct {
	text  string
	style lipgloss.Style
}

func plainCell(text string) cell { return cell{text: text} }

// table lays out rows so that they fit a width. What must not be cut (ids, names of destinations) is not: other columns
// give way, first by being cut to their least width and then by being left out. If that is not enough, lines are longer
// than the width.
type table struct {
	columns []column
	width   int // 0 means any

	rows   [][]cell
	widths []int // of the columns, at least; kept from page to page
}

const gap = 2 // between two columns

func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// write writes the rows that were added, and the titles if asked for, and forgets the rows.
func (t *table) write(s *screen, titles bool) {
	if t.widths == nil {
		t.widths = make([]int, len(t.columns))
		for i, c := range t.columns {
			t.widths[i] = lipgloss.Width(c.title)
		}
	}
	for _, row := range t.rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], lipgloss.Width(c.text))
		}
	}
	fitted := fit(t.columns, t.widths, t.width)
	if titles {
		row := make([]cell, len(t.columns))
		for i, c := range t.columns {
			row[i] = cell{c.title, s.faint}
		}
		s.line(t.join(row, fitted))
	}
	for _, row := range t.rows {
		s.line(t.join(row, fitted))
	}
	t.rows = t.rows[:0]
}

// join makes one line; a column of width 0 is left out.
func (t *table) join(row []cell, widths []int) string {
	var b strings.Builder
	pending := 0 // spaces, which are written only if something follows
	for i, c := range row {
		if widths[i] == 0 {
			continue
		}
		text := cut(c.text, widths[i])
		space := widths[i] - lipgloss.Width(text)
		if t.columns[i].right {
			pending += space
			space = 0
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", pending))
			pending = 0
			b.WriteString(c.style.Render(text))
		}
		pending += space + gap
	}
	return b.String()
}

// fit returns the widths of columns so that they fit a terminal; 0 leaves one out.
func fit(columns []column, wanted []int, width int) []int {
	left := slices.Clone(wanted)
	for {
		widths := squeeze(columns, left, width)
		last := -1
		for i, c := range columns {
			if c.rank > 0 && left[i] > 0 && (last < 0 || c.rank > columns[last].rank) {
				last = i
			}
		}
		if width == 0 || last < 0 || excess(widths, width) <= 0 {
			return widths
		}
		left[last] = 0
	}
}

// squeeze cuts columns, the widest first, until they fit or none can be cut further.
func squeeze(columns []column, wanted []int, width int) []int {
	widths := slices.Clone(wanted)
	for width > 0 && excess(widths, width) > 0 {
		widest := -1
		for i, c := range columns {
			if c.least > 0 && widths[i] > c.least && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// excess returns by how much a line is too long.
func excess(widths []int, width int) int {
	total := -gap
	for _, w := range widths {
		if w > 0 {
			total += w + gap
		}
	}
	return total - width
}

// cut shortens a text to a width, with an ellipsis.
func cut(text string, width int) string {
	if lipgloss.Width(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return lipgloss.NewStyle().MaxWidth(width-1).Render(text) + "…"
}
