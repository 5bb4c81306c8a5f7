package store

import "testing"

func TestGist(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		a          Attempt
	}{
		{"without an error", "", Attempt{Class: ClassOK}},
		{"an error of ours", "connection refused", Attempt{Class: ClassConnect, Error: "connection refused"}},
		{"a piece of an answer", "the answer does not hold what is expected", Attempt{Class: ClassExpect, Error: "$.ok is canary"}},
		{"what a token endpoint says", "answered 400", Attempt{Class: ClassAuth, Error: "answered 400" + Quote + "canary"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.a.Gist(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
