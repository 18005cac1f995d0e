package block

import (
	"fmt"
	"time"
)

// Compaction moves what is alive in mostly dead segments into fresh side segments, as
// the ciphertext it is: place is no part of what a block is bound to. A checkpoint
// then makes the new places durable and removes the old segments.

// compactCheckpoint is how much of segments is moved away before a checkpoint gives their space back.
const compactCheckpoint = 64 << 20

// compactSlack (in slots) is dead space that is never worth moving anything for.
func (v *Volume) compactSlack() int64 {
	return min(16*int64(v.segSlots), v.Size()/BlockSize/4)
}

// Writers are slowed down, never refused, when dead space grows faster than compaction gives it back: from paceFrom of what is
// alive on a written block costs up to maxPace, the more the closer dead space comes to paceFull. A volume that is
// overwritten for ever so stays within about (1 + paceFull) times what is alive in it.
const (
	paceFrom = 0.6
	paceFull = 1.0
	maxPace  = 200 * time.Microsecond // a block: 20 MiB/s
)

// setPace looks how far compaction is behind. It is called for each new log segment; caller holds v.mu for writing.
func (v *Volume) setPace() {
	v.pace = 0
	if v.opt.CompactBytesPerSecond < 0 || v.opt.CheckpointInterval < 0 {
		return
	}
	var used, live int64
	for _, s := range v.segs {
		if s.sealed {
			used += int64(s.used)
			live += s.live
		}
	}
	dead := float64(used - live - v.compactSlack())
	if dead > float64(live)/2 {
		v.wake()
	}
	if behind := (dead/float64(max(live, 1)) - paceFrom) / (paceFull - paceFrom); behind > 0 {
		v.pace = time.Duration(min(behind*behind, 1) * float64(maxPace))
	}
}

// wait has a writer pay; small sums are gathered, because a sleep is never shorter than the host's timer. No lock is held.
func (v *Volume) wait(d time.Duration) {
	if owed := v.owed.Add(int64(d)); owed > int64(2*time.Millisecond) {
		v.owed.Add(-owed)
		t := time.NewTimer(time.Duration(owed))
		defer t.Stop()
		select {
		case <-t.C:
		case <-v.stop:
		}
	}
}

// Compact does now what the background would do over time.
func (v *Volume) Compact() { v.compact() }

// compact works until dead space is at most half of what is alive, or the volume stops.
func (v *Volume) compact() {
	if v.opt.CompactBytesPerSecond < 0 {
		return
	}
	var sinceCkpt int64
	for {
		s := v.victim()
		if s == nil {
			break
		}
		start := time.Now()
		n, err := v.compactSegment(s)
		if err != nil {
			v.log.Warn("compaction stopped", "segment", s.id, "err", err)
			break
		}
		v.stats.compactBytes.Add(uint64(n))
		if sinceCkpt += int64(v.segSlots) * BlockSize; sinceCkpt >= compactCheckpoint {
			if v.checkpoint(0) != nil {
				return
			}
			sinceCkpt = 0
		}
		v.mu.RLock()
		behind := v.pace > 0
		v.mu.RUnlock()
		if behind {
			continue // writers wait for it: the rate is for times when nobody does
		}
		pause := time.Duration(float64(n)/float64(v.opt.CompactBytesPerSecond)*float64(time.Second)) - time.Since(start)
		select {
		case <-v.stop:
			return
		case <-time.After(max(pause, 0)):
		}
	}
	if sinceCkpt > 0 {
		_ = v.checkpoint(0)
	}
}

// victim picks the sealed segment with the smallest part alive, when there is enough dead space.
func (v *Volume) victim() *segment {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.usable() != nil {
		return nil
	}
	var used, live int64
	var best *segment
	for _, s := range v.segs {
		if !s.sealed {
			continue
		}
		used += int64(s.used)
		live += s.live
		if s.live == 0 || s.dirty || s.keep {
			continue
		}
		if best == nil || s.live*int64(best.used) < best.live*int64(s.used) {
			best = s
		}
	}
	if best == nil || used-live <= live/2+v.compactSlack() || best.live*10 > int64(best.used)*9 {
		return nil
	}
	return best
}

type moved struct {
	from loc
	ge   groupEntry
}

// compactSegment moves all that is alive out of s and returns the bytes it moved.
func (v *Volume) compactSegment(s *segment) (int64, error) {
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
	var n int64
	var batch []moved
	buf := make([]byte, (1+groupBlocks)*BlockSize+tagLen)
	out := make([]byte, 0, groupBlocks*BlockSize)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		n += int64(len(batch)) * BlockSize
		err := v.moveBatch(batch, out)
		batch, out = batch[:0], out[:0]
		return err
	}
	for slot := uint32(0); slot < s.used; {
		if _, err := f.ReadAt(buf[:BlockSize], int64(slot)*BlockSize); err != nil {
			return n, v.readErr(fmt.Sprintf("segment %x slot %d", s.id, slot), err)
		}
		g, err := openGroup(buf, v.epochOf)
		if err != nil || g.seg != s.id || g.slot != slot || slot+1+g.nblocks > v.segSlots {
			v.keep(s)
			// The map still proves every block; only the moving needs the descriptor.
			return n, v.corrupt(fmt.Sprintf("descriptor in segment %x slot %d", s.id, slot), err)
		}
		data := buf[:int(g.nblocks)*BlockSize]
		if len(data) > 0 {
			if _, err := f.ReadAt(data, int64(slot+1)*BlockSize); err != nil {
				return n, v.readErr(fmt.Sprintf("segment %x slot %d", s.id, slot+1), err)
			}
		}
		k := uint32(0)
		v.mu.Lock()
		for i := range g.entries {
			ge := g.entries[i]
			if !ge.hasBlock() {
				continue
			}
			at := makeLoc(s.id, slot+1+k, ge.kind)
			k++
			alive, err := v.alive(&ge, at)
			if err != nil {
				v.mu.Unlock()
				return n, err
			}
			if alive && ge.kind == kindData {
				batch = append(batch, moved{at, ge})
				out = append(out, data[int(k-1)*BlockSize:int(k)*BlockSize]...)
			}
			if len(batch) == groupBlocks {
				v.mu.Unlock()
				if err := flush(); err != nil {
					return n, err
				}
				v.mu.Lock()
			}
		}
		v.mu.Unlock()
		slot += 1 + g.nblocks
	}
	return n, flush()
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

// moveBatch writes sealed blocks into the side segments and repoints the map, except
// for blocks that were overwritten meanwhile.
func (v *Volume) moveBatch(batch []moved, data []byte) error {
	// A checkpoint between the reservation and the writing would call the new place
	// durable before it was written.
	v.ckptMu.Lock()
	defer v.ckptMu.Unlock()
	v.mu.Lock()
	if err := v.usable(); err != nil {
		v.mu.Unlock()
		return err
	}
	runs, err := v.reserveSide(len(batch), true)
	if err != nil {
		v.mu.Unlock()
		return err
	}
	ws := make([]sideWrite, 0, len(runs))
	places := make([]loc, 0, len(batch))
	i := 0
	scratch := make([]byte, 0, BlockSize)
	for _, r := range runs {
		buf := make([]byte, int(1+r.blocks)*BlockSize)
		g := group{flags: groupSide, seg: r.seg.id, slot: r.slot, nblocks: r.blocks, epoch: v.cur.num, ctr: v.descCtr}
		v.descCtr++
		for k := range r.blocks {
			g.entries = append(g.entries, batch[i].ge)
			copy(buf[int(1+k)*BlockSize:], data[i*BlockSize:(i+1)*BlockSize])
			places = append(places, makeLoc(r.seg.id, r.slot+1+k, kindData))
			i++
		}
		g.sealInto(v.cur.desc, v.vid, buf, scratch)
		ws = append(ws, sideWrite{r, buf})
	}
	v.mu.Unlock()
	if err := v.writeSide(ws); err != nil {
		return v.failNow("write moved blocks", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, b := range batch {
		n, _, err := v.leafOrSkip(b.ge.addr)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		e := n.ent[b.ge.addr&(fanOut-1)]
		if e.loc != b.from {
			continue
		}
		if _, err := v.leaf(b.ge.addr, true); err != nil {
			return err
		}
		e.loc = places[i]
		v.setEntry(&n.ent[b.ge.addr&(fanOut-1)], e)
	}
	return nil
}
