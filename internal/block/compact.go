package block

import (
	"fmt"
	"sync"
	"time"
)

// Compaction moves what is alive in mostly dead segments into fresh side segments, as
// the ciphertext it is: place is no part of what a block is bound to. A checkpoint
// then makes the new places durable and removes the old segments.

// Compaction keeps a volume that is overwritten for ever within 1.5 times what is alive in it (and a few segments). Writers are
// slowed down, never refused, when dead space grows faster than that gives it back: from halfway between where compaction begins and the
// limit a written block costs its writer the more the closer dead space comes to its limit; there as long as compaction takes to free a
// block, so that both go on at an even pace.
//
// What is written for one block that is overwritten at random: the block, 1.01 to 1.03 with its share of a descriptor;
// u/(1-u) moved ones, where u is how much is alive in the emptiest segment, 0.45 to 0.5 for what is alive in 1.4 times its space;
// and its share of the map pages of a checkpoint, which are few only if many blocks come between two: hence awaiting.
const (
	maxDead   = 0.5                   // of what is alive
	awaiting  = 0.08                  // of what is alive: in segments that were moved away and wait for a checkpoint
	paceBand  = 0.02                  // of what is alive: from where compaction begins to the limit
	firstPace = 50 * time.Microsecond // for one block, until it was measured: 80 MiB/s
)

// occupancy is what sealed segments hold, in slots.
type occupancy struct {
	live, dead int64 // without segments that are dead as a whole and only wait for a checkpoint
	limit      int64 // of dead, over which writers wait for compaction
	from       int64 // dead space that is let be
	moved      int64 // how much is moved away before a checkpoint
}

// occupancy looks at all segments. Caller holds v.mu.
func (v *Volume) occupancy() (o occupancy) {
	for _, s := range v.segs {
		if s.sealed && !s.keep && !s.moved && s.live > 0 {
			o.dead += int64(s.used) - s.live
			o.live += s.live
		}
	}
	seg := int64(v.segSlots)
	part := func(p float64) int64 { return int64(p * float64(o.live)) }
	o.moved = min(max(part(awaiting), 8*seg), 1<<30/BlockSize)
	// The open segments and the spare have to fit in too, except in a volume so small (by default: below some 700 MiB) that
	// it would be compacted all the time for what is only a few segments.
	o.limit = max(part(maxDead)-o.moved-4*seg, min(32*seg, v.Size()/BlockSize/2))
	o.from = o.limit - min(max(part(paceBand), 4*seg), o.limit/3)
	return o
}

// setPace looks how far compaction is behind. It is called for each segment of the log and each that was moved away;
// caller holds v.mu for writing.
func (v *Volume) setPace() {
	v.pace, v.behind = 0, false
	if v.opt.CompactBytesPerSecond < 0 || v.opt.CheckpointInterval < 0 {
		return
	}
	o := v.occupancy()
	if v.behind = o.dead > o.from; v.behind {
		v.wake()
	}
	if late := 2*float64(o.dead-o.from)/float64(max(o.limit-o.from, 1)) - 1; late > 0 {
		v.pace = time.Duration(min(late*max(late, 1), 8) * float64(v.freeing))
	}
}

// freed notes that compaction took d to free n slots. Caller holds v.mu for writing.
func (v *Volume) freed(n int64, d time.Duration) {
	if n > 0 {
		per := min(max(d/time.Duration(n), time.Microsecond), 4*firstPace)
		v.freeing += (per - v.freeing) / 4
	}
}

// wait has a writer pay; small sums are gathered, because a sleep is never shorter than the host's timer, and what it
// is longer is to the writer's good. No lock is held.
func (v *Volume) wait(d time.Duration) {
	if owed := v.owed.Add(int64(d)); owed > int64(time.Millisecond) {
		v.owed.Add(-owed)
		start := time.Now()
		t := time.NewTimer(time.Duration(owed))
		defer t.Stop()
		select {
		case <-t.C:
		case <-v.stop:
		}
		v.owed.Add(owed - max(int64(time.Since(start)), owed))
	}
}

// Compact does now what the background would do over time.
func (v *Volume) Compact() {
	v.compact(nil)
	v.mu.RLock()
	some := v.moved > 0
	v.mu.RUnlock()
	if some {
		_ = v.checkpoint(0)
	}
}

// compact works until there is little enough dead space, the volume stops, or something comes from due while nobody waits for it.
// What it moved away is given back by a checkpoint: by its own once that is worth it, else by the next.
func (v *Volume) compact(due <-chan struct{}) {
	if v.opt.CompactBytesPerSecond < 0 {
		return
	}
	var gain int64 // slots, since cycle
	cycle, paused := time.Now(), false
	m := movers.Get().(*mover)
	defer movers.Put(m)
	for {
		s, dead, most := v.victim()
		if s == nil {
			return
		}
		start := time.Now()
		n, err := v.compactSegment(s, m)
		if err != nil {
			v.log.Warn("compaction stopped", "segment", s.id, "err", err)
			return
		}
		v.stats.compactBytes.Add(uint64(n))
		gain += dead
		v.mu.Lock()
		s.moved = true
		v.moved += int64(s.used)
		enough := v.moved >= most
		v.setPace()
		behind := v.behind
		v.mu.Unlock()
		if enough {
			if v.checkpoint(0) != nil {
				return
			}
			if !paused {
				v.mu.Lock()
				v.freed(gain, time.Since(cycle))
				v.mu.Unlock()
			}
			gain, cycle, paused = 0, time.Now(), false
		}
		if behind {
			continue // writers wait for it: the rate is for times when nobody does
		}
		paused = true
		pause := time.Duration(float64(n)/float64(v.opt.CompactBytesPerSecond)*float64(time.Second)) - time.Since(start)
		select {
		case <-v.stop:
			return
		case <-due: // perhaps this
			v.wake()
			return
		case <-time.After(max(pause, 0)):
		}
	}
}

// victim picks the sealed segment with the smallest part alive, when there is enough dead space. It tells how many slots
// of it are dead, and how many slots are to be moved away before a checkpoint.
func (v *Volume) victim() (best *segment, dead, most int64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.usable() != nil {
		return nil, 0, 0
	}
	for _, s := range v.segs {
		if !s.sealed || s.live == 0 || s.dirty || s.keep || s.moved {
			continue
		}
		if best == nil || s.live*int64(best.used) < best.live*int64(s.used) {
			best = s
		}
	}
	o := v.occupancy()
	if best == nil || o.dead <= o.from || best.live*10 > int64(best.used)*9 {
		return nil, 0, 0
	}
	return best, int64(best.used) - best.live, o.moved
}

type moved struct {
	from loc
	ge   groupEntry
}

// mover holds what compaction has in its hands: the group it reads, and what is alive of several as the group it will write.
type mover struct {
	in      []byte
	out     []byte // room for a descriptor, then sealed blocks, of at most two groups
	batch   []moved
	entries []groupEntry
	scratch []byte
}

// movers are shared by all volumes: what is in them is sealed, or was in a descriptor.
var movers = sync.Pool{New: func() any {
	const group = groupBlocks * BlockSize
	return &mover{in: make([]byte, BlockSize+group+tagLen), out: make([]byte, BlockSize, BlockSize+2*group), scratch: make([]byte, 0, BlockSize)}
}}

// compactSegment moves all that is alive out of s and returns the bytes it moved.
func (v *Volume) compactSegment(s *segment, m *mover) (int64, error) {
	v.life.RLock()
	defer v.life.RUnlock()
	v.mu.RLock()
	err := v.usable()
	v.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	f, err := v.files.acquire(s)
	if err != nil {
		return 0, err
	}
	defer v.files.release(s)
	m.batch, m.out = m.batch[:0], m.out[:BlockSize]
	var n int64
	for slot := uint32(0); slot < s.used; {
		if _, err := f.ReadAt(m.in[:BlockSize], int64(slot)*BlockSize); err != nil {
			return n, v.readErr(fmt.Sprintf("segment %x slot %d", s.id, slot), err)
		}
		g, err := openGroup(m.in, v.epochOf)
		if err != nil || g.seg != s.id || g.slot != slot || slot+1+g.nblocks > v.segSlots {
			v.keep(s)
			// The map still proves every block; only the moving needs the descriptor.
			return n, v.corrupt(fmt.Sprintf("descriptor in segment %x slot %d", s.id, slot), err)
		}
		data := m.in[:int(g.nblocks)*BlockSize]
		if len(data) > 0 {
			if _, err := f.ReadAt(data, int64(slot+1)*BlockSize); err != nil {
				return n, v.readErr(fmt.Sprintf("segment %x slot %d", s.id, slot+1), err)
			}
		}
		if len(m.batch)+int(g.nblocks) > 2*groupBlocks {
			n += int64(len(m.batch)) * BlockSize
			if err := v.moveBatch(m); err != nil {
				return n, err
			}
		}
		if err := v.pickAlive(m, g, data); err != nil {
			return n, err
		}
		slot += 1 + g.nblocks
	}
	n += int64(len(m.batch)) * BlockSize
	return n, v.moveBatch(m)
}

// pickAlive adds what is alive of a group to the batch, which has room for all of it.
func (v *Volume) pickAlive(m *mover, g *group, data []byte) error {
	v.mu.Lock()
	first := len(m.batch)
	k := uint32(0)
	for i := range g.entries {
		ge := &g.entries[i]
		if !ge.hasBlock() {
			continue
		}
		at := makeLoc(g.seg, g.slot+1+k, ge.kind)
		k++
		alive, err := v.alive(ge, at)
		if err != nil {
			v.mu.Unlock()
			return err
		}
		if alive && ge.kind == kindData {
			m.batch = append(m.batch, moved{at, *ge})
		}
	}
	v.mu.Unlock()
	for _, b := range m.batch[first:] {
		at := int(b.from.slot()-g.slot-1) * BlockSize
		m.out = append(m.out, data[at:at+BlockSize]...)
	}
	return nil
}

func (v *Volume) keep(s *segment) {
	v.mu.Lock()
	s.keep = true
	v.mu.Unlock()
}

// alive says whether the map refers to what lies at l. A page that is alive is marked
// as changed, so that the next checkpoint writes it elsewhere. Caller holds v.mu for writing.
func (v *Volume) alive(ge *groupEntry, l loc) (bool, error) {
	if ge.kind == kindData {
		n, _, err := v.leafOrSkip(ge.addr)
		if err != nil || n == nil {
			return false, err
		}
		return n.ent[ge.addr&(fanOut-1)].loc == l, nil
	}
	level := int(ge.run)
	if level >= v.levels {
		return false, nil
	}
	if level == v.levels-1 {
		if v.rootLoc.loc != l {
			return false, nil
		}
		v.markDirty(v.root)
		return true, nil
	}
	first := ge.addr << (fanBits * (level + 1))
	p := v.root
	for p.level > level+1 {
		i := first >> (fanBits * p.level) & (fanOut - 1)
		if p.kids[i] == nil {
			if p.ent[i].loc == 0 {
				return false, nil
			}
			k, err := v.loadPage(p, int(i))
			if err != nil {
				return false, err
			}
			p.kids[i] = k
		}
		p = p.kids[i]
	}
	i := ge.addr & (fanOut - 1)
	if p.ent[i].loc != l {
		return false, nil
	}
	if p.kids[i] == nil {
		k, err := v.loadPage(p, int(i))
		if err != nil {
			return false, err
		}
		p.kids[i] = k
		if k.level == 0 {
			v.leaves = append(v.leaves, k)
		}
	}
	n := v.root
	v.markDirty(n)
	for n.level > level {
		n = n.kids[first>>(fanBits*n.level)&(fanOut-1)]
		v.markDirty(n)
	}
	return true, nil
}

// moveBatch writes the batch into the side segments and repoints the map, except for blocks that were overwritten
// meanwhile. The batch is empty afterwards. Caller holds life, so that the keys stay.
func (v *Volume) moveBatch(m *mover) error {
	batch := m.batch
	if len(batch) == 0 {
		return nil
	}
	out := m.out
	m.batch, m.out = m.batch[:0], m.out[:BlockSize]
	// A checkpoint between the reservation and the writing would call the new place
	// durable before it was written.
	v.ckptMu.Lock()
	defer v.ckptMu.Unlock()
	v.mu.Lock()
	if err := v.usable(); err != nil {
		v.mu.Unlock()
		return err
	}
	runs, err := v.reserveSide(&v.side, len(batch), true)
	if err != nil {
		v.mu.Unlock()
		return err
	}
	ep, ctr := v.cur, v.descCtr
	v.descCtr += uint64(len(runs))
	v.mu.Unlock()
	at := 0
	for i, r := range runs {
		// Its descriptor takes the place of the block before, which the run before has written.
		buf := out[at*BlockSize : (at+1+int(r.blocks))*BlockSize]
		if err == nil {
			g := group{flags: groupSide, seg: r.seg.id, slot: r.slot, nblocks: r.blocks, epoch: ep.num, ctr: ctr + uint64(i), entries: m.entries[:0]}
			for _, b := range batch[at : at+int(r.blocks)] {
				g.entries = append(g.entries, b.ge)
			}
			g.sealInto(ep.desc, v.vid, buf, m.scratch)
			m.entries = g.entries
		}
		err = v.writeRun(r, buf, err)
		at += int(r.blocks)
	}
	if err != nil {
		return v.failNow("write moved blocks", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	i := 0
	for _, r := range runs {
		for k := range r.blocks {
			if err := v.repoint(&batch[i], makeLoc(r.seg.id, r.slot+1+k, kindData)); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// repoint has the map refer to a moved block's new place, unless it was overwritten. Caller holds v.mu for writing.
func (v *Volume) repoint(b *moved, to loc) error {
	n, _, err := v.leafOrSkip(b.ge.addr)
	if err != nil || n == nil {
		return err
	}
	slot := &n.ent[b.ge.addr&(fanOut-1)]
	e := *slot
	if e.loc != b.from {
		return nil
	}
	if _, err := v.leaf(b.ge.addr, true); err != nil { // mark the path dirty
		return err
	}
	e.loc = to
	v.setEntry(slot, e)
	return nil
}
