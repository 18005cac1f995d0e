package store

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A group commits the transactions of an embedded etcd. Those that come while one
// proposal is under way are the next one, together: one entry of the write-ahead
// log, one sync, one revision. A transaction alone does not wait for others.
//
// This process is the only one that writes to its embedded etcd, and writes through
// here, one proposal after another. So the state in memory is all that was ever
// committed, whether what a transaction has read still holds is seen without asking
// etcd, and what was committed is made visible without being told by a watch.
type group struct {
	s       *Store
	propose func(ctx context.Context, ops []clientv3.Op) (rev int64, err error)

	mu      sync.Mutex
	waiting []*member
	busy    bool // a goroutine is committing; it alone uses the store's master copy
}

// member is one transaction of a group.
type member struct {
	tx   *Tx
	ok   bool // what it read still held, and its writes are visible
	err  error
	done chan struct{}
}

// What goes into one proposal; a transaction that is larger goes alone. etcd takes
// requests of 1.5 MiB.
const (
	groupOps   = 1024
	groupBytes = 512 << 10
)

func newGroup(s *Store) *group {
	return &group{s: s, propose: func(ctx context.Context, ops []clientv3.Op) (int64, error) {
		resp, err := s.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return 0, err
		}
		return resp.Header.Revision, nil
	}}
}

// commit returns when the transaction's writes are visible (ok), or when the state is
// a newer one than it read.
func (g *group) commit(tx *Tx) (ok bool, err error) {
	for full, w := range tx.writes {
		if _, own := w.value.(Form); own {
			w.stored = w.value
		} else if t := g.s.tables[tableOf(full)]; t != nil && !w.deleted {
			if w.stored, err = t.decode(w.raw); err != nil {
				return false, fmt.Errorf("what is to be stored as %s cannot be read back: %w", full, err)
			}
		}
	}
	m := &member{tx: tx, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	if !g.busy {
		g.busy = true
		go g.run()
	}
	g.mu.Unlock()
	<-m.done
	return m.ok, m.err
}

// run commits until nobody waits.
func (g *group) run() {
	for {
		g.mu.Lock()
		batch := g.next()
		g.busy = len(batch) > 0
		g.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		g.do(batch)
		for _, m := range batch {
			close(m.done)
		}
	}
}

// next takes those who wait, as many as go into one proposal, at least one.
func (g *group) next() []*member {
	ops, bytes := 0, 0
	for i, m := range g.waiting {
		for _, w := range m.tx.writes {
			bytes += len(w.raw)
		}
		if ops += len(m.tx.writes); i > 0 && (ops > groupOps || bytes > groupBytes) {
			batch := g.waiting[:i:i]
			g.waiting = g.waiting[i:]
			return batch
		}
	}
	batch := g.waiting
	g.waiting = nil
	return batch
}

// do commits those of the batch of which what they read still holds, as if one came
// after the other in the batch's order.
func (g *group) do(batch []*member) {
	now := g.s.state.Load()
	writes := make(map[string]*write, 2*len(batch))
	var in []*member
	for _, m := range batch {
		if g.s.ctx.Err() != nil {
			m.err = ErrClosed
		} else if m.tx.holds(now, writes) {
			in = append(in, m)
			for k, w := range m.tx.writes {
				writes[k] = w
			}
		}
	}
	if len(in) == 0 {
		return
	}
	rev, err := g.propose(g.s.ctx, opsOf(writes))
	if err != nil && len(in) > 1 && !doubtful(err) {
		for _, m := range in { // one of them may be what etcd does not take
			g.do([]*member{m})
		}
		return
	}
	done := err == nil
	if err != nil && doubtful(err) {
		g.s.log.Warn("the embedded etcd did not say what became of a commit", "err", err)
		if rev, err = g.barrier(); err == nil {
			done = rev > now.rev
		}
	}
	if err != nil {
		if err = fmt.Errorf("commit to etcd: %w", err); g.s.ctx.Err() != nil {
			err = ErrClosed
		}
		for _, m := range in {
			m.err = err
		}
		return
	}
	if !done {
		return // nobody's writes have happened: all run again
	}
	if rev > now.rev+1 {
		panic(fmt.Sprintf("store: the embedded etcd went from revision %d to %d in one commit: something else writes to it", now.rev, rev))
	}
	touched := map[string]bool{}
	for k, w := range writes {
		g.s.set(k, w.stored, rev, w.deleted)
		touched[tableOf(k)] = true
	}
	g.s.publish(rev, touched)
	for _, m := range in {
		m.ok = true
	}
}

// barrier returns the revision when whatever was proposed before has happened or will
// not: a log of one member keeps the order of what is proposed to it.
func (g *group) barrier() (rev int64, err error) {
	for {
		// Of no effect, but through the log like any other write.
		resp, err := g.s.client.Delete(g.s.ctx, root+"store/barrier/")
		if err == nil {
			return resp.Header.Revision, nil
		}
		if !sleep(g.s.ctx, 50*time.Millisecond) {
			return 0, g.s.ctx.Err()
		}
	}
}

// holds tells whether what tx read is so in the state now, with writes upon it.
func (tx *Tx) holds(now *state, writes map[string]*write) bool {
	for full, mod := range tx.reads {
		if writes[full] != nil {
			return false
		}
		if tx.st == now {
			continue
		}
		name := tableOf(full)
		e, _ := now.tables[name].Get(full[len(root)+len(name)+1:])
		if e == nil && mod != 0 || e != nil && e.mod != mod {
			return false
		}
	}
	for prefix := range tx.scans {
		for full := range writes {
			if strings.HasPrefix(full, prefix) {
				return false
			}
		}
		if tx.st == now {
			continue
		}
		name, same := tableOf(prefix), true
		p := prefix[len(root)+len(name)+1:]
		now.tables[name].Ascend(p, func(k string, e *entry) bool {
			if !strings.HasPrefix(k, p) {
				return false
			}
			same = e.mod <= tx.st.rev
			return same
		})
		if !same {
			return false
		}
	}
	return true
}

// opsOf are the writes as etcd takes them, in the order of their keys.
func opsOf(writes map[string]*write) []clientv3.Op {
	keys := make([]string, 0, len(writes))
	for k := range writes {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	ops := make([]clientv3.Op, 0, len(keys))
	for _, k := range keys {
		if w := writes[k]; w.deleted {
			ops = append(ops, clientv3.OpDelete(k))
		} else {
			ops = append(ops, clientv3.OpPut(k, string(w.raw)))
		}
	}
	return ops
}
