package cloudtrail

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// digestKey signs the digests of a region for a while. Key: region/fingerprint.
type digestKey struct {
	Fingerprint string    `json:"fingerprint"`
	Public      []byte    `json:"public"`  // PKCS #1, DER
	Private     []byte    `json:"private"` // wrapped PKCS #1, purpose "cloudtrail/digest", bound to the key
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
}

const (
	keyPurpose = "cloudtrail/digest"
	keyBits    = 2048
	keyLife    = 365 * 24 * time.Hour
)

// signer returns the key that signs in a region now, making one when needed.
func (s *Service) signer(ctx context.Context, region string, now time.Time) (*rsa.PrivateKey, string, error) {
	var found *digestKey
	s.keys.Scan(s.cfg.Store.Snapshot(), region+"/", "", func(_ string, k *digestKey) bool {
		if !now.Before(k.Start) && now.Before(k.End) && (found == nil || k.Start.After(found.Start)) {
			found = k
		}
		return true
	})
	if found == nil {
		var err error
		if found, err = s.newKey(ctx, region, now); err != nil {
			return nil, "", err
		}
	}
	der, err := s.cfg.Root.Unwrap(keyPurpose, found.Private, []byte(region+"/"+found.Fingerprint))
	if err != nil {
		return nil, "", fmt.Errorf("open the key that signs digests in %s: %w", region, err)
	}
	defer der.Wipe()
	key, err := x509.ParsePKCS1PrivateKey(der.Expose())
	if err != nil {
		return nil, "", fmt.Errorf("read the key that signs digests in %s: %w", region, err)
	}
	return key, found.Fingerprint, nil
}

// Wrapped are the values that the service keeps under the root key.
func (s *Service) Wrapped() []keyring.Holder {
	return []keyring.Holder{keyring.Holds(s.cfg.Store, s.keys, func(key string, k *digestKey) []keyring.Field {
		return []keyring.Field{{Purpose: keyPurpose, AAD: []byte(key), Value: &k.Private}}
	})}
}

func (s *Service) newKey(ctx context.Context, region string, now time.Time) (*digestKey, error) {
	key, err := rsa.GenerateKey(nil, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make a key to sign digests: %w", err)
	}
	k := &digestKey{Public: x509.MarshalPKCS1PublicKey(&key.PublicKey), Start: now.UTC().Truncate(time.Second), End: now.UTC().Truncate(time.Second).Add(keyLife)}
	sum := sha256.Sum256(k.Public)
	k.Fingerprint = hex.EncodeToString(sum[:16])
	der := secret.New(x509.MarshalPKCS1PrivateKey(key))
	defer der.Wipe()
	if k.Private, err = s.cfg.Root.Wrap(keyPurpose, der, []byte(region+"/"+k.Fingerprint)); err != nil {
		return nil, fmt.Errorf("wrap the key that signs digests: %w", err)
	}
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.keys.Put(tx, region+"/"+k.Fingerprint, k) })
	return k, err
}

// listPublicKeys lists the keys whose signatures fall into a time range.
func (s *Service) listPublicKeys(_ context.Context, tx *store.Tx, c *api.Call, in *ct.ListPublicKeysInput) (*ct.ListPublicKeysOutput, error) {
	if in.NextToken != nil {
		return nil, &types.InvalidTokenException{Message: ptr("The NextToken value is not valid: all keys are on one page.")}
	}
	end := c.Time
	if in.EndTime != nil {
		end = *in.EndTime
	}
	start := end
	if in.StartTime != nil {
		start = *in.StartTime
	}
	if start.After(end) {
		return nil, &types.InvalidTimeRangeException{Message: ptr("StartTime is after EndTime.")}
	}
	out := &ct.ListPublicKeysOutput{PublicKeyList: []types.PublicKey{}}
	s.keys.Scan(tx, c.Region+"/", "", func(_ string, k *digestKey) bool {
		if !k.End.Before(start) && !k.Start.After(end) {
			out.PublicKeyList = append(out.PublicKeyList, types.PublicKey{Fingerprint: &k.Fingerprint, Value: k.Public, ValidityStartTime: &k.Start, ValidityEndTime: &k.End})
		}
		return true
	})
	return out, nil
}
