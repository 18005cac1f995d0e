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

func (s *Service) groupOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateGroup", s.createGroup, onNew("group", func(in *iam.CreateGroupInput) (*string, *string) { return in.Path, in.GroupName })),
		api.NewView("iam", "GetGroup", s.getGroup, onGroup(s, func(in *iam.GetGroupInput) *string { return in.GroupName })),
		api.NewUpdate("iam", "UpdateGroup", s.updateGroup, api.On(s.onUpdateGroup)),
		api.NewUpdate("iam", "DeleteGroup", s.deleteGroup, onGroup(s, func(in *iam.DeleteGroupInput) *string { return in.GroupName })),
		api.NewView("iam", "ListGroups", s.listGroups, onList("group", func(in *iam.ListGroupsInput) *string { return in.PathPrefix })),
		api.NewView("iam", "ListGroupsForUser", s.listGroupsForUser, onUser(s, func(in *iam.ListGroupsForUserInput) *string { return in.UserName })),
		api.NewUpdate("iam", "AddUserToGroup", s.addUserToGroup, onGroup(s, func(in *iam.AddUserToGroupInput) *string { return in.GroupName })),
		api.NewUpdate("iam", "RemoveUserFromGroup", s.removeUserFromGroup, onGroup(s, func(in *iam.RemoveUserFromGroupInput) *string { return in.GroupName })),
	}
}

func showGroup(g *group) types.Group {
	return types.Group{GroupName: aws.String(g.Name), Path: aws.String(g.Path), GroupId: aws.String(g.ID), Arn: aws.String(g.arn()), CreateDate: aws.Time(g.Created)}
}

func (s *Service) editGroup(tx *store.Tx, account, name string) (*group, error) {
	g := s.groups.Edit(tx, key(account, name))
	if g == nil {
		return nil, noGroup(name)
	}
	return g, nil
}

func (s *Service) putGroup(tx *store.Tx, g *group) error {
	return s.groups.Put(tx, key(g.Account, g.Name), g)
}

func (s *Service) createGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateGroupInput) (*iam.CreateGroupOutput, error) {
	name := aws.ToString(in.GroupName)
	if s.groups.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("Group with name %s already exists.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.groups, c.Account, maxGroups) {
		return nil, limitExceeded("Cannot exceed quota for GroupsPerAccount: %d", maxGroups)
	}
	g := &group{Account: c.Account, Name: name, Path: path, ID: ids.IAM("AGPA", 17), Created: s.now(c)}
	if err := s.putGroup(tx, g); err != nil {
		return nil, err
	}
	show := showGroup(g)
	return &iam.CreateGroupOutput{Group: &show}, nil
}

func (s *Service) getGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetGroupInput) (*iam.GetGroupOutput, error) {
	g := s.groups.Get(tx, key(c.Account, aws.ToString(in.GroupName)))
	if g == nil {
		return nil, noGroup(aws.ToString(in.GroupName))
	}
	p, err := newPage("GetGroup", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	users := []types.User{}
	for _, k := range slicePage(s.usersByGroup.Keys(key(g.Account, g.Name), p.after, p.left+1), p, func(k string) string { return k }) {
		if u := s.users.Get(tx, k); u != nil {
			users = append(users, showUser(u))
		}
	}
	show := showGroup(g)
	return &iam.GetGroupOutput{Group: &show, Users: users, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) onUpdateGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateGroupInput) ([]api.Target, error) {
	name := aws.ToString(in.GroupName)
	g := s.groups.Get(tx, key(c.Account, name))
	if g == nil {
		return []api.Target{{ARN: iamARN(c.Account, "group", "/", name)}}, nil
	}
	next := *g
	rename(&next.Name, &next.Path, in.NewGroupName, in.NewPath)
	out := []api.Target{{ARN: g.arn()}}
	if next.arn() != g.arn() {
		out = append(out, api.Target{ARN: next.arn()})
	}
	return out, nil
}

func (s *Service) updateGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateGroupInput) (*iam.UpdateGroupOutput, error) {
	g, err := s.editGroup(tx, c.Account, aws.ToString(in.GroupName))
	if err != nil {
		return nil, err
	}
	if in.NewPath != nil {
		if _, err := checkPath(in.NewPath); err != nil {
			return nil, err
		}
	}
	oldKey, oldName := key(g.Account, g.Name), strings.ToLower(g.Name)
	rename(&g.Name, &g.Path, in.NewGroupName, in.NewPath)
	if newKey := key(g.Account, g.Name); newKey != oldKey {
		if s.groups.Get(tx, newKey) != nil {
			return nil, entityExists("Group with name %s already exists.", g.Name)
		}
		if err := s.groups.Delete(tx, oldKey); err != nil {
			return nil, err
		}
		for _, uk := range s.usersByGroup.Keys(oldKey, "", 0) {
			u := s.users.Edit(tx, uk)
			if u == nil {
				continue
			}
			if i := slices.Index(u.Groups, oldName); i >= 0 {
				u.Groups[i] = strings.ToLower(g.Name)
			}
			if err := s.putUser(tx, u); err != nil {
				return nil, err
			}
		}
	}
	return &iam.UpdateGroupOutput{}, s.putGroup(tx, g)
}

func (s *Service) deleteGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteGroupInput) (*iam.DeleteGroupOutput, error) {
	name := aws.ToString(in.GroupName)
	g := s.groups.Get(tx, key(c.Account, name))
	if g == nil {
		return nil, noGroup(name)
	}
	switch {
	case g.Members > 0:
		return nil, deleteConflict("Cannot delete entity, must remove users from group first.")
	case len(g.Attached) > 0:
		return nil, deleteConflict("Cannot delete entity, must detach all policies first.")
	case len(g.Inline) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete policies first.")
	}
	return &iam.DeleteGroupOutput{}, s.groups.Delete(tx, key(g.Account, g.Name))
}

func (s *Service) listGroups(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListGroupsInput) (*iam.ListGroupsOutput, error) {
	p, err := newPage("ListGroups", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	groups := scanPage(tx, s.groups, c.Account+"/", p, func(g *group) bool { return underPath(g.Path, in.PathPrefix) }, showGroup)
	return &iam.ListGroupsOutput{Groups: groups, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) listGroupsForUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListGroupsForUserInput) (*iam.ListGroupsForUserOutput, error) {
	u := s.users.Get(tx, key(c.Account, aws.ToString(in.UserName)))
	if u == nil {
		return nil, noUser(aws.ToString(in.UserName))
	}
	p, err := newPage("ListGroupsForUser", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	groups := []types.Group{}
	for _, n := range slicePage(slices.Sorted(slices.Values(u.Groups)), p, func(n string) string { return n }) {
		if g := s.groups.Get(tx, c.Account+"/"+n); g != nil {
			groups = append(groups, showGroup(g))
		}
	}
	return &iam.ListGroupsForUserOutput{Groups: groups, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) addUserToGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AddUserToGroupInput) (*iam.AddUserToGroupOutput, error) {
	g, err := s.editGroup(tx, c.Account, aws.ToString(in.GroupName))
	if err != nil {
		return nil, err
	}
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(g.Name)
	if slices.Contains(u.Groups, name) {
		return &iam.AddUserToGroupOutput{}, nil // as AWS: adding a member again succeeds
	}
	if len(u.Groups) >= maxGroupsOfUser {
		return nil, limitExceeded("Cannot exceed quota for GroupsPerUser: %d", maxGroupsOfUser)
	}
	u.Groups = append(u.Groups, name)
	g.Members++
	if err := s.putGroup(tx, g); err != nil {
		return nil, err
	}
	return &iam.AddUserToGroupOutput{}, s.putUser(tx, u)
}

func (s *Service) removeUserFromGroup(_ context.Context, tx *store.Tx, c *api.Call, in *iam.RemoveUserFromGroupInput) (*iam.RemoveUserFromGroupOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	g, err := s.editGroup(tx, c.Account, aws.ToString(in.GroupName))
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(g.Name)
	if !slices.Contains(u.Groups, name) {
		return &iam.RemoveUserFromGroupOutput{}, nil // as AWS
	}
	u.Groups = without(u.Groups, name)
	g.Members--
	if err := s.putGroup(tx, g); err != nil {
		return nil, err
	}
	return &iam.RemoveUserFromGroupOutput{}, s.putUser(tx, u)
}
