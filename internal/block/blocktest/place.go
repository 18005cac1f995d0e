package blocktest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Place is the conformance suite of a block.Place: a volume, its snapshots and a clone, over three hosts of which two are lost. Nothing
// is left of it in the end. name makes the IDs unlike all others of the place.
func Place(t *testing.T, p block.Place, name string) {
	ctx := context.Background()
	vol, snap1, snap2, clone := name+"-vol", name+"-snap1", name+"-snap2", name+"-clone"
	key, other := secret.New(bytes.Repeat([]byte{3}, 64)), secret.New(bytes.Repeat([]byte{4}, 64))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	options := func(host, id string, k *secret.Bytes) (string, block.Options) {
		t.Helper()
		dir := filepath.Join(host, id)
		r, err := block.NewRemote(block.RemoteConfig{Dir: dir, Place: p, ID: id})
		must(err)
		return dir, block.Options{VolumeID: id, Key: k, FS: r, CheckpointInterval: -1}
	}
	open := func(host, id string, k *secret.Bytes, a block.Anchor, readOnly bool) *block.Volume {
		t.Helper()
		dir, o := options(host, id, k)
		o.Anchor, o.ReadOnly = a, readOnly
		v, err := block.Open(dir, o)
		must(err)
		t.Cleanup(v.Abandon)
		return v
	}
	write := func(v *block.Volume, b byte, at, n int) {
		t.Helper()
		_, err := v.WriteAt(bytes.Repeat([]byte{b}, n), int64(at))
		must(err)
	}
	holds := func(v *block.Volume, b byte, at, n int) {
		t.Helper()
		got := make([]byte, n)
		if _, err := v.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{b}, n)) {
			t.Errorf("%s: %d bytes at %d begin with %d (%v), want %d", v.ID(), n, at, got[0], err, b)
		}
	}
	const mib = 1 << 20

	one, two, three := t.TempDir(), t.TempDir(), t.TempDir()
	dir, o := options(one, vol, key)
	o.SizeBytes = 32 * mib
	_, err := block.Create(dir, o)
	must(err)
	v := open(one, vol, key, block.Anchor{}, false)
	write(v, 1, 0, 12*mib)
	pin1, err := v.Snapshot(filepath.Join(one, snap1), snap1)
	must(err)
	write(v, 2, 0, 4*mib)
	pin2, err := v.Snapshot(filepath.Join(one, snap2), snap2)
	must(err)
	if _, err := v.Snapshot(filepath.Join(one, snap1), snap1); !errors.Is(err, block.ErrExists) {
		t.Errorf("a second snapshot of one ID: %v, want ErrExists", err)
	}
	v.Abandon() // with its host

	dir, o = options(two, clone, other)
	o.SizeBytes = 128 * mib
	a, err := block.Clone(dir, o, block.Source{ID: snap1, Key: key, Anchor: pin1})
	must(err)
	if _, err := block.Clone(dir, o, block.Source{ID: snap1, Key: key, Anchor: pin1}); !errors.Is(err, block.ErrExists) {
		t.Errorf("a second clone of one ID: %v, want ErrExists", err)
	}
	wrongDir, wrong := options(two, name+"-wrong", other)
	if _, err := block.Clone(wrongDir, wrong, block.Source{ID: snap1, Key: other}); !errors.Is(err, block.ErrKey) {
		t.Errorf("a clone with a wrong key for its source: %v, want ErrKey", err)
	}
	pin := pin1
	pin.Version++
	if _, err := block.Clone(wrongDir, wrong, block.Source{ID: snap1, Key: key, Anchor: pin}); !errors.Is(err, block.ErrRollback) {
		t.Errorf("a clone of what is older than its anchor: %v, want ErrRollback", err)
	}
	c := open(two, clone, other, a, false)
	holds(c, 1, 0, 12*mib)
	holds(c, 0, 12*mib, 100*mib)
	write(c, 3, 8*mib, 8*mib)
	must(c.Close())
	must(block.DestroyRemote(ctx, p, vol))
	must(block.DestroyRemote(ctx, p, snap1))
	if _, err := block.Clone(wrongDir, wrong, block.Source{ID: snap1, Key: key}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a clone of what was destroyed: %v, want fs.ErrNotExist", err)
	}

	c = open(three, clone, other, c.Anchor(), false)
	holds(c, 1, 0, 8*mib)
	holds(c, 3, 8*mib, 8*mib)
	must(c.Check(ctx, func(d block.Damage) { t.Errorf("%s: %+v", clone, d) }))
	dir, o = options(three, name+"-reader", other)
	a, err = block.Clone(dir, o, block.Source{ID: snap2, Key: key, Anchor: pin2, Scratch: true})
	must(err)
	r := open(three, name+"-reader", other, a, true)
	holds(r, 2, 0, 4*mib)
	holds(r, 1, 4*mib, 8*mib)
	must(r.Close())
	if dir, o := options(three, name+"-reader", other); true {
		if v, err := block.Open(dir, o); !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("a clone for reading opened for writing: %v, want ErrReadOnly", err)
			v.Abandon()
		}
	}
	must(c.Close())
	for _, id := range []string{snap2, clone, clone} { // again is no error
		must(block.DestroyRemote(ctx, p, id))
	}
	for _, id := range []string{vol, snap1, snap2, clone, name + "-reader", name + "-wrong"} {
		s, err := p(id)
		must(err)
		if left, err := s.List(ctx, ""); err != nil || len(left) > 0 {
			t.Errorf("left of %s: %v %v", id, left, err)
		}
	}
}
