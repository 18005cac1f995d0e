package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// wanted is what a CreateKey input asks for, with defaults filled in.
type wanted struct {
	spec, usage, origin string
	multiRegion         bool
}

func wantedKey(in *kms.CreateKeyInput) (wanted, error) {
	w := wanted{spec: string(in.KeySpec), usage: string(in.KeyUsage), origin: string(in.Origin), multiRegion: in.MultiRegion != nil && *in.MultiRegion}
	if in.CustomerMasterKeySpec != "" {
		if w.spec != "" {
			return w, errValidation("You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
		}
		w.spec = string(in.CustomerMasterKeySpec)
	}
	if w.spec == "" {
		w.spec = specSymmetric
	}
	if w.origin == "" {
		w.origin = originKMS
	}
	sp, ok := specs[w.spec]
	if !ok {
		return w, errUnsupported("The key spec %s is not supported in this Region.", w.spec)
	}
	if w.usage == "" {
		if w.spec != specSymmetric {
			return w, errValidation("You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
		}
		w.usage = usageEncrypt
	}
	if !contains(sp.usages, w.usage) {
		return w, errValidation("KeyUsage %s is not compatible with KeySpec %s", w.usage, w.spec)
	}
	return w, nil
}

func (s *Service) onCreateKey(_ context.Context, tx *store.Tx, c *api.Call, in *kms.CreateKeyInput) ([]api.Target, error) {
	w, err := wantedKey(in)
	if err != nil {
		return nil, err
	}
	k := caller(c)
	k.text("kms:KeySpec", w.spec)
	k.text("kms:CustomerMasterKeySpec", w.spec)
	k.text("kms:KeyUsage", w.usage)
	k.text("kms:CustomerMasterKeyUsage", w.usage)
	k.text("kms:KeyOrigin", w.origin)
	k.flag("kms:MultiRegion", w.multiRegion)
	if w.multiRegion {
		k.text("kms:MultiRegionKeyType", "PRIMARY")
	}
	k.flag("kms:BypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	k.requestTags(tagMap(in.Tags))
	targets := []api.Target{{Action: "kms:CreateKey", ARN: "*", Keys: k}}
	if len(in.Tags) > 0 {
		targets = append(targets, api.Target{Action: "kms:TagResource", ARN: "*", Keys: k})
	}
	return targets, nil
}

// newKey is the key that a CreateKey wants, without material.
func (s *Service) newKey(tx *store.Tx, c *api.Call, in *kms.CreateKeyInput) (*Key, error) {
	w, err := wantedKey(in)
	if err != nil {
		return nil, err
	}
	if s.counts.get(c.Account, c.Region) >= s.cfg.Quotas.Keys {
		return nil, errLimit("The account already has %d keys in this Region, the most it can have.", s.cfg.Quotas.Keys)
	}
	k := &Key{ID: ids.UUID(), Account: c.Account, Region: c.Region, Spec: w.spec, Usage: w.usage, Origin: w.origin,
		Description: str(in.Description), State: stateEnabled, Created: c.Time}
	if w.multiRegion {
		k.ID, k.MultiRegion, k.Primary = "mrk-"+strings.ReplaceAll(ids.UUID(), "-", ""), true, c.Region
	}
	if k.Tags, err = s.newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	k.Policy = defaultPolicy(c.Account)
	if in.Policy != nil {
		if k.Policy, err = s.checkPolicy(tx, c, *in.Policy, c.Account, in.BypassPolicyLockoutSafetyCheck); err != nil {
			return nil, err
		}
	}
	if in.XksKeyId != nil && w.origin != originXKS {
		return nil, errValidation("XksKeyId is valid only for a key with the origin EXTERNAL_KEY_STORE.")
	}
	switch w.origin {
	case originKMS:
		if in.CustomKeyStoreId != nil {
			return nil, errValidation("CustomKeyStoreId is valid only for a key with the origin AWS_CLOUDHSM or EXTERNAL_KEY_STORE.")
		}
	case originExternal:
		if in.CustomKeyStoreId != nil {
			return nil, errValidation("CustomKeyStoreId is valid only for a key with the origin AWS_CLOUDHSM or EXTERNAL_KEY_STORE.")
		}
		if strings.HasPrefix(k.Spec, "ML_") {
			return nil, errUnsupported("Key material for %s cannot be imported.", k.Spec)
		}
		k.State = statePendingImport
	default:
		if id, ok := c.Prepared.(string); ok {
			k.ID = id
		}
		return k, s.placeInStore(tx, c, k, in)
	}
	return k, nil
}

// createKey is CreateKey.
func (s *Service) createKey(_ context.Context, tx *store.Tx, c *api.Call, in *kms.CreateKeyInput) (*kms.CreateKeyOutput, error) {
	k, err := s.newKey(tx, c, in)
	if err != nil {
		return nil, err
	}
	switch {
	case k.inStore():
		err = s.addStoreMaterial(tx, k, c.Time)
	case k.Origin == originKMS:
		err = s.addMaterial(k, c.Time)
	}
	if err != nil {
		return nil, err
	}
	if err := s.keys.Put(tx, k.path(), k); err != nil {
		return nil, err
	}
	note(c, k.arn())
	return &kms.CreateKeyOutput{KeyMetadata: s.metadata(tx, k, c)}, nil
}

// metadata is the key as DescribeKey shows it.
func (s *Service) metadata(tx *store.Tx, k *Key, c *api.Call) *types.KeyMetadata {
	state := k.stateAt(c.Time)
	m := &types.KeyMetadata{KeyId: ptr(k.ID), AWSAccountId: ptr(k.Account), Arn: ptr(k.arn()), CreationDate: ptr(k.Created),
		Description: ptr(k.Description), Enabled: state == stateEnabled, KeyManager: types.KeyManagerTypeCustomer,
		KeySpec: types.KeySpec(k.Spec), CustomerMasterKeySpec: types.CustomerMasterKeySpec(k.Spec), KeyState: types.KeyState(state),
		KeyUsage: types.KeyUsageType(k.Usage), Origin: types.OriginType(k.Origin), MultiRegion: ptr(k.MultiRegion),
		EncryptionAlgorithms: k.encryptionAlgorithms(), SigningAlgorithms: k.signingAlgorithms(), MacAlgorithms: k.macAlgorithms(),
		KeyAgreementAlgorithms: k.agreementAlgorithms(), EncapsulationAlgorithms: k.kemAlgorithms()}
	if k.Service != "" {
		m.KeyManager = types.KeyManagerTypeAws
	}
	cur := k.current()
	if cur != nil && k.Spec == specSymmetric && (k.Origin == originKMS || k.Origin == originExternal) {
		m.CurrentKeyMaterialId = ptr(cur.ID)
	}
	if k.Origin == originExternal && cur != nil && len(cur.Wrapped) > 0 && !cur.expired(c.Time) {
		m.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
		if !cur.ValidTo.IsZero() {
			m.ExpirationModel, m.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, ptr(cur.ValidTo)
		}
	}
	switch k.State {
	case statePendingDeletion:
		m.DeletionDate = ptr(k.Deletion)
	case statePendingReplicaDeletion:
		m.PendingDeletionWindowInDays = ptr(k.PendingWindow)
	}
	if k.MultiRegion {
		m.MultiRegionConfiguration = s.multiRegionConfiguration(tx, k)
	}
	if k.inStore() {
		m.CustomKeyStoreId = ptr(k.Store)
		if st := s.stores.Get(tx, k.storePath()); st != nil && st.Type == storeHSM {
			m.CloudHsmClusterId = ptr(st.Cluster)
		}
		if k.Origin == originXKS {
			m.XksKeyConfiguration = &types.XksKeyConfigurationType{Id: ptr(k.External)}
		}
	}
	return m
}

// describeKey is DescribeKey.
func (s *Service) describeKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byAny)
	if err != nil {
		return nil, err
	}
	return &kms.DescribeKeyOutput{KeyMetadata: s.metadata(tx, f.Key, c)}, nil
}

// listKeys is ListKeys.
func (s *Service) listKeys(_ context.Context, tx *store.Tx, c *api.Call, in *kms.ListKeysInput) (*kms.ListKeysOutput, error) {
	prefix := path(c.Account, c.Region, "")
	pg, err := newPage(c, "ListKeys", prefix, in.Limit, 100, 1000, in.Marker)
	if err != nil {
		return nil, err
	}
	out := &kms.ListKeysOutput{Keys: []types.KeyListEntry{}}
	s.keys.Scan(tx, prefix, pg.after, func(p string, k *Key) bool {
		if !pg.more(p) {
			return false
		}
		out.Keys = append(out.Keys, types.KeyListEntry{KeyId: ptr(k.ID), KeyArn: ptr(k.arn())})
		return true
	})
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}

// edit finds a key of the caller's account for an operation that changes it,
// checks its state and returns a private copy.
func (s *Service) edit(ctx context.Context, tx *store.Tx, c *api.Call, id *string, states accept) (*Key, error) {
	f, err := s.find(ctx, tx, c, id, byKey)
	if err != nil {
		return nil, err
	}
	if err := states.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	k := s.keys.Edit(tx, f.path())
	if k == nil {
		return nil, errNoKey(f.arn())
	}
	return k, nil
}

func (s *Service) put(tx *store.Tx, k *Key) error { return s.keys.Put(tx, k.path(), k) }

// enableKey is EnableKey.
func (s *Service) enableKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.EnableKeyInput) (*kms.EnableKeyOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, switching)
	if err != nil {
		return nil, err
	}
	k.State = stateEnabled
	return &kms.EnableKeyOutput{}, s.put(tx, k)
}

// disableKey is DisableKey.
func (s *Service) disableKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DisableKeyInput) (*kms.DisableKeyOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, switching)
	if err != nil {
		return nil, err
	}
	k.State = stateDisabled
	return &kms.DisableKeyOutput{}, s.put(tx, k)
}

// updateKeyDescription is UpdateKeyDescription.
func (s *Service) updateKeyDescription(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdateKeyDescriptionInput) (*kms.UpdateKeyDescriptionOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, describing)
	if err != nil {
		return nil, err
	}
	k.Description = str(in.Description)
	return &kms.UpdateKeyDescriptionOutput{}, s.put(tx, k)
}

const (
	minWindow     = 7
	maxWindow     = 30
	defaultWindow = 30
)

func window(in *kms.ScheduleKeyDeletionInput) int32 {
	if in.PendingWindowInDays == nil {
		return defaultWindow
	}
	return *in.PendingWindowInDays
}

// scheduleKeyDeletion is ScheduleKeyDeletion.
func (s *Service) scheduleKeyDeletion(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	days := window(in)
	if days < minWindow || days > maxWindow {
		return nil, errValidation("PendingWindowInDays must be between %d and %d, not %d.", minWindow, maxWindow, days)
	}
	k, err := s.edit(ctx, tx, c, in.KeyId, scheduling)
	if err != nil {
		return nil, err
	}
	if k.Service != "" {
		return nil, errAccessDenied("%s is an AWS managed key: it cannot be deleted.", k.arn())
	}
	out := &kms.ScheduleKeyDeletionOutput{KeyId: ptr(k.arn()), PendingWindowInDays: ptr(days)}
	k.PendingWindow = days
	if k.MultiRegion && !k.isReplica() && len(k.Replicas) > 0 {
		// The waiting period begins when the last replica is deleted.
		k.State = statePendingReplicaDeletion
	} else {
		k.State = statePendingDeletion
		k.Deletion = c.Time.AddDate(0, 0, int(days))
		out.DeletionDate = ptr(k.Deletion)
	}
	out.KeyState = types.KeyState(k.State)
	return out, s.put(tx, k)
}

// cancelKeyDeletion is CancelKeyDeletion. The key is disabled afterwards.
func (s *Service) cancelKeyDeletion(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CancelKeyDeletionInput) (*kms.CancelKeyDeletionOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, anyState)
	if err != nil {
		return nil, err
	}
	if k.Doomed {
		return nil, errNoKey(k.arn())
	}
	if k.State != statePendingDeletion && k.State != statePendingReplicaDeletion {
		return nil, errState(k.arn() + " is not pending deletion.")
	}
	k.State = stateDisabled
	if k.Origin == originExternal && k.current() == nil {
		k.State = statePendingImport
	}
	k.Deletion, k.PendingWindow = time.Time{}, 0
	return &kms.CancelKeyDeletionOutput{KeyId: ptr(k.arn())}, s.put(tx, k)
}

// Reap does what has become due: destroys keys whose waiting period is over,
// rotates keys, and drops imported material that has expired. It may be
// interrupted anywhere; each key is one transaction.
func (s *Service) Reap(ctx context.Context) error {
	now := s.now()
	var due []string
	s.keys.Scan(s.store.Snapshot(), "", "", func(p string, k *Key) bool {
		if k.due(now) {
			due = append(due, p)
		}
		return ctx.Err() == nil
	})
	var errs []error
	for _, p := range due {
		if err := s.destroyInStore(ctx, p, now); err != nil {
			errs = append(errs, fmt.Errorf("destroy what key %s rests on: %w", p, err))
			continue
		}
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			k := s.keys.Edit(tx, p)
			if k == nil || !k.due(now) {
				return nil
			}
			return s.reapKey(tx, k)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("reap key %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func (k *Key) due(now time.Time) bool {
	switch {
	case k.State == statePendingDeletion:
		return !now.Before(k.Deletion)
	case k.State == stateEnabled && k.Rotation.Enabled && k.Origin == originKMS && !k.isReplica():
		if !now.Before(k.Rotation.Next) {
			return true
		}
	}
	for i := range k.Materials {
		if m := &k.Materials[i]; len(m.Wrapped) > 0 && m.expired(now) {
			return true
		}
	}
	return false
}

func (s *Service) reapKey(tx *store.Tx, k *Key) error {
	now := s.now()
	if k.State == statePendingDeletion && !now.Before(k.Deletion) {
		return s.destroy(tx, k)
	}
	changed := false
	for i := range k.Materials {
		if m := &k.Materials[i]; len(m.Wrapped) > 0 && m.expired(now) {
			m.Wrapped, changed = nil, true
			if err := s.event(tx, k, "DeleteExpiredKeyMaterial", map[string]any{"keyMaterialId": m.ID}); err != nil {
				return err
			}
			if m.pending() {
				continue
			}
			if k.State == stateEnabled || k.State == stateDisabled {
				k.State = statePendingImport
			}
		}
	}
	if k.State == stateEnabled && k.Rotation.Enabled && k.Origin == originKMS && !k.isReplica() && !now.Before(k.Rotation.Next) {
		return s.rotate(tx, k, now, string(types.RotationTypeAutomatic))
	}
	if !changed {
		return nil
	}
	if err := s.store.Erase(tx); err != nil {
		return err
	}
	return s.put(tx, k)
}

// destroy removes a key with all that hangs on it. The wrapped material goes with
// the record, from memory as the store reports the change, and soon after from the
// store's files.
func (s *Service) destroy(tx *store.Tx, k *Key) error {
	kp := k.path()
	for _, p := range s.byTarget.Keys(kp, "", 0) {
		if a := s.aliases.Get(tx, p); a != nil && a.Target == k.ID {
			if err := s.aliases.Delete(tx, p); err != nil {
				return err
			}
		}
	}
	// Grants of a key that is gone allow nothing. There may be more than
	// one transaction holds: the key stays due until the last is gone.
	n := 0
	var gone []string
	s.grants.Scan(tx, grantPrefix(kp), "", func(p string, g *Grant) bool {
		gone = append(gone, p)
		n++
		return n < 500
	})
	for _, p := range gone {
		if err := s.dropGrant(tx, s.grants.Get(tx, p)); err != nil {
			return err
		}
	}
	if n == 500 {
		return nil // still due: the next round goes on
	}
	if err := s.usages.Delete(tx, kp); err != nil {
		return err
	}
	if k.inStore() {
		if err := s.storeKeys.Delete(tx, k.claim()); err != nil {
			return err
		}
	}
	if k.isReplica() {
		if err := s.replicaGone(tx, k); err != nil {
			return err
		}
	}
	if err := s.event(tx, k, "DeleteKey", nil); err != nil {
		return err
	}
	if err := s.store.Erase(tx); err != nil {
		return err
	}
	return s.keys.Delete(tx, kp)
}
