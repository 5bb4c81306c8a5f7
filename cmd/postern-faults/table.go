package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// line is what one test says that it has run.
type line struct {
	category string
	text     string
	where    string // package and test
	failed   bool
}

// summary is what has been run, and what has gone wrong.
type summary struct {
	lines  []line
	faults []string
}

// table returns the lines of some categories as a table in Markdown.
func (s *summary) table(only []string) string {
	var b strings.Builder
	b.WriteString("\n| category | what was run | test | result |\n| --- | --- | --- | --- |\n")
	for _, category := range only {
		for _, l := range s.lines {
			if l.category != category {
				continue
			}
			result := "passed"
			if l.failed {
				result = "**failed**"
			}
			fmt.Fprintf(&b, "| %s | %s | `%s` | %s |\n", l.category, strings.ReplaceAll(l.text, "|", "\\|"), l.where, result)
		}
	}
	return b.String()
}

// verdict returns what keeps the whole from having passed: tests that have failed or said nothing, categories that do not
// exist, and those of which nothing was run, unless only some tests were asked for.
func (s *summary) verdict(o options) error {
	faults := slices.Clone(s.faults)
	ran := map[string]bool{}
	for _, l := range s.lines {
		ran[l.category] = true
		if !slices.Contains(categories(), l.category) {
			faults = append(faults, fmt.Sprintf("%s names a category that there is not: %q", l.where, l.category))
		}
	}
	for _, c := range o.only {
		if !ran[c] && o.run == "" {
			faults = append(faults, fmt.Sprintf("nothing of the category %s was run", c))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New("\n  " + strings.Join(faults, "\n  "))
}
