package config

import "strings"

// Nearest returns the known word that a person may have meant, or an empty text. Case, hyphens and underscores
// do not count.
func Nearest(word string, known []string) string {
	const longest = 80 // bounds the work for hostile keys
	if len(word) > longest {
		return ""
	}
	plain := plainWord(word)
	best, bestDistance := "", max(1, len(plain)/3)+1
	for _, k := range known {
		if d := distance(plain, plainWord(k), bestDistance); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

func plainWord(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours that turn a into b. From limit
// on it may return any number that is not below limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(old[j]+cost, old[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(b)]
}
