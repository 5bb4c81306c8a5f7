package storetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/postern-relay/postern/store"
)

var (
	_ store.Exporter = (*Memory)(nil)
	_ store.Importer = (*Memory)(nil)
)

// Export implements store.Exporter. It copies all that there is.
func (m *Memory) Export(ctx context.Context, f store.Filter, _ func(error)) iter.Seq2[store.Exported, error] {
	return func(yield func(store.Exported, error) bool) {
		all, err := m.exportAll(ctx)
		if err != nil {
			yield(store.Exported{}, err)
			return
		}
		for _, x := range all {
			if err := ctx.Err(); err != nil {
				yield(store.Exported{}, err)
				return
			}
			if x.Passes(f) && !yield(x, nil) {
				return
			}
		}
	}
}

func (m *Memory) exportAll(ctx context.Context) ([]store.Exported, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	var all []store.Exported
	for _, id := range m.inLineLocked() {
		kept := m.messages[id]
		x := store.Exported{Message: cloneMessage(kept.message), Body: bytes.Clone(kept.body)}
		room := store.NewHistoryRoom()
		for n, d := range kept.deliveries {
			one := store.ExportedDelivery{Delivery: d}
			one.History, one.Omitted, _ = room.Take(func(yield func(store.Attempt, error) bool) {
				for _, a := range kept.attempts[n] {
					if !yield(normalAttempt(a), nil) {
						return
					}
				}
			})
			x.Deliveries = append(x.Deliveries, one)
		}
		all = append(all, x)
	}
	return all, nil
}

// inLineLocked returns the ids of all messages: in turn the lowest of those before which nothing stands in a line.
func (m *Memory) inLineLocked() []store.MessageID {
	before := make(map[store.MessageID][]store.MessageID)
	for _, l := range m.lines {
		ahead := l.head.Message()
		for _, id := range l.behind {
			if id.Message() != ahead {
				before[id.Message()] = append(before[id.Message()], ahead)
			}
			ahead = id.Message()
		}
	}
	ids := slices.SortedFunc(maps.Keys(m.messages), func(a, b store.MessageID) int { return bytes.Compare(a[:], b[:]) })
	var out []store.MessageID
	done := make(map[store.MessageID]bool)
	for len(out) < len(ids) {
		passed := false
		for _, id := range ids {
			if done[id] {
				continue
			}
			if slices.ContainsFunc(before[id], func(one store.MessageID) bool { return !done[one] }) {
				passed = true
				continue
			}
			out, done[id] = append(out, id), true
			if passed {
				break // it may be what a lower one waits for
			}
		}
	}
	return out
}

// CheckImport implements store.Importer.
func (m *Memory) CheckImport(x store.Exported) error {
	if err := store.CheckExported(x); err != nil {
		return err
	}
	for n, d := range x.Deliveries {
		if err := checkName(d.Destination); err != nil {
			return fmt.Errorf("deliveries[%d].destination: %w: %w", n, store.ErrInvalid, err)
		}
	}
	return nil
}

// Import implements store.Importer.
func (m *Memory) Import(ctx context.Context, messages iter.Seq2[store.Exported, error]) (done store.Imported, err error) {
	for x, err := range messages {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return done, err
		}
		if err := m.CheckImport(x); err != nil {
			return done, fmt.Errorf("import message %s: %w", x.Message.ID, err)
		}
		if err := m.importOne(x, &done); err != nil {
			return done, fmt.Errorf("import message %s: %w", x.Message.ID, err)
		}
	}
	return done, nil
}

func (m *Memory) importOne(x store.Exported, done *store.Imported) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	if _, ok := m.messages[x.Message.ID]; ok {
		done.Existing++
		return nil
	}
	msg := cloneMessage(x.Message)
	if pair := msg.Idempotency; pair != nil {
		if _, taken := m.keys[pair.Key]; taken {
			msg.Idempotency = nil
			done.KeysTaken++
		} else {
			m.keys[pair.Key] = msg.ID
		}
	}
	kept := &memoryMessage{message: msg, body: append([]byte{}, x.Body...)}
	m.messages[msg.ID] = kept
	for _, one := range x.Deliveries {
		d, name := one.Delivery, lineName{one.Destination, one.Order}
		behind := d.Order != "" && m.lines[name] != nil
		if d.Blocking && behind {
			d.Blocking = false
			done.Unblocked++
		}
		var history []store.Attempt
		for _, a := range one.History {
			history = append(history, normalAttempt(a))
		}
		kept.deliveries, kept.attempts = append(kept.deliveries, d), append(kept.attempts, history)
		if d.State == store.Pending {
			m.pending++
		}
		switch waits := d.State == store.Pending || d.Blocking; {
		case waits && behind:
			m.lines[name].behind = append(m.lines[name].behind, d.ID)
			continue
		case waits && d.Order != "":
			m.lines[name] = &line{head: d.ID, blocked: d.Blocking}
		}
		if d.State == store.Pending {
			m.enqueueLocked(d)
		}
	}
	done.Count(x)
	return nil
}
