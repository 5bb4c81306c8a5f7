package match_test

import (
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		name, pattern, event string
		want                 bool
	}{
		{"a plain pattern matches its event", "alert.fired", "alert.fired", true},
		{"a plain pattern matches no longer event", "alert", "alert.fired", false},
		{"a plain pattern matches no shorter event", "alert.fired", "alert", false},
		{"a plain pattern matches no other event", "alert.fired", "alert.ended", false},
		{"a beginning of a segment is no match", "alert.fire", "alert.fired", false},
		{"case matters", "Alert", "alert", false},
		{"a single segment matches", "schema_change", "schema_change", true},
		{"* matches one segment", "alert.*", "alert.fired", true},
		{"* matches no missing segment", "alert.*", "alert", false},
		{"* matches no two segments", "alert.*", "alert.fired.again", false},
		{"* alone matches one segment", "*", "alert", true},
		{"* alone matches no two segments", "*", "alert.fired", false},
		{"* matches in front", "*.fired", "alert.fired", true},
		{"* in front matches no missing segment", "*.fired", "fired", false},
		{"* matches in the middle", "a.*.c", "a.b.c", true},
		{"* in the middle needs what follows", "a.*.c", "a.b", false},
		{"several * match", "*.*.*", "a.b.c", true},
		{"** matches one segment", "alert.**", "alert.fired", true},
		{"** matches several segments", "alert.**", "alert.fired.again.now", true},
		{"** matches no missing segment", "alert.**", "alert", false},
		{"** keeps what stands before it", "alert.**", "alarm.fired", false},
		{"** ends at a dot, not within a segment", "alert.**", "alerts.fired", false},
		{"** alone matches one segment", "**", "a", true},
		{"** alone matches several segments", "**", "a.b.c", true},
		{"*.** matches two segments", "*.**", "a.b", true},
		{"*.** matches no single segment", "*.**", "a", false},
		{"** matches no empty event", "**", "", false},
		{"* matches no empty event", "*", "", false},
		{"digits, _ and - are plain characters", "v1-a.b_2", "v1-a.b_2", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := match.ParsePattern(tt.pattern)
			if err != nil {
				t.Fatalf("ParsePattern(%q): %v", tt.pattern, err)
			}
			if got := p.Match(tt.event); got != tt.want {
				t.Errorf("%q matches %q: got %v, want %v", tt.pattern, tt.event, got, tt.want)
			}
			if got := p.String(); got != tt.pattern {
				t.Errorf("String: got %q, want %q", got, tt.pattern)
			}
		})
	}
	t.Run("the zero pattern matches nothing", func(t *testing.T) {
		for _, event := range []string{"", "a", "a.b"} {
			if (match.Pattern{}).Match(event) {
				t.Errorf("it matches %q", event)
			}
		}
	})
	t.Run("matching allocates nothing", func(t *testing.T) {
		p, err := match.ParsePattern("a.*.c.**")
		if err != nil {
			t.Fatal(err)
		}
		if got := testing.AllocsPerRun(100, func() { p.Match("a.b.c.d.e") }); got != 0 {
			t.Errorf("got %v allocations, want 0", got)
		}
	})
}

func TestParsePattern(t *testing.T) {
	tests := []struct{ name, pattern, want string }{
		{"an empty pattern is refused", "", "is empty"},
		{"** in the middle is refused", "a.**.b", "only at the end"},
		{"** in front is refused", "**.b", "only at the end"},
		{"two ** are refused", "**.**", "only at the end"},
		{"a * within a segment is refused", "al*", "whole segment"},
		{"*** is refused", "***", "whole segment"},
		{"a ** within a segment is refused", "a.b**", "whole segment"},
		{"an empty segment is refused", "a..b", "segment 2 of the pattern: it is empty"},
		{"a dot in front is refused", ".a", "segment 1 of the pattern: it is empty"},
		{"a dot at the end is refused", "a.", "segment 2 of the pattern: it is empty"},
		{"a dot before ** is no empty segment", "a...**", "segment 2 of the pattern: it is empty"},
		{"a space is refused", "a b", `' ' is not allowed`},
		{"a question mark is refused", "a.?", `'?' is not allowed`},
		{"257 bytes are refused", strings.Repeat("a", 257), "at most 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := match.ParsePattern(tt.pattern)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestCheckEvent(t *testing.T) {
	tests := []struct{ name, event, want string }{
		{"a name is an event", "alert", ""},
		{"a dotted name is an event", "Alert.fired-2.b_c", ""},
		{"256 bytes are an event", strings.Repeat("a", 256), ""},
		{"257 bytes are none", strings.Repeat("a", 257), "257 bytes"},
		{"nothing is none", "", "is empty"},
		{"a * is none", "a.*", "not allowed"},
		{"an empty segment is none", "a..b", "it is empty"},
		{"a dot at the end is none", "a.", "it is empty"},
		{"a dot alone is none", ".", "it is empty"},
		{"a slash is none", "a/b", "not allowed"},
		{"a line end is none", "a\nb", `'\n' is not allowed`},
		{"a zero byte is none", "a\x00", `'\x00' is not allowed`},
		{"a letter beyond ASCII is none", "é", "not allowed"},
		{"bytes that are not UTF-8 are none", "a\xff", "not allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			switch err := match.CheckEvent(tt.event); {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// slowMatch is the rule of the package comment, word for word.
func slowMatch(pattern, event string) bool {
	want, got := strings.Split(pattern, "."), strings.Split(event, ".")
	if last := len(want) - 1; want[last] == "**" {
		if len(got) <= last {
			return false
		}
		want, got = want[:last], got[:last]
	}
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != got[i] {
			return false
		}
	}
	return true
}

func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"alert.*", "alert.fired"}, {"**", "a.b"}, {"a.**", "a"}, {"*.*", "a.b"}, {"", ""}, {"a..b", "a..b"}, {"***", "a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, event string) {
		p, err := match.ParsePattern(pattern)
		if err != nil {
			return
		}
		if got := p.String(); got != pattern {
			t.Errorf("String: got %q, want %q", got, pattern)
		}
		if match.CheckEvent(event) != nil {
			p.Match(event)
			return
		}
		if got, want := p.Match(event), slowMatch(pattern, event); got != want {
			t.Errorf("%q matches %q: got %v, want %v", pattern, event, got, want)
		}
	})
}
