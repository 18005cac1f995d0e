package block_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

// countFS counts what is read from segments, and how many of them are synced.
type countFS struct {
	block.FS
	read  atomic.Int64
	syncs atomic.Int64
}

func (c *countFS) Open(name string, writable bool) (block.File, error) {
	f, err := c.FS.Open(name, writable)
	if err != nil || !strings.HasPrefix(name, "seg-") {
		return f, err
	}
	return &countFile{f, c}, nil
}

type countFile struct {
	block.File
	c *countFS
}

func (f *countFile) ReadAt(p []byte, off int64) (int, error) {
	f.c.read.Add(int64(len(p)))
	return f.File.ReadAt(p, off)
}

func (f *countFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

// TestReplayReads: a restart reads the descriptors of what was flushed and not its
// blocks, and syncs only what may not have been; the blocks behind the last flush are read, all of them.
func TestReplayReads(t *testing.T) {
	for _, c := range []struct {
		name         string
		flushEach    bool
		least, most  int64 // read, of what was written
		segmentSyncs int64
	}{
		{"flushed", true, 0, 8, 8}, // 1/121, and what is free of the last segment: is anything beyond the end?
		{"never flushed", false, 100, 110, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			const size, groups = 64 << 20, 256
			fs := blocktest.NewMemFS()
			opt := block.Options{VolumeID: "vol-1", SizeBytes: size, Key: key(1), FS: fs, CheckpointInterval: -1, CheckpointBytes: 1 << 40}
			if _, err := block.Create("", opt); err != nil {
				t.Fatal(err)
			}
			v, err := block.Open("", opt)
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 120*bs)
			for i := range groups {
				for b := range 120 {
					copy(p[b*bs:], stamped(b, uint64(i+1)))
				}
				if _, err := v.WriteAt(p, int64(i%128)*int64(len(p))); err != nil {
					t.Fatal(err)
				}
				if c.flushEach && i%16 == 15 {
					if err := v.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.flushEach { // one more group, which says that all before it were
				if _, err := v.WriteAt(p[:bs], 0); err != nil {
					t.Fatal(err)
				}
			}
			v.Abandon()

			count := &countFS{FS: fs}
			opt.FS = count
			if v, err = block.Open("", opt); err != nil {
				t.Fatal(err)
			}
			defer v.Abandon()
			const wrote = groups * 120 * bs
			if percent := count.read.Load() * 100 / wrote; percent < c.least || percent > c.most {
				t.Errorf("the replay read %d %% of the log, want %d to %d", percent, c.least, c.most)
			}
			if n := count.syncs.Load(); n > c.segmentSyncs {
				t.Errorf("the replay synced %d segments, want at most %d", n, c.segmentSyncs)
			}
			got := make([]byte, 2*bs)
			if _, err := v.ReadAt(got, 120*bs); err != nil { // written by groups 1 and 129
				t.Fatal(err)
			}
			if want := append(stamped(0, 130), stamped(1, 130)...); string(got) != string(want) {
				t.Error("a block does not have what was written to it last")
			}
		})
	}
}
