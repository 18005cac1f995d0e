package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// policyName is the only name a key policy can have.
const policyName = "default"

// defaultPolicy is the key policy of a key that was made without one: the account
// may do all, which lets IAM policies decide.
// Source: KMS developer guide, "Default key policy".
func defaultPolicy(account string) string {
	return fmt.Sprintf(`{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:aws:iam::%s:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`, account)
}

// denyAll stands for a resource policy that allows nobody.
var denyAll = policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":"000000000000"},"Action":"kms:*","Resource":"*"}]}`, policy.Key)

// checkPolicy says whether text can be the policy of a key of the account, set by
// the caller, and returns it as it is stored.
func (s *Service) checkPolicy(tx *store.Tx, c *api.Call, text, account string, bypass bool) (string, error) {
	if len(text) > s.cfg.Quotas.PolicyBytes {
		return "", errLimit("The key policy has %d bytes; a key policy has at most %d.", len(text), s.cfg.Quotas.PolicyBytes)
	}
	doc, err := policy.Parse([]byte(text), policy.Key)
	if err != nil {
		var pe *policy.ParseError
		if errors.As(err, &pe) {
			return "", errPolicy("%s", pe.Text())
		}
		return "", errPolicy("%v", err)
	}
	for _, p := range doc.Principals() {
		switch p.Type {
		case "AWS":
			if _, ok := s.cfg.Principals.PrincipalID(tx, p.Value); !ok && p.Value != "*" && !p.IsAccount() {
				return "", errPolicy("Policy contains a statement with one or more invalid principals: %s does not exist.", p.Value)
			}
		case "Service":
			if !serviceHost(p.Value) {
				return "", errPolicy("Policy contains a statement with one or more invalid principals: %s is not a service.", p.Value)
			}
		}
	}
	if !bypass && !s.keepsControl(c, doc, account) {
		return "", errPolicy("The new key policy will not allow you to update the key policy in the future.")
	}
	return s.bindPolicy(tx, doc), nil
}

// keepsControl tells whether, under the policy, the caller (or the caller's
// account, through IAM) may put a key policy again.
func (s *Service) keepsControl(c *api.Call, doc *policy.Document, account string) bool {
	who := policyPrincipal(&c.Principal)
	ask := func(p policy.Principal) bool {
		d := policy.Evaluate(&policy.Request{Principal: p, Action: "kms:PutKeyPolicy", Resource: "*", ResourceAccount: account, Context: policy.Context(caller(c)), Time: c.Time},
			&policy.Layers{Identity: allowAll, Resource: &policy.Source{ID: "the new key policy", Document: doc}, Mode: policy.ModeKMS})
		return d.Allowed()
	}
	if ask(who) {
		return true
	}
	return c.Principal.Account == account && ask(policy.Principal{Type: policy.Root, Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account})
}

// allowAll: the lockout check looks at the key policy only and takes IAM's side as given.
var allowAll = []policy.Source{{ID: "any IAM policy", Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`, policy.Identity)}}

// policyPrincipal is the caller in the words of package policy.
func policyPrincipal(p *api.Principal) policy.Principal {
	types := map[api.PrincipalType]policy.PrincipalType{api.Root: policy.Root, api.IAMUser: policy.User, api.AssumedRole: policy.Role, api.FederatedUser: policy.Federated, api.AWSService: policy.Service}
	return policy.Principal{Type: types[p.Type], Account: p.Account, ARN: p.ARN, UserID: p.ID, UserName: p.UserName, RoleARN: p.RoleARN, SessionName: p.SessionName, UserARN: p.IssuerARN, IssuerID: p.IssuerID, Service: p.Service, Tags: p.Tags}
}

// getKeyPolicy is GetKeyPolicy.
func (s *Service) getKeyPolicy(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GetKeyPolicyInput) (*kms.GetKeyPolicyOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if in.PolicyName != nil && *in.PolicyName != policyName {
		return nil, errNotFound("No such policy exists")
	}
	text, err := s.shownPolicy(tx, f.Key)
	return &kms.GetKeyPolicyOutput{Policy: &text, PolicyName: ptr(policyName)}, err
}

// putKeyPolicy is PutKeyPolicy.
func (s *Service) putKeyPolicy(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.PutKeyPolicyInput) (*kms.PutKeyPolicyOutput, error) {
	if in.PolicyName != nil && *in.PolicyName != policyName {
		return nil, errNotFound("No such policy exists")
	}
	k, err := s.edit(ctx, tx, c, in.KeyId, anyState)
	if err != nil {
		return nil, err
	}
	if k.Service != "" {
		return nil, errAccessDenied("%s is an AWS managed key: its key policy cannot be changed.", k.arn())
	}
	if k.Policy, err = s.checkPolicy(tx, c, str(in.Policy), k.Account, in.BypassPolicyLockoutSafetyCheck); err != nil {
		return nil, err
	}
	return &kms.PutKeyPolicyOutput{}, s.put(tx, k)
}

// listKeyPolicies is ListKeyPolicies: there is always one.
func (s *Service) listKeyPolicies(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ListKeyPoliciesInput) (*kms.ListKeyPoliciesOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if _, err := newPage(c, "ListKeyPolicies", f.path()+"/", in.Limit, 100, 1000, in.Marker); err != nil {
		return nil, err
	}
	return &kms.ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}
