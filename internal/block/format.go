package block

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The bytes are described in doc.go and docs/formats/volume.md. Little endian throughout.

const (
	formatVersion = 1

	fanBits = 7
	fanOut  = 1 << fanBits // entries of a map page

	groupBlocks = 120 // most entries, and most data blocks, of one group
	descHeader  = 128
	descTagOff  = BlockSize - tagLen

	maxRun    = 1<<20 - 1 // longest ZERO run of one entry, in blocks
	maxLevels = 5         // 128^5 blocks = 128 TiB

	lockName  = "lock"
	segPrefix = "seg-"

	defaultSegmentSlots = 2048 // 8 MiB
	maxSegmentSlots     = 1 << 16

	maxManifest = 256 << 20
)

var (
	groupMagic    = [4]byte{'S', 'D', 'V', 'G'}
	manifestMagic = [4]byte{'S', 'D', 'V', 'M'}
	manifestNames = [2]string{"manifest.0", "manifest.1"}
)

// Kinds: of group entries, of map entries (as flags), and in associated data.
const (
	kindNone = 0
	kindData = 1
	kindZero = 2
	kindPage = 3
)

// Flags of a group.
const (
	groupLog  = 1 // part of the log: replayed
	groupSide = 2 // pages and moved blocks: reached through the map only
)

// loc is a place and a kind: segment u40 ‖ slot u16 ‖ kind u8.
type loc uint64

func makeLoc(seg uint64, slot uint32, kind uint8) loc {
	return loc(seg<<24 | uint64(slot)<<8 | uint64(kind))
}
func (l loc) seg() uint64  { return uint64(l) >> 24 }
func (l loc) slot() uint32 { return uint32(l>>8) & 0xffff }
func (l loc) kind() uint8  { return uint8(l) }

// entry is a map entry: where a block (or a child page) is, and what proves it.
type entry struct {
	loc   loc
	epoch uint32
	ctr   uint32
	tag   [tagLen]byte
}

func (e *entry) isData() bool { return e.loc.kind() == kindData || e.loc.kind() == kindPage }

func putEntry(b []byte, e *entry) {
	binary.LittleEndian.PutUint64(b, uint64(e.loc))
	binary.LittleEndian.PutUint32(b[8:], e.epoch)
	binary.LittleEndian.PutUint32(b[12:], e.ctr)
	copy(b[16:32], e.tag[:])
}

func getEntry(b []byte) (e entry) {
	e.loc = loc(binary.LittleEndian.Uint64(b))
	e.epoch = binary.LittleEndian.Uint32(b[8:])
	e.ctr = binary.LittleEndian.Uint32(b[12:])
	copy(e.tag[:], b[16:32])
	return e
}

// groupEntry is one line of a group descriptor. addr is a block number (data, zero)
// or a page index (page); run is a number of blocks (zero) or a level (page).
type groupEntry struct {
	addr  uint64
	run   uint32
	kind  uint8
	epoch uint32
	ctr   uint32
	tag   [tagLen]byte
}

func (g *groupEntry) hasBlock() bool { return g.kind == kindData || g.kind == kindPage }

func putGroupEntry(b []byte, g *groupEntry) {
	binary.LittleEndian.PutUint64(b, g.addr|uint64(g.kind)<<40|uint64(g.run)<<44)
	binary.LittleEndian.PutUint32(b[8:], g.epoch)
	binary.LittleEndian.PutUint32(b[12:], g.ctr)
	copy(b[16:32], g.tag[:])
}

func getGroupEntry(b []byte) (g groupEntry) {
	a := binary.LittleEndian.Uint64(b)
	g.addr, g.kind, g.run = a&(1<<40-1), uint8(a>>40)&0xf, uint32(a>>44)
	g.epoch = binary.LittleEndian.Uint32(b[8:])
	g.ctr = binary.LittleEndian.Uint32(b[12:])
	copy(g.tag[:], b[16:32])
	return g
}

// group is a decoded descriptor.
type group struct {
	flags   uint16
	seg     uint64
	slot    uint32 // of the descriptor; data follows at slot+1
	nblocks uint32
	num     uint64 // in the log: 1, 2, 3 …; side groups: 0
	flushed uint64 // every log group up to this one was durable before this one was written
	epoch   uint32
	ctr     uint64 // descriptor nonce
	next    uint64 // segment that the log goes on in after this one
	prev    [tagLen]byte
	entries []groupEntry
	tag     [tagLen]byte // its own
	nonce   [12]byte     // scratch
}

var errDescriptor = errors.New("bad group descriptor")

// sealInto writes the descriptor to b[:BlockSize].
func (g *group) sealInto(a cipher.AEAD, id volID, b []byte, scratch []byte) {
	clear(b[:BlockSize])
	copy(b, groupMagic[:])
	le := binary.LittleEndian
	le.PutUint16(b[4:], formatVersion)
	le.PutUint16(b[6:], g.flags)
	le.PutUint64(b[8:], g.seg)
	le.PutUint32(b[16:], g.slot)
	le.PutUint16(b[20:], uint16(len(g.entries)))
	le.PutUint16(b[22:], uint16(g.nblocks))
	le.PutUint64(b[24:], g.num)
	le.PutUint64(b[32:], g.flushed)
	le.PutUint32(b[40:], g.epoch)
	le.PutUint64(b[48:], g.ctr)
	le.PutUint64(b[56:], g.next)
	copy(b[64:80], g.prev[:])
	copy(b[80:96], id[:])
	for i := range g.entries {
		putGroupEntry(b[descHeader+32*i:], &g.entries[i])
	}
	putNonce(&g.nonce, g.ctr)
	out := a.Seal(scratch[:0], g.nonce[:], b[descHeader:descTagOff], b[:descHeader])
	copy(b[descHeader:], out)
	copy(g.tag[:], b[descTagOff:])
}

// peekGroup reads the unauthenticated header.
func peekGroup(b []byte) (g group, id volID, n int, err error) {
	if len(b) < BlockSize || [4]byte(b[:4]) != groupMagic {
		return g, id, 0, errDescriptor
	}
	le := binary.LittleEndian
	if v := le.Uint16(b[4:]); v != formatVersion {
		return g, id, 0, fmt.Errorf("%w: version %d", errDescriptor, v)
	}
	g.flags = le.Uint16(b[6:])
	g.seg = le.Uint64(b[8:])
	g.slot = le.Uint32(b[16:])
	n = int(le.Uint16(b[20:]))
	g.nblocks = uint32(le.Uint16(b[22:]))
	g.num = le.Uint64(b[24:])
	g.flushed = le.Uint64(b[32:])
	g.epoch = le.Uint32(b[40:])
	g.ctr = le.Uint64(b[48:])
	g.next = le.Uint64(b[56:])
	copy(g.prev[:], b[64:80])
	copy(id[:], b[80:96])
	copy(g.tag[:], b[descTagOff:])
	if n == 0 || n > groupBlocks || int(g.nblocks) > n {
		return g, id, n, fmt.Errorf("%w: %d entries, %d blocks", errDescriptor, n, g.nblocks)
	}
	return g, id, n, nil
}

// openGroup authenticates and decodes the descriptor in b. It destroys b.
func openGroup(b []byte, epochOf func(uint32) *epoch) (*group, error) {
	g, gid, n, err := peekGroup(b)
	if err != nil {
		return nil, err
	}
	e := epochOf(g.epoch)
	if e == nil {
		return nil, fmt.Errorf("%w: unknown epoch %d", errDescriptor, g.epoch)
	}
	// A cloned segment was written by the volume that the epoch belongs to.
	if gid != e.origin {
		return nil, fmt.Errorf("%w: written for another volume", errDescriptor)
	}
	var nonce [12]byte
	binary.LittleEndian.PutUint64(nonce[:], g.ctr)
	p, err := e.desc.Open(b[descHeader:descHeader], nonce[:], b[descHeader:BlockSize], b[:descHeader])
	if err != nil {
		return nil, errDescriptor
	}
	g.entries = make([]groupEntry, n)
	blocks := 0
	for i := range g.entries {
		g.entries[i] = getGroupEntry(p[32*i:])
		if g.entries[i].hasBlock() {
			blocks++
		}
	}
	if blocks != int(g.nblocks) {
		return nil, fmt.Errorf("%w: %d blocks, want %d", errDescriptor, blocks, g.nblocks)
	}
	return &g, nil
}

// blockAAD binds a sealed block or page to its origin volume, address, epoch and kind.
func blockAAD(dst *[32]byte, origin volID, addr uint64, epoch uint32, kind uint8, level int) {
	copy(dst[:16], origin[:])
	binary.LittleEndian.PutUint64(dst[16:], addr)
	binary.LittleEndian.PutUint32(dst[24:], epoch)
	binary.LittleEndian.PutUint32(dst[28:], uint32(kind)|uint32(level)<<8)
}

// segInfo is a row of the manifest's segment table.
type segInfo struct {
	id   uint64
	live uint32 // slots the map reaches
	used uint32 // slots written
	kind uint8  // groupLog or groupSide
}

// Flags of a manifest.
const (
	manifestClean    = 1 // closed in order: no log follows
	manifestSnapshot = 2 // a snapshot: never written again
)

// baseInfo says what the holes of the map stand for while a volume is being filled from an image.
type baseInfo struct {
	size     int64    // bytes of the image
	sum      [32]byte // SHA-256 of the chunk list
	hydrated uint64   // blocks below this one no longer look at the image
}

// manifest is the root of everything, immutable once written.
type manifest struct {
	flags    uint16
	version  uint64
	vol      volID
	volumeID string
	size     int64
	segSlots uint32
	levels   int
	root     entry

	// the log goes on at tailSeg:tailSlot, or at slot 0 of tailNext
	tailSeg   uint64
	tailSlot  uint32
	tailNext  uint64
	tailGroup uint64 // number of the next group
	tailPrev  [tagLen]byte
	nextSeg   uint64

	segs    []segInfo
	epochs  []*epoch
	keyring []wrapped
	base    *baseInfo
	name    string // snapshot ID

	mac [macLen]byte
}

// Sections of the manifest body. Unknown sections from sectionOptional on are skipped, others refuse the volume.
const (
	sectionVolume   = 1
	sectionRoot     = 2
	sectionTail     = 3
	sectionSegments = 4
	sectionEpochs   = 5
	sectionKeyring  = 6
	sectionBase     = 7
	sectionOptional = 0x8000
	sectionName     = 0x8001

	manifestHeader = 64
)

func (m *manifest) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, manifestHeader, manifestHeader+256+24*len(m.segs)+64*len(m.epochs))
	section := func(tag uint16, body func()) {
		b = le.AppendUint16(b, tag)
		b = le.AppendUint16(b, 0)
		at := len(b)
		b = le.AppendUint32(b, 0)
		body()
		le.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	section(sectionVolume, func() {
		b = le.AppendUint64(b, uint64(m.size))
		b = le.AppendUint32(b, m.segSlots)
		b = le.AppendUint32(b, uint32(m.levels))
		b = append(b, m.volumeID...)
	})
	section(sectionRoot, func() {
		var e [32]byte
		putEntry(e[:], &m.root)
		b = append(b, e[:]...)
	})
	section(sectionTail, func() {
		b = le.AppendUint64(b, m.tailSeg)
		b = le.AppendUint32(b, m.tailSlot)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, m.tailNext)
		b = le.AppendUint64(b, m.tailGroup)
		b = append(b, m.tailPrev[:]...)
		b = le.AppendUint64(b, m.nextSeg)
	})
	section(sectionSegments, func() {
		for _, s := range m.segs {
			b = le.AppendUint64(b, s.id)
			b = le.AppendUint32(b, s.live)
			b = le.AppendUint32(b, s.used|uint32(s.kind)<<24)
		}
	})
	section(sectionEpochs, func() {
		for _, e := range m.epochs {
			b = le.AppendUint32(b, e.num)
			b = le.AppendUint32(b, e.dek)
			b = append(b, e.origin[:]...)
			b = le.AppendUint64(b, uint64(e.live))
			b = append(b, e.salt[:]...)
		}
	})
	for _, w := range m.keyring {
		section(sectionKeyring, func() {
			b = le.AppendUint32(b, w.id)
			b = append(b, w.origin[:]...)
			b = append(b, w.salt[:]...)
			b = append(b, w.sealed...)
		})
	}
	if m.base != nil {
		section(sectionBase, func() {
			b = le.AppendUint64(b, uint64(m.base.size))
			b = append(b, m.base.sum[:]...)
			b = le.AppendUint64(b, m.base.hydrated)
		})
	}
	if m.name != "" {
		section(sectionName, func() { b = append(b, m.name...) })
	}
	copy(b, manifestMagic[:])
	le.PutUint16(b[4:], formatVersion)
	le.PutUint16(b[6:], m.flags)
	le.PutUint64(b[8:], m.version)
	le.PutUint32(b[16:], uint32(len(b)-manifestHeader))
	copy(b[24:40], m.vol[:])
	return b // the MAC is appended by the caller
}

var errManifest = errors.New("bad manifest")

// decodeManifest parses b, which may be longer than the manifest. It returns the
// bytes that the MAC covers; the caller must check m.mac over them before it trusts anything.
func decodeManifest(b []byte) (m *manifest, covered []byte, err error) {
	le := binary.LittleEndian
	if len(b) < manifestHeader+macLen || [4]byte(b[:4]) != manifestMagic {
		return nil, nil, errManifest
	}
	if v := le.Uint16(b[4:]); v != formatVersion {
		return nil, nil, fmt.Errorf("%w: format version %d, this program reads %d", errManifest, v, formatVersion)
	}
	n := uint64(le.Uint32(b[16:]))
	if n > uint64(len(b)-manifestHeader-macLen) {
		return nil, nil, fmt.Errorf("%w: cut short", errManifest)
	}
	m = &manifest{flags: le.Uint16(b[6:]), version: le.Uint64(b[8:]), vol: volID(b[24:40])}
	covered = b[:manifestHeader+n]
	copy(m.mac[:], b[manifestHeader+n:])
	seen := map[uint16]bool{}
	for p := covered[manifestHeader:]; len(p) > 0; {
		if len(p) < 8 {
			return nil, nil, errManifest
		}
		tag, l := le.Uint16(p), uint64(le.Uint32(p[4:]))
		if l > uint64(len(p)-8) {
			return nil, nil, errManifest
		}
		s := p[8 : 8+l]
		p = p[8+l:]
		if seen[tag] && tag != sectionKeyring && tag < sectionOptional {
			return nil, nil, fmt.Errorf("%w: section %d twice", errManifest, tag)
		}
		seen[tag] = true
		if err := m.section(tag, s); err != nil {
			return nil, nil, err
		}
	}
	for _, tag := range []uint16{sectionVolume, sectionRoot, sectionTail, sectionSegments, sectionEpochs} {
		if !seen[tag] {
			return nil, nil, fmt.Errorf("%w: section %d missing", errManifest, tag)
		}
	}
	if err := m.check(); err != nil {
		return nil, nil, err
	}
	return m, covered, nil
}

func (m *manifest) section(tag uint16, s []byte) error {
	le := binary.LittleEndian
	bad := func() error { return fmt.Errorf("%w: section %d has %d bytes", errManifest, tag, len(s)) }
	switch tag {
	case sectionVolume:
		if len(s) < 17 || len(s) > 16+256 {
			return bad()
		}
		m.size, m.segSlots, m.levels = int64(le.Uint64(s)), le.Uint32(s[8:]), int(le.Uint32(s[12:]))
		m.volumeID = string(s[16:])
	case sectionRoot:
		if len(s) != 32 {
			return bad()
		}
		m.root = getEntry(s)
	case sectionTail:
		if len(s) != 56 {
			return bad()
		}
		m.tailSeg, m.tailSlot = le.Uint64(s), le.Uint32(s[8:])
		m.tailNext, m.tailGroup = le.Uint64(s[16:]), le.Uint64(s[24:])
		copy(m.tailPrev[:], s[32:48])
		m.nextSeg = le.Uint64(s[48:])
	case sectionSegments:
		if len(s)%16 != 0 {
			return bad()
		}
		for ; len(s) > 0; s = s[16:] {
			u := le.Uint32(s[12:])
			m.segs = append(m.segs, segInfo{id: le.Uint64(s), live: le.Uint32(s[8:]), used: u & 0xffffff, kind: uint8(u >> 24)})
		}
	case sectionEpochs:
		if len(s)%64 != 0 {
			return bad()
		}
		for ; len(s) > 0; s = s[64:] {
			e := &epoch{num: le.Uint32(s), dek: le.Uint32(s[4:]), origin: volID(s[8:24]), live: int64(le.Uint64(s[24:]))}
			copy(e.salt[:], s[32:64])
			m.epochs = append(m.epochs, e)
		}
	case sectionKeyring:
		if len(s) < 52+minKeyLen+tagLen || len(s) > 52+1024 {
			return bad()
		}
		w := wrapped{id: le.Uint32(s), origin: volID(s[4:20])}
		copy(w.salt[:], s[20:52])
		w.sealed = append([]byte(nil), s[52:]...)
		m.keyring = append(m.keyring, w)
	case sectionBase:
		if len(s) != 48 {
			return bad()
		}
		m.base = &baseInfo{size: int64(le.Uint64(s)), sum: [32]byte(s[8:40]), hydrated: le.Uint64(s[40:])}
	case sectionName:
		m.name = string(s)
	default:
		if tag < sectionOptional {
			return fmt.Errorf("%w: section %d is of a newer version", errManifest, tag)
		}
	}
	return nil
}

// check holds the ranges that later code relies on.
func (m *manifest) check() error {
	if m.size <= 0 || m.size%BlockSize != 0 || m.levels < 1 || m.levels > maxLevels ||
		levelsFor(m.size) > m.levels || m.segSlots < groupBlocks+1 || m.segSlots > maxSegmentSlots {
		return fmt.Errorf("%w: size %d, %d levels, segments of %d slots", errManifest, m.size, m.levels, m.segSlots)
	}
	for _, s := range m.segs {
		if s.id == 0 || s.id >= 1<<40 || s.id >= m.nextSeg || s.used > m.segSlots || s.live > s.used {
			return fmt.Errorf("%w: segment %d", errManifest, s.id)
		}
	}
	for _, e := range m.epochs {
		if e.live < 0 {
			return fmt.Errorf("%w: epoch %d", errManifest, e.num)
		}
	}
	if m.nextSeg >= 1<<40 || m.tailNext == 0 || m.tailNext >= m.nextSeg || m.tailSlot > m.segSlots {
		return fmt.Errorf("%w: log tail", errManifest)
	}
	if m.base != nil && (m.base.size < 0 || m.base.hydrated > uint64(m.size/BlockSize)) {
		return fmt.Errorf("%w: base", errManifest)
	}
	return nil
}

// levelsFor is the number of levels of map pages that a size needs.
func levelsFor(size int64) int {
	n, l := uint64(size+BlockSize-1)/BlockSize, 1
	for cap := uint64(fanOut); cap < n; cap <<= fanBits {
		l++
	}
	return l
}

func segName(id uint64) string { return fmt.Sprintf("%s%016x", segPrefix, id) }

func parseSegName(name string) (uint64, bool) {
	hex, ok := strings.CutPrefix(name, segPrefix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	var id uint64
	if _, err := fmt.Sscanf(hex, "%016x", &id); err != nil || segName(id) != name {
		return 0, false
	}
	return id, true
}
