package block

import (
	"fmt"
)

// replayed is a group found in the log.
type replayed struct {
	*group
	at *segment
}

// replay walks the log behind the manifest and applies what it finds.
//
// A group counts when its descriptor authenticates, names its own place, carries the
// next number, and chains to the tag of the one before. Groups that a later group
// says were flushed are taken as they are (their blocks are checked when read); the
// last ones must have all their blocks intact, and the first that has not ends the
// log: it was being written when the machine stopped. If anything authentic is found
// beyond the end that proves a later flush, the log was damaged rather than cut by a
// crash, and the volume is refused.
func (v *Volume) replay(m *manifest) error {
	onDisk, err := v.segmentsOnDisk()
	if err != nil {
		return err
	}
	var found []replayed
	flushed := m.tailGroup - 1
	seg, slot, next := m.tailSeg, m.tailSlot, m.tailNext
	num, prev := m.tailGroup, m.tailPrev
	maxSeg := v.nextSeg - 1
	buf := make([]byte, BlockSize)
	try := func(id uint64, slot uint32) (*group, bool) {
		if id == 0 || slot+1 > v.segSlots || !onDisk[id] {
			return nil, false
		}
		if err := v.readReplay(id, slot, buf); err != nil {
			return nil, false
		}
		g, err := openGroup(buf, v.vid, v.epochOf)
		if err != nil || g.flags != groupLog || g.seg != id || g.slot != slot || g.num != num || g.prev != prev ||
			g.slot+1+g.nblocks > v.segSlots || v.epochOf(g.epoch).origin != v.vid {
			return nil, false
		}
		return g, true
	}
	for {
		g, ok := try(seg, slot)
		if !ok {
			if g, ok = try(next, 0); !ok {
				break
			}
			maxSeg = max(maxSeg, next)
		}
		s := v.segs[g.seg]
		if s == nil {
			s = &segment{id: g.seg, kind: groupLog, sealed: true}
			v.segs[g.seg] = s
		}
		found = append(found, replayed{g, s})
		flushed = max(flushed, g.flushed)
		maxSeg = max(maxSeg, g.seg, g.next)
		seg, slot, next = g.seg, g.slot+1+g.nblocks, g.next
		num, prev = g.num+1, g.tag
	}
	n := len(found)
	for i, r := range found {
		if r.num <= flushed {
			continue
		}
		if !v.intact(r.group) {
			n = i
			break
		}
	}
	stop := m.tailGroup + uint64(n)
	ends := map[uint64]uint32{}
	for _, r := range found {
		ends[r.seg] = r.slot + 1 + r.nblocks
	}
	if err := v.checkBeyond(stop, onDisk, ends, m); err != nil {
		return err
	}
	for i, r := range found {
		if i < n {
			if err := v.apply(r); err != nil {
				return err
			}
		} else if r.at.used == 0 && r.at.live == 0 {
			delete(v.segs, r.at.id) // nothing of it counts; removed as an orphan
		}
	}
	for id := range onDisk {
		maxSeg = max(maxSeg, id)
	}
	v.nextSeg = maxSeg + 1
	if v.nextSeg >= 1<<40 {
		return v.corrupt("segment numbers exhausted", nil)
	}
	v.head = head{next: v.nextSeg, group: stop, prev: m.tailPrev}
	v.nextSeg++
	if n > 0 {
		v.head.prev = found[n-1].tag
	}
	v.synced = stop - 1
	v.flushed.Store(stop - 1)
	if n > 0 || len(found) > 0 {
		v.log.Info("log replayed", "groups", n, "dropped", len(found)-n)
	}
	return nil
}

// readReplay reads one slot of a segment that may not be in the table yet.
func (v *Volume) readReplay(id uint64, slot uint32, b []byte) error {
	s := v.segs[id]
	if s == nil {
		s = &segment{id: id, sealed: true}
	}
	f, err := v.files.acquire(s)
	if err != nil {
		return err
	}
	_, err = f.ReadAt(b, int64(slot)*BlockSize)
	v.files.release(s)
	if v.segs[id] == nil {
		v.files.mu.Lock()
		v.files.drop(s)
		v.files.mu.Unlock()
	}
	return err
}

// intact says whether every data block of g authenticates.
func (v *Volume) intact(g *group) bool {
	rb := newReadBuf()
	var plain [BlockSize]byte
	defer clear(plain[:])
	slot := g.slot
	for i := range g.entries {
		e := &g.entries[i]
		if !e.hasBlock() {
			continue
		}
		slot++
		if err := v.readReplay(g.seg, slot, rb.buf[:BlockSize]); err != nil {
			return false
		}
		ep := v.epochOf(e.epoch)
		if ep == nil {
			return false
		}
		copy(rb.buf[BlockSize:], e.tag[:])
		blockAAD(&rb.aad, ep.origin, e.addr, e.epoch, e.kind, 0)
		putNonce(&rb.non, uint64(e.ctr))
		if _, err := ep.data.Open(plain[:0], rb.non[:], rb.buf[:BlockSize+tagLen], rb.aad[:]); err != nil {
			return false
		}
	}
	return true
}

// apply puts a group into the map.
func (v *Volume) apply(r replayed) error {
	slot := r.slot
	blocks := uint64(v.Size()) / BlockSize
	for i := range r.entries {
		e := &r.entries[i]
		switch e.kind {
		case kindData:
			slot++
			if e.addr >= blocks {
				return v.corrupt(fmt.Sprintf("log group %d maps block %d", r.num, e.addr), nil)
			}
			n, err := v.leaf(e.addr, true)
			if err != nil {
				return err
			}
			v.setEntry(&n.ent[e.addr&(fanOut-1)], entry{loc: makeLoc(r.seg, slot, kindData), epoch: e.epoch, ctr: e.ctr, tag: e.tag})
		case kindZero:
			if e.addr > blocks || uint64(e.run) > blocks-e.addr {
				return v.corrupt(fmt.Sprintf("log group %d clears block %d", r.num, e.addr), nil)
			}
			if err := v.clearRange(e.addr, e.addr+uint64(e.run)); err != nil {
				return err
			}
		default:
			return v.corrupt(fmt.Sprintf("log group %d has an entry of kind %d", r.num, e.kind), nil)
		}
	}
	// kill -9 leaves groups that were never synced: the next checkpoint must sync what it refers to
	v.markSegDirty(r.at)
	v.dirDirt = true
	r.at.used = max(r.at.used, r.slot+1+r.nblocks)
	v.logBytes += int64(1+r.nblocks) * BlockSize
	return nil
}

// checkBeyond looks for proof that the log went on durably after group stop-1: an
// authentic group that says so, or one of an epoch that the manifest does not know yet.
// Only segments that the manifest does not list as complete can hold such groups.
func (v *Volume) checkBeyond(stop uint64, onDisk map[uint64]bool, ends map[uint64]uint32, m *manifest) error {
	known := map[uint64]bool{}
	for _, s := range m.segs {
		known[s.id] = s.id != m.tailSeg
	}
	var last uint32
	for n := range v.epochMap() {
		last = max(last, n)
	}
	buf := make([]byte, BlockSize)
	for id := range onDisk {
		if known[id] || id < min(m.tailNext, max(m.tailSeg, 1)) {
			continue
		}
		for slot := ends[id]; slot < v.segSlots; slot++ {
			if v.readReplay(id, slot, buf) != nil {
				break
			}
			h, hid, _, err := peekGroup(buf)
			if err != nil || hid != v.vid || h.flags != groupLog || h.num < stop {
				continue
			}
			if h.epoch > last && h.seg == id && h.slot == slot {
				return v.corrupt(fmt.Sprintf("the log goes on in epoch %d, which the newest intact manifest does not know", h.epoch), nil)
			}
			if h.flushed < stop {
				continue
			}
			if g, err := openGroup(buf, v.vid, v.epochOf); err == nil && g.seg == id && g.slot == slot {
				return v.corrupt(fmt.Sprintf("log group %d was flushed and is damaged or missing", stop), nil)
			}
		}
	}
	return nil
}

func (v *Volume) segmentsOnDisk() (map[uint64]bool, error) {
	names, err := v.fs.List()
	if err != nil {
		return nil, err
	}
	m := map[uint64]bool{}
	for _, n := range names {
		if id, ok := parseSegName(n); ok {
			m[id] = true
		}
	}
	return m, nil
}

// removeOrphans removes segment files that neither the manifest nor the replayed log
// needs: leftovers of a crash between a checkpoint and its clean-up, or before one.
func (v *Volume) removeOrphans() error {
	onDisk, err := v.segmentsOnDisk()
	if err != nil {
		return err
	}
	for id := range onDisk {
		if v.segs[id] == nil {
			if err := v.fs.Remove(segName(id)); err != nil && !isNotExist(err) {
				return fmt.Errorf("remove leftover segment %x: %w", id, err)
			}
		}
	}
	if f, err := v.fs.Open(spareName, false); err == nil {
		f.Close()
		v.spare = true
	}
	for id := range v.segs {
		v.nextSeg = max(v.nextSeg, id+1)
	}
	return nil
}
