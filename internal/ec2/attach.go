package ec2

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/store"
)

// deviceName is what EC2 takes as a device for a data or root volume.
// Source: EC2 User Guide, "Device names for volumes".
var deviceName = regexp.MustCompile(`^(/dev/)?(sd[a-z]|xvd[a-z]{1,2}|nvme[0-9]{1,2}n1|hd[a-z])[0-9]{0,2}$`)

// workspaceMachine is what WorkSpaces gives as the instance: the WorkSpace's ID.
var workspaceMachine = regexp.MustCompile(`^ws-[0-9a-z]{8,63}$`)

func (s *Service) attachVolume(ctx context.Context, c *api.Call, in *ec2.AttachVolumeInput) (*ec2.AttachVolumeOutput, error) {
	v, err := s.attach(ctx, c, attachWish{volumeID: aws.ToString(in.VolumeId), instance: aws.ToString(in.InstanceId), device: aws.ToString(in.Device)})
	if err != nil {
		return nil, err
	}
	a := attachmentOf(v)
	return &ec2.AttachVolumeOutput{AssociatedResource: a.AssociatedResource, AttachTime: a.AttachTime, DeleteOnTermination: a.DeleteOnTermination,
		Device: a.Device, InstanceId: a.InstanceId, InstanceOwningService: a.InstanceOwningService, State: answered(a.State, types.VolumeAttachmentStateAttached, types.VolumeAttachmentStateAttaching), VolumeId: a.VolumeId}, nil
}

type attachWish struct {
	volumeID, instance, device string
	readOnly                   bool
}

// attach records the intent, fetches the key and has the volume served. When it
// returns an error the volume is as it was before.
func (s *Service) attach(ctx context.Context, c *api.Call, w attachWish) (*volume, error) {
	me, err := s.thisHost(ctx)
	if err != nil {
		return nil, err
	}
	volumeKey := key(c.Account, c.Region, w.volumeID)
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	again := false
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		again = false
		v, err := s.find(tx, c, w.volumeID)
		if err != nil {
			return err
		}
		if err := mayManage(c, v, "attach"); err != nil {
			return err
		}
		if isWorkspaces(c) && v.Desktop != nil {
			if !workspaceMachine.MatchString(w.instance) || w.instance != v.Desktop.WorkspaceID {
				return fail("InvalidInstanceID.NotFound", "Volume %s belongs to WorkSpace %s; it cannot be attached to '%s'", v.ID, v.Desktop.WorkspaceID, w.instance)
			}
		} else if err := s.checkInstance(c, me, w.instance); err != nil {
			return err
		} else if v.Zone != hostZone(c.Region) {
			return fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s': it is in %s, the instance in %s.", v.ID, w.instance, v.Zone, hostZone(c.Region))
		}
		if !deviceName.MatchString(w.device) {
			return fail("InvalidParameterValue", "Value (%s) for parameter device is invalid. %s is not a valid EBS device name: use for example /dev/sdf.", w.device, w.device)
		}
		if a := v.Attachment; a != nil {
			if a.State == attaching && a.Instance == w.instance && a.Device == w.device {
				again = true // lost its key or its server: try now instead of waiting
				return nil
			}
			return fail("VolumeInUse", "%s is already attached to an instance", v.ID)
		}
		if v.State != stateAvailable {
			return fail("IncorrectState", "The volume '%s' is not 'available': it is '%s'.%s", v.ID, v.State, because(v.Reason))
		}
		if !isWorkspaces(c) {
			if other := s.atDevice(tx, c, w.instance, w.device); other != "" {
				return fail("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use by %s.", w.device, w.device, other)
			}
		}
		e := s.volumes.Edit(tx, volumeKey)
		e.State, e.Reason, e.Host = stateInUse, "", s.cfg.Host
		e.Attachment = &attachment{Instance: w.instance, Device: w.device, Since: c.Time, State: attaching, ReadOnly: w.readOnly, DeleteOnTermination: v.Desktop != nil}
		return s.volumes.Put(tx, volumeKey, e)
	})
	if err != nil {
		return nil, err
	}
	if err := s.serve(ctx, c.AsService("ec2"), volumeKey); err != nil {
		if again {
			return nil, outward(err)
		}
		end, cancel := finishing(ctx)
		defer cancel()
		if uerr := s.undoAttach(end, volumeKey); uerr != nil {
			s.log.Warn("a failed attachment is not undone yet", "volume", w.volumeID, "err", uerr)
		}
		return nil, outward(err)
	}
	return s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey), nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " Reason: " + reason
}

// outward says in EC2's terms what the data plane reported; other errors stay.
func outward(err error) error {
	if _, ok := serviceError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, block.ErrRollback):
		return fail("IncorrectState", "The volume's data is older than its last recorded state: an old copy was put back, so it is not opened. An operator who means it to be so says \"sealdesk volume accept-state\". (%v)", err)
	case errors.Is(err, block.ErrCorrupt):
		return fail("IncorrectState", "The volume's data is corrupt or was tampered with, so it is not opened. (%v)", err)
	case errors.Is(err, block.ErrKey):
		return fail("IncorrectState", "The volume does not open with its data key: its data was replaced or damaged. (%v)", err)
	case errors.Is(err, block.ErrNoSpace):
		return fail("InsufficientVolumeCapacity", "There is not enough space on the host for this volume. (%v)", err)
	case errors.Is(err, block.ErrStoreBehind):
		return fail("Unavailable", "The object store that volumes live in cannot be reached, or does not take what has to be in it. Try again. (%v)", err)
	case errors.Is(err, block.ErrBusy):
		return fail("IncorrectState", "The volume is open in another process on the host. (%v)", err)
	}
	return err
}

// atDevice is the volume attached to the instance as the device, "" when there is none.
func (s *Service) atDevice(tx *store.Tx, c *api.Call, instance, device string) string {
	found := ""
	s.volumes.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, v *volume) bool {
		if v.Attachment != nil && v.Attachment.Instance == instance && v.Attachment.Device == device {
			found = v.ID
		}
		return found == ""
	})
	return found
}

// serve has the data plane serve a volume whose record says it is to be attached:
// KMS decrypts its data key for c (EBS itself), the plane gets it, and it is
// wiped here. The volume's place on disk is made when it has none yet.
// Called with the volume's lock held. May be called any number of times.
func (s *Service) serve(ctx context.Context, c *api.Call, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.Attachment == nil || v.Attachment.State == detaching {
		return fmt.Errorf("serve %s: it is not to be attached", volumeKey)
	}
	dek, err := s.openKey(ctx, c, v.Key)
	if err != nil {
		return err
	}
	defer dek.Wipe()
	anchor, err := s.place(ctx, c, v, dek)
	if err != nil {
		return err
	}
	anchor, err = s.cfg.Plane.Attach(ctx, Attach{VolumeID: v.ID, Dir: s.dir(v), Socket: s.socket(v), VhostSocket: s.vhostSocket(v), Serial: serial(v), Key: dek, ReadOnly: v.Attachment.ReadOnly, Anchor: anchor, Image: v.Image})
	if err != nil {
		return fmt.Errorf("attach volume %s: %w", v.ID, err)
	}
	return s.editVolume(ctx, volumeKey, func(e *volume) error {
		if e.Attachment == nil {
			return errGone
		}
		e.Attachment.State, e.Attachment.Once, e.Reason = attached, true, ""
		if anchor != nil {
			e.Anchor = anchor
		}
		return nil
	})
}

// undoAttach takes back an attachment that was never served.
func (s *Service) undoAttach(ctx context.Context, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.Attachment == nil || v.Attachment.State != attaching || v.Attachment.Once {
		return nil
	}
	if _, err := s.cfg.Plane.Detach(ctx, v.ID); err != nil && !errors.Is(err, ErrNotServed) {
		return err
	}
	return s.editVolume(ctx, volumeKey, func(e *volume) error {
		e.Attachment, e.State = nil, stateAvailable
		return nil
	})
}

func (s *Service) detachVolume(ctx context.Context, c *api.Call, in *ec2.DetachVolumeInput) (*ec2.DetachVolumeOutput, error) {
	id := aws.ToString(in.VolumeId)
	volumeKey := key(c.Account, c.Region, id)
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if i := aws.ToString(in.InstanceId); i != "" && !workspaceMachine.MatchString(i) {
		me, err := s.thisHost(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.checkInstance(c, me, i); err != nil {
			return nil, err
		}
	}
	var was types.VolumeAttachment
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v, err := s.find(tx, c, id)
		if err != nil {
			return err
		}
		if err := mayManage(c, v, "detach"); err != nil {
			return err
		}
		a := v.Attachment
		switch {
		case a == nil:
			return fail("IncorrectState", "Volume '%s' is in the '%s' state.", id, v.State)
		case in.InstanceId != nil && *in.InstanceId != a.Instance:
			return fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s'.", id, *in.InstanceId)
		case in.Device != nil && *in.Device != a.Device:
			return fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'.", id, a.Instance, *in.Device)
		}
		e := s.volumes.Edit(tx, volumeKey)
		e.Attachment.State = detaching
		was = attachmentOf(e)
		return s.volumes.Put(tx, volumeKey, e)
	})
	if err != nil {
		return nil, err
	}
	end, cancel := finishing(ctx)
	defer cancel()
	// Force makes no difference: the data plane flushes and drops the key, whether or
	// not a client still has its connection.
	_ = in.Force
	if err := s.finishDetach(end, volumeKey); err != nil {
		s.log.Warn("a volume is not detached yet", "volume", id, "err", err)
	}
	return &ec2.DetachVolumeOutput{AssociatedResource: was.AssociatedResource, AttachTime: was.AttachTime, DeleteOnTermination: was.DeleteOnTermination,
		Device: was.Device, InstanceId: was.InstanceId, InstanceOwningService: was.InstanceOwningService, State: was.State, VolumeId: was.VolumeId}, nil
}

// finishDetach has the data plane drop the volume and its key, and records that.
// Called with the volume's lock held. May be called any number of times.
func (s *Service) finishDetach(ctx context.Context, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.Attachment == nil || v.Attachment.State != detaching {
		return nil
	}
	anchor, err := s.cfg.Plane.Detach(ctx, v.ID)
	if err != nil && !errors.Is(err, ErrNotServed) {
		return fmt.Errorf("detach volume %s: %w", v.ID, err)
	}
	s.forget(volumeKey)
	return s.editVolume(ctx, volumeKey, func(e *volume) error {
		if anchor != nil {
			e.Anchor = anchor
		}
		e.Attachment, e.Reason, e.State = nil, "", stateAvailable
		return nil
	})
}

// attachmentOf is the volume's attachment as the API shows it. What is attached to
// a desktop shows the WorkSpace in place of an instance.
func attachmentOf(v *volume) types.VolumeAttachment {
	a := v.Attachment
	o := types.VolumeAttachment{VolumeId: aws.String(v.ID), AttachTime: aws.Time(a.Since), DeleteOnTermination: aws.Bool(a.DeleteOnTermination), State: types.VolumeAttachmentState(a.State)}
	if strings.HasPrefix(a.Instance, "ws-") {
		o.AssociatedResource = aws.String("arn:aws:workspaces:" + v.Region + ":" + v.Account + ":workspace/" + a.Instance)
		o.InstanceOwningService = aws.String("workspaces.amazonaws.com")
		return o
	}
	o.InstanceId, o.Device = aws.String(a.Instance), aws.String(a.Device)
	return o
}

// Export is where an attached volume is served.
type Export struct {
	VolumeID string
	Socket   string // unix socket of the NBD server
	Vhost    string // unix socket of the vhost-user-blk server
	Name     string // of the NBD export
	// Attached tells that the volume is served now; otherwise Reason says why not.
	Attached bool
	Reason   string
}

// Export finds out where the volume is served. It reads a record and gives nothing
// away but a path, which only the host's own processes can open.
func (s *Service) Export(account, region, volumeID string) (Export, error) {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), key(account, region, volumeID))
	if v == nil || v.Draft {
		return Export{}, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", volumeID)
	}
	e := Export{VolumeID: v.ID, Socket: s.socket(v), Vhost: s.vhostSocket(v), Name: v.ID, Reason: v.Reason}
	switch {
	case v.Attachment == nil:
		e.Reason = "the volume is not attached"
	case v.Attachment.State == attached:
		e.Attached = true
	}
	return e, nil
}
