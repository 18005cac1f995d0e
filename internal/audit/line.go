package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Hash is a link of the chain.
type Hash [sha256.Size]byte

// String is the hash in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(b []byte) error {
	got, ok := parseHash(b)
	if !ok {
		return fmt.Errorf("%q is no hash: want 64 lower-case hexadecimal digits", b)
	}
	*h = got
	return nil
}

// Head is a place in a log: everything up to and including record Seq.
type Head struct {
	Log  string `json:"log"`
	Seq  uint64 `json:"seq"` // 0: no record yet
	Hash Hash   `json:"hash"`
}

// genesis is what record 1 of a log is chained to.
func genesis(id string) Hash { return sha256.Sum256([]byte("sealdesk audit log 1\x00" + id)) }

// link is the hash of record seq with the given SHA-256 of its bytes.
func link(seq uint64, prev *Hash, leaf *Hash) Hash {
	var b [1 + 8 + 32 + 32]byte
	b[0] = 1
	binary.BigEndian.PutUint64(b[1:], seq)
	copy(b[9:], prev[:])
	copy(b[41:], leaf[:])
	return sha256.Sum256(b[:])
}

const (
	lineSeq    = `{"seq":`
	linePrev   = `,"prev":"`
	lineRecord = `","record":`
	lineHash   = `,"hash":"`
	lineEnd    = "\"}\n"

	tailSize = len(lineHash) + 64 + len(lineEnd)
	// maxLine is more than any line can need: a record's parts are bounded (encode.go).
	maxLine = 1 << 20
)

func appendLine(b []byte, seq uint64, prev *Hash, record []byte, hash *Hash) []byte {
	b = strconv.AppendUint(append(b, lineSeq...), seq, 10)
	b = hex.AppendEncode(append(b, linePrev...), prev[:])
	b = append(append(b, lineRecord...), record...)
	b = hex.AppendEncode(append(b, lineHash...), hash[:])
	return append(b, lineEnd...)
}

func appendHeader(b []byte, id string, first uint64, prev *Hash) []byte {
	b = append(b, `{"format":"sealdesk audit log","version":1,"log":`...)
	b = append(appendString(b, id), `,"first":`...)
	b = append(strconv.AppendUint(b, first, 10), `,"prev":"`...)
	b = hex.AppendEncode(b, prev[:])
	return append(b, lineEnd...)
}

// errSyntax: the bytes are no line of a log.
var errSyntax = errors.New("not a line of an audit log")

// line is one line of a segment, taken apart; record points into what was parsed.
type line struct {
	seq    uint64
	prev   Hash
	record []byte
	hash   Hash
}

// intact reports whether the hash is that of the line's own contents.
func (l *line) intact() bool {
	leaf := Hash(sha256.Sum256(l.record))
	return link(l.seq, &l.prev, &leaf) == l.hash
}

// parseLine takes a line apart, newline included. It accepts exactly what
// appendLine makes (and does not check the hash).
func parseLine(b []byte) (line, error) {
	var l line
	rest, ok := bytes.CutPrefix(b, []byte(lineSeq))
	if !ok || len(b) < tailSize {
		return l, errSyntax
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > 20 || rest[0] == '0' {
		return l, errSyntax
	}
	var err error
	if l.seq, err = strconv.ParseUint(string(rest[:digits]), 10, 64); err != nil {
		return l, errSyntax
	}
	rest, ok = bytes.CutPrefix(rest[digits:], []byte(linePrev))
	if !ok || len(rest) < 64 {
		return l, errSyntax
	}
	if l.prev, ok = parseHash(rest[:64]); !ok {
		return l, errSyntax
	}
	rest, ok = bytes.CutPrefix(rest[64:], []byte(lineRecord))
	if !ok || len(rest) < tailSize+2 {
		return l, errSyntax
	}
	l.record = rest[:len(rest)-tailSize]
	tail := rest[len(rest)-tailSize:]
	if tail, ok = bytes.CutPrefix(tail, []byte(lineHash)); !ok || string(tail[64:]) != lineEnd {
		return l, errSyntax
	}
	if l.hash, ok = parseHash(tail[:64]); !ok {
		return l, errSyntax
	}
	if l.record[0] != '{' || bytes.IndexByte(l.record, '\n') >= 0 || !json.Valid(l.record) {
		return l, errSyntax
	}
	return l, nil
}

// parseHash reads 64 lower-case hexadecimal digits.
func parseHash(b []byte) (h Hash, ok bool) {
	if len(b) != 64 {
		return h, false
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return h, false
		}
	}
	_, err := hex.Decode(h[:], b)
	return h, err == nil
}

// header is a segment's first line.
type header struct {
	Log   string `json:"log"`
	First uint64 `json:"first"`
	Prev  Hash   `json:"prev"`
}

// parseHeader accepts exactly what appendHeader makes.
func parseHeader(b []byte) (header, error) {
	var h struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
		header
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return header{}, fmt.Errorf("%w: %w", errSyntax, err)
	}
	if h.Format != "sealdesk audit log" {
		return header{}, fmt.Errorf("format is %q, want %q", h.Format, "sealdesk audit log")
	}
	if h.Version != 1 {
		return header{}, fmt.Errorf("version is %d, this program reads 1: the log was written by a newer Sealdesk", h.Version)
	}
	if !bytes.Equal(b, appendHeader(nil, h.Log, h.First, &h.Prev)) {
		return header{}, errSyntax
	}
	return h.header, nil
}

// lineReader reads lines, newline included, up to maxLine bytes each.
type lineReader struct {
	r    *bufio.Reader
	long []byte
	size int64 // of the line last returned, as it is in the file
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 128<<10)} }

// next returns the next line, valid until the following call. At the end it
// returns io.EOF, with the bytes of an unfinished last line if there is one.
func (r *lineReader) next() ([]byte, error) {
	b, err := r.r.ReadSlice('\n')
	r.size = int64(len(b))
	if err == nil || !errors.Is(err, bufio.ErrBufferFull) {
		return b, err
	}
	r.long = append(r.long[:0], b...)
	for errors.Is(err, bufio.ErrBufferFull) {
		b, err = r.r.ReadSlice('\n')
		r.size += int64(len(b))
		if len(r.long)+len(b) <= maxLine {
			r.long = append(r.long, b...)
		} else if len(r.long) < maxLine { // keep it too long to be a line, bounded
			r.long = append(r.long, b[:maxLine-len(r.long)]...)
		}
	}
	return r.long, err
}
