package workspaces

import (
	"context"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Limits of the WorkSpaces quotas page.
const (
	maxRules  = 10
	maxGroups = 25 // a directory
)

func (s *Service) ipGroupOperations() []api.Operation {
	onGroup := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "workspaceipgroup", []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewUpdate(name, "CreateIpGroup", s.createIPGroup),
		api.NewView(name, "DescribeIpGroups", s.describeIPGroups),
		api.NewUpdate(name, "DeleteIpGroup", s.deleteIPGroup, onGroup(func(in any) *string { return in.(*workspaces.DeleteIpGroupInput).GroupId })),
		api.NewUpdate(name, "AuthorizeIpRules", s.authorizeIPRules, onGroup(func(in any) *string { return in.(*workspaces.AuthorizeIpRulesInput).GroupId })),
		api.NewUpdate(name, "RevokeIpRules", s.revokeIPRules, onGroup(func(in any) *string { return in.(*workspaces.RevokeIpRulesInput).GroupId })),
		api.NewUpdate(name, "UpdateRulesOfIpGroup", s.updateIPRules, onGroup(func(in any) *string { return in.(*workspaces.UpdateRulesOfIpGroupInput).GroupId })),
		api.NewUpdate(name, "AssociateIpGroups", s.associateIPGroups, api.On(on(func(c *api.Call, in *workspaces.AssociateIpGroupsInput) []api.Target {
			return append(s.targets(c, "directory", []string{deref(in.DirectoryId)}), s.targets(c, "workspaceipgroup", in.GroupIds)...)
		}))),
		api.NewUpdate(name, "DisassociateIpGroups", s.disassociateIPGroups, api.On(on(func(c *api.Call, in *workspaces.DisassociateIpGroupsInput) []api.Target {
			return append(s.targets(c, "directory", []string{deref(in.DirectoryId)}), s.targets(c, "workspaceipgroup", in.GroupIds)...)
		}))),
	}
}

// addRules adds rules that are not there yet.
func addRules(g *ipGroup, rules []wstypes.IpRuleItem) error {
	for _, r := range rules {
		cidr := deref(r.IpRule)
		p, err := netip.ParsePrefix(cidr)
		if a, aerr := netip.ParseAddr(cidr); err != nil && aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return invalidValues("IpRule " + cidr + " is not an address range such as 192.0.2.0/24.")
		}
		if p.Masked() != p {
			return invalidValues("IpRule " + cidr + " has bits set outside its prefix; did you mean " + p.Masked().String() + "?")
		}
		if !slices.ContainsFunc(g.Rules, func(x ipRule) bool { return x.CIDR == p.String() }) {
			g.Rules = append(g.Rules, ipRule{p.String(), deref(r.RuleDesc)})
		}
	}
	if len(g.Rules) > maxRules {
		m := "An IP group has at most 10 rules."
		return &wstypes.ResourceLimitExceededException{Message: &m}
	}
	return nil
}

func (s *Service) createIPGroup(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateIpGroupInput) (*workspaces.CreateIpGroupOutput, error) {
	taken := false
	s.ipGroups.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, g *ipGroup) bool {
		taken = taken || g.Name == deref(in.GroupName)
		return !taken
	})
	if taken {
		m := "An IP group named " + deref(in.GroupName) + " exists already."
		return nil, &wstypes.ResourceAlreadyExistsException{Message: &m}
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	g := &ipGroup{ID: ids.WorkSpace("wsipg"), Name: deref(in.GroupName), Description: deref(in.GroupDesc), Tags: tags}
	if err := addRules(g, in.UserRules); err != nil {
		return nil, err
	}
	return &workspaces.CreateIpGroupOutput{GroupId: &g.ID}, s.ipGroups.Put(tx, key(c.Account, c.Region, g.ID), g)
}

func (s *Service) describeIPGroups(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeIpGroupsInput) (*workspaces.DescribeIpGroupsOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := int(aws.ToInt32(in.MaxResults))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeIpGroupsOutput{Result: []wstypes.WorkspacesIpGroup{}}
	last := ""
	s.ipGroups.Scan(tx, key(c.Account, c.Region, ""), after, func(k string, g *ipGroup) bool {
		if len(in.GroupIds) > 0 && !slices.Contains(in.GroupIds, g.ID) {
			return true
		}
		if len(out.Result) == limit {
			out.NextToken = token(last)
			return false
		}
		o := wstypes.WorkspacesIpGroup{GroupId: &g.ID, GroupName: &g.Name, GroupDesc: &g.Description, UserRules: []wstypes.IpRuleItem{}}
		for i := range g.Rules {
			o.UserRules = append(o.UserRules, wstypes.IpRuleItem{IpRule: &g.Rules[i].CIDR, RuleDesc: &g.Rules[i].Description})
		}
		out.Result = append(out.Result, o)
		last = k
		return true
	})
	return out, nil
}

func (s *Service) editIPGroup(tx *store.Tx, c *api.Call, id *string, f func(g *ipGroup) error) error {
	k := key(c.Account, c.Region, deref(id))
	g := s.ipGroups.Edit(tx, k)
	if g == nil {
		return notFound("IP group", deref(id))
	}
	if err := f(g); err != nil {
		return err
	}
	return s.ipGroups.Put(tx, k, g)
}

func (s *Service) deleteIPGroup(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeleteIpGroupInput) (*workspaces.DeleteIpGroupOutput, error) {
	id := deref(in.GroupId)
	k := key(c.Account, c.Region, id)
	if s.ipGroups.Get(tx, k) == nil {
		return nil, notFound("IP group", id)
	}
	by := ""
	s.directories.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, r *registration) bool {
		if slices.Contains(r.IPGroups, id) {
			by = r.ID
		}
		return by == ""
	})
	if by != "" {
		m := "The IP group " + id + " is associated with the directory " + by + ". Disassociate it first."
		return nil, &wstypes.ResourceAssociatedException{Message: &m}
	}
	return &workspaces.DeleteIpGroupOutput{}, s.ipGroups.Delete(tx, k)
}

func (s *Service) authorizeIPRules(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.AuthorizeIpRulesInput) (*workspaces.AuthorizeIpRulesOutput, error) {
	return &workspaces.AuthorizeIpRulesOutput{}, s.editIPGroup(tx, c, in.GroupId, func(g *ipGroup) error { return addRules(g, in.UserRules) })
}

func (s *Service) revokeIPRules(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.RevokeIpRulesInput) (*workspaces.RevokeIpRulesOutput, error) {
	return &workspaces.RevokeIpRulesOutput{}, s.editIPGroup(tx, c, in.GroupId, func(g *ipGroup) error {
		g.Rules = slices.DeleteFunc(g.Rules, func(r ipRule) bool { return slices.Contains(in.UserRules, r.CIDR) })
		return nil
	})
}

func (s *Service) updateIPRules(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.UpdateRulesOfIpGroupInput) (*workspaces.UpdateRulesOfIpGroupOutput, error) {
	return &workspaces.UpdateRulesOfIpGroupOutput{}, s.editIPGroup(tx, c, in.GroupId, func(g *ipGroup) error {
		g.Rules = nil
		return addRules(g, in.UserRules)
	})
}

func (s *Service) associateIPGroups(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.AssociateIpGroupsInput) (*workspaces.AssociateIpGroupsOutput, error) {
	return &workspaces.AssociateIpGroupsOutput{}, s.editRegistration(tx, c, in.DirectoryId, func(r *registration) error {
		for _, id := range in.GroupIds {
			if s.ipGroups.Get(tx, key(c.Account, c.Region, id)) == nil {
				return notFound("IP group", id)
			}
			if !slices.Contains(r.IPGroups, id) {
				r.IPGroups = append(r.IPGroups, id)
			}
		}
		if len(r.IPGroups) > maxGroups {
			m := "A directory has at most 25 IP groups."
			return &wstypes.ResourceLimitExceededException{Message: &m}
		}
		return nil
	})
}

func (s *Service) disassociateIPGroups(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DisassociateIpGroupsInput) (*workspaces.DisassociateIpGroupsOutput, error) {
	return &workspaces.DisassociateIpGroupsOutput{}, s.editRegistration(tx, c, in.DirectoryId, func(r *registration) error {
		r.IPGroups = slices.DeleteFunc(r.IPGroups, func(id string) bool { return slices.Contains(in.GroupIds, id) })
		return nil
	})
}
