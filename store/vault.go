package store

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
)

// Vault keeps what is secret by itself: the accounts and certificates of a listener, with their private keys. What it
// keeps are items, whose names are paths, as in certificates/acme.example.com/relay.example.com.key. They are in no
// list, no history and no export, and in a Backup only when that is asked for.
type Vault interface {
	// Keep writes an item, in place of an earlier one of that name, and returns when it is on disk. The engine does not
	// keep value. It works below the disk reserve, down to half of it. ErrInvalid: the name is none; ErrTooLarge: it is
	// longer than MaxItemName, or the value than MaxItem; ErrNoSpace.
	Keep(ctx context.Context, name string, value []byte) error

	// Kept returns the item of a name. ErrNotFound: there is none; others that it is below do not count. The caller
	// owns its Value.
	Kept(ctx context.Context, name string) (Item, error)

	// KeptBelow returns the items below a name, which is no item itself then, in the order of their names, without their
	// Values; below the empty name are all. "a/b" is below "a", and "ab" is not.
	KeptBelow(ctx context.Context, name string) ([]Item, error)

	// Discard removes the item of a name, if there is one, and all below it. Like Resume it works on a full disk.
	Discard(ctx context.Context, name string) error
}

// Bounds of an item, in bytes.
const (
	MaxItemName = 512
	MaxItem     = 256 << 10
)

// Item is something in a Vault.
type Item struct {
	Name       string
	Value      []byte    // nil in a list
	Size       int       // of Value, in bytes
	ModifiedAt time.Time // when it was kept, to the millisecond
}

// CheckItem returns ErrInvalid or ErrTooLarge, wrapped, for an item that no Vault keeps: the name is a clean relative
// path (as of path.Clean, and not below "..") without NUL.
func CheckItem(name string, size int) error {
	switch {
	case name == "" || name == "." || name == ".." || name[0] == '/' || path.Clean(name) != name ||
		strings.HasPrefix(name, "../") || strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("name of an item: %w", ErrInvalid)
	case len(name) > MaxItemName:
		return fmt.Errorf("name of an item with %d bytes: %w", len(name), ErrTooLarge)
	case size > MaxItem:
		return fmt.Errorf("item of %d bytes: %w", size, ErrTooLarge)
	}
	return nil
}
