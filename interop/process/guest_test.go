package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/vhostuser"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// guestInit is the first process of the guest: it names the disks by their serial
// numbers, does a job and powers off. What the host shall know it says on the serial port.
const guestInit = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
exec >/dev/ttyS0 2>&1
export PATH=/usr/bin:/usr/sbin:/sbin:/bin
/bin/busybox --install -s /bin
while read -r m; do insmod "/lib/modules/$m"; done </lib/modules/order
for m in $(cat /extra/order); do insmod "/extra/$m"; done 2>/dev/null
for b in /sys/block/vd*; do
    s=$(cat "$b/serial") && ln -s "${b##*/}" "/dev/$s" && mkdir -p "/mnt/$s"
done
kind() { [ "$1" = vhost ] && echo ext4 || echo "$1"; }
make() {
    case $1 in
    ext4) mkfs.ext4 -q -F "/dev/$2" ;;
    xfs) mkfs.xfs -q -f "/dev/$2" ;;
    btrfs) mkfs.btrfs -q -f "/dev/$2" ;;
    esac
}
check() {
    case $1 in
    ext4) e2fsck -fn "/dev/$2" ;;
    xfs) xfs_repair -n "/dev/$2" ;;
    btrfs) btrfs check --readonly "/dev/$2" ;;
    esac
}
told() { # told DISK WHAT COMMAND...: how a command ended
    d=$1 w=$2; shift 2
    if "$@" >"/out-$d" 2>&1; then echo "RESULT $d $w ok"; else echo "RESULT $d $w failed with $?"; cat "/out-$d"; fi
}
. /job
echo DONE
sync
poweroff -f
`

// verifyJob writes what fio reads back and compares, and has the file system checked.
const verifyJob = `
for disk in ext4 xfs btrfs vhost; do
    told $disk make make $(kind $disk) $disk
    told $disk mount mount -t $(kind $disk) "/dev/$disk" "/mnt/$disk"
    told $disk fio fio --name=v --directory="/mnt/$disk" --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bsrange=4k-128k --size=32m \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64 --end_fsync=1
    rm "/mnt/$disk"/v*; fstrim "/mnt/$disk"
    told $disk umount umount "/mnt/$disk"
    told $disk check check $(kind $disk) $disk
done
`

// writeJob makes files and tells which of them are durable, for ever.
const writeJob = `
work() {
    i=0
    while :; do
        i=$((i + 1))
        head -c $((1000 + i * 37 % 60000)) /dev/urandom >"/mnt/$1/part"
        s=$(sha256sum <"/mnt/$1/part"); s=${s%% *}
        mv "/mnt/$1/part" "/mnt/$1/$i-$s"
        sync -f "/mnt/$1/$i-$s" && echo "DURABLE $1 $i"
    done
}
for disk in ext4 xfs btrfs; do
    told $disk make make $disk $disk
    told $disk mount mount -t $disk "/dev/$disk" "/mnt/$disk"
    work $disk &
done
wait
`

// readJob has a file system repaired as after a power cut, by its own log, and looks at what is in it.
const readJob = `
look() {
    n=0
    for f in "/mnt/$1"/*-*; do
        s=$(sha256sum <"$f") && [ "${f##*-}" = "${s%% *}" ] || { echo "$f is not what it was"; return 1; }
        n=$((n + 1))
    done
    echo "FOUND $1 $n" >/dev/ttyS0
}
for disk in ext4 xfs btrfs; do
    told $disk mount mount -t $disk "/dev/$disk" "/mnt/$disk"
    told $disk look look $disk
    told $disk umount umount "/mnt/$disk"
    told $disk check check $disk $disk
done
`

// smallGuest is a small Linux: the kernel of the desktop image, with this machine's fio and tools of file systems.
type smallGuest struct{ kernel, initrd string }

func newGuest(t *testing.T) smallGuest {
	t.Helper()
	if os.Getenv("SEALDESK_E2E") == "" {
		t.Skip("boots a guest, which takes minutes: run make e2e")
	}
	tools := []string{"fio", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "mkfs.btrfs", "btrfs"}
	needs(t, append(tools, "qemu-system-x86_64", "debugfs", "cpio", "ldd")...)
	image := os.Getenv("SEALDESK_DESKTOP_IMAGE")
	if image == "" {
		image = "../../build/images/desktop.raw"
	}
	image, err := filepath.EvalSymlinks(image)
	if err != nil {
		t.Skip("needs the desktop image: run make image")
	}
	root := t.TempDir()
	put := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, to), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	library := regexp.MustCompile(`(/\S+) \(0x`)
	for _, tool := range tools {
		path, _ := exec.LookPath(tool)
		put(path, "/usr/bin/"+tool)
		for _, l := range library.FindAllStringSubmatch(run(t, "ldd", path), -1) {
			put(l[1], l[1])
		}
	}
	inImage := func(request string) string {
		out, err := exec.Command("debugfs", "-R", request, image+"?offset=1048576").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	version := regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+-[a-z0-9-]+`).FindString(inImage("ls /lib/modules"))
	var order []string
	for line := range strings.Lines(inImage("cat /lib/modules/" + version + "/modules.dep")) {
		module, needed, _ := strings.Cut(strings.TrimSpace(line), ":")
		if !slices.Contains([]string{"kernel/fs/xfs/xfs.ko", "kernel/fs/btrfs/btrfs.ko", "kernel/crypto/crc32c_generic.ko", "kernel/crypto/xxhash_generic.ko", "kernel/crypto/blake2b_generic.ko"}, module) {
			continue
		}
		all := strings.Fields(needed)
		slices.Reverse(all)
		for _, m := range append(all, module) {
			name := filepath.Base(m)
			if slices.Contains(order, name) {
				continue
			}
			if err := os.MkdirAll(filepath.Join(root, "extra"), 0o755); err != nil {
				t.Fatal(err)
			}
			inImage("dump /lib/modules/" + version + "/" + m + " " + filepath.Join(root, "extra", name))
			if strings.HasPrefix(m, "kernel/crypto/") && m == module {
				order = append([]string{name}, order...) // what the others ask for by name
			} else {
				order = append(order, name)
			}
		}
	}
	for name, text := range map[string]string{"extra/order": strings.Join(order, "\n") + "\n", "init": guestInit} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := smallGuest{strings.TrimSuffix(image, ".raw") + ".kernel", filepath.Join(t.TempDir(), "initrd")}
	g.pack(t, root, strings.TrimSuffix(image, ".raw")+".initrd", g.initrd)
	return g
}

// pack writes an initial RAM disk: that of first and the files of root. Archives follow each other.
// Source: kernel documentation, "initramfs buffer format".
func (smallGuest) pack(t *testing.T, root, first, to string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "find . | cpio -o -H newc --quiet")
	cmd.Dir = root
	archive, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(first)
	if err == nil {
		b = append(b, make([]byte, -len(b)&511)...)
		err = os.WriteFile(to, append(b, archive...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a job on disks, which are QEMU arguments, and hands what the guest says to say. It ends with its job, which wait waits for, or
// when its plug is pulled.
func (g smallGuest) start(t *testing.T, job string, disks []string, say func(line string)) (wait func(), pull func()) {
	t.Helper()
	root, initrd := t.TempDir(), filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(filepath.Join(root, "job"), []byte(job), 0o600); err != nil {
		t.Fatal(err)
	}
	g.pack(t, root, g.initrd, initrd)
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
	cmd := exec.CommandContext(limit, "qemu-system-x86_64", append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
		"-object", "memory-backend-memfd,id=ram,size=1024M,share=on", "-machine", "q35,memory-backend=ram", "-serial", "stdio", "-no-reboot",
		"-kernel", g.kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"}, disks...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line := strings.TrimSpace(lines.Text())
			if line == "DONE" {
				done = true
			}
			say(line)
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	wait = func() {
		<-read
		err := cmd.Wait()
		cancel()
		if err != nil || !done {
			t.Errorf("the guest did not do its job: %v, %s", err, stderr.String())
		}
	}
	return wait, func() {
		cancel()
		<-read
		_ = cmd.Wait()
	}
}

// results collects what a guest says of its disks.
type results struct {
	mu    sync.Mutex
	lines []string
	last  map[string]int // the number a disk's last line ended with, by "WORD DISK"
}

func (r *results) say(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	if f := strings.Fields(line); len(f) == 3 {
		if n, err := strconv.Atoi(f[2]); err == nil {
			r.last[f[0]+" "+f[1]] = n
		}
	}
}

func (r *results) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[what]
}

// held says whether each disk did each of these well.
func (r *results) held(t *testing.T, disks, what []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range disks {
		for _, w := range what {
			if !slices.Contains(r.lines, "RESULT "+d+" "+w+" ok") {
				t.Errorf("%s: %s is not ok", d, w)
			}
		}
	}
	if t.Failed() {
		t.Logf("the guest said:\n%s", strings.Join(r.lines, "\n"))
	}
}

// TestFileSystemsInGuest: Linux makes, fills and checks ext4, XFS and Btrfs on served
// encrypted volumes while volumed is killed with kill -9 again and again, and ext4 over vhost-user; then snapshots of all three at one moment, taken while they
// are written to, hold whole file systems with everything that was durable by then.
func TestFileSystemsInGuest(t *testing.T) {
	g := newGuest(t)
	s := newServer(t, nil)
	volumes := ec2.NewFromConfig(s.config())
	dir, err := os.MkdirTemp("", "sdg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	kinds := []string{"ext4", "xfs", "btrfs"}
	available := func(volume string) {
		eventually(t, time.Minute, volume+" is available", func() error {
			d, err := volumes.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
			if err == nil && d.Volumes[0].State != ec2types.VolumeStateAvailable {
				err = errNotYet
			}
			return err
		})
	}
	serve := func(ids map[string]string) (disks []string, stop func()) {
		var served []*serving
		for _, kind := range kinds {
			available(ids[kind])
			socket := filepath.Join(dir, kind+".sock")
			served = append(served, serveVolume(t, s, ids[kind], socket))
			disks = append(disks, "-blockdev", fmt.Sprintf("driver=nbd,node-name=%s,server.type=unix,server.path=%s,discard=unmap,detect-zeroes=unmap,reconnect-delay=60", kind, socket),
				"-device", "virtio-blk-pci,discard=on,write-zeroes=on,drive="+kind+",serial="+kind)
		}
		return disks, func() {
			for _, v := range served {
				v.interrupt(t)
			}
		}
	}
	ids := map[string]string{}
	for _, kind := range kinds {
		made, err := volumes.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String(region + "a"), Encrypted: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		ids[kind] = *made.VolumeId
	}
	disks, stop := serve(ids)

	said := &results{last: map[string]int{}}
	wait, _ := g.start(t, verifyJob, append(vhostDisk(t, dir), disks...), said.say)
	kills, over := 0, make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Duration(2000+rand.IntN(4000)) * time.Millisecond):
			}
			if s.attached() == len(kinds) { // the last death is got over
				s.killVolumed()
				kills++
			}
		}
	})
	wait()
	close(over)
	killer.Wait()
	if t.Logf("volumed was killed %d times", kills); kills < 3 {
		t.Errorf("volumed was killed %d times, want several", kills)
	}
	said.held(t, append(kinds, "vhost"), []string{"make", "mount", "fio", "umount", "check"})
	if t.Failed() {
		return
	}

	said = &results{last: map[string]int{}}
	_, pull := g.start(t, writeJob, disks, said.say)
	more := func(than map[string]int) {
		t.Helper()
		eventually(t, 5*time.Minute, "twenty more files are durable on each disk", func() error {
			for _, kind := range kinds {
				if said.count("DURABLE "+kind) < than[kind]+20 {
					return errNotYet
				}
			}
			return nil
		})
	}
	durable := map[string]int{}
	more(durable)
	for _, kind := range kinds {
		durable[kind] = said.count("DURABLE " + kind)
	}
	attached, err := volumes.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{ids["xfs"]}})
	if err != nil {
		t.Fatal(err)
	}
	taken, err := volumes.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &ec2types.InstanceSpecification{InstanceId: attached.Volumes[0].Attachments[0].InstanceId}})
	if err != nil {
		t.Fatal(err)
	}
	more(durable)
	pull()
	stop()

	of := map[string]string{}
	for _, n := range taken.Snapshots {
		for _, kind := range kinds {
			if *n.VolumeId != ids[kind] {
				continue
			}
			made, err := volumes.CreateVolume(ctx, &ec2.CreateVolumeInput{SnapshotId: n.SnapshotId, AvailabilityZone: aws.String(region + "a")})
			if err != nil {
				t.Fatal(err)
			}
			of[kind] = *made.VolumeId
		}
	}
	disks, stop = serve(of)
	total := said
	said = &results{last: map[string]int{}}
	wait, _ = g.start(t, readJob, disks, said.say)
	wait()
	stop()
	said.held(t, kinds, []string{"mount", "look", "umount", "check"})
	for _, kind := range kinds {
		found := said.count("FOUND " + kind)
		t.Logf("%s: %d files were durable before the snapshot, %d are in it, %d were made in all", kind, durable[kind], found, total.count("DURABLE "+kind))
		if found < durable[kind] || found >= total.count("DURABLE "+kind) {
			t.Errorf("%s: %d files in the snapshot, want at least %d, and not all", kind, found, durable[kind])
		}
	}
}

// vhostDisk is a volume served over vhost-user until the test ends.
func vhostDisk(t *testing.T, dir string) (arguments []string) {
	t.Helper()
	o := block.Options{VolumeID: "vol-vhost", SizeBytes: 1 << 30, Key: secret.New(bytes.Repeat([]byte{9}, 64))}
	place := filepath.Join(dir, "vhost")
	if _, err := block.Create(place, o); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(place, block.Options{Key: o.Key})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: place + ".sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	serving, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&vhostuser.Server{Device: v, Serial: "vhost"}).Serve(serving, l); err != nil {
			t.Errorf("vhost-user: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); v.Close() })
	return []string{"-chardev", "socket,id=vhost,path=" + place + ".sock", "-device", "vhost-user-blk-pci,chardev=vhost,num-queues=2"}
}
