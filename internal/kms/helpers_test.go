package kms

import (
	"encoding/base64"
	"encoding/hex"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
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
	d := policy.Evaluate(&policy.Request{Principal: policyPrincipal(&c.Principal), Action: t.Action, Resource: t.ARN, ResourceAccount: account, Context: t.Keys, Time: c.Time}, &l)
	return d.Allowed()
}

// allow gives a principal an identity policy.
func (b *bench) allow(arn, statements string) {
	b.iam[arn] = append(b.iam[arn], policy.Source{ID: "test policy of " + arn, Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[`+statements+`]}`, policy.Identity)})
}
