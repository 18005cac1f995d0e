package block_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

// growFS counts how often a segment is synced after it was written further than ever before: on
// most file systems such a sync commits the journal.
type growFS struct {
	block.FS
	costly atomic.Int64
}

func (g *growFS) Create(name string) (block.File, error) {
	f, err := g.FS.Create(name)
	if err != nil || !strings.HasPrefix(name, "seg-") {
		return f, err
	}
	return &growFile{File: f, g: g}, nil
}

type growFile struct {
	block.File
	g    *growFS
	end  int64
	grew bool
}

func (f *growFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > f.end {
		f.end, f.grew = end, true
	}
	return f.File.WriteAt(p, off)
}

func (f *growFile) Sync() error {
	if f.grew {
		f.grew = false
		f.g.costly.Add(1)
	}
	return f.File.Sync()
}

// TestFlushEachWrite: of many flushes with a block between each, few reach new parts of a segment; the log is
// replayed in spite of the zeros behind it.
func TestFlushEachWrite(t *testing.T) {
	fs := &growFS{FS: blocktest.NewMemFS()}
	opt := block.Options{VolumeID: "vol-1", SizeBytes: 16 << 20, Key: key(1), FS: fs, CheckpointInterval: -1}
	if _, err := block.Create("", opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open("", opt)
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	before := fs.costly.Load()
	for i := range n {
		if _, err := v.WriteAt(stamped(i, uint64(i+1)), int64(i)*bs); err != nil {
			t.Fatal(err)
		}
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if c := fs.costly.Load() - before; c > n/20 {
		t.Errorf("%d of %d flushes reached new parts of a segment, want at most %d", c, n, n/20)
	}
	v.Abandon()
	if v, err = block.Open("", opt); err != nil {
		t.Fatal(err)
	}
	defer v.Abandon()
	found, err := scan(v, n)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range found {
		if s != uint64(i+1) {
			t.Fatalf("block %d has stamp %d after the replay, want %d", i, s, i+1)
		}
	}
}
