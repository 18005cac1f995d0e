package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// root is the prefix of every key that belongs to Sealdesk.
const root = "/sealdesk/"

// Errors that callers branch on.
var (
	// ErrClosed: the store was closed, or lost its etcd for good.
	ErrClosed = errors.New("store: closed")
	// ErrReadOnly: a write was tried in a View.
	ErrReadOnly = errors.New("store: write in a read-only transaction")
	// ErrContended: the transaction was run maxAttempts times and lost every time.
	ErrContended = errors.New("store: transaction kept losing to others; try again")
)

// Store is a set of tables over one etcd. Declare the tables (Define), then
// Start it. All methods are safe for concurrent use.
type Store struct {
	cfg    Config
	log    *slog.Logger
	client *clientv3.Client
	server *embed.Etcd // nil with an external cluster
	group  *group      // commits to an embedded etcd; nil with an external cluster
	fence  *fence      // resolves commits to an external cluster whose answer was lost; nil when embedded

	tables map[string]tableCore // by name; fixed once started

	state  atomic.Pointer[state] // what Views read
	master map[string]*btree.Map[string, *entry]

	mu      sync.Mutex    // guards advanced
	advance chan struct{} // closed and replaced each time state moves

	ctx      context.Context
	watchCtx context.Context // ctx, for the watch that follows
	cancel   context.CancelFunc
	done     chan struct{}
	started  bool

	gate      sync.RWMutex // held, shared, from the check of forbidden to the end of a commit
	forbidden [][]byte

	erasures *Table[erasure]
	erasedTo int64 // revision; RunErasures only
}

// state is one consistent snapshot: every table as of revision rev.
type state struct {
	rev    int64
	tables map[string]*btree.Map[string, *entry]
}

// entry is one stored record, decoded once.
type entry struct {
	value any   // *T of its table
	mod   int64 // etcd ModRevision
}

// tableCore is what the store needs to know about a Table[T] without its T.
type tableCore interface {
	tableName() string
	decode(raw []byte) (any, error)
	notify(key string, old, new any)
}

// Open connects to (or starts) etcd. No table can be read before Start.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: cfg.Logger, tables: map[string]tableCore{}, advance: make(chan struct{}), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.watchCtx = clientv3.WithRequireLeader(s.ctx)
	s.erasures = Define[erasure](s, "store/erasure", 1)
	var err error
	if len(cfg.Endpoints) > 0 {
		if s.client, err = dial(ctx, cfg); err == nil {
			s.fence, err = newFence(ctx, s.client, cfg)
		}
	} else {
		s.client, s.server, err = embedded(ctx, cfg)
		s.group = newGroup(s)
	}
	if err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// Start loads every declared table and, with an external cluster, follows changes from
// then on; those of an embedded etcd are all made here.
func (s *Store) Start(ctx context.Context) (err error) {
	if s.started {
		return errors.New("store: started twice")
	}
	s.started = true
	defer func() {
		if err != nil {
			close(s.done) // nothing follows that Close would wait for
		}
	}()
	resp, err := s.client.Get(ctx, root, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("load the state from etcd: %w", err)
	}
	s.master = make(map[string]*btree.Map[string, *entry], len(s.tables))
	for name := range s.tables {
		s.master[name] = new(btree.Map[string, *entry])
	}
	for _, kv := range resp.Kvs {
		if err := s.apply(string(kv.Key), kv.Value, kv.ModRevision, false); err != nil {
			return err
		}
	}
	s.publish(resp.Header.Revision, nil)
	if s.group != nil {
		close(s.done)
		return nil
	}
	watch := s.client.Watch(s.watchCtx, root, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1))
	go s.follow(watch, resp.Header.Revision)
	return nil
}

// follow applies watch events until the store closes. A watch that breaks
// (leader lost, compaction) is opened again where it stopped.
func (s *Store) follow(watch clientv3.WatchChan, rev int64) {
	defer close(s.done)
	for {
		for resp := range watch {
			if err := resp.Err(); err != nil {
				s.log.Warn("etcd watch interrupted", "err", err, "revision", rev)
				break
			}
			touched := map[string]bool{}
			for _, ev := range resp.Events {
				if err := s.apply(string(ev.Kv.Key), ev.Kv.Value, ev.Kv.ModRevision, ev.Type == clientv3.EventTypeDelete); err != nil {
					s.log.Error("stored record cannot be read", "key", string(ev.Kv.Key), "err", err)
				}
				touched[tableOf(string(ev.Kv.Key))] = true
			}
			if len(resp.Events) > 0 {
				rev = resp.Events[len(resp.Events)-1].Kv.ModRevision
				s.publish(rev, touched)
			} else if resp.IsProgressNotify() && resp.Header.Revision > rev {
				rev = resp.Header.Revision
				s.publish(rev, touched)
			}
		}
		if s.ctx.Err() != nil {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		watch = s.rewatch(&rev)
	}
}

// rewatch opens the watch again after rev; when etcd has compacted that away it
// loads everything anew.
func (s *Store) rewatch(rev *int64) clientv3.WatchChan {
	resp, err := s.client.Get(s.ctx, root, clientv3.WithPrefix())
	if err == nil {
		seen := make(map[string]bool, len(resp.Kvs))
		touched := map[string]bool{}
		for _, kv := range resp.Kvs {
			seen[string(kv.Key)] = true
			if kv.ModRevision > *rev {
				touched[tableOf(string(kv.Key))] = true
				if err := s.apply(string(kv.Key), kv.Value, kv.ModRevision, false); err != nil {
					s.log.Error("stored record cannot be read", "key", string(kv.Key), "err", err)
				}
			}
		}
		for name, m := range s.master {
			var gone []string
			m.Scan(func(k string, _ *entry) bool {
				if !seen[root+name+"/"+k] {
					gone = append(gone, k)
				}
				return true
			})
			for _, k := range gone {
				touched[name] = true
				_ = s.apply(root+name+"/"+k, nil, resp.Header.Revision, true)
			}
		}
		*rev = resp.Header.Revision
		s.publish(*rev, touched)
	}
	return s.client.Watch(s.watchCtx, root, clientv3.WithPrefix(), clientv3.WithRev(*rev+1))
}

// tableOf is the table a full key belongs to, "" when it is none of ours.
func tableOf(key string) string {
	rest := strings.TrimPrefix(key, root)
	// Table names have the form service/record, keys follow.
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return ""
	}
	j := strings.IndexByte(rest[i+1:], '/')
	if j < 0 {
		return ""
	}
	return rest[:i+1+j]
}

// apply changes the master copy by what etcd tells; publish makes it visible.
func (s *Store) apply(key string, raw []byte, mod int64, deleted bool) error {
	t, ok := s.tables[tableOf(key)]
	if !ok {
		return nil // a table of another version of Sealdesk: keep it, do not read it
	}
	var v any
	if !deleted {
		var err error
		if v, err = t.decode(raw); err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
	}
	s.set(key, v, mod, deleted)
	return nil
}

// set puts a decoded record of a declared table into the master copy, or deletes it.
func (s *Store) set(key string, v any, mod int64, deleted bool) {
	name := tableOf(key)
	m, k := s.master[name], key[len(root)+len(name)+1:]
	old, _ := m.Get(k)
	var oldValue any
	switch {
	case old != nil:
		oldValue = old.value
	case deleted:
		return
	}
	if deleted {
		m.Delete(k)
	} else {
		m.Set(k, &entry{value: v, mod: mod})
	}
	s.tables[name].notify(k, oldValue, v)
}

// publish makes the master copy of the touched tables (nil: of all) the state
// that Views read, and wakes who waits for a revision.
func (s *Store) publish(rev int64, touched map[string]bool) {
	prev := s.state.Load()
	next := &state{rev: rev, tables: make(map[string]*btree.Map[string, *entry], len(s.master))}
	for name, m := range s.master {
		if prev != nil && touched != nil && !touched[name] {
			next.tables[name] = prev.tables[name]
			continue
		}
		next.tables[name] = m.Copy()
	}
	s.state.Store(next)
	s.mu.Lock()
	close(s.advance)
	s.advance = make(chan struct{})
	s.mu.Unlock()
}

// await returns once the state has reached rev.
func (s *Store) await(ctx context.Context, rev int64) error {
	for {
		s.mu.Lock()
		ch := s.advance
		s.mu.Unlock()
		if s.state.Load().rev >= rev {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrClosed
		}
	}
}

// catchUp returns once the state has reached rev, which need not be that of one of
// our records: others write to a shared cluster, and etcd tells only when asked that
// nothing of ours has changed.
func (s *Store) catchUp(ctx context.Context, rev int64) error {
	for patience := 20 * time.Millisecond; ; patience = 200 * time.Millisecond {
		wait, cancel := context.WithTimeout(ctx, patience)
		err := s.await(wait, rev)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return err
		}
		_ = s.client.RequestProgress(s.watchCtx) // the answer comes with the watch
	}
}

// Changed returns a channel that is closed the next time any record changes.
// Take the channel, then look, then wait: nothing is missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance
}

// Close stops following and, when embedded, stops etcd cleanly. Called again, it does nothing.
func (s *Store) Close() error {
	if s.ctx.Err() != nil {
		return nil
	}
	s.cancel()
	if s.started {
		<-s.done
	}
	err := s.client.Close()
	if s.server != nil {
		s.server.Close()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the etcd client: %w", err)
	}
	return nil
}
