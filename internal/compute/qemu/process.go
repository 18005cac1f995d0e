package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// process is a QEMU process that is certainly ours: its descriptor was opened before it was recognised, so that a number used
// again by the kernel can never be taken for it.
type process struct {
	pid  int
	gone chan struct{} // closed when it has ended

	mu sync.Mutex
	fd int // pidfd, -1 once it has ended
}

// errNotOurs says that a process is not the machine looked for, or that there is none.
var errNotOurs = errors.New("no process of this machine")

// openProcess returns the process with number pid if it runs the machine id in dir.
func openProcess(pid int, id, dir string) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: open process %d: %v", errNotOurs, pid, err)
	}
	if err := recognise(pid, id, dir); err != nil {
		unix.Close(fd)
		return nil, err
	}
	p := &process{pid: pid, fd: fd, gone: make(chan struct{})}
	go p.watch()
	return p, nil
}

// recognise says whether process pid runs machine id in dir, by the rules of the package doc.
func recognise(pid int, id, dir string) error {
	proc := "/proc/" + strconv.Itoa(pid)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("%w: %v", errNotOurs, err)
	}
	cwd, err := os.Readlink(proc + "/cwd")
	if err != nil {
		return fmt.Errorf("%w: %v", errNotOurs, err)
	}
	exe, err := os.Readlink(proc + "/exe")
	if err != nil {
		return fmt.Errorf("%w: %v", errNotOurs, err)
	}
	args, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return fmt.Errorf("%w: %v", errNotOurs, err)
	}
	named := false
	for _, a := range bytes.Split(args, []byte{0}) {
		named = named || string(a) == guestName(id)
	}
	if cwd != real || !strings.HasPrefix(filepath.Base(exe), "qemu-system-") || !named {
		return fmt.Errorf("%w: process %d is %s in %s", errNotOurs, pid, exe, cwd)
	}
	return nil
}

// findProcess looks for the process of machine id: by its pid file, or, when its starter died before QEMU wrote that, among all processes.
func findProcess(id, dir string) (*process, error) {
	if b, err := os.ReadFile(filepath.Join(dir, "qemu.pid")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
			if p, err := openProcess(pid, id, dir); err == nil {
				return p, nil
			}
		}
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err == nil && recognise(pid, id, dir) == nil {
			return openProcess(pid, id, dir)
		}
	}
	return nil, errNotOurs
}

// watch waits for the end of the process; a pidfd becomes readable then (pidfd_open(2)).
func (p *process) watch() {
	fd := p.fd
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		if n > 0 {
			break
		}
	}
	p.mu.Lock()
	unix.Close(fd)
	p.fd = -1
	p.mu.Unlock()
	close(p.gone)
}

// signal sends sig to exactly this process, if it still is.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// kill ends the process and waits for that.
func (p *process) kill() error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("process %d does not end after SIGKILL; it hangs in the kernel", p.pid)
	}
}

func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// residentBytes is the process's resident memory, 0 if unknown.
func residentBytes(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}
