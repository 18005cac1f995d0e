package app_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/compute"
)

// write fills 4 KiB of a desktop's disk, read tells what begins there.
func (e *estate) write(id string, role compute.DiskRole, text string) {
	e.t.Helper()
	c := e.guestDisk(id, role)
	_, err := c.WriteAt(bytes.Repeat([]byte(text), 4096/len(text)), 8<<20)
	e.must(err)
	e.must(c.Flush())
}

func (e *estate) read(id string, role compute.DiskRole) string {
	e.t.Helper()
	got := make([]byte, 8)
	_, err := e.guestDisk(id, role).ReadAt(got, 8<<20)
	e.must(err)
	return string(got)
}

func (e *estate) image(ws *workspaces.Client, id string) *wstypes.WorkspaceImage {
	e.t.Helper()
	out, err := ws.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{ImageIds: []string{id}})
	e.must(err)
	if len(out.Images) == 0 {
		return nil
	}
	return &out.Images[0]
}

// plain launches a desktop that nothing encrypts.
func (e *estate) plain(user string) string {
	e.t.Helper()
	e.user(user)
	id, failed := e.launch(e.admin, wstypes.WorkspaceRequest{DirectoryId: &e.directory, UserName: &user, BundleId: aws.String("wsb-value0001")})
	if failed != nil {
		e.t.Fatalf("launch refused: %s: %s", *failed.ErrorCode, *failed.ErrorMessage)
	}
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	return id
}

// TestImages: what was on the root volume of one desktop is on those launched from its
// image, encrypted or not, at launch and after a rebuild, also when the first desktop is
// gone; no image is made of an encrypted one.
func TestImages(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	create := func(name, id string) (*workspaces.CreateWorkspaceImageOutput, error) {
		return ws.CreateWorkspaceImage(ctx, &workspaces.CreateWorkspaceImageInput{Name: &name, Description: aws.String("with tools"), WorkspaceId: &id, Tags: []wstypes.Tag{{Key: aws.String("team"), Value: aws.String("blue")}}})
	}
	source := e.plain("joe")
	e.write(source, compute.RoleRoot, "tools--")
	e.write(source, compute.RoleUser, "secret-")
	out, err := create("golden", source)
	e.must(err)
	id := *out.ImageId
	if out.State != wstypes.WorkspaceImageStatePending || *out.Name != "golden" || out.Created == nil || out.RequiredTenancy != wstypes.WorkspaceImageRequiredTenancyDefault || len(*out.OwnerAccountId) != 12 {
		t.Errorf("CreateWorkspaceImage = %+v, want it PENDING, named and owned", out)
	}
	if _, err := create("golden", source); codeOf(err) != "InvalidResourceStateException" {
		t.Errorf("an image of a SUSPENDED WorkSpace: %v, want InvalidResourceStateException", err)
	}
	e.eventually("the image is available", func() bool { return e.image(ws, id).State == wstypes.WorkspaceImageStateAvailable })
	e.awaitState(source, wstypes.WorkspaceStateAvailable)
	if got := e.read(source, compute.RoleRoot); got != "tools--t" {
		t.Errorf("the desktop's root volume holds %q after its image was made", got)
	}
	if _, err := create("golden", source); codeOf(err) != "ResourceAlreadyExistsException" {
		t.Errorf("an image of the same name: %v, want ResourceAlreadyExistsException", err)
	}
	if _, err := create("other", "ws-hbfljyz9x"); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("an image of an unknown WorkSpace: %v, want ResourceNotFoundException", err)
	}
	sealed := e.launched("jane")
	if _, err := create("sealed", sealed); codeOf(err) != "OperationNotSupportedException" {
		t.Errorf("an image of an encrypted WorkSpace: %v, want OperationNotSupportedException", err)
	}
	tags, err := ws.DescribeTags(ctx, &workspaces.DescribeTagsInput{ResourceId: &id})
	if err != nil || len(tags.TagList) != 1 || *tags.TagList[0].Value != "blue" {
		t.Errorf("tags of the image: %v, %v; want team blue", tags, err)
	}

	bundle := func(name string, root *string) (*workspaces.CreateWorkspaceBundleOutput, error) {
		in := &workspaces.CreateWorkspaceBundleInput{BundleName: &name, BundleDescription: aws.String("x"), ImageId: &id, ComputeType: &wstypes.ComputeType{Name: wstypes.ComputeStandard}, UserStorage: &wstypes.UserStorage{Capacity: aws.String("10")}}
		if root != nil {
			in.RootStorage = &wstypes.RootStorage{Capacity: root}
		}
		return ws.CreateWorkspaceBundle(ctx, in)
	}
	if _, err := bundle("small", aws.String("79")); codeOf(err) != "InvalidParameterValuesException" {
		t.Errorf("a bundle smaller than its image: %v, want InvalidParameterValuesException", err)
	}
	b, err := bundle("golden", aws.String("90"))
	e.must(err)
	e.user("ann")
	request := e.request("ann", e.key)
	request.BundleId = b.WorkspaceBundle.BundleId
	ann, failed := e.launch(e.admin, request)
	if failed != nil {
		t.Fatalf("launch from the image refused: %s", *failed.ErrorMessage)
	}
	e.awaitState(ann, wstypes.WorkspaceStateAvailable)
	if got := e.read(ann, compute.RoleRoot); got != "tools--t" {
		t.Errorf("the root volume launched from the image holds %q, want what was on the source's", got)
	}
	if got := e.read(ann, compute.RoleUser); got == "secret-s" {
		t.Error("the other user's data are on a desktop launched from the image")
	}
	if n := e.guestDisk(ann, compute.RoleRoot).Size(); n != 90<<30 {
		t.Errorf("the root volume has %d bytes, want the bundle's 90 GiB", n)
	}

	terminate := func(id string) {
		_, err := ws.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
		e.must(err)
		e.awaitGone(id)
	}
	terminate(source)
	e.write(ann, compute.RoleRoot, "broken-")
	_, err = ws.RebuildWorkspaces(ctx, &workspaces.RebuildWorkspacesInput{RebuildWorkspaceRequests: []wstypes.RebuildRequest{{WorkspaceId: &ann}}})
	e.must(err)
	e.awaitState(ann, wstypes.WorkspaceStateAvailable)
	if got := e.read(ann, compute.RoleRoot); got != "tools--t" {
		t.Errorf("after a rebuild the root volume holds %q, want the image's", got)
	}

	// The account's owner sees the snapshot and can do nothing with it.
	volumes := ec2.NewFromConfig(e.Config())
	snaps, err := volumes.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	e.must(err)
	if len(snaps.Snapshots) != 1 {
		t.Fatalf("%d snapshots, want the image's", len(snaps.Snapshots))
	}
	if _, err := volumes.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: snaps.Snapshots[0].SnapshotId}); codeOf(err) != "OperationNotPermitted" {
		t.Errorf("DeleteSnapshot of an image's: %v, want OperationNotPermitted", err)
	}

	// Sharing, and a copy in another region.
	share := func(with string, allow bool) error {
		_, err := ws.UpdateWorkspaceImagePermission(ctx, &workspaces.UpdateWorkspaceImagePermissionInput{ImageId: &id, SharedAccountId: &with, AllowCopyImage: &allow})
		return err
	}
	const guest = "999988887777"
	_, accessKey, secretKey, err := e.App.CreateAccount(ctx, guest, "")
	e.must(err)
	theirs := e.WorkSpaces(apptest.Keys(accessKey, secretKey, ""))
	take := func() (*workspaces.CopyWorkspaceImageOutput, error) {
		return theirs.CopyWorkspaceImage(ctx, &workspaces.CopyWorkspaceImageInput{Name: aws.String("taken"), SourceImageId: &id, SourceRegion: aws.String(e.Config().Region)})
	}
	shared := func() int {
		t.Helper()
		out, err := theirs.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{ImageType: wstypes.ImageTypeShared})
		e.must(err)
		return len(out.Images)
	}
	if _, err := take(); codeOf(err) != "ResourceNotFoundException" || shared() != 0 || e.image(theirs, id) != nil {
		t.Errorf("another account sees or copies an image that is not shared: %v", err)
	}
	e.must(share(guest, true))
	if shared() != 1 || e.image(theirs, id) == nil {
		t.Error("the account it is shared with does not see the image")
	}
	for what, err := range map[string]error{"deletes": second(theirs.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: &id})),
		"shares on": second(theirs.UpdateWorkspaceImagePermission(ctx, &workspaces.UpdateWorkspaceImagePermissionInput{ImageId: &id, SharedAccountId: aws.String("111122223333"), AllowCopyImage: aws.Bool(true)}))} {
		if codeOf(err) != "ResourceNotFoundException" {
			t.Errorf("the account it is shared with %s the image: %v, want ResourceNotFoundException", what, err)
		}
	}
	taken, err := take()
	e.must(err)
	e.eventually("their copy is available", func() bool { return e.image(theirs, *taken.ImageId).State == wstypes.WorkspaceImageStateAvailable })
	if i := e.image(theirs, *taken.ImageId); *i.OwnerAccountId != guest {
		t.Errorf("the copy is owned by %s, want %s", *i.OwnerAccountId, guest)
	}
	if e.image(ws, *taken.ImageId) != nil {
		t.Error("the source's account sees the copy")
	}
	_, err = theirs.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: taken.ImageId})
	e.must(err)
	p, err := ws.DescribeWorkspaceImagePermissions(ctx, &workspaces.DescribeWorkspaceImagePermissionsInput{ImageId: &id})
	if err != nil || len(p.ImagePermissions) != 1 || *p.ImagePermissions[0].SharedAccountId != guest || *p.ImageId != id {
		t.Errorf("permissions %+v, %v; want the account", p, err)
	}
	remove := func() error {
		_, err := ws.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: &id})
		return err
	}
	if err := share(*out.OwnerAccountId, true); codeOf(err) != "InvalidParameterValuesException" {
		t.Errorf("sharing with the owner: %v, want InvalidParameterValuesException", err)
	}
	if err := remove(); codeOf(err) != "ResourceAssociatedException" {
		t.Errorf("deleting an image that a bundle uses: %v, want ResourceAssociatedException", err)
	}
	far := workspaces.NewFromConfig(e.Config(e.admin), func(o *workspaces.Options) { o.Region = "eu-west-1" })
	copied, err := far.CopyWorkspaceImage(ctx, &workspaces.CopyWorkspaceImageInput{Name: aws.String("golden"), SourceImageId: &id, SourceRegion: aws.String(e.Config().Region)})
	e.must(err)
	e.eventually("the copy is available", func() bool { return e.image(far, *copied.ImageId).State == wstypes.WorkspaceImageStateAvailable })
	if i := e.image(far, *copied.ImageId); *i.Description != "with tools" {
		t.Errorf("the copy is %+v, want the source's description", i)
	}
	if _, err := far.CopyWorkspaceImage(ctx, &workspaces.CopyWorkspaceImageInput{Name: aws.String("x"), SourceImageId: aws.String("wsi-123456789"), SourceRegion: aws.String("us-east-1")}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("a copy of an unknown image: %v, want ResourceNotFoundException", err)
	}
	_, err = far.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: copied.ImageId})
	e.must(err)

	terminate(ann)
	terminate(sealed)
	_, err = ws.DeleteWorkspaceBundle(ctx, &workspaces.DeleteWorkspaceBundleInput{BundleId: b.WorkspaceBundle.BundleId})
	e.must(err)
	if err := remove(); codeOf(err) != "ResourceAssociatedException" {
		t.Errorf("deleting a shared image: %v, want ResourceAssociatedException", err)
	}
	e.must(share(guest, false))
	e.must(remove())
	if err := remove(); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("deleting an image again: %v, want ResourceNotFoundException", err)
	}
	e.clean(e.key)
	e.eventually("no snapshot is left on disk", func() bool {
		left, _ := filepath.Glob(filepath.Join(e.Dir, "volumes", "*", "*", "snap-*"))
		more, _ := filepath.Glob(filepath.Join(e.Dir, "volumes", "snap-*"))
		return len(left)+len(more) == 0
	})
	if made := e.events("CreateSnapshot"); !slices.ContainsFunc(made, func(r audit.Record) bool { return r.UserIdentity.InvokedBy == "workspaces.amazonaws.com" }) {
		t.Errorf("no CreateSnapshot by WorkSpaces is on the record: %+v", made)
	}
}

// TestImageOfAStoppedWorkspace: it is stopped again afterwards, and its image is good.
func TestImageOfAStoppedWorkspace(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	id := e.plain("joe")
	e.write(id, compute.RoleRoot, "tools--")
	_, err := ws.ModifyWorkspaceProperties(ctx, &workspaces.ModifyWorkspacePropertiesInput{WorkspaceId: &id, WorkspaceProperties: &wstypes.WorkspaceProperties{RunningMode: wstypes.RunningModeAutoStop}})
	e.must(err)
	_, err = ws.StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []wstypes.StopRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitState(id, wstypes.WorkspaceStateStopped)
	// Tags at the creation need the permission to tag.
	_, err = e.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("imager")})
	e.must(err)
	_, err = e.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("imager"), PolicyName: aws.String("p"),
		PolicyDocument: aws.String(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "workspaces:CreateWorkspaceImage", "Resource": "*"}]}`)})
	e.must(err)
	ak, err := e.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("imager")})
	e.must(err)
	imager := e.WorkSpaces(apptest.Keys(*ak.AccessKey.AccessKeyId, *ak.AccessKey.SecretAccessKey, ""))
	in := &workspaces.CreateWorkspaceImageInput{Name: aws.String("golden"), Description: aws.String("x"), WorkspaceId: &id, Tags: []wstypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}
	if _, err := imager.CreateWorkspaceImage(ctx, in); codeOf(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "workspaces:CreateTags") {
		t.Errorf("an image with tags without workspaces:CreateTags: %v, want AccessDeniedException", err)
	}
	in.Tags = nil
	out, err := imager.CreateWorkspaceImage(ctx, in)
	e.must(err)
	e.eventually("the image is available", func() bool { return e.image(ws, *out.ImageId).State == wstypes.WorkspaceImageStateAvailable })
	e.awaitState(id, wstypes.WorkspaceStateStopped)
	_, err = ws.StartWorkspaces(ctx, &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []wstypes.StartRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	if got := e.read(id, compute.RoleRoot); got != "tools--t" {
		t.Errorf("the root volume holds %q after its image was made", got)
	}
}
