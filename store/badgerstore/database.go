package badgerstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// database is Badger with the keys of its values. Nothing else knows what is encrypted: values are made by seal, become
// what is stored in group.put, and come back as content from a view.
type database struct {
	*badger.DB
	keys   *keyring
	bridge *badgerLogger
}

// view is a transaction whose values can be read.
type view struct {
	*badger.Txn
	keys *keyring
}

// View calls fn with a transaction that only reads.
func (db *database) View(fn func(txn *view) error) error {
	return db.DB.View(func(txn *badger.Txn) error { return fn(&view{Txn: txn, keys: db.keys}) })
}

// begin begins a transaction that writes. The caller discards it.
func (db *database) begin() *view { return &view{Txn: db.NewTransaction(true), keys: db.keys} }

// put stages a value of seal.
func (v *view) put(key, value []byte) error { return v.Set(key, v.keys.lock(key, value)) }

// open returns the content of a value that was read from key. It may be part of the value.
func (v *view) open(key, value []byte) ([]byte, error) { return v.keys.unlock(key, value) }

// each calls do with each key and value of the database, as they are stored, in the order of the keys, until it returns an
// error or ctx ends. Neither is good for longer than the call.
func (v *view) each(ctx context.Context, do func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	it := v.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := it.Item().Key()
		if err := it.Item().Value(func(value []byte) error { return do(key, value) }); err != nil {
			return err
		}
	}
	return nil
}

// errDatabase marks an error of the database itself; others are of one record.
var errDatabase = errors.New("database error")

// get returns the content under key, and nil if there is none. It is a copy. The error is errDatabase, or says that
// the record is damaged.
func get(txn *view, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", describe(key), errDatabase, err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", describe(key), errDatabase, err)
	}
	content, err := txn.open(key, value)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", describe(key), err)
	}
	return content, nil
}
