package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/sealdesk/sealdesk/internal/block"
)

const (
	inSize     = 256 << 10 // receive buffer
	outBatch   = 32 << 10  // replies are sent when this much has gathered
	outKeep    = 1 << 20   // a larger reply buffer is not kept
	reqHeader  = 28
	maxFlushes = 64 // on their way, of one connection
	maxExtents = 2048
	readPiece  = 1 << 20 // a longer structured read is sent in pieces
)

// transmission is the working state of one connection after negotiation.
type transmission struct {
	s          *Server
	c          net.Conn
	dev        block.Device
	batch      block.Batcher // nil: the device cannot batch
	readOnly   bool
	structured bool
	context    bool
	name       string
	size       int64

	in   []byte
	r, w int // in[r:w] was received and not worked yet

	out     []byte
	pending []int    // where in out the error fields of writes that wait for Push are
	flushes []uint64 // cookies of flushes and FUA writes of this batch

	wmu      sync.Mutex // serialises socket writes
	flushing sync.WaitGroup
	slots    chan struct{}
}

type request struct {
	flags, typ uint16
	cookie     uint64
	off        uint64
	n          uint32
}

var errDisconnect = errors.New("client disconnected")

func (t *transmission) run() error {
	t.in = make([]byte, inSize)
	t.slots = make(chan struct{}, maxFlushes)
	err := t.loop()
	if e := t.finish(); err == nil {
		err = e
	}
	t.flushing.Wait()
	if errors.Is(err, errDisconnect) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (t *transmission) loop() error {
	for {
		if err := t.need(reqHeader); err != nil {
			if errors.Is(err, io.EOF) && t.r != t.w {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		h := t.in[t.r:]
		if be.Uint32(h) != magicRequest {
			return fmt.Errorf("request with magic %#x", be.Uint32(h))
		}
		q := request{flags: be.Uint16(h[4:]), typ: be.Uint16(h[6:]), cookie: be.Uint64(h[8:]), off: be.Uint64(h[16:]), n: be.Uint32(h[24:])}
		t.r += reqHeader
		if err := t.request(q); err != nil {
			return err
		}
		if len(t.out) >= outBatch {
			if err := t.finish(); err != nil {
				return err
			}
		}
	}
}

// need makes in[r:r+n] available. Before it waits for the client, it answers what was worked.
func (t *transmission) need(n int) error {
	for t.w-t.r < n {
		if err := t.finish(); err != nil {
			return err
		}
		if t.r == t.w {
			t.r, t.w = 0, 0
		} else if len(t.in)-t.r < n || t.w == len(t.in) {
			t.w = copy(t.in, t.in[t.r:t.w])
			t.r = 0
		}
		k, err := t.c.Read(t.in[t.w:])
		t.w += k
		if err != nil {
			return err
		}
	}
	return nil
}

// finish pushes the writes of the batch and sends all replies.
func (t *transmission) finish() error {
	if len(t.pending) > 0 || len(t.flushes) > 0 {
		var err error
		if t.batch != nil {
			err = t.batch.Push()
		}
		if err != nil {
			t.s.Logger.Error("nbd write", "export", t.name, "err", err)
			for _, at := range t.pending {
				be.PutUint32(t.out[at:], errno(err))
			}
			for _, c := range t.flushes {
				t.simple(c, errno(err))
			}
			t.flushes = t.flushes[:0]
		}
		t.pending = t.pending[:0]
	}
	if len(t.flushes) > 0 {
		cookies := slices.Clone(t.flushes)
		t.flushes = t.flushes[:0]
		t.slots <- struct{}{}
		t.flushing.Go(func() {
			defer func() { <-t.slots }()
			err := t.dev.Flush()
			if err != nil {
				t.s.Logger.Error("nbd flush", "export", t.name, "err", err)
			}
			var b []byte
			for _, c := range cookies {
				b = appendSimple(b, c, errno(err))
			}
			t.wmu.Lock()
			_, _ = t.c.Write(b) // a dead client shows in the reader
			t.wmu.Unlock()
		})
	}
	if len(t.out) == 0 {
		return nil
	}
	t.wmu.Lock()
	_, err := t.c.Write(t.out)
	t.wmu.Unlock()
	if cap(t.out) > outKeep {
		t.out = nil
	}
	t.out = t.out[:0]
	return err
}

func appendSimple(b []byte, cookie uint64, e uint32) []byte {
	b = be.AppendUint32(b, magicSimple)
	b = be.AppendUint32(b, e)
	return be.AppendUint64(b, cookie)
}

func (t *transmission) simple(cookie uint64, e uint32) { t.out = appendSimple(t.out, cookie, e) }

func (t *transmission) chunk(flags, typ uint16, cookie uint64, n uint32) {
	t.out = be.AppendUint32(t.out, magicChunk)
	t.out = be.AppendUint16(t.out, flags)
	t.out = be.AppendUint16(t.out, typ)
	t.out = be.AppendUint64(t.out, cookie)
	t.out = be.AppendUint32(t.out, n)
}

// fail answers a request that needs a structured reply when those were negotiated.
func (t *transmission) fail(q request, e uint32, msg string) {
	if !t.structured {
		t.simple(q.cookie, e)
		return
	}
	t.chunk(chunkDone, chunkError, q.cookie, uint32(6+len(msg)))
	t.out = be.AppendUint32(t.out, e)
	t.out = be.AppendUint16(t.out, uint16(len(msg)))
	t.out = append(t.out, msg...)
}

// allowed are the flags that each command may carry.
var allowed = [...]uint16{
	cmdRead:        cmdFlagDF | cmdFlagFUA,
	cmdWrite:       cmdFlagFUA,
	cmdDisc:        0xffff,
	cmdFlush:       cmdFlagFUA,
	cmdTrim:        cmdFlagFUA,
	cmdCache:       cmdFlagFUA,
	cmdWriteZeroes: cmdFlagFUA | cmdFlagNoHole | cmdFlagFastZero,
	cmdBlockStatus: cmdFlagFUA | cmdFlagReqOne,
}

func (t *transmission) request(q request) error {
	if q.typ == cmdDisc {
		return errDisconnect
	}
	if q.typ == cmdWrite {
		return t.write(q)
	}
	if int(q.typ) >= len(allowed) {
		t.simple(q.cookie, errInval)
		return nil
	}
	inRange := q.off <= uint64(t.size) && uint64(q.n) <= uint64(t.size)-q.off
	bad := q.flags&^allowed[q.typ] != 0 || (q.typ != cmdFlush && !inRange)
	switch q.typ {
	case cmdRead:
		switch {
		case bad || (q.flags&cmdFlagDF != 0 && !t.structured):
			t.fail(q, errInval, "read outside of the export, or with flags that do not belong to it")
		case q.n > MaxRequest:
			t.fail(q, errOverflow, "read of more than 32 MiB")
		default:
			return t.read(q)
		}
		return nil
	case cmdBlockStatus:
		if bad || !t.context || q.n == 0 {
			t.fail(q, errInval, "block status without base:allocation, or outside of the export")
			return nil
		}
		t.blockStatus(q)
		return nil
	case cmdFlush:
		if bad || q.off != 0 || q.n != 0 {
			t.simple(q.cookie, errInval)
			return nil
		}
		t.flushes = append(t.flushes, q.cookie)
		return nil
	case cmdCache: // nothing to do: the host's page cache follows by itself
		if bad {
			t.simple(q.cookie, errInval)
		} else {
			t.simple(q.cookie, 0)
		}
		return nil
	}
	// trim, write zeroes
	var err error
	switch {
	case t.readOnly:
		t.simple(q.cookie, errPerm)
		return nil
	case bad && q.typ == cmdWriteZeroes && q.flags&^allowed[q.typ] == 0:
		t.simple(q.cookie, errNoSpace) // the specification's answer to writing past the end
		return nil
	case bad:
		t.simple(q.cookie, errInval)
		return nil
	case q.flags&cmdFlagFastZero != 0 && q.flags&cmdFlagNoHole != 0:
		t.simple(q.cookie, errNotSup) // it would have to write zeros
		return nil
	case q.typ == cmdTrim:
		err = t.dev.Discard(int64(q.off), int64(q.n))
	default:
		err = t.dev.WriteZeroes(int64(q.off), int64(q.n), q.flags&cmdFlagNoHole != 0)
	}
	t.done(q, err)
	return nil
}

// done answers a request that changed something.
func (t *transmission) done(q request, err error) {
	switch {
	case err != nil:
		t.s.Logger.Error("nbd request", "export", t.name, "type", q.typ, "offset", q.off, "length", q.n, "err", err)
		t.simple(q.cookie, errno(err))
	case q.flags&cmdFlagFUA != 0:
		t.flushes = append(t.flushes, q.cookie)
	default:
		t.pending = append(t.pending, len(t.out)+4)
		t.simple(q.cookie, 0)
	}
}

func (t *transmission) write(q request) error {
	if q.n > MaxRequest {
		return fmt.Errorf("write of %d bytes", q.n)
	}
	var refuse uint32
	switch {
	case t.readOnly:
		refuse = errPerm
	case q.flags&^allowed[cmdWrite] != 0:
		refuse = errInval
	case q.off > uint64(t.size) || uint64(q.n) > uint64(t.size)-q.off:
		refuse = errNoSpace
	}
	var err error
	for off, left := int64(q.off), int(q.n); left > 0; {
		k := left
		if k > inSize-reqHeader {
			k = inSize/2 - int(off%block.BlockSize) // pieces that end on a block
		}
		if e := t.need(k); e != nil {
			return e
		}
		if refuse == 0 && err == nil {
			if t.batch != nil {
				err = t.batch.WriteBuffered(t.in[t.r:t.r+k], off)
			} else {
				_, err = t.dev.WriteAt(t.in[t.r:t.r+k], off)
			}
		}
		t.r += k
		off += int64(k)
		left -= k
	}
	if refuse != 0 {
		t.simple(q.cookie, refuse)
		return nil
	}
	t.done(q, err)
	return nil
}

func (t *transmission) read(q request) error {
	off, left := int64(q.off), int(q.n)
	if !t.structured {
		t.simple(q.cookie, 0)
		at := len(t.out)
		t.out = slices.Grow(t.out, left)[:at+left]
		if _, err := t.dev.ReadAt(t.out[at:], off); err != nil {
			t.s.Logger.Error("nbd read", "export", t.name, "offset", off, "length", left, "err", err)
			t.out = t.out[:at]
			be.PutUint32(t.out[at-12:], errno(err))
		}
		return nil
	}
	if left == 0 {
		t.chunk(chunkDone, chunkNone, q.cookie, 0)
		return nil
	}
	for left > 0 {
		k := left
		if k > readPiece && q.flags&cmdFlagDF == 0 {
			k = readPiece
		}
		var f uint16
		if k == left {
			f = chunkDone
		}
		start := len(t.out)
		t.chunk(f, chunkData, q.cookie, uint32(8+k))
		t.out = be.AppendUint64(t.out, uint64(off))
		at := len(t.out)
		t.out = slices.Grow(t.out, k)[:at+k]
		if _, err := t.dev.ReadAt(t.out[at:], off); err != nil {
			t.s.Logger.Error("nbd read", "export", t.name, "offset", off, "length", k, "err", err)
			t.out = t.out[:start]
			t.fail(q, errno(err), message(err))
			return nil
		}
		off, left = off+int64(k), left-k
		if left > 0 {
			if err := t.finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

// message is an error's text, cut to what fits in an error chunk.
func message(err error) string {
	s := err.Error()
	return s[:min(len(s), 512)]
}

func (t *transmission) blockStatus(q request) {
	most := maxExtents
	if q.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	es, err := t.dev.BlockStatus(int64(q.off), int64(q.n), most)
	if err != nil {
		t.s.Logger.Error("nbd block status", "export", t.name, "offset", q.off, "length", q.n, "err", err)
		t.fail(q, errno(err), message(err))
		return
	}
	t.chunk(chunkDone, chunkBlockStatus, q.cookie, uint32(4+8*len(es)))
	t.out = be.AppendUint32(t.out, contextID)
	for _, e := range es {
		state := uint32(0)
		if e.Hole {
			state = stateHole | stateZero
		}
		t.out = be.AppendUint32(t.out, uint32(e.Len))
		t.out = be.AppendUint32(t.out, state)
	}
}
