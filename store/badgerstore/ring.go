package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// formatVersion is that of the keys and values. A program refuses a store of another one.
const formatVersion = 5

// ring is what the commit ring and the format record say.
type ring struct {
	formatted  bool
	unreadable bool   // the format record is damaged
	base       uint64 // the first commit group that must be on record
	last       commitRecord
	seqs       []uint64 // of the groups on record, each in its slot; 0 is none
}

func readRing(db *database) (ring, error) {
	r := ring{seqs: make([]uint64, ringSize)}
	err := db.View(func(txn *view) error {
		raw, err := get(txn, []byte{kindFormat})
		switch {
		case errors.Is(err, errDatabase), errors.Is(err, errNoKey), errors.Is(err, errPlain):
			return err
		case err != nil, raw != nil && len(raw) != 12:
			r.unreadable = true
		case raw != nil:
			if v := binary.BigEndian.Uint32(raw); v != formatVersion {
				return fmt.Errorf("store has format %d, and this program reads %d; "+
					"use the version that made it, or move its folder away to begin with an empty store", v, formatVersion)
			}
			r.formatted, r.base = true, binary.BigEndian.Uint64(raw[4:])
		}
		return r.readNotes(txn)
	})
	return r, err
}

// readNotes reads the notes of commit groups. One that is damaged is as one that is missing.
func (r *ring) readNotes(txn *view) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindCommit}
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		err := it.Item().Value(func(value []byte) error {
			content, err := txn.open(it.Item().Key(), value)
			var c commitRecord
			if err == nil {
				c, err = decodeCommit(content)
			}
			if err == nil {
				r.seqs[c.seq%ringSize] = c.seq
				if c.seq > r.last.seq {
					r.last = c
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s: %w: %w", kindNames[kindCommit], errDatabase, err)
		}
	}
	return nil
}

// compare returns what is missing, or nil.
func (r ring) compare(side sideState) *DamageError {
	switch {
	case r.unreadable:
		return &DamageError{Reason: "the record of the format is damaged, which also says where the records begin"}
	case !r.formatted && r.last.seq == 0 && !side.exists:
		return nil // a new store
	case !r.formatted && !side.read:
		return &DamageError{Reason: "the first records of the database are missing, and so is the side file (hwm), or it is " +
			"unreadable, so nobody knows up to which"}
	case !r.formatted:
		return &DamageError{Reason: "the first records of the database are missing", From: 1, To: max(r.last.seq, side.seq, 1)}
	}
	var from, to uint64
	oldest := r.base
	if r.last.seq >= ringSize {
		oldest = max(oldest, r.last.seq-ringSize+1)
	}
	for seq := oldest; seq <= r.last.seq; seq++ {
		if r.seqs[seq%ringSize] == seq {
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
	case from > 0 && !side.read:
		return &DamageError{Reason: fmt.Sprintf("acknowledged records are missing from commit %d on, and the side file (hwm) is "+
			"missing or unreadable, so nobody knows up to which", from)}
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
