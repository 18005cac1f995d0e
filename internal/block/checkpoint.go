package block

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// sideHead is an open end of the side segments: map pages and moved blocks, which are found through the map and never
// replayed. The two have segments of their own: pages die with the next checkpoints, and what then is
// dead as a whole needs no compaction. Guarded by Volume.mu.
type sideHead struct {
	seg  *segment
	slot uint32
}

// sideRun is a reserved place for one group.
type sideRun struct {
	seg    *segment
	slot   uint32 // of the descriptor
	blocks uint32
	f      File // referenced until writeSide
}

// reserveSide finds room for n blocks in groups. Nothing is changed when it fails,
// except that fresh segments may have been opened. Caller holds v.mu for writing.
func (v *Volume) reserveSide(head *sideHead, n int, urgent bool) ([]sideRun, error) {
	var runs []sideRun
	h := *head
	var fresh []*segment
	for n > 0 {
		if h.seg == nil || h.slot+2 > h.seg.slots {
			s := &segment{id: v.nextSeg, kind: groupSide}
			if err := v.createSegment(s, urgent); err != nil {
				for _, s := range fresh {
					v.files.release(s)
					_ = v.files.remove(s)
				}
				return nil, err
			}
			v.nextSeg++
			fresh = append(fresh, s)
			h = sideHead{seg: s}
		}
		k := min(uint32(n), groupBlocks, h.seg.slots-h.slot-1)
		runs = append(runs, sideRun{seg: h.seg, slot: h.slot, blocks: k})
		h.slot += 1 + k
		n -= int(k)
	}
	for i := range runs {
		// The file is held, because a flush may sync it and let go of it before it is written.
		f, err := v.files.acquire(runs[i].seg)
		if err != nil {
			return nil, v.fail("open side segment", err)
		}
		runs[i].f = f
	}
	for _, r := range runs {
		if r.seg != head.seg {
			if head.seg != nil {
				v.seal(head.seg)
			}
			head.seg = r.seg
			v.segs[r.seg.id] = r.seg
		}
		r.seg.used = r.slot + 1 + r.blocks
	}
	head.slot = h.slot
	return runs, nil
}

// sealSide closes the open side segments. Caller holds v.mu for writing.
func (v *Volume) sealSide() {
	for _, h := range []*sideHead{&v.pages, &v.side} {
		if h.seg != nil {
			v.seal(h.seg)
			*h = sideHead{}
		}
	}
}

type sideWrite struct {
	run sideRun
	buf []byte
}

// writeSide puts reserved groups into their segments, and marks these to be synced.
func (v *Volume) writeSide(ws []sideWrite) (err error) {
	for _, w := range ws {
		err = v.writeRun(w.run, w.buf, err)
	}
	return err
}

// writeRun writes one reserved group, unless one before it failed with err, and lets go of its segment.
func (v *Volume) writeRun(r sideRun, buf []byte, err error) error {
	s := r.seg
	if err == nil {
		if _, err = r.f.WriteAt(buf, int64(r.slot)*BlockSize); err != nil {
			err = fmt.Errorf("write segment %x: %w", s.id, err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.markSegDirty(s)
	if s.wref {
		v.files.release(s)
	} else {
		s.wref = true // the reference becomes the writer's again
	}
	return err
}

// checkpoint writes all changed map pages and a manifest that refers to them, makes
// both durable, and then removes the segments that nothing needs any more.
//
// The state is captured, and the pages sealed, under the lock; the writing and
// syncing happens beside running I/O. A full disk leaves everything as it was.
func (v *Volume) checkpoint(flags uint16) error {
	v.ckptMu.Lock()
	defer v.ckptMu.Unlock()
	return v.checkpointLocked(flags)
}

// checkpointLocked is checkpoint for who holds ckptMu.
func (v *Volume) checkpointLocked(flags uint16) error {
	v.mu.Lock()
	c, err := v.capture(flags)
	v.mu.Unlock()
	if err != nil {
		return err
	}
	return v.complete(c, flags)
}

// Checkpoint writes the map and a new manifest now, which moves the anchor and frees
// dead segments. The volume does so by itself; callers that want a fresh anchor may ask.
func (v *Volume) Checkpoint() error {
	if v.opt.ReadOnly {
		return fmt.Errorf("volume %s: %w", v.id, ErrReadOnly)
	}
	return v.checkpoint(0)
}

// complete makes a captured state durable. Caller holds ckptMu since it was captured. A
// captured state must be completed: the map in memory refers to its pages already.
func (v *Volume) complete(c *captured, flags uint16) error {
	err := v.writeSide(c.pages)
	for _, w := range c.pages {
		pageBufs.Put((*pageBuf)(w.buf[:cap(w.buf)]))
	}
	c.pages = nil
	if err != nil {
		return v.failNow("write map pages", err)
	}
	v.syncMu.Lock()
	err = v.syncLocked()
	v.syncMu.Unlock()
	if err != nil {
		return err
	}
	if flags&manifestClean != 0 {
		v.trimTails()
	}
	a, err := writeManifest(v.fs, c.m, v.key)
	if err != nil {
		return v.failNow("write manifest", err)
	}
	v.mu.Lock()
	v.version, v.anchor = a.Version, a
	if v.nextEp != nil {
		v.cur, v.dataCtr, v.pageCtr, v.descCtr = v.nextEp, 0, 0, 0
		v.nextEp = nil
	}
	v.evict()
	v.mu.Unlock()
	v.ckpted = c.m.tailGroup - 1
	v.stats.checkpoints.Add(1)
	// Files are kept for the next segments, most of as many as were needed since the last checkpoint: they have their room on disk already.
	keep := c.created - c.created/4
	if flags&manifestClean != 0 {
		keep = 0
	}
	if err := v.files.shrink(keep); err != nil {
		v.log.Warn("dead segment stays until the next open", "err", err)
	}
	kept := v.files.kept()
	for _, s := range c.dead {
		if kept < keep && s.slots == v.segSlots && v.files.retire(s, int64(s.slots)*BlockSize) {
			kept++
			continue
		}
		if err := v.files.remove(s); err != nil {
			v.log.Warn("dead segment stays until the next open", "err", err)
		}
	}
	if v.opt.OnAnchor != nil {
		v.opt.OnAnchor(a)
	}
	return nil
}

func (v *Volume) failNow(doing string, err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fail(doing, err)
}

// captured is a volume's state of one moment, in memory: what complete makes durable.
type captured struct {
	m       *manifest
	pages   []sideWrite
	dead    []*segment // removed once the manifest is durable
	created int        // segments made since the checkpoint before
}

// capture takes the state for a manifest. Caller holds ckptMu, and v.mu for writing.
func (v *Volume) capture(flags uint16) (*captured, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	if err := v.emit(); err != nil {
		return nil, err
	}
	n := 0
	for l := range v.levels {
		n += len(v.dirty[l])
	}
	runs, err := v.reserveSide(&v.pages, n, true)
	if err != nil {
		return nil, err
	}
	ws := v.sealPages(runs)
	v.logBytes, v.emptied, v.moved = 0, 0, 0

	// What is dead now is not in this manifest; it is removed once the manifest is durable.
	// The log up to here is not replayed any more, so sealed log segments need no grace.
	var dead []*segment
	for id, s := range v.segs {
		s.moved = false
		if s.live == 0 && s.sealed {
			dead = append(dead, s)
			delete(v.segs, id)
		}
	}
	v.lastSeg = nil
	if v.dataCtr >= v.opt.epochBlocks || v.pageCtr >= v.opt.epochBlocks {
		v.nextEp = newEpoch(v.cur.num+1, v.vid)
		if err := v.nextEp.open(v.opt.Suite, v.key); err != nil {
			return nil, v.fail("new epoch", err)
		}
		v.addEpoch(v.nextEp)
	}
	if v.head.seg != nil && flags&manifestClean != 0 {
		v.seal(v.head.seg)
		v.head.seg = nil
	}
	c := &captured{v.manifest(flags), ws, dead, v.created}
	v.created = 0
	return c, nil
}

// manifest describes the state. Caller holds v.mu.
func (v *Volume) manifest(flags uint16) *manifest {
	h := &v.head
	m := &manifest{
		flags: flags, version: v.version + 1, vol: v.vid, volumeID: v.id, size: v.size.Load(), segSlots: v.segSlots,
		levels: v.levels, root: v.rootLoc, tailNext: h.next, tailGroup: h.group, tailPrev: h.prev,
		nextSeg: v.nextSeg, keyring: v.keyring,
	}
	if h.seg != nil {
		m.tailSeg, m.tailSlot = h.seg.id, h.slot
	}
	for _, id := range slices.Sorted(maps.Keys(v.segs)) {
		s := v.segs[id]
		m.segs = append(m.segs, segInfo{id: id, live: uint32(s.live), used: s.used, kind: s.kind})
	}
	es := v.epochMap()
	for _, num := range slices.Sorted(maps.Keys(es)) {
		e := *es[num]
		e.data, e.page, e.desc = nil, nil, nil
		m.epochs = append(m.epochs, &e)
	}
	if v.base != nil {
		b := v.base.info
		m.base = &b
	}
	return m
}

// sealPages seals all dirty pages, children before parents, into the reserved places.
func (v *Volume) sealPages(runs []sideRun) []sideWrite {
	ws := make([]sideWrite, 0, len(runs))
	var plain [BlockSize]byte
	var aad [32]byte
	var nonce [12]byte
	scratch := make([]byte, 0, BlockSize)
	var buf []byte
	g := group{}
	r := -1
	finish := func() {
		if r < 0 {
			return
		}
		g.sealInto(v.cur.desc, v.vid, buf, scratch)
		ws = append(ws, sideWrite{runs[r], buf[:(1+runs[r].blocks)*BlockSize]})
		v.stats.pageBytes.Add(uint64(1+runs[r].blocks) * BlockSize)
	}
	for level := range v.levels {
		for _, n := range v.dirty[level] {
			if r < 0 || g.nblocks == runs[r].blocks {
				finish()
				r++
				buf = pageBufs.Get().(*pageBuf)[:]
				g = group{flags: groupSide, seg: runs[r].seg.id, slot: runs[r].slot, epoch: v.cur.num, ctr: v.descCtr}
				v.descCtr++
			}
			empty := true
			for i := range n.ent {
				if n.ent[i].loc != 0 {
					empty = false
				}
				putEntry(plain[32*i:], &n.ent[i])
			}
			blockAAD(&aad, v.vid, n.index, v.cur.num, kindPage, n.level)
			putNonce(&nonce, v.pageCtr)
			at := int(1+g.nblocks) * BlockSize
			v.cur.page.Seal(buf[at:at], nonce[:], plain[:], aad[:])
			ge := groupEntry{addr: n.index, run: uint32(n.level), kind: kindPage, epoch: v.cur.num, ctr: uint32(v.pageCtr)}
			v.pageCtr++
			copy(ge.tag[:], buf[at+BlockSize:])
			g.nblocks++
			g.entries = append(g.entries, ge)
			e := entry{loc: makeLoc(g.seg, g.slot+g.nblocks, kindPage), epoch: ge.epoch, ctr: ge.ctr, tag: ge.tag}
			if empty {
				e = entry{} // the slot stays unused; a hole needs no page
			}
			n.dirty = false
			v.setEntry(v.entryOf(n), e)
		}
		clear(v.dirty[level])
		v.dirty[level] = v.dirty[level][:0]
	}
	finish()
	return ws
}

// pageBuf has room for a group of sealed pages, with its descriptor and one tag.
type pageBuf [(1+groupBlocks)*BlockSize + tagLen]byte

var pageBufs = sync.Pool{New: func() any { return new(pageBuf) }}

// entryOf is the entry that refers to a page: in its parent, or the root entry.
func (v *Volume) entryOf(n *node) *entry {
	if n.level == v.levels-1 {
		return &v.rootLoc
	}
	p := v.root
	for p.level > n.level+1 {
		p = p.kids[n.index>>(fanBits*(p.level-n.level-1))&(fanOut-1)]
	}
	return &p.ent[n.index&(fanOut-1)]
}

// trimTails gives back what was preallocated and not used. Best effort.
func (v *Volume) trimTails() {
	v.mu.Lock()
	v.sealSide()
	var list []*segment
	for _, s := range v.segs {
		if s.sealed && s.used < v.segSlots && s.id >= v.trimFrom {
			list = append(list, s)
		}
	}
	v.mu.Unlock()
	for _, s := range list {
		if f, err := v.fs.Open(segName(s.id), true); err == nil {
			_ = f.Truncate(int64(s.used) * BlockSize)
			f.Close()
		}
	}
	v.files.unprepare(true)
	if v.spare {
		v.spare = false
		_ = v.fs.Remove(spareName)
	}
}
