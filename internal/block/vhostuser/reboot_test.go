package vhostuser

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// qmp says something to QEMU and reads until it answers.
func qmp(t *testing.T, c net.Conn, d *json.Decoder, command string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(`{"execute":"` + command + `"}`)); err != nil {
		t.Fatal(err)
	}
	for {
		var m map[string]json.RawMessage
		if err := d.Decode(&m); err != nil {
			t.Fatalf("QMP %s: %v", command, err)
		}
		if m["error"] != nil {
			t.Fatalf("QMP %s: %s", command, m["error"])
		}
		if m["return"] != nil {
			return
		}
	}
}

// TestReboots resets the guest in the middle of its writing, over and over, and takes the back end away now and
// then: it boots from the device each time, and what it wrote at last is there.
func TestReboots(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	const end, reboots = 1200, 20
	v := volume(t, 4<<20)
	sector := bootSector(end)
	if _, err := v.WriteAt(sector, 0); err != nil {
		t.Fatal(err)
	}
	path, stop := serve(t, &Server{Device: v, Serial: "root"})
	monitor := filepath.Join(filepath.Dir(path), "qmp")
	var out bytes.Buffer
	cmd := exec.Command(qemu, "-nodefaults", "-no-user-config", "-accel", "tcg", "-m", "128", "-display", "none",
		"-object", "memory-backend-memfd,id=mem,size=128M,share=on", "-machine", "q35,memory-backend=mem",
		"-chardev", "socket,id=disk,path="+path+",reconnect=1", "-device", "vhost-user-blk-pci,chardev=disk,num-queues=2,bootindex=1",
		"-device", "isa-debug-exit,iobase=0xf4", "-serial", "stdio", "-qmp", "unix:"+monitor+",server=on,wait=off")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() { left <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var c net.Conn
	for range 500 {
		if c, err = net.Dial("unix", monitor); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("QEMU does not listen: %v, it said %q", err, out.String())
	}
	defer c.Close()
	d := json.NewDecoder(c)
	qmp(t, c, d, "qmp_capabilities")
	for i := range reboots {
		before := v.Stats().WriteOps
		for start := time.Now(); v.Stats().WriteOps < before+100; {
			select {
			case err := <-left:
				t.Fatalf("reboot %d: QEMU ended: %v, it said %q", i, err, out.String())
			case <-time.After(2 * time.Millisecond):
			}
			if time.Since(start) > 60*time.Second {
				t.Fatalf("reboot %d: the guest does not write", i)
			}
		}
		if i%3 == 2 { // first without a back end, then with another
			stop()
		}
		if i%2 == 0 {
			qmp(t, c, d, "system_reset")
		}
		if i%3 == 2 {
			_, stop = serveAt(t, path, &Server{Device: v, Serial: "root"})
		}
		if i%2 == 1 {
			qmp(t, c, d, "system_reset")
		}
	}
	select {
	case err = <-left:
	case <-time.After(60 * time.Second):
		t.Fatal("the guest does not come to its end")
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out.Bytes(), []byte("sealed and booted")) {
		t.Fatalf("QEMU: %v, it said %q", err, out.String())
	}
	got := make([]byte, 512)
	for i := int64(100); i < end; i++ {
		if _, err := v.ReadAt(got, i*512); err != nil || !bytes.Equal(got[:0x40], sector[:0x40]) {
			t.Fatalf("sector %d is not what the guest wrote: %v", i, err)
		}
	}
}
