package directory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

func (w *world) snapshot(dir, name string) string {
	w.Helper()
	id := *must[ds.CreateSnapshotOutput](w, "ds:CreateSnapshot", &ds.CreateSnapshotInput{DirectoryId: &dir, Name: &name}).SnapshotId
	for range 500 {
		n := must[ds.DescribeSnapshotsOutput](w, "ds:DescribeSnapshots", &ds.DescribeSnapshotsInput{SnapshotIds: []string{id}}).Snapshots[0]
		if n.Status == dstypes.SnapshotStatusCompleted {
			return id
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Fatalf("snapshot %s is not completed", id)
	return ""
}

// After a restore a directory holds the users, groups, memberships and passwords of the
// snapshot and no others, under the SIDs they had; a SID given since is given to nobody.
func TestSnapshotAndRestore(t *testing.T) {
	w := open(t)
	id := w.directory()
	var before []string
	for i := range 70 { // more than a part and a transaction hold
		before = append(before, w.user(id, fmt.Sprintf("user%02d", i)))
	}
	setPassword := func(name, text string) {
		w.Helper()
		must[ds.ResetUserPasswordOutput](w, "ds:ResetUserPassword", &ds.ResetUserPasswordInput{DirectoryId: &id, UserName: &name, NewPassword: &text})
	}
	signsIn := func(name, text string) bool {
		w.Helper()
		_, err := w.service.Authenticate(context.Background(), id, name, text)
		if err != nil && !errors.Is(err, directory.ErrCredentials) {
			w.Fatal(err)
		}
		return err == nil
	}
	setPassword("user00", "Before-the-snapshot-1")
	group := func(name string) {
		w.Helper()
		must[dsdata.CreateGroupOutput](w, "ds-data:CreateGroup", &dsdata.CreateGroupInput{DirectoryId: &id, SAMAccountName: &name})
	}
	join := func(group, member string) {
		w.Helper()
		must[dsdata.AddGroupMemberOutput](w, "ds-data:AddGroupMember", &dsdata.AddGroupMemberInput{DirectoryId: &id, GroupName: &group, MemberName: &member})
	}
	group("staff")
	join("staff", "user01")
	snap := w.snapshot(id, "monday")

	// What follows is to be forgotten.
	setPassword("user00", "After-the-snapshot-1")
	setPassword("user02", "After-the-snapshot-2")
	must[dsdata.DeleteUserOutput](w, "ds-data:DeleteUser", &dsdata.DeleteUserInput{DirectoryId: &id, SAMAccountName: aws.String("user03")})
	join("staff", "user04")
	must[dsdata.RemoveGroupMemberOutput](w, "ds-data:RemoveGroupMember", &dsdata.RemoveGroupMemberInput{DirectoryId: &id, GroupName: aws.String("staff"), MemberName: aws.String("user01")})
	group("visitors")
	late := w.user(id, "late")

	must[ds.RestoreFromSnapshotOutput](w, "ds:RestoreFromSnapshot", &ds.RestoreFromSnapshotInput{SnapshotId: &snap})
	w.await(id, dstypes.DirectoryStageActive)
	for i, sid := range before {
		if u, ok := w.service.User(w.store.Snapshot(), w.account, w.region, id, fmt.Sprintf("user%02d", i)); !ok || u.SID != sid {
			t.Fatalf("user%02d is %+v, %v; want the SID %s", i, u, ok, sid)
		}
	}
	if _, ok := w.service.User(w.store.Snapshot(), w.account, w.region, id, "late"); ok {
		t.Error("a user made after the snapshot is there")
	}
	refused(w, "ResourceNotFoundException", "ds-data:DescribeGroup", &dsdata.DescribeGroupInput{DirectoryId: &id, SAMAccountName: aws.String("visitors")})
	members := must[dsdata.ListGroupMembersOutput](w, "ds-data:ListGroupMembers", &dsdata.ListGroupMembersInput{DirectoryId: &id, SAMAccountName: aws.String("staff")}).Members
	if len(members) != 1 || *members[0].SAMAccountName != "user01" {
		t.Errorf("members of staff: %+v, want user01 alone", members)
	}
	if !signsIn("user00", "Before-the-snapshot-1") || signsIn("user00", "After-the-snapshot-1") || signsIn("user02", "After-the-snapshot-2") {
		t.Error("passwords are not those of the snapshot")
	}
	if again := w.user(id, "late"); again == late {
		t.Errorf("the SID %s was given twice", late)
	}
}

func TestSnapshotRefusals(t *testing.T) {
	w := open(t)
	id := w.directory()
	var snaps []string
	for i := range 5 {
		snaps = append(snaps, w.snapshot(id, fmt.Sprint("snap ", i)))
	}
	if err := refused(w, "SnapshotLimitExceededException", "ds:CreateSnapshot", &ds.CreateSnapshotInput{DirectoryId: &id}); err == nil {
		return
	}
	if l := must[ds.GetSnapshotLimitsOutput](w, "ds:GetSnapshotLimits", &ds.GetSnapshotLimitsInput{DirectoryId: &id}).SnapshotLimits; *l.ManualSnapshotsLimit != 5 || *l.ManualSnapshotsCurrentCount != 5 || !l.ManualSnapshotsLimitReached {
		t.Errorf("limits %+v, want 5 of 5", l)
	}
	var paged []string
	for in := (&ds.DescribeSnapshotsInput{DirectoryId: &id, Limit: aws.Int32(2)}); ; {
		page := must[ds.DescribeSnapshotsOutput](w, "ds:DescribeSnapshots", in)
		for _, n := range page.Snapshots {
			if n.Type != dstypes.SnapshotTypeManual || *n.DirectoryId != id || n.StartTime == nil || n.Name == nil {
				t.Errorf("snapshot %+v, want a manual one of the directory", n)
			}
			paged = append(paged, *n.SnapshotId)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(paged) != 5 {
		t.Errorf("%d snapshots in pages of two, want 5", len(paged))
	}
	if out := must[ds.DeleteSnapshotOutput](w, "ds:DeleteSnapshot", &ds.DeleteSnapshotInput{SnapshotId: &snaps[0]}); *out.SnapshotId != snaps[0] {
		t.Errorf("DeleteSnapshot = %+v", out)
	}
	for _, op := range []string{"ds:DeleteSnapshot", "ds:RestoreFromSnapshot"} {
		var in any = &ds.DeleteSnapshotInput{SnapshotId: &snaps[0]}
		if op == "ds:RestoreFromSnapshot" {
			in = &ds.RestoreFromSnapshotInput{SnapshotId: &snaps[0]}
		}
		refused(w, "EntityDoesNotExistException", op, in)
	}
	refused(w, "EntityDoesNotExistException", "ds:DescribeSnapshots", &ds.DescribeSnapshotsInput{SnapshotIds: []string{snaps[0]}})
	refused(w, "InvalidNextTokenException", "ds:DescribeSnapshots", &ds.DescribeSnapshotsInput{NextToken: aws.String("bogus")})
	w.region = "eu-west-1" // another region knows nothing of it
	refused(w, "EntityDoesNotExistException", "ds:RestoreFromSnapshot", &ds.RestoreFromSnapshotInput{SnapshotId: &snaps[1]})
	w.region = "us-west-2"
	must[ds.DeleteDirectoryOutput](w, "ds:DeleteDirectory", &ds.DeleteDirectoryInput{DirectoryId: &id})
	w.await(id, dstypes.DirectoryStageDeleted)
	if left := must[ds.DescribeSnapshotsOutput](w, "ds:DescribeSnapshots", &ds.DescribeSnapshotsInput{}).Snapshots; len(left) != 0 {
		t.Errorf("%d snapshots outlived their directory", len(left))
	}
}
