package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// seedFD is the descriptor on which QEMU finds the seed.
const seedFD = 3

// Accelerators.
const (
	accelTCG = "tcg"
	accelKVM = "kvm"
)

// nbdName is the symbolic link in the runtime directory to a disk's socket.
func nbdName(r compute.DiskRole) string { return string(r) + ".nbd" }

// vhostName likewise, to its vhost-user socket.
func vhostName(r compute.DiskRole) string { return string(r) + ".vhost" }

// maxDiskQueues bounds the virtqueues of a disk; more than one a processor serves nothing.
const maxDiskQueues = 4

// macAddress is the same for the same machine, in the locally administered range QEMU uses.
func macAddress(id string) string {
	h := sha256.Sum256([]byte("sealdesk mac " + id))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", h[0], h[1], h[2])
}

// guestName is the value of -name by which a process is recognised.
func guestName(id string) string { return "guest=sealdesk-" + id }

// sharesMemory says whether another process works disks in the guest's memory.
func sharesMemory(s compute.Spec) bool {
	for _, d := range s.Disks {
		if d.Vhost != "" {
			return true
		}
	}
	return false
}

func memoryOf(s compute.Spec) string {
	if sharesMemory(s) {
		return ",memory-backend=ram"
	}
	return ""
}

// arguments are QEMU's (QEMU system emulation user documentation, "Invocation") for a valid spec. All paths are relative to the runtime directory; the
// seed is read from descriptor seedFD. Everything that differs between machines comes from values that Spec.Validate has checked, so that no comma
// in a value can become an option of its own.
func arguments(s compute.Spec, accel string, reconnect time.Duration) []string {
	a := []string{
		"-name", guestName(s.ID),
		"-nodefaults", "-no-user-config",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "q35,dump-guest-core=off,vmport=off,hpet=off" + memoryOf(s),
		"-action", "panic=pause,reboot=reset,shutdown=poweroff",
		"-display", "none",
		"-rtc", "base=utc,driftfix=slew",
		"-m", strconv.Itoa(s.MemoryMiB),
		"-smp", strconv.Itoa(s.VCPUs),
		"-pidfile", "qemu.pid",
		"-msg", "timestamp=on",
	}
	if accel == accelKVM {
		a = append(a, "-accel", "kvm", "-cpu", "host")
	} else {
		// Measured: an older processor model costs 16 % less to emulate than "max", whose wide vectors and XSAVE are slow helpers. The
		// mitigations of processor flaws protect nothing on an emulated processor; the boot loader of the image passes OEM string 1 on to the kernel.
		a = append(a, "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "Nehalem", "-smbios", "type=11,value=mitigations=off")
	}
	a = append(a,
		"-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=serial,path=serial.log,append=on", "-serial", "chardev:serial",
		"-vnc", "unix:vnc.sock",
		"-device", fmt.Sprintf("VGA,vgamem_mb=32,edid=on,xres=%d,yres=%d", s.Display.Width, s.Display.Height),
		"-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci",
		"-device", "pvpanic-pci",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off", "-device", "virtserialport,chardev=agent,name=org.sealdesk.agent.0",
		"-chardev", "qemu-vdagent,id=clipboard,clipboard=on,mouse=off", "-device", "virtserialport,chardev=clipboard,name=com.redhat.spice.0",
		"-fw_cfg", fmt.Sprintf("name=opt/org.sealdesk/seed,file=/proc/self/fd/%d", seedFD),
	)
	if s.Network.Bridge != "" {
		a = append(a, "-netdev", "bridge,id=net,br="+s.Network.Bridge)
	} else {
		a = append(a, "-netdev", "user,id=net,restrict=on")
	}
	a = append(a, "-device", "virtio-net-pci,netdev=net,romfile=,mac="+macAddress(s.ID))
	if sharesMemory(s) {
		a = append(a, "-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on,dump=off", s.MemoryMiB))
	}
	for _, d := range s.Disks {
		boot := ""
		if d.Role == compute.RoleRoot {
			boot = ",bootindex=1"
		}
		if d.Vhost != "" {
			a = append(a, "-chardev", fmt.Sprintf("socket,id=disk-%s,path=%s,reconnect=1", d.Role, vhostName(d.Role)),
				"-device", fmt.Sprintf("vhost-user-blk-pci,chardev=disk-%s,num-queues=%d%s", d.Role, min(s.VCPUs, maxDiskQueues), boot))
			continue
		}
		node, _ := json.Marshal(map[string]any{ // strings, numbers and booleans always encode
			"driver": "nbd", "node-name": string(d.Role), "export": d.Export, "read-only": d.ReadOnly,
			"server":          map[string]string{"type": "unix", "path": nbdName(d.Role)},
			"reconnect-delay": int(reconnect / time.Second),
			"discard":         "unmap", "detect-zeroes": "unmap",
		})
		dev := "virtio-blk-pci,drive=" + string(d.Role) + ",serial=" + string(d.Role) +
			",werror=stop,rerror=stop,discard=on,write-zeroes=on,physical_block_size=4096" + boot
		a = append(a, "-blockdev", string(node), "-device", dev)
	}
	return a
}
