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
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) profileOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateInstanceProfile", s.createInstanceProfile, onNew("instance-profile", func(in *iam.CreateInstanceProfileInput) (*string, *string) { return in.Path, in.InstanceProfileName }, withTags(func(in *iam.CreateInstanceProfileInput) []types.Tag { return in.Tags }))),
		api.NewView("iam", "GetInstanceProfile", s.getInstanceProfile, onProfile(s, func(in *iam.GetInstanceProfileInput) *string { return in.InstanceProfileName })),
		api.NewUpdate("iam", "DeleteInstanceProfile", s.deleteInstanceProfile, onProfile(s, func(in *iam.DeleteInstanceProfileInput) *string { return in.InstanceProfileName })),
		api.NewView("iam", "ListInstanceProfiles", s.listInstanceProfiles, onList("instance-profile", func(in *iam.ListInstanceProfilesInput) *string { return in.PathPrefix })),
		api.NewView("iam", "ListInstanceProfilesForRole", s.listInstanceProfilesForRole, onRole(s, func(in *iam.ListInstanceProfilesForRoleInput) *string { return in.RoleName })),
		api.NewUpdate("iam", "AddRoleToInstanceProfile", s.addRoleToInstanceProfile, api.On(s.onAddRole)),
		api.NewUpdate("iam", "RemoveRoleFromInstanceProfile", s.removeRoleFromInstanceProfile, onProfile(s, func(in *iam.RemoveRoleFromInstanceProfileInput) *string { return in.InstanceProfileName })),
		api.NewUpdate("iam", "TagInstanceProfile", s.tagInstanceProfile, onProfile(s, func(in *iam.TagInstanceProfileInput) *string { return in.InstanceProfileName }, withTags(func(in *iam.TagInstanceProfileInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagInstanceProfile", s.untagInstanceProfile, onProfile(s, func(in *iam.UntagInstanceProfileInput) *string { return in.InstanceProfileName }, withTagKeys(func(in *iam.UntagInstanceProfileInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListInstanceProfileTags", s.listInstanceProfileTags, onProfile(s, func(in *iam.ListInstanceProfileTagsInput) *string { return in.InstanceProfileName })),
	}
}

func (s *Service) showProfile(tx *store.Tx, p *instanceProfile) types.InstanceProfile {
	out := types.InstanceProfile{InstanceProfileName: aws.String(p.Name), Path: aws.String(p.Path), InstanceProfileId: aws.String(p.ID), Arn: aws.String(p.arn()),
		CreateDate: aws.Time(p.Created), Roles: []types.Role{}}
	if p.Role != "" {
		if r := s.roles.Get(tx, p.Account+"/"+p.Role); r != nil {
			out.Roles = append(out.Roles, s.nameRole(tx, r))
		}
	}
	return out
}

func (s *Service) editProfile(tx *store.Tx, account, name string) (*instanceProfile, error) {
	p := s.profiles.Edit(tx, key(account, name))
	if p == nil {
		return nil, noProfile(name)
	}
	return p, nil
}

func (s *Service) putProfile(tx *store.Tx, p *instanceProfile) error {
	return s.profiles.Put(tx, key(p.Account, p.Name), p)
}

func (s *Service) createInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateInstanceProfileInput) (*iam.CreateInstanceProfileOutput, error) {
	name := aws.ToString(in.InstanceProfileName)
	if s.profiles.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("Instance Profile %s already exists.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.profiles, c.Account, maxProfiles) {
		return nil, limitExceeded("Cannot exceed quota for InstanceProfilesPerAccount: %d", maxProfiles)
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	p := &instanceProfile{Account: c.Account, Name: name, Path: path, ID: ids.IAM("AIPA", 17), Created: s.now(c), Tags: tags}
	if err := s.putProfile(tx, p); err != nil {
		return nil, err
	}
	show := s.showProfile(tx, p)
	show.Tags = showTags(tags)
	return &iam.CreateInstanceProfileOutput{InstanceProfile: &show}, nil
}

func (s *Service) getInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
	p := s.profiles.Get(tx, key(c.Account, aws.ToString(in.InstanceProfileName)))
	if p == nil {
		return nil, noProfile(aws.ToString(in.InstanceProfileName))
	}
	show := s.showProfile(tx, p)
	show.Tags = allTags(p.Tags)
	return &iam.GetInstanceProfileOutput{InstanceProfile: &show}, nil
}

func (s *Service) deleteInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteInstanceProfileInput) (*iam.DeleteInstanceProfileOutput, error) {
	p := s.profiles.Get(tx, key(c.Account, aws.ToString(in.InstanceProfileName)))
	if p == nil {
		return nil, noProfile(aws.ToString(in.InstanceProfileName))
	}
	if p.Role != "" {
		return nil, deleteConflict("Cannot delete entity, must remove roles from instance profile first.")
	}
	return &iam.DeleteInstanceProfileOutput{}, s.profiles.Delete(tx, key(p.Account, p.Name))
}

func (s *Service) listInstanceProfiles(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListInstanceProfilesInput) (*iam.ListInstanceProfilesOutput, error) {
	p, err := newPage("ListInstanceProfiles", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := scanPage(tx, s.profiles, c.Account+"/", p, func(i *instanceProfile) bool { return underPath(i.Path, in.PathPrefix) }, func(i *instanceProfile) types.InstanceProfile { return s.showProfile(tx, i) })
	return &iam.ListInstanceProfilesOutput{InstanceProfiles: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) listInstanceProfilesForRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
	r := s.roles.Get(tx, key(c.Account, aws.ToString(in.RoleName)))
	if r == nil {
		return nil, noRole(aws.ToString(in.RoleName))
	}
	p, err := newPage("ListInstanceProfilesForRole", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := []types.InstanceProfile{}
	for _, n := range slicePage(slices.Sorted(slices.Values(r.Profiles)), p, func(n string) string { return n }) {
		if i := s.profiles.Get(tx, c.Account+"/"+n); i != nil {
			list = append(list, s.showProfile(tx, i))
		}
	}
	return &iam.ListInstanceProfilesForRoleOutput{InstanceProfiles: list, IsTruncated: p.more, Marker: p.marker}, nil
}

// onAddRole: besides the profile, the caller needs iam:PassRole on the role.
// Source: IAM User Guide, "Grant a user permissions to pass a role to an AWS service".
func (s *Service) onAddRole(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AddRoleToInstanceProfileInput) ([]api.Target, error) {
	name, roleName := aws.ToString(in.InstanceProfileName), aws.ToString(in.RoleName)
	keys := map[string][]string{}
	arn := iamARN(c.Account, "instance-profile", "/", name)
	if p := s.profiles.Get(tx, key(c.Account, name)); p != nil {
		arn = p.arn()
		resourceTagKeys(keys, p.Tags)
	}
	roleKeys := map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}
	roleARN := iamARN(c.Account, "role", "/", roleName)
	if r := s.roles.Get(tx, key(c.Account, roleName)); r != nil {
		roleARN = r.arn()
		resourceTagKeys(roleKeys, r.Tags)
	}
	return []api.Target{{ARN: arn, Keys: keys}, {Action: "iam:PassRole", ARN: roleARN, Keys: roleKeys}}, nil
}

func (s *Service) addRoleToInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AddRoleToInstanceProfileInput) (*iam.AddRoleToInstanceProfileOutput, error) {
	p, err := s.editProfile(tx, c.Account, aws.ToString(in.InstanceProfileName))
	if err != nil {
		return nil, err
	}
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if p.Role != "" {
		return nil, limitExceeded("Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
	}
	p.Role = strings.ToLower(r.Name)
	r.Profiles = append(r.Profiles, strings.ToLower(p.Name))
	if err := s.putRole(tx, r); err != nil {
		return nil, err
	}
	return &iam.AddRoleToInstanceProfileOutput{}, s.putProfile(tx, p)
}

func (s *Service) removeRoleFromInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.RemoveRoleFromInstanceProfileInput) (*iam.RemoveRoleFromInstanceProfileOutput, error) {
	p, err := s.editProfile(tx, c.Account, aws.ToString(in.InstanceProfileName))
	if err != nil {
		return nil, err
	}
	r, err := s.changeRole(tx, c.Account, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	if p.Role != strings.ToLower(r.Name) {
		return nil, noSuchEntity("Role %s in Instance Profile %s cannot be found.", r.Name, p.Name)
	}
	p.Role = ""
	r.Profiles = without(r.Profiles, strings.ToLower(p.Name))
	if err := s.putRole(tx, r); err != nil {
		return nil, err
	}
	return &iam.RemoveRoleFromInstanceProfileOutput{}, s.putProfile(tx, p)
}

func (s *Service) tagInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagInstanceProfileInput) (*iam.TagInstanceProfileOutput, error) {
	p, err := s.editProfile(tx, c.Account, aws.ToString(in.InstanceProfileName))
	if err != nil {
		return nil, err
	}
	if p.Tags, err = mergeTags(p.Tags, in.Tags, exactCase); err != nil {
		return nil, err
	}
	return &iam.TagInstanceProfileOutput{}, s.putProfile(tx, p)
}

func (s *Service) untagInstanceProfile(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagInstanceProfileInput) (*iam.UntagInstanceProfileOutput, error) {
	p, err := s.editProfile(tx, c.Account, aws.ToString(in.InstanceProfileName))
	if err != nil {
		return nil, err
	}
	p.Tags = dropTags(p.Tags, in.TagKeys, exactCase)
	return &iam.UntagInstanceProfileOutput{}, s.putProfile(tx, p)
}

func (s *Service) listInstanceProfileTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListInstanceProfileTagsInput) (*iam.ListInstanceProfileTagsOutput, error) {
	i := s.profiles.Get(tx, key(c.Account, aws.ToString(in.InstanceProfileName)))
	if i == nil {
		return nil, noProfile(aws.ToString(in.InstanceProfileName))
	}
	tags, p, err := tagPage("ListInstanceProfileTags", in.Marker, in.MaxItems, i.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListInstanceProfileTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}
