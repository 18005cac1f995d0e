package ebs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
)

func TestMain(m *testing.M) { apptest.Main(m) }

const unit = 512 << 10

func sum(p []byte) *string {
	h := sha256.Sum256(p)
	return aws.String(base64.StdEncoding.EncodeToString(h[:]))
}

func refused(t *testing.T, err error, code string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// The whole way of a backup program: read a snapshot's blocks, find what changed, write a
// snapshot from outside, and make a volume of it.
func TestDirectAPIs(t *testing.T) {
	s := apptest.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	vols, dir, keys := ec2.NewFromConfig(s.Config()), ebs.NewFromConfig(s.Config()), s.KMS()
	key, err := keys.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	inst, err := vols.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	instance := inst.Reservations[0].Instances[0].InstanceId
	attach := func(id string) *nbd.Client {
		t.Helper()
		if _, err := vols.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: instance, Device: aws.String("/dev/sdf")}); err != nil {
			t.Fatal(err)
		}
		sockets, _ := filepath.Glob(filepath.Join(s.Dir, "run", "*", id+".sock"))
		if len(sockets) != 1 {
			t.Fatalf("sockets of %s: %v", id, sockets)
		}
		c, err := nbd.Dial(ctx, sockets[0], id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	detach := func(id string) {
		t.Helper()
		if _, err := vols.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := vols.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1), Encrypted: aws.Bool(true), KmsKeyId: key.KeyMetadata.KeyId})
	if err != nil {
		t.Fatal(err)
	}
	disk := attach(*v.VolumeId)
	one, two := make([]byte, unit), make([]byte, unit)
	_, _ = rand.Read(one)
	_, _ = rand.Read(two)
	write := func(p []byte, block int64) {
		t.Helper()
		if _, err := disk.WriteAt(p, block*unit); err != nil {
			t.Fatal(err)
		}
	}
	snap := func() string {
		t.Helper()
		n, err := vols.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: v.VolumeId})
		if err != nil {
			t.Fatal(err)
		}
		return *n.SnapshotId
	}
	write(one, 3)
	write(one, 700)
	first := snap()
	write(two, 700)
	write(two, 1000)
	second := snap()
	_ = disk.Close()
	detach(*v.VolumeId)

	list, err := dir.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &first})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Blocks) != 2 || *list.Blocks[0].BlockIndex != 3 || *list.Blocks[1].BlockIndex != 700 || *list.BlockSize != unit || *list.VolumeSize != 1 {
		t.Fatalf("ListSnapshotBlocks = %+v, want blocks 3 and 700", list)
	}
	get := func(id string, b int32, token *string) []byte {
		t.Helper()
		out, err := dir.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: &b, BlockToken: token})
		if err != nil {
			t.Fatal(err)
		}
		defer out.BlockData.Close()
		p, err := io.ReadAll(out.BlockData)
		if err != nil || *out.Checksum != *sum(p) || *out.DataLength != unit {
			t.Errorf("block %d: %v, checksum %s of %s, length %d", b, err, *out.Checksum, *sum(p), *out.DataLength)
		}
		return p
	}
	if !bytes.Equal(get(first, 3, list.Blocks[0].BlockToken), one) || !bytes.Equal(get(first, 700, list.Blocks[1].BlockToken), one) {
		t.Error("the blocks of the first snapshot are not what was written")
	}
	_, err = dir.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &first, BlockIndex: aws.Int32(4), BlockToken: list.Blocks[0].BlockToken})
	refused(t, err, "ValidationException")
	_, err = dir.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &second, BlockIndex: aws.Int32(3), BlockToken: list.Blocks[0].BlockToken})
	refused(t, err, "ValidationException")
	_, err = dir.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: aws.String("snap-0123456789abcdef0")})
	refused(t, err, "ResourceNotFoundException")
	ch, err := dir.ListChangedBlocks(ctx, &ebs.ListChangedBlocksInput{FirstSnapshotId: &first, SecondSnapshotId: &second})
	if err != nil {
		t.Fatal(err)
	}
	if len(ch.ChangedBlocks) != 2 || *ch.ChangedBlocks[0].BlockIndex != 700 || *ch.ChangedBlocks[1].BlockIndex != 1000 || ch.ChangedBlocks[0].FirstBlockToken == nil || ch.ChangedBlocks[1].FirstBlockToken != nil {
		t.Fatalf("ListChangedBlocks = %+v, want 700 and, new, 1000", ch.ChangedBlocks)
	}
	if !bytes.Equal(get(second, 1000, ch.ChangedBlocks[1].SecondBlockToken), two) {
		t.Error("the changed block is not what was written")
	}

	// A snapshot from outside, on top of the first one.
	start := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ParentSnapshotId: &first, ClientToken: aws.String("once"), Tags: []types.Tag{{Key: aws.String("from"), Value: aws.String("outside")}}}
	st, err := dir.StartSnapshot(ctx, start)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := dir.StartSnapshot(ctx, start); err != nil || *again.SnapshotId != *st.SnapshotId {
		t.Errorf("StartSnapshot with the same token = %+v, %v; want %s", again, err, *st.SnapshotId)
	}
	if st.Status != types.StatusPending || aws.ToString(st.KmsKeyArn) != *key.KeyMetadata.Arn {
		t.Errorf("StartSnapshot = %+v, want pending under the parent's key", st)
	}
	put := func(b int32, p []byte, check *string) error {
		_, err := dir.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{SnapshotId: st.SnapshotId, BlockIndex: &b, BlockData: bytes.NewReader(p), DataLength: aws.Int32(int32(len(p))),
			Checksum: check, ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256}, ebs.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
		return err
	}
	if err := put(5, two, sum(two)); err != nil {
		t.Fatal(err)
	}
	if err := put(2047, one, sum(one)); err != nil {
		t.Fatal(err)
	}
	refused(t, put(6, two, sum(one)), "ValidationException")
	refused(t, put(2048, two, sum(two)), "ValidationException")
	refused(t, put(6, two[:4096], sum(two[:4096])), "ValidationException")
	_, err = vols.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: st.SnapshotId})
	refused(t, err, "IncorrectState")
	_, err = dir.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: st.SnapshotId, ChangedBlocksCount: aws.Int32(3)})
	refused(t, err, "ValidationException")
	hTwo, hOne := sha256.Sum256(two), sha256.Sum256(one)
	complete := &ebs.CompleteSnapshotInput{SnapshotId: st.SnapshotId, ChangedBlocksCount: aws.Int32(2), ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256,
		ChecksumAggregationMethod: types.ChecksumAggregationMethodChecksumAggregationLinear, Checksum: sum(append(hOne[:], hTwo[:]...))}
	_, err = dir.CompleteSnapshot(ctx, complete)
	refused(t, err, "ValidationException")
	complete.Checksum = sum(append(hTwo[:], hOne[:]...))
	done, err := dir.CompleteSnapshot(ctx, complete)
	if err != nil || done.Status != types.StatusCompleted {
		t.Fatalf("CompleteSnapshot = %+v, %v; want completed", done, err)
	}
	refused(t, put(6, two, sum(two)), "ValidationException")
	r, err := vols.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: st.SnapshotId})
	if err != nil {
		t.Fatal(err)
	}
	disk = attach(*r.VolumeId)
	got := make([]byte, unit)
	for b, want := range map[int64][]byte{3: one, 5: two, 700: one, 1000: make([]byte, unit), 2047: one} {
		if _, err := disk.ReadAt(got, b*unit); err != nil || !bytes.Equal(got, want) {
			t.Errorf("block %d of the restored volume: %v, equal %v", b, err, bytes.Equal(got, want))
		}
	}
	_ = disk.Close()
	detach(*r.VolumeId)

	// A disabled key ends reading once the session has; here at once, for a snapshot
	// that was not read yet.
	if _, err := keys.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	_, err = dir.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: st.SnapshotId})
	refused(t, err, "ValidationException")
	if _, err := keys.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}

	for _, id := range []*string{v.VolumeId, r.VolumeId} {
		if _, err := vols.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: id}); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []*string{&first, &second, st.SnapshotId} {
		if _, err := vols.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: id}); err != nil {
			t.Error(err)
		}
	}
	g, err := keys.ListGrants(ctx, &kms.ListGrantsInput{KeyId: key.KeyMetadata.KeyId})
	if err != nil || len(g.Grants) != 0 {
		t.Errorf("grants at the end: %+v, %v; want none", g, err)
	}
	left, err := vols.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []ec2types.Filter{{Name: aws.String("status"), Values: []string{"*"}}}})
	if err != nil || len(left.Snapshots) != 0 {
		t.Errorf("snapshots at the end: %+v, %v; want none", left, err)
	}
}
