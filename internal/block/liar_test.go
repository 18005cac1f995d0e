package block_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

// TestShortWrites: writes to the host end half-way, for want of room or for an error. What was answered is
// there, in the process and after its death; what was refused is the old or the new, and nothing else.
func TestShortWrites(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		short, refused := 0, 0
		for seed := range uint64(40) {
			r := rand.New(rand.NewPCG(seed, 7))
			fs := blocktest.NewMemFS()
			opt := block.Options{VolumeID: "vol-s", SizeBytes: 1 << 20, Key: key(1), FS: fs, SegmentSlots: 128, CheckpointInterval: -1}
			if _, err := block.Create("", opt); err != nil {
				t.Fatal(err)
			}
			v, err := block.Open("", opt)
			if err != nil {
				t.Fatal(err)
			}
			fs.Short = func(_ string, size int) (int, error) {
				if r.IntN(12) > 0 {
					return 0, nil
				}
				short++
				return r.IntN(size), cause
			}
			may := map[int][]uint64{} // what a block may hold: the last that was answered, and what was refused since
			for stamp := uint64(1); stamp < 300; stamp++ {
				lba := r.IntN(256)
				if len(may[lba]) == 0 {
					may[lba] = []uint64{0}
				}
				_, err := v.WriteAt(stamped(lba, stamp), int64(lba)*bs)
				if err == nil {
					may[lba] = []uint64{stamp}
				} else {
					refused++
					may[lba] = append(may[lba], stamp)
				}
				if err == nil && r.IntN(10) == 0 {
					err = v.Flush()
				}
				if errors.Is(err, block.ErrFailed) {
					break
				}
				if err != nil && !errors.Is(err, block.ErrNoSpace) {
					t.Fatalf("seed %d: %v, want ErrNoSpace or ErrFailed", seed, err)
				}
			}
			fs.Short = nil
			v.Abandon()
			opt.FS = fs.Kill()
			if v, err = block.Open("", opt); err != nil {
				t.Fatalf("seed %d, %v: reopen: %v", seed, cause, err)
			}
			got := make([]byte, bs)
			for lba, stamps := range may {
				if _, err := v.ReadAt(got, int64(lba)*bs); err != nil {
					t.Fatalf("seed %d, %v: block %d: %v", seed, cause, lba, err)
				}
				if !holdsOne(got, lba, stamps) {
					t.Errorf("seed %d, %v: block %d holds none of %v", seed, cause, lba, stamps)
				}
			}
			v.Abandon()
		}
		if short < 40 || refused == 0 {
			t.Errorf("%v: %d short writes, %d refusals: this tests nothing", cause, short, refused)
		}
	}
}

func holdsOne(got []byte, lba int, stamps []uint64) bool {
	for _, s := range stamps {
		if bytes.Equal(got, stamped(lba, s)) {
			return true
		}
	}
	return false
}

// TestLyingSync: a host says that it has made durable what it has not, and loses power. A volume cannot
// bring back what is lost; it must not return anything that was never in its place, and whoever pinned its anchor is not given an older state.
func TestLyingSync(t *testing.T) {
	fs := blocktest.NewMemFS()
	opt := block.Options{VolumeID: "vol-l", SizeBytes: 1 << 20, Key: key(1), FS: fs, SegmentSlots: 128, CheckpointInterval: -1}
	if _, err := block.Create("", opt); err != nil {
		t.Fatal(err)
	}
	var pinned block.Anchor
	opt.OnAnchor = func(a block.Anchor) { pinned = a }
	v, err := block.Open("", opt)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Abandon()
	write := func(stamp uint64) {
		t.Helper()
		for lba := range 200 {
			if _, err := v.WriteAt(stamped(lba, stamp), int64(lba)*bs); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(v.Flush(), v.Checkpoint()); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	fs.Lie = true
	write(2)
	refused, damaged, whole := 0, 0, 0
	look := func(anchor block.Anchor, stamps []uint64, crashed *blocktest.MemFS) {
		w, err := block.Open("", block.Options{Key: key(1), FS: crashed, CheckpointInterval: -1, Anchor: anchor})
		if err != nil {
			if !errors.Is(err, block.ErrCorrupt) { // ErrRollback is one
				t.Errorf("open: %v, want ErrCorrupt or ErrRollback", err)
			}
			refused++
			return
		}
		defer w.Abandon()
		got, bad := make([]byte, bs), false
		for lba := range 200 {
			if _, err := w.ReadAt(got, int64(lba)*bs); err != nil {
				if bad = true; !errors.Is(err, block.ErrCorrupt) {
					t.Errorf("block %d: %v, want ErrCorrupt", lba, err)
				}
			} else if !holdsOne(got, lba, stamps) {
				t.Errorf("block %d holds none of %v", lba, stamps)
			}
		}
		if bad {
			damaged++
		} else {
			whole++
		}
	}
	for seed := range uint64(100) {
		crash := func() *blocktest.MemFS { return fs.Crash(rand.New(rand.NewPCG(seed, 11))) }
		look(pinned, []uint64{2}, crash())
		look(block.Anchor{}, []uint64{1, 2}, crash())
	}
	t.Logf("of 200 openings %d were refused, %d found damage, %d were whole", refused, damaged, whole)
	if refused == 0 {
		t.Error("nothing was refused: this tests nothing")
	}
}
