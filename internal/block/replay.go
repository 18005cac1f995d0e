package block

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
	ahead := v.scanAhead(m, onDisk)
	defer ahead.stop()
	var tail []replayed // found and not yet known to have been flushed
	flushed := m.tailGroup - 1
	seg, slot, next := m.tailSeg, m.tailSlot, m.tailNext
	num, prev := m.tailGroup, m.tailPrev
	v.head.prev = prev
	maxSeg := v.nextSeg - 1
	ends := map[uint64]uint32{}
	applyAll := func(l []replayed, synced bool) error {
		for _, r := range l {
			if err := v.apply(r, synced); err != nil {
				return err
			}
			v.head.prev = r.tag
		}
		return nil
	}
	for {
		g := ahead.group(seg, slot, num, prev)
		if g == nil {
			if g = ahead.group(next, 0, num, prev); g == nil {
				break
			}
			maxSeg = max(maxSeg, next)
		}
		s := v.segs[g.seg]
		if s == nil {
			s = &segment{id: g.seg, kind: groupLog, sealed: true}
			v.segs[g.seg] = s
		}
		tail = append(tail, replayed{g, s})
		maxSeg = max(maxSeg, g.seg, g.next)
		seg, slot, next = g.seg, g.slot+1+g.nblocks, g.next
		num, prev = g.num+1, g.tag
		ends[seg] = slot
		if g.flushed > flushed {
			flushed = g.flushed
			n := 0
			for n < len(tail) && tail[n].num <= flushed {
				n++
			}
			if err := applyAll(tail[:n], true); err != nil {
				return err
			}
			tail = append(tail[:0], tail[n:]...)
		}
	}
	n := v.firstTorn(tail)
	dropped := len(tail) - n
	stop := num - uint64(dropped)
	if err := v.checkBeyond(stop, onDisk, ends, m); err != nil {
		return err
	}
	if err := applyAll(tail[:n], false); err != nil {
		return err
	}
	for _, r := range tail[n:] {
		if r.at.used == 0 && r.at.live == 0 {
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
	v.head = head{next: v.nextSeg, group: stop, prev: v.head.prev}
	v.nextSeg++
	v.synced = stop - 1
	v.flushed.Store(stop - 1)
	if num > m.tailGroup {
		v.log.Info("log replayed", "groups", stop-m.tailGroup, "dropped", dropped)
	}
	return nil
}

// replayWorkers read and authenticate beside each other, also for the sake of disks that like a queue.
const replayWorkers = 4

// lookAhead reads the descriptors of the log's segments ahead of the replay. Where the
// next descriptor of a segment is, the one before says; the chain between them is the replay's to check.
type lookAhead struct {
	v       *Volume
	scans   map[uint64]*segScan
	stopped atomic.Bool
	wg      sync.WaitGroup
}

type segScan struct {
	id     uint64
	from   uint32 // first slot
	once   sync.Once
	groups []*group // in order; the replay takes them off
}

func (v *Volume) scanAhead(m *manifest, onDisk map[uint64]bool) *lookAhead {
	a := &lookAhead{v: v, scans: map[uint64]*segScan{}}
	for id := range onDisk {
		if s := v.segs[id]; s == nil || id == m.tailSeg {
			a.scans[id] = &segScan{id: id}
		}
	}
	if s := a.scans[m.tailSeg]; s != nil {
		s.from = m.tailSlot
	}
	ids := slices.Sorted(maps.Keys(a.scans)) // roughly the order of the log
	var taken atomic.Int64
	for range min(replayWorkers, len(ids)) {
		a.wg.Go(func() {
			for !a.stopped.Load() {
				i := int(taken.Add(1)) - 1
				if i >= len(ids) {
					return
				}
				a.scan(a.scans[ids[i]])
			}
		})
	}
	return a
}

func (a *lookAhead) stop() {
	a.stopped.Store(true)
	a.wg.Wait()
}

// scan reads s, unless somebody did. What cannot be read or opened ends it.
func (a *lookAhead) scan(s *segScan) {
	s.once.Do(func() {
		v := a.v
		f, err := v.fs.Open(segName(s.id), false)
		if err != nil {
			return
		}
		defer f.Close()
		buf := make([]byte, BlockSize)
		for slot := s.from; slot+1 <= v.segSlots && !a.stopped.Load(); {
			if _, err := f.ReadAt(buf, int64(slot)*BlockSize); err != nil {
				return
			}
			g, err := openGroup(buf, v.epochOf)
			if err != nil || g.flags != groupLog || g.seg != s.id || g.slot != slot || g.slot+1+g.nblocks > v.segSlots ||
				v.epochOf(g.epoch).origin != v.vid {
				return
			}
			s.groups = append(s.groups, g)
			slot += 1 + g.nblocks
		}
	})
}

// group is the log group at a place, if it has that number and follows that tag; or nil.
func (a *lookAhead) group(seg uint64, slot uint32, num uint64, prev [tagLen]byte) *group {
	s := a.scans[seg]
	if s == nil {
		return nil
	}
	a.scan(s)
	if len(s.groups) == 0 {
		return nil
	}
	g := s.groups[0]
	if g.slot != slot || g.num != num || g.prev != prev {
		return nil
	}
	s.groups = s.groups[1:]
	return g
}

// firstTorn is the index of the first group that has a block which does not
// authenticate, or len(l).
func (v *Volume) firstTorn(l []replayed) int {
	var taken, torn atomic.Int64
	torn.Store(int64(len(l)))
	var wg sync.WaitGroup
	for range min(replayWorkers, len(l)) {
		wg.Go(func() {
			buf := make([]byte, groupBlocks*BlockSize+tagLen)
			defer clear(buf)
			for {
				i := taken.Add(1) - 1
				if i >= torn.Load() {
					return
				}
				if v.intact(l[i], buf) {
					continue
				}
				for t := torn.Load(); i < t && !torn.CompareAndSwap(t, i); t = torn.Load() {
				}
			}
		})
	}
	wg.Wait()
	return int(torn.Load())
}

// intact says whether every data block of r authenticates. buf has room for a group and a tag.
func (v *Volume) intact(r replayed, buf []byte) bool {
	f, err := v.files.acquire(r.at)
	if err != nil {
		return false
	}
	defer v.files.release(r.at)
	all := buf[:int(r.nblocks)*BlockSize]
	if len(all) > 0 {
		if _, err := f.ReadAt(all, int64(r.slot+1)*BlockSize); err != nil {
			return false
		}
	}
	var plain [BlockSize]byte
	defer clear(plain[:])
	var sealed [BlockSize + tagLen]byte
	var aad [32]byte
	var nonce [12]byte
	for i := range r.entries {
		e := &r.entries[i]
		if !e.hasBlock() {
			continue
		}
		ep := v.epochOf(e.epoch)
		if ep == nil {
			return false
		}
		copy(sealed[:], all[:BlockSize])
		copy(sealed[BlockSize:], e.tag[:])
		all = all[BlockSize:]
		blockAAD(&aad, ep.origin, e.addr, e.epoch, e.kind, 0)
		putNonce(&nonce, uint64(e.ctr))
		if _, err := ep.data.Open(plain[:0], nonce[:], sealed[:], aad[:]); err != nil {
			return false
		}
	}
	return true
}

// apply puts a group into the map. One that is not known to be durable (kill -9 leaves
// groups that were never synced) must be synced by the checkpoint that refers to it.
func (v *Volume) apply(r replayed, synced bool) error {
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
	if !synced {
		v.markSegDirty(r.at)
	}
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
	look := func(id uint64) error {
		f, err := v.fs.Open(segName(id), false)
		if err != nil {
			return nil
		}
		defer f.Close()
		for slot := ends[id]; slot < v.segSlots; slot++ {
			if _, err := f.ReadAt(buf, int64(slot)*BlockSize); err != nil {
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
			if g, err := openGroup(buf, v.epochOf); err == nil && g.seg == id && g.slot == slot {
				return v.corrupt(fmt.Sprintf("log group %d was flushed and is damaged or missing", stop), nil)
			}
		}
		return nil
	}
	for id := range onDisk {
		if known[id] || id < min(m.tailNext, max(m.tailSeg, 1)) {
			continue
		}
		if err := look(id); err != nil {
			return err
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
