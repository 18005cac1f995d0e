package ec2

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/block"
)

func encryptedVolume(kmsKey string) *ec2.CreateVolumeInput {
	in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(8), VolumeType: types.VolumeTypeGp3, Encrypted: aws.Bool(true)}
	if kmsKey != "" {
		in.KmsKeyId = aws.String(kmsKey)
	}
	return in
}

func TestLifeOfAnEncryptedVolume(t *testing.T) {
	e := newEnv(t, nil)
	arn := e.kms.symmetric()
	created := must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(arn))
	id := *created.VolumeId
	if *created.KmsKeyId != arn || !*created.Encrypted || *created.Iops != 3000 || *created.Throughput != 125 {
		t.Errorf("CreateVolume = %+v, want the key, 3000 iops and 125 MiB/s", created)
	}
	want := map[string]string{"aws:ebs:id": id}
	gen := e.kms.callsOf("GenerateDataKeyWithoutPlaintext")
	if len(gen) != 1 || gen[0].bytes != 64 || !maps.Equal(gen[0].context, want) || gen[0].principal.ARN != "ec2.us-west-2.amazonaws.com" {
		t.Errorf("GenerateDataKeyWithoutPlaintext calls = %+v, want one by EBS for 64 bytes with context %v", gen, want)
	}
	if cg := e.kms.callsOf("CreateGrant"); len(cg) != 1 || cg[0].principal.UserName != "admin" || cg[0].via[0] != "ec2" {
		t.Errorf("CreateGrant calls = %+v, want one by the caller via ec2", cg)
	}
	g := e.kms.grantList()
	if len(g) != 1 || g[0].grantee != "ec2.us-west-2.amazonaws.com" || g[0].retiring != g[0].grantee || !maps.Equal(g[0].subset, want) || g[0].name != id {
		t.Fatalf("grants = %+v, want one for EBS constrained to %v", g, want)
	}
	if n := len(e.kms.callsOf("Decrypt")); n != 0 {
		t.Errorf("%d Decrypt calls before the first attach, want none", n)
	}

	att := must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
	if att.State != types.VolumeAttachmentStateAttaching {
		t.Errorf("AttachVolume state = %s, want attaching", att.State)
	}
	dec := e.kms.callsOf("Decrypt")
	if len(dec) != 1 || !maps.Equal(dec[0].context, want) || dec[0].principal.ARN != "ec2.us-west-2.amazonaws.com" {
		t.Errorf("Decrypt calls = %+v, want one by EBS with context %v", dec, want)
	}
	sv := e.plane.served[id]
	if sv == nil || sv.attach.Socket != "/run/sealdesk-test/"+id+".sock" {
		t.Fatalf("served = %+v, want the volume at its socket", sv)
	}
	if len(sv.place.Key) != 128 {
		t.Errorf("the data plane got a key of %d hex digits, want 128", len(sv.place.Key))
	}
	firstKey := sv.place.Key
	e.refused(e.person(), "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdg")}, "VolumeInUse", id+" is already attached to an instance")
	e.refused(e.person(), "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)}, "VolumeInUse", "currently attached")

	d := must[ec2.DescribeVolumesOutput](e, "DescribeVolumes", &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("attachment.status"), Values: []string{"attached"}}}})
	if len(d.Volumes) != 1 || d.Volumes[0].State != types.VolumeStateInUse || *d.Volumes[0].Attachments[0].InstanceId != e.instance() {
		t.Errorf("DescribeVolumes = %+v, want the volume in use by the host", d.Volumes)
	}

	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
	if v := e.volume(id); v.State != "available" || string(v.Anchor) != "3" {
		t.Errorf("after DetachVolume: state %s, anchor %s; want available and the last anchor 3", v.State, v.Anchor)
	}
	if len(e.plane.served) != 0 {
		t.Errorf("the data plane still serves %v", e.plane.served)
	}
	e.refused(e.person(), "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)}, "IncorrectState", "'available' state")

	must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
	if k := e.plane.served[id].place.Key; k != firstKey {
		t.Errorf("the second attach got another data key")
	}
	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{VolumeIds: []string{id}}, "InvalidVolume.NotFound", "The volume '"+id+"' does not exist.")
	e.empty("after DeleteVolume")
}

func TestUnencryptedVolumesAreSealedToo(t *testing.T) {
	e := newEnv(t, nil)
	out := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)})
	if *out.Encrypted || out.KmsKeyId != nil || out.VolumeType != types.VolumeTypeGp2 || *out.Iops != 100 {
		t.Errorf("CreateVolume = %+v, want an unencrypted gp2 volume of 100 iops", out)
	}
	must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: out.VolumeId, InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
	if k := e.plane.served[*out.VolumeId].place.Key; len(k) != 128 || strings.Trim(k, "0") == "" {
		t.Errorf("the data plane got the key %q, want 64 random bytes", k)
	}
	if v := e.volume(*out.VolumeId); strings.Contains(string(v.Key.Wrapped), e.plane.served[v.ID].place.Key) || len(v.Key.Wrapped) < 64 {
		t.Errorf("the stored data key is not wrapped")
	}
	if len(e.kms.calls) != 0 {
		t.Errorf("KMS was called: %+v", e.kms.calls)
	}
	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: out.VolumeId})
	must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: out.VolumeId})
	e.empty("after DeleteVolume")
}

func TestKeyForms(t *testing.T) {
	e := newEnv(t, nil)
	arn := e.kms.symmetric()
	id := arn[strings.Index(arn, "key/")+4:]
	e.kms.aliases[account+"/"+region+"/alias/mine"] = arn
	for _, form := range []string{id, arn, "alias/mine", "arn:aws:kms:us-west-2:" + account + ":alias/mine"} {
		if out := must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(form)); *out.KmsKeyId != arn {
			t.Errorf("CreateVolume with key %s: KmsKeyId %s, want %s", form, *out.KmsKeyId, arn)
		}
	}
	out := must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(""))
	if want := e.kms.aliases[account+"/"+region+"/alias/aws/ebs"]; *out.KmsKeyId != want {
		t.Errorf("CreateVolume without key: KmsKeyId %s, want the one of alias/aws/ebs, %s", *out.KmsKeyId, want)
	}
}

func TestEncryptionByDefault(t *testing.T) {
	e := newEnv(t, nil)
	if k := must[ec2.GetEbsDefaultKmsKeyIdOutput](e, "GetEbsDefaultKmsKeyId", &ec2.GetEbsDefaultKmsKeyIdInput{}); *k.KmsKeyId != "alias/aws/ebs" {
		t.Errorf("default key = %s, want alias/aws/ebs", *k.KmsKeyId)
	}
	must[ec2.EnableEbsEncryptionByDefaultOutput](e, "EnableEbsEncryptionByDefault", &ec2.EnableEbsEncryptionByDefaultInput{})
	arn := e.kms.symmetric()
	must[ec2.ModifyEbsDefaultKmsKeyIdOutput](e, "ModifyEbsDefaultKmsKeyId", &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: aws.String(arn)})
	out := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)})
	if !*out.Encrypted || *out.KmsKeyId != arn {
		t.Errorf("CreateVolume = %+v, want encrypted under the default key %s", out, arn)
	}
	e.refused(e.person(), "ModifyEbsDefaultKmsKeyId", &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: aws.String(e.kms.newKey(kmstypes.KeySpecRsa2048, kmstypes.KeyUsageTypeEncryptDecrypt))}, "InvalidKMSKey.InvalidUsage", "RSA_2048")
	if r := must[ec2.ResetEbsDefaultKmsKeyIdOutput](e, "ResetEbsDefaultKmsKeyId", &ec2.ResetEbsDefaultKmsKeyIdInput{}); *r.KmsKeyId != "alias/aws/ebs" {
		t.Errorf("ResetEbsDefaultKmsKeyId = %s, want alias/aws/ebs", *r.KmsKeyId)
	}
	must[ec2.DisableEbsEncryptionByDefaultOutput](e, "DisableEbsEncryptionByDefault", &ec2.DisableEbsEncryptionByDefaultInput{})
	if g := must[ec2.GetEbsEncryptionByDefaultOutput](e, "GetEbsEncryptionByDefault", &ec2.GetEbsEncryptionByDefaultInput{}); *g.EbsEncryptionByDefault {
		t.Error("encryption by default is on after Disable")
	}
}

// A refused CreateVolume says why and leaves nothing behind.
func TestCreateVolumeRefusals(t *testing.T) {
	e := newEnv(t, nil)
	withState := func(st kmstypes.KeyState) string {
		arn := e.kms.symmetric()
		e.kms.setState(arn, st)
		return arn
	}
	plain := func(f func(*ec2.CreateVolumeInput)) *ec2.CreateVolumeInput {
		in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(8), ClientToken: aws.String("a token")}
		f(in)
		return in
	}
	for _, tt := range []struct {
		name, code, text string
		in               *ec2.CreateVolumeInput
		deny             string
	}{
		{"disabled key", "InvalidKMSKey.InvalidState", "DisabledException", encryptedVolume(withState(kmstypes.KeyStateDisabled)), ""},
		{"key pending deletion", "InvalidKMSKey.InvalidState", "PendingDeletion", encryptedVolume(withState(kmstypes.KeyStatePendingDeletion)), ""},
		{"asymmetric key", "InvalidKMSKey.InvalidUsage", "RSA_4096", encryptedVolume(e.kms.newKey(kmstypes.KeySpecRsa4096, kmstypes.KeyUsageTypeEncryptDecrypt)), ""},
		{"HMAC key", "InvalidKMSKey.InvalidUsage", "GENERATE_VERIFY_MAC", encryptedVolume(e.kms.newKey(kmstypes.KeySpecHmac256, kmstypes.KeyUsageTypeGenerateVerifyMac)), ""},
		{"unknown key", "InvalidKMSKey.NotFound", "NotFoundException", encryptedVolume("1234abcd-12ab-34cd-56ef-1234567890ab"), ""},
		{"unknown alias", "InvalidKMSKey.NotFound", "alias/none", encryptedVolume("alias/none"), ""},
		{"key of another region", "InvalidKMSKey.NotFound", "region eu-west-1", encryptedVolume("arn:aws:kms:eu-west-1:" + account + ":key/1234abcd-12ab-34cd-56ef-1234567890ab"), ""},
		{"ARN of another service", "InvalidParameterValue", "service \"s3\"", encryptedVolume("arn:aws:s3:::bucket"), ""},
		{"caller without CreateGrant", "UnauthorizedOperation", "kms:CreateGrant", encryptedVolume(e.kms.symmetric()), "CreateGrant"},
		{"caller without DescribeKey", "UnauthorizedOperation", "kms:DescribeKey", encryptedVolume(e.kms.symmetric()), "DescribeKey"},
		{"key without Encrypted", "InvalidParameterDependency", "KmsKeyId", plain(func(in *ec2.CreateVolumeInput) { in.KmsKeyId = aws.String("alias/x") }), ""},
		{"no zone", "MissingParameter", "AvailabilityZone", plain(func(in *ec2.CreateVolumeInput) { in.AvailabilityZone = nil }), ""},
		{"unknown zone", "InvalidZone.NotFound", "us-east-1a", plain(func(in *ec2.CreateVolumeInput) { in.AvailabilityZone = aws.String("us-east-1a") }), ""},
		{"zone twice", "InvalidParameterCombination", "AvailabilityZoneId", plain(func(in *ec2.CreateVolumeInput) { in.AvailabilityZoneId = aws.String("usw2-az1") }), ""},
		{"no size", "MissingParameter", "size", plain(func(in *ec2.CreateVolumeInput) { in.Size = nil }), ""},
		{"size 0", "InvalidParameterValue", "too small", plain(func(in *ec2.CreateVolumeInput) { in.Size = aws.Int32(0) }), ""},
		{"too large", "InvalidParameterValue", "16384GiB", plain(func(in *ec2.CreateVolumeInput) { in.Size = aws.Int32(16385) }), ""},
		{"unknown type", "UnknownVolumeType", "'gp9'", plain(func(in *ec2.CreateVolumeInput) { in.VolumeType = "gp9" }), ""},
		{"iops for gp2", "InvalidParameterCombination", "iops is not supported for gp2", plain(func(in *ec2.CreateVolumeInput) { in.Iops = aws.Int32(100) }), ""},
		{"io2 without iops", "MissingParameter", "iops", plain(func(in *ec2.CreateVolumeInput) { in.VolumeType = "io2" }), ""},
		{"io1 ratio", "InvalidParameterValue", "Iops to volume size ratio of 62.500000 is too high; maximum is 50", plain(func(in *ec2.CreateVolumeInput) { in.VolumeType, in.Iops = "io1", aws.Int32(500) }), ""},
		{"gp3 iops", "InvalidParameterValue", "Volume iops of 100 is too low; minimum is 3000.", plain(func(in *ec2.CreateVolumeInput) { in.VolumeType, in.Iops = "gp3", aws.Int32(100) }), ""},
		{"throughput for gp2", "InvalidParameterCombination", "throughput", plain(func(in *ec2.CreateVolumeInput) { in.Throughput = aws.Int32(200) }), ""},
		{"throughput ratio", "InvalidParameterValue", "ratio of 0.333333 is too high; maximum is 0.250000 MiBps per iops", plain(func(in *ec2.CreateVolumeInput) { in.VolumeType, in.Throughput = "gp3", aws.Int32(1000) }), ""},
		{"multi attach", "UnsupportedOperation", "MultiAttach", plain(func(in *ec2.CreateVolumeInput) { in.MultiAttachEnabled = aws.Bool(true) }), ""},
		{"unknown snapshot", "InvalidSnapshot.NotFound", "snap-0123456789abcdef0", plain(func(in *ec2.CreateVolumeInput) { in.SnapshotId = aws.String("snap-0123456789abcdef0") }), ""},
		{"reserved tag", "InvalidParameterValue", "reserved", plain(func(in *ec2.CreateVolumeInput) {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: "volume", Tags: []types.Tag{{Key: aws.String("aws:x"), Value: aws.String("1")}}}}
		}), ""},
		{"tags of another type", "InvalidParameterValue", "'instance'", plain(func(in *ec2.CreateVolumeInput) {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: "instance"}}
		}), ""},
		{"dry run", "DryRunOperation", "would have succeeded", plain(func(in *ec2.CreateVolumeInput) { in.DryRun = aws.Bool(true) }), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub := *e
			sub.T = t
			if tt.deny != "" {
				e.kms.denied[tt.deny] = true
				defer delete(e.kms.denied, tt.deny)
			}
			sub.refused(e.person(), "CreateVolume", tt.in, tt.code, tt.text)
			sub.empty("after the refusal")
		})
	}
}

func TestStrictAWSAnswersAndLetsTheVolumeVanish(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.StrictAWS = true })
	out := must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume("alias/none"))
	if out.State != types.VolumeStateCreating {
		t.Errorf("state = %s, want creating", out.State)
	}
	e.refused(e.person(), "DescribeVolumes", &ec2.DescribeVolumesInput{VolumeIds: []string{*out.VolumeId}}, "InvalidVolume.NotFound", *out.VolumeId)
	e.empty("afterwards")
}

func TestClientToken(t *testing.T) {
	e := newEnv(t, nil)
	in := encryptedVolume(e.kms.symmetric())
	in.ClientToken = aws.String("once")
	a := must[ec2.CreateVolumeOutput](e, "CreateVolume", in)
	b := must[ec2.CreateVolumeOutput](e, "CreateVolume", in)
	if *a.VolumeId != *b.VolumeId {
		t.Errorf("the same token made %s and %s", *a.VolumeId, *b.VolumeId)
	}
	other := *in
	other.Size = aws.Int32(9)
	e.refused(e.person(), "CreateVolume", &other, "IdempotentParameterMismatch", *a.VolumeId)
	if n := len(e.kms.grantList()); n != 1 {
		t.Errorf("%d grants, want 1", n)
	}
	// Concurrent calls with one token make one volume.
	in2 := *in
	in2.ClientToken = aws.String("race")
	ids := make(chan string, 8)
	for range 8 {
		go func() {
			out, err := call[ec2.CreateVolumeOutput](e, e.person(), "CreateVolume", &in2)
			if err != nil {
				ids <- err.Error()
				return
			}
			ids <- *out.VolumeId
		}()
	}
	first := <-ids
	for range 7 {
		if id := <-ids; id != first {
			t.Errorf("concurrent calls answered %s and %s", first, id)
		}
	}
}

func TestAttachRefusals(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey := e.kms.symmetric()
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	otherZone := encryptedVolume(kmsKey)
	otherZone.AvailabilityZone = aws.String("us-west-2b")
	far := *must[ec2.CreateVolumeOutput](e, "CreateVolume", otherZone).VolumeId
	inst := e.instance()
	att := func(v, i, d string) *ec2.AttachVolumeInput {
		return &ec2.AttachVolumeInput{VolumeId: aws.String(v), InstanceId: aws.String(i), Device: aws.String(d)}
	}
	e.refused(e.person(), "AttachVolume", att("vol-0123456789abcdef0", inst, "/dev/sdf"), "InvalidVolume.NotFound", "The volume 'vol-0123456789abcdef0' does not exist.")
	e.refused(e.person(), "AttachVolume", att("volume", inst, "/dev/sdf"), "InvalidParameterValue", "Value (volume) for parameter volumeId is invalid. Expected: 'vol-...'.")
	e.refused(e.person(), "AttachVolume", att(id, "i-0123456789abcdef0", "/dev/sdf"), "InvalidInstanceID.NotFound", "i-0123456789abcdef0")
	e.refused(e.person(), "AttachVolume", att(id, "host", "/dev/sdf"), "InvalidInstanceID.Malformed", "host")
	e.refused(e.person(), "AttachVolume", att(far, inst, "/dev/sdf"), "InvalidVolume.ZoneMismatch", "us-west-2b")
	e.refused(e.person(), "AttachVolume", att(id, inst, "../x"), "InvalidParameterValue", "device")
	otherRegion := e.person()
	otherRegion.Region = "eu-west-1"
	e.refused(otherRegion, "AttachVolume", att(id, inst, "/dev/sdf"), "InvalidVolume.NotFound", id)
	otherAccount := e.person()
	otherAccount.Account = "999988887777"
	e.refused(otherAccount, "AttachVolume", att(id, inst, "/dev/sdf"), "InvalidVolume.NotFound", id)

	// The key decides at every attach; what KMS refuses leaves the volume available.
	for _, st := range []kmstypes.KeyState{kmstypes.KeyStateDisabled, kmstypes.KeyStatePendingDeletion} {
		e.kms.setState(kmsKey, st)
		e.refused(e.person(), "AttachVolume", att(id, inst, "/dev/sdf"), "InvalidKMSKey.InvalidState", kmsKey)
	}
	e.kms.setState(kmsKey, kmstypes.KeyStateEnabled)
	e.plane.failing["Attach"] = fmt.Errorf("open: %w", block.ErrNoSpace)
	e.refused(e.person(), "AttachVolume", att(id, inst, "/dev/sdf"), "InsufficientVolumeCapacity", "no space")
	e.plane.failing["Attach"] = fmt.Errorf("open: %w", block.ErrRollback)
	e.refused(e.person(), "AttachVolume", att(id, inst, "/dev/sdf"), "IncorrectState", "older than its last recorded state")
	delete(e.plane.failing, "Attach")
	if v := e.volume(id); v.State != "available" || v.Attachment != nil || len(e.plane.served) != 0 {
		t.Errorf("after refusals: %s, %+v, served %v; want available, nothing attached", v.State, v.Attachment, e.plane.served)
	}
	// A grant revoked by the key's owner ends all attaching.
	e.kms.mu.Lock()
	clear(e.kms.grants)
	e.kms.mu.Unlock()
	e.refused(e.person(), "AttachVolume", att(id, inst, "/dev/sdf"), "UnauthorizedOperation", "grant was retired or revoked")
}

// The volume's data key opens with its own context alone: another volume's blob put
// into the record does not open.
func TestSwappedDataKey(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey := e.kms.symmetric()
	a := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	b := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	wrapped := e.volume(b).Key.Wrapped
	if err := e.s.editVolume(context.Background(), key(account, region, a), func(v *volume) error { v.Key.Wrapped = wrapped; return nil }); err != nil {
		t.Fatal(err)
	}
	e.refused(e.person(), "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(a), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")}, "InvalidKMSKey.InvalidState", "InvalidCiphertextException")
}

// kill -9 of the control plane at every call it makes to KMS and to the data plane,
// before and after the effect of the call: after the restart every volume is as
// somebody was told, and nothing else is left.
func TestKilledAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("starts etcd some 60 times")
	}
	life := func(e *env, kmsKey string) (id string, reached string) {
		in := encryptedVolume(kmsKey)
		in.ClientToken = aws.String("token")
		out, err := call[ec2.CreateVolumeOutput](e, e.person(), "CreateVolume", in)
		if err != nil {
			return "", "nothing"
		}
		id = *out.VolumeId
		inst, _ := e.s.thisHost(context.Background())
		if _, err := e.do(e.person(), "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(instanceID(inst, e.person())), Device: aws.String("/dev/sdf")}); err != nil {
			return id, "created"
		}
		if _, err := e.do(e.person(), "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)}); err != nil || e.kms.m.dead {
			return id, "attached"
		}
		if _, err := e.do(e.person(), "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)}); err != nil {
			return id, "detached"
		}
		return id, "deleted"
	}
	e := newEnv(t, nil)
	life(e, e.kms.symmetric())
	total := len(e.kms.m.calls)
	steps := e.kms.m.calls
	if total < 9 {
		t.Fatalf("a life has %d calls to the outside, want at least 9: %v", total, steps)
	}
	for at := 1; at <= total; at++ {
		for i := range 4 {
			after, mayList := i&1 != 0, i&2 != 0
			if !mayList && !strings.Contains(steps[at-1], "CreateGrant") {
				continue // listing is for grants whose ID was not noted
			}
			t.Run(fmt.Sprintf("%02d %s after=%v list=%v", at, steps[at-1], after, mayList), func(t *testing.T) {
				e := newEnv(t, nil)
				e.kms.denied["ListRetirableGrants"] = !mayList
				kmsKey := e.kms.symmetric()
				e.kms.m.calls, e.kms.m.at, e.kms.m.after = nil, at, after
				id, reached := life(e, kmsKey)
				if !e.kms.m.dead {
					t.Fatalf("did not die: %v", e.kms.m.calls)
				}
				e.restart()
				for range 3 {
					e.s.Reconcile(context.Background())
				}
				if reached == "nothing" || reached == "deleted" {
					e.empty("killed at " + steps[at-1])
					return
				}
				v := e.volume(id)
				if v == nil {
					t.Fatalf("volume %s was answered for (%s) and is gone", id, reached)
				}
				sv := e.plane.served[id]
				switch {
				case v.State == "available" && v.Attachment == nil && sv == nil:
				case v.State == "in-use" && v.Attachment != nil && v.Attachment.State == attached && sv != nil:
				default:
					t.Fatalf("reached %s: volume is %s, attachment %+v (%s), served %v", reached, v.State, v.Attachment, v.Reason, sv)
				}
				if v.Attachment != nil {
					must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)})
				}
				must[ec2.DeleteVolumeOutput](e, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
				e.empty("at the end")
			})
		}
	}
}

func status(e *env, id string) types.VolumeStatusItem {
	e.Helper()
	return must[ec2.DescribeVolumeStatusOutput](e, "DescribeVolumeStatus", &ec2.DescribeVolumeStatusInput{VolumeIds: []string{id}}).VolumeStatuses[0]
}

// A disabled key leaves an attached volume alone. When the data plane dies then, the
// volume is impaired with the reason, and comes back once the key is enabled.
func TestDataPlaneDiesAndKeyIsDisabled(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey := e.kms.symmetric()
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(kmsKey)).VolumeId
	must[ec2.AttachVolumeOutput](e, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")})
	ctx := context.Background()

	e.plane.kill()
	e.s.Reconcile(ctx)
	if e.plane.served[id] == nil || len(e.kms.callsOf("Decrypt")) != 2 {
		t.Fatalf("after the data plane died: served %v, %d Decrypt calls; want it attached again with the key fetched anew", e.plane.served, len(e.kms.callsOf("Decrypt")))
	}
	e.kms.setState(kmsKey, kmstypes.KeyStateDisabled)
	for range 3 {
		e.clock.Advance(time.Minute)
		e.s.Reconcile(ctx)
	}
	if n := len(e.kms.callsOf("Decrypt")); n != 2 || e.plane.served[id] == nil {
		t.Errorf("a disabled key disturbed an attached volume: %d Decrypt calls", n)
	}
	e.plane.kill()
	e.s.Reconcile(ctx)
	st := status(e, id)
	if st.VolumeStatus.Status != types.VolumeStatusInfoStatusImpaired || len(st.Events) != 1 || !strings.Contains(*st.Events[0].Description, "DisabledException") {
		t.Fatalf("status = %+v, events %+v; want impaired for DisabledException", st.VolumeStatus, st.Events)
	}
	if v := e.volume(id); v.State != "in-use" || v.Attachment.State != attaching {
		t.Errorf("volume is %s, attachment %s; want in-use, attaching", v.State, v.Attachment.State)
	}
	n := len(e.kms.callsOf("Decrypt"))
	e.s.Reconcile(ctx) // not due yet
	if m := len(e.kms.callsOf("Decrypt")); m != n {
		t.Errorf("KMS was asked again at once")
	}
	e.kms.setState(kmsKey, kmstypes.KeyStateEnabled)
	e.clock.Advance(31 * time.Second)
	e.s.Reconcile(ctx)
	if st := status(e, id); st.VolumeStatus.Status != types.VolumeStatusInfoStatusOk || e.plane.served[id] == nil {
		t.Errorf("after the key was enabled: %+v, served %v", st.VolumeStatus, e.plane.served)
	}
	// A restart of the control plane adopts what is served, without asking KMS.
	n = len(e.kms.callsOf("Decrypt"))
	e.restart()
	e.s.Reconcile(ctx)
	if v := e.volume(id); v.Attachment.State != attached || len(e.kms.callsOf("Decrypt")) != n {
		t.Errorf("after a restart: attachment %s, %d more Decrypt calls", v.Attachment.State, len(e.kms.callsOf("Decrypt"))-n)
	}
	// A volume that stopped by itself is opened again.
	e.plane.served[id].failed = "I/O error"
	e.clock.Advance(time.Minute)
	e.s.Reconcile(ctx)
	if sv := e.plane.served[id]; sv == nil || sv.failed != "" {
		t.Errorf("a failed volume was not attached again: %+v", sv)
	}
	// What no record knows is dropped.
	e.plane.served["vol-0ffffffffffffffff"] = &fakeServed{place: &fakePlace{}}
	e.s.Reconcile(ctx)
	if e.plane.served["vol-0ffffffffffffffff"] != nil {
		t.Error("a volume without a record stays attached")
	}
}

func TestDesktopVolumes(t *testing.T) {
	e := newEnv(t, nil)
	kmsKey := e.kms.symmetric()
	sid := "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]"
	// WorkSpaces' own grant, the parent.
	e.kms.grants["parent"] = &fakeGrant{id: "parent", key: kmsKey, name: "ws", grantee: "workspaces.us-west-2.amazonaws.com", retiring: "workspaces.us-west-2.amazonaws.com",
		subset: map[string]string{contextDesktop: sid}, ops: []kmstypes.GrantOperation{kmstypes.GrantOperationCreateGrant, kmstypes.GrantOperationDescribeKey, kmstypes.GrantOperationDecrypt}}
	in := CreateWorkspaceVolumeInput{WorkspaceId: aws.String("ws-0123456789"), Role: aws.String("root"), Size: aws.Int32(10), Encrypted: aws.Bool(true), KmsKeyId: aws.String(kmsKey),
		SidDirectoryId: aws.String(sid), ClientToken: aws.String("ws-0123456789/root")}
	e.refused(e.person(), "CreateWorkspaceVolume", &in, "OperationNotPermitted", "Only WorkSpaces")
	d := e.s.Desktops(callerFunc(func(ctx context.Context, c *api.Call, service, op string, in any) (any, error) {
		return e.do(c, op, in)
	}))
	ctx := context.Background()
	id, err := d.Create(ctx, e.workspaces(), in)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Create(ctx, e.workspaces(), in); err != nil || again != id {
		t.Errorf("Create again = %s, %v; want %s", again, err, id)
	}
	want := map[string]string{contextVolume: id, contextDesktop: sid}
	var child *fakeGrant
	for _, g := range e.kms.grantList() {
		if g.name == id {
			child = g
		}
	}
	if child == nil || !maps.Equal(child.subset, want) || child.grantee != "ec2.us-west-2.amazonaws.com" {
		t.Fatalf("EBS's grant = %+v, want it constrained to %v", child, want)
	}
	if cg := e.kms.callsOf("CreateGrant"); len(cg) != 1 || cg[0].principal.Service != "workspaces" {
		t.Errorf("CreateGrant calls = %+v, want one by WorkSpaces under its own grant", cg)
	}
	for range 2 {
		x, err := d.Attach(ctx, e.workspaces(), id, "ws-0123456789", "/dev/sda1")
		if err != nil || x.Socket != "/run/sealdesk-test/"+id+".sock" || x.Vhost != "/run/sealdesk-test/"+id+".vhost" {
			t.Fatalf("Attach = %+v, %v", x, err)
		}
		if serial := e.plane.served[id].attach.Serial; serial != "root" {
			t.Errorf("the guest sees the serial number %q, want root", serial)
		}
	}
	if dec := e.kms.callsOf("Decrypt"); len(dec) != 1 || !maps.Equal(dec[0].context, want) {
		t.Errorf("Decrypt calls = %+v, want one with %v", dec, want)
	}
	vol := must[ec2.DescribeVolumesOutput](e, "DescribeVolumes", &ec2.DescribeVolumesInput{}).Volumes[0]
	if !*vol.Operator.Managed || *vol.Operator.Principal != "workspaces.amazonaws.com" || vol.Attachments[0].InstanceId != nil || !strings.HasSuffix(*vol.Attachments[0].AssociatedResource, "workspace/ws-0123456789") {
		t.Errorf("DescribeVolumes = %+v, want it managed by WorkSpaces and attached to the WorkSpace", vol)
	}
	p := e.person()
	e.refused(p, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(id)}, "OperationNotPermitted", "WorkSpace ws-0123456789")
	e.refused(p, "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(id)}, "OperationNotPermitted", "TerminateWorkspaces")
	e.refused(p, "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(id), Size: aws.Int32(20)}, "OperationNotPermitted", "modify")
	e.refused(p, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: aws.String(id)}, "OperationNotPermitted", "snapshot")
	e.refused(e.workspaces(), "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String("ws-9999999999"), Device: aws.String("/dev/sda1")}, "InvalidInstanceID.NotFound", "ws-0123456789")
	if err := d.Detach(ctx, e.workspaces(), id); err != nil {
		t.Fatal(err)
	}
	if err := d.Detach(ctx, e.workspaces(), id); err != nil {
		t.Errorf("Detach again: %v", err)
	}
	e.refused(p, "AttachVolume", &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")}, "OperationNotPermitted", "attach")
	// Rebuild: the data go, the data key stays.
	firstKey := e.plane.places[e.s.dir(e.volume(id))].Key
	if err := d.Reset(ctx, e.workspaces(), id, "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Attach(ctx, e.workspaces(), id, "ws-0123456789", "/dev/sda1"); err != nil {
		t.Fatal(err)
	}
	if sv := e.plane.served[id]; sv.place.Key != firstKey || sv.place.Version != 2 {
		t.Errorf("after Reset: version %d, same key %v; want a new place under the same key", sv.place.Version, sv.place.Key == firstKey)
	}
	if err := d.Detach(ctx, e.workspaces(), id); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Delete(ctx, e.workspaces(), id); err != nil {
			t.Fatal(err)
		}
	}
	delete(e.kms.grants, "parent")
	e.empty("after Delete")

	in.SidDirectoryId = aws.String("[S-1-5-21-1-2-3-4]@[d-1234abcd01]")
	if _, err := d.Create(ctx, e.workspaces(), in); err == nil {
		t.Error("without WorkSpaces' grant a volume was made")
	}
	e.empty("after the refusal")
}

type callerFunc func(ctx context.Context, c *api.Call, service, op string, in any) (any, error)

func (f callerFunc) Invoke(ctx context.Context, c *api.Call, service, op string, in any) (any, error) {
	return f(ctx, c, service, op, in)
}
