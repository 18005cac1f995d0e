// Package computetest holds what every compute.Driver must do: a suite that is run on the fake and on QEMU alike.
package computetest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// World is a host on which drivers run machines, as a test sees it. It outlives the drivers it makes.
type World interface {
	// New returns a driver on this world that is not closed by others. Only one is open at a time.
	New(t *testing.T) compute.Driver
	// Spec returns a valid machine with a served root and user disk. Its guest shows typed text; it need not be a desktop.
	Spec(t *testing.T, id string) compute.Spec
	// LoseDisk stops serving a disk under a machine; RestoreDisk serves it again.
	LoseDisk(t *testing.T, id string, role compute.DiskRole)
	RestoreDisk(t *testing.T, id string, role compute.DiskRole)
	// Crash makes the machine's process end as by kill -9.
	Crash(t *testing.T, id string)
	// Alive lists the IDs of machines that have a process, whatever drivers say.
	Alive(t *testing.T) []string
}

// patience is how long the suite waits for what should happen soon; emulation on a busy machine is slow.
const patience = 60 * time.Second

type env struct {
	*testing.T
	ctx    context.Context
	w      World
	d      compute.Driver
	events <-chan compute.Event
}

// Run runs the suite; newWorld makes an empty world for each test.
func Run(t *testing.T, newWorld func(t *testing.T) World) {
	for _, c := range []struct {
		name string
		f    func(*env)
	}{
		{"StartStopStart", startStopStart},
		{"Refusals", refusals},
		{"InvalidSpecs", invalidSpecs},
		{"PauseResumeReset", pauseResumeReset},
		{"ScreenAndKeys", screenAndKeys},
		{"AdoptRunning", adoptRunning},
		{"AdoptStopped", adoptStopped},
		{"LostDisk", lostDisk},
		{"Crash", crash},
		{"Remove", remove},
		{"CancelledStart", cancelledStart},
		{"TwoMachines", twoMachines},
		{"Closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			e := &env{T: t, ctx: ctx, w: newWorld(t)}
			e.open()
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if list, err := e.d.List(ctx); err == nil {
					for _, st := range list {
						if err := e.d.Remove(ctx, st.ID); err != nil {
							t.Errorf("Remove(%s) in cleanup = %v", st.ID, err)
						}
					}
				}
				e.d.Close()
				if left := e.w.Alive(t); len(left) > 0 {
					t.Errorf("machines left alive: %v", left)
				}
			})
			c.f(e)
		})
	}
}

// open makes a driver and adopts.
func (e *env) open() []compute.Status {
	e.Helper()
	e.d = e.w.New(e.T)
	e.events = e.d.Events(e.ctx)
	list, err := e.d.Adopt(e.ctx)
	e.no(err, "Adopt")
	return list
}

func (e *env) no(err error, what string) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s = %v, want no error", what, err)
	}
}

func (e *env) is(err, want error, what string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s = %v, want %v", what, err, want)
	}
}

func (e *env) start(id string) compute.Spec {
	e.Helper()
	spec := e.w.Spec(e.T, id)
	e.no(e.d.Start(e.ctx, spec), "Start("+id+")")
	return spec
}

func (e *env) state(id string, want compute.State) compute.Status {
	e.Helper()
	var st compute.Status
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if st, err = e.d.Status(e.ctx, id); err == nil && st.State == want {
			return st
		}
	}
	e.Fatalf("Status(%s) = %+v, %v; want state %q within %v", id, st, err, want, patience)
	return st
}

func (e *env) event(id string, want compute.EventKind) compute.Event {
	e.Helper()
	var seen []compute.EventKind
	for {
		select {
		case ev, ok := <-e.events:
			if !ok {
				e.Fatalf("events ended before %q of %s; seen %v", want, id, seen)
			}
			if ev.Machine == id && ev.Kind == want {
				if ev.Time.IsZero() || ev.Time.Location() != time.UTC {
					e.Errorf("event %q has time %v, want one in UTC", ev.Kind, ev.Time)
				}
				return ev
			}
			seen = append(seen, ev.Kind)
		case <-time.After(patience):
			e.Fatalf("no event %q of %s within %v; seen %v", want, id, patience, seen)
		}
	}
}

func startStopStart(e *env) {
	spec := e.start("ws-a")
	e.event("ws-a", compute.EventStarted)
	st := e.state("ws-a", compute.StateRunning)
	if st.PID == 0 || st.Spec.ID != "ws-a" || st.Spec.MemoryMiB != spec.MemoryMiB || st.Accelerator == "" || st.StartedAt.IsZero() || st.MemoryRSSByte == 0 {
		e.Errorf("Status = %+v, want PID, spec, accelerator, start time and memory", st)
	}
	if st.Spec.Seed.PasswordHash.Len() != 0 {
		e.Errorf("Status gives the password hash away")
	}
	blocks, err := e.d.QueryBlock(e.ctx, "ws-a")
	e.no(err, "QueryBlock")
	var roles []compute.DiskRole
	for _, b := range blocks {
		roles = append(roles, b.Role)
		if b.IOStatus != "ok" || b.SizeBytes <= 0 {
			e.Errorf("QueryBlock: %+v, want an ok disk with a size", b)
		}
	}
	slices.Sort(roles)
	if !slices.Equal(roles, []compute.DiskRole{compute.RoleRoot, compute.RoleUser}) {
		e.Errorf("QueryBlock roles = %v, want root and user", roles)
	}
	if p, err := e.d.VNCSocket(e.ctx, "ws-a"); err != nil || p == "" {
		e.Errorf("VNCSocket = %q, %v", p, err)
	}
	e.no(e.d.Stop(e.ctx, "ws-a", time.Second), "Stop")
	e.event("ws-a", compute.EventExited)
	if st := e.state("ws-a", compute.StateStopped); st.PID != 0 || st.Reason == "" || st.GuestReady {
		e.Errorf("Status after Stop = %+v, want no PID, a reason and no ready guest", st)
	}
	if left := e.w.Alive(e.T); len(left) > 0 {
		e.Errorf("after Stop alive = %v, want none", left)
	}
	e.no(e.d.Stop(e.ctx, "ws-a", time.Second), "second Stop")
	e.no(e.d.Kill(e.ctx, "ws-a"), "Kill of a stopped machine")
	e.start("ws-a")
	if again := e.state("ws-a", compute.StateRunning); again.PID == st.PID {
		e.Errorf("PID after second Start = %d, want another than %d", again.PID, st.PID)
	}
}

func refusals(e *env) {
	_, err := e.d.Status(e.ctx, "ws-none")
	e.is(err, compute.ErrNotFound, "Status")
	_, err = e.d.Screendump(e.ctx, "ws-none")
	e.is(err, compute.ErrNotFound, "Screendump")
	e.is(e.d.Reset(e.ctx, "ws-none"), compute.ErrNotFound, "Reset")
	e.is(e.d.Pause(e.ctx, "ws-none"), compute.ErrNotFound, "Pause")
	e.is(e.d.Resume(e.ctx, "ws-none"), compute.ErrNotFound, "Resume")
	e.is(e.d.TypeText(e.ctx, "ws-none", "a"), compute.ErrNotFound, "TypeText")
	e.is(e.d.Arrange(e.ctx, "ws-none", compute.Session{KeyboardLayout: "jp"}), compute.ErrNotFound, "Arrange")
	_, err = e.d.VNCSocket(e.ctx, "ws-none")
	e.is(err, compute.ErrNotFound, "VNCSocket")
	_, err = e.d.QueryBlock(e.ctx, "ws-none")
	e.is(err, compute.ErrNotFound, "QueryBlock")
	e.no(e.d.Stop(e.ctx, "ws-none", time.Second), "Stop of an unknown machine")
	e.no(e.d.Kill(e.ctx, "ws-none"), "Kill of an unknown machine")
	e.no(e.d.Remove(e.ctx, "ws-none"), "Remove of an unknown machine")

	spec := e.start("ws-a")
	e.is(e.d.Start(e.ctx, spec), compute.ErrExists, "second Start")
	if err := e.d.TypeText(e.ctx, "ws-a", "snow\u2603"); err == nil {
		e.Errorf("TypeText of a snowman = nil, want an error")
	}
	if err := e.d.SendKeys(e.ctx, "ws-a", compute.Chord{"a,b"}); err == nil {
		e.Errorf("SendKeys of a key %q = nil, want an error", "a,b")
	}
	e.no(e.d.Kill(e.ctx, "ws-a"), "Kill")
	_, err = e.d.Screendump(e.ctx, "ws-a")
	e.is(err, compute.ErrNotRunning, "Screendump of a stopped machine")
	e.is(e.d.Reset(e.ctx, "ws-a"), compute.ErrNotRunning, "Reset of a stopped machine")
}

func invalidSpecs(e *env) {
	for name, spoil := range map[string]func(*compute.Spec){
		"no id":             func(s *compute.Spec) { s.ID = "" },
		"id climbs":         func(s *compute.Spec) { s.ID = "../ws" },
		"id with comma":     func(s *compute.Spec) { s.ID = "ws,debug=on" },
		"no vcpu":           func(s *compute.Spec) { s.VCPUs = 0 },
		"no memory":         func(s *compute.Spec) { s.MemoryMiB = 0 },
		"no root":           func(s *compute.Spec) { s.Disks = s.Disks[1:] },
		"two roots":         func(s *compute.Spec) { s.Disks = append(slices.Clone(s.Disks), s.Disks[0]) },
		"relative socket":   func(s *compute.Spec) { s.Disks = slices.Clone(s.Disks); s.Disks[0].Socket = "x.sock" },
		"export with comma": func(s *compute.Spec) { s.Disks = slices.Clone(s.Disks); s.Disks[0].Export = "a,file=/etc/shadow" },
		"no user":           func(s *compute.Spec) { s.Seed.UserName = "" },
		"user root":         func(s *compute.Spec) { s.Seed.UserName = "root" },
		"user with slash":   func(s *compute.Spec) { s.Seed.UserName = "../x" },
		"user with quote":   func(s *compute.Spec) { s.Seed.UserName = "a\"b" },
		"name with colon":   func(s *compute.Spec) { s.Seed.FullName = "a:0:0" },
		"name with newline": func(s *compute.Spec) { s.Seed.FullName = "a\nroot" },
		"host name":         func(s *compute.Spec) { s.Seed.Hostname = "a b" },
		"zone climbs":       func(s *compute.Spec) { s.Seed.TimeZone = "../../etc/shadow" },
		"bridge":            func(s *compute.Spec) { s.Network.Bridge = "br0,id=x" },
		"tiny screen":       func(s *compute.Spec) { s.Display = compute.Display{Width: 8, Height: 8} },
	} {
		s := e.w.Spec(e.T, "ws-a")
		spoil(&s)
		e.is(e.d.Start(e.ctx, s), compute.ErrInvalidSpec, "Start with "+name)
	}
	if left := e.w.Alive(e.T); len(left) > 0 {
		e.Errorf("after refused starts alive = %v, want none", left)
	}
}

func pauseResumeReset(e *env) {
	e.start("ws-a")
	e.no(e.d.Pause(e.ctx, "ws-a"), "Pause")
	e.event("ws-a", compute.EventPaused)
	e.state("ws-a", compute.StatePaused)
	e.no(e.d.Resume(e.ctx, "ws-a"), "Resume")
	e.event("ws-a", compute.EventResumed)
	before := e.state("ws-a", compute.StateRunning)
	e.no(e.d.Reset(e.ctx, "ws-a"), "Reset")
	e.event("ws-a", compute.EventReset)
	if after := e.state("ws-a", compute.StateRunning); after.PID != before.PID {
		e.Errorf("PID after Reset = %d, want %d as before", after.PID, before.PID)
	}
	e.no(e.d.Pause(e.ctx, "ws-a"), "Pause")
	e.no(e.d.Reset(e.ctx, "ws-a"), "Reset of a paused machine")
	e.state("ws-a", compute.StateRunning)
}

func (e *env) screen(id string) []byte {
	e.Helper()
	b, err := e.d.Screendump(e.ctx, id)
	e.no(err, "Screendump")
	if img, err := png.Decode(bytes.NewReader(b)); err != nil || img.Bounds().Dx() < 640 {
		e.Fatalf("Screendump is no PNG of at least 640 pixels: %v", err)
	}
	return b
}

// settled waits until the screen has stopped changing.
func (e *env) settled(id string) []byte {
	e.Helper()
	last := e.screen(id)
	for same := 0; same < 5; {
		time.Sleep(200 * time.Millisecond)
		if b := e.screen(id); bytes.Equal(b, last) {
			same++
		} else {
			same, last = 0, b
		}
	}
	return last
}

func screenAndKeys(e *env) {
	e.start("ws-a")
	time.Sleep(time.Second) // a guest that boots shows nothing at first
	before := e.settled("ws-a")
	e.no(e.d.TypeText(e.ctx, "ws-a", "hello, World_42\n"), "TypeText")
	e.no(e.d.SendKeys(e.ctx, "ws-a", compute.Chord{compute.KeyShift, "x"}), "SendKeys")
	for _, bad := range []compute.Session{{Width: 7, Height: 7}, {Width: 1280}, {KeyboardLayout: "us\nstatus"}, {KeyboardLayout: "a b"}} {
		e.is(e.d.Arrange(e.ctx, "ws-a", bad), compute.ErrInvalidSpec, "Arrange of a bad wish")
	}
	after := e.settled("ws-a")
	if bytes.Equal(before, after) {
		e.Errorf("the screen did not change by typing")
	}
}

func adoptRunning(e *env) {
	e.start("ws-a")
	before := e.state("ws-a", compute.StateRunning)
	e.no(e.d.Close(), "Close")
	if alive := e.w.Alive(e.T); !slices.Equal(alive, []string{"ws-a"}) {
		e.Fatalf("after Close alive = %v, want ws-a", alive)
	}
	list := e.open()
	if len(list) != 1 || list[0].ID != "ws-a" || list[0].PID != before.PID || list[0].Spec.Seed.UserName != before.Spec.Seed.UserName || !list[0].StartedAt.Equal(before.StartedAt) {
		e.Fatalf("Adopt = %+v, want the machine %+v", list, before)
	}
	e.state("ws-a", compute.StateRunning)
	e.is(e.d.Start(e.ctx, e.w.Spec(e.T, "ws-a")), compute.ErrExists, "Start of an adopted machine")
	e.screen("ws-a")
	e.no(e.d.Reset(e.ctx, "ws-a"), "Reset of an adopted machine")
	e.event("ws-a", compute.EventReset)
	e.no(e.d.Kill(e.ctx, "ws-a"), "Kill of an adopted machine")
	e.event("ws-a", compute.EventExited)
}

func adoptStopped(e *env) {
	e.start("ws-a")
	e.start("ws-b")
	e.no(e.d.Kill(e.ctx, "ws-b"), "Kill")
	stopped := e.state("ws-b", compute.StateStopped)
	e.no(e.d.Close(), "Close")
	e.w.Crash(e.T, "ws-a")
	list := e.open()
	if len(list) != 2 || list[0].State != compute.StateStopped || list[1].State != compute.StateStopped || list[0].Reason == "" || list[1].Reason != stopped.Reason {
		e.Fatalf("Adopt = %+v, want two stopped machines with their reasons", list)
	}
	e.start("ws-a")
	e.state("ws-a", compute.StateRunning)
}

func lostDisk(e *env) {
	e.start("ws-a")
	before := e.state("ws-a", compute.StateRunning)
	time.Sleep(2 * time.Second) // firmware that is still looking for disks gives up on a broken one
	e.w.LoseDisk(e.T, "ws-a", compute.RoleRoot)
	ev := e.event("ws-a", compute.EventBlockError)
	if ev.Disk != compute.RoleRoot {
		e.Errorf("block error on disk %q, want root", ev.Disk)
	}
	if st := e.state("ws-a", compute.StateIOError); st.Reason == "" || st.PID != before.PID {
		e.Errorf("Status with a lost disk = %+v, want a reason and the same process", st)
	}
	e.w.RestoreDisk(e.T, "ws-a", compute.RoleRoot)
	e.event("ws-a", compute.EventResumed)
	if st := e.state("ws-a", compute.StateRunning); st.PID != before.PID || st.Reason != "" {
		e.Errorf("Status with the disk back = %+v, want the same process and no reason", st)
	}
}

func crash(e *env) {
	e.start("ws-a")
	e.w.Crash(e.T, "ws-a")
	e.event("ws-a", compute.EventExited)
	if st := e.state("ws-a", compute.StateStopped); st.Reason == "" {
		e.Errorf("Status after a crash = %+v, want a reason", st)
	}
	e.start("ws-a")
	e.state("ws-a", compute.StateRunning)
}

func remove(e *env) {
	e.start("ws-a")
	st := e.state("ws-a", compute.StateRunning)
	e.no(e.d.Remove(e.ctx, "ws-a"), "Remove of a running machine")
	_, err := e.d.Status(e.ctx, "ws-a")
	e.is(err, compute.ErrNotFound, "Status after Remove")
	if _, err := os.Stat(st.Dir); !errors.Is(err, os.ErrNotExist) {
		e.Errorf("runtime directory %s after Remove: %v, want it gone", st.Dir, err)
	}
	e.no(e.d.Close(), "Close")
	if list := e.open(); len(list) != 0 {
		e.Errorf("Adopt after Remove = %+v, want nothing", list)
	}
}

func cancelledStart(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if err := e.d.Start(ctx, e.w.Spec(e.T, "ws-a")); err == nil {
		e.Errorf("Start with an ended context = nil, want an error")
	}
	if left := e.w.Alive(e.T); len(left) > 0 {
		e.Errorf("after a cancelled Start alive = %v, want none", left)
	}
	e.start("ws-a")
}

func twoMachines(e *env) {
	done := make(chan error, 2)
	for _, id := range []string{"ws-a", "ws-b"} {
		spec := e.w.Spec(e.T, id)
		go func() { done <- e.d.Start(e.ctx, spec) }()
	}
	e.no(<-done, "Start")
	e.no(<-done, "Start")
	list, err := e.d.List(e.ctx)
	e.no(err, "List")
	if len(list) != 2 || list[0].ID != "ws-a" || list[1].ID != "ws-b" || list[0].PID == list[1].PID {
		e.Errorf("List = %+v, want ws-a and ws-b with processes of their own", list)
	}
	e.no(e.d.Kill(e.ctx, "ws-a"), "Kill")
	e.state("ws-b", compute.StateRunning)
}

func closed(e *env) {
	e.no(e.d.Close(), "Close")
	_, err := e.d.Status(e.ctx, "ws-a")
	e.is(err, compute.ErrClosed, "Status")
	e.is(e.d.Start(e.ctx, e.w.Spec(e.T, "ws-a")), compute.ErrClosed, "Start")
	e.is(e.d.Stop(e.ctx, "ws-a", 0), compute.ErrClosed, "Stop")
	_, err = e.d.List(e.ctx)
	e.is(err, compute.ErrClosed, "List")
	for range e.events {
	}
}
