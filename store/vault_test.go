package store

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckItem(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		want error
	}{
		{"a", 0, nil},
		{"a/b.c/d", 1, nil},
		{"..a/b", 1, nil},
		{"a", MaxItem, nil},
		{"a", MaxItem + 1, ErrTooLarge},
		{strings.Repeat("x", MaxItemName), 1, nil},
		{strings.Repeat("x", MaxItemName+1), 1, ErrTooLarge},
		{"", 1, ErrInvalid},
		{".", 1, ErrInvalid},
		{"..", 1, ErrInvalid},
		{"../a", 1, ErrInvalid},
		{"/a", 1, ErrInvalid},
		{"a/", 1, ErrInvalid},
		{"a//b", 1, ErrInvalid},
		{"a/../b", 1, ErrInvalid},
		{"a\x00b", 1, ErrInvalid},
	} {
		if err := CheckItem(c.name, c.size); !errors.Is(err, c.want) {
			t.Errorf("%.20q of %d bytes: got %v, want %v", c.name, c.size, err, c.want)
		}
	}
}
