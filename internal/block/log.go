package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// head is the open end of the log. Guarded by Volume.mu.
type head struct {
	seg   *segment // nil: the next group begins segment next
	slot  uint32   // where the next descriptor goes
	next  uint64   // id of the segment after seg (reserved)
	group uint64   // number of the next group
	prev  [tagLen]byte

	asked  uint32    // slot at the last flush
	began  time.Time // when seg was
	zeroed uint32    // something was written up to this slot, zeros or by the file's former segment

	buf     []byte // descriptor, data blocks, room for one tag
	entries []groupEntry
	nblocks uint32
	scratch []byte // for sealing descriptors
	aad     [32]byte
	nonce   [12]byte
	g       group
}

func putNonce(n *[12]byte, ctr uint64) {
	binary.LittleEndian.PutUint64(n[:], ctr)
	n[8], n[9], n[10], n[11] = 0, 0, 0, 0
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// room makes sure that one more entry (with a data block or not) fits into the open group,
// emitting it or opening a segment as needed. Nothing is changed when it fails.
// Caller holds v.mu for writing.
func (v *Volume) room(withBlock bool) error {
	h := &v.head
	need := uint32(1)
	if withBlock {
		need = 2
	}
	if len(h.entries) > 0 {
		full := len(h.entries) == groupBlocks
		if withBlock && h.slot+1+h.nblocks >= h.seg.slots {
			full = true
		}
		if !full {
			return nil
		}
		if err := v.emit(); err != nil {
			return err
		}
	}
	if h.seg != nil && h.slot+need <= h.seg.slots {
		return nil
	}
	if v.dataCtr >= v.opt.epochBlocks+1<<20 {
		return fmt.Errorf("volume %s: epoch exhausted and no checkpoint possible: %w", v.id, ErrFailed)
	}
	s := &segment{id: h.next, kind: groupLog}
	if err := v.createSegment(s, !withBlock); err != nil {
		return err
	}
	if h.buf == nil {
		h.buf = make([]byte, (1+groupBlocks)*BlockSize+tagLen)
		h.entries = make([]groupEntry, 0, groupBlocks)
		h.scratch = make([]byte, 0, BlockSize)
	}
	if h.seg != nil {
		v.seal(h.seg)
	}
	v.segs[s.id] = s
	h.seg, h.slot, h.next, h.asked, h.zeroed = s, 0, v.nextSeg, 0, s.stale
	v.nextSeg++
	v.setPace()
	now := time.Now()
	if now.Sub(h.began) < soon { // so is the next, soon
		select {
		case v.ahead <- h.next:
		default:
		}
	}
	h.began = now
	return nil
}

// soon after a segment another is begun by a client that writes much: then the file is made before it is needed.
const soon = time.Second

// createSegment makes the file of s. A caller that gives space back may use up the
// spare when the disk is full. Caller holds v.mu for writing.
func (v *Volume) createSegment(s *segment, urgent bool) error {
	size := int64(v.segSlots) * BlockSize
	if !v.spare {
		v.spare = v.files.makeSpare(size)
	}
	s.slots = v.segSlots
	err := v.files.create(s, size)
	if errors.Is(err, ErrNoSpace) && v.files.unprepare(true) {
		err = v.files.create(s, size)
	}
	if err != nil && urgent && errors.Is(err, ErrNoSpace) {
		// little will do; what is left of the spare then serves the next such caller,
		// because ordinary writes want a whole segment
		if v.spare && v.fs.Remove(spareName) == nil {
			v.spare = false
		}
		s.slots = min(v.segSlots, urgentSlots)
		err = v.files.create(s, int64(s.slots)*BlockSize)
	}
	if err != nil {
		return err
	}
	v.dirDirt = true
	v.created++
	return nil
}

// urgentSlots is what is reserved for a segment that gives space back on a full disk.
const urgentSlots = 64

func (v *Volume) markSegDirty(s *segment) {
	if !s.dirty {
		s.dirty = true
		v.dirtyList = append(v.dirtyList, s)
	}
}

// seal marks a segment as complete.
func (v *Volume) seal(s *segment) {
	s.sealed = true
	if s.live == 0 {
		v.emptied++
	}
	v.unref(s)
}

// unref gives up the writer's reference of a segment that is sealed and synced.
func (v *Volume) unref(s *segment) {
	if s.sealed && !s.dirty && s.wref {
		s.wref = false
		v.files.release(s)
	}
}

// append seals one block into the open group and maps it. Caller holds v.mu for writing.
func (v *Volume) append(n *node, lba uint64, p []byte) error {
	if err := v.room(true); err != nil {
		return err
	}
	h := &v.head
	e := groupEntry{addr: lba, kind: kindData, epoch: v.cur.num, ctr: uint32(v.dataCtr)}
	blockAAD(&h.aad, v.vid, lba, e.epoch, kindData, 0)
	putNonce(&h.nonce, v.dataCtr)
	v.dataCtr++
	at := int(1+h.nblocks) * BlockSize
	v.cur.data.Seal(h.buf[at:at], h.nonce[:], p, h.aad[:])
	copy(e.tag[:], h.buf[at+BlockSize:])
	h.nblocks++
	h.entries = append(h.entries, e)
	v.setEntry(&n.ent[lba&(fanOut-1)], entry{loc: makeLoc(h.seg.id, h.slot+h.nblocks, kindData), epoch: e.epoch, ctr: e.ctr, tag: e.tag})
	return nil
}

// emit hands the open group to the host. When there is no room for it, the group stays
// open (and readable) and the next call tries again. Caller holds v.mu for writing.
func (v *Volume) emit() error {
	h := &v.head
	if len(h.entries) == 0 {
		return nil
	}
	if v.failed != nil {
		return v.failed
	}
	g := &h.g
	*g = group{flags: groupLog, seg: h.seg.id, slot: h.slot, nblocks: h.nblocks, num: h.group, flushed: v.flushed.Load(),
		epoch: v.cur.num, ctr: v.descCtr, next: h.next, prev: h.prev, entries: h.entries}
	v.descCtr++
	g.sealInto(v.cur.desc, v.vid, h.buf, h.scratch)
	b := h.buf[:(1+h.nblocks)*BlockSize]
	f, err := v.files.acquire(h.seg)
	if err != nil {
		return v.fail("open log segment", err)
	}
	v.markSegDirty(h.seg)
	_, err = f.WriteAt(b, int64(h.slot)*BlockSize)
	v.files.release(h.seg)
	if err != nil {
		if isNoSpace(err) {
			return fmt.Errorf("volume %s: write log: %w", v.id, ErrNoSpace)
		}
		return v.fail("write log", err)
	}
	h.slot += 1 + h.nblocks
	h.seg.used = h.slot
	h.prev = g.tag
	h.group++
	h.entries = h.entries[:0]
	h.nblocks = 0
	v.logBytes += int64(len(b))
	v.stats.logBytes.Add(uint64(len(b)))
	if v.logBytes >= v.opt.CheckpointBytes || v.dataCtr >= v.opt.epochBlocks {
		v.wake()
	}
	return nil
}

// WriteBuffered implements Batcher.
func (v *Volume) WriteBuffered(p []byte, off int64) error {
	if err := v.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	if v.opt.ReadOnly {
		return fmt.Errorf("volume %s: %w", v.id, ErrReadOnly)
	}
	v.stats.writeOps.Add(1)
	v.stats.writeBytes.Add(uint64(len(p)))
	v.mu.Lock()
	err := v.writeLocked(p, off)
	empty, pace := v.emptied, v.pace
	v.mu.Unlock()
	if pace > 0 {
		v.wait(pace * time.Duration(len(p)/BlockSize+1))
	}
	if err != nil && empty > 0 && errors.Is(err, ErrNoSpace) {
		// a checkpoint gives the dead segments back
		if v.checkpoint(0) == nil {
			v.mu.Lock()
			err = v.writeLocked(p, off)
			v.mu.Unlock()
		}
	}
	return err
}

func (v *Volume) writeLocked(p []byte, off int64) error {
	if err := v.usable(); err != nil {
		return err
	}
	var n *node
	for len(p) > 0 {
		lba := uint64(off) / BlockSize
		if n == nil || lba&(fanOut-1) == 0 {
			var err error
			if n, err = v.leaf(lba, true); err != nil {
				return err
			}
		}
		in := int(off % BlockSize)
		if in == 0 && len(p) >= BlockSize {
			if err := v.append(n, lba, p[:BlockSize]); err != nil {
				return err
			}
			p, off = p[BlockSize:], off+BlockSize
			continue
		}
		// part of a block: read, change, write
		k := min(BlockSize-in, len(p))
		rb := v.bufs.Get().(*readBuf)
		blk := rb.edge[:]
		err := v.readEntry(rb, n.ent[lba&(fanOut-1)], lba, blk)
		if err == nil {
			copy(blk[in:], p[:k])
			err = v.append(n, lba, blk)
		}
		clear(blk)
		v.bufs.Put(rb)
		if err != nil {
			return err
		}
		p, off = p[k:], off+int64(k)
	}
	return nil
}

// Push implements Batcher.
func (v *Volume) Push() error {
	if v.opt.ReadOnly {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(); err != nil {
		return err
	}
	return v.emit()
}

// WriteAt implements Device.
func (v *Volume) WriteAt(p []byte, off int64) (int, error) {
	if err := v.WriteBuffered(p, off); err != nil {
		return 0, err
	}
	if err := v.Push(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush implements Device. Concurrent callers share one sync.
func (v *Volume) Flush() error {
	v.stats.flushes.Add(1)
	v.mu.Lock()
	if err := v.usable(); err != nil {
		v.mu.Unlock()
		return err
	}
	if v.opt.ReadOnly {
		v.mu.Unlock()
		return nil
	}
	if err := v.emit(); err != nil {
		v.mu.Unlock()
		return err
	}
	v.zeroAhead()
	target := v.head.group - 1
	v.mu.Unlock()
	if v.opt.FlushCheckpoints {
		v.ckptMu.Lock()
		defer v.ckptMu.Unlock()
		if v.ckpted >= target { // by a checkpoint that another caller waited for
			return v.Err()
		}
		return v.checkpointLocked(0)
	}
	return v.syncTo(target)
}

// zeroAhead prepares for a client that flushes after every few writes. The first write to a place that was only preallocated
// changes the file's metadata, which costs the sync behind it a commit of the file system's journal; zeros ahead of
// the log make that one commit for many flushes. Caller holds v.mu for writing.
func (v *Volume) zeroAhead() {
	const ahead = uint32(len(zeros) / BlockSize * 4)
	h := &v.head
	if h.seg == nil {
		return
	}
	few := h.slot > h.asked && h.slot-h.asked <= ahead/4
	h.asked = h.slot
	if !few || h.slot < h.zeroed {
		return
	}
	f, err := v.files.acquire(h.seg)
	if err != nil {
		return // whoever needs the file will say so
	}
	defer v.files.release(h.seg)
	v.markSegDirty(h.seg)
	end := min(h.slot+ahead, h.seg.slots)
	for at := h.slot; at < end; {
		n := min(end-at, uint32(len(zeros)/BlockSize))
		if _, err := f.WriteAt(zeros[:n*BlockSize], int64(at)*BlockSize); err != nil {
			return // nothing rests on it
		}
		at += n
		v.stats.logBytes.Add(uint64(n) * BlockSize)
	}
	h.zeroed = end
}

// syncTo makes all log groups up to target, and whatever else was written, durable.
func (v *Volume) syncTo(target uint64) error {
	v.syncMu.Lock()
	defer v.syncMu.Unlock()
	if v.synced >= target {
		v.mu.RLock()
		defer v.mu.RUnlock()
		return v.failed
	}
	return v.syncLocked()
}

// syncLocked syncs everything. Caller holds syncMu.
func (v *Volume) syncLocked() error {
	v.mu.Lock()
	if v.failed != nil {
		v.mu.Unlock()
		return v.failed
	}
	var list []*segment
	var files []File
	release := func() {
		for _, s := range list {
			v.files.release(s)
		}
	}
	for _, s := range v.dirtyList {
		f, err := v.files.acquire(s)
		if err != nil {
			release()
			err = v.fail("open segment to sync", err)
			v.mu.Unlock()
			return err
		}
		list, files = append(list, s), append(files, f)
		s.dirty = false
	}
	v.dirtyList = nil
	dir := v.dirDirt
	v.dirDirt = false
	upto := v.head.group - 1
	v.mu.Unlock()

	var err error
	for i, f := range files {
		if err = f.Sync(); err != nil {
			err = fmt.Errorf("segment %x: %w", list[i].id, err)
			break
		}
	}
	if err == nil && dir {
		err = v.fs.SyncDir()
	}
	release()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		return v.fail("sync", err)
	}
	for _, s := range list {
		v.unref(s)
	}
	v.synced = upto
	v.flushed.Store(upto)
	return nil
}

// Discard implements Device.
func (v *Volume) Discard(off, n int64) error {
	if err := v.checkRange(off, n); err != nil {
		return err
	}
	from, to := uint64(off+BlockSize-1)/BlockSize, uint64(off+n)/BlockSize
	if from >= to {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.zeroLocked(from, to); err != nil {
		return err
	}
	return v.emit()
}

// zeroLocked records that blocks [from, to) are zeros. Caller holds v.mu for writing.
func (v *Volume) zeroLocked(from, to uint64) error {
	if v.opt.ReadOnly {
		return fmt.Errorf("volume %s: %w", v.id, ErrReadOnly)
	}
	if err := v.usable(); err != nil {
		return err
	}
	for lba := from; lba < to; {
		if !v.baseCovers(lba) {
			n, skip, err := v.leafOrSkip(lba)
			if err != nil {
				return err
			}
			if n == nil {
				lba = skip // already a hole
				continue
			}
		}
		run := min(to-lba, maxRun)
		if err := v.room(false); err != nil {
			return err
		}
		if err := v.clearRange(lba, lba+run); err != nil {
			return err
		}
		v.head.entries = append(v.head.entries, groupEntry{addr: lba, kind: kindZero, run: uint32(run)})
		lba += run
	}
	if v.manyEmptied() {
		v.wake()
	}
	return nil
}

// emptyEnough bytes of dead segments are worth a checkpoint of their own.
const emptyEnough = 128 << 20

// manyEmptied says that there are as many. Caller holds v.mu.
func (v *Volume) manyEmptied() bool {
	return int64(v.emptied)*int64(v.segSlots)*BlockSize >= emptyEnough
}

// WriteZeroes implements Device.
func (v *Volume) WriteZeroes(off, n int64, noHole bool) error {
	if err := v.checkRange(off, n); err != nil {
		return err
	}
	if v.opt.ReadOnly {
		return fmt.Errorf("volume %s: %w", v.id, ErrReadOnly)
	}
	end := off + n
	from, to := (off+BlockSize-1)/BlockSize*BlockSize, end/BlockSize*BlockSize
	if from >= to || noHole {
		from, to = end, end
	}
	write := func(off, end int64) error {
		for off < end {
			k := min(end-off, int64(len(zeros)))
			if err := v.WriteBuffered(zeros[:k], off); err != nil {
				return err
			}
			off += k
		}
		return nil
	}
	if err := write(off, from); err != nil {
		return err
	}
	if from < to {
		v.mu.Lock()
		err := v.zeroLocked(uint64(from)/BlockSize, uint64(to)/BlockSize)
		v.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if err := write(to, end); err != nil {
		return err
	}
	return v.Push()
}

var zeros [64 << 10]byte

func (v *Volume) wake() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

func (v *Volume) startBackground() {
	if v.opt.CheckpointInterval < 0 {
		return
	}
	v.bg.Add(2)
	go func() {
		defer v.bg.Done()
		for {
			select {
			case <-v.stop:
				return
			case id := <-v.ahead:
				v.files.prepare(id, int64(v.segSlots)*BlockSize)
			}
		}
	}()
	go func() {
		defer v.bg.Done()
		t := time.NewTicker(v.opt.CheckpointInterval)
		defer t.Stop()
		for {
			timed := false
			select {
			case <-v.stop:
				return
			case <-v.kick:
			case <-t.C:
				timed = true
			}
			v.background(timed)
		}
	}()
}

func (v *Volume) stopBackground() {
	select {
	case <-v.stop:
	default:
		close(v.stop)
	}
	v.bg.Wait()
}

// background does what is due: a checkpoint, then compaction.
func (v *Volume) background(timed bool) {
	v.mu.RLock()
	need := v.logBytes >= v.opt.CheckpointBytes || v.dataCtr >= v.opt.epochBlocks || v.manyEmptied() ||
		len(v.dirty[0]) >= v.opt.MapCachePages ||
		(v.behind && v.logBytes >= emptyEnough) || // what is not synced yet cannot be compacted
		(timed && (v.logBytes > 0 || v.emptied > 0))
	bad := v.failed != nil || v.closed
	v.mu.RUnlock()
	if bad {
		return
	}
	if timed && !need {
		if err := v.files.shrink(0); err != nil { // nobody writes
			v.log.Warn("dead segments stay until the next open", "err", err)
		}
	}
	if need {
		if err := v.checkpoint(0); err != nil {
			v.log.Warn("checkpoint did not succeed; it is tried again", "err", err)
			return
		}
	}
	v.compact(v.kick)
}
