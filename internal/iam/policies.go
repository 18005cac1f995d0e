package iam

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) policyOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreatePolicy", s.createPolicy, onNew("policy", func(in *iam.CreatePolicyInput) (*string, *string) { return in.Path, in.PolicyName }, withTags(func(in *iam.CreatePolicyInput) []types.Tag { return in.Tags }))),
		api.NewView("iam", "GetPolicy", s.getPolicy, onPolicy(s, func(in *iam.GetPolicyInput) *string { return in.PolicyArn })),
		api.NewUpdate("iam", "DeletePolicy", s.deletePolicy, onPolicy(s, func(in *iam.DeletePolicyInput) *string { return in.PolicyArn })),
		api.NewView("iam", "ListPolicies", s.listPolicies, onList("policy", func(in *iam.ListPoliciesInput) *string { return in.PathPrefix })),
		api.NewUpdate("iam", "CreatePolicyVersion", s.createPolicyVersion, onPolicy(s, func(in *iam.CreatePolicyVersionInput) *string { return in.PolicyArn })),
		api.NewView("iam", "GetPolicyVersion", s.getPolicyVersion, onPolicy(s, func(in *iam.GetPolicyVersionInput) *string { return in.PolicyArn })),
		api.NewUpdate("iam", "DeletePolicyVersion", s.deletePolicyVersion, onPolicy(s, func(in *iam.DeletePolicyVersionInput) *string { return in.PolicyArn })),
		api.NewUpdate("iam", "SetDefaultPolicyVersion", s.setDefaultPolicyVersion, onPolicy(s, func(in *iam.SetDefaultPolicyVersionInput) *string { return in.PolicyArn })),
		api.NewView("iam", "ListPolicyVersions", s.listPolicyVersions, onPolicy(s, func(in *iam.ListPolicyVersionsInput) *string { return in.PolicyArn })),
		api.NewView("iam", "ListEntitiesForPolicy", s.listEntitiesForPolicy, onPolicy(s, func(in *iam.ListEntitiesForPolicyInput) *string { return in.PolicyArn })),
		api.NewUpdate("iam", "TagPolicy", s.tagPolicy, onPolicy(s, func(in *iam.TagPolicyInput) *string { return in.PolicyArn }, withTags(func(in *iam.TagPolicyInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagPolicy", s.untagPolicy, onPolicy(s, func(in *iam.UntagPolicyInput) *string { return in.PolicyArn }, withTagKeys(func(in *iam.UntagPolicyInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListPolicyTags", s.listPolicyTags, onPolicy(s, func(in *iam.ListPolicyTagsInput) *string { return in.PolicyArn })),
	}
}

// usage is how many entities of the account name the policy.
func (s *Service) usage(account string, m *managed) (attachments, boundaries int) {
	if m.Account != "aws" {
		return m.Attachments, m.Boundaries
	}
	e := account + " " + m.arn()
	b := account + " boundary " + m.arn()
	return s.usersByPolicy.Count(e, 0) + s.groupsByPolicy.Count(e, 0) + s.rolesByPolicy.Count(e, 0),
		s.usersByPolicy.Count(b, 0) + s.rolesByPolicy.Count(b, 0)
}

// showPolicy is a policy as ListPolicies shows it; others add description and tags.
func (s *Service) showPolicy(account string, m *managed) types.Policy {
	a, b := s.usage(account, m)
	return types.Policy{PolicyName: aws.String(m.Name), PolicyId: aws.String(m.ID), Arn: aws.String(m.arn()), Path: aws.String(m.Path), DefaultVersionId: aws.String(m.Default),
		AttachmentCount: aws.Int32(int32(a)), PermissionsBoundaryUsageCount: aws.Int32(int32(b)), IsAttachable: true, CreateDate: aws.Time(m.Created), UpdateDate: aws.Time(m.Updated)}
}

func showVersion(m *managed, v *version, withDocument bool) types.PolicyVersion {
	out := types.PolicyVersion{VersionId: aws.String(v.ID), IsDefaultVersion: v.ID == m.Default, CreateDate: aws.Time(v.Created)}
	if withDocument {
		out.Document = aws.String(v.Document.encoded())
	}
	return out
}

// editManaged is a private copy of a customer managed policy of the caller's account.
func (s *Service) editManaged(tx *store.Tx, c *api.Call, arn *string) (*managed, error) {
	a := aws.ToString(arn)
	if err := checkPolicyARN(a); err != nil {
		return nil, err
	}
	m := s.managed(tx, c.Account, a)
	if m == nil {
		return nil, noPolicy(a)
	}
	if m.Account == "aws" {
		return nil, accessDenied("Policies with an ARN under arn:aws:iam::aws:policy/ belong to AWS and cannot be changed.")
	}
	return s.policies.Edit(tx, key(c.Account, m.Name)), nil
}

func (s *Service) lookManaged(tx *store.Tx, c *api.Call, arn *string) (*managed, error) {
	a := aws.ToString(arn)
	if err := checkPolicyARN(a); err != nil {
		return nil, err
	}
	m := s.managed(tx, c.Account, a)
	if m == nil {
		return nil, noPolicy(a)
	}
	return m, nil
}

func (s *Service) putManaged(tx *store.Tx, m *managed) error {
	return s.policies.Put(tx, key(m.Account, m.Name), m)
}

func (s *Service) managedDocument(text *string) (*document, error) {
	doc, err := identityDocument(aws.ToString(text))
	if err != nil {
		return nil, err
	}
	if d, _ := doc.compiled(policy.Identity); d.Version != policy.Version2012 {
		return nil, malformedPolicy("Policy document must be version 2012-10-17 or greater.")
	}
	if doc.size() > maxManagedSize {
		return nil, limitExceeded("Cannot exceed quota for PolicySize: %d", maxManagedSize)
	}
	return doc, nil
}

func (s *Service) createPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	name := aws.ToString(in.PolicyName)
	if s.policies.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("A policy called %s already exists. Duplicate names are not allowed.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	doc, err := s.managedDocument(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.policies, c.Account, maxPolicies) {
		return nil, limitExceeded("Cannot exceed quota for PoliciesPerAccount: %d", maxPolicies)
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	now := s.now(c)
	m := &managed{Account: c.Account, Name: name, Path: path, ID: ids.IAM("ANPA", 17), Created: now, Updated: now, Description: aws.ToString(in.Description), Tags: tags,
		Default: "v1", Next: 2, Versions: []version{{ID: "v1", Created: now, Document: doc}}}
	if err := s.putManaged(tx, m); err != nil {
		return nil, err
	}
	show := s.showPolicy(c.Account, m)
	show.Tags = showTags(m.Tags)
	return &iam.CreatePolicyOutput{Policy: &show}, nil
}

func (s *Service) getPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
	m, err := s.lookManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	show := s.showPolicy(c.Account, m)
	show.Tags = allTags(m.Tags)
	if m.Description != "" {
		show.Description = aws.String(m.Description)
	}
	return &iam.GetPolicyOutput{Policy: &show}, nil
}

func (s *Service) deletePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Attachments > 0:
		return nil, deleteConflict("Cannot delete a policy attached to entities.")
	case m.Boundaries > 0:
		return nil, deleteConflict("Cannot delete a policy that is used as permissions boundary.")
	case len(m.Versions) > 1:
		return nil, deleteConflict("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
	}
	return &iam.DeletePolicyOutput{}, s.policies.Delete(tx, key(m.Account, m.Name))
}

func (s *Service) listPolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListPoliciesInput) (*iam.ListPoliciesOutput, error) {
	p, err := newPage("ListPolicies", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	var all []*managed
	if in.Scope != types.PolicyScopeTypeLocal {
		all = append(all, awsManagedList...)
	}
	if in.Scope != types.PolicyScopeTypeAws {
		s.policies.Scan(tx, c.Account+"/", "", func(_ string, m *managed) bool { all = append(all, m); return true })
	}
	all = slices.DeleteFunc(all, func(m *managed) bool {
		if !underPath(m.Path, in.PathPrefix) {
			return true
		}
		if !in.OnlyAttached && in.PolicyUsageFilter == "" {
			return false
		}
		a, b := s.usage(c.Account, m)
		switch in.PolicyUsageFilter {
		case types.PolicyUsageTypePermissionsPolicy:
			b = 0
		case types.PolicyUsageTypePermissionsBoundary:
			a = 0
		}
		return a+b == 0
	})
	sort.Slice(all, func(i, j int) bool { return all[i].arn() < all[j].arn() })
	list := []types.Policy{}
	for _, m := range slicePage(all, p, (*managed).arn) {
		list = append(list, s.showPolicy(c.Account, m))
	}
	return &iam.ListPoliciesOutput{Policies: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) createPolicyVersion(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreatePolicyVersionInput) (*iam.CreatePolicyVersionOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	doc, err := s.managedDocument(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	if len(m.Versions) >= maxVersions {
		return nil, limitExceeded("A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
	}
	v := version{ID: fmt.Sprintf("v%d", m.Next), Created: s.now(c), Document: doc}
	m.Next++
	m.Versions = append(m.Versions, v)
	m.Updated = v.Created
	if in.SetAsDefault {
		m.Default = v.ID
	}
	if err := s.putManaged(tx, m); err != nil {
		return nil, err
	}
	show := showVersion(m, &v, false)
	return &iam.CreatePolicyVersionOutput{PolicyVersion: &show}, nil
}

func noVersion(arn, id *string) error {
	return noSuchEntity("Policy %s version %s does not exist or is not attachable.", aws.ToString(arn), aws.ToString(id))
}

// noVersionOf is err, or that the version is missing when the policy is.
func noVersionOf(err error, arn, id *string) error {
	var missing *types.NoSuchEntityException
	if errors.As(err, &missing) {
		return noVersion(arn, id)
	}
	return err
}

func (s *Service) getPolicyVersion(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	m, err := s.lookManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, noVersionOf(err, in.PolicyArn, in.VersionId)
	}
	v := m.version(aws.ToString(in.VersionId))
	if v == nil {
		return nil, noVersion(in.PolicyArn, in.VersionId)
	}
	show := showVersion(m, v, true)
	return &iam.GetPolicyVersionOutput{PolicyVersion: &show}, nil
}

func (s *Service) deletePolicyVersion(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeletePolicyVersionInput) (*iam.DeletePolicyVersionOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, noVersionOf(err, in.PolicyArn, in.VersionId)
	}
	v := m.version(aws.ToString(in.VersionId))
	if v == nil {
		return nil, noVersion(in.PolicyArn, in.VersionId)
	}
	if v.ID == m.Default {
		return nil, deleteConflict("Cannot delete the default version of a policy.")
	}
	id := v.ID
	m.Versions = slices.DeleteFunc(m.Versions, func(v version) bool { return v.ID == id })
	m.Updated = s.now(c)
	return &iam.DeletePolicyVersionOutput{}, s.putManaged(tx, m)
}

func (s *Service) setDefaultPolicyVersion(_ context.Context, tx *store.Tx, c *api.Call, in *iam.SetDefaultPolicyVersionInput) (*iam.SetDefaultPolicyVersionOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, noVersionOf(err, in.PolicyArn, in.VersionId)
	}
	v := m.version(aws.ToString(in.VersionId))
	if v == nil {
		return nil, noVersion(in.PolicyArn, in.VersionId)
	}
	m.Default, m.Updated = v.ID, s.now(c)
	return &iam.SetDefaultPolicyVersionOutput{}, s.putManaged(tx, m)
}

func (s *Service) listPolicyVersions(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListPolicyVersionsInput) (*iam.ListPolicyVersionsOutput, error) {
	m, err := s.lookManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListPolicyVersions", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	// Newest first, as AWS lists them; the page key counts down accordingly.
	newest := slices.Clone(m.Versions)
	slices.Reverse(newest)
	list := []types.PolicyVersion{}
	for _, v := range slicePage(newest, p, func(v version) string { return fmt.Sprintf("%09d", 1_000_000-number(v.ID)) }) {
		list = append(list, showVersion(m, &v, false))
	}
	return &iam.ListPolicyVersionsOutput{Versions: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func number(versionID string) int {
	var n int
	_, _ = fmt.Sscanf(versionID, "v%d", &n)
	return n
}

func (s *Service) listEntitiesForPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListEntitiesForPolicyInput) (*iam.ListEntitiesForPolicyOutput, error) {
	m, err := s.lookManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListEntitiesForPolicy", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	var entries []string
	if in.PolicyUsageFilter != types.PolicyUsageTypePermissionsBoundary {
		entries = append(entries, c.Account+" "+m.arn())
	}
	if in.PolicyUsageFilter != types.PolicyUsageTypePermissionsPolicy {
		entries = append(entries, c.Account+" boundary "+m.arn())
	}
	// Keys of the merged list: "1" + key of a group, "2" of a role, "3" of a user.
	var all []string
	want := func(t types.EntityType) bool { return in.EntityFilter == "" || in.EntityFilter == t }
	for _, e := range entries {
		if want(types.EntityTypeGroup) {
			all = appendPrefixed(all, "1", s.groupsByPolicy.Keys(e, "", 0))
		}
		if want(types.EntityTypeRole) {
			all = appendPrefixed(all, "2", s.rolesByPolicy.Keys(e, "", 0))
		}
		if want(types.EntityTypeUser) {
			all = appendPrefixed(all, "3", s.usersByPolicy.Keys(e, "", 0))
		}
	}
	sort.Strings(all)
	all = slices.Compact(all)
	out := &iam.ListEntitiesForPolicyOutput{PolicyGroups: []types.PolicyGroup{}, PolicyRoles: []types.PolicyRole{}, PolicyUsers: []types.PolicyUser{}}
	all = slices.DeleteFunc(all, func(k string) bool {
		switch k[0] {
		case '1':
			g := s.groups.Get(tx, k[1:])
			return g == nil || !underPath(g.Path, in.PathPrefix)
		case '2':
			r := s.roles.Get(tx, k[1:])
			return r == nil || !underPath(r.Path, in.PathPrefix)
		}
		u := s.users.Get(tx, k[1:])
		return u == nil || !underPath(u.Path, in.PathPrefix)
	})
	for _, k := range slicePage(all, p, func(k string) string { return k }) {
		switch k[0] {
		case '1':
			g := s.groups.Get(tx, k[1:])
			out.PolicyGroups = append(out.PolicyGroups, types.PolicyGroup{GroupName: aws.String(g.Name), GroupId: aws.String(g.ID)})
		case '2':
			r := s.roles.Get(tx, k[1:])
			out.PolicyRoles = append(out.PolicyRoles, types.PolicyRole{RoleName: aws.String(r.Name), RoleId: aws.String(r.ID)})
		default:
			u := s.users.Get(tx, k[1:])
			out.PolicyUsers = append(out.PolicyUsers, types.PolicyUser{UserName: aws.String(u.Name), UserId: aws.String(u.ID)})
		}
	}
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

func appendPrefixed(list []string, prefix string, keys []string) []string {
	for _, k := range keys {
		list = append(list, prefix+k)
	}
	return list
}

func (s *Service) tagPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagPolicyInput) (*iam.TagPolicyOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	if m.Tags, err = mergeTags(m.Tags, in.Tags, exactCase); err != nil {
		return nil, err
	}
	return &iam.TagPolicyOutput{}, s.putManaged(tx, m)
}

func (s *Service) untagPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagPolicyInput) (*iam.UntagPolicyOutput, error) {
	m, err := s.editManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	m.Tags = dropTags(m.Tags, in.TagKeys, exactCase)
	return &iam.UntagPolicyOutput{}, s.putManaged(tx, m)
}

func (s *Service) listPolicyTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListPolicyTagsInput) (*iam.ListPolicyTagsOutput, error) {
	m, err := s.lookManaged(tx, c, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	tags, p, err := tagPage("ListPolicyTags", in.Marker, in.MaxItems, m.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListPolicyTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}
