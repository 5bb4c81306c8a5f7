package egress

import (
	"strings"
	"testing"
)

func TestParseSuccess(t *testing.T) {
	for _, c := range []struct {
		list    string // separated by spaces
		in, out []int
	}{
		{"", []int{200, 204, 299}, []int{0, 100, 199, 300, 404, 500, 599, 999, -1}},
		{"2xx", []int{200, 299}, []int{199, 300}},
		{"2XX", []int{200, 299}, []int{199, 300}},
		{"204", []int{204}, []int{200, 203, 205}},
		{"200-299", []int{200, 299}, []int{199, 300}},
		{"201-203", []int{201, 202, 203}, []int{200, 204}},
		{"200 409", []int{200, 409}, []int{201, 408, 410}},
		{"2xx 410", []int{250, 410}, []int{409, 411}},
		{"5xx", []int{500, 599}, []int{499, 600, 639, 640}},
		{"599", []int{599}, []int{200, 598, 600}},
	} {
		t.Run("list "+c.list, func(t *testing.T) {
			got, err := ParseSuccess(strings.Fields(c.list))
			if err != nil {
				t.Fatal(err)
			}
			for _, status := range c.in {
				if !got.Has(status) {
					t.Errorf("%d is no success", status)
				}
			}
			for _, status := range c.out {
				if got.Has(status) {
					t.Errorf("%d is a success", status)
				}
			}
		})
	}
	for text, want := range map[string]string{
		"":          "is not a status",
		"20":        "is not a status",
		"2000":      "is not a status",
		"ok":        "is not a status",
		"2x":        "is not a status",
		"0xx":       "is not a status",
		"6xx":       "is not a status",
		"+20":       "is not a status",
		"2 0":       "is not a status",
		"200-":      "is not a status",
		"-299":      "is not a status",
		"2xx-3xx":   "is not a status",
		"200-2999":  "is not a status",
		"299-200":   "write 200-299",
		"600":       "is not a status",
		"1xx":       "1xx is not a final answer",
		"101":       "1xx is not a final answer",
		"150-250":   "1xx is not a final answer",
		"3xx":       "redirects are never followed",
		"302":       "redirects are never followed",
		"200-302":   "redirects are never followed",
		"200-500":   "redirects are never followed",
		"２００":       "is not a status",
		"200\n":     "is not a status",
		"\x00\x00x": "is not a status",
	} {
		t.Run("refused "+text, func(t *testing.T) {
			if _, err := ParseSuccess([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		})
	}
}

func FuzzParseSuccess(f *testing.F) {
	for _, text := range []string{"2xx", "204", "200-299", "299-200", "1xx", "9999999999", "-", "é"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSuccess([]string{text})
		if err != nil {
			return
		}
		if s == (Success{}) {
			t.Errorf("%q is accepted and names no status", text)
		}
		for status := -1; status < 700; status++ {
			if s.Has(status) && (status < 200 || status > 599 || status >= 300 && status < 400) {
				t.Errorf("%q makes %d a success", text, status)
			}
		}
	})
}
