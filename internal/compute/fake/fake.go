// Package fake is a compute.Driver that runs its machines in memory: they start, show a screen, take keys, fail and stop like
// real ones, only at once and as told.
//
// A Host is the world: it holds the machines, as a real host holds QEMU processes, and outlives any number of Drivers made by New.
// A test restarts the "control plane" by closing one Driver and making another on the same Host. Faults are set on the Host: an error
// before an operation has any effect, an error after it took effect, or something done by the guest (ready, panic, power off, lost disk).
package fake

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// Op names an operation of the Driver for Host.Fail.
type Op string

// The operations that can be made to fail.
const (
	OpStart      Op = "Start"
	OpStop       Op = "Stop"
	OpKill       Op = "Kill"
	OpReset      Op = "Reset"
	OpPause      Op = "Pause"
	OpResume     Op = "Resume"
	OpStatus     Op = "Status"
	OpScreendump Op = "Screendump"
	OpSendKeys   Op = "SendKeys"
	OpRemove     Op = "Remove"
)

// When says whether a failing operation still takes effect.
type When int

// A fault either keeps the operation from happening or only hides that it did.
const (
	Before When = iota // the operation fails and nothing happened
	After              // the operation happened and yet an error is returned
)

type fault struct {
	op   Op
	id   string
	when When
	err  error
}

// Options are how the machines of a Host behave. The zero value boots a desktop at once.
type Options struct {
	Now        func() time.Time // default time.Now
	BootTime   time.Duration    // from power-on or reset to GuestReady
	ManualBoot bool             // the desktop is ready only when Host.GuestReady is called
	IgnoreACPI bool             // guests do not react to the power button, so Stop uses up its grace
	CheckDisks bool             // Start fails unless every disk's socket accepts a connection
	Dir        string           // where runtime directories are said to be; default /nonexistent/fake
}

// Host holds machines. It is safe for use by many Drivers at once.
type Host struct {
	opts Options

	mu      sync.Mutex
	nextPID int
	m       map[string]*machine
	faults  []fault
	subs    map[*compute.Broadcaster]bool
}

type machine struct {
	st    compute.Status
	boot  int // counts power-ons and resets, so that an old boot timer does nothing
	typed strings.Builder
	disks map[compute.DiskRole]*compute.BlockStatus
	seed  string // what the guest was told, for tests
	wish  compute.Session
}

// NewHost returns a Host without machines.
func NewHost(o Options) *Host {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dir == "" {
		o.Dir = "/nonexistent/fake"
	}
	return &Host{opts: o, nextPID: 1000, m: map[string]*machine{}, subs: map[*compute.Broadcaster]bool{}}
}

// Fail makes the next op on machine id ("" = any) return err. Faults queue up; each is used once.
func (h *Host) Fail(op Op, id string, when When, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fault{op, id, when, err})
}

func (h *Host) takeFault(op Op, id string, when When) error {
	for i, f := range h.faults {
		if f.op == op && f.when == when && (f.id == "" || f.id == id) {
			h.faults = slices.Delete(h.faults, i, i+1)
			return fmt.Errorf("%s machine %s: %w", op, id, f.err)
		}
	}
	return nil
}

func (h *Host) emit(id string, kind compute.EventKind, disk compute.DiskRole, detail string) {
	for s := range h.subs {
		s.Send(compute.Event{Machine: id, Kind: kind, Time: h.opts.Now().UTC(), Disk: disk, Detail: detail})
	}
}

// guest runs f on an alive machine, as something its guest or its hardware does.
func (h *Host) guest(id string, f func(*machine)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.m[id]
	if m == nil || !m.st.State.Alive() {
		return fmt.Errorf("machine %s: %w", id, compute.ErrNotRunning)
	}
	f(m)
	return nil
}

// GuestReady lets the guest report a painted desktop.
func (h *Host) GuestReady(id string) error {
	return h.guest(id, func(m *machine) { h.ready(m) })
}

func (h *Host) ready(m *machine) {
	if m.st.GuestReady {
		return
	}
	m.st.GuestReady, m.st.GuestReadyAt, m.st.GuestDetail = true, h.opts.Now().UTC(), "fake desktop of "+m.st.Spec.Seed.UserName
	h.emit(m.st.ID, compute.EventGuestReady, "", m.st.GuestDetail)
}

// GuestPowerOff lets the guest switch itself off.
func (h *Host) GuestPowerOff(id string) error {
	return h.guest(id, func(m *machine) {
		h.emit(id, compute.EventShutdown, "", "guest")
		h.exit(m, "the guest powered off")
	})
}

// GuestReboot lets the guest restart itself.
func (h *Host) GuestReboot(id string) error {
	return h.guest(id, func(m *machine) { h.powerOn(m); h.emit(id, compute.EventReset, "", "guest") })
}

// GuestPanic lets the guest's kernel give up.
func (h *Host) GuestPanic(id string) error {
	return h.guest(id, func(m *machine) {
		m.st.State, m.st.Reason = compute.StatePanicked, "the guest's kernel panicked"
		h.emit(id, compute.EventPanic, "", m.st.Reason)
	})
}

// Crash makes the machine's process disappear, as kill -9 does.
func (h *Host) Crash(id string) error {
	return h.guest(id, func(m *machine) { h.exit(m, "the process ended unexpectedly") })
}

// Disk is one of the disks that the machine was started with, for tests that act as its guest.
func (h *Host) Disk(id string, role compute.DiskRole) (socket, export string, err error) {
	err = h.guest(id, func(m *machine) {
		for _, d := range m.st.Spec.Disks {
			if d.Role == role {
				socket, export = d.Socket, d.Export
			}
		}
	})
	return socket, export, err
}

// LoseDisk makes every operation on a disk fail, so that the machine pauses itself; RestoreDisk serves it again.
func (h *Host) LoseDisk(id string, role compute.DiskRole) error {
	return h.guest(id, func(m *machine) {
		if d := m.disks[role]; d != nil {
			d.IOStatus, d.Failed = "failed", d.Failed+1
		}
		m.st.State, m.st.Reason = compute.StateIOError, fmt.Sprintf("the %s disk does not answer", role)
		h.emit(id, compute.EventBlockError, role, m.st.Reason)
	})
}

// RestoreDisk serves a lost disk again; the machine goes on by itself once all its disks are back.
func (h *Host) RestoreDisk(id string, role compute.DiskRole) error {
	return h.guest(id, func(m *machine) {
		if d := m.disks[role]; d != nil {
			d.IOStatus = "ok"
		}
		for _, d := range m.disks {
			if d.IOStatus != "ok" {
				return
			}
		}
		if m.st.State == compute.StateIOError {
			m.st.State, m.st.Reason = compute.StateRunning, ""
			h.emit(id, compute.EventResumed, "", "disks are back")
		}
	})
}

// Typed is all text typed into the machine since it was started, with other keys as <ctrl-alt-t>.
func (h *Host) Typed(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.m[id]; m != nil {
		return m.typed.String()
	}
	return ""
}

// Arranged is the last wish the machine was sent.
func (h *Host) Arranged(id string) compute.Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.m[id]; m != nil {
		return m.wish
	}
	return compute.Session{}
}

// Seed is the seed file the machine was last started with.
func (h *Host) Seed(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.m[id]; m != nil {
		return m.seed
	}
	return ""
}

// Alive lists the machines that have a process, sorted: what must be empty when a test has cleaned up.
func (h *Host) Alive() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for id, m := range h.m {
		if m.st.State.Alive() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (h *Host) exit(m *machine, reason string) {
	m.st.State, m.st.Reason, m.st.PID, m.st.GuestReady, m.st.MemoryRSSByte = compute.StateStopped, reason, 0, false, 0
	m.st.GuestReadyAt, m.st.GuestDetail = time.Time{}, ""
	m.boot++
	h.emit(m.st.ID, compute.EventExited, "", reason)
}

// powerOn starts the guest from the beginning.
func (h *Host) powerOn(m *machine) {
	m.boot++
	m.st.State, m.st.Reason, m.st.GuestReady, m.st.GuestReadyAt, m.st.GuestDetail = compute.StateRunning, "", false, time.Time{}, ""
	if h.opts.ManualBoot {
		return
	}
	if h.opts.BootTime == 0 {
		h.ready(m)
		return
	}
	boot := m.boot
	time.AfterFunc(h.opts.BootTime, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if m.boot == boot && m.st.State == compute.StateRunning {
			h.ready(m)
		}
	})
}

// Driver is a compute.Driver on a Host.
type Driver struct {
	h      *Host
	mu     sync.Mutex
	closed bool
	events *compute.Broadcaster
}

var _ compute.Driver = (*Driver)(nil)

// New returns a driver for the machines of h.
func New(h *Host) *Driver {
	d := &Driver{h: h, events: compute.NewBroadcaster()}
	h.mu.Lock()
	h.subs[d.events] = true
	h.mu.Unlock()
	return d
}

// do runs f on machine id under the host's lock, between the two kinds of fault. absentOK: an unknown machine is no error.
func (d *Driver) do(ctx context.Context, op Op, id string, absentOK bool, f func(*machine) error) error {
	if err := d.open(ctx); err != nil {
		return fmt.Errorf("%s machine %s: %w", op, id, err)
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if err := d.h.takeFault(op, id, Before); err != nil {
		return err
	}
	m := d.h.m[id]
	if m == nil && !absentOK {
		return fmt.Errorf("%s machine %s: %w", op, id, compute.ErrNotFound)
	}
	if m != nil || op == OpStart {
		if err := f(m); err != nil {
			return fmt.Errorf("%s machine %s: %w", op, id, err)
		}
	}
	return d.h.takeFault(op, id, After)
}

func (d *Driver) open(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return compute.ErrClosed
	}
	return ctx.Err()
}

func alive(f func(*machine) error) func(*machine) error {
	return func(m *machine) error {
		if !m.st.State.Alive() {
			return fmt.Errorf("%w: %s", compute.ErrNotRunning, m.st.Reason)
		}
		return f(m)
	}
}

// Start implements compute.Driver.
func (d *Driver) Start(ctx context.Context, spec compute.Spec) error {
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return err
	}
	if d.h.opts.CheckDisks {
		for _, disk := range spec.Disks {
			c, err := compute.Dial(ctx, disk.Socket)
			if err != nil {
				return fmt.Errorf("start machine %s: open the %s disk: %w", spec.ID, disk.Role, err)
			}
			c.Close()
		}
	}
	file := compute.SeedFile(spec)
	seed := string(file.Expose())
	file.Wipe()
	return d.do(ctx, OpStart, spec.ID, true, func(m *machine) error {
		h := d.h
		if m != nil && m.st.State.Alive() {
			return compute.ErrExists
		}
		h.nextPID++
		m = &machine{seed: seed, disks: map[compute.DiskRole]*compute.BlockStatus{}}
		spec.Seed.PasswordHash = nil
		m.st = compute.Status{ID: spec.ID, Spec: spec, Dir: filepath.Join(h.opts.Dir, spec.ID), PID: h.nextPID,
			Accelerator: "tcg", StartedAt: h.opts.Now().UTC(), MemoryRSSByte: int64(spec.MemoryMiB) << 20}
		for _, disk := range spec.Disks {
			m.disks[disk.Role] = &compute.BlockStatus{Role: disk.Role, ReadOnly: disk.ReadOnly, IOStatus: "ok", SizeBytes: 1 << 30}
		}
		h.m[spec.ID] = m
		h.emit(spec.ID, compute.EventStarted, "", "")
		h.powerOn(m)
		return nil
	})
}

// Stop implements compute.Driver.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	wait := false
	err := d.do(ctx, OpStop, id, true, func(m *machine) error {
		if !m.st.State.Alive() {
			return nil
		}
		wait = d.h.opts.IgnoreACPI || m.st.State != compute.StateRunning
		m.st.State = compute.StateStopping
		if !wait {
			d.h.emit(id, compute.EventShutdown, "", "power button")
			d.h.exit(m, "stopped by request")
		}
		return nil
	})
	if err != nil || !wait {
		return err
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("Stop machine %s: %w", id, ctx.Err())
	case <-time.After(grace):
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if m := d.h.m[id]; m != nil && m.st.State.Alive() {
		d.h.exit(m, fmt.Sprintf("the guest did not power off within %v; its power was taken away", grace))
	}
	return nil
}

// Kill implements compute.Driver.
func (d *Driver) Kill(ctx context.Context, id string) error {
	return d.do(ctx, OpKill, id, true, func(m *machine) error {
		if m.st.State.Alive() {
			d.h.exit(m, "killed by request")
		}
		return nil
	})
}

// Reset implements compute.Driver.
func (d *Driver) Reset(ctx context.Context, id string) error {
	return d.do(ctx, OpReset, id, false, alive(func(m *machine) error {
		d.h.emit(id, compute.EventReset, "", "host")
		d.h.powerOn(m)
		return nil
	}))
}

// Pause implements compute.Driver.
func (d *Driver) Pause(ctx context.Context, id string) error {
	return d.do(ctx, OpPause, id, false, alive(func(m *machine) error {
		if m.st.State == compute.StateRunning {
			m.st.State, m.st.Reason = compute.StatePaused, "paused by request"
			d.h.emit(id, compute.EventPaused, "", "")
		}
		return nil
	}))
}

// Resume implements compute.Driver.
func (d *Driver) Resume(ctx context.Context, id string) error {
	return d.do(ctx, OpResume, id, false, alive(func(m *machine) error {
		switch m.st.State {
		case compute.StateRunning, compute.StateStopping:
			return nil
		case compute.StatePanicked:
			return errors.New("the guest's kernel panicked; reset the machine")
		case compute.StateIOError:
			for _, b := range m.disks {
				if b.IOStatus != "ok" {
					return nil // the retry fails at once and the machine is paused as before
				}
			}
		}
		m.st.State, m.st.Reason = compute.StateRunning, ""
		d.h.emit(id, compute.EventResumed, "", "")
		return nil
	}))
}

// Status implements compute.Driver.
func (d *Driver) Status(ctx context.Context, id string) (st compute.Status, err error) {
	err = d.do(ctx, OpStatus, id, false, func(m *machine) error { st = m.st; return nil })
	return st, err
}

// List implements compute.Driver.
func (d *Driver) List(ctx context.Context) ([]compute.Status, error) {
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	var out []compute.Status
	for _, m := range d.h.m {
		out = append(out, m.st)
	}
	slices.SortFunc(out, func(a, b compute.Status) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Adopt implements compute.Driver.
func (d *Driver) Adopt(ctx context.Context) ([]compute.Status, error) { return d.List(ctx) }

// Remove implements compute.Driver.
func (d *Driver) Remove(ctx context.Context, id string) error {
	return d.do(ctx, OpRemove, id, true, func(m *machine) error {
		if m.st.State.Alive() {
			d.h.exit(m, "removed by request")
		}
		delete(d.h.m, id)
		return nil
	})
}

// Events implements compute.Driver.
func (d *Driver) Events(ctx context.Context) <-chan compute.Event { return d.events.Subscribe(ctx) }

// Screendump implements compute.Driver.
func (d *Driver) Screendump(ctx context.Context, id string) (png []byte, err error) {
	err = d.do(ctx, OpScreendump, id, false, alive(func(m *machine) error { png, err = screen(m); return err }))
	if err != nil {
		return nil, err
	}
	return png, nil
}

// SendKeys implements compute.Driver.
func (d *Driver) SendKeys(ctx context.Context, id string, chords ...compute.Chord) error {
	if err := compute.ValidateChords(chords); err != nil {
		return err
	}
	return d.do(ctx, OpSendKeys, id, false, alive(func(m *machine) error {
		for _, c := range chords {
			var names []string
			for _, k := range c {
				names = append(names, string(k))
			}
			m.typed.WriteString("<" + strings.Join(names, "-") + ">")
		}
		return nil
	}))
}

// TypeText implements compute.Driver.
func (d *Driver) TypeText(ctx context.Context, id, text string) error {
	if _, err := compute.TextChords(text); err != nil {
		return err
	}
	return d.do(ctx, OpSendKeys, id, false, alive(func(m *machine) error { m.typed.WriteString(text); return nil }))
}

// Arrange implements compute.Driver. The wish is kept for Arranged.
func (d *Driver) Arrange(ctx context.Context, id string, wish compute.Session) error {
	if _, err := wish.Lines(); err != nil {
		return err
	}
	return d.do(ctx, OpStatus, id, false, alive(func(m *machine) error { m.wish = wish; return nil }))
}

// VNCSocket implements compute.Driver. Nothing listens there.
func (d *Driver) VNCSocket(ctx context.Context, id string) (path string, err error) {
	err = d.do(ctx, OpStatus, id, false, alive(func(m *machine) error { path = filepath.Join(m.st.Dir, "vnc.sock"); return nil }))
	return path, err
}

// QueryBlock implements compute.Driver.
func (d *Driver) QueryBlock(ctx context.Context, id string) (out []compute.BlockStatus, err error) {
	err = d.do(ctx, OpStatus, id, false, alive(func(m *machine) error {
		for _, disk := range m.st.Spec.Disks {
			out = append(out, *m.disks[disk.Role])
		}
		return nil
	}))
	return out, err
}

// Close implements compute.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.h.mu.Lock()
	delete(d.h.subs, d.events)
	d.h.mu.Unlock()
	d.events.Close()
	return nil
}
