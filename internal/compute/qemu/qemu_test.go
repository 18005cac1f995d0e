package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/compute/computetest"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// needTools skips the test when a program it drives is missing.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (scripts/prerequisites installs it): %v", tool, err)
		}
	}
}

// bootSector is a guest of 512 bytes. It greets, then reads its disk for ever, shows what is typed, and shows '!' for a failed read.
//
//	7c00  xor ax,ax / mov ds,ax / mov es,ax / mov ss,ax / mov sp,7c00 / sti / cld
//	7c0c  mov [7d00],dl                      drive the firmware booted from
//	7c10  mov ax,0003 / int 10               text screen
//	      mov ah,01 / mov cx,2000 / int 10   without the blinking cursor
//	7c1c  mov si,text
//	7c1f  lodsb / or al,al / jz +6 / mov ah,0e / int 10 / jmp 7c1f
//	7c2a  mov ah,01 / int 16 / jz +8         key waiting?
//	7c30  mov ah,00 / int 16 / mov ah,0e / int 10
//	7c38  mov si,dap / mov ah,42 / mov dl,[7d00] / int 13 / jnc +6   read sector 8
//	7c45  mov al,'!' / mov ah,0e / int 10
//	7c4b  hlt / jmp 7c2a
func bootSector() []byte {
	code := []byte{
		0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc,
		0x88, 0x16, 0x00, 0x7d,
		0xb8, 0x03, 0x00, 0xcd, 0x10, 0xb4, 0x01, 0xb9, 0x00, 0x20, 0xcd, 0x10,
		0xbe, 0x80, 0x7c,
		0xac, 0x08, 0xc0, 0x74, 0x06, 0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf5,
		0xb4, 0x01, 0xcd, 0x16, 0x74, 0x08,
		0xb4, 0x00, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10,
		0xbe, 0xd0, 0x7c, 0xb4, 0x42, 0x8a, 0x16, 0x00, 0x7d, 0xcd, 0x13, 0x73, 0x06,
		0xb0, '!', 0xb4, 0x0e, 0xcd, 0x10,
		0xf4, 0xeb, 0xdc,
	}
	s := make([]byte, 512)
	copy(s, code)
	copy(s[0x80:], "Sealdesk test guest\r\n\x00")
	copy(s[0xd0:], []byte{0x10, 0, 1, 0, 0x00, 0x80, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}) // disk address packet: 1 sector, to 0:8000, from LBA 8
	s[510], s[511] = 0x55, 0xaa
	return s
}

// world is a directory with disks served by nbdkit.
type world struct {
	dir string // runtime directory of machines
	tmp string

	mu   sync.Mutex
	nbd  map[string]*exec.Cmd // by ID and role
	args map[string][]string
}

func newWorld(t *testing.T) *world {
	needTools(t, "qemu-system-x86_64", "nbdkit")
	tmp, err := os.MkdirTemp("", "sd") // short: nbdkit needs socket paths of at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(tmp, "run"), tmp: tmp, nbd: map[string]*exec.Cmd{}, args: map[string][]string{}}
	t.Cleanup(func() {
		w.mu.Lock()
		for _, c := range w.nbd {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		w.mu.Unlock()
		os.RemoveAll(tmp)
	})
	return w
}

func (w *world) options() Options {
	return Options{Dir: w.dir, Accelerator: accelTCG, ReconnectDelay: time.Second, Log: slog.New(slog.DiscardHandler)}
}

func (w *world) New(t *testing.T) compute.Driver {
	d, err := New(w.options())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) key(id string, role compute.DiskRole) string { return id + "-" + string(role) }

// serve starts nbdkit for a disk that was served before, or for a new one of the given content.
func (w *world) serve(t *testing.T, key string) {
	t.Helper()
	sock := filepath.Join(w.tmp, key+".sock")
	_ = os.Remove(sock)
	c := exec.Command("nbdkit", append([]string{"-f", "-U", sock}, w.args[key]...)...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.nbd[key] = c
	for range 500 {
		if conn, err := compute.Dial(context.Background(), sock); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nbdkit does not serve %s", sock)
}

func (w *world) Spec(t *testing.T, id string) compute.Spec {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, role := range []compute.DiskRole{compute.RoleRoot, compute.RoleUser} {
		key := w.key(id, role)
		if w.nbd[key] != nil {
			continue
		}
		disk := filepath.Join(w.tmp, key+".raw")
		var content []byte
		if role == compute.RoleRoot {
			content = bootSector()
		}
		if err := os.WriteFile(disk, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, 1<<20); err != nil {
			t.Fatal(err)
		}
		w.args[key] = []string{"file", disk}
		w.serve(t, key)
	}
	return compute.Spec{ID: id, VCPUs: 1, MemoryMiB: 64,
		Seed: compute.Seed{UserName: "alice", FullName: "Alice Example", PasswordHash: secret.New([]byte("$6$salt$SecretHashOfAlice"))},
		Disks: []compute.Disk{{Role: compute.RoleRoot, Socket: filepath.Join(w.tmp, w.key(id, compute.RoleRoot)+".sock")},
			{Role: compute.RoleUser, Socket: filepath.Join(w.tmp, w.key(id, compute.RoleUser)+".sock")}}}
}

func (w *world) LoseDisk(_ *testing.T, id string, role compute.DiskRole) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.nbd[w.key(id, role)]
	_ = c.Process.Kill()
	_ = c.Wait()
}

func (w *world) RestoreDisk(t *testing.T, id string, role compute.DiskRole) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve(t, w.key(id, role))
}

func (w *world) Crash(t *testing.T, id string) {
	p, err := findProcess(id, filepath.Join(w.dir, id))
	if err != nil {
		t.Fatalf("find the process of %s: %v", id, err)
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
}

// Alive looks at all processes, not at pid files.
func (w *world) Alive(t *testing.T) []string {
	dirs, err := os.ReadDir(w.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range dirs {
		if p, err := findProcess(e.Name(), filepath.Join(w.dir, e.Name())); err == nil {
			out = append(out, e.Name())
			_ = p
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines; not with -short")
	}
	computetest.Run(t, func(t *testing.T) computetest.World { return newWorld(t) })
}

// TestNothingSecretIsLeft looks where a secret must not be: arguments, environment, files. It also checks what QEMU may do.
func TestNothingSecretIsLeft(t *testing.T) {
	w := newWorld(t)
	d := w.New(t)
	defer d.Close()
	ctx := context.Background()
	if err := d.Start(ctx, w.Spec(t, "ws-a")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Remove(ctx, "ws-a") }()
	st, err := d.Status(ctx, "ws-a")
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strconv.Itoa(st.PID)
	looked := 0
	check := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		looked++
		if bytes.Contains(b, []byte("SecretHashOfAlice")) {
			t.Errorf("%s holds the password hash", path)
		}
	}
	check(proc + "/cmdline")
	check(proc + "/environ")
	_ = filepath.WalkDir(st.Dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			check(p)
		}
		return nil
	})
	if looked < 5 {
		t.Errorf("only %d places looked at", looked)
	}
	var core unix.Rlimit
	if err := unix.Prlimit(st.PID, unix.RLIMIT_CORE, nil, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		t.Errorf("core limit of QEMU = %+v, %v; want 0", core, err)
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil || !strings.Contains(string(status), "Seccomp:\t2") {
		t.Errorf("QEMU runs without its seccomp sandbox (%v)", err)
	}
	if sid, err := unix.Getsid(st.PID); err != nil || sid != st.PID {
		t.Errorf("session of QEMU = %d, %v; want its own, %d", sid, err, st.PID)
	}
	if tcp, err := os.ReadFile(proc + "/net/tcp"); err == nil {
		fds, _ := filepath.Glob(proc + "/fd/*")
		for _, fd := range fds {
			link, _ := os.Readlink(fd)
			if ino, ok := strings.CutPrefix(link, "socket:["); ok && strings.Contains(string(tcp), " "+strings.TrimSuffix(ino, "]")+" ") {
				t.Errorf("QEMU holds a TCP socket %s", link)
			}
		}
	}
	if fi, err := os.Stat(st.Dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("runtime directory has mode %v, %v; want 0700", fi.Mode(), err)
	}
}

// TestLongDirectory runs a machine in a directory whose sockets have paths longer than a socket address.
func TestLongDirectory(t *testing.T) {
	w := newWorld(t)
	w.dir = filepath.Join(w.tmp, strings.Repeat("long", 30), strings.Repeat("way", 20))
	d := w.New(t)
	defer d.Close()
	ctx := context.Background()
	if err := d.Start(ctx, w.Spec(t, "ws-a")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Remove(ctx, "ws-a") }()
	vnc, err := d.VNCSocket(ctx, "ws-a")
	if err != nil {
		t.Fatal(err)
	}
	c, err := compute.Dial(ctx, vnc)
	if err != nil {
		t.Fatalf("Dial(%d bytes of path) = %v", len(vnc), err)
	}
	defer c.Close()
	hello := make([]byte, 12)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(hello); err != nil || !strings.HasPrefix(string(hello), "RFB 003.") {
		t.Errorf("VNC greeting = %q, %v; want RFB 003.x", hello, err)
	}
}

func TestStartWithoutDisk(t *testing.T) {
	w := newWorld(t)
	d := w.New(t)
	defer d.Close()
	spec := w.Spec(t, "ws-a")
	w.LoseDisk(t, "ws-a", compute.RoleUser)
	err := d.Start(context.Background(), spec)
	if err == nil || !strings.Contains(err.Error(), "user disk is not served") {
		t.Errorf("Start without the user disk = %v, want an error that names it", err)
	}
	if left := w.Alive(t); len(left) > 0 {
		t.Errorf("alive = %v, want none", left)
	}
}

// TestForeignProcess: what is not the machine is not touched, whatever the pid file says.
func TestForeignProcess(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "ws-a")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "600")
	sleep.Dir = dir
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	if err := os.WriteFile(filepath.Join(dir, "qemu.pid"), []byte(strconv.Itoa(sleep.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(dir, record{Version: 1, Spec: w.Spec(t, "ws-a")}); err != nil {
		t.Fatal(err)
	}
	d := w.New(t)
	defer d.Close()
	list, err := d.Adopt(context.Background())
	if err != nil || len(list) != 1 || list[0].State != compute.StateStopped {
		t.Errorf("Adopt = %+v, %v; want one stopped machine", list, err)
	}
	if err := d.Remove(context.Background(), "ws-a"); err != nil {
		t.Error(err)
	}
	if err := sleep.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the foreign process was ended: %v", err)
	}
}

func TestOneDriverADirectory(t *testing.T) {
	w := newWorld(t)
	d := w.New(t)
	defer d.Close()
	if _, err := New(w.options()); err == nil || !strings.Contains(err.Error(), "another control plane") {
		t.Errorf("second New = %v, want that another control plane runs", err)
	}
}

func TestArguments(t *testing.T) {
	s := compute.Spec{ID: "ws-a", VCPUs: 2, MemoryMiB: 2048, Seed: compute.Seed{UserName: "alice"},
		Disks: []compute.Disk{{Role: compute.RoleRoot, Socket: "/x/root.sock", Export: "vol-1"}}}.WithDefaults()
	got := strings.Join(arguments(s, accelTCG, 30*time.Second), " ")
	for _, want := range []string{"-nodefaults", "-no-user-config", "-sandbox on,", "restrict=on", "-vnc unix:vnc.sock", "dump-guest-core=off",
		`"export":"vol-1"`, `"reconnect-delay":30`, `"discard":"unmap"`, `"detect-zeroes":"unmap"`, "werror=stop,rerror=stop", "-accel tcg,thread=multi", "serial=root"} {
		if !strings.Contains(got, want) {
			t.Errorf("arguments %s\nlack %q", got, want)
		}
	}
	s.Network.Bridge = "br-desk"
	if got := strings.Join(arguments(s, accelKVM, time.Second), " "); !strings.Contains(got, "bridge,id=net,br=br-desk") || !strings.Contains(got, "-accel kvm") {
		t.Errorf("arguments %s\nlack the bridge or KVM", got)
	}
}

func TestSeedReachesGuestMemoryOnly(t *testing.T) {
	s := compute.Spec{ID: "ws-a", Seed: compute.Seed{UserName: "alice", PasswordHash: secret.New([]byte("$6$a$b"))}}.WithDefaults()
	f, err := seedMemory(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !bytes.Contains(b, []byte(`"password_hash": "$6$a$b"`)) {
		t.Errorf("seed in memory = %q, %v", b, err)
	}
}
