// Package interop runs the real binary against the clients that users have. Its
// tests need Debian's packages (scripts/prerequisites) and, for desktops, the
// image (make image); each skips with a reason when they are missing.
package interop

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDemo is MISSION on a real desktop: the demo with the AWS CLI, QEMU and a
// painted screen, which exits 0 only when every step and refusal held.
func TestDemo(t *testing.T) {
	if os.Getenv("SEALDESK_E2E") == "" {
		t.Skip("boots real desktops, which takes minutes: run make e2e")
	}
	for _, tool := range []string{"aws", "jq", "curl", "qemu-system-x86_64", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/prerequisites", tool)
		}
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "build/images/desktop.raw")); err != nil {
		t.Skip("needs the desktop image: run make image")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	data, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(data); err != nil { // the demo makes it
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	cmd := exec.Command(filepath.Join(top, "scripts/demo"))
	cmd.Env = append(os.Environ(), "DEMO_EXIT=1", "PORT="+strconv.Itoa(port), "DEMO_DATA="+data)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if i := strings.LastIndexByte(line, '\r'); i >= 0 {
			line = line[i+1:]
		}
		t.Log(strings.TrimRight(line, "\n"))
	}
	if err != nil {
		t.Errorf("the demo did not hold: %v", err)
	}
}
