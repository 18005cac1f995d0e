package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers on a listener, with net/http behind it. New, Serve once, Shutdown.
type Server struct {
	http *http.Server // the handler and the limits; answers what was handed over
	feed *feed

	tick    atomic.Uint32 // seconds since Serve
	closing atomic.Bool
	quit    chan struct{}

	mu    sync.Mutex
	ln    net.Listener
	conns map[*conn]struct{}
	none  chan struct{} // closed when the last connection went, while closing
}

// New returns a front for srv, which must not be used otherwise. Of its settings the
// front keeps Handler, ReadHeaderTimeout, IdleTimeout and ErrorLog itself.
func New(srv *http.Server) *Server {
	return &Server{http: srv, feed: newFeed(), quit: make(chan struct{}), conns: map[*conn]struct{}{}, none: make(chan struct{})}
}

// Serve answers until Shutdown and then returns http.ErrServerClosed. Connections
// of a TLS listener are known by their type, *tls.Conn; it must not offer HTTP/2.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.ln = l
	s.mu.Unlock()
	if s.closing.Load() {
		l.Close()
		return http.ErrServerClosed
	}
	s.feed.addr = l.Addr()
	go func() { _ = s.http.Serve(s.feed) }()
	go s.watch()
	var wait time.Duration
	for {
		rwc, err := l.Accept()
		switch {
		case err == nil:
			wait = 0
			s.open(rwc)
		case s.closing.Load():
			return http.ErrServerClosed
		case temporary(err): // as when there are no more file descriptors
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.logf("front: accept: %v; trying again in %v", err, wait)
			time.Sleep(wait)
		default:
			return err
		}
	}
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) open(rwc net.Conn) {
	c := newConn(s, rwc)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	go c.serve()
}

// gone forgets a connection that was closed or handed over.
func (s *Server) gone(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.closing.Load() {
		select {
		case <-s.none:
		default:
			close(s.none)
		}
	}
}

// Shutdown stops listening, closes connections that wait for a request, lets calls
// end and closes theirs. When ctx ends first, it returns ctx's error and calls go on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing.Swap(true) {
		close(s.quit)
		if s.ln != nil {
			s.ln.Close()
		}
	}
	for c := range s.conns {
		c.retire()
	}
	if len(s.conns) == 0 {
		select {
		case <-s.none:
		default:
			close(s.none)
		}
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	select {
	case <-s.none:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch looks after all connections, once a second.
func (s *Server) watch() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.quit: // calls that still run are Shutdown's
			return
		case <-t.C:
		}
		now := s.tick.Add(1)
		s.mu.Lock()
		for c := range s.conns {
			c.look(now)
		}
		s.mu.Unlock()
	}
}

func (s *Server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// feed is the listener of connections that are handed over.
type feed struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), done: make(chan struct{})} }

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

func (f *feed) Addr() net.Addr { return f.addr }

// give returns false when net/http's server takes no more.
func (f *feed) give(c net.Conn) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.done:
		return false
	}
}

// handed is a connection of which some bytes were read.
type handed struct {
	net.Conn
	read []byte
}

func (h *handed) Read(b []byte) (int, error) {
	if len(h.read) > 0 {
		n := copy(b, h.read)
		if h.read = h.read[n:]; len(h.read) == 0 {
			h.read = nil
		}
		return n, nil
	}
	return h.Conn.Read(b)
}

// CloseWrite is what net/http asks for before it closes on a client that still writes.
func (h *handed) CloseWrite() error {
	if w, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// handedTLS tells net/http of the TLS session (http.Request.TLS).
type handedTLS struct {
	handed
	state tls.ConnectionState
}

func (h *handedTLS) ConnectionState() tls.ConnectionState { return h.state }
