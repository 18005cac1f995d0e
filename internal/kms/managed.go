package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

const awsAlias = "alias/aws/"

// managed are the services that have an AWS managed key, by the name in the
// alias, with the host part that shows in kms:ViaService.
var managed = map[string]string{"workspaces": "workspaces", "ebs": "ec2"}

func serviceAlias(alias string) bool {
	service, ok := strings.CutPrefix(alias, awsAlias)
	return ok && managed[service] != ""
}

// managedPolicy is the key policy of an AWS managed key: everybody in the
// account, through the service only; the account may look and revoke grants.
// Source: KMS developer guide, "AWS managed keys" and the example of kms:CallerAccount.
func managedPolicy(account, region, service string) string {
	host := api.Host(managed[service], region)
	return fmt.Sprintf(`{
  "Version" : "2012-10-17",
  "Id" : "auto-%[1]s-1",
  "Statement" : [ {
    "Sid" : "Allow access through %[2]s for all principals in the account that are authorized to use %[2]s",
    "Effect" : "Allow",
    "Principal" : { "AWS" : "*" },
    "Action" : [ "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:CreateGrant", "kms:DescribeKey" ],
    "Resource" : "*",
    "Condition" : { "StringEquals" : { "kms:CallerAccount" : "%[3]s", "kms:ViaService" : "%[4]s" } }
  }, {
    "Sid" : "Allow direct access to key metadata to the account",
    "Effect" : "Allow",
    "Principal" : { "AWS" : "arn:aws:iam::%[3]s:root" },
    "Action" : [ "kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant" ],
    "Resource" : "*"
  } ]
}`, service, managedTitle[service], account, host)
}

var managedTitle = map[string]string{"workspaces": "Amazon WorkSpaces", "ebs": "EBS"}

var managedDescription = map[string]string{
	"workspaces": "Default key that protects my WorkSpaces when no other key is defined",
	"ebs":        "Default key that protects my EBS volumes when no other key is defined",
}

// ensureManaged returns the AWS managed key of a service in an account and
// Region, making it on first use: in tx when that can write, else in a
// transaction of its own.
func (s *Service) ensureManaged(ctx context.Context, tx *store.Tx, account, region, service string) (*Key, error) {
	k, err := s.makeManaged(tx, account, region, service)
	if err == nil || !errors.Is(err, store.ErrReadOnly) {
		return k, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		k, err = s.makeManaged(tx, account, region, service)
		return err
	})
	if err != nil {
		return nil, err
	}
	if stored := s.keys.Get(s.store.Snapshot(), k.path()); stored != nil {
		k = stored
	}
	return k, nil
}

func (s *Service) makeManaged(tx *store.Tx, account, region, service string) (*Key, error) {
	name := awsAlias + service
	if a := s.aliases.Get(tx, path(account, region, name)); a != nil {
		if k := s.keys.Get(tx, path(account, region, a.Target)); k != nil {
			return k, nil
		}
	}
	now := s.now()
	k := &Key{ID: ids.UUID(), Account: account, Region: region, Spec: specSymmetric, Usage: usageEncrypt, Origin: originKMS,
		Description: managedDescription[service], Service: service, State: stateEnabled, Created: now,
		Policy: managedPolicy(account, region, service)}
	// AWS managed keys rotate every year.
	k.Rotation = Rotation{Enabled: true, PeriodDays: 365, Next: now.AddDate(0, 0, 365)}
	if err := s.addMaterial(k, now); err != nil {
		return nil, err
	}
	if err := s.keys.Put(tx, k.path(), k); err != nil {
		return nil, err
	}
	return k, s.aliases.Put(tx, path(account, region, name), &Alias{Name: name, Target: k.ID, Created: now, Updated: now})
}

// addMaterial makes the first material of a key whose origin is KMS.
func (s *Service) addMaterial(k *Key, now time.Time) error {
	raw, pub, err := generate(k.Spec)
	if err != nil {
		return err
	}
	defer raw.Wipe()
	m := Material{ID: newMaterialID(), Created: now, Status: statusCurrent}
	if m.Wrapped, err = s.wrap(k, m.ID, raw); err != nil {
		return err
	}
	k.Materials, k.PublicKey = append(k.Materials, m), pub
	return nil
}
