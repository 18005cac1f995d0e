// Package blocktest tests block devices and volume formats the way storage is trusted:
// a file system in memory that can be cut at any operation, with unsynced writes torn,
// dropped and reordered, and that can run full or fail on demand.
package blocktest

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/sealdesk/sealdesk/internal/block"
)

// Sector is the unit that a torn write keeps or loses as a whole.
const Sector = 512

// MemFS is a block.FS in memory. It knows what a power cut would leave.
//
// Its disk is pessimistic: a write is durable only after its file's Sync, a creation
// or removal only after SyncDir; before that each may or may not have happened,
// in any combination.
type MemFS struct {
	mu       sync.Mutex
	names    map[string]*inode // as the process sees it
	durable  map[string]*inode // as of the last SyncDir
	dirOps   []dirOp
	locked   bool
	ops      int
	capacity int64 // bytes; 0: unlimited

	// Hook, when set, is called before each operation that changes something, with its
	// number and description. It may call Crash and Kill. Its error fails the operation.
	Hook func(n int, op string) error
	// FailAfter makes the hook's error come after the operation took effect.
	FailAfter func(n int, op string) error
	// Short, if set, is asked before each write of size bytes: with an error only the first of them are written.
	Short func(op string, size int) (written int, err error)
	// Lie has Sync and SyncDir answer success and make nothing durable.
	Lie bool
}

type inode struct {
	data    []byte
	synced  []byte
	pending []change
	alloc   int64
}

type change struct {
	off  int64
	data []byte
	trim bool // truncate to off
}

type dirOp struct {
	name   string
	ino    *inode
	remove bool
}

// NewMemFS makes an empty one.
func NewMemFS() *MemFS {
	return &MemFS{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// SetCapacity bounds the bytes that all files together may allocate; 0: no bound.
func (m *MemFS) SetCapacity(n int64) {
	m.mu.Lock()
	m.capacity = n
	m.mu.Unlock()
}

// Used is the bytes allocated.
func (m *MemFS) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used()
}

func (m *MemFS) used() (n int64) {
	for _, i := range m.names {
		n += max(i.alloc, int64(len(i.data)))
	}
	return n
}

// Ops is the number of changing operations so far.
func (m *MemFS) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// change runs one operation with its hooks. The lock is not held during the hooks.
func (m *MemFS) change(op string, do func() error) error {
	m.mu.Lock()
	m.ops++
	n, hook, after := m.ops, m.Hook, m.FailAfter
	m.mu.Unlock()
	if hook != nil {
		if err := hook(n, op); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := do()
	m.mu.Unlock()
	if err == nil && after != nil {
		err = after(n, op)
	}
	return err
}

// Kill is what a new process finds after this one was killed: everything that was written.
func (m *MemFS) Kill() *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &MemFS{names: map[string]*inode{}, durable: map[string]*inode{}, dirOps: slices.Clone(m.dirOps), capacity: m.capacity}
	twin := map[*inode]*inode{}
	of := func(i *inode) *inode {
		if i == nil {
			return nil
		}
		if twin[i] == nil {
			twin[i] = &inode{data: slices.Clone(i.data), synced: slices.Clone(i.synced), pending: slices.Clone(i.pending), alloc: i.alloc}
		}
		return twin[i]
	}
	for n, i := range m.names {
		c.names[n] = of(i)
	}
	for n, i := range m.durable {
		c.durable[n] = of(i)
	}
	for k := range c.dirOps {
		c.dirOps[k].ino = of(c.dirOps[k].ino)
	}
	return c
}

// Crash is what is found after a power cut: what was synced, and of the rest an
// arbitrary part, chosen by r.
func (m *MemFS) Crash(r *rand.Rand) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemFS()
	c.capacity = m.capacity
	dir := maps.Clone(m.durable)
	keep := r.IntN(4) // 0: nothing unsynced survives, 1: all, 2: a prefix, 3: any subset
	cut := 0
	if len(m.dirOps) > 0 {
		cut = r.IntN(len(m.dirOps) + 1)
	}
	for k, op := range m.dirOps {
		if keep == 0 || (keep == 2 && k >= cut) || (keep == 3 && r.IntN(2) == 0) {
			continue
		}
		if op.remove {
			delete(dir, op.name)
		} else {
			dir[op.name] = op.ino
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dir)) {
		b := crashed(dir[name], r)
		i := &inode{data: b, synced: slices.Clone(b)}
		c.names[name], c.durable[name] = i, i
	}
	return c
}

// crashed is the content of a file after a power cut.
func crashed(i *inode, r *rand.Rand) []byte {
	b := slices.Clone(i.synced)
	keep := r.IntN(5) // none, all, prefix with a torn end, any subset, subset torn by sectors
	cut := 0
	if len(i.pending) > 0 {
		cut = r.IntN(len(i.pending) + 1)
	}
	for k, w := range i.pending {
		switch {
		case keep == 0 || (keep == 2 && k > cut):
			continue
		case keep >= 3 && r.IntN(2) == 0:
			continue
		}
		if w.trim {
			b = resize(b, w.off)
			continue
		}
		torn := keep == 4 || (keep == 2 && k == cut)
		// a torn write keeps any sectors, the first ones, or all but one
		how, mark := r.IntN(3), r.IntN(len(w.data)/Sector+1)
		for at := 0; at < len(w.data); {
			n := min(Sector-int((w.off+int64(at))%Sector), len(w.data)-at)
			if !torn || (how == 0 && r.IntN(2) == 0) || (how == 1 && at/Sector < mark) || (how == 2 && at/Sector != mark) {
				end := w.off + int64(at+n)
				if int64(len(b)) < end {
					b = resize(b, end)
				}
				copy(b[w.off+int64(at):end], w.data[at:at+n])
			}
			at += n
		}
	}
	return b
}

func resize(b []byte, n int64) []byte {
	if int64(len(b)) >= n {
		return b[:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

// Bytes returns a file's content for tampering; nil when there is none.
func (m *MemFS) Bytes(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.names[name]; i != nil {
		return i.data
	}
	return nil
}

// Put sets a file's content, durably.
func (m *MemFS) Put(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := &inode{data: slices.Clone(b), synced: slices.Clone(b)}
	m.names[name], m.durable[name] = i, i
}

// Names lists the files, sorted.
func (m *MemFS) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.names))
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Create implements block.FS.
func (m *MemFS) Create(name string) (block.File, error) {
	var f *memFile
	err := m.change("create "+name, func() error {
		if m.names[name] != nil {
			return &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
		}
		i := &inode{}
		m.names[name] = i
		m.dirOps = append(m.dirOps, dirOp{name: name, ino: i})
		f = &memFile{m: m, i: i, name: name, writable: true}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open implements block.FS.
func (m *MemFS) Open(name string, writable bool) (block.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.names[name]
	if i == nil {
		return nil, notExist("open", name)
	}
	return &memFile{m: m, i: i, name: name, writable: writable}, nil
}

// Remove implements block.FS.
func (m *MemFS) Remove(name string) error {
	m.mu.Lock()
	missing := m.names[name] == nil
	m.mu.Unlock()
	if missing {
		return notExist("remove", name)
	}
	return m.change("remove "+name, func() error {
		m.dirOps = append(m.dirOps, dirOp{name: name, remove: true})
		delete(m.names, name)
		return nil
	})
}

// Reuse implements block.FS.
func (m *MemFS) Reuse(name, as string) (block.File, error) {
	var f *memFile
	err := m.change("reuse "+name+" as "+as, func() error {
		i := m.names[name]
		if i == nil {
			return notExist("reuse", name)
		}
		if m.names[as] != nil {
			return &fs.PathError{Op: "reuse", Path: as, Err: fs.ErrExist}
		}
		m.names[as] = i
		delete(m.names, name)
		m.dirOps = append(m.dirOps, dirOp{name: as, ino: i}, dirOp{name: name, remove: true})
		f = &memFile{m: m, i: i, name: as, writable: true}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// List implements block.FS.
func (m *MemFS) List() ([]string, error) { return m.Names(), nil }

// SyncDir implements block.FS.
func (m *MemFS) SyncDir() error {
	return m.change("syncdir", func() error {
		if m.Lie {
			return nil
		}
		m.durable = maps.Clone(m.names)
		m.dirOps = nil
		return nil
	})
}

// Lock implements block.FS.
func (m *MemFS) Lock() (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, block.ErrBusy
	}
	m.locked = true
	return func() {
		m.mu.Lock()
		m.locked = false
		m.mu.Unlock()
	}, nil
}

// LinkTo implements block.FS: links are not supported in memory.
func (m *MemFS) LinkTo(name, dst string) error { return syscall.ENOTSUP }

type memFile struct {
	m        *MemFS
	i        *inode
	name     string
	writable bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.i.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.i.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.m.change(fmt.Sprintf("write %s %d+%d", f.name, off, len(p)), func() error {
		if !f.writable {
			return syscall.EBADF
		}
		end := off + int64(len(p))
		if grow := end - max(f.i.alloc, int64(len(f.i.data))); grow > 0 && f.m.capacity > 0 && f.m.used()+grow > f.m.capacity {
			return syscall.ENOSPC
		}
		var err error
		if f.m.Short != nil {
			var n int
			if n, err = f.m.Short(f.name, len(p)); err != nil {
				p = p[:n]
			}
		}
		f.i.data = resize(f.i.data, max(off+int64(len(p)), int64(len(f.i.data))))
		copy(f.i.data[off:], p)
		f.i.pending = append(f.i.pending, change{off: off, data: slices.Clone(p)})
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	return f.m.change("sync "+f.name, func() error {
		if f.m.Lie {
			return nil
		}
		f.i.synced = slices.Clone(f.i.data)
		f.i.pending = nil
		return nil
	})
}

func (f *memFile) Truncate(size int64) error {
	return f.m.change(fmt.Sprintf("truncate %s %d", f.name, size), func() error {
		f.i.data = resize(f.i.data, size)
		f.i.alloc = min(f.i.alloc, size)
		f.i.pending = append(f.i.pending, change{off: size, trim: true})
		return nil
	})
}

func (f *memFile) Allocate(size int64) error {
	return f.m.change(fmt.Sprintf("allocate %s %d", f.name, size), func() error {
		if grow := size - max(f.i.alloc, int64(len(f.i.data))); grow > 0 && f.m.capacity > 0 && f.m.used()+grow > f.m.capacity {
			return syscall.ENOSPC
		}
		f.i.alloc = size
		if int64(len(f.i.data)) < size {
			f.i.data = resize(f.i.data, size)
			f.i.pending = append(f.i.pending, change{off: size, trim: true})
		}
		return nil
	})
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.i.data)), nil
}

func (f *memFile) Close() error { return nil }
