package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// completeTime bounds how long a shell waits for its user's Tab key.
const completeTime = 500 * time.Millisecond

// completeFlag registers a completion; a flag that is not there is a mistake of ours.
func (p *program) completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}

// fixed completes from a list.
func fixed(words []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// completeDestination completes the only argument of a command, a destination.
func (p *program) completeDestination(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.completeDestinations(cmd, args, begun)
}

// completeDestinations completes the names of destinations: those of the running Postern if it answers soon, else those
// of the config file. Those that stand there already are left out.
func (p *program) completeDestinations(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []string
	if client, err := p.quietly().adminClient(); err == nil {
		client.Timeout = completeTime
		if list, err := client.Destinations(cmd.Context()); err == nil {
			for _, d := range list {
				names = append(names, d.Name)
			}
		}
	}
	if names == nil {
		names = slices.Sorted(maps.Keys(p.looseConfig(false).Destinations))
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, begun) || !isWord(name) || slices.Contains(args, name)
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeDeliveries completes ids from the latest deliveries in a state, or in any if it is empty, and says what they
// are.
func (p *program) completeDeliveries(state string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := p.quietly().adminClient()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client.Timeout = completeTime
		page, err := client.Deliveries(cmd.Context(), admin.DeliveryQuery{DeliveryFilter: admin.DeliveryFilter{State: state}})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []cobra.Completion
		s := &screen{now: time.Now()}
		for _, d := range page.Deliveries {
			if strings.HasPrefix(d.ID, begun) && !slices.Contains(args, d.ID) && isWord(d.ID) {
				about := fmt.Sprintf("%s %s %s, %s", d.Destination, d.Event, d.State, s.age(d.AcceptedAt))
				ids = append(ids, cobra.CompletionWithDesc(d.ID, clean(about)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// isWord reports whether a shell takes a text as it is: some put what completions have in common into the command line
// without quoting it, and whoever answers at the address need not be a relay.
func isWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// quietly returns a copy of the program that says nothing: what it would say does not belong between a person's keys.
func (p *program) quietly() *program {
	quiet := *p
	quiet.stderr = io.Discard
	return &quiet
}

// states returns the states of deliveries.
func states() []string {
	var names []string
	for s := store.Pending; s <= store.Canceled; s++ {
		names = append(names, s.String())
	}
	return names
}

// classes returns the classes of attempts.
func classes() []string {
	var names []string
	for c := store.ClassOK; c <= store.ClassInterrupted; c++ {
		names = append(names, c.String())
	}
	return names
}

// alternatives writes a list for a help text: a, b or c.
func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
