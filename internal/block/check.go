package block

import (
	"context"
	"errors"
	"fmt"
)

// Damage is what Check found.
type Damage struct {
	Off, Len int64 // bytes of the volume that cannot be read
	Err      error
}

// Check reads and authenticates every allocated block and reports what is damaged,
// block by block. The rest of the volume stays usable. The error is nil when all could be looked at.
func (v *Volume) Check(ctx context.Context, report func(Damage)) error {
	buf := make([]byte, readChunk*BlockSize)
	size := v.Size()
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), size-off)
		_, err := v.ReadAt(buf[:n], off)
		switch {
		case errors.Is(err, ErrCorrupt):
			for o := off; o < off+n; o += BlockSize {
				if _, err := v.ReadAt(buf[:BlockSize], o); errors.Is(err, ErrCorrupt) {
					report(Damage{o, BlockSize, err})
				} else if err != nil {
					return err
				}
			}
		case err != nil:
			return err
		}
		off += n
	}
	clear(buf)
	return nil
}

// CheckDevice is Check for a device of which only reading is known: one behind NBD, for instance. It reads what is allocated;
// read is told how much. A part that cannot be read is reported block by block.
func CheckDevice(ctx context.Context, d Device, read func(n int64), report func(Damage)) error {
	const step = 1 << 20
	buf := make([]byte, step)
	for off, size := int64(0), d.Size(); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		es, err := d.BlockStatus(off, min(1<<30, size-off), 256)
		if err != nil {
			// a damaged map page: what it maps is found block by block
			es = []Extent{{Off: off, Len: min(baseChunk-off%baseChunk, size-off)}}
		}
		for _, e := range es {
			off = e.Off + e.Len
			for at := e.Off; at < off && !e.Hole; {
				if err := ctx.Err(); err != nil {
					return err
				}
				n := min(step, off-at)
				if _, err := d.ReadAt(buf[:n], at); err != nil {
					if c, ok := d.(interface{ Err() error }); ok && c.Err() != nil {
						return c.Err() // the way to the device is gone
					}
					for o := at; o < at+n; o += BlockSize {
						k := min(BlockSize, at+n-o)
						if _, err := d.ReadAt(buf[:k], o); err != nil {
							report(Damage{o, k, err})
						}
					}
				}
				read(n)
				at += n
			}
		}
	}
	return nil
}

// Verify compares the live counts of segments and epochs with the map: they decide
// what is removed. It reads the whole map; progress may be nil.
func (v *Volume) Verify(progress func()) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(); err != nil {
		return err
	}
	segs := map[uint64]int64{}
	epochs := map[uint32]int64{}
	count := func(e *entry) {
		if e.isData() {
			segs[e.loc.seg()]++
			epochs[e.epoch]++
		}
	}
	var walk func(n *node) error
	walk = func(n *node) error {
		if progress != nil {
			progress()
		}
		for i := range n.ent {
			count(&n.ent[i])
			if n.level == 0 {
				continue
			}
			k := n.kids[i]
			if k == nil && n.ent[i].loc != 0 {
				var err error
				if k, err = v.loadPage(n, i); err != nil {
					return err
				}
			}
			if k != nil {
				if err := walk(k); err != nil {
					return err
				}
			}
		}
		return nil
	}
	count(&v.rootLoc)
	if err := walk(v.root); err != nil {
		return err
	}
	for id, n := range segs {
		if v.segs[id] == nil {
			return fmt.Errorf("volume %s: the map reaches %d slots of segment %x, which is not in the table", v.id, n, id)
		}
	}
	for id, s := range v.segs {
		if s.live != segs[id] {
			return fmt.Errorf("volume %s: segment %x counts %d live slots, the map reaches %d", v.id, id, s.live, segs[id])
		}
	}
	for num, e := range v.epochMap() {
		if e.live != epochs[num] {
			return fmt.Errorf("volume %s: epoch %d counts %d live entries, the map has %d", v.id, num, e.live, epochs[num])
		}
	}
	return nil
}
