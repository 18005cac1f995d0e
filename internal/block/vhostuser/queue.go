package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is one split virtqueue (virtio 1.1, 2.6). Its fields are set by the connection's goroutine while
// it is stopped; the ring is worked by the queue's own goroutine in between.
type queue struct {
	k                 *conn
	index             int
	num               uint32
	desc, avail, used uint64 // addresses of the front end
	next              uint16 // index of the next available entry to take
	enabled           bool
	kick              *os.File

	// while it runs
	done  chan struct{}
	quit  atomic.Bool
	ring  ring
	track []byte // this queue's inflight memory, or nil
	count uint64 // of taken requests, for track
	w     worker

	flushes sync.WaitGroup

	mu          sync.Mutex // guards what follows, and the used ring
	usedIdx     uint16
	call, errFD int
}

// ring is where a queue lies in memory.
type ring struct {
	desc, avail, used []byte
	num               uint32
	eventIdx          bool
	indirect          bool
}

// half32 is the 32-bit word at the start of the available or used ring: flags in the low half, the index in the high half.
func half32(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }

func (r *ring) availIdx() uint16  { return uint16(atomic.LoadUint32(half32(r.avail)) >> 16) }
func (r *ring) noInterrupt() bool { return atomic.LoadUint32(half32(r.avail))&1 != 0 }
func (r *ring) usedEvent() uint16 { return le.Uint16(r.avail[4+2*r.num:]) }

// setAvailEvent asks to be notified of entry i. What is loaded afterwards is newer.
func (r *ring) setAvailEvent(i uint16) {
	le.PutUint16(r.used[4+8*r.num:], i)
	var fence uint32
	atomic.StoreUint32(&fence, 1)
}

// needEvent is vring_need_event of the specification (2.6.7.2).
func needEvent(event, now, old uint16) bool { return now-event-1 < now-old }

func (q *queue) running() bool { return q.done != nil }

// start begins to work the queue once it has all it needs. Stopped and started again, it goes on where it was.
func (q *queue) start() error {
	if q.running() || q.kick == nil || !q.enabled {
		return nil
	}
	if err := q.open(); err != nil {
		return err
	}
	q.done = make(chan struct{})
	q.quit.Store(false)
	_ = q.kick.SetReadDeadline(time.Time{})
	go func(kick *os.File, done chan struct{}) {
		defer close(done)
		if err := q.run(kick); err != nil {
			q.k.fail(fmt.Errorf("queue %d: %w", q.index, err))
		}
	}(q.kick, q.done)
	return nil
}

// open finds the ring in memory and what was on its way when an earlier process ended.
func (q *queue) open() error {
	n := uint64(q.num)
	r := ring{num: q.num, eventIdx: q.k.features&ringEventIdx != 0, indirect: q.k.features&ringIndirect != 0}
	r.desc, r.avail, r.used = q.k.mem.userAt(q.desc, 16*n), q.k.mem.userAt(q.avail, 6+2*n), q.k.mem.userAt(q.used, 6+8*n)
	if n == 0 || r.desc == nil || r.avail == nil || r.used == nil {
		return fmt.Errorf("%w: queue %d lies outside of the memory table", errMessage, q.index)
	}
	if uintptr(unsafe.Pointer(&r.avail[0]))%4 != 0 || uintptr(unsafe.Pointer(&r.used[0]))%4 != 0 {
		return fmt.Errorf("%w: queue %d is not aligned", errMessage, q.index)
	}
	q.ring, q.track = r, nil
	q.usedIdx = uint16(atomic.LoadUint32(half32(r.used)) >> 16)
	q.w.again = q.w.again[:0]
	if q.index < q.k.tracked && inflightSize(int(q.num)) <= q.k.perQueue {
		q.track = q.k.inflight[q.index*q.k.perQueue:][:q.k.perQueue]
		q.recall()
	}
	return nil
}

// recall reads from inflight memory what was taken and not completed, oldest first (vhost-user.rst, "Inflight I/O tracking").
func (q *queue) recall() {
	t := q.track
	if le.Uint16(t[8:]) == 0 { // fresh
		le.PutUint16(t[8:], inflightVersion)
		le.PutUint16(t[10:], uint16(q.num))
		le.PutUint16(t[14:], q.usedIdx)
		return
	}
	// The last batch may be published but not unmarked yet.
	head := le.Uint16(t[12:])
	for n := q.usedIdx - le.Uint16(t[14:]); n > 0 && uint32(n) <= q.num && uint32(head) < q.num; n-- {
		d := q.state(head)
		d[0] = 0
		head = le.Uint16(d[6:])
	}
	le.PutUint16(t[14:], q.usedIdx)
	for i := range uint16(q.num) {
		if q.state(i)[0] != 0 {
			q.w.again = append(q.w.again, i)
		}
	}
	order := func(i uint16) uint64 { return le.Uint64(q.state(i)[8:]) }
	slices.SortFunc(q.w.again, func(a, b uint16) int {
		if order(a) < order(b) {
			return -1
		}
		return 1
	})
	if n := len(q.w.again); n > 0 {
		q.count = order(q.w.again[n-1])
	}
	q.next = q.usedIdx + uint16(len(q.w.again))
}

// state is a descriptor's part of inflight memory.
func (q *queue) state(head uint16) []byte { return q.track[inflightHeader+16*int(head):][:16] }

// stop waits until nothing of the queue is on its way; it says whether the queue was running.
func (q *queue) stop() bool {
	if !q.running() {
		return false
	}
	q.quit.Store(true)
	_ = q.kick.SetReadDeadline(time.Unix(1, 0)) // wakes its goroutine; a notification might be taken by the front end instead
	<-q.done
	q.flushes.Wait()
	q.done = nil
	return true
}

func (q *queue) close() {
	q.stop()
	if q.kick != nil {
		q.kick.Close()
		q.kick = nil
	}
	q.setCall(&q.call, -1)
	q.setCall(&q.errFD, -1)
}

func (q *queue) setCall(slot *int, fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *slot >= 0 {
		unix.Close(*slot)
	}
	*slot = fd
	if fd >= 0 {
		_ = unix.SetNonblock(fd, true)
		if slot == &q.call {
			// What was completed while the notifier was another one, or none, may not have reached
			// the guest; a notification too many does no harm.
			writeEvent(fd)
		}
	}
}

var errRing = errors.New("the guest's ring is broken")

// run works the queue until it is stopped. A ring that is broken ends it without ending the connection.
func (q *queue) run(kick *os.File) error {
	var b [8]byte
	for !q.quit.Load() {
		err := q.work()
		if errors.Is(err, errRing) {
			q.k.s.logger().Error("virtqueue stopped", "queue", q.index, "err", err)
			q.signal(&q.errFD)
			return nil
		}
		if err != nil {
			return err
		}
		if q.quit.Load() {
			return nil
		}
		if _, err := kick.Read(b[:]); err != nil {
			return nil // stopped, or closed
		}
	}
	return nil
}

// work takes requests until there are none.
func (q *queue) work() error {
	r := &q.ring
	for len(q.w.again) > 0 {
		n := min(len(q.w.again), maxBatch)
		heads := q.w.again[:n]
		if err := q.batch(heads); err != nil {
			return err
		}
		q.w.again = q.w.again[n:]
	}
	for !q.quit.Load() {
		idx := r.availIdx()
		if idx == q.next {
			if r.eventIdx {
				r.setAvailEvent(q.next)
				if idx = r.availIdx(); idx == q.next {
					return nil
				}
			} else {
				return nil
			}
		}
		n := idx - q.next
		if uint32(n) > r.num {
			return fmt.Errorf("%w: %d entries in a ring of %d", errRing, n, r.num)
		}
		heads := q.w.heads[:0]
		for range min(n, maxBatch) {
			h := le.Uint16(r.avail[4+2*(uint32(q.next)&(r.num-1)):])
			if uint32(h) >= r.num {
				return fmt.Errorf("%w: descriptor %d of %d", errRing, h, r.num)
			}
			if q.track != nil {
				d := q.state(h)
				q.count++
				le.PutUint64(d[8:], q.count)
				d[0] = 1
			}
			q.next++
			heads = append(heads, h)
		}
		if err := q.batch(heads); err != nil {
			return err
		}
	}
	return nil
}

// completion is a request that is answered: its head, and how many bytes were written to the guest.
type completion struct {
	head uint16
	n    uint32
}

// publish puts completions into the used ring and notifies the guest if it wants that.
func (q *queue) publish(cs []completion) {
	if len(cs) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.ring
	old := q.usedIdx
	for _, c := range cs {
		if q.track != nil {
			d := q.state(c.head)
			copy(d[6:8], q.track[12:14])
			le.PutUint16(q.track[12:], c.head)
		}
		e := r.used[4+8*(uint32(q.usedIdx)&(r.num-1)):]
		le.PutUint32(e, uint32(c.head))
		le.PutUint32(e[4:], c.n)
		q.usedIdx++
	}
	atomic.StoreUint32(half32(r.used), uint32(q.usedIdx)<<16) // a full barrier: the entries before, the question below after
	if q.track != nil {
		for _, c := range cs {
			q.state(c.head)[0] = 0
		}
		le.PutUint16(q.track[14:], q.usedIdx)
	}
	notify := !r.noInterrupt()
	if r.eventIdx {
		notify = needEvent(r.usedEvent(), q.usedIdx, old)
	}
	if notify && q.call >= 0 {
		writeEvent(q.call)
	}
}

func (q *queue) signal(slot *int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *slot >= 0 {
		writeEvent(*slot)
	}
}

func writeEvent(fd int) {
	one := [8]byte{1}
	_, _ = unix.Write(fd, one[:]) // it can only fail when the counter is full, and then the event is there
}
