package app

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/ec2"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/workspaces"
)

// directoryView shows Directory Service to WorkSpaces.
type directoryView struct{ d *directory.Service }

func (v directoryView) User(tx *store.Tx, account, region, directoryID, userName string) (workspaces.DirectoryUser, bool) {
	u, ok := v.d.User(tx, account, region, directoryID, userName)
	return workspaces.DirectoryUser{Name: u.SAMAccountName, DisplayName: u.DisplayName, SID: u.SID, Enabled: u.Enabled}, ok
}

func (v directoryView) Directory(tx *store.Tx, account, region, directoryID string) (workspaces.Directory, bool) {
	d, ok := v.d.Directory(tx, account, region, directoryID)
	return workspaces.Directory{ID: d.ID, Name: d.Name, Alias: d.Alias, Type: d.Type, Stage: d.Stage, DNSIPs: d.DNSIPs, SubnetIDs: d.SubnetIDs}, ok
}

// workspaceVolumes shows EBS to WorkSpaces.
type workspaceVolumes struct{ *ec2.Desktops }

func (v workspaceVolumes) Create(ctx context.Context, c *api.Call, r workspaces.VolumeRequest) (string, error) {
	return v.Desktops.Create(ctx, c, ec2.CreateWorkspaceVolumeInput{WorkspaceId: &r.WorkspaceID, Role: aws.String(string(r.Role)), Size: aws.Int32(int32(r.SizeGiB)),
		Encrypted: &r.Encrypted, KmsKeyId: opt(r.KeyARN), SidDirectoryId: opt(r.SidDirectoryID), ImagePath: opt(r.From.Path), SnapshotId: opt(r.From.Snapshot), ClientToken: &r.ClientToken})
}

func (v workspaceVolumes) Reset(ctx context.Context, c *api.Call, volumeID string, from workspaces.Source) error {
	return v.Desktops.Reset(ctx, c, volumeID, from.Path, from.Snapshot)
}

func (v workspaceVolumes) Status(_ context.Context, c *api.Call, volumeID string) (workspaces.VolumeStatus, error) {
	state, _, reason := v.Desktops.Status(c.Account, c.Region, volumeID)
	return workspaces.VolumeStatus{State: state, Reason: reason}, nil
}

func (v workspaceVolumes) Attach(ctx context.Context, c *api.Call, volumeID, workspaceID, device string) (compute.Disk, error) {
	e, err := v.Desktops.Attach(ctx, c, volumeID, workspaceID, device)
	return compute.Disk{Socket: e.Socket, Export: e.Name, Vhost: e.Vhost}, err
}

func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// servicePolicies are what the services may do to each other's resources. KMS is
// not among them: there a service has what a grant gives it and nothing else.
func servicePolicies() map[string][]policy.Source {
	doc := policy.MustParse(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["ec2:CreateVolume", "ec2:AttachVolume",
		"ec2:DetachVolume", "ec2:DeleteVolume", "ec2:DescribeVolumes", "ec2:CreateReplaceRootVolumeTask", "ec2:CreateTags", "ec2:CreateSnapshot", "ec2:CopySnapshot", "ec2:DeleteSnapshot", "ec2:ModifyVolume",
		"workspaces:StartWorkspaces", "workspaces:RebootWorkspaces", "workspaces:DescribeWorkspacesConnectionStatus"], "Resource": "*"}]}`, policy.Identity)
	return map[string][]policy.Source{"workspaces": {{ID: "service:workspaces", Document: doc}}}
}
