package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
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

// Objects is a Place in memory: what survives all hosts.
type Objects struct {
	mu      sync.Mutex
	objects map[string][]byte // by "ID/name"
	changes int

	// Before, when set, is asked before each put and removal, After when it has taken effect. An error fails the operation. They are
	// called without a lock, and may use the store.
	Before, After func(n int, op, id, name string) error
}

// At is the Place.
func (o *Objects) At(id string) (block.ObjectStore, error) { return &objectsAt{o, id}, nil }

// Names are the names of all objects, as "ID/name".
func (o *Objects) Names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.objects))
}

// Changes is the number of puts and removals so far.
func (o *Objects) Changes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changes
}

// Object is an object, by "ID/name"; nil when there is none.
func (o *Objects) Object(path string) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.objects[path]
}

// Set puts an object behind everybody's back.
func (o *Objects) Set(path string, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.objects == nil {
		o.objects = map[string][]byte{}
	}
	o.objects[path] = data
}

type objectsAt struct {
	o  *Objects
	id string
}

func (s *objectsAt) change(op, name string, do func(path string) error) error {
	o := s.o
	o.mu.Lock()
	o.changes++
	n := o.changes
	o.mu.Unlock()
	if o.Before != nil {
		if err := o.Before(n, op, s.id, name); err != nil {
			return err
		}
	}
	o.mu.Lock()
	if o.objects == nil {
		o.objects = map[string][]byte{}
	}
	err := do(s.id + "/" + name)
	o.mu.Unlock()
	if err == nil && o.After != nil {
		err = o.After(n, op, s.id, name)
	}
	return err
}

func (s *objectsAt) Put(_ context.Context, name string, data []byte) error {
	return s.change("put", name, func(path string) error {
		if _, ok := s.o.objects[path]; ok {
			return fmt.Errorf("%s: %w", path, block.ErrObjectExists)
		}
		s.o.objects[path] = bytes.Clone(data)
		return nil
	})
}

func (s *objectsAt) Delete(_ context.Context, name string) error {
	return s.change("delete", name, func(path string) error {
		delete(s.o.objects, path)
		return nil
	})
}

func (s *objectsAt) Get(_ context.Context, name string) ([]byte, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	b, ok := s.o.objects[s.id+"/"+name]
	if !ok {
		return nil, fmt.Errorf("%s/%s: %w", s.id, name, fs.ErrNotExist)
	}
	return bytes.Clone(b), nil
}

func (s *objectsAt) List(_ context.Context, prefix string) ([]string, error) {
	var names []string
	for _, path := range s.o.Names() {
		if name, ok := strings.CutPrefix(path, s.id+"/"); ok && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, nil
}
