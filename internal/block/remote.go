package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
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
	// ErrStoreBehind: the object store does not hold what it has to.
	ErrStoreBehind = errors.New("the object store does not hold the volume's present state")
)

// Place yields the store of a volume or snapshot by its ID: one service, a part of its names for each.
type Place func(id string) (ObjectStore, error)

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
// Closing a volume fails when the store cannot be reached; the cache goes on at the next opening here.
//
// Fencing: generations are numbered and created, never replaced, so each has one writer. Opening for writing claims
// the next one. Whoever loses a number, or finds a higher one behind his own, is ErrFenced, stops, and acknowledges no checkpoint (with FlushRemote:
// no flush) any more. Two hosts that both believe to own a volume can so never both extend it. A host that finds
// that its cache was overtaken puts it aside (DIR.superseded-GENERATION) and begins from the store.
type Remote struct {
	RemoteConfig
	fs    FS
	store ObjectStore // Place(ID)

	pub     sync.Mutex // one checkpoint is put at a time; guards what follows
	gen     uint64     // newest generation known to be ours
	owner   [8]byte    // drawn at each opening
	claimed bool
	fenced  bool
	scratch bool                 // a clone for reading, which the store does not know
	version uint64               // of the manifest in generation gen
	sent    map[uint64]segObject // put, and named by no generation yet as far as is known
	homes   []string             // where it may have holds
	garbage garbage

	mu      sync.Mutex           // guards what follows
	objects map[uint64]segObject // of generation gen; the map is replaced, never changed
	lag     error
}

// RemoteConfig says where a Remote keeps a volume.
type RemoteConfig struct {
	Dir         string // the cache
	Place       Place
	ID          string // of the volume
	FlushRemote bool
	Timeout     time.Duration // of one checkpoint's transfer; default 2 minutes
	Logger      *slog.Logger
}

const remoteName = "remote" // in the cache: which generation it continues

var _ FS = (*Remote)(nil)

// NewRemote prepares the cache directory. Remote is the FS of Options.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	if err := checkHolder(cfg.ID); err != nil {
		return nil, err
	}
	store, err := cfg.Place(cfg.ID)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache of a volume: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Remote{RemoteConfig: cfg, fs: DirFS(cfg.Dir), store: store}, nil
}

// Lag says why the store is behind the cache, nil when the last checkpoint reached it.
func (r *Remote) Lag() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lag
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

func (r *Remote) attach() error {
	ctx, cancel := r.context()
	defer cancel()
	_, _ = rand.Read(r.owner[:])
	r.gen, r.claimed, r.fenced, r.scratch, r.version = 0, false, false, false, 0
	r.sent, r.homes, r.garbage = map[uint64]segObject{}, nil, garbage{}
	r.setObjects(nil)
	r.setLag(nil)
	n, b, err := newest(ctx, r.store)
	if err != nil {
		return err
	}
	if n == 0 { // nothing there yet: the cache is all there is
		return r.attachScratch()
	}
	g, err := decodeGeneration(b)
	if err != nil {
		return fmt.Errorf("%s: %w", genName(n), err)
	}
	manifest := g.manifest
	r.gen = n
	r.setObjects(g.objects)
	r.homes, r.garbage.past = g.homes(), g.owners()
	for _, home := range r.homes {
		if len(g.at(home)) == 0 {
			r.garbage.lose(home) // its hold there was about to go
		}
	}
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
	switch {
	case r.fenced:
		return ErrFenced
	case r.scratch:
		return fmt.Errorf("a clone for reading: %w", ErrReadOnly)
	}
	m, _, err := decodeManifest(manifest)
	if err != nil {
		return err
	}
	err = r.upload(m, manifest)
	switch {
	case err == nil:
		r.claimed = true
		r.setLag(nil)
	case errors.Is(err, ErrFenced):
		r.fenced = true
		return err
	case r.claimed && !r.FlushRemote && m.flags&manifestClean == 0:
		r.Logger.Warn("object store is behind the cache", "err", err)
		r.setLag(err)
		return nil
	default:
		return fmt.Errorf("%w: %w", ErrStoreBehind, err)
	}
	return nil
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

func (r *Remote) upload(m *manifest, manifest []byte) error {
	ctx, cancel := r.context()
	defer cancel()
	old := r.known()
	g := generation{manifest: manifest, owner: r.owner, objects: map[uint64]segObject{}, held: r.homes}
	for _, s := range m.segs {
		if s.used == 0 {
			continue
		}
		o, ok := old[s.id]
		if !ok || o.slots < s.used {
			o, ok = r.sent[s.id]
		}
		if !ok || o.slots < s.used {
			o = segObject{slots: s.used, owner: r.owner}
			b, err := r.readLocal(s.id, s.used)
			if err != nil {
				return err
			}
			if err := r.store.Put(ctx, o.name(s.id), b); err != nil && !errors.Is(err, ErrObjectExists) { // only we use these names
				return fmt.Errorf("put segment %x: %w", s.id, err)
			}
			r.sent[s.id] = o
		}
		g.objects[s.id] = o
	}
	b := g.encode()
	stale, err := r.putGeneration(ctx, b)
	if err != nil {
		return err
	}
	r.version = m.version
	r.setObjects(g.objects)
	r.garbage.drop(old, g.objects)
	r.garbage.drop(r.sent, g.objects)
	clear(r.sent)
	if err := r.note(r.gen, b); err != nil {
		return err
	}
	if err := r.tidy(ctx, stale, m.flags&manifestClean != 0); err != nil {
		r.Logger.Warn("objects that are needed no more stay", "err", err)
	}
	return nil
}

// putGeneration makes b the newest generation, unless another host was faster. It returns the generations that are
// there and needed no more.
func (r *Remote) putGeneration(ctx context.Context, b []byte) (stale []uint64, err error) {
	for {
		name := genName(r.gen + 1)
		err := r.store.Put(ctx, name, b)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrObjectExists) {
			return nil, fmt.Errorf("put generation %d: %w", r.gen+1, err)
		}
		have, err := r.store.Get(ctx, name)
		if err != nil && !isNotExist(err) {
			return nil, fmt.Errorf("put generation %d: %w", r.gen+1, err)
		}
		if bytes.Equal(have, b) {
			break
		}
		g, err := decodeGeneration(have)
		if err != nil || g.owner != r.owner {
			return nil, fmt.Errorf("generation %d: %w", r.gen+1, ErrFenced)
		}
		r.gen++ // an earlier one of ours: put, and the answer lost
	}
	// The number may have been free only because a host that is further has removed it, or the volume is gone.
	all, dead, err := generations(ctx, r.store)
	if err != nil {
		return nil, fmt.Errorf("look for newer generations than %d: %w", r.gen+1, err)
	}
	if dead || len(all) == 0 || all[len(all)-1] != r.gen+1 {
		_ = r.store.Delete(ctx, genName(r.gen+1))
		return nil, fmt.Errorf("generation %d: %w", r.gen+1, ErrFenced)
	}
	r.gen++
	for _, n := range all {
		if n+1 < r.gen { // who looks for the newest one may be about to read the one before
			stale = append(stale, n)
		}
	}
	return stale, nil
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
	store := r.store
	if o.home != "" {
		var err error
		if store, err = r.Place(o.home); err != nil {
			return err
		}
	}
	b, err := store.Get(ctx, o.name(id))
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

// Reuse implements FS.
func (r *Remote) Reuse(name, as string) (File, error) { return r.fs.Reuse(name, as) }

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

// LinkTo implements FS. Snapshots and clones of what is in the store share objects, not files.
func (r *Remote) LinkTo(string, string) error { return errors.ErrUnsupported }
