package block_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

const tamperBlocks = 600

// tamperVolume makes a volume that was written once from end to end: every data slot is
// reached by the map. With clean it is closed, else its process is killed after a flush.
func tamperVolume(t *testing.T, id string, stamp uint64, clean bool) (*blocktest.MemFS, block.Anchor) {
	t.Helper()
	fs := blocktest.NewMemFS()
	opt := block.Options{VolumeID: id, SizeBytes: tamperBlocks * bs, Key: key(1), FS: fs, SegmentSlots: 128, CheckpointInterval: -1}
	if _, err := block.Create("", opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open("", opt)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < tamperBlocks; i += 20 {
		var p []byte
		for k := range 20 {
			p = append(p, stamped(i+k, stamp+uint64(i+k))...)
		}
		if _, err := v.WriteAt(p, int64(i)*bs); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := v.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	if clean {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		v.Abandon()
	}
	return fs, v.Anchor()
}

// look opens a volume and reads it block by block. It fails the test when any block reads as
// something that was never its newest content, and returns how many blocks are reported damaged.
func look(t *testing.T, what string, fs *blocktest.MemFS, anchor block.Anchor, stamp uint64) (damaged int, err error) {
	t.Helper()
	v, err := block.Open("", block.Options{Key: key(1), FS: fs, Anchor: anchor, ReadOnly: true})
	if err != nil {
		if !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: open: %v, want ErrCorrupt", what, err)
		}
		return 0, err
	}
	defer v.Abandon()
	b := make([]byte, bs)
	for i := range tamperBlocks {
		for k := range b {
			b[k] = 0xee
		}
		_, err := v.ReadAt(b, int64(i)*bs)
		switch {
		case errors.Is(err, block.ErrCorrupt):
			damaged++
			if !isZeros(b) {
				t.Errorf("%s: block %d: bytes came back beside the error", what, i)
			}
		case err != nil:
			t.Errorf("%s: block %d: %v, want ErrCorrupt or the data", what, i, err)
		case !bytes.Equal(b, stamped(i, stamp+uint64(i))):
			t.Fatalf("%s: block %d reads as something else", what, i)
		}
	}
	return damaged, nil
}

func isZeros(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

func segNames(fs *blocktest.MemFS) (l []string) {
	for _, n := range fs.Names() {
		if strings.HasPrefix(n, "seg-") {
			l = append(l, n)
		}
	}
	return l
}

func TestFlippedBits(t *testing.T) {
	clean, anchor := tamperVolume(t, "vol-t", 1000, true)
	r := rand.New(rand.NewPCG(1, 1))
	if n, err := look(t, "untouched", clean, anchor, 1000); n != 0 || err != nil {
		t.Fatalf("untouched volume: %d damaged, %v", n, err)
	}
	var data, pages, descs int
	for _, name := range segNames(clean) {
		b := clean.Bytes(name)
		side := b[6] == 2
		blocks := 0 // data slots before the next descriptor
		for slot := 0; slot < len(b)/bs; slot++ {
			fs := clean.Kill()
			at := slot*bs + r.IntN(bs)
			fs.Bytes(name)[at] ^= 1 << r.IntN(8)
			n, err := look(t, name, fs, anchor, 1000)
			switch {
			case blocks == 0: // a descriptor: of no use to a volume that was closed
				blocks = int(b[slot*bs+22]) | int(b[slot*bs+23])<<8
				if n != 0 || err != nil {
					t.Errorf("%s slot %d, a descriptor: %d damaged, %v; want none", name, slot, n, err)
				}
				descs++
				continue
			case side:
				pages++
				if n == 0 && err == nil {
					t.Errorf("%s slot %d, a map page: the flipped bit at %d went unseen", name, slot, at)
				}
			default:
				data++
				if n != 1 || err != nil {
					t.Errorf("%s slot %d: %d damaged blocks, %v; want just the one", name, slot, n, err)
				}
			}
			blocks--
		}
	}
	if data != tamperBlocks || pages < 6 || descs < 10 {
		t.Errorf("looked at %d data slots, %d pages, %d descriptors", data, pages, descs)
	}
	// the newest manifest: any bit
	newest := "manifest.0"
	if anchor.Version%2 == 1 {
		newest = "manifest.1"
	}
	m := clean.Bytes(newest)
	end := 64 + (int(m[16]) | int(m[17])<<8) + 32
	for at := range end {
		fs := clean.Kill()
		fs.Bytes(newest)[at] ^= 1 << r.IntN(8)
		if _, err := look(t, newest, fs, anchor, 1000); err == nil {
			t.Fatalf("%s: the flipped bit in byte %d went unseen", newest, at)
		}
	}
}

func TestFlippedBitsInLog(t *testing.T) {
	dirty, anchor := tamperVolume(t, "vol-t", 1000, false)
	r := rand.New(rand.NewPCG(1, 2))
	if n, err := look(t, "untouched", dirty, anchor, 1000); n != 0 || err != nil {
		t.Fatalf("untouched volume: %d damaged, %v", n, err)
	}
	names := segNames(dirty)
	for si, name := range names {
		b := dirty.Bytes(name)
		blocks := 0
		for slot := 0; slot < len(b)/bs && !isZeros(b[slot*bs:slot*bs+bs]); slot++ {
			fs := dirty.Kill()
			fs.Bytes(name)[slot*bs+r.IntN(bs)] ^= 1 << r.IntN(8)
			v, err := block.Open("", block.Options{Key: key(1), FS: fs, Anchor: anchor, ReadOnly: true})
			if blocks == 0 {
				blocks = int(b[slot*bs+22]) | int(b[slot*bs+23])<<8
				// The last groups were flushed, but nothing later says so: losing them looks like a crash.
				if err == nil && si < len(names)-1 {
					t.Errorf("%s slot %d: a flushed descriptor is damaged and Open says nothing", name, slot)
				}
			} else {
				blocks--
			}
			if err != nil {
				if !errors.Is(err, block.ErrCorrupt) {
					t.Errorf("%s slot %d: %v, want ErrCorrupt", name, slot, err)
				}
				continue
			}
			p := make([]byte, bs)
			for i := range tamperBlocks {
				if _, err := v.ReadAt(p, int64(i)*bs); err == nil && !bytes.Equal(p, stamped(i, 1000+uint64(i))) && !isZeros(p) {
					t.Fatalf("%s slot %d: block %d reads as something else", name, slot, i)
				}
			}
			v.Abandon()
		}
	}
	// a segment in the middle is gone
	fs := dirty.Kill()
	if err := fs.Remove(names[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := look(t, "missing log segment", fs, anchor, 1000); err == nil {
		t.Error("a missing log segment went unseen")
	}
}

func TestMovedAndReplaced(t *testing.T) {
	a, anchor := tamperVolume(t, "vol-t", 1000, true)
	twin, twinAnchor := tamperVolume(t, "vol-t", 2000, true)       // same ID, same key, other data
	other, otherAnchor := tamperVolume(t, "vol-other", 3000, true) // same key
	names := segNames(a)
	swapSlots := func(fs *blocktest.MemFS, n1 string, s1 int, n2 string, s2 int) {
		x, y := fs.Bytes(n1)[s1*bs:s1*bs+bs], fs.Bytes(n2)[s2*bs:s2*bs+bs]
		tmp := slices.Clone(x)
		copy(x, y)
		copy(y, tmp)
	}
	cases := []struct {
		what string
		want int // damaged blocks at least; -1: refused
		do   func(fs *blocktest.MemFS)
	}{
		{"two blocks of a segment change places", 2, func(fs *blocktest.MemFS) { swapSlots(fs, names[0], 1, names[0], 2) }},
		{"blocks of two segments change places", 2, func(fs *blocktest.MemFS) { swapSlots(fs, names[0], 3, names[1], 3) }},
		{"two segments change names", 100, func(fs *blocktest.MemFS) {
			x, y := slices.Clone(fs.Bytes(names[0])), slices.Clone(fs.Bytes(names[1]))
			fs.Put(names[0], y)
			fs.Put(names[1], x)
		}},
		{"a segment of a twin volume", 100, func(fs *blocktest.MemFS) { fs.Put(names[0], twin.Bytes(names[0])) }},
		{"a segment of another volume", 100, func(fs *blocktest.MemFS) { fs.Put(names[0], other.Bytes(names[0])) }},
		{"the map pages of a twin volume", -1, func(fs *blocktest.MemFS) {
			last := names[len(names)-1]
			fs.Put(last, twin.Bytes(last))
		}},
		{"a segment cut short", 1, func(fs *blocktest.MemFS) { fs.Put(names[0], fs.Bytes(names[0])[:100*bs+7]) }},
		{"an empty segment", 100, func(fs *blocktest.MemFS) { fs.Put(names[0], nil) }},
		{"a missing segment", 100, func(fs *blocktest.MemFS) { _ = fs.Remove(names[0]) }},
		{"the manifests of a twin volume", -1, func(fs *blocktest.MemFS) {
			fs.Put("manifest.0", twin.Bytes("manifest.0"))
			fs.Put("manifest.1", twin.Bytes("manifest.1"))
		}},
		{"the newest manifest removed", -1, func(fs *blocktest.MemFS) {
			_ = fs.Remove([]string{"manifest.0", "manifest.1"}[anchor.Version%2])
		}},
	}
	for _, c := range cases {
		fs := a.Kill()
		c.do(fs)
		n, err := look(t, c.what, fs, anchor, 1000)
		if (c.want < 0) != (err != nil) || n < c.want {
			t.Errorf("%s: %d blocks damaged, %v; want %d", c.what, n, err, c.want)
		}
	}
	// whole volumes
	if _, err := look(t, "another volume", other.Kill(), anchor, 1000); err == nil {
		t.Error("another volume was taken for this one")
	}
	if n, err := look(t, "other itself", other.Kill(), otherAnchor, 3000); n != 0 || err != nil {
		t.Errorf("the other volume by itself: %d damaged, %v", n, err)
	}
	if _, err := look(t, "twin", twin.Kill(), anchor, 1000); err == nil && twinAnchor != anchor {
		t.Error("a volume of the same name and key was taken for this one")
	}
}

func TestRollback(t *testing.T) {
	fs, a1 := tamperVolume(t, "vol-t", 1000, true)
	old := fs.Kill()
	v, err := block.Open("", block.Options{Key: key(1), FS: fs, Anchor: a1, CheckpointInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteAt(stamped(5, 77), 5*bs); err != nil {
		t.Fatal(err)
	}
	opened := v.Anchor()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name, anchor := range map[string]block.Anchor{"final": v.Anchor(), "of the attach": opened} {
		if _, err := block.Open("", block.Options{Key: key(1), FS: old.Kill(), Anchor: anchor}); !errors.Is(err, block.ErrRollback) || !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("old volume with the %s anchor: %v, want ErrRollback", name, err)
		}
	}
	// what an operator may override: no anchor, no check
	w, err := block.Open("", block.Options{Key: key(1), FS: old.Kill()})
	if err != nil {
		t.Fatalf("old volume without an anchor: %v", err)
	}
	w.Abandon()
	// two futures of one past: the same version, another content
	fork := old.Kill()
	w, err = block.Open("", block.Options{Key: key(1), FS: fork, CheckpointInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Anchor().Version != v.Anchor().Version {
		t.Fatalf("versions %d and %d differ; the test wants them equal", w.Anchor().Version, v.Anchor().Version)
	}
	if _, err := block.Open("", block.Options{Key: key(1), FS: fork, Anchor: v.Anchor()}); !errors.Is(err, block.ErrRollback) {
		t.Errorf("a fork of the same version: %v, want ErrRollback", err)
	}
}

func TestForkedNonces(t *testing.T) {
	var watch blocktest.NonceWatch
	fs := blocktest.NewMemFS()
	opt := block.Options{VolumeID: "vol-n", SizeBytes: 1 << 20, Key: key(1), FS: fs, Suite: &watch, SegmentSlots: 128, CheckpointInterval: -1}
	if _, err := block.Create("", opt); err != nil {
		t.Fatal(err)
	}
	// the same state is brought to life ten times and written differently: a host
	// snapshot, a restored backup, a copied directory
	for i := range 10 {
		o := opt
		o.FS = fs.Kill()
		v, err := block.Open("", o)
		if err != nil {
			t.Fatal(err)
		}
		for b := range 100 {
			if _, err := v.WriteAt(stamped(b, uint64(i+1)), int64(b)*bs); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		v.Abandon()
		if i == 4 {
			fs = o.FS.(*blocktest.MemFS)
		}
	}
	n, err := watch.Check()
	if err != nil {
		t.Error(err)
	}
	if n < 1000 {
		t.Errorf("only %d seals were seen", n)
	}
}

func FuzzManifest(f *testing.F) {
	fs, _ := tamperVolume(&testing.T{}, "vol-t", 1, true)
	f.Add(fs.Bytes("manifest.0"))
	f.Add(fs.Bytes("manifest.1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := blocktest.NewMemFS()
		m.Put("manifest.0", b)
		v, err := block.Open("", block.Options{Key: key(1), FS: m, ReadOnly: true})
		if err == nil {
			v.Abandon()
		}
	})
}
