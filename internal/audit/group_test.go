package audit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slow is a file on a disk that takes its time, and counts syncs.
type slow struct {
	file
	syncs *atomic.Int64
}

func (f slow) Datasync() error {
	f.syncs.Add(1)
	time.Sleep(300 * time.Microsecond)
	return nil
}

// Many calls share a sync; a call alone has one at once, also right after them.
func TestGroupCommit(t *testing.T) {
	var syncs atomic.Int64
	l, err := bare(t, t.TempDir(), func(path string) (file, error) {
		f, err := openFile(path)
		return slow{f, &syncs}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	const calls, each = 64, 50
	from := syncs.Load()
	var wg sync.WaitGroup
	for c := range calls {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range each {
				if err := l.Append(ctx, one(c*each+n)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if got := syncs.Load() - from; got > calls*each/4 {
		t.Errorf("%d syncs for %d records of %d calls at a time: want 4 records or more a sync", got, calls*each, calls)
	}
	if h := l.Head(); h.Seq != calls*each {
		t.Errorf("the head is record %d, want %d", h.Seq, calls*each)
	}
	l.mu.Lock()
	waiting, peers := l.calls, l.peers
	l.mu.Unlock()
	if waiting != 0 || peers <= few {
		t.Errorf("after the calls %d wait and %d are expected, want 0 and more than %d", waiting, peers, few)
	}
	time.Sleep(2 * quietTime)
	from = syncs.Load()
	for n := range 3 {
		if err := l.Append(ctx, one(n)); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	peers = l.peers
	l.mu.Unlock()
	if got := syncs.Load() - from; got != 3 || peers > few {
		t.Errorf("3 calls, one after the other, had %d syncs with %d calls expected; want 3 and no more than %d", got, peers, few)
	}
}
