package iam

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) accountOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateAccountAlias", s.createAccountAlias),
		api.NewUpdate("iam", "DeleteAccountAlias", s.deleteAccountAlias),
		api.NewView("iam", "ListAccountAliases", s.listAccountAliases),
		api.NewView("iam", "GetAccountSummary", s.getAccountSummary),
		api.NewUpdate("iam", "UpdateAccountPasswordPolicy", s.updateAccountPasswordPolicy),
		api.NewView("iam", "GetAccountPasswordPolicy", s.getAccountPasswordPolicy),
		api.NewUpdate("iam", "DeleteAccountPasswordPolicy", s.deleteAccountPasswordPolicy),
		api.NewUpdate("iam", "SetSecurityTokenServicePreferences", s.setSecurityTokenServicePreferences),
		api.NewView("iam", "GetAccountAuthorizationDetails", s.getAccountAuthorizationDetails),
	}
}

// editAccount is a private copy of the caller's account.
func (s *Service) editAccount(tx *store.Tx, c *api.Call) *account {
	if a := s.accounts.Edit(tx, c.Account); a != nil {
		return a
	}
	return &account{ID: c.Account, Created: s.now(c)}
}

func (s *Service) createAccountAlias(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateAccountAliasInput) (*iam.CreateAccountAliasOutput, error) {
	alias := aws.ToString(in.AccountAlias)
	if !aliasPattern.MatchString(alias) || accountPattern.MatchString(alias) {
		return nil, validation("The account alias %s is not valid: 3 to 63 lower-case letters, digits and single dashes, not 12 digits alone.", alias)
	}
	if other := s.aliases.Get(tx, alias); other != nil && other.Account != c.Account {
		return nil, entityExists("The account alias %s already exists.", alias)
	}
	a := s.editAccount(tx, c)
	if a.Alias != "" && a.Alias != alias { // an account has one alias; a new one takes its place
		if err := s.aliases.Delete(tx, a.Alias); err != nil {
			return nil, err
		}
	}
	a.Alias = alias
	if err := s.aliases.Put(tx, alias, &aliasOf{c.Account}); err != nil {
		return nil, err
	}
	return &iam.CreateAccountAliasOutput{}, s.accounts.Put(tx, c.Account, a)
}

func (s *Service) deleteAccountAlias(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteAccountAliasInput) (*iam.DeleteAccountAliasOutput, error) {
	a := s.editAccount(tx, c)
	if a.Alias == "" || a.Alias != aws.ToString(in.AccountAlias) {
		return nil, noSuchEntity("The account alias with name %s cannot be found.", aws.ToString(in.AccountAlias))
	}
	if err := s.aliases.Delete(tx, a.Alias); err != nil {
		return nil, err
	}
	a.Alias = ""
	return &iam.DeleteAccountAliasOutput{}, s.accounts.Put(tx, c.Account, a)
}

func (s *Service) listAccountAliases(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListAccountAliasesInput) (*iam.ListAccountAliasesOutput, error) {
	p, err := newPage("ListAccountAliases", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	var all []string
	if a := s.accounts.Get(tx, c.Account); a != nil && a.Alias != "" {
		all = append(all, a.Alias)
	}
	list := slicePage(all, p, func(a string) string { return a })
	return &iam.ListAccountAliasesOutput{AccountAliases: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) getAccountSummary(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.GetAccountSummaryInput) (*iam.GetAccountSummaryOutput, error) {
	var users, groups, roles, policies, versions, profiles, mfa, mfaInUse, providers, serverCerts int32
	prefix := c.Account + "/"
	s.users.Scan(tx, prefix, "", func(string, *user) bool { users++; return true })
	s.groups.Scan(tx, prefix, "", func(string, *group) bool { groups++; return true })
	s.roles.Scan(tx, prefix, "", func(string, *role) bool { roles++; return true })
	s.policies.Scan(tx, prefix, "", func(_ string, m *managed) bool {
		policies++
		versions += int32(len(m.Versions))
		return true
	})
	s.profiles.Scan(tx, prefix, "", func(string, *instanceProfile) bool { profiles++; return true })
	s.mfa.Scan(tx, prefix, "", func(_ string, d *mfaDevice) bool {
		mfa++
		if d.User != "" {
			mfaInUse++
		}
		return true
	})
	s.providers.Scan(tx, prefix, "", func(string, *provider) bool { providers++; return true })
	s.serverCerts.Scan(tx, prefix, "", func(string, *serverCertificate) bool { serverCerts++; return true })
	var rootKeys, rootMFA, rootCerts int32
	if a := s.accounts.Get(tx, c.Account); a != nil {
		if len(a.AccessKeys) > 0 {
			rootKeys = 1
		}
		if len(a.MFA) > 0 {
			rootMFA = 1
		}
		if len(a.Certificates) > 0 {
			rootCerts = 1
		}
	}
	return &iam.GetAccountSummaryOutput{SummaryMap: map[string]int32{
		"Users": users, "UsersQuota": maxUsers, "Groups": groups, "GroupsQuota": maxGroups, "Roles": roles, "RolesQuota": maxRoles,
		"Policies": policies, "PoliciesQuota": maxPolicies, "PolicyVersionsInUse": versions, "PolicyVersionsInUseQuota": 10000, "VersionsPerPolicyQuota": maxVersions, "PolicySizeQuota": maxManagedSize,
		"InstanceProfiles": profiles, "InstanceProfilesQuota": maxProfiles, "MFADevices": mfa, "MFADevicesInUse": mfaInUse, "Providers": providers,
		"AccountMFAEnabled": rootMFA, "AccountAccessKeysPresent": rootKeys, "AccountPasswordPresent": 0, "AccountSigningCertificatesPresent": rootCerts,
		"AccessKeysPerUserQuota": maxAccessKeys, "GroupsPerUserQuota": maxGroupsOfUser, "SigningCertificatesPerUserQuota": maxCertificates,
		"AttachedPoliciesPerUserQuota": maxAttached, "AttachedPoliciesPerGroupQuota": maxAttached, "AttachedPoliciesPerRoleQuota": maxAttached,
		"UserPolicySizeQuota": maxUserInline, "GroupPolicySizeQuota": maxGroupInline, "RolePolicySizeQuota": maxRoleInline, "AssumeRolePolicySizeQuota": maxTrustSize,
		"ServerCertificates": serverCerts, "ServerCertificatesQuota": maxServerCertificates, "GlobalEndpointTokenVersion": 2}}, nil
}

// setSecurityTokenServicePreferences: every token of ours is valid in every
// region, which is what version 2 means; version 1 would forbid some regions.
func (s *Service) setSecurityTokenServicePreferences(_ context.Context, tx *store.Tx, c *api.Call, in *iam.SetSecurityTokenServicePreferencesInput) (*iam.SetSecurityTokenServicePreferencesOutput, error) {
	switch in.GlobalEndpointTokenVersion {
	case types.GlobalEndpointTokenVersionV2Token:
	case types.GlobalEndpointTokenVersionV1Token:
		return nil, invalidInput("Session tokens here are valid in all Regions (v2Token); v1Token cannot be chosen.")
	default:
		return nil, validation("GlobalEndpointTokenVersion is v1Token or v2Token, not %q.", in.GlobalEndpointTokenVersion)
	}
	a := s.editAccount(tx, c)
	a.TokenVersion = string(in.GlobalEndpointTokenVersion)
	return &iam.SetSecurityTokenServicePreferencesOutput{}, s.accounts.Put(tx, c.Account, a)
}

// getAccountAuthorizationDetails lists users, groups, roles and policies in one
// paged list, in that order.
func (s *Service) getAccountAuthorizationDetails(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetAccountAuthorizationDetailsInput) (*iam.GetAccountAuthorizationDetailsOutput, error) {
	p, err := newPage("GetAccountAuthorizationDetails", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	want := func(t types.EntityType) bool {
		if len(in.Filter) == 0 {
			return true
		}
		for _, f := range in.Filter {
			if f == t {
				return true
			}
		}
		return false
	}
	out := &iam.GetAccountAuthorizationDetailsOutput{UserDetailList: []types.UserDetail{}, GroupDetailList: []types.GroupDetail{}, RoleDetailList: []types.RoleDetail{}, Policies: []types.ManagedPolicyDetail{}}
	prefix, open := c.Account+"/", true
	step := func(kind, k string, add func()) bool {
		take, stop := p.take(kind + k)
		if take {
			add()
		}
		open = !stop
		return open
	}
	if want(types.EntityTypeUser) {
		s.users.Scan(tx, prefix, "", func(k string, u *user) bool {
			return step("1", k, func() { out.UserDetailList = append(out.UserDetailList, s.userDetail(tx, u)) })
		})
	}
	if open && want(types.EntityTypeGroup) {
		s.groups.Scan(tx, prefix, "", func(k string, g *group) bool {
			return step("2", k, func() {
				out.GroupDetailList = append(out.GroupDetailList, types.GroupDetail{GroupName: aws.String(g.Name), GroupId: aws.String(g.ID), Arn: aws.String(g.arn()), Path: aws.String(g.Path),
					CreateDate: aws.Time(g.Created), GroupPolicyList: inlineDetails(&g.grants), AttachedManagedPolicies: showAttached(g.Attached)})
			})
		})
	}
	if open && want(types.EntityTypeRole) {
		s.roles.Scan(tx, prefix, "", func(k string, r *role) bool {
			return step("3", k, func() { out.RoleDetailList = append(out.RoleDetailList, s.roleDetail(tx, r)) })
		})
	}
	if open && want(types.EntityTypeLocalManagedPolicy) {
		s.policies.Scan(tx, prefix, "", func(k string, m *managed) bool {
			return step("4", k, func() { out.Policies = append(out.Policies, s.policyDetail(c.Account, m)) })
		})
	}
	if open && want(types.EntityTypeAWSManagedPolicy) {
		for _, m := range awsManagedList {
			a, b := s.usage(c.Account, m)
			if a+b == 0 {
				continue // as AWS: only those in use
			}
			if !step("5", m.arn(), func() { out.Policies = append(out.Policies, s.policyDetail(c.Account, m)) }) {
				break
			}
		}
	}
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

func inlineDetails(g *grants) []types.PolicyDetail {
	out := []types.PolicyDetail{}
	for _, n := range g.inlineNames() {
		out = append(out, types.PolicyDetail{PolicyName: aws.String(n), PolicyDocument: aws.String(g.Inline[n].encoded())})
	}
	return out
}

func (s *Service) userDetail(tx *store.Tx, u *user) types.UserDetail {
	groups := []string{}
	for _, n := range u.Groups {
		if g := s.groups.Get(tx, u.Account+"/"+n); g != nil {
			groups = append(groups, g.Name)
		}
	}
	return types.UserDetail{UserName: aws.String(u.Name), UserId: aws.String(u.ID), Arn: aws.String(u.arn()), Path: aws.String(u.Path), CreateDate: aws.Time(u.Created), GroupList: groups,
		UserPolicyList: inlineDetails(&u.grants), AttachedManagedPolicies: showAttached(u.Attached), PermissionsBoundary: showBoundary(u.Boundary), Tags: showTags(u.Tags)}
}

func (s *Service) roleDetail(tx *store.Tx, r *role) types.RoleDetail {
	profiles := []types.InstanceProfile{}
	for _, n := range r.Profiles {
		if p := s.profiles.Get(tx, r.Account+"/"+n); p != nil {
			profiles = append(profiles, s.showProfile(tx, p))
		}
	}
	return types.RoleDetail{RoleName: aws.String(r.Name), RoleId: aws.String(r.ID), Arn: aws.String(r.arn()), Path: aws.String(r.Path), CreateDate: aws.Time(r.Created),
		AssumeRolePolicyDocument: aws.String(encodeDocument(s.trustText(tx, r))), InstanceProfileList: profiles, RolePolicyList: inlineDetails(&r.grants),
		AttachedManagedPolicies: showAttached(r.Attached), PermissionsBoundary: showBoundary(r.Boundary), RoleLastUsed: s.showRoleUse(tx, r), Tags: showTags(r.Tags)}
}

func (s *Service) policyDetail(account string, m *managed) types.ManagedPolicyDetail {
	a, b := s.usage(account, m)
	out := types.ManagedPolicyDetail{PolicyName: aws.String(m.Name), PolicyId: aws.String(m.ID), Arn: aws.String(m.arn()), Path: aws.String(m.Path), DefaultVersionId: aws.String(m.Default),
		AttachmentCount: aws.Int32(int32(a)), PermissionsBoundaryUsageCount: aws.Int32(int32(b)), IsAttachable: true, CreateDate: aws.Time(m.Created), UpdateDate: aws.Time(m.Updated)}
	if m.Description != "" {
		out.Description = aws.String(m.Description)
	}
	for i := len(m.Versions) - 1; i >= 0; i-- {
		out.PolicyVersionList = append(out.PolicyVersionList, showVersion(m, &m.Versions[i], true))
	}
	return out
}
