package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/ids"
)

func segmentName(first uint64) string { return fmt.Sprintf("segment-%020d.jsonl", first) }

// firstOf reads the sequence number in a segment's name.
func firstOf(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "segment-")
	if digits, ok = cutSuffix(digits, ".jsonl", ok); !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0
}

func cutSuffix(s, suffix string, ok bool) (string, bool) {
	if !ok {
		return s, false
	}
	return strings.CutSuffix(s, suffix)
}

// listSegments returns the segments in dir, by first sequence number.
func listSegments(dir string) ([]*segment, error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the audit log: %w", err)
	}
	var segs []*segment
	for _, de := range des {
		if first, ok := firstOf(de.Name()); ok {
			segs = append(segs, newSegment(filepath.Join(dir, de.Name()), first))
		}
	}
	slices.SortFunc(segs, func(a, b *segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return segs, nil
}

// segment is one file of the log and its index: in memory while it is written,
// afterwards beside it on disk.
type segment struct {
	path  string
	first uint64

	mu   sync.Mutex
	live []byte    // index entries in the order of the log; complete until sealed
	tail []byte    // entries of records found at Open, filled in the background
	wait sync.Once // fills tail
	fill func() ([]byte, error)
	err  error
	mem  bool     // the index is in memory: active, or being sealed
	sum  *summary // once sealed and read
}

func newSegment(path string, first uint64) *segment { return &segment{path: path, first: first} }

func (s *segment) indexPath() string { return strings.TrimSuffix(s.path, ".jsonl") + ".idx" }

// recover finds the end of the log and opens it for appending, or begins a log.
func (l *Log) recover() error {
	segs, err := listSegments(l.cfg.Dir)
	if err != nil {
		return err
	}
	for len(segs) > 0 {
		last := segs[len(segs)-1]
		h, err := readHeader(last.path)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			// Killed while the segment was begun: nothing in it was answered.
			if err := os.Remove(last.path); err != nil {
				return fmt.Errorf("remove a segment that was only begun: %w", err)
			}
			segs = segs[:len(segs)-1]
			continue
		}
		if err != nil {
			return fmt.Errorf("read the header of %s: %w", last.path, err)
		}
		if h.First != last.first {
			return fmt.Errorf("%w: segment %s says it begins with record %d", ErrTampered, last.path, h.First)
		}
		l.id, l.segs = h.Log, segs
		return l.recoverTail(last, h)
	}
	l.id = ids.UUID()
	prev := genesis(l.id)
	l.prev, l.done = prev, Head{Log: l.id, Hash: prev}
	return l.begin(1, prev)
}

// readHeader reads a segment's first line; io.ErrUnexpectedEOF when it is cut short.
func readHeader(path string) (header, error) {
	f, err := os.Open(path)
	if err != nil {
		return header{}, err
	}
	defer f.Close()
	b, err := newLineReader(f).next()
	if errors.Is(err, io.EOF) {
		return header{}, io.ErrUnexpectedEOF
	}
	if err != nil {
		return header{}, err
	}
	return parseHeader(b)
}

// recoverTail follows the chain through the last segment to its end. What comes
// after the last good record was never answered: a torn record is cut off, and
// anything that looks like more than that is kept beside the log as evidence.
func (l *Log) recoverTail(s *segment, h header) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the last segment: %w", err)
	}
	defer f.Close()
	r := newLineReader(f)
	if _, err := r.next(); err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	off, seq, prev := r.size, h.First-1, h.Prev
	whole := false // a whole line stands after the last good record
	for {
		b, err := r.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		if err != nil {
			break
		}
		ln, perr := parseLine(b)
		if perr != nil || ln.seq != seq+1 || ln.prev != prev || !ln.intact() {
			whole = true
			break
		}
		seq, prev = ln.seq, ln.hash
		off += r.size
	}
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	if rest := fi.Size() - off; rest > 0 {
		if whole {
			keep := fmt.Sprintf("%s.rest-%d", s.path, off)
			b := make([]byte, rest)
			if _, err := f.ReadAt(b, off); err != nil {
				return fmt.Errorf("read %s: %w", s.path, err)
			}
			if err := durable.WriteFile(keep, b, 0o600); err != nil {
				return err
			}
			l.log.Warn("audit log: bytes after the last good record were set aside; a power cut can do this, and so can a hand", "record", seq, "bytes", rest, "kept", keep)
		} else {
			l.log.Info("audit log: dropped a torn record that was never answered", "after", seq, "bytes", rest)
		}
		if err := f.Truncate(off); err != nil {
			return fmt.Errorf("cut the torn end off %s: %w", s.path, err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", s.path, err)
		}
	}
	// A record that was written and not synced by a process that was killed is
	// good; from here on it counts, so it must be durable.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	if l.file, err = l.cfg.openFile(s.path); err != nil {
		return fmt.Errorf("open %s: %w", s.path, err)
	}
	l.size, l.seq, l.prev, l.synced = off, seq, prev, seq
	l.done = Head{Log: l.id, Seq: seq, Hash: prev}
	s.mem = true
	s.fill = func() ([]byte, error) { return scanEntries(s.path, off) }
	if seq >= s.first {
		l.wg.Add(1)
		go func() { defer l.wg.Done(); _ = s.filled() }()
	}
	return nil
}

// filled makes sure that the entries of what was found at Open are there.
func (s *segment) filled() error {
	s.wait.Do(func() {
		if s.fill == nil {
			return
		}
		b, err := s.fill()
		s.mu.Lock()
		s.tail, s.err = b, err
		s.mu.Unlock()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Read hands the records from seq on to f, in order, each as its bytes in the log
// (valid during the call), until f returns false or the end is reached. Every
// record is checked against its hash.
func (l *Log) Read(ctx context.Context, seq uint64, f func(seq uint64, record []byte) bool) error {
	return l.lines(ctx, seq, func(ln *line) bool { return f(ln.seq, ln.record) })
}

func (l *Log) lines(ctx context.Context, seq uint64, f func(*line) bool) error {
	seq = max(seq, 1)
	l.mu.Lock()
	segs, end := slices.Clone(l.segs), l.done.Seq
	l.mu.Unlock()
	i := len(segs) - 1
	for i > 0 && segs[i].first > seq {
		i--
	}
	for ; i < len(segs) && segs[i].first <= end; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		last := end
		if i+1 < len(segs) {
			last = segs[i+1].first - 1
		}
		more, err := segs[i].lines(seq, last, f)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// lines hands the lines from..last to f; more is false when f has had enough.
func (s *segment) lines(from, last uint64, f func(*line) bool) (more bool, err error) {
	if last < from || last < s.first {
		return true, nil
	}
	fd, err := os.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("read the audit log: %w", err)
	}
	defer fd.Close()
	r := newLineReader(fd)
	if _, err := r.next(); err != nil {
		return false, fmt.Errorf("read %s: %w", s.path, err)
	}
	for want := s.first; want <= last; want++ {
		b, err := r.next()
		if err != nil {
			return false, fmt.Errorf("%w: record %d is missing from %s: %w", ErrTampered, want, s.path, err)
		}
		if want < from {
			continue
		}
		ln, err := parseLine(b)
		if err != nil || ln.seq != want || !ln.intact() {
			return false, fmt.Errorf("%w: record %d in %s", ErrTampered, want, s.path)
		}
		if !f(&ln) {
			return false, nil
		}
	}
	return true, nil
}
