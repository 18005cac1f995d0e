package workspaces

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A connection alias is a domain name that users type in the place of a registration
// code; it leads to the directory it is associated with. The same name may have an
// alias in several regions, all of one account. Source: WorkSpaces Administration
// Guide, "Cross-Region redirection". What AWS does by DNS (which region a user is
// led to) is here: the first region, in order of name, whose alias is associated.

// maxAliases a region has of an account. Source: WorkSpaces quotas, "Connection aliases".
const maxAliases = 20

// connectionAlias is stored under account/region/wsca-….
type connectionAlias struct {
	Account, Region, ID string
	ConnectionString    string
	Shared              string            `json:",omitempty"` // the account that may associate it
	Association         *aliasAssociation `json:",omitempty"`
	Tags                map[string]string
}

type aliasAssociation struct{ Account, DirectoryID, Identifier string }

func (a *connectionAlias) key() string { return key(a.Account, a.Region, a.ID) }

func (s *Service) aliasOperations() []api.Operation {
	onAlias := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, tx *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "connectionalias", []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewUpdate(name, "CreateConnectionAlias", s.createAlias),
		api.NewView(name, "DescribeConnectionAliases", s.describeAliases),
		api.NewUpdate(name, "DeleteConnectionAlias", s.deleteAlias, onAlias(func(in any) *string { return in.(*workspaces.DeleteConnectionAliasInput).AliasId })),
		api.NewUpdate(name, "AssociateConnectionAlias", s.associateAlias, onAlias(func(in any) *string { return in.(*workspaces.AssociateConnectionAliasInput).AliasId })),
		api.NewUpdate(name, "DisassociateConnectionAlias", s.disassociateAlias, onAlias(func(in any) *string { return in.(*workspaces.DisassociateConnectionAliasInput).AliasId })),
		api.NewView(name, "DescribeConnectionAliasPermissions", s.describeAliasPermissions, onAlias(func(in any) *string { return in.(*workspaces.DescribeConnectionAliasPermissionsInput).AliasId })),
		api.NewUpdate(name, "UpdateConnectionAliasPermission", s.updateAliasPermission, onAlias(func(in any) *string { return in.(*workspaces.UpdateConnectionAliasPermissionInput).AliasId })),
	}
}

func (s *Service) createAlias(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateConnectionAliasInput) (*workspaces.CreateConnectionAliasOutput, error) {
	text := deref(in.ConnectionString)
	if !strings.Contains(text, ".") || strings.Trim(text, ".-") != text || strings.Contains(text, "..") {
		return nil, invalidValues("ConnectionString " + text + " is not a fully qualified domain name, such as www.example.com.")
	}
	taken, n := false, 0
	s.aliases.Scan(tx, "", "", func(_ string, a *connectionAlias) bool {
		mine := a.Account == c.Account
		taken = taken || strings.EqualFold(a.ConnectionString, text) && (!mine || a.Region == c.Region)
		if mine && a.Region == c.Region {
			n++
		}
		return true
	})
	switch {
	case taken:
		m := "The connection string " + text + " is in use already."
		return nil, &wstypes.ResourceAlreadyExistsException{Message: &m}
	case n >= maxAliases:
		m := "A region has at most 20 connection aliases."
		return nil, &wstypes.ResourceLimitExceededException{Message: &m}
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	a := &connectionAlias{Account: c.Account, Region: c.Region, ID: ids.WorkSpace("wsca"), ConnectionString: text, Tags: tags}
	return &workspaces.CreateConnectionAliasOutput{AliasId: &a.ID}, s.aliases.Put(tx, a.key(), a)
}

// alias finds an alias that the caller owns or, when shared, may associate.
func (s *Service) alias(tx *store.Tx, c *api.Call, id *string, shared bool) (*connectionAlias, error) {
	if a := s.aliases.Edit(tx, key(c.Account, c.Region, deref(id))); a != nil {
		return a, nil
	}
	found := ""
	if shared {
		s.aliases.Scan(tx, "", "", func(k string, a *connectionAlias) bool {
			if a.ID == deref(id) && a.Region == c.Region && a.Shared == c.Account {
				found = k
			}
			return found == ""
		})
	}
	if found == "" {
		return nil, notFound("connection alias", deref(id))
	}
	return s.aliases.Edit(tx, found), nil
}

func (s *Service) describeAliases(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeConnectionAliasesInput) (*workspaces.DescribeConnectionAliasesOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := int(aws.ToInt32(in.Limit))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeConnectionAliasesOutput{ConnectionAliases: []wstypes.ConnectionAlias{}}
	last := ""
	s.aliases.Scan(tx, "", after, func(k string, a *connectionAlias) bool {
		switch {
		case a.Region != c.Region || a.Account != c.Account && a.Shared != c.Account,
			len(in.AliasIds) > 0 && !slices.Contains(in.AliasIds, a.ID),
			in.ResourceId != nil && (a.Association == nil || a.Association.DirectoryID != *in.ResourceId):
			return true
		}
		if len(out.ConnectionAliases) == limit {
			out.NextToken = token(last)
			return false
		}
		out.ConnectionAliases = append(out.ConnectionAliases, a.show())
		last = k
		return true
	})
	return out, nil
}

func (a *connectionAlias) show() wstypes.ConnectionAlias {
	o := wstypes.ConnectionAlias{AliasId: &a.ID, ConnectionString: &a.ConnectionString, OwnerAccountId: &a.Account, State: wstypes.ConnectionAliasStateCreated,
		Associations: []wstypes.ConnectionAliasAssociation{{AssociationStatus: wstypes.AssociationStatusNotAssociated}}}
	if x := a.Association; x != nil {
		st := wstypes.AssociationStatusAssociatedWithOwnerAccount
		if x.Account != a.Account {
			st = wstypes.AssociationStatusAssociatedWithSharedAccount
		}
		o.Associations[0] = wstypes.ConnectionAliasAssociation{AssociationStatus: st, AssociatedAccountId: &x.Account, ResourceId: &x.DirectoryID, ConnectionIdentifier: &x.Identifier}
	}
	return o
}

func (s *Service) deleteAlias(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeleteConnectionAliasInput) (*workspaces.DeleteConnectionAliasOutput, error) {
	a, err := s.alias(tx, c, in.AliasId, false)
	switch {
	case err != nil:
		return nil, err
	case a.Association != nil:
		m := "The connection alias " + a.ID + " is associated with the directory " + a.Association.DirectoryID + ". Disassociate it first."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	case a.Shared != "":
		m := "The connection alias " + a.ID + " is shared with account " + a.Shared + ". Unshare it first."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	return &workspaces.DeleteConnectionAliasOutput{}, s.aliases.Delete(tx, a.key())
}

// associateAlias has an alias lead to a registered directory of the caller's. A
// directory has one alias at most.
func (s *Service) associateAlias(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.AssociateConnectionAliasInput) (*workspaces.AssociateConnectionAliasOutput, error) {
	a, err := s.alias(tx, c, in.AliasId, true)
	if err != nil {
		return nil, err
	}
	id := deref(in.ResourceId)
	if s.directories.Get(tx, key(c.Account, c.Region, id)) == nil {
		return nil, notFound("directory", id)
	}
	if a.Association != nil {
		m := "The connection alias " + a.ID + " is associated with the directory " + a.Association.DirectoryID + " already."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	if other := s.aliasOf(tx, c, id); other != "" {
		m := "The directory " + id + " is associated with the connection alias " + other + " already."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	a.Association = &aliasAssociation{Account: c.Account, DirectoryID: id, Identifier: ids.Hex("", 20)}
	return &workspaces.AssociateConnectionAliasOutput{ConnectionIdentifier: &a.Association.Identifier}, s.aliases.Put(tx, a.key(), a)
}

func (s *Service) disassociateAlias(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DisassociateConnectionAliasInput) (*workspaces.DisassociateConnectionAliasOutput, error) {
	a, err := s.alias(tx, c, in.AliasId, true)
	switch {
	case err != nil:
		return nil, err
	case a.Association == nil:
		m := "The connection alias " + a.ID + " is not associated with a directory."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	case a.Association.Account != c.Account:
		m := "The connection alias " + a.ID + " is associated with a directory of account " + a.Association.Account + ", which alone can disassociate it."
		return nil, &wstypes.OperationNotSupportedException{Message: &m}
	}
	a.Association = nil
	return &workspaces.DisassociateConnectionAliasOutput{}, s.aliases.Put(tx, a.key(), a)
}

func (s *Service) describeAliasPermissions(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeConnectionAliasPermissionsInput) (*workspaces.DescribeConnectionAliasPermissionsOutput, error) {
	a, err := s.alias(tx, c, in.AliasId, false)
	if err != nil {
		return nil, err
	}
	if _, err := untoken(in.NextToken); err != nil {
		return nil, err
	}
	_ = in.MaxResults // there is at most one
	out := &workspaces.DescribeConnectionAliasPermissionsOutput{AliasId: &a.ID, ConnectionAliasPermissions: []wstypes.ConnectionAliasPermission{}}
	if a.Shared != "" {
		out.ConnectionAliasPermissions = append(out.ConnectionAliasPermissions, wstypes.ConnectionAliasPermission{SharedAccountId: &a.Shared, AllowAssociation: aws.Bool(true)})
	}
	return out, nil
}

// updateAliasPermission shares an alias with one account, or no longer.
func (s *Service) updateAliasPermission(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.UpdateConnectionAliasPermissionInput) (*workspaces.UpdateConnectionAliasPermissionOutput, error) {
	a, err := s.alias(tx, c, in.AliasId, false)
	if err != nil {
		return nil, err
	}
	p := in.ConnectionAliasPermission
	with := deref(p.SharedAccountId)
	switch {
	case with == a.Account:
		return nil, invalidValues("SharedAccountId " + with + " is the account that owns the connection alias.")
	case aws.ToBool(p.AllowAssociation) && a.Shared != "" && a.Shared != with:
		m := "A connection alias is shared with one account at most; " + a.ID + " is with " + a.Shared + "."
		return nil, &wstypes.ResourceLimitExceededException{Message: &m}
	case aws.ToBool(p.AllowAssociation):
		a.Shared = with
	case a.Shared != with:
		return nil, invalidValues("The connection alias " + a.ID + " is not shared with account " + with + ".")
	case a.Association != nil && a.Association.Account == with:
		m := "The connection alias " + a.ID + " is associated with a directory of account " + with + "."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	default:
		a.Shared = ""
	}
	return &workspaces.UpdateConnectionAliasPermissionOutput{}, s.aliases.Put(tx, a.key(), a)
}

// aliasOf is the alias that a directory of the caller's is associated with, "" for none.
func (s *Service) aliasOf(tx *store.Tx, c *api.Call, directoryID string) string {
	found := ""
	s.aliases.Scan(tx, "", "", func(_ string, a *connectionAlias) bool {
		if x := a.Association; x != nil && x.Account == c.Account && a.Region == c.Region && x.DirectoryID == directoryID {
			found = a.ID
		}
		return found == ""
	})
	return found
}

// byAlias finds the directory that a connection string leads to.
func (s *Service) byAlias(tx *store.Tx, text string) (account, region, directoryID string, ok bool) {
	s.aliases.Scan(tx, "", "", func(_ string, a *connectionAlias) bool {
		if x := a.Association; x != nil && strings.EqualFold(a.ConnectionString, text) && (!ok || a.Region < region) {
			account, region, directoryID, ok = x.Account, a.Region, x.DirectoryID, true
		}
		return true
	})
	return account, region, directoryID, ok
}
