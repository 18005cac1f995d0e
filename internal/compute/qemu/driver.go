package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// Options are how machines are run. Dir is required.
type Options struct {
	Dir         string // holds one runtime directory a machine; one Driver at a time
	Binary      string // default qemu-system-x86_64 from PATH
	Accelerator string // "auto" (default: KVM if its probe boots, else TCG), "tcg" or "kvm"
	// Image tells the path of the desktop image; the .kernel and .initrd beside it are what KVM is probed with. Nil, or
	// no such files: auto means TCG.
	Image          func() (string, error)
	DiskTransport  string        // "vhost-user" (default), which is taken where server and QEMU have it, or "nbd"
	ReconnectDelay time.Duration // how long requests to a lost disk wait before the machine is paused; default 30 s, whole seconds
	StartTimeout   time.Duration // for QEMU to answer after its start; default 30 s
	Log            *slog.Logger  // default slog.Default()
}

// Validate fills in the defaults and says what is wrong.
func (o *Options) Validate() error {
	if !filepath.IsAbs(o.Dir) {
		return fmt.Errorf("runtime directory %q of the QEMU driver must be an absolute path", o.Dir)
	}
	if o.Binary == "" {
		o.Binary = "qemu-system-x86_64"
	}
	if o.Accelerator == "" {
		o.Accelerator = "auto"
	}
	if !slices.Contains([]string{"auto", accelTCG, accelKVM}, o.Accelerator) {
		return fmt.Errorf("accelerator %q, want auto, tcg or kvm", o.Accelerator)
	}
	if o.DiskTransport == "" {
		o.DiskTransport = "vhost-user"
	}
	if !slices.Contains([]string{"nbd", "vhost-user"}, o.DiskTransport) {
		return fmt.Errorf("disk transport %q, want nbd or vhost-user", o.DiskTransport)
	}
	if o.ReconnectDelay == 0 {
		o.ReconnectDelay = 30 * time.Second
	}
	if o.ReconnectDelay < time.Second {
		return fmt.Errorf("reconnect delay %v is shorter than a second", o.ReconnectDelay)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return nil
}

// Driver runs machines as QEMU processes. Make it with New.
type Driver struct {
	o      Options
	binary string
	lock   *os.File
	events *compute.Broadcaster
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	loops  sync.WaitGroup

	accelOnce sync.Mutex
	accel     string
	vhost     func() bool // whether disks go by vhost-user where they can

	mu sync.Mutex
	m  map[string]*machine
}

var _ compute.Driver = (*Driver)(nil)

// New takes charge of o.Dir, which it makes if it is missing. It fails when QEMU is not installed, and when another Driver still has the
// directory after five seconds. Adopt must be called before anything else.
func New(o Options) (*Driver, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	binary, err := exec.LookPath(o.Binary)
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w; install the Debian package qemu-system-x86 (scripts/prerequisites does)", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the runtime directory of machines: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the runtime directory: %w", err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if time.Now().After(deadline) {
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w; another control plane is running on this directory", o.Dir, err)
		}
	}
	d := &Driver{o: o, binary: binary, lock: lock, events: compute.NewBroadcaster(), m: map[string]*machine{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.vhost = sync.OnceValue(func() bool {
		return o.DiskTransport == "vhost-user" && exec.Command(binary, "-device", "vhost-user-blk-pci,help").Run() == nil
	})
	d.loops.Go(func() { d.Accelerator(d.ctx) }) // so that the first machine need not wait for the probe
	return d, nil
}

// Close implements compute.Driver.
func (d *Driver) Close() error {
	if d.ctx.Err() != nil {
		return nil
	}
	d.cancel()
	d.mu.Lock()
	for _, m := range d.m {
		m.letGo()
	}
	d.mu.Unlock()
	d.loops.Wait()
	d.events.Close()
	return d.lock.Close()
}

// get returns machine id. With create, an unknown one is made.
func (d *Driver) get(id string, create bool) (*machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return nil, compute.ErrClosed
	}
	m := d.m[id]
	if m == nil {
		if !create {
			return nil, fmt.Errorf("machine %s: %w", id, compute.ErrNotFound)
		}
		m = &machine{d: d, id: id, dir: filepath.Join(d.o.Dir, id), op: make(chan struct{}, 1), state: compute.StateStopped}
		d.m[id] = m
	}
	return m, nil
}

func (d *Driver) forget(m *machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m[m.id] == m {
		delete(d.m, m.id)
	}
}

// Accelerator is what machines run on: decided once, by Options.Accelerator and the probe, as soon as there is an image.
func (d *Driver) Accelerator(ctx context.Context) string {
	d.accelOnce.Lock()
	defer d.accelOnce.Unlock()
	if d.accel != "" || d.o.Accelerator != "auto" {
		return cmp.Or(d.accel, d.o.Accelerator)
	}
	kernel, initrd := probeFiles(d.o.Image)
	if kernel == "" {
		return accelTCG
	}
	ok, why := Probe(ctx, d.binary, kernel, initrd, filepath.Join(d.o.Dir, ".kvm-probe.json"))
	if ctx.Err() != nil {
		return accelTCG
	}
	d.accel = accelTCG
	if ok {
		d.accel = accelKVM
	}
	d.o.Log.Info("accelerator chosen", "accelerator", d.accel, "why", why)
	return d.accel
}

// Start implements compute.Driver.
func (d *Driver) Start(ctx context.Context, spec compute.Spec) error {
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return err
	}
	accel := d.Accelerator(ctx)
	m, err := d.get(spec.ID, true)
	if err != nil {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.end()
	if m.process() != nil {
		return fmt.Errorf("start machine %s: %w", spec.ID, compute.ErrExists)
	}
	if err := m.start(ctx, spec, accel); err != nil {
		return fmt.Errorf("start machine %s: %w", spec.ID, err)
	}
	return nil
}

// Stop implements compute.Driver.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	return d.end(ctx, id, func(m *machine) error { return m.stop(ctx, grace) })
}

// Kill implements compute.Driver.
func (d *Driver) Kill(ctx context.Context, id string) error {
	return d.end(ctx, id, func(m *machine) error { return m.kill("killed by request") })
}

// Remove implements compute.Driver.
func (d *Driver) Remove(ctx context.Context, id string) error {
	return d.end(ctx, id, func(m *machine) error {
		if err := m.kill("removed by request"); err != nil {
			return err
		}
		d.forget(m)
		return os.RemoveAll(m.dir)
	})
}

// end runs f on a machine whose end is wished; an unknown machine is no error.
func (d *Driver) end(ctx context.Context, id string, f func(*machine) error) error {
	m, err := d.get(id, false)
	if errors.Is(err, compute.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.end()
	if err := f(m); err != nil {
		return fmt.Errorf("end machine %s: %w", id, err)
	}
	return nil
}

// with runs f with the monitor of a running machine.
func (d *Driver) with(ctx context.Context, id string, f func(*machine, *monitor) error) error {
	m, err := d.get(id, false)
	if err != nil {
		return err
	}
	q, err := m.monitor(ctx)
	if err != nil {
		return fmt.Errorf("machine %s: %w", id, err)
	}
	if err := f(m, q); err != nil {
		return fmt.Errorf("machine %s: %w", id, err)
	}
	return nil
}

// Reset implements compute.Driver.
func (d *Driver) Reset(ctx context.Context, id string) error {
	return d.with(ctx, id, func(m *machine, q *monitor) error {
		m.forgetGuest()
		if _, err := q.do(ctx, "system_reset", nil); err != nil {
			return err
		}
		// A paused or panicked machine stays so after a reset until it is told to continue.
		_, err := q.do(ctx, "cont", nil)
		return err
	})
}

// Pause implements compute.Driver.
func (d *Driver) Pause(ctx context.Context, id string) error {
	return d.with(ctx, id, func(m *machine, q *monitor) error {
		m.mu.Lock()
		m.pausedByRequest = true
		m.mu.Unlock()
		_, err := q.do(ctx, "stop", nil)
		return err
	})
}

// Resume implements compute.Driver.
func (d *Driver) Resume(ctx context.Context, id string) error {
	return d.with(ctx, id, func(m *machine, q *monitor) error {
		m.mu.Lock()
		m.pausedByRequest = false
		m.mu.Unlock()
		_, err := q.do(ctx, "cont", nil)
		return err
	})
}

// Status implements compute.Driver.
func (d *Driver) Status(ctx context.Context, id string) (compute.Status, error) {
	m, err := d.get(id, false)
	if err != nil {
		return compute.Status{}, err
	}
	return m.status(ctx), nil
}

// List implements compute.Driver.
func (d *Driver) List(ctx context.Context) ([]compute.Status, error) {
	d.mu.Lock()
	if d.ctx.Err() != nil {
		d.mu.Unlock()
		return nil, compute.ErrClosed
	}
	var all []*machine
	for _, m := range d.m {
		all = append(all, m)
	}
	d.mu.Unlock()
	out := make([]compute.Status, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() { out[i] = m.status(ctx) })
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b compute.Status) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Adopt implements compute.Driver.
func (d *Driver) Adopt(ctx context.Context) ([]compute.Status, error) {
	dirs, err := os.ReadDir(d.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	for _, e := range dirs {
		if !e.IsDir() {
			continue
		}
		rec, err := readRecord(filepath.Join(d.o.Dir, e.Name()))
		if err != nil || rec.Spec.ID != e.Name() {
			d.o.Log.Warn("runtime directory is not a machine's; left alone", "dir", e.Name(), "err", err)
			continue
		}
		m, err := d.get(rec.Spec.ID, true)
		if err != nil {
			return nil, err
		}
		if m.process() != nil {
			continue
		}
		m.adopt(rec)
	}
	// Monitors answer within milliseconds; a machine that does not is reported as it was last known.
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	d.mu.Lock()
	for _, m := range d.m {
		go func() { _, _ = m.monitor(wait) }()
	}
	d.mu.Unlock()
	return d.List(ctx)
}

// Events implements compute.Driver.
func (d *Driver) Events(ctx context.Context) <-chan compute.Event { return d.events.Subscribe(ctx) }

// VNCSocket implements compute.Driver.
func (d *Driver) VNCSocket(_ context.Context, id string) (string, error) {
	m, err := d.get(id, false)
	if err != nil {
		return "", err
	}
	if m.process() == nil {
		return "", fmt.Errorf("machine %s: %w", id, compute.ErrNotRunning)
	}
	return filepath.Join(m.dir, "vnc.sock"), nil
}

// QueryBlock implements compute.Driver.
func (d *Driver) QueryBlock(ctx context.Context, id string) (out []compute.BlockStatus, err error) {
	err = d.with(ctx, id, func(m *machine, q *monitor) error {
		var disks []struct {
			Device   string `json:"device"`
			QDev     string `json:"qdev"`
			IOStatus string `json:"io-status"`
			Inserted *struct {
				Node     string `json:"node-name"`
				ReadOnly bool   `json:"ro"`
				Image    struct {
					Size int64 `json:"virtual-size"`
				} `json:"image"`
			} `json:"inserted"`
		}
		if err := q.query(ctx, "query-block", &disks); err != nil {
			return err
		}
		var stats []struct {
			Node  string `json:"node-name"`
			Stats struct {
				ReadBytes  int64 `json:"rd_bytes"`
				WriteBytes int64 `json:"wr_bytes"`
				ReadOps    int64 `json:"rd_operations"`
				WriteOps   int64 `json:"wr_operations"`
				FlushOps   int64 `json:"flush_operations"`
				FailedRead int64 `json:"failed_rd_operations"`
				FailedWr   int64 `json:"failed_wr_operations"`
				FailedFl   int64 `json:"failed_flush_operations"`
			} `json:"stats"`
		}
		if err := q.query(ctx, "query-blockstats", &stats); err != nil {
			return err
		}
		for _, disk := range disks {
			if disk.Inserted == nil {
				continue
			}
			b := compute.BlockStatus{Role: compute.DiskRole(disk.Inserted.Node), SizeBytes: disk.Inserted.Image.Size,
				ReadOnly: disk.Inserted.ReadOnly, IOStatus: disk.IOStatus}
			if b.IOStatus == "" {
				b.IOStatus = "ok"
			}
			for _, s := range stats {
				if s.Node == disk.Inserted.Node {
					b.ReadBytes, b.WriteBytes, b.ReadOps, b.WriteOps = s.Stats.ReadBytes, s.Stats.WriteBytes, s.Stats.ReadOps, s.Stats.WriteOps
					b.FlushOps, b.Failed = s.Stats.FlushOps, s.Stats.FailedRead+s.Stats.FailedWr+s.Stats.FailedFl
				}
			}
			out = append(out, b)
		}
		for _, disk := range m.spec().Disks { // of these QEMU knows nothing; their servers do
			if disk.Vhost != "" {
				out = append(out, compute.BlockStatus{Role: disk.Role, ReadOnly: disk.ReadOnly, IOStatus: "ok"})
			}
		}
		return nil
	})
	return out, err
}

// record is machine.json.
type record struct {
	Version     int          `json:"version"` // 1
	Spec        compute.Spec `json:"spec"`
	Accelerator string       `json:"accelerator"`
	StartedAt   time.Time    `json:"started_at"`
	Stopped     string       `json:"stopped,omitempty"` // why, once it has
}

func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		return r, fmt.Errorf("read the record of a machine: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("parse the record of a machine: %w", err)
	}
	if r.Version != 1 {
		return r, fmt.Errorf("record of a machine has version %d, want 1", r.Version)
	}
	return r, nil
}

// writeRecord replaces machine.json at once. It need not survive a power cut: neither does the machine.
func writeRecord(dir string, r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the record of a machine: %w", err)
	}
	tmp := filepath.Join(dir, "machine.json.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write the record of a machine: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "machine.json")); err != nil {
		return fmt.Errorf("write the record of a machine: %w", err)
	}
	return nil
}
