package iam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

const secretPurpose = "iam/secret-access-key"

// Credential finds a long-term access key (AKIA…): api.Identities. A key that is
// inactive, or whose user is gone, is as unknown as one that never was.
func (s *Service) Credential(_ context.Context, accessKeyID, token string, _ time.Time) (*api.Credential, error) {
	tx := s.store.Snapshot()
	k, tableKey := s.findKey(tx, accessKeyID)
	if k == nil || !k.Active {
		return nil, api.ErrUnknownAccessKey
	}
	if token != "" {
		return nil, api.ErrInvalidToken // a long-term key has none
	}
	p, ok := s.principal(tx, k)
	if !ok {
		return nil, api.ErrUnknownAccessKey
	}
	sec, err := s.open(tableKey, k)
	if err != nil {
		return nil, err
	}
	return &api.Credential{SecretAccessKey: sec, Principal: p}, nil
}

// findKey finds an access key of any account, or nil.
func (s *Service) findKey(tx *store.Tx, id string) (*accessKey, string) {
	for _, tk := range s.keyByID.Keys(id, "", 1) {
		return s.keys.Get(tx, tk), tk
	}
	return nil, ""
}

// AccountOfKey is the account an access key ID belongs to, long-term or
// temporary, whether the key itself is still there or not.
func (s *Service) AccountOfKey(tx *store.Tx, accessKeyID string) (account string, ok bool) {
	if k, _ := s.findKey(tx, accessKeyID); k != nil {
		return k.Account, true
	}
	if account, ok = ids.AccountOfAccessKey(accessKeyID); ok && s.accounts.Get(tx, account) != nil {
		return account, true
	}
	return "", false
}

// Wrapped are the values that the service keeps under the root key.
func (s *Service) Wrapped() []keyring.Holder {
	return []keyring.Holder{
		keyring.Holds(s.store, s.keys, func(tableKey string, k *accessKey) []keyring.Field {
			return []keyring.Field{{Purpose: secretPurpose, AAD: []byte(tableKey), Value: &k.Wrapped}}
		}),
		keyring.Holds(s.store, s.mfa, func(_ string, d *mfaDevice) []keyring.Field {
			return []keyring.Field{{Purpose: seedPurpose, AAD: []byte(d.serial()), Value: &d.Wrapped}}
		}),
	}
}

// open unwraps a key's secret, once as long as the record stays the same.
func (s *Service) open(tableKey string, k *accessKey) (*secret.Bytes, error) {
	if v, ok := s.secrets.Load(tableKey); ok && v.(*opened).wrapped == string(k.Wrapped) {
		return v.(*opened).secret, nil
	}
	sec, err := s.root.Unwrap(secretPurpose, k.Wrapped, []byte(tableKey))
	if err != nil {
		return nil, fmt.Errorf("unwrap the secret of access key %s: %w (was the root key replaced?)", k.ID, err)
	}
	s.secrets.Store(tableKey, &opened{wrapped: string(k.Wrapped), secret: sec})
	return sec, nil
}

// principal is whom a long-term key stands for.
func (s *Service) principal(tx *store.Tx, k *accessKey) (api.Principal, bool) {
	if k.User == "" {
		return api.Principal{Type: api.Root, Account: k.Account, ARN: "arn:aws:iam::" + k.Account + ":root", ID: k.Account, AccessKeyID: k.ID}, true
	}
	u := s.users.Get(tx, k.Account+"/"+k.User)
	if u == nil || u.ID != k.UserID {
		return api.Principal{}, false
	}
	return api.Principal{Type: api.IAMUser, Account: u.Account, ARN: u.arn(), ID: u.ID, UserName: u.Name, AccessKeyID: k.ID, Tags: tagMap(u.Tags)}, true
}

func tagMap(tags []tag) map[string]string {
	if len(tags) == 0 {
		return nil
	}
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[t.Key] = t.Value
	}
	return m
}

// Refresh brings the principal of a temporary session up to date: the tags of
// its user or role. It is false when the user or role is gone, or is another one
// of the same name; such a session is no longer valid.
func (s *Service) Refresh(tx *store.Tx, p *api.Principal) bool {
	switch p.Type {
	case api.Root:
		return s.accounts.Get(tx, p.Account) != nil
	case api.IAMUser:
		u := s.userByID(tx, p.ID)
		if u == nil {
			return false
		}
		p.Tags, p.ARN, p.UserName = tagMap(u.Tags), u.arn(), u.Name
		return true
	case api.AssumedRole:
		r := s.roles.Get(tx, key(p.Account, p.RoleName))
		if r == nil || r.ID != roleID(p) {
			return false
		}
		p.Tags = tagMap(r.Tags)
		for k := range p.Tags { // a session tag takes the place of the role's, in whatever case
			for sk := range p.SessionTags {
				if strings.EqualFold(k, sk) {
					delete(p.Tags, k)
				}
			}
		}
		return true
	case api.FederatedUser:
		if p.IssuerID == p.Account {
			return s.accounts.Get(tx, p.Account) != nil
		}
		return s.userByID(tx, p.IssuerID) != nil
	}
	return true
}

// userByID finds a user by its unique ID, whatever its name is now, or nil.
func (s *Service) userByID(tx *store.Tx, id string) *user {
	for _, k := range s.usersByID.Keys(id, "", 1) {
		return s.users.Get(tx, k)
	}
	return nil
}

// roleID is the role's unique ID in AROA…:session.
func roleID(p *api.Principal) string {
	id, _, _ := strings.Cut(p.ID, ":")
	return id
}

// Policies collects what applies to p: api.Identities. A principal that was
// deleted has none, and so may do nothing.
func (s *Service) Policies(tx *store.Tx, p *api.Principal) (api.Policies, error) {
	var out api.Policies
	var err error
	switch p.Type {
	case api.Root:
		out.Identity = sessionLimits(p) // what root may do is the evaluator's to say
	case api.IAMUser:
		u := s.userByID(tx, p.ID)
		if u == nil {
			return api.Policies{}, nil
		}
		if err = s.ofUser(tx, u, &out); err != nil {
			return api.Policies{}, err
		}
		if pw, own := s.passwordPolicy(tx, u.Account); own && pw.AllowUsersToChange {
			out.Identity = append(out.Identity, mayChangePassword)
		}
		out.Identity = append(out.Identity, sessionLimits(p)...)
	case api.AssumedRole:
		r := s.roles.Get(tx, key(p.Account, p.RoleName))
		if r == nil || r.ID != roleID(p) {
			return api.Policies{}, nil
		}
		if err = s.ofRole(tx, r, &out); err != nil {
			return api.Policies{}, err
		}
	case api.FederatedUser:
		if p.IssuerID == p.Account {
			out.Identity = []policy.Source{allowAll}
		} else {
			u := s.userByID(tx, p.IssuerID)
			if u == nil {
				return api.Policies{}, nil
			}
			if err = s.ofUser(tx, u, &out); err != nil {
				return api.Policies{}, err
			}
		}
		out.Identity = append(out.Identity, sessionLimits(p)...)
		out.Scoped = true
	default: // services and the anonymous have nothing here
		return out, nil
	}
	if err := s.session(tx, p, &out); err != nil {
		return api.Policies{}, err
	}
	return out, nil
}

// ofUser adds a user's inline and attached policies, those of its groups, and its boundary.
func (s *Service) ofUser(tx *store.Tx, u *user, out *api.Policies) error {
	if err := s.ofGrants(tx, u.Account, "user", u.Name, &u.grants, out); err != nil {
		return err
	}
	for _, g := range u.Groups {
		if g := s.groups.Get(tx, u.Account+"/"+g); g != nil {
			if err := s.ofGrants(tx, u.Account, "group", g.Name, &g.grants, out); err != nil {
				return err
			}
		}
	}
	return s.boundary(tx, u.Account, &u.grants, out)
}

func (s *Service) ofRole(tx *store.Tx, r *role, out *api.Policies) error {
	if err := s.ofGrants(tx, r.Account, "role", r.Name, &r.grants, out); err != nil {
		return err
	}
	return s.boundary(tx, r.Account, &r.grants, out)
}

func (s *Service) ofGrants(tx *store.Tx, account, kind, owner string, g *grants, out *api.Policies) error {
	for _, name := range g.inlineNames() {
		doc, err := g.Inline[name].compiled(policy.Identity)
		if err != nil {
			return fmt.Errorf("inline policy %s of %s %s: %w", name, kind, owner, err)
		}
		out.Identity = append(out.Identity, policy.Source{ID: inlineID(kind, owner, name), Type: kind, Document: doc})
	}
	for _, arn := range g.Attached {
		src, err := s.managedSource(tx, account, arn)
		if errors.Is(err, errNoPolicy) {
			continue
		}
		if err != nil {
			return err
		}
		out.Identity = append(out.Identity, src)
	}
	return nil
}

// boundary sets the permissions boundary. One that is gone allows nothing.
func (s *Service) boundary(tx *store.Tx, account string, g *grants, out *api.Policies) error {
	if g.Boundary == "" {
		return nil
	}
	src, err := s.managedSource(tx, account, g.Boundary)
	if errors.Is(err, errNoPolicy) {
		src = policy.Source{ID: g.Boundary, Document: nothing}
	} else if err != nil {
		return err
	}
	out.Boundary = &src
	return nil
}

// session adds the policies a session was made with.
func (s *Service) session(tx *store.Tx, p *api.Principal, out *api.Policies) error {
	for i, text := range p.SessionPolicies {
		doc, err := s.texts.compile(text)
		if err != nil {
			return fmt.Errorf("session policy of %s: %w", p.ARN, err)
		}
		out.Session = append(out.Session, policy.Source{ID: fmt.Sprintf("session policy %d", i+1), Document: doc})
	}
	for _, arn := range p.SessionPolicyARNs {
		src, err := s.managedSource(tx, p.Account, arn)
		if errors.Is(err, errNoPolicy) {
			continue
		}
		if err != nil {
			return err
		}
		out.Session = append(out.Session, src)
	}
	if len(p.SessionPolicies)+len(p.SessionPolicyARNs) > 0 {
		out.Scoped = true
	}
	return nil
}

// inlineID names an inline policy in explanations.
func inlineID(kind, owner, name string) string {
	return "inline policy " + name + " of " + kind + " " + owner
}

// managedType is the policy's SourcePolicyType.
func managedType(m *managed) string {
	if m.Account == "aws" {
		return "aws-managed"
	}
	return "user-managed"
}

var errNoPolicy = errors.New("no such managed policy")

// managedSource is a managed policy in its default version.
func (s *Service) managedSource(tx *store.Tx, account, arn string) (policy.Source, error) {
	m := s.managed(tx, account, arn)
	if m == nil {
		return policy.Source{}, errNoPolicy
	}
	doc, err := m.version("").Document.compiled(policy.Identity)
	if err != nil {
		return policy.Source{}, fmt.Errorf("policy %s: %w", arn, err)
	}
	return policy.Source{ID: arn, Type: managedType(m), Document: doc}, nil
}

// managed finds a managed policy that account may use: its own or AWS's.
func (s *Service) managed(tx *store.Tx, account, arn string) *managed {
	owner, kind, path, name, ok := splitARN(arn)
	if !ok || kind != "policy" {
		return nil
	}
	if owner == "aws" {
		return awsManaged[arn]
	}
	if owner != account {
		return nil
	}
	if m := s.policies.Get(tx, key(account, name)); m != nil && m.Path == path && m.Name == name {
		return m
	}
	return nil
}

// PrincipalExists tells whether an ARN (or a 12 digit account ID) that a
// policy's Principal element names is a principal of this installation: an
// account, a user, a role, a session of a role, or a federated user of an account.
// Source: IAM User Guide, "AWS JSON policy elements: Principal".
func (s *Service) PrincipalExists(tx *store.Tx, arn string) bool {
	_, ok := s.PrincipalID(tx, arn)
	return ok
}

// PrincipalARN is the ARN that the user, role or role session with a unique ID
// has now; ok is false when it was deleted.
func (s *Service) PrincipalARN(tx *store.Tx, id string) (arn string, ok bool) {
	id, session, isSession := strings.Cut(id, ":")
	if u := s.userByID(tx, id); u != nil && !isSession {
		return u.arn(), true
	}
	for _, k := range s.rolesByID.Keys(id, "", 1) {
		if r := s.roles.Get(tx, k); r != nil && r.ID == id {
			if isSession {
				return "arn:aws:sts::" + r.Account + ":assumed-role/" + r.Name + "/" + session, true
			}
			return r.arn(), true
		}
	}
	return "", false
}

// PrincipalID is the unique ID behind a principal's ARN.
func (s *Service) PrincipalID(tx *store.Tx, arn string) (id string, ok bool) {
	if len(arn) == 12 && strings.Trim(arn, "0123456789") == "" {
		return arn, s.accounts.Get(tx, arn) != nil
	}
	if rest, ok := strings.CutPrefix(arn, "arn:aws:sts::"); ok {
		account, res, _ := strings.Cut(rest, ":")
		parts := strings.Split(res, "/")
		switch {
		case parts[0] == "assumed-role" && len(parts) == 3 && parts[2] != "":
			if r := s.roles.Get(tx, key(account, parts[1])); r != nil && r.Name == parts[1] {
				return r.ID + ":" + parts[2], true
			}
		case parts[0] == "federated-user" && len(parts) == 2 && parts[1] != "":
			return account + ":" + parts[1], s.accounts.Get(tx, account) != nil
		}
		return "", false
	}
	if strings.HasPrefix(arn, "AIDA") {
		return arn, s.userByID(tx, arn) != nil
	}
	if strings.HasPrefix(arn, "AROA") {
		id, _, _ := strings.Cut(arn, ":")
		return arn, s.rolesByID.Count(id, 1) > 0
	}
	account, kind, path, name, ok := splitARN(arn)
	if !ok {
		return "", false
	}
	switch kind {
	case "root":
		return account, s.accounts.Get(tx, account) != nil
	case "user":
		if u := s.users.Get(tx, key(account, name)); u != nil && u.Path == path && u.Name == name {
			return u.ID, true
		}
	case "role":
		if r := s.roles.Get(tx, key(account, name)); r != nil && r.Path == path && r.Name == name {
			return r.ID, true
		}
	}
	return "", false
}
