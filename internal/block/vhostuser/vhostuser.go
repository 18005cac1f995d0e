// Package vhostuser serves a block device to a virtual machine monitor as a vhost-user-blk
// back end: requests are taken from virtqueues in memory shared with the guest, and blocks
// are sealed straight from, and opened straight into, the guest's own buffers.
//
// The protocol is QEMU's docs/interop/vhost-user.rst; queues and requests are those of the
// Virtual I/O Device specification 1.1, sections 2.6 (split virtqueues) and 5.2 (block device).
//
// Served: several queues (MQ), indirect descriptors, EVENT_IDX; read, write, flush,
// discard, write zeroes, get ID; configuration space, with a notice to the front end when the device
// grew; REPLY_ACK; inflight tracking. Not served: packed queues, dirty logging (live migration), IOMMU,
// memory slots, polling without a kick descriptor.
//
// What it promises:
//
//   - A write is completed only after it is in the host's page cache: it survives the
//     death of this process. A flush is completed when it is durable.
//   - Inflight tracking: which requests were taken and not completed is in memory that
//     the front end keeps. After this process died and another one serves the
//     socket, they are taken again in their order; none is lost, and none completed twice.
//   - When the host has no room, requests wait until it has. When the device stopped for good
//     (ErrFailed, ErrClosed), the connection ends with its requests not completed, so
//     that they are taken again once the volume is opened anew.
//   - The guest is not trusted. Every address is checked against the memory table, every descriptor is read
//     once, a chain has at most as many descriptors as its queue; a queue with a broken
//     ring is stopped. What a guest changes in its buffers while a request is worked changes that request's data and nothing else.
//   - Memory must be a memfd sealed against shrinking (memory-backend-memfd,share=on
//     is), so that no front end can pull pages away from under this process.
//
// # How a queue is worked
//
// One goroutine owns a queue. It takes whatever is available, works it in order, pushes the
// writes among it to the host in one go, and then publishes all completions with one
// notification. Only flushes leave the goroutine, because they wait for the disk.
package vhostuser

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/block"
)

// Server serves one device to one front end at a time.
type Server struct {
	Device   block.Device
	Serial   string // what the guest sees as the disk's serial number; at most 20 bytes count
	ReadOnly bool
	Logger   *slog.Logger

	mu   sync.Mutex
	conn *conn
}

// Serve accepts front ends, one after the other, until ctx ends or the listener is closed, and then waits for
// requests on their way. It does not flush or close the device.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		end := context.AfterFunc(ctx, func() { c.Close() })
		if err := s.ServeConn(c); err != nil && ctx.Err() == nil {
			s.logger().Warn("vhost-user connection ended", "err", err)
		}
		end()
		c.Close()
	}
}

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

// Connected says whether a front end is there.
func (s *Server) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Resized tells the front end that the device has another size.
func (s *Server) Resized() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.conn.back == nil {
		return
	}
	_ = s.conn.back.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = s.conn.back.Write(header{request: backConfigChange, flags: flagVersion}.append(nil))
}

// ServeConn serves one front end until it leaves. It does not close c.
func (s *Server) ServeConn(c *net.UnixConn) (err error) {
	k := newConn(s, c)
	s.mu.Lock()
	s.conn = k
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.conn = nil
		s.mu.Unlock()
		k.close()
		if why := k.failure(); why != nil {
			err = why
		}
	}()
	for {
		m, err := readMessage(c)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		reply, fd, err := k.handle(m)
		m.closeFDs()
		if err != nil {
			return err
		}
		if reply == nil {
			continue
		}
		h := header{request: m.request, flags: flagVersion | flagReply, size: uint32(len(reply))}
		var oob []byte
		if fd >= 0 {
			oob = unix.UnixRights(fd)
		}
		_, _, err = c.WriteMsgUnix(append(h.append(nil), reply...), oob, nil)
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

var le = binary.LittleEndian

// Requests of the front end.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	resetOwner          = 4
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	setVringErr         = 14
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	getQueueNum         = 17
	setVringEnable      = 18
	setBackendReqFD     = 21
	getConfig           = 24
	setConfig           = 25
	getInflightFD       = 31
	setInflightFD       = 32

	backConfigChange = 2
)

const (
	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3

	noFD = 1 << 8 // in the payload of a vring descriptor message
)

// Feature bits.
const (
	blkSegMax      = 1 << 2
	blkReadOnly    = 1 << 5
	blkBlkSize     = 1 << 6
	blkFlush       = 1 << 9
	blkTopology    = 1 << 10
	blkMQ          = 1 << 12
	blkDiscard     = 1 << 13
	blkWriteZeroes = 1 << 14
	ringIndirect   = 1 << 28
	ringEventIdx   = 1 << 29
	vhostProtocol  = 1 << 30
	version1       = 1 << 32

	protoMQ         = 1 << 0
	protoReplyAck   = 1 << 3
	protoBackendReq = 1 << 5
	protoConfig     = 1 << 9
	protoInflight   = 1 << 12

	protocolFeatures = protoMQ | protoReplyAck | protoBackendReq | protoConfig | protoInflight
)

// MaxQueues of one device, and maxQueueSize descriptors of one queue.
const (
	MaxQueues    = 16
	maxQueueSize = 1024
	maxSegments  = 254     // of one request, told to the guest
	maxTransfer  = 4 << 20 // bytes of one request
	maxTrim      = 1 << 22 // sectors of one discard or write zeroes (2 GiB)
	trimSegments = 1
)

type header struct{ request, flags, size uint32 }

func (h header) append(b []byte) []byte {
	b = le.AppendUint32(b, h.request)
	b = le.AppendUint32(b, h.flags)
	return le.AppendUint32(b, h.size)
}

// message is one message of the front end.
type message struct {
	header
	payload []byte
	fds     []int
}

func (m *message) closeFDs() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	m.fds = nil
}

// takeFD hands over the only descriptor of a message.
func (m *message) takeFD() (int, error) {
	if len(m.fds) != 1 {
		return -1, fmt.Errorf("%w: request %d with %d descriptors, want 1", errMessage, m.request, len(m.fds))
	}
	fd := m.fds[0]
	m.fds = nil
	return fd, nil
}

var errMessage = errors.New("malformed vhost-user message")

const (
	headerLen  = 12
	maxPayload = 4096
	maxFDs     = 8
)

// readMessage reads one message. Descriptors come with its first byte.
func readMessage(c *net.UnixConn) (*message, error) {
	var h [headerLen]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	n, on, flags, _, err := c.ReadMsgUnix(h[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	m := &message{}
	if on > 0 {
		cs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMessage, err)
		}
		for i := range cs {
			fds, err := unix.ParseUnixRights(&cs[i])
			if err == nil {
				m.fds = append(m.fds, fds...)
			}
		}
	}
	fail := func(err error) (*message, error) {
		m.closeFDs()
		return nil, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return fail(fmt.Errorf("%w: too many descriptors", errMessage))
	}
	if _, err := io.ReadFull(c, h[n:]); err != nil {
		return fail(err)
	}
	m.header = header{le.Uint32(h[:]), le.Uint32(h[4:]), le.Uint32(h[8:])}
	if m.flags&3 != flagVersion || m.flags&flagReply != 0 || m.size > maxPayload {
		return fail(fmt.Errorf("%w: request %d, flags %#x, %d bytes", errMessage, m.request, m.flags, m.size))
	}
	m.payload = make([]byte, m.size)
	if _, err := io.ReadFull(c, m.payload); err != nil {
		return fail(err)
	}
	return m, nil
}
