package process

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// TestVolumeImages: an image goes into an encrypted volume and comes out again; every block of the volume is checked on demand, and
// a byte that was changed on the host is found.
func TestVolumeImages(t *testing.T) {
	needs(t, "qemu-img")
	s := newServer(t, nil)
	volumes := ec2.NewFromConfig(s.config())
	made, err := volumes.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String(region + "a"), Encrypted: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	volume := *made.VolumeId
	available := func() {
		t.Helper()
		eventually(t, time.Minute, volume+" is available", func() error {
			d, err := volumes.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
			if err == nil && d.Volumes[0].State != ec2types.VolumeStateAvailable {
				t.Logf("it is %s", d.Volumes[0].State)
				return os.ErrDeadlineExceeded
			}
			return err
		})
	}
	available()
	dir := t.TempDir()
	raw, image, back := filepath.Join(dir, "raw"), filepath.Join(dir, "image.qcow2"), filepath.Join(dir, "back.raw")
	content := make([]byte, 24<<20)
	random := rand.NewChaCha8([32]byte{2})
	_, _ = random.Read(content)
	clear(content[8<<20 : 16<<20])
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
	tool := func(wantOK bool, args ...string) string {
		t.Helper()
		out, err := s.command(nil, append([]string{"volume"}, args...)...).CombinedOutput()
		if (err == nil) != wantOK {
			t.Fatalf("sealdesk volume %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	tool(true, "import", image, volume)
	available()
	if out := tool(true, "check", volume); !strings.Contains(out, ", 0 damaged") {
		t.Errorf("check says %s", out)
	}
	tool(true, "export", volume, back, "--format", "raw")
	available()
	got, err := os.ReadFile(back)
	if err != nil || len(got) != 1<<30 || !bytes.Equal(got[:len(content)], content) || len(bytes.Trim(got[len(content):], "\x00")) != 0 {
		t.Errorf("what comes out is not what went in: %d bytes, %v", len(got), err)
	}
	if st, err := os.Stat(back); err == nil && st.Mode().Perm() != 0o600 {
		t.Errorf("the image in the clear has mode %v", st.Mode())
	}
	if out := tool(false, "export", volume, back); !strings.Contains(out, "is there already") {
		t.Errorf("export over a file says %s", out)
	}

	segs, _ := filepath.Glob(filepath.Join(s.data, "volumes", volume, "seg-*"))
	if len(segs) == 0 {
		segs, _ = filepath.Glob(filepath.Join(s.data, "volumes", "*", "seg-*"))
	}
	if len(segs) == 0 {
		t.Fatal("no segment of the volume found")
	}
	f, err := os.OpenFile(segs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 5000); err != nil { // in the first block of the first group
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, 5000); err != nil {
		t.Fatal(err)
	}
	if out := tool(false, "check", volume); !strings.Contains(out, "damaged: 4096 bytes at ") || !strings.Contains(out, ", 4096 damaged") {
		t.Errorf("check of a volume with a flipped bit says %s", out)
	}
	available()
}
