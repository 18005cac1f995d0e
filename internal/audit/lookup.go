package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"
)

// Query asks for records of one account and region. Zero times are open ends;
// both ends are included, to the second.
type Query struct {
	Account, Region string
	Attribute       Attribute // NoAttribute: all
	Value           string
	Start, End      time.Time
	After           *Cursor // where a page before ended
	Limit           int     // at least 1
}

// Cursor is a place in the order of Lookup: newest first, by event time, then by
// place in the log.
type Cursor struct {
	Time uint32 // Unix seconds
	Seq  uint64
}

// Event is one record found. Record has what the index is made of; Raw is all of it.
type Event struct {
	Seq    uint64
	Raw    []byte
	Record *Record
}

func (e *Event) cursor() Cursor { return Cursor{seconds(e.Record.EventTime.Time), e.Seq} }

// older reports whether a comes after b in the order of Lookup.
func (a Cursor) older(b Cursor) bool { return a.Time < b.Time || a.Time == b.Time && a.Seq < b.Seq }

// Lookup returns the newest records that match, and where to go on when there are
// more. It sees every record for which Append has returned; call Settled first
// to see what the outbox holds. A record that fails its hash is an error
// (ErrTampered), never a result.
func (l *Log) Lookup(ctx context.Context, q Query) ([]Event, *Cursor, error) {
	s := search{q: q, want: q.Limit + 1, scope: hashScope(q.Account, q.Region), from: 0, to: 1<<32 - 1}
	if q.Attribute != NoAttribute {
		s.attr = hashValue(byte(q.Attribute), q.Value)
	}
	if !q.Start.IsZero() {
		s.from = seconds(q.Start)
	}
	if !q.End.IsZero() {
		s.to = seconds(q.End)
	}
	if q.After != nil {
		s.to = min(s.to, q.After.Time)
	}
	l.mu.Lock()
	segs := slices.Clone(l.segs)
	l.mu.Unlock()
	type candidate struct {
		seg *segment
		max uint32
	}
	var order []candidate
	for _, seg := range segs {
		sum, err := seg.summarise()
		if err != nil {
			return nil, nil, err
		}
		switch {
		case sum == nil:
			order = append(order, candidate{seg, 1<<32 - 1})
		case sum.count > 0 && sum.maxTime >= s.from && sum.minTime <= s.to:
			order = append(order, candidate{seg, sum.maxTime})
		}
	}
	slices.SortStableFunc(order, func(a, b candidate) int {
		if a.max == b.max {
			return 0
		}
		if a.max > b.max {
			return -1
		}
		return 1
	})
	var found []Event
	for _, c := range order {
		if len(found) >= s.want && found[s.want-1].cursor().Time > c.max {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		more, err := s.segment(c.seg)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, more...)
		slices.SortFunc(found, func(a, b Event) int {
			if b.cursor().older(a.cursor()) {
				return -1
			}
			return 1
		})
		found = found[:min(len(found), s.want)]
	}
	if len(found) <= q.Limit {
		return found, nil, nil
	}
	found = found[:q.Limit]
	next := found[q.Limit-1].cursor()
	return found, &next, nil
}

// search is one Lookup at work.
type search struct {
	q           Query
	want        int
	scope, attr uint32
	from, to    uint32
}

// segment returns up to want matching records of one segment, newest first.
func (s *search) segment(seg *segment) ([]Event, error) {
	if err := seg.filled(); err != nil {
		return nil, err
	}
	seg.mu.Lock()
	mem, tail, live := seg.mem, seg.tail, seg.live
	seg.mu.Unlock()
	if mem {
		var all []entry
		for _, b := range [][]byte{tail, live} {
			if err := each(b, func(e *entry) bool {
				if s.matches(seg, e) {
					all = append(all, *e)
				}
				return true
			}); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(all, func(a, b entry) int {
			if a.time != b.time {
				return int(int64(b.time) - int64(a.time))
			}
			return int(int64(b.rel) - int64(a.rel))
		})
		return s.fetch(seg, func(f func(e *entry) bool) error {
			for i := range all {
				if !f(&all[i]) {
					break
				}
			}
			return nil
		})
	}
	entries, err := s.load(seg)
	if errors.Is(err, errIndex) {
		if err = seg.renew(); err == nil {
			entries, err = s.load(seg)
		}
	}
	if err != nil || entries == nil {
		return nil, err
	}
	return s.fetch(seg, func(f func(e *entry) bool) error {
		return each(entries, func(e *entry) bool { return !s.matches(seg, e) || f(e) })
	})
}

// renew builds the index of a sealed segment anew.
func (s *segment) renew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fi, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	_, err = s.rebuild(fi.Size())
	return err
}

func each(b []byte, f func(e *entry) bool) error {
	for len(b) > 0 {
		e, rest, ok := nextEntry(b)
		if !ok {
			return errIndex
		}
		if !f(&e) {
			return nil
		}
		b = rest
	}
	return nil
}

// load reads the entries of a sealed segment; nil when its filter says that
// nothing matches.
func (s *search) load(seg *segment) ([]byte, error) {
	f, err := os.Open(seg.indexPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, errIndex
	}
	if err != nil {
		return nil, fmt.Errorf("read the index of the audit log: %w", err)
	}
	defer f.Close()
	head := make([]byte, summarySize)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, errIndex
	}
	sum, err := decodeSummary(head)
	if err != nil {
		return nil, err
	}
	b := make([]byte, int(sum.bloom)+int(sum.entries)+4)
	filter := b[:sum.bloom]
	if _, err := io.ReadFull(f, filter); err != nil {
		return nil, errIndex
	}
	if !bloomHas(filter, bloomKey(s.scope, s.attr)) {
		return nil, nil
	}
	if _, err := io.ReadFull(f, b[sum.bloom:]); err != nil {
		return nil, errIndex
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return nil, errIndex
	}
	return b[sum.bloom:end], nil
}

// matches compares with the index; a hash may deceive it.
func (s *search) matches(seg *segment, e *entry) bool {
	if e.scope != s.scope || e.time < s.from || e.time > s.to {
		return false
	}
	if s.q.After != nil && !(Cursor{e.time, seg.first + uint64(e.rel)}).older(*s.q.After) {
		return false
	}
	return s.q.Attribute == NoAttribute || e.has(s.attr)
}

// fetch reads the records that candidates yields and keeps the true matches.
func (s *search) fetch(seg *segment, candidates func(func(e *entry) bool) error) ([]Event, error) {
	f, err := os.Open(seg.path)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer f.Close()
	var out []Event
	var failure error
	err = candidates(func(e *entry) bool {
		if e.size > maxLine {
			failure = fmt.Errorf("%w: an index entry of %d bytes", ErrTampered, e.size)
			return false
		}
		b := make([]byte, e.size)
		seq := seg.first + uint64(e.rel)
		if _, err := f.ReadAt(b, int64(e.off)); err != nil {
			failure = fmt.Errorf("%w: record %d cannot be read: %w", ErrTampered, seq, err)
			return false
		}
		ln, err := parseLine(b)
		if err != nil || ln.seq != seq || !ln.intact() {
			failure = fmt.Errorf("%w: record %d in %s", ErrTampered, seq, seg.path)
			return false
		}
		rec, err := parseIndexed(ln.record)
		if err != nil {
			failure = fmt.Errorf("%w: record %d: %w", ErrTampered, seq, err)
			return false
		}
		if rec.RecipientAccountID == s.q.Account && rec.AWSRegion == s.q.Region && rec.has(s.q.Attribute, s.q.Value) {
			out = append(out, Event{seq, ln.record, rec})
		}
		return len(out) < s.want
	})
	if failure != nil {
		return nil, failure
	}
	return out, err
}
