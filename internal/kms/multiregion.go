package kms

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"encoding/asn1"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func itoa(n int) string { return strconv.Itoa(n) }

// parseSecp256k1 takes the scalar out of a PKCS #8 private key on secp256k1.
func parseSecp256k1(der []byte) ([]byte, error) {
	var info privateKeyInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 {
		return nil, errors.New("no PKCS #8 structure")
	}
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &curve); err != nil || !info.Algorithm.Algorithm.Equal(oidECPublicKey) || !curve.Equal(oidSecp256k1) {
		return nil, errors.New("not on secp256k1")
	}
	var inner struct {
		Version    int
		PrivateKey []byte
		Parameters asn1.RawValue  `asn1:"optional,explicit,tag:0"`
		PublicKey  asn1.BitString `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(info.PrivateKey, &inner); err != nil || len(inner.PrivateKey) == 0 || len(inner.PrivateKey) > 32 {
		return nil, errors.New("no EC private key")
	}
	var scalar secp256k1.ModNScalar
	if overflow := scalar.SetByteSlice(inner.PrivateKey); overflow || scalar.IsZero() {
		return nil, errors.New("scalar out of range")
	}
	b := scalar.Bytes()
	return b[:], nil
}

// onPrimary refuses an operation that is done on the primary of a multi-Region key only.
func (k *Key) onPrimary() error {
	if k.isReplica() {
		return errUnsupported("%s is a replica key: do this on its primary key, %s.", k.arn(), keyARN(k.Account, k.Primary, k.ID))
	}
	return nil
}

// multiRegionConfiguration is as DescribeKey shows it. A replica's list is its primary's.
func (s *Service) multiRegionConfiguration(tx *store.Tx, k *Key) *types.MultiRegionConfiguration {
	m := &types.MultiRegionConfiguration{MultiRegionKeyType: types.MultiRegionKeyTypePrimary, ReplicaKeys: []types.MultiRegionKey{},
		PrimaryKey: &types.MultiRegionKey{Arn: ptr(keyARN(k.Account, k.Primary, k.ID)), Region: ptr(k.Primary)}}
	if k.isReplica() {
		m.MultiRegionKeyType = types.MultiRegionKeyTypeReplica
		if p := s.keys.Get(tx, path(k.Account, k.Primary, k.ID)); p != nil {
			k = p
		}
	}
	for _, r := range k.Replicas {
		m.ReplicaKeys = append(m.ReplicaKeys, types.MultiRegionKey{Arn: ptr(keyARN(k.Account, r, k.ID)), Region: ptr(r)})
	}
	return m
}

var regionPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+$`)

func (s *Service) knownRegion(region string) bool {
	if len(s.cfg.Regions) > 0 {
		return slices.Contains(s.cfg.Regions, region)
	}
	return regionPattern.MatchString(region)
}

func (s *Service) onReplicateKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ReplicateKeyInput) ([]api.Target, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	k := s.about(f, c)
	k.text("kms:ReplicaRegion", str(in.ReplicaRegion))
	t, err := s.ask(c, f, "ReplicateKey", k, nil)
	if err != nil {
		return nil, err
	}
	// AWS asks kms:CreateKey in the replica's Region, and kms:TagResource for tags.
	n := caller(c)
	n.text("kms:KeySpec", f.Spec)
	n.text("kms:KeyUsage", f.Usage)
	n.text("kms:KeyOrigin", f.Origin)
	n.flag("kms:MultiRegion", true)
	n.text("kms:MultiRegionKeyType", "REPLICA")
	n.flag("kms:BypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	n["aws:RequestedRegion"] = []string{str(in.ReplicaRegion)}
	n.requestTags(tagMap(in.Tags))
	targets := []api.Target{t, {Action: "kms:CreateKey", ARN: "*", Keys: n}}
	if len(in.Tags) > 0 {
		targets = append(targets, api.Target{Action: "kms:TagResource", ARN: "*", Keys: n})
	}
	return targets, nil
}

// replicateKey is ReplicateKey. All Regions share one store, so the replica is
// there, Enabled, when the call returns.
func (s *Service) replicateKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ReplicateKeyInput) (*kms.ReplicateKeyOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, replicating)
	if err != nil {
		return nil, err
	}
	region := str(in.ReplicaRegion)
	switch {
	case !k.MultiRegion:
		return nil, errUnsupported("%s is not a multi-Region key: it cannot be replicated.", k.arn())
	case k.isReplica():
		return nil, k.onPrimary()
	case region == k.Region:
		return nil, errValidation("The replica Region must differ from the Region of the primary key, %s.", region)
	case !s.knownRegion(region):
		return nil, errValidation("%s is not a Region in which keys can be replicated.", region)
	}
	if s.keys.Get(tx, path(k.Account, region, k.ID)) != nil {
		return nil, &types.AlreadyExistsException{Message: ptr("The key " + keyARN(k.Account, region, k.ID) + " already exists")}
	}
	if s.counts.get(k.Account, region) >= s.cfg.Quotas.Keys {
		return nil, errLimit("The account already has %d keys in %s, the most it can have.", s.cfg.Quotas.Keys, region)
	}
	r := *k
	r.Region, r.Replicas, r.Description, r.Created, r.State = region, nil, str(in.Description), c.Time, stateEnabled
	if r.Tags, err = s.newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	if k.Origin == originExternal {
		// The same material must be imported into each replica.
		r.Materials = append([]Material(nil), k.Materials...)
		for i := range r.Materials {
			r.Materials[i].Wrapped, r.Materials[i].ValidTo = nil, time.Time{}
		}
		r.State = statePendingImport
	}
	r.Policy = defaultPolicy(k.Account)
	if in.Policy != nil {
		if r.Policy, err = s.checkPolicy(tx, c, *in.Policy, k.Account, in.BypassPolicyLockoutSafetyCheck); err != nil {
			return nil, err
		}
	}
	k.Replicas = append(k.Replicas, region)
	slices.Sort(k.Replicas)
	if err := s.put(tx, k); err != nil {
		return nil, err
	}
	if err := s.put(tx, &r); err != nil {
		return nil, err
	}
	if err := s.settlePending(tx, k); err != nil {
		return nil, err
	}
	note(c, r.arn())
	text, err := s.shownPolicy(tx, &r)
	if err != nil {
		return nil, err
	}
	if err := s.inRegion(tx, c, &r, "CreateKey", creation(&r)); err != nil {
		return nil, err
	}
	out := &kms.ReplicateKeyOutput{ReplicaKeyMetadata: s.metadata(tx, &r, c), ReplicaPolicy: &text, ReplicaTags: []types.Tag{}}
	for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
		out.ReplicaTags = append(out.ReplicaTags, types.Tag{TagKey: ptr(name), TagValue: ptr(r.Tags[name])})
	}
	return out, nil
}

func (s *Service) onUpdatePrimaryRegion(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdatePrimaryRegionInput) ([]api.Target, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	k := s.about(f, c)
	k.text("kms:PrimaryRegion", str(in.PrimaryRegion))
	t, err := s.ask(c, f, "UpdatePrimaryRegion", k, nil)
	if err != nil {
		return nil, err
	}
	targets := []api.Target{t}
	// The permission is needed on the replica that becomes primary as well.
	if r := s.keys.Get(tx, path(f.Account, str(in.PrimaryRegion), f.ID)); r != nil && r.Region != f.Region {
		t, err := s.ask(c, found{Key: r}, "UpdatePrimaryRegion", s.about(found{Key: r}, c), nil)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// updatePrimaryRegion is UpdatePrimaryRegion.
func (s *Service) updatePrimaryRegion(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdatePrimaryRegionInput) (*kms.UpdatePrimaryRegionOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, changingPrimary)
	if err != nil {
		return nil, err
	}
	region := str(in.PrimaryRegion)
	switch {
	case !k.MultiRegion:
		return nil, errUnsupported("%s is not a multi-Region key.", k.arn())
	case k.isReplica():
		return nil, k.onPrimary()
	case region == k.Region:
		return nil, errValidation("%s is the primary Region already.", region)
	case !slices.Contains(k.Replicas, region):
		return nil, errNotFound("The key %s has no replica in %s.", k.arn(), region)
	}
	r := s.keys.Edit(tx, path(k.Account, region, k.ID))
	if r == nil {
		return nil, errNoKey(keyARN(k.Account, region, k.ID))
	}
	if err := changingPrimary.check(r, c.Time); err != nil {
		return nil, err
	}
	replicas := []string{k.Region}
	for _, x := range k.Replicas {
		if x != region {
			replicas = append(replicas, x)
		}
	}
	slices.Sort(replicas)
	for _, x := range k.Replicas {
		if x == region {
			continue
		}
		if o := s.keys.Edit(tx, path(k.Account, x, k.ID)); o != nil {
			o.Primary = region
			if err := s.put(tx, o); err != nil {
				return nil, err
			}
		}
	}
	k.Primary, k.Replicas = region, nil
	r.Primary, r.Replicas = region, replicas
	if err := s.put(tx, k); err != nil {
		return nil, err
	}
	if err := s.put(tx, r); err != nil {
		return nil, err
	}
	return &kms.UpdatePrimaryRegionOutput{}, s.inRegion(tx, c, r, "UpdatePrimaryRegion", map[string]any{"keyId": r.arn(), "primaryRegion": region})
}

// replicaGone takes a destroyed replica off its primary's list. A primary that
// waits for its replicas begins its waiting period with the last.
func (s *Service) replicaGone(tx *store.Tx, r *Key) error {
	k := s.keys.Edit(tx, path(r.Account, r.Primary, r.ID))
	if k == nil {
		return nil
	}
	k.Replicas = slices.DeleteFunc(k.Replicas, func(x string) bool { return x == r.Region })
	if k.State == statePendingReplicaDeletion && len(k.Replicas) == 0 {
		k.State, k.Deletion = statePendingDeletion, s.now().AddDate(0, 0, int(k.PendingWindow))
	}
	if err := s.put(tx, k); err != nil {
		return err
	}
	return s.settlePending(tx, k)
}
