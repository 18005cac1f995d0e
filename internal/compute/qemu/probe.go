package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probeDeadline is how long a kernel may take to report back under KVM. One that works needs a second or two.
const probeDeadline = 15 * time.Second

// probeMark is what the image's first process writes to the serial port when its kernel's command line holds "sealdesk.probe".
const probeMark = "SEALDESK-PROBE-OK"

// probeResult is the cache of a probe, good for one boot of the host, one QEMU and one kernel.
type probeResult struct {
	Version int    `json:"version"` // 1
	For     string `json:"for"`
	OK      bool   `json:"ok"`
	Why     string `json:"why"`
}

// Probe says whether KVM really runs the desktop image's kernel here, and why it thinks so. That /dev/kvm can be opened proves nothing: there are hosts
// where it can and a Debian kernel does not get through its first instructions. So the kernel is booted, to the point where its first process
// speaks. The result is kept in the file cache (if it is named), so that only the first start after a boot of the host waits.
func Probe(ctx context.Context, binary, kernel, initrd, cache string) (bool, string) {
	if kernel == "" || initrd == "" {
		return false, "no kernel to probe with"
	}
	if err := unix.Access("/dev/kvm", unix.R_OK|unix.W_OK); err != nil {
		return false, fmt.Sprintf("/dev/kvm: %v", err)
	}
	key := probeKey(binary, kernel, initrd)
	if b, err := os.ReadFile(cache); err == nil {
		var r probeResult
		if json.Unmarshal(b, &r) == nil && r.Version == 1 && r.For == key {
			return r.OK, r.Why + " (known from before)"
		}
	}
	start := time.Now()
	run, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	ok, why := bootProbe(run, binary, "kvm", "host", kernel, initrd)
	why = fmt.Sprintf("%s after %v", why, time.Since(start).Round(10*time.Millisecond))
	if ctx.Err() != nil {
		return false, why // not the probe's fault: not kept
	}
	if b, err := json.Marshal(probeResult{1, key, ok, why}); err == nil && cache != "" {
		_ = os.WriteFile(cache, b, 0o600) // only saves time
	}
	return ok, why
}

// probeFiles are the kernel and first process that images/build-desktop left beside an image, or empty.
func probeFiles(image func() (string, error)) (kernel, initrd string) {
	if image == nil {
		return "", ""
	}
	path, err := image()
	if err != nil {
		return "", ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", ""
	}
	base := strings.TrimSuffix(path, ".raw")
	for _, f := range []string{base + ".kernel", base + ".initrd"} {
		if _, err := os.Stat(f); err != nil {
			return "", ""
		}
	}
	return base + ".kernel", base + ".initrd"
}

// probeKey names what a result depends on.
func probeKey(files ...string) string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	key := strings.TrimSpace(string(boot))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			key += fmt.Sprintf(" %s:%d:%d", f, st.Size(), st.ModTime().UnixNano())
		}
	}
	return key
}

// bootProbe boots kernel and initrd and waits for the mark.
func bootProbe(ctx context.Context, binary, accel, cpu, kernel, initrd string) (bool, string) {
	cmd := exec.CommandContext(ctx, binary, "-nodefaults", "-no-user-config", "-machine", "q35,dump-guest-core=off", "-accel", accel, "-cpu", cpu, "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-m", "256", "-smp", "2", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 sealdesk.probe", "-serial", "stdio", "-monitor", "none")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.WaitDelay = time.Second
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, fmt.Sprintf("probe: %v", err)
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Sprintf("probe: run QEMU: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var got strings.Builder
	buf := make([]byte, 4096)
	for got.Len() < 1<<20 {
		n, err := out.Read(buf)
		got.Write(buf[:n])
		if strings.Contains(got.String(), probeMark) {
			return true, "a kernel booted under " + accel
		}
		if err != nil {
			break
		}
	}
	why := strings.TrimSpace(errs.String())
	if i := strings.LastIndexByte(why, '\n'); i >= 0 {
		why = why[i+1:]
	}
	if ctx.Err() != nil {
		return false, fmt.Sprintf("a kernel does not boot under %s: no word from it in time", accel)
	}
	return false, fmt.Sprintf("a kernel does not boot under %s: %s", accel, why)
}
