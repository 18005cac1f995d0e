package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/tidwall/btree"
)

// Table holds records of one Go type under string keys. A key may contain "/"
// (account/region/id is the usual form) but is never empty.
type Table[T any] struct {
	name    string
	version byte
	upgrade func(from byte, raw []byte) (*T, error)
	hooks   []func(key string, old, new *T)
}

// Define declares a table, before Start. name is service/record, for example
// "kms/grant". version is what new records are written as (from 1).
func Define[T any](s *Store, name string, version byte) *Table[T] {
	if s.started {
		panic("store: Define after Start: " + name)
	}
	if strings.Count(name, "/") != 1 {
		panic("store: table name must be service/record: " + name)
	}
	if _, dup := s.tables[name]; dup {
		panic("store: table declared twice: " + name)
	}
	t := &Table[T]{name: name, version: version}
	s.tables[name] = t
	return t
}

// Upgrade sets how a record of an older version is read.
func (t *Table[T]) Upgrade(f func(from byte, raw []byte) (*T, error)) *Table[T] {
	t.upgrade = f
	return t
}

// OnChange has f called for every change, old or new nil when the record did
// not or no longer exists, in commit order, from one goroutine, before the
// change becomes visible to Views. f must be quick and must not use the store.
// Declare hooks before Start; they see the initial load too.
func (t *Table[T]) OnChange(f func(key string, old, new *T)) { t.hooks = append(t.hooks, f) }

func (t *Table[T]) tableName() string { return t.name }

func (t *Table[T]) decode(raw []byte) (any, error) {
	if len(raw) < 2 {
		return nil, fmt.Errorf("record of %d bytes is too short", len(raw))
	}
	if v := raw[0]; v != t.version {
		if v > t.version || t.upgrade == nil {
			return nil, fmt.Errorf("record has version %d, this program reads up to %d: it was written by a newer Sealdesk", v, t.version)
		}
		return t.upgrade(v, raw[1:])
	}
	v := new(T)
	if own, ok := any(v).(Form); ok {
		return v, own.ReadForm(raw[1:])
	}
	if err := json.Unmarshal(raw[1:], v); err != nil {
		return nil, err
	}
	return v, nil
}

// Form is a record type (a pointer) with stored bytes of its own in the place of JSON. A
// record that was put here may be found as it was put, with what its bytes do not hold.
type Form interface {
	// AppendForm appends the stored bytes, at least one, to b.
	AppendForm(b []byte) []byte
	// ReadForm fills the record, which is zero, from stored bytes, which it must copy.
	ReadForm(stored []byte) error
}

// encode is what decode reads.
func (t *Table[T]) encode(v *T) ([]byte, error) {
	if own, ok := any(v).(Form); ok {
		return own.AppendForm([]byte{t.version}), nil
	}
	js, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, 0, 1+len(js))
	return append(append(raw, t.version), js...), nil
}

func (t *Table[T]) notify(key string, old, new any) {
	if len(t.hooks) == 0 {
		return
	}
	o, _ := old.(*T)
	n, _ := new.(*T)
	for _, h := range t.hooks {
		h(key, o, n)
	}
}

// Get returns the record, shared and immutable, or nil when there is none.
func (t *Table[T]) Get(tx *Tx, key string) *T {
	e := tx.get(t.name, key)
	if e == nil {
		return nil
	}
	return e.value.(*T)
}

// Edit returns a private copy of the record to change and Put, or nil.
func (t *Table[T]) Edit(tx *Tx, key string) *T {
	e := tx.get(t.name, key)
	if e == nil {
		return nil
	}
	// The stored bytes are not kept beside the record; they are made again.
	raw, err := t.encode(e.value.(*T))
	var v any
	if err == nil {
		v, err = t.decode(raw)
	}
	if err != nil {
		panic(fmt.Sprintf("store: record %s/%s was read and cannot be copied: %v", t.name, key, err))
	}
	return v.(*T)
}

// Put writes the record. v must not be changed afterwards.
func (t *Table[T]) Put(tx *Tx, key string, v *T) error {
	if key == "" {
		return fmt.Errorf("store: empty key in table %s", t.name)
	}
	raw, err := t.encode(v)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", t.name, key, err)
	}
	return tx.put(t.name, key, raw, v)
}

// Delete removes the record; removing an absent one is not an error.
func (t *Table[T]) Delete(tx *Tx, key string) error { return tx.delete(t.name, key) }

// Scan visits, in key order, the records whose key has the prefix and is greater
// than after ("" for all), until f returns false. In an Update the scanned range
// is part of what must still hold at commit; scan narrow ranges there.
func (t *Table[T]) Scan(tx *Tx, prefix, after string, f func(key string, v *T) bool) {
	tx.scan(t.name, prefix, after, func(k string, v any) bool { return f(k, v.(*T)) })
}

// Len is the number of records (committed, without the transaction's own).
func (t *Table[T]) Len(tx *Tx) int { return tx.st.tables[t.name].Len() }

// Index finds a table's committed records by something other than their key. It
// is kept in memory and does not see a transaction's own writes; in an Update,
// read what it names through the table so that a concurrent change conflicts.
type Index[T any] struct {
	mu sync.RWMutex
	m  btree.Set[string] // entry NUL key
	of func(key string, v *T) []string
}

// NewIndex declares an index, before Start: of gives the values (without NUL)
// under which a record is found.
func NewIndex[T any](t *Table[T], of func(key string, v *T) []string) *Index[T] {
	ix := &Index[T]{of: of}
	t.OnChange(func(key string, old, new *T) {
		ix.mu.Lock()
		defer ix.mu.Unlock()
		if old != nil {
			for _, e := range of(key, old) {
				ix.m.Delete(e + "\x00" + key)
			}
		}
		if new != nil {
			for _, e := range of(key, new) {
				ix.m.Insert(e + "\x00" + key)
			}
		}
	})
	return ix
}

// Keys returns, in order, up to limit (0: all) table keys greater than after
// that are indexed under value.
func (ix *Index[T]) Keys(value, after string, limit int) []string {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	var out []string
	p := value + "\x00"
	ix.m.Ascend(p+after, func(e string) bool {
		if !strings.HasPrefix(e, p) {
			return false
		}
		if k := e[len(p):]; after == "" || k > after {
			out = append(out, k)
		}
		return limit == 0 || len(out) < limit
	})
	return out
}

// Count is how many records are indexed under value, counting no further than
// limit (0: all).
func (ix *Index[T]) Count(value string, limit int) int { return len(ix.Keys(value, "", limit)) }
