package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// erasure is the wish that what was deleted or overwritten up to now vanish from
// etcd's files. Table store/erasure, version 1, key "wanted".
type erasure struct{ Wanted time.Time }

const wanted = "wanted"

// Erase asks, with tx, that what tx and transactions before it deleted or overwrote
// vanish from the files of an embedded etcd: its database, where old revisions live
// until they are compacted and freed pages until they are used again, and its
// write-ahead log. RunErasures does it soon after the commit, and after a restart if
// need be. An external cluster's history is compacted and its databases are
// defragmented; its write-ahead logs are its operator's.
func (s *Store) Erase(tx *Tx) error {
	return s.erasures.Put(tx, wanted, &erasure{time.Now().UTC()})
}

// Sizes that make erasing the write-ahead log possible: a segment is removed when a
// later one holds the last raft snapshot, which etcd takes every snapshotCount entries.
const (
	walSegment    = 8 << 20
	snapshotCount = 2000
	filler        = 4 << 10 // bytes of one entry that pushes others out
	fillers       = 2*walSegment/filler + 2*snapshotCount
	erasePause    = 5 * time.Minute // between two erasures
)

// RunErasures does what Erase asks for, until ctx ends. Run it on one server of a
// cluster at a time.
func (s *Store) RunErasures(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.Changed()
		tx := s.Snapshot()
		e := tx.get(s.erasures.name, wanted)
		if e == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		if !sleep(ctx, s.cfg.EraseDelay) {
			return
		}
		if err := s.erase(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Error("what was deleted is not erased from the store's files yet; it is tried again", "err", err)
			}
			sleep(ctx, time.Minute)
			continue
		}
		err := s.Update(ctx, func(tx *Tx) error {
			if now := tx.get(s.erasures.name, wanted); now == nil || now.mod > s.erasedTo {
				return nil // wished for again meanwhile
			}
			return s.erasures.Delete(tx, wanted)
		})
		if err == nil {
			s.log.Info("what was deleted is erased from the store's files", "revision", s.erasedTo)
			sleep(ctx, min(erasePause, 10*s.cfg.EraseDelay))
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// erase removes every earlier revision from etcd's files.
func (s *Store) erase(ctx context.Context) error {
	resp, err := s.client.Get(ctx, root+"store/erasure/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	rev := resp.Header.Revision
	if _, err := s.client.Compact(ctx, rev, clientv3.WithCompactPhysical()); err != nil && !strings.Contains(err.Error(), "has been compacted") {
		return fmt.Errorf("compact: %w", err)
	}
	if s.server != nil {
		if err := s.server.Server.Backend().Defrag(); err != nil {
			return fmt.Errorf("defragment: %w", err)
		}
		if err := s.eraseWAL(ctx); err != nil {
			return err
		}
	}
	for _, e := range s.cfg.Endpoints {
		if _, err := s.client.Defragment(ctx, e); err != nil {
			return fmt.Errorf("defragment %s: %w", e, err)
		}
	}
	s.erasedTo = rev
	return nil
}

// eraseWAL has etcd remove every present segment of its write-ahead log, by writing
// entries of no effect (deletions of a key that does not exist leave no revision)
// until later segments hold all that a restart needs.
func (s *Store) eraseWAL(ctx context.Context) error {
	pattern := filepath.Join(s.cfg.DataDir, "etcd", "member", "wal", "*.wal")
	before, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	key := root + "store/filler/" + strings.Repeat("0", filler)
	var wg sync.WaitGroup
	var once sync.Once
	const writers = 32
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range fillers / writers {
				if _, e := s.client.Delete(ctx, key); e != nil {
					once.Do(func() { err = fmt.Errorf("push the write-ahead log on: %w", e) })
					return
				}
			}
		}()
	}
	wg.Wait()
	if err != nil {
		return err
	}
	// etcd looks for segments to remove every 30 seconds.
	for deadline := time.Now().Add(3 * time.Minute); ; {
		left := 0
		for _, p := range before {
			if _, err := os.Stat(p); err == nil {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d segments of the write-ahead log from before are still there", left)
		}
		if !sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
}
