package rbin_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/rbin"
	"github.com/aws/aws-sdk-go-v2/service/rbin/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/clock"
)

func TestMain(m *testing.M) { apptest.Main(m) }

var ctx = context.Background()

// later is the machine's clock, put forward.
type later struct {
	clock.Clock
	by *atomic.Int64
}

func (l later) Now() time.Time { return l.Clock.Now().Add(time.Duration(l.by.Load())) }

// signer signs with the time of that clock.
type signer struct {
	*v4.Signer
	by *atomic.Int64
}

func (s signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	return s.Signer.SignHTTP(ctx, c, r, hash, service, region, at.Add(time.Duration(s.by.Load())), opts...)
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// TestBin: a deleted snapshot that a rule matches is kept with its key, can be
// restored and used, and goes for good when its time is over.
func TestBin(t *testing.T) {
	var by atomic.Int64
	s := apptest.New(t, func(c *app.Config) { c.Clock = later{clock.System, &by} })
	bin := rbin.NewFromConfig(s.Config(), func(o *rbin.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), &by} })
	disks := ec2.NewFromConfig(s.Config(), func(o *ec2.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), &by} })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(err error, want string) {
		t.Helper()
		if code(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	days := func(n int32) *types.RetentionPeriod {
		return &types.RetentionPeriod{RetentionPeriodUnit: types.RetentionPeriodUnitDays, RetentionPeriodValue: &n}
	}
	rule, err := bin.CreateRule(ctx, &rbin.CreateRuleInput{ResourceType: types.ResourceTypeEbsSnapshot, RetentionPeriod: days(7), Description: aws.String("kept"),
		ResourceTags: []types.ResourceTag{{ResourceTagKey: aws.String("keep"), ResourceTagValue: aws.String("yes")}}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
	must(err)
	if len(*rule.Identifier) != 11 || rule.Status != types.RuleStatusAvailable {
		t.Errorf("CreateRule = %+v, want an identifier of 11 characters, available", rule)
	}
	_, err = bin.CreateRule(ctx, &rbin.CreateRuleInput{ResourceType: types.ResourceTypeEc2Image, RetentionPeriod: days(7)})
	refused(err, "ValidationException")
	_, err = bin.CreateRule(ctx, &rbin.CreateRuleInput{ResourceType: types.ResourceTypeEbsSnapshot, RetentionPeriod: days(366)})
	refused(err, "ValidationException")
	_, err = bin.GetRule(ctx, &rbin.GetRuleInput{Identifier: aws.String("00000000000")})
	refused(err, "ResourceNotFoundException")
	tags, err := bin.ListTagsForResource(ctx, &rbin.ListTagsForResourceInput{ResourceArn: rule.RuleArn})
	must(err)
	if len(tags.Tags) != 1 || *tags.Tags[0].Value != "b" {
		t.Errorf("tags = %+v, want a=b", tags.Tags)
	}
	_, err = bin.UntagResource(ctx, &rbin.UntagResourceInput{ResourceArn: rule.RuleArn, TagKeys: []string{"a"}})
	must(err)

	vol, err := disks.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(apptest.Region + "a"), Size: aws.Int32(1), Encrypted: aws.Bool(true)})
	must(err)
	snapshot := func(keep string) *string {
		t.Helper()
		n, err := disks.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: vol.VolumeId, TagSpecifications: []ec2types.TagSpecification{
			{ResourceType: ec2types.ResourceTypeSnapshot, Tags: []ec2types.Tag{{Key: aws.String("keep"), Value: &keep}}}}})
		must(err)
		return n.SnapshotId
	}
	gone := func(id *string) {
		t.Helper()
		_, err := disks.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*id}})
		refused(err, "InvalidSnapshot.NotFound")
	}
	binned := func() (ids []string) {
		t.Helper()
		out, err := disks.ListSnapshotsInRecycleBin(ctx, &ec2.ListSnapshotsInRecycleBinInput{})
		must(err)
		for _, i := range out.Snapshots {
			ids = append(ids, *i.SnapshotId)
		}
		return ids
	}
	kept, other := snapshot("yes"), snapshot("no")
	for _, id := range []*string{kept, other} {
		_, err = disks.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: id})
		must(err)
		gone(id)
	}
	if ids := binned(); len(ids) != 1 || ids[0] != *kept {
		t.Fatalf("in the bin: %v, want %s alone", ids, *kept)
	}
	_, err = disks.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(apptest.Region + "a"), SnapshotId: kept})
	refused(err, "InvalidSnapshot.NotFound")
	_, err = disks.RestoreSnapshotFromRecycleBin(ctx, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: other})
	refused(err, "InvalidSnapshot.NotFound")
	_, err = disks.RestoreSnapshotFromRecycleBin(ctx, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: kept})
	must(err)
	_, err = disks.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(apptest.Region + "a"), SnapshotId: kept})
	must(err)

	// What is in the bin stays there when its rule goes, and leaves it in time.
	_, err = disks.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: kept})
	must(err)
	_, err = bin.DeleteRule(ctx, &rbin.DeleteRuleInput{Identifier: rule.Identifier})
	must(err)
	if ids := binned(); len(ids) != 1 {
		t.Errorf("in the bin: %v, want %s", ids, *kept)
	}
	by.Add(int64(7*24*time.Hour + time.Second))
	for deadline := time.Now().Add(10 * time.Second); len(binned()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the snapshot is still in the bin after its time")
		}
	}
}

// TestRuleLock: a locked rule can be neither changed nor deleted, and after it was
// unlocked only when the delay is over.
func TestRuleLock(t *testing.T) {
	var by atomic.Int64
	s := apptest.New(t, func(c *app.Config) { c.Clock = later{clock.System, &by} })
	bin := rbin.NewFromConfig(s.Config(), func(o *rbin.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), &by} })
	lock := &types.LockConfiguration{UnlockDelay: &types.UnlockDelay{UnlockDelayUnit: types.UnlockDelayUnitDays, UnlockDelayValue: aws.Int32(7)}}
	rule, err := bin.CreateRule(ctx, &rbin.CreateRuleInput{ResourceType: types.ResourceTypeEbsSnapshot, LockConfiguration: lock,
		RetentionPeriod: &types.RetentionPeriod{RetentionPeriodUnit: types.RetentionPeriodUnitDays, RetentionPeriodValue: aws.Int32(1)}})
	if err != nil || rule.LockState != types.LockStateLocked {
		t.Fatalf("CreateRule = %+v, %v, want a locked rule", rule, err)
	}
	remove := func(want string) {
		t.Helper()
		if _, err := bin.DeleteRule(ctx, &rbin.DeleteRuleInput{Identifier: rule.Identifier}); code(err) != want {
			t.Errorf("DeleteRule: %v, want %q", err, want)
		}
	}
	remove("ConflictException")
	if _, err := bin.UpdateRule(ctx, &rbin.UpdateRuleInput{Identifier: rule.Identifier, Description: aws.String("x")}); code(err) != "ConflictException" {
		t.Errorf("UpdateRule: %v, want ConflictException", err)
	}
	if _, err := bin.LockRule(ctx, &rbin.LockRuleInput{Identifier: rule.Identifier, LockConfiguration: lock}); code(err) != "ConflictException" {
		t.Errorf("LockRule: %v, want ConflictException", err)
	}
	out, err := bin.UnlockRule(ctx, &rbin.UnlockRuleInput{Identifier: rule.Identifier})
	if err != nil || out.LockState != types.LockStatePendingUnlock || out.LockEndTime == nil {
		t.Fatalf("UnlockRule = %+v, %v, want pending_unlock", out, err)
	}
	remove("ConflictException")
	list, err := bin.ListRules(ctx, &rbin.ListRulesInput{ResourceType: types.ResourceTypeEbsSnapshot, LockState: types.LockStatePendingUnlock})
	if err != nil || len(list.Rules) != 1 {
		t.Errorf("ListRules = %+v, %v, want one", list, err)
	}
	by.Add(int64(7*24*time.Hour + time.Minute))
	remove("")
}
