package kms

import (
	"context"
	"encoding/base64"
	"encoding/hex"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

func b64(b []byte) string   { return base64.StdEncoding.EncodeToString(b) }
func hexOf(b []byte) string { return hex.EncodeToString(b) }

// authorised answers a target as the gateway does, with the identity policies of
// b.iam (by principal ARN).
func authorised(b *bench, c *api.Call, t api.Target) bool {
	l := policy.Layers{Identity: b.iam[c.Principal.ARN], Mode: t.Mode, Granted: t.Granted}
	if t.Policy != nil {
		l.Resource = &policy.Source{ID: t.PolicyID, Document: t.Policy}
	}
	account := t.Account
	if account == "" {
		account = c.Account
	}
	keys := t.Keys
	if t.KeysOf != nil {
		keys = t.KeysOf()
	}
	d := policy.Evaluate(&policy.Request{Principal: policyPrincipal(&c.Principal), Action: t.Action, Resource: t.ARN, ResourceAccount: account, Context: keys, Time: c.Time}, &l)
	return d.Allowed()
}

// allow gives a principal an identity policy.
func (b *bench) allow(arn, statements string) {
	b.iam[arn] = append(b.iam[arn], policy.Source{ID: "test policy of " + arn, Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[`+statements+`]}`, policy.Identity)})
}

// testKeyPath is the path of a key that is not there.
const testKeyPath = acct + "/" + region + "/1234abcd-12ab-34cd-56ef-1234567890ab"

// fill puts n of EBS's grants on a key, straight into the store.
func fill(b *bench, keyPath string, n int) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		err := b.st.Update(context.Background(), func(tx *store.Tx) error {
			for i := from; i < min(n, from+1000); i++ {
				g := &Grant{key: grantKey(keyPath, newMaterialID()), Grantee: api.Host("ec2", region), Retiring: api.Host("ec2", region), IssuingAccount: acct,
					Operations: []string{"Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "RetireGrant"}, Created: b.clk.Now(),
					Subset: pairsOf(map[string]string{sidName: "s", ebsName: "vol-" + itoa(i)})}
				if err := b.s.grants.Put(tx, g.key, g); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
