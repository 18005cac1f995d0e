package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
)

// handshakeTimeout bounds the negotiation as a whole.
const handshakeTimeout = 30 * time.Second

// maxOption bounds one option's data. The specification caps strings at 4096 bytes.
const maxOption = 64 << 10

// maxOptions bounds the number of options of one negotiation.
const maxOptions = 256

type handshake struct {
	s          *Server
	c          net.Conn
	tls        *tls.Conn // nil before STARTTLS
	noZeroes   bool
	structured bool
	context    bool    // base:allocation was chosen …
	contextOf  *Export // … for this export
}

var be = binary.BigEndian

// run returns the export to serve, or nil when the client left in order.
func (h *handshake) run() (*Export, error) {
	_ = h.c.SetDeadline(time.Now().Add(handshakeTimeout))
	b := be.AppendUint64(nil, magicInit)
	b = be.AppendUint64(b, magicOpt)
	b = be.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := h.c.Write(b); err != nil {
		return nil, err
	}
	var buf [16]byte
	if _, err := io.ReadFull(h.c, buf[:4]); err != nil {
		return nil, eofIsFine(err)
	}
	flags := be.Uint32(buf[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 || flags&flagFixedNewstyle == 0 {
		return nil, fmt.Errorf("client flags %#x are not supported", flags)
	}
	h.noZeroes = flags&flagNoZeroes != 0
	for range maxOptions {
		if _, err := io.ReadFull(h.c, buf[:16]); err != nil {
			return nil, eofIsFine(err)
		}
		if be.Uint64(buf[:]) != magicOpt {
			return nil, errors.New("option without its magic")
		}
		opt, n := be.Uint32(buf[8:]), be.Uint32(buf[12:])
		if n > maxOption {
			return nil, fmt.Errorf("option %d of %d bytes", opt, n)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(h.c, data); err != nil {
			return nil, err
		}
		e, done, err := h.option(opt, data)
		if err != nil || done {
			if err == nil {
				err = h.c.SetDeadline(time.Time{})
			}
			return e, err
		}
	}
	return nil, errors.New("too many options")
}

func eofIsFine(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (h *handshake) reply(opt, typ uint32, data []byte) error {
	b := be.AppendUint64(make([]byte, 0, 20+len(data)), magicOptReply)
	b = be.AppendUint32(b, opt)
	b = be.AppendUint32(b, typ)
	b = be.AppendUint32(b, uint32(len(data)))
	_, err := h.c.Write(append(b, data...))
	return err
}

func (h *handshake) refuse(opt, typ uint32, format string, a ...any) error {
	return h.reply(opt, typ, fmt.Appendf(nil, format, a...))
}

func (h *handshake) option(opt uint32, data []byte) (e *Export, done bool, err error) {
	if h.s.TLS != nil && h.tls == nil && opt != optStartTLS && opt != optAbort {
		if opt == optExportName {
			return nil, true, errors.New("client without TLS") // it has no way to be told
		}
		return nil, false, h.refuse(opt, repErrTLSReqd, "start TLS first")
	}
	switch opt {
	case optExportName:
		e := h.s.find(string(data))
		if e == nil {
			return nil, true, fmt.Errorf("no export %q", data)
		}
		b := be.AppendUint64(nil, uint64(e.Device.Size()))
		b = be.AppendUint16(b, h.flags(e))
		if !h.noZeroes {
			b = append(b, make([]byte, 124)...)
		}
		_, err := h.c.Write(b)
		return e, true, err
	case optAbort:
		_ = h.reply(opt, repAck, nil)
		return nil, true, nil
	case optList:
		if len(data) != 0 {
			return nil, false, h.refuse(opt, repErrInvalid, "NBD_OPT_LIST takes no data")
		}
		for i := range h.s.Exports {
			x := &h.s.Exports[i]
			b := be.AppendUint32(nil, uint32(len(x.Name)))
			b = append(append(b, x.Name...), x.Description...)
			if err := h.reply(opt, repServer, b); err != nil {
				return nil, false, err
			}
		}
		return nil, false, h.reply(opt, repAck, nil)
	case optInfo, optGo:
		return h.info(opt, data)
	case optStructured:
		if len(data) != 0 {
			return nil, false, h.refuse(opt, repErrInvalid, "NBD_OPT_STRUCTURED_REPLY takes no data")
		}
		h.structured = true
		return nil, false, h.reply(opt, repAck, nil)
	case optListContext, optSetContext:
		return nil, false, h.metaContext(opt, data)
	case optStartTLS:
		return nil, false, h.startTLS(data)
	}
	return nil, false, h.refuse(opt, repErrUnsup, "option %d is not supported", opt)
}

// startTLS goes on encrypted. What was agreed before is forgotten, as the specification asks.
func (h *handshake) startTLS(data []byte) error {
	switch {
	case h.s.TLS == nil:
		return h.refuse(optStartTLS, repErrPolicy, "this is a local socket; TLS is not offered on it")
	case len(data) != 0 || h.tls != nil:
		return h.refuse(optStartTLS, repErrInvalid, "NBD_OPT_STARTTLS comes once and takes no data")
	}
	if err := h.reply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	h.tls = tls.Server(h.c, h.s.TLS)
	if err := h.tls.Handshake(); err != nil { // within the deadline of the negotiation
		return fmt.Errorf("TLS: %w", err)
	}
	h.c = h.tls
	h.structured, h.context, h.contextOf = false, false, nil
	return nil
}

// takeString cuts a string with a 32-bit length off p.
func takeString(p []byte) (s string, rest []byte, ok bool) {
	if len(p) < 4 {
		return "", nil, false
	}
	n := be.Uint32(p)
	if uint64(n) > uint64(len(p)-4) || n > 4096 {
		return "", nil, false
	}
	return string(p[4 : 4+n]), p[4+n:], true
}

func (h *handshake) info(opt uint32, data []byte) (*Export, bool, error) {
	name, rest, ok := takeString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(be.Uint16(rest)) {
		return nil, false, h.refuse(opt, repErrInvalid, "malformed request")
	}
	e := h.s.find(name)
	if e == nil {
		return nil, false, h.refuse(opt, repErrUnknown, "no export %q here", name)
	}
	b := be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, uint64(e.Device.Size()))
	b = be.AppendUint16(b, h.flags(e))
	if err := h.reply(opt, repInfo, b); err != nil {
		return nil, false, err
	}
	b = be.AppendUint16(nil, infoBlockSize)
	b = be.AppendUint32(b, 512)
	b = be.AppendUint32(b, block.BlockSize)
	b = be.AppendUint32(b, MaxRequest)
	if err := h.reply(opt, repInfo, b); err != nil {
		return nil, false, err
	}
	for p := rest[2:]; len(p) > 0; p = p[2:] {
		var text string
		typ := be.Uint16(p)
		switch typ {
		case infoName:
			text = e.Name
		case infoDescription:
			text = e.Description
		default:
			continue
		}
		if err := h.reply(opt, repInfo, append(be.AppendUint16(nil, typ), text...)); err != nil {
			return nil, false, err
		}
	}
	if err := h.reply(opt, repAck, nil); err != nil {
		return nil, false, err
	}
	return e, opt == optGo, nil
}

func (h *handshake) metaContext(opt uint32, data []byte) error {
	if opt == optSetContext {
		h.context, h.contextOf = false, nil
	}
	name, rest, ok := takeString(data)
	if !ok || len(rest) < 4 {
		return h.refuse(opt, repErrInvalid, "malformed request")
	}
	n := be.Uint32(rest)
	rest = rest[4:]
	if !h.structured {
		return h.refuse(opt, repErrInvalid, "negotiate structured replies first")
	}
	e := h.s.find(name)
	if e == nil {
		return h.refuse(opt, repErrUnknown, "no export %q here", name)
	}
	match := n == 0 && opt == optListContext
	for range n {
		var q string
		if q, rest, ok = takeString(rest); !ok {
			return h.refuse(opt, repErrInvalid, "malformed query")
		}
		if q == contextName || (opt == optListContext && q == "base:") {
			match = true
		}
	}
	if len(rest) != 0 {
		return h.refuse(opt, repErrInvalid, "%d bytes too many", len(rest))
	}
	if match {
		id := uint32(0)
		if opt == optSetContext {
			h.context, h.contextOf = true, e
			id = contextID
		}
		if err := h.reply(opt, repMetaContext, append(be.AppendUint32(nil, id), contextName...)); err != nil {
			return err
		}
	}
	return h.reply(opt, repAck, nil)
}

// flags are the transmission flags of an export.
func (h *handshake) flags(e *Export) uint16 {
	f := uint16(transHasFlags | transFlush | transFUA | transMultiConn | transCache)
	if h.structured {
		f |= transDF
	}
	if e.ReadOnly {
		return f | transReadOnly
	}
	return f | transTrim | transZeroes | transFastZero
}
