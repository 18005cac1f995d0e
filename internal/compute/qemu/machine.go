package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// maxSerialLog is how long serial.log may grow, bytes: a guest writes there as much as it likes.
const maxSerialLog = 4 << 20

// machine is one machine, alive or stopped.
type machine struct {
	d   *Driver
	id  string
	dir string
	op  chan struct{} // held while the machine is started or ended

	mu    sync.Mutex
	rec   record
	state compute.State
	cause string // why it is in this state
	proc  *process
	qmp   *monitor
	qmpUp chan struct{} // closed when qmp is set
	ended chan struct{} // closed when the end of proc is recorded

	wish            string // why it is being ended, by us
	stopping        bool
	pausedByRequest bool
	said            string // why it ends, as QEMU said
	ready           bool
	readyAt         time.Time
	detail          string
	agent           net.Conn
	boot, oldBoot   string // the guest's boot id now, and the one before the last reset
}

func (m *machine) begin(ctx context.Context) error {
	select {
	case m.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("machine %s is being started or stopped: %w", m.id, ctx.Err())
	}
}

func (m *machine) end() { <-m.op }

// process returns the living process, or nil.
func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) emit(kind compute.EventKind, at time.Time, disk compute.DiskRole, detail string) {
	m.d.o.Log.Info("machine event", "machine", m.id, "event", string(kind), "disk", string(disk), "detail", detail)
	m.d.events.Send(compute.Event{Machine: m.id, Kind: kind, Time: at, Disk: disk, Detail: detail})
}

// start launches QEMU and waits until its processors run. The caller holds m.op.
func (m *machine) start(ctx context.Context, spec compute.Spec, accel string) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	// A process that an unfinished start of an earlier driver left is the only thing that could be here.
	if p, err := findProcess(m.id, m.dir); err == nil {
		if err := p.kill(); err != nil {
			return fmt.Errorf("end a leftover process: %w", err)
		}
	}
	for _, name := range []string{"qemu.pid", "qmp.sock", "vnc.sock", "agent.sock", "serial.log", "qemu.log", nbdName(compute.RoleRoot), nbdName(compute.RoleUser), vhostName(compute.RoleRoot), vhostName(compute.RoleUser)} {
		if err := os.Remove(m.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clean the runtime directory: %w", err)
		}
	}
	spec.Disks = slices.Clone(spec.Disks)
	for i, disk := range spec.Disks {
		c, err := compute.Dial(ctx, disk.Socket)
		if err != nil {
			return fmt.Errorf("the %s disk is not served: %w", disk.Role, err)
		}
		c.Close()
		if err := os.Symlink(disk.Socket, m.path(nbdName(disk.Role))); err != nil {
			return fmt.Errorf("link the %s disk: %w", disk.Role, err)
		}
		if disk.Vhost == "" {
			continue
		}
		if st, err := os.Stat(disk.Vhost); err != nil || st.Mode()&os.ModeSocket == 0 || !m.d.vhost() {
			spec.Disks[i].Vhost = "" // a server or a QEMU that does not know it
		} else if err := os.Symlink(disk.Vhost, m.path(vhostName(disk.Role))); err != nil {
			return fmt.Errorf("link the %s disk: %w", disk.Role, err)
		}
	}
	seed, err := seedMemory(spec)
	if err != nil {
		return err
	}
	defer seed.Close()
	spec.Seed.PasswordHash = nil
	rec := record{Version: 1, Spec: spec, Accelerator: accel, StartedAt: time.Now().UTC().Truncate(time.Millisecond)}
	if err := writeRecord(m.dir, rec); err != nil {
		return err
	}
	logFile, err := os.OpenFile(m.path("qemu.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make the log of QEMU: %w", err)
	}
	defer logFile.Close()

	cmd := exec.Command(m.d.binary, arguments(spec, accel, m.d.o.ReconnectDelay)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, logFile, logFile
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TMPDIR=" + m.dir}
	cmd.ExtraFiles = []*os.File{seed} // descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run QEMU: %w", err)
	}
	go func() { _ = cmd.Wait() }() // takes its exit status, so that no zombie stays
	zero := unix.Rlimit{}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CORE, &zero, nil); err != nil && !errors.Is(err, unix.ESRCH) {
		_ = cmd.Process.Kill()
		return fmt.Errorf("turn off core dumps of QEMU: %w", err)
	}
	proc, err := m.openChild(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	m.supervise(rec, proc)

	fail := func(err error) error {
		m.mu.Lock()
		m.wish = "start did not succeed: " + err.Error()
		ended := m.ended
		m.mu.Unlock()
		if kerr := proc.kill(); kerr != nil {
			return errors.Join(err, kerr)
		}
		<-ended
		return err
	}
	wait, cancel := context.WithTimeout(ctx, m.d.o.StartTimeout)
	defer cancel()
	q, err := m.monitor(wait)
	if err != nil {
		if !proc.alive() {
			return fail(fmt.Errorf("QEMU ended: %s", m.logTail()))
		}
		return fail(fmt.Errorf("QEMU does not answer: %w", err))
	}
	for {
		var st struct {
			Status string `json:"status"`
		}
		if err := q.query(wait, "query-status", &st); err != nil {
			return fail(err)
		}
		if st.Status != "prelaunch" && st.Status != "inmigrate" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.mu.Lock()
	if m.state == compute.StateStarting {
		m.state = compute.StateRunning
	}
	m.mu.Unlock()
	m.emit(compute.EventStarted, time.Now().UTC(), "", accel)
	return nil
}

// openChild opens the process just started. For a moment after exec its arguments are not yet to be seen.
func (m *machine) openChild(pid int) (*process, error) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		proc, err := openProcess(pid, m.id, m.dir)
		if err == nil {
			return proc, nil
		}
		if _, gone := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); gone != nil {
			return nil, fmt.Errorf("QEMU ended at once: %s", m.logTail())
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// seedMemory is the seed in memory that has no name (memfd_create(2)).
func seedMemory(spec compute.Spec) (*os.File, error) {
	file := compute.SeedFile(spec)
	defer file.Wipe()
	fd, err := unix.MemfdCreate("seed", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory for the seed: %w", err)
	}
	f := os.NewFile(uintptr(fd), "seed")
	if _, err := f.WriteAt(file.Expose(), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the seed: %w", err)
	}
	return f, nil
}

// logTail is the end of qemu.log, for error messages.
func (m *machine) logTail() string {
	b, err := os.ReadFile(m.path("qemu.log"))
	if err != nil || len(b) == 0 {
		return "it wrote no reason to qemu.log"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// supervise takes charge of a living process.
func (m *machine) supervise(rec record, proc *process) {
	m.mu.Lock()
	m.rec, m.proc, m.qmp, m.qmpUp, m.ended = rec, proc, nil, make(chan struct{}), make(chan struct{})
	m.state, m.cause, m.wish, m.said, m.stopping, m.pausedByRequest = compute.StateStarting, "", "", "", false, false
	m.ready, m.readyAt, m.detail, m.boot, m.oldBoot = false, time.Time{}, "", "", ""
	m.mu.Unlock()
	m.d.loops.Go(func() { m.watchEnd(proc) })
	m.d.loops.Go(func() { m.keepMonitor(proc) })
	m.d.loops.Go(func() { m.keepAgent(proc) })
}

// adopt takes charge of what an earlier driver left.
func (m *machine) adopt(rec record) {
	if proc, err := findProcess(m.id, m.dir); err == nil {
		m.d.o.Log.Info("machine adopted", "machine", m.id, "pid", proc.pid)
		m.supervise(rec, proc)
		return
	}
	if rec.Stopped == "" {
		rec.Stopped = "the process ended while no control plane was running"
	}
	m.mu.Lock()
	m.rec, m.state, m.cause = rec, compute.StateStopped, rec.Stopped
	m.mu.Unlock()
}

// letGo ends the connections, not the machine.
func (m *machine) letGo() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qmp != nil {
		m.qmp.close()
	}
}

// watchEnd records the end of the process.
func (m *machine) watchEnd(proc *process) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-proc.gone:
			m.mu.Lock()
			switch {
			case m.wish != "":
				m.cause = m.wish
			case m.said != "":
				m.cause = m.said
			default:
				m.cause = "the process ended unexpectedly: " + m.logTail()
			}
			m.state, m.proc, m.ready = compute.StateStopped, nil, false
			m.rec.Stopped = m.cause
			rec, cause, ended := m.rec, m.cause, m.ended
			m.mu.Unlock()
			if err := writeRecord(m.dir, rec); err != nil && !errors.Is(err, os.ErrNotExist) {
				m.d.o.Log.Warn("end of machine not recorded", "machine", m.id, "err", err)
			}
			m.emit(compute.EventExited, time.Now().UTC(), "", cause)
			close(ended)
			return
		case <-m.d.ctx.Done():
			return
		case <-tick.C:
			if st, err := os.Stat(m.path("serial.log")); err == nil && st.Size() > maxSerialLog {
				_ = os.Truncate(m.path("serial.log"), 0) // QEMU appends, so it goes on at the start
			}
		}
	}
}

// pause waits a little; false when there is nothing to wait for any more.
func (m *machine) pause(proc *process, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-proc.gone:
	case <-m.d.ctx.Done():
	}
	return false
}

// keepMonitor holds the connection to QMP as long as the process lives.
func (m *machine) keepMonitor(proc *process) {
	for m.pause(proc, 20*time.Millisecond) {
		ctx, cancel := context.WithTimeout(m.d.ctx, 10*time.Second)
		conn, err := compute.Dial(ctx, m.path("qmp.sock"))
		if err != nil {
			cancel()
			continue
		}
		q, err := newMonitor(ctx, conn, func(msg message) { m.onEvent(proc, msg) })
		cancel()
		if err != nil {
			conn.Close()
			m.d.o.Log.Debug("monitor not reached", "machine", m.id, "err", err)
			m.pause(proc, 200*time.Millisecond)
			continue
		}
		m.mu.Lock()
		m.qmp = q
		close(m.qmpUp)
		m.mu.Unlock()
		ctx, cancel = context.WithTimeout(m.d.ctx, 10*time.Second)
		m.refresh(ctx, q)
		cancel()
		if m.current() == compute.StateIOError {
			m.d.loops.Go(func() { m.recover(proc) })
		}
		select {
		case <-q.done:
		case <-m.d.ctx.Done():
			q.close()
			<-q.done
		}
		m.mu.Lock()
		m.qmp, m.qmpUp = nil, make(chan struct{})
		m.mu.Unlock()
	}
}

// monitor waits for the connection to QMP.
func (m *machine) monitor(ctx context.Context) (*monitor, error) {
	for {
		m.mu.Lock()
		q, up, proc, cause := m.qmp, m.qmpUp, m.proc, m.cause
		m.mu.Unlock()
		if proc == nil {
			return nil, fmt.Errorf("%w: %s", compute.ErrNotRunning, cause)
		}
		if q != nil {
			return q, nil
		}
		select {
		case <-up:
		case <-proc.gone:
			return nil, compute.ErrNotRunning
		case <-m.d.ctx.Done():
			return nil, compute.ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("QEMU's monitor does not answer: %w", ctx.Err())
		}
	}
}

func (m *machine) current() compute.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// refresh asks QEMU for the run state (QMP reference, "RunState").
func (m *machine) refresh(ctx context.Context, q *monitor) {
	var st struct {
		Status string `json:"status"`
	}
	if err := q.query(ctx, "query-status", &st); err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc == nil {
		return
	}
	switch st.Status {
	case "running":
		m.state, m.cause = compute.StateRunning, ""
		if m.stopping {
			m.state = compute.StateStopping
		}
	case "io-error":
		m.state = compute.StateIOError
		if m.cause == "" {
			m.cause = "a disk failed"
		}
	case "paused":
		m.state, m.cause = compute.StatePaused, "paused by request"
	case "guest-panicked":
		m.state, m.cause = compute.StatePanicked, "the guest's kernel panicked"
	case "internal-error":
		m.state, m.cause = compute.StatePanicked, "QEMU stopped the guest after an internal error"
	case "shutdown":
		m.state, m.cause = compute.StateStopping, "the guest is powered off"
	case "prelaunch", "inmigrate":
		m.state = compute.StateStarting
	}
}

// onEvent acts on an event of QMP (QMP reference, "Run state control", "Block devices").
func (m *machine) onEvent(proc *process, msg message) {
	var data struct {
		Guest     bool   `json:"guest"`
		Reason    string `json:"reason"`
		Node      string `json:"node-name"`
		Operation string `json:"operation"`
		Action    string `json:"action"`
		NoSpace   bool   `json:"nospace"`
	}
	_ = json.Unmarshal(msg.Data, &data) // an event without these fields has none of them
	at := msg.when()
	m.mu.Lock()
	var kind compute.EventKind
	var disk compute.DiskRole
	detail := data.Reason
	switch msg.Event {
	case "SHUTDOWN":
		kind = compute.EventShutdown
		m.state = compute.StateStopping
		m.said = "the guest powered off"
		if !data.Guest {
			m.said = "QEMU was told to quit (" + data.Reason + ")"
		}
	case "RESET":
		kind = compute.EventReset
		m.forgetGuestLocked()
	case "STOP":
		kind = compute.EventPaused
		if m.state == compute.StateRunning {
			m.state = compute.StatePaused
			if m.pausedByRequest {
				m.cause = "paused by request"
			}
		}
	case "RESUME":
		kind = compute.EventResumed
		m.state, m.cause = compute.StateRunning, ""
		if m.stopping {
			m.state = compute.StateStopping
		}
	case "GUEST_PANICKED":
		kind = compute.EventPanic
		m.state, m.cause = compute.StatePanicked, "the guest's kernel panicked"
	case "BLOCK_IO_ERROR":
		kind, disk = compute.EventBlockError, compute.DiskRole(data.Node)
		detail = fmt.Sprintf("%s: %s", data.Operation, data.Reason)
		if data.Action == "stop" {
			first := m.state != compute.StateIOError
			m.state, m.cause = compute.StateIOError, fmt.Sprintf("the %s disk failed (%s); the machine goes on when it is served again", data.Node, detail)
			if !first { // one disk, many requests: told once
				kind = ""
			} else {
				m.d.loops.Go(func() { m.recover(proc) })
			}
		}
	}
	m.mu.Unlock()
	if kind != "" {
		m.emit(kind, at, disk, detail)
	}
}

// recover lets a machine go on whose disk had failed, as soon as all its disks accept connections. Requests that failed are
// sent again by QEMU; when they fail again, it starts over.
func (m *machine) recover(proc *process) {
	wait := 500 * time.Millisecond
	for m.pause(proc, wait) {
		wait = min(2*wait, 5*time.Second)
		if m.current() != compute.StateIOError {
			return
		}
		ctx, cancel := context.WithTimeout(m.d.ctx, 5*time.Second)
		served := true
		for _, disk := range m.spec().Disks {
			c, err := compute.Dial(ctx, disk.Socket)
			if err != nil {
				served = false
				break
			}
			c.Close()
		}
		if served {
			if q, err := m.monitor(ctx); err == nil {
				m.mu.Lock()
				ours := m.state == compute.StateIOError && !m.pausedByRequest && m.wish == ""
				m.mu.Unlock()
				if ours {
					_, err = q.do(ctx, "cont", nil)
				}
				if err != nil {
					m.d.o.Log.Warn("machine not resumed", "machine", m.id, "err", err)
				}
			}
		}
		cancel()
	}
}

func (m *machine) spec() compute.Spec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec.Spec
}

// forgetGuest makes the guest not ready until it reports a new boot.
func (m *machine) forgetGuest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetGuestLocked()
}

func (m *machine) forgetGuestLocked() {
	if m.boot != "" {
		m.oldBoot = m.boot
	}
	m.ready, m.readyAt, m.detail, m.boot = false, time.Time{}, "", ""
}

// keepAgent holds the connection to the agent channel.
func (m *machine) keepAgent(proc *process) {
	for m.pause(proc, 100*time.Millisecond) {
		conn, err := compute.Dial(m.d.ctx, m.path("agent.sock"))
		if err != nil {
			continue
		}
		stop := context.AfterFunc(m.d.ctx, func() { conn.Close() })
		m.mu.Lock()
		m.agent = conn
		m.mu.Unlock()
		_, err = io.WriteString(conn, "status\n")
		r := bufio.NewReaderSize(conn, 4096)
		skip := false
		for err == nil {
			var line []byte
			line, err = r.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				skip, err = true, nil // an overlong line is no message
				continue
			}
			if err == nil && !skip {
				m.onAgent(line)
			}
			skip = false
		}
		stop()
		m.mu.Lock()
		m.agent = nil
		m.mu.Unlock()
		conn.Close()
		m.pause(proc, 500*time.Millisecond)
	}
}

// agentMessage is what a guest says (package doc of compute). The guest is not trusted: every field is for showing only, but
// for the state, which the guest could always lie about.
type agentMessage struct {
	V        int    `json:"v"`
	State    string `json:"state"`
	Boot     string `json:"boot"`
	UptimeMS int64  `json:"uptime_ms"`
	Detail   string `json:"detail"`
}

// parseAgent reads one line of the agent channel.
func parseAgent(line []byte) (agentMessage, error) {
	var a agentMessage
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("parse agent message: %w", err)
	}
	if a.V != 1 {
		return a, fmt.Errorf("agent message has version %d, want 1", a.V)
	}
	a.Detail = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, a.Detail)
	if len(a.Detail) > 1024 || len(a.Boot) > 64 {
		return a, errors.New("agent message has an overlong field")
	}
	return a, nil
}

func (m *machine) onAgent(line []byte) {
	a, err := parseAgent(line)
	if err != nil {
		m.d.o.Log.Debug("agent message ignored", "machine", m.id, "err", err)
		return
	}
	m.mu.Lock()
	if a.Boot != "" && a.Boot == m.oldBoot { // said before the reset
		m.mu.Unlock()
		return
	}
	if m.boot != "" && a.Boot != m.boot {
		m.forgetGuestLocked()
	}
	m.boot = a.Boot
	var kind compute.EventKind
	switch {
	case a.State == "desktop-ready" && !m.ready:
		kind = compute.EventGuestReady
		m.ready, m.readyAt, m.detail = true, time.Now().UTC().Truncate(time.Millisecond), a.Detail
	case a.State == "failed" && m.detail != a.Detail:
		kind = compute.EventGuestFailed
		m.detail = a.Detail
	}
	m.mu.Unlock()
	if kind != "" {
		m.emit(kind, time.Now().UTC(), "", a.Detail)
	}
}

// status asks QEMU, and tells what is known when it does not answer.
func (m *machine) status(ctx context.Context) compute.Status {
	if m.process() != nil {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		if q, err := m.monitor(ask); err == nil {
			m.refresh(ask, q)
		}
		cancel()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := compute.Status{ID: m.id, State: m.state, Reason: m.cause, Spec: m.rec.Spec, Dir: m.dir, Accelerator: m.rec.Accelerator,
		StartedAt: m.rec.StartedAt, GuestReady: m.ready, GuestReadyAt: m.readyAt, GuestDetail: m.detail}
	if m.proc != nil {
		s.PID, s.MemoryRSSByte = m.proc.pid, residentBytes(m.proc.pid)
	}
	return s
}

// stop ends the machine gracefully if it can. The caller holds m.op.
func (m *machine) stop(ctx context.Context, grace time.Duration) error {
	m.mu.Lock()
	proc, ended, state := m.proc, m.ended, m.state
	if proc == nil {
		m.mu.Unlock()
		return nil
	}
	m.stopping = true
	m.mu.Unlock()
	deadline := time.Now().Add(grace)
	reason := ""
	if state == compute.StateIOError || state == compute.StatePanicked {
		reason = "stopped by request without the guest's help: it was in state " + string(state)
	}
	for again := time.Duration(0); reason == ""; again = min(5*time.Second, time.Until(deadline)) {
		select {
		case <-proc.gone:
			<-ended
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for the guest to power off: %w", ctx.Err())
		case <-time.After(again):
		}
		if !time.Now().Before(deadline) {
			reason = fmt.Sprintf("the guest did not power off within %v; its power was taken away", grace)
			break
		}
		ask, cancel := context.WithTimeout(ctx, 3*time.Second)
		if q, err := m.monitor(ask); err == nil {
			if m.current() == compute.StatePaused {
				_, _ = q.do(ask, "cont", nil)
			}
			// The button is pressed again every few seconds: a guest that is still booting does not see the first time.
			_, _ = q.do(ask, "system_powerdown", nil)
		}
		cancel()
	}
	return m.kill(reason)
}

// kill ends the process: by QEMU's own quit, which writes back what it holds, and if that takes too long, by force. The caller holds m.op.
func (m *machine) kill(reason string) error {
	m.mu.Lock()
	proc, ended := m.proc, m.ended
	if proc == nil {
		m.mu.Unlock()
		return nil
	}
	m.wish = reason
	q := m.qmp
	healthy := m.state == compute.StateRunning || m.state == compute.StatePaused || m.state == compute.StateStopping
	m.mu.Unlock()
	if q != nil && healthy {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if _, err := q.do(ctx, "quit", nil); err == nil {
			select {
			case <-proc.gone:
			case <-ctx.Done():
			}
		}
		cancel()
	}
	if err := proc.kill(); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-m.d.ctx.Done():
		return compute.ErrClosed
	}
}
