package ec2

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestSnapshotLock(t *testing.T) {
	e := newEnv(t, nil)
	vol := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)}).VolumeId
	id := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: vol}).SnapshotId
	lock := func(mode types.LockMode, days, cool int32) *ec2.LockSnapshotInput {
		in := &ec2.LockSnapshotInput{SnapshotId: id, LockMode: mode, LockDuration: aws.Int32(days)}
		if cool != 0 {
			in.CoolOffPeriod = aws.Int32(cool)
		}
		return in
	}
	unlock, del := &ec2.UnlockSnapshotInput{SnapshotId: id}, &ec2.DeleteSnapshotInput{SnapshotId: id}
	state := func(want types.LockState) {
		t.Helper()
		out := must[ec2.DescribeLockedSnapshotsOutput](e, "DescribeLockedSnapshots", &ec2.DescribeLockedSnapshotsInput{SnapshotIds: []string{*id}})
		if want == "" && len(out.Snapshots) == 0 {
			return
		}
		if len(out.Snapshots) != 1 || out.Snapshots[0].LockState != want {
			t.Errorf("DescribeLockedSnapshots = %+v, want one in state %q", out.Snapshots, want)
		}
	}
	state("")
	e.refused(e.person(), "UnlockSnapshot", unlock, "IncorrectState", "not locked")
	e.refused(e.person(), "LockSnapshot", lock("governance", 0, 0), "InvalidParameterValue", "LockDuration")
	e.refused(e.person(), "LockSnapshot", lock("governance", 1, 2), "InvalidParameterCombination", "CoolOffPeriod")
	e.refused(e.person(), "LockSnapshot", lock("compliance", 1, 73), "InvalidParameterValue", "CoolOffPeriod")
	e.refused(e.person(), "LockSnapshot", &ec2.LockSnapshotInput{SnapshotId: id, LockMode: "governance"}, "InvalidParameterCombination", "ExpirationDate")
	e.refused(e.person(), "LockSnapshot", &ec2.LockSnapshotInput{SnapshotId: id, LockMode: "governance", ExpirationDate: aws.Time(e.clock.Now().Add(time.Hour))}, "InvalidParameterValue", "ExpirationDate")

	must[ec2.LockSnapshotOutput](e, "LockSnapshot", lock("governance", 2, 0))
	state(types.LockStateGovernance)
	e.refused(e.person(), "DeleteSnapshot", del, "OperationNotPermitted", "governance")
	must[ec2.LockSnapshotOutput](e, "LockSnapshot", lock("governance", 1, 0)) // shorter is allowed
	must[ec2.UnlockSnapshotOutput](e, "UnlockSnapshot", unlock)
	state("")

	out := must[ec2.LockSnapshotOutput](e, "LockSnapshot", lock("compliance", 3, 2))
	if want := e.clock.Now().Add(2 * time.Hour); out.CoolOffPeriodExpiresOn == nil || !out.CoolOffPeriodExpiresOn.Equal(want) || *out.LockDuration != 3 || !out.LockExpiresOn.Equal(e.clock.Now().AddDate(0, 0, 3)) {
		t.Errorf("LockSnapshot = %+v, want 3 days and a cooling-off period until %v", out, want)
	}
	state(types.LockStateComplianceCooloff)
	must[ec2.UnlockSnapshotOutput](e, "UnlockSnapshot", unlock)
	must[ec2.LockSnapshotOutput](e, "LockSnapshot", lock("compliance", 3, 2))
	e.clock.Advance(2 * time.Hour)
	state(types.LockStateCompliance)
	e.refused(e.person(), "UnlockSnapshot", unlock, "OperationNotPermitted", "compliance")
	e.refused(e.person(), "LockSnapshot", lock("governance", 9, 0), "OperationNotPermitted", "mode")
	e.refused(e.person(), "LockSnapshot", lock("compliance", 2, 0), "OperationNotPermitted", "extended")
	e.refused(e.person(), "LockSnapshot", lock("compliance", 9, 1), "InvalidParameterCombination", "CoolOffPeriod")
	must[ec2.LockSnapshotOutput](e, "LockSnapshot", lock("compliance", 9, 0))
	state(types.LockStateCompliance) // no second cooling-off period
	e.refused(e.person(), "DeleteSnapshot", del, "OperationNotPermitted", "compliance")
	e.restart()
	e.refused(e.person(), "DeleteSnapshot", del, "OperationNotPermitted", "compliance")
	e.clock.Advance(9 * 24 * time.Hour)
	state(types.LockStateExpired)
	must[ec2.DeleteSnapshotOutput](e, "DeleteSnapshot", del)
}

func TestBlockPublicSnapshots(t *testing.T) {
	e := newEnv(t, nil)
	vol := must[ec2.CreateVolumeOutput](e, "CreateVolume", &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-west-2a"), Size: aws.Int32(1)}).VolumeId
	id := must[ec2.CreateSnapshotOutput](e, "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: vol}).SnapshotId
	share := &ec2.ModifySnapshotAttributeInput{SnapshotId: id, OperationType: types.OperationTypeAdd, GroupNames: []string{"all"}}
	seen := func(want int) {
		t.Helper()
		other := e.person()
		other.Account, other.Principal.Account = "999999999999", "999999999999"
		out, err := e.do(other, "DescribeSnapshots", &ec2.DescribeSnapshotsInput{})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(out.(*ec2.DescribeSnapshotsOutput).Snapshots); got != want {
			t.Errorf("another account sees %d snapshots, want %d", got, want)
		}
	}
	block := func(s types.SnapshotBlockPublicAccessState) {
		t.Helper()
		must[ec2.EnableSnapshotBlockPublicAccessOutput](e, "EnableSnapshotBlockPublicAccess", &ec2.EnableSnapshotBlockPublicAccessInput{State: s})
	}
	must[ec2.ModifySnapshotAttributeOutput](e, "ModifySnapshotAttribute", share)
	seen(1)
	block(types.SnapshotBlockPublicAccessStateBlockNewSharing)
	seen(1)
	e.refused(e.person(), "ModifySnapshotAttribute", share, "OperationNotPermitted", "public")
	block(types.SnapshotBlockPublicAccessStateBlockAllSharing)
	seen(0)
	if out := must[ec2.GetSnapshotBlockPublicAccessStateOutput](e, "GetSnapshotBlockPublicAccessState", &ec2.GetSnapshotBlockPublicAccessStateInput{}); out.State != types.SnapshotBlockPublicAccessStateBlockAllSharing {
		t.Errorf("state = %s, want block-all-sharing", out.State)
	}
	must[ec2.DisableSnapshotBlockPublicAccessOutput](e, "DisableSnapshotBlockPublicAccess", &ec2.DisableSnapshotBlockPublicAccessInput{})
	seen(1)
	e.refused(e.person(), "EnableSnapshotBlockPublicAccess", &ec2.EnableSnapshotBlockPublicAccessInput{State: "unblocked"}, "InvalidParameterValue", "State")
}
