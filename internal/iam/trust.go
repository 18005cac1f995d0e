package iam

import (
	"regexp"
	"strings"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// setTrust checks a trust policy and gives it to the role. The users and roles it
// names must exist; their unique IDs are kept with it.
// Source: IAM User Guide, "AWS JSON policy elements: Principal"; CreateRole.
func (s *Service) setTrust(tx *store.Tx, r *role, text string) error {
	doc, err := parse(text, policy.Trust)
	if err != nil {
		return err
	}
	if doc.size() > maxTrustSize {
		return limitExceeded("Cannot exceed quota for ACLSizePerRole: %d", maxTrustSize)
	}
	trusted := map[string]string{}
	compiled, _ := doc.compiled(policy.Trust)
	for _, p := range compiled.Principals() {
		ok, why := false, ""
		switch p.Type {
		case "AWS":
			var id string
			if id, ok = s.PrincipalID(tx, p.Value); ok && strings.HasPrefix(p.Value, "arn:") && !strings.HasSuffix(p.Value, ":root") {
				trusted[p.Value] = id
			}
			ok = ok || p.Value == "*" || p.IsAccount()
			why = "no such user or role here"
		case "Service":
			ok, why = serviceHost.MatchString(p.Value), "want a service such as ec2.amazonaws.com"
		case "Federated":
			ok, why = wellKnownIdP[p.Value] || s.provider(tx, r.Account, p.Value) != nil, "no such identity provider in this account; create it first"
		default:
			why = "want AWS, Service or Federated"
		}
		if !ok {
			return malformedPolicy("Invalid principal in policy: %q:%q (line %d, column %d: %s)", p.Type, p.Value, p.Line, p.Column, why)
		}
	}
	if len(trusted) == 0 {
		trusted = nil
	}
	r.Trust, r.Trusted = doc, trusted
	return nil
}

var serviceHost = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*\.amazonaws\.com$`)

// wellKnownIdP are the identity providers that need no record of their own.
var wellKnownIdP = map[string]bool{"cognito-identity.amazonaws.com": true, "www.amazon.com": true, "graph.facebook.com": true, "accounts.google.com": true}

// trustText is a role's trust policy with each principal that is no longer the
// one it was when the policy was written replaced by its unique ID, which names
// nobody that can come back. AWS shows and evaluates it in the same way.
func (s *Service) trustText(tx *store.Tx, r *role) string {
	text, _ := s.currentTrust(tx, r)
	return text
}

func (s *Service) currentTrust(tx *store.Tx, r *role) (text string, changed bool) {
	text = r.Trust.text
	for arn, id := range r.Trusted {
		if now, ok := s.PrincipalID(tx, arn); ok && now == id {
			continue
		}
		text = strings.ReplaceAll(text, `"`+arn+`"`, `"`+id+`"`)
		changed = true
	}
	return text, changed
}

// Role finds a role by its ARN for STS.
func (s *Service) Role(tx *store.Tx, arn string) (*api.Role, error) {
	account, kind, path, name, ok := splitARN(arn)
	if !ok || kind != "role" {
		return nil, nil
	}
	r := s.roles.Get(tx, key(account, name))
	if r == nil || r.Path != path || r.Name != name {
		return nil, nil
	}
	out := &api.Role{Account: r.Account, Name: r.Name, ID: r.ID, ARN: r.arn(), MaxSession: r.MaxSession, Tags: tagMap(r.Tags)}
	var err error
	if text, changed := s.currentTrust(tx, r); changed {
		out.Trust, err = s.trusts.compile(text)
	} else {
		out.Trust, err = r.Trust.compiled(policy.Trust)
	}
	return out, err
}

// ManagedPolicyExists tells whether a managed policy is the account's own or AWS's.
func (s *Service) ManagedPolicyExists(tx *store.Tx, account, arn string) bool {
	return s.managed(tx, account, arn) != nil
}
