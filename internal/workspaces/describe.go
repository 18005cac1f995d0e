package workspaces

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Short names for inputs that resolvers mention.
type (
	describeSnapshotsInput = workspaces.DescribeWorkspaceSnapshotsInput
	rebootInput            = workspaces.RebootWorkspacesInput
	rebuildInput           = workspaces.RebuildWorkspacesInput
	startInput             = workspaces.StartWorkspacesInput
	stopInput              = workspaces.StopWorkspacesInput
	terminateInput         = workspaces.TerminateWorkspacesInput
	modifyStateInput       = workspaces.ModifyWorkspaceStateInput
	modifyPropertiesInput  = workspaces.ModifyWorkspacePropertiesInput
)

// pageSize is the most WorkSpaces, bundles or directories a page holds.
const pageSize = 25

func invalidValues(message string) error {
	return &wstypes.InvalidParameterValuesException{Message: &message}
}

func notFound(what, id string) error {
	m := "The specified " + what + " could not be found: " + id
	return &wstypes.ResourceNotFoundException{Message: &m, ResourceId: &id}
}

// token makes a paging token of the last key shown; untoken reads it back.
func token(last string) *string {
	return aws.String(base64.RawURLEncoding.EncodeToString([]byte("1:" + last)))
}

func untoken(t *string) (string, error) {
	if t == nil {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*t)
	if err != nil || !strings.HasPrefix(string(b), "1:") {
		return "", invalidValues("NextToken is not one that this operation returned.")
	}
	return string(b[2:]), nil
}

// show is a WorkSpace as the API shows it.
func show(w *workspace) *wstypes.Workspace {
	o := &wstypes.Workspace{WorkspaceId: &w.ID, ModificationStates: w.modificationStates(), DirectoryId: &w.DirectoryID, UserName: &w.UserName, BundleId: &w.BundleID, State: w.State,
		ComputerName: &w.ComputerName,
		WorkspaceProperties: &wstypes.WorkspaceProperties{RunningMode: w.RunningMode, ComputeTypeName: w.Compute, Protocols: w.Protocols,
			RootVolumeSizeGib: aws.Int32(int32(w.RootGiB)), UserVolumeSizeGib: aws.Int32(int32(w.UserGiB)), OperatingSystemName: wstypes.OperatingSystemNameUnknown}}
	if w.SubnetID != "" {
		o.SubnetId = &w.SubnetID
	}
	if w.RunningMode == wstypes.RunningModeAutoStop {
		o.WorkspaceProperties.RunningModeAutoStopTimeoutInMinutes = aws.Int32(int32(w.AutoStopMinutes))
	}
	if w.ErrorCode != "" || w.ErrorMessage != "" {
		o.ErrorCode, o.ErrorMessage = &w.ErrorCode, &w.ErrorMessage
	}
	if w.KeyRef != "" {
		o.VolumeEncryptionKey = &w.KeyRef
	}
	o.RootVolumeEncryptionEnabled, o.UserVolumeEncryptionEnabled = aws.Bool(w.EncryptRoot), aws.Bool(w.EncryptUser)
	return o
}

// describeWorkspaces lists WorkSpaces: by IDs, or by directory (and user), or by
// bundle, or all. The three cannot be combined.
func (s *Service) describeWorkspaces(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspacesInput) (*workspaces.DescribeWorkspacesOutput, error) {
	given := 0
	for _, g := range []bool{len(in.WorkspaceIds) > 0, in.DirectoryId != nil, in.BundleId != nil, in.WorkspaceName != nil} {
		if g {
			given++
		}
	}
	if given > 1 {
		return nil, invalidValues("WorkspaceIds, DirectoryId, BundleId and WorkspaceName are filters that cannot be combined with each other.")
	}
	if in.UserName != nil && in.DirectoryId == nil {
		return nil, invalidValues("UserName needs DirectoryId.")
	}
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := int(aws.ToInt32(in.Limit))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeWorkspacesOutput{Workspaces: []wstypes.Workspace{}}
	prefix := key(c.Account, c.Region, "")
	last := ""
	s.workspaces.Scan(tx, prefix, after, func(k string, w *workspace) bool {
		switch {
		case len(in.WorkspaceIds) > 0 && !slices.Contains(in.WorkspaceIds, w.ID),
			in.DirectoryId != nil && *in.DirectoryId != w.DirectoryID,
			in.UserName != nil && !strings.EqualFold(*in.UserName, w.UserName),
			in.BundleId != nil && *in.BundleId != w.BundleID,
			in.WorkspaceName != nil: // names are for WorkSpaces without a user: none here
			return true
		}
		if len(out.Workspaces) == limit {
			out.NextToken = token(last)
			return false
		}
		out.Workspaces = append(out.Workspaces, *show(w))
		last = k
		return true
	})
	return out, nil
}

// describeConnectionStatus tells who is connected. A stopped desktop's is UNKNOWN.
func (s *Service) describeConnectionStatus(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspacesConnectionStatusInput) (*workspaces.DescribeWorkspacesConnectionStatusOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeWorkspacesConnectionStatusOutput{WorkspacesConnectionStatus: []wstypes.WorkspaceConnectionStatus{}}
	now, last := c.Time, ""
	s.workspaces.Scan(tx, key(c.Account, c.Region, ""), after, func(k string, w *workspace) bool {
		if len(in.WorkspaceIds) > 0 && !slices.Contains(in.WorkspaceIds, w.ID) {
			return true
		}
		if len(out.WorkspacesConnectionStatus) == pageSize {
			out.NextToken = token(last)
			return false
		}
		st := wstypes.WorkspaceConnectionStatus{WorkspaceId: &w.ID, ConnectionState: wstypes.ConnectionStateUnknown, ConnectionStateCheckTimestamp: &now}
		if w.State == wstypes.WorkspaceStateAvailable {
			st.ConnectionState = wstypes.ConnectionStateDisconnected
			if w.Connected {
				st.ConnectionState = wstypes.ConnectionStateConnected
			}
		}
		if !w.LastConnected.IsZero() {
			st.LastKnownUserConnectionTimestamp = &w.LastConnected
		}
		out.WorkspacesConnectionStatus = append(out.WorkspacesConnectionStatus, st)
		last = k
		return true
	})
	return out, nil
}

func idsOf[T any](list []T, id func(T) *string) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = deref(id(x))
	}
	return out
}

func rebootIDs(in *rebootInput) []string {
	return idsOf(in.RebootWorkspaceRequests, func(r wstypes.RebootRequest) *string { return r.WorkspaceId })
}

func rebuildIDs(in *rebuildInput) []string {
	return idsOf(in.RebuildWorkspaceRequests, func(r wstypes.RebuildRequest) *string { return r.WorkspaceId })
}

func startIDs(in *startInput) []string {
	return idsOf(in.StartWorkspaceRequests, func(r wstypes.StartRequest) *string { return r.WorkspaceId })
}

func stopIDs(in *stopInput) []string {
	return idsOf(in.StopWorkspaceRequests, func(r wstypes.StopRequest) *string { return r.WorkspaceId })
}

func terminateIDs(in *terminateInput) []string {
	return idsOf(in.TerminateWorkspaceRequests, func(r wstypes.TerminateRequest) *string { return r.WorkspaceId })
}
