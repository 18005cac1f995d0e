package ec2

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

func TestSnapshots(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey, otherKey := e.kms.symmetric(), e.kms.symmetric()
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	blank := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: aws.String(id), Description: aws.String("never attached")})
	detach := func(id string) {
		t.Helper()
		must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
	}
	inst := aws.String(e.instance())
	at := func(id, dev string) *fakeServed {
		t.Helper()
		must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: inst, Device: aws.String(dev)})
		return e.plane.served[id]
	}
	at(id, "/dev/sdf").place.Content = "precious"
	snap := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: aws.String(id), TagSpecifications: []types.TagSpecification{
		{ResourceType: "snapshot", Tags: []types.Tag{{Key: aws.String("n"), Value: aws.String("1")}}}}})
	if snap.State != types.SnapshotStatePending || !*snap.Encrypted || *snap.KmsKeyId != kmsKey || *snap.VolumeSize != 8 {
		t.Errorf("CreateSnapshot = %+v, want pending under %s", snap, kmsKey)
	}
	if *snap.DataEncryptionKeyId == "" || *snap.DataEncryptionKeyId != *blank.DataEncryptionKeyId {
		t.Errorf("the data keys of two snapshots of a volume are named %s and %s, want one name", *snap.DataEncryptionKeyId, *blank.DataEncryptionKeyId)
	}
	detach(id)
	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	if g := e.kms.grantList(); len(g) != 0 {
		t.Errorf("grants after DeleteVolume: %d, want none", len(g))
	}

	// Of the snapshot, with its own key, after the volume is gone.
	restore := &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: snap.SnapshotId, Size: aws.Int32(10)}
	smaller := *restore
	smaller.Size = aws.Int32(7)
	e.refused(e.person(), "CreateVolume", &smaller, "InvalidParameterValue", "smaller than snapshot")
	restore.Encrypted = aws.Bool(false) // what clients send by default; it does not undo the snapshot's encryption
	e.kms.denied["ReEncryptFrom"] = true
	e.refused(e.person(), "CreateVolume", restore, "UnauthorizedOperation", "ReEncryptFrom")
	delete(e.kms.denied, "ReEncryptFrom")
	if g := e.kms.grantList(); len(g) != 0 {
		t.Errorf("grants after a refused restore: %d, want none", len(g))
	}
	r := must[ec2.CreateVolumeOutput](e, "CreateVolume", restore)
	if *r.KmsKeyId != kmsKey || *r.Size != 10 {
		t.Errorf("restored volume = %+v, want 10 GiB under %s", r, kmsKey)
	}
	// The snapshot is deleted before the volume was attached for the first time.
	must[ec2.DeleteSnapshotOutput](e, "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	e.refused(e.person(), "DescribeSnapshots", &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}, "InvalidSnapshot.NotFound", *snap.SnapshotId)
	if sv := at(*r.VolumeId, "/dev/sdf"); sv.place.Content != "precious" || sv.place.Size != 10<<30 {
		t.Errorf("restored content %q of %d bytes, want precious of 10 GiB", sv.place.Content, sv.place.Size)
	}
	e.s.Reconcile(context.Background())
	e.plane.mu.Lock()
	if len(e.plane.places) != 1 {
		t.Errorf("%d places on disk, want the restored volume's alone", len(e.plane.places))
	}
	e.plane.mu.Unlock()
	// A detached volume, a copy under another key, and a volume of the copy.
	detach(*r.VolumeId)
	second := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: r.VolumeId})
	e.kms.setState(otherKey, kmstypes.KeyStateDisabled)
	cp := &ec2.CopySnapshotInput{SourceRegion: aws.String(region), SourceSnapshotId: second.SnapshotId, KmsKeyId: aws.String(otherKey)}
	e.refused(e.person(), "CopySnapshot", cp, "InvalidKMSKey.InvalidState", "DisabledException")
	e.kms.setState(otherKey, kmstypes.KeyStateEnabled)
	e.kms.denied["Decrypt"] = true
	e.refused(e.person(), "CopySnapshot", cp, "UnauthorizedOperation", "Decrypt")
	delete(e.kms.denied, "Decrypt")
	if n := len(e.kms.grantList()); n != 1 {
		t.Errorf("%d grants after a refused copy, want the volume's", n)
	}
	copied := must[ec2.CopySnapshotOutput](e, "CopySnapshot", cp)
	ds := must[ec2.DescribeSnapshotsOutput](e, "DescribeSnapshots", &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*copied.SnapshotId}}).Snapshots[0]
	if *ds.Description != "" {
		t.Errorf("a copy without a description is described as %q", *ds.Description)
	}
	if *ds.DataEncryptionKeyId == *second.DataEncryptionKeyId {
		t.Error("the copy's data key has the name of the source's")
	}
	if *ds.KmsKeyId != otherKey || ds.State != types.SnapshotStateCompleted {
		t.Errorf("copy = %+v, want completed under %s", ds, otherKey)
	}
	third := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: copied.SnapshotId})
	if sv := at(*third.VolumeId, "/dev/sdg"); sv.place.Content != "precious" {
		t.Errorf("content of the copy's volume %q, want precious", sv.place.Content)
	}
	// A blank snapshot makes a blank volume.
	fromBlank := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: blank.SnapshotId})
	if sv := at(*fromBlank.VolumeId, "/dev/sdh"); sv.place.Content != "image:" {
		t.Errorf("content %q, want none", sv.place.Content)
	}
	for _, v := range []*string{third.VolumeId, fromBlank.VolumeId} {
		detach(*v)
		must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: v})
	}
	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: r.VolumeId})
	for _, n := range []*string{blank.SnapshotId, second.SnapshotId, copied.SnapshotId} {
		must[ec2.DeleteSnapshotOutput](e, "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: n})
	}
	e.empty("at the end")
}

func TestSharedSnapshots(t *testing.T) {
	e := newEnv(t, nil)
	other := e.person()
	other.Account, other.Principal.Account = "999988887777", "999988887777"
	plain := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)})
	snap := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: plain.VolumeId})
	e.refused(other, "DescribeSnapshots", &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}, "InvalidSnapshot.NotFound", *snap.SnapshotId)
	modify := func(id *string, op types.OperationType, who ...string) *ec2.ModifySnapshotAttributeInput {
		return &ec2.ModifySnapshotAttributeInput{SnapshotId: id, Attribute: "createVolumePermission", OperationType: op, UserIds: who}
	}
	must[ec2.ModifySnapshotAttributeOutput](e, "ModifySnapshotAttribute", modify(snap.SnapshotId, "add", other.Account))
	out, err := call[ec2.DescribeSnapshotsOutput](e, other, "DescribeSnapshots", &ec2.DescribeSnapshotsInput{})
	if err != nil || len(out.Snapshots) != 1 {
		t.Errorf("DescribeSnapshots by the other account = %+v, %v; want the shared one", out, err)
	}
	if _, err := e.do(other, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: snap.SnapshotId}); err != nil {
		t.Errorf("CreateVolume of a shared snapshot: %v", err)
	}
	e.refused(other, "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId}, "InvalidSnapshot.NotFound", *snap.SnapshotId)
	must[ec2.ModifySnapshotAttributeOutput](e, "ModifySnapshotAttribute", modify(snap.SnapshotId, "remove", other.Account))
	e.refused(other, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), SnapshotId: snap.SnapshotId}, "InvalidSnapshot.NotFound", *snap.SnapshotId)
	e.refused(e.person(), "ModifySnapshotAttribute", modify(snap.SnapshotId, "add", "x"), "InvalidUserID.Malformed", "x")
	e.refused(e.person(), "ModifySnapshotAttribute", modify(snap.SnapshotId, "add"), "InvalidParameterCombination", "No attributes specified.")
	e.refused(e.person(), "ModifySnapshotAttribute", &ec2.ModifySnapshotAttributeInput{SnapshotId: snap.SnapshotId, OperationType: types.OperationTypeAdd, GroupNames: []string{"everyone"}},
		"InvalidAMIAttributeItemValue", `Invalid attribute item value "everyone" for userGroup item type.`)
	e.refused(e.person(), "ModifySnapshotAttribute", modify(aws.String("snapshot-abcd1234"), "add", "444455556666"), "InvalidParameterValue", "Value (snapshot-abcd1234) for parameter snapshotId is invalid. Expected: 'snap-...'.")
	e.refused(e.person(), "ModifySnapshotAttribute", modify(aws.String("snap-banana"), "add", "444455556666"), "InvalidSnapshotID.Malformed", "snap-banana")
	e.refused(e.person(), "ModifySnapshotAttribute", modify(aws.String(""), "add", "444455556666"), "InvalidParameterValue", "Value () for parameter snapshotId is invalid. Parameter may not be null or empty")
	tiers := must[ec2.DescribeSnapshotTierStatusOutput](e, "DescribeSnapshotTierStatus", &ec2.DescribeSnapshotTierStatusInput{Filters: []types.Filter{{Name: aws.String("snapshot-id"), Values: []string{*snap.SnapshotId}}}})
	if len(tiers.SnapshotTierStatuses) != 1 || tiers.SnapshotTierStatuses[0].StorageTier != types.StorageTierStandard || *tiers.SnapshotTierStatuses[0].VolumeId != *snap.VolumeId {
		t.Errorf("DescribeSnapshotTierStatus = %+v, want the snapshot in the standard tier", tiers.SnapshotTierStatuses)
	}

	sealed := must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(""))
	bad := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: sealed.VolumeId})
	e.refused(e.person(), "ModifySnapshotAttribute", modify(bad.SnapshotId, "add", other.Account), "OperationNotPermitted", "default key")
	e.refused(e.person(), "ModifySnapshotAttribute", modify(bad.SnapshotId, "add", "all"), "OperationNotPermitted", "publicly")
}

func TestModifyVolume(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey := e.kms.symmetric()
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	e.refused(e.person(), "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(7)}, "InvalidParameterValue", "smaller")
	m := must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(16), Iops: aws.Int32(4000)}).VolumeModification
	if m.ModificationState != types.VolumeModificationStateModifying || *m.OriginalSize != 8 || *m.TargetSize != 16 || *m.TargetIops != 4000 || *m.TargetThroughput != 125 {
		t.Errorf("ModifyVolume = %+v, want modifying from 8 to 16 GiB with 4000 iops", m)
	}
	must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
	must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(20)})
	if n := e.plane.served[id].place.Size; n != 20<<30 {
		t.Errorf("the attached volume has %d bytes, want 20 GiB", n)
	}
	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
	e.kms.setState(kmsKey, kmstypes.KeyStateDisabled)
	m = must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(30)}).VolumeModification
	if m.ModificationState != types.VolumeModificationStateFailed || !strings.Contains(*m.StatusMessage, "DisabledException") || e.volume(id).SizeGiB != 20 {
		t.Errorf("ModifyVolume under a disabled key = %+v, size %d; want failed with the reason, 20 GiB", m, e.volume(id).SizeGiB)
	}
	e.kms.setState(kmsKey, kmstypes.KeyStateEnabled)
	must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), VolumeType: types.VolumeTypeGp2})
	e.refused(e.person(), "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(40)}, "VolumeModificationRateExceeded", "4 modifications")
	e.clock.Advance(25 * time.Hour)
	must[ec2.ModifyVolumeOutput](e, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(40)})
	d := must[ec2.DescribeVolumesModificationsOutput](e, "DescribeVolumesModifications", &ec2.DescribeVolumesModificationsInput{Filters: []types.Filter{{Name: aws.String("modification-state"), Values: []string{"completed"}}}})
	if len(d.VolumesModifications) != 1 || *d.VolumesModifications[0].TargetSize != 40 {
		t.Errorf("DescribeVolumesModifications = %+v, want the last one", d.VolumesModifications)
	}
	must[ec2.ModifyVolumeAttributeOutput](e, "ModifyVolumeAttribute", &ec2.ModifyVolumeAttributeInput{VolumeId: aws.String(id), AutoEnableIO: &types.AttributeBooleanValue{Value: aws.Bool(true)}})
	if a := must[ec2.DescribeVolumeAttributeOutput](e, "DescribeVolumeAttribute", &ec2.DescribeVolumeAttributeInput{VolumeId: aws.String(id), Attribute: "autoEnableIO"}); !*a.AutoEnableIO.Value {
		t.Error("autoEnableIO is false after it was set")
	}
}

func TestFiltersAndPages(t *testing.T) {
	e := newEnv(t, nil)
	tag := func(k, v string) []types.TagSpecification {
		return []types.TagSpecification{{ResourceType: "volume", Tags: []types.Tag{{Key: aws.String(k), Value: aws.String(v)}}}}
	}
	for i := range 12 {
		in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String([]string{"us-west-2a", "us-west-2b"}[i%2]), Size: aws.Int32(int32(1 + i)), TagSpecifications: tag("Name", "disk-"+string(rune('a'+i)))}
		must[ec2.CreateVolumeOutput](e, "CreateVolume", in)
	}
	count := func(name string, values ...string) int {
		t.Helper()
		return len(must[ec2.DescribeVolumesOutput](e, "DescribeVolumes", &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String(name), Values: values}}}).Volumes)
	}
	for _, tt := range []struct {
		name   string
		values []string
		want   int
	}{
		{"tag:Name", []string{"disk-a"}, 1}, {"tag:Name", []string{"disk-?"}, 12}, {"tag:Name", []string{"*-[ab]"}, 0}, {"tag:name", []string{"*"}, 0}, {"tag-key", []string{"Name"}, 12}, {"tag-value", []string{"disk-[ab]", "disk-c"}, 1},
		{"availability-zone", []string{"us-west-2b"}, 6}, {"size", []string{"3", "4"}, 2}, {"encrypted", []string{"false"}, 12}, {"encrypted", []string{"true"}, 0},
		{"status", []string{"available", "in-use"}, 12}, {"attachment.instance-id", []string{"*"}, 0}, {"volume-type", []string{"gp*"}, 12}, {"operator.managed", []string{"false"}, 12},
		{"create-time", []string{"2026-11-24T*"}, 12},
	} {
		if n := count(tt.name, tt.values...); n != tt.want {
			t.Errorf("filter %s=%v finds %d, want %d", tt.name, tt.values, n, tt.want)
		}
	}
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("colour"), Values: []string{"red"}}}}, "InvalidParameterValue", "'colour'")
	seen := map[string]bool{}
	in := &ec2.DescribeVolumesInput{MaxResults: aws.Int32(5)}
	pages := 0
	for {
		out := must[ec2.DescribeVolumesOutput](e, "DescribeVolumes", in)
		pages++
		for _, v := range out.Volumes {
			if seen[*v.VolumeId] {
				t.Errorf("volume %s on two pages", *v.VolumeId)
			}
			seen[*v.VolumeId] = true
		}
		if out.NextToken == nil {
			break
		}
		in.NextToken = out.NextToken
	}
	if len(seen) != 12 || pages != 3 {
		t.Errorf("%d volumes on %d pages, want 12 on 3", len(seen), pages)
	}
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{NextToken: aws.String("bm9uc2Vuc2U")}, "InvalidParameterValue", "pagination token")
	e.refused(e.person(), "DescribeSnapshots", &ec2.DescribeSnapshotsInput{NextToken: in.NextToken}, "InvalidParameterValue", "pagination token")
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{MaxResults: aws.Int32(4)}, "InvalidParameterValue", "maxResults")
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{MaxResults: aws.Int32(5), VolumeIds: []string{"vol-0123456789abcdef0"}}, "InvalidParameterCombination", "volumeIds")
}

func TestTags(t *testing.T) {
	e := newEnv(t, nil)
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)}).VolumeId
	inst := e.instance()
	must[ec2.CreateTagsOutput](e, "CreateTags", &ec2.CreateTagsInput{Resources: []string{id, inst}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("2")}}})
	if d := must[ec2.DescribeTagsOutput](e, "DescribeTags", &ec2.DescribeTagsInput{}); len(d.Tags) != 4 {
		t.Errorf("DescribeTags = %d tags, want 4", len(d.Tags))
	}
	must[ec2.DeleteTagsOutput](e, "DeleteTags", &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("other")}, {Key: aws.String("b")}}})
	d := must[ec2.DescribeTagsOutput](e, "DescribeTags", &ec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("resource-type"), Values: []string{"volume"}}}})
	if len(d.Tags) != 1 || *d.Tags[0].Key != "a" {
		t.Errorf("tags of the volume = %+v, want a alone", d.Tags)
	}
	e.refused(e.person(), "CreateTags", &ec2.CreateTagsInput{Resources: []string{"vol-0123456789abcdef0"}, Tags: []types.Tag{{Key: aws.String("a")}}}, "InvalidVolume.NotFound", "vol-0123456789abcdef0")
	e.refused(e.person(), "CreateTags", &ec2.CreateTagsInput{Resources: []string{"banana"}, Tags: []types.Tag{{Key: aws.String("a")}}}, "InvalidID", "banana")
	e.refused(e.person(), "CreateTags", &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("AWS:x")}}}, "InvalidParameterValue", "reserved")
	var many []types.Tag
	for i := range 51 {
		many = append(many, types.Tag{Key: aws.String(strings.Repeat("k", 1+i))})
	}
	e.refused(e.person(), "CreateTags", &ec2.CreateTagsInput{Resources: []string{id}, Tags: many}, "TagLimitExceeded", "50")
}

// Every operation of EC2 that takes DryRun answers it, and does nothing.
func TestDryRun(t *testing.T) {
	e := newEnv(t, nil)
	for name, o := range e.ops {
		in := reflect.New(o.In)
		f := in.Elem().FieldByName("DryRun")
		if !f.IsValid() {
			if !o.Internal && o.Service == "ec2" {
				t.Errorf("%s has no DryRun", name)
			}
			continue
		}
		f.Set(reflect.ValueOf(aws.Bool(true)))
		_, err := o.Run(context.Background(), e.store.Snapshot(), e.person(), in.Interface())
		var ae smithy.APIError
		if !errors.As(err, &ae) || ae.ErrorCode() != "DryRunOperation" {
			t.Errorf("%s with DryRun = %v, want DryRunOperation", name, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	e := newEnv(t, nil)
	z := must[ec2.DescribeAvailabilityZonesOutput](e, "DescribeAvailabilityZones", &ec2.DescribeAvailabilityZonesInput{}).AvailabilityZones
	if len(z) != 3 || *z[0].ZoneName != "us-west-2a" || *z[1].ZoneId != "usw2-az2" {
		t.Errorf("zones = %+v, want us-west-2a, b and c", z)
	}
	vpc := *must[ec2.DescribeVpcsOutput](e, "DescribeVpcs", &ec2.DescribeVpcsInput{Filters: []types.Filter{{Name: aws.String("is-default"), Values: []string{"true"}}}}).Vpcs[0].VpcId
	sub := must[ec2.DescribeSubnetsOutput](e, "DescribeSubnets", &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{vpc}}}}).Subnets
	if len(sub) != 3 || *sub[0].AvailabilityZone == *sub[1].AvailabilityZone || *sub[0].CidrBlock == *sub[2].CidrBlock {
		t.Errorf("subnets = %+v, want three in three zones", sub)
	}
	support := must[ec2.DescribeVpcAttributeOutput](e, "DescribeVpcAttribute", &ec2.DescribeVpcAttributeInput{VpcId: &vpc, Attribute: types.VpcAttributeNameEnableDnsSupport})
	if support.EnableDnsSupport == nil || *support.EnableDnsSupport.Value || support.EnableDnsHostnames != nil {
		t.Errorf("DescribeVpcAttribute = %+v, want enableDnsSupport alone, false: nothing resolves names", support)
	}
	e.refused(e.person(), "DescribeVpcAttribute", &ec2.DescribeVpcAttributeInput{VpcId: aws.String("vpc-12345678"), Attribute: types.VpcAttributeNameEnableDnsSupport}, "InvalidVpcID.NotFound", "vpc-12345678")
	e.refused(e.person(), "DescribeSubnets", &ec2.DescribeSubnetsInput{SubnetIds: []string{"subnet-0123456789abcdef0"}}, "InvalidSubnetID.NotFound", "subnet-0123456789abcdef0")
	// Every documented filter is known, whether or not anything has a value for it.
	one := func(name, value string) []types.Filter {
		return []types.Filter{{Name: &name, Values: []string{value}}}
	}
	for name, want := range map[string]int{"owner-id=" + account: 1, "owner-id=444455556666": 0, "tenancy=host": 1, "launch-time=2026-*": 1, "image-id=ami-*": 0, "network-interface.vpc-id=*": 0, "root-device-type=ebs": 0,
		"instance.group-name=default": 1, "operator.managed=false": 1, "reservation-id=r-*": 1} {
		k, v, _ := strings.Cut(name, "=")
		if got := len(must[ec2.DescribeInstancesOutput](e, "DescribeInstances", &ec2.DescribeInstancesInput{Filters: one(k, v)}).Reservations); got != want {
			t.Errorf("instances with %s: %d, want %d", name, got, want)
		}
	}
	for name, want := range map[string]int{"map-public-ip-on-launch=false": 3, "ipv6-native=true": 0, "available-ip-address-count=4091": 3, "outpost-arn=*": 0, "ipv6-cidr-block-association.state=*": 0} {
		k, v, _ := strings.Cut(name, "=")
		if got := len(must[ec2.DescribeSubnetsOutput](e, "DescribeSubnets", &ec2.DescribeSubnetsInput{Filters: one(k, v)}).Subnets); got != want {
			t.Errorf("subnets with %s: %d, want %d", name, got, want)
		}
	}
	if got := len(must[ec2.DescribeVpcsOutput](e, "DescribeVpcs", &ec2.DescribeVpcsInput{Filters: one("cidr-block-association.cidr-block", "172.31.*")}).Vpcs); got != 1 {
		t.Errorf("VPCs by the block of an association: %d, want 1", got)
	}
	must[ec2.DescribeVolumeStatusOutput](e, "DescribeVolumeStatus", &ec2.DescribeVolumeStatusInput{Filters: one("action.code", "enable-volume-io")})
	must[ec2.DescribeVolumesModificationsOutput](e, "DescribeVolumesModifications", &ec2.DescribeVolumesModificationsInput{Filters: one("target-iops", "3000")})
	must[ec2.DescribeSecurityGroupsOutput](e, "DescribeSecurityGroups", &ec2.DescribeSecurityGroupsInput{Filters: one("egress.ip-permission.cidr", "*")})
	must[ec2.DescribeRouteTablesOutput](e, "DescribeRouteTables", &ec2.DescribeRouteTablesInput{Filters: one("association.main", "true")})
	e.refused(e.person(), "DescribeRouteTables", &ec2.DescribeRouteTablesInput{Filters: one("association.mainly", "true")}, "InvalidParameterValue", "association.mainly")
	first := e.instance()
	e.restart()
	if second := e.instance(); first != second {
		t.Errorf("the host's instance ID is %s and after a restart %s", first, second)
	}
	far := e.person()
	far.Region = "eu-west-1"
	out, err := call[ec2.DescribeInstancesOutput](e, far, "DescribeInstances", &ec2.DescribeInstancesInput{})
	if err != nil || *out.Reservations[0].Instances[0].InstanceId == first {
		t.Errorf("in another region the host is %+v, %v; want another instance", out, err)
	}
	e.refused(far, "DescribeInstances", &ec2.DescribeInstancesInput{InstanceIds: []string{first}}, "InvalidInstanceID.NotFound", first)
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		p, v string
		want bool
	}{{"", "", true}, {"*", "", true}, {"a*c", "abc", true}, {"a*c", "abd", false}, {"a?c", "ac", false}, {`a\*c`, "a*c", true}, {`a\*c`, "abc", false},
		{"*a*a*a*", "aaaa", true}, {"*b", "aaab", true}, {"a", "ab", false}, {"**", "x", true}} {
		if got := glob(tt.p, tt.v); got != tt.want {
			t.Errorf("glob(%q, %q) = %v, want %v", tt.p, tt.v, got, tt.want)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Fuzz(func(t *testing.T, p, v string) {
		if len(p) > 64 || len(v) > 64 {
			return
		}
		_ = glob(p, v) // it ends
		if !glob("*", v) {
			t.Errorf("* does not match %q", v)
		}
		if !strings.ContainsAny(v, `\*?`) && !glob(v, v) {
			t.Errorf("%q does not match itself", v)
		}
	})
}

// TestCreateSnapshots: of all volumes of an instance, or of none.
func TestCreateSnapshots(t *testing.T) {
	e := newEnv(t, nil)
	inst := aws.String(e.instance())
	var ids []string
	for i, dev := range []string{"/dev/sdf", "/dev/sdg", "/dev/sdh"} {
		v := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1),
			TagSpecifications: []types.TagSpecification{{ResourceType: "volume", Tags: []types.Tag{{Key: aws.String("n"), Value: aws.String(dev)}}}}})
		must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: v.VolumeId, InstanceId: inst, Device: aws.String(dev)})
		if i < 2 {
			ids = append(ids, *v.VolumeId)
		} else if out := must[ec2.CreateSnapshotsOutput](e, "CreateSnapshots", &ec2.CreateSnapshotsInput{CopyTagsFromSource: types.CopyTagsFromSourceVolume,
			InstanceSpecification: &types.InstanceSpecification{InstanceId: inst, ExcludeDataVolumeIds: []string{*v.VolumeId}}}); len(out.Snapshots) != 2 {
			t.Fatalf("CreateSnapshots = %+v, want two", out.Snapshots)
		} else {
			for _, n := range out.Snapshots {
				if !slices.Contains(ids, *n.VolumeId) || n.State != types.SnapshotStatePending || len(n.Tags) != 1 {
					t.Errorf("snapshot %+v, want pending, of one of %v, with its tag", n, ids)
				}
			}
		}
	}
	e.plane.mu.Lock()
	e.plane.failing["Snapshot"] = errors.New("the disk is full")
	e.plane.mu.Unlock()
	if _, err := e.do(e.person(), "CreateSnapshots", &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: inst}}); err == nil {
		t.Error("CreateSnapshots succeeded though the data plane failed")
	}
	if out := must[ec2.DescribeSnapshotsOutput](e, "DescribeSnapshots", &ec2.DescribeSnapshotsInput{}); len(out.Snapshots) != 2 {
		t.Errorf("%d snapshots after a failed set, want the two of before", len(out.Snapshots))
	}
}
