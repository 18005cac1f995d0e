package ec2

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// realPlane runs volumed in this process; kill ends it, the next Ensure starts another.
func realPlane(t *testing.T, run string) (p *VolumedPlane, kill func()) {
	control := filepath.Join(run, "control")
	var cancel context.CancelFunc
	done := make(chan error, 1)
	p = &VolumedPlane{Client: &volumed.Client{Socket: control}}
	p.Ensure = func(ctx context.Context) error {
		if _, err := p.Client.Ping(ctx); err == nil {
			return nil
		}
		var serve context.Context
		serve, cancel = context.WithCancel(context.Background())
		go func() { done <- volumed.Serve(serve, volumed.Config{ControlSocket: control}) }()
		for range 200 {
			if _, err := p.Client.Ping(ctx); err == nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Error("volumed does not answer")
		return nil
	}
	kill = func() {
		if cancel != nil {
			cancel()
			<-done
			cancel = nil
		}
	}
	t.Cleanup(kill)
	return p, kill
}

func TestRealDataPlane(t *testing.T) {
	for _, tool := range []string{"nbdcopy", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install libnbd-bin qemu-utils)", tool)
		}
	}
	run, err := os.MkdirTemp("/tmp", "ec2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	p, kill := realPlane(t, run)
	e := newEnv(t, func(c *Config) { c.Plane, c.SocketDir = p, run })
	kmsKey := e.kms.symmetric()
	in := encryptedVolume(kmsKey)
	in.Size = aws.Int32(1)
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", in).VolumeId
	attach := func(id string) string {
		t.Helper()
		must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
		x, err := e.s.Export(account, region, id)
		if err != nil || !x.Attached {
			t.Fatalf("Export = %+v, %v; want attached", x, err)
		}
		return "nbd+unix:///" + x.Name + "?socket=" + x.Socket
	}
	detach := func(id string) {
		t.Helper()
		must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
	}
	exe := func(name string, arg ...string) {
		t.Helper()
		if out, err := exec.Command(name, arg...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, arg, err, out)
		}
	}
	disk := filepath.Join(run, "disk")
	data := make([]byte, 1<<30)
	_, _ = rand.Read(data[:8<<20])
	copy(data[100<<20:], "canary canary canary")
	if err := os.WriteFile(disk, data, 0o600); err != nil {
		t.Fatal(err)
	}
	same := func(uri string, size int) {
		t.Helper()
		back := filepath.Join(run, "back")
		exe("nbdcopy", uri, back)
		got, err := os.ReadFile(back)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != size || !bytes.Equal(got[:len(data)], data) {
			t.Errorf("%s does not hold what was written (%d bytes, want %d)", uri, len(got), size)
		}
	}
	exe("nbdcopy", "--flush", disk, attach(id))

	// The data plane dies: the key comes anew from KMS and the data are there.
	kill()
	e.s.Reconcile(context.Background())
	x, err := e.s.Export(account, region, id)
	if err != nil || !x.Attached {
		t.Fatalf("after volumed died: Export = %+v, %v; want attached again", x, err)
	}
	snap := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: aws.String(id)})
	detach(id)
	kill()
	must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(2)})
	same(attach(id), 2<<30)
	detach(id)

	// Nothing of it is readable on disk.
	err = filepath.Walk(filepath.Join(e.dir, "volumes"), func(path string, fi os.FileInfo, err error) error {
		if err != nil || fi.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("canary")) || bytes.Contains(b, data[1<<20:1<<20+32]) {
			t.Errorf("%s holds plaintext", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	// An old copy of the volume put back is refused.
	dir := e.s.dir(e.volume(id))
	old := filepath.Join(run, "old")
	exe("cp", "-a", dir, old)
	attach(id)
	detach(id)
	exe("rm", "-r", dir)
	exe("cp", "-a", old, dir)
	e.refused(e.person(), "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")}, "IncorrectState", "old copy was put back")

	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the deleted volume's directory: %v, want none", err)
	}
	r := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: snap.SnapshotId})
	must[ec2.DeleteSnapshotOutput](e, "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	same(attach(*r.VolumeId), 1<<30)
	detach(*r.VolumeId)
	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: r.VolumeId})
	e.s.Reconcile(context.Background())
	e.empty("at the end")
	if left, _ := os.ReadDir(filepath.Join(e.dir, "volumes")); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
}
