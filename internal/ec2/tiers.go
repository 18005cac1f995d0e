package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

var tierFilters = fields[*types.SnapshotTierStatus]{
	of: map[string]func(*types.SnapshotTierStatus) []string{
		"last-tiering-operation": func(*types.SnapshotTierStatus) []string { return nil },
		"snapshot-id":            func(n *types.SnapshotTierStatus) []string { return one(*n.SnapshotId) },
		"volume-id":              func(n *types.SnapshotTierStatus) []string { return one(*n.VolumeId) },
	},
	tags: func(n *types.SnapshotTierStatus) map[string]string { return tagMap(n.Tags) },
}

// describeTiers: every snapshot is in the standard tier; there is no archive.
func (s *Service) describeTiers(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeSnapshotTierStatusInput) (*ec2.DescribeSnapshotTierStatusOutput, error) {
	p, err := pageOf("DescribeSnapshotTierStatus", in.MaxResults, in.NextToken, 5, 1000, "", nil)
	if err != nil {
		return nil, err
	}
	match, err := tierFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	list := []types.SnapshotTierStatus{}
	s.snapshots.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		d := types.SnapshotTierStatus{SnapshotId: aws.String(n.ID), VolumeId: aws.String(n.VolumeID), OwnerId: aws.String(n.Account), Status: types.SnapshotState(n.State),
			StorageTier: types.StorageTierStandard, Tags: tagList(n.Tags)}
		if !n.hidden() && match(&d) {
			list = append(list, d)
		}
		return true
	})
	out := &ec2.DescribeSnapshotTierStatusOutput{}
	out.SnapshotTierStatuses, out.NextToken = cut(p, list, func(n *types.SnapshotTierStatus) string { return *n.SnapshotId })
	return out, nil
}
