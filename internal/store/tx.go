package store

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxAttempts bounds how often Update runs a function that keeps conflicting.
const maxAttempts = 64

// Tx is a transaction: a snapshot plus, in Update, the writes made so far. It is
// used by one goroutine and not kept after its function returns.
type Tx struct {
	s        *Store
	st       *state
	writable bool
	reads    map[string]int64 // full key → ModRevision seen, 0 when absent
	scans    map[string]bool  // full prefixes scanned
	writes   map[string]*write
	after    []func()
}

type write struct {
	raw     []byte
	value   any
	stored  any // what becomes visible: raw decoded, or a Form as it was put; set by group.commit
	deleted bool
}

// View runs f on a snapshot. f must not write.
func (s *Store) View(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(s.Snapshot())
}

// Snapshot returns a read-only transaction on the present state. It holds
// nothing that must be released.
func (s *Store) Snapshot() *Tx { return &Tx{s: s, st: s.state.Load()} }

// Update runs f in a transaction, again from the start when what it read was
// changed meanwhile; f must therefore have no effect but through tx. When f
// returns an error nothing is written and that error is returned.
func (s *Store) Update(ctx context.Context, f func(tx *Tx) error) error {
	for attempt := range maxAttempts {
		tx := &Tx{s: s, st: s.state.Load(), writable: true, reads: map[string]int64{}, scans: map[string]bool{}, writes: map[string]*write{}}
		if err := f(tx); err != nil {
			return err
		}
		if len(tx.writes) == 0 {
			tx.finish()
			return nil
		}
		s.gate.RLock()
		if tx.forbidden() {
			s.gate.RUnlock()
			continue
		}
		ok, err := tx.commit(ctx)
		s.gate.RUnlock()
		if err != nil {
			return err
		}
		if ok {
			tx.finish()
			return nil
		}
		if attempt > 4 {
			time.Sleep(time.Duration(attempt) * time.Millisecond / 2)
		}
	}
	return ErrContended
}

// Forbid has transactions that would store a value with one of the byte strings in
// it run again instead, until Forbid is called with others. When it returns, no
// commit that was not checked is under way on this node.
func (s *Store) Forbid(values [][]byte) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.forbidden = values
}

// forbidden is called with the gate held.
func (tx *Tx) forbidden() bool {
	for _, f := range tx.s.forbidden {
		for _, w := range tx.writes {
			if bytes.Contains(w.raw, f) {
				return true
			}
		}
	}
	return false
}

// AfterCommit has f run once the transaction has committed. In a View it never runs.
func (tx *Tx) AfterCommit(f func()) { tx.after = append(tx.after, f) }

func (tx *Tx) finish() {
	for _, f := range tx.after {
		f()
	}
}

// Revision is the etcd revision of the snapshot.
func (tx *Tx) Revision() int64 { return tx.st.rev }

// commit makes the writes, if what was read still holds, and returns when the state
// has caught up with the outcome.
func (tx *Tx) commit(ctx context.Context) (ok bool, err error) {
	if tx.s.group != nil {
		return tx.s.group.commit(tx)
	}
	cmps := make([]clientv3.Cmp, 0, len(tx.reads)+len(tx.scans))
	for k, mod := range tx.reads {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k), "=", mod))
	}
	for p := range tx.scans {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(p).WithPrefix(), "<", tx.st.rev+1))
	}
	ok, rev, err := tx.s.fence.commit(ctx, cmps, opsOf(tx.writes))
	if err != nil {
		return false, fmt.Errorf("commit to etcd: %w", err)
	}
	return ok, tx.s.catchUp(ctx, rev)
}

// get reads one key, through the transaction's own writes.
func (tx *Tx) get(table, key string) *entry {
	if !tx.writable { // nothing to look up or to note
		e, _ := tx.st.tables[table].Get(key)
		return e
	}
	full := root + table + "/" + key
	if w, ok := tx.writes[full]; ok {
		if w.deleted {
			return nil
		}
		return &entry{value: w.value}
	}
	e, _ := tx.st.tables[table].Get(key)
	if e != nil {
		tx.reads[full] = e.mod
	} else {
		tx.reads[full] = 0
	}
	return e
}

// scan visits keys with the prefix, after the given key, in order, through the
// transaction's own writes.
func (tx *Tx) scan(table, prefix, after string, f func(key string, value any) bool) {
	if tx.writable {
		tx.scans[root+table+"/"+prefix] = true
	}
	var own []string
	full := root + table + "/"
	for k := range tx.writes {
		if strings.HasPrefix(k, full+prefix) && k[len(full):] > after {
			own = append(own, k[len(full):])
		}
	}
	sort.Strings(own)
	from := prefix
	if after >= from {
		from = after
	}
	stopped := false
	emitOwn := func(upto string, all bool) {
		for !stopped && len(own) > 0 && (all || own[0] <= upto) {
			w := tx.writes[full+own[0]]
			k := own[0]
			own = own[1:]
			if !w.deleted && !f(k, w.value) {
				stopped = true
			}
		}
	}
	tx.st.tables[table].Ascend(from, func(k string, e *entry) bool {
		if !strings.HasPrefix(k, prefix) {
			return false
		}
		if after != "" && k <= after {
			return true
		}
		emitOwn(k, false)
		if stopped {
			return false
		}
		if _, mine := tx.writes[full+k]; mine {
			return true
		}
		if tx.writable {
			tx.reads[full+k] = e.mod
		}
		if !f(k, e.value) {
			stopped = true
		}
		return !stopped
	})
	emitOwn("", true)
}

func (tx *Tx) put(table, key string, raw []byte, value any) error {
	if !tx.writable {
		return ErrReadOnly
	}
	tx.writes[root+table+"/"+key] = &write{raw: raw, value: value}
	return nil
}

func (tx *Tx) delete(table, key string) error {
	if !tx.writable {
		return ErrReadOnly
	}
	tx.get(table, key) // so that a concurrent change conflicts
	tx.writes[root+table+"/"+key] = &write{deleted: true}
	return nil
}
