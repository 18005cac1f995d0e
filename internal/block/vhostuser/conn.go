package vhostuser

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/block"
)

// conn is the state of one connection. Messages are handled by one goroutine.
type conn struct {
	s        *Server
	c        *net.UnixConn
	dev      block.Device
	batch    block.Batcher // nil: the device cannot batch
	features uint64
	protocol uint64
	mem      memory
	inflight []byte
	tracked  int // queues in inflight …
	perQueue int // … and bytes of each
	queues   [MaxQueues]queue
	back     *net.UnixConn // channel to the front end; guarded by Server.mu

	mu  sync.Mutex
	why error // why a queue ended the connection
}

func newConn(s *Server, c *net.UnixConn) *conn {
	k := &conn{s: s, c: c, dev: s.Device}
	k.batch, _ = s.Device.(block.Batcher)
	for i := range k.queues {
		k.queues[i] = queue{k: k, index: i, call: -1, errFD: -1}
	}
	return k
}

// fail ends the connection from a queue; requests that were not completed stay so.
func (k *conn) fail(err error) {
	k.mu.Lock()
	if k.why == nil {
		k.why = err
	}
	k.mu.Unlock()
	if k.c != nil {
		k.c.Close()
	}
}

func (k *conn) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

func (k *conn) close() {
	for i := range k.queues {
		k.queues[i].close()
	}
	k.mem.unmap()
	k.mem = nil
	if k.inflight != nil {
		_ = unix.Munmap(k.inflight)
		k.inflight = nil
	}
	if k.back != nil {
		k.back.Close()
	}
}

func (k *conn) offered() uint64 {
	f := uint64(version1 | ringIndirect | ringEventIdx | vhostProtocol | blkSegMax | blkBlkSize | blkFlush | blkTopology | blkMQ)
	if k.s.ReadOnly {
		return f | blkReadOnly
	}
	return f | blkDiscard | blkWriteZeroes
}

// config is the device's configuration space (virtio 1.1, 5.2.4).
func (k *conn) config() []byte {
	b := make([]byte, 60)
	le.PutUint64(b[0:], uint64(k.dev.Size())/512)
	le.PutUint32(b[12:], maxSegments)
	le.PutUint32(b[20:], 512)
	b[24] = 3                   // physical block = 2^3 logical blocks
	le.PutUint16(b[26:], 8)     // suggested minimum I/O, logical blocks
	le.PutUint32(b[28:], 128*8) // optimal: what a map page covers
	b[32] = 1                   // write-back
	le.PutUint16(b[34:], MaxQueues)
	le.PutUint32(b[36:], maxTrim) // discard
	le.PutUint32(b[40:], trimSegments)
	le.PutUint32(b[44:], 8)
	le.PutUint32(b[48:], maxTrim) // write zeroes
	le.PutUint32(b[52:], trimSegments)
	b[56] = 1 // may unmap
	return b
}

// handle works one message. A reply is nil when none is to be sent; fd, when not -1, goes with it.
func (k *conn) handle(m *message) (reply []byte, fd int, err error) {
	reply, fd, err = k.request(m)
	if err == nil && reply == nil && m.flags&flagNeedReply != 0 && k.protocol&protoReplyAck != 0 {
		reply = make([]byte, 8)
	}
	return reply, fd, err
}

func u64(v uint64) []byte { return le.AppendUint64(nil, v) }

func (k *conn) request(m *message) ([]byte, int, error) {
	want := func(n int) error {
		if len(m.payload) != n {
			return fmt.Errorf("%w: request %d of %d bytes, want %d", errMessage, m.request, len(m.payload), n)
		}
		return nil
	}
	ok := func(err error) ([]byte, int, error) { return nil, -1, err }
	switch m.request {
	case getFeatures:
		return u64(k.offered()), -1, nil
	case getProtocolFeatures:
		return u64(protocolFeatures), -1, nil
	case getQueueNum:
		return u64(MaxQueues), -1, nil
	case setOwner, resetOwner:
		return ok(nil)
	case setFeatures, setProtocolFeatures:
		if err := want(8); err != nil {
			return ok(err)
		}
		f, all, dst := le.Uint64(m.payload), k.offered(), &k.features
		if m.request == setProtocolFeatures {
			all, dst = protocolFeatures, &k.protocol
		}
		if f&^all != 0 {
			return ok(fmt.Errorf("%w: features %#x were not offered", errMessage, f&^all))
		}
		if m.request == setFeatures && f&version1 == 0 {
			return ok(fmt.Errorf("%w: a driver older than virtio 1.0", errMessage))
		}
		*dst = f
		return ok(nil)
	case setMemTable:
		mem, err := newMemory(m.payload, m.fds)
		if err != nil {
			return ok(err)
		}
		return ok(k.replaceMemory(mem))
	case getConfig, setConfig:
		return k.configRequest(m)
	case setBackendReqFD:
		fd, err := m.takeFD()
		if err != nil {
			return ok(err)
		}
		return ok(k.setBack(fd))
	case getInflightFD:
		return k.newInflight(m)
	case setInflightFD:
		return ok(k.setInflight(m))
	case setVringKick, setVringCall, setVringErr:
		if err := want(8); err != nil {
			return ok(err)
		}
		return ok(k.vringFD(m))
	case setVringNum, setVringBase, getVringBase, setVringEnable:
		if err := want(8); err != nil {
			return ok(err)
		}
		return k.vringState(m)
	case setVringAddr:
		if err := want(40); err != nil {
			return ok(err)
		}
		q, err := k.queue(le.Uint32(m.payload))
		if err != nil {
			return ok(err)
		}
		if le.Uint32(m.payload[4:]) != 0 {
			return ok(fmt.Errorf("%w: dirty logging was not offered", errMessage))
		}
		running := q.stop()
		q.desc, q.used, q.avail = le.Uint64(m.payload[8:]), le.Uint64(m.payload[16:]), le.Uint64(m.payload[24:])
		if running {
			return ok(q.start())
		}
		return ok(nil)
	}
	return ok(fmt.Errorf("%w: request %d is not known", errMessage, m.request))
}

func (k *conn) queue(i uint32) (*queue, error) {
	if i >= MaxQueues {
		return nil, fmt.Errorf("%w: queue %d", errMessage, i)
	}
	return &k.queues[i], nil
}

// replaceMemory puts a new table in place while no queue is worked.
func (k *conn) replaceMemory(mem memory) error {
	var running []*queue
	for i := range k.queues {
		if k.queues[i].stop() {
			running = append(running, &k.queues[i])
		}
	}
	k.mem.unmap()
	k.mem = mem
	for _, q := range running {
		if err := q.start(); err != nil {
			return err
		}
	}
	return nil
}

func (k *conn) configRequest(m *message) ([]byte, int, error) {
	p := m.payload
	if len(p) < 12 || len(p) > 12+256 {
		return nil, -1, fmt.Errorf("%w: configuration request of %d bytes", errMessage, len(p))
	}
	if m.request == setConfig {
		return nil, -1, fmt.Errorf("%w: the configuration space is not writable", errMessage)
	}
	off, n := le.Uint32(p), le.Uint32(p[4:])
	if n > 256 || off > 256-n || int(n) != len(p)-12 {
		return nil, -1, fmt.Errorf("%w: %d bytes of configuration at %d", errMessage, n, off)
	}
	var space [256]byte
	copy(space[:], k.config())
	return append(append([]byte(nil), p[:12]...), space[off:off+n]...), -1, nil
}

func (k *conn) setBack(fd int) error {
	f := os.NewFile(uintptr(fd), "vhost-user-backend")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("%w: back-end channel: %w", errMessage, err)
	}
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		c.Close()
		return fmt.Errorf("%w: back-end channel is no unix socket", errMessage)
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.back != nil {
		k.back.Close()
	}
	k.back = u
	return nil
}

func (k *conn) vringFD(m *message) error {
	v := le.Uint64(m.payload)
	q, err := k.queue(uint32(v & 0xff))
	if err != nil {
		return err
	}
	fd := -1
	if v&noFD == 0 {
		if fd, err = m.takeFD(); err != nil {
			return err
		}
	}
	switch m.request {
	case setVringKick:
		if fd < 0 {
			return fmt.Errorf("%w: a queue without a kick descriptor is not served", errMessage)
		}
		q.stop()
		if q.kick != nil {
			q.kick.Close()
		}
		_ = unix.SetNonblock(fd, true)
		q.kick = os.NewFile(uintptr(fd), "kick")
		if k.features&vhostProtocol == 0 {
			q.enabled = true
		}
		return q.start()
	case setVringCall:
		q.setCall(&q.call, fd)
	default:
		q.setCall(&q.errFD, fd)
	}
	return nil
}

func (k *conn) vringState(m *message) ([]byte, int, error) {
	q, err := k.queue(le.Uint32(m.payload))
	if err != nil {
		return nil, -1, err
	}
	n := le.Uint32(m.payload[4:])
	switch m.request {
	case setVringNum:
		if n == 0 || n > maxQueueSize || n&(n-1) != 0 {
			return nil, -1, fmt.Errorf("%w: queue of %d descriptors", errMessage, n)
		}
		q.stop()
		q.num = n
	case setVringBase:
		if n > 0xffff {
			return nil, -1, fmt.Errorf("%w: queue base %d", errMessage, n)
		}
		q.stop()
		q.next = uint16(n)
	case getVringBase: // the front end stops the queue with it
		q.stop()
		if q.kick != nil {
			q.kick.Close()
			q.kick = nil
		}
		return le.AppendUint32(le.AppendUint32(nil, uint32(q.index)), uint32(q.next)), -1, nil
	case setVringEnable:
		q.enabled = n != 0
		if !q.enabled {
			q.stop()
			return nil, -1, nil
		}
		return nil, -1, q.start()
	}
	return nil, -1, nil
}

// Inflight memory: for each queue a header of 16 bytes (features u64, version u16, descriptors u16, last batch head u16, used
// index u16) and 16 bytes a descriptor (inflight u8, 5 bytes padding, next u16, counter u64); a multiple of 64 bytes.
const (
	inflightHeader  = 16
	inflightVersion = 1
)

func inflightSize(descriptors int) int { return (inflightHeader + 16*descriptors + 63) &^ 63 }

func (k *conn) inflightShape(p []byte) (queues, size int, err error) {
	if len(p) != 20 && len(p) != 24 { // with or without the tail padding of the C struct
		return 0, 0, fmt.Errorf("%w: inflight request of %d bytes", errMessage, len(p))
	}
	queues, size = int(le.Uint16(p[16:])), int(le.Uint16(p[18:]))
	if queues == 0 || queues > MaxQueues || size == 0 || size > maxQueueSize {
		return 0, 0, fmt.Errorf("%w: inflight memory for %d queues of %d", errMessage, queues, size)
	}
	return queues, size, nil
}

func (k *conn) newInflight(m *message) ([]byte, int, error) {
	queues, size, err := k.inflightShape(m.payload)
	if err != nil {
		return nil, -1, err
	}
	n := queues * inflightSize(size)
	fd, err := unix.MemfdCreate("vhost-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, -1, fmt.Errorf("make inflight memory: %w", err)
	}
	err = unix.Ftruncate(fd, int64(n))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err == nil {
		err = k.mapInflight(fd, queues, size)
	}
	if err != nil {
		unix.Close(fd)
		return nil, -1, fmt.Errorf("make inflight memory: %w", err)
	}
	reply := append([]byte(nil), m.payload...)
	le.PutUint64(reply, uint64(n))
	le.PutUint64(reply[8:], 0)
	return reply, fd, nil
}

func (k *conn) setInflight(m *message) error {
	queues, size, err := k.inflightShape(m.payload)
	if err != nil {
		return err
	}
	n, off := le.Uint64(m.payload), le.Uint64(m.payload[8:])
	if off != 0 || n < uint64(queues*inflightSize(size)) {
		return fmt.Errorf("%w: inflight memory of %d bytes at %d", errMessage, n, off)
	}
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return k.mapInflight(fd, queues, size)
}

func (k *conn) mapInflight(fd, queues, size int) error {
	for i := range k.queues {
		if k.queues[i].running() {
			return errors.New("inflight memory changed while a queue runs")
		}
	}
	b, err := mapShared(fd, uint64(queues*inflightSize(size)))
	if err != nil {
		return err
	}
	if k.inflight != nil {
		_ = unix.Munmap(k.inflight)
	}
	k.inflight, k.tracked, k.perQueue = b, queues, inflightSize(size)
	return nil
}
