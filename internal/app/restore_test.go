package app_test

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
	"github.com/sealdesk/sealdesk/internal/compute"
)

// guestDisk is what a guest sees of a desktop's user volume, or its root volume.
func (e *estate) guestDisk(id string, role ...compute.DiskRole) *nbd.Client {
	e.t.Helper()
	socket, export, err := e.Host.Disk(id, append(role, compute.RoleUser)[0])
	e.must(err)
	c, err := nbd.Dial(ctx, socket, export)
	e.must(err)
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRestore: snapshots are taken of a running desktop; after RestoreWorkspace both
// volumes hold what they held then, opened anew through KMS; a grown volume is larger.
func TestRestore(t *testing.T) {
	e := newEstate(t, func(c *app.Config) { c.SnapshotEvery = 2 * time.Second })
	ws := e.WorkSpaces(e.admin)
	id := e.launched("jane")
	write := func(text string) {
		t.Helper()
		c := e.guestDisk(id)
		_, err := c.WriteAt(bytes.Repeat([]byte(text), 4096/len(text)), 1<<20)
		e.must(err)
		e.must(c.Flush())
	}
	snapshot := func() time.Time {
		t.Helper()
		out, err := ws.DescribeWorkspaceSnapshots(ctx, &workspaces.DescribeWorkspaceSnapshotsInput{WorkspaceId: &id})
		e.must(err)
		if len(out.RestoreSnapshots) == 0 {
			return time.Time{}
		}
		return *out.RestoreSnapshots[0].SnapshotTime
	}
	write("kept")
	written := time.Now()
	e.eventually("a snapshot is taken after the write", func() bool { return snapshot().After(written.Add(10 * time.Millisecond)) })

	// From here on no snapshot may be taken: the desktop is in maintenance.
	_, err := ws.ModifyWorkspaceState(ctx, &workspaces.ModifyWorkspaceStateInput{WorkspaceId: &id, WorkspaceState: wstypes.TargetWorkspaceStateAdminMaintenance})
	e.must(err)
	last := snapshot()
	write("lost")
	_, err = ws.RestoreWorkspace(ctx, &workspaces.RestoreWorkspaceInput{WorkspaceId: &id})
	if err == nil {
		t.Error("RestoreWorkspace of a WorkSpace in maintenance succeeded")
	}
	if now := snapshot(); !now.Equal(last) {
		t.Fatalf("a snapshot was taken in maintenance: %v, want %v", now, last)
	}
	before := len(e.events("Decrypt"))
	_, err = ws.ModifyWorkspaceState(ctx, &workspaces.ModifyWorkspaceStateInput{WorkspaceId: &id, WorkspaceState: wstypes.TargetWorkspaceStateAvailable})
	e.must(err)
	_, err = ws.RestoreWorkspace(ctx, &workspaces.RestoreWorkspaceInput{WorkspaceId: &id})
	e.must(err)
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	if n := len(e.events("Decrypt")); n < before+2 {
		t.Errorf("%d Decrypt events after the restore, want at least %d", n, before+2)
	}
	got := make([]byte, 8)
	_, err = e.guestDisk(id).ReadAt(got, 1<<20)
	e.must(err)
	if string(got) != "keptkept" {
		t.Errorf("after the restore the user volume holds %q, want keptkept", got)
	}

	// One volume at a time, never smaller.
	grow := func(p wstypes.WorkspaceProperties) error {
		_, err := ws.ModifyWorkspaceProperties(ctx, &workspaces.ModifyWorkspacePropertiesInput{WorkspaceId: &id, WorkspaceProperties: &p})
		return err
	}
	if err := grow(wstypes.WorkspaceProperties{UserVolumeSizeGib: aws.Int32(10)}); err == nil {
		t.Error("a volume was made smaller")
	}
	if err := grow(wstypes.WorkspaceProperties{UserVolumeSizeGib: aws.Int32(100), RootVolumeSizeGib: aws.Int32(175)}); err == nil {
		t.Error("both volumes were grown at once")
	}
	e.must(grow(wstypes.WorkspaceProperties{UserVolumeSizeGib: aws.Int32(100)}))
	e.eventually("the user volume has 100 GiB", func() bool {
		w := e.describe(id)
		return *w.WorkspaceProperties.UserVolumeSizeGib == 100 && len(w.ModificationStates) == 0
	})
	if n := e.guestDisk(id).Size(); n != 100<<30 {
		t.Errorf("the guest's user volume has %d bytes, want 100 GiB", n)
	}

	_, err = ws.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitGone(id)
	e.clean(e.key)
	e.eventually("no snapshot is left on disk", func() bool {
		left, _ := filepath.Glob(filepath.Join(e.Dir, "volumes", "*", "*", "snap-*"))
		return len(left) == 0
	})
}
