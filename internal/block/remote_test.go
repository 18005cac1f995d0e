package block_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
	"github.com/sealdesk/sealdesk/internal/block/objstore"
	"github.com/sealdesk/sealdesk/internal/secret"
)

func remoteKey() *secret.Bytes { return secret.New(bytes.Repeat([]byte{9}, 64)) }

// flaky is a store that fails on demand, before or after the effect.
type flaky struct {
	block.ObjectStore
	mu     sync.Mutex
	before error
	after  error
}

func (f *flaky) set(before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *flaky) Put(ctx context.Context, name string, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		return f.before
	}
	if err := f.ObjectStore.Put(ctx, name, b); err != nil {
		return err
	}
	return f.after
}

// one is a place with one volume.
func one(s block.ObjectStore) block.Place {
	return func(string) (block.ObjectStore, error) { return s, nil }
}

func remote(t *testing.T, dir string, s block.ObjectStore, strict bool) *block.Remote {
	t.Helper()
	r, err := block.NewRemote(block.RemoteConfig{Dir: dir, Place: one(s), ID: "vol-1", FlushRemote: strict})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openRemote(t *testing.T, dir string, s block.ObjectStore, strict bool) (*block.Volume, error) {
	t.Helper()
	return block.Open(dir, block.Options{Key: remoteKey(), FS: remote(t, dir, s, strict), FlushCheckpoints: strict, CheckpointInterval: -1})
}

func mustOpen(t *testing.T, dir string, s block.ObjectStore, strict bool) *block.Volume {
	t.Helper()
	v, err := openRemote(t, dir, s, strict)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Abandon)
	return v
}

func createRemote(t *testing.T, s block.ObjectStore) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "vol")
	if _, err := block.Create(dir, block.Options{VolumeID: "vol-1", SizeBytes: 64 << 20, Key: remoteKey(), FS: remote(t, dir, s, false)}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, v *block.Volume, at int64, b byte, n int) {
	t.Helper()
	if _, err := v.WriteAt(bytes.Repeat([]byte{b}, n), at); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, v *block.Volume, at int64, b byte, n int) {
	t.Helper()
	p := make([]byte, n)
	if _, err := v.ReadAt(p, at); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{b}, n)) {
		t.Errorf("%d bytes at %d are not all %d: %v", n, at, b, err)
	}
}

// A volume that was closed opens on another host with an empty cache, and reads all.
func TestRemoteMoves(t *testing.T) {
	s := objstore.Dir(t.TempDir())
	a := createRemote(t, s)
	v := mustOpen(t, a, s, false)
	put(t, v, 0, 1, 20<<20)
	put(t, v, 5<<20, 2, 4096)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	w := mustOpen(t, filepath.Join(t.TempDir(), "other"), s, false)
	want(t, w, 0, 1, 5<<20)
	want(t, w, 5<<20, 2, 4096)
	want(t, w, 5<<20+4096, 1, 15<<20-4096)
	if err := w.Check(context.Background(), func(d block.Damage) { t.Errorf("%+v", d) }); err != nil {
		t.Error(err)
	}
	put(t, w, 0, 3, 4096)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// and back: the first host's cache was overtaken
	v = mustOpen(t, a, s, false)
	want(t, v, 0, 3, 4096)
	aside, _ := filepath.Glob(a + ".superseded-*")
	if len(aside) != 1 {
		t.Errorf("caches put aside: %v, want one", aside)
	}
}

// The host is lost. With FlushRemote nothing flushed is missing elsewhere; without, the last checkpoint is there, whole.
func TestRemoteHostLost(t *testing.T) {
	for _, strict := range []bool{true, false} {
		s := objstore.Dir(t.TempDir())
		v := mustOpen(t, createRemote(t, s), s, strict)
		put(t, v, 0, 1, 1<<20)
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		put(t, v, 0, 2, 1<<20)
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		put(t, v, 0, 3, 4096) // not flushed
		w := mustOpen(t, filepath.Join(t.TempDir(), "other"), s, strict)
		if strict {
			want(t, w, 4096, 2, 1<<20-4096)
		} else {
			want(t, w, 0, 1, 1<<20)
		}
	}
}

// Two hosts believe to own the volume: the one that was overtaken is stopped at its next checkpoint or flush.
func TestRemoteFence(t *testing.T) {
	for i, strict := range []bool{true, false, true, false} {
		i /= 2
		s := objstore.Dir(t.TempDir())
		dir := createRemote(t, s)
		v := mustOpen(t, dir, s, strict)
		put(t, v, 0, 1, 1<<20)
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		w := mustOpen(t, filepath.Join(t.TempDir(), "other"), s, strict)
		put(t, w, 0, 2, 4096)
		for range 4 * i { // the number that the first host wants is taken, or was, and is free again
			if err := w.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		put(t, v, 0, 3, 4096)
		err := v.Checkpoint()
		if strict {
			err = v.Flush()
		}
		if !errors.Is(err, block.ErrFenced) || !errors.Is(err, block.ErrFailed) {
			t.Errorf("checkpoint of the host that was overtaken: %v, want ErrFenced", err)
		}
		if _, err := v.WriteAt(make([]byte, 4096), 0); !errors.Is(err, block.ErrFailed) {
			t.Errorf("write after that: %v, want ErrFailed", err)
		}
		if err := w.Checkpoint(); err != nil {
			t.Errorf("the new owner: %v", err)
		}
		want(t, w, 0, 2, 4096)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		x := mustOpen(t, filepath.Join(t.TempDir(), "third"), s, strict)
		want(t, x, 0, 2, 4096)
		want(t, x, 4096, 1, 1<<20-4096)
	}
}

// An outage: with the cache as promise the volume goes on and catches up; with the store as promise flushes fail.
func TestRemoteOutage(t *testing.T) {
	s := &flaky{ObjectStore: objstore.Dir(t.TempDir())}
	dir := createRemote(t, s)
	r := remote(t, dir, s, false)
	v, err := block.Open(dir, block.Options{Key: remoteKey(), FS: r, CheckpointInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Abandon()
	down := errors.New("no route to host")
	s.set(down, nil)
	put(t, v, 0, 1, 1<<20)
	if err := v.Checkpoint(); err != nil || !errors.Is(r.Lag(), down) {
		t.Errorf("checkpoint in an outage = %v, lag %v", err, r.Lag())
	}
	put(t, v, 1<<20, 2, 1<<20)
	s.set(nil, nil)
	if err := v.Checkpoint(); err != nil || r.Lag() != nil {
		t.Errorf("checkpoint after it = %v, lag %v", err, r.Lag())
	}
	w := mustOpen(t, filepath.Join(t.TempDir(), "other"), s, false)
	want(t, w, 0, 1, 1<<20)
	want(t, w, 1<<20, 2, 1<<20)

	s2 := &flaky{ObjectStore: objstore.Dir(t.TempDir())}
	x := mustOpen(t, createRemote(t, s2), s2, true)
	put(t, x, 0, 1, 4096)
	s2.set(down, nil)
	if err := x.Flush(); !errors.Is(err, down) {
		t.Errorf("flush in an outage: %v, want it to fail", err)
	}
	if _, err := openRemote(t, filepath.Join(t.TempDir(), "new"), s2, false); !errors.Is(err, down) {
		t.Errorf("taking over in an outage: %v, want it refused: nothing was claimed", err)
	}
}

// An answer that was lost: the put took effect. The next attempt finds its own object and goes on.
func TestRemoteLostAnswer(t *testing.T) {
	s := &flaky{ObjectStore: objstore.Dir(t.TempDir())}
	dir := createRemote(t, s)
	v := mustOpen(t, dir, s, false)
	put(t, v, 0, 1, 1<<20)
	s.set(nil, errors.New("connection reset"))
	if err := v.Checkpoint(); err != nil { // its segment arrived, its generation was not tried
		t.Fatal(err)
	}
	if err := v.Checkpoint(); err != nil { // the generation arrived, the next one is another
		t.Fatal(err)
	}
	s.set(nil, nil)
	put(t, v, 1<<20, 1, 1<<20)
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	// the process dies after the generation is in the store and before it is noted
	if err := os.Remove(filepath.Join(dir, "remote")); err != nil {
		t.Fatal(err)
	}
	put(t, v, 0, 2, 4096)
	v.Abandon()
	v = mustOpen(t, dir, s, false)
	want(t, v, 1<<20, 1, 1<<20)
	want(t, v, 0, 2, 4096) // the cache, with its log, goes on
	if aside, _ := filepath.Glob(dir + ".superseded-*"); len(aside) != 0 {
		t.Errorf("the cache was put aside: %v", aside)
	}
}

// Objects that nothing needs any more go away; destroying leaves nothing.
func TestRemoteTidies(t *testing.T) {
	ctx := context.Background()
	s := objstore.Dir(t.TempDir())
	dir := createRemote(t, s)
	v := mustOpen(t, dir, s, false)
	for i := range 6 {
		put(t, v, 0, byte(i), 16<<20)
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := s.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	segs, gens := 0, 0
	for _, n := range names {
		if strings.HasPrefix(n, "seg-") {
			segs++
		} else {
			gens++
		}
	}
	if segs > 8 || gens > 3 {
		t.Errorf("%d segments and %d generations for 16 MiB", segs, gens)
	}
	if err := block.DestroyRemote(ctx, one(s), "vol-1"); err != nil {
		t.Fatal(err)
	}
	if names, _ := s.List(ctx, ""); len(names) != 0 {
		t.Errorf("left after destroying: %v", names)
	}
	if err := block.Destroy(dir); err != nil {
		t.Error(err)
	}
}

func FuzzGeneration(f *testing.F) {
	s := objstore.Dir(f.TempDir())
	f.Add([]byte("SDVR\x01\x00\x00\x00"))
	f.Add(append([]byte("SDVR\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00OWNEROWN\x01\x00\x00\x00\x00\x00\x00\x00"), "\x05vol-2"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx := context.Background()
		name := "gen-0000000000000001"
		if err := errors.Join(s.Delete(ctx, name), s.Put(ctx, name, b)); err != nil {
			t.Fatal(err)
		}
		if v, err := openRemote(t, filepath.Join(t.TempDir(), "c"), s, false); err == nil {
			v.Abandon()
			t.Error("a generation without its key's MAC was opened")
		}
		// The same bytes as a hold: what they say is held, or the removal stops; nothing else happens.
		o := &blocktest.Objects{}
		for _, n := range []string{"h/plan", "vol-1/hold-h.1"} {
			id, name, _ := strings.Cut(n, "/")
			at, _ := o.At(id)
			if err := at.Put(ctx, name, b); err != nil {
				t.Fatal(err)
			}
		}
		_ = block.DestroyRemote(ctx, o.At, "h")
	})
}
