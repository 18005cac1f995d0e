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
	stale  uint32 // slots that were written in the file before it was this segment's
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

	ahead struct { // for segments to come
		sync.Mutex
		id    uint64
		f     File // of segment id, nil: not made yet
		stale uint32
		last  uint64 // segment of the log that was created last
		free  []freeFile
	}
}

// acquire returns the file of s; release must follow. A file that is being written is
// held open by its writer, so that a failed sync is reported to it; what is opened here is only read.
func (c *segFiles) acquire(s *segment) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.f == nil {
		if s.removed { // the file may be another segment's soon
			return nil, fmt.Errorf("open segment %x: %w", s.id, fs.ErrNotExist)
		}
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
	f, stale := c.ahead.f, c.ahead.stale
	var err error
	if s.kind == groupLog {
		c.ahead.last = s.id
	}
	if f != nil && c.ahead.id == s.id {
		c.ahead.f = nil
	} else {
		f, stale, err = c.make(s.id, size)
	}
	c.ahead.Unlock()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.add(s, f)
	s.refs++
	s.wref, s.stale = true, stale
	c.mu.Unlock()
	return nil
}

// make makes a file, or takes one that a dead segment has left. stale is how many slots were written in it before. Caller holds ahead.
func (c *segFiles) make(id uint64, size int64) (f File, stale uint32, err error) {
	for n := len(c.ahead.free); n > 0; n = len(c.ahead.free) {
		old := c.ahead.free[n-1]
		c.ahead.free = c.ahead.free[:n-1]
		if old.size == size {
			if f, err := c.fs.Reuse(segName(old.id), segName(id)); err == nil {
				return f, old.used, nil
			}
		}
		if err := c.fs.Remove(segName(old.id)); err != nil && !isNotExist(err) {
			return nil, 0, fmt.Errorf("remove segment %x: %w", old.id, err)
		}
	}
	f, err = c.fs.Create(segName(id))
	if err == nil {
		if err = f.Allocate(size); err != nil {
			f.Close()
			_ = c.fs.Remove(segName(id))
		}
	}
	switch {
	case err == nil:
		return f, 0, nil
	case isNoSpace(err):
		return nil, 0, fmt.Errorf("allocate segment %x (%d bytes): %w", id, size, ErrNoSpace)
	}
	return nil, 0, fmt.Errorf("allocate segment %x: %w", id, err)
}

// freeFile is the file of a dead segment, all of which is allocated. It keeps its name until it is used.
type freeFile struct {
	id   uint64
	size int64
	used uint32
}

// retire is remove, but keeps the file for a segment to come. It says whether it could.
func (c *segFiles) retire(s *segment, size int64) bool {
	c.mu.Lock()
	idle := s.refs == 0
	if idle {
		s.removed = true
		c.drop(s)
	}
	c.mu.Unlock()
	if idle {
		c.ahead.Lock()
		c.ahead.free = append(c.ahead.free, freeFile{s.id, size, s.used})
		c.ahead.Unlock()
	}
	return idle
}

func (c *segFiles) kept() int {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	return len(c.ahead.free)
}

// shrink removes kept files but for the last n.
func (c *segFiles) shrink(n int) error {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	for len(c.ahead.free) > n {
		if err := c.fs.Remove(segName(c.ahead.free[0].id)); err != nil && !isNotExist(err) {
			return fmt.Errorf("remove segment %x: %w", c.ahead.free[0].id, err)
		}
		c.ahead.free = c.ahead.free[1:]
	}
	return nil
}

// prepare makes the file of the segment that the log goes on in, so that nobody has to wait for it. Best effort: when it fails, create
// tries again.
func (c *segFiles) prepare(id uint64, size int64) {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	if c.ahead.f != nil || id <= c.ahead.last { // or the log was quicker
		return
	}
	if f, stale, err := c.make(id, size); err == nil {
		c.ahead.id, c.ahead.f, c.ahead.stale = id, f, stale
	}
}

// unprepare gives up what was prepared, if anything was; remove: and its file, which else the next opening removes.
func (c *segFiles) unprepare(remove bool) bool {
	c.ahead.Lock()
	defer c.ahead.Unlock()
	if c.ahead.f == nil {
		return false
	}
	c.ahead.f.Close()
	c.ahead.f = nil
	if remove {
		_ = c.fs.Remove(segName(c.ahead.id))
	}
	return true
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
