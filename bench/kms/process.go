package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	addr string
	dir  string
}

// start runs argv until it prints its URL.
func start(dir string, env []string, argv ...string) (*process, error) {
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), dir: dir}
	p.cmd.Env = append(os.Environ(), env...)
	logged, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer logged.Close()
	p.cmd.Stderr = logged
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, addr, ok := strings.Cut(lines.Text(), "http://"); ok {
			p.addr = addr
			go io.Copy(io.Discard, out)
			return p, nil
		}
	}
	p.stop()
	text, _ := os.ReadFile(filepath.Join(dir, "log"))
	return nil, fmt.Errorf("%s did not start: %s", argv[0], text)
}

// stop ends the process and the volumed that it started, which would outlive it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	c := volumed.Client{Socket: filepath.Join(p.dir, "run", "volumed.sock")}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if i, err := c.Ping(ctx); err == nil {
		_ = syscall.Kill(i.PID, syscall.SIGTERM)
	}
}

// cpu is the CPU time that the process has used, in steps of 10 ms.
func (p *process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory is the resident size now, in MiB.
func (p *process) memory() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n >> 10
		}
	}
	return 0
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serveNothing is the yardstick: net/http with a handler that reads the body and
// answers 200.
func serveNothing() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	return http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
}

// syncTime is the median time of an fdatasync after an append of a record's size.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.OpenFile(filepath.Join(dir, "sync"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	took := make([]time.Duration, 301)
	for i := range took {
		from := time.Now()
		if _, err := f.Write(make([]byte, 1200)); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took[i] = time.Since(from)
	}
	return median(took), nil
}

func sorted[T int | float64 | time.Duration](lists [][]T) []T {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return all
}

func median[T int | float64 | time.Duration](list []T) T {
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}
