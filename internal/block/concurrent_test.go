package block_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
)

// TestConcurrent has writers, each with blocks of its own, readers, flushes,
// checkpoints and compaction all at once, on real files.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	const workers, span = 4, 256
	opt := block.Options{VolumeID: "vol-c", SizeBytes: workers * span * bs, Key: key(1), SegmentSlots: 130, CheckpointInterval: -1,
		CompactBytesPerSecond: 1 << 40, MapCachePages: 2, MaxOpenSegments: 3}
	if _, err := block.Create(dir, opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { v.Abandon() }()
	var wg, bg sync.WaitGroup
	stop := make(chan struct{})
	fail := make(chan error, 20)
	loop := func(f func() error) {
		bg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					fail <- err
					return
				}
			}
		})
	}
	loop(v.Checkpoint)
	loop(func() error { v.Compact(); return nil })
	loop(v.Flush)
	loop(func() error { return v.Verify(nil) })
	loop(func() error { _, err := v.BlockStatus(0, v.Size(), 1000); return err })
	want := make([][span]uint64, workers)
	end := time.Now().Add(1500 * time.Millisecond)
	enough := func() bool { // a busy machine takes longer
		s := v.Stats()
		return s.CompactBytes > 0 && s.Checkpoints >= 3
	}
	goOn := func() bool { return time.Now().Before(end) || !enough() && time.Now().Before(end.Add(time.Minute)) }
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 9))
			buf := make([]byte, 8*bs)
			for n := uint64(1); goOn(); n++ {
				i, k := r.IntN(span-8), 1+r.IntN(8)
				at := w*span + i
				switch r.IntN(5) {
				case 0, 1:
					for j := range k {
						copy(buf[j*bs:], stamped(at+j, n))
						want[w][i+j] = n
					}
					if _, err := v.WriteAt(buf[:k*bs], int64(at)*bs); err != nil {
						fail <- err
						return
					}
				case 2:
					for j := range k {
						want[w][i+j] = 0
					}
					if err := v.Discard(int64(at)*bs, int64(k)*bs); err != nil {
						fail <- err
						return
					}
				default:
					if _, err := v.ReadAt(buf[:k*bs], int64(at)*bs); err != nil {
						fail <- err
						return
					}
					for j := range k {
						if !bytes.Equal(buf[j*bs:(j+1)*bs], stamped(at+j, want[w][i+j])) {
							fail <- fmt.Errorf("worker %d: block %d is not what it wrote last", w, at+j)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	bg.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	if !enough() {
		t.Errorf("too little happened: %+v", v.Stats())
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	opt.SizeBytes = 0
	if v, err = block.Open(dir, opt); err != nil {
		t.Fatal(err)
	}
	got, err := scan(v, workers*span)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range got {
		if s != want[i/span][i%span] {
			t.Fatalf("block %d has stamp %d, want %d", i, s, want[i/span][i%span])
		}
	}
}
