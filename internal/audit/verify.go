package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Finding says what kind of thing was done to a log.
type Finding string

// The findings.
const (
	Changed   Finding = "changed"   // a record does not have the hash that stands beside it
	Removed   Finding = "removed"   // records are missing from the middle
	Moved     Finding = "moved"     // a record stands where it does not belong, or twice
	Unlinked  Finding = "unlinked"  // a record (or segment) does not continue the one before: one of the two was replaced
	Damaged   Finding = "damaged"   // bytes that are no record
	Truncated Finding = "truncated" // records at the end are missing
	Rewritten Finding = "rewritten" // the chain is consistent and not the one that was signed or pinned
	Forged    Finding = "forged"    // a checkpoint is not ours, or checkpoints are missing
)

// Problem is one thing that is wrong with a log.
type Problem struct {
	Finding Finding `json:"finding"`
	File    string  `json:"file"` // name in the log's directory
	Seq     uint64  `json:"seq"`  // the record, 0 when none in particular
	Detail  string  `json:"detail"`
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: %s, record %d: %s", p.Finding, p.File, p.Seq, p.Detail)
}

// Report is what Verify found.
type Report struct {
	Head        Head   `json:"head"` // the end of the log
	Segments    int    `json:"segments"`
	Records     uint64 `json:"records"`
	Checkpoints int    `json:"checkpoints"`
	// Signed is the last record that a checkpoint covers: what comes after is
	// protected by the chain only (and by the pinned head, when one was given).
	Signed uint64 `json:"signed"`
	// Torn: the last line is not complete. Normal after a crash; the next start
	// drops it.
	Torn     bool      `json:"torn"`
	Problems []Problem `json:"problems"` // the first maxProblems
	Dropped  int       `json:"dropped"`  // problems beyond those
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

const maxProblems = 1000

// verifier is one Verify at work.
type verifier struct {
	Report
	marks []mark // what is known about the log from outside it, by Seq
	next  int
}

// mark is a hash that record Seq must have, and who says so.
type mark struct {
	Head
	source, file string
}

func (v *verifier) problem(f Finding, file string, seq uint64, format string, args ...any) {
	if len(v.Problems) == maxProblems {
		v.Dropped++
		return
	}
	v.Problems = append(v.Problems, Problem{f, file, seq, fmt.Sprintf(format, args...)})
}

// File is a file of a log and how much of it belongs to a copy.
type File struct {
	Name string
	Size int64
}

// Files lists what a copy of the log consists of. All that was durable before the call
// is in it, no record is half in it, and no checkpoint of it is ahead of its records.
func (l *Log) Files() ([]File, error) {
	if _, err := l.sync(); err != nil {
		return nil, err
	}
	var files []File
	for _, name := range []string{checkpointFile, keyFile} { // before the segments
		st, err := os.Stat(filepath.Join(l.cfg.Dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the audit log: %w", err)
		}
		files = append(files, File{name, st.Size()})
	}
	l.io.Lock()
	defer l.io.Unlock()
	for _, s := range l.segs {
		size := l.size
		if s != l.active() {
			st, err := os.Stat(s.path)
			if err != nil {
				return nil, fmt.Errorf("list the audit log: %w", err)
			}
			size = st.Size()
		}
		files = append(files, File{filepath.Base(s.path), size})
	}
	return files, nil
}

// Verify reads a whole log and reports everything that is wrong with it. pub is
// the key that signs checkpoints, taken from where an intruder could not change it
// (nil: signatures are not checked); pinned is the head that the store remembers,
// or nil. Verify may run beside a process that writes the log. The error tells
// that the log could not be read, not that it is wrong.
func Verify(dir string, pub ed25519.PublicKey, pinned *Head) (*Report, error) {
	v := &verifier{}
	// Checkpoints first: those of a log that is being written never run ahead of it.
	if err := v.checkpoints(dir, pub); err != nil {
		return nil, err
	}
	if pinned != nil && pinned.Seq > 0 {
		m := mark{*pinned, "the store", "the pinned head"}
		i := len(v.marks)
		for i > 0 && v.marks[i-1].Seq > m.Seq {
			i--
		}
		v.marks = append(v.marks[:i], append([]mark{m}, v.marks[i:]...)...)
	}
	segs, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	if len(segs) == 0 {
		v.problem(Truncated, dir, 0, "there is no segment")
	}
	for i, s := range segs {
		if err := v.segment(s, i == 0, i == len(segs)-1); err != nil {
			return nil, err
		}
	}
	v.Segments = len(segs)
	if pinned != nil && len(segs) > 0 && pinned.Log != v.Head.Log {
		v.problem(Rewritten, filepath.Base(segs[0].path), 0, "this is log %s, the store remembers log %s", v.Head.Log, pinned.Log)
	}
	for ; v.next < len(v.marks); v.next++ {
		m := v.marks[v.next]
		v.problem(Truncated, m.file, m.Seq, "%s knows record %d, the log ends at %d", m.source, m.Seq, v.Head.Seq)
	}
	return &v.Report, nil
}

func (v *verifier) checkpoints(dir string, pub ed25519.PublicKey) error {
	f, err := os.Open(filepath.Join(dir, checkpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the checkpoints: %w", err)
	}
	defer f.Close()
	var prev Hash
	r := bufio.NewReader(f)
	for n := 1; ; n++ {
		b, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // an unfinished last line: torn
		}
		if err != nil {
			return fmt.Errorf("read the checkpoints: %w", err)
		}
		c, err := parseCheckpoint(b)
		if err != nil {
			v.problem(Forged, checkpointFile, 0, "line %d: %v", n, err)
			continue
		}
		v.Checkpoints++
		if c.Previous != prev {
			v.problem(Forged, checkpointFile, c.Seq, "line %d does not continue the line before: one of them was removed or replaced", n)
		}
		prev = sha256.Sum256(b[:len(b)-1])
		if pub != nil {
			if err := c.verify(pub); err != nil {
				v.problem(Forged, checkpointFile, c.Seq, "line %d: %v", n, err)
				continue
			}
		}
		if len(v.marks) > 0 && c.Seq < v.marks[len(v.marks)-1].Seq {
			v.problem(Forged, checkpointFile, c.Seq, "line %d goes back", n)
			continue
		}
		v.marks = append(v.marks, mark{Head{c.Log, c.Seq, c.Hash}, "the checkpoint of " + c.Time, checkpointFile})
		v.Signed = c.Seq
	}
}

func (v *verifier) segment(s *segment, first, last bool) error {
	name := filepath.Base(s.path)
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	defer f.Close()
	r := newLineReader(f)
	b, err := r.next()
	if errors.Is(err, io.EOF) {
		if last && !first {
			v.Torn = true
		} else {
			v.problem(Damaged, name, 0, "the header is not complete")
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	h, err := parseHeader(b)
	if err != nil {
		v.problem(Damaged, name, 0, "the header: %v", err)
		h = header{v.Head.Log, s.first, v.Head.Hash}
	}
	if first {
		v.Head = Head{Log: h.Log, Hash: genesis(h.Log)}
	}
	switch {
	case h.First != s.first:
		v.problem(Changed, name, h.First, "the header says that it begins with record %d", h.First)
	case h.Log != v.Head.Log:
		v.problem(Unlinked, name, s.first, "it belongs to log %s, not to %s", h.Log, v.Head.Log)
	case s.first != v.Head.Seq+1:
		v.gap(name, s.first)
	case h.Prev != v.Head.Hash:
		v.problem(Unlinked, name, s.first, "the segment does not continue the one before: one of the two was replaced")
	}
	v.Head.Hash = h.Prev
	v.Head.Seq = s.first - 1
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			if len(b) > 0 && last {
				v.Torn = true
			} else if len(b) > 0 {
				v.problem(Damaged, name, v.Head.Seq+1, "the last line of a sealed segment is not complete")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		v.line(name, b)
	}
}

// gap reports that the log goes on with seq, not with the record that is due.
func (v *verifier) gap(file string, seq uint64) {
	due := v.Head.Seq + 1
	switch {
	case seq == due+1:
		v.problem(Removed, file, due, "record %d is missing", due)
	case seq > due:
		v.problem(Removed, file, due, "records %d to %d are missing", due, seq-1)
	default:
		v.problem(Moved, file, seq, "record %d stands where record %d is due", seq, due)
	}
}

func (v *verifier) line(file string, b []byte) {
	ln, err := parseLine(b)
	if err != nil {
		v.problem(Damaged, file, v.Head.Seq+1, "where record %d is due stands %q…", v.Head.Seq+1, bytes.TrimSpace(b[:min(len(b), 40)]))
		v.Head.Seq++
		v.Head.Hash = Hash{}
		return
	}
	v.Records++
	intact := ln.intact()
	if !intact {
		v.problem(Changed, file, ln.seq, "the record does not have its hash %s", ln.hash)
	}
	if ln.seq != v.Head.Seq+1 {
		v.gap(file, ln.seq)
	} else if ln.prev != v.Head.Hash && v.Head.Hash != (Hash{}) && intact {
		v.problem(Unlinked, file, ln.seq, "the record does not continue record %d: one of the two was replaced", v.Head.Seq)
	}
	v.Head.Seq, v.Head.Hash = ln.seq, ln.hash
	for v.next < len(v.marks) && v.marks[v.next].Seq <= ln.seq {
		m := v.marks[v.next]
		v.next++
		switch {
		case m.Seq < ln.seq:
			v.problem(Removed, file, m.Seq, "%s knows record %d, which is not there", m.source, m.Seq)
		case m.Hash != ln.hash:
			v.problem(Rewritten, file, m.Seq, "%s says that record %d has hash %s", m.source, m.Seq, m.Hash)
		}
	}
}
