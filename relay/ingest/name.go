package ingest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// The headers that are meant for Postern alone, in canonical form, besides store.HopsHeader and store.ReplayHeader. What a
// relay in front marks as its replay is a message like any other here.
const (
	ownPrefix   = "Postern-"
	orderHeader = "Postern-Key"
	delayHeader = "Postern-Delay"
	atHeader    = "Postern-Deliver-At"
)

// checkNames refuses a header that is meant for Postern and that it does not know. The app relies on what it asked
// for: a delay that is misspelt must not become a message that is sent at once.
func checkNames(h http.Header) error {
	var unknown []string
	for name := range h {
		switch name {
		case orderHeader, delayHeader, atHeader, store.HopsHeader, store.ReplayHeader:
		default:
			if strings.HasPrefix(name, ownPrefix) {
				unknown = append(unknown, name)
			}
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	name := slices.Min(unknown)
	if nearest := nearestName(name); nearest != "" {
		return problem.New(http.StatusBadRequest, "%.60s is not known; did you mean %s?", name, nearest)
	}
	return problem.New(http.StatusBadRequest, "%.60s is not known; there are %s, %s and %s", name, orderHeader, delayHeader, atHeader)
}

// nearestName returns the header that a misspelt one may stand for, or nothing if it is like none.
func nearestName(name string) string {
	nearest, least := "", len(name)
	for _, known := range [...]string{orderHeader, delayHeader, atHeader, store.HopsHeader} {
		limit := min((len(known)-len(ownPrefix))/2+1, least) // half of the letters may be wrong
		if n := wrongLetters(name, known, limit); n < limit {
			nearest, least = known, n
		}
	}
	return nearest
}

// wrongLetters returns how many letters must be added, taken away or replaced to make b of a. Whatever is limit or
// more is limit, found without looking at all of a, which anybody may have sent.
func wrongLetters(a, b string, limit int) int {
	if len(a) >= len(b)+limit || len(b) >= len(a)+limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := corner
			if a[i] != b[j] {
				n++
			}
			corner = row[j+1]
			row[j+1] = min(n, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
