package workspaces

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Snapshots of a desktop's volumes are taken while it runs: the first half an hour
// after it was made, rebuilt or restored, then every 12 hours; of both volumes
// when it is healthy, of the user volume alone when it is not. The newest is kept.
// Source: WorkSpaces Administration Guide, "Restore a WorkSpace".
const (
	firstSnapshot = 30 * time.Minute
	// snapshotRetry is the pause after a snapshot that failed.
	snapshotRetry = 5 * time.Minute
)

// growth is a change of size that is under way, or has failed. Sizes in GiB, 0: as it is.
type growth struct {
	RootGiB, UserGiB int
	Failed           string `json:",omitempty"` // why; "" while under way
}

// upkeep takes the snapshots that are due and grows volumes, for WorkSpaces that
// have no task.
func (s *Service) upkeep(ctx context.Context) {
	now := s.cfg.Clock.Now()
	var due []*workspace
	s.workspaces.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, w *workspace) bool {
		if w.Task == taskNone && (s.snapshotDue(w, now) || w.Growth != nil && w.Growth.Failed == "") && s.claim(k) {
			due = append(due, w)
		}
		return true
	})
	for _, w := range due {
		if w.Growth != nil && w.Growth.Failed == "" {
			s.grow(ctx, w)
		} else if err := s.takeSnapshots(ctx, w); err != nil && ctx.Err() == nil {
			s.log.Warn("no snapshot of the volumes, will be tried again", "workspace", w.ID, "err", err)
			if _, err := s.change(ctx, w.key(), func(w *workspace) { w.NextSnapshot = now.Add(snapshotRetry) }); err != nil {
				s.log.Warn("the time of the next snapshot could not be recorded", "workspace", w.ID, "err", err)
			}
		}
		s.release(w.key())
	}
}

// claim takes a record for a worker, if no other has it.
func (s *Service) claim(k string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working[k] {
		return false
	}
	s.working[k] = true
	return true
}

func (s *Service) snapshotDue(w *workspace, now time.Time) bool {
	running := w.State == available || w.State == impaired || w.State == unhealthy
	return running && w.UserVolume != "" && !now.Before(w.NextSnapshot)
}

// takeSnapshots keeps the volumes' state and lets the older snapshots go. It may be
// repeated: a snapshot is named after the time it was due at.
func (s *Service) takeSnapshots(ctx context.Context, w *workspace) error {
	c, due := s.call(w), w.NextSnapshot.UTC().Format(time.RFC3339)
	user, err := s.cfg.Volumes.Snapshot(ctx, c, w.UserVolume, w.ID+" user "+due)
	if err != nil {
		return fmt.Errorf("snapshot of the user volume %s: %w", w.UserVolume, err)
	}
	root := w.RootSnapshot
	if w.State == available {
		if root, err = s.cfg.Volumes.Snapshot(ctx, c, w.RootVolume, w.ID+" root "+due); err != nil {
			return fmt.Errorf("snapshot of the root volume %s: %w", w.RootVolume, err)
		}
	}
	now := s.cfg.Clock.Now()
	_, err = s.change(ctx, w.key(), func(r *workspace) {
		r.UserSnapshot, r.UserSnapshotAt = user, now
		if root != r.RootSnapshot {
			r.RootSnapshot, r.RootSnapshotAt = root, now
		}
		r.NextSnapshot = now.Add(s.cfg.SnapshotEvery)
	})
	if err != nil {
		return err
	}
	return s.cfg.Volumes.DeleteSnapshots(ctx, c, w.ID, root, user)
}

// goBack takes both detached volumes back to their snapshots.
func (s *Service) goBack(ctx context.Context, w *workspace) error {
	for _, v := range [][2]string{{w.RootVolume, w.RootSnapshot}, {w.UserVolume, w.UserSnapshot}} {
		if err := s.cfg.Volumes.Restore(ctx, s.call(w), v[0], v[1]); err != nil {
			return fmt.Errorf("restore volume %s to snapshot %s: %w", v[0], v[1], err)
		}
	}
	return nil
}

func (s *Service) grow(ctx context.Context, w *workspace) {
	err := s.growVolumes(ctx, w)
	if ctx.Err() != nil {
		return
	}
	_, recorded := s.change(ctx, w.key(), func(r *workspace) {
		if err != nil {
			r.Growth.Failed = err.Error()
			return
		}
		r.RootGiB, r.UserGiB, r.Growth = max(r.RootGiB, w.Growth.RootGiB), max(r.UserGiB, w.Growth.UserGiB), nil
	})
	if err != nil || recorded != nil {
		s.log.Warn("the volumes are not grown", "workspace", w.ID, "err", err, "record", recorded)
	}
}

func (s *Service) growVolumes(ctx context.Context, w *workspace) error {
	for _, v := range []struct {
		id        string
		now, want int
	}{{w.RootVolume, w.RootGiB, w.Growth.RootGiB}, {w.UserVolume, w.UserGiB, w.Growth.UserGiB}} {
		if v.want <= v.now || v.id == "" {
			continue
		}
		if err := s.cfg.Volumes.Grow(ctx, s.call(w), v.id, v.want); err != nil {
			return fmt.Errorf("grow volume %s to %d GiB: %w", v.id, v.want, err)
		}
	}
	return nil
}

// modificationStates shows a growth as AWS does.
func (w *workspace) modificationStates() []wstypes.ModificationState {
	out := []wstypes.ModificationState{}
	if w.Growth == nil {
		return out
	}
	st := wstypes.ModificationStateEnumUpdateInProgress
	if w.Growth.Failed != "" {
		st = wstypes.ModificationStateEnumUpdateFailed
	}
	if w.Growth.RootGiB > 0 {
		out = append(out, wstypes.ModificationState{Resource: wstypes.ModificationResourceEnumRootVolume, State: st})
	}
	if w.Growth.UserGiB > 0 {
		out = append(out, wstypes.ModificationState{Resource: wstypes.ModificationResourceEnumUserVolume, State: st})
	}
	return out
}

// restoreWorkspace takes both volumes back to their last snapshot.
func (s *Service) restoreWorkspace(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.RestoreWorkspaceInput) (*workspaces.RestoreWorkspaceOutput, error) {
	id := deref(in.WorkspaceId)
	w := s.workspaces.Get(tx, key(c.Account, c.Region, id))
	switch {
	case w == nil:
		return nil, notFound("WorkSpace", id)
	case w.RootSnapshot == "" || w.UserSnapshot == "":
		return nil, invalidValues("The WorkSpace has no snapshots of both volumes yet (DescribeWorkspaceSnapshots); the first are taken half an hour after launch, rebuild or restore.")
	}
	if f := s.power(tx, c, id, taskRestore, wstypes.WorkspaceStateRestoring, []wstypes.WorkspaceState{available, inError, unhealthy, stopped}); f != nil {
		return nil, invalidValues(deref(f.ErrorMessage))
	}
	return &workspaces.RestoreWorkspaceOutput{}, nil
}

// describeSnapshots shows what a restore goes back to. A rebuild keeps the user
// volume as it is; the snapshot of it is shown as the point that AWS would go back to.
func (s *Service) describeSnapshots(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceSnapshotsInput) (*workspaces.DescribeWorkspaceSnapshotsOutput, error) {
	w := s.workspaces.Get(tx, key(c.Account, c.Region, deref(in.WorkspaceId)))
	if w == nil {
		return nil, notFound("WorkSpace", deref(in.WorkspaceId))
	}
	out := &workspaces.DescribeWorkspaceSnapshotsOutput{RebuildSnapshots: []wstypes.Snapshot{}, RestoreSnapshots: []wstypes.Snapshot{}}
	if w.UserSnapshot != "" {
		out.RebuildSnapshots = append(out.RebuildSnapshots, wstypes.Snapshot{SnapshotTime: &w.UserSnapshotAt})
		if w.RootSnapshot != "" {
			out.RestoreSnapshots = append(out.RestoreSnapshots, wstypes.Snapshot{SnapshotTime: &w.RootSnapshotAt})
		}
	}
	return out, nil
}
