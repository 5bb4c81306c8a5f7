package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// flagLine is a line of a help text that begins with a flag.
var flagLine = regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)

// TestCommandsAreDocumented holds docs/commands.md against the commands: each one and each flag is there, and no other.
func TestCommandsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "commands.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	flags := map[string]bool{"help": true}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Hidden || sub.Name() == "help" {
				continue
			}
			if !sub.HasSubCommands() && !strings.Contains(text, "`"+sub.CommandPath()) {
				t.Errorf("%s is not in docs/commands.md", sub.CommandPath())
			}
			visit(sub)
		}
		for _, f := range flagLine.FindAllStringSubmatch(cmd.LocalFlags().FlagUsages(), -1) {
			flags[f[1]] = true
			if f[1] != "help" && !regexp.MustCompile("--"+f[1]+`\b`).MatchString(text) {
				t.Errorf("--%s of %s is not in docs/commands.md", f[1], cmd.CommandPath())
			}
		}
	}
	visit((&program{}).root())
	for _, found := range regexp.MustCompile(`--([a-z][a-z-]*)`).FindAllStringSubmatch(text, -1) {
		if !flags[found[1]] {
			t.Errorf("docs/commands.md has --%s, and no command does", found[1])
		}
	}
}
