package block_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
)

// TestSteadySpace: a full volume that is overwritten at random, as fast as it lets, stays within 1.5 times
// what is alive in it, and compaction and map pages do not write more for that than they must.
func TestSteadySpace(t *testing.T) {
	const size = 64 << 20
	dir := t.TempDir()
	opt := block.Options{VolumeID: "vol-1", SizeBytes: size, Key: key(1), SegmentSlots: 130}
	if _, err := block.Create(dir, opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Abandon()
	p := make([]byte, 64<<10)
	for off := int64(0); off < size; off += int64(len(p)) {
		if _, err := v.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	overwrite := func(n int, each func()) {
		for i := range n / bs {
			if err := v.WriteBuffered(p[:bs], r.Int64N(size/bs)*bs); err != nil {
				t.Fatal(err)
			}
			if i%64 == 0 {
				each()
			}
		}
	}
	overwrite(2*size, func() {})
	before, most := v.Stats(), int64(0)
	overwrite(4*size, func() { most = max(most, v.Stats().StoredBytes) })
	after := v.Stats()
	if space := float64(most) / size; space > 1.55 {
		t.Errorf("at most %.2f times what is alive was stored, want 1.5", space)
	}
	wrote := after.LogBytes - before.LogBytes + after.PageBytes - before.PageBytes + after.CompactBytes - before.CompactBytes
	if amp := float64(wrote) / float64(after.WriteBytes-before.WriteBytes); amp < 1.5 || amp > 2.8 {
		t.Errorf("%.2f bytes were written for one, want about 2.3", amp)
	} else {
		t.Logf("%.2f bytes written for one in at most %.2f times the space, %d checkpoints", amp, float64(most)/size, after.Checkpoints-before.Checkpoints)
	}
}
