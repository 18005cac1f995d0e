package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// serving is a running `sealdesk volume serve`.
type serving struct {
	cmd *exec.Cmd
	uri string
	out *bufio.Reader // what it says after its address
	err bytes.Buffer
}

func serveVolume(t *testing.T, s *server, volume, socket string, flags ...string) *serving {
	t.Helper()
	v := &serving{cmd: s.command(nil, append([]string{"volume", "serve", volume, "--socket", socket}, flags...)...), uri: "nbd+unix:///?socket=" + socket}
	v.cmd.Stderr = &v.err
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.cmd.Process.Kill() })
	v.out = bufio.NewReader(out)
	line, _ := v.out.ReadString('\n')
	if !strings.Contains(line, v.uri) {
		t.Fatalf("volume serve says %q, want the address %s; %s", line, v.uri, v.err.String())
	}
	return v
}

// interrupt is Ctrl-C, upon which the volume is detached.
func (v *serving) interrupt(t *testing.T) {
	t.Helper()
	_ = v.cmd.Process.Signal(syscall.SIGINT)
	if err := v.cmd.Wait(); err != nil {
		t.Errorf("volume serve ended with %v: %s", err, v.err.String())
	}
}

// TestVolumeServe: an encrypted volume served to this host, by the clients that
// people have, under IAM, KMS and audit like any attach.
func TestVolumeServe(t *testing.T) {
	needs(t, "nbdinfo", "nbdcopy", "fio", "qemu-img")
	s := newServer(t, nil)
	keys, volumes := kms.NewFromConfig(s.config()), ec2.NewFromConfig(s.config())
	key, err := keys.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := volumes.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String(region + "a"), Encrypted: aws.Bool(true), KmsKeyId: key.KeyMetadata.Arn})
	if err != nil {
		t.Fatal(err)
	}
	volume := *made.VolumeId
	state := func(want ec2types.VolumeState) {
		t.Helper()
		eventually(t, time.Minute, volume+" is "+string(want), func() error {
			d, err := volumes.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
			if err == nil && d.Volumes[0].State != want {
				err = fmt.Errorf("it is %s", d.Volumes[0].State)
			}
			return err
		})
	}
	state(ec2types.VolumeStateAvailable)
	dir, err := os.MkdirTemp("", "sdv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "v.sock")

	v := serveVolume(t, s, volume, socket)
	state(ec2types.VolumeStateInUse)
	var info struct {
		Exports []struct {
			Size  int64 `json:"export-size"`
			Flush bool  `json:"can_flush"`
			FUA   bool  `json:"can_fua"`
			Trim  bool  `json:"can_trim"`
			Zero  bool  `json:"can_zero"`
		}
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", v.uri)), &info); err != nil {
		t.Fatal(err)
	}
	if e := info.Exports; len(e) != 1 || e[0].Size != 1<<30 || !e[0].Flush || !e[0].FUA || !e[0].Trim || !e[0].Zero {
		t.Errorf("nbdinfo: %+v, want one export of 1 GiB with flush, FUA, trim and zero", e)
	}

	// A known content goes in and comes out, and cannot be read on the host.
	const size = 64 << 20
	marker := []byte("a-line-that-nobody-may-find-on-the-host\n")
	content := bytes.Repeat(marker, size/2/len(marker)+1)[:size/2]
	random := make([]byte, size/2)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(random)
	content = append(content, random...)
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	if err := os.WriteFile(in, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--flush", in, v.uri)
	read := func() {
		t.Helper()
		run(t, "nbdcopy", v.uri, out)
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := make([]byte, size)
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("what nbdcopy reads is not what it wrote (%v)", err)
		}
	}
	read()

	if help, _ := exec.Command("fio", "--enghelp").CombinedOutput(); strings.Contains(string(help), "nbd") {
		run(t, "fio", "--aux-path="+dir, "--name=v", "--ioengine=nbd", "--uri="+v.uri, "--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512",
			"--offset=512m", "--size=32m", "--iodepth=8", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=64", "--output="+filepath.Join(dir, "fio.txt"))
	} else {
		t.Log("this fio has no nbd engine")
	}
	if got := run(t, "qemu-img", "info", v.uri); !strings.Contains(got, "1 GiB") {
		t.Errorf("qemu-img info: %s, want 1 GiB", got)
	}
	run(t, "qemu-img", "convert", "-O", "qcow2", v.uri, filepath.Join(dir, "copy.qcow2"))
	if got := run(t, "qemu-img", "compare", v.uri, filepath.Join(dir, "copy.qcow2")); !strings.Contains(got, "identical") {
		t.Errorf("qemu-img compare: %s, want identical", got)
	}

	// A second attach is refused, by the AWS error.
	second := s.command(nil, "volume", "serve", volume, "--socket", filepath.Join(dir, "second.sock"))
	if text, err := second.CombinedOutput(); err == nil || !strings.Contains(string(text), "VolumeInUse") {
		t.Errorf("a second serve: %v, %s; want VolumeInUse", err, text)
	}

	v.interrupt(t)
	state(ec2types.VolumeStateAvailable)
	if s.attached() != 0 {
		t.Errorf("volumed holds %d volumes open after the detach, want 0: the key is still in memory", s.attached())
	}
	if text, err := exec.Command("nbdinfo", v.uri).CombinedOutput(); err == nil {
		t.Errorf("the volume is still served after the interrupt: %s", text)
	}
	for _, tool := range []string{"AttachVolume", "Decrypt", "DetachVolume"} {
		if n := s.recorded(t, tool); n == 0 {
			t.Errorf("no %s is on the record", tool)
		}
	}
	_ = filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(path); bytes.Contains(b, marker) {
				t.Errorf("%s holds what was written to the volume", path)
			}
		}
		return nil
	})

	// What was written is there at the next attach, after a restart of everything.
	s.kill()
	s.killVolumed()
	s.start()
	keys, volumes = kms.NewFromConfig(s.config()), ec2.NewFromConfig(s.config())
	v = serveVolume(t, s, volume, socket)
	read()
	v.interrupt(t)
	state(ec2types.VolumeStateAvailable)

	// Without permission, and without the key, nothing is served.
	users := iam.NewFromConfig(s.config())
	if _, err := users.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("nobody")}); err != nil {
		t.Fatal(err)
	}
	ak, err := users.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	nobody := s.command(&aws.Credentials{AccessKeyID: *ak.AccessKey.AccessKeyId, SecretAccessKey: *ak.AccessKey.SecretAccessKey}, "volume", "serve", volume, "--socket", socket)
	if text, err := nobody.CombinedOutput(); err == nil || !strings.Contains(string(text), "not authorized") {
		t.Errorf("serve by a user without permission: %v, %s; want that it is not authorized", err, text)
	}
	if _, err := keys.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	disabled := s.command(nil, "volume", "serve", volume, "--socket", socket)
	if text, err := disabled.CombinedOutput(); err == nil || !strings.Contains(string(text), "disabled") {
		t.Errorf("serve with a disabled key: %v, %s; want that the key is disabled", err, text)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket %s is left over", socket)
	}
}

// recorded is how many successful calls of an operation CloudTrail knows.
func (s *server) recorded(t *testing.T, name string) int {
	t.Helper()
	out, err := cloudtrail.NewFromConfig(s.config()).LookupEvents(ctx, &cloudtrail.LookupEventsInput{
		LookupAttributes: []cttypes.LookupAttribute{{AttributeKey: cttypes.LookupAttributeKeyEventName, AttributeValue: &name}}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range out.Events {
		if !strings.Contains(*e.CloudTrailEvent, `"errorCode"`) {
			n++
		}
	}
	return n
}
