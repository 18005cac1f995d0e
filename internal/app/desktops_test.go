package app_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

func codeOf(err error) string {
	var apiErr smithy.APIError
	if errors.As(err, &apiErr) {
		return apiErr.ErrorCode()
	}
	return fmt.Sprint(err)
}

// TestManyDesktops: up to 25 in a call, each on its own; filters and pages; what
// describes them.
func TestManyDesktops(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	var requests []wstypes.WorkspaceRequest
	for i := range 26 {
		requests = append(requests, e.request(fmt.Sprintf("user%d", i), e.key))
	}
	if _, err := ws.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: requests}); codeOf(err) != "ValidationException" {
		t.Errorf("26 in a call: %v, want ValidationException", err)
	}
	for i := range 3 {
		e.user(fmt.Sprintf("user%d", i))
	}
	requests = requests[:4] // the fourth user does not exist
	requests[1].Tags = []wstypes.Tag{{Key: aws.String("team"), Value: aws.String("blue")}}
	out, err := ws.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: requests})
	e.must(err)
	if len(out.PendingRequests) != 3 || len(out.FailedRequests) != 1 {
		t.Fatalf("%d pending and %d failed, want 3 and 1", len(out.PendingRequests), len(out.FailedRequests))
	}
	if f := out.FailedRequests[0]; *f.ErrorCode != "ResourceNotFound.User" || *f.WorkspaceRequest.UserName != "user3" {
		t.Errorf("failed: %s for %s, want ResourceNotFound.User for user3", *f.ErrorCode, *f.WorkspaceRequest.UserName)
	}
	var ids []string
	for _, p := range out.PendingRequests {
		if p.State != wstypes.WorkspaceStatePending || p.BundleId == nil || p.DirectoryId == nil {
			t.Errorf("pending: %+v, want state PENDING with its bundle and directory", p)
		}
		ids = append(ids, *p.WorkspaceId)
	}
	for _, id := range ids {
		e.awaitState(id, wstypes.WorkspaceStateAvailable)
	}
	count := func(what string, in workspaces.DescribeWorkspacesInput, want int) {
		t.Helper()
		out, err := ws.DescribeWorkspaces(ctx, &in)
		if err != nil || len(out.Workspaces) != want {
			t.Errorf("DescribeWorkspaces by %s: %v, %v; want %d", what, out, err, want)
		}
	}
	count("IDs", workspaces.DescribeWorkspacesInput{WorkspaceIds: ids[:2]}, 2)
	count("an ID that does not exist", workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{"ws-000000000"}}, 0)
	count("directory", workspaces.DescribeWorkspacesInput{DirectoryId: &e.directory}, 3)
	count("directory and user", workspaces.DescribeWorkspacesInput{DirectoryId: &e.directory, UserName: aws.String("user1")}, 1)
	count("bundle", workspaces.DescribeWorkspacesInput{BundleId: aws.String("wsb-standard1")}, 3)
	count("another bundle", workspaces.DescribeWorkspacesInput{BundleId: aws.String("wsb-000000000")}, 0)
	for what, in := range map[string]workspaces.DescribeWorkspacesInput{
		"IDs and directory":    {WorkspaceIds: ids, DirectoryId: &e.directory},
		"user alone":           {UserName: aws.String("user1")},
		"a token of one's own": {NextToken: aws.String("page-two")},
	} {
		if _, err := ws.DescribeWorkspaces(ctx, &in); codeOf(err) != "InvalidParameterValuesException" {
			t.Errorf("DescribeWorkspaces by %s: %v, want InvalidParameterValuesException", what, err)
		}
	}
	var paged []string
	for p := workspaces.NewDescribeWorkspacesPaginator(ws, &workspaces.DescribeWorkspacesInput{Limit: aws.Int32(1)}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		e.must(err)
		for _, w := range page.Workspaces {
			paged = append(paged, *w.WorkspaceId)
		}
	}
	slices.Sort(paged)
	slices.Sort(ids)
	if !slices.Equal(paged, ids) {
		t.Errorf("in pages of one: %v, want %v", paged, ids)
	}
	w := e.describe(ids[0])
	if w.VolumeEncryptionKey == nil || !*w.RootVolumeEncryptionEnabled || !*w.UserVolumeEncryptionEnabled || w.ComputerName == nil || w.WorkspaceProperties.ComputeTypeName != wstypes.ComputeStandard {
		t.Errorf("described as %+v, want its key, both volumes encrypted, a computer name and STANDARD", w)
	}
	status, err := ws.DescribeWorkspacesConnectionStatus(ctx, &workspaces.DescribeWorkspacesConnectionStatusInput{})
	if err != nil || len(status.WorkspacesConnectionStatus) != 3 || status.WorkspacesConnectionStatus[0].ConnectionState != wstypes.ConnectionStateDisconnected {
		t.Errorf("connection status: %+v, %v; want three, disconnected", status, err)
	}
	tags, err := ws.DescribeTags(ctx, &workspaces.DescribeTagsInput{ResourceId: out.PendingRequests[1].WorkspaceId})
	if err != nil || len(tags.TagList) != 1 || *tags.TagList[0].Value != "blue" {
		t.Errorf("tags of the launch: %+v, %v; want team blue", tags, err)
	}
	bundles, err := ws.DescribeWorkspaceBundles(ctx, &workspaces.DescribeWorkspaceBundlesInput{Owner: aws.String("AMAZON")})
	if err != nil || len(bundles.Bundles) == 0 {
		t.Errorf("bundles of AMAZON: %v, %v; want at least one", bundles, err)
	}
	dirs, err := ws.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{})
	if err != nil || len(dirs.Directories) != 1 || *dirs.Directories[0].DirectoryId != e.directory {
		t.Errorf("directories: %v, %v; want %s", dirs, err, e.directory)
	}

	var terminate []wstypes.TerminateRequest
	for _, id := range append(ids, "ws-000000000") {
		terminate = append(terminate, wstypes.TerminateRequest{WorkspaceId: &id})
	}
	ended, err := ws.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: terminate})
	if err != nil || len(ended.FailedRequests) != 1 || *ended.FailedRequests[0].ErrorCode != "ResourceNotFound.Workspace" {
		t.Errorf("terminate: %+v, %v; want one failed, ResourceNotFound.Workspace", ended, err)
	}
	for _, id := range ids {
		e.awaitGone(id)
	}
	e.clean(e.key)
}

// TestStopAndStart: a stopped desktop's keys are not in memory, and KMS decrypts
// them again when it starts; what a state forbids is refused for that desktop alone.
func TestStopAndStart(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	id := e.launched("jane")
	stop := func() *workspaces.StopWorkspacesOutput {
		out, err := ws.StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []wstypes.StopRequest{{WorkspaceId: &id}}})
		e.must(err)
		return out
	}
	mode := func(m wstypes.RunningMode) {
		_, err := ws.ModifyWorkspaceProperties(ctx, &workspaces.ModifyWorkspacePropertiesInput{WorkspaceId: &id, WorkspaceProperties: &wstypes.WorkspaceProperties{RunningMode: m}})
		e.must(err)
	}
	mode(wstypes.RunningModeAlwaysOn)
	if f := stop().FailedRequests; len(f) != 1 || *f[0].ErrorCode != "OperationNotSupported.Workspace" {
		t.Errorf("stop of an ALWAYS_ON desktop: %+v, want OperationNotSupported.Workspace", f)
	}
	mode(wstypes.RunningModeAutoStop)
	if w := e.describe(id); aws.ToInt32(w.WorkspaceProperties.RunningModeAutoStopTimeoutInMinutes) != 60 {
		t.Errorf("AUTO_STOP with %+v, want a timeout of 60 minutes", w.WorkspaceProperties)
	}
	if f := stop().FailedRequests; len(f) != 0 {
		t.Fatalf("stop: %s", *f[0].ErrorMessage)
	}
	e.awaitState(id, wstypes.WorkspaceStateStopped)
	volumes, err := (&volumed.Client{Socket: filepath.Join(e.Dir, "run", "volumed.sock")}).List(ctx)
	if err != nil || len(volumes) != 0 {
		t.Errorf("volumed holds %v open, %v; want nothing of a stopped desktop", volumes, err)
	}
	if f := stop().FailedRequests; len(f) != 1 || *f[0].ErrorCode != "InvalidResourceState.Workspace" {
		t.Errorf("stop of a stopped desktop: %+v, want InvalidResourceState.Workspace", f)
	}
	reboot, err := ws.RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: &id}}})
	if err != nil || len(reboot.FailedRequests) != 1 {
		t.Errorf("reboot of a stopped desktop: %+v, %v; want it refused", reboot, err)
	}
	before := len(e.events("Decrypt"))
	start, err := ws.StartWorkspaces(ctx, &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []wstypes.StartRequest{{WorkspaceId: &id}}})
	if err != nil || len(start.FailedRequests) != 0 {
		t.Fatalf("start: %+v, %v", start, err)
	}
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	if n := len(e.events("Decrypt")); n != before+2 {
		t.Errorf("%d Decrypt events, want %d: both keys once more", n, before+2)
	}
	_, err = ws.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitGone(id)
	e.clean(e.key)
}
