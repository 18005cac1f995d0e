package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// An image of a WorkSpace is a snapshot of its root volume that outlives the WorkSpace
// and that volumes of other WorkSpaces begin with. It is of a volume that no KMS key
// encrypts, so every one of them can open it.

// KeepWorkspaceImageInput has a detached root volume of a WorkSpace kept as an image.
// It is recorded as CreateSnapshot.
type KeepWorkspaceImageInput struct {
	VolumeId *string
	ImageId  *string // wsi-…
}

// KeepWorkspaceImageOutput names the snapshot.
type KeepWorkspaceImageOutput struct{ SnapshotId *string }

// CopyWorkspaceImageInput copies the snapshot of an image of any account and region,
// which WorkSpaces knows to be shared. It is recorded as CopySnapshot.
type CopyWorkspaceImageInput struct {
	SourceAccountId, SourceRegion, SourceSnapshotId *string
	ImageId                                         *string // of the copy
}

// CopyWorkspaceImageOutput names the copy.
type CopyWorkspaceImageOutput struct{ SnapshotId *string }

func (s *Service) workspaceImageOperations() []api.Operation {
	return []api.Operation{
		api.NewSteps("ec2", "KeepWorkspaceImage", s.keepImage, api.Internal("CreateSnapshot"), api.Action("ec2:CreateSnapshot"),
			api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *KeepWorkspaceImageInput) ([]api.Target, error) {
				return append(s.onVolumes(tx, c, aws.ToString(in.VolumeId)), api.Target{ARN: newSnapshotARN(c)}), nil
			})),
		api.NewSteps("ec2", "CopyWorkspaceImage", s.copyImage, api.Internal("CopySnapshot"), api.Action("ec2:CopySnapshot"),
			api.On(func(_ context.Context, _ *store.Tx, c *api.Call, _ *CopyWorkspaceImageInput) ([]api.Target, error) {
				return []api.Target{{ARN: newSnapshotARN(c)}}, nil
			})),
	}
}

// imageSnapshot finds the snapshot that is an image, nil when it is not there yet.
func (s *Service) imageSnapshot(c *api.Call, imageID string) *snapshot {
	var found *snapshot
	s.snapshots.Scan(s.cfg.Store.Snapshot(), key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		if n.Desktop != nil && n.Desktop.Image == imageID && !n.hidden() {
			found = n
		}
		return found == nil
	})
	return found
}

func (s *Service) keepImage(ctx context.Context, c *api.Call, in *KeepWorkspaceImageInput) (*KeepWorkspaceImageOutput, error) {
	id, image := aws.ToString(in.VolumeId), aws.ToString(in.ImageId)
	v, err := s.find(s.cfg.Store.Snapshot(), c, id)
	switch {
	case !isWorkspaces(c):
		return nil, fail("OperationNotPermitted", "Only WorkSpaces keeps volumes of WorkSpaces as images.")
	case err != nil:
		return nil, err
	case v.Desktop == nil || v.Desktop.Role != "root" || v.Key.Encrypted || v.Attachment != nil:
		return nil, fail("IncorrectState", "Volume %s is not the detached, unencrypted root volume of a WorkSpace.", id)
	}
	n, err := s.snapshotVolume(ctx, c, id, image, nil)
	if err != nil {
		return nil, err
	}
	// Until here it is one of the WorkSpace's own snapshots, and goes with them.
	if err := s.editSnapshot(ctx, n.key(), func(e *snapshot) { e.Desktop = &desktop{Image: image} }); err != nil {
		return nil, err
	}
	return &KeepWorkspaceImageOutput{SnapshotId: aws.String(n.ID)}, nil
}

func (s *Service) copyImage(ctx context.Context, c *api.Call, in *CopyWorkspaceImageInput) (*CopyWorkspaceImageOutput, error) {
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	src := s.snapshots.Get(s.cfg.Store.Snapshot(), key(aws.ToString(in.SourceAccountId), aws.ToString(in.SourceRegion), aws.ToString(in.SourceSnapshotId)))
	image := aws.ToString(in.ImageId)
	switch {
	case !isWorkspaces(c):
		return nil, fail("OperationNotPermitted", "Only WorkSpaces copies images of WorkSpaces.")
	case src == nil || src.hidden() || src.Desktop == nil || src.Desktop.Image == "":
		return nil, noSnapshot(aws.ToString(in.SourceSnapshotId))
	}
	n := s.newCopy(c, src, image)
	n.Desktop = &desktop{Image: image}
	if err := s.makeCopy(ctx, c, sn, n, src); err != nil {
		return nil, err
	}
	return &CopyWorkspaceImageOutput{SnapshotId: aws.String(n.ID)}, nil
}

// KeepImage keeps a detached root volume as the image with the ID; the same ID gives
// the same snapshot.
func (d *Desktops) KeepImage(ctx context.Context, c *api.Call, volumeID, imageID string) (snapshotID string, err error) {
	if n := d.s.imageSnapshot(c, imageID); n != nil {
		return n.ID, nil
	}
	out, err := api.Do[KeepWorkspaceImageOutput](ctx, d.caller, c, "ec2", "KeepWorkspaceImage", &KeepWorkspaceImageInput{VolumeId: aws.String(volumeID), ImageId: aws.String(imageID)})
	if err != nil {
		return "", err
	}
	return *out.SnapshotId, nil
}

// CopyImage copies the snapshot of an image, as the image with the ID; the same ID
// gives the same copy.
func (d *Desktops) CopyImage(ctx context.Context, c *api.Call, account, region, snapshotID, imageID string) (copyID string, err error) {
	if n := d.s.imageSnapshot(c, imageID); n != nil {
		return n.ID, nil
	}
	out, err := api.Do[CopyWorkspaceImageOutput](ctx, d.caller, c, "ec2", "CopyWorkspaceImage", &CopyWorkspaceImageInput{SourceAccountId: aws.String(account), SourceRegion: aws.String(region),
		SourceSnapshotId: aws.String(snapshotID), ImageId: aws.String(imageID)})
	if err != nil {
		return "", err
	}
	return *out.SnapshotId, nil
}

// DeleteImage deletes the snapshot of an image. One that is gone is fine.
func (d *Desktops) DeleteImage(ctx context.Context, c *api.Call, snapshotID string) error {
	_, err := api.Do[ec2.DeleteSnapshotOutput](ctx, d.caller, c, "ec2", "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: aws.String(snapshotID)})
	if e, ok := serviceError(err); ok && e.ErrorCode() == "InvalidSnapshot.NotFound" {
		return nil
	}
	return err
}
