package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

var discard = slog.New(slog.DiscardHandler)

// ram is a device in memory with fault hooks.
type ram struct {
	mu      sync.Mutex
	b       []byte
	flushes int
	err     error // of everything but Size
	pushErr error
	buffer  int
}

func (r *ram) Size() int64 { return int64(len(r.b)) }
func (r *ram) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return copy(p, r.b[off:]), r.err
}
func (r *ram) WriteBuffered(p []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.b[off:], p)
	r.buffer++
	return r.err
}
func (r *ram) Push() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buffer = 0
	return r.pushErr
}
func (r *ram) WriteAt(p []byte, off int64) (int, error) {
	return len(p), errors.Join(r.WriteBuffered(p, off), r.Push())
}
func (r *ram) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushes++
	return r.err
}
func (r *ram) Discard(off, n int64) error { return r.WriteZeroes(off, n, false) }
func (r *ram) WriteZeroes(off, n int64, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.b[off : off+n])
	return r.err
}
func (r *ram) BlockStatus(off, n int64, _ int) ([]block.Extent, error) {
	return []block.Extent{{Off: off, Len: n}}, r.err
}
func (r *ram) Close() error { return nil }

// client speaks just enough of the protocol to be rude.
type client struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeConn(a)
		a.Close()
	}()
	t.Cleanup(func() { b.Close(); <-done })
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	c := &client{t, b}
	if got := c.take(18); be.Uint64(got) != magicInit || be.Uint16(got[16:]) != flagFixedNewstyle|flagNoZeroes {
		t.Fatalf("greeting %x", got)
	}
	c.put(uint32(flagFixedNewstyle | flagNoZeroes))
	return c
}

func (c *client) put(v ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, x := range v {
		if s, ok := x.(string); ok {
			b.WriteString(s)
		} else if err := binary.Write(&b, be, x); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// option sends one and returns the reply types and bodies up to the final one.
func (c *client) option(opt uint32, data string) (types []uint32, bodies []string) {
	c.t.Helper()
	c.put(uint64(magicOpt), opt, uint32(len(data)), data)
	for {
		h := c.take(20)
		if be.Uint64(h) != magicOptReply || be.Uint32(h[8:]) != opt {
			c.t.Fatalf("option reply %x", h)
		}
		typ := be.Uint32(h[12:])
		types, bodies = append(types, typ), append(bodies, string(c.take(int(be.Uint32(h[16:])))))
		if typ == repAck || typ >= 1<<31 {
			return types, bodies
		}
	}
}

func str(s string) string { return string(be.AppendUint32(nil, uint32(len(s)))) + s }

func (c *client) goTo(name string) {
	c.t.Helper()
	types, _ := c.option(optGo, str(name)+"\x00\x00")
	if types[len(types)-1] != repAck {
		c.t.Fatalf("GO %q: %#x", name, types)
	}
}

func (c *client) request(flags, typ uint16, cookie, off uint64, n uint32, data string) {
	c.t.Helper()
	c.put(uint32(magicRequest), flags, typ, cookie, off, n, data)
}

func (c *client) wantSimple(cookie uint64, e uint32) {
	c.t.Helper()
	h := c.take(16)
	if be.Uint32(h) != magicSimple || be.Uint64(h[8:]) != cookie || be.Uint32(h[4:]) != e {
		c.t.Fatalf("reply %x, want a simple one for %d with error %d", h, cookie, e)
	}
}

func TestNegotiation(t *testing.T) {
	s := &Server{Exports: []Export{{Name: "a", Device: &ram{b: make([]byte, 8192)}}, {Name: "b", Device: &ram{b: make([]byte, 4096)}, ReadOnly: true}}}
	s.Logger = discard
	c := dial(t, s)
	for _, x := range []struct {
		what string
		opt  uint32
		data string
		want uint32
	}{
		{"unknown option", 77, "x", repErrUnsup},
		{"TLS", optStartTLS, "", repErrPolicy},
		{"GO without an export", optGo, str("zzz") + "\x00\x00", repErrUnknown},
		{"no default among two", optGo, str("") + "\x00\x00", repErrUnknown},
		{"GO cut short", optGo, "\x00\x00", repErrInvalid},
		{"GO with a name longer than itself", optGo, "\xff\xff\xff\xffa", repErrInvalid},
		{"GO with too few info requests", optGo, str("a") + "\x00\x02\x00\x00", repErrInvalid},
		{"contexts before structured replies", optSetContext, str("a") + "\x00\x00\x00\x00", repErrInvalid},
		{"LIST with data", optList, "x", repErrInvalid},
		{"structured", optStructured, "", repAck},
		{"contexts with a query too few", optSetContext, str("a") + "\x00\x00\x00\x01", repErrInvalid},
	} {
		types, _ := c.option(x.opt, x.data)
		if got := types[len(types)-1]; got != x.want {
			t.Errorf("%s: reply %#x, want %#x", x.what, got, x.want)
		}
	}
	types, bodies := c.option(optList, "")
	if len(types) != 3 || bodies[0] != str("a") || bodies[1] != str("b") {
		t.Errorf("LIST = %#x %q", types, bodies)
	}
	types, bodies = c.option(optSetContext, str("b")+"\x00\x00\x00\x02"+str("qemu:dirty")+str(contextName))
	if len(types) != 2 || bodies[0][4:] != contextName {
		t.Errorf("SET_META_CONTEXT = %#x %q", types, bodies)
	}
	types, bodies = c.option(optInfo, str("b")+"\x00\x01\x00\x01")
	if len(types) != 4 || be.Uint16([]byte(bodies[0][10:]))&transReadOnly == 0 || bodies[2] != "\x00\x01b" {
		t.Errorf("INFO = %#x %q", types, bodies)
	}
	c.goTo("b")
	c.request(0, cmdWrite, 5, 0, 4, "data")
	c.wantSimple(5, errPerm)
	c.request(cmdFlagReqOne, cmdBlockStatus, 6, 0, 4096, "")
	if h := c.take(20 + 12); be.Uint16(h[6:]) != chunkBlockStatus || be.Uint32(h[24:]) != 4096 {
		t.Errorf("block status %x", h)
	}
	c.request(0, cmdDisc, 7, 0, 0, "")
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after DISC: %d bytes, %v; want the end", n, err)
	}
}

func TestRequests(t *testing.T) {
	d := &ram{b: make([]byte, 1<<20)}
	c := dial(t, &Server{Logger: discard, Exports: []Export{{Name: "x", Device: d}}})
	c.goTo("")
	c.request(0, cmdWrite, 1, 100, 5, "hello")
	c.wantSimple(1, 0)
	c.request(cmdFlagFUA, cmdWrite, 2, 105, 1, "!")
	c.wantSimple(2, 0)
	if d.flushes != 1 {
		t.Errorf("FUA caused %d flushes, want 1", d.flushes)
	}
	c.request(0, cmdRead, 3, 100, 6, "")
	c.wantSimple(3, 0)
	if got := c.take(6); string(got) != "hello!" {
		t.Errorf("read %q", got)
	}
	for i, x := range []struct {
		what       string
		flags, typ uint16
		off        uint64
		n          uint32
		data       string
		want       uint32
	}{
		{"read past the end", 0, cmdRead, 1<<20 - 1, 2, "", errInval},
		{"read far past the end", 0, cmdRead, 1<<64 - 1, 2, "", errInval},
		{"write past the end", 0, cmdWrite, 1<<20 - 1, 2, "ab", errNoSpace},
		{"read with DF, not negotiated", cmdFlagDF, cmdRead, 0, 1, "", errInval},
		{"write with an unknown flag", 1 << 9, cmdWrite, 0, 1, "a", errInval},
		{"unknown command", 0, 99, 0, 0, "", errInval},
		{"block status without a context", 0, cmdBlockStatus, 0, 1, "", errInval},
		{"flush with a length", 0, cmdFlush, 0, 1, "", errInval},
		{"trim past the end", 0, cmdTrim, 1 << 20, 1, "", errInval},
		{"zeroes past the end", 0, cmdWriteZeroes, 1 << 20, 1, "", errNoSpace},
		{"fast zeroes without a hole", cmdFlagFastZero | cmdFlagNoHole, cmdWriteZeroes, 0, 1, "", errNotSup},
		{"zeroes", cmdFlagFastZero, cmdWriteZeroes, 100, 2, "", 0},
		{"cache", 0, cmdCache, 0, 1 << 20, "", 0},
		{"trim", cmdFlagFUA, cmdTrim, 0, 1, "", 0},
		{"empty read", 0, cmdRead, 0, 0, "", 0},
		{"flush", 0, cmdFlush, 0, 0, "", 0},
	} {
		c.request(x.flags, x.typ, uint64(100+i), x.off, x.n, x.data)
		t.Log(x.what)
		c.wantSimple(uint64(100+i), x.want)
	}
	// faults
	for _, x := range []struct {
		err  error
		want uint32
	}{{block.ErrCorrupt, errIO}, {block.ErrNoSpace, errNoSpace}, {block.ErrFailed, errIO}, {fmt.Errorf("x: %w", block.ErrClosed), errShutdown}} {
		d.mu.Lock()
		d.err = x.err
		d.mu.Unlock()
		c.request(0, cmdRead, 9, 0, 512, "")
		c.wantSimple(9, x.want)
		c.request(0, cmdWrite, 10, 0, 1, "a")
		c.wantSimple(10, x.want)
		c.request(0, cmdFlush, 11, 0, 0, "")
		c.wantSimple(11, x.want)
	}
	d.mu.Lock()
	d.err, d.pushErr = nil, block.ErrNoSpace
	d.mu.Unlock()
	c.request(0, cmdWrite, 12, 0, 1, "a") // fails only when it is pushed
	c.wantSimple(12, errNoSpace)
	c.request(cmdFlagFUA, cmdWrite, 13, 0, 1, "a")
	c.wantSimple(13, errNoSpace)
	c.put(uint32(0xdeadbeef), make([]byte, 24))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after a bad magic: %d bytes, %v; want the end", n, err)
	}
}

func TestPipelinedLargeWrites(t *testing.T) {
	d := &ram{b: make([]byte, 8<<20)}
	c := dial(t, &Server{Logger: discard, Exports: []Export{{Name: "x", Device: d}}})
	c.option(optStructured, "")
	c.goTo("x")
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(i>>3) ^ byte(i>>11)
	}
	go func() {
		off := 1
		for i, n := range []int{1, 4096, 300_000, 262144, 1 << 20, 5, 2_000_001} {
			h := be.AppendUint32(nil, magicRequest)
			h = be.AppendUint16(h, 0)
			h = be.AppendUint16(h, cmdWrite)
			h = be.AppendUint64(h, uint64(i))
			h = be.AppendUint64(h, uint64(off))
			h = be.AppendUint32(h, uint32(n))
			_, _ = c.Write(append(h, want[off:off+n]...))
			off += n
		}
	}()
	for i := range 7 {
		c.wantSimple(uint64(i), 0)
	}
	const n = 1 + 4096 + 300_000 + 262144 + 1<<20 + 5 + 2_000_001
	if !bytes.Equal(d.b[1:1+n], want[1:1+n]) {
		t.Error("the device holds something else")
	}
	c.request(0, cmdRead, 50, 1, n, "")
	var got []byte
	for done := false; !done; {
		h := c.take(20)
		if be.Uint32(h) != magicChunk || be.Uint16(h[6:]) != chunkData {
			t.Fatalf("chunk %x", h)
		}
		done = be.Uint16(h[4:])&chunkDone != 0
		p := c.take(int(be.Uint32(h[16:])))
		if int(be.Uint64(p)) != 1+len(got) {
			t.Errorf("chunk at %d, want %d", be.Uint64(p), 1+len(got))
		}
		got = append(got, p[8:]...)
	}
	if !bytes.Equal(got, want[1:1+n]) {
		t.Error("structured read returns something else")
	}
}

// FuzzConn throws bytes at both phases.
func FuzzConn(f *testing.F) {
	opt := func(o uint32, data string) string {
		b := be.AppendUint64(nil, magicOpt)
		b = be.AppendUint32(b, o)
		return string(be.AppendUint32(b, uint32(len(data)))) + data
	}
	req := func(typ uint16, off uint64, n uint32) string {
		b := be.AppendUint32(nil, magicRequest)
		b = be.AppendUint32(b, uint32(typ))
		b = be.AppendUint64(b, 1)
		b = be.AppendUint64(b, off)
		return string(be.AppendUint32(b, n))
	}
	hello := "\x00\x00\x00\x03"
	start := hello + opt(optStructured, "") + opt(optSetContext, str("")+"\x00\x00\x00\x01"+str(contextName)) + opt(optGo, str("")+"\x00\x00")
	f.Add([]byte(start + req(cmdRead, 0, 4096) + req(cmdBlockStatus, 0, 65536) + req(cmdTrim, 1, 5) + req(cmdWrite, 3, 4) + "abcd" + req(cmdFlush, 0, 0)))
	f.Add([]byte(hello + opt(optExportName, "") + req(cmdWriteZeroes, 0, 100) + req(cmdDisc, 0, 0)))
	f.Add([]byte(hello + opt(optList, "") + opt(optInfo, str("x")+"\x00\x01\x00\x03") + opt(optAbort, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Server{Logger: discard, Exports: []Export{{Name: "x", Device: &ram{b: make([]byte, 65536)}}}}
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		go func() { _, _ = b.Write(in); b.Close() }()
		_ = s.ServeConn(a)
		a.Close()
	})
}

// export serves a real volume on a unix socket.
func export(t testing.TB, size int64) (sock string, v *block.Volume) {
	dir, err := os.MkdirTemp("", "nb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	k := secret.New(bytes.Repeat([]byte{1}, 64))
	if _, err := block.Create(filepath.Join(dir, "v"), block.Options{VolumeID: "vol-1", SizeBytes: size, Key: k}); err != nil {
		t.Fatal(err)
	}
	v, err = block.Open(filepath.Join(dir, "v"), block.Options{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Abandon)
	sock = filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = (&Server{Exports: []Export{{Name: "vol-1", Device: v}}}).Serve(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return sock, v
}

func tool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (Debian packages libnbd-bin, qemu-utils, fio)", name)
	}
}

func run(t testing.TB, name string, arg ...string) string {
	t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, out)
	}
	return string(out)
}

func TestInteropLibnbd(t *testing.T) {
	tool(t, "nbdinfo")
	tool(t, "nbdcopy")
	sock, v := export(t, 64<<20)
	uri := "nbd+unix:///?socket=" + sock
	for _, want := range []string{"can_multi_conn: true", "can_df: true", "can_zero: true", "can_trim: true", "can_fua: true", "can_cache: true", "can_fast_zero: true",
		"base:allocation", "block_size_minimum: 512", "block_size_preferred: 4096", "block_size_maximum: 33554432"} {
		if out := run(t, "nbdinfo", uri); !strings.Contains(out, want) {
			t.Errorf("nbdinfo lacks %q:\n%s", want, out)
		}
	}
	if out := run(t, "nbdinfo", "--list", uri); !strings.Contains(out, "vol-1") {
		t.Errorf("nbdinfo --list: %s", out)
	}
	if _, err := v.WriteAt(bytes.Repeat([]byte("x"), 1<<20), 3<<20); err != nil {
		t.Fatal(err)
	}
	out := strings.Join(strings.Fields(run(t, "nbdinfo", "--map", uri)), " ")
	if want := "0 3145728 3 hole,zero 3145728 1048576 0 data 4194304 62914560 3 hole,zero"; out != want {
		t.Errorf("nbdinfo --map = %q, want %q", out, want)
	}
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	data := make([]byte, 64<<20)
	for i := range data {
		if i>>20%3 != 0 {
			data[i] = byte(i*7 + i>>13)
		}
	}
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--connections=4", "--requests=32", "--flush", src, uri)
	run(t, "nbdcopy", "--connections=4", uri, dst)
	run(t, "cmp", src, dst)
	run(t, "nbdcopy", "--connections=1", "--request-size=33554432", uri, dst)
	run(t, "cmp", src, dst)
}

func TestInteropQEMU(t *testing.T) {
	tool(t, "qemu-io")
	tool(t, "qemu-img")
	sock, _ := export(t, 64<<20)
	url := "nbd+unix:///?socket=" + sock
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 1 0 2M", "-c", "write -P 2 513 4097", "-c", "write -f -P 3 1M 64k", "-c", "write -z 64k 128k", "-c", "write -z -u 512k 128k",
		"-c", "discard 1536k 256k", "-c", "flush", "-c", "aio_write -P 9 8M 4M", "-c", "aio_write -P 8 12M 4M", "-c", "aio_flush", url)
	out := run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 1 0 512", "-c", "read -P 2 513 4097", "-c", "read -P 3 1M 64k", "-c", "read -P 0 64k 128k", "-c", "read -P 0 512k 128k",
		"-c", "read -P 0 1536k 256k", "-c", "read -P 1 1792k 256k", "-c", "read -P 9 8M 4M", "-c", "read -P 8 12M 4M", url)
	if strings.Contains(out, "verification failed") {
		t.Error(out)
	}
	dir := t.TempDir()
	img := filepath.Join(dir, "i.qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", url, img)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", url, img)
	sock2, _ := export(t, 64<<20)
	url2 := "nbd+unix:///?socket=" + sock2
	run(t, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", "-W", img, url2)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", url, url2)
}

// What libnbd's shell says of the export, and what it reads of what it wrote.
func TestInteropNbdsh(t *testing.T) {
	tool(t, "nbdsh")
	sock, v := export(t, 64<<20)
	// The module nbd is in the Python of the system, whatever other python3 comes first.
	run(t, "env", "PATH=/usr/bin:/bin", "nbdsh", "--base-allocation", "-u", "nbd+unix:///?socket="+sock, "-c", `
import errno
assert h.get_size() == 64 << 20 and not h.is_read_only()
assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_multi_conn()
assert h.get_structured_replies_negotiated() and h.can_meta_context("base:allocation")
h.pwrite(b"\x5a" * 8192, 1 << 20, nbd.CMD_FLAG_FUA)
h.pwrite(b"\x33" * 512, (1 << 20) + 4096 - 512)
h.flush()
assert h.pread(8192, 1 << 20) == b"\x5a" * 3584 + b"\x33" * 512 + b"\x5a" * 4096
extents = []
def extent(context, offset, entries, error):
    extents.extend(entries)
h.block_status(2 << 20, 0, extent)
assert sum(extents[0::2]) == 2 << 20, extents
assert extents[1] & nbd.STATE_HOLE and 0 in extents[1::2], extents
h.trim(4096, 1 << 20)
h.zero(4096, (1 << 20) + 4096, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(8192, 1 << 20) == bytes(8192)
try:
    h.pread(4096, 64 << 20)
    assert False, "a read beyond the end succeeded"
except nbd.Error as e:
    assert e.errnum in (errno.EINVAL, errno.ENOSPC), e
`)
	if err := v.Verify(nil); err != nil {
		t.Error(err)
	}
}

func TestInteropFio(t *testing.T) {
	tool(t, "fio")
	if out, _ := exec.Command("fio", "--enghelp").CombinedOutput(); !strings.Contains(string(out), "nbd") {
		t.Skip("this fio has no nbd engine")
	}
	sock, v := export(t, 128<<20)
	run(t, "fio", "--name=v", "--ioengine=nbd", "--uri=nbd+unix:///?socket="+sock, "--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512",
		"--size=96m", "--io_size=64m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--group_reporting", "--output-format=terse")
	if err := v.Verify(nil); err != nil {
		t.Error(err)
	}
}
