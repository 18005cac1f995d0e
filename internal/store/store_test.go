package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/store/etcdtest"
)

type rec struct {
	N    int
	Tags map[string]string
}

func open(t testing.TB, dir string) (*store.Store, *store.Table[rec], *store.Index[rec]) {
	t.Helper()
	cfg, err := etcdtest.Config(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	tab := store.Define[rec](s, "test/rec", 1)
	ix := store.NewIndex(tab, func(_ string, r *rec) []string { return []string{fmt.Sprint(r.N % 2)} })
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, tab, ix
}

func TestUpdateIsVisibleAndSurvivesRestart(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	start := time.Now()
	s, tab, ix := open(t, dir)
	t.Logf("cold start %v", time.Since(start))
	for i := range 10 {
		if err := s.Update(ctx, func(tx *store.Tx) error { return tab.Put(tx, fmt.Sprintf("a/%02d", i), &rec{N: i}) }); err != nil {
			t.Fatal(err)
		}
		if got := tab.Get(s.Snapshot(), fmt.Sprintf("a/%02d", i)); got == nil || got.N != i {
			t.Fatalf("after Update, Get(%d) = %+v", i, got)
		}
	}
	if got := ix.Keys("1", "", 0); len(got) != 5 || got[0] != "a/01" {
		t.Errorf("index of odd = %v, want 5 keys from a/01", got)
	}
	if got := ix.Keys("1", "a/03", 2); fmt.Sprint(got) != "[a/05 a/07]" {
		t.Errorf("index page after a/03 = %v, want [a/05 a/07]", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, tab, ix = open(t, dir)
	defer s.Close()
	if n := tab.Len(s.Snapshot()); n != 10 {
		t.Errorf("after restart %d records, want 10", n)
	}
	if got := ix.Count("0", 0); got != 5 {
		t.Errorf("after restart index of even has %d, want 5", got)
	}
}

func TestUpdatesAreSerialisable(t *testing.T) {
	ctx := context.Background()
	s, tab, _ := open(t, t.TempDir())
	defer s.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				err := s.Update(ctx, func(tx *store.Tx) error {
					r := tab.Edit(tx, "counter")
					if r == nil {
						r = &rec{}
					}
					r.N++
					return tab.Put(tx, "counter", r)
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if got := tab.Get(s.Snapshot(), "counter").N; got != 160 {
		t.Errorf("counter = %d, want 160: an update was lost", got)
	}
}

// A scan must conflict with an insert into the scanned range: otherwise two
// callers could both find a name free.
func TestScanSeesPhantoms(t *testing.T) {
	ctx := context.Background()
	s, tab, _ := open(t, t.TempDir())
	defer s.Close()
	runs := 0
	err := s.Update(ctx, func(tx *store.Tx) error {
		runs++
		n := 0
		tab.Scan(tx, "p/", "", func(string, *rec) bool { n++; return true })
		if runs == 1 {
			if err := s.Update(ctx, func(in *store.Tx) error { return tab.Put(in, "p/x", &rec{}) }); err != nil {
				return err
			}
		}
		return tab.Put(tx, "count", &rec{N: n})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := tab.Get(s.Snapshot(), "count").N; got != 1 || runs != 2 {
		t.Errorf("count %d after %d runs, want 1 after 2", got, runs)
	}
}

func TestTransactionReadsItsWrites(t *testing.T) {
	ctx := context.Background()
	s, tab, _ := open(t, t.TempDir())
	defer s.Close()
	for _, k := range []string{"s/a", "s/c", "s/d"} {
		if err := s.Update(ctx, func(tx *store.Tx) error { return tab.Put(tx, k, &rec{}) }); err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("roll back")
	err := s.Update(ctx, func(tx *store.Tx) error {
		_ = tab.Put(tx, "s/b", &rec{})
		_ = tab.Put(tx, "s/e", &rec{})
		_ = tab.Delete(tx, "s/c")
		var got []string
		tab.Scan(tx, "s/", "", func(k string, _ *rec) bool { got = append(got, k); return true })
		if fmt.Sprint(got) != "[s/a s/b s/d s/e]" {
			t.Errorf("scan in transaction = %v, want [s/a s/b s/d s/e]", got)
		}
		got = nil
		tab.Scan(tx, "s/", "s/b", func(k string, _ *rec) bool { got = append(got, k); return len(got) < 1 })
		if fmt.Sprint(got) != "[s/d]" {
			t.Errorf("page after s/b = %v, want [s/d]", got)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatalf("Update = %v, want %v", err, stop)
	}
	if tab.Get(s.Snapshot(), "s/b") != nil || tab.Get(s.Snapshot(), "s/c") == nil {
		t.Error("a rolled back transaction left traces")
	}
	if err := tab.Put(s.Snapshot(), "x", &rec{}); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("Put in a View = %v, want ErrReadOnly", err)
	}
}

// TestNewerRecordsAreRefused: a program does not start on records of a newer one, and can stop then.
func TestNewerRecordsAreRefused(t *testing.T) {
	dir := t.TempDir()
	start := func(version byte) (*store.Store, *store.Table[rec], error) {
		s, err := store.Open(context.Background(), store.Config{DataDir: dir, Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		tab := store.Define[rec](s, "test/rec", version)
		return s, tab, s.Start(context.Background())
	}
	s, tab, err := start(2)
	if err == nil {
		err = s.Update(context.Background(), func(tx *store.Tx) error { return tab.Put(tx, "k", &rec{N: 1}) })
	}
	if err = errors.Join(err, s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, _, err = start(1)
	if err == nil || !strings.Contains(err.Error(), "written by a newer Sealdesk") {
		t.Errorf("Start on a record of version 2 with version 1 = %v", err)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close after a Start that failed does not return")
	}
}

func BenchmarkGet(b *testing.B) {
	s, tab, _ := open(b, b.TempDir())
	defer s.Close()
	if err := s.Update(context.Background(), func(tx *store.Tx) error { return tab.Put(tx, "k", &rec{N: 1}) }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		tab.Get(s.Snapshot(), "k")
	}
}

func BenchmarkUpdate(b *testing.B) {
	s, tab, _ := open(b, b.TempDir())
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Update(context.Background(), func(tx *store.Tx) error { return tab.Put(tx, "k", &rec{N: 1}) }); err != nil {
			b.Fatal(err)
		}
	}
}
