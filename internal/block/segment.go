package block

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
)

// segment is one append-only file. live, used, kind and sealed are guarded by Volume.mu.
type segment struct {
	id     uint64
	kind   uint8
	live   int64  // slots that the map reaches
	used   uint32 // slots written (or, for side segments, reserved)
	slots  uint32 // reserved for it, while it is written
	sealed bool   // nothing will be appended any more
	dirty  bool   // written since the last sync: in Volume.dirtyList
	keep   bool   // not to be compacted: damaged
	moved  bool   // compaction is through with it: map pages that are alive in it follow with the next checkpoint
	wref   bool   // the writer's own reference: the file stays open until it is sealed and synced

	// guarded by segFiles.mu
	f       File
	refs    int
	touched bool
	removed bool
}

// segFiles opens segment files on demand and keeps at most max of them open.
type segFiles struct {
	fs  FS
	max int

	mu   sync.Mutex
	open []*segment // clock order
	hand int

	ahead struct { // the file of a segment to come
		sync.Mutex
		id uint64
		f  File
	}
}

// acquire returns the file of s; release must follow. A file that is being written is
// held open by its writer, so that a failed sync is reported to it; what is opened here is only read.
func (c *segFiles) acquire(s *segment) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.f == nil {
		f, err := c.fs.Open(segName(s.id), false)
		if err != nil {
			return nil, fmt.Errorf("open segment %x: %w", s.id, err)
		}
		c.add(s, f)
	}
	s.refs++
	s.touched = true
	return s.f, nil
}

func (c *segFiles) add(s *segment, f File) {
	s.f = f
	c.open = append(c.open, s)
	for tries := 2 * len(c.open); len(c.open) > c.max && tries > 0; tries-- {
		if c.hand >= len(c.open) {
			c.hand = 0
		}
		v := c.open[c.hand]
		switch {
		case v.refs > 0 || v == s:
			c.hand++
		case v.touched:
			v.touched = false
			c.hand++
		default:
			c.closeAt(c.hand)
		}
	}
}

func (c *segFiles) closeAt(i int) {
	v := c.open[i]
	_ = v.f.Close()
	v.f = nil
	c.open[i] = c.open[len(c.open)-1]
	c.open = c.open[:len(c.open)-1]
}

func (c *segFiles) release(s *segment) {
	c.mu.Lock()
	s.refs--
	if s.removed && s.refs == 0 {
		c.drop(s)
	}
	c.mu.Unlock()
}

func (c *segFiles) drop(s *segment) {
	for i, o := range c.open {
		if o == s {
			c.closeAt(i)
			return
		}
	}
}

// create makes the file of a new segment, with room for size bytes, or takes the one that is prepared, and takes the
// writer's reference.
func (c *segFiles) create(s *segment, size int64) error {
	c.ahead.Lock()
	f := c.ahead.f
	var err error
	if f != nil && c.ahead.id == s.id {
		c.ahead.f = nil
	} else {
		f, err = c.make(s.id, size)
	}
	c.ahead.Unlock()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.add(s, f)
	s.refs++
	s.wref = true
	c.mu.Unlock()
	return nil
}

func (c *segFiles) make(id uint64, size int64) (File, error) {
	f, err := c.fs.Create(segName(id))
	if err == nil {
		if err = f.Allocate(size); err != nil {
			f.Close()
			_ = c.fs.Remove(segName(id))
		}
	}
	switch {
	case err == nil:
		return f, nil
	case isNoSpace(err):
		return nil, fmt.Errorf("allocate segment %x (%d bytes): %w", id, size, ErrNoSpace)
	}
	return nil, fmt.Errorf("allocate segment %x: %w", id, err)
}

// prepare makes the file of the segment that the log goes on in, so that nobody has to wait for it. Best effort: when it fails, create
// tries again.
func (c *segFiles) prepare(id uint64, size int64) {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	if c.ahead.f != nil {
		return
	}
	if f, err := c.make(id, size); err == nil {
		c.ahead.id, c.ahead.f = id, f
	}
}

// unprepare gives up what was prepared; remove: and its file, which else the next opening removes.
func (c *segFiles) unprepare(remove bool) {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	if c.ahead.f == nil {
		return
	}
	c.ahead.f.Close()
	c.ahead.f = nil
	if remove {
		_ = c.fs.Remove(segName(c.ahead.id))
	}
}

// remove unlinks the segment; readers that hold it finish first.
func (c *segFiles) remove(s *segment) error {
	c.mu.Lock()
	s.removed = true
	if s.refs == 0 && s.f != nil {
		c.drop(s)
	}
	c.mu.Unlock()
	if err := c.fs.Remove(segName(s.id)); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove segment %x: %w", s.id, err)
	}
	return nil
}

// spareName is a preallocated file that is given up when the disk is full, so that a
// trim or a checkpoint (which give space back) can still be written.
const spareName = "spare"

func (c *segFiles) makeSpare(size int64) bool {
	f, err := c.fs.Create(spareName)
	if err != nil {
		return errors.Is(err, fs.ErrExist)
	}
	err = f.Allocate(size)
	f.Close()
	if err != nil {
		_ = c.fs.Remove(spareName)
	}
	return err == nil
}

func (c *segFiles) closeAll() {
	c.unprepare(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.open) > 0 {
		c.closeAt(len(c.open) - 1)
	}
}
