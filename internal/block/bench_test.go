package block

import (
	"math/rand/v2"
	"os"
	"testing"
)

// benchVolume is a volume of 256 MiB, written once, on the fastest file system at hand.
func benchVolume(b *testing.B) *Volume {
	dir := b.TempDir()
	if d, err := os.MkdirTemp("/dev/shm", "sdb"); err == nil {
		b.Cleanup(func() { os.RemoveAll(d) })
		dir = d
	}
	create(b, dir+"/v", Options{SizeBytes: 256 << 20})
	v := openVol(b, dir+"/v", Options{})
	p := noise(1, 1<<20)
	for off := int64(0); off < v.Size(); off += 1 << 20 {
		mustWrite(b, v, p, off)
	}
	if err := v.Checkpoint(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	return v
}

func benchIO(b *testing.B, size int, random bool, op func(v *Volume, p []byte, off int64) error) {
	v := benchVolume(b)
	r := rand.New(rand.NewPCG(1, 2))
	p := noise(2, size)
	n := v.Size() / int64(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := int64(i) % n
		if random {
			at = r.Int64N(n)
		}
		if err := op(v, p, at*int64(size)); err != nil {
			b.Fatal(err)
		}
	}
}

func read(v *Volume, p []byte, off int64) error  { _, err := v.ReadAt(p, off); return err }
func write(v *Volume, p []byte, off int64) error { _, err := v.WriteAt(p, off); return err }

func BenchmarkReadRandom4K(b *testing.B)  { benchIO(b, 4096, true, read) }
func BenchmarkRead128K(b *testing.B)      { benchIO(b, 128<<10, false, read) }
func BenchmarkWriteRandom4K(b *testing.B) { benchIO(b, 4096, true, write) }
func BenchmarkWrite128K(b *testing.B)     { benchIO(b, 128<<10, false, write) }
func BenchmarkWriteBatched4K(b *testing.B) {
	i := 0
	benchIO(b, 4096, true, func(v *Volume, p []byte, off int64) error {
		if i++; i%32 == 0 {
			if err := v.Push(); err != nil {
				return err
			}
		}
		return v.WriteBuffered(p, off)
	})
}
