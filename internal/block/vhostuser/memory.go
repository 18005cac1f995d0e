package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// region is a piece of guest memory mapped here.
type region struct {
	guest, user uint64 // where the guest, and where the front end, sees it
	data        []byte
	mapping     []byte // what to unmap
}

// memory is the guest's memory table.
type memory []region

// mapShared maps a memfd from its beginning. One that could shrink is refused: touching what is gone would end this process.
func mapShared(fd int, size uint64) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("%w: shared memory must be a memfd sealed against shrinking (memory-backend-memfd,share=on)", errMessage)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if size == 0 || size > 1<<46 || uint64(st.Size) < size {
		return nil, fmt.Errorf("%w: %d bytes of a shared memory of %d", errMessage, size, st.Size)
	}
	b, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	_ = unix.Munlock(b) // it is the guest's, not ours to hold in RAM
	return b, nil
}

// newMemory maps what a SET_MEM_TABLE message names.
func newMemory(p []byte, fds []int) (memory, error) {
	if len(p) < 8 {
		return nil, fmt.Errorf("%w: memory table of %d bytes", errMessage, len(p))
	}
	n := int(le.Uint32(p))
	p = p[8:]
	if n == 0 || n > maxFDs || n != len(fds) || len(p) != 32*n {
		return nil, fmt.Errorf("%w: memory table of %d regions, %d bytes, %d descriptors", errMessage, n, len(p), len(fds))
	}
	var m memory
	for i := range n {
		guest, size, user, off := le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
		p = p[32:]
		if size == 0 || size > 1<<45 || off > 1<<45 || guest+size < guest || user+size < user {
			m.unmap()
			return nil, fmt.Errorf("%w: memory region of %d bytes at %#x", errMessage, size, guest)
		}
		b, err := mapShared(fds[i], off+size)
		if err != nil {
			m.unmap()
			return nil, err
		}
		m = append(m, region{guest: guest, user: user, data: b[off:], mapping: b})
	}
	return m, nil
}

func (m memory) unmap() {
	for _, r := range m {
		_ = unix.Munmap(r.mapping)
	}
}

// guest returns n bytes at a guest address, from one region; it may return fewer, never none.
func (m memory) guestAt(addr, n uint64) []byte {
	for i := range m {
		r := &m[i]
		if addr >= r.guest && addr-r.guest < uint64(len(r.data)) {
			at := addr - r.guest
			return r.data[at : at+min(n, uint64(len(r.data))-at)]
		}
	}
	return nil
}

// userAt returns all n bytes at an address of the front end.
func (m memory) userAt(addr, n uint64) []byte {
	for i := range m {
		r := &m[i]
		if at := addr - r.user; addr >= r.user && at < uint64(len(r.data)) && n <= uint64(len(r.data))-at {
			return r.data[at : at+n]
		}
	}
	return nil
}
