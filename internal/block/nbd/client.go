package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/sealdesk/sealdesk/internal/block"
)

// Client is a connection to an NBD server as a block device: fixed newstyle, structured
// replies and base:allocation where the server has them. Requests go one at a time.
// After a broken connection every call fails.
type Client struct {
	mu     sync.Mutex
	c      net.Conn
	size   int64
	flags  uint16
	alloc  bool // base:allocation was agreed on
	cookie uint64
	broken error
}

var _ block.Device = (*Client)(nil)

// Dial connects to the export on a unix socket.
func Dial(ctx context.Context, socket, export string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to NBD server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c := &Client{c: conn}
	if err := c.negotiate(export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("negotiate NBD export %q on %s: %w", export, socket, err)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return c, nil
}

func (c *Client) take(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c.c, b)
	return b, err
}

// option sends an option and calls f for each reply until the last one.
func (c *Client) option(opt uint32, data []byte, f func(typ uint32, body []byte)) (ok bool, err error) {
	b := be.AppendUint64(nil, magicOpt)
	b = be.AppendUint32(b, opt)
	b = be.AppendUint32(b, uint32(len(data)))
	if _, err := c.c.Write(append(b, data...)); err != nil {
		return false, err
	}
	for {
		h, err := c.take(20)
		if err != nil {
			return false, err
		}
		if be.Uint64(h) != magicOptReply || be.Uint32(h[8:]) != opt {
			return false, errors.New("reply to another option")
		}
		typ, n := be.Uint32(h[12:]), be.Uint32(h[16:])
		if n > 64<<10 {
			return false, fmt.Errorf("option reply of %d bytes", n)
		}
		body, err := c.take(int(n))
		if err != nil {
			return false, err
		}
		switch {
		case typ == repAck:
			return true, nil
		case typ&(1<<31) != 0:
			return false, nil
		}
		f(typ, body)
	}
}

func (c *Client) negotiate(export string) error {
	h, err := c.take(18)
	if err != nil {
		return err
	}
	if be.Uint64(h) != magicInit || be.Uint64(h[8:]) != magicOpt || be.Uint16(h[16:])&flagFixedNewstyle == 0 {
		return errors.New("not a fixed newstyle server")
	}
	if _, err := c.c.Write(be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	name := append(be.AppendUint32(nil, uint32(len(export))), export...)
	structured, err := c.option(optStructured, nil, func(uint32, []byte) {})
	if err != nil {
		return err
	}
	if structured {
		q := append(append([]byte(nil), name...), be.AppendUint32(be.AppendUint32(nil, 1), uint32(len(contextName)))...)
		_, err := c.option(optSetContext, append(q, contextName...), func(typ uint32, _ []byte) { c.alloc = c.alloc || typ == repMetaContext })
		if err != nil {
			return err
		}
	}
	found := false
	ok, err := c.option(optGo, append(name, 0, 0), func(typ uint32, b []byte) {
		if typ == repInfo && len(b) == 12 && be.Uint16(b) == infoExport {
			c.size, c.flags, found = int64(be.Uint64(b[2:])), be.Uint16(b[10:]), true
		}
	})
	if err != nil {
		return err
	}
	if !ok || !found {
		return errors.New("the server has no such export")
	}
	return nil
}

// do sends a request and reads its replies; data chunks go to p, extents to f.
func (c *Client) do(typ, flags uint16, off int64, n int, payload, p []byte, f func(length, state uint32)) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	defer func() {
		var e *replyError
		if err != nil && !errors.As(err, &e) {
			c.broken = fmt.Errorf("NBD connection: %w", err)
			c.c.Close()
			err = c.broken
		}
	}()
	c.cookie++
	b := be.AppendUint32(nil, magicRequest)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, typ)
	b = be.AppendUint64(b, c.cookie)
	b = be.AppendUint64(b, uint64(off))
	b = be.AppendUint32(b, uint32(n))
	if _, err := c.c.Write(append(b, payload...)); err != nil {
		return err
	}
	var refused error
	for {
		h, err := c.take(16)
		if err != nil {
			return err
		}
		switch be.Uint32(h) {
		case magicSimple:
			if be.Uint64(h[8:]) != c.cookie {
				return errors.New("reply to another request")
			}
			if e := be.Uint32(h[4:]); e != 0 {
				return &replyError{e, ""}
			}
			_, err := io.ReadFull(c.c, p)
			return err
		case magicChunk:
		default:
			return errors.New("reply without its magic")
		}
		more, err := c.take(4)
		if err != nil {
			return err
		}
		cf, ct, length := be.Uint16(h[4:]), be.Uint16(h[6:]), be.Uint32(more)
		if be.Uint64(h[8:]) != c.cookie {
			return errors.New("reply to another request")
		}
		if length > MaxRequest+64 {
			return fmt.Errorf("reply chunk of %d bytes", length)
		}
		body, err := c.take(int(length))
		if err != nil {
			return err
		}
		switch {
		case ct&(1<<15) != 0:
			if len(body) < 6 {
				return errors.New("short error chunk")
			}
			refused = &replyError{be.Uint32(body), string(body[6:min(len(body), 6+int(be.Uint16(body[4:])))])}
		case ct == chunkData:
			if err := place(p, body, off); err != nil {
				return err
			}
		case ct == 2: // hole: offset and length
			if len(body) != 12 {
				return errors.New("hole chunk of a wrong length")
			}
			at, k := int64(be.Uint64(body))-off, int64(be.Uint32(body[8:]))
			if at < 0 || at+k > int64(len(p)) {
				return errors.New("hole outside of the request")
			}
			clear(p[at : at+k])
		case ct == chunkBlockStatus:
			for x := body[min(4, len(body)):]; len(x) >= 8 && f != nil; x = x[8:] {
				f(be.Uint32(x), be.Uint32(x[4:]))
			}
		}
		if cf&chunkDone != 0 {
			return refused
		}
	}
}

func place(p, body []byte, off int64) error {
	if len(body) < 8 {
		return errors.New("short data chunk")
	}
	at := int64(be.Uint64(body)) - off
	if at < 0 || at+int64(len(body)-8) > int64(len(p)) {
		return errors.New("data outside of the request")
	}
	copy(p[at:], body[8:])
	return nil
}

// replyError is an error that the server answered with; the connection goes on.
type replyError struct {
	errno uint32
	text  string
}

func (e *replyError) Error() string {
	if e.text != "" {
		return fmt.Sprintf("NBD server: error %d: %s", e.errno, e.text)
	}
	return fmt.Sprintf("NBD server: error %d", e.errno)
}

// Unwrap is the device error that the number stands for, where it is certain.
func (e *replyError) Unwrap() error {
	switch e.errno {
	case errPerm:
		return block.ErrReadOnly
	case errNoSpace:
		return block.ErrNoSpace
	case errInval:
		return block.ErrRange
	}
	return nil
}

// Err tells why the connection is of no use any more, nil while it is.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// Size is the capacity in bytes.
func (c *Client) Size() int64 { return c.size }

// each splits a range into requests of at most 4 MiB.
func each(off, n int64, f func(off, n int64) error) error {
	const most = 4 << 20
	for n > 0 {
		k := min(n, most)
		if err := f(off, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// ReadAt fills p.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	err := each(off, int64(len(p)), func(o, n int64) error { return c.do(cmdRead, 0, o, int(n), nil, p[o-off:o-off+n], nil) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes p.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	err := each(off, int64(len(p)), func(o, n int64) error { return c.do(cmdWrite, 0, o, int(n), p[o-off:o-off+n], nil, nil) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes all acknowledged writes durable.
func (c *Client) Flush() error { return c.do(cmdFlush, 0, 0, 0, nil, nil, nil) }

// Discard drops the content of the range.
func (c *Client) Discard(off, n int64) error {
	return each(off, n, func(o, k int64) error { return c.do(cmdTrim, 0, o, int(k), nil, nil, nil) })
}

// WriteZeroes makes the range read as zeros.
func (c *Client) WriteZeroes(off, n int64, noHole bool) error {
	var flags uint16
	if noHole {
		flags = cmdFlagNoHole
	}
	return each(off, n, func(o, k int64) error { return c.do(cmdWriteZeroes, flags, o, int(k), nil, nil, nil) })
}

// BlockStatus describes the range. Without base:allocation all of it counts as data.
func (c *Client) BlockStatus(off, n int64, most int) ([]block.Extent, error) {
	if !c.alloc {
		return []block.Extent{{Off: off, Len: n}}, nil
	}
	var out []block.Extent
	at := off
	err := c.do(cmdBlockStatus, 0, off, int(min(n, 1<<30)), nil, nil, func(length, state uint32) {
		if len(out) < most && at < off+n {
			l := min(int64(length), off+n-at)
			out = append(out, block.Extent{Off: at, Len: l, Hole: state&stateHole != 0 && state&stateZero != 0})
			at += l
		}
	})
	if err == nil && len(out) == 0 {
		return nil, errors.New("NBD server: empty block status")
	}
	return out, err
}

// Close ends the connection in order.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		b := be.AppendUint32(nil, magicRequest)
		_, _ = c.c.Write(append(be.AppendUint16(be.AppendUint16(b, 0), cmdDisc), make([]byte, 20)...))
		c.broken = block.ErrClosed
	}
	return c.c.Close()
}
