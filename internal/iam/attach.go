package iam

import (
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// This file: what users, groups and roles have in common, which is policies.

func (s *Service) attachOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "AttachUserPolicy", s.attachUserPolicy, onUser(s, func(in *iam.AttachUserPolicyInput) *string { return in.UserName }, ownBoundary, withPolicyARN(func(in *iam.AttachUserPolicyInput) *string { return in.PolicyArn }))),
		api.NewUpdate("iam", "DetachUserPolicy", s.detachUserPolicy, onUser(s, func(in *iam.DetachUserPolicyInput) *string { return in.UserName }, ownBoundary, withPolicyARN(func(in *iam.DetachUserPolicyInput) *string { return in.PolicyArn }))),
		api.NewView("iam", "ListAttachedUserPolicies", s.listAttachedUserPolicies, onUser(s, func(in *iam.ListAttachedUserPoliciesInput) *string { return in.UserName })),
		api.NewUpdate("iam", "PutUserPolicy", s.putUserPolicy, onUser(s, func(in *iam.PutUserPolicyInput) *string { return in.UserName }, ownBoundary)),
		api.NewView("iam", "GetUserPolicy", s.getUserPolicy, onUser(s, func(in *iam.GetUserPolicyInput) *string { return in.UserName })),
		api.NewUpdate("iam", "DeleteUserPolicy", s.deleteUserPolicy, onUser(s, func(in *iam.DeleteUserPolicyInput) *string { return in.UserName }, ownBoundary)),
		api.NewView("iam", "ListUserPolicies", s.listUserPolicies, onUser(s, func(in *iam.ListUserPoliciesInput) *string { return in.UserName })),
		api.NewUpdate("iam", "PutUserPermissionsBoundary", s.putUserPermissionsBoundary, onUser(s, func(in *iam.PutUserPermissionsBoundaryInput) *string { return in.UserName }, withBoundary(func(in *iam.PutUserPermissionsBoundaryInput) *string { return in.PermissionsBoundary }))),
		api.NewUpdate("iam", "DeleteUserPermissionsBoundary", s.deleteUserPermissionsBoundary, onUser(s, func(in *iam.DeleteUserPermissionsBoundaryInput) *string { return in.UserName }, ownBoundary)),

		api.NewUpdate("iam", "AttachGroupPolicy", s.attachGroupPolicy, onGroup(s, func(in *iam.AttachGroupPolicyInput) *string { return in.GroupName }, withPolicyARN(func(in *iam.AttachGroupPolicyInput) *string { return in.PolicyArn }))),
		api.NewUpdate("iam", "DetachGroupPolicy", s.detachGroupPolicy, onGroup(s, func(in *iam.DetachGroupPolicyInput) *string { return in.GroupName }, withPolicyARN(func(in *iam.DetachGroupPolicyInput) *string { return in.PolicyArn }))),
		api.NewView("iam", "ListAttachedGroupPolicies", s.listAttachedGroupPolicies, onGroup(s, func(in *iam.ListAttachedGroupPoliciesInput) *string { return in.GroupName })),
		api.NewUpdate("iam", "PutGroupPolicy", s.putGroupPolicy, onGroup(s, func(in *iam.PutGroupPolicyInput) *string { return in.GroupName })),
		api.NewView("iam", "GetGroupPolicy", s.getGroupPolicy, onGroup(s, func(in *iam.GetGroupPolicyInput) *string { return in.GroupName })),
		api.NewUpdate("iam", "DeleteGroupPolicy", s.deleteGroupPolicy, onGroup(s, func(in *iam.DeleteGroupPolicyInput) *string { return in.GroupName })),
		api.NewView("iam", "ListGroupPolicies", s.listGroupPolicies, onGroup(s, func(in *iam.ListGroupPoliciesInput) *string { return in.GroupName })),

		api.NewUpdate("iam", "AttachRolePolicy", s.attachRolePolicy, onRole(s, func(in *iam.AttachRolePolicyInput) *string { return in.RoleName }, ownBoundary, withPolicyARN(func(in *iam.AttachRolePolicyInput) *string { return in.PolicyArn }))),
		api.NewUpdate("iam", "DetachRolePolicy", s.detachRolePolicy, onRole(s, func(in *iam.DetachRolePolicyInput) *string { return in.RoleName }, ownBoundary, withPolicyARN(func(in *iam.DetachRolePolicyInput) *string { return in.PolicyArn }))),
		api.NewView("iam", "ListAttachedRolePolicies", s.listAttachedRolePolicies, onRole(s, func(in *iam.ListAttachedRolePoliciesInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "PutRolePolicy", s.putRolePolicy, onRole(s, func(in *iam.PutRolePolicyInput) *string { return in.RoleName }, ownBoundary)),
		api.NewView("iam", "GetRolePolicy", s.getRolePolicy, onRole(s, func(in *iam.GetRolePolicyInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "DeleteRolePolicy", s.deleteRolePolicy, onRole(s, func(in *iam.DeleteRolePolicyInput) *string { return in.RoleName }, ownBoundary)),
		api.NewView("iam", "ListRolePolicies", s.listRolePolicies, onRole(s, func(in *iam.ListRolePoliciesInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "PutRolePermissionsBoundary", s.putRolePermissionsBoundary, onRole(s, func(in *iam.PutRolePermissionsBoundaryInput) *string { return in.RoleName }, withBoundary(func(in *iam.PutRolePermissionsBoundaryInput) *string { return in.PermissionsBoundary }))),
		api.NewUpdate("iam", "DeleteRolePermissionsBoundary", s.deleteRolePermissionsBoundary, onRole(s, func(in *iam.DeleteRolePermissionsBoundaryInput) *string { return in.RoleName }, ownBoundary)),
	}
}

// owner is a user, group or role as the owner of policies. Its grants may be
// changed when it comes from edit…, and are then stored with put.
type owner struct {
	kind, name, account string
	*grants
	inlineSize int // quota of all inline policies together
	put        func(tx *store.Tx) error
}

// change is whom a policy operation changes; look the same for reading.
func (s *Service) changeOwner(tx *store.Tx, c *api.Call, kind string, name *string) (*owner, error) {
	n := aws.ToString(name)
	switch kind {
	case "user":
		u, err := s.editUser(tx, c.Account, n)
		if err != nil {
			return nil, err
		}
		return &owner{kind, u.Name, c.Account, &u.grants, maxUserInline, func(tx *store.Tx) error { return s.putUser(tx, u) }}, nil
	case "group":
		g, err := s.editGroup(tx, c.Account, n)
		if err != nil {
			return nil, err
		}
		return &owner{kind, g.Name, c.Account, &g.grants, maxGroupInline, func(tx *store.Tx) error { return s.putGroup(tx, g) }}, nil
	}
	r, err := s.editRole(tx, c.Account, n)
	if err != nil {
		return nil, err
	}
	if r.Service != "" {
		return nil, protectedRole(r)
	}
	return &owner{kind, r.Name, c.Account, &r.grants, maxRoleInline, func(tx *store.Tx) error { return s.putRole(tx, r) }}, nil
}

func (s *Service) lookOwner(tx *store.Tx, c *api.Call, kind string, name *string) (*owner, error) {
	n := aws.ToString(name)
	switch kind {
	case "user":
		if u := s.users.Get(tx, key(c.Account, n)); u != nil {
			return &owner{kind: kind, name: u.Name, account: c.Account, grants: &u.grants}, nil
		}
		return nil, noUser(n)
	case "group":
		if g := s.groups.Get(tx, key(c.Account, n)); g != nil {
			return &owner{kind: kind, name: g.Name, account: c.Account, grants: &g.grants}, nil
		}
		return nil, noGroup(n)
	}
	if r := s.roles.Get(tx, key(c.Account, n)); r != nil {
		return &owner{kind: kind, name: r.Name, account: c.Account, grants: &r.grants}, nil
	}
	return nil, noRole(n)
}

// count adds d to a customer managed policy's number of attachments or boundaries.
func (s *Service) count(tx *store.Tx, account, arn string, attachments, boundaries int) error {
	owner, _, _, name, _ := splitARN(arn)
	if owner == "aws" {
		return nil // never deleted; counted by index
	}
	m := s.policies.Edit(tx, key(account, name))
	if m == nil {
		return nil
	}
	m.Attachments += attachments
	m.Boundaries += boundaries
	return s.policies.Put(tx, key(account, name), m)
}

func (s *Service) attach(tx *store.Tx, c *api.Call, kind string, name, policyARN *string) error {
	o, err := s.changeOwner(tx, c, kind, name)
	if err != nil {
		return err
	}
	arn := aws.ToString(policyARN)
	if checkPolicyARN(arn) != nil {
		return validation("ARN %s is not valid.", arn)
	}
	if s.managed(tx, c.Account, arn) == nil {
		return noSuchEntity("Policy %s does not exist or is not attachable.", arn)
	}
	if slices.Contains(o.Attached, arn) {
		return nil // as AWS: attaching again succeeds
	}
	if len(o.Attached) >= maxAttached {
		return limitExceeded("Cannot exceed quota for PoliciesPer%s: %d", strings.ToUpper(kind[:1])+kind[1:], maxAttached)
	}
	o.Attached = append(o.Attached, arn)
	if err := s.count(tx, c.Account, arn, 1, 0); err != nil {
		return err
	}
	return o.put(tx)
}

func checkPolicyARN(arn string) error {
	if _, kind, _, _, ok := splitARN(arn); !ok || kind != "policy" {
		return invalidInput("ARN %s is not valid.", arn)
	}
	return nil
}

func (s *Service) detach(tx *store.Tx, c *api.Call, kind string, name, policyARN *string) error {
	o, err := s.changeOwner(tx, c, kind, name)
	if err != nil {
		return err
	}
	arn := aws.ToString(policyARN)
	if checkPolicyARN(arn) != nil {
		return validation("ARN %s is not valid.", arn)
	}
	if !slices.Contains(o.Attached, arn) {
		return noPolicy(arn)
	}
	o.Attached = without(o.Attached, arn)
	if err := s.count(tx, c.Account, arn, -1, 0); err != nil {
		return err
	}
	return o.put(tx)
}

func (s *Service) listAttached(tx *store.Tx, c *api.Call, op, kind string, name, marker *string, max *int32, prefix *string) ([]types.AttachedPolicy, *page, error) {
	o, err := s.lookOwner(tx, c, kind, name)
	if err != nil {
		return nil, nil, err
	}
	p, err := newPage(op, marker, max)
	if err != nil {
		return nil, nil, err
	}
	all := slices.DeleteFunc(showAttached(o.Attached), func(a types.AttachedPolicy) bool {
		_, _, path, _, _ := splitARN(*a.PolicyArn)
		return !underPath(path, prefix)
	})
	sort.Slice(all, func(i, j int) bool { return *all[i].PolicyArn < *all[j].PolicyArn })
	return slicePage(all, p, func(a types.AttachedPolicy) string { return *a.PolicyArn }), p, nil
}

func showAttached(arns []string) []types.AttachedPolicy {
	out := []types.AttachedPolicy{}
	for _, arn := range arns {
		_, _, _, name, _ := splitARN(arn)
		out = append(out, types.AttachedPolicy{PolicyArn: aws.String(arn), PolicyName: aws.String(name)})
	}
	return out
}

func (s *Service) putInline(tx *store.Tx, c *api.Call, kind string, name, policyName, text *string) error {
	o, err := s.changeOwner(tx, c, kind, name)
	if err != nil {
		return err
	}
	doc, err := identityDocument(aws.ToString(text))
	if err != nil {
		return err
	}
	n := inlineName(o.grants, aws.ToString(policyName))
	if o.Inline == nil {
		o.Inline = map[string]*document{}
	}
	o.Inline[n] = doc
	total := 0
	for _, d := range o.Inline {
		total += d.size()
	}
	if total > o.inlineSize {
		return limitExceeded("Maximum policy size of %d bytes exceeded for %s %s", o.inlineSize, kind, o.name)
	}
	return o.put(tx)
}

// inlineName is the name under which an inline policy of that name, in whatever
// case, is kept already, else the name itself.
func inlineName(g *grants, name string) string {
	for n := range g.Inline {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return name
}

func noInline(kind, name string) error {
	return noSuchEntity("The %s policy with name %s cannot be found.", kind, name)
}

func (s *Service) getInline(tx *store.Tx, c *api.Call, kind string, name, policyName *string) (o *owner, n, encoded *string, err error) {
	o, err = s.lookOwner(tx, c, kind, name)
	if err != nil {
		return nil, nil, nil, err
	}
	found := inlineName(o.grants, aws.ToString(policyName))
	doc := o.Inline[found]
	if doc == nil {
		return nil, nil, nil, noInline(kind, aws.ToString(policyName))
	}
	return o, aws.String(found), aws.String(doc.encoded()), nil
}

func (s *Service) deleteInline(tx *store.Tx, c *api.Call, kind string, name, policyName *string) error {
	o, err := s.changeOwner(tx, c, kind, name)
	if err != nil {
		return err
	}
	n := inlineName(o.grants, aws.ToString(policyName))
	if o.Inline[n] == nil {
		return noInline(kind, aws.ToString(policyName))
	}
	delete(o.Inline, n)
	return o.put(tx)
}

func (s *Service) listInline(tx *store.Tx, c *api.Call, op, kind string, name, marker *string, max *int32) ([]string, *page, error) {
	o, err := s.lookOwner(tx, c, kind, name)
	if err != nil {
		return nil, nil, err
	}
	p, err := newPage(op, marker, max)
	if err != nil {
		return nil, nil, err
	}
	return slicePage(o.inlineNames(), p, func(n string) string { return n }), p, nil
}

// setBoundary sets the permissions boundary; the caller stores g.
func (s *Service) setBoundary(tx *store.Tx, account string, g *grants, arn string) error {
	if err := checkPolicyARN(arn); err != nil {
		return err
	}
	if s.managed(tx, account, arn) == nil {
		return noSuchEntity("Scope ARN: %s does not exist or is not attachable.", arn)
	}
	if g.Boundary == arn {
		return nil
	}
	if err := s.dropBoundary(tx, account, g); err != nil {
		return err
	}
	g.Boundary = arn
	return s.count(tx, account, arn, 0, 1)
}

// dropBoundary removes the permissions boundary, if any; the caller stores g.
func (s *Service) dropBoundary(tx *store.Tx, account string, g *grants) error {
	if g.Boundary == "" {
		return nil
	}
	old := g.Boundary
	g.Boundary = ""
	return s.count(tx, account, old, 0, -1)
}

func (s *Service) changeBoundary(tx *store.Tx, c *api.Call, kind string, name, arn *string) error {
	o, err := s.changeOwner(tx, c, kind, name)
	if err != nil {
		return err
	}
	if arn == nil {
		if o.Boundary == "" {
			return noSuchEntity("The permissions boundary of %s %s cannot be found.", kind, o.name)
		}
		err = s.dropBoundary(tx, c.Account, o.grants)
	} else {
		err = s.setBoundary(tx, c.Account, o.grants, *arn)
	}
	if err != nil {
		return err
	}
	return o.put(tx)
}
