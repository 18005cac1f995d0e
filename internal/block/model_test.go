package block_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

// TestModel does random things, unaligned ones too, to a volume and to a byte slice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 3 << 20
		model := make([]byte, size)
		fs := blocktest.NewMemFS()
		var anchor block.Anchor
		opt := block.Options{VolumeID: "vol-m", SizeBytes: size, Key: key(1), FS: fs, SegmentSlots: uint32(rapid.IntRange(121, 300).Draw(t, "segment slots")),
			CheckpointInterval: -1, MapCachePages: 1, MaxOpenSegments: 2, CompactBytesPerSecond: 1 << 40,
			OnAnchor: func(a block.Anchor) { anchor = a }}
		if rapid.Bool().Draw(t, "base") {
			img := make([]byte, rapid.IntRange(1, size).Draw(t, "image size"))
			for i := range img {
				if i/bs%3 != 1 {
					img[i] = byte(i>>12 + i)
				}
			}
			copy(model, img)
			b, err := block.HashBase(t.Context(), bytes.NewReader(img), int64(len(img)))
			if err != nil {
				t.Fatal(err)
			}
			opt.Base = b
		}
		if _, err := block.Create("", opt); err != nil {
			t.Fatal(err)
		}
		open := func() *block.Volume {
			opt.Anchor = anchor
			v, err := block.Open("", opt)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		v := open()
		defer func() { v.Abandon() }()
		fill := byte(0)
		span := func(t *rapid.T) (off, n int) {
			off = rapid.IntRange(0, size-1).Draw(t, "off")
			n = rapid.OneOf(rapid.IntRange(1, 9000), rapid.IntRange(1, size)).Draw(t, "n")
			if rapid.Bool().Draw(t, "aligned") {
				off, n = off/bs*bs, (n+bs-1)/bs*bs
			}
			return off, min(n, size-off)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, n := span(t)
				for i := off; i < off+n; i++ {
					fill = fill*5 + 1
					model[i] = fill
				}
				if _, err := v.WriteAt(model[off:off+n], int64(off)); err != nil {
					t.Fatal(err)
				}
			},
			"buffered": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "writes") {
					off := rapid.IntRange(0, size-2*bs).Draw(t, "off")
					for i := off; i < off+bs; i++ {
						fill = fill*5 + 3
						model[i] = fill
					}
					if err := v.WriteBuffered(model[off:off+bs], int64(off)); err != nil {
						t.Fatal(err)
					}
				}
			},
			"read": func(t *rapid.T) {
				off, n := span(t)
				got := make([]byte, n)
				if _, err := v.ReadAt(got, int64(off)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, model[off:off+n]) {
					t.Fatalf("read of %d bytes at %d differs", n, off)
				}
			},
			"discard": func(t *rapid.T) {
				off, n := span(t)
				if err := v.Discard(int64(off), int64(n)); err != nil {
					t.Fatal(err)
				}
				if from, to := (off+bs-1)/bs*bs, (off+n)/bs*bs; from < to {
					clear(model[from:to])
				}
			},
			"zeroes": func(t *rapid.T) {
				off, n := span(t)
				if err := v.WriteZeroes(int64(off), int64(n), rapid.Bool().Draw(t, "no hole")); err != nil {
					t.Fatal(err)
				}
				clear(model[off : off+n])
			},
			"status": func(t *rapid.T) {
				off, n := span(t)
				es, err := v.BlockStatus(int64(off), int64(n), 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				at := int64(off)
				for _, e := range es {
					if e.Off != at || e.Len <= 0 {
						t.Fatalf("extent %+v, want one at %d", e, at)
					}
					if e.Hole && !isZeros(model[at:at+e.Len]) {
						t.Fatalf("extent %+v is called a hole and is not zero", e)
					}
					at += e.Len
				}
				if at != int64(off+n) {
					t.Fatalf("status ends at %d, want %d", at, off+n)
				}
			},
			"flush":      func(t *rapid.T) { noErr(t, v.Flush()) },
			"checkpoint": func(t *rapid.T) { noErr(t, v.Checkpoint()) },
			"compact":    func(t *rapid.T) { v.Compact() },
			"hydrate":    func(t *rapid.T) { noErr(t, v.Hydrate(t.Context(), nil)) },
			"reopen": func(t *rapid.T) {
				noErr(t, v.Close())
				v = open()
			},
			"kill": func(t *rapid.T) {
				noErr(t, v.Push())
				v.Abandon()
				v = open()
			},
			"": func(t *rapid.T) { noErr(t, v.Verify(nil)) },
		})
		got := make([]byte, size)
		if _, err := v.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, model) {
			t.Fatal("the volume differs from the model at the end")
		}
	})
}

func noErr(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
