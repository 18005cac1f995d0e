package vhostuser

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/block"
)

// memDevice is a small disk in memory that checks what it is asked for.
type memDevice struct {
	t *testing.T
	b []byte
}

func (d *memDevice) at(n int, off int64) []byte {
	if off < 0 || off > int64(len(d.b)) || int64(n) > int64(len(d.b))-off {
		d.t.Fatalf("%d bytes at %d of %d reached the device", n, off, len(d.b))
	}
	return d.b[off : off+int64(n)]
}
func (d *memDevice) Size() int64                                           { return int64(len(d.b)) }
func (d *memDevice) ReadAt(p []byte, off int64) (int, error)               { return copy(p, d.at(len(p), off)), nil }
func (d *memDevice) WriteAt(p []byte, off int64) (int, error)              { return copy(d.at(len(p), off), p), nil }
func (d *memDevice) Flush() error                                          { return nil }
func (d *memDevice) Discard(off, n int64) error                            { clear(d.at(int(n), off)); return nil }
func (d *memDevice) WriteZeroes(off, n int64, noHole bool) error           { return d.Discard(off, n) }
func (d *memDevice) Close() error                                          { return nil }
func (d *memDevice) BlockStatus(_, _ int64, _ int) ([]block.Extent, error) { return nil, nil }

// fuzzMemory is guest memory between two pages that must not be touched.
func fuzzMemory(t testing.TB, n int) []byte {
	const page = 4096
	b, err := unix.Mmap(-1, 0, n+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	for _, guard := range [][]byte{b[:page], b[page+n:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return b[page : page+n : page+n]
}

// FuzzQueue works rings of arbitrary content. Whatever they say, nothing outside of guest memory and of the device is touched,
// and it ends.
func FuzzQueue(f *testing.F) {
	const n = 16 << 10
	valid := make([]byte, 512)
	le.PutUint64(valid, 0x10000+0x400) // header
	le.PutUint32(valid[8:], 16)
	le.PutUint16(valid[12:], descNext)
	le.PutUint16(valid[14:], 1)
	le.PutUint64(valid[16:], 0x10000+0x1000) // data
	le.PutUint32(valid[24:], 4096)
	le.PutUint16(valid[28:], descNext|descWrite)
	le.PutUint16(valid[30:], 2)
	le.PutUint64(valid[32:], 0x10000+0x410) // status
	le.PutUint32(valid[40:], 1)
	le.PutUint16(valid[44:], descWrite)
	le.PutUint16(valid[256+2:], 1) // one available: 0
	f.Add(valid, true)
	loop := append([]byte(nil), valid...)
	le.PutUint16(loop[30:], 0)
	f.Add(loop, false)
	indirect := append([]byte(nil), valid...)
	le.PutUint64(indirect, 0x10000+16)
	le.PutUint32(indirect[8:], 32)
	le.PutUint16(indirect[12:], descIndirect)
	f.Add(indirect, true)
	mem := fuzzMemory(f, n)
	f.Fuzz(func(t *testing.T, content []byte, tracked bool) {
		clear(mem)
		copy(mem, content)
		k := newConn(&Server{Device: &memDevice{t, make([]byte, 64<<10)}}, nil)
		k.dev = k.s.Device
		k.features = version1 | ringIndirect | ringEventIdx
		user := uint64(uintptr(unsafe.Pointer(&mem[0])))
		k.mem = memory{{guest: 0x10000, user: user, data: mem}}
		q := &k.queues[0]
		q.num, q.desc, q.avail, q.used = 16, user, user+256, user+512
		if tracked {
			k.inflight, k.tracked, k.perQueue = make([]byte, inflightSize(16)), 1, inflightSize(16)
		}
		if err := q.open(); err != nil {
			t.Fatal(err)
		}
		_ = q.work()
		q.flushes.Wait()
	})
}

// FuzzMessage handles sequences of messages: length u8 and request u8, then the payload.
func FuzzMessage(f *testing.F) {
	f.Add([]byte{8, setFeatures, 0, 0, 0, 0, 1, 0, 0, 0, 0, getFeatures})
	f.Add([]byte{8, setVringNum, 0, 0, 0, 0, 16, 0, 0, 0, 8, setVringEnable, 0, 0, 0, 0, 1, 0, 0, 0})
	f.Add([]byte{24, getInflightFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 128, 0, 0, 0, 0, 0})
	f.Add([]byte{20, getConfig, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		k := newConn(&Server{Device: &memDevice{t, make([]byte, 64<<10)}}, nil)
		k.dev = k.s.Device
		defer k.close()
		for len(b) >= 2 {
			n := min(int(b[0]), len(b)-2)
			m := &message{header: header{request: uint32(b[1]), flags: flagVersion | flagNeedReply, size: uint32(n)}, payload: b[2 : 2+n]}
			b = b[2+n:]
			_, fd, err := k.handle(m)
			if fd >= 0 {
				unix.Close(fd)
			}
			if err != nil {
				return
			}
		}
	})
}
