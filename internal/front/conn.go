package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// phase is what a connection does.
type phase uint32

const (
	opening phase = iota // its first request has not begun to arrive
	idle                 // waits for another request
	reading              // a request is arriving
	working              // the handler runs
	writing              // the reply is being sent
	closed               // by whoever got it here, from another goroutine than its own
)

// maxReads is in how many pieces a request may come; what trickles is net/http's.
const maxReads = 16

// piece is what a client must take of a reply within the time limit.
const piece = 64 << 10

// conn is one connection, served by one goroutine.
type conn struct {
	s      *Server
	rwc    net.Conn
	raw    syscall.RawConn // of the socket, nil when there is none
	remote string
	tls    *tls.ConnectionState
	ctx    context.Context // of all requests

	mu     sync.Mutex
	cancel context.CancelFunc // ends the present request's context, nil between requests

	// state is the phase, in the low bits, and the second in which it began. Only a
	// successful swap changes it, so a connection that the watch closes for its time
	// is not at the same moment at work on a request.
	state atomic.Uint32

	buf  []byte // buf[:n] was read and not yet answered
	n    int
	head head
	w    response

	alike http.Request // what all requests have in common
}

const phaseBits = 3

func newConn(s *Server, rwc net.Conn) *conn {
	c := &conn{s: s, rwc: rwc}
	c.state.Store(s.tick.Load()<<phaseBits | uint32(opening))
	sock := rwc
	if t, ok := rwc.(*tls.Conn); ok {
		sock = t.NetConn()
	}
	if sc, ok := sock.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

// enter begins a phase; false when the connection was closed meanwhile.
func (c *conn) enter(p phase) bool {
	old := c.state.Load()
	return phase(old&(1<<phaseBits-1)) != closed && c.state.CompareAndSwap(old, c.s.tick.Load()<<phaseBits|uint32(p))
}

// stop closes the connection unless its state has changed.
func (c *conn) stop(state uint32) {
	if c.state.CompareAndSwap(state, uint32(closed)) {
		go c.rwc.Close() // over TLS it says goodbye, for which it may wait
	}
}

// retire closes a connection that waits for a request.
func (c *conn) retire() {
	switch state := c.state.Load(); phase(state & (1<<phaseBits - 1)) {
	case opening, idle:
		c.stop(state)
	}
}

// look keeps the time limits.
func (c *conn) look(now uint32) {
	state := c.state.Load()
	age := now - state>>phaseBits
	age &= 1<<(32-phaseBits) - 1
	over := func(limit time.Duration) bool {
		return limit > 0 && time.Duration(age-1)*time.Second >= limit && age > 0
	}
	h := c.s.http
	switch phase(state & (1<<phaseBits - 1)) {
	case opening, reading, writing:
		if over(h.ReadHeaderTimeout) {
			c.stop(state)
		}
	case idle:
		if over(h.IdleTimeout) {
			c.stop(state)
		}
	case working:
		if age > 0 && c.left() {
			c.mu.Lock()
			if c.cancel != nil {
				c.cancel()
			}
			c.mu.Unlock()
		}
	}
}

// left reports whether the client has closed its side.
func (c *conn) left() bool {
	if c.raw == nil {
		return false
	}
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

func (c *conn) serve() {
	c.ctx = context.WithValue(context.WithValue(context.Background(), http.ServerContextKey, c.s.http), http.LocalAddrContextKey, c.rwc.LocalAddr())
	over := false // to net/http
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.s.logf("front: panic serving %v: %v\n%s", c.remote, p, debug.Stack())
		}
		if !over {
			c.rwc.Close()
		}
		c.w.wipe()
		clear(c.buf)
		c.s.gone(c)
	}()
	c.remote = c.rwc.RemoteAddr().String()
	if t, ok := c.rwc.(*tls.Conn); ok && !c.handshake(t) {
		return
	}
	if c.s.closing.Load() {
		return
	}
	c.alike = http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: c.remote, RequestURI: "/", TLS: c.tls}
	for {
		size, v := c.read()
		switch v {
		case foreign:
			over = c.enter(closed) && c.handOver()
			return
		case partial:
			return // closed
		}
		if !c.enter(working) || !c.answer(size) {
			return
		}
		c.consume(size + c.head.length)
		if !c.enter(idle) || c.s.closing.Load() {
			return
		}
	}
}

func (c *conn) handshake(t *tls.Conn) bool {
	if err := t.Handshake(); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil && plain.RecordHeader[0] >= 'A' && plain.RecordHeader[0] <= 'Z' {
			_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		}
		c.s.logf("front: TLS handshake error from %s: %v", c.remote, err)
		return false
	}
	state := t.ConnectionState()
	c.tls = &state
	return true
}

// read reads until a whole request is in the buffer (the size of its head is
// returned), the connection's next request is net/http's, or the connection has
// ended (partial).
func (c *conn) read() (size int, v verdict) {
	for reads := 0; ; reads++ {
		if c.n > 0 {
			if size == 0 {
				size, v = c.head.parse(c.buf[:c.n])
			}
			switch need := size + c.head.length; {
			case v == foreign, reads == maxReads, v == whole && need > maxRequest:
				return 0, foreign
			case v == whole && c.n >= need:
				return size, whole
			case v == whole:
				c.room(need)
			}
			if reads <= 1 && !c.enter(reading) {
				return 0, partial
			}
		}
		c.room(c.n + 1)
		n, err := c.rwc.Read(c.buf[c.n:])
		if c.n += n; n == 0 && err != nil {
			if c.n > 0 {
				return 0, foreign // net/http has an answer to what was cut short
			}
			return 0, partial
		}
	}
}

// room makes the buffer hold n bytes at least.
func (c *conn) room(n int) {
	if n > len(c.buf) {
		larger := make([]byte, max(n, 2*len(c.buf), 4<<10))
		copy(larger, c.buf[:c.n])
		clear(c.buf)
		c.buf = larger
	}
}

// consume takes an answered request from the buffer and wipes it, since its body may be
// key material.
func (c *conn) consume(size int) {
	rest := copy(c.buf, c.buf[size:c.n])
	// Some old clients send a line end after the body (RFC 9112, section 2.2).
	skip := 0
	for skip < rest && skip < 4 && (c.buf[skip] == '\r' || c.buf[skip] == '\n') {
		skip++
	}
	rest = copy(c.buf, c.buf[skip:rest])
	clear(c.buf[rest:c.n])
	c.n = rest
	if rest == 0 && len(c.buf) > 16<<10 {
		c.buf = nil
	}
}

// exchange is one request.
type exchange struct {
	url  url.URL
	body body
}

type body struct{ rest []byte }

func (b *body) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Whole takes all that is left to read, in the connection's buffer: valid until
// the handler returns.
func (b *body) Whole() []byte {
	rest := b.rest
	b.rest = nil
	return rest
}

func (b *body) Close() error {
	b.rest = nil
	return nil
}

func (c *conn) ends(cancel context.CancelFunc) {
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
}

// answer runs the handler on the request in the buffer and sends its reply. It
// returns whether the connection goes on.
func (c *conn) answer(size int) bool {
	ctx, cancel := context.WithCancel(c.ctx)
	c.ends(cancel)
	defer func() {
		c.ends(nil)
		cancel()
	}()
	x := &exchange{url: url.URL{Path: "/"}, body: body{c.buf[size : size+c.head.length]}}
	r := c.alike.WithContext(ctx) // a copy
	r.URL, r.Header, r.Host, r.ContentLength = &x.url, c.head.header, c.head.host, int64(c.head.length)
	if c.head.length > 0 {
		r.Body = &x.body
	}
	c.w.reset()
	defer c.w.wipe()
	c.s.http.Handler.ServeHTTP(&c.w, r)
	x.body.rest = nil
	if c.s.closing.Load() {
		c.w.closes = true
	}
	if !c.w.finish() {
		return false
	}
	for b := c.w.head; len(b) > 0; {
		n := min(len(b), piece)
		if !c.enter(writing) {
			return false
		}
		if _, err := c.rwc.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
	}
	return !c.w.closes
}

// handOver gives the connection to net/http.
func (c *conn) handOver() bool {
	h := handed{Conn: c.rwc, read: append([]byte(nil), c.buf[:c.n]...)}
	if c.tls != nil {
		return c.s.feed.give(&handedTLS{h, *c.tls})
	}
	return c.s.feed.give(&h)
}
