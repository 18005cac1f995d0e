package block

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Snapshot freezes the volume's present state (all writes acknowledged before the
// call) in a directory of its own on the same file system. Segments are shared, not
// copied: it costs a checkpoint and one link for each segment, and nothing afterwards. The snapshot of a Remote
// is in the object store in place of dir, complete when the call returns: it costs some more small objects.
// The snapshot opens read-only with the volume's key, and is removed with Destroy.
func (v *Volume) Snapshot(dir, snapshotID string) (Anchor, error) {
	as, err := SnapshotSet([]SnapshotTarget{{v, dir, snapshotID}})
	if err != nil {
		return Anchor{}, err
	}
	return as[0], nil
}

// SnapshotTarget is one volume of a set, and where its snapshot goes.
type SnapshotTarget struct {
	Volume          *Volume
	Dir, SnapshotID string
}

// SnapshotSet freezes several open volumes at one moment: a write that is in the
// snapshot of one of them is there with every write that had been acknowledged, on any
// of them, before it was issued. A volume may occur once. After an error no
// snapshot of the set is of use; Destroy what is in the directories.
func SnapshotSet(list []SnapshotTarget) ([]Anchor, error) {
	list, order := slices.Clone(list), slices.Clone(list)
	slices.SortFunc(order, func(a, b SnapshotTarget) int { return strings.Compare(a.Volume.id, b.Volume.id) })
	for i, t := range order {
		switch {
		case t.Volume.opt.ReadOnly:
			return nil, t.fail(ErrReadOnly)
		case t.SnapshotID == "" || len(t.SnapshotID) > 256:
			return nil, t.fail(errors.New("the snapshot ID must have 1 to 256 bytes"))
		case i > 0 && order[i-1].Volume == t.Volume:
			return nil, t.fail(errors.New("the volume is twice in the set"))
		}
	}
	// No checkpoint, and so no removal of segments, comes in between. Locks are taken
	// in the order of the volumes' IDs.
	for _, t := range order {
		t.Volume.ckptMu.Lock()
		defer t.Volume.ckptMu.Unlock()
		t.Volume.prepareNext()
	}
	cuts, err := cutAll(order)
	for _, t := range order {
		if c := cuts[t.Volume]; c != nil {
			if cerr := t.Volume.complete(c, 0); cerr != nil && err == nil {
				err = t.fail(cerr)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	as := make([]Anchor, len(list))
	for i, t := range list {
		if as[i], err = t.Volume.freeze(cuts[t.Volume], t.Dir, t.SnapshotID); err != nil {
			return nil, t.fail(err)
		}
	}
	return as, nil
}

// prepareNext makes the file that the first write after a snapshot needs.
func (v *Volume) prepareNext() {
	v.mu.RLock()
	id, err := v.head.next, v.usable()
	v.mu.RUnlock()
	if err == nil {
		v.files.prepare(id, int64(v.segSlots)*BlockSize)
	}
}

func (t *SnapshotTarget) fail(err error) error {
	return fmt.Errorf("snapshot %s of volume %s: %w", t.SnapshotID, t.Volume.id, err)
}

// cutAll captures the state of all volumes while none can be written. After an error
// those that are in the result are captured all the same.
func cutAll(order []SnapshotTarget) (map[*Volume]*captured, error) {
	for _, t := range order {
		t.Volume.mu.Lock()
		defer t.Volume.mu.Unlock()
	}
	cuts := map[*Volume]*captured{}
	for _, t := range order {
		v := t.Volume
		// Shared segments must never grow again: the next write begins another.
		if err := v.usable(); err != nil {
			return nil, t.fail(err)
		}
		if err := v.emit(); err != nil {
			return nil, t.fail(err)
		}
		if v.head.seg != nil {
			v.seal(v.head.seg)
			v.head.seg = nil
		}
	}
	for _, t := range order {
		c, err := t.Volume.capture(0)
		if err != nil {
			return cuts, t.fail(err)
		}
		cuts[t.Volume] = c
	}
	return cuts, nil
}

// freeze shares the segments of a completed state. Caller holds ckptMu since it was captured.
func (v *Volume) freeze(c *captured, dir, snapshotID string) (Anchor, error) {
	v.mu.Lock()
	v.sealSide() // with the map pages just written
	v.mu.Unlock()
	snap := *c.m
	snap.flags = manifestClean | manifestSnapshot
	snap.name = snapshotID
	if r, ok := v.fs.(*Remote); ok {
		return r.snapshot(snapshotID, &snap, v.key)
	}
	return share(v.fs, dir, &snap, v.key)
}

// share makes dir a volume of manifest m, with the segments of fs.
func share(fs FS, dir string, m *manifest, key *secret.Bytes) (Anchor, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Anchor{}, err
	}
	dst := DirFS(dir)
	unlock, err := dst.Lock()
	if err != nil {
		return Anchor{}, err
	}
	defer unlock()
	names, err := dst.List()
	if err != nil {
		return Anchor{}, err
	}
	for _, n := range names {
		if n != lockName {
			return Anchor{}, fmt.Errorf("%s: %w", dir, ErrExists)
		}
	}
	for _, s := range m.segs {
		if err := fs.LinkTo(segName(s.id), dir); err != nil {
			return Anchor{}, fmt.Errorf("share segment %x: %w", s.id, err)
		}
	}
	if err := dst.SyncDir(); err != nil {
		return Anchor{}, err
	}
	a, err := writeManifest(dst, m, key) // last: before it, the directory is no volume
	if err != nil {
		return Anchor{}, err
	}
	return a, DirFS(filepath.Dir(dir)).SyncDir()
}

// Source names what Clone starts from: a snapshot, or a volume that was closed.
type Source struct {
	Dir    string
	Key    *secret.Bytes
	Anchor Anchor // zero: no check
	// ID names it in the object store, when the new volume's FS is a Remote. What is not there is looked for in Dir, and so is the new volume then.
	ID string
	// Scratch: the new volume is only for reading, on this host, as long as the source is there. The store does not learn of it.
	Scratch bool
}

// Clone makes a new volume in dir that begins as the source and shares its segments.
// Its own writes are sealed under its own key; the source's key is kept in the new
// volume's manifest, sealed under the new key, so that only this one is needed to open
// it. opt gives VolumeID, Key, and SizeBytes (0: as the source; it may be larger).
func Clone(dir string, opt Options, src Source) (Anchor, error) {
	a, err := clone(dir, opt, src)
	if err != nil {
		return Anchor{}, fmt.Errorf("clone %s from %s: %w", opt.VolumeID, cmp.Or(src.Dir, src.ID), err)
	}
	return a, nil
}

func clone(dir string, opt Options, src Source) (a Anchor, err error) {
	r, _ := opt.FS.(*Remote)
	opt.ensureDefaults(dir)
	if opt.VolumeID == "" || len(opt.VolumeID) > 256 {
		return Anchor{}, fmt.Errorf("volume ID %q must have 1 to 256 bytes", opt.VolumeID)
	}
	if opt.Key.Len() < minKeyLen || src.Key.Len() < minKeyLen {
		return Anchor{}, fmt.Errorf("%w: too short", ErrKey)
	}
	var from *remoteSource
	if r != nil {
		if from, err = r.source(src.ID); err != nil {
			return Anchor{}, err
		}
	}
	var size int64
	if from != nil {
		m, err := authenticate(from.gen.manifest, src.Key)
		if err != nil {
			return Anchor{}, err
		}
		n, err := cloneOf(m, opt, src)
		if err != nil {
			return Anchor{}, err
		}
		size = n.size
		if a, err = r.clone(n, opt.Key, from, src.Scratch && size >= opt.SizeBytes); err != nil {
			return Anchor{}, err
		}
	} else {
		opt.FS = nil
		fs := DirFS(src.Dir)
		if _, err := fs.List(); err != nil {
			return Anchor{}, err
		}
		unlock, err := fs.Lock()
		if err != nil {
			return Anchor{}, err
		}
		defer unlock()
		m, err := readManifests(fs, src.Key)
		if err != nil {
			return Anchor{}, err
		}
		n, err := cloneOf(m, opt, src)
		if err != nil {
			return Anchor{}, err
		}
		size = n.size
		if a, err = share(fs, dir, n, opt.Key); err != nil {
			return Anchor{}, err
		}
	}
	if size >= opt.SizeBytes {
		return a, nil
	}
	v, err := Open(dir, Options{VolumeID: opt.VolumeID, Key: opt.Key, Anchor: a, Base: opt.Base, Suite: opt.Suite, FS: opt.FS, CheckpointInterval: -1})
	if err != nil {
		return Anchor{}, err
	}
	if err := v.Grow(opt.SizeBytes); err != nil {
		v.Abandon()
		return Anchor{}, err
	}
	if err := v.Close(); err != nil {
		return Anchor{}, err
	}
	return v.Anchor(), nil
}

// cloneOf is the first manifest of a clone of m. It has the size that opt asks for, or as much of it as the map's height allows.
func cloneOf(m *manifest, opt Options, src Source) (*manifest, error) {
	if a := src.Anchor; !a.IsZero() && (m.version < a.Version || (m.version == a.Version && m.mac != a.Tag)) {
		return nil, fmt.Errorf("%w: found version %d, pinned is %d", ErrRollback, m.version, a.Version)
	}
	if m.flags&manifestClean == 0 {
		return nil, fmt.Errorf("%w: the source was not closed in order; open and close it first", ErrBusy)
	}
	if opt.SizeBytes != 0 && (opt.SizeBytes < m.size || opt.SizeBytes%BlockSize != 0 || levelsFor(opt.SizeBytes) > maxLevels) {
		return nil, fmt.Errorf("size %d: want a multiple of %d, not below the source's %d", opt.SizeBytes, BlockSize, m.size)
	}
	vid := makeVolID(opt.VolumeID)
	n := *m
	n.flags, n.version, n.vol, n.volumeID, n.name = manifestClean, 1, vid, opt.VolumeID, ""
	n.tailSeg, n.tailSlot, n.tailGroup, n.tailPrev = 0, 0, 1, [tagLen]byte{}
	n.tailNext, n.nextSeg = m.nextSeg, m.nextSeg+1
	n.keyring, n.epochs = nil, nil
	if opt.SizeBytes > m.size && levelsFor(opt.SizeBytes) == m.levels {
		n.size = opt.SizeBytes
	}

	// The source's own key becomes entry 1, the entries it had follow.
	w, err := wrapKey(opt.Key, vid, 1, m.vol, src.Key)
	if err != nil {
		return nil, err
	}
	n.keyring = append(n.keyring, w)
	renamed := map[uint32]uint32{0: 1}
	for i := range m.keyring {
		k, err := m.keyring[i].unwrap(src.Key, m.vol)
		if err != nil {
			return nil, err
		}
		id := uint32(i + 2)
		w, err := wrapKey(opt.Key, vid, id, m.keyring[i].origin, k)
		k.Wipe()
		if err != nil {
			return nil, err
		}
		n.keyring = append(n.keyring, w)
		renamed[m.keyring[i].id] = id
	}
	used := map[uint32]bool{}
	for _, e := range m.epochs {
		if e.live == 0 {
			continue
		}
		c := *e
		id, ok := renamed[e.dek]
		if !ok {
			return nil, fmt.Errorf("epoch %d: no key %d: %w", e.num, e.dek, ErrCorrupt)
		}
		c.dek = id
		used[id] = true
		n.epochs = append(n.epochs, &c)
	}
	// A long lineage carries no keys that nothing needs any more.
	keep := n.keyring[:0]
	for _, w := range n.keyring {
		if used[w.id] {
			keep = append(keep, w)
		}
	}
	n.keyring = keep
	return &n, nil
}

// Grow makes the volume larger while it is in use. The new part reads as zeros.
func (v *Volume) Grow(size int64) error {
	if v.opt.ReadOnly {
		return fmt.Errorf("grow volume %s: %w", v.id, ErrReadOnly)
	}
	v.mu.Lock()
	if err := v.usable(); err != nil {
		v.mu.Unlock()
		return err
	}
	if size < v.Size() || size%BlockSize != 0 || levelsFor(size) > maxLevels {
		v.mu.Unlock()
		return fmt.Errorf("grow volume %s: size %d: want a multiple of %d, from %d to 128 TiB: %w", v.id, size, BlockSize, v.Size(), ErrRange)
	}
	for v.levels < levelsFor(size) {
		old := v.root
		top := newNode(old.level+1, 0)
		top.ent[0], top.kids[0] = v.rootLoc, old
		v.rootLoc = entry{}
		if old.level == 0 {
			v.leaves = append(v.leaves, old)
		}
		v.root = top
		v.levels++
		v.markDirty(top)
	}
	v.size.Store(size)
	v.mu.Unlock()
	return v.checkpoint(0)
}
