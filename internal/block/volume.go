package block

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Options are the settings of Create and Open. The zero value is usable for Open.
type Options struct {
	// VolumeID names the volume (EBS: "vol-…"). Create needs it; Open checks it when given.
	VolumeID string
	// SizeBytes is the capacity, a multiple of 4096. Create only.
	SizeBytes int64
	// Key is the data key, at least 32 bytes (KMS gives EBS 64). It is cloned; the caller keeps its own.
	Key *secret.Bytes
	// Anchor, when not zero, is the newest one the owner has pinned: an older volume is refused.
	Anchor Anchor
	// OnAnchor is called (from one goroutine at a time) after a new manifest became durable.
	OnAnchor func(Anchor)
	// ReadOnly opens without writing a byte. The log, if any, is replayed in memory.
	ReadOnly bool
	// Base is the image that a volume made by CreateFromBase still reads through. Open needs
	// it until hydration is complete.
	Base *Base

	// CheckpointBytes of log, or CheckpointInterval with anything new, lead to a checkpoint.
	// They bound replay after a crash, and what a cut tail can lose unnoticed.
	CheckpointBytes    int64         // default 512 MiB
	CheckpointInterval time.Duration // default 30 s; negative: nothing in the background at all (tests)
	// MapCachePages bounds the map pages (4 KiB, one for 512 KiB of volume) kept in memory while clean.
	MapCachePages int // default 16384 (64 MiB, maps 8 GiB)
	// MaxOpenSegments bounds open segment files.
	MaxOpenSegments int // default 128
	// CompactBytesPerSecond bounds compaction while no writer waits for it; negative: no compaction.
	CompactBytesPerSecond int64 // default 64 MiB/s
	// SegmentSlots is the size of new segments in 4 KiB slots (Create only; default 2048, 8 MiB).
	SegmentSlots uint32

	// FlushCheckpoints has Flush write a checkpoint: with a Remote that has FlushRemote, a flush then reaches the object store.
	FlushCheckpoints bool

	FS     FS // default DirFS(dir)
	Suite  Suite
	Logger *slog.Logger

	// epochBlocks is the number of blocks sealed under one epoch (tests lower it).
	epochBlocks uint64
}

func (o *Options) ensureDefaults(dir string) {
	if o.CheckpointBytes == 0 {
		o.CheckpointBytes = 512 << 20
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = 30 * time.Second
	}
	if o.MapCachePages == 0 {
		o.MapCachePages = 16384
	}
	if o.MaxOpenSegments == 0 {
		o.MaxOpenSegments = 128
	}
	if o.CompactBytesPerSecond == 0 {
		o.CompactBytesPerSecond = 64 << 20
	}
	if o.SegmentSlots == 0 {
		o.SegmentSlots = defaultSegmentSlots
	}
	if o.FS == nil {
		o.FS = DirFS(dir)
	}
	if o.Suite == nil {
		o.Suite = gcmSuite{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.epochBlocks == 0 {
		o.epochBlocks = 1<<32 - 1<<24
	}
}

// Anchor pins a state of a volume: whoever holds it and the key can tell an older
// state put back. It is not secret.
type Anchor struct {
	Version uint64
	Tag     [macLen]byte // MAC of that manifest
}

// IsZero says that nothing is pinned.
func (a Anchor) IsZero() bool { return a.Version == 0 }

// String is "version:hex", the form ParseAnchor reads. A zero anchor is "".
func (a Anchor) String() string {
	if a.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d:%x", a.Version, a.Tag)
}

// MarshalText is String, for JSON.
func (a Anchor) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Anchor) UnmarshalText(b []byte) error {
	x, err := ParseAnchor(string(b))
	*a = x
	return err
}

// ParseAnchor reads the form of String.
func ParseAnchor(s string) (Anchor, error) {
	var a Anchor
	if s == "" {
		return a, nil
	}
	var h string
	if n, err := fmt.Sscanf(s, "%d:%s", &a.Version, &h); n != 2 || err != nil || a.Version == 0 {
		return Anchor{}, fmt.Errorf("anchor %q is not of the form version:hex", s)
	}
	b, err := hex.DecodeString(h)
	if err != nil || len(b) != macLen {
		return Anchor{}, fmt.Errorf("anchor %q is not of the form version:hex", s)
	}
	copy(a.Tag[:], b)
	return a, nil
}

// Volume is an open volume: a Device and a Batcher.
//
// Lock order: life, ckptMu, syncMu, mu, files.mu.
type Volume struct {
	id    string
	vid   volID
	opt   Options
	fs    FS
	log   *slog.Logger
	key   *secret.Bytes
	deks  map[uint32]*secret.Bytes // unwrapped keyring
	size  atomic.Int64
	files segFiles

	unlock func()

	life      sync.RWMutex // held for reading while keys are used outside of mu
	mu        sync.RWMutex
	closed    bool
	failed    error
	root      *node
	rootLoc   entry
	levels    int
	leaves    []*node
	hand      int
	dirty     [maxLevels][]*node
	segs      map[uint64]*segment
	lastSeg   *segment
	dirtyList []*segment
	spare     bool
	created   int                               // segments made since the last checkpoint
	emptied   int                               // sealed segments that became empty since the last checkpoint
	epochTab  atomic.Pointer[map[uint32]*epoch] // copied on write, under mu
	cur       *epoch
	dataCtr   uint64
	pageCtr   uint64
	descCtr   uint64
	nextEp    *epoch // in the manifest being written, current once that is durable
	keyring   []wrapped
	base      *baseState
	segSlots  uint32
	nextSeg   uint64
	trimFrom  uint64 // segments from here on were written since the manifest that was opened
	head      head
	side      sideHead // moved blocks
	pages     sideHead
	pace      time.Duration // what a written block costs its writer at present, so that compaction keeps up
	behind    bool          // there is more dead space than is let be
	moved     int64         // slots of segments that compaction emptied since the last checkpoint
	freeing   time.Duration // what compaction takes to free a block, of late
	logBytes  int64         // since the last checkpoint
	version   uint64        // of the newest durable manifest
	anchor    Anchor

	syncMu  sync.Mutex
	synced  uint64 // log group up to which everything is durable
	dirDirt bool   // guarded by mu: files were created since the last SyncDir
	flushed atomic.Uint64
	owed    atomic.Int64 // ns that writers have to wait yet
	ckpted  uint64       // log group up to which a durable manifest reaches; guarded by ckptMu

	ckptMu sync.Mutex

	bg    sync.WaitGroup
	stop  chan struct{}
	kick  chan struct{}
	ahead chan uint64 // segments whose files are to be prepared
	stats counters
	bufs  sync.Pool
}

// Stats are counters since Open.
type Stats struct {
	ReadOps, ReadBytes, WriteOps, WriteBytes, Flushes uint64
	LogBytes                                          uint64 // written for the log, descriptors included
	PageBytes                                         uint64 // written for map pages
	CompactBytes                                      uint64 // moved by compaction
	Checkpoints                                       uint64
	Segments                                          int
	StoredBytes                                       int64 // reserved in segment files
	LiveBytes                                         int64 // of them, reached by the map
	MapPages                                          int   // leaves in memory
	Failed                                            bool
	HydratedBytes                                     int64 // of the base
	BaseBytes                                         int64 // 0: no base (any more)
}

type counters struct {
	readOps, readBytes, writeOps, writeBytes, flushes, logBytes, pageBytes, compactBytes, checkpoints atomic.Uint64
}

// Create makes an empty volume in dir, which is created if missing and must hold no
// volume. The volume is durable when Create returns.
func Create(dir string, opt Options) (Anchor, error) {
	opt.ensureDefaults(dir)
	if opt.VolumeID == "" || len(opt.VolumeID) > 256 {
		return Anchor{}, fmt.Errorf("create volume: volume ID %q must have 1 to 256 bytes", opt.VolumeID)
	}
	if opt.SizeBytes <= 0 || opt.SizeBytes%BlockSize != 0 || levelsFor(opt.SizeBytes) > maxLevels {
		return Anchor{}, fmt.Errorf("create volume %s: size %d must be a positive multiple of %d, at most 128 TiB", opt.VolumeID, opt.SizeBytes, BlockSize)
	}
	if opt.SegmentSlots < groupBlocks+1 || opt.SegmentSlots > maxSegmentSlots {
		return Anchor{}, fmt.Errorf("create volume %s: segments of %d slots, want %d to %d", opt.VolumeID, opt.SegmentSlots, groupBlocks+1, maxSegmentSlots)
	}
	if opt.Key.Len() < minKeyLen {
		return Anchor{}, fmt.Errorf("create volume %s: data key has %d bytes, want at least %d", opt.VolumeID, opt.Key.Len(), minKeyLen)
	}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return Anchor{}, fmt.Errorf("create volume %s: %w", opt.VolumeID, err)
		}
	}
	unlock, err := opt.FS.Lock()
	if err != nil {
		return Anchor{}, fmt.Errorf("create volume %s: %w", opt.VolumeID, err)
	}
	defer unlock()
	names, err := opt.FS.List()
	if err != nil {
		return Anchor{}, fmt.Errorf("create volume %s: %w", opt.VolumeID, err)
	}
	for _, n := range names {
		if n != lockName {
			return Anchor{}, fmt.Errorf("create volume %s in %s: %w", opt.VolumeID, dir, ErrExists)
		}
	}
	m := &manifest{
		flags: manifestClean, version: 1, vol: makeVolID(opt.VolumeID), volumeID: opt.VolumeID,
		size: opt.SizeBytes, segSlots: opt.SegmentSlots, levels: levelsFor(opt.SizeBytes),
		tailNext: 1, tailGroup: 1, nextSeg: 2,
	}
	if opt.Base != nil {
		if opt.Base.Size > opt.SizeBytes {
			return Anchor{}, fmt.Errorf("create volume %s: the image has %d bytes, the volume only %d", opt.VolumeID, opt.Base.Size, opt.SizeBytes)
		}
		m.base = &baseInfo{size: opt.Base.Size, sum: opt.Base.sum()}
	}
	a, err := writeManifest(opt.FS, m, opt.Key)
	if err != nil {
		return Anchor{}, fmt.Errorf("create volume %s: %w", opt.VolumeID, err)
	}
	if dir != "" {
		if err := DirFS(filepath.Dir(dir)).SyncDir(); err != nil {
			return Anchor{}, fmt.Errorf("create volume %s: sync parent directory: %w", opt.VolumeID, err)
		}
	}
	return a, nil
}

// writeManifest writes m into its slot and makes it durable.
func writeManifest(fs FS, m *manifest, key *secret.Bytes) (Anchor, error) {
	b := m.encode()
	m.mac = manifestMAC(key, m.vol, b)
	if err := putManifest(fs, manifestNames[m.version%2], append(b, m.mac[:]...)); err != nil {
		return Anchor{}, err
	}
	return Anchor{Version: m.version, Tag: m.mac}, nil
}

func putManifest(fs FS, name string, b []byte) error {
	f, err := fs.Open(name, true)
	created := false
	if isNotExist(err) {
		f, err = fs.Create(name)
		created = true
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w: %w", name, ErrFailed, err)
	}
	if created {
		if err := fs.SyncDir(); err != nil {
			return fmt.Errorf("sync directory: %w: %w", ErrFailed, err)
		}
	}
	return nil
}

// readManifests returns the newest manifest that authenticates.
func readManifests(fs FS, key *secret.Bytes) (*manifest, error) {
	var best *manifest
	var why []error
	seen := false
	for _, name := range manifestNames {
		f, err := fs.Open(name, false)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		b, err := readAll(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		seen = true
		m, err := authenticate(b, key)
		if err != nil {
			why = append(why, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if best == nil || m.version > best.version {
			best = m
		}
	}
	switch {
	case best != nil:
		return best, nil
	case !seen:
		return nil, fmt.Errorf("no volume here: %w", os.ErrNotExist)
	}
	// A wrong key and a manifest that was changed look the same.
	return nil, errors.Join(append(why, ErrKey, ErrCorrupt)...)
}

func readAll(f File) ([]byte, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > maxManifest {
		return nil, fmt.Errorf("%w: %d bytes", errManifest, n)
	}
	b := make([]byte, n)
	if n > 0 {
		if _, err := f.ReadAt(b, 0); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Open opens the volume in dir with its data key, replays what a crash left in the
// log, and (unless ReadOnly) begins a new epoch, which is durable on return: pin
// Volume.Anchor before the first write is acknowledged to anyone who cares.
func Open(dir string, opt Options) (*Volume, error) {
	opt.ensureDefaults(dir)
	v, err := open(opt)
	if err != nil {
		name := opt.VolumeID
		if name == "" {
			name = dir
		}
		return nil, fmt.Errorf("open volume %s: %w", name, err)
	}
	return v, nil
}

func open(opt Options) (_ *Volume, err error) {
	if opt.Key.Len() < minKeyLen {
		return nil, fmt.Errorf("%w: it has %d bytes, want at least %d", ErrKey, opt.Key.Len(), minKeyLen)
	}
	if _, err := opt.FS.List(); err != nil {
		return nil, err
	}
	unlock, err := opt.FS.Lock()
	if err != nil {
		return nil, err
	}
	m, err := readManifests(opt.FS, opt.Key)
	if err != nil {
		unlock()
		return nil, err
	}
	v := &Volume{
		id: m.volumeID, vid: m.vol, opt: opt, fs: opt.FS, log: opt.Logger.With("volume", m.volumeID),
		key: opt.Key.Clone(), deks: map[uint32]*secret.Bytes{}, unlock: unlock,
		segs: map[uint64]*segment{}, keyring: m.keyring,
		rootLoc: m.root, levels: m.levels, segSlots: m.segSlots, nextSeg: m.nextSeg,
		version: m.version, anchor: Anchor{m.version, m.mac},
		stop: make(chan struct{}), kick: make(chan struct{}, 1), ahead: make(chan uint64, 1),
	}
	v.opt.Key = nil
	v.epochTab.Store(&map[uint32]*epoch{})
	v.files = segFiles{fs: opt.FS, max: opt.MaxOpenSegments}
	v.size.Store(m.size)
	v.bufs.New = func() any { return newReadBuf() }
	defer func() {
		if err != nil {
			v.release()
		}
	}()
	if m.vol != makeVolID(m.volumeID) || (opt.VolumeID != "" && opt.VolumeID != m.volumeID) {
		return nil, v.corrupt(fmt.Sprintf("the directory holds volume %q", m.volumeID), nil)
	}
	if m.flags&manifestSnapshot != 0 && !opt.ReadOnly {
		return nil, fmt.Errorf("%w: it is a snapshot; clone it", ErrReadOnly)
	}
	if a := opt.Anchor; !a.IsZero() {
		if m.version < a.Version {
			return nil, fmt.Errorf("%w: found version %d, pinned is %d", ErrRollback, m.version, a.Version)
		}
		if m.version == a.Version && a.Tag != m.mac {
			return nil, fmt.Errorf("%w: version %d is not the one that was pinned", ErrRollback, m.version)
		}
	}
	if err := v.load(m); err != nil {
		return nil, err
	}
	v.trimFrom = m.tailNext
	if m.tailSeg != 0 {
		v.trimFrom = min(v.trimFrom, m.tailSeg)
	}
	if m.flags&(manifestClean|manifestSnapshot) == 0 {
		if err := v.replay(m); err != nil {
			return nil, err
		}
	}
	if opt.ReadOnly {
		return v, nil
	}
	if err := v.removeOrphans(); err != nil {
		return nil, err
	}
	// Pages written by the first checkpoint are sealed under the new epoch already; its
	// record is in the same manifest. Epochs that nothing needs any more end here.
	last := v.dropEpochs()
	e := newEpoch(last+1, v.vid)
	if err := e.open(v.opt.Suite, v.key); err != nil {
		return nil, err
	}
	v.addEpoch(e)
	v.cur = e
	if err := v.checkpoint(0); err != nil {
		return nil, err
	}
	v.freeing = firstPace
	v.setPace()
	v.startBackground()
	return v, nil
}

// load fills the volume from the manifest.
func (v *Volume) load(m *manifest) error {
	for i := range m.keyring {
		k, err := m.keyring[i].unwrap(v.key, v.vid)
		if err != nil {
			return v.corrupt("keyring", err)
		}
		v.deks[m.keyring[i].id] = k
	}
	for _, e := range m.epochs {
		dek := v.key
		if e.dek != 0 {
			if dek = v.deks[e.dek]; dek == nil {
				return v.corrupt(fmt.Sprintf("epoch %d: no key %d in the keyring", e.num, e.dek), nil)
			}
		}
		if err := e.open(v.opt.Suite, dek); err != nil {
			return err
		}
		v.addEpoch(e)
	}
	for _, s := range m.segs {
		v.segs[s.id] = &segment{id: s.id, kind: s.kind, live: int64(s.live), used: s.used, sealed: true}
	}
	v.head = head{next: m.tailNext, group: m.tailGroup, prev: m.tailPrev}
	v.flushed.Store(m.tailGroup - 1)
	v.synced = m.tailGroup - 1
	v.root = newNode(v.levels-1, 0)
	if v.rootLoc.loc != 0 {
		if err := v.readPage(v.root, &v.rootLoc); err != nil {
			return err
		}
	}
	if v.root.level == 0 {
		v.root.used.Store(true)
	}
	if m.base != nil {
		if err := v.openBase(m.base); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) epochMap() map[uint32]*epoch { return *v.epochTab.Load() }
func (v *Volume) epochOf(num uint32) *epoch   { return (*v.epochTab.Load())[num] }

func (v *Volume) addEpoch(e *epoch) {
	m := maps.Clone(v.epochMap())
	m[e.num] = e
	v.epochTab.Store(&m)
}

// dropEpochs forgets epochs without live blocks and returns the highest number ever
// used. Only Open does this: later, a reader may still hold an entry of one.
func (v *Volume) dropEpochs() uint32 {
	var last uint32
	m := map[uint32]*epoch{}
	for n, e := range v.epochMap() {
		last = max(last, n)
		if e.live > 0 {
			m[n] = e
		} else {
			e.wipe()
		}
	}
	v.epochTab.Store(&m)
	return last
}

// ID is the volume's ID.
func (v *Volume) ID() string { return v.id }

// Size is the capacity in bytes.
func (v *Volume) Size() int64 { return v.size.Load() }

// Anchor is the newest durable state; pin it.
func (v *Volume) Anchor() Anchor {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.anchor
}

// Stats are the volume's counters.
func (v *Volume) Stats() Stats {
	c := &v.stats
	s := Stats{
		ReadOps: c.readOps.Load(), ReadBytes: c.readBytes.Load(), WriteOps: c.writeOps.Load(), WriteBytes: c.writeBytes.Load(),
		Flushes: c.flushes.Load(), LogBytes: c.logBytes.Load(), PageBytes: c.pageBytes.Load(), CompactBytes: c.compactBytes.Load(),
		Checkpoints: c.checkpoints.Load(),
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	s.Segments, s.MapPages, s.Failed = len(v.segs), len(v.leaves), v.failed != nil
	for _, g := range v.segs {
		used := int64(v.segSlots)
		if g.sealed {
			used = int64(g.used)
		}
		s.StoredBytes += used * BlockSize
		s.LiveBytes += g.live * BlockSize
	}
	if v.base != nil {
		s.BaseBytes = v.base.info.size
		s.HydratedBytes = min(int64(v.base.info.hydrated)*BlockSize, v.base.info.size)
	}
	return s
}

func (v *Volume) corrupt(what string, err error) error {
	e := &CorruptError{Volume: v.id, What: what, Err: err}
	v.log.Error("volume corruption", "what", what, "err", err)
	return e
}

// readErr turns an error of reading stored bytes into corruption when the bytes are not there.
func (v *Volume) readErr(what string, err error) error {
	if isNotExist(err) || isEOF(err) {
		return v.corrupt(what, err)
	}
	return fmt.Errorf("volume %s: read %s: %w", v.id, what, err)
}

// fail stops the volume for good. Caller holds v.mu for writing.
func (v *Volume) fail(doing string, err error) error {
	if v.failed == nil {
		v.failed = fmt.Errorf("%s: %w: %w", doing, ErrFailed, err)
		v.log.Error("volume stopped", "doing", doing, "err", err)
	}
	return v.failed
}

// usable is checked at the start of every call, under v.mu.
func (v *Volume) usable() error {
	if v.closed {
		return fmt.Errorf("volume %s: %w", v.id, ErrClosed)
	}
	return v.failed
}

func (v *Volume) checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > v.Size() || n > v.Size()-off {
		return fmt.Errorf("volume %s: %d bytes at %d of %d: %w", v.id, n, off, v.Size(), ErrRange)
	}
	return nil
}

// Close makes everything durable, writes a final manifest that says so, and wipes the
// keys. After a failure it only releases and wipes, and returns that failure.
func (v *Volume) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil
	}
	v.mu.Unlock()
	v.stopBackground()
	var err error
	if !v.opt.ReadOnly {
		err = v.checkpoint(manifestClean)
	}
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.release()
	if err != nil {
		return fmt.Errorf("close volume %s: %w", v.id, err)
	}
	return nil
}

// Abandon releases the volume as a crash would: nothing more is written, the keys are wiped.
func (v *Volume) Abandon() {
	v.mu.Lock()
	already := v.closed
	v.closed = true
	v.mu.Unlock()
	if already {
		return
	}
	v.stopBackground()
	v.ckptMu.Lock() // a checkpoint on its way ends first
	//lint:ignore SA2001 nothing more is to be done under it, and release waits for others who may hold it
	v.ckptMu.Unlock()
	v.release()
}

// release closes files and wipes keys. It waits for reads on their way.
func (v *Volume) release() {
	v.life.Lock()
	defer v.life.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.files.closeAll()
	for _, e := range v.epochMap() {
		e.wipe()
	}
	if v.nextEp != nil {
		v.nextEp.wipe()
	}
	for _, k := range v.deks {
		k.Wipe()
	}
	v.key.Wipe()
	if v.base != nil {
		v.base.close()
	}
	v.unlock()
}

// Err says why the volume stopped, or nil.
func (v *Volume) Err() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.failed
}

// Destroy removes the volume in dir: the manifests first, without which the rest is
// noise, then everything else and the directory. Without a volume there it does nothing.
// Destroying the wrapped key, which makes copies unreadable too, is up to its owner.
func Destroy(dir string) error {
	fs := DirFS(dir)
	names, err := fs.List()
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy volume: %w", err)
	}
	for _, n := range names {
		if _, seg := parseSegName(n); !seg && n != lockName && n != spareName && !strings.HasPrefix(n, remoteName) && n != manifestNames[0] && n != manifestNames[1] {
			return fmt.Errorf("destroy volume: %s holds %q, which is no part of a volume", dir, n)
		}
	}
	unlock, err := fs.Lock()
	if err != nil {
		return fmt.Errorf("destroy volume: %w", err)
	}
	defer unlock()
	for _, n := range manifestNames {
		if err := fs.Remove(n); err != nil && !isNotExist(err) {
			return fmt.Errorf("destroy volume: %w", err)
		}
	}
	if err := fs.SyncDir(); err != nil {
		return fmt.Errorf("destroy volume: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("destroy volume: %w", err)
	}
	return nil
}
