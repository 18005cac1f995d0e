package iam

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// This file says which services a user, group, role or policy may use, and when
// they last were. As AWS, it looks at the permissions policies alone: what they
// allow, whatever boundaries and denials take away again. Single actions are not
// tracked for any service.
// Source: IAM User Guide, "Refine permissions in AWS using last accessed information".

func (s *Service) accessOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "GenerateServiceLastAccessedDetails", s.generateServiceLastAccessedDetails, onSource(func(in *iam.GenerateServiceLastAccessedDetailsInput) *string { return in.Arn }), api.ReadOnly()),
		api.NewView("iam", "GetServiceLastAccessedDetails", s.getServiceLastAccessedDetails),
		api.NewView("iam", "GetServiceLastAccessedDetailsWithEntities", s.getServiceLastAccessedDetailsWithEntities),
		api.NewView("iam", "ListPoliciesGrantingServiceAccess", s.listPoliciesGrantingServiceAccess, onSource(func(in *iam.ListPoliciesGrantingServiceAccessInput) *string { return in.Arn })),
	}
}

// servicesHere are the services of this cloud by namespace, in order of their names.
var servicesHere = []struct{ namespace, name string }{
	{"cloudtrail", "AWS CloudTrail"},
	{"ds", "AWS Directory Service"},
	{"ds-data", "AWS Directory Service Data"},
	{"iam", "AWS Identity and Access Management"},
	{"kms", "AWS Key Management Service"},
	{"sts", "AWS Security Token Service"},
	{"ebs", "Amazon Elastic Block Store"},
	{"ec2", "Amazon EC2"},
	{"rbin", "AWS Recycle Bin"},
	{"workspaces", "Amazon WorkSpaces"},
}

// reportLife is how long a report can be had.
const reportLife = 7 * 24 * time.Hour

// subject is what a report is about: the policies that count, and the users and
// roles that have them.
type subject struct {
	policies []grantingPolicy
	users    []*user
	roles    []*role
}

// grantingPolicy is a policy and, when it is inline, whose.
type grantingPolicy struct {
	name, arn string // arn of a managed policy
	owner     string
	ownerKind types.PolicyOwnerEntityType
	document  *policy.Document
}

// subject finds a user, group, role or policy by its ARN.
func (s *Service) subject(tx *store.Tx, c *api.Call, arn string) (*subject, error) {
	missing := noSuchEntity("ARN %s cannot be found.", arn)
	account, kind, path, name, ok := splitARN(arn)
	if !ok || account != c.Account && account != "aws" {
		return nil, missing
	}
	var out subject
	switch kind {
	case "user":
		u := s.users.Get(tx, key(account, name))
		if u == nil || u.Path != path {
			return nil, missing
		}
		out.users = []*user{u}
		if err := s.granting(tx, &out, account, types.PolicyOwnerEntityTypeUser, u.Name, &u.grants); err != nil {
			return nil, err
		}
		for _, n := range u.Groups {
			if g := s.groups.Get(tx, account+"/"+n); g != nil {
				if err := s.granting(tx, &out, account, types.PolicyOwnerEntityTypeGroup, g.Name, &g.grants); err != nil {
					return nil, err
				}
			}
		}
	case "role":
		r := s.roles.Get(tx, key(account, name))
		if r == nil || r.Path != path {
			return nil, missing
		}
		out.roles = []*role{r}
		return &out, s.granting(tx, &out, account, types.PolicyOwnerEntityTypeRole, r.Name, &r.grants)
	case "group":
		g := s.groups.Get(tx, key(account, name))
		if g == nil || g.Path != path {
			return nil, missing
		}
		out.users = s.members(tx, g)
		return &out, s.granting(tx, &out, account, types.PolicyOwnerEntityTypeGroup, g.Name, &g.grants)
	case "policy":
		m := s.managed(tx, c.Account, arn)
		if m == nil {
			return nil, missing
		}
		doc, err := m.version("").Document.compiled(policy.Identity)
		if err != nil {
			return nil, err
		}
		out.policies = []grantingPolicy{{name: m.Name, arn: arn, document: doc}}
		entry := c.Account + " " + arn
		for _, k := range s.usersByPolicy.Keys(entry, "", 0) {
			if u := s.users.Get(tx, k); u != nil {
				out.users = append(out.users, u)
			}
		}
		for _, k := range s.groupsByPolicy.Keys(entry, "", 0) {
			if g := s.groups.Get(tx, k); g != nil {
				out.users = append(out.users, s.members(tx, g)...)
			}
		}
		for _, k := range s.rolesByPolicy.Keys(entry, "", 0) {
			if r := s.roles.Get(tx, k); r != nil {
				out.roles = append(out.roles, r)
			}
		}
		slices.SortFunc(out.users, func(a, b *user) int { return strings.Compare(a.ID, b.ID) })
		out.users = slices.CompactFunc(out.users, func(a, b *user) bool { return a.ID == b.ID })
	default:
		return nil, missing
	}
	return &out, nil
}

func (s *Service) members(tx *store.Tx, g *group) []*user {
	var out []*user
	for _, k := range s.usersByGroup.Keys(key(g.Account, g.Name), "", 0) {
		if u := s.users.Get(tx, k); u != nil {
			out = append(out, u)
		}
	}
	return out
}

// granting adds the policies of a user, group or role.
func (s *Service) granting(tx *store.Tx, out *subject, account string, kind types.PolicyOwnerEntityType, owner string, g *grants) error {
	for _, arn := range g.Attached {
		m := s.managed(tx, account, arn)
		if m == nil {
			continue
		}
		doc, err := m.version("").Document.compiled(policy.Identity)
		if err != nil {
			return err
		}
		out.policies = append(out.policies, grantingPolicy{name: m.Name, arn: arn, document: doc})
	}
	for _, n := range g.inlineNames() {
		doc, err := g.Inline[n].compiled(policy.Identity)
		if err != nil {
			return err
		}
		out.policies = append(out.policies, grantingPolicy{name: n, owner: owner, ownerKind: kind, document: doc})
	}
	return nil
}

func (sub *subject) mayUse(service string) bool {
	return slices.ContainsFunc(sub.policies, func(p grantingPolicy) bool { return p.document.AllowsService(service) })
}

// entityUse is a user or role and its last use of a service, if any.
type entityUse struct {
	types.EntityInfo
	lastUsed
	ever bool
}

// usesOf are the users and roles of the subject, by ARN, and their use of a service.
func (s *Service) usesOf(tx *store.Tx, sub *subject, service string) []entityUse {
	var out []entityUse
	add := func(account, id, arn, name, path string, kind types.PolicyOwnerEntityType) {
		e := entityUse{EntityInfo: types.EntityInfo{Arn: aws.String(arn), Id: aws.String(id), Name: aws.String(name), Path: aws.String(path), Type: kind}}
		e.lastUsed, e.ever = s.lastUse(tx, use{account, id, service})
		out = append(out, e)
	}
	for _, u := range sub.users {
		add(u.Account, u.ID, u.arn(), u.Name, u.Path, types.PolicyOwnerEntityTypeUser)
	}
	for _, r := range sub.roles {
		add(r.Account, r.ID, r.arn(), r.Name, r.Path, types.PolicyOwnerEntityTypeRole)
	}
	slices.SortFunc(out, func(a, b entityUse) int { return strings.Compare(*a.Arn, *b.Arn) })
	return out
}

func (s *Service) generateServiceLastAccessedDetails(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GenerateServiceLastAccessedDetailsInput) (*iam.GenerateServiceLastAccessedDetailsOutput, error) {
	if _, err := s.subject(tx, c, aws.ToString(in.Arn)); err != nil {
		return nil, err
	}
	var old []string
	s.reportJobs.Scan(tx, c.Account+"/", "", func(k string, r *accessReport) bool {
		if s.now(c).Sub(r.Created) > reportLife {
			old = append(old, k)
		}
		return true
	})
	for _, k := range old {
		if err := s.reportJobs.Delete(tx, k); err != nil {
			return nil, err
		}
	}
	r := &accessReport{Account: c.Account, ID: ids.UUID(), ARN: aws.ToString(in.Arn), By: askedBy(c), Actions: in.Granularity == types.AccessAdvisorUsageGranularityTypeActionLevel, Created: s.now(c)}
	if err := s.reportJobs.Put(tx, c.Account+"/"+r.ID, r); err != nil {
		return nil, err
	}
	return &iam.GenerateServiceLastAccessedDetailsOutput{JobId: aws.String(r.ID)}, nil
}

// askedBy is whom a report belongs to: the user, or the role in whatever session.
func askedBy(c *api.Call) string {
	id, _, _ := strings.Cut(c.Principal.ID, ":")
	return id
}

// report finds a job of the caller and what it is about, which may be gone by now.
func (s *Service) report(tx *store.Tx, c *api.Call, id *string) (*accessReport, *subject, error) {
	r := s.reportJobs.Get(tx, c.Account+"/"+aws.ToString(id))
	if r == nil || r.By != askedBy(c) || s.now(c).Sub(r.Created) > reportLife {
		return nil, nil, noSuchEntity("The job with ID %s cannot be found.", aws.ToString(id))
	}
	sub, err := s.subject(tx, c, r.ARN)
	if err != nil {
		return nil, nil, err
	}
	return r, sub, nil
}

func (s *Service) getServiceLastAccessedDetails(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetServiceLastAccessedDetailsInput) (*iam.GetServiceLastAccessedDetailsOutput, error) {
	r, sub, err := s.report(tx, c, in.JobId)
	if err != nil {
		return nil, err
	}
	p, err := newPage("GetServiceLastAccessedDetails", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	all := []types.ServiceLastAccessed{}
	for _, here := range servicesHere {
		if !sub.mayUse(here.namespace) {
			continue
		}
		e := types.ServiceLastAccessed{ServiceName: aws.String(here.name), ServiceNamespace: aws.String(here.namespace), TotalAuthenticatedEntities: aws.Int32(0)}
		for _, u := range s.usesOf(tx, sub, here.namespace) {
			if !u.ever {
				continue
			}
			*e.TotalAuthenticatedEntities++
			if e.LastAuthenticated == nil || u.Time.After(*e.LastAuthenticated) {
				e.LastAuthenticated, e.LastAuthenticatedEntity, e.LastAuthenticatedRegion = aws.Time(u.Time), u.Arn, aws.String(u.Region)
			}
		}
		all = append(all, e)
	}
	name := func(e types.ServiceLastAccessed) string { return *e.ServiceName }
	slices.SortFunc(all, func(a, b types.ServiceLastAccessed) int { return strings.Compare(name(a), name(b)) })
	out := &iam.GetServiceLastAccessedDetailsOutput{JobStatus: types.JobStatusTypeCompleted, JobCreationDate: aws.Time(r.Created), JobCompletionDate: aws.Time(r.Created), JobType: types.AccessAdvisorUsageGranularityTypeServiceLevel}
	if r.Actions {
		out.JobType = types.AccessAdvisorUsageGranularityTypeActionLevel
	}
	out.ServicesLastAccessed = slicePage(all, p, name)
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

func (s *Service) getServiceLastAccessedDetailsWithEntities(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetServiceLastAccessedDetailsWithEntitiesInput) (*iam.GetServiceLastAccessedDetailsWithEntitiesOutput, error) {
	r, sub, err := s.report(tx, c, in.JobId)
	if err != nil {
		return nil, err
	}
	service := aws.ToString(in.ServiceNamespace)
	if !sub.mayUse(service) {
		return nil, noSuchEntity("The report says nothing of the service %s.", service)
	}
	p, err := newPage("GetServiceLastAccessedDetailsWithEntities", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iam.GetServiceLastAccessedDetailsWithEntitiesOutput{EntityDetailsList: []types.EntityDetails{}, JobStatus: types.JobStatusTypeCompleted, JobCreationDate: aws.Time(r.Created), JobCompletionDate: aws.Time(r.Created)}
	for _, u := range slicePage(s.usesOf(tx, sub, service), p, func(u entityUse) string { return *u.Arn }) {
		e := types.EntityDetails{EntityInfo: &u.EntityInfo}
		if u.ever {
			e.LastAuthenticated = aws.Time(u.Time)
		}
		out.EntityDetailsList = append(out.EntityDetailsList, e)
	}
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

func (s *Service) listPoliciesGrantingServiceAccess(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListPoliciesGrantingServiceAccessInput) (*iam.ListPoliciesGrantingServiceAccessOutput, error) {
	if _, kind, _, _, _ := splitARN(aws.ToString(in.Arn)); kind == "policy" {
		return nil, invalidInput("ARN %s is not that of a user, group or role.", aws.ToString(in.Arn))
	}
	sub, err := s.subject(tx, c, aws.ToString(in.Arn))
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListPoliciesGrantingServiceAccess", in.Marker, nil)
	if err != nil {
		return nil, err
	}
	out := &iam.ListPoliciesGrantingServiceAccessOutput{PoliciesGrantingServiceAccess: []types.ListPoliciesGrantingServiceAccessEntry{}}
	for _, service := range slicePage(slices.Compact(slices.Sorted(slices.Values(in.ServiceNamespaces))), p, func(n string) string { return n }) {
		e := types.ListPoliciesGrantingServiceAccessEntry{ServiceNamespace: aws.String(service), Policies: []types.PolicyGrantingServiceAccess{}}
		for _, g := range sub.policies {
			if !g.document.AllowsService(service) {
				continue
			}
			show := types.PolicyGrantingServiceAccess{PolicyName: aws.String(g.name), PolicyType: types.PolicyTypeInline, EntityName: aws.String(g.owner), EntityType: g.ownerKind}
			if g.arn != "" {
				show = types.PolicyGrantingServiceAccess{PolicyName: aws.String(g.name), PolicyType: types.PolicyTypeManaged, PolicyArn: aws.String(g.arn)}
			}
			e.Policies = append(e.Policies, show)
		}
		out.PoliciesGrantingServiceAccess = append(out.PoliciesGrantingServiceAccess, e)
	}
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}
