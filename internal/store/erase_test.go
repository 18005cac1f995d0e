package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/store/etcdtest"
)

// holding lists the files below dir that contain b.
func holding(t *testing.T, dir string, b []byte) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(content, b) {
			found = append(found, p)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

// What was deleted, or overwritten, is in no file of the store some time after Erase;
// what was not is still there, also for a store that is opened again.
func TestErase(t *testing.T) {
	if etcdtest.External() {
		t.Skip("the files of an external cluster are its operator's to erase")
	}
	if testing.Short() {
		t.Skip("etcd removes segments of its log every 30 seconds")
	}
	ctx := context.Background()
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{DataDir: dir, EraseDelay: time.Millisecond, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	tab := store.Define[rec](s, "test/rec", 1)
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	put := func(key, tag string) {
		t.Helper()
		if err := s.Update(ctx, func(tx *store.Tx) error { return tab.Put(tx, key, &rec{Tags: map[string]string{"t": tag}}) }); err != nil {
			t.Fatal(err)
		}
	}
	put("deleted", "marker-deleted")
	put("changed", "marker-overwritten")
	put("kept", "marker-kept")
	for i := range 50 {
		put(fmt.Sprint("other", i), "x")
	}
	put("changed", "marker-new")
	for _, m := range []string{"marker-deleted", "marker-overwritten"} {
		if len(holding(t, dir, []byte(m))) == 0 {
			t.Fatalf("%s is in no file before it is erased: this test looks in the wrong place", m)
		}
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { s.RunErasures(run); close(done) }()
	if err := s.Update(ctx, func(tx *store.Tx) error { return errors.Join(tab.Delete(tx, "deleted"), s.Erase(tx)) }); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for {
		left := append(holding(t, dir, []byte("marker-deleted")), holding(t, dir, []byte("marker-overwritten"))...)
		if len(left) == 0 {
			break
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("still there after two minutes: %v", left)
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("erased after %v", time.Since(start))
	if len(holding(t, dir, []byte("marker-kept"))) == 0 || len(holding(t, dir, []byte("marker-new"))) == 0 {
		t.Error("what was kept is in no file")
	}
	stop()
	<-done
	put("after", "marker-after")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, tab2, _ := open(t, dir)
	defer s.Close()
	for key, tag := range map[string]string{"kept": "marker-kept", "changed": "marker-new", "after": "marker-after"} {
		if r := tab2.Get(s.Snapshot(), key); r == nil || r.Tags["t"] != tag {
			t.Errorf("opened again: %s = %+v, want tag %s", key, r, tag)
		}
	}
	if tab2.Get(s.Snapshot(), "deleted") != nil {
		t.Error("opened again: the deleted record is back")
	}
}

func TestForbid(t *testing.T) {
	ctx := context.Background()
	s, tab, _ := open(t, t.TempDir())
	defer s.Close()
	s.Forbid([][]byte{[]byte("stale")})
	runs := 0
	err := s.Update(ctx, func(tx *store.Tx) error {
		tag := "stale"
		if runs++; runs > 3 {
			tag = "fresh"
		}
		return tab.Put(tx, "k", &rec{Tags: map[string]string{"t": tag}})
	})
	if err != nil || runs != 4 || tab.Get(s.Snapshot(), "k").Tags["t"] != "fresh" {
		t.Fatalf("Update = %v after %d runs, stored %+v; want nil after 4 and fresh", err, runs, tab.Get(s.Snapshot(), "k"))
	}
	if err := s.Update(ctx, func(tx *store.Tx) error {
		return tab.Put(tx, "k", &rec{Tags: map[string]string{"t": "stale"}})
	}); !errors.Is(err, store.ErrContended) {
		t.Errorf("a transaction that cannot do without = %v, want ErrContended", err)
	}
	s.Forbid(nil)
}

func TestEachAndFill(t *testing.T) {
	ctx := context.Background()
	a, tab, _ := open(t, t.TempDir())
	defer a.Close()
	const n = 2500 // more than two pages
	for from := 0; from < n; from += 500 {
		if err := a.Update(ctx, func(tx *store.Tx) error {
			for i := from; i < from+500; i++ {
				if err := tab.Put(tx, fmt.Sprintf("k%05d", i), &rec{N: i}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	var all []store.Record
	changed := false
	rev, err := a.Each(ctx, func(r store.Record) error {
		if all = append(all, r); !changed {
			changed = true // a change during the reading is not seen
			return a.Update(ctx, func(tx *store.Tx) error { return tab.Put(tx, "z", &rec{N: -1}) })
		}
		return nil
	})
	if err != nil || len(all) != n || rev == 0 {
		t.Fatalf("Each gave %d records at revision %d, %v; want %d", len(all), rev, err, n)
	}
	dir := t.TempDir()
	cfg, err := etcdtest.Config(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Unsynced = true
	b, err := store.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	seq := func(yield func(store.Record, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
	if err := b.Fill(ctx, seq); err != nil {
		t.Fatal(err)
	}
	if err := b.Fill(ctx, seq); err == nil {
		t.Error("a store that holds records was filled again")
	}
	b.Close()
	b, tab2, _ := open(t, dir)
	defer b.Close()
	if got := tab2.Len(b.Snapshot()); got != n || tab2.Get(b.Snapshot(), "k02499").N != 2499 {
		t.Errorf("filled store has %d records, want %d", got, n)
	}
}
