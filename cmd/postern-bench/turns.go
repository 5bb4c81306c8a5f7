package main

import "fmt"

// inTurns calls do with each side in each round. Nobody is always the first.
func (b *bench) inTurns(sides []string, do func(side string) error) error {
	for round := range b.rounds {
		for i := range sides {
			side := sides[(i+round)%len(sides)]
			if err := do(side); err != nil {
				return fmt.Errorf("%s: %w", side, err)
			}
		}
	}
	return nil
}
