package audit

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/sealdesk/sealdesk/internal/durable"
)

// Attribute is what LookupEvents can ask for. The values are stored: do not change them.
type Attribute byte

// The attributes of LookupEvents. Source: CloudTrail API, LookupAttribute.
const (
	NoAttribute Attribute = iota
	EventID
	EventName
	ReadOnly // "true" or "false"
	Username
	ResourceType
	ResourceName
	EventSource
	AccessKeyID
)

// Username is the user as LookupEvents shows it: the IAM user's name, "root", or
// the name of the session of an assumed role.
func (r *Record) Username() string {
	u := &r.UserIdentity
	switch u.Type {
	case "Root":
		return "root"
	case "AssumedRole", "FederatedUser":
		if i := strings.LastIndexByte(u.ARN, '/'); i >= 0 {
			return u.ARN[i+1:]
		}
	}
	return u.UserName
}

// Name is the resource as LookupEvents shows it: the ARN of a KMS key, else the
// last part of the ARN (a volume's ID, a user's name).
func (r *Resource) Name() string {
	if strings.HasPrefix(r.Type, "AWS::KMS::") {
		return r.ARN
	}
	return lastPart(r.ARN)
}

func lastPart(arn string) string {
	if i := strings.LastIndexAny(arn, "/:"); i >= 0 && i+1 < len(arn) {
		return arn[i+1:]
	}
	return arn
}

// values calls f for every value of attribute a that r is found under.
func (r *Record) values(a Attribute, f func(string)) {
	switch a {
	case EventID:
		f(r.EventID)
	case EventName:
		f(r.EventName)
	case ReadOnly:
		if r.ReadOnly {
			f("true")
		} else {
			f("false")
		}
	case Username:
		f(r.Username())
	case EventSource:
		f(r.EventSource)
	case AccessKeyID:
		f(r.UserIdentity.AccessKeyID)
	case ResourceType:
		for i := range r.Resources {
			f(r.Resources[i].Type)
		}
	case ResourceName:
		for i := range r.Resources {
			f(r.Resources[i].ARN)
			f(lastPart(r.Resources[i].ARN))
		}
	}
}

// has reports whether r is found under value v of attribute a.
func (r *Record) has(a Attribute, v string) bool {
	found := a == NoAttribute
	r.values(a, func(s string) { found = found || s == v && s != "" })
	return found
}

func hashValue(kind byte, v string) uint32 {
	var stack [128]byte
	b := append(append(stack[:0], kind), v...)
	return uint32(xxhash.Sum64(b))
}

func hashScope(account, region string) uint32 {
	var stack [64]byte
	b := append(append(append(stack[:0], account...), '/'), region...)
	return uint32(xxhash.Sum64(b))
}

// entryHead is the size of an entry before its attributes.
const entryHead = 24

// entry is a decoded index entry; attrs points into the index.
type entry struct {
	off, size, time, rel, scope uint32
	attrs                       []byte
}

// appendEntry appends the index entry of r; offset, size and sequence number are
// filled in when the record has its place.
func appendEntry(b []byte, r *Record) []byte {
	var head [entryHead]byte
	at := len(b)
	binary.BigEndian.PutUint32(head[8:], seconds(r.EventTime.Time))
	binary.BigEndian.PutUint32(head[16:], hashScope(r.RecipientAccountID, r.AWSRegion))
	b = append(b, head[:]...)
	n := uint32(0)
	for a := EventID; a <= AccessKeyID; a++ {
		r.values(a, func(v string) {
			if v == "" {
				return
			}
			h := hashValue(byte(a), v)
			for i := at + entryHead; i < len(b); i += 4 {
				if binary.BigEndian.Uint32(b[i:]) == h {
					return
				}
			}
			b = binary.BigEndian.AppendUint32(b, h)
			n++
		})
	}
	binary.BigEndian.PutUint32(b[at+20:], n)
	return b
}

// seconds is t as the index keeps it.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), 1<<32-1)) }

// nextEntry takes the first entry off b; ok is false when b is no index.
func nextEntry(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) < entryHead {
		return e, nil, false
	}
	u := binary.BigEndian.Uint32
	n := u(b[20:])
	if uint64(len(b)) < entryHead+4*uint64(n) {
		return e, nil, false
	}
	end := entryHead + 4*int(n)
	return entry{u(b), u(b[4:]), u(b[8:]), u(b[12:]), u(b[16:]), b[entryHead:end]}, b[end:], true
}

func (e *entry) has(h uint32) bool {
	for a := e.attrs; len(a) >= 4; a = a[4:] {
		if binary.BigEndian.Uint32(a) == h {
			return true
		}
	}
	return false
}

// expect makes room for as many entries as the segment before had.
func (s *segment) expect(before *segment) {
	before.mu.Lock()
	n := len(before.live)
	before.mu.Unlock()
	s.mu.Lock()
	s.live = slices.Grow(s.live, n+n/8)
	s.mu.Unlock()
}

// add takes over the entries of a batch written at offset base, whose first
// record is seq. The log's mu is held.
func (s *segment) add(entries []byte, base uint32, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := len(s.live)
	s.live = append(s.live, entries...)
	for b := s.live[at:]; len(b) > 0; {
		e, rest, ok := nextEntry(b)
		if !ok {
			panic("audit: a batch with a broken index entry")
		}
		binary.BigEndian.PutUint32(b, e.off+base)
		binary.BigEndian.PutUint32(b[12:], uint32(seq-s.first))
		seq++
		b = rest
	}
}

// indexed is the part of a record that the index needs.
type indexed struct {
	UserIdentity       UserIdentity `json:"userIdentity"`
	EventTime          Time         `json:"eventTime"`
	EventSource        string       `json:"eventSource"`
	EventName          string       `json:"eventName"`
	AWSRegion          string       `json:"awsRegion"`
	EventID            string       `json:"eventID"`
	ReadOnly           bool         `json:"readOnly"`
	Resources          []Resource   `json:"resources"`
	RecipientAccountID string       `json:"recipientAccountId"`
}

// parseIndexed reads what the index needs of a record.
func parseIndexed(record []byte) (*Record, error) {
	var x indexed
	if err := json.Unmarshal(record, &x); err != nil {
		return nil, err
	}
	return &Record{UserIdentity: x.UserIdentity, EventTime: x.EventTime, EventSource: x.EventSource, EventName: x.EventName, AWSRegion: x.AWSRegion,
		EventID: x.EventID, ReadOnly: x.ReadOnly, Resources: x.Resources, RecipientAccountID: x.RecipientAccountID}, nil
}

// scanEntries builds the entries of a segment from its first size bytes (-1: all).
func scanEntries(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("index the audit log: %w", err)
	}
	defer f.Close()
	var src io.Reader = f
	if size >= 0 {
		src = io.LimitReader(f, size)
	}
	r := newLineReader(src)
	b, err := r.next()
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	var out []byte
	off := r.size
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", path, err)
		}
		ln, err := parseLine(b)
		if err != nil {
			return nil, fmt.Errorf("%w: index %s at byte %d: %w", ErrTampered, path, off, err)
		}
		rec, err := parseIndexed(ln.record)
		if err != nil {
			return nil, fmt.Errorf("%w: index %s, record %d: %w", ErrTampered, path, ln.seq, err)
		}
		at := len(out)
		out = appendEntry(out, rec)
		binary.BigEndian.PutUint32(out[at:], uint32(off))
		binary.BigEndian.PutUint32(out[at+4:], uint32(r.size))
		binary.BigEndian.PutUint32(out[at+12:], uint32(ln.seq-h.First))
		off += r.size
	}
}

// summary is an index's first part, kept in memory once read.
type summary struct {
	count            uint32
	first            uint64
	minTime, maxTime uint32
	last             Hash
	size             int64 // of the segment
	bloom, entries   uint32
}

const (
	indexMagic   = "SDAX"
	summarySize  = 4 + 4 + 4 + 8 + 4 + 4 + 32 + 8 + 4 + 4 + 4
	bloomPerItem = 10 // bits; with 7 probes about 1 % false hits
	bloomProbes  = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errIndex: an index file is missing or does not check out.
var errIndex = errors.New("index does not check out")

// seal writes the index of a full segment that ends with head.
func (s *segment) seal(head Head) error {
	if err := s.filled(); err != nil {
		return err
	}
	fi, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("seal a segment: %w", err)
	}
	s.mu.Lock()
	all := append(slices.Clone(s.tail), s.live...)
	s.mu.Unlock()
	b, sum, err := encodeIndex(all, s.first, head.Hash, fi.Size())
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.indexPath(), b, 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	s.sum, s.live, s.tail, s.mem = sum, nil, nil, false
	s.mu.Unlock()
	return nil
}

// encodeIndex builds an index file from entries in the order of the log.
func encodeIndex(all []byte, first uint64, last Hash, size int64) ([]byte, *summary, error) {
	type item struct {
		entry
		raw []byte
	}
	var items []item
	distinct := map[uint64]struct{}{}
	for b := all; len(b) > 0; {
		e, rest, ok := nextEntry(b)
		if !ok {
			return nil, nil, errIndex
		}
		items = append(items, item{e, b[:len(b)-len(rest)]})
		distinct[bloomKey(e.scope, 0)] = struct{}{}
		for a := e.attrs; len(a) >= 4; a = a[4:] {
			distinct[bloomKey(e.scope, binary.BigEndian.Uint32(a))] = struct{}{}
		}
		b = rest
	}
	slices.SortFunc(items, func(a, b item) int {
		if a.time != b.time {
			return int(int64(b.time) - int64(a.time))
		}
		return int(int64(b.rel) - int64(a.rel))
	})
	sum := &summary{count: uint32(len(items)), first: first, last: last, size: size,
		bloom: uint32(len(distinct)*bloomPerItem/8 + 8), entries: uint32(len(all))}
	if len(items) > 0 {
		sum.maxTime, sum.minTime = items[0].time, items[len(items)-1].time
	}
	b := make([]byte, summarySize, summarySize+int(sum.bloom)+len(all)+4)
	sum.encode(b)
	filter := make([]byte, sum.bloom)
	for k := range distinct {
		bloomEach(filter, k, func(i, bit uint32) bool { filter[i] |= 1 << bit; return true })
	}
	b = append(b, filter...)
	for i := range items {
		b = append(b, items[i].raw...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[summarySize:], castagnoli)), sum, nil
}

func (s *summary) encode(b []byte) {
	copy(b, indexMagic)
	u := binary.BigEndian.PutUint32
	u(b[4:], 1)
	u(b[8:], s.count)
	binary.BigEndian.PutUint64(b[12:], s.first)
	u(b[20:], s.minTime)
	u(b[24:], s.maxTime)
	copy(b[28:], s.last[:])
	binary.BigEndian.PutUint64(b[60:], uint64(s.size))
	u(b[68:], s.bloom)
	u(b[72:], s.entries)
	u(b[76:], crc32.Checksum(b[:76], castagnoli))
}

func decodeSummary(b []byte) (*summary, error) {
	u := binary.BigEndian.Uint32
	if len(b) < summarySize || string(b[:4]) != indexMagic || u(b[4:]) != 1 || u(b[76:]) != crc32.Checksum(b[:76], castagnoli) {
		return nil, errIndex
	}
	s := &summary{count: u(b[8:]), first: binary.BigEndian.Uint64(b[12:]), minTime: u(b[20:]), maxTime: u(b[24:]),
		size: int64(binary.BigEndian.Uint64(b[60:])), bloom: u(b[68:]), entries: u(b[72:])}
	copy(s.last[:], b[28:])
	if s.bloom == 0 {
		return nil, errIndex
	}
	return s, nil
}

func bloomKey(scope, attr uint32) uint64 {
	k := uint64(scope)<<32 | uint64(attr)
	k = (k ^ k>>33) * 0xff51afd7ed558ccd
	k = (k ^ k>>33) * 0xc4ceb9fe1a85ec53
	return k ^ k>>33
}

func bloomEach(filter []byte, k uint64, f func(i, bit uint32) bool) bool {
	n := uint64(len(filter)) * 8
	h1, h2 := k&0xffffffff, k>>32|1
	for i := range uint64(bloomProbes) {
		p := (h1 + i*h2) % n
		if !f(uint32(p/8), uint32(p%8)) {
			return false
		}
	}
	return true
}

func bloomHas(filter []byte, k uint64) bool {
	return bloomEach(filter, k, func(i, bit uint32) bool { return filter[i]&(1<<bit) != 0 })
}

// summarise loads the summary of a sealed segment, building its index anew when
// the file does not check out.
func (s *segment) summarise() (*summary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sum != nil || s.mem {
		return s.sum, nil // nil: its index is in memory
	}
	fi, err := os.Stat(s.path)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	if f, err := os.Open(s.indexPath()); err == nil {
		b := make([]byte, summarySize)
		_, err = io.ReadFull(f, b)
		f.Close()
		if err == nil {
			if sum, err := decodeSummary(b); err == nil && sum.first == s.first && sum.size == fi.Size() {
				s.sum = sum
				return sum, nil
			}
		}
	}
	return s.rebuild(fi.Size())
}

// rebuild writes the index of a sealed segment anew. mu is held.
func (s *segment) rebuild(size int64) (*summary, error) {
	all, err := scanEntries(s.path, -1)
	if err != nil {
		return nil, err
	}
	b, sum, err := encodeIndex(all, s.first, Hash{}, size)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(s.indexPath(), b, 0o600); err != nil {
		return nil, err
	}
	s.sum = sum
	return sum, nil
}
