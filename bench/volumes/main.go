// Command volumes measures the volume engine against its peers in one run: the same
// jobs, alternating between the servers, medians of several rounds: over NBD on unix sockets from fio, or
// over vhost-user-blk from a front end of our own. It prints IOPS or MB/s, the ratio of each round to the
// encrypted peer (nbdkit's LUKS filter, QEMU's storage daemon with LUKS), p99 latency, and the
// server's CPU time for each operation.
//
//	go run ./bench/volumes [-transport nbd|vhost-user] [-rounds 5] [-seconds 2] [-dir DIR] [-mib 512] [-only substring]
//	go run ./bench/volumes -limits [-dir DIR] [-only substring]
//
// It needs fio (with the nbd engine), nbdkit and qemu-utils; peers that are missing
// are left out and named.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
	"github.com/sealdesk/sealdesk/internal/block/vhostuser"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// job is a load. The same goes to fio (over NBD) and to load (over vhost-user).
type job struct {
	name      string
	reads     int // per cent; the rest are writes
	bs, depth int
	seq       bool
	flush     bool // after each write
	bw        bool // reported as MB/s
}

var jobs = []job{
	{name: "randread 4K QD32", reads: 100, bs: 4 << 10, depth: 32},
	{name: "randwrite 4K QD32", bs: 4 << 10, depth: 32},
	{name: "mixed 70/30 4K QD32", reads: 70, bs: 4 << 10, depth: 32},
	{name: "read 128K QD16", reads: 100, bs: 128 << 10, depth: 16, seq: true, bw: true},
	{name: "write 128K QD16", bs: 128 << 10, depth: 16, seq: true, bw: true},
	{name: "randread 4K QD1", reads: 100, bs: 4 << 10, depth: 1},
	{name: "randwrite 4K QD1", bs: 4 << 10, depth: 1},
	{name: "write+flush 4K QD1", bs: 4 << 10, depth: 1, flush: true},
}

func (j job) fioArgs() []string {
	rw := map[bool]string{true: "", false: "rand"}[j.seq]
	switch j.reads {
	case 100:
		rw += "read"
	case 0:
		rw += "write"
	default:
		rw += "rw"
	}
	a := []string{"--rw=" + rw, fmt.Sprintf("--rwmixread=%d", j.reads), fmt.Sprintf("--bs=%d", j.bs), fmt.Sprintf("--iodepth=%d", j.depth)}
	if j.flush {
		a = append(a, "--fsync=1")
	}
	return a
}

type peer struct {
	name  string
	vhost bool // vhost-user-blk instead of NBD
	argv  func(dir, sock string) []string
	setup func(dir string, mib int) error
	cmd   *exec.Cmd
	sock  string
}

func run(name string, arg ...string) error {
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arg, " "), err, out)
	}
	return nil
}

func raw(name string) func(string, int) error {
	return func(dir string, mib int) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(int64(mib) << 20)
	}
}

func luks(name string) func(string, int) error {
	return func(dir string, mib int) (err error) {
		for range 10 { // on a busy machine qemu-img now and then cannot calibrate its key derivation
			if err = run("qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=s,data=bench", "-o", "key-secret=s,cipher-alg=aes-256,iter-time=10",
				filepath.Join(dir, name), fmt.Sprintf("%dM", mib)); err == nil {
				return nil
			}
		}
		return err
	}
}

func qemuNBD(file string, aio string, isLUKS bool) func(dir, sock string) []string {
	return func(dir, sock string) []string {
		a := []string{"qemu-nbd", "-k", sock, "-t", "-e", "8", "--cache=writeback", "--aio=" + aio, "--discard=unmap"}
		if isLUKS {
			return append(a, "--object", "secret,id=s,data=bench", "--image-opts",
				"driver=luks,key-secret=s,file.driver=file,file.filename="+filepath.Join(dir, file))
		}
		return append(a, "-f", "raw", filepath.Join(dir, file))
	}
}

// storageDaemon exports a file over vhost-user-blk.
func storageDaemon(file, aio string, isLUKS bool) func(dir, sock string) []string {
	return func(dir, sock string) []string {
		a := []string{"qemu-storage-daemon", "--blockdev", "driver=file,node-name=f,discard=unmap,aio=" + aio + ",filename=" + filepath.Join(dir, file)}
		if isLUKS {
			a = append(a, "--object", "secret,id=s,data=bench", "--blockdev", "driver=luks,node-name=d,file=f,key-secret=s")
		} else {
			a = append(a, "--blockdev", "driver=raw,node-name=d,file=f")
		}
		return append(a, "--export", "type=vhost-user-blk,id=e,node-name=d,writable=on,num-queues=1,addr.type=unix,addr.path="+sock)
	}
}

func main() {
	rounds := flag.Int("rounds", 5, "rounds")
	seconds := flag.Int("seconds", 2, "seconds for each measurement")
	dir := flag.String("dir", "", "directory for the volumes (default: a temporary one)")
	mib := flag.Int("mib", 512, "size of the volumes in MiB")
	transport := flag.String("transport", "nbd", "nbd or vhost-user")
	only := flag.String("only", "", "jobs whose name contains this")
	serve := flag.String("serve", "", "internal: serve the volume in this directory")
	sock := flag.String("sock", "", "internal: on this socket")
	flag.StringVar(&profile, "cpuprofile", "", "write a CPU profile of our server to this file")
	alone := flag.Bool("limits", false, "measure recovery, many volumes, snapshots and overwriting instead")
	flag.Parse()
	if *alone {
		if err := measureLimits(*dir, *only); err != nil {
			log.Fatal(err)
		}
		return
	}
	if *serve != "" {
		if err := serveVolume(*serve, *sock, *transport, int64(*mib)<<20); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := bench(*transport, *rounds, *seconds, *dir, *mib, *only); err != nil {
		log.Fatal(err)
	}
}

var profile string

func serveVolume(dir, sock, transport string, size int64) error {
	k := secret.New(bytes.Repeat([]byte{1}, 64))
	if _, err := block.Create(dir, block.Options{VolumeID: "vol-bench", SizeBytes: size, Key: k}); err != nil {
		return err
	}
	v, err := block.Open(dir, block.Options{Key: k})
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if transport == "nbd" {
		err = (&nbd.Server{Exports: []nbd.Export{{Name: "", Device: v}}}).Serve(ctx, l)
	} else {
		err = (&vhostuser.Server{Device: v}).Serve(ctx, l)
	}
	if err != nil {
		return err
	}
	s := v.Stats()
	log.Printf("ours: guest wrote %d MiB; log %d, pages %d, compaction %d MiB: write amplification %.2f", s.WriteBytes>>20, s.LogBytes>>20, s.PageBytes>>20, s.CompactBytes>>20,
		float64(s.LogBytes+s.PageBytes+s.CompactBytes)/float64(max(s.WriteBytes, 1)))
	return v.Close()
}

func bench(transport string, rounds, seconds int, dir string, mib int, only string) error {
	if dir == "" {
		d, err := os.MkdirTemp("", "sdbench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(d)
		dir = d
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours := func(dir, sock string) []string {
		return []string{self, "-serve", filepath.Join(dir, "vol"), "-sock", sock, "-mib", strconv.Itoa(mib), "-cpuprofile", profile, "-transport", transport}
	}
	peers := []*peer{
		{name: "sealdesk", argv: ours},
		{name: "nbdkit luks", setup: luks("nk.luks"), argv: func(dir, sock string) []string {
			return []string{"nbdkit", "-f", "-U", sock, "--filter=luks", "file", filepath.Join(dir, "nk.luks"), "passphrase=bench"}
		}},
		{name: "nbdkit file (plain)", setup: raw("nk.raw"), argv: func(dir, sock string) []string {
			return []string{"nbdkit", "-f", "-U", sock, "file", filepath.Join(dir, "nk.raw")}
		}},
		{name: "qemu-nbd luks threads", setup: luks("qt.luks"), argv: qemuNBD("qt.luks", "threads", true)},
		{name: "qemu-nbd luks io_uring", setup: luks("qu.luks"), argv: qemuNBD("qu.luks", "io_uring", true)},
		{name: "qemu-nbd raw io_uring", setup: raw("qr.raw"), argv: qemuNBD("qr.raw", "io_uring", false)},
	}
	base := "nbdkit luks"
	if transport != "nbd" {
		base = "qsd luks io_uring"
		peers = []*peer{
			{name: "sealdesk", vhost: true, argv: ours},
			{name: base, vhost: true, setup: luks("su.luks"), argv: storageDaemon("su.luks", "io_uring", true)},
			{name: "qsd luks threads", vhost: true, setup: luks("st.luks"), argv: storageDaemon("st.luks", "threads", true)},
			{name: "qsd raw io_uring", vhost: true, setup: raw("su.raw"), argv: storageDaemon("su.raw", "io_uring", false)},
			{name: "qsd raw threads", vhost: true, setup: raw("st.raw"), argv: storageDaemon("st.raw", "threads", false)},
		}
	}
	var live []*peer
	for _, p := range peers {
		if err := p.start(dir, mib); err != nil {
			fmt.Printf("left out: %s: %v\n", p.name, err)
			continue
		}
		defer p.stop()
		live = append(live, p)
	}
	type cell struct{ value, p99, cpu []float64 }
	fmt.Printf("%d rounds of %d s, %d MiB volumes in %s\n", rounds, seconds, mib, dir)
	for _, p := range live { // write everything once, so that reads meet data
		if _, _, _, err := p.measure(job{name: "fill", bs: 256 << 10, depth: 4, seq: true, bw: true}, 0, mib); err != nil {
			return err
		}
	}
	for _, j := range jobs {
		if !strings.Contains(j.name, only) {
			continue
		}
		cells := make([]cell, len(live))
		for r := range rounds {
			for i := range live {
				k := (i + r) % len(live)
				v, p99, cpu, err := live[k].measure(j, seconds, mib)
				if err != nil {
					return err
				}
				c := &cells[k]
				c.value, c.p99, c.cpu = append(c.value, v), append(c.p99, p99), append(c.cpu, cpu)
			}
		}
		unit := "IOPS"
		if j.bw {
			unit = "MB/s"
		}
		fmt.Printf("\n%-24s %10s %20s %10s %12s\n", j.name, unit, "x "+base, "p99 us", "server us/op")
		for i, p := range live {
			ratio := make([]float64, rounds)
			for r := range rounds {
				for k, q := range live {
					if q.name == base {
						ratio[r] = cells[i].value[r] / cells[k].value[r]
					}
				}
			}
			fmt.Printf("%-24s %10.0f %20.2f %10.0f %12.1f\n", p.name, median(cells[i].value), median(ratio), median(cells[i].p99), median(cells[i].cpu))
		}
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func (p *peer) start(dir string, mib int) error {
	if p.setup != nil {
		if err := p.setup(dir, mib); err != nil {
			return err
		}
	}
	p.sock = filepath.Join(dir, strings.NewReplacer(" ", "-", "(", "", ")", "").Replace(p.name)+".sock")
	a := p.argv(dir, p.sock)
	p.cmd = exec.Command(a[0], a[1:]...)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for range 200 {
		if c, err := net.Dial("unix", p.sock); err == nil {
			c.Close()
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	return fmt.Errorf("it does not listen")
}

func (p *peer) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// cpu is the server's CPU time so far.
func (p *peer) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	u, _ := strconv.Atoi(f[11])
	s, _ := strconv.Atoi(f[12])
	return time.Duration(u+s) * 10 * time.Millisecond
}

func (p *peer) measure(j job, seconds, mib int) (value, p99, cpu float64, err error) {
	if p.vhost {
		return p.load(j, seconds, mib)
	}
	return p.fio(j, seconds, mib)
}

func (p *peer) fio(j job, seconds, mib int) (value, p99, cpu float64, err error) {
	args := append([]string{"--name=j", "--ioengine=nbd", "--uri=nbd+unix:///?socket=" + p.sock, "--output-format=json", fmt.Sprintf("--size=%dm", mib), "--randrepeat=0"}, j.fioArgs()...)
	if seconds > 0 {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%d", seconds))
	}
	before := p.cpu()
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("fio %s on %s: %w", j.name, p.name, err)
	}
	used := p.cpu() - before
	type side struct {
		IOPS    float64 `json:"iops"`
		BW      float64 `json:"bw_bytes"`
		Total   float64 `json:"total_ios"`
		Latency struct {
			P map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var r struct{ Jobs []struct{ Read, Write side } }
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	if err := json.Unmarshal(out, &r); err != nil || len(r.Jobs) != 1 {
		return 0, 0, 0, fmt.Errorf("fio %s on %s: %w", j.name, p.name, err)
	}
	rd, wr := r.Jobs[0].Read, r.Jobs[0].Write
	value = rd.IOPS + wr.IOPS
	if j.bw {
		value = (rd.BW + wr.BW) / 1e6
	}
	p99 = max(rd.Latency.P["99.000000"], wr.Latency.P["99.000000"]) / 1e3
	return value, p99, used.Seconds() * 1e6 / max(rd.Total+wr.Total, 1), nil
}
