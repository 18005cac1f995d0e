package ec2

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) describeOperations() []api.Operation {
	return []api.Operation{
		view("DescribeVolumes", s.describeVolumes),
		view("DescribeVolumeStatus", s.describeVolumeStatus),
		view("DescribeVolumeAttribute", s.describeVolumeAttribute, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVolumeAttributeInput) ([]api.Target, error) {
			return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
		})),
	}
}

// volumeFilters are the filters of DescribeVolumes.
var volumeFilters = fields[*types.Volume]{
	of: map[string]func(*types.Volume) []string{
		"attachment.attach-time": func(v *types.Volume) []string {
			return eachAttachment(v, func(a *types.VolumeAttachment) string { return timeText(a.AttachTime) })
		},
		"attachment.delete-on-termination": func(v *types.Volume) []string {
			return eachAttachment(v, func(a *types.VolumeAttachment) string { return flag(aws.ToBool(a.DeleteOnTermination))[0] })
		},
		"attachment.device": func(v *types.Volume) []string {
			return eachAttachment(v, func(a *types.VolumeAttachment) string { return aws.ToString(a.Device) })
		},
		"attachment.instance-id": func(v *types.Volume) []string {
			return eachAttachment(v, func(a *types.VolumeAttachment) string { return aws.ToString(a.InstanceId) })
		},
		"attachment.status": func(v *types.Volume) []string {
			return eachAttachment(v, func(a *types.VolumeAttachment) string { return string(a.State) })
		},
		"availability-zone":    func(v *types.Volume) []string { return one(aws.ToString(v.AvailabilityZone)) },
		"availability-zone-id": func(v *types.Volume) []string { return one(aws.ToString(v.AvailabilityZoneId)) },
		"create-time":          func(v *types.Volume) []string { return one(timeText(v.CreateTime)) },
		"encrypted":            func(v *types.Volume) []string { return flag(aws.ToBool(v.Encrypted)) },
		"fast-restored":        func(*types.Volume) []string { return flag(false) },
		"multi-attach-enabled": func(*types.Volume) []string { return flag(false) },
		"operator.managed":     func(v *types.Volume) []string { return flag(aws.ToBool(v.Operator.Managed)) },
		"operator.principal":   func(v *types.Volume) []string { return one(aws.ToString(v.Operator.Principal)) },
		"size":                 func(v *types.Volume) []string { return one(strconv.Itoa(int(*v.Size))) },
		"snapshot-id":          func(v *types.Volume) []string { return one(aws.ToString(v.SnapshotId)) },
		"status":               func(v *types.Volume) []string { return one(string(v.State)) },
		"volume-id":            func(v *types.Volume) []string { return one(*v.VolumeId) },
		"volume-type":          func(v *types.Volume) []string { return one(string(v.VolumeType)) },
	},
	tags: func(v *types.Volume) map[string]string { return tagMap(v.Tags) },
}

func eachAttachment(v *types.Volume, f func(*types.VolumeAttachment) string) []string {
	var out []string
	for i := range v.Attachments {
		out = append(out, f(&v.Attachments[i]))
	}
	return out
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// namedVolumes are the volumes with the IDs, all of the caller's when there are
// none, in order of ID. An ID that is unknown is an error.
func (s *Service) namedVolumes(tx *store.Tx, c *api.Call, ids []string) ([]*volume, error) {
	var out []*volume
	if len(ids) == 0 {
		s.volumes.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, v *volume) bool {
			if !v.Draft {
				out = append(out, v)
			}
			return true
		})
		return out, nil
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	for _, id := range sorted {
		if err := checkID("vol", "volumes", id); err != nil {
			return nil, err
		}
		v, err := s.find(tx, c, id)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *Service) describeVolumes(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVolumesInput) (*ec2.DescribeVolumesOutput, error) {
	p, err := pageOf("DescribeVolumes", in.MaxResults, in.NextToken, 5, 1000, "volumeIds", in.VolumeIds)
	if err != nil {
		return nil, err
	}
	match, err := volumeFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_ = in.IncludeManagedResources // managed volumes are never hidden
	vs, err := s.namedVolumes(tx, c, in.VolumeIds)
	if err != nil {
		return nil, err
	}
	list := []types.Volume{}
	for _, v := range vs {
		if d := s.describe(v); match(&d) {
			list = append(list, d)
		}
	}
	out := &ec2.DescribeVolumesOutput{}
	out.Volumes, out.NextToken = cut(p, list, func(v *types.Volume) string { return *v.VolumeId })
	return out, nil
}

// statusFilters are the filters of DescribeVolumeStatus.
var statusFilters = fields[*types.VolumeStatusItem]{
	of: map[string]func(*types.VolumeStatusItem) []string{
		"availability-zone":    func(v *types.VolumeStatusItem) []string { return one(aws.ToString(v.AvailabilityZone)) },
		"availability-zone-id": func(v *types.VolumeStatusItem) []string { return one(aws.ToString(v.AvailabilityZoneId)) },
		"event.description": func(v *types.VolumeStatusItem) []string {
			return eachEvent(v, func(e *types.VolumeStatusEvent) string { return aws.ToString(e.Description) })
		},
		"event.event-id": func(v *types.VolumeStatusItem) []string {
			return eachEvent(v, func(e *types.VolumeStatusEvent) string { return aws.ToString(e.EventId) })
		},
		"event.event-type": func(v *types.VolumeStatusItem) []string {
			return eachEvent(v, func(e *types.VolumeStatusEvent) string { return aws.ToString(e.EventType) })
		},
		"event.not-before": func(v *types.VolumeStatusItem) []string {
			return eachEvent(v, func(e *types.VolumeStatusEvent) string { return timeText(e.NotBefore) })
		},
		"operator.managed":     func(v *types.VolumeStatusItem) []string { return flag(aws.ToBool(v.Operator.Managed)) },
		"operator.principal":   func(v *types.VolumeStatusItem) []string { return one(aws.ToString(v.Operator.Principal)) },
		"volume-status.status": func(v *types.VolumeStatusItem) []string { return one(string(v.VolumeStatus.Status)) },
		"volume-status.details-name": func(v *types.VolumeStatusItem) []string {
			var out []string
			for _, d := range v.VolumeStatus.Details {
				out = append(out, string(d.Name))
			}
			return out
		},
		"volume-status.details-status": func(v *types.VolumeStatusItem) []string {
			var out []string
			for _, d := range v.VolumeStatus.Details {
				out = append(out, aws.ToString(d.Status))
			}
			return out
		},
	},
	absent: []string{"action.code", "action.description", "action.event-id", "event.not-after"},
}

func eachEvent(v *types.VolumeStatusItem, f func(*types.VolumeStatusEvent) string) []string {
	var out []string
	for i := range v.Events {
		out = append(out, f(&v.Events[i]))
	}
	return out
}

// describeVolumeStatus says how volumes fare. A volume that cannot be served is
// impaired, with the reason (a KMS exception, damage, lack of space) as an event: AWS has no
// other place for it.
func (s *Service) describeVolumeStatus(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVolumeStatusInput) (*ec2.DescribeVolumeStatusOutput, error) {
	p, err := pageOf("DescribeVolumeStatus", in.MaxResults, in.NextToken, 5, 1000, "volumeIds", in.VolumeIds)
	if err != nil {
		return nil, err
	}
	match, err := statusFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_ = in.IncludeManagedResources // managed volumes are never hidden
	vs, err := s.namedVolumes(tx, c, in.VolumeIds)
	if err != nil {
		return nil, err
	}
	list := []types.VolumeStatusItem{}
	for _, v := range vs {
		if d := statusOf(v); match(&d) {
			list = append(list, d)
		}
	}
	out := &ec2.DescribeVolumeStatusOutput{}
	out.VolumeStatuses, out.NextToken = cut(p, list, func(v *types.VolumeStatusItem) string { return *v.VolumeId })
	return out, nil
}

func statusOf(v *volume) types.VolumeStatusItem {
	o := types.VolumeStatusItem{VolumeId: aws.String(v.ID), AvailabilityZone: aws.String(v.Zone), AvailabilityZoneId: aws.String(zoneID(v.Zone)),
		Actions: []types.VolumeStatusAction{}, Events: []types.VolumeStatusEvent{}, AttachmentStatuses: []types.VolumeStatusAttachmentStatus{},
		Operator: operatorOf(v), VolumeStatus: &types.VolumeStatusInfo{Status: types.VolumeStatusInfoStatusOk}}
	io := "passed"
	if v.Reason != "" {
		event := types.VolumeStatusEvent{Description: aws.String(v.Reason), EventId: aws.String("evol-" + v.ID[len("vol-"):]), EventType: aws.String("potential-data-inconsistency")}
		if v.Attachment != nil {
			event.EventType = aws.String("io-disabled")
			event.InstanceId = aws.String(v.Attachment.Instance)
			event.NotBefore = aws.Time(v.Attachment.Since)
			io = "failed"
			o.VolumeStatus.Status = types.VolumeStatusInfoStatusImpaired
		}
		o.Events = append(o.Events, event)
	}
	o.VolumeStatus.Details = []types.VolumeStatusDetails{
		{Name: types.VolumeStatusNameIoEnabled, Status: aws.String(io)},
		{Name: types.VolumeStatusNameIoPerformance, Status: aws.String("not-applicable")},
	}
	return o
}

func (s *Service) describeVolumeAttribute(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVolumeAttributeInput) (*ec2.DescribeVolumeAttributeOutput, error) {
	v, err := s.find(tx, c, aws.ToString(in.VolumeId))
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeVolumeAttributeOutput{VolumeId: aws.String(v.ID)}
	switch in.Attribute {
	case types.VolumeAttributeNameAutoEnableIO:
		out.AutoEnableIO = &types.AttributeBooleanValue{Value: aws.Bool(v.AutoEnableIO)}
	case types.VolumeAttributeNameProductCodes:
		out.ProductCodes = []types.ProductCode{}
	default:
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Expecting autoEnableIO or productCodes.", in.Attribute)
	}
	return out, nil
}
