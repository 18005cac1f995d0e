package ec2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A snapshot is the state of a volume at one moment, kept in a place of its own and
// sealed under the data key of the volume. When it is completed all of it is durable there: in a directory of
// the host, or where volumes live in an object store in that, for every host to use. Its record holds that data key as the volume's record
// did, with the volume's encryption context; CreateSnapshot makes no grant. Whoever
// makes a volume of it needs ReEncrypt (or, for a copy, Decrypt) on its key with
// permissions of his own: KMS is asked with the caller's forwarded session.

func (s *Service) snapshotOperations() []api.Operation {
	on := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, tx *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return []api.Target{s.onSnapshot(tx, c, aws.ToString(id(in)))}, nil
			}
		}
	}
	return []api.Operation{
		steps("CreateSnapshot", s.createSnapshot, api.Refuses("OutpostArn", "Location"), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CreateSnapshotInput) ([]api.Target, error) {
			tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
			if err != nil {
				return nil, err
			}
			return append(s.onVolumes(tx, c, aws.ToString(in.VolumeId)), creationTargets(c, "CreateSnapshot", newSnapshotARN(c), map[string][]string{}, tags)...), nil
		})),
		steps("CreateSnapshots", s.createSnapshots, api.Refuses("OutpostArn", "Location"), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CreateSnapshotsInput) ([]api.Target, error) {
			tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
			if err != nil {
				return nil, err
			}
			t := creationTargets(c, "CreateSnapshots", newSnapshotARN(c), map[string][]string{}, tags)
			if in.InstanceSpecification != nil {
				t = append(t, s.onInstance(tx, c, aws.ToString(in.InstanceSpecification.InstanceId)))
			}
			return t, nil
		})),
		steps("CopySnapshot", s.copySnapshot, api.Refuses("DestinationOutpostArn", "DestinationAvailabilityZone", "CompletionDurationMinutes"), api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CopySnapshotInput) ([]api.Target, error) {
			tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
			if err != nil {
				return nil, err
			}
			return creationTargets(c, "CopySnapshot", newSnapshotARN(c), map[string][]string{}, tags), nil
		})),
		view("DescribeSnapshots", s.describeSnapshots),
		view("DescribeSnapshotTierStatus", s.describeTiers),
		steps("DeleteSnapshot", s.deleteSnapshot, on(func(in any) *string { return in.(*ec2.DeleteSnapshotInput).SnapshotId })),
		view("DescribeSnapshotAttribute", s.describeSnapshotAttribute, on(func(in any) *string { return in.(*ec2.DescribeSnapshotAttributeInput).SnapshotId })),
		update("ModifySnapshotAttribute", s.modifySnapshotAttribute, on(func(in any) *string { return in.(*ec2.ModifySnapshotAttributeInput).SnapshotId })),
		update("ResetSnapshotAttribute", s.resetSnapshotAttribute, on(func(in any) *string { return in.(*ec2.ResetSnapshotAttributeInput).SnapshotId })),
	}
}

// newSnapshotARN is the target for snapshots to be made.
func newSnapshotARN(c *api.Call) string { return "arn:aws:ec2:" + c.Region + "::snapshot/*" }

func (s *Service) onSnapshot(tx *store.Tx, c *api.Call, id string) api.Target {
	t := api.Target{ARN: "arn:aws:ec2:" + c.Region + "::snapshot/" + id, Keys: map[string][]string{"ec2:Region": {c.Region}, "ec2:SnapshotID": {id}}}
	if n := s.snapshots.Get(tx, key(c.Account, c.Region, id)); n != nil {
		resourceTagKeys(t.Keys, n.Tags)
		t.Keys["ec2:Owner"] = []string{n.Account}
		t.Keys["ec2:VolumeSize"] = []string{strconv.Itoa(int(n.SizeGiB))}
		t.Keys["ec2:ParentVolume"] = []string{arnOf(n.Account, n.Region, "volume", n.VolumeID)}
	}
	return t
}

func noSnapshot(id string) error {
	return fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
}

// findSnapshot returns the caller's own snapshot.
func (s *Service) findSnapshot(tx *store.Tx, c *api.Call, id string) (*snapshot, error) {
	if err := checkID("snap", "snapshotId", id); err != nil {
		return nil, err
	}
	n := s.snapshots.Get(tx, key(c.Account, c.Region, id))
	if n == nil || n.hidden() {
		return nil, noSnapshot(id)
	}
	return n, nil
}

// hidden tells of a snapshot that does not exist for callers: not answered for yet,
// deleted, or in the recycle bin.
func (n *snapshot) hidden() bool { return n.Draft || n.Deleting || n.Bin != nil }

// ownSnapshot is findSnapshot for what changes or uses one: those that WorkSpaces
// takes are WorkSpaces' own.
func (s *Service) ownSnapshot(tx *store.Tx, c *api.Call, id string) (*snapshot, error) {
	n, err := s.findSnapshot(tx, c, id)
	if err == nil && n.Desktop != nil && !isWorkspaces(c) {
		return nil, fail("OperationNotPermitted", "Snapshot %s is of %v and managed by WorkSpaces. Use the WorkSpaces API (RestoreWorkspace, TerminateWorkspaces, DeleteWorkspaceImage) instead.", id, n.Desktop)
	}
	return n, err
}

// visible finds a snapshot that is the caller's own or shared with him.
func (s *Service) visible(tx *store.Tx, account, region, id string) *snapshot {
	for _, k := range s.snapshotByID.Keys(id, "", 0) {
		n := s.snapshots.Get(tx, k)
		if n != nil && !n.hidden() && n.Region == region && s.mayRestore(tx, n, account) {
			return n
		}
	}
	return nil
}

// mayRestore tells whether an account may use a snapshot. Where its owner blocks all
// public sharing, "all" counts for nothing as long as the block lasts.
func (s *Service) mayRestore(tx *store.Tx, n *snapshot, account string) bool {
	return n.Account == account || slices.Contains(n.Shared, account) ||
		slices.Contains(n.Shared, "all") && s.settingsOf(tx, n.Account, n.Region).BlockPublicSnapshots != types.SnapshotBlockPublicAccessStateBlockAllSharing
}

// usableSnapshot is one that a volume can be made of.
func (s *Service) usableSnapshot(tx *store.Tx, c *api.Call, id string) (*snapshot, error) {
	if err := checkID("snap", "snapshotId", id); err != nil {
		return nil, err
	}
	n := s.visible(tx, c.Account, c.Region, id)
	if n == nil {
		return nil, noSnapshot(id)
	}
	if n.Desktop != nil && !(isWorkspaces(c) && n.Desktop.Image != "") {
		return nil, fail("OperationNotPermitted", "Snapshot %s is of %v and managed by WorkSpaces.", id, n.Desktop)
	}
	if n.State != "completed" {
		return nil, fail("IncorrectState", "Snapshot is in invalid state - %s (%s)", n.State, id)
	}
	return n, nil
}

// keyFromSnapshot seals the snapshot's data key anew for a volume that begins with it.
func (s *Service) keyFromSnapshot(ctx context.Context, c *api.Call, v *volume, k keyState, id string) (*sourceKey, error) {
	n, err := s.usableSnapshot(s.cfg.Store.Snapshot(), c, id)
	if err != nil {
		return nil, err
	}
	src := &sourceKey{Record: n.key(), Blank: n.Blank, Key: n.Key}
	if n.Blank || !n.Key.Encrypted {
		return src, nil
	}
	call := c.Forward("ec2")
	call.SourceARN = v.arn()
	out, err := api.Do[kms.ReEncryptOutput](ctx, s.cfg.Caller, call, "kms", "ReEncrypt", &kms.ReEncryptInput{
		CiphertextBlob: n.Key.Wrapped, SourceKeyId: aws.String(n.Key.KeyARN), SourceEncryptionContext: maps.Clone(n.Key.Context),
		DestinationKeyId: aws.String(k.KeyARN), DestinationEncryptionContext: maps.Clone(k.Context)})
	if err != nil {
		return nil, keyError(n.Key.KeyARN, err)
	}
	src.Key = keyState{Encrypted: true, KeyARN: k.KeyARN, Wrapped: out.CiphertextBlob, Context: k.Context, Bound: v.arn()}
	return src, nil
}

// restore makes a volume's place from the snapshot that it begins with.
func (s *Service) restore(ctx context.Context, c *api.Call, v *volume, nv NewVolume) ([]byte, error) {
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	n := s.snapshots.Get(s.cfg.Store.Snapshot(), v.Source.Record)
	if n == nil {
		return nil, fail("IncorrectState", "Snapshot %s, which volume %s begins with, is gone.", v.SnapshotID, v.ID)
	}
	dek, err := s.openKey(ctx, c, v.Source.Key)
	if err != nil {
		return nil, err
	}
	defer dek.Wipe()
	return sn.Restore(ctx, Restore{NewVolume: nv, SnapshotID: n.ID, SnapshotDir: s.snapshotDir(n), SnapshotKey: dek, SnapshotAnchor: n.Anchor})
}

var errNoSnapshots = fail("UnsupportedOperation", "Snapshots are not supported by this data plane.")

func (s *Service) createSnapshot(ctx context.Context, c *api.Call, in *ec2.CreateSnapshotInput) (*ec2.CreateSnapshotOutput, error) {
	tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
	if err != nil {
		return nil, err
	}
	n, err := s.snapshotVolume(ctx, c, aws.ToString(in.VolumeId), aws.ToString(in.Description), tags)
	if err != nil {
		return nil, err
	}
	o := describeSnapshot(n)
	return &ec2.CreateSnapshotOutput{DataEncryptionKeyId: o.DataEncryptionKeyId, Description: o.Description, Encrypted: o.Encrypted, KmsKeyId: o.KmsKeyId,
		OwnerId: o.OwnerId, Progress: aws.String(""), SnapshotId: o.SnapshotId, StartTime: o.StartTime, State: answered(o.State, types.SnapshotStateCompleted, types.SnapshotStatePending), StorageTier: o.StorageTier, Tags: createdTags(n.Tags),
		VolumeId: o.VolumeId, VolumeSize: o.VolumeSize, FullSnapshotSizeInBytes: o.FullSnapshotSizeInBytes}, nil
}

// snapshotVolume keeps the state of a volume. When it returns an error nothing is left.
func (s *Service) snapshotVolume(ctx context.Context, c *api.Call, volumeID, description string, tags map[string]string) (*snapshot, error) {
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	volumeKey := key(c.Account, c.Region, volumeID)
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ns, err := s.draftSnapshots(ctx, c, description, map[string]map[string]string{volumeID: tags})
	if err != nil {
		return nil, err
	}
	kept, blank, err := s.keep(ctx, c, sn, ns[0], volumeKey)
	if ns, err = s.publishSnapshots(ctx, ns, []Kept{kept}, blank, err); err != nil {
		return nil, err
	}
	return ns[0], nil
}

// draftSnapshots records the intent to keep volumes, in the order of their IDs. Called with their locks held.
func (s *Service) draftSnapshots(ctx context.Context, c *api.Call, description string, tags map[string]map[string]string) (ns []*snapshot, err error) {
	if len(description) > 255 {
		return nil, fail("InvalidParameterValue", "Description has %d characters; at most 255 are allowed.", len(description))
	}
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		ns = nil
		for _, id := range slices.Sorted(maps.Keys(tags)) {
			v, err := s.find(tx, c, id)
			if err != nil {
				return err
			}
			if err := mayManage(c, v, "take a snapshot of"); err != nil {
				return err
			}
			if v.State != stateAvailable && v.State != stateInUse {
				return fail("IncorrectState", "The volume '%s' is in state '%s'; a snapshot needs 'available' or 'in-use'.", v.ID, v.State)
			}
			if a := v.Attachment; a != nil && a.State != attached {
				return fail("IncorrectState", "The volume '%s' is being attached or detached (%s).%s", v.ID, a.State, because(v.Reason))
			}
			k, isDefault := v.Key, v.DefaultKey
			k.GrantID, k.GrantName, k.Principal = "", "", nil
			n := &snapshot{ID: ids.EC2("snap"), Account: c.Account, Region: c.Region, VolumeID: v.ID, SizeGiB: v.SizeGiB, Description: description, StartTime: c.Time, State: "pending",
				Tags: tags[id], Key: k, DefaultKey: isDefault, Desktop: v.Desktop, Draft: true, Owner: s.instance, Host: s.cfg.Host}
			if err := s.snapshots.Put(tx, n.key(), n); err != nil {
				return err
			}
			ns = append(ns, n)
		}
		return nil
	})
	return ns, err
}

// publishSnapshots makes drafts visible that the data plane has kept, or, when it
// could not (failed), undoes them and returns the error for the caller.
func (s *Service) publishSnapshots(ctx context.Context, ns []*snapshot, kept []Kept, blank bool, failed error) ([]*snapshot, error) {
	if failed == nil {
		failed = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for i, n := range ns {
				e := s.snapshots.Edit(tx, n.key())
				if e == nil {
					return errGone
				}
				e.Draft, e.Owner, e.State, e.Progress, e.Bytes, e.Anchor, e.Blank, e.CompletionTime = false, "", "completed", 100, kept[i].Bytes, kept[i].Pin, blank, s.now()
				if err := s.snapshots.Put(tx, n.key(), e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	tx := s.cfg.Store.Snapshot()
	for i, n := range ns {
		if failed == nil {
			ns[i] = s.snapshots.Get(tx, n.key())
			continue
		}
		end, cancel := finishing(ctx)
		if err := s.undoSnapshot(end, n); err != nil {
			s.log.Warn("a failed snapshot is not undone yet", "snapshot", n.ID, "err", err)
		}
		cancel()
	}
	if failed != nil {
		return nil, outward(failed)
	}
	return ns, nil
}

// keep has the data plane keep the volume's state. A volume that never got its place
// and begins with nothing needs no data: blank.
func (s *Service) keep(ctx context.Context, c *api.Call, sn Snapshotter, n *snapshot, volumeKey string) (kept Kept, blank bool, err error) {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil {
		return kept, false, errGone
	}
	if !v.Made && v.Image == "" && (v.Source == nil || v.Source.Blank) {
		return kept, true, nil
	}
	want := Snapshot{SnapshotID: n.ID, Dir: s.snapshotDir(n), VolumeID: v.ID, VolumeDir: s.dir(v), Anchor: v.Anchor, Image: v.Image}
	if v.Attachment == nil {
		dek, err := s.openKey(ctx, c.AsService("ec2"), v.Key)
		if err != nil {
			return kept, false, err
		}
		defer dek.Wipe()
		if want.Anchor, err = s.place(ctx, c.AsService("ec2"), v, dek); err != nil {
			return kept, false, err
		}
		want.Key = dek
	}
	kept, err = sn.Snapshot(ctx, want)
	if err != nil {
		return kept, false, fmt.Errorf("snapshot %s of volume %s: %w", n.ID, v.ID, err)
	}
	if kept.Anchor != nil {
		err = s.editVolume(ctx, volumeKey, func(e *volume) error { e.Anchor = kept.Anchor; return nil })
	}
	return kept, false, err
}

// undoSnapshot removes a snapshot that nobody was answered for, or completes a
// deletion. Data that a volume still begins with stay until that volume has its own.
func (s *Service) undoSnapshot(ctx context.Context, n *snapshot) error {
	tx := s.cfg.Store.Snapshot()
	needed := false
	s.volumes.Scan(tx, "", "", func(_ string, v *volume) bool {
		needed = v.Source != nil && v.Source.Record == n.key()
		return !needed
	})
	if needed {
		return nil
	}
	s.endWriting(ctx, n)
	if _, err := s.cfg.Plane.Detach(ctx, n.ID); err != nil && !errors.Is(err, ErrNotServed) {
		return err
	}
	if err := s.cfg.Plane.Destroy(ctx, n.ID, s.snapshotDir(n)); err != nil {
		return err
	}
	if err := os.Remove(s.writtenFile(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.retire(ctx, n.Account, n.Region, n.Key); err != nil {
		return err
	}
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if n.Token != "" {
			if err := s.tokens.Delete(tx, key(n.Account, n.Region, "StartSnapshot/"+n.Token)); err != nil {
				return err
			}
		}
		return s.snapshots.Delete(tx, n.key())
	})
}

// reconcileSnapshots undoes what a dead process began and completes deletions.
func (s *Service) reconcileSnapshots(ctx context.Context) {
	s.emptyBin(ctx)
	var todo []*snapshot
	s.snapshots.Scan(s.cfg.Store.Snapshot(), "", "", func(_ string, n *snapshot) bool {
		if n.Host == s.cfg.Host && (n.Deleting || n.Draft && n.Owner != s.instance) {
			todo = append(todo, n)
		}
		return true
	})
	for _, n := range todo {
		if err := s.undoSnapshot(ctx, n); err != nil && ctx.Err() == nil {
			s.log.Warn("snapshot not removed yet", "snapshot", n.ID, "err", err)
		}
	}
}

// createSnapshots takes snapshots of the volumes of an instance, all of one moment.
func (s *Service) createSnapshots(ctx context.Context, c *api.Call, in *ec2.CreateSnapshotsInput) (*ec2.CreateSnapshotsOutput, error) {
	if in.InstanceSpecification == nil {
		return nil, fail("MissingParameter", "The request must contain the parameter InstanceSpecification")
	}
	h, err := s.thisHost(ctx)
	if err != nil {
		return nil, err
	}
	_ = in.InstanceSpecification.ExcludeBootVolume // the host's own disk is no volume
	id := aws.ToString(in.InstanceSpecification.InstanceId)
	if err := s.checkInstance(c, h, id); err != nil {
		return nil, err
	}
	tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
	if err != nil {
		return nil, err
	}
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	wanted := map[string]map[string]string{} // volume → tags of its snapshot
	s.volumes.Scan(s.cfg.Store.Snapshot(), key(c.Account, c.Region, ""), "", func(_ string, v *volume) bool {
		if v.Attachment == nil || v.Attachment.Instance != id || slices.Contains(in.InstanceSpecification.ExcludeDataVolumeIds, v.ID) {
			return true
		}
		t := maps.Clone(tags)
		if in.CopyTagsFromSource == types.CopyTagsFromSourceVolume {
			t = maps.Clone(v.Tags)
			maps.Copy(t, tags)
		}
		wanted[v.ID] = t
		return true
	})
	if len(wanted) == 0 {
		return nil, fail("InvalidParameterValue", "The instance '%s' has no volumes to take snapshots of.", id)
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		unlock, err := s.locks.lock(ctx, key(c.Account, c.Region, id))
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	ns, err := s.draftSnapshots(ctx, c, aws.ToString(in.Description), wanted)
	if err != nil {
		return nil, err
	}
	set := make([]Snapshot, len(ns))
	for i, n := range ns {
		v := s.volumes.Get(s.cfg.Store.Snapshot(), key(c.Account, c.Region, n.VolumeID))
		if v == nil || v.Attachment == nil {
			err = fail("IncorrectState", "The volume '%s' was detached meanwhile.", n.VolumeID)
			break
		}
		set[i] = Snapshot{SnapshotID: n.ID, Dir: s.snapshotDir(n), VolumeID: n.VolumeID, VolumeDir: s.dir(v)}
	}
	var kept []Kept
	if err == nil {
		kept, err = sn.SnapshotSet(ctx, set)
	}
	if ns, err = s.publishSnapshots(ctx, ns, kept, false, err); err != nil {
		return nil, err
	}
	out := &ec2.CreateSnapshotsOutput{Snapshots: []types.SnapshotInfo{}}
	for _, n := range ns {
		o := describeSnapshot(n)
		out.Snapshots = append(out.Snapshots, types.SnapshotInfo{Description: o.Description, Encrypted: o.Encrypted, OwnerId: o.OwnerId, Progress: aws.String(""),
			SnapshotId: o.SnapshotId, StartTime: o.StartTime, State: answered(o.State, types.SnapshotStateCompleted, types.SnapshotStatePending), Tags: createdTags(n.Tags), VolumeId: o.VolumeId, VolumeSize: o.VolumeSize})
	}
	return out, nil
}

// copySnapshot makes a copy with a data key of its own, under the destination's key.
// A copy of an encrypted snapshot is encrypted.
func (s *Service) copySnapshot(ctx context.Context, c *api.Call, in *ec2.CopySnapshotInput) (*ec2.CopySnapshotOutput, error) {
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	_ = in.PresignedUrl // all regions are served here: the caller's permissions are known
	sourceID, region := aws.ToString(in.SourceSnapshotId), aws.ToString(in.SourceRegion)
	if region == "" {
		return nil, fail("MissingParameter", "The request must contain the parameter SourceRegion")
	}
	if err := checkID("snap", "sourceSnapshotId", sourceID); err != nil {
		return nil, err
	}
	tags, err := creationTags(in.TagSpecifications, types.ResourceTypeSnapshot)
	if err != nil {
		return nil, err
	}
	tx := s.cfg.Store.Snapshot()
	src := s.visible(tx, c.Account, region, sourceID)
	if src == nil {
		return nil, noSnapshot(sourceID)
	}
	if src.Desktop != nil {
		return nil, fail("OperationNotPermitted", "Snapshot %s is of %v and managed by WorkSpaces.", sourceID, src.Desktop)
	}
	if src.State != "completed" {
		return nil, fail("IncorrectState", "Snapshot is in invalid state - %s (%s)", src.State, sourceID)
	}
	set := s.settingsOf(tx, c.Account, c.Region)
	named := aws.ToString(in.KmsKeyId)
	encrypted := src.Key.Encrypted || aws.ToBool(in.Encrypted) || set.EncryptByDefault
	if named != "" && !encrypted {
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	n := s.newCopy(c, src, aws.ToString(in.Description))
	n.Tags, n.Key.Encrypted = tags, encrypted
	if encrypted {
		if named == "" {
			named = set.key()
		}
		if n.Key.KeyARN, n.DefaultKey, err = s.describeKey(ctx, c, named); err != nil {
			return nil, err
		}
		n.Key.Context = map[string]string{contextVolume: n.ID}
	}
	if err := s.makeCopy(ctx, c, sn, n, src); err != nil {
		return nil, err
	}
	return &ec2.CopySnapshotOutput{SnapshotId: aws.String(n.ID), Tags: createdTags(tags)}, nil
}

// newCopy is the draft of a copy. It shows no volume. Source: EC2 API Reference, CopySnapshot.
func (s *Service) newCopy(c *api.Call, src *snapshot, description string) *snapshot {
	return &snapshot{ID: ids.EC2("snap"), Account: c.Account, Region: c.Region, VolumeID: "vol-ffffffff", SizeGiB: src.SizeGiB, Description: description, StartTime: c.Time, State: "pending",
		Draft: true, Owner: s.instance, Host: s.cfg.Host, Blank: src.Blank}
}

// makeCopy records the copy n of src and fills it. When it returns an error nothing is left.
func (s *Service) makeCopy(ctx context.Context, c *api.Call, sn Snapshotter, n, src *snapshot) error {
	if err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.snapshots.Put(tx, n.key(), n) }); err != nil {
		return err
	}
	err := s.fillCopy(ctx, c, sn, n, src)
	if err != nil {
		end, cancel := finishing(ctx)
		defer cancel()
		last := s.snapshots.Get(s.cfg.Store.Snapshot(), n.key())
		if last == nil {
			last = n
		}
		if uerr := s.undoSnapshot(end, last); uerr != nil {
			s.log.Warn("a failed copy is not undone yet", "snapshot", n.ID, "err", uerr)
		}
		return outward(err)
	}
	return nil
}

func (s *Service) fillCopy(ctx context.Context, c *api.Call, sn Snapshotter, n, src *snapshot) error {
	k, err := s.makeKey(ctx, c, n.arn(), n.Key, func(k keyState) error {
		return s.editSnapshot(ctx, n.key(), func(e *snapshot) { e.Key = k })
	})
	if err != nil {
		return err
	}
	var anchor []byte
	if !src.Blank {
		// The source is opened with the caller's own permissions, in its region.
		call := c.Forward("ec2")
		call.Region = src.Region
		from, err := s.openKey(ctx, call, src.Key)
		if err != nil {
			return err
		}
		defer from.Wipe()
		to, err := s.openKey(ctx, c.AsService("ec2"), k)
		if err != nil {
			return err
		}
		defer to.Wipe()
		anchor, err = sn.Restore(ctx, Restore{NewVolume: NewVolume{VolumeID: n.ID, Dir: s.snapshotDir(n), Size: int64(n.SizeGiB) << 30, Key: to},
			SnapshotID: src.ID, SnapshotDir: s.snapshotDir(src), SnapshotKey: from, SnapshotAnchor: src.Anchor})
		if err != nil {
			return fmt.Errorf("copy snapshot %s: %w", src.ID, err)
		}
	}
	return s.editSnapshot(ctx, n.key(), func(e *snapshot) {
		e.Key, e.Draft, e.Owner, e.State, e.Progress, e.Bytes, e.Anchor, e.CompletionTime = k, false, "", "completed", 100, src.Bytes, anchor, s.now()
	})
}

func (s *Service) editSnapshot(ctx context.Context, snapshotKey string, f func(*snapshot)) error {
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		e := s.snapshots.Edit(tx, snapshotKey)
		if e == nil {
			return errGone
		}
		f(e)
		return s.snapshots.Put(tx, snapshotKey, e)
	})
}

// deleteSnapshot erases the encrypted data key first, then the data, then the grant.
func (s *Service) deleteSnapshot(ctx context.Context, c *api.Call, in *ec2.DeleteSnapshotInput) (*ec2.DeleteSnapshotOutput, error) {
	var n *snapshot
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if n, err = s.ownSnapshot(tx, c, aws.ToString(in.SnapshotId)); err != nil {
			return err
		}
		if n.Lock.holds(c.Time) {
			return fail("OperationNotPermitted", "Snapshot %s is locked in %s mode until %s and cannot be deleted before.", n.ID, n.Lock.Mode, timeText(&n.Lock.Expires))
		}
		n = s.snapshots.Edit(tx, n.key())
		if !s.recycle(tx, c, n) {
			n.Deleting, n.Key.Wrapped, n.Host = true, nil, s.cfg.Host // whoever began completes it: the host that took it may be gone
		}
		return s.snapshots.Put(tx, n.key(), n)
	})
	if err != nil {
		return nil, err
	}
	if n.Bin != nil {
		return &ec2.DeleteSnapshotOutput{}, nil
	}
	end, cancel := finishing(ctx)
	defer cancel()
	if err := s.undoSnapshot(end, n); err != nil {
		s.log.Warn("a deleted snapshot is not removed yet", "snapshot", n.ID, "err", err)
	}
	return &ec2.DeleteSnapshotOutput{}, nil
}

func describeSnapshot(n *snapshot) types.Snapshot {
	o := types.Snapshot{SnapshotId: aws.String(n.ID), VolumeId: aws.String(n.VolumeID), VolumeSize: aws.Int32(n.SizeGiB), Description: aws.String(n.Description), OwnerId: aws.String(n.Account),
		StartTime: aws.Time(n.StartTime), State: types.SnapshotState(n.State), Progress: aws.String(strconv.Itoa(n.Progress) + "%"), Encrypted: aws.Bool(n.Key.Encrypted),
		StorageTier: types.StorageTierStandard, Tags: tagList(n.Tags), FullSnapshotSizeInBytes: aws.Int64(n.Bytes)}
	if n.Key.Encrypted {
		o.KmsKeyId, o.DataEncryptionKeyId = aws.String(n.Key.KeyARN), aws.String(n.Key.id())
	}
	if n.Reason != "" {
		o.StateMessage = aws.String(n.Reason)
	}
	if !n.CompletionTime.IsZero() {
		o.CompletionTime = aws.Time(n.CompletionTime)
	}
	return o
}

var snapshotFilters = fields[*types.Snapshot]{
	of: map[string]func(*types.Snapshot) []string{
		"description":  func(n *types.Snapshot) []string { return one(*n.Description) },
		"encrypted":    func(n *types.Snapshot) []string { return flag(*n.Encrypted) },
		"owner-id":     func(n *types.Snapshot) []string { return one(*n.OwnerId) },
		"owner-alias":  func(*types.Snapshot) []string { return nil },
		"progress":     func(n *types.Snapshot) []string { return one(*n.Progress) },
		"snapshot-id":  func(n *types.Snapshot) []string { return one(*n.SnapshotId) },
		"start-time":   func(n *types.Snapshot) []string { return one(timeText(n.StartTime)) },
		"status":       func(n *types.Snapshot) []string { return one(string(n.State)) },
		"storage-tier": func(n *types.Snapshot) []string { return one(string(n.StorageTier)) },
		"volume-id":    func(n *types.Snapshot) []string { return one(*n.VolumeId) },
		"volume-size":  func(n *types.Snapshot) []string { return one(strconv.Itoa(int(*n.VolumeSize))) },
	},
	absent: []string{"transfer-type"},
	tags:   func(n *types.Snapshot) map[string]string { return tagMap(n.Tags) },
}

func (s *Service) describeSnapshots(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeSnapshotsInput) (*ec2.DescribeSnapshotsOutput, error) {
	p, err := pageOf("DescribeSnapshots", in.MaxResults, in.NextToken, 5, 1000, "snapshotIds", in.SnapshotIds)
	if err != nil {
		return nil, err
	}
	match, err := snapshotFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	who := func(given []string, of func(account string) bool, self string) bool {
		return len(given) == 0 || slices.ContainsFunc(given, func(a string) bool {
			if a == "self" {
				a = self
			}
			return of(a)
		})
	}
	list := []types.Snapshot{}
	add := func(n *snapshot) {
		if !who(in.OwnerIds, func(a string) bool { return a == n.Account }, c.Account) ||
			!who(in.RestorableByUserIds, func(a string) bool { return s.mayRestore(tx, n, a) }, c.Account) {
			return
		}
		d := describeSnapshot(n)
		if n.Account != c.Account {
			d.Tags = []types.Tag{}
		}
		if match(&d) {
			list = append(list, d)
		}
	}
	if len(in.SnapshotIds) > 0 {
		for _, id := range slices.Compact(slices.Sorted(slices.Values(in.SnapshotIds))) {
			if err := checkID("snap", "snapshotId", id); err != nil {
				return nil, err
			}
			n := s.visible(tx, c.Account, c.Region, id)
			if n == nil {
				return nil, noSnapshot(id)
			}
			add(n)
		}
	} else {
		s.snapshots.Scan(tx, "", "", func(_ string, n *snapshot) bool {
			if n.Region == c.Region && !n.hidden() && s.mayRestore(tx, n, c.Account) {
				add(n)
			}
			return true
		})
		slices.SortFunc(list, func(a, b types.Snapshot) int { return strings.Compare(*a.SnapshotId, *b.SnapshotId) })
	}
	out := &ec2.DescribeSnapshotsOutput{}
	out.Snapshots, out.NextToken = cut(p, list, func(n *types.Snapshot) string { return *n.SnapshotId })
	return out, nil
}

// place makes the volume's place on disk when it has none yet, and returns its anchor.
// Called with the volume's lock held.
func (s *Service) place(ctx context.Context, c *api.Call, v *volume, dek *secret.Bytes) (anchor []byte, err error) {
	if v.Made {
		return v.Anchor, nil
	}
	nv := NewVolume{VolumeID: v.ID, Dir: s.dir(v), Size: v.size(), Key: dek, Image: v.Image}
	// What is there was left by an attempt that did not come to its end, and
	// nothing of it was ever attached.
	if _, err := s.cfg.Plane.Detach(ctx, v.ID); err != nil && !errors.Is(err, ErrNotServed) {
		return nil, fmt.Errorf("clear the place of volume %s: %w", v.ID, err)
	}
	if err := s.cfg.Plane.Destroy(ctx, v.ID, nv.Dir); err != nil {
		return nil, fmt.Errorf("clear the place of volume %s: %w", v.ID, err)
	}
	if v.Source != nil && !v.Source.Blank {
		anchor, err = s.restore(ctx, c, v, nv)
	} else {
		anchor, err = s.cfg.Plane.Create(ctx, nv)
	}
	if err != nil {
		return nil, fmt.Errorf("make volume %s: %w", v.ID, err)
	}
	return anchor, s.editVolume(ctx, v.key(), func(e *volume) error {
		e.Made, e.Anchor, e.Source = true, anchor, nil
		return nil
	})
}
