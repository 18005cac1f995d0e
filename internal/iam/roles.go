package iam

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) roleOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateRole", s.createRole, onNew("role", func(in *iam.CreateRoleInput) (*string, *string) { return in.Path, in.RoleName },
			withTags(func(in *iam.CreateRoleInput) []types.Tag { return in.Tags }), withBoundary(func(in *iam.CreateRoleInput) *string { return in.PermissionsBoundary }))),
		api.NewView("iam", "GetRole", s.getRole, onRole(s, func(in *iam.GetRoleInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "UpdateRole", s.updateRole, onRole(s, func(in *iam.UpdateRoleInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "UpdateRoleDescription", s.updateRoleDescription, onRole(s, func(in *iam.UpdateRoleDescriptionInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "UpdateAssumeRolePolicy", s.updateAssumeRolePolicy, onRole(s, func(in *iam.UpdateAssumeRolePolicyInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "DeleteRole", s.deleteRole, onRole(s, func(in *iam.DeleteRoleInput) *string { return in.RoleName })),
		api.NewView("iam", "ListRoles", s.listRoles, onList("role", func(in *iam.ListRolesInput) *string { return in.PathPrefix })),
		api.NewUpdate("iam", "TagRole", s.tagRole, onRole(s, func(in *iam.TagRoleInput) *string { return in.RoleName }, withTags(func(in *iam.TagRoleInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagRole", s.untagRole, onRole(s, func(in *iam.UntagRoleInput) *string { return in.RoleName }, withTagKeys(func(in *iam.UntagRoleInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListRoleTags", s.listRoleTags, onRole(s, func(in *iam.ListRoleTagsInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "CreateServiceLinkedRole", s.createServiceLinkedRole, api.On(s.onCreateServiceLinkedRole)),
		api.NewUpdate("iam", "DeleteServiceLinkedRole", s.deleteServiceLinkedRole, onRole(s, func(in *iam.DeleteServiceLinkedRoleInput) *string { return in.RoleName })),
		api.NewView("iam", "GetServiceLinkedRoleDeletionStatus", s.getServiceLinkedRoleDeletionStatus, api.On(s.onDeletionStatus)),
	}
}

// nameRole is a role as CreateRole and instance profiles show it.
func (s *Service) nameRole(tx *store.Tx, r *role) types.Role {
	return types.Role{RoleName: aws.String(r.Name), Path: aws.String(r.Path), RoleId: aws.String(r.ID), Arn: aws.String(r.arn()), CreateDate: aws.Time(r.Created),
		AssumeRolePolicyDocument: aws.String(encodeDocument(s.trustText(tx, r)))}
}

// showRole is a role as ListRoles shows it; GetRole adds to it.
func (s *Service) showRole(tx *store.Tx, r *role) types.Role {
	out := s.nameRole(tx, r)
	out.MaxSessionDuration = aws.Int32(r.MaxSession)
	if r.Description != "" {
		out.Description = aws.String(r.Description)
	}
	return out
}

// showRoleFully is a role with tags, boundary and when it was last used.
func (s *Service) showRoleFully(tx *store.Tx, r *role) *types.Role {
	out := s.showRole(tx, r)
	out.Tags, out.PermissionsBoundary, out.RoleLastUsed = showTags(r.Tags), showBoundary(r.Boundary), s.showRoleUse(tx, r)
	return &out
}

func (s *Service) showRoleUse(tx *store.Tx, r *role) *types.RoleLastUsed {
	l, ok := s.lastUse(tx, use{r.Account, r.ID, ""})
	if !ok {
		return &types.RoleLastUsed{}
	}
	return &types.RoleLastUsed{LastUsedDate: aws.Time(l.Time), Region: aws.String(l.Region)}
}

func (s *Service) editRole(tx *store.Tx, account, name string) (*role, error) {
	r := s.roles.Edit(tx, key(account, name))
	if r == nil {
		return nil, noRole(name)
	}
	return r, nil
}

// changeRole is editRole for the operations that leave service-linked roles alone.
func (s *Service) changeRole(tx *store.Tx, account, name string) (*role, error) {
	r, err := s.editRole(tx, account, name)
	if err != nil {
		return nil, err
	}
	if r.Service != "" {
		return nil, protectedRole(r)
	}
	return r, nil
}

func protectedRole(r *role) error {
	return unmodifiable("Cannot perform the operation on the protected role '%s' - this role is only modifiable by AWS", r.Name)
}

func (s *Service) putRole(tx *store.Tx, r *role) error {
	return s.roles.Put(tx, key(r.Account, r.Name), r)
}

func checkSession(d *int32) (int32, error) {
	if d == nil {
		return defaultSession, nil
	}
	if *d < 3600 || *d > 43200 {
		return 0, validation("1 validation error detected: Value '%d' at 'maxSessionDuration' failed to satisfy constraint: Member must be between 3600 and 43200", *d)
	}
	return *d, nil
}

func (s *Service) createRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	name := aws.ToString(in.RoleName)
	if s.roles.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("Role with name %s already exists.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(path, "/aws-service-role/") {
		return nil, invalidInput("The path %s is reserved for service-linked roles; use CreateServiceLinkedRole.", path)
	}
	session, err := checkSession(in.MaxSessionDuration)
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.roles, c.Account, maxRoles) {
		return nil, limitExceeded("Cannot exceed quota for RolesPerAccount: %d", maxRoles)
	}
	tags, err := newTags(in.Tags, foldCase)
	if err != nil {
		return nil, err
	}
	r := &role{Account: c.Account, Name: name, Path: path, ID: ids.IAM("AROA", 17), Created: s.now(c), Tags: tags, Description: aws.ToString(in.Description), MaxSession: session}
	if err := s.setTrust(tx, r, aws.ToString(in.AssumeRolePolicyDocument)); err != nil {
		return nil, err
	}
	if in.PermissionsBoundary != nil {
		if err := s.setBoundary(tx, c.Account, &r.grants, *in.PermissionsBoundary); err != nil {
			return nil, err
		}
	}
	if err := s.putRole(tx, r); err != nil {
		return nil, err
	}
	out := s.nameRole(tx, r)
	out.Tags, out.PermissionsBoundary = showTags(r.Tags), showBoundary(r.Boundary)
	return &iam.CreateRoleOutput{Role: &out}, nil
}

func (s *Service) getRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	r := s.roles.Get(tx, key(c.Account, aws.ToString(in.RoleName)))
	if r == nil {
		return nil, noRole(aws.ToString(in.RoleName))
	}
	return &iam.GetRoleOutput{Role: s.showRoleFully(tx, r)}, nil
}

func (s *Service) updateRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateRoleInput) (*iam.UpdateRoleOutput, error) {
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if in.MaxSessionDuration != nil { // what is not given stays
		if r.MaxSession, err = checkSession(in.MaxSessionDuration); err != nil {
			return nil, err
		}
	}
	if in.Description != nil {
		r.Description = *in.Description
	}
	return &iam.UpdateRoleOutput{}, s.putRole(tx, r)
}

func (s *Service) updateRoleDescription(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateRoleDescriptionInput) (*iam.UpdateRoleDescriptionOutput, error) {
	r, err := s.editRole(tx, c.Account, aws.ToString(in.RoleName)) // allowed on service-linked roles
	if err != nil {
		return nil, err
	}
	r.Description = aws.ToString(in.Description)
	if err := s.putRole(tx, r); err != nil {
		return nil, err
	}
	out := s.nameRole(tx, r)
	out.Description = aws.String(r.Description)
	return &iam.UpdateRoleDescriptionOutput{Role: &out}, nil
}

func (s *Service) updateAssumeRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if err := s.setTrust(tx, r, aws.ToString(in.PolicyDocument)); err != nil {
		return nil, err
	}
	return &iam.UpdateAssumeRolePolicyOutput{}, s.putRole(tx, r)
}

func (s *Service) deleteRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	switch {
	case len(r.Profiles) > 0:
		return nil, deleteConflict("Cannot delete entity, must remove roles from instance profile first.")
	case len(r.Attached) > 0:
		return nil, deleteConflict("Cannot delete entity, must detach all policies first.")
	case len(r.Inline) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete policies first.")
	}
	return &iam.DeleteRoleOutput{}, s.removeRole(tx, r)
}

func (s *Service) removeRole(tx *store.Tx, r *role) error {
	if err := s.dropBoundary(tx, r.Account, &r.grants); err != nil {
		return err
	}
	if err := s.forgetUses(tx, r.Account, r.ID); err != nil {
		return err
	}
	return s.roles.Delete(tx, key(r.Account, r.Name))
}

func (s *Service) listRoles(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	p, err := newPage("ListRoles", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	roles := scanPage(tx, s.roles, c.Account+"/", p, func(r *role) bool { return underPath(r.Path, in.PathPrefix) }, func(r *role) types.Role { return s.showRole(tx, r) })
	return &iam.ListRolesOutput{Roles: roles, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) tagRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if r.Tags, err = mergeTags(r.Tags, in.Tags, foldCase); err != nil {
		return nil, err
	}
	return &iam.TagRoleOutput{}, s.putRole(tx, r)
}

func (s *Service) untagRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	r.Tags = dropTags(r.Tags, in.TagKeys, foldCase)
	return &iam.UntagRoleOutput{}, s.putRole(tx, r)
}

func (s *Service) listRoleTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
	r := s.roles.Get(tx, key(c.Account, aws.ToString(in.RoleName)))
	if r == nil {
		return nil, noRole(aws.ToString(in.RoleName))
	}
	tags, p, err := tagPage("ListRoleTags", in.Marker, in.MaxItems, r.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListRoleTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}

// Service-linked roles.

// linkedRole is what a service's template makes.
type linkedRole struct {
	name, description, document string
	suffix                      bool // a custom suffix is allowed
}

// linkedRoles are the templates by service host. Source: IAM User Guide, "AWS
// services that work with IAM", and each service's page on its linked roles.
var linkedRoles = map[string]linkedRole{
	"cloudtrail.amazonaws.com": {name: "AWSServiceRoleForCloudTrail", description: "AWS CloudTrail uses this service-linked role to manage organization trails.",
		document: `{"Version":"2012-10-17","Statement":[{"Sid":"CloudTrailFullAccess","Effect":"Allow","Action":["cloudtrail:*"],"Resource":"*"}]}`},
	"mrk.kms.amazonaws.com": {name: "AWSServiceRoleForKeyManagementServiceMultiRegionKeys", description: "Enables access to AWS services and resources required by AWS KMS multi-Region keys.",
		document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:SynchronizeMultiRegionKey"],"Resource":"*"}]}`},
	"cks.kms.amazonaws.com": {name: "AWSServiceRoleForKeyManagementServiceCustomKeyStores", description: "Allows access to AWS services and resources required by AWS KMS custom key stores.",
		document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:CreateNetworkInterface","ec2:DescribeSecurityGroups","ec2:DescribeNetworkAcls","ec2:DescribeVpcs","ec2:DescribeSubnets"],"Resource":"*"}]}`},
	"spot.amazonaws.com": {name: "AWSServiceRoleForEC2Spot", description: "Default EC2 Spot Service Linked Role",
		document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:DescribeInstances","ec2:StopInstances","ec2:StartInstances"],"Resource":"*"}]}`},
}

func (s *Service) onCreateServiceLinkedRole(_ context.Context, _ *store.Tx, c *api.Call, in *iam.CreateServiceLinkedRoleInput) ([]api.Target, error) {
	host := aws.ToString(in.AWSServiceName)
	name := "*"
	if t, ok := linkedRoles[host]; ok {
		name = linkedName(t, in.CustomSuffix)
	}
	return []api.Target{{ARN: iamARN(c.Account, "role", "/aws-service-role/"+host+"/", name), Keys: map[string][]string{"iam:AWSServiceName": {host}}}}, nil
}

func linkedName(t linkedRole, suffix *string) string {
	if suffix != nil {
		return t.name + "_" + *suffix
	}
	return t.name
}

func (s *Service) createServiceLinkedRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateServiceLinkedRoleInput) (*iam.CreateServiceLinkedRoleOutput, error) {
	host := aws.ToString(in.AWSServiceName)
	t, ok := linkedRoles[host]
	if !ok {
		return nil, invalidInput("Cannot find Service Linked Role template for %s", host)
	}
	if in.CustomSuffix != nil && !t.suffix {
		return nil, invalidInput("Custom suffix is not allowed for %s", host)
	}
	name := linkedName(t, in.CustomSuffix)
	if s.roles.Get(tx, key(c.Account, name)) != nil {
		return nil, invalidInput("Service role name %s has been taken in this account, please try a different suffix.", name)
	}
	trust, err := parse(`{"Version":"2012-10-17","Statement":[{"Action":["sts:AssumeRole"],"Principal":{"Service":["`+host+`"]},"Effect":"Allow"}]}`, policy.Trust)
	if err != nil {
		return nil, err
	}
	doc, err := identityDocument(t.document)
	if err != nil {
		return nil, err
	}
	r := &role{Account: c.Account, Name: name, Path: "/aws-service-role/" + host + "/", ID: ids.IAM("AROA", 17), Created: s.now(c), Description: t.description,
		Trust: trust, MaxSession: defaultSession, Service: host, grants: grants{Inline: map[string]*document{strings.TrimPrefix(name, "AWSServiceRoleFor") + "ServiceRolePolicy": doc}}}
	if in.Description != nil {
		r.Description = *in.Description
	}
	if err := s.putRole(tx, r); err != nil {
		return nil, err
	}
	out := s.showRole(tx, r)
	return &iam.CreateServiceLinkedRoleOutput{Role: &out}, nil
}

func (s *Service) deleteServiceLinkedRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteServiceLinkedRoleInput) (*iam.DeleteServiceLinkedRoleOutput, error) {
	r, err := s.editRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if r.Service == "" {
		return nil, invalidInput("The role %s is not a service-linked role; use DeleteRole.", r.Name)
	}
	if err := s.removeRole(tx, r); err != nil {
		return nil, err
	}
	return &iam.DeleteServiceLinkedRoleOutput{DeletionTaskId: aws.String("task" + r.Path + r.Name + "/" + ids.UUID())}, nil
}

// taskRole takes a deletion task ID apart: task/aws-service-role/HOST/ROLE/UUID.
func taskRole(id string) (path, name string, ok bool) {
	parts := strings.Split(id, "/")
	if len(parts) != 5 || parts[0] != "task" || parts[1] != "aws-service-role" || slices.Contains(parts, "") {
		return "", "", false
	}
	return "/aws-service-role/" + parts[2] + "/", parts[3], true
}

func (s *Service) onDeletionStatus(_ context.Context, _ *store.Tx, c *api.Call, in *iam.GetServiceLinkedRoleDeletionStatusInput) ([]api.Target, error) {
	path, name, ok := taskRole(aws.ToString(in.DeletionTaskId))
	if !ok {
		return []api.Target{{ARN: "*"}}, nil
	}
	return []api.Target{{ARN: iamARN(c.Account, "role", path, name)}}, nil
}

// getServiceLinkedRoleDeletionStatus: deletion is immediate here, so a task is
// done as soon as it has an ID.
func (s *Service) getServiceLinkedRoleDeletionStatus(_ context.Context, _ *store.Tx, _ *api.Call, in *iam.GetServiceLinkedRoleDeletionStatusInput) (*iam.GetServiceLinkedRoleDeletionStatusOutput, error) {
	if _, _, ok := taskRole(aws.ToString(in.DeletionTaskId)); !ok {
		return nil, noSuchEntity("The deletion task %s cannot be found.", aws.ToString(in.DeletionTaskId))
	}
	return &iam.GetServiceLinkedRoleDeletionStatusOutput{Status: types.DeletionTaskStatusTypeSucceeded}, nil
}
