package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// formatVersion is that of the keys and values. A program refuses a store of another one.
const formatVersion = 4

// ring is what the commit ring and the format record say.
type ring struct {
	formatted bool
	base      uint64 // the first commit group that must be on record
	last      commitRecord
	seqs      map[uint64]bool
}

func readRing(db *database) (ring, error) {
	r := ring{seqs: make(map[uint64]bool)}
	err := db.View(func(txn *view) error {
		raw, err := get(txn, []byte{kindFormat})
		if err != nil {
			return err
		}
		if raw != nil {
			if len(raw) != 12 {
				return errors.New("read format: wrong size")
			}
			if v := binary.BigEndian.Uint32(raw); v != formatVersion {
				return fmt.Errorf("store has format %d, and this program reads %d; "+
					"use the version that made it, or move its folder away to begin with an empty store", v, formatVersion)
			}
			r.formatted, r.base = true, binary.BigEndian.Uint64(raw[4:])
		}
		return scan(txn, []byte{kindCommit}, nil, func(_, content []byte) (bool, error) {
			c, err := decodeCommit(content)
			if err != nil {
				return false, err
			}
			r.seqs[c.seq] = true
			if c.seq > r.last.seq {
				r.last = c
			}
			return true, nil
		})
	})
	return r, err
}

// compare returns what is missing, or nil.
func (r ring) compare(side sideState) *DamageError {
	switch {
	case !r.formatted && r.last.seq == 0 && !side.exists:
		return nil // a new store
	case !r.formatted:
		return &DamageError{Reason: "the first records of the database are missing", From: 1, To: max(r.last.seq, side.seq, 1)}
	}
	var from, to uint64
	oldest := r.base
	if r.last.seq >= ringSize {
		oldest = max(oldest, r.last.seq-ringSize+1)
	}
	for seq := oldest; seq <= r.last.seq; seq++ {
		if r.seqs[seq] {
			continue
		}
		if from == 0 {
			from = seq
		}
		to = seq
	}
	if r.last.seq < r.base {
		from, to = r.last.seq+1, r.base
	}
	if side.seq > r.last.seq {
		if from == 0 {
			from = r.last.seq + 1
		}
		to = side.seq
	}
	switch {
	case from > 0:
		return &DamageError{Reason: "acknowledged records are missing", From: from, To: to}
	case !side.read && r.last.seq > r.base:
		// It is made before the second commit group, so it was there.
		return &DamageError{Reason: "the side file (hwm) is missing or unreadable, so missing records would not be noticed"}
	}
	return nil
}

// writeFormat writes the format record as a commit group.
func writeFormat(db *database, base uint64, c commitRecord) error {
	txn := db.begin()
	defer txn.Discard()
	key := []byte{kindFormat}
	content := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, formatVersion), base)
	if err := txn.put(key, seal(key, content)); err != nil {
		return err
	}
	note := commitKey(c.seq)
	if err := txn.put(note, seal(note, encodeCommit(c))); err != nil {
		return err
	}
	return txn.Commit()
}
