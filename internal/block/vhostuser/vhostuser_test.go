package vhostuser

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

func key() *secret.Bytes { return secret.New(bytes.Repeat([]byte{7}, 64)) }

// volume makes and opens a volume of the given size.
func volume(t testing.TB, size int64) *block.Volume {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vol")
	if _, err := block.Create(dir, block.Options{VolumeID: "vol-1", SizeBytes: size, Key: key()}); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(dir, block.Options{Key: key()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// serve runs s on a socket until the test ends or stop is called.
func serve(t testing.TB, s *Server) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return serveAt(t, filepath.Join(dir, "s"), s)
}

func serveAt(t testing.TB, path string, s *Server) (_ string, stop func()) {
	t.Helper()
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return path, stop
}

func dial(t testing.TB, path string, queues, depth, max int) *Client {
	t.Helper()
	k, err := Dial(context.Background(), path, queues, depth, max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// Random requests on two queues at once, each with half of the disk, against a model.
func TestModel(t *testing.T) {
	const size, depth, max = 16 << 20, 16, 128 << 10
	v := volume(t, size)
	path, _ := serve(t, &Server{Device: v, Serial: "root"})
	k := dial(t, path, 2, depth, max)
	if k.Size() != size {
		t.Errorf("Size = %d, want %d", k.Size(), size)
	}
	model := make([]byte, size)
	var wg sync.WaitGroup
	for qi := range 2 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(qi), 1))
			q := k.Queue(qi)
			half := model[qi*size/2 : (qi+1)*size/2]
			for range 60 {
				// a batch of requests that do not overlap: one in each part of the half
				type req struct {
					typ    uint32
					off, n int
				}
				var reqs [depth]req
				part := len(half) / depth
				for s := range depth {
					r := req{typ: []uint32{Read, Write, Write, Discard, WriteZeroes, Flush}[rnd.IntN(6)]}
					r.n = (1 + rnd.IntN(max/512)) * 512
					r.off = s*part + rnd.IntN((part-r.n)/512)*512
					n := r.n
					d := q.Data(s)
					switch r.typ {
					case Write:
						for i := range d[:n] {
							d[i] = byte(rnd.Uint32())
						}
						copy(half[r.off:], d[:n])
					case Discard, WriteZeroes:
						r.off, r.n = r.off/4096*4096, (r.n+4095)/4096*4096
						if r.off+r.n > (s+1)*part {
							r.n -= 4096
						}
						le.PutUint64(d, uint64(qi*size/2+r.off)/512)
						le.PutUint32(d[8:], uint32(r.n/512))
						le.PutUint32(d[12:], 0)
						clear(half[r.off : r.off+r.n])
						n = 16
					case Flush:
						n = 0
					}
					reqs[s] = r
					q.Submit(s, r.typ, int64(qi*size/2+r.off), n)
				}
				q.Kick()
				for left := depth; left > 0; {
					cs, err := q.Reap(nil, true)
					if err != nil {
						t.Error(err)
						return
					}
					left -= len(cs)
					for _, c := range cs {
						r := reqs[c.Slot]
						if c.Status != 0 {
							t.Errorf("request %+v: status %d", r, c.Status)
						}
						if r.typ == Read && !bytes.Equal(q.Data(c.Slot)[:r.n], half[r.off:r.off+r.n]) {
							t.Errorf("queue %d: read of %d at %d differs from the model", qi, r.n, r.off)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, size)
	if _, err := v.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, model) {
		t.Error("the volume differs from the model")
	}
}

func TestRequests(t *testing.T) {
	v := volume(t, 1<<20)
	path, _ := serve(t, &Server{Device: v, Serial: "root"})
	q := dial(t, path, 1, 4, 8192).Queue(0)
	id := make([]byte, 20)
	if err := q.Do(GetID, 0, id); err != nil || string(bytes.TrimRight(id, "\x00")) != "root" {
		t.Errorf("GetID = %q, %v", id, err)
	}
	trim := func(at, n, flags uint32) []byte {
		return le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, uint64(at)), n), flags)
	}
	for _, c := range []struct {
		name string
		typ  uint32
		off  int64
		p    []byte
		want error
	}{
		{"write at the end", Write, 1<<20 - 512, make([]byte, 512), nil},
		{"write beyond the end", Write, 1<<20 - 512, make([]byte, 1024), StatusError(statusError)},
		{"read beyond the end", Read, 1 << 20, make([]byte, 512), StatusError(statusError)},
		{"read far beyond", Read, 1 << 61, make([]byte, 512), StatusError(statusError)},
		{"part of a sector", Write, 0, make([]byte, 100), StatusError(statusError)},
		{"unknown", 99, 0, nil, StatusError(statusUnsupp)},
		{"flush", Flush, 0, nil, nil},
		{"discard", Discard, 0, trim(0, 8, 0), nil},
		{"discard, unmap flag", Discard, 0, trim(0, 8, 1), StatusError(statusUnsupp)},
		{"discard beyond the end", Discard, 0, trim(2047, 8, 0), StatusError(statusError)},
		{"zeroes, unmap", WriteZeroes, 0, trim(0, 8, 1), nil},
		{"zeroes, bad flag", WriteZeroes, 0, trim(0, 8, 2), StatusError(statusUnsupp)},
		{"half a segment", WriteZeroes, 0, trim(0, 8, 1)[:8], StatusError(statusUnsupp)},
	} {
		if err := q.Do(c.typ, c.off, c.p); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestReadOnly(t *testing.T) {
	path, _ := serve(t, &Server{Device: volume(t, 1<<20), ReadOnly: true})
	q := dial(t, path, 1, 1, 4096).Queue(0)
	if err := q.Do(Write, 0, make([]byte, 4096)); err != StatusError(statusError) {
		t.Errorf("write to a read-only device: %v", err)
	}
	if err := q.Do(Read, 0, make([]byte, 4096)); err != nil {
		t.Errorf("read: %v", err)
	}
}

// dying is a device that stops in the middle, as a volume does after a failed sync.
type dying struct {
	*block.Volume
	left int
}

func (d *dying) WriteBuffered(p []byte, off int64) error {
	if d.left--; d.left < 0 {
		return block.ErrFailed
	}
	return d.Volume.WriteBuffered(p, off)
}

// What was taken and not answered is taken again by the next back end, whatever happened to the first.
func TestReconnect(t *testing.T) {
	v := volume(t, 4<<20)
	first, stop := serve(t, &Server{Device: &dying{Volume: v, left: 5}})
	k := dial(t, first, 1, 16, 4096)
	q := k.Queue(0)
	for s := range 12 {
		copy(q.Data(s), bytes.Repeat([]byte{byte(s + 1)}, 4096))
		q.Submit(s, Write, int64(s)*4096, 4096)
	}
	q.Kick()
	time.Sleep(50 * time.Millisecond) // it takes all, and its device fails at the sixth
	if cs, _ := q.Reap(nil, false); len(cs) != 0 {
		t.Errorf("%d requests of a batch that failed were answered", len(cs))
	}
	stop()
	second, _ := serve(t, &Server{Device: v})
	if err := k.Connect(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	q.Wake()
	seen := map[int]bool{}
	for len(seen) < 12 {
		cs, err := q.Reap(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			if seen[c.Slot] || c.Status != 0 {
				t.Errorf("slot %d answered again or with status %d", c.Slot, c.Status)
			}
			seen[c.Slot] = true
		}
	}
	p := make([]byte, 4096)
	for s := range 12 {
		if _, err := v.ReadAt(p, int64(s)*4096); err != nil || p[0] != byte(s+1) || p[4095] != byte(s+1) {
			t.Errorf("block %d = %d, %v", s, p[0], err)
		}
	}
	if err := q.Do(Read, 0, p); err != nil { // and it goes on
		t.Error(err)
	}
}

// The front end, too, may read the kick descriptor: QEMU does when it takes the queues back. Stopping does not depend on it.
func TestStopWhileFrontEndTakesNotifications(t *testing.T) {
	path, stop := serve(t, &Server{Device: volume(t, 1<<20)})
	k := dial(t, path, 1, 1, 4096)
	if err := k.Queue(0).Do(Read, 0, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var b [8]byte
			for !over.Load() {
				_, _ = unix.Read(k.Queue(0).kickFD, b[:])
			}
		})
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Error("the back end did not stop")
	}
	over.Store(true)
	wg.Wait()
}

// A back end that died between publishing a batch and unmarking it: the batch is not worked twice.
func TestRecall(t *testing.T) {
	q := &queue{num: 8, track: make([]byte, inflightSize(8))}
	set := func(head uint16, next uint16, counter uint64) {
		d := q.state(head)
		d[0] = 1
		le.PutUint16(d[6:], next)
		le.PutUint64(d[8:], counter)
	}
	le.PutUint16(q.track[8:], inflightVersion)
	set(1, 0, 10)
	set(2, 1, 11) // published last, with 1 before it
	set(5, 0, 14)
	set(4, 0, 13)
	le.PutUint16(q.track[12:], 2)
	le.PutUint16(q.track[14:], 100)
	q.usedIdx = 102
	q.recall()
	if len(q.w.again) != 2 || q.w.again[0] != 4 || q.w.again[1] != 5 {
		t.Errorf("to be taken again: %v, want [4 5]", q.w.again)
	}
	if q.next != 104 || q.count != 14 || le.Uint16(q.track[14:]) != 102 {
		t.Errorf("next %d, counter %d", q.next, q.count)
	}
}

// A flush is answered after the device's, and does not hold up reads.
func TestFlushDoesNotBlock(t *testing.T) {
	v := volume(t, 1<<20)
	gate := make(chan struct{})
	path, _ := serve(t, &Server{Device: &slowFlush{v, gate}})
	q := dial(t, path, 1, 4, 4096).Queue(0)
	q.Submit(1, Flush, 0, 0)
	q.Kick()
	if err := q.Do(Read, 0, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if cs, err := q.Reap(nil, true); err != nil || len(cs) != 1 || cs[0] != (Completed{1, 0}) {
		t.Errorf("flush: %v, %v", cs, err)
	}
}

type slowFlush struct {
	*block.Volume
	gate chan struct{}
}

func (s *slowFlush) Flush() error { <-s.gate; return s.Volume.Flush() }

// full is a device on a host without room, until there is some.
type full struct {
	*block.Volume
	until time.Time
}

func (f *full) WriteBuffered(p []byte, off int64) error {
	if time.Now().Before(f.until) {
		return block.ErrNoSpace
	}
	return f.Volume.WriteBuffered(p, off)
}

func TestNoSpaceWaits(t *testing.T) {
	path, _ := serve(t, &Server{Device: &full{volume(t, 1<<20), time.Now().Add(300 * time.Millisecond)}})
	q := dial(t, path, 1, 1, 4096).Queue(0)
	if err := q.Do(Write, 0, make([]byte, 4096)); err != nil {
		t.Errorf("write while the host is full = %v, want it to wait", err)
	}
}

func TestUnsealedMemoryIsRefused(t *testing.T) {
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		t.Fatal(err)
	}
	table := le.AppendUint32(le.AppendUint32(nil, 1), 0)
	for _, v := range []uint64{0, 1 << 20, 0x1000, 0} {
		table = le.AppendUint64(table, v)
	}
	if _, err := newMemory(table, []int{fd}); !errors.Is(err, errMessage) {
		t.Errorf("memory that may shrink: %v, want it refused", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		t.Fatal(err)
	}
	m, err := newMemory(table, []int{fd})
	if err != nil {
		t.Fatal(err)
	}
	m.unmap()
	le.PutUint64(table[16:], 2<<20)
	if _, err := newMemory(table, []int{fd}); !errors.Is(err, errMessage) {
		t.Errorf("a region longer than its memory: %v, want it refused", err)
	}
}

// bootSector writes itself through the BIOS to the sectors from 100 up to end, says so on the serial port and leaves.
func bootSector(end uint16) []byte {
	b := make([]byte, 512)
	copy(b, []byte{
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x40, 0x7c, // mov si, 0x7c40: disk address packet
		0xb8, 0x00, 0x43, // 07: mov ax, 0x4300: extended write
		0xcd, 0x13, // int 0x13
		0x72, 0x1a, // jc 28
		0xff, 0x06, 0x48, 0x7c, // inc word [packet+8]
		0x81, 0x3e, 0x48, 0x7c, byte(end), byte(end >> 8), // cmp word [packet+8], end
		0x75, 0xed, // jne 07
		0xbe, 0x50, 0x7c, // mov si, 0x7c50: text
		0xac,       // 1d: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x06, // jz 28
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xeb, 0xf5, // jmp 1d
		0xe6, 0xf4, // 28: out 0xf4, al
		0xf4, // hlt
	})
	copy(b[0x40:], []byte{0x10, 0, 1, 0, 0x00, 0x7c, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0})
	copy(b[0x50:], "sealed and booted\x00")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// boot runs a guest on the socket until it leaves.
func boot(t *testing.T, path string) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-accel", "tcg", "-m", "128", "-display", "none",
		"-object", "memory-backend-memfd,id=mem,size=128M,share=on", "-machine", "q35,memory-backend=mem",
		"-chardev", "socket,id=disk,path="+path+",reconnect=1",
		"-device", "vhost-user-blk-pci,chardev=disk,num-queues=2,bootindex=1",
		"-device", "isa-debug-exit,iobase=0xf4", "-serial", "stdio").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte("sealed and booted")) {
		t.Errorf("QEMU: %v, it said %q", err, out)
	}
}

// QEMU boots from the device, and its BIOS writes to it while back ends come and go.
func TestQEMU(t *testing.T) {
	const end = 3000
	v := volume(t, 4<<20)
	sector := bootSector(end)
	if _, err := v.WriteAt(sector, 0); err != nil {
		t.Fatal(err)
	}
	path, stop := serve(t, &Server{Device: v, Serial: "root"})
	done := make(chan struct{})
	go func() { defer close(done); boot(t, path) }()
	again := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(300 * time.Millisecond):
			if again < 3 && v.Stats().WriteOps > uint64(again*500+300) {
				again++
				stop()
				_, stop = serveAt(t, path, &Server{Device: v, Serial: "root"})
			}
		}
	}
	t.Logf("%d back ends took over", again)
	got := make([]byte, 512)
	for i := int64(100); i < end; i++ {
		if _, err := v.ReadAt(got, i*512); err != nil || !bytes.Equal(got, sector) && i == 100 {
			t.Fatalf("sector %d is not what the guest wrote: %v", i, err)
		}
		if !bytes.Equal(got[:0x40], sector[:0x40]) {
			t.Fatalf("sector %d is not what the guest wrote", i)
		}
	}
}
