package workspaces

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Short names of states.
const (
	pending     = wstypes.WorkspaceStatePending
	available   = wstypes.WorkspaceStateAvailable
	impaired    = wstypes.WorkspaceStateImpaired
	unhealthy   = wstypes.WorkspaceStateUnhealthy
	rebooting   = wstypes.WorkspaceStateRebooting
	starting    = wstypes.WorkspaceStateStarting
	rebuilding  = wstypes.WorkspaceStateRebuilding
	terminating = wstypes.WorkspaceStateTerminating
	suspended   = wstypes.WorkspaceStateSuspended
	stopping    = wstypes.WorkspaceStateStopping
	stopped     = wstypes.WorkspaceStateStopped
	inError     = wstypes.WorkspaceStateError
	adminMaint  = wstypes.WorkspaceStateAdminMaintenance
)

// stuckReboot is how long a reboot may take before another may be asked for.
const stuckReboot = 20 * time.Minute

// power records what to do for one WorkSpace; nil when the request is refused,
// with the reason. allowed are the states it may be asked in.
func (s *Service) power(tx *store.Tx, c *api.Call, id string, t task, to wstypes.WorkspaceState, allowed []wstypes.WorkspaceState) *wstypes.FailedWorkspaceChangeRequest {
	refused := func(code, message string) *wstypes.FailedWorkspaceChangeRequest {
		return &wstypes.FailedWorkspaceChangeRequest{WorkspaceId: &id, ErrorCode: &code, ErrorMessage: &message}
	}
	k := key(c.Account, c.Region, id)
	w := s.workspaces.Edit(tx, k)
	if w == nil {
		return refused("ResourceNotFound.Workspace", "The specified WorkSpace could not be found: "+id)
	}
	if w.State == adminMaint && t != taskTerminate {
		return refused("InvalidResourceState.Workspace", "The WorkSpace is in ADMIN_MAINTENANCE; set it to AVAILABLE with ModifyWorkspaceState first.")
	}
	if !slices.Contains(allowed, w.State) && !(t == taskReboot && w.State == rebooting && c.Time.Sub(w.StateSince) > stuckReboot) {
		return refused("InvalidResourceState.Workspace", "The WorkSpace is "+string(w.State)+"; this needs one of "+join(allowed)+".")
	}
	if (t == taskStart || t == taskStop) && w.RunningMode == wstypes.RunningModeAlwaysOn {
		return refused("OperationNotSupported.Workspace", "The WorkSpace's running mode is ALWAYS_ON; StartWorkspaces and StopWorkspaces need AUTO_STOP or MANUAL (ModifyWorkspaceProperties).")
	}
	if w.ImageID != "" { // an image that failed, which this takes the place of
		if err := s.failImage(tx, w, "The WorkSpace was asked for something else."); err != nil {
			return refused("InternalFailure", err.Error())
		}
	}
	w.Task, w.Down, w.Attempts, w.NotBefore, w.Progress, w.ImageID, w.Stopped, w.Target = t, false, 0, time.Time{}, "", "", false, nil
	w.setState(c.Time, to, "", "")
	if err := s.workspaces.Put(tx, k, w); err != nil {
		return refused("InternalFailure", err.Error())
	}
	return nil
}

func join(states []wstypes.WorkspaceState) string {
	out := ""
	for i, st := range states {
		if i > 0 {
			out += ", "
		}
		out += string(st)
	}
	return out
}

// changeEach applies power to each WorkSpace of a batch.
func (s *Service) changeEach(tx *store.Tx, c *api.Call, ids []string, t task, to wstypes.WorkspaceState, allowed ...wstypes.WorkspaceState) []wstypes.FailedWorkspaceChangeRequest {
	failed := []wstypes.FailedWorkspaceChangeRequest{}
	for _, id := range ids {
		if f := s.power(tx, c, id, t, to, allowed); f != nil {
			failed = append(failed, *f)
		}
	}
	return failed
}

// rebootWorkspaces powers a desktop down, detaches its volumes (the keys leave
// memory), and brings it up again, for which KMS must decrypt the keys anew.
func (s *Service) rebootWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *rebootInput) (*workspaces.RebootWorkspacesOutput, error) {
	return &workspaces.RebootWorkspacesOutput{FailedRequests: s.changeEach(tx, c, rebootIDs(in), taskReboot, rebooting, available, unhealthy, impaired, inError)}, nil
}

// rebuildWorkspaces renews the root volume from the bundle's image. The user
// volume, with the home, is kept as it is (AWS goes back to its last snapshot).
func (s *Service) rebuildWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *rebuildInput) (*workspaces.RebuildWorkspacesOutput, error) {
	return &workspaces.RebuildWorkspacesOutput{FailedRequests: s.changeEach(tx, c, rebuildIDs(in), taskRebuild, rebuilding, available, inError, unhealthy, impaired, stopped, rebooting)}, nil
}

func (s *Service) startWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *startInput) (*workspaces.StartWorkspacesOutput, error) {
	return &workspaces.StartWorkspacesOutput{FailedRequests: s.changeEach(tx, c, startIDs(in), taskStart, starting, stopped)}, nil
}

func (s *Service) stopWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *stopInput) (*workspaces.StopWorkspacesOutput, error) {
	return &workspaces.StopWorkspacesOutput{FailedRequests: s.changeEach(tx, c, stopIDs(in), taskStop, stopping, available, impaired, unhealthy, inError)}, nil
}

// terminateWorkspaces deletes desktops with their data and retires the grants.
// Terminating one that is being terminated already succeeds.
func (s *Service) terminateWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *terminateInput) (*workspaces.TerminateWorkspacesOutput, error) {
	return &workspaces.TerminateWorkspacesOutput{FailedRequests: s.changeEach(tx, c, terminateIDs(in), taskTerminate, terminating,
		pending, available, impaired, unhealthy, rebooting, starting, rebuilding, stopping, stopped, inError, adminMaint, terminating,
		wstypes.WorkspaceStateMaintenance, wstypes.WorkspaceStateUpdating, wstypes.WorkspaceStateRestoring)}, nil
}

// modifyWorkspaceState sets or ends administrator maintenance.
func (s *Service) modifyWorkspaceState(_ context.Context, tx *store.Tx, c *api.Call, in *modifyStateInput) (*workspaces.ModifyWorkspaceStateOutput, error) {
	k := key(c.Account, c.Region, deref(in.WorkspaceId))
	w := s.workspaces.Edit(tx, k)
	if w == nil {
		return nil, notFound("WorkSpace", deref(in.WorkspaceId))
	}
	switch {
	case in.WorkspaceState == wstypes.TargetWorkspaceStateAdminMaintenance && w.State == available:
		w.setState(c.Time, adminMaint, "", "")
	case in.WorkspaceState == wstypes.TargetWorkspaceStateAvailable && w.State == adminMaint:
		w.setState(c.Time, available, "", "")
	default:
		m := "The WorkSpace is " + string(w.State) + " and cannot be set to " + string(in.WorkspaceState) + "."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	return &workspaces.ModifyWorkspaceStateOutput{}, s.workspaces.Put(tx, k, w)
}

// modifyWorkspaceProperties changes the running mode at once and the compute type
// from the next start on. One volume at a time can be made larger, never smaller; the
// guest sees it after its next reboot. Source: WorkSpaces Administration Guide,
// "Modify a WorkSpace".
func (s *Service) modifyWorkspaceProperties(_ context.Context, tx *store.Tx, c *api.Call, in *modifyPropertiesInput) (*workspaces.ModifyWorkspacePropertiesOutput, error) {
	k := key(c.Account, c.Region, deref(in.WorkspaceId))
	w := s.workspaces.Edit(tx, k)
	if w == nil {
		return nil, notFound("WorkSpace", deref(in.WorkspaceId))
	}
	p := in.WorkspaceProperties
	if p == nil {
		return nil, invalidValues("WorkspaceProperties is empty: name what to change.")
	}
	if !slices.Contains([]wstypes.WorkspaceState{available, stopped, unhealthy, impaired, inError}, w.State) {
		m := "The WorkSpace is " + string(w.State) + "."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	if err := planGrowth(w, p); err != nil {
		return nil, err
	}
	b := s.bundle(tx, c, w.BundleID)
	if b == nil {
		b = &bundle{ID: w.BundleID, RootGiB: w.RootGiB, UserGiB: w.UserGiB, Compute: w.Compute}
	}
	change := *p
	change.RootVolumeSizeGib, change.UserVolumeSizeGib = nil, nil
	if change.RunningMode == "" && change.RunningModeAutoStopTimeoutInMinutes == nil && w.RunningMode == wstypes.RunningModeAutoStop {
		change.RunningModeAutoStopTimeoutInMinutes = aws.Int32(int32(w.AutoStopMinutes))
	}
	if f := applyProperties(w, &change, b); f != nil {
		return nil, invalidValues(f.message)
	}
	return &workspaces.ModifyWorkspacePropertiesOutput{}, s.workspaces.Put(tx, k, w)
}

// planGrowth notes which volume is to be made larger.
func planGrowth(w *workspace, p *wstypes.WorkspaceProperties) error {
	var g growth
	for _, v := range []struct {
		name string
		now  int
		want *int32
		to   *int
	}{{"RootVolumeSizeGib", w.RootGiB, p.RootVolumeSizeGib, &g.RootGiB}, {"UserVolumeSizeGib", w.UserGiB, p.UserVolumeSizeGib, &g.UserGiB}} {
		switch want := int(aws.ToInt32(v.want)); {
		case v.want == nil || want == v.now:
		case want < v.now:
			return invalidValues(fmt.Sprintf("%s %d: a volume cannot be made smaller; it has %d GiB.", v.name, want, v.now))
		case want > 2000:
			return invalidValues(fmt.Sprintf("%s %d: at most 2000 GiB.", v.name, want))
		default:
			*v.to = want
		}
	}
	if g.RootGiB == 0 && g.UserGiB == 0 {
		return nil
	}
	if g.RootGiB != 0 && g.UserGiB != 0 {
		return invalidValues("The root and the user volume cannot be made larger in one call: change one, wait, then the other.")
	}
	if w.Growth != nil && w.Growth.Failed == "" {
		m := "A change of a volume's size is still under way."
		return &wstypes.OperationInProgressException{Message: &m}
	}
	w.Growth = &g
	return nil
}
