package ec2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) volumeOperations() []api.Operation {
	return []api.Operation{
		steps("CreateVolume", s.createVolume, api.On(s.onCreateVolume), api.Refuses("OutpostArn", "VolumeInitializationRate", "Operator")),
		steps("DeleteVolume", s.deleteVolume, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DeleteVolumeInput) ([]api.Target, error) {
			return s.onVolumes(tx, c, aws.ToString(in.VolumeId)), nil
		})),
		steps("AttachVolume", s.attachVolume, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.AttachVolumeInput) ([]api.Target, error) {
			return append(s.onVolumes(tx, c, aws.ToString(in.VolumeId)), s.onInstance(tx, c, aws.ToString(in.InstanceId))), nil
		}), api.Refuses("EbsCardIndex")),
		steps("DetachVolume", s.detachVolume, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DetachVolumeInput) ([]api.Target, error) {
			t := s.onVolumes(tx, c, aws.ToString(in.VolumeId))
			if in.InstanceId != nil {
				t = append(t, s.onInstance(tx, c, *in.InstanceId))
			}
			return t, nil
		})),
	}
}

// onVolumes are the authorisation targets for the volumes with the IDs. An unknown
// one is asked for too: who may not touch it does not learn that it is unknown.
// Condition keys: Service Authorization Reference, "Actions, resources, and
// condition keys for Amazon EC2".
func (s *Service) onVolumes(tx *store.Tx, c *api.Call, ids ...string) []api.Target {
	var out []api.Target
	for _, id := range ids {
		t := api.Target{ARN: arnOf(c.Account, c.Region, "volume", id), Keys: map[string][]string{"ec2:Region": {c.Region}, "ec2:VolumeID": {id}}}
		if v := s.volumes.Get(tx, key(c.Account, c.Region, id)); v != nil {
			volumeKeys(t.Keys, v.Zone, v.Type, v.SizeGiB, v.Iops, v.Throughput, v.Key.Encrypted)
			resourceTagKeys(t.Keys, v.Tags)
			if v.SnapshotID != "" {
				t.Keys["ec2:ParentSnapshot"] = []string{"arn:aws:ec2:" + c.Region + "::snapshot/" + v.SnapshotID}
			}
		}
		out = append(out, t)
	}
	return out
}

func volumeKeys(keys map[string][]string, zone, typ string, size, iops, throughput int32, encrypted bool) {
	keys["ec2:AvailabilityZone"] = []string{zone}
	keys["ec2:VolumeType"] = []string{typ}
	keys["ec2:VolumeSize"] = []string{strconv.Itoa(int(size))}
	keys["ec2:Encrypted"] = []string{strconv.FormatBool(encrypted)}
	if iops > 0 {
		keys["ec2:VolumeIops"] = []string{strconv.Itoa(int(iops))}
	}
	if throughput > 0 {
		keys["ec2:VolumeThroughput"] = []string{strconv.Itoa(int(throughput))}
	}
}

func resourceTagKeys(keys map[string][]string, tags map[string]string) {
	for k, v := range tags {
		keys["aws:ResourceTag/"+k] = []string{v}
		keys["ec2:ResourceTag/"+k] = []string{v}
	}
}

func requestTagKeys(keys map[string][]string, tags map[string]string) {
	for k, v := range tags {
		keys["aws:RequestTag/"+k] = []string{v}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], k)
	}
	sort.Strings(keys["aws:TagKeys"])
}

// creationTargets asks for the action on a resource that is to be made, and for
// ec2:CreateTags on it when it is made with tags.
func creationTargets(c *api.Call, action, arn string, keys map[string][]string, tags map[string]string) []api.Target {
	keys["ec2:Region"] = []string{c.Region}
	requestTagKeys(keys, tags)
	out := []api.Target{{ARN: arn, Keys: keys}}
	if len(tags) > 0 {
		k := maps.Clone(keys)
		k["ec2:CreateAction"] = []string{action}
		out = append(out, api.Target{Action: "ec2:CreateTags", ARN: arn, Keys: k})
	}
	return out
}

func (s *Service) onCreateVolume(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CreateVolumeInput) ([]api.Target, error) {
	w, err := s.wishOf(tx, c, in)
	if err != nil {
		return nil, err
	}
	keys := map[string][]string{}
	volumeKeys(keys, w.zone, w.typ, w.size, w.iops, w.throughput, w.encrypted)
	targets := creationTargets(c, "CreateVolume", arnOf(c.Account, c.Region, "volume", "*"), keys, w.tags)
	if w.snapshot != "" {
		targets[0].Keys["ec2:ParentSnapshot"] = []string{"arn:aws:ec2:" + c.Region + "::snapshot/" + w.snapshot}
	}
	return targets, nil
}

// wish is a validated request for a volume.
type wish struct {
	zone, typ              string
	size, iops, throughput int32
	encrypted              bool
	key                    string // as the caller names it
	snapshot               string
	tags                   map[string]string
	token                  string
	image                  string
	desktop                *desktop
}

func (w *wish) hash() []byte {
	d := desktop{}
	if w.desktop != nil {
		d = *w.desktop
	}
	js, _ := json.Marshal([]any{w.zone, w.typ, w.size, w.iops, w.throughput, w.encrypted, w.key, w.snapshot, w.tags, w.image, d})
	h := sha256.Sum256(js)
	return h[:]
}

func (s *Service) wishOf(tx *store.Tx, c *api.Call, in *ec2.CreateVolumeInput) (*wish, error) {
	w := &wish{typ: string(in.VolumeType), size: aws.ToInt32(in.Size), snapshot: aws.ToString(in.SnapshotId), token: aws.ToString(in.ClientToken)}
	if len(w.token) > 64 {
		return nil, fail("InvalidParameterValue", "ClientToken has %d characters; at most 64 are allowed.", len(w.token))
	}
	if aws.ToBool(in.MultiAttachEnabled) {
		return nil, fail("UnsupportedOperation", "MultiAttachEnabled is not supported: a volume is attached to one machine at a time.")
	}
	var err error
	if w.zone, err = zoneOf(c.Region, aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId)); err != nil {
		return nil, err
	}
	var parent *snapshot
	if w.snapshot != "" {
		if parent, err = s.usableSnapshot(tx, c, w.snapshot); err != nil {
			return nil, err
		}
		if in.Size == nil {
			w.size = parent.SizeGiB
		} else if w.size < parent.SizeGiB {
			return nil, fail("InvalidParameterValue", "The size of the volume (%d GiB) is smaller than snapshot %s, expect size >= %d GiB.", w.size, parent.ID, parent.SizeGiB)
		}
	} else if in.Size == nil {
		return nil, fail("MissingParameter", "The request must contain the parameter size/snapshot")
	}
	if w.iops, w.throughput, err = performance(&w.typ, w.size, in.Iops, in.Throughput); err != nil {
		return nil, err
	}
	set := s.settingsOf(tx, c.Account, c.Region)
	// Encrypted=false never takes encryption away: clients send it as a default, and a volume from an encrypted snapshot is encrypted.
	w.encrypted = aws.ToBool(in.Encrypted) || set.EncryptByDefault || parent != nil && parent.Key.Encrypted
	w.key = aws.ToString(in.KmsKeyId)
	if w.key != "" && !w.encrypted {
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if w.encrypted && w.key == "" {
		if parent != nil && parent.Key.Encrypted && parent.Account == c.Account {
			w.key = parent.Key.KeyARN
		} else {
			w.key = set.key()
		}
	}
	w.tags, err = creationTags(in.TagSpecifications, types.ResourceTypeVolume)
	return w, err
}

// limits of a volume type. Source: EC2 API Reference, CreateVolume, and EBS User
// Guide, "Amazon EBS volume types".
type limits struct {
	minSize, maxSize int32 // GiB
	minIops, maxIops int32 // 0: Iops cannot be set
	iopsPerGiB       int32
	defaultIops      int32
}

var volumeTypes = map[string]limits{
	"standard": {minSize: 1, maxSize: 1024},
	"gp2":      {minSize: 1, maxSize: 16384},
	"gp3":      {minSize: 1, maxSize: 65536, minIops: 3000, maxIops: 80000, iopsPerGiB: 500, defaultIops: 3000},
	"io1":      {minSize: 4, maxSize: 16384, minIops: 100, maxIops: 64000, iopsPerGiB: 50},
	"io2":      {minSize: 4, maxSize: 65536, minIops: 100, maxIops: 256000, iopsPerGiB: 1000},
	"st1":      {minSize: 125, maxSize: 16384},
	"sc1":      {minSize: 125, maxSize: 16384},
}

// performance checks size, Iops and Throughput for the volume type, which it
// sets to the default when it is empty.
func performance(typ *string, size int32, iops, throughput *int32) (outIops, outThroughput int32, err error) {
	if *typ == "" {
		*typ = "gp2"
	}
	l, ok := volumeTypes[*typ]
	if !ok {
		return 0, 0, fail("UnknownVolumeType", "Unsupported volume type '%s' for volume creation.", *typ)
	}
	switch {
	case size < l.minSize:
		return 0, 0, fail("InvalidParameterValue", "Volume of %dGiB is too small for volume type %s; minimum is %dGiB.", size, *typ, l.minSize)
	case size > l.maxSize:
		return 0, 0, fail("InvalidParameterValue", "Volume of %dGiB is too large for volume type %s; maximum is %dGiB.", size, *typ, l.maxSize)
	case iops != nil && l.maxIops == 0:
		return 0, 0, fail("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", *typ)
	case throughput != nil && *typ != "gp3":
		return 0, 0, fail("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", *typ)
	case iops == nil && l.maxIops > 0 && l.defaultIops == 0:
		return 0, 0, fail("MissingParameter", "The parameter iops must be specified for %s volumes.", *typ)
	}
	switch {
	case *typ == "gp2":
		return min(max(3*size, 100), 16000), 0, nil
	case l.maxIops == 0:
		return 0, 0, nil
	}
	n := l.defaultIops
	if iops != nil {
		n = *iops
		switch {
		case n < l.minIops:
			return 0, 0, fail("InvalidParameterValue", "Volume iops of %d is too low; minimum is %d.", n, l.minIops)
		case n > l.maxIops:
			return 0, 0, fail("InvalidParameterValue", "Volume iops of %d is too high; maximum is %d.", n, l.maxIops)
		case int64(n) > int64(size)*int64(l.iopsPerGiB) && n > l.defaultIops:
			return 0, 0, fail("InvalidParameterValue", "Iops to volume size ratio of %f is too high; maximum is %d", float64(n)/float64(size), l.iopsPerGiB)
		}
	}
	if *typ != "gp3" {
		return n, 0, nil
	}
	t := int32(125)
	if throughput != nil {
		t = *throughput
		if t < 125 || t > 2000 {
			return 0, 0, fail("InvalidParameterValue", "Throughput of %d MiB/s is out of range; it must be between 125 and 2000.", t)
		}
		if 4*t > n {
			return 0, 0, fail("InvalidParameterValue", "Throughput (MiBps) to iops ratio of %f is too high; maximum is 0.250000 MiBps per iops", float64(t)/float64(n))
		}
	}
	return n, t, nil
}

// answered is the state an operation answers with: the one EBS documents for its reply,
// although the work, which took no time, is done.
func answered[S comparable](is, done, begun S) S {
	if is == done {
		return begun
	}
	return is
}

func (s *Service) createVolume(ctx context.Context, c *api.Call, in *ec2.CreateVolumeInput) (*ec2.CreateVolumeOutput, error) {
	w, err := s.wishOf(s.cfg.Store.Snapshot(), c, in)
	if err != nil {
		return nil, err
	}
	v, err := s.create(ctx, c, w)
	if err != nil {
		return nil, err
	}
	o := s.describe(v)
	return &ec2.CreateVolumeOutput{AvailabilityZone: o.AvailabilityZone, AvailabilityZoneId: o.AvailabilityZoneId, CreateTime: o.CreateTime,
		Encrypted: o.Encrypted, Iops: o.Iops, KmsKeyId: o.KmsKeyId, MultiAttachEnabled: o.MultiAttachEnabled, Operator: o.Operator, OwnerId: o.OwnerId,
		Size: o.Size, SnapshotId: o.SnapshotId, State: answered(o.State, types.VolumeStateAvailable, types.VolumeStateCreating), Tags: createdTags(v.Tags), Throughput: o.Throughput, VolumeArn: o.VolumeArn, VolumeId: o.VolumeId,
		VolumeType: o.VolumeType}, nil
}

// create makes the volume that is wished for. When it returns an error nothing is
// left behind, or what is left is on the way out. With a client token that was used before
// for the same wish it returns the volume made then.
func (s *Service) create(ctx context.Context, c *api.Call, w *wish) (*volume, error) {
	v := &volume{ID: ids.EC2("vol"), Account: c.Account, Region: c.Region, Zone: w.zone, SizeGiB: w.size, Type: w.typ, Iops: w.iops,
		Throughput: w.throughput, SnapshotID: w.snapshot, CreateTime: c.Time, State: stateCreating, Tags: w.tags, Draft: true, Owner: s.instance,
		Host: s.cfg.Host, Token: w.token, Image: w.image, Desktop: w.desktop, Key: keyState{Encrypted: w.encrypted}}
	if w.encrypted {
		v.Key.Context = map[string]string{contextVolume: v.ID}
		if w.desktop != nil {
			v.Key.Context[contextDesktop] = w.desktop.SIDDirectoryID
		}
	}
	before, err := s.claim(ctx, v, w)
	if err != nil || before != nil {
		return before, err
	}
	unlock, err := s.locks.lock(ctx, v.key())
	if err == nil {
		defer unlock()
		err = s.fillDraft(ctx, c, v, w)
	}
	if err != nil {
		end, cancel := finishing(ctx)
		defer cancel()
		if uerr := s.undoDraft(end, v.key()); uerr != nil {
			s.log.Warn("a refused volume is not undone yet", "volume", v.ID, "err", uerr)
		}
		if s.cfg.StrictAWS && w.desktop == nil && keyRefused(err) {
			s.log.Info("volume vanishes, its key was refused", "volume", v.ID, "err", err)
			return v, nil
		}
		return nil, err
	}
	return s.volumes.Get(s.cfg.Store.Snapshot(), v.key()), nil
}

// keyRefused tells that KMS, or the state of the key, is why a volume cannot be made.
func keyRefused(err error) bool {
	e, ok := serviceError(err)
	return ok && (strings.HasPrefix(e.ErrorCode(), "InvalidKMSKey.") || e.ErrorCode() == "UnauthorizedOperation")
}

// claim records the intent. When the client token was used before it returns that volume.
func (s *Service) claim(ctx context.Context, v *volume, w *wish) (before *volume, err error) {
	tokenKey := key(v.Account, v.Region, "CreateVolume/"+w.token)
	for {
		changed := s.cfg.Store.Changed()
		var abandoned string
		before = nil
		err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			abandoned, before = "", nil
			if w.token != "" {
				if t := s.tokens.Get(tx, tokenKey); t != nil {
					if old := s.volumes.Get(tx, key(v.Account, v.Region, t.ID)); old != nil {
						if !bytes.Equal(t.Hash, w.hash()) {
							return fail("IdempotentParameterMismatch", "The client token you have provided is associated with a resource that is already created with other parameters (%s).", t.ID)
						}
						before = old
						if old.Draft && old.Owner != s.instance {
							abandoned = old.key()
						}
						return nil
					}
				}
				if err := s.tokens.Put(tx, tokenKey, &token{ID: v.ID, Hash: w.hash()}); err != nil {
					return err
				}
			}
			return s.volumes.Put(tx, v.key(), v)
		})
		switch {
		case err != nil:
			return nil, err
		case before == nil || !before.Draft:
			return before, nil
		case abandoned != "":
			// Begun by a process that has died: nobody was answered. Undo and begin anew.
			unlock, err := s.locks.lock(ctx, abandoned)
			if err != nil {
				return nil, err
			}
			err = s.undoDraft(ctx, abandoned)
			unlock()
			if err != nil {
				return nil, fmt.Errorf("undo an unfinished volume of the same client token: %w", err)
			}
		default: // the same call is under way in this process: wait for its outcome
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// fillDraft checks the key, makes grant and data key, and makes the volume visible.
func (s *Service) fillDraft(ctx context.Context, c *api.Call, v *volume, w *wish) error {
	k, managed := v.Key, false
	if w.encrypted {
		var err error
		if k.KeyARN, managed, err = s.describeKey(ctx, c, w.key); err != nil {
			return err
		}
	}
	k, err := s.makeKey(ctx, c, v.arn(), k, s.note(ctx, v.key()))
	if err != nil {
		return err
	}
	var source *sourceKey
	if w.snapshot != "" {
		if source, err = s.keyFromSnapshot(ctx, c, v, k, w.snapshot); err != nil {
			return err
		}
	}
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		e := s.volumes.Edit(tx, v.key())
		if e == nil {
			return errGone
		}
		if w.snapshot != "" {
			if n := s.snapshots.Get(tx, source.Record); n == nil || n.Deleting || n.State != "completed" {
				return fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", w.snapshot)
			}
			e.Source = source
		}
		e.Key, e.DefaultKey, e.Draft, e.Owner, e.State = k, managed, false, "", stateAvailable
		return s.volumes.Put(tx, v.key(), e)
	})
}

// undoDraft removes a volume that was never answered for: its grant is retired, then
// the record removed. Called with the volume's lock held. May be called any number of times.
func (s *Service) undoDraft(ctx context.Context, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || !v.Draft {
		return nil
	}
	if err := s.retire(ctx, v.Account, v.Region, v.Key); err != nil {
		return err
	}
	return s.removeRecord(ctx, v)
}

func (s *Service) removeRecord(ctx context.Context, v *volume) error {
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if v.Token != "" {
			t := key(v.Account, v.Region, "CreateVolume/"+v.Token)
			if old := s.tokens.Get(tx, t); old != nil && old.ID == v.ID {
				if err := s.tokens.Delete(tx, t); err != nil {
					return err
				}
			}
		}
		return s.volumes.Delete(tx, v.key())
	})
}

// find returns the caller's volume, or the error that says there is none.
func (s *Service) find(tx *store.Tx, c *api.Call, id string) (*volume, error) {
	if err := checkID("vol", "volumeId", id); err != nil {
		return nil, err
	}
	v := s.volumes.Get(tx, key(c.Account, c.Region, id))
	if v == nil || v.Draft {
		return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	}
	return v, nil
}

// mayManage refuses people who would change a volume that WorkSpaces manages.
func mayManage(c *api.Call, v *volume, doing string) error {
	if v.Desktop == nil || isWorkspaces(c) {
		return nil
	}
	return fail("OperationNotPermitted", "You cannot %s volume %s: it is the %s volume of WorkSpace %s and managed by WorkSpaces. Use the WorkSpaces API (for example RebuildWorkspaces or TerminateWorkspaces) instead.",
		doing, v.ID, v.Desktop.Role, v.Desktop.WorkspaceID)
}

// isWorkspaces tells that the WorkSpaces service itself calls.
func isWorkspaces(c *api.Call) bool {
	return c.Principal.Type == api.AWSService && c.Principal.Service == "workspaces"
}

func (s *Service) deleteVolume(ctx context.Context, c *api.Call, in *ec2.DeleteVolumeInput) (*ec2.DeleteVolumeOutput, error) {
	id := aws.ToString(in.VolumeId)
	volumeKey := key(c.Account, c.Region, id)
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// The encrypted data key goes in the transaction that marks the volume as
	// deleting: from here on nothing opens it.
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v, err := s.find(tx, c, id)
		if err != nil {
			return err
		}
		if err := mayManage(c, v, "delete"); err != nil {
			return err
		}
		switch {
		case v.State == stateDeleting:
			return fail("IncorrectState", "The volume '%s' is being deleted already.", id)
		case v.Attachment != nil:
			return fail("VolumeInUse", "Volume %s is currently attached to %s", id, v.Attachment.Instance)
		}
		e := s.volumes.Edit(tx, volumeKey)
		e.State, e.Reason, e.Host = stateDeleting, "", s.cfg.Host
		e.Key.Wrapped, e.Source = nil, nil
		return s.volumes.Put(tx, volumeKey, e)
	})
	if err != nil {
		return nil, err
	}
	end, cancel := finishing(ctx)
	defer cancel()
	if err := s.finishDelete(end, volumeKey); err != nil {
		// The answer stands: the key is gone. Run completes the rest.
		s.log.Warn("a deleted volume is not removed yet", "volume", id, "err", err)
	}
	return &ec2.DeleteVolumeOutput{}, nil
}

// finishDelete removes the data of a volume that is being deleted, retires the grant
// and removes the record, in this order. Called with the volume's lock held.
func (s *Service) finishDelete(ctx context.Context, volumeKey string) error {
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	if v == nil || v.State != stateDeleting {
		return nil
	}
	if _, err := s.cfg.Plane.Detach(ctx, v.ID); err != nil && !errors.Is(err, ErrNotServed) {
		return fmt.Errorf("detach a volume that is being deleted: %w", err)
	}
	if err := s.cfg.Plane.Destroy(ctx, v.ID, s.dir(v)); err != nil {
		return fmt.Errorf("destroy the data of a volume that is being deleted: %w", err)
	}
	if err := s.retire(ctx, v.Account, v.Region, v.Key); err != nil {
		return err
	}
	return s.removeRecord(ctx, v)
}

// describe is the volume as the API shows it.
func (s *Service) describe(v *volume) types.Volume {
	o := types.Volume{VolumeId: aws.String(v.ID), VolumeArn: aws.String(v.arn()), OwnerId: aws.String(v.Account), AvailabilityZone: aws.String(v.Zone),
		AvailabilityZoneId: aws.String(zoneID(v.Zone)), CreateTime: aws.Time(v.CreateTime), Encrypted: aws.Bool(v.Key.Encrypted), Size: aws.Int32(v.SizeGiB),
		SnapshotId: aws.String(v.SnapshotID), State: types.VolumeState(v.State), VolumeType: types.VolumeType(v.Type), MultiAttachEnabled: aws.Bool(false),
		Tags: tagList(v.Tags), Attachments: []types.VolumeAttachment{}, Operator: operatorOf(v)}
	if v.Key.Encrypted {
		o.KmsKeyId = aws.String(v.Key.KeyARN)
	}
	if v.Iops > 0 {
		o.Iops = aws.Int32(v.Iops)
	}
	if v.Throughput > 0 {
		o.Throughput = aws.Int32(v.Throughput)
	}
	if v.Attachment != nil {
		o.Attachments = append(o.Attachments, attachmentOf(v))
	}
	return o
}

func operatorOf(v *volume) *types.OperatorResponse {
	if v.Desktop == nil {
		return &types.OperatorResponse{Managed: aws.Bool(false)}
	}
	return &types.OperatorResponse{Managed: aws.Bool(true), Principal: aws.String("workspaces.amazonaws.com"), HiddenByDefault: aws.Bool(false)}
}

// zoneOf checks the zone that is named by name or by ID.
func zoneOf(region, name, id string) (string, error) {
	switch {
	case name == "" && id == "":
		return "", fail("MissingParameter", "The request must contain the parameter AvailabilityZone or AvailabilityZoneId")
	case name != "" && id != "":
		return "", fail("InvalidParameterCombination", "AvailabilityZone and AvailabilityZoneId cannot both be specified.")
	}
	for _, z := range zonesOf(region) {
		if z == name || id != "" && zoneID(z) == id {
			return z, nil
		}
	}
	if name == "" {
		name = id
	}
	return "", fail("InvalidZone.NotFound", "The zone '%s' does not exist. The zones of region %s are %s.", name, region, strings.Join(zonesOf(region), ", "))
}

// now is the time for records, UTC, cut to milliseconds.
func (s *Service) now() time.Time { return s.cfg.Clock.Now().UTC().Truncate(time.Millisecond) }
