package kms

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	defaultRotationDays = 365
	minRotationDays     = 90
	maxRotationDays     = 2560
)

// canRotate refuses keys that rotation is not for. onDemand allows imported material.
func (k *Key) canRotate(onDemand bool) error {
	switch {
	case k.Spec != specSymmetric:
		return errUnsupported("%s is a %s key: only symmetric encryption keys rotate.", k.arn(), k.Spec)
	case k.Origin == originKMS, onDemand && k.Origin == originExternal:
		return nil
	}
	return errUnsupported("%s has the origin %s: it does not rotate automatically.", k.arn(), k.Origin)
}

// shared changes a key and, for a multi-Region key, all its replicas.
func (s *Service) shared(tx *store.Tx, k *Key, change func(*Key)) error {
	change(k)
	if err := s.put(tx, k); err != nil {
		return err
	}
	for _, region := range k.Replicas {
		r := s.keys.Edit(tx, path(k.Account, region, k.ID))
		if r == nil {
			continue
		}
		change(r)
		if err := s.put(tx, r); err != nil {
			return err
		}
	}
	if len(k.Replicas) == 0 {
		return nil
	}
	return s.event(tx, k, "SynchronizeMultiRegionKey", nil)
}

// enableKeyRotation is EnableKeyRotation.
func (s *Service) enableKeyRotation(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.EnableKeyRotationInput) (*kms.EnableKeyRotationOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, rotating)
	if err != nil {
		return nil, err
	}
	if err := k.canRotate(false); err != nil {
		return nil, err
	}
	if err := k.onPrimary(); err != nil {
		return nil, err
	}
	days := int32(defaultRotationDays)
	if k.Rotation.Enabled {
		days = k.Rotation.PeriodDays
	}
	if in.RotationPeriodInDays != nil {
		days = *in.RotationPeriodInDays
	}
	if days < minRotationDays || days > maxRotationDays {
		return nil, errValidation("RotationPeriodInDays must be between %d and %d, not %d.", minRotationDays, maxRotationDays, days)
	}
	if k.Rotation.Enabled && k.Rotation.PeriodDays == days {
		return &kms.EnableKeyRotationOutput{}, nil
	}
	return &kms.EnableKeyRotationOutput{}, s.shared(tx, k, func(k *Key) {
		k.Rotation.Enabled, k.Rotation.PeriodDays, k.Rotation.Next = true, days, c.Time.AddDate(0, 0, int(days))
	})
}

// disableKeyRotation is DisableKeyRotation.
func (s *Service) disableKeyRotation(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DisableKeyRotationInput) (*kms.DisableKeyRotationOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, rotating)
	if err != nil {
		return nil, err
	}
	if err := k.canRotate(false); err != nil {
		return nil, err
	}
	if err := k.onPrimary(); err != nil {
		return nil, err
	}
	return &kms.DisableKeyRotationOutput{}, s.shared(tx, k, func(k *Key) {
		k.Rotation.Enabled, k.Rotation.PeriodDays, k.Rotation.Next = false, 0, time.Time{}
	})
}

// getKeyRotationStatus is GetKeyRotationStatus.
func (s *Service) getKeyRotationStatus(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GetKeyRotationStatusInput) (*kms.GetKeyRotationStatusOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, err
	}
	if err := readingRotation.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	if f.Origin == originHSM || f.Origin == originXKS {
		return nil, f.canRotate(false)
	}
	// Of keys that do not rotate (asymmetric, HMAC, imported) it is always false.
	out := &kms.GetKeyRotationStatusOutput{KeyId: ptr(f.arn())}
	// The status is false while the key is pending deletion.
	if f.Rotation.Enabled && f.State != statePendingDeletion && f.State != statePendingReplicaDeletion {
		out.KeyRotationEnabled, out.RotationPeriodInDays, out.NextRotationDate = true, ptr(f.Rotation.PeriodDays), ptr(f.Rotation.Next)
	}
	return out, nil
}

// rotate gives the key a new current material. The old one is kept for ever:
// what it encrypted must still decrypt.
func (s *Service) rotate(tx *store.Tx, k *Key, now time.Time, by string) error {
	m := Material{ID: newMaterialID(), Created: now, Rotated: now, RotatedBy: by, Status: statusCurrent}
	raw := secret.Random(32)
	defer raw.Wipe()
	var err error
	if m.Wrapped, err = s.wrap(k, m.ID, raw); err != nil {
		return err
	}
	previous := k.current().ID
	err = s.shared(tx, k, func(k *Key) {
		for i := range k.Materials {
			if k.Materials[i].Status == statusCurrent {
				k.Materials[i].Status = statusNonCurrent
			}
		}
		k.Materials = append(k.Materials, m)
		k.advance(now, by)
	})
	if err != nil {
		return err
	}
	return s.rotated(tx, k, previous, by)
}

// advance notes a rotation that has happened.
func (k *Key) advance(now time.Time, by string) {
	if by == string(types.RotationTypeOnDemand) {
		k.Rotation.OnDemand++
		return
	}
	if k.Rotation.Enabled {
		k.Rotation.Next = now.AddDate(0, 0, int(k.Rotation.PeriodDays))
	}
}

// rotateKeyOnDemand is RotateKeyOnDemand. A key with imported material rotates to
// the material that was imported as NEW_KEY_MATERIAL.
func (s *Service) rotateKeyOnDemand(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.RotateKeyOnDemandInput) (*kms.RotateKeyOnDemandOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if f.Spec == specSymmetric && f.Origin == originExternal && len(f.Materials) == 0 {
		return nil, errNothingPending(f.Key)
	}
	k, err := s.edit(ctx, tx, c, in.KeyId, rotating)
	if err != nil {
		return nil, err
	}
	if err := k.canRotate(true); err != nil {
		return nil, err
	}
	if err := k.onPrimary(); err != nil {
		return nil, err
	}
	if k.Rotation.OnDemand >= s.cfg.Quotas.OnDemandRotations {
		return nil, errLimit("The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: %s", k.arn())
	}
	by := string(types.RotationTypeOnDemand)
	out := &kms.RotateKeyOnDemandOutput{KeyId: ptr(k.arn())}
	if k.Origin != originExternal {
		// A conflict only while an automatic rotation is about to begin.
		if k.Rotation.Enabled && k.Rotation.Next.Sub(c.Time) < 20*time.Minute {
			return nil, &types.ConflictException{Message: ptr("An automatic rotation of this key is in progress or begins within the next 20 minutes. Try again afterwards.")}
		}
		return out, s.rotate(tx, k, c.Time, by)
	}
	return out, s.rotateImported(tx, k, c.Time, by)
}

// listKeyRotations is ListKeyRotations.
func (s *Service) listKeyRotations(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ListKeyRotationsInput) (*kms.ListKeyRotationsOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if f.Spec != specSymmetric || f.Origin == originHSM || f.Origin == originXKS {
		return nil, errUnsupported("%s does not rotate.", f.arn())
	}
	pg, err := newPage(c, "ListKeyRotations", f.path()+"/", in.Limit, 100, 1000, in.Marker)
	if err != nil {
		return nil, err
	}
	all := in.IncludeKeyMaterial == types.IncludeKeyMaterialAllKeyMaterial
	out := &kms.ListKeyRotationsOutput{Rotations: []types.RotationsListEntry{}}
	passed := pg.after == ""
	for i := range f.Materials {
		m := &f.Materials[i]
		p := f.path() + "/" + m.ID
		if !passed {
			passed = p == pg.after
			continue
		}
		if m.Rotated.IsZero() && !all {
			continue
		}
		if !pg.more(p) {
			break
		}
		e := types.RotationsListEntry{KeyId: ptr(f.arn()), KeyMaterialId: ptr(m.ID), KeyMaterialState: types.KeyMaterialState(m.Status)}
		if !m.Rotated.IsZero() {
			e.RotationDate, e.RotationType = ptr(m.Rotated), types.RotationType(m.RotatedBy)
		}
		if f.Origin == originExternal {
			e.ImportState = types.ImportStateImported
			if len(m.Wrapped) == 0 || m.expired(c.Time) {
				e.ImportState = types.ImportStatePendingImport
			} else if m.ValidTo.IsZero() {
				e.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
			} else {
				e.ExpirationModel, e.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, ptr(m.ValidTo)
			}
			if m.Description != "" {
				e.KeyMaterialDescription = ptr(m.Description)
			}
		}
		out.Rotations = append(out.Rotations, e)
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}
