package blocktest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
)

// ObjectStore is the conformance suite of block.ObjectStore. open yields the same, at first empty, store each time.
func ObjectStore(t *testing.T, open func() block.ObjectStore) {
	ctx := context.Background()
	s := open()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB, a segment
	if names, err := s.List(ctx, ""); err != nil || len(names) != 0 {
		t.Fatalf("List of an empty store = %v, %v", names, err)
	}
	if _, err := s.Get(ctx, "seg-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of nothing: %v, want fs.ErrNotExist", err)
	}
	if err := s.Delete(ctx, "seg-1"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	for name, data := range map[string][]byte{"seg-2": big, "seg-1": []byte("one"), "gen-1": {}} {
		if err := s.Put(ctx, name, data); err != nil {
			t.Fatalf("Put(%s) = %v", name, err)
		}
		if got, err := open().Get(ctx, name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("Get(%s) = %d bytes, %v, want %d", name, len(got), err, len(data))
		}
	}
	if names, err := s.List(ctx, "seg-"); err != nil || !slices.Equal(names, []string{"seg-1", "seg-2"}) {
		t.Errorf("List(seg-) = %v, %v", names, err)
	}
	if err := open().Put(ctx, "seg-1", []byte("two")); !errors.Is(err, block.ErrObjectExists) {
		t.Errorf("second Put of a name: %v, want ErrObjectExists", err)
	}
	if got, err := s.Get(ctx, "seg-1"); err != nil || string(got) != "one" {
		t.Errorf("the object that was there first is now %q, %v", got, err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch err := open().Put(ctx, "gen-2", []byte{byte(i)}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, block.ErrObjectExists):
				t.Errorf("Put beside others: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 8 writers of one name won, want 1", won.Load())
	}
	for _, name := range []string{"seg-1", "seg-2", "gen-1", "gen-2"} {
		if err := s.Delete(ctx, name); err != nil {
			t.Errorf("Delete(%s) = %v", name, err)
		}
	}
	if names, err := s.List(ctx, ""); err != nil || len(names) != 0 {
		t.Errorf("List after deleting all = %v, %v", names, err)
	}
}
