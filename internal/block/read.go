package block

import (
	"fmt"
)

// readChunk is how much of a read is looked up, fetched and opened at a time.
const readChunk = 64 // blocks

// readBuf is the scratch of one read.
type readBuf struct {
	ents [readChunk]entry
	segs [readChunk]*segment
	buf  []byte // ciphertext, with gaps, and room for one tag
	save [tagLen]byte
	aad  [32]byte
	non  [12]byte
	edge [BlockSize]byte
	base *baseState
}

// locBase stands for a block that is still only in the base image.
var locBase = makeLoc(0, 0, 15)

// maxGap is how many slots between two wanted blocks are read along rather than
// spending another system call.
const maxGap = 2

func newReadBuf() *readBuf {
	return &readBuf{buf: make([]byte, readChunk*BlockSize+tagLen)}
}

// ReadAt implements Device.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if err := v.checkRange(off, int64(len(p))); err != nil {
		return 0, err
	}
	v.stats.readOps.Add(1)
	v.stats.readBytes.Add(uint64(len(p)))
	v.life.RLock()
	defer v.life.RUnlock()
	rb := v.bufs.Get().(*readBuf)
	defer v.bufs.Put(rb)
	n := 0
	for n < len(p) {
		in := int(off % BlockSize)
		if in != 0 || len(p)-n < BlockSize {
			k := min(BlockSize-in, len(p)-n)
			if err := v.readBlocks(rb, rb.edge[:], uint64(off)/BlockSize); err != nil {
				clear(p)
				return 0, err
			}
			copy(p[n:n+k], rb.edge[in:])
			clear(rb.edge[:])
			n, off = n+k, off+int64(k)
			continue
		}
		k := min((len(p)-n)/BlockSize, readChunk) * BlockSize
		if err := v.readBlocks(rb, p[n:n+k], uint64(off)/BlockSize); err != nil {
			clear(p)
			return 0, err
		}
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// readBlocks reads whole blocks, at most readChunk.
func (v *Volume) readBlocks(rb *readBuf, dst []byte, lba uint64) error {
	cnt := len(dst) / BlockSize
	if err := v.lookup(rb, dst, lba, cnt); err != nil {
		return err
	}
	defer func() {
		for i := range cnt {
			if s := rb.segs[i]; s != nil && (i == 0 || rb.segs[i-1] != s) {
				v.files.release(s)
			}
		}
		clear(rb.segs[:cnt])
	}()
	for i := 0; i < cnt; {
		s := rb.segs[i]
		if s == nil {
			if rb.ents[i].loc == locBase {
				if err := rb.base.read(v, dst[i*BlockSize:(i+1)*BlockSize], lba+uint64(i)); err != nil {
					return err
				}
			}
			i++
			continue
		}
		// a run: the same segment, rising slots, small gaps
		first := rb.ents[i].loc.slot()
		j, last := i+1, first
		for j < cnt && rb.segs[j] == s {
			slot := rb.ents[j].loc.slot()
			if slot <= last || slot-last > maxGap+1 || slot-first >= readChunk {
				break
			}
			last = slot
			j++
		}
		b := rb.buf[:int(last-first+1)*BlockSize]
		// The reference taken by lookup keeps s.f open and unchanged.
		if _, err := s.f.ReadAt(b, int64(first)*BlockSize); err != nil {
			return v.readErr(fmt.Sprintf("block %d in segment %x slot %d", lba+uint64(i), s.id, first), err)
		}
		for ; i < j; i++ {
			at := int(rb.ents[i].loc.slot()-first) * BlockSize
			if err := v.openBlock(rb, &rb.ents[i], lba+uint64(i), rb.buf[at:at+BlockSize+tagLen], dst[i*BlockSize:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookup finds the entries of cnt blocks and takes a reference on each segment (one
// for each run of equal segments). Holes are zeroed in dst; blocks of the open group are read here.
func (v *Volume) lookup(rb *readBuf, dst []byte, lba uint64, cnt int) error {
	v.mu.RLock()
	if err := v.usable(); err != nil {
		v.mu.RUnlock()
		return err
	}
	err := v.lookupLocked(rb, dst, lba, cnt, false)
	v.mu.RUnlock()
	if err == errLoad {
		v.mu.Lock()
		if err = v.usable(); err == nil {
			err = v.lookupLocked(rb, dst, lba, cnt, true)
			if len(v.leaves) > v.opt.MapCachePages+v.opt.MapCachePages/8+16 && v.ckptMu.TryLock() {
				v.evict()
				v.ckptMu.Unlock()
			}
		}
		v.mu.Unlock()
	}
	return err
}

func (v *Volume) lookupLocked(rb *readBuf, dst []byte, lba uint64, cnt int, load bool) (err error) {
	var n *node
	have := false
	defer func() {
		if err != nil {
			for i := range cnt {
				if s := rb.segs[i]; s != nil && (i == 0 || rb.segs[i-1] != s) {
					v.files.release(s)
				}
			}
			clear(rb.segs[:cnt])
		}
	}()
	clear(rb.segs[:cnt])
	h := &v.head
	for i := range cnt {
		b := lba + uint64(i)
		if !have || b&(fanOut-1) == 0 {
			if load {
				n, err = v.leaf(b, false)
			} else {
				n, err = v.leafIfLoaded(b)
			}
			if err != nil {
				return err
			}
			have = true
			if n != nil && !n.used.Load() {
				n.used.Store(true)
			}
		}
		d := dst[i*BlockSize : (i+1)*BlockSize]
		e := entry{}
		if n != nil {
			e = n.ent[b&(fanOut-1)]
		}
		rb.ents[i] = e
		if e.loc.kind() == kindNone && v.baseCovers(b) {
			rb.base, rb.ents[i].loc = v.base, locBase
			continue
		}
		if e.loc.kind() != kindData {
			clear(d)
			continue
		}
		if h.seg != nil && e.loc.seg() == h.seg.id && e.loc.slot() > h.slot {
			if err = v.openPending(rb, &e, b, d); err != nil {
				return err
			}
			rb.ents[i].loc = makeLoc(0, 0, kindZero) // done
			continue
		}
		s := (*segment)(nil)
		if i > 0 && rb.segs[i-1] != nil && rb.segs[i-1].id == e.loc.seg() {
			s = rb.segs[i-1]
		} else {
			if s = v.segs[e.loc.seg()]; s == nil {
				return v.corrupt(fmt.Sprintf("block %d: segment %x is missing", b, e.loc.seg()), nil)
			}
			if _, err = v.files.acquire(s); err != nil {
				return v.readErr(fmt.Sprintf("block %d", b), err)
			}
		}
		rb.segs[i] = s
	}
	return nil
}

// openPending opens a block of the group that is still in memory. Caller holds v.mu.
func (v *Volume) openPending(rb *readBuf, e *entry, lba uint64, dst []byte) error {
	at := int(e.loc.slot()-v.head.slot) * BlockSize
	b := rb.buf[:BlockSize+tagLen]
	copy(b, v.head.buf[at:at+BlockSize])
	return v.openBlock(rb, e, lba, b, dst)
}

// openBlock opens b[:BlockSize] into dst; the tag is put behind it and what was there is put back.
func (v *Volume) openBlock(rb *readBuf, e *entry, lba uint64, b, dst []byte) error {
	ep := v.epochOf(e.epoch)
	if ep == nil {
		return v.corrupt(fmt.Sprintf("block %d: unknown epoch %d", lba, e.epoch), nil)
	}
	copy(rb.save[:], b[BlockSize:])
	copy(b[BlockSize:], e.tag[:])
	blockAAD(&rb.aad, ep.origin, lba, e.epoch, kindData, 0)
	putNonce(&rb.non, uint64(e.ctr))
	_, err := ep.data.Open(dst[:0:BlockSize], rb.non[:], b[:BlockSize+tagLen], rb.aad[:])
	copy(b[BlockSize:], rb.save[:])
	if err != nil {
		return v.corrupt(fmt.Sprintf("block %d in segment %x slot %d", lba, e.loc.seg(), e.loc.slot()), nil)
	}
	return nil
}

// readEntry reads one block, whatever its entry says. Caller holds v.mu.
func (v *Volume) readEntry(rb *readBuf, e entry, lba uint64, dst []byte) error {
	h := &v.head
	switch {
	case e.loc.kind() == kindNone && v.baseCovers(lba):
		clear(dst)
		return v.base.read(v, dst, lba)
	case e.loc.kind() != kindData:
		clear(dst)
		return nil
	case h.seg != nil && e.loc.seg() == h.seg.id && e.loc.slot() > h.slot:
		return v.openPending(rb, &e, lba, dst)
	}
	b := rb.buf[:BlockSize+tagLen]
	if err := v.readSlots(e.loc.seg(), e.loc.slot(), b[:BlockSize]); err != nil {
		return v.readErr(fmt.Sprintf("block %d", lba), err)
	}
	return v.openBlock(rb, &e, lba, b, dst)
}

// readSlots reads ciphertext. Caller holds v.mu or otherwise keeps the segment.
func (v *Volume) readSlots(seg uint64, slot uint32, b []byte) error {
	s := v.segs[seg]
	if s == nil {
		return v.corrupt(fmt.Sprintf("segment %x is missing", seg), nil)
	}
	f, err := v.files.acquire(s)
	if err != nil {
		return err
	}
	defer v.files.release(s)
	_, err = f.ReadAt(b, int64(slot)*BlockSize)
	return err
}

// BlockStatus implements Device.
func (v *Volume) BlockStatus(off, n int64, max int) ([]Extent, error) {
	if err := v.checkRange(off, n); err != nil {
		return nil, err
	}
	if n == 0 || max < 1 {
		return nil, fmt.Errorf("volume %s: block status of nothing: %w", v.id, ErrRange)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(); err != nil {
		return nil, err
	}
	var out []Extent
	end := uint64(off+n+BlockSize-1) / BlockSize
	add := func(from, to uint64, hole bool) bool {
		a, b := int64(from)*BlockSize, min(int64(to)*BlockSize, off+n)
		if a < off {
			a = off
		}
		if l := len(out); l > 0 && out[l-1].Hole == hole {
			out[l-1].Len = b - out[l-1].Off
			return true
		}
		if len(out) == max {
			return false
		}
		out = append(out, Extent{Off: a, Len: b - a, Hole: hole})
		return true
	}
	for lba := uint64(off) / BlockSize; lba < end; {
		l, skip, err := v.leafOrSkip(lba)
		if err != nil {
			return nil, err
		}
		if l == nil && !v.baseCovers(lba) {
			if v.base != nil {
				skip = lba + 1
			}
			skip = min(skip, end)
			if !add(lba, skip, true) {
				break
			}
			lba = skip
			continue
		}
		e := entry{}
		if l != nil {
			e = l.ent[lba&(fanOut-1)]
		}
		k := e.loc.kind()
		if !add(lba, lba+1, k == kindZero || (k == kindNone && !v.baseCovers(lba))) {
			break
		}
		lba++
	}
	return out, nil
}
