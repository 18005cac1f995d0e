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

func (s *Service) userOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateUser", s.createUser, onNew("user", func(in *iam.CreateUserInput) (*string, *string) { return in.Path, in.UserName },
			withTags(func(in *iam.CreateUserInput) []types.Tag { return in.Tags }), withBoundary(func(in *iam.CreateUserInput) *string { return in.PermissionsBoundary }))),
		api.NewView("iam", "GetUser", s.getUser, onUser(s, func(in *iam.GetUserInput) *string { return in.UserName })),
		api.NewUpdate("iam", "UpdateUser", s.updateUser, api.On(s.onUpdateUser)),
		api.NewUpdate("iam", "DeleteUser", s.deleteUser, onUser(s, func(in *iam.DeleteUserInput) *string { return in.UserName })),
		api.NewView("iam", "ListUsers", s.listUsers, onList("user", func(in *iam.ListUsersInput) *string { return in.PathPrefix })),
		api.NewUpdate("iam", "TagUser", s.tagUser, onUser(s, func(in *iam.TagUserInput) *string { return in.UserName }, withTags(func(in *iam.TagUserInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagUser", s.untagUser, onUser(s, func(in *iam.UntagUserInput) *string { return in.UserName }, withTagKeys(func(in *iam.UntagUserInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListUserTags", s.listUserTags, onUser(s, func(in *iam.ListUserTagsInput) *string { return in.UserName })),
	}
}

func showUser(u *user) types.User {
	out := types.User{UserName: aws.String(u.Name), Path: aws.String(u.Path), UserId: aws.String(u.ID), Arn: aws.String(u.arn()), CreateDate: aws.Time(u.Created)}
	if !u.SignedIn.IsZero() {
		out.PasswordLastUsed = aws.Time(u.SignedIn)
	}
	return out
}

func showBoundary(arn string) *types.AttachedPermissionsBoundary {
	if arn == "" {
		return nil
	}
	return &types.AttachedPermissionsBoundary{PermissionsBoundaryArn: aws.String(arn), PermissionsBoundaryType: types.PermissionsBoundaryAttachmentTypePolicy}
}

// showUserFully is a user as CreateUser and GetUser show it: with tags and boundary.
func showUserFully(u *user) *types.User {
	out := showUser(u)
	out.Tags, out.PermissionsBoundary = showTags(u.Tags), showBoundary(u.Boundary)
	return &out
}

// self is the name of the user an operation is about: the one named, else the
// caller's. root tells that it is the root user.
func self(c *api.Call, name *string) (n string, root bool, err error) {
	if name != nil {
		return *name, false, nil
	}
	switch c.Principal.Type {
	case api.Root:
		return "", true, nil
	case api.IAMUser:
		return c.Principal.UserName, false, nil
	}
	return "", false, errNotUser
}

// lookUser is the user an operation is about, by name or as the caller; nil when
// that is the root user.
func (s *Service) lookUser(tx *store.Tx, c *api.Call, name *string) (*user, error) {
	n, root, err := self(c, name)
	if err != nil || root {
		return nil, err
	}
	u := s.users.Get(tx, key(c.Account, n))
	if u == nil {
		return nil, noUser(n)
	}
	return u, nil
}

// editUser is a private copy of a user to change and put.
func (s *Service) editUser(tx *store.Tx, account, name string) (*user, error) {
	u := s.users.Edit(tx, key(account, name))
	if u == nil {
		return nil, noUser(name)
	}
	return u, nil
}

func (s *Service) putUser(tx *store.Tx, u *user) error {
	return s.users.Put(tx, key(u.Account, u.Name), u)
}

func (s *Service) createUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateUserInput) (*iam.CreateUserOutput, error) {
	name := aws.ToString(in.UserName)
	if s.users.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("User with name %s already exists.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.users, c.Account, maxUsers) {
		return nil, limitExceeded("Cannot exceed quota for UsersPerAccount: %d", maxUsers)
	}
	tags, err := newTags(in.Tags, foldCase)
	if err != nil {
		return nil, err
	}
	u := &user{Account: c.Account, Name: name, Path: path, ID: ids.IAM("AIDA", 17), Created: s.now(c), Tags: tags}
	if in.PermissionsBoundary != nil {
		if err := s.setBoundary(tx, c.Account, &u.grants, *in.PermissionsBoundary); err != nil {
			return nil, err
		}
	}
	if err := s.putUser(tx, u); err != nil {
		return nil, err
	}
	return &iam.CreateUserOutput{User: showUserFully(u)}, nil
}

func (s *Service) getUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetUserInput) (*iam.GetUserOutput, error) {
	name, root, err := self(c, in.UserName)
	if err != nil {
		return nil, err
	}
	if root {
		a := s.accounts.Get(tx, c.Account)
		if a == nil {
			return nil, noUser("root")
		}
		out := &types.User{UserId: aws.String(c.Account), Arn: aws.String("arn:aws:iam::" + c.Account + ":root"), CreateDate: aws.Time(a.Created)}
		if a.Alias != "" {
			out.UserName = aws.String(a.Alias)
		}
		return &iam.GetUserOutput{User: out}, nil
	}
	u := s.users.Get(tx, key(c.Account, name))
	if u == nil {
		return nil, noUser(name)
	}
	return &iam.GetUserOutput{User: showUserFully(u)}, nil
}

func (s *Service) listUsers(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListUsersInput) (*iam.ListUsersOutput, error) {
	p, err := newPage("ListUsers", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	users := scanPage(tx, s.users, c.Account+"/", p, func(u *user) bool { return underPath(u.Path, in.PathPrefix) }, showUser)
	return &iam.ListUsersOutput{Users: users, IsTruncated: p.more, Marker: p.marker}, nil
}

// onUpdateUser: renaming a user needs permission on the old name and the new.
func (s *Service) onUpdateUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateUserInput) ([]api.Target, error) {
	name := aws.ToString(in.UserName)
	u := s.users.Get(tx, key(c.Account, name))
	if u == nil {
		return []api.Target{{ARN: iamARN(c.Account, "user", "/", name)}}, nil
	}
	next := *u
	rename(&next.Name, &next.Path, in.NewUserName, in.NewPath)
	out := []api.Target{{ARN: u.arn()}}
	if next.arn() != u.arn() {
		out = append(out, api.Target{ARN: next.arn()})
	}
	return out, nil
}

func rename(name, path *string, newName, newPath *string) {
	if newName != nil {
		*name = *newName
	}
	if newPath != nil {
		*path = pathOf(newPath)
	}
}

func (s *Service) updateUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateUserInput) (*iam.UpdateUserOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	if in.NewPath != nil {
		if _, err := checkPath(in.NewPath); err != nil {
			return nil, err
		}
	}
	oldKey := key(u.Account, u.Name)
	rename(&u.Name, &u.Path, in.NewUserName, in.NewPath)
	if newKey := key(u.Account, u.Name); newKey != oldKey {
		if s.users.Get(tx, newKey) != nil {
			return nil, entityExists("User with name %s already exists.", u.Name)
		}
		if err := s.users.Delete(tx, oldKey); err != nil {
			return nil, err
		}
		if err := s.followUser(tx, u); err != nil {
			return nil, err
		}
	}
	return &iam.UpdateUserOutput{}, s.putUser(tx, u)
}

// followUser has a renamed user's access keys and MFA devices name it anew.
func (s *Service) followUser(tx *store.Tx, u *user) error {
	for _, id := range u.AccessKeys {
		if k := s.keys.Edit(tx, u.Account+"/"+id); k != nil {
			k.User = strings.ToLower(u.Name)
			if err := s.keys.Put(tx, u.Account+"/"+id, k); err != nil {
				return err
			}
		}
	}
	for _, serial := range u.MFA {
		if d, dk := s.device(tx, u.Account, serial); d != nil {
			d := s.mfa.Edit(tx, dk)
			d.User = strings.ToLower(u.Name)
			if err := s.mfa.Put(tx, dk, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) deleteUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteUserInput) (*iam.DeleteUserOutput, error) {
	name := aws.ToString(in.UserName)
	u := s.users.Get(tx, key(c.Account, name))
	if u == nil {
		return nil, noUser(name)
	}
	switch {
	case len(u.Groups) > 0:
		return nil, deleteConflict("Cannot delete entity, must remove users from group first.")
	case len(u.Attached) > 0:
		return nil, deleteConflict("Cannot delete entity, must detach all policies first.")
	case len(u.Inline) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete policies first.")
	case len(u.AccessKeys) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete access keys first.")
	case u.Login != nil:
		return nil, deleteConflict("Cannot delete entity, must delete login profile first.")
	case len(u.MFA) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete MFA device first.")
	case len(u.Certificates) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete signing certificates first.")
	case len(u.SSHKeys) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete SSH public keys first.")
	case len(u.ServiceCredentials) > 0:
		return nil, deleteConflict("Cannot delete entity, must delete service specific credentials first.")
	}
	g := u.grants
	if err := s.dropBoundary(tx, u.Account, &g); err != nil {
		return nil, err
	}
	if err := s.forgetUses(tx, u.Account, u.ID); err != nil {
		return nil, err
	}
	return &iam.DeleteUserOutput{}, s.users.Delete(tx, key(u.Account, u.Name))
}

func (s *Service) tagUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagUserInput) (*iam.TagUserOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	if u.Tags, err = mergeTags(u.Tags, in.Tags, foldCase); err != nil {
		return nil, err
	}
	return &iam.TagUserOutput{}, s.putUser(tx, u)
}

func (s *Service) untagUser(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagUserInput) (*iam.UntagUserOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	u.Tags = dropTags(u.Tags, in.TagKeys, foldCase)
	return &iam.UntagUserOutput{}, s.putUser(tx, u)
}

func (s *Service) listUserTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListUserTagsInput) (*iam.ListUserTagsOutput, error) {
	u := s.users.Get(tx, key(c.Account, aws.ToString(in.UserName)))
	if u == nil {
		return nil, noUser(aws.ToString(in.UserName))
	}
	tags, p, err := tagPage("ListUserTags", in.Marker, in.MaxItems, u.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListUserTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}

// checkPath returns the path of a new entity, "/" when none is given.
// Source: IAM User Guide, "Friendly names and paths".
func checkPath(p *string) (string, error) {
	path := pathOf(p)
	if path == "/" {
		return path, nil
	}
	ok := len(path) <= 512 && path[0] == '/' && path[len(path)-1] == '/'
	for i := range len(path) {
		ok = ok && path[i] > 0x20 && path[i] < 0x7f
	}
	if !ok {
		return "", validation("The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	return path, nil
}

// countTo says whether the account has max records or more.
func countTo[R any](tx *store.Tx, tab *store.Table[R], account string, max int) bool {
	if tab.Len(tx) < max {
		return false // cheap, and reads nothing that another transaction could change
	}
	n := 0
	tab.Scan(tx, account+"/", "", func(string, *R) bool { n++; return n < max })
	return n >= max
}

// Access keys.

func (s *Service) keyOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "CreateAccessKey", s.createAccessKey, onUser(s, func(in *iam.CreateAccessKeyInput) *string { return in.UserName }), api.Sensitive("SecretAccessKey")),
		api.NewUpdate("iam", "UpdateAccessKey", s.updateAccessKey, onUser(s, func(in *iam.UpdateAccessKeyInput) *string { return in.UserName })),
		api.NewUpdate("iam", "DeleteAccessKey", s.deleteAccessKey, onUser(s, func(in *iam.DeleteAccessKeyInput) *string { return in.UserName })),
		api.NewView("iam", "ListAccessKeys", s.listAccessKeys, onUser(s, func(in *iam.ListAccessKeysInput) *string { return in.UserName })),
		api.NewView("iam", "GetAccessKeyLastUsed", s.getAccessKeyLastUsed, api.On(s.onGetAccessKeyLastUsed)),
	}
}

// holder is who has access keys: a user or the root user.
type holder struct {
	name string // "" for root
	id   string
	keys *[]string
	put  func(tx *store.Tx) error
}

func (s *Service) holder(tx *store.Tx, c *api.Call, name *string) (*holder, error) {
	n, root, err := self(c, name)
	if err != nil {
		return nil, err
	}
	if root {
		a := s.accounts.Edit(tx, c.Account)
		if a == nil {
			return nil, noUser("root")
		}
		return &holder{id: a.ID, keys: &a.AccessKeys, put: func(tx *store.Tx) error { return s.accounts.Put(tx, a.ID, a) }}, nil
	}
	u, err := s.editUser(tx, c.Account, n)
	if err != nil {
		return nil, err
	}
	return &holder{name: u.Name, id: u.ID, keys: &u.AccessKeys, put: func(tx *store.Tx) error { return s.putUser(tx, u) }}, nil
}

func (s *Service) createAccessKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.CreateAccessKeyInput) (*iam.CreateAccessKeyOutput, error) {
	h, err := s.holder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	if len(*h.keys) >= maxAccessKeys {
		return nil, limitExceeded("Cannot exceed quota for AccessKeysPerUser: %d", maxAccessKeys)
	}
	k := &accessKey{Account: c.Account, ID: ids.AccessKey("AKIA", c.Account), User: strings.ToLower(h.name), UserID: h.id, Active: true, Created: s.now(c)}
	secretAccessKey := ids.SecretAccessKey()
	if err := s.putKey(tx, k, secretAccessKey); err != nil {
		return nil, err
	}
	*h.keys = append(*h.keys, k.ID)
	if err := h.put(tx); err != nil {
		return nil, err
	}
	out := &types.AccessKey{AccessKeyId: aws.String(k.ID), SecretAccessKey: aws.String(secretAccessKey), Status: types.StatusTypeActive, CreateDate: aws.Time(k.Created), UserName: aws.String(h.name)}
	return &iam.CreateAccessKeyOutput{AccessKey: out}, nil
}

func (s *Service) updateAccessKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateAccessKeyInput) (*iam.UpdateAccessKeyOutput, error) {
	h, err := s.holder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(in.AccessKeyId)
	if !slices.Contains(*h.keys, id) {
		return nil, noAccessKey(id)
	}
	switch in.Status {
	case types.StatusTypeActive, types.StatusTypeInactive:
	default:
		return nil, validation("The status of an access key is Active or Inactive, not %s.", in.Status)
	}
	k := s.keys.Edit(tx, c.Account+"/"+id)
	if k == nil {
		return nil, noAccessKey(id)
	}
	k.Active = in.Status == types.StatusTypeActive
	return &iam.UpdateAccessKeyOutput{}, s.keys.Put(tx, c.Account+"/"+id, k)
}

func (s *Service) deleteAccessKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteAccessKeyInput) (*iam.DeleteAccessKeyOutput, error) {
	h, err := s.holder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(in.AccessKeyId)
	if !slices.Contains(*h.keys, id) {
		return nil, noAccessKey(id)
	}
	*h.keys = without(*h.keys, id)
	if err := h.put(tx); err != nil {
		return nil, err
	}
	if err := s.used.Delete(tx, c.Account+"/"+id); err != nil {
		return nil, err
	}
	return &iam.DeleteAccessKeyOutput{}, s.keys.Delete(tx, c.Account+"/"+id)
}

func (s *Service) listAccessKeys(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListAccessKeysInput) (*iam.ListAccessKeysOutput, error) {
	h, err := s.holder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListAccessKeys", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(*h.keys))
	out := []types.AccessKeyMetadata{}
	for _, id := range slicePage(sorted, p, func(id string) string { return id }) {
		k := s.keys.Get(tx, c.Account+"/"+id)
		if k == nil {
			continue
		}
		out = append(out, types.AccessKeyMetadata{AccessKeyId: aws.String(id), Status: status(k), CreateDate: aws.Time(k.Created), UserName: aws.String(h.name)})
	}
	return &iam.ListAccessKeysOutput{AccessKeyMetadata: out, IsTruncated: p.more, Marker: p.marker}, nil
}

func status(k *accessKey) types.StatusType {
	if k.Active {
		return types.StatusTypeActive
	}
	return types.StatusTypeInactive
}

// keyOf finds an access key of the caller's account and the user it belongs to (nil: root).
func (s *Service) keyOf(tx *store.Tx, c *api.Call, id string) (*accessKey, *user) {
	k := s.keys.Get(tx, c.Account+"/"+id)
	if k == nil || k.User == "" {
		return k, nil
	}
	return k, s.users.Get(tx, c.Account+"/"+k.User)
}

func (s *Service) onGetAccessKeyLastUsed(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetAccessKeyLastUsedInput) ([]api.Target, error) {
	if _, u := s.keyOf(tx, c, aws.ToString(in.AccessKeyId)); u != nil {
		keys := map[string][]string{}
		resourceTagKeys(keys, u.Tags)
		return []api.Target{{ARN: u.arn(), Keys: keys}}, nil
	}
	return []api.Target{{ARN: "*"}}, nil
}

func (s *Service) getAccessKeyLastUsed(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetAccessKeyLastUsedInput) (*iam.GetAccessKeyLastUsedOutput, error) {
	id := aws.ToString(in.AccessKeyId)
	k, u := s.keyOf(tx, c, id)
	if k == nil { // AWS does not tell whose it is or that it is nobody's
		return nil, accessDenied("User: %s is not authorized to perform iam:GetAccessKeyLastUsed on resource: access key %s", c.Principal.ARN, id)
	}
	out := &iam.GetAccessKeyLastUsedOutput{AccessKeyLastUsed: &types.AccessKeyLastUsed{ServiceName: aws.String("N/A"), Region: aws.String("N/A")}}
	if u != nil {
		out.UserName = aws.String(u.Name)
	}
	if l, ok := s.lastUse(tx, use{c.Account, id, ""}); ok {
		out.AccessKeyLastUsed = &types.AccessKeyLastUsed{LastUsedDate: aws.Time(l.Time), ServiceName: aws.String(l.Service), Region: aws.String(l.Region)}
	}
	return out, nil
}
