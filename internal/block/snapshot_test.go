package block_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// TestLineage grows a random tree of snapshots and clones, each clone with a key of
// its own, writes to all of it, and compares every member with its model.
func TestLineage(t *testing.T) {
	root := t.TempDir()
	var watch blocktest.NonceWatch
	const blocks = 500
	opt := func(id string, k byte) block.Options {
		return block.Options{VolumeID: id, Key: key(k), Suite: &watch, SegmentSlots: 121, CheckpointInterval: -1, CompactBytesPerSecond: 1 << 40, MapCachePages: 2}
	}
	type member struct {
		id, dir string
		key     byte
		snap    bool
		model   []uint64
		anchor  block.Anchor
		v       *block.Volume
	}
	var all []*member
	name := func() string { return string(rune('a'+len(all)/26)) + string(rune('a'+len(all)%26)) }
	first := &member{id: "vol-aa", dir: filepath.Join(root, "aa"), key: 1, model: make([]uint64, blocks)}
	o := opt(first.id, 1)
	o.SizeBytes = blocks * bs
	var err error
	if first.anchor, err = block.Create(first.dir, o); err != nil {
		t.Fatal(err)
	}
	all = append(all, first)
	r := rand.New(rand.NewPCG(5, 5))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	attach := func(m *member) {
		if m.v == nil {
			o := opt("", m.key)
			o.Anchor = m.anchor
			m.v, err = block.Open(m.dir, o)
			must(err)
		}
	}
	detach := func(m *member) {
		if m.v != nil {
			must(m.v.Close())
			m.anchor = m.v.Anchor()
			m.v = nil
		}
	}
	stamp := uint64(0)
	for range 250 {
		m := all[r.IntN(len(all))]
		switch k := r.IntN(12); {
		case m.snap || (k == 0 && len(all) < 40): // clone
			if len(all) >= 40 {
				continue
			}
			detach(m)
			c := &member{id: "vol-" + name(), dir: filepath.Join(root, name()), key: byte(2 + len(all)), model: append([]uint64(nil), m.model...)}
			c.anchor, err = block.Clone(c.dir, opt(c.id, c.key), block.Source{Dir: m.dir, Key: key(m.key), Anchor: m.anchor})
			must(err)
			all = append(all, c)
		case k < 3 && len(all) < 40:
			attach(m)
			s := &member{id: m.id, dir: filepath.Join(root, name()), key: m.key, snap: true, model: append([]uint64(nil), m.model...)}
			s.anchor, err = m.v.Snapshot(s.dir, "snap-"+name())
			must(err)
			all = append(all, s)
		case k < 9:
			attach(m)
			for range 1 + r.IntN(60) {
				stamp++
				lba := r.IntN(blocks)
				_, err := m.v.WriteAt(stamped(lba, stamp), int64(lba)*bs)
				must(err)
				m.model[lba] = stamp
			}
		case k == 9:
			attach(m)
			from := r.IntN(blocks - 50)
			must(m.v.Discard(int64(from)*bs, 50*bs))
			clear(m.model[from : from+50])
		case k == 10:
			attach(m)
			m.v.Compact()
			must(m.v.Verify(nil))
		default:
			detach(m)
		}
	}
	for _, m := range all {
		detach(m)
	}
	check := func(m *member) {
		t.Helper()
		v, err := block.Open(m.dir, block.Options{Key: key(m.key), ReadOnly: true, Anchor: m.anchor})
		must(err)
		defer v.Abandon()
		got, err := scan(v, blocks)
		must(err)
		must(v.Verify(nil))
		for i := range got {
			if got[i] != m.model[i] {
				t.Fatalf("%s (snapshot %v): block %d has stamp %d, want %d", m.dir, m.snap, i, got[i], m.model[i])
			}
		}
	}
	for _, m := range all {
		check(m)
	}
	snaps := 0
	for _, m := range all {
		if m.snap {
			snaps++
			if _, err := block.Open(m.dir, block.Options{Key: key(m.key)}); !errors.Is(err, block.ErrReadOnly) {
				t.Errorf("a snapshot opened for writing: %v, want ErrReadOnly", err)
			}
		}
		if m.key != 1 {
			if _, err := block.Open(m.dir, block.Options{Key: key(1)}); !errors.Is(err, block.ErrKey) {
				t.Errorf("clone %s opens with its ancestor's key: %v, want ErrKey", m.dir, err)
			}
		}
	}
	// destroying half of them hurts none of the others
	for i, m := range all {
		if i%2 == 0 {
			must(block.Destroy(m.dir))
		}
	}
	for i, m := range all {
		if i%2 == 1 {
			check(m)
		}
	}
	n, err := watch.Check()
	if err != nil {
		t.Error(err)
	}
	if snaps < 5 || len(all)-snaps < 5 || n < 2000 {
		t.Errorf("%d snapshots, %d volumes, %d seals: too little happened", snaps, len(all)-snaps, n)
	}
}

// TestCloneSharesSpace: a clone costs no data, grows, and its own writes are unreadable without its own key.
func TestCloneSharesSpace(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
	if _, err := block.Create(a, block.Options{VolumeID: "vol-a", SizeBytes: 512 << 10, Key: key(1)}); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(a, block.Options{Key: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 128 {
		if _, err := v.WriteAt(stamped(i, 5), int64(i)*bs); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := block.Clone(b, block.Options{VolumeID: "vol-b", Key: key(2)}, block.Source{Dir: a, Key: key(1)}); !errors.Is(err, block.ErrBusy) {
		t.Errorf("clone of an attached volume: %v, want ErrBusy", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	stale := v.Anchor()
	stale.Version++
	if _, err := block.Clone(b, block.Options{VolumeID: "vol-b", Key: key(2)}, block.Source{Dir: a, Key: key(1), Anchor: stale}); !errors.Is(err, block.ErrRollback) {
		t.Errorf("clone of an old source: %v, want ErrRollback", err)
	}
	const grown = 70 << 20 // from one level of map pages to three
	if _, err := block.Clone(b, block.Options{VolumeID: "vol-b", Key: key(2), SizeBytes: grown}, block.Source{Dir: a, Key: key(1), Anchor: v.Anchor()}); err != nil {
		t.Fatal(err)
	}
	segs, _ := filepath.Glob(filepath.Join(a, "seg-*"))
	for _, s := range segs {
		x, err1 := os.Stat(s)
		y, err2 := os.Stat(filepath.Join(b, filepath.Base(s)))
		if err1 != nil || err2 != nil || x.Sys().(*syscall.Stat_t).Ino != y.Sys().(*syscall.Stat_t).Ino {
			t.Errorf("segment %s is not shared: %v %v", s, err1, err2)
		}
	}
	w, err := block.Open(b, block.Options{Key: key(2)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	if w.Size() != grown {
		t.Errorf("size %d, want %d", w.Size(), grown)
	}
	got := make([]byte, bs)
	for i := range 128 {
		if _, err := w.ReadAt(got, int64(i)*bs); err != nil || !bytes.Equal(got, stamped(i, 5)) {
			t.Fatalf("block %d of the clone: %v", i, err)
		}
	}
	if _, err := w.WriteAt(stamped(17000, 6), 17000*bs); err != nil {
		t.Fatal(err)
	}
	if err := w.Grow(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadAt(got, 17000*bs); err != nil || !bytes.Equal(got, stamped(17000, 6)) {
		t.Errorf("after growing: %v", err)
	}
	if err := w.Verify(nil); err != nil {
		t.Error(err)
	}
	if _, err := block.Open(b, block.Options{Key: secret.Random(64)}); !errors.Is(err, block.ErrBusy) {
		t.Errorf("open of an attached clone: %v, want ErrBusy", err)
	}
}

// TestSegmentAhead: a snapshot leaves the file of the next segment behind; the first write takes it, and closing or a crash leaves none.
func TestSegmentAhead(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "v")
	opt := block.Options{VolumeID: "vol-1", SizeBytes: 1 << 20, Key: key(1), CheckpointInterval: -1}
	if _, err := block.Create(dir, opt); err != nil {
		t.Fatal(err)
	}
	segments := func(dir string) (names []string) {
		names, err := filepath.Glob(filepath.Join(dir, "seg-*"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		return names
	}
	for _, end := range []string{"close", "crash", "write"} {
		v, err := block.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.WriteAt(make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		snap := filepath.Join(root, end)
		if _, err := v.Snapshot(snap, end); err != nil {
			t.Fatal(err)
		}
		have := segments(dir)
		ahead := slices.DeleteFunc(slices.Clone(have), func(s string) bool { return slices.Contains(segments(snap), s) })
		if len(ahead) != 1 {
			t.Fatalf("segments beside the snapshot's: %v, want one: %v %v", ahead, have, segments(snap))
		}
		if end == "write" {
			if _, err := v.WriteAt(bytes.Repeat([]byte{7}, 4096), 4096); err != nil || !slices.Equal(segments(dir), have) {
				t.Errorf("first write: %v, segments %v, want %v", err, segments(dir), have)
			}
		}
		if end == "close" {
			if err := v.Close(); err != nil || slices.Contains(segments(dir), ahead[0]) {
				t.Errorf("closed: %v, segments %v", err, segments(dir))
			}
		}
		v.Abandon()
	}
	v, err := block.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	p := make([]byte, 4096)
	if _, err := v.ReadAt(p, 4096); err != nil || p[0] != 7 {
		t.Errorf("after a crash: %d, %v", p[0], err)
	}
}
