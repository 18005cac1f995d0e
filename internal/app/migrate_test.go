package app_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// TestMigrate: the user has a new WorkSpace of another bundle with a root volume of its
// image and the user volume as it was, sealed under the same data key; nothing is left
// of the old one, and nothing of either after the end.
func TestMigrate(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	migrate := func(id, bundle string) (*workspaces.MigrateWorkspaceOutput, error) {
		return ws.MigrateWorkspace(ctx, &workspaces.MigrateWorkspaceInput{SourceWorkspaceId: &id, BundleId: &bundle})
	}
	old := e.launched("jane")
	e.write(old, compute.RoleRoot, "rootdata")
	e.write(old, compute.RoleUser, "homedata")
	for what, err := range map[string]error{"an unknown WorkSpace": second(migrate("ws-123456789", "wsb-power0001")), "an unknown bundle": second(migrate(old, "wsb-123456789"))} {
		if codeOf(err) != "ResourceNotFoundException" {
			t.Errorf("%s: %v, want ResourceNotFoundException", what, err)
		}
	}
	before := len(e.grants(e.key))
	out, err := migrate(old, "wsb-power0001")
	e.must(err)
	now := *out.TargetWorkspaceId
	if *out.SourceWorkspaceId != old || now == old {
		t.Errorf("MigrateWorkspace = %s to %s, want from %s to another", *out.SourceWorkspaceId, now, old)
	}
	if w := e.describe(old); w != nil && w.State != wstypes.WorkspaceStateMaintenance && w.State != wstypes.WorkspaceStateTerminating {
		t.Errorf("the source is %s, want MAINTENANCE", w.State)
	}
	if _, err := migrate(old, "wsb-power0001"); codeOf(err) != "OperationInProgressException" && codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("a second migration: %v, want OperationInProgressException", err)
	}
	e.awaitState(now, wstypes.WorkspaceStateAvailable)
	e.awaitGone(old)
	w := e.describe(now)
	if *w.BundleId != "wsb-power0001" || w.WorkspaceProperties.ComputeTypeName != wstypes.ComputePower || *w.UserName != "jane" || !*w.RootVolumeEncryptionEnabled || aws.ToString(w.VolumeEncryptionKey) != e.key {
		t.Errorf("the new WorkSpace is %+v, want Jane's of the bundle, encrypted under the same key", w)
	}
	if got := e.read(now, compute.RoleUser); got != "homedata" {
		t.Errorf("the user volume holds %q after the migration, want homedata", got)
	}
	if got := e.read(now, compute.RoleRoot); got == "rootdata" {
		t.Error("the root volume is the old one")
	}
	e.eventually("as many grants as before", func() bool { return len(e.grants(e.key)) == before })
	all, err := ws.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{DirectoryId: &e.directory, UserName: aws.String("jane")})
	if err != nil || len(all.Workspaces) != 1 {
		t.Errorf("Jane has %v, %v; want one WorkSpace", all, err)
	}

	_, err = ws.RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: &now}}})
	e.must(err)
	e.awaitState(now, wstypes.WorkspaceStateAvailable)
	if got := e.read(now, compute.RoleUser); got != "homedata" {
		t.Errorf("the user volume holds %q after a reboot, want homedata", got)
	}
	_, err = ws.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &now}}})
	e.must(err)
	e.awaitGone(now)
	e.clean(e.key)
}

// TestTasksSurviveRestarts: an image and a migration that a restart of the server cuts
// off are brought to their end by the next one, once each.
func TestTasksSurviveRestarts(t *testing.T) {
	e := newEstate(t)
	id := e.plain("joe")
	e.write(id, compute.RoleUser, "homedata")
	out, err := e.WorkSpaces(e.admin).CreateWorkspaceImage(ctx, &workspaces.CreateWorkspaceImageInput{Name: aws.String("golden"), Description: aws.String("x"), WorkspaceId: &id})
	e.must(err)
	e.Restart()
	ws := e.WorkSpaces(e.admin)
	e.eventually("the image is available", func() bool { return e.image(ws, *out.ImageId).State == wstypes.WorkspaceImageStateAvailable })
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	m, err := ws.MigrateWorkspace(ctx, &workspaces.MigrateWorkspaceInput{SourceWorkspaceId: &id, BundleId: aws.String("wsb-standard1")})
	e.must(err)
	e.Restart()
	e.awaitState(*m.TargetWorkspaceId, wstypes.WorkspaceStateAvailable)
	e.awaitGone(id)
	if got := e.read(*m.TargetWorkspaceId, compute.RoleUser); got != "homedata" {
		t.Errorf("the user volume holds %q after the migration, want homedata", got)
	}
	snaps, err := ec2.NewFromConfig(e.Config()).DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil || len(snaps.Snapshots) != 1 {
		t.Errorf("%v, %v: want the image's one snapshot", snaps, err)
	}
}
