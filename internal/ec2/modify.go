package ec2

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) modifyOperations() []api.Operation {
	return []api.Operation{
		steps("ModifyVolume", s.modifyVolume, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ModifyVolumeInput) ([]api.Target, error) {
			t := s.onVolumes(tx, c, aws.ToString(in.VolumeId))
			if in.Size != nil {
				t[0].Keys["ec2:TargetVolumeSize"] = []string{strconv.Itoa(int(*in.Size))}
			}
			return t, nil
		})),
		view("DescribeVolumesModifications", s.describeModifications),
		update("ModifyVolumeAttribute", s.modifyVolumeAttribute, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ModifyVolumeAttributeInput) ([]api.Target, error) {
			return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
		})),
		update("EnableVolumeIO", s.enableVolumeIO, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.EnableVolumeIOInput) ([]api.Target, error) {
			return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
		})),
	}
}

// Modifications of a volume: at most so many in so long.
// Source: EBS User Guide, "Modify a volume".
const (
	modificationsPerWindow = 4
	modificationWindow     = 24 * time.Hour
)

// modifyVolume grows a volume and changes its type and performance, which are
// figures in a record here: the engine is always as fast as it can be. A volume
// that was never attached has no data yet and grows by its record alone.
func (s *Service) modifyVolume(ctx context.Context, c *api.Call, in *ec2.ModifyVolumeInput) (*ec2.ModifyVolumeOutput, error) {
	id := aws.ToString(in.VolumeId)
	volumeKey := key(c.Account, c.Region, id)
	if aws.ToBool(in.MultiAttachEnabled) {
		return nil, fail("UnsupportedOperation", "MultiAttachEnabled is not supported: a volume is attached to one machine at a time.")
	}
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var m modification
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v, err := s.find(tx, c, id)
		if err != nil {
			return err
		}
		if err := mayManage(c, v, "modify"); err != nil {
			return err
		}
		if v.State != stateAvailable && v.State != stateInUse {
			return fail("IncorrectState", "The volume '%s' is in state '%s' and cannot be modified.", id, v.State)
		}
		var recent []time.Time
		for _, t := range v.Modified {
			if c.Time.Sub(t) < modificationWindow {
				recent = append(recent, t)
			}
		}
		if len(recent) >= modificationsPerWindow {
			return fail("VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit: %d modifications in %v. Wait until %s.", modificationsPerWindow, modificationWindow, recent[0].Add(modificationWindow).Format(time.RFC3339))
		}
		m = modification{State: "modifying", Start: c.Time, FromSize: v.SizeGiB, FromType: v.Type, FromIops: v.Iops, FromThroughput: v.Throughput,
			ToSizeGiB: v.SizeGiB, ToType: v.Type}
		if in.Size != nil {
			m.ToSizeGiB = *in.Size
		}
		if m.ToSizeGiB < v.SizeGiB {
			return fail("InvalidParameterValue", "New size cannot be smaller than existing size: %s has %d GiB.", id, v.SizeGiB)
		}
		if in.VolumeType != "" {
			m.ToType = string(in.VolumeType)
		}
		iops, throughput := in.Iops, in.Throughput
		if m.ToType == v.Type {
			if l := volumeTypes[v.Type]; iops == nil && l.maxIops > 0 && v.Iops > 0 {
				iops = aws.Int32(v.Iops)
			}
			if throughput == nil && v.Throughput > 0 {
				throughput = aws.Int32(v.Throughput)
			}
		}
		if m.ToIops, m.ToThroughput, err = performance(&m.ToType, m.ToSizeGiB, iops, throughput); err != nil {
			return err
		}
		if _, can := s.cfg.Plane.(Grower); m.ToSizeGiB > v.SizeGiB && v.Made && !can {
			return fail("UnsupportedOperation", "Volume %s holds data already and this data plane cannot grow volumes. Create a larger volume and copy the data.", id)
		}
		e := s.volumes.Edit(tx, volumeKey)
		e.Modification, e.Modified = &m, append(recent, c.Time)
		return s.volumes.Put(tx, volumeKey, e)
	})
	if err != nil {
		return nil, err
	}
	end, cancel := finishing(ctx)
	defer cancel()
	if err := s.finishModification(end, c.AsService("ec2"), volumeKey); err != nil {
		s.log.Warn("a volume is not modified yet", "volume", id, "err", err)
	}
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.Modification == nil {
		return nil, errGone
	}
	o := modificationOf(v)
	if o.ModificationState == types.VolumeModificationStateCompleted {
		o.ModificationState, o.Progress, o.EndTime = types.VolumeModificationStateModifying, aws.Int64(0), nil
	}
	return &ec2.ModifyVolumeOutput{VolumeModification: o}, nil
}

// finishModification grows the data, then records the new figures. A refusal by KMS
// or the data plane ends the modification as failed, with the reason.
// Called with the volume's lock held. May be called any number of times.
func (s *Service) finishModification(ctx context.Context, c *api.Call, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.Modification == nil || v.Modification.State != "modifying" {
		return nil
	}
	anchor, err := s.grow(ctx, c, v)
	return s.editVolume(ctx, volumeKey, func(e *volume) error {
		m := e.Modification
		m.End = s.now()
		if err != nil {
			m.State, m.Message = "failed", reasonOf(err)
			return nil
		}
		m.State = "completed"
		e.SizeGiB, e.Type, e.Iops, e.Throughput = m.ToSizeGiB, m.ToType, m.ToIops, m.ToThroughput
		if anchor != nil {
			e.Anchor = anchor
		}
		return nil
	})
}

func (s *Service) grow(ctx context.Context, c *api.Call, v *volume) ([]byte, error) {
	to := v.Modification.ToSizeGiB
	if to == v.SizeGiB || !v.Made {
		return nil, nil
	}
	g, ok := s.cfg.Plane.(Grower)
	if !ok {
		return nil, fmt.Errorf("the data plane cannot grow volumes")
	}
	if v.Attachment != nil {
		return g.Grow(ctx, Growth{VolumeID: v.ID, Dir: s.dir(v), Size: int64(to) << 30})
	}
	dek, err := s.openKey(ctx, c, v.Key)
	if err != nil {
		return nil, err
	}
	defer dek.Wipe()
	return g.Grow(ctx, Growth{VolumeID: v.ID, Dir: s.dir(v), Size: int64(to) << 30, Key: dek, Anchor: v.Anchor, Image: v.Image})
}

func modificationOf(v *volume) *types.VolumeModification {
	m := v.Modification
	o := &types.VolumeModification{VolumeId: aws.String(v.ID), ModificationState: types.VolumeModificationState(m.State), StartTime: aws.Time(m.Start),
		OriginalSize: aws.Int32(m.FromSize), TargetSize: aws.Int32(m.ToSizeGiB), OriginalVolumeType: types.VolumeType(m.FromType), TargetVolumeType: types.VolumeType(m.ToType),
		OriginalMultiAttachEnabled: aws.Bool(false), TargetMultiAttachEnabled: aws.Bool(false), Progress: aws.Int64(0), Operator: operatorOf(v)}
	figure := func(n int32) *int32 {
		if n == 0 {
			return nil
		}
		return aws.Int32(n)
	}
	o.OriginalIops, o.TargetIops = figure(m.FromIops), figure(m.ToIops)
	o.OriginalThroughput, o.TargetThroughput = figure(m.FromThroughput), figure(m.ToThroughput)
	if m.Message != "" {
		o.StatusMessage = aws.String(m.Message)
	}
	if !m.End.IsZero() {
		o.EndTime = aws.Time(m.End)
	}
	if m.State == "completed" {
		o.Progress = aws.Int64(100)
	}
	return o
}

var modificationFilters = fields[*types.VolumeModification]{of: map[string]func(*types.VolumeModification) []string{
	"modification-state":         func(m *types.VolumeModification) []string { return one(string(m.ModificationState)) },
	"operator.managed":           func(m *types.VolumeModification) []string { return flag(aws.ToBool(m.Operator.Managed)) },
	"operator.principal":         func(m *types.VolumeModification) []string { return one(aws.ToString(m.Operator.Principal)) },
	"original-iops":              func(m *types.VolumeModification) []string { return number(m.OriginalIops) },
	"target-iops":                func(m *types.VolumeModification) []string { return number(m.TargetIops) },
	"originalMultiAttachEnabled": func(*types.VolumeModification) []string { return flag(false) },
	"targetMultiAttachEnabled":   func(*types.VolumeModification) []string { return flag(false) },
	"original-size":              func(m *types.VolumeModification) []string { return one(strconv.Itoa(int(*m.OriginalSize))) },
	"target-size":                func(m *types.VolumeModification) []string { return one(strconv.Itoa(int(*m.TargetSize))) },
	"original-volume-type":       func(m *types.VolumeModification) []string { return one(string(m.OriginalVolumeType)) },
	"target-volume-type":         func(m *types.VolumeModification) []string { return one(string(m.TargetVolumeType)) },
	"start-time":                 func(m *types.VolumeModification) []string { return one(timeText(m.StartTime)) },
	"volume-id":                  func(m *types.VolumeModification) []string { return one(*m.VolumeId) },
}}

func (s *Service) describeModifications(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVolumesModificationsInput) (*ec2.DescribeVolumesModificationsOutput, error) {
	p, err := pageOf("DescribeVolumesModifications", in.MaxResults, in.NextToken, 1, 500, "volumeIds", in.VolumeIds)
	if err != nil {
		return nil, err
	}
	match, err := modificationFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_ = in.IncludeManagedResources // managed volumes are never hidden
	vs, err := s.namedVolumes(tx, c, in.VolumeIds)
	if err != nil {
		return nil, err
	}
	list := []types.VolumeModification{}
	for _, v := range vs {
		if v.Modification == nil {
			if len(in.VolumeIds) > 0 {
				return nil, fail("InvalidVolumeModification.NotFound", "Modification for volume '%s' does not exist.", v.ID)
			}
			continue
		}
		if m := modificationOf(v); match(m) {
			list = append(list, *m)
		}
	}
	out := &ec2.DescribeVolumesModificationsOutput{}
	out.VolumesModifications, out.NextToken = cut(p, list, func(m *types.VolumeModification) string { return *m.VolumeId })
	return out, nil
}

func (s *Service) modifyVolumeAttribute(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ModifyVolumeAttributeInput) (*ec2.ModifyVolumeAttributeOutput, error) {
	v, err := s.find(tx, c, aws.ToString(in.VolumeId))
	if err != nil {
		return nil, err
	}
	if err := mayManage(c, v, "modify"); err != nil {
		return nil, err
	}
	if in.AutoEnableIO == nil || in.AutoEnableIO.Value == nil {
		return nil, fail("MissingParameter", "The request must contain the parameter autoEnableIO")
	}
	e := s.volumes.Edit(tx, v.key())
	e.AutoEnableIO = *in.AutoEnableIO.Value
	return &ec2.ModifyVolumeAttributeOutput{}, s.volumes.Put(tx, v.key(), e)
}

// enableVolumeIO has an attachment that is not served tried again at once. I/O on a
// volume whose bytes do not authenticate stays off: there is nothing that could be returned.
func (s *Service) enableVolumeIO(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.EnableVolumeIOInput) (*ec2.EnableVolumeIOOutput, error) {
	v, err := s.find(tx, c, aws.ToString(in.VolumeId))
	if err != nil {
		return nil, err
	}
	volumeKey := v.key()
	tx.AfterCommit(func() { s.forget(volumeKey) })
	return &ec2.EnableVolumeIOOutput{}, nil
}
