package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
)

// baseChunk is the unit in which an image is hashed, read and hydrated: what one map leaf maps.
const baseChunk = fanOut * BlockSize

// Base is a raw image that a new volume reads through until its blocks are hydrated
// (sealed under the volume's own key). Every chunk is checked against the list made
// when the image was built, so an image that changed is an error and never data.
type Base struct {
	// File is the raw image. It must stay as it is.
	File io.ReaderAt
	// Size of the image in bytes.
	Size int64
	// Sums are the SHA-256 of each 512 KiB chunk, the last one over what is left.
	Sums [][32]byte
	// Close, if set, is called when the volume needs the image no more.
	Close func() error
}

// HashBase reads an image and makes its Base.
func HashBase(ctx context.Context, f io.ReaderAt, size int64) (*Base, error) {
	b := &Base{File: f, Size: size}
	buf := make([]byte, baseChunk)
	for off := int64(0); off < size; off += baseChunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := buf[:min(baseChunk, size-off)]
		if _, err := f.ReadAt(p, off); err != nil {
			return nil, fmt.Errorf("hash image at %d: %w", off, err)
		}
		b.Sums = append(b.Sums, sha256.Sum256(p))
	}
	return b, nil
}

var sumsMagic = [8]byte{'S', 'D', 'V', 'B', 1, 0, 0, 0}

// MarshalSums encodes size and sums for a file beside the image: the magic "SDVB",
// version 1, the size (u64), and the sums.
func (b *Base) MarshalSums() []byte {
	out := binary.LittleEndian.AppendUint64(append([]byte(nil), sumsMagic[:]...), uint64(b.Size))
	for _, s := range b.Sums {
		out = append(out, s[:]...)
	}
	return out
}

// ParseSums reads what MarshalSums wrote.
func ParseSums(p []byte) (size int64, sums [][32]byte, err error) {
	if len(p) < 16 || !bytes.Equal(p[:8], sumsMagic[:]) {
		return 0, nil, fmt.Errorf("not a chunk list of version 1")
	}
	size = int64(binary.LittleEndian.Uint64(p[8:]))
	p = p[16:]
	if size < 0 || size > 1<<47 || int64(len(p)) != (size+baseChunk-1)/baseChunk*32 {
		return 0, nil, fmt.Errorf("chunk list of %d bytes does not fit an image of %d", len(p), size)
	}
	for ; len(p) > 0; p = p[32:] {
		sums = append(sums, [32]byte(p))
	}
	return size, sums, nil
}

// OpenBase opens an image and the chunk list beside it (image + ".sums").
func OpenBase(image string) (*Base, error) {
	p, err := os.ReadFile(image + ".sums")
	if err != nil {
		return nil, fmt.Errorf("chunk list of the image: %w", err)
	}
	b := &Base{}
	if b.Size, b.Sums, err = ParseSums(p); err != nil {
		return nil, fmt.Errorf("%s.sums: %w", image, err)
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	b.File, b.Close = f, f.Close
	return b, nil
}

// WriteSums makes the chunk list beside an image (image + ".sums"), durably.
func WriteSums(ctx context.Context, image string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b, err := HashBase(ctx, f, st.Size())
	if err != nil {
		return err
	}
	tmp := image + ".sums.tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = out.Write(b.MarshalSums())
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, image+".sums")
	}
	return err
}

func (b *Base) sum() [32]byte { return sha256.Sum256(b.MarshalSums()) }

// baseState is the image of an open volume.
type baseState struct {
	info baseInfo // hydrated is guarded by Volume.mu
	base *Base

	mu    sync.Mutex
	cache []baseCached
	hand  int
}

type baseCached struct {
	chunk uint64
	data  []byte
}

const baseCacheChunks = 8

func (v *Volume) openBase(info *baseInfo) error {
	b := v.opt.Base
	if b == nil {
		return fmt.Errorf("the volume still reads through its image (%d of %d bytes are hydrated): give the image",
			int64(info.hydrated)*BlockSize, info.size)
	}
	if b.Size != info.size || b.sum() != info.sum {
		return v.corrupt("the image is not the one the volume was made from", nil)
	}
	v.base = &baseState{info: *info, base: b}
	return nil
}

func (b *baseState) close() {
	if b.base.Close != nil {
		_ = b.base.Close()
		b.base.Close = nil
	}
}

// baseCovers says whether a hole at lba stands for the image. Caller holds v.mu.
func (v *Volume) baseCovers(lba uint64) bool {
	return v.base != nil && lba >= v.base.info.hydrated && int64(lba)*BlockSize < v.base.info.size
}

// baseOverlaps says whether baseCovers holds for any block in [from, to). Caller holds v.mu.
func (v *Volume) baseOverlaps(from, to uint64) bool {
	return v.base != nil && to > v.base.info.hydrated && int64(from)*BlockSize < v.base.info.size
}

// read reads one block of the image.
func (b *baseState) read(v *Volume, dst []byte, lba uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := lba / fanOut
	p, err := b.chunk(v, c)
	if err != nil {
		return err
	}
	clear(dst[:BlockSize])
	at := int(lba%fanOut) * BlockSize
	if at < len(p) {
		copy(dst[:BlockSize], p[at:])
	}
	return nil
}

// chunk returns a checked chunk; it stays valid while b.mu is held.
func (b *baseState) chunk(v *Volume, c uint64) ([]byte, error) {
	for i := range b.cache {
		if b.cache[i].chunk == c {
			return b.cache[i].data, nil
		}
	}
	off := int64(c) * baseChunk
	p := make([]byte, min(baseChunk, b.info.size-off))
	if _, err := b.base.File.ReadAt(p, off); err != nil {
		return nil, fmt.Errorf("volume %s: read image at %d: %w", v.id, off, err)
	}
	if sha256.Sum256(p) != b.base.Sums[c] {
		return nil, v.corrupt(fmt.Sprintf("image chunk at %d", off), nil)
	}
	if len(b.cache) < baseCacheChunks {
		b.cache = append(b.cache, baseCached{c, p})
	} else {
		b.cache[b.hand] = baseCached{c, p}
		b.hand = (b.hand + 1) % baseCacheChunks
	}
	return p, nil
}

// Hydrate copies what is left of the image into the volume, sealed under its own key,
// and then lets go of the image. It may be stopped and called again, after a later
// Open or beside another call. progress may be nil.
func (v *Volume) Hydrate(ctx context.Context, progress func(done, total int64)) error {
	for {
		v.mu.RLock()
		b := v.base
		var next uint64
		err := v.usable()
		if b != nil {
			next = b.info.hydrated
		}
		v.mu.RUnlock()
		if b == nil || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if int64(next)*BlockSize >= b.info.size {
			break
		}
		if err := v.hydrateChunk(b, next/fanOut); err != nil {
			return err
		}
		if progress != nil {
			progress(min(int64(next+fanOut)*BlockSize, b.info.size), b.info.size)
		}
	}
	// The blocks must be durable before a manifest says that the image is not needed.
	v.mu.Lock()
	v.base = nil
	v.mu.Unlock()
	return v.checkpoint(0)
}

func (v *Volume) hydrateChunk(b *baseState, c uint64) error {
	b.mu.Lock()
	p, err := b.chunk(v, c)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(); err != nil {
		return err
	}
	if c*fanOut < b.info.hydrated { // another caller was here; what has been trimmed since stays so
		return nil
	}
	var last [BlockSize]byte
	var n *node
	for i := uint64(0); int(i)*BlockSize < len(p); i++ {
		blk := p[i*BlockSize:]
		if len(blk) < BlockSize {
			clear(last[copy(last[:], blk):])
			blk = last[:]
		}
		blk = blk[:BlockSize]
		if isZero(blk) {
			continue
		}
		lba := c*fanOut + i
		if n == nil {
			if n, err = v.leaf(lba, true); err != nil {
				return err
			}
		}
		if n.ent[i].loc.kind() != kindNone {
			continue // written or trimmed since
		}
		if err := v.append(n, lba, blk); err != nil {
			return err
		}
	}
	if err := v.emit(); err != nil {
		return err
	}
	b.info.hydrated = min((c+1)*fanOut, uint64(v.Size())/BlockSize)
	return nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
