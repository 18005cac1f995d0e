package volumed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// TestMain runs the daemon itself when a test started this binary as one.
func TestMain(m *testing.M) {
	if sock := os.Getenv("VOLUMED_TEST_SOCKET"); sock != "" {
		os.Unsetenv("VOLUMED_TEST_SOCKET")
		if err := Main(Config{ControlSocket: sock}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testKey(b byte) *secret.Bytes { return secret.New(bytes.Repeat([]byte{b}, 64)) }

// shortDir is a directory whose name fits in a socket address.
func shortDir(t *testing.T) string {
	d, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// start runs a daemon in this process.
func start(t *testing.T, dir string) (*Client, func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	sock := filepath.Join(dir, "control.sock")
	go func() { done <- Serve(ctx, Config{ControlSocket: sock}) }()
	c := &Client{Socket: sock}
	waitPing(t, c)
	stop := func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { _ = stop() })
	return c, stop
}

func waitPing(t *testing.T, c *Client) Info {
	t.Helper()
	for range 500 {
		if i, err := c.Ping(t.Context()); err == nil {
			return i
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("daemon does not answer")
	return Info{}
}

func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (Debian package libnbd-bin or qemu-utils)", name)
	}
}

func run(t *testing.T, name string, arg ...string) string {
	t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, out)
	}
	return string(out)
}

func TestLife(t *testing.T) {
	tool(t, "nbdinfo")
	tool(t, "nbdcopy")
	dir := shortDir(t)
	c, stop := start(t, dir)
	ctx := t.Context()
	vdir, sock := filepath.Join(dir, "vol"), filepath.Join(dir, "v.sock")
	key := testKey(7)
	a0, err := c.Create(ctx, CreateRequest{VolumeID: "vol-1", Dir: vdir, SizeBytes: 64 << 20, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if a0.Version != 1 {
		t.Errorf("first anchor has version %d, want 1", a0.Version)
	}
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := AttachRequest{VolumeID: "vol-1", Dir: vdir, Socket: sock, Anchor: a0, Key: key}
	if _, err := c.Attach(ctx, req); !errors.Is(err, ErrRequest) {
		t.Errorf("attach over a plain file: %v, want ErrRequest", err)
	}
	os.Remove(sock)
	st, err := c.Attach(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if st2, err := c.Attach(ctx, req); err != nil || st2.Attached != st.Attached {
		t.Errorf("attach again: %+v, %v; want the same attachment", st2, err)
	}
	other := req
	other.Socket = filepath.Join(dir, "w.sock")
	if _, err := c.Attach(ctx, other); !errors.Is(err, ErrAttached) {
		t.Errorf("attach elsewhere: %v, want ErrAttached", err)
	}
	if err := c.Destroy(ctx, "vol-1", vdir); !errors.Is(err, ErrAttached) {
		t.Errorf("destroy while attached: %v, want ErrAttached", err)
	}
	uri := "nbd+unix:///?socket=" + sock
	if out := run(t, "nbdinfo", uri); !strings.Contains(out, "67108864") || !strings.Contains(out, "vol-1") {
		t.Errorf("nbdinfo says %s", out)
	}
	img := filepath.Join(dir, "img")
	data := bytes.Repeat([]byte("CANARY-plaintext-CANARY."), 1<<20)[:20<<20]
	if err := os.WriteFile(img, data, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--flush", img, uri)
	back := filepath.Join(dir, "back")
	run(t, "nbdcopy", uri, back)
	got, _ := os.ReadFile(back)
	if len(got) != 64<<20 || !bytes.Equal(got[:len(data)], data) {
		t.Error("nbdcopy reads back something else")
	}
	l, err := c.List(ctx)
	if err != nil || len(l) != 1 || l[0].Dir != vdir || l[0].Socket != sock || l[0].Stats.WriteBytes < uint64(len(data)) {
		t.Errorf("List = %+v, %v", l, err)
	}
	a1, err := c.Detach(ctx, "vol-1")
	if err != nil || a1.Version <= st.Anchor.Version {
		t.Errorf("Detach = %v, %v; want a version above %d", a1.Version, err, st.Anchor.Version)
	}
	if _, err := os.Stat(sock); !os.IsNotExist(err) {
		t.Errorf("NBD socket after detach: %v, want none", err)
	}
	_ = filepath.Walk(vdir, func(p string, fi os.FileInfo, err error) error {
		if err == nil && !fi.IsDir() {
			b, _ := os.ReadFile(p)
			if bytes.Contains(b, []byte("CANARY")) {
				t.Errorf("%s holds plaintext", p)
			}
		}
		return nil
	})
	bad := req
	bad.Key = testKey(8)
	if _, err := c.Attach(ctx, bad); !errors.Is(err, block.ErrKey) {
		t.Errorf("attach with another key: %v, want ErrKey", err)
	}
	bad = req
	bad.Anchor = a1
	bad.Anchor.Version += 5
	if _, err := c.Attach(ctx, bad); !errors.Is(err, block.ErrRollback) {
		t.Errorf("attach of an old volume: %v, want ErrRollback", err)
	}
	req.Anchor = a1
	req.Socket = ""
	if _, err := c.Attach(ctx, req); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	c, _ = start(t, dir)
	if l, err := c.List(ctx); err != nil || len(l) != 0 {
		t.Errorf("after a restart List = %v, %v; want nothing", l, err)
	}
	if err := c.Destroy(ctx, "vol-1", vdir); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(ctx, "vol-1", vdir); err != nil {
		t.Errorf("destroy again: %v", err)
	}
	if _, err := os.Stat(vdir); !os.IsNotExist(err) {
		t.Errorf("volume directory after destroy: %v, want none", err)
	}
}

func TestImportAndWatch(t *testing.T) {
	dir := shortDir(t)
	c, _ := start(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan Event, 100)
	watching := make(chan error, 1)
	go func() {
		watching <- c.Watch(ctx, func(e Event) error { events <- e; return nil })
	}()
	img := filepath.Join(dir, "img")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(30 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("image "), 1<<18), 8<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	vdir := filepath.Join(dir, "vol")
	if _, err := c.Create(ctx, CreateRequest{VolumeID: "vol-2", Dir: vdir, SizeBytes: 32 << 20, Key: testKey(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(ctx, AttachRequest{VolumeID: "vol-2", Dir: vdir, Key: testKey(1)}); err != nil {
		t.Fatal(err)
	}
	var last Progress
	if _, err := c.Import(ctx, ImportRequest{VolumeID: "vol-2", Image: img}, func(p Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Done != 30<<20 || last.Total != 30<<20 {
		t.Errorf("last progress = %+v, want 30 MiB of 30 MiB", last)
	}
	st, err := c.Get(ctx, "vol-2")
	if err != nil || st.Stats.LiveBytes > 3<<20 {
		t.Errorf("the image's holes take space: %d bytes alive, %v", st.Stats.LiveBytes, err)
	}
	if _, err := c.Detach(ctx, "vol-2"); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for len(kinds) == 0 || kinds[len(kinds)-1] != "detached" {
		select {
		case e := <-events:
			kinds = append(kinds, e.Kind)
		case <-time.After(5 * time.Second):
			t.Fatalf("events so far: %v", kinds)
		}
	}
	cancel()
	if err := <-watching; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v, want context.Canceled", err)
	}
	// the same image, read through
	if err := block.WriteSums(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	ctx = t.Context()
	bdir := filepath.Join(dir, "base")
	if _, err := c.Create(ctx, CreateRequest{VolumeID: "vol-3", Dir: bdir, SizeBytes: 32 << 20, Key: testKey(3), BaseImage: img}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(ctx, AttachRequest{VolumeID: "vol-3", Dir: bdir, Key: testKey(3), BaseImage: img}); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if st, err = c.Get(ctx, "vol-3"); err != nil {
			t.Fatal(err)
		}
		if st.Stats.BaseBytes == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if st.Stats.BaseBytes != 0 || st.Stats.LiveBytes < 1<<20 {
		t.Errorf("not hydrated: %+v", st.Stats)
	}
}

func TestSnapshotClone(t *testing.T) {
	dir := shortDir(t)
	c, _ := start(t, dir)
	ctx := t.Context()
	d := func(n string) string { return filepath.Join(dir, n) }
	if _, err := c.Create(ctx, CreateRequest{VolumeID: "vol-a", Dir: d("a"), SizeBytes: 8 << 20, Key: testKey(1)}); err != nil {
		t.Fatal(err)
	}
	st, err := c.Attach(ctx, AttachRequest{VolumeID: "vol-a", Dir: d("a"), Key: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	img := d("img")
	data := bytes.Repeat([]byte("snapshot"), 1<<17)
	if err := os.WriteFile(img, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Import(ctx, ImportRequest{VolumeID: "vol-a", Image: img}, nil); err != nil {
		t.Fatal(err)
	}
	snap, err := c.Snapshot(ctx, SnapshotRequest{VolumeID: "vol-a", SnapshotID: "snap-1", Dir: d("s")})
	if err != nil || snap.Version <= st.Anchor.Version {
		t.Fatalf("Snapshot = %v, %v; want a version above %d", snap, err, st.Anchor.Version)
	}
	if _, err := c.Snapshot(ctx, SnapshotRequest{VolumeID: "vol-a", SnapshotID: "snap-1", Dir: d("s")}); !errors.Is(err, block.ErrExists) {
		t.Errorf("snapshot over a snapshot: %v, want ErrExists", err)
	}
	for i, r := range []CloneRequest{
		{From: d("s"), Dir: d("b"), VolumeID: "vol-b", SourceKey: testKey(1), SourceAnchor: snap},
		{From: d("s"), Dir: d("c"), VolumeID: "vol-c", SourceKey: testKey(1), Key: testKey(3), SizeBytes: 16 << 20},
	} {
		a, err := c.Clone(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		k := testKey(1)
		if i == 1 {
			k = testKey(3)
		}
		st, err := c.Attach(ctx, AttachRequest{VolumeID: r.VolumeID, Dir: r.Dir, Anchor: a, Key: k})
		if err != nil || st.SizeBytes != int64(i+1)*(8<<20) {
			t.Fatalf("attach of a clone: %+v, %v", st, err)
		}
		if _, err := c.Grow(ctx, r.VolumeID, 32<<20); err != nil {
			t.Error(err)
		}
		if _, err := c.Detach(ctx, r.VolumeID); err != nil {
			t.Error(err)
		}
		v, err := block.Open(r.Dir, block.Options{Key: k, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) || v.Size() != 32<<20 {
			t.Errorf("clone %s: %v, or other bytes, or size %d", r.VolumeID, err, v.Size())
		}
		v.Abandon()
	}
	if _, err := c.Clone(ctx, CloneRequest{From: d("s"), Dir: d("x"), VolumeID: "vol-x", SourceKey: testKey(9)}); !errors.Is(err, block.ErrKey) {
		t.Errorf("clone with a wrong key: %v, want ErrKey", err)
	}
}

// TestProcess runs the real process: hardening, kill -9, SIGTERM.
func TestProcess(t *testing.T) {
	tool(t, "qemu-io")
	dir := shortDir(t)
	sock := filepath.Join(dir, "c.sock")
	c := &Client{Socket: sock}
	launch := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "VOLUMED_TEST_SOCKET="+sock)
		cmd.Stderr = os.Stderr
		if testing.Verbose() == false {
			cmd.Stderr = nil
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		waitPing(t, c)
		return cmd
	}
	p := launch()
	ctx := t.Context()
	key := secret.Random(64)
	vdir, nbdSock := filepath.Join(dir, "vol"), filepath.Join(dir, "v.sock")
	if _, err := c.Create(ctx, CreateRequest{VolumeID: "vol-9", Dir: vdir, SizeBytes: 16 << 20, Key: key}); err != nil {
		t.Fatal(err)
	}
	req := AttachRequest{VolumeID: "vol-9", Dir: vdir, Socket: nbdSock, Key: key}
	st, err := c.Attach(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Process.Pid))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("core dumps are possible: %s %v", limits, err)
	}
	url := "nbd+unix:///?socket=" + nbdSock
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 1M", "-c", "write -P 0x77 4095 513", url) // no flush but the one at exit
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = p.Process.Wait()

	p = launch()
	req.Anchor = st.Anchor
	if _, err := c.Attach(ctx, req); err != nil {
		t.Fatalf("attach after kill -9 (stale socket in place): %v", err)
	}
	run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 0x5a 1M 1M", "-c", "read -P 0x77 4095 513", "-c", "read -P 0 0 4095", url)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if s, err := p.Process.Wait(); err != nil || !s.Success() {
		t.Errorf("after SIGTERM: %v %v, want success", s, err)
	}
	v, err := block.Open(vdir, block.Options{Key: key, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Abandon()
	b := make([]byte, 4096)
	if _, err := v.ReadAt(b, 1<<20); err != nil || b[0] != 0x5a {
		t.Errorf("after SIGTERM: %#x, %v", b[0], err)
	}
}

func FuzzFrame(f *testing.F) {
	var b bytes.Buffer
	_ = writeFrame(&b, msgAttach, AttachRequest{VolumeID: "vol-1"}, testKey(1))
	f.Add(b.Bytes())
	f.Add([]byte("SDVC"))
	f.Fuzz(func(t *testing.T, p []byte) {
		fr, err := readFrame(bytes.NewReader(p))
		if err != nil {
			return
		}
		if len(fr.body) > maxBody || fr.secret.Len() > maxSecret {
			t.Errorf("frame with a body of %d bytes, a secret of %d", len(fr.body), fr.secret.Len())
		}
		_, _ = decode[AttachRequest](fr)
	})
}

// A volume in an object store: created here, and opened by a daemon elsewhere that has nothing but the store and the key.
func TestObjectStore(t *testing.T) {
	ctx := context.Background()
	place := "dir:" + t.TempDir()
	daemon := func() (*Client, string, func()) {
		dir, err := os.MkdirTemp("", "vd")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		sctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		cfg := Config{ControlSocket: filepath.Join(dir, "c"), ObjectStore: place, FlushRemote: true}
		go func() { done <- Serve(sctx, cfg) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve = %v", err)
			}
		})
		t.Cleanup(stop)
		c := &Client{Socket: cfg.ControlSocket}
		for range 200 {
			if _, err := c.Ping(ctx); err == nil {
				return c, dir, stop
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the daemon does not answer")
		return nil, "", nil
	}
	c, dir, stop := daemon()
	if _, err := c.Create(ctx, CreateRequest{VolumeID: "vol-1", Dir: filepath.Join(dir, "vol-1"), SizeBytes: 16 << 20, Key: testKey(1)}); err != nil {
		t.Fatal(err)
	}
	attach := func(c *Client, dir, volume string) *nbd.Client {
		r := AttachRequest{VolumeID: volume, Dir: filepath.Join(dir, volume), Socket: filepath.Join(dir, volume+".s"), Key: testKey(1)}
		if _, err := c.Attach(ctx, r); err != nil {
			t.Fatal(err)
		}
		d, err := nbd.Dial(ctx, r.Socket, volume)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	use := func(c *Client, dir string) *nbd.Client { return attach(c, dir, "vol-1") }
	d := use(c, dir)
	if _, err := d.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 4096); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	// A snapshot is in the store: a host that has nothing else makes a volume of it.
	pin, err := c.Snapshot(ctx, SnapshotRequest{VolumeID: "vol-1", SnapshotID: "snap-1", Dir: filepath.Join(dir, "snap-1")})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	c, dir, _ = daemon()
	p := make([]byte, 1<<20)
	r := CloneRequest{From: filepath.Join(dir, "snap-1"), FromID: "snap-1", Dir: filepath.Join(dir, "vol-2"), VolumeID: "vol-2", SourceKey: testKey(1), SourceAnchor: pin}
	if _, err := c.Clone(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(ctx, "snap-1", filepath.Join(dir, "snap-1")); err != nil {
		t.Error(err)
	}
	d = attach(c, dir, "vol-2")
	if _, err := d.ReadAt(p, 4096); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{7}, 1<<20)) {
		t.Errorf("the other host reads something else of the clone: %v", err)
	}
	d.Close()
	if _, err := c.Detach(ctx, "vol-2"); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(ctx, "vol-2", filepath.Join(dir, "vol-2")); err != nil {
		t.Error(err)
	}
	d = use(c, dir)
	if _, err := d.ReadAt(p, 4096); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{7}, 1<<20)) {
		t.Errorf("the other host reads something else: %v", err)
	}
	d.Close()
	if _, err := c.Detach(ctx, "vol-1"); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(ctx, "vol-1", filepath.Join(dir, "vol-1")); err != nil {
		t.Error(err)
	}
	_ = filepath.Walk(place[len("dir:"):], func(p string, fi os.FileInfo, err error) error {
		if err == nil && !fi.IsDir() {
			t.Errorf("%s is left in the store", p)
		}
		return nil
	})
}

// TestDaemonStartsLate: what is asked for while the daemon starts waits for it; who only looks is told at once.
func TestDaemonStartsLate(t *testing.T) {
	dir := shortDir(t)
	c := &Client{Socket: filepath.Join(dir, "control.sock")}
	began := time.Now()
	if _, err := c.Ping(t.Context()); !errors.Is(err, os.ErrNotExist) || time.Since(began) > 2*time.Second {
		t.Errorf("Ping without a daemon = %v after %v, want at once that it is not there", err, time.Since(began))
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Create(t.Context(), CreateRequest{Dir: filepath.Join(dir, "v"), VolumeID: "vol-1", SizeBytes: 1 << 20, Key: testKey(7)})
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	start(t, dir)
	if err := <-done; err != nil {
		t.Errorf("Create before the daemon listened: %v", err)
	}
}

// TestNobodyCanReachIt: a daemon whose directory is gone ends, and does not keep keys for nobody.
func TestNobodyCanReachIt(t *testing.T) {
	dir := shortDir(t)
	c, stop := start(t, dir)
	v := filepath.Join(t.TempDir(), "vol")
	if _, err := c.Create(t.Context(), CreateRequest{VolumeID: "vol-1", Dir: v, SizeBytes: 1 << 20, Key: testKey(7)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), AttachRequest{VolumeID: "vol-1", Dir: v, Socket: filepath.Join(dir, "v.sock"), Key: testKey(7)}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.Socket); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if opened, err := block.Open(v, block.Options{Key: testKey(7)}); err == nil { // the daemon let go of it
			opened.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the daemon still holds its volume: %v", err)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
}
