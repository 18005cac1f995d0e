package ec2

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A locked snapshot cannot be deleted by anybody until the lock has expired. In
// governance mode, and in compliance mode as long as the cooling-off period
// lasts, whoever may can change or take away the lock; afterwards a compliance
// lock can only be made longer. Source: EBS User Guide, "Amazon EBS snapshot lock".

// snapshotLock is the lock of a snapshot; it does not end with its expiry, since
// an expired lock is still shown.
type snapshotLock struct {
	Mode    types.LockMode
	Created time.Time
	// CoolOff is the cooling-off period in hours, 0 for none.
	CoolOff int32 `json:",omitempty"`
	Days    int32
	Expires time.Time
}

func (l *snapshotLock) coolOffEnd() time.Time {
	return l.Created.Add(time.Duration(l.CoolOff) * time.Hour)
}

// state is the lock's state at a time.
func (l *snapshotLock) state(now time.Time) types.LockState {
	switch {
	case !now.Before(l.Expires):
		return types.LockStateExpired
	case l.Mode == types.LockModeGovernance:
		return types.LockStateGovernance
	case now.Before(l.coolOffEnd()):
		return types.LockStateComplianceCooloff
	}
	return types.LockStateCompliance
}

// holds tells whether the snapshot may not be deleted. A nil lock holds nothing.
func (l *snapshotLock) holds(now time.Time) bool {
	return l != nil && l.state(now) != types.LockStateExpired
}

func (s *Service) lockOperations() []api.Operation {
	return []api.Operation{
		update("LockSnapshot", s.lockSnapshot, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.LockSnapshotInput) ([]api.Target, error) {
			t := s.onSnapshot(tx, c, aws.ToString(in.SnapshotId))
			if in.LockDuration != nil {
				t.Keys["ec2:SnapshotLockDuration"] = []string{strconv.Itoa(int(*in.LockDuration))}
			}
			if in.CoolOffPeriod != nil {
				t.Keys["ec2:SnapshotCoolOffPeriod"] = []string{strconv.Itoa(int(*in.CoolOffPeriod))}
			}
			return []api.Target{t}, nil
		})),
		update("UnlockSnapshot", s.unlockSnapshot, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.UnlockSnapshotInput) ([]api.Target, error) {
			return []api.Target{s.onSnapshot(tx, c, aws.ToString(in.SnapshotId))}, nil
		})),
		view("DescribeLockedSnapshots", s.describeLockedSnapshots),
		update("EnableSnapshotBlockPublicAccess", s.enableSnapshotBlock),
		update("DisableSnapshotBlockPublicAccess", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.DisableSnapshotBlockPublicAccessInput) (*ec2.DisableSnapshotBlockPublicAccessOutput, error) {
			set, err := s.editSettings(tx, c, func(e *settings) { e.BlockPublicSnapshots = "" })
			return &ec2.DisableSnapshotBlockPublicAccessOutput{State: set.blockPublicSnapshots()}, err
		}),
		view("GetSnapshotBlockPublicAccessState", func(_ context.Context, tx *store.Tx, c *api.Call, _ *ec2.GetSnapshotBlockPublicAccessStateInput) (*ec2.GetSnapshotBlockPublicAccessStateOutput, error) {
			return &ec2.GetSnapshotBlockPublicAccessStateOutput{State: s.settingsOf(tx, c.Account, c.Region).blockPublicSnapshots(), ManagedBy: types.ManagedByAccount}, nil
		}),
	}
}

func (s *Service) lockSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.LockSnapshotInput) (*ec2.LockSnapshotOutput, error) {
	n, err := s.ownSnapshot(tx, c, aws.ToString(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	now, old := c.Time, n.Lock
	l, err := newLock(in, now)
	if err != nil {
		return nil, err
	}
	if old.holds(now) && old.state(now) == types.LockStateCompliance {
		switch {
		case l.Mode != types.LockModeCompliance:
			return nil, fail("OperationNotPermitted", "Snapshot %s is locked in compliance mode until %s and its cooling-off period is over: the mode cannot be changed.", n.ID, timeText(&old.Expires))
		case in.CoolOffPeriod != nil:
			return nil, fail("InvalidParameterCombination", "Snapshot %s is locked in compliance mode and its cooling-off period is over: CoolOffPeriod cannot be given again.", n.ID)
		case l.Expires.Before(old.Expires):
			return nil, fail("OperationNotPermitted", "Snapshot %s is locked in compliance mode until %s: the lock can only be extended.", n.ID, timeText(&old.Expires))
		}
		l.Created, l.CoolOff = old.Created, old.CoolOff
	}
	e := s.snapshots.Edit(tx, n.key())
	e.Lock = l
	i := lockInfo(e, now)
	return &ec2.LockSnapshotOutput{SnapshotId: i.SnapshotId, LockState: i.LockState, LockDuration: i.LockDuration, LockCreatedOn: i.LockCreatedOn, LockDurationStartTime: i.LockDurationStartTime,
		LockExpiresOn: i.LockExpiresOn, CoolOffPeriod: i.CoolOffPeriod, CoolOffPeriodExpiresOn: i.CoolOffPeriodExpiresOn}, s.snapshots.Put(tx, n.key(), e)
}

// newLock checks what is asked for against the clock alone.
func newLock(in *ec2.LockSnapshotInput, now time.Time) (*snapshotLock, error) {
	l := &snapshotLock{Mode: in.LockMode, Created: now, CoolOff: aws.ToInt32(in.CoolOffPeriod)}
	switch {
	case in.CoolOffPeriod != nil && l.Mode != types.LockModeCompliance:
		return nil, fail("InvalidParameterCombination", "CoolOffPeriod can be given with lock mode compliance only.")
	case in.CoolOffPeriod != nil && (l.CoolOff < 1 || l.CoolOff > 72):
		return nil, fail("InvalidParameterValue", "Value (%d) for parameter CoolOffPeriod is invalid. It is a number of hours from 1 to 72.", l.CoolOff)
	case (in.LockDuration == nil) == (in.ExpirationDate == nil):
		return nil, fail("InvalidParameterCombination", "Give either LockDuration or ExpirationDate.")
	case in.LockDuration != nil && (*in.LockDuration < 1 || *in.LockDuration > 36500):
		return nil, fail("InvalidParameterValue", "Value (%d) for parameter LockDuration is invalid. It is a number of days from 1 to 36500.", *in.LockDuration)
	case in.LockDuration != nil:
		l.Days, l.Expires = *in.LockDuration, now.AddDate(0, 0, int(*in.LockDuration))
		return l, nil
	case in.ExpirationDate.Before(now.Add(24*time.Hour)) || in.ExpirationDate.After(now.AddDate(0, 0, 36500)):
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter ExpirationDate is invalid. It must be at least 1 day and at most 36500 days in the future.", timeText(in.ExpirationDate))
	}
	l.Expires = in.ExpirationDate.UTC()
	l.Days = int32(l.Expires.Sub(now) / (24 * time.Hour))
	return l, nil
}

func (s *Service) unlockSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.UnlockSnapshotInput) (*ec2.UnlockSnapshotOutput, error) {
	n, err := s.ownSnapshot(tx, c, aws.ToString(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	switch {
	case !n.Lock.holds(c.Time):
		return nil, fail("IncorrectState", "Snapshot %s is not locked.", n.ID)
	case n.Lock.state(c.Time) == types.LockStateCompliance:
		return nil, fail("OperationNotPermitted", "Snapshot %s is locked in compliance mode and its cooling-off period is over: nobody can unlock it before %s.", n.ID, timeText(&n.Lock.Expires))
	}
	e := s.snapshots.Edit(tx, n.key())
	e.Lock = nil
	return &ec2.UnlockSnapshotOutput{SnapshotId: aws.String(n.ID)}, s.snapshots.Put(tx, n.key(), e)
}

// lockInfo describes the lock of a snapshot that has one. The lock's time begins
// with the lock, or with the snapshot's completion when that is later.
func lockInfo(n *snapshot, now time.Time) types.LockedSnapshotsInfo {
	l, start := n.Lock, n.Lock.Created
	if n.CompletionTime.After(start) {
		start = n.CompletionTime
	}
	i := types.LockedSnapshotsInfo{SnapshotId: aws.String(n.ID), OwnerId: aws.String(n.Account), LockState: l.state(now), LockDuration: aws.Int32(l.Days), LockCreatedOn: aws.Time(l.Created),
		LockDurationStartTime: aws.Time(start), LockExpiresOn: aws.Time(l.Expires)}
	if l.CoolOff > 0 {
		i.CoolOffPeriod, i.CoolOffPeriodExpiresOn = aws.Int32(l.CoolOff), aws.Time(l.coolOffEnd())
	}
	return i
}

var lockFilters = fields[*types.LockedSnapshotsInfo]{of: map[string]func(*types.LockedSnapshotsInfo) []string{
	"lock-state": func(i *types.LockedSnapshotsInfo) []string { return one(string(i.LockState)) },
}}

func (s *Service) describeLockedSnapshots(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeLockedSnapshotsInput) (*ec2.DescribeLockedSnapshotsOutput, error) {
	p, err := pageOf("DescribeLockedSnapshots", in.MaxResults, in.NextToken, 5, 1000, "snapshotIds", in.SnapshotIds)
	if err != nil {
		return nil, err
	}
	match, err := lockFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, id := range in.SnapshotIds {
		if _, err := s.findSnapshot(tx, c, id); err != nil {
			return nil, err
		}
	}
	list := []types.LockedSnapshotsInfo{}
	s.snapshots.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, n *snapshot) bool {
		if n.Lock == nil || n.hidden() || len(in.SnapshotIds) > 0 && !slices.Contains(in.SnapshotIds, n.ID) {
			return true
		}
		if i := lockInfo(n, c.Time); match(&i) {
			list = append(list, i)
		}
		return true
	})
	slices.SortFunc(list, func(a, b types.LockedSnapshotsInfo) int { return strings.Compare(*a.SnapshotId, *b.SnapshotId) })
	out := &ec2.DescribeLockedSnapshotsOutput{}
	out.Snapshots, out.NextToken = cut(p, list, func(i *types.LockedSnapshotsInfo) string { return *i.SnapshotId })
	return out, nil
}

// blockPublicSnapshots is the state of the block on public sharing of snapshots.
// Source: EBS User Guide, "Block public access for Amazon EBS snapshots".
func (e settings) blockPublicSnapshots() types.SnapshotBlockPublicAccessState {
	if e.BlockPublicSnapshots == "" {
		return types.SnapshotBlockPublicAccessStateUnblocked
	}
	return e.BlockPublicSnapshots
}

func (s *Service) enableSnapshotBlock(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.EnableSnapshotBlockPublicAccessInput) (*ec2.EnableSnapshotBlockPublicAccessOutput, error) {
	if in.State != types.SnapshotBlockPublicAccessStateBlockAllSharing && in.State != types.SnapshotBlockPublicAccessStateBlockNewSharing {
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter State is invalid. Expected: 'block-all-sharing', 'block-new-sharing'", in.State)
	}
	set, err := s.editSettings(tx, c, func(e *settings) { e.BlockPublicSnapshots = in.State })
	return &ec2.EnableSnapshotBlockPublicAccessOutput{State: set.blockPublicSnapshots()}, err
}
