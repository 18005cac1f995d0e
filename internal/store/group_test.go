package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type counted struct{ N int }

func openGroup(t *testing.T) (*Store, *Table[counted]) {
	t.Helper()
	s, err := Open(context.Background(), Config{DataDir: t.TempDir(), Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.ctx.Err() == nil {
			s.Close()
		}
	})
	tab := Define[counted](s, "test/counted", 1)
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, tab
}

// hold has an Update of its own, of the record "first", stay under way until let; wait
// returns when n transactions wait behind it.
func hold(t *testing.T, s *Store, tab *Table[counted]) (let func() error, wait func(n int)) {
	t.Helper()
	propose, entered, gate, first := s.group.propose, make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	s.group.propose = func(ctx context.Context, ops []clientv3.Op) (int64, error) {
		once.Do(func() { close(entered); <-gate })
		return propose(ctx, ops)
	}
	go func() {
		first <- s.Update(context.Background(), func(tx *Tx) error { return tab.Put(tx, "first", &counted{1}) })
	}()
	<-entered
	return func() error { close(gate); return <-first }, func(n int) {
		for {
			s.group.mu.Lock()
			waiting := len(s.group.waiting)
			s.group.mu.Unlock()
			if waiting == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Transactions that wait are one revision, and each has its own outcome: those on
// keys of their own are done, of those that change one key after reading it every one is done once.
func TestGroupIsOneRevision(t *testing.T) {
	ctx := context.Background()
	s, tab := openGroup(t)
	put := func(k string) error {
		return s.Update(ctx, func(tx *Tx) error { return tab.Put(tx, k, &counted{1}) })
	}
	let, wait := hold(t, s, tab)
	var runs atomic.Int64
	var wg sync.WaitGroup
	before := s.Snapshot().Revision()
	for i := range 40 {
		wg.Go(func() {
			if err := put(fmt.Sprintf("own/%02d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			err := s.Update(ctx, func(tx *Tx) error {
				runs.Add(1)
				n := 0
				if v := tab.Get(tx, "shared"); v != nil {
					n = v.N
				}
				return tab.Put(tx, "shared", &counted{n + 1})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait(44)
	if err := let(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	tx := s.Snapshot()
	// The first; all that waited, of the four one; then one more of the four each time.
	if got := tx.Revision() - before; got != 5 {
		t.Errorf("45 transactions took %d revisions, want 5", got)
	}
	if n := tab.Len(tx); n != 42 {
		t.Errorf("%d records, want 42", n)
	}
	if v := tab.Get(tx, "shared"); v == nil || v.N != 4 {
		t.Errorf("four additions of 1 made %+v", v)
	}
	// The three that lost run again, one of them or all of them against each other.
	if n := runs.Load(); n < 4+3 || n > 4+3+2+1 {
		t.Errorf("four additions to one key in one group ran %d times, want 7 to 10", n)
	}
}

// Each of two transactions reads what the other writes: in one group only one may be done.
func TestGroupWriteSkew(t *testing.T) {
	ctx := context.Background()
	s, tab := openGroup(t)
	for _, how := range []string{"get", "scan"} {
		for round := range 30 {
			dir := fmt.Sprintf("%s%d/", how, round)
			var wg sync.WaitGroup
			for _, mine := range []string{"a", "b"} {
				wg.Go(func() {
					_ = s.Update(ctx, func(tx *Tx) error {
						others := 0
						if how == "scan" {
							tab.Scan(tx, dir, "", func(string, *counted) bool { others++; return true })
						} else {
							for _, k := range []string{"a", "b"} {
								if tab.Get(tx, dir+k) != nil {
									others++
								}
							}
						}
						if others > 0 {
							return errors.New("somebody is there")
						}
						return tab.Put(tx, dir+mine, &counted{1})
					})
				})
			}
			wg.Wait()
			n := 0
			tab.Scan(s.Snapshot(), dir, "", func(string, *counted) bool { n++; return true })
			if n != 1 {
				t.Fatalf("%s: %d of two transactions that exclude each other were done, want 1", how, n)
			}
		}
	}
}

// Random transfers between accounts keep the sum, at every moment and after a restart,
// also when etcd's answers are lost, before or after it has done what was asked.
func TestGroupLostAnswers(t *testing.T) {
	ctx := context.Background()
	s, tab := openGroup(t)
	const accounts, each = 12, 100
	key := func(i int) string { return fmt.Sprintf("account/%02d", i) }
	if err := s.Update(ctx, func(tx *Tx) error {
		for i := range accounts {
			if err := tab.Put(tx, key(i), &counted{each}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	propose := s.group.propose
	var calls, lost, dropped int // used by one goroutine at a time
	s.group.propose = func(ctx context.Context, ops []clientv3.Op) (int64, error) {
		switch calls++; calls % 5 {
		case 1:
			lost++
			_, _ = propose(ctx, ops)
			return 0, rpctypes.ErrTimeout
		case 3:
			dropped++
			return 0, rpctypes.ErrTimeout
		}
		return propose(ctx, ops)
	}
	sum := func(tx *Tx) (n int) {
		tab.Scan(tx, "account/", "", func(_ string, v *counted) bool { n += v.N; return true })
		return n
	}
	var wg sync.WaitGroup
	var moved, made atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for n := range 40 {
				a, b := r.IntN(accounts), r.IntN(accounts)
				if a == b {
					continue
				}
				err := s.Update(ctx, func(tx *Tx) error {
					x, y := tab.Get(tx, key(a)), tab.Get(tx, key(b))
					if err := tab.Put(tx, key(a), &counted{x.N - 1}); err != nil {
						return err
					}
					if err := tab.Put(tx, key(b), &counted{y.N + 1}); err != nil {
						return err
					}
					return tab.Put(tx, fmt.Sprintf("done/%d-%d", w, n), &counted{1})
				})
				switch {
				case err == nil:
					moved.Add(1)
					if tab.Get(s.Snapshot(), fmt.Sprintf("done/%d-%d", w, n)) == nil {
						t.Errorf("Update returned and its write is not to be seen")
					}
				case !errors.Is(err, ErrContended):
					t.Error(err)
				}
				if got := sum(s.Snapshot()); got != accounts*each {
					t.Errorf("the sum is %d, want %d", got, accounts*each)
				}
			}
		})
	}
	wg.Wait()
	if lost == 0 || dropped == 0 {
		t.Fatalf("%d answers lost, %d proposals dropped: nothing was tested", lost, dropped)
	}
	tab.Scan(s.Snapshot(), "done/", "", func(string, *counted) bool { made.Add(1); return true })
	if made.Load() != moved.Load() {
		t.Errorf("%d transfers are stored, %d Updates returned nil", made.Load(), moved.Load())
	}
	// What is in memory is what etcd has.
	stored := map[string]int64{}
	resp, err := s.client.Get(ctx, root+"test/counted/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		stored[strings.TrimPrefix(string(kv.Key), root+"test/counted/")] = kv.ModRevision
	}
	n := 0
	s.state.Load().tables["test/counted"].Scan(func(k string, e *entry) bool {
		n++
		if stored[k] != e.mod {
			t.Errorf("%s is of revision %d in memory and %d in etcd", k, e.mod, stored[k])
		}
		return true
	})
	if n != len(stored) {
		t.Errorf("%d records in memory, %d in etcd", n, len(stored))
	}
	t.Logf("%d transfers in %d proposals, %d answers lost, %d proposals dropped", moved.Load(), calls, lost, dropped)
}

// A transaction that etcd does not take does not take others of its group with it.
func TestGroupRefusedMember(t *testing.T) {
	ctx := context.Background()
	s, tab := openGroup(t)
	propose := s.group.propose
	s.group.propose = func(ctx context.Context, ops []clientv3.Op) (int64, error) {
		for _, op := range ops {
			if strings.HasSuffix(string(op.KeyBytes()), "/bad") {
				return 0, rpctypes.ErrRequestTooLarge
			}
		}
		return propose(ctx, ops)
	}
	let, wait := hold(t, s, tab)
	var wg sync.WaitGroup
	results := map[string]error{}
	var mu sync.Mutex
	for _, k := range []string{"a", "bad", "b", "c"} {
		wg.Go(func() {
			err := s.Update(ctx, func(tx *Tx) error { return tab.Put(tx, k, &counted{1}) })
			mu.Lock()
			defer mu.Unlock()
			results[k] = err
		})
	}
	wait(4)
	if err := let(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for k, err := range results {
		if bad := k == "bad"; bad != (err != nil) || bad && !errors.Is(err, rpctypes.ErrRequestTooLarge) {
			t.Errorf("Update of %s: %v", k, err)
		}
		if (tab.Get(s.Snapshot(), k) != nil) != (err == nil) {
			t.Errorf("%s: Update said %v and the record tells otherwise", k, err)
		}
	}
}

// An Update after Close, or under way at Close, returns.
func TestGroupClosed(t *testing.T) {
	s, tab := openGroup(t)
	let, wait := hold(t, s, tab)
	errs := make(chan error, 2)
	for i := range 2 {
		go func() {
			errs <- s.Update(context.Background(), func(tx *Tx) error { return tab.Put(tx, fmt.Sprint(i), &counted{1}) })
		}()
	}
	wait(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := let(); !errors.Is(err, ErrClosed) {
		t.Errorf("Update under way at Close: %v, want ErrClosed", err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("Update at Close: %v, want ErrClosed", err)
		}
	}
	if err := s.Update(context.Background(), func(tx *Tx) error { return tab.Put(tx, "later", &counted{1}) }); !errors.Is(err, ErrClosed) {
		t.Errorf("Update after Close: %v, want ErrClosed", err)
	}
}
