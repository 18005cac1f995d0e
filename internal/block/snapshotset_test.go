package block_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
)

// TestSnapshotSet: a writer counts on one volume and then on another, each write
// acknowledged before the next; in every pair of snapshots the first is the second
// or one ahead, never behind.
func TestSnapshotSet(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(name, id string, ro bool) *block.Volume {
		t.Helper()
		v, err := block.Open(filepath.Join(root, name), block.Options{VolumeID: id, Key: key(1), ReadOnly: ro, CheckpointInterval: -1})
		must(err)
		return v
	}
	var vols []*block.Volume
	for _, id := range []string{"vol-a", "vol-b"} {
		_, err := block.Create(filepath.Join(root, id), block.Options{VolumeID: id, Key: key(1), SizeBytes: 64 * bs})
		must(err)
		v := open(id, id, false)
		defer v.Close()
		vols = append(vols, v)
	}
	counter := func(v *block.Volume) uint64 {
		t.Helper()
		b := make([]byte, bs)
		_, err := v.ReadAt(b, 0)
		must(err)
		return binary.LittleEndian.Uint64(b)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		b := make([]byte, bs)
		for i := uint64(1); ; i++ {
			binary.LittleEndian.PutUint64(b, i)
			for _, v := range vols {
				if i%64 == 0 {
					if err := v.Flush(); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := v.WriteAt(b, 0); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}
	})
	const rounds = 10
	for i := range rounds {
		name := string(rune('a' + i))
		// Neither the order of the list nor of the volumes matters.
		list := []block.SnapshotTarget{{Volume: vols[i%2], Dir: filepath.Join(root, name+"0"), SnapshotID: name + "0"}, {Volume: vols[1-i%2], Dir: filepath.Join(root, name+"1"), SnapshotID: name + "1"}}
		as, err := block.SnapshotSet(list)
		must(err)
		if len(as) != 2 || as[0] == as[1] {
			t.Fatalf("SnapshotSet = %v, want two anchors", as)
		}
	}
	close(stop)
	writer.Wait()
	last := uint64(0)
	for i := range rounds {
		var n [2]uint64
		for j := range 2 {
			v := open(string(rune('a'+i))+string(rune('0'+j)), "", true)
			n[(i+j)%2] = counter(v)
			must(v.Close())
		}
		if n[0] != n[1] && n[0] != n[1]+1 {
			t.Errorf("round %d: the first volume's snapshot counts %d, the second's %d: not of one moment", i, n[0], n[1])
		}
		if n[0] < last {
			t.Errorf("round %d counts %d, before it %d", i, n[0], last)
		}
		last = n[0]
	}
	if last == 0 {
		t.Error("nothing was written before the last snapshot")
	}

	// What fails for one fails for the set, and the volumes go on.
	_, err := block.SnapshotSet([]block.SnapshotTarget{{Volume: vols[0], Dir: filepath.Join(root, "x"), SnapshotID: "x"}, {Volume: vols[1], Dir: filepath.Join(root, "a0"), SnapshotID: "a0"}})
	if !errors.Is(err, block.ErrExists) {
		t.Errorf("SnapshotSet over a snapshot: %v, want ErrExists", err)
	}
	if _, err := block.SnapshotSet([]block.SnapshotTarget{{Volume: vols[0], Dir: filepath.Join(root, "y"), SnapshotID: "y"}, {Volume: vols[0], Dir: filepath.Join(root, "z"), SnapshotID: "z"}}); err == nil {
		t.Error("SnapshotSet took a volume twice")
	}
	for _, v := range vols {
		_, err := v.WriteAt(make([]byte, bs), bs)
		must(err)
		must(v.Checkpoint())
	}
}
