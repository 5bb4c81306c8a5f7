package badgerstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-relay/postern/store"
)

// Checked is what Check has found.
type Checked struct {
	Counts store.BackupCounts // Damaged are those that cannot be read

	// Faults name damaged records, and what does not fit together; at most MaxFaults of them.
	Faults []string
	More   int // faults beyond those
}

func (c *Checked) fault(format string, args ...any) {
	if len(c.Faults) == MaxFaults {
		c.More++
		return
	}
	c.Faults = append(c.Faults, fmt.Sprintf(format, args...))
}

// MaxFaults bounds Checked.Faults.
const MaxFaults = 100

// Check reads every record of the store: that it opens, can be decoded, and that what is pending has its message. It
// changes nothing, and holds one snapshot as long as it takes. Open has checked the tables, the log and the lines before.
func (s *Store) Check(ctx context.Context) (Checked, error) {
	if err := s.begin(ctx); err != nil {
		return Checked{}, err
	}
	defer s.use.RUnlock()
	var c Checked
	err := s.db.View(func(txn *view) error {
		return txn.each(ctx, func(key, value []byte) error {
			if s.closed.Load() {
				return store.ErrClosed
			}
			if inBackup(key[0], true) { // as a backup counts
				countRecord(&c.Counts, key)
			}
			switch fault := checkRecord(txn, key, value); {
			case errors.Is(fault, errDatabase):
				return fault
			case fault != nil:
				c.Counts.Damaged++
				c.fault("%s: %v", describe(key), fault)
			}
			return nil
		})
	})
	if err != nil {
		return Checked{}, fmt.Errorf("check store: %w", err)
	}
	if s.Pending() != c.Counts.Pending {
		c.fault("%d deliveries stand in the queues, and %d are counted", c.Counts.Pending, s.Pending())
	}
	return c, nil
}

// checkRecord returns what is wrong with a record.
func checkRecord(txn *view, key, value []byte) error {
	if key[0] == kindIndex && len(value) == 0 {
		return nil
	}
	content, err := txn.open(key, value)
	if err != nil {
		return err
	}
	switch key[0] {
	case kindMessage:
		if len(key) != 1+16 {
			return errBadKey
		}
		m, err := decodeMessage(store.MessageID(key[1:]), content)
		if err != nil {
			return err
		}
		for n := range m.chunks {
			there, err := has(txn, chunkKey(m.ID, n))
			if err != nil {
				return err
			}
			if !there {
				return fmt.Errorf("piece %d of its body is missing", n+1)
			}
		}
	case kindDelivery:
		if len(key) != 1+16 {
			return errBadKey
		}
		_, err = decodeDelivery(store.DeliveryID(key[1:]), content)
	case kindAttempt:
		_, err = decodeAttempt(key, content)
	case kindQueue:
		_, at, err := parseQueueKey(key)
		if err != nil {
			return err
		}
		if _, err := decodeDelivery(at.ID, content); err != nil {
			return err
		}
		return hasMessage(txn, at.ID)
	case kindWaiting:
		d, _, err := decodeWaiting(content)
		if err != nil {
			return err
		}
		return hasMessage(txn, d.ID)
	case kindLine:
		_, err = decodeLine(content)
	case kindEnded:
		_, _, err = parseEndedKey(key)
	case kindCommit:
		_, err = decodeCommit(content)
	}
	return err
}

func hasMessage(txn *view, id store.DeliveryID) error {
	there, err := has(txn, messageKey(id.Message()))
	if err == nil && !there {
		err = fmt.Errorf("its message %s is missing", id.Message())
	}
	return err
}
