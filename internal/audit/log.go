package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// SyncMode says what Append waits for.
type SyncMode int

// The modes.
const (
	// Fsynced: Append returns once the record is on stable storage.
	Fsynced SyncMode = iota
	// Written: Append returns once the operating system has the record. It
	// survives the death of the process and not a power cut; the log is synced
	// every second.
	Written
)

// Root wraps the key that signs checkpoints (keyring.Root does).
type Root interface {
	Wrap(purpose string, plaintext *secret.Bytes, aad []byte) ([]byte, error)
	Unwrap(purpose string, wrapped, aad []byte) (*secret.Bytes, error)
}

// Config says where a log lives.
type Config struct {
	// Dir holds the log; one process at a time.
	Dir string
	// Store holds the outbox, the pinned head and the wrapped signing key.
	Store *store.Store
	// Root wraps the signing key. Required.
	Root Root
	// Clock, default clock.System.
	Clock clock.Clock
	// Node names this log among those of a cluster. It must stay the same over
	// restarts: the outbox is kept by node. Default "0".
	Node string
	Sync SyncMode
	// SegmentBytes is the size at which a segment is sealed; default 16 MiB.
	SegmentBytes int64
	// CheckpointEvery is how often Run signs and pins the head when there is
	// something new; default one minute.
	CheckpointEvery time.Duration
	// AcceptLoss has Start go on although the log does not reach, or does not
	// match, the head pinned in the store. The gap is recorded in the log itself.
	// For an operator who knows why (the disk was lost).
	AcceptLoss bool
	Logger     *slog.Logger

	openFile func(path string) (file, error) // faults in tests
}

// EnsureDefaults fills what was left out.
func (c *Config) EnsureDefaults() {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Node == "" {
		c.Node = "0"
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 16 << 20
	}
	if c.CheckpointEvery <= 0 {
		c.CheckpointEvery = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.openFile == nil {
		c.openFile = openFile
	}
}

// Validate says what is missing or impossible.
func (c *Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("audit: a directory is needed")
	case c.Store == nil || c.Root == nil:
		return errors.New("audit: a store and a root key are needed")
	case c.SegmentBytes > 1<<31:
		return fmt.Errorf("audit: segments of %d bytes are too large: at most 2 GiB", c.SegmentBytes)
	}
	return nil
}

// Errors that callers branch on.
var (
	// ErrStopped: a write or sync failed before; the log takes no more records
	// until it is opened again.
	ErrStopped = errors.New("audit: the log has stopped after a failed write")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit: the log is closed")
	// ErrTampered: the log is not what it was.
	ErrTampered = errors.New("audit: the log was changed behind our back")
)

// file is what the log needs of a file it writes.
type file interface {
	io.Writer
	// Datasync makes what was written durable (fdatasync).
	Datasync() error
	Close() error
}

type osFile struct{ *os.File }

func (f osFile) Datasync() error { return unix.Fdatasync(int(f.Fd())) }

func openFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Log is the chained log of one node. Open, Start (once the store has started),
// Run in a goroutine, Close. All methods are safe for concurrent use.
type Log struct {
	cfg  Config
	log  *slog.Logger
	id   string
	lock *os.File

	outbox *store.Table[outboxRow]
	hurry  chan struct{} // somebody waits for the outbox
	heads  *store.Table[pin]
	keys   *store.Table[signingKey]

	// io is held by whoever writes to, syncs or changes the active file.
	// Order: io before mu.
	io   sync.Mutex
	file file
	size int64 // of the active file

	mu       sync.Mutex
	buf      []byte // lines not yet handed to the writer
	entries  []byte // their index entries; offsets relative to buf
	spare    []byte // buffers of the batch before, to use again
	spareIx  []byte
	cur      *batch // the batch that buf belongs to
	flushing bool   // a writer is at work
	seq      uint64 // of the last line in buf
	prev     Hash
	done     Head // last record that is durable (in Written mode: written)
	synced   uint64
	calls    int       // waiting in Append
	peers    int       // how many waited lately (group.go)
	target   int       // calls in cur for which gather waits, 0 when it does not
	flushed  time.Time // when the writer last had nothing more to do
	failed   error
	segs     []*segment // by first; the last is active
	appended map[string]bool

	wake    chan struct{} // wakes the flusher
	full    chan struct{} // tells gather that target is reached
	quit    chan struct{}
	wg      sync.WaitGroup
	closing sync.Once
	started bool
	key     ed25519.PrivateKey
	lastCP  Hash // SHA-256 of the last checkpoint line
	cpSeq   uint64
	known   map[string]bool // events found both in the outbox and in the log at Start
	runMu   sync.Mutex      // held by Run's steps and Close's last checkpoint
}

// batch is the records of one write.
type batch struct {
	done  chan struct{} // made by the first who waits
	calls int           // of Append that wait for it
	err   error
	over  bool
}

// Open reads the tail of the log in cfg.Dir, or begins a new log, and declares
// its tables; call it before cfg.Store.Start. A last record that was not
// completely written is dropped: no call that made it was answered.
func Open(cfg Config) (*Log, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the audit directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(cfg.Dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("lock the audit log: %w", err)
	}
	l := &Log{cfg: cfg, log: cfg.Logger, lock: lock, cur: &batch{}, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), quit: make(chan struct{}), appended: map[string]bool{}}
	if err := l.recover(); err != nil {
		lock.Close()
		return nil, err
	}
	l.outbox = store.Define[outboxRow](cfg.Store, "audit/outbox", 2).Upgrade(oldOutboxRow)
	l.hurry = make(chan struct{}, 1)
	l.heads = store.Define[pin](cfg.Store, "audit/head", 1)
	l.keys = store.Define[signingKey](cfg.Store, "audit/key", 1)
	l.wg.Add(1)
	go l.flusher()
	return l, nil
}

type scratch struct{ record, entry []byte }

var scratches = sync.Pool{New: func() any { return &scratch{record: make([]byte, 0, 4096), entry: make([]byte, 0, 256)} }}

// Append writes r to the log and returns once it is durable (see SyncMode). When
// it returns an error the record may or may not be in the log, and the call that
// it describes must not be answered with success.
func (l *Log) Append(ctx context.Context, r *Record) error {
	if r.EventID == "" {
		r.EventID = ids.UUID()
	}
	s := scratches.Get().(*scratch)
	var err error
	if s.record, err = appendRecord(s.record[:0], r); err == nil && len(s.record) > maxLine-1024 {
		err = fmt.Errorf("a record of %d bytes is too large", len(s.record))
	}
	if err != nil {
		scratches.Put(s)
		return fmt.Errorf("write the audit record of %s: %w", r.EventName, err)
	}
	s.entry = appendEntry(s.entry[:0], r)
	leaf := Hash(sha256.Sum256(s.record))
	l.mu.Lock()
	b, lead, err := l.enqueue(s.record, s.entry, &leaf)
	if err == nil {
		lead = l.join(b, lead)
	}
	l.mu.Unlock()
	scratches.Put(s)
	if err != nil {
		return err
	}
	return l.wait(ctx, b, lead)
}

// enqueue adds a record to the current batch. mu is held.
func (l *Log) enqueue(record, entry []byte, leaf *Hash) (b *batch, lead bool, err error) {
	if l.failed != nil {
		return nil, false, l.failed
	}
	off := len(l.buf)
	l.seq++
	hash := link(l.seq, &l.prev, leaf)
	l.buf = appendLine(l.buf, l.seq, &l.prev, record, &hash)
	l.prev = hash
	at := len(l.entries)
	l.entries = append(l.entries, entry...)
	binary.BigEndian.PutUint32(l.entries[at:], uint32(off))
	binary.BigEndian.PutUint32(l.entries[at+4:], uint32(len(l.buf)-off))
	lead = !l.flushing
	l.flushing = true
	return l.cur, lead, nil
}

// wait returns when b is durable; the leader of an idle log writes it itself.
func (l *Log) wait(ctx context.Context, b *batch, lead bool) error {
	if lead {
		l.flush()
		return b.err
	}
	l.mu.Lock()
	if b.over {
		l.mu.Unlock()
		return b.err
	}
	if b.done == nil {
		b.done = make(chan struct{})
	}
	l.mu.Unlock()
	if ctx.Done() == nil { // as of most calls; a select costs more
		<-b.done
		return b.err
	}
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flusher goes on where a leader stopped.
func (l *Log) flusher() {
	defer l.wg.Done()
	for {
		select {
		case <-l.wake:
			l.gather()
			l.flush()
		case <-l.quit:
			return
		}
	}
}

// flush writes one batch. The caller owns flushing; it is handed to the flusher
// when more has arrived, else given back.
func (l *Log) flush() {
	l.io.Lock()
	l.mu.Lock()
	buf, entries, b := l.buf, l.entries, l.cur
	head := Head{Log: l.id, Seq: l.seq, Hash: l.prev}
	l.buf, l.entries, l.cur = l.spare[:0], l.spareIx[:0], &batch{}
	l.spare, l.spareIx = nil, nil
	err := l.failed
	l.mu.Unlock()

	if err == nil {
		err = l.write(buf)
	}

	l.mu.Lock()
	if err == nil {
		l.active().add(entries, uint32(l.size-int64(len(buf))), l.done.Seq+1)
		l.done = head
		if l.cfg.Sync == Fsynced {
			l.synced = head.Seq
		}
	} else {
		l.fail(err)
	}
	l.finish(b)
	if cap(buf) <= 4<<20 {
		l.spare, l.spareIx = buf, entries
	}
	rotate := err == nil && l.size >= l.cfg.SegmentBytes
	l.mu.Unlock()
	if rotate {
		if err := l.rotate(head); err != nil {
			l.mu.Lock()
			l.fail(err)
			l.mu.Unlock()
		}
	}
	l.io.Unlock()

	l.mu.Lock()
	more := len(l.buf) > 0
	l.flushing = more
	if !more {
		l.flushed = time.Now()
	}
	l.mu.Unlock()
	if more {
		notify(l.wake)
	}
}

// finish tells who waits for b how it went. mu is held.
func (l *Log) finish(b *batch) {
	if b.over {
		return
	}
	b.err, b.over = l.failed, true
	l.peers = max(l.calls, l.peers-l.peers/8)
	l.calls -= b.calls
	if b.done != nil {
		close(b.done)
	}
}

// write puts b at the end of the active file. io is held.
func (l *Log) write(b []byte) error {
	if _, err := l.file.Write(b); err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	l.size += int64(len(b))
	if l.cfg.Sync == Fsynced {
		if err := l.file.Datasync(); err != nil {
			return fmt.Errorf("sync the audit log: %w", err)
		}
	}
	return nil
}

// fail stops the log for good. mu is held.
func (l *Log) fail(err error) {
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrStopped, err)
		l.log.Error("audit log stopped: no call can be recorded until restart", "err", err)
	}
}

// Err is why the log has stopped, nil while it works.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Head is the last record that Append or the outbox has made durable.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// sync makes everything up to Head durable, in Written mode too, and returns it.
func (l *Log) sync() (Head, error) {
	l.io.Lock()
	defer l.io.Unlock()
	l.mu.Lock()
	head, need, err := l.done, l.synced < l.done.Seq, l.failed
	l.mu.Unlock()
	if err != nil || !need {
		return head, err
	}
	err = l.file.Datasync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.fail(fmt.Errorf("sync the audit log: %w", err))
		return head, l.failed
	}
	l.synced = head.Seq
	return head, nil
}

// rotate seals the active segment, which ends with head, and begins the next. io is held.
func (l *Log) rotate(head Head) error {
	if err := l.file.Datasync(); err != nil {
		return fmt.Errorf("sync a full segment: %w", err)
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close a full segment: %w", err)
	}
	old := l.active()
	if err := l.begin(head.Seq+1, head.Hash); err != nil {
		return err
	}
	l.active().expect(old)
	l.mu.Lock()
	l.synced = head.Seq
	l.mu.Unlock()
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		if err := old.seal(head); err != nil {
			l.log.Warn("index of an audit segment not written; it will be built when needed", "segment", old.path, "err", err)
		}
	}()
	return nil
}

// begin creates the segment whose first record will be seq and makes it active. io is held.
func (l *Log) begin(seq uint64, prev Hash) error {
	path := filepath.Join(l.cfg.Dir, segmentName(seq))
	f, err := l.cfg.openFile(path)
	if err != nil {
		return fmt.Errorf("begin segment %s: %w", path, err)
	}
	head := appendHeader(nil, l.id, seq, &prev)
	if _, err = f.Write(head); err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = durable.SyncDir(l.cfg.Dir)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("begin segment %s: %w", path, err)
	}
	l.file, l.size = f, int64(len(head))
	l.mu.Lock()
	s := newSegment(path, seq)
	s.mem = true
	l.segs = append(l.segs, s)
	l.mu.Unlock()
	return nil
}

// active is the segment being written. io or mu is held.
func (l *Log) active() *segment { return l.segs[len(l.segs)-1] }

// Close signs a last checkpoint, syncs and closes the log. Stop Run first.
func (l *Log) Close() error {
	var err error
	l.closing.Do(func() {
		if l.started && l.Err() == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if cerr := l.checkpoint(ctx); cerr != nil {
				l.log.Warn("no checkpoint at close", "err", cerr)
			}
			cancel()
		}
		l.io.Lock()
		defer l.io.Unlock()
		l.mu.Lock()
		if l.failed == nil {
			l.failed = ErrClosed
			l.finish(l.cur)
			l.mu.Unlock()
			err = l.file.Datasync()
		} else {
			l.mu.Unlock()
		}
		if cerr := l.file.Close(); err == nil {
			err = cerr
		}
		close(l.quit)
	})
	l.wg.Wait()
	l.lock.Close()
	if err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}
