package egress

import (
	"fmt"
	"strconv"
	"strings"
)

// Success is the set of statuses that mean a delivery has arrived. The zero value is 2xx. Values can be compared.
type Success struct {
	set [10]uint64 // bit n of the whole is status n; all zero means 2xx
}

// ParseSuccess reads a list of statuses: one ("204"), a hundred ("2xx") or a range ("200-299"). An empty list is
// the zero value. 1xx is no final answer, and 3xx can never be success: a redirect was not followed, so the
// message has not arrived.
func ParseSuccess(list []string) (Success, error) {
	var s Success
	for _, text := range list {
		from, to, err := parseStatuses(text)
		if err != nil {
			return Success{}, err
		}
		for status := from; status <= to; status++ {
			s.set[status/64] |= 1 << (status % 64)
		}
	}
	return s, nil
}

func parseStatuses(text string) (from, to int, err error) {
	malformed := fmt.Errorf("%q is not a status; write one like 204, 2xx or 200-299", clip(text, 32))
	lower, upper, isRange := strings.Cut(text, "-")
	switch {
	case isRange:
		var okFrom, okTo bool
		from, okFrom = parseStatus(lower)
		to, okTo = parseStatus(upper)
		if !okFrom || !okTo {
			return 0, 0, malformed
		}
		if from > to {
			return 0, 0, fmt.Errorf("%q is an empty range; write %d-%d", text, to, from)
		}
	case len(text) == 3 && strings.EqualFold(text[1:], "xx") && text[0] >= '1' && text[0] <= '5':
		from = int(text[0]-'0') * 100
		to = from + 99
	default:
		var ok bool
		if from, ok = parseStatus(text); !ok {
			return 0, 0, malformed
		}
		to = from
	}
	if from < 200 {
		return 0, 0, fmt.Errorf("%q cannot mean success: 1xx is not a final answer", text)
	}
	if from < 400 && to >= 300 {
		return 0, 0, fmt.Errorf("%q cannot mean success: redirects are never followed, so nothing has arrived", text)
	}
	return from, to, nil
}

// parseStatus takes three digits from 100 to 599.
func parseStatus(text string) (int, bool) {
	if len(text) != 3 || text[0] < '1' || text[0] > '5' {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil
}

// Has reports whether status means success.
func (s Success) Has(status int) bool {
	if s == (Success{}) {
		return status >= 200 && status <= 299
	}
	return status >= 0 && status < 64*len(s.set) && s.set[status/64]&(1<<(status%64)) != 0
}
