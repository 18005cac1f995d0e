package workspaces

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A migration gives a user a new WorkSpace, with a root volume of another bundle, and
// takes the old one away. The user volume goes over as it is, under the data key and the
// grant it has (AWS goes back to its last snapshot). Source: WorkSpaces
// Administration Guide, "Migrate a WorkSpace".

// migrateWorkspace asks for it. The new WorkSpace is described once the old one is powered off.
func (s *Service) migrateWorkspace(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.MigrateWorkspaceInput) (*workspaces.MigrateWorkspaceOutput, error) {
	id := deref(in.SourceWorkspaceId)
	w := s.workspaces.Edit(tx, key(c.Account, c.Region, id))
	if w == nil {
		return nil, notFound("WorkSpace", id)
	}
	b := s.bundle(tx, c, deref(in.BundleId))
	if b == nil {
		return nil, notFound("bundle", deref(in.BundleId))
	}
	settled := []wstypes.WorkspaceState{available, stopped, unhealthy, impaired, inError}
	switch {
	case w.State == adminMaint:
		return nil, notAvailable("The WorkSpace " + id + " is in ADMIN_MAINTENANCE; set it to AVAILABLE with ModifyWorkspaceState first.")
	case !slices.Contains(settled, w.State) || w.Growth != nil && w.Growth.Failed == "" || w.UserVolume == "":
		m := "The WorkSpace " + id + " is " + string(w.State) + "; a migration needs one of " + join(settled) + ", and volumes that are not being modified."
		return nil, &wstypes.OperationInProgressException{Message: &m}
	}
	if w.ImageID != "" {
		if err := s.failImage(tx, w, "The WorkSpace was migrated."); err != nil {
			return nil, err
		}
	}
	to := &target{ID: ids.WorkSpace("ws"), BundleID: b.ID}
	w.Task, w.Target, w.Down, w.Attempts, w.NotBefore, w.Progress, w.ImageID, w.Stopped = taskMigrate, to, false, 0, time.Time{}, "", "", false
	w.setState(c.Time, wstypes.WorkspaceStateMaintenance, "", "")
	return &workspaces.MigrateWorkspaceOutput{SourceWorkspaceId: &w.ID, TargetWorkspaceId: &to.ID}, s.workspaces.Put(tx, w.key(), w)
}

// migrate is the task: power off, then, in one transaction, give all but the root
// volume to the new WorkSpace, which goes on as a launch, and terminate the old one.
func (s *Service) migrate(ctx context.Context, w *workspace) error {
	if err := s.down(ctx, w, s.cfg.StopGrace); err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		from, to := s.workspaces.Edit(tx, w.key()), s.workspaces.Edit(tx, w.key())
		if from == nil || from.Task != taskMigrate {
			return errSuperseded
		}
		c := &api.Call{Account: w.Account, Region: w.Region}
		b := s.bundle(tx, c, from.Target.BundleID)
		if b == nil {
			return refuse("ResourceNotFound.Bundle", "The bundle %s of the migration is gone.", from.Target.BundleID)
		}
		to.ID, to.BundleID, to.ComputerName = from.Target.ID, b.ID, computerName(from.Target.ID)
		to.RootVolume, to.RootGiB, to.Compute = "", b.RootGiB, b.Compute
		to.RootSnapshot, to.UserSnapshot, to.RootSnapshotAt, to.UserSnapshotAt, to.NextSnapshot = "", "", time.Time{}, time.Time{}, time.Time{}
		to.Task, to.Target, to.Attempts, to.Progress, to.Growth, to.Created = taskCreate, nil, 0, "", nil, now
		to.setState(now, pending, "", "")
		from.UserVolume, from.GrantID = "", ""
		from.Task, from.Target, from.Attempts, from.Progress = taskTerminate, nil, 0, ""
		from.setState(now, terminating, "", "")
		if err := s.workspaces.Put(tx, to.key(), to); err != nil {
			return err
		}
		return s.workspaces.Put(tx, from.key(), from)
	})
}
