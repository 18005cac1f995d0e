package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// The operations below are ours, of the service "sealdesk": AWS has no host of
// one's own to ask about.

// DescribeHostInput is empty.
type DescribeHostInput struct{}

// DescribeHostOutput names the host that serves the call as an instance.
type DescribeHostOutput struct{ InstanceId *string }

// DescribeVolumeExportInput names a volume.
type DescribeVolumeExportInput struct{ VolumeId *string }

// DescribeVolumeExportOutput tells where an attached volume is served over NBD.
type DescribeVolumeExportOutput struct {
	Socket   *string
	Attached *bool
	Reason   *string
}

func (s *Service) hostOperations() []api.Operation {
	return []api.Operation{
		api.NewSteps("sealdesk", "DescribeHost", s.describeHost, api.ReadOnly()),
		api.NewUpdate("sealdesk", "AcceptVolumeState", s.acceptVolumeState,
			api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *AcceptVolumeStateInput) ([]api.Target, error) {
				return []api.Target{{ARN: arnOf(c.Account, c.Region, "volume", aws.ToString(in.VolumeId))}}, nil
			})),
		api.NewView("sealdesk", "DescribeVolumeExport", s.describeVolumeExport,
			api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *DescribeVolumeExportInput) ([]api.Target, error) {
				return []api.Target{{ARN: arnOf(c.Account, c.Region, "volume", aws.ToString(in.VolumeId))}}, nil
			})),
	}
}

func (s *Service) describeHost(ctx context.Context, c *api.Call, _ *DescribeHostInput) (*DescribeHostOutput, error) {
	h, err := s.thisHost(ctx)
	if err != nil {
		return nil, err
	}
	return &DescribeHostOutput{InstanceId: aws.String(instanceID(h, c))}, nil
}

func (s *Service) describeVolumeExport(_ context.Context, _ *store.Tx, c *api.Call, in *DescribeVolumeExportInput) (*DescribeVolumeExportOutput, error) {
	e, err := s.Export(c.Account, c.Region, aws.ToString(in.VolumeId))
	if err != nil {
		return nil, err
	}
	return &DescribeVolumeExportOutput{Socket: &e.Socket, Attached: &e.Attached, Reason: &e.Reason}, nil
}
