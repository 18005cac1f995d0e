package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/store/etcdtest"
)

// TestLeaderIsKilled: two nodes count in one cluster while its leader is killed
// with kill -9, twice. Every Update that said it was done was done once, and no other was:
// an answer lost with the leader is neither a failure nor a second count.
func TestLeaderIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster of three processes")
	}
	ctx := context.Background()
	cluster, err := etcdtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	type node struct {
		s   *store.Store
		tab *store.Table[rec]
	}
	var nodes []node
	for i := range 2 {
		s, err := store.Open(ctx, cluster.Config(fmt.Sprintf("/node%d", i), "/counting"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		tab := store.Define[rec](s, "test/rec", 1)
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node{s, tab})
	}
	stranger, err := store.Open(ctx, cluster.Config("/stranger", "/other")) // its writes move the cluster's revision
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	noise := store.Define[rec](stranger, "test/rec", 1)
	if err := stranger.Start(ctx); err != nil {
		t.Fatal(err)
	}

	var done [4]atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	count := func(n node, c int) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !stop.Load() {
				err := n.s.Update(ctx, func(tx *store.Tx) error {
					r := n.tab.Edit(tx, fmt.Sprint("counter", c))
					if r == nil {
						r = &rec{}
					}
					r.N++
					return n.tab.Put(tx, fmt.Sprint("counter", c), r)
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
				done[c].Add(1)
			}
		}()
	}
	for c := range done {
		count(nodes[c%2], c)
	}
	count(nodes[0], 0) // two writers of one counter, on one node and
	count(nodes[1], 0) // on another
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !stop.Load() {
			if err := stranger.Update(ctx, func(tx *store.Tx) error { return noise.Put(tx, "x", &rec{}) }); err != nil {
				t.Errorf("the stranger's Update: %v", err)
				return
			}
		}
	}()
	for range 2 {
		time.Sleep(time.Second)
		i, err := cluster.KillLeader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		before := done[1].Load()
		for deadline := time.Now().Add(30 * time.Second); done[1].Load() < before+20; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no Update for 30 s after the leader was killed")
			}
		}
		if err := cluster.Restart(i); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	for c := range done {
		want := int(done[c].Load())
		for i, n := range nodes {
			deadline := time.Now().Add(10 * time.Second) // until the watch of the other node has it
			for n.tab.Get(n.s.Snapshot(), fmt.Sprint("counter", c)).N != want && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
			if got := n.tab.Get(n.s.Snapshot(), fmt.Sprint("counter", c)).N; got != want {
				t.Errorf("counter %d on node %d = %d after %d Updates", c, i, got, want)
			}
		}
	}
	t.Logf("%d, %d, %d and %d Updates", done[0].Load(), done[1].Load(), done[2].Load(), done[3].Load())
}

// TestOneOfficeOneHolder: of two nodes one leads; when it lets go the other does at once.
func TestOneOfficeOneHolder(t *testing.T) {
	if testing.Short() || !etcdtest.External() {
		t.Skip("needs SEALDESK_TEST_ETCD=external")
	}
	dir := t.TempDir()
	a, _, _ := open(t, dir)
	defer a.Close()
	b, _, _ := open(t, dir)
	defer b.Close()
	elected := make(chan string, 2)
	lead := func(s *store.Store, name string) (resign func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Lead(ctx, "office", func(ctx context.Context) {
				elected <- name
				<-ctx.Done()
			})
		}()
		return func() { cancel(); <-ended }
	}
	resignA := lead(a, "a")
	if got := <-elected; got != "a" {
		t.Fatalf("%s was elected, want a", got)
	}
	resignB := lead(b, "b")
	defer resignB()
	select {
	case got := <-elected:
		t.Fatalf("%s was elected while a held the office", got)
	case <-time.After(300 * time.Millisecond):
	}
	resignA()
	select {
	case <-elected:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was elected after a resigned")
	}
}

// TestEndpointsThatDoNotAnswer: the start fails, it does not hang.
func TestEndpointsThatDoNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := store.Open(ctx, store.Config{DataDir: t.TempDir(), Endpoints: []string{"http://127.0.0.1:1"}})
	if err == nil {
		t.Fatal("Open with nobody at the endpoint succeeded")
	}
}
