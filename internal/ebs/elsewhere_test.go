package ebs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
)

// Volumes live in an object store. Hosts are lost one after the other, each with its whole disk: what was completed on one is read, copied,
// made volumes of and deleted on the next, until nothing is left in the store.
func TestSnapshotsOfLostHosts(t *testing.T) {
	place := t.TempDir()
	s := apptest.New(t, func(c *app.Config) { c.ObjectStore = "dir:" + place })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	vols := func() *ec2.Client { return ec2.NewFromConfig(s.Config()) }
	dir := func() *ebs.Client { return ebs.NewFromConfig(s.Config()) }
	devices := 'a'
	attach := func(id string) *nbd.Client {
		t.Helper()
		devices++
		inst, err := vols().DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
		must(err)
		_, err = vols().AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: inst.Reservations[0].Instances[0].InstanceId, Device: aws.String("/dev/sd" + string(devices))})
		must(err)
		sockets, _ := filepath.Glob(filepath.Join(s.Dir, "run", "*", id+".sock"))
		if len(sockets) != 1 {
			t.Fatalf("sockets of %s: %v", id, sockets)
		}
		c, err := nbd.Dial(ctx, sockets[0], id)
		must(err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	detach := func(id string) {
		t.Helper()
		_, err := vols().DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id})
		must(err)
	}
	key := func() *string {
		t.Helper()
		k, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
		must(err)
		return k.KeyMetadata.Arn
	}
	data := make([]byte, unit)
	_, _ = rand.Read(data)
	holds := func(id, what string) {
		t.Helper()
		p := make([]byte, unit)
		d := attach(id)
		if _, err := d.ReadAt(p, 700*unit); err != nil || !bytes.Equal(p, data) {
			t.Errorf("%s does not hold what was written (%v)", what, err)
		}
		if _, err := d.ReadAt(p, 701*unit); err != nil || !bytes.Equal(p, make([]byte, unit)) {
			t.Errorf("%s holds more than was written (%v)", what, err)
		}
		detach(id)
	}
	direct := func(id, what string) {
		t.Helper()
		l, err := dir().ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id})
		must(err)
		if len(l.Blocks) != 1 || *l.Blocks[0].BlockIndex != 700 {
			t.Fatalf("blocks of %s: %+v, want 700", what, l.Blocks)
		}
		b, err := dir().GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: l.Blocks[0].BlockIndex, BlockToken: l.Blocks[0].BlockToken})
		must(err)
		defer b.BlockData.Close()
		if p, err := io.ReadAll(b.BlockData); err != nil || !bytes.Equal(p, data) {
			t.Errorf("block 700 of %s is not what was written (%v)", what, err)
		}
	}
	volume := func(in *ec2.CreateVolumeInput) string {
		t.Helper()
		in.AvailabilityZone = aws.String("us-west-2a")
		v, err := vols().CreateVolume(ctx, in)
		must(err)
		return *v.VolumeId
	}
	snapshot := func(id string) string {
		t.Helper()
		n, err := vols().CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &id})
		must(err)
		d, err := vols().DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*n.SnapshotId}})
		must(err)
		if d.Snapshots[0].State != types.SnapshotStateCompleted {
			t.Fatalf("snapshot of %s is %s, want completed", id, d.Snapshots[0].State)
		}
		return *n.SnapshotId
	}
	refuse := func(err error, code string) { t.Helper(); refused(t, err, code) }

	// The first host: a volume with a key and one without.
	mine, other := key(), key()
	v := volume(&ec2.CreateVolumeInput{Size: aws.Int32(1), Encrypted: aws.Bool(true), KmsKeyId: mine})
	d := attach(v)
	_, err := d.WriteAt(data, 700*unit)
	must(err)
	snap := snapshot(v) // of an attached volume, nothing of it flushed
	_, err = d.WriteAt(data, 701*unit)
	must(err)
	plain := volume(&ec2.CreateVolumeInput{Size: aws.Int32(1)})
	d = attach(plain)
	_, err = d.WriteAt(data, 700*unit)
	must(err)
	detach(plain)
	plainSnap := snapshot(plain)

	// What cannot be put into the store is not answered for.
	must(os.Rename(place, place+".away"))
	_, err = vols().CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &v})
	refuse(err, "Unavailable")
	must(os.Rename(place+".away", place))
	started, err := dir().StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	must(err)
	_, err = dir().PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{SnapshotId: started.SnapshotId, BlockIndex: aws.Int32(700), BlockData: bytes.NewReader(data), DataLength: aws.Int32(unit),
		Checksum: sum(data), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256}, ebs.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	must(err)
	_, err = dir().CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: started.SnapshotId, ChangedBlocksCount: aws.Int32(1)})
	must(err)

	s.Move()
	direct(snap, "the snapshot")
	direct(*started.SnapshotId, "the snapshot written block by block")
	c := volume(&ec2.CreateVolumeInput{SnapshotId: &snap, Size: aws.Int32(2), Encrypted: aws.Bool(true), KmsKeyId: other})
	holds(c, "a larger volume under another key")
	p := volume(&ec2.CreateVolumeInput{SnapshotId: &plainSnap})
	holds(p, "a volume of a snapshot without a key")
	cp, err := vols().CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceSnapshotId: &snap, SourceRegion: aws.String(apptest.Region), Encrypted: aws.Bool(true), KmsKeyId: other})
	must(err)
	second := snapshot(c)
	detach(v) // from the host that is gone
	for _, id := range []string{v, plain, p} {
		_, err := vols().DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
		must(err)
	}
	for _, id := range []string{snap, plainSnap, *started.SnapshotId} {
		_, err := vols().DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
		must(err)
	}
	if l, err := s.KMS().ListGrants(ctx, &kms.ListGrantsInput{KeyId: mine}); err != nil || len(l.Grants) != 0 {
		t.Errorf("grants of the first key: %+v, %v; want none", l, err)
	}

	// The key of the first volume is of no use to what was made of it under another one.
	_, err = s.KMS().ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: mine, PendingWindowInDays: aws.Int32(7)})
	must(err)
	s.Move()
	direct(*cp.SnapshotId, "the copy")
	direct(second, "the snapshot of the clone")
	n := volume(&ec2.CreateVolumeInput{SnapshotId: cp.SnapshotId})
	holds(n, "a volume of the copy")
	holds(c, "the clone")
	for _, id := range []string{n, c} {
		_, err := vols().DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
		must(err)
	}
	for _, id := range []string{*cp.SnapshotId, second} {
		_, err := vols().DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
		must(err)
	}
	must(filepath.WalkDir(place, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("left in the store: %s", path)
		}
		return err
	}))
}
