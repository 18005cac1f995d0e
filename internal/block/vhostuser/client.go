package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Client is a front end without a guest: it lays out virtqueues in memory of its own and is
// both driver and monitor. It serves tests and the load generator of bench/volumes; it works with any vhost-user-blk back end.
type Client struct {
	c        *net.UnixConn
	mem      []byte
	memFD    int
	inflight []byte // payload of SET_INFLIGHT_FD
	inflFD   int
	protocol uint64
	eventIdx bool
	size     int64
	queues   []*ClientQueue
}

// ClientQueue is one queue of a Client. It is used by one goroutine.
type ClientQueue struct {
	k          *Client
	index      int
	base       int // of this queue in mem
	depth, max int
	kick, call *os.File
	kickFD     int // of kick; File.Fd would make it block
	callFD     int
	availIdx   uint16
	seen       uint16 // used entries taken so far
}

const (
	clientQueueSize = 256
	clientGuestBase = 0x10000 // guest address of mem[0]

	clientAvail = 16 * clientQueueSize
	clientUsed  = clientAvail + 4096
	clientRings = clientUsed + 4096
)

// Completed is a slot whose request is answered.
type Completed struct {
	Slot   int
	Status byte
}

// Dial connects to a back end with n queues of depth slots, each for requests of up to max bytes.
func Dial(ctx context.Context, socket string, n, depth, max int) (*Client, error) {
	if n < 1 || n > MaxQueues || depth < 1 || depth > clientQueueSize/3 || max < 4096 || max%4096 != 0 {
		return nil, fmt.Errorf("vhost-user client with %d queues of %d requests of %d bytes", n, depth, max)
	}
	k := &Client{memFD: -1, inflFD: -1}
	slot := max + 4096
	per := (clientRings + depth*slot + 4095) &^ 4095
	var err error
	if k.memFD, err = unix.MemfdCreate("vhost-client", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return nil, err
	}
	err = unix.Ftruncate(k.memFD, int64(n*per))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(k.memFD), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	}
	if err == nil {
		k.mem, err = unix.Mmap(k.memFD, 0, n*per, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		unix.Close(k.memFD)
		return nil, err
	}
	for i := range n {
		q := &ClientQueue{k: k, index: i, base: i * per, depth: depth, max: max}
		k.queues = append(k.queues, q)
		for _, e := range []struct {
			fd *int
			f  **os.File
		}{{&q.kickFD, &q.kick}, {&q.callFD, &q.call}} {
			if *e.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
				k.Close()
				return nil, err
			}
			*e.f = os.NewFile(uintptr(*e.fd), "event")
		}
	}
	if err := k.Connect(ctx, socket); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// Connect connects, or connects again after the back end went away: what it had taken and not
// answered it takes again.
func (k *Client) Connect(ctx context.Context, socket string) error {
	if k.c != nil {
		k.c.Close()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("connect to vhost-user back end: %w", err)
	}
	k.c = c.(*net.UnixConn)
	if err := k.negotiate(); err != nil {
		return fmt.Errorf("negotiate with vhost-user back end on %s: %w", socket, err)
	}
	return nil
}

func (k *Client) send(request uint32, payload []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	h := header{request, flagVersion, uint32(len(payload))}
	_, _, err := k.c.WriteMsgUnix(append(h.append(nil), payload...), oob, nil)
	return err
}

// ask sends a request that has a reply.
func (k *Client) ask(request uint32, payload []byte) (*message, error) {
	if err := k.send(request, payload); err != nil {
		return nil, err
	}
	m, err := readReply(k.c)
	if err != nil {
		return nil, err
	}
	if m.request != request {
		m.closeFDs()
		return nil, fmt.Errorf("%w: reply to %d, want %d", errMessage, m.request, request)
	}
	return m, nil
}

func readReply(c *net.UnixConn) (*message, error) {
	var h [headerLen]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	n, on, _, _, err := c.ReadMsgUnix(h[:], oob)
	if err != nil || n != headerLen {
		return nil, errors.Join(errors.New("back end closed the connection"), err)
	}
	m := &message{header: header{le.Uint32(h[:]), le.Uint32(h[4:]), le.Uint32(h[8:])}}
	if on > 0 {
		if cs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for i := range cs {
				if fds, err := unix.ParseUnixRights(&cs[i]); err == nil {
					m.fds = append(m.fds, fds...)
				}
			}
		}
	}
	if m.size > maxPayload {
		return nil, fmt.Errorf("%w: reply of %d bytes", errMessage, m.size)
	}
	m.payload = make([]byte, m.size)
	for at := 0; at < len(m.payload); {
		n, err := c.Read(m.payload[at:])
		if err != nil {
			return nil, err
		}
		at += n
	}
	return m, nil
}

func (k *Client) ask64(request uint32) (uint64, error) {
	m, err := k.ask(request, nil)
	if err != nil {
		return 0, err
	}
	if len(m.payload) != 8 {
		return 0, fmt.Errorf("%w: reply of %d bytes", errMessage, len(m.payload))
	}
	return le.Uint64(m.payload), nil
}

func (k *Client) negotiate() error {
	offered, err := k.ask64(getFeatures)
	if err != nil {
		return err
	}
	proto, err := k.ask64(getProtocolFeatures)
	if err != nil {
		return err
	}
	k.protocol = proto & (protoMQ | protoConfig | protoInflight)
	if k.protocol&protoConfig == 0 {
		return errors.New("the back end has no configuration space")
	}
	if err := k.send(setProtocolFeatures, u64(k.protocol)); err != nil {
		return err
	}
	if n, err := k.ask64(getQueueNum); err != nil || n < uint64(len(k.queues)) {
		return fmt.Errorf("the back end serves %d queues: %w", n, err)
	}
	if err := k.send(setOwner, nil); err != nil {
		return err
	}
	cfg, err := k.ask(getConfig, append(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 0), 60), 0), make([]byte, 60)...))
	if err != nil {
		return err
	}
	if len(cfg.payload) != 72 {
		return fmt.Errorf("%w: configuration of %d bytes", errMessage, len(cfg.payload))
	}
	k.size = int64(le.Uint64(cfg.payload[12:])) * sector
	features := offered & (version1 | ringIndirect | ringEventIdx | vhostProtocol | blkFlush | blkDiscard | blkWriteZeroes | blkMQ | blkReadOnly)
	k.eventIdx = features&ringEventIdx != 0
	if k.protocol&protoInflight != 0 {
		if err := k.negotiateInflight(); err != nil {
			return err
		}
	}
	if err := k.send(setFeatures, u64(features)); err != nil {
		return err
	}
	user := uint64(uintptr(unsafe.Pointer(&k.mem[0])))
	t := le.AppendUint32(le.AppendUint32(nil, 1), 0)
	for _, v := range []uint64{clientGuestBase, uint64(len(k.mem)), user, 0} {
		t = le.AppendUint64(t, v)
	}
	if err := k.send(setMemTable, t, k.memFD); err != nil {
		return err
	}
	for _, q := range k.queues {
		if err := q.negotiate(user); err != nil {
			return err
		}
	}
	return nil
}

func (k *Client) negotiateInflight() error {
	if k.inflFD >= 0 {
		return k.send(setInflightFD, k.inflight, k.inflFD)
	}
	p := make([]byte, 24)
	le.PutUint16(p[16:], uint16(len(k.queues)))
	le.PutUint16(p[18:], clientQueueSize)
	m, err := k.ask(getInflightFD, p)
	if err != nil {
		return err
	}
	if k.inflFD, err = m.takeFD(); err != nil {
		return err
	}
	k.inflight = m.payload
	return k.send(setInflightFD, k.inflight, k.inflFD)
}

func (q *ClientQueue) negotiate(user uint64) error {
	pair := func(v uint32) []byte { return le.AppendUint32(le.AppendUint32(nil, uint32(q.index)), v) }
	at := user + uint64(q.base)
	addr := pair(0)
	for _, v := range []uint64{at, at + clientUsed, at + clientAvail, 0} {
		addr = le.AppendUint64(addr, v)
	}
	usedIdx := uint16(atomic.LoadUint32(half32(q.k.mem[q.base+clientUsed:])) >> 16)
	return errors.Join(
		q.k.send(setVringNum, pair(clientQueueSize)),
		q.k.send(setVringBase, pair(uint32(usedIdx))),
		q.k.send(setVringAddr, addr),
		q.k.send(setVringCall, u64(uint64(q.index)), q.callFD),
		q.k.send(setVringKick, u64(uint64(q.index)), q.kickFD),
		q.k.send(setVringEnable, pair(1)))
}

// Size is the device's capacity in bytes.
func (k *Client) Size() int64 { return k.size }

// Queue is one of the queues.
func (k *Client) Queue(i int) *ClientQueue { return k.queues[i] }

// Close ends the connection and frees the memory.
func (k *Client) Close() {
	if k.c != nil {
		k.c.Close()
	}
	for _, q := range k.queues {
		for _, f := range []*os.File{q.kick, q.call} {
			if f != nil {
				f.Close()
			}
		}
	}
	if k.mem != nil {
		_ = unix.Munmap(k.mem)
	}
	if k.inflFD >= 0 {
		unix.Close(k.inflFD)
	}
	unix.Close(k.memFD)
}

// A slot is a page with the header (at 0) and the status (at 16), and its data.
func (q *ClientQueue) slot(i int) int { return q.base + clientRings + i*(q.max+4096) }

// Data is the buffer of a slot.
func (q *ClientQueue) Data(slot int) []byte { return q.k.mem[q.slot(slot)+4096:][:q.max] }

// Submit puts a request into a free slot; Kick tells the back end. typ is a request type of the specification.
func (q *ClientQueue) Submit(slot int, typ uint32, off int64, n int) {
	m := q.k.mem
	at := q.slot(slot)
	h := m[at:]
	le.PutUint32(h, typ)
	le.PutUint32(h[4:], 0)
	le.PutUint64(h[8:], uint64(off)/sector)
	h[16] = 0xff
	d := uint16(3 * slot)
	put := func(i uint16, addr, n int, flags, next uint16) {
		b := m[q.base+16*int(i):]
		le.PutUint64(b, uint64(clientGuestBase+addr))
		le.PutUint32(b[8:], uint32(n))
		le.PutUint16(b[12:], flags)
		le.PutUint16(b[14:], next)
	}
	put(d, at, requestLen, descNext, d+1)
	if n > 0 {
		var w uint16
		if typ == typeIn || typ == typeGetID {
			w = descWrite
		}
		put(d+1, at+4096, n, descNext|w, d+2)
	} else {
		put(d, at, requestLen, descNext, d+2)
	}
	put(d+2, at+16, 1, descWrite, 0)
	avail := m[q.base+clientAvail:]
	le.PutUint16(avail[4+2*(int(q.availIdx)%clientQueueSize):], d)
	q.availIdx++
}

// Kick publishes what was submitted, and notifies the back end if it wants that.
func (q *ClientQueue) Kick() {
	m := q.k.mem
	old := uint16(atomic.LoadUint32(half32(m[q.base+clientAvail:])) >> 16)
	atomic.StoreUint32(half32(m[q.base+clientAvail:]), uint32(q.availIdx)<<16)
	used := m[q.base+clientUsed:]
	if q.k.eventIdx && !needEvent(le.Uint16(used[4+8*clientQueueSize:]), q.availIdx, old) {
		return
	}
	q.Wake()
}

// Wake notifies the back end in any case, as a monitor does after a reconnect.
func (q *ClientQueue) Wake() {
	one := [8]byte{1}
	_, _ = q.kick.Write(one[:])
}

// Reap returns what was answered since; with wait it waits for at least one.
func (q *ClientQueue) Reap(dst []Completed, wait bool) ([]Completed, error) {
	m := q.k.mem
	used := m[q.base+clientUsed:]
	n := len(dst)
	for {
		idx := uint16(atomic.LoadUint32(half32(used)) >> 16)
		for q.seen != idx {
			d := le.Uint32(used[4+8*(int(q.seen)%clientQueueSize):])
			slot := int(d / 3)
			if slot >= q.depth {
				return dst, fmt.Errorf("%w: descriptor %d completed", errRing, d)
			}
			dst = append(dst, Completed{slot, m[q.slot(slot)+16]})
			q.seen++
		}
		if len(dst) > n || !wait {
			return dst, nil
		}
		le.PutUint16(m[q.base+clientAvail+4+2*clientQueueSize:], q.seen) // used_event
		var fence uint32
		atomic.StoreUint32(&fence, 1)
		if uint16(atomic.LoadUint32(half32(used))>>16) != q.seen {
			continue
		}
		var b [8]byte
		if _, err := q.call.Read(b[:]); err != nil {
			return dst, err
		}
	}
}

// Request types.
const (
	Read        = typeIn
	Write       = typeOut
	Flush       = typeFlush
	GetID       = typeGetID
	Discard     = typeDiscard
	WriteZeroes = typeWriteZeroes
)

// StatusError is an answer other than OK.
type StatusError byte

func (e StatusError) Error() string { return fmt.Sprintf("virtio-blk status %d", byte(e)) }

// Do works one request on slot 0 and waits for it. Data goes through p.
func (q *ClientQueue) Do(typ uint32, off int64, p []byte) error {
	if typ != Read && typ != GetID {
		copy(q.Data(0), p)
	}
	q.Submit(0, typ, off, len(p))
	q.Kick()
	c, err := q.Reap(nil, true)
	if err != nil {
		return err
	}
	if len(c) != 1 || c[0].Slot != 0 {
		return fmt.Errorf("%w: %d completions", errRing, len(c))
	}
	if c[0].Status != statusOK {
		return StatusError(c[0].Status)
	}
	if typ == Read || typ == GetID {
		copy(p, q.Data(0))
	}
	return nil
}
