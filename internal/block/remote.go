package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ObjectStore keeps immutable objects by name. It is the small interface that a volume needs of S3 and its
// likes; blocktest.ObjectStore says what an implementation must do. All methods may be called concurrently.
type ObjectStore interface {
	// Put stores an object and returns once it is durable. If there is one of that name already, it stays as it is and
	// the error Is ErrObjectExists: of several writers exactly one succeeds.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object; the error Is fs.ErrNotExist when there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// List returns the names that begin with prefix, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
}

var (
	// ErrObjectExists: Put found an object of that name.
	ErrObjectExists = errors.New("object exists")
	// ErrFenced: another host has taken the volume over. Nothing more is written here. It Is ErrFailed too.
	ErrFenced = fmt.Errorf("another host has taken the volume over: %w", ErrFailed)
)

// Remote keeps a volume in an object store, with a directory of this host as its write-back cache.
//
// What is where: the cache holds what a local volume would (manifests, segments, log). At each checkpoint the segments that
// are new or longer than before, as far as the manifest knows them, and then a generation, which is the
// manifest and the names of its segments, are put into the store. A segment that is missing in the cache is
// fetched when it is first read.
//
// What a Flush promises:
//
//   - FlushRemote false: what a flush of a local volume does, against the cache device. It survives a power cut of this host, not its loss: the
//     store is behind by at most a checkpoint interval (or longer while it cannot be reached, which Lag reports and does not stop the volume).
//     What the store holds is always a whole checkpoint, so a prefix of the writes.
//   - FlushRemote true (with Options.FlushCheckpoints): a flush returns once a generation with all acknowledged
//     writes is durable in the store. The cache may then be lost without losing anything flushed; when the
//     store cannot be reached, flushes fail and the volume stops.
//
// Fencing: generations are numbered and created, never replaced, so each has one writer. Opening for writing claims
// the next one. Whoever loses a number is ErrFenced, stops, and acknowledges no checkpoint (with FlushRemote:
// no flush) any more. Two hosts that both believe to own a volume can so never both extend it. A host that finds
// that its cache was overtaken puts it aside (DIR.superseded-GENERATION) and begins from the store.
type Remote struct {
	RemoteConfig
	fs FS

	pub     sync.Mutex // one checkpoint is put at a time; guards the next four
	gen     uint64     // newest generation known to be ours
	owner   [8]byte    // drawn at each opening
	claimed bool
	fenced  bool

	mu      sync.Mutex           // guards what follows
	objects map[uint64]segObject // of generation gen; the map is replaced, never changed
	lag     error
}

// RemoteConfig says where a Remote keeps a volume.
type RemoteConfig struct {
	Dir         string // the cache
	Store       ObjectStore
	FlushRemote bool
	Timeout     time.Duration // of one checkpoint's transfer; default 2 minutes
	Logger      *slog.Logger
}

// segObject names the object of a segment's first slots.
type segObject struct {
	slots uint32
	owner [8]byte
}

const (
	genPrefix      = "gen-"
	remoteName     = "remote" // in the cache: which generation it continues
	genHeader      = 32
	genRow         = 24
	maxGenSegments = 1 << 24
)

func genName(n uint64) string { return fmt.Sprintf("%s%016x", genPrefix, n) }
func (o segObject) name(id uint64) string {
	return fmt.Sprintf("%s%016x-%06x-%x", segPrefix, id, o.slots, o.owner)
}

var _ FS = (*Remote)(nil)

// NewRemote prepares the cache directory. Remote is the FS of Options.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache of a volume: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Remote{RemoteConfig: cfg, fs: DirFS(cfg.Dir)}, nil
}

// Lag says why the store is behind the cache, nil when the last checkpoint reached it.
func (r *Remote) Lag() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lag
}

// generation is the content of a gen- object:
//
//	 0  magic "SDVR" ‖ version u16 = 1 ‖ 0 u16
//	 8  length of the manifest u32 ‖ number of rows u32
//	16  owner [8], who wrote it ‖ 0 [8]
//	32  manifest
//	 …  rows of 24: segment u64 ‖ slots u32 ‖ 0 u32 ‖ owner [8] of its object
func encodeGeneration(manifest []byte, owner [8]byte, ids []uint64, objects map[uint64]segObject) []byte {
	le := binary.LittleEndian
	b := make([]byte, genHeader, genHeader+len(manifest)+genRow*len(ids))
	copy(b, "SDVR\x01\x00")
	le.PutUint32(b[8:], uint32(len(manifest)))
	le.PutUint32(b[12:], uint32(len(ids)))
	copy(b[16:], owner[:])
	b = append(b, manifest...)
	for _, id := range ids {
		o := objects[id]
		b = le.AppendUint64(b, id)
		b = le.AppendUint32(b, o.slots)
		b = le.AppendUint32(b, 0)
		b = append(b, o.owner[:]...)
	}
	return b
}

func decodeGeneration(b []byte) (manifest []byte, objects map[uint64]segObject, err error) {
	le := binary.LittleEndian
	if len(b) < genHeader || !bytes.HasPrefix(b, []byte("SDVR\x01\x00")) {
		return nil, nil, fmt.Errorf("generation of %d bytes: %w", len(b), ErrCorrupt)
	}
	n, rows := uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:]))
	if rows > maxGenSegments || uint64(len(b)) != genHeader+n+genRow*rows {
		return nil, nil, fmt.Errorf("generation of %d bytes: %w", len(b), ErrCorrupt)
	}
	manifest = b[genHeader : genHeader+n]
	objects = make(map[uint64]segObject, rows)
	for p := b[genHeader+n:]; len(p) > 0; p = p[genRow:] {
		objects[le.Uint64(p)] = segObject{le.Uint32(p[8:]), [8]byte(p[16:])}
	}
	return manifest, objects, nil
}

func (r *Remote) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), r.Timeout)
}

// Lock takes the lock of the cache and makes the cache continue the newest generation in the store.
func (r *Remote) Lock() (func(), error) {
	unlock, err := r.fs.Lock()
	if err != nil {
		return nil, err
	}
	r.pub.Lock()
	defer r.pub.Unlock()
	if err := r.attach(); err != nil {
		unlock()
		return nil, fmt.Errorf("object store: %w", err)
	}
	return unlock, nil
}

// newest finds the newest generation; number 0 when there is none.
func (r *Remote) newest(ctx context.Context) (uint64, []byte, error) {
	for range 10 { // it may be replaced, and removed, between the two calls
		names, err := r.Store.List(ctx, genPrefix)
		if err != nil || len(names) == 0 {
			return 0, nil, err
		}
		last := names[len(names)-1]
		var n uint64
		if _, err := fmt.Sscanf(last, genPrefix+"%016x", &n); err != nil || genName(n) != last {
			return 0, nil, fmt.Errorf("object %q: %w", last, ErrCorrupt)
		}
		b, err := r.Store.Get(ctx, last)
		if isNotExist(err) {
			continue
		}
		return n, b, err
	}
	return 0, nil, fmt.Errorf("generations change too fast: %w", ErrBusy)
}

func (r *Remote) attach() error {
	ctx, cancel := r.context()
	defer cancel()
	_, _ = rand.Read(r.owner[:])
	r.gen, r.claimed, r.fenced = 0, false, false
	r.setObjects(nil)
	r.setLag(nil)
	n, b, err := r.newest(ctx)
	if err != nil || n == 0 { // nothing there yet: the cache is all there is
		return err
	}
	manifest, objects, err := decodeGeneration(b)
	if err != nil {
		return fmt.Errorf("%s: %w", genName(n), err)
	}
	r.gen = n
	r.setObjects(objects)
	mine, any, err := r.continues(n, b, manifest)
	if err != nil || mine {
		return err
	}
	if any {
		if err := r.putAside(n); err != nil {
			return err
		}
	}
	m, _, err := decodeManifest(manifest)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", genName(n), ErrCorrupt, err)
	}
	if err := putManifest(r.fs, manifestNames[m.version%2], manifest); err != nil {
		return err
	}
	return r.note(n, b)
}

// continues says whether the cache goes on from generation n, and whether it holds a volume at all.
func (r *Remote) continues(n uint64, b, manifest []byte) (mine, any bool, err error) {
	for _, name := range manifestNames {
		have, err := os.ReadFile(filepath.Join(r.Dir, name))
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return false, false, err
		}
		any = true
		mine = mine || bytes.HasPrefix(have, manifest) // put, and not noted any more
	}
	note, err := os.ReadFile(filepath.Join(r.Dir, remoteName))
	if err != nil && !isNotExist(err) {
		return false, false, err
	}
	return any && (mine || bytes.Equal(note, noteOf(n, b))), any, nil
}

func noteOf(n uint64, b []byte) []byte { return fmt.Appendf(nil, "1 %016x %x\n", n, sha256.Sum256(b)) }

func (r *Remote) note(n uint64, b []byte) error {
	tmp := filepath.Join(r.Dir, remoteName+".new")
	if err := os.WriteFile(tmp, noteOf(n, b), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(r.Dir, remoteName)) // losing it costs nothing: the manifest tells too
}

// putAside moves a cache that another host has overtaken out of the way. What it holds beyond the store was never promised to
// survive this host, but it may be the only copy.
func (r *Remote) putAside(n uint64) error {
	to := fmt.Sprintf("%s.superseded-%d", r.Dir, n)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := r.fs.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != lockName {
			if err := os.Rename(filepath.Join(r.Dir, name), filepath.Join(to, name)); err != nil {
				return err
			}
		}
	}
	r.Logger.Warn("another host went on with the volume; this host's cache is put aside", "cache", to, "generation", n)
	return r.fs.SyncDir()
}

// publish puts a manifest that is durable in the cache into the store.
func (r *Remote) publish(manifest []byte) error {
	r.pub.Lock()
	defer r.pub.Unlock()
	if r.fenced {
		return ErrFenced
	}
	err := r.upload(manifest)
	switch {
	case err == nil:
		r.claimed = true
		r.setLag(nil)
	case errors.Is(err, ErrFenced):
		r.fenced = true
		return err
	case r.claimed && !r.FlushRemote:
		r.Logger.Warn("object store is behind the cache", "err", err)
		r.setLag(err)
		return nil
	}
	return err
}

func (r *Remote) setObjects(o map[uint64]segObject) {
	r.mu.Lock()
	r.objects = o
	r.mu.Unlock()
}

func (r *Remote) setLag(err error) {
	r.mu.Lock()
	r.lag = err
	r.mu.Unlock()
}

func (r *Remote) known() map[uint64]segObject {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.objects
}

func (r *Remote) upload(manifest []byte) error {
	ctx, cancel := r.context()
	defer cancel()
	m, _, err := decodeManifest(manifest)
	if err != nil {
		return err
	}
	old, objects := r.known(), map[uint64]segObject{}
	var ids []uint64
	for _, s := range m.segs {
		if s.used == 0 {
			continue
		}
		ids = append(ids, s.id)
		if o, ok := old[s.id]; ok && o.slots >= s.used {
			objects[s.id] = o
			continue
		}
		o := segObject{s.used, r.owner}
		b, err := r.readLocal(s.id, s.used)
		if err != nil {
			return err
		}
		if err := r.Store.Put(ctx, o.name(s.id), b); err != nil && !errors.Is(err, ErrObjectExists) { // only we use these names
			return fmt.Errorf("put segment %x: %w", s.id, err)
		}
		objects[s.id] = o
	}
	b := encodeGeneration(manifest, r.owner, ids, objects)
	if err := r.Store.Put(ctx, genName(r.gen+1), b); err != nil {
		if !errors.Is(err, ErrObjectExists) {
			return fmt.Errorf("put generation %d: %w", r.gen+1, err)
		}
		// it may be ours: put, and the answer lost
		have, gerr := r.Store.Get(ctx, genName(r.gen+1))
		if gerr != nil && !isNotExist(gerr) {
			return fmt.Errorf("put generation %d: %w", r.gen+1, gerr)
		}
		if !bytes.Equal(have, b) {
			return fmt.Errorf("generation %d: %w", r.gen+1, ErrFenced)
		}
	}
	r.gen++
	r.setObjects(objects)
	if err := r.note(r.gen, b); err != nil {
		return err
	}
	r.tidy(ctx, old, objects)
	return nil
}

// tidy removes what the generation before needed and this one does not. Objects of other owners that no generation
// names stay: their generation may be on its way.
func (r *Remote) tidy(ctx context.Context, old, now map[uint64]segObject) {
	var err error
	for id, o := range old {
		if now[id] != o {
			err = errors.Join(err, r.Store.Delete(ctx, o.name(id)))
		}
	}
	if r.gen > 2 {
		err = errors.Join(err, r.Store.Delete(ctx, genName(r.gen-2)))
	}
	if err != nil {
		r.Logger.Warn("objects that are needed no more stay", "err", err)
	}
}

func (r *Remote) readLocal(id uint64, slots uint32) ([]byte, error) {
	f, err := r.Open(segName(id), false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, int(slots)*BlockSize)
	_, err = f.ReadAt(b, 0)
	return b, err
}

// fetch brings a segment into the cache.
func (r *Remote) fetch(name string) error {
	id, ok := parseSegName(name)
	if !ok {
		return os.ErrNotExist
	}
	o, ok := r.known()[id]
	if !ok {
		return os.ErrNotExist
	}
	ctx, cancel := r.context()
	defer cancel()
	b, err := r.Store.Get(ctx, o.name(id))
	if err != nil {
		return fmt.Errorf("fetch segment %x: %w", id, err)
	}
	f, err := os.CreateTemp(r.Dir, remoteName+".fetch")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(r.Dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Create implements FS.
func (r *Remote) Create(name string) (File, error) { return r.wrap(name)(r.fs.Create(name)) }

// Open implements FS.
func (r *Remote) Open(name string, writable bool) (File, error) {
	f, err := r.fs.Open(name, writable)
	if isNotExist(err) && !writable {
		if err = r.fetch(name); err == nil {
			f, err = r.fs.Open(name, false)
		}
	}
	return r.wrap(name)(f, err)
}

func (r *Remote) wrap(name string) func(File, error) (File, error) {
	return func(f File, err error) (File, error) {
		if err == nil && (name == manifestNames[0] || name == manifestNames[1]) {
			f = &manifestFile{File: f, r: r}
		}
		return f, err
	}
}

// manifestFile publishes what was written when it is synced.
type manifestFile struct {
	File
	r       *Remote
	written []byte
}

func (f *manifestFile) WriteAt(p []byte, off int64) (int, error) {
	if off == 0 {
		f.written = append([]byte(nil), p...)
	}
	return f.File.WriteAt(p, off)
}

func (f *manifestFile) Sync() error {
	if err := f.File.Sync(); err != nil || f.written == nil {
		return err
	}
	return f.r.publish(f.written)
}

// Remove implements FS.
func (r *Remote) Remove(name string) error { return r.fs.Remove(name) }

// List implements FS.
func (r *Remote) List() ([]string, error) {
	names, err := r.fs.List()
	out := names[:0]
	for _, n := range names {
		if !strings.HasPrefix(n, remoteName) {
			out = append(out, n)
		}
	}
	return out, err
}

// SyncDir implements FS.
func (r *Remote) SyncDir() error { return r.fs.SyncDir() }

// LinkTo implements FS. A snapshot of a remote volume is local to this host: all its segments are brought here.
func (r *Remote) LinkTo(name, dst string) error {
	f, err := r.Open(name, false)
	if err != nil {
		return err
	}
	f.Close()
	return r.fs.LinkTo(name, dst)
}

// DestroyRemote removes a volume from an object store: generations first, without which the rest is noise.
func DestroyRemote(ctx context.Context, s ObjectStore) error {
	for _, prefix := range []string{genPrefix, segPrefix} {
		names, err := s.List(ctx, prefix)
		if err != nil {
			return fmt.Errorf("destroy volume in object store: %w", err)
		}
		for i := len(names) - 1; i >= 0; i-- {
			if err := s.Delete(ctx, names[i]); err != nil {
				return fmt.Errorf("destroy volume in object store: %w", err)
			}
		}
	}
	return nil
}
