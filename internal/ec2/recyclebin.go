package ec2

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A deleted snapshot that a rule of Recycle Bin matches is in the bin until the
// rule's time is over: it can be listed and restored there, and for everything else it
// does not exist. Source: EBS User Guide, "Recover snapshots from the Recycle Bin".

// recycled is when a snapshot entered the bin and when it leaves it for good.
type recycled struct{ Entered, Exits time.Time }

func (s *Service) recycleOperations() []api.Operation {
	return []api.Operation{
		view("ListSnapshotsInRecycleBin", s.listRecycled),
		update("RestoreSnapshotFromRecycleBin", s.restoreRecycled, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.RestoreSnapshotFromRecycleBinInput) ([]api.Target, error) {
			return []api.Target{s.onSnapshot(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
	}
}

// recycle puts a snapshot into the bin when a rule says so.
func (s *Service) recycle(tx *store.Tx, c *api.Call, n *snapshot) bool {
	if s.cfg.Retention == nil || n.Desktop != nil || n.State != "completed" {
		return false
	}
	days := s.cfg.Retention(tx, n.Account, n.Region, n.Tags)
	if days == 0 {
		return false
	}
	n.Bin = &recycled{Entered: c.Time, Exits: c.Time.AddDate(0, 0, days)}
	return true
}

func (s *Service) listRecycled(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ListSnapshotsInRecycleBinInput) (*ec2.ListSnapshotsInRecycleBinOutput, error) {
	p, err := pageOf("ListSnapshotsInRecycleBin", in.MaxResults, in.NextToken, 5, 1000, "snapshotIds", in.SnapshotIds)
	if err != nil {
		return nil, err
	}
	list := []types.SnapshotRecycleBinInfo{}
	s.snapshots.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		if n.Bin != nil && !n.Deleting && (len(in.SnapshotIds) == 0 || slices.Contains(in.SnapshotIds, n.ID)) {
			list = append(list, types.SnapshotRecycleBinInfo{SnapshotId: aws.String(n.ID), VolumeId: aws.String(n.VolumeID), Description: aws.String(n.Description),
				RecycleBinEnterTime: aws.Time(n.Bin.Entered), RecycleBinExitTime: aws.Time(n.Bin.Exits)})
		}
		return true
	})
	for _, id := range in.SnapshotIds {
		if err := checkID("snap", "snapshotId", id); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(i types.SnapshotRecycleBinInfo) bool { return *i.SnapshotId == id }) {
			return nil, noSnapshot(id)
		}
	}
	slices.SortFunc(list, func(a, b types.SnapshotRecycleBinInfo) int { return strings.Compare(*a.SnapshotId, *b.SnapshotId) })
	out := &ec2.ListSnapshotsInRecycleBinOutput{}
	out.Snapshots, out.NextToken = cut(p, list, func(i *types.SnapshotRecycleBinInfo) string { return *i.SnapshotId })
	return out, nil
}

func (s *Service) restoreRecycled(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.RestoreSnapshotFromRecycleBinInput) (*ec2.RestoreSnapshotFromRecycleBinOutput, error) {
	id := aws.ToString(in.SnapshotId)
	if err := checkID("snap", "snapshotId", id); err != nil {
		return nil, err
	}
	n := s.snapshots.Edit(tx, key(c.Account, c.Region, id))
	if n == nil || n.Bin == nil || n.Deleting {
		return nil, noSnapshot(id)
	}
	n.Bin = nil
	o := describeSnapshot(n)
	return &ec2.RestoreSnapshotFromRecycleBinOutput{Description: o.Description, Encrypted: o.Encrypted, OwnerId: o.OwnerId, Progress: o.Progress, SnapshotId: o.SnapshotId,
		StartTime: o.StartTime, State: o.State, VolumeId: o.VolumeId, VolumeSize: o.VolumeSize}, s.snapshots.Put(tx, n.key(), n)
}

// emptyBin lets the snapshots go whose time in the bin is over: first the key, then the data.
func (s *Service) emptyBin(ctx context.Context) {
	now := s.now()
	var over []string
	s.snapshots.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, n *snapshot) bool {
		if n.Host == s.cfg.Host && n.Bin != nil && !n.Deleting && !now.Before(n.Bin.Exits) {
			over = append(over, k)
		}
		return true
	})
	for _, k := range over {
		err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			e := s.snapshots.Edit(tx, k)
			if e == nil || e.Bin == nil || now.Before(e.Bin.Exits) {
				return nil
			}
			e.Deleting, e.Key.Wrapped = true, nil
			return s.snapshots.Put(tx, k, e)
		})
		if err != nil && ctx.Err() == nil {
			s.log.Warn("a snapshot stays in the bin beyond its time", "snapshot", k, "err", err)
		}
	}
}
