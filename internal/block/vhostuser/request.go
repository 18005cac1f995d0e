package vhostuser

import (
	"errors"
	"fmt"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
)

// maxBatch requests are worked before their completions are published.
const maxBatch = 64

const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK     = 0
	statusError  = 1
	statusUnsupp = 2

	sector     = 512
	requestLen = 16
)

// worker is the scratch of a queue's goroutine.
type worker struct {
	again   []uint16 // to be taken again after a reconnect
	heads   [maxBatch]uint16
	done    []completion
	pending []pending // writes that wait for Push
	in, out [][]byte  // of the request at hand: from the guest, to the guest
	bounce  []byte
}

type pending struct {
	status []byte
	c      completion
}

// batch works requests in order and publishes what is done.
func (q *queue) batch(heads []uint16) error {
	w := &q.w
	w.done, w.pending = w.done[:0], w.pending[:0]
	var flushes []pending
	for _, h := range heads {
		flush, err := q.one(h)
		if err != nil {
			return err
		}
		if flush != nil {
			flushes = append(flushes, *flush)
		}
	}
	if len(w.pending) > 0 || len(flushes) > 0 {
		if err := q.patiently(q.push); err != nil {
			return err
		}
		for _, p := range w.pending {
			p.status[0] = statusOK
			w.done = append(w.done, p.c)
		}
	}
	q.publish(w.done)
	if len(flushes) > 0 {
		q.flushes.Go(func() {
			err := q.patiently(q.k.dev.Flush)
			if err != nil {
				q.k.fail(err)
				return
			}
			var cs []completion
			for _, f := range flushes {
				f.status[0] = statusOK
				cs = append(cs, f.c)
			}
			q.publish(cs)
		})
	}
	return nil
}

func (q *queue) push() error {
	if q.k.batch == nil {
		return nil
	}
	return q.k.batch.Push()
}

// patiently tries again as long as the host has no room.
func (q *queue) patiently(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, block.ErrNoSpace) || q.quit.Load() {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// walk reads the chain at head into in and out.
func (q *queue) walk(head uint16) error {
	w, r := &q.w, &q.ring
	w.in, w.out = w.in[:0], w.out[:0]
	table, size := r.desc, r.num
	indirect := false
	i := uint32(head)
	for range maxQueueSize + 1 { // an indirect table may be longer than its queue
		if i >= size {
			return fmt.Errorf("%w: descriptor %d of %d", errRing, i, size)
		}
		var d [16]byte
		copy(d[:], table[16*i:]) // read once
		addr, n, flags := le.Uint64(d[:]), uint64(le.Uint32(d[8:])), le.Uint16(d[12:])
		if flags&descIndirect != 0 {
			if indirect || !r.indirect || flags&descNext != 0 || n == 0 || n%16 != 0 || n > 16*maxQueueSize {
				return fmt.Errorf("%w: indirect table of %d bytes", errRing, n)
			}
			t := q.k.mem.guestAt(addr, n)
			if uint64(len(t)) != n {
				return fmt.Errorf("%w: indirect table outside of memory", errRing)
			}
			table, size, i, indirect = t, uint32(n/16), 0, true
			continue
		}
		for n > 0 {
			b := q.k.mem.guestAt(addr, n)
			if b == nil {
				return fmt.Errorf("%w: buffer at %#x outside of memory", errRing, addr)
			}
			if flags&descWrite != 0 {
				w.out = append(w.out, b)
			} else if len(w.out) > 0 {
				return fmt.Errorf("%w: a readable buffer behind a writable one", errRing)
			} else {
				w.in = append(w.in, b)
			}
			if len(w.in)+len(w.out) > maxQueueSize+8 {
				return fmt.Errorf("%w: too many buffers", errRing)
			}
			addr, n = addr+uint64(len(b)), n-uint64(len(b))
		}
		if flags&descNext == 0 {
			return nil
		}
		i = uint32(le.Uint16(d[14:]))
		if indirect && i == 0 {
			return fmt.Errorf("%w: a chain that loops", errRing)
		}
	}
	return fmt.Errorf("%w: a chain that loops", errRing)
}

// cut takes the first n bytes off bufs.
func cut(bufs [][]byte, dst []byte) ([][]byte, bool) {
	for len(dst) > 0 {
		if len(bufs) == 0 {
			return nil, false
		}
		k := copy(dst, bufs[0])
		dst = dst[k:]
		if k == len(bufs[0]) {
			bufs = bufs[1:]
		} else {
			bufs[0] = bufs[0][k:]
		}
	}
	return bufs, true
}

func total(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
		if n > 1<<30 {
			return 1 << 30
		}
	}
	return n
}

// one works a request. It is done, or pending, or a flush that is returned.
func (q *queue) one(head uint16) (*pending, error) {
	w := &q.w
	if err := q.walk(head); err != nil {
		return nil, err
	}
	var h [requestLen]byte
	in, ok := cut(w.in, h[:])
	if !ok || len(w.out) == 0 {
		return nil, fmt.Errorf("%w: a request without header or status", errRing)
	}
	last := len(w.out) - 1
	tail := w.out[last]
	status := tail[len(tail)-1:]
	out := w.out
	if out[last] = tail[:len(tail)-1]; len(out[last]) == 0 {
		out = out[:last]
	}
	typ, at := le.Uint32(h[:]), le.Uint64(h[8:])
	c := completion{head, 1}
	var err error
	switch typ {
	case typeIn:
		n := total(out)
		if err = q.inRange(at, n); err == nil {
			if err = q.patiently(func() error { return q.read(out, int64(at)*sector, n) }); err == nil {
				c.n += uint32(n)
			}
		}
	case typeOut:
		n := total(in)
		if err = q.writable(); err == nil {
			err = q.inRange(at, n)
		}
		if err == nil {
			err = q.write(in, int64(at)*sector, n)
		}
	case typeFlush:
		return &pending{status, c}, nil
	case typeGetID:
		id := make([]byte, 20)
		copy(id, q.k.s.Serial)
		for _, b := range out {
			k := copy(b, id)
			id, c.n = id[k:], c.n+uint32(k)
		}
	case typeDiscard, typeWriteZeroes:
		err = q.trim(typ, in)
	default:
		err = errUnsupported
	}
	switch {
	case err == nil && (typ == typeOut || typ == typeDiscard || typ == typeWriteZeroes):
		w.pending = append(w.pending, pending{status, c})
		return nil, nil
	case err == nil:
		status[0] = statusOK
	case errors.Is(err, block.ErrFailed) || errors.Is(err, block.ErrClosed) || errors.Is(err, block.ErrNoSpace):
		return nil, err // not completed: it is taken again on the next connection
	case errors.Is(err, errUnsupported):
		status[0] = statusUnsupp
	default:
		q.k.s.logger().Error("vhost-user request", "queue", q.index, "type", typ, "sector", at, "err", err)
		status[0] = statusError
	}
	w.done = append(w.done, c)
	return nil, nil
}

var errUnsupported = errors.New("the request is not supported")

func (q *queue) writable() error {
	if q.k.s.ReadOnly {
		return block.ErrReadOnly
	}
	return nil
}

func (q *queue) inRange(at uint64, n int) error {
	if n%sector != 0 || n > maxTransfer || at > uint64(q.k.dev.Size())/sector || uint64(n)/sector > uint64(q.k.dev.Size())/sector-at {
		return fmt.Errorf("%d bytes at sector %d: %w", n, at, block.ErrRange)
	}
	return nil
}

func (q *queue) scratch(n int) []byte {
	if cap(q.w.bounce) < n {
		q.w.bounce = make([]byte, n)
	}
	return q.w.bounce[:n]
}

func (q *queue) read(out [][]byte, off int64, n int) error {
	if len(out) == 1 {
		_, err := q.k.dev.ReadAt(out[0], off)
		return err
	}
	b := q.scratch(n)
	if _, err := q.k.dev.ReadAt(b, off); err != nil {
		return err
	}
	for _, o := range out {
		b = b[copy(o, b):]
	}
	return nil
}

func (q *queue) write(in [][]byte, off int64, n int) error {
	whole := off%block.BlockSize == 0
	for _, b := range in {
		whole = whole && len(b)%block.BlockSize == 0
	}
	if !whole { // blocks that are put together are read from the guest once
		b := q.scratch(n)
		at := 0
		for _, s := range in {
			at += copy(b[at:], s)
		}
		in = append(in[:0], b)
	}
	for _, b := range in {
		err := q.patiently(func() error {
			if q.k.batch != nil {
				return q.k.batch.WriteBuffered(b, off)
			}
			_, err := q.k.dev.WriteAt(b, off)
			return err
		})
		if err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// trim works a discard or write zeroes request (virtio 1.1, 5.2.6).
func (q *queue) trim(typ uint32, in [][]byte) error {
	if err := q.writable(); err != nil {
		return err
	}
	var p [16]byte
	if total(in) != len(p) {
		return fmt.Errorf("%w: %d bytes of segments", errUnsupported, total(in))
	}
	cut(in, p[:])
	at, n, flags := le.Uint64(p[:]), le.Uint32(p[8:]), le.Uint32(p[12:])
	if flags > 1 || (typ == typeDiscard && flags != 0) {
		return errUnsupported
	}
	size := uint64(q.k.dev.Size()) / sector
	if n > maxTrim || at > size || uint64(n) > size-at {
		return fmt.Errorf("%d sectors at %d: %w", n, at, block.ErrRange)
	}
	return q.patiently(func() error {
		if typ == typeDiscard {
			return q.k.dev.Discard(int64(at)*sector, int64(n)*sector)
		}
		return q.k.dev.WriteZeroes(int64(at)*sector, int64(n)*sector, flags == 0)
	})
}
