// Package nbd serves block devices over the Network Block Device protocol, as
// written down in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
//
// Served: fixed newstyle negotiation; NBD_OPT_EXPORT_NAME, ABORT, LIST, INFO, GO,
// STRUCTURED_REPLY, LIST_META_CONTEXT and SET_META_CONTEXT (base:allocation);
// NBD_CMD_READ (with DF), WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES (with
// NO_HOLE and FAST_ZERO), BLOCK_STATUS (with REQ_ONE); FUA; several connections to one export
// (CAN_MULTI_CONN: a flush on any of them covers writes answered on all of them).
// STARTTLS with client certificates: a server with a TLS configuration serves nothing before it.
// Not served: extended headers, resize.
//
// # How a connection is worked
//
// One goroutine owns a connection: it takes whatever requests have arrived, works
// them in order, pushes the writes among them to the host in one go, and only then
// sends the replies, also in one go. So an answered write survives the death of this
// process. Only flushes leave the goroutine, because they wait for the disk.
package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/sealdesk/sealdesk/internal/block"
)

// Export is a device and the name clients ask for it by.
type Export struct {
	Name        string
	Description string
	Device      block.Device
	ReadOnly    bool
}

// Server serves exports. The zero value with Exports filled in is usable.
type Server struct {
	// Exports are offered by name. A client that asks for "" gets the only one there is.
	Exports []Export
	// TLS, when not nil, is what every client must start before anything else (the specification's FORCEDTLS mode). MutualTLS
	// makes one that asks for client certificates. Any listener but a unix socket should have it.
	TLS    *tls.Config
	Logger *slog.Logger

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

// MutualTLS is a configuration that shows a certificate and accepts clients with one that an authority in the file ca
// has signed, TLS 1.2 or newer. All files are PEM.
func MutualTLS(ca, cert, key string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("NBD certificate: %w", err)
	}
	b, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("NBD certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("NBD certificate authority: %s holds no certificate", ca)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}, nil
}

// MaxRequest is the largest payload of a read or write.
const MaxRequest = 32 << 20

// maxConns bounds connections of one server; more are closed at once.
const maxConns = 64

// Serve accepts connections until ctx ends or the listener is closed, and then closes
// them and waits for requests on their way. It does not flush or close the devices.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.shutdown()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		s.mu.Lock()
		if s.closed || len(s.conns) >= maxConns {
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.conns[c] = struct{}{}
		s.wg.Add(1)
		s.mu.Unlock()
		go func() {
			defer s.wg.Done()
			err := s.ServeConn(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			if err != nil && ctx.Err() == nil {
				s.Logger.Debug("nbd connection ended", "err", err)
			}
		}()
	}
}

// Conns is the number of open connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) shutdown() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// ServeConn negotiates and serves one connection until the client leaves. It does not close c.
func (s *Server) ServeConn(c net.Conn) error {
	h := &handshake{s: s, c: c}
	e, err := h.run()
	if h.c != c { // TLS was started; its end is told to the peer
		defer h.c.Close()
	}
	if err != nil || e == nil {
		return err
	}
	t := &transmission{
		s: s, c: h.c, dev: e.Device, readOnly: e.ReadOnly, structured: h.structured, context: h.context && h.contextOf == e,
		name: e.Name, size: e.Device.Size(),
	}
	t.batch, _ = e.Device.(block.Batcher)
	return t.run()
}

func (s *Server) find(name string) *Export {
	for i := range s.Exports {
		if s.Exports[i].Name == name || (name == "" && len(s.Exports) == 1) {
			return &s.Exports[i]
		}
	}
	return nil
}

// Numbers of the protocol.
const (
	magicInit     = 0x4e42444d41474943 // NBDMAGIC
	magicOpt      = 0x49484156454F5054 // IHAVEOPT
	magicOptReply = 0x3e889045565a9
	magicRequest  = 0x25609513
	magicSimple   = 0x67446698
	magicChunk    = 0x668e33ef

	flagFixedNewstyle = 1
	flagNoZeroes      = 2

	optExportName  = 1
	optAbort       = 2
	optList        = 3
	optStartTLS    = 5
	optInfo        = 6
	optGo          = 7
	optStructured  = 8
	optListContext = 9
	optSetContext  = 10

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErrUnsup    = 1<<31 + 1
	repErrPolicy   = 1<<31 + 2
	repErrInvalid  = 1<<31 + 3
	repErrTLSReqd  = 1<<31 + 5
	repErrUnknown  = 1<<31 + 6
	repErrTooBig   = 1<<31 + 9

	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3

	transHasFlags   = 1 << 0
	transReadOnly   = 1 << 1
	transFlush      = 1 << 2
	transFUA        = 1 << 3
	transTrim       = 1 << 5
	transZeroes     = 1 << 6
	transDF         = 1 << 7
	transMultiConn  = 1 << 8
	transCache      = 1 << 10
	transFastZero   = 1 << 11
	cmdRead         = 0
	cmdWrite        = 1
	cmdDisc         = 2
	cmdFlush        = 3
	cmdTrim         = 4
	cmdCache        = 5
	cmdWriteZeroes  = 6
	cmdBlockStatus  = 7
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4

	chunkDone        = 1
	chunkNone        = 0
	chunkData        = 1
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1

	errPerm     = 1
	errIO       = 5
	errInval    = 22
	errNoSpace  = 28
	errOverflow = 75
	errNotSup   = 95
	errShutdown = 108

	contextID   = 1
	contextName = "base:allocation"
	stateHole   = 1
	stateZero   = 2
)

// errno translates a device error.
func errno(err error) uint32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, block.ErrRange):
		return errInval
	case errors.Is(err, block.ErrNoSpace):
		return errNoSpace
	case errors.Is(err, block.ErrReadOnly):
		return errPerm
	case errors.Is(err, block.ErrClosed):
		return errShutdown
	}
	return errIO
}
