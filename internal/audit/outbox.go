package audit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// outboxRow is a record that its transaction has committed and that is on its
// way to the log. Key: node/<Unix nanoseconds, 20 digits>-<event ID>. Table audit/outbox,
// version 2: the record's JSON; version 1: {"record": the same}.
type outboxRow struct {
	Record json.RawMessage `json:"record"`
	entry  []byte          // in the index; nil when the row was read from etcd
}

func (r *outboxRow) AppendForm(b []byte) []byte { return append(b, r.Record...) }

func (r *outboxRow) ReadForm(stored []byte) error {
	r.Record = append(r.Record, stored...)
	return nil
}

func oldOutboxRow(_ byte, stored []byte) (*outboxRow, error) {
	r := new(outboxRow)
	return r, json.Unmarshal(stored, r)
}

// pin is the head of a node's log as the store knows it. Every record of the
// outbox that stands in the log up to it has been deleted from the outbox.
type pin struct {
	Head
	Time time.Time `json:"time"`
}

const (
	drainAtOnce = 250
	drainPause  = 20 * time.Millisecond // in which records gather, unless somebody waits for them
	pinEvery    = 1 << 16               // records
)

// Outbox puts r into the outbox in tx: it is durable when tx commits, and Run
// brings it to the log. It may be called again when tx is run again.
func (l *Log) Outbox(tx *store.Tx, r *Record) error {
	if err := l.Err(); err != nil {
		return err
	}
	if r.EventID == "" {
		r.EventID = ids.UUID()
	}
	b, err := appendRecord(make([]byte, 0, 2048), r)
	if err == nil && len(b) > maxLine/2 {
		err = fmt.Errorf("a record of %d bytes is too large", len(b))
	}
	if err != nil {
		return fmt.Errorf("write the audit record of %s: %w", r.EventName, err)
	}
	key := fmt.Sprintf("%s/%020d-%s", l.cfg.Node, l.cfg.Clock.Now().UnixNano(), r.EventID)
	return l.outbox.Put(tx, key, &outboxRow{Record: b, entry: appendEntry(nil, r)})
}

// Start reads the signing key and compares the log with the head pinned in the
// store. Call it once the store has started. ErrTampered: the log was cut, or is
// not the one it was; see Config.AcceptLoss.
func (l *Log) Start(ctx context.Context) error {
	if err := l.loadKey(ctx); err != nil {
		return err
	}
	tx := l.cfg.Store.Snapshot()
	pinned := l.heads.Get(tx, l.cfg.Node)
	if pinned != nil {
		if err := l.reaches(ctx, pinned.Head); err != nil {
			if !l.cfg.AcceptLoss {
				return fmt.Errorf("%w (put the log's files back, or start once with the setting that accepts the loss; it will stand in the log)", err)
			}
			l.log.Error("audit log does not match the pinned head; going on as told", "err", err)
			if err := l.recordLoss(ctx, pinned.Head, err); err != nil {
				return err
			}
			pinned = nil
		}
	}
	// A process killed between bringing records to the log and deleting them from
	// the outbox left them in both: find those, all after the pin.
	l.known = map[string]bool{}
	waiting := map[string]bool{}
	l.outbox.Scan(tx, l.cfg.Node+"/", "", func(key string, _ *outboxRow) bool {
		waiting[eventOf(key)] = true
		return true
	})
	if len(waiting) > 0 {
		from := uint64(1)
		if pinned != nil {
			from = pinned.Seq + 1
		}
		err := l.Read(ctx, from, func(_ uint64, record []byte) bool {
			var r struct {
				EventID string `json:"eventID"`
			}
			if json.Unmarshal(record, &r) == nil && waiting[r.EventID] {
				l.known[r.EventID] = true
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("compare the outbox with the log: %w", err)
		}
	}
	if err := l.openCheckpoints(); err != nil {
		return err
	}
	l.started = true
	return nil
}

func eventOf(key string) string {
	if i := strings.LastIndexByte(key, '/'); i >= 0 && len(key) > i+22 {
		return key[i+22:]
	}
	return ""
}

// reaches checks that the log holds what was pinned.
func (l *Log) reaches(ctx context.Context, p Head) error {
	head := l.Head()
	if p.Log != l.id {
		return fmt.Errorf("%w: this is log %s, the store remembers log %s with %d records", ErrTampered, l.id, p.Log, p.Seq)
	}
	if p.Seq > head.Seq {
		return fmt.Errorf("%w: it ends at record %d, the store remembers record %d", ErrTampered, head.Seq, p.Seq)
	}
	if p.Seq == 0 {
		return nil
	}
	got, err := l.hashOf(ctx, p.Seq)
	if err != nil {
		return err
	}
	if got != p.Hash {
		return fmt.Errorf("%w: record %d has hash %s, the store remembers %s", ErrTampered, p.Seq, got, p.Hash)
	}
	return nil
}

// hashOf reads the hash of a record.
func (l *Log) hashOf(ctx context.Context, seq uint64) (h Hash, err error) {
	if head := l.Head(); head.Seq == seq {
		return head.Hash, nil
	}
	l.mu.Lock()
	for i := range l.segs { // the end of a segment stands in the next one's header
		if l.segs[i].first == seq+1 {
			path := l.segs[i].path
			l.mu.Unlock()
			hd, err := readHeader(path)
			if err != nil {
				return h, fmt.Errorf("read the header of %s: %w", path, err)
			}
			return hd.Prev, nil
		}
	}
	l.mu.Unlock()
	err = l.lines(ctx, seq, func(ln *line) bool { h = ln.hash; return false })
	return h, err
}

// recordLoss writes into the log that it does not reach its pin.
func (l *Log) recordLoss(ctx context.Context, p Head, why error) error {
	err := l.Append(ctx, &Record{EventVersion: "1.11", UserIdentity: UserIdentity{Type: "AWSService", InvokedBy: "cloudtrail.amazonaws.com"},
		EventTime: Time{l.cfg.Clock.Now()}, EventSource: "cloudtrail.amazonaws.com", EventName: "AcceptAuditLogLoss", AWSRegion: "us-east-1",
		SourceIPAddress: "cloudtrail.amazonaws.com", UserAgent: "cloudtrail.amazonaws.com", EventID: ids.UUID(), EventType: "AwsServiceEvent",
		ManagementEvent: true, EventCategory: "Management", ErrorMessage: why.Error(),
		AdditionalEventData: map[string]any{"pinnedLog": p.Log, "pinnedSeq": int64(p.Seq), "pinnedHash": p.Hash.String()}})
	if err != nil {
		return err
	}
	head, err := l.sync()
	if err != nil {
		return err
	}
	return l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		return l.heads.Put(tx, l.cfg.Node, &pin{head, l.cfg.Clock.Now()})
	})
}

// Run brings the outbox to the log, signs checkpoints and pins the head, until
// ctx ends. It may be killed at any line.
func (l *Log) Run(ctx context.Context) {
	if !l.started {
		if err := l.Start(ctx); err != nil {
			l.log.Error("audit log not started", "err", err)
			return
		}
	}
	tick := l.cfg.Clock.After(l.cfg.CheckpointEvery)
	every := l.cfg.Clock.After(time.Second)
	for ctx.Err() == nil {
		changed := l.cfg.Store.Changed()
		n, err := l.drain(ctx)
		if err != nil && ctx.Err() == nil {
			if errors.Is(err, ErrStopped) || errors.Is(err, ErrClosed) {
				return
			}
			l.log.Warn("audit outbox not drained; trying again", "err", err)
			changed = nil
		}
		if n == drainAtOnce {
			continue
		}
		select {
		case <-changed:
			select {
			case <-time.After(drainPause):
			case <-l.hurry:
			case <-ctx.Done():
			}
		case <-tick:
			if err := l.checkpoint(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("no checkpoint", "err", err)
			}
			tick = l.cfg.Clock.After(l.cfg.CheckpointEvery)
		case <-every:
			head, err := l.sync()
			if err == nil && head.Seq > l.pinnedSeq()+pinEvery {
				if err := l.pin(ctx, head); err != nil && ctx.Err() == nil {
					l.log.Warn("head of the audit log not pinned", "err", err)
				}
			}
			every = l.cfg.Clock.After(time.Second)
		case <-ctx.Done():
		}
	}
}

// drain brings some of the outbox to the log and deletes it; it returns how much.
func (l *Log) drain(ctx context.Context) (int, error) {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	var keys []string
	var rows []*outboxRow
	l.outbox.Scan(l.cfg.Store.Snapshot(), l.cfg.Node+"/", "", func(key string, r *outboxRow) bool {
		keys, rows = append(keys, key), append(rows, r)
		return len(keys) < drainAtOnce
	})
	if len(keys) == 0 {
		return 0, nil
	}
	// Prepared before mu is taken, for which calls wait.
	entries, leaves := make([][]byte, len(rows)), make([]Hash, len(rows))
	for i, r := range rows {
		if entries[i], leaves[i] = r.entry, sha256.Sum256(r.Record); r.entry == nil {
			rec, err := parseIndexed(r.Record)
			if err != nil {
				return 0, fmt.Errorf("outbox record %s cannot be read: %w", keys[i], err)
			}
			entries[i] = appendEntry(nil, rec)
		}
	}
	var last *batch
	var lead bool
	l.mu.Lock()
	for i, r := range rows {
		id := eventOf(keys[i])
		if l.known[id] || l.appended[keys[i]] {
			continue
		}
		b, first, err := l.enqueue(r.Record, entries[i], &leaves[i])
		if err != nil {
			l.mu.Unlock()
			return 0, err
		}
		lead = lead || first
		last = b
	}
	l.mu.Unlock()
	if last != nil {
		// Not ctx: whether the records got there must be known before the next round.
		if err := l.wait(context.Background(), last, lead); err != nil {
			return 0, err
		}
	}
	l.mu.Lock()
	for _, k := range keys {
		l.appended[k] = true
	}
	l.mu.Unlock()
	head, err := l.sync()
	if err != nil {
		return 0, err
	}
	err = l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		for _, k := range keys {
			if err := l.outbox.Delete(tx, k); err != nil {
				return err
			}
		}
		return l.heads.Put(tx, l.cfg.Node, &pin{head, l.cfg.Clock.Now()})
	})
	if err != nil {
		return 0, fmt.Errorf("empty the audit outbox: %w", err)
	}
	l.mu.Lock()
	for _, k := range keys {
		delete(l.appended, k)
	}
	l.mu.Unlock()
	return len(keys), nil
}

func (l *Log) pinnedSeq() uint64 {
	if p := l.heads.Get(l.cfg.Store.Snapshot(), l.cfg.Node); p != nil {
		return p.Seq
	}
	return 0
}

// pin remembers the head in the store; not while the outbox holds records, which
// may be in the log before it.
func (l *Log) pin(ctx context.Context, head Head) error {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	waiting := false
	l.outbox.Scan(l.cfg.Store.Snapshot(), l.cfg.Node+"/", "", func(string, *outboxRow) bool { waiting = true; return false })
	if waiting {
		return nil // drain pins when it has deleted them
	}
	return l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if p := l.heads.Get(tx, l.cfg.Node); p != nil && p.Seq >= head.Seq {
			return nil
		}
		return l.heads.Put(tx, l.cfg.Node, &pin{head, l.cfg.Clock.Now()})
	})
}

// Settled returns once everything that was committed to this node's outbox before
// the call is in the log, where Lookup finds it. Run must be running.
func (l *Log) Settled(ctx context.Context) error {
	var keys []string
	changed := l.cfg.Store.Changed()
	tx := l.cfg.Store.Snapshot()
	l.outbox.Scan(tx, l.cfg.Node+"/", "", func(key string, _ *outboxRow) bool {
		keys = append(keys, key)
		return true
	})
	select {
	case l.hurry <- struct{}{}:
	default: // somebody else did
	}
	for {
		l.mu.Lock()
		err := l.failed
		for len(keys) > 0 && l.appended[keys[0]] {
			keys = keys[1:]
		}
		l.mu.Unlock()
		for len(keys) > 0 && l.outbox.Get(tx, keys[0]) == nil {
			keys = keys[1:]
		}
		if len(keys) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		changed = l.cfg.Store.Changed()
		tx = l.cfg.Store.Snapshot()
	}
}
