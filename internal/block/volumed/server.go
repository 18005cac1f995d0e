package volumed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
	"github.com/sealdesk/sealdesk/internal/block/objstore"
	"github.com/sealdesk/sealdesk/internal/block/vhostuser"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Config is what a daemon needs.
type Config struct {
	// ControlSocket is the path of the control socket. Its directory must exist.
	ControlSocket string
	Logger        *slog.Logger
	// Volume holds settings for every volume that is opened (limits, intervals); its
	// identity fields are ignored.
	Volume block.Options
	// ObjectStore is where volumes live, with their directories as cache (block.Remote); see objstore.Open. Empty: in their directories.
	ObjectStore string
	// FlushRemote has a flush reach the object store, not only the cache.
	FlushRemote bool
	// MemoryLocked says that the whole process is locked in memory already.
	MemoryLocked bool
}

// Main hardens the process and serves until SIGTERM or SIGINT. It is what
// "sealdesk volumed" runs.
func Main(cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	locked, err := Harden()
	if err != nil {
		return err
	}
	if !locked {
		cfg.Logger.Warn("process memory is not locked, only the keys are; raise RLIMIT_MEMLOCK to unlimited")
	}
	cfg.MemoryLocked = locked
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return Serve(ctx, cfg)
}

// lookEvery is the time between looks at the control socket.
const lookEvery = 5 * time.Second

type server struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	objects block.Place // nil: volumes are local

	mu       sync.Mutex
	vols     map[string]*attached
	opening  map[string]bool
	watchers map[chan Event]struct{}
	closing  bool
}

type attached struct {
	st     Status
	vol    *block.Volume
	srv    *nbd.Server
	vhost  *vhostuser.Server
	stop   context.CancelFunc
	done   sync.WaitGroup // NBD server and hydration
	detach sync.Once
	err    error // of Close
	anchor block.Anchor
}

// Serve runs the daemon until ctx ends or its control socket is removed, then flushes and closes every volume.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := os.OpenFile(cfg.ControlSocket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("volumed: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("volumed: another one serves %s: %w", cfg.ControlSocket, err)
	}
	l, err := listen(cfg.ControlSocket)
	if err != nil {
		return fmt.Errorf("volumed: control socket: %w", err)
	}
	s := &server{cfg: cfg, log: cfg.Logger, started: time.Now().UTC(), vols: map[string]*attached{},
		opening: map[string]bool{}, watchers: map[chan Event]struct{}{}}
	if cfg.ObjectStore != "" {
		if s.objects, err = objstore.Open(ctx, cfg.ObjectStore); err != nil {
			l.Close()
			return fmt.Errorf("volumed: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s.log.Info("volumed serves", "socket", cfg.ControlSocket, "pid", os.Getpid())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if s.removed(ctx) {
			cancel()
			l.Close()
		}
	})
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("accept on control socket", "err", err)
			}
			break
		}
		wg.Go(func() {
			defer c.Close()
			s.conn(ctx, c)
		})
	}
	cancel()
	wg.Wait()
	err = s.detachAll()
	_ = os.Remove(cfg.ControlSocket)
	s.log.Info("volumed ended", "err", err)
	return err
}

// removed waits until the control socket is gone, upon which nobody can reach this daemon any more, to
// have a volume detached or another daemon take its place; it says whether that happened before ctx ended.
func (s *server) removed(ctx context.Context) bool {
	for tick := time.Tick(lookEvery); ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
		}
		if _, err := os.Lstat(s.cfg.ControlSocket); errors.Is(err, fs.ErrNotExist) {
			s.log.Error("the control socket was removed: this daemon ends, and the keys it holds with it", "socket", s.cfg.ControlSocket)
			return true
		}
	}
}

func (s *server) detachAll() error {
	s.mu.Lock()
	s.closing = true
	var all []*attached
	for _, a := range s.vols {
		all = append(all, a)
	}
	s.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() { _, errs[i] = s.detach(a) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// conn serves one request.
func (s *server) conn(ctx context.Context, c *net.UnixConn) {
	if err := checkPeer(c); err != nil {
		s.log.Warn("control connection refused", "err", err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	f, err := readFrame(c)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			s.log.Warn("control connection", "err", err)
			_ = writeFrame(c, msgError, encodeError(fmt.Errorf("%w: %w", ErrRequest, err)), nil)
		}
		return
	}
	defer f.secret.Wipe()
	if f.version != protoVersion {
		_ = writeFrame(c, msgError, encodeError(fmt.Errorf("%w: protocol version %d, this daemon speaks %d", ErrRequest, f.version, protoVersion)), nil)
		return
	}
	if !s.cfg.MemoryLocked && f.secret.Len() > 0 {
		_ = unix.Mlock(f.secret.Expose())
	}
	_ = c.SetReadDeadline(time.Time{})
	// A client that goes away cancels what runs for it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = c.Read(b[:])
		cancel()
	}()
	defer func() { _ = c.CloseRead(); <-gone }()
	out, err := s.request(ctx, f, func(ev any) error { return writeFrame(c, msgEvent, ev, nil) })
	if err != nil {
		s.log.Warn("request refused", "type", f.typ, "err", err)
		err = writeFrame(c, msgError, encodeError(err), nil)
	} else {
		err = writeFrame(c, msgOK, out, nil)
	}
	if err != nil {
		s.log.Debug("reply", "err", err)
	}
}

func decode[T any](f frame) (T, error) {
	var v T
	if err := json.Unmarshal(f.body, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return v, nil
}

func (s *server) request(ctx context.Context, f frame, event func(any) error) (any, error) {
	switch f.typ {
	case msgPing:
		return Info{Version: protoVersion, PID: os.Getpid(), Started: s.started, MemoryLocked: s.cfg.MemoryLocked}, nil
	case msgList:
		return s.list(), nil
	case msgCreate:
		r, err := decode[CreateRequest](f)
		if err != nil {
			return nil, err
		}
		r.Key = f.secret
		return s.create(r)
	case msgAttach:
		r, err := decode[AttachRequest](f)
		if err != nil {
			return nil, err
		}
		r.Key = f.secret
		return s.attach(r)
	case msgDetach:
		r, err := decode[nameRequest](f)
		if err != nil {
			return nil, err
		}
		a, err := s.find(r.VolumeID)
		if err != nil {
			return nil, err
		}
		return s.detach(a)
	case msgFlush:
		r, err := decode[nameRequest](f)
		if err != nil {
			return nil, err
		}
		a, err := s.find(r.VolumeID)
		if err != nil {
			return nil, err
		}
		if err := a.vol.Flush(); err != nil {
			return nil, err
		}
		return a.vol.Anchor(), nil
	case msgImport:
		r, err := decode[ImportRequest](f)
		if err != nil {
			return nil, err
		}
		return s.imp(ctx, r, event)
	case msgDestroy:
		r, err := decode[nameRequest](f)
		if err != nil {
			return nil, err
		}
		return struct{}{}, s.destroy(r)
	case msgSnapshot:
		r, err := decode[SnapshotRequest](f)
		if err != nil {
			return nil, err
		}
		as, err := s.snapshots(ctx, []SnapshotRequest{r})
		if err != nil {
			return nil, err
		}
		return as[0], nil
	case msgSnapshotSet:
		rs, err := decode[[]SnapshotRequest](f)
		if err != nil {
			return nil, err
		}
		return s.snapshots(ctx, rs)
	case msgClone:
		r, err := decode[CloneRequest](f)
		if err != nil {
			return nil, err
		}
		return s.clone(r, f.secret)
	case msgGrow:
		r, err := decode[growRequest](f)
		if err != nil {
			return nil, err
		}
		a, err := s.find(r.VolumeID)
		if err != nil {
			return nil, err
		}
		if err := a.vol.Grow(r.SizeBytes); err != nil {
			return nil, err
		}
		if a.vhost != nil {
			a.vhost.Resized()
		}
		return a.vol.Anchor(), nil
	case msgWatch:
		return struct{}{}, s.watch(ctx, event)
	}
	return nil, fmt.Errorf("%w: unknown type %d", ErrRequest, f.typ)
}

// checkDir refuses paths that depend on where the daemon was started.
func checkDir(id, dir string) error {
	if id == "" || !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return fmt.Errorf("%w: volume %q in directory %q (want an ID and an absolute path)", ErrRequest, id, dir)
	}
	return nil
}

func (s *server) options(id string, key *secret.Bytes) block.Options {
	o := s.cfg.Volume
	o.VolumeID, o.Key, o.Logger = id, key, s.log
	return o
}

// remote adds the object store of a volume, if volumes live in one.
func (s *server) remote(o *block.Options, dir string) error {
	if s.objects == nil {
		return nil
	}
	var err error
	o.FlushCheckpoints = s.cfg.FlushRemote
	o.FS, err = block.NewRemote(block.RemoteConfig{Dir: dir, Place: s.objects, ID: o.VolumeID, FlushRemote: s.cfg.FlushRemote, Logger: s.log.With("volume", o.VolumeID)})
	return err
}

func (s *server) create(r CreateRequest) (block.Anchor, error) {
	if err := checkDir(r.VolumeID, r.Dir); err != nil {
		return block.Anchor{}, err
	}
	o := s.options(r.VolumeID, r.Key)
	o.SizeBytes = r.SizeBytes
	if err := s.remote(&o, r.Dir); err != nil {
		return block.Anchor{}, err
	}
	if r.BaseImage != "" {
		b, err := block.OpenBase(r.BaseImage)
		if err != nil {
			return block.Anchor{}, err
		}
		defer b.Close()
		o.Base = b
	}
	a, err := block.Create(r.Dir, o)
	if err == nil {
		s.log.Info("volume created", "volume", r.VolumeID, "bytes", r.SizeBytes)
	}
	return a, err
}

func (s *server) clone(r CloneRequest, keys *secret.Bytes) (block.Anchor, error) {
	if err := checkDir(r.VolumeID, r.Dir); err != nil {
		return block.Anchor{}, err
	}
	if err := checkDir("source", r.From); err != nil {
		return block.Anchor{}, err
	}
	if r.SourceLen <= 0 || r.SourceLen > keys.Len() {
		return block.Anchor{}, fmt.Errorf("%w: clone without the source's key", ErrRequest)
	}
	src := secret.New(append([]byte(nil), keys.Expose()[:r.SourceLen]...))
	defer src.Wipe()
	own := src
	if keys.Len() > r.SourceLen {
		own = secret.New(append([]byte(nil), keys.Expose()[r.SourceLen:]...))
		defer own.Wipe()
	}
	o := s.options(r.VolumeID, own)
	o.SizeBytes = r.SizeBytes
	if err := s.remote(&o, r.Dir); err != nil {
		return block.Anchor{}, err
	}
	return block.Clone(r.Dir, o, block.Source{Dir: r.From, ID: r.FromID, Key: src, Anchor: r.SourceAnchor, Scratch: r.Scratch})
}

func (s *server) find(id string) (*attached, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.vols[id]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNotAttached)
}

func (s *server) attach(r AttachRequest) (Status, error) {
	if err := checkDir(r.VolumeID, r.Dir); err != nil {
		return Status{}, err
	}
	for _, socket := range []string{r.Socket, r.VhostSocket} {
		if socket != "" && !filepath.IsAbs(socket) {
			return Status{}, fmt.Errorf("%w: socket %q is no absolute path", ErrRequest, socket)
		}
	}
	s.mu.Lock()
	switch a := s.vols[r.VolumeID]; {
	case s.closing:
		s.mu.Unlock()
		return Status{}, fmt.Errorf("%w: shutting down", ErrRequest)
	case a != nil && a.st.Dir == r.Dir && a.st.Socket == r.Socket && a.st.VhostSocket == r.VhostSocket && a.st.ReadOnly == r.ReadOnly:
		s.mu.Unlock()
		return s.status(a), nil // asked again, for instance because the first answer was lost
	case a != nil || s.opening[r.VolumeID]:
		s.mu.Unlock()
		return Status{}, fmt.Errorf("%s: %w", r.VolumeID, ErrAttached)
	}
	for _, o := range s.vols {
		if (r.Socket != "" && o.st.Socket == r.Socket) || (r.VhostSocket != "" && o.st.VhostSocket == r.VhostSocket) {
			s.mu.Unlock()
			return Status{}, fmt.Errorf("%w: socket %s serves volume %s", ErrRequest, o.st.Socket, o.st.VolumeID)
		}
	}
	s.opening[r.VolumeID] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.opening, r.VolumeID)
		s.mu.Unlock()
	}()

	o := s.options(r.VolumeID, r.Key)
	o.Anchor, o.ReadOnly = r.Anchor, r.ReadOnly
	if err := s.remote(&o, r.Dir); err != nil {
		return Status{}, err
	}
	o.OnAnchor = func(a block.Anchor) { s.publish(Event{VolumeID: r.VolumeID, Kind: "anchor", Anchor: a}) }
	if r.BaseImage != "" {
		b, err := block.OpenBase(r.BaseImage)
		if err != nil {
			return Status{}, err
		}
		o.Base = b
	}
	v, err := block.Open(r.Dir, o)
	if err != nil {
		if o.Base != nil && o.Base.Close != nil {
			_ = o.Base.Close()
		}
		return Status{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &attached{vol: v, stop: cancel, st: Status{VolumeID: r.VolumeID, Dir: r.Dir, Socket: r.Socket, ReadOnly: r.ReadOnly,
		SizeBytes: v.Size(), Attached: time.Now().UTC()}}
	if r.Socket != "" {
		l, err := listen(r.Socket)
		if err != nil {
			cancel()
			return Status{}, errors.Join(fmt.Errorf("NBD socket of volume %s: %w", r.VolumeID, err), v.Close())
		}
		a.srv = &nbd.Server{Logger: s.log, Exports: []nbd.Export{{Name: r.VolumeID, Description: "Sealdesk volume " + r.VolumeID, Device: v, ReadOnly: r.ReadOnly}}}
		a.done.Go(func() {
			if err := a.srv.Serve(ctx, l); err != nil {
				s.log.Error("NBD server ended", "volume", r.VolumeID, "err", err)
			}
		})
	}
	if r.VhostSocket != "" {
		if err := s.serveVhost(ctx, a, r); err != nil {
			cancel()
			a.done.Wait()
			return Status{}, errors.Join(err, v.Close())
		}
	}
	if r.BaseImage != "" && !r.ReadOnly {
		a.done.Go(func() { s.hydrate(ctx, a) })
	}
	s.mu.Lock()
	s.vols[r.VolumeID] = a
	s.mu.Unlock()
	st := s.status(a)
	s.log.Info("volume attached", "volume", r.VolumeID, "socket", r.Socket, "version", st.Anchor.Version)
	s.publish(Event{VolumeID: r.VolumeID, Kind: "attached", Anchor: st.Anchor})
	return st, nil
}

func (s *server) serveVhost(ctx context.Context, a *attached, r AttachRequest) error {
	l, err := listen(r.VhostSocket)
	if err != nil {
		return fmt.Errorf("vhost-user socket of volume %s: %w", r.VolumeID, err)
	}
	a.st.VhostSocket = r.VhostSocket
	a.vhost = &vhostuser.Server{Logger: s.log.With("volume", r.VolumeID), Device: a.vol, Serial: r.Serial, ReadOnly: r.ReadOnly}
	a.done.Go(func() {
		if err := a.vhost.Serve(ctx, l); err != nil {
			s.log.Error("vhost-user server ended", "volume", r.VolumeID, "err", err)
		}
	})
	return nil
}

func (s *server) hydrate(ctx context.Context, a *attached) {
	for {
		err := a.vol.Hydrate(ctx, nil)
		switch {
		case err == nil:
			s.publish(Event{VolumeID: a.st.VolumeID, Kind: "hydrated", Anchor: a.vol.Anchor()})
			return
		case ctx.Err() != nil:
			return
		}
		s.log.Error("hydration", "volume", a.st.VolumeID, "err", err)
		s.publish(Event{VolumeID: a.st.VolumeID, Kind: "failed", Anchor: a.vol.Anchor(), Message: err.Error()})
		if !errors.Is(err, block.ErrNoSpace) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}

// detach flushes and closes a volume, and wipes its key whatever happens.
func (s *server) detach(a *attached) (block.Anchor, error) {
	a.detach.Do(func() {
		a.stop()
		a.done.Wait()
		a.err = a.vol.Close()
		a.anchor = a.vol.Anchor()
		for _, socket := range []string{a.st.Socket, a.st.VhostSocket} {
			if socket != "" {
				_ = os.Remove(socket)
			}
		}
		s.mu.Lock()
		delete(s.vols, a.st.VolumeID)
		s.mu.Unlock()
		s.log.Info("volume detached", "volume", a.st.VolumeID, "version", a.anchor.Version, "err", a.err)
		ev := Event{VolumeID: a.st.VolumeID, Kind: "detached", Anchor: a.anchor}
		if a.err != nil {
			ev.Message = a.err.Error()
		}
		s.publish(ev)
	})
	return a.anchor, a.err
}

func (s *server) status(a *attached) Status {
	st := a.st
	st.Anchor = a.vol.Anchor()
	st.Stats = a.vol.Stats()
	if err := a.vol.Err(); err != nil {
		st.Failed = err.Error()
	}
	if a.srv != nil {
		st.Connections = a.srv.Conns()
	}
	if a.vhost != nil && a.vhost.Connected() {
		st.Connections++
	}
	return st
}

func (s *server) list() []Status {
	s.mu.Lock()
	var all []*attached
	for _, a := range s.vols {
		all = append(all, a)
	}
	s.mu.Unlock()
	out := []Status{}
	for _, a := range all {
		out = append(out, s.status(a))
	}
	return out
}

func (s *server) imp(ctx context.Context, r ImportRequest, event func(any) error) (block.Anchor, error) {
	a, err := s.find(r.VolumeID)
	if err != nil {
		return block.Anchor{}, err
	}
	f, err := os.Open(r.Image)
	if err != nil {
		return block.Anchor{}, fmt.Errorf("import into %s: %w", r.VolumeID, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return block.Anchor{}, err
	}
	var last time.Time
	err = block.Import(ctx, a.vol, sparse{f}, st.Size(), func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= 200*time.Millisecond || done == total {
			last = now
			_ = event(Progress{done, total})
		}
	})
	if err != nil {
		return block.Anchor{}, err
	}
	return a.vol.Anchor(), nil
}

// sparse lets Import jump over holes of a file.
type sparse struct{ *os.File }

// NextData is the offset of the first byte from off on that may not be zero; io.EOF when there is none.
func (f sparse) NextData(off int64) (int64, error) {
	n, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, io.EOF
	}
	return n, err
}

// destroy removes a volume that is not attached: its manifests first, so that what
// is left after a crash is no volume.
func (s *server) destroy(r nameRequest) error {
	if err := checkDir(r.VolumeID, r.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	busy := s.opening[r.VolumeID]
	for _, a := range s.vols {
		busy = busy || a.st.VolumeID == r.VolumeID || a.st.Dir == r.Dir
	}
	s.mu.Unlock()
	if busy {
		return fmt.Errorf("destroy %s: %w", r.VolumeID, ErrAttached)
	}
	if s.objects != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := block.DestroyRemote(ctx, s.objects, r.VolumeID); err != nil {
			return err
		}
	}
	if err := block.Destroy(r.Dir); err != nil {
		return err
	}
	s.log.Info("volume destroyed", "volume", r.VolumeID)
	return nil
}

func (s *server) publish(ev Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.watchers {
		select {
		case ch <- ev:
		default: // too slow: it is cut off and starts again with the full state
			delete(s.watchers, ch)
			close(ch)
		}
	}
}

func (s *server) watch(ctx context.Context, event func(any) error) error {
	ch := make(chan Event, 256)
	s.mu.Lock()
	s.watchers[ch] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, ch)
		s.mu.Unlock()
	}()
	for _, st := range s.list() {
		if err := event(Event{VolumeID: st.VolumeID, Kind: "attached", Anchor: st.Anchor, Message: st.Failed}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, ok := <-ch:
			if !ok {
				return fmt.Errorf("%w: watcher is too slow", ErrRequest)
			}
			if err := event(ev); err != nil {
				return err
			}
		}
	}
}

// snapshots freezes attached volumes at one moment.
func (s *server) snapshots(ctx context.Context, rs []SnapshotRequest) ([]block.Anchor, error) {
	var set []block.SnapshotTarget
	for _, r := range rs {
		a, err := s.find(r.VolumeID)
		if err != nil {
			return nil, err
		}
		if err := checkDir(r.SnapshotID, r.Dir); err != nil {
			return nil, err
		}
		// What still reads through its image is nothing by itself.
		if !a.st.ReadOnly {
			if err := a.vol.Hydrate(ctx, nil); err != nil {
				return nil, err
			}
		}
		set = append(set, block.SnapshotTarget{Volume: a.vol, Dir: r.Dir, SnapshotID: r.SnapshotID})
	}
	return block.SnapshotSet(set)
}
