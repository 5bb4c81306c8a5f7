package store

import (
	"context"
	"io"
)

// Backuper copies a whole store while it is in use. It is no part of Store: an engine whose server has its own way of
// copying needs none.
type Backuper interface {
	// Backup makes a copy of all that is stored at one moment, and returns when it is complete, on the engine's own disk:
	// whoever reads it may be slow. Everything that Accept and Record had returned before the call is in it. The caller
	// closes it. One backup is made or open at a time.
	//
	// Errors: ErrBusy while another is being made or read, ErrNoSpace if the copy does not fit above the disk reserve,
	// ErrClosed, ErrBroken, a record that is damaged, an end of ctx. Nothing stays behind then, nor after a kill.
	Backup(ctx context.Context, o BackupOptions) (*Backup, error)
}

// BackupOptions say what a backup holds.
type BackupOptions struct {
	// IncludeKeys takes in what is secret by itself: accounts and private keys of certificates.
	IncludeKeys bool
}

// Backup is a complete copy. Reading it costs the engine nothing.
type Backup struct {
	io.ReadCloser
	Size   int64 // bytes that it has to read
	Counts BackupCounts
}

// BackupCounts say what is in a backup.
type BackupCounts struct {
	Messages int64 `json:"messages"`
	// Pending deliveries.
	Pending int64 `json:"pending"`
	// Attempts on record.
	Attempts int64 `json:"attempts"`
	// Records of all kinds, those above included.
	Records int64 `json:"records"`
	// Keys are the records that are in it only when asked for.
	Keys int64 `json:"keys"`
	// Damaged records were left out.
	Damaged int64 `json:"damaged"`
}
