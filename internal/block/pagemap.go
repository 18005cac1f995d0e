package block

import (
	"fmt"
	"sync/atomic"
)

// The map is a radix tree of pages; a leaf maps 128 blocks (512 KiB). The root is
// always in memory, inner pages stay once loaded, clean leaves come and go.

type node struct {
	level int    // 0 = leaf
	index uint64 // first block it maps, shifted right by 7*(level+1)
	dirty bool
	used  atomic.Bool // clock bit
	ent   [fanOut]entry
	kids  []*node // level > 0
}

func newNode(level int, index uint64) *node {
	n := &node{level: level, index: index}
	if level > 0 {
		n.kids = make([]*node, fanOut)
	}
	return n
}

// errLoad tells a reader under the read lock that a page must be loaded under the write lock.
type errLoadType struct{}

func (errLoadType) Error() string { return "map page is not loaded" }

var errLoad error = errLoadType{}

// leafIfLoaded finds the leaf of lba. nil, nil means that the whole leaf is a hole.
// Caller holds v.mu (read or write).
func (v *Volume) leafIfLoaded(lba uint64) (*node, error) {
	n := v.root
	for n.level > 0 {
		i := lba >> (fanBits * n.level) & (fanOut - 1)
		k := n.kids[i]
		if k == nil {
			if n.ent[i].loc == 0 {
				return nil, nil
			}
			return nil, errLoad
		}
		n = k
	}
	return n, nil
}

// leaf finds the leaf of lba and loads pages as needed. With create, missing pages are
// made and the path is marked dirty. Caller holds v.mu for writing.
func (v *Volume) leaf(lba uint64, create bool) (*node, error) {
	n := v.root
	if create {
		v.markDirty(n)
	}
	for n.level > 0 {
		i := lba >> (fanBits * n.level) & (fanOut - 1)
		k := n.kids[i]
		if k == nil {
			if n.ent[i].loc != 0 {
				var err error
				if k, err = v.loadPage(n, int(i)); err != nil {
					return nil, err
				}
			} else {
				if !create {
					return nil, nil
				}
				k = newNode(n.level-1, n.index<<fanBits|i)
			}
			n.kids[i] = k
			if k.level == 0 {
				v.leaves = append(v.leaves, k)
			}
		}
		if create {
			v.markDirty(k)
		}
		n = k
	}
	n.used.Store(true)
	return n, nil
}

func (v *Volume) markDirty(n *node) {
	if !n.dirty {
		n.dirty = true
		v.dirty[n.level] = append(v.dirty[n.level], n)
		if n.level == 0 && len(v.dirty[0]) >= v.opt.MapCachePages && len(v.dirty[0])%256 == 0 {
			v.wake()
		}
	}
}

// loadPage reads and authenticates child i of n. Caller holds v.mu for writing.
func (v *Volume) loadPage(n *node, i int) (*node, error) {
	k := newNode(n.level-1, n.index<<fanBits|uint64(i))
	if err := v.readPage(k, &n.ent[i]); err != nil {
		return nil, err
	}
	return k, nil
}

func (v *Volume) readPage(k *node, e *entry) error {
	what := fmt.Sprintf("map page level %d index %d", k.level, k.index)
	ep := v.epochOf(e.epoch)
	if e.loc.kind() != kindPage || ep == nil {
		return v.corrupt(what+": impossible entry", nil)
	}
	buf := make([]byte, BlockSize+tagLen)
	if err := v.readSlots(e.loc.seg(), e.loc.slot(), buf[:BlockSize]); err != nil {
		return v.readErr(what, err)
	}
	copy(buf[BlockSize:], e.tag[:])
	var aad [32]byte
	var nonce [12]byte
	blockAAD(&aad, ep.origin, k.index, e.epoch, kindPage, k.level)
	putNonce(&nonce, uint64(e.ctr))
	p, err := ep.page.Open(buf[:0], nonce[:], buf, aad[:])
	if err != nil {
		return v.corrupt(what, nil)
	}
	want := uint8(kindPage)
	for i := range k.ent {
		k.ent[i] = getEntry(p[32*i:])
		if k.level == 0 {
			want = kindData
		}
		if kd := k.ent[i].loc.kind(); kd != kindNone && kd != want && !(k.level == 0 && kd == kindZero) {
			return v.corrupt(what+": impossible entry", nil)
		}
	}
	return nil
}

// setEntry replaces a map entry and keeps the live counts. Caller holds v.mu for writing.
func (v *Volume) setEntry(slot *entry, e entry) {
	if slot.isData() {
		v.addLive(slot, -1)
	}
	*slot = e
	if e.isData() {
		v.addLive(slot, 1)
	}
}

func (v *Volume) addLive(e *entry, d int64) {
	id := e.loc.seg()
	s := v.lastSeg
	if s == nil || s.id != id {
		if s = v.segs[id]; s == nil {
			return // a segment lost from the table: its blocks are reported corrupt when read
		}
		v.lastSeg = s
	}
	s.live += d
	if s.live == 0 && s.sealed {
		v.emptied++
	}
	if ep := v.epochOf(e.epoch); ep != nil {
		ep.live += d
	}
}

// clearRange makes [from, to) a hole (or, over a base that still matters, an explicit
// zero). Caller holds v.mu for writing.
func (v *Volume) clearRange(from, to uint64) error {
	for lba := from; lba < to; {
		end := min((lba|(fanOut-1))+1, to)
		if v.baseOverlaps(lba, end) {
			n, err := v.leaf(lba, true)
			if err != nil {
				return err
			}
			for ; lba < end; lba++ {
				e := entry{}
				if v.baseCovers(lba) {
					e.loc = makeLoc(0, 0, kindZero)
				}
				v.setEntry(&n.ent[lba&(fanOut-1)], e)
			}
			continue
		}
		n, skip, err := v.leafOrSkip(lba)
		if err != nil {
			return err
		}
		if n == nil {
			lba = min(skip, to)
			continue
		}
		if _, err := v.leaf(lba, true); err != nil { // mark the path dirty
			return err
		}
		for ; lba < end; lba++ {
			v.setEntry(&n.ent[lba&(fanOut-1)], entry{})
		}
	}
	return nil
}

// leafOrSkip finds the leaf of lba, or the first block after the hole around it.
func (v *Volume) leafOrSkip(lba uint64) (*node, uint64, error) {
	n := v.root
	for n.level > 0 {
		i := lba >> (fanBits * n.level) & (fanOut - 1)
		if n.kids[i] == nil {
			if n.ent[i].loc == 0 {
				span := uint64(1) << (fanBits * n.level)
				return nil, lba&^(span-1) + span, nil
			}
			k, err := v.loadPage(n, int(i))
			if err != nil {
				return nil, 0, err
			}
			n.kids[i] = k
			if k.level == 0 {
				v.leaves = append(v.leaves, k)
			}
		}
		n = n.kids[i]
	}
	n.used.Store(true)
	return n, 0, nil
}

// evict drops clean leaves above the cache limit. Caller holds v.mu for writing.
func (v *Volume) evict() {
	limit := v.opt.MapCachePages
	for tries := 2 * len(v.leaves); len(v.leaves) > limit && tries > 0; tries-- {
		if v.hand >= len(v.leaves) {
			v.hand = 0
		}
		l := v.leaves[v.hand]
		if l.dirty || l.used.Load() {
			l.used.Store(false)
			v.hand++
			continue
		}
		p := v.root
		for p.level > 1 {
			p = p.kids[l.index>>(fanBits*(p.level-1))&(fanOut-1)]
		}
		p.kids[l.index&(fanOut-1)] = nil
		v.leaves[v.hand] = v.leaves[len(v.leaves)-1]
		v.leaves[len(v.leaves)-1] = nil
		v.leaves = v.leaves[:len(v.leaves)-1]
	}
}
