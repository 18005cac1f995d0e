package qemu

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// desktopImage is the built desktop image, or the test is skipped.
func desktopImage(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a desktop, which takes minutes; not with -short")
	}
	image := os.Getenv("SEALDESK_DESKTOP_IMAGE")
	if image == "" {
		image = "../../../build/images/desktop.raw"
	}
	image, err := filepath.EvalSymlinks(image)
	if err != nil {
		t.Skipf("no desktop image (make image builds it, SEALDESK_DESKTOP_IMAGE names another): %v", err)
	}
	if image, err = filepath.Abs(image); err != nil {
		t.Fatal(err)
	}
	return image
}

// desktop serves a fresh copy of the image (nothing is written to it) and a user disk.
func (w *world) desktop(t *testing.T, id, image string) compute.Spec {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	user := filepath.Join(w.tmp, w.key(id, compute.RoleUser)+".raw")
	if _, err := os.Stat(user); err != nil {
		if err := os.WriteFile(user, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(user, 2<<30); err != nil {
			t.Fatal(err)
		}
	}
	w.args[w.key(id, compute.RoleRoot)] = []string{"--filter=cow", "file", image}
	w.args[w.key(id, compute.RoleUser)] = []string{"file", user}
	s := compute.Spec{ID: id, VCPUs: 2, MemoryMiB: 1536, Seed: compute.Seed{UserName: "alice.smith", FullName: "Alice Smith", TimeZone: "Europe/Berlin"}}
	for _, role := range []compute.DiskRole{compute.RoleRoot, compute.RoleUser} {
		key := w.key(id, role)
		if c := w.nbd[key]; c != nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		w.serve(t, key)
		s.Disks = append(s.Disks, compute.Disk{Role: role, Socket: filepath.Join(w.tmp, key+".sock")})
	}
	return s
}

// TestDesktop is the life of a desktop: first boot on a blank home, work, a restart of the control plane, a disk that goes away and comes back,
// power off, a new root disk. What the user wrote must be there at the end.
func TestDesktop(t *testing.T) {
	image := desktopImage(t)
	needTools(t, "debugfs")
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	d := w.New(t)
	defer func() { d.Close() }()
	const id = "ws-desk1"
	defer func() { _ = d.Remove(context.Background(), id) }()
	home := func(file string) string {
		out, _ := exec.Command("debugfs", "-R", "cat /alice.smith/"+file, filepath.Join(w.tmp, w.key(id, compute.RoleUser)+".raw")).Output()
		return strings.TrimSpace(string(out))
	}
	picture := func(name string) {
		t.Helper()
		b, err := d.Screendump(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if ok, why := compute.Painted(b); !ok {
			t.Errorf("%s: not painted: %s", name, why)
		}
		if dir := os.Getenv("SEALDESK_PICTURES"); dir != "" {
			_ = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o600)
		}
	}
	boot := func(what string) compute.Status {
		t.Helper()
		start := time.Now()
		if err := d.Start(ctx, w.desktop(t, id, image)); err != nil {
			t.Fatal(err)
		}
		st, err := compute.WaitReady(ctx, d, id, nil)
		if err != nil {
			serial, _ := os.ReadFile(filepath.Join(w.dir, id, "serial.log"))
			t.Fatalf("%v; serial port: %.2000s", err, serial)
		}
		t.Logf("%s: painted after %v (%s), QEMU uses %d MiB", what, time.Since(start).Round(100*time.Millisecond), st.GuestDetail, st.MemoryRSSByte>>20)
		return st
	}
	run := func(command, file, want string) {
		t.Helper()
		if err := compute.RunInTerminal(ctx, d, id, command); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
			if home(file) == want {
				return
			}
		}
		picture("failed-command")
		t.Fatalf("%s after %q = %q, want %q", file, command, home(file), want)
	}

	st := boot("first boot")
	if !strings.Contains(st.GuestDetail, "alice.smith") {
		t.Errorf("guest says %q, want its user's name in it", st.GuestDetail)
	}
	picture("first")
	run("echo Kept_1 $(id -u) $(hostname) > ~/kept; sync", "kept", "Kept_1 1000 ws-desk1")
	picture("terminal")

	// The control plane restarts.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = w.New(t)
	list, err := d.Adopt(ctx)
	if err != nil || len(list) != 1 || list[0].PID != st.PID {
		t.Fatalf("Adopt = %+v, %v; want the machine with PID %d", list, err, st.PID)
	}
	if st, err = compute.WaitReady(ctx, d, id, nil); err != nil {
		t.Fatal(err)
	}

	// The user disk goes away under the live guest. A file is written meanwhile; it arrives when the disk is back.
	w.LoseDisk(t, id, compute.RoleUser)
	if err := d.TypeText(ctx, id, "echo late > ~/late; sync\n"); err != nil {
		t.Fatal(err)
	}
	waitState(t, d, id, compute.StateIOError)
	w.RestoreDisk(t, id, compute.RoleUser)
	waitState(t, d, id, compute.StateRunning)
	for end := time.Now().Add(90 * time.Second); home("late") != "late"; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("file written while the disk was away = %q, want %q", home("late"), "late")
		}
	}

	start := time.Now()
	if err := d.Stop(ctx, id, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if st, err = d.Status(ctx, id); err != nil || st.Reason != "the guest powered off" {
		t.Errorf("after Stop: %+v, %v; want that the guest powered off", st.Reason, err)
	}
	t.Logf("powered off after %v", time.Since(start).Round(100*time.Millisecond))

	boot("boot on a new root disk")
	picture("rebuilt")
	run("cat ~/kept > ~/copy; sync", "copy", "Kept_1 1000 ws-desk1")

	// A reset in the middle of work: the home is there afterwards.
	if err := d.Reset(ctx, id); err != nil {
		t.Fatal(err)
	}
	if st, err := d.Status(ctx, id); err != nil || st.GuestReady {
		t.Errorf("GuestReady right after Reset = %v, %v; want false", st.GuestReady, err)
	}
	if _, err := compute.WaitReady(ctx, d, id, nil); err != nil {
		t.Fatal(err)
	}
}

func waitState(t *testing.T, d compute.Driver, id string, want compute.State) {
	t.Helper()
	var st compute.Status
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, _ = d.Status(context.Background(), id); st.State == want {
			return
		}
	}
	t.Fatalf("state = %q (%s), want %q", st.State, st.Reason, want)
}

// TestProbeBoots asks TCG, which always works, and so proves that a working accelerator would be found.
func TestProbeBoots(t *testing.T) {
	image := strings.TrimSuffix(desktopImage(t), ".raw")
	needTools(t, "qemu-system-x86_64")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if ok, why := bootProbe(ctx, "qemu-system-x86_64", "tcg", "Nehalem", image+".kernel", image+".initrd"); !ok {
		t.Errorf("probe under TCG = false: %s", why)
	}
	ok, why := Probe(ctx, "qemu-system-x86_64", image+".kernel", image+".initrd", "")
	t.Logf("KVM here: %v, %s", ok, why)
}
