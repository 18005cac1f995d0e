package ec2

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// CreateWorkspaceVolumeInput is CreateVolume as WorkSpaces calls it in process: with
// what EC2's own input has no member for. It is authorised (ec2:CreateVolume) and
// recorded as CreateVolume; no protocol reaches it, and only the service principal
// of WorkSpaces may call it.
type CreateWorkspaceVolumeInput struct {
	WorkspaceId *string // ws-…
	Role        *string // root or user
	Size        *int32  // GiB
	Encrypted   *bool
	// KmsKeyId is the ARN of the key, on which WorkSpaces holds the parent grant. Required when Encrypted.
	KmsKeyId *string
	// SidDirectoryId is the value of the encryption context aws:workspaces:sid-directoryid.
	SidDirectoryId *string
	// ImagePath is the raw image that the volume begins with, "" or nil for an empty volume.
	ImagePath *string
	// SnapshotId is the snapshot, an image of a WorkSpace, that it begins with in place of one.
	SnapshotId  *string
	ClientToken *string
}

// CreateWorkspaceVolumeOutput is what CreateVolume answers.
type CreateWorkspaceVolumeOutput struct {
	VolumeId  *string
	State     *string
	KmsKeyId  *string
	Encrypted *bool
}

// ResetWorkspaceVolumeInput renews a detached volume of a WorkSpace: its data are
// replaced by the image (or nothing) at the next attach, under the same data key.
// It is recorded as CreateReplaceRootVolumeTask.
type ResetWorkspaceVolumeInput struct {
	VolumeId  *string
	ImagePath *string
	// SnapshotId names a snapshot of the same volume to go back to, or an image of a
	// WorkSpace, in place of an image file.
	SnapshotId *string
}

// ResetWorkspaceVolumeOutput is empty.
type ResetWorkspaceVolumeOutput struct{}

func (s *Service) workspaceOperations() []api.Operation {
	return []api.Operation{
		api.NewSteps("ec2", "CreateWorkspaceVolume", s.createWorkspaceVolume, api.Internal("CreateVolume"), api.Action("ec2:CreateVolume"),
			api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *CreateWorkspaceVolumeInput) ([]api.Target, error) {
				keys := map[string][]string{"ec2:Region": {c.Region}}
				volumeKeys(keys, hostZone(c.Region), desktopVolumeType, aws.ToInt32(in.Size), 0, 0, aws.ToBool(in.Encrypted))
				return []api.Target{{ARN: arnOf(c.Account, c.Region, "volume", "*"), Keys: keys}}, nil
			})),
		api.NewSteps("ec2", "ResetWorkspaceVolume", s.resetWorkspaceVolume, api.Internal("CreateReplaceRootVolumeTask"), api.Action("ec2:CreateReplaceRootVolumeTask"),
			api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ResetWorkspaceVolumeInput) ([]api.Target, error) {
				return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
			})),
		api.NewUpdate("ec2", "HandOverWorkspaceVolume", s.handOver, api.Internal("ModifyVolume"), api.Action("ec2:ModifyVolume"),
			api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *HandOverWorkspaceVolumeInput) ([]api.Target, error) {
				return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
			})),
	}
}

// HandOverWorkspaceVolumeInput makes a detached user volume that of another WorkSpace
// of the same user. It is recorded as ModifyVolume.
type HandOverWorkspaceVolumeInput struct{ VolumeId, WorkspaceId *string }

// HandOverWorkspaceVolumeOutput is empty.
type HandOverWorkspaceVolumeOutput struct{}

const desktopVolumeType = "gp3"

func (s *Service) createWorkspaceVolume(ctx context.Context, c *api.Call, in *CreateWorkspaceVolumeInput) (*CreateWorkspaceVolumeOutput, error) {
	if !isWorkspaces(c) {
		return nil, fail("OperationNotPermitted", "Only WorkSpaces creates volumes of WorkSpaces.")
	}
	w := &wish{zone: hostZone(c.Region), typ: desktopVolumeType, size: aws.ToInt32(in.Size), encrypted: aws.ToBool(in.Encrypted), key: aws.ToString(in.KmsKeyId),
		token: aws.ToString(in.ClientToken), image: aws.ToString(in.ImagePath), snapshot: aws.ToString(in.SnapshotId), tags: map[string]string{},
		desktop: &desktop{WorkspaceID: aws.ToString(in.WorkspaceId), Role: aws.ToString(in.Role), SIDDirectoryID: aws.ToString(in.SidDirectoryId)}}
	switch {
	case !workspaceMachine.MatchString(w.desktop.WorkspaceID):
		return nil, fail("InvalidParameterValue", "WorkspaceId %q is not the ID of a WorkSpace.", w.desktop.WorkspaceID)
	case w.desktop.Role != "root" && w.desktop.Role != "user":
		return nil, fail("InvalidParameterValue", "Role %q is neither root nor user.", w.desktop.Role)
	case w.encrypted && (w.key == "" || w.desktop.SIDDirectoryID == ""):
		return nil, fail("MissingParameter", "An encrypted volume of a WorkSpace needs KmsKeyId and SidDirectoryId.")
	case !w.encrypted && w.key != "":
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if err := checkImage(w.image, int64(w.size)<<30); err != nil {
		return nil, err
	}
	if w.snapshot != "" {
		n, err := s.usableSnapshot(s.cfg.Store.Snapshot(), c, w.snapshot)
		if err != nil {
			return nil, err
		}
		if w.image != "" || w.size < n.SizeGiB {
			return nil, fail("InvalidParameterValue", "A volume of %d GiB cannot begin with snapshot %s of %d GiB and image %q.", w.size, n.ID, n.SizeGiB, w.image)
		}
	}
	var err error
	if w.iops, w.throughput, err = performance(&w.typ, w.size, nil, nil); err != nil {
		return nil, err
	}
	v, err := s.create(ctx, c, w)
	if err != nil {
		return nil, err
	}
	if c.Record != nil {
		c.Record.AdditionalEventData = map[string]any{"workspaceId": w.desktop.WorkspaceID, "volumeRole": w.desktop.Role}
	}
	return &CreateWorkspaceVolumeOutput{VolumeId: aws.String(v.ID), State: aws.String(v.State), KmsKeyId: aws.String(v.Key.KeyARN), Encrypted: aws.Bool(v.Key.Encrypted)}, nil
}

// checkImage finds out at once what would fail at the first attach.
func checkImage(path string, size int64) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) {
		return fail("InvalidParameterValue", "ImagePath %q is not absolute.", path)
	}
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return fail("InvalidParameterValue", "The image cannot be read: %v", err)
	case !fi.Mode().IsRegular():
		return fail("InvalidParameterValue", "The image %s is not a file.", path)
	case fi.Size() > size:
		return fail("InvalidParameterValue", "The image %s has %d bytes, more than the volume's %d.", path, fi.Size(), size)
	}
	return nil
}

func (s *Service) resetWorkspaceVolume(ctx context.Context, c *api.Call, in *ResetWorkspaceVolumeInput) (*ResetWorkspaceVolumeOutput, error) {
	if !isWorkspaces(c) {
		return nil, fail("OperationNotPermitted", "Only WorkSpaces renews volumes of WorkSpaces.")
	}
	id, image := aws.ToString(in.VolumeId), aws.ToString(in.ImagePath)
	volumeKey := key(c.Account, c.Region, id)
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v, err := s.find(tx, c, id)
		if err != nil {
			return err
		}
		switch {
		case v.Desktop == nil:
			return fail("OperationNotPermitted", "Volume %s is not a WorkSpace's.", id)
		case v.Attachment != nil || v.State != stateAvailable:
			return fail("IncorrectState", "The volume '%s' is not 'available': it is '%s'.", id, v.State)
		}
		if err := checkImage(image, v.size()); err != nil {
			return err
		}
		var source *sourceKey
		if snap := aws.ToString(in.SnapshotId); snap != "" {
			n, err := s.findSnapshot(tx, c, snap)
			if err != nil {
				return err
			}
			switch d := n.Desktop; {
			case d == nil || n.State != "completed" || d.Image == "" && n.VolumeID != v.ID || n.SizeGiB > v.SizeGiB:
				return fail("InvalidParameterValue", "Snapshot %s is neither a completed one that WorkSpaces has taken of volume %s nor an image that fits it.", snap, id)
			case d.Image != "":
				source = &sourceKey{Record: n.key(), Key: n.Key, Blank: n.Blank} // not under a KMS key
			default:
				// The volume keeps its data key for life, so it opens its own snapshots.
				source = &sourceKey{Record: n.key(), Key: v.Key, Blank: n.Blank}
			}
		}
		// The old data go at the next attach, when the place is made anew.
		e := s.volumes.Edit(tx, volumeKey)
		e.Made, e.Anchor, e.Image, e.Source, e.SnapshotID = false, nil, image, source, ""
		return s.volumes.Put(tx, volumeKey, e)
	})
	if err != nil {
		return nil, err
	}
	return &ResetWorkspaceVolumeOutput{}, nil
}

// handOver changes whose a volume is; its encryption context names the user and stays.
func (s *Service) handOver(_ context.Context, tx *store.Tx, c *api.Call, in *HandOverWorkspaceVolumeInput) (*HandOverWorkspaceVolumeOutput, error) {
	id, to := aws.ToString(in.VolumeId), aws.ToString(in.WorkspaceId)
	v, err := s.find(tx, c, id)
	switch {
	case !isWorkspaces(c):
		return nil, fail("OperationNotPermitted", "Only WorkSpaces hands volumes of WorkSpaces over.")
	case err != nil:
		return nil, err
	case v.Desktop == nil || v.Desktop.Role != "user" || v.Attachment != nil || !workspaceMachine.MatchString(to):
		return nil, fail("IncorrectState", "Volume %s is not the detached user volume of a WorkSpace, or '%s' is none.", id, to)
	}
	e := s.volumes.Edit(tx, v.key())
	e.Desktop.WorkspaceID = to
	if c.Record != nil {
		c.Record.AdditionalEventData = map[string]any{"workspaceId": to, "formerWorkspaceId": v.Desktop.WorkspaceID}
	}
	return &HandOverWorkspaceVolumeOutput{}, s.volumes.Put(tx, e.key(), e)
}

// Desktops makes WorkSpaces' calls of EC2, each through the operation table as the
// principal of the call given: the service principal of WorkSpaces. Every method may be repeated.
type Desktops struct {
	s      *Service
	caller api.Caller
}

// Desktops returns the calls that WorkSpaces makes, over caller.
func (s *Service) Desktops(caller api.Caller) *Desktops { return &Desktops{s, caller} }

// Create makes a volume; the same token gives the same volume.
func (d *Desktops) Create(ctx context.Context, c *api.Call, in CreateWorkspaceVolumeInput) (volumeID string, err error) {
	out, err := api.Do[CreateWorkspaceVolumeOutput](ctx, d.caller, c, "ec2", "CreateWorkspaceVolume", &in)
	if err != nil {
		return "", err
	}
	return *out.VolumeId, nil
}

// Status reads how a volume is, without a call: WorkSpaces polls it. state is ""
// when the volume does not exist; reason says why it is not what it should be.
func (d *Desktops) Status(account, region, volumeID string) (state, attachment, reason string) {
	v := d.s.volumes.Get(d.s.cfg.Store.Snapshot(), key(account, region, volumeID))
	if v == nil || v.Draft {
		return "", "", ""
	}
	if v.Attachment != nil {
		attachment = v.Attachment.State
	}
	return v.State, attachment, v.Reason
}

// Attach has the volume served for the WorkSpace's machine; when it is already, it
// says where.
func (d *Desktops) Attach(ctx context.Context, c *api.Call, volumeID, workspaceID, device string) (Export, error) {
	e, err := d.s.Export(c.Account, c.Region, volumeID)
	if err != nil {
		return Export{}, err
	}
	v := d.s.volumes.Get(d.s.cfg.Store.Snapshot(), key(c.Account, c.Region, volumeID))
	if e.Attached && v != nil && v.Attachment != nil && v.Attachment.Instance == workspaceID {
		if sv, err := d.s.servedNow(ctx, volumeID); err == nil && sv != nil && sv.Failed == "" {
			return e, nil
		}
	}
	_, err = api.Do[ec2.AttachVolumeOutput](ctx, d.caller, c, "ec2", "AttachVolume", &ec2.AttachVolumeInput{
		VolumeId: aws.String(volumeID), InstanceId: aws.String(workspaceID), Device: aws.String(device)})
	if err != nil {
		return Export{}, err
	}
	return e, nil
}

// Detach has the volume dropped, and its key wiped. A volume that is not attached, or
// gone, is fine.
func (d *Desktops) Detach(ctx context.Context, c *api.Call, volumeID string) error {
	if _, attachment, _ := d.Status(c.Account, c.Region, volumeID); attachment == "" {
		return nil
	}
	_, err := api.Do[ec2.DetachVolumeOutput](ctx, d.caller, c, "ec2", "DetachVolume", &ec2.DetachVolumeInput{VolumeId: aws.String(volumeID)})
	return err
}

// HandOver makes a detached user volume that of another WorkSpace of the same user. One
// that is already is left alone.
func (d *Desktops) HandOver(ctx context.Context, c *api.Call, volumeID, workspaceID string) error {
	if v := d.s.volumes.Get(d.s.cfg.Store.Snapshot(), key(c.Account, c.Region, volumeID)); v != nil && v.Desktop != nil && v.Desktop.WorkspaceID == workspaceID {
		return nil
	}
	_, err := api.Do[HandOverWorkspaceVolumeOutput](ctx, d.caller, c, "ec2", "HandOverWorkspaceVolume", &HandOverWorkspaceVolumeInput{VolumeId: aws.String(volumeID), WorkspaceId: aws.String(workspaceID)})
	return err
}

// Reset renews a detached volume from an image file or the snapshot that is an image,
// under the same data key.
func (d *Desktops) Reset(ctx context.Context, c *api.Call, volumeID, path, snapshotID string) error {
	_, err := api.Do[ResetWorkspaceVolumeOutput](ctx, d.caller, c, "ec2", "ResetWorkspaceVolume", &ResetWorkspaceVolumeInput{VolumeId: aws.String(volumeID), ImagePath: aws.String(path), SnapshotId: aws.String(snapshotID)})
	return err
}

// Restore takes a detached volume back to a snapshot that Snapshot took of it.
func (d *Desktops) Restore(ctx context.Context, c *api.Call, volumeID, snapshotID string) error {
	_, err := api.Do[ResetWorkspaceVolumeOutput](ctx, d.caller, c, "ec2", "ResetWorkspaceVolume", &ResetWorkspaceVolumeInput{VolumeId: aws.String(volumeID), SnapshotId: aws.String(snapshotID)})
	return err
}

// Snapshot keeps the volume's state; the same name gives the same snapshot.
func (d *Desktops) Snapshot(ctx context.Context, c *api.Call, volumeID, snapshotName string) (snapshotID string, err error) {
	d.s.snapshots.Scan(d.s.cfg.Store.Snapshot(), key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		if n.Desktop != nil && n.VolumeID == volumeID && n.Description == snapshotName && !n.Draft && !n.Deleting {
			snapshotID = n.ID
		}
		return snapshotID == ""
	})
	if snapshotID != "" {
		return snapshotID, nil
	}
	out, err := api.Do[ec2.CreateSnapshotOutput](ctx, d.caller, c, "ec2", "CreateSnapshot", &ec2.CreateSnapshotInput{VolumeId: aws.String(volumeID), Description: aws.String(snapshotName)})
	if err != nil {
		return "", err
	}
	return *out.SnapshotId, nil
}

// DeleteSnapshots deletes the snapshots of a WorkSpace's volumes but those to keep.
func (d *Desktops) DeleteSnapshots(ctx context.Context, c *api.Call, workspaceID string, keep ...string) error {
	var ids []string
	d.s.snapshots.Scan(d.s.cfg.Store.Snapshot(), key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		if n.Desktop != nil && n.Desktop.WorkspaceID == workspaceID && !n.Draft && !n.Deleting && !slices.Contains(keep, n.ID) {
			ids = append(ids, n.ID)
		}
		return true
	})
	for _, id := range ids {
		if _, err := api.Do[ec2.DeleteSnapshotOutput](ctx, d.caller, c, "ec2", "DeleteSnapshot", &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)}); err != nil {
			return err
		}
	}
	return nil
}

// Grow makes the volume as large as sizeGiB. One that is, or is being made so, is left alone.
func (d *Desktops) Grow(ctx context.Context, c *api.Call, volumeID string, sizeGiB int) error {
	v := d.s.volumes.Get(d.s.cfg.Store.Snapshot(), key(c.Account, c.Region, volumeID))
	if v != nil && (v.SizeGiB >= int32(sizeGiB) || v.Modification != nil && v.Modification.State == "modifying" && v.Modification.ToSizeGiB == int32(sizeGiB)) {
		return nil
	}
	_, err := api.Do[ec2.ModifyVolumeOutput](ctx, d.caller, c, "ec2", "ModifyVolume", &ec2.ModifyVolumeInput{VolumeId: aws.String(volumeID), Size: aws.Int32(int32(sizeGiB))})
	return err
}

// Delete destroys the volume's key, its data and EBS's grant. A volume that is gone is fine.
func (d *Desktops) Delete(ctx context.Context, c *api.Call, volumeID string) error {
	if state, _, _ := d.Status(c.Account, c.Region, volumeID); state == "" || state == stateDeleting {
		return nil
	}
	_, err := api.Do[ec2.DeleteVolumeOutput](ctx, d.caller, c, "ec2", "DeleteVolume", &ec2.DeleteVolumeInput{VolumeId: aws.String(volumeID)})
	return err
}
