package iam

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) simulateOps() []api.Operation {
	return []api.Operation{
		api.NewView("iam", "SimulatePrincipalPolicy", s.simulatePrincipalPolicy, onSource(func(in *iam.SimulatePrincipalPolicyInput) *string { return in.PolicySourceArn }), api.Refuses("ResourceHandlingOption")),
		api.NewView("iam", "SimulateCustomPolicy", s.simulateCustomPolicy, api.Refuses("ResourceHandlingOption")),
		api.NewView("iam", "GetContextKeysForPrincipalPolicy", s.getContextKeysForPrincipalPolicy, onSource(func(in *iam.GetContextKeysForPrincipalPolicyInput) *string { return in.PolicySourceArn })),
		api.NewView("iam", "GetContextKeysForCustomPolicy", s.getContextKeysForCustomPolicy),
	}
}

// onSource: the operation looks at the policies of the user, group or role of that ARN.
func onSource[In any](arn func(*In) *string) api.Option {
	return one(func(_ *store.Tx, _ *api.Call, in *In) (entity, error) { return entity{arn: aws.ToString(arn(in))}, nil }, nil)
}

// simulation is what the two Simulate operations have in common.
type simulation struct {
	layers    policy.Layers
	principal policy.Principal
	context   policy.Context
	documents []*policy.Document
	actions   []string
	resources []string
	owner     string // account that owns the resources
	named     bool   // the resources were given
}

// parseList parses policies that the request brings.
func parseList(name string, texts []string, kind policy.Kind) ([]policy.Source, error) {
	var out []policy.Source
	for i, text := range texts {
		doc, err := policy.Parse([]byte(text), kind)
		if err != nil {
			var pe *policy.ParseError
			if errors.As(err, &pe) {
				return nil, invalidInput("Invalid policy in %s.%d: %s", name, i+1, pe.Text())
			}
			return nil, invalidInput("Invalid policy in %s.%d: %s", name, i+1, err)
		}
		out = append(out, policy.Source{ID: fmt.Sprintf("%s.%d", name, i+1), Type: string(types.PolicySourceTypeNone), Document: doc})
	}
	return out, nil
}

// resource adds what the request says of the resource and its policy.
func (sim *simulation) resource(policyText, owner *string, arns []string) error {
	sim.resources, sim.named = arns, len(arns) > 0
	if !sim.named {
		sim.resources = []string{"*"}
	}
	if owner != nil {
		sim.owner = *owner
		if account, _, _, _, ok := splitARN(*owner); ok {
			sim.owner = account
		}
		if !accountPattern.MatchString(sim.owner) {
			return invalidInput("ResourceOwner %s is neither an account ID nor the ARN of an account.", *owner)
		}
	}
	if policyText != nil {
		src, err := parseList("ResourcePolicy", []string{*policyText}, policy.ResourcePolicy)
		if err != nil {
			return err
		}
		src[0].Type = string(types.PolicySourceTypeResource)
		sim.layers.Resource = &src[0]
	}
	return nil
}

func (sim *simulation) contextEntries(entries []types.ContextEntry) error {
	sim.context = policy.Context{}
	for _, e := range entries {
		k := aws.ToString(e.ContextKeyName)
		if k == "" {
			return invalidInput("A context entry needs ContextKeyName.")
		}
		if !slices.Contains(e.ContextKeyType.Values(), e.ContextKeyType) {
			return invalidInput("The type %q of context key %s is not valid.", e.ContextKeyType, k)
		}
		sim.context[k] = e.ContextKeyValues
	}
	return nil
}

// caller sets the simulated caller from the ARN of a user.
func (s *Service) caller(tx *store.Tx, sim *simulation, arn string) error {
	account, kind, dir, name, ok := splitARN(arn)
	if !ok || kind != "user" {
		return invalidInput("CallerArn %s is not the ARN of an IAM user.", arn)
	}
	sim.principal = policy.Principal{Type: policy.User, Account: account, ARN: arn, UserName: name}
	if u := s.users.Get(tx, key(account, name)); u != nil && u.Path == dir {
		sim.principal.UserID, sim.principal.Tags = u.ID, tagMap(u.Tags)
	}
	return nil
}

func (s *Service) simulatePrincipalPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.SimulatePrincipalPolicyInput) (*iam.SimulatePrincipalPolicyOutput, error) {
	sim := &simulation{actions: in.ActionNames}
	excluded, err := exclusions(in.PolicyExclusionList)
	if err != nil {
		return nil, err
	}
	if err := s.source(tx, c, sim, aws.ToString(in.PolicySourceArn)); err != nil {
		return nil, err
	}
	sim.layers.Identity = slices.DeleteFunc(sim.layers.Identity, excluded)
	extra, err := parseList("PolicyInputList", in.PolicyInputList, policy.Identity)
	if err != nil {
		return nil, err
	}
	sim.layers.Identity = append(sim.layers.Identity, extra...)
	if sim.layers.Boundary != nil && excludes(in.PolicyExclusionList, types.PolicyIdentifierPolicyTypePermissionBoundary) {
		sim.layers.Boundary = nil
	}
	if err := sim.boundary(in.PermissionsBoundaryPolicyInputList); err != nil {
		return nil, err
	}
	if in.CallerArn != nil {
		if err := s.caller(tx, sim, *in.CallerArn); err != nil {
			return nil, err
		}
	} else if in.ResourcePolicy != nil && sim.principal.Type != policy.User {
		return nil, invalidInput("CallerArn is required when PolicySourceArn is no user and ResourcePolicy is given.")
	}
	if err := sim.resource(in.ResourcePolicy, in.ResourceOwner, in.ResourceArns); err != nil {
		return nil, err
	}
	if err := sim.contextEntries(in.ContextEntries); err != nil {
		return nil, err
	}
	results, p, err := sim.run("SimulatePrincipalPolicy", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.SimulatePrincipalPolicyOutput{EvaluationResults: results, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) simulateCustomPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.SimulateCustomPolicyInput) (*iam.SimulateCustomPolicyOutput, error) {
	sim := &simulation{actions: in.ActionNames, principal: policy.Principal{Type: policy.User, Account: c.Account}}
	var err error
	if sim.layers.Identity, err = parseList("PolicyInputList", in.PolicyInputList, policy.Identity); err != nil {
		return nil, err
	}
	if err := sim.boundary(in.PermissionsBoundaryPolicyInputList); err != nil {
		return nil, err
	}
	for i, level := range in.OrderedOrganizationPolicyInputList {
		list, err := parseList(fmt.Sprintf("OrderedOrganizationPolicyInputList.%d.ServiceControlPolicyInputList", i+1), level.ServiceControlPolicyInputList, policy.Control)
		if err != nil {
			return nil, err
		}
		sim.layers.ServiceControl = append(sim.layers.ServiceControl, list)
	}
	if in.CallerArn != nil {
		if err := s.caller(tx, sim, *in.CallerArn); err != nil {
			return nil, err
		}
	} else if in.ResourcePolicy != nil {
		return nil, invalidInput("CallerArn is required when ResourcePolicy is given.")
	}
	if err := sim.resource(in.ResourcePolicy, in.ResourceOwner, in.ResourceArns); err != nil {
		return nil, err
	}
	if err := sim.contextEntries(in.ContextEntries); err != nil {
		return nil, err
	}
	results, p, err := sim.run("SimulateCustomPolicy", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.SimulateCustomPolicyOutput{EvaluationResults: results, IsTruncated: p.more, Marker: p.marker}, nil
}

// source collects the policies of a user, group or role of the caller's account.
func (s *Service) source(tx *store.Tx, c *api.Call, sim *simulation, arn string) error {
	account, kind, dir, name, ok := splitARN(arn)
	if !ok {
		return invalidInput("Invalid Entity Arn: %s", arn)
	}
	var pol api.Policies
	var err error
	sim.principal = policy.Principal{Type: policy.User, Account: account}
	switch kind {
	case "user":
		u := s.users.Get(tx, key(account, name))
		if u == nil || account != c.Account || u.Path != dir {
			return noUser(name)
		}
		sim.principal = policy.Principal{Type: policy.User, Account: account, ARN: arn, UserName: u.Name, UserID: u.ID, Tags: tagMap(u.Tags)}
		err = s.ofUser(tx, u, &pol)
	case "group":
		g := s.groups.Get(tx, key(account, name))
		if g == nil || account != c.Account || g.Path != dir {
			return noGroup(name)
		}
		err = s.ofGrants(tx, account, "group", g.Name, &g.grants, &pol)
	case "role":
		r := s.roles.Get(tx, key(account, name))
		if r == nil || account != c.Account || r.Path != dir {
			return noRole(name)
		}
		sim.principal = policy.Principal{Type: policy.Role, Account: account, RoleARN: arn, ARN: "arn:aws:sts::" + account + ":assumed-role/" + r.Name + "/simulated", UserID: r.ID + ":simulated", SessionName: "simulated", Tags: tagMap(r.Tags)}
		err = s.ofRole(tx, r, &pol)
	default:
		return invalidInput("Invalid Entity Arn: %s does not name a user, group or role.", arn)
	}
	if err != nil {
		return err
	}
	sim.layers.Identity, sim.layers.Boundary = pol.Identity, pol.Boundary
	return nil
}

// boundary replaces the permissions boundary by the one the request brings.
func (sim *simulation) boundary(texts []string) error {
	list, err := parseList("PermissionsBoundaryPolicyInputList", texts, policy.Boundary)
	if err != nil || len(list) == 0 {
		return err
	}
	if len(list) > 1 {
		return invalidInput("PermissionsBoundaryPolicyInputList has %d policies; a user or role has one boundary.", len(list))
	}
	sim.layers.Boundary = &list[0]
	return nil
}

// exclusions is the test for policies that PolicyExclusionList leaves out.
func exclusions(list []types.PolicyIdentifier) (func(policy.Source) bool, error) {
	var tests []func(policy.Source) bool
	for _, x := range list {
		switch x := x.(type) {
		case *types.PolicyIdentifierMemberPolicyArn:
			if err := checkPolicyARN(x.Value); err != nil {
				return nil, err
			}
			tests = append(tests, func(s policy.Source) bool { return s.ID == x.Value })
		case *types.PolicyIdentifierMemberInlinePolicyIdentifier:
			v := x.Value
			if _, err := path.Match(aws.ToString(v.AttachmentName), ""); err != nil || strings.ContainsAny(aws.ToString(v.PolicyName), "*?") {
				return nil, invalidInput("PolicyExclusionList: wildcards * and ? may stand in AttachmentName only.")
			}
			tests = append(tests, func(s policy.Source) bool {
				kind, owner, name, ok := splitInlineID(s.ID)
				match, _ := path.Match(aws.ToString(v.AttachmentName), owner)
				return ok && strings.EqualFold(kind, string(v.AttachmentType)) && strings.EqualFold(name, aws.ToString(v.PolicyName)) && match
			})
		case *types.PolicyIdentifierMemberPolicyType:
			switch x.Value {
			case types.PolicyIdentifierPolicyTypeInline:
				tests = append(tests, func(s policy.Source) bool { _, _, _, ok := splitInlineID(s.ID); return ok })
			case types.PolicyIdentifierPolicyTypeAwsManaged, types.PolicyIdentifierPolicyTypeUserManaged:
				tests = append(tests, func(s policy.Source) bool { return s.Type == string(x.Value) })
			case types.PolicyIdentifierPolicyTypePermissionBoundary, types.PolicyIdentifierPolicyTypeScp, types.PolicyIdentifierPolicyTypeRcp:
			default:
				return nil, invalidInput("PolicyExclusionList: the policy type %q is not valid.", x.Value)
			}
		default:
			return nil, invalidInput("An entry of PolicyExclusionList is empty.")
		}
	}
	return func(s policy.Source) bool {
		return slices.ContainsFunc(tests, func(t func(policy.Source) bool) bool { return t(s) })
	}, nil
}

func excludes(list []types.PolicyIdentifier, t types.PolicyIdentifierPolicyType) bool {
	return slices.ContainsFunc(list, func(x types.PolicyIdentifier) bool {
		m, ok := x.(*types.PolicyIdentifierMemberPolicyType)
		return ok && m.Value == t
	})
}

// splitInlineID is the inverse of inlineID.
func splitInlineID(id string) (kind, owner, name string, ok bool) {
	rest, ok := strings.CutPrefix(id, "inline policy ")
	if !ok {
		return "", "", "", false
	}
	name, of, ok := strings.Cut(rest, " of ") // neither names nor owners have spaces
	kind, owner, _ = strings.Cut(of, " ")
	return kind, owner, name, ok
}

// run evaluates every action on every resource.
func (sim *simulation) run(op string, marker *string, max *int32) ([]types.EvaluationResult, *page, error) {
	p, err := newPage(op, marker, max)
	if err != nil {
		return nil, nil, err
	}
	if len(sim.actions)*len(sim.resources) > 100_000 {
		return nil, nil, invalidInput("This simulation has %d combinations of action and resource; ask for fewer at a time.", len(sim.actions)*len(sim.resources))
	}
	out, n := []types.EvaluationResult{}, 0
	for _, action := range sim.actions {
		vendor, name, ok := strings.Cut(action, ":")
		if !ok || vendor == "" || name == "" || strings.ContainsAny(action, "*?") {
			return nil, nil, invalidInput("Invalid action name: %s. Write service:Action, without wildcards.", action)
		}
		for _, resource := range sim.resources {
			n++
			take, stop := p.take(fmt.Sprintf("%06d", n))
			if stop {
				return out, p, nil
			}
			if take {
				out = append(out, sim.one(action, resource))
			}
		}
	}
	return out, p, nil
}

func (sim *simulation) one(action, resource string) types.EvaluationResult {
	req := &policy.Request{Principal: sim.principal, Action: action, Resource: resource, ResourceAccount: sim.owner, Context: sim.context}
	layers := sim.layers
	if layers.Resource != nil && strings.HasPrefix(strings.ToLower(action), "kms:") && strings.Contains(resource, ":key/") {
		layers.Mode = policy.ModeKMS
	}
	d := policy.Evaluate(req, &layers)
	r := types.EvaluationResult{EvalActionName: aws.String(action), EvalResourceName: aws.String(resource), EvalDecision: types.PolicyEvaluationDecisionType(d.Effect.String()),
		MatchedStatements: []types.Statement{}, MissingContextValues: sim.missing()}
	for _, m := range d.Matched {
		if m.Statement == nil {
			continue
		}
		r.MatchedStatements = append(r.MatchedStatements, types.Statement{SourcePolicyId: aws.String(simulatorID(m.Source)), SourcePolicyType: types.PolicySourceType(m.Type),
			StartPosition: &types.Position{Line: int32(m.Statement.Start.Line), Column: int32(m.Statement.Start.Column)},
			EndPosition:   &types.Position{Line: int32(m.Statement.End.Line), Column: int32(m.Statement.End.Column)}})
	}
	if layers.Boundary != nil {
		alone := policy.Evaluate(req, &policy.Layers{Identity: []policy.Source{*layers.Boundary}})
		r.PermissionsBoundaryDecisionDetail = &types.PermissionsBoundaryDecisionDetail{AllowedByPermissionsBoundary: alone.Allowed()}
	}
	if len(layers.ServiceControl) > 0 {
		r.OrganizationsDecisionDetail = &types.OrganizationsDecisionDetail{AllowedByOrganizations: d.Layer != policy.LayerServiceControl}
	}
	if d.Cross {
		resourceSide := policy.ImplicitDeny
		if layers.Resource != nil {
			alone := policy.Evaluate(&policy.Request{Principal: req.Principal, Action: action, Resource: resource, Context: sim.context}, &policy.Layers{Resource: layers.Resource})
			resourceSide = alone.Effect
		}
		identitySide := policy.Evaluate(&policy.Request{Principal: req.Principal, Action: action, Resource: resource, Context: sim.context}, &policy.Layers{Identity: layers.Identity, Boundary: layers.Boundary})
		r.EvalDecisionDetails = map[string]types.PolicyEvaluationDecisionType{
			"Resource Policy": types.PolicyEvaluationDecisionType(resourceSide.String()), "IAM Policy": types.PolicyEvaluationDecisionType(identitySide.Effect.String())}
	}
	if sim.named {
		r.ResourceSpecificResults = []types.ResourceSpecificResult{{EvalResourceName: r.EvalResourceName, EvalResourceDecision: r.EvalDecision, MatchedStatements: r.MatchedStatements,
			MissingContextValues: r.MissingContextValues, PermissionsBoundaryDecisionDetail: r.PermissionsBoundaryDecisionDetail, EvalDecisionDetails: r.EvalDecisionDetails}}
	}
	return r
}

// simulatorID is how the simulator names a policy: the name of a managed one,
// kind_owner_name for an inline one, else as the request numbered it.
func simulatorID(id string) string {
	if strings.HasPrefix(id, "arn:") {
		return id[strings.LastIndexByte(id, '/')+1:]
	}
	if kind, owner, name, ok := splitInlineID(id); ok {
		return kind + "_" + owner + "_" + name
	}
	return id
}

// given are the condition keys that the simulated principal brings.
var given = []string{"aws:principalarn", "aws:principalaccount", "aws:principaltype", "aws:principalisawsservice", "aws:viaawsservice", "aws:resourceaccount", "aws:userid", "aws:username"}

// missing lists the condition keys that the policies refer to and the request
// does not bring.
func (sim *simulation) missing() []string {
	out := []string{}
	for _, k := range policy.ContextKeys(sim.allDocuments()...) {
		lower := strings.ToLower(k)
		if slices.Contains(given, lower) || strings.HasPrefix(lower, "aws:principaltag/") {
			continue
		}
		found := false
		for name := range sim.context {
			found = found || strings.EqualFold(name, k)
		}
		if !found {
			out = append(out, k)
		}
	}
	return out
}

func (sim *simulation) allDocuments() []*policy.Document {
	if sim.documents == nil {
		for _, src := range sim.layers.Identity {
			sim.documents = append(sim.documents, src.Document)
		}
		if sim.layers.Boundary != nil {
			sim.documents = append(sim.documents, sim.layers.Boundary.Document)
		}
		if sim.layers.Resource != nil {
			sim.documents = append(sim.documents, sim.layers.Resource.Document)
		}
		for _, level := range sim.layers.ServiceControl {
			for _, src := range level {
				sim.documents = append(sim.documents, src.Document)
			}
		}
	}
	return sim.documents
}

func (s *Service) getContextKeysForCustomPolicy(_ context.Context, _ *store.Tx, _ *api.Call, in *iam.GetContextKeysForCustomPolicyInput) (*iam.GetContextKeysForCustomPolicyOutput, error) {
	list, err := parseList("PolicyInputList", in.PolicyInputList, policy.Identity)
	if err != nil {
		return nil, err
	}
	sim := &simulation{layers: policy.Layers{Identity: list}}
	return &iam.GetContextKeysForCustomPolicyOutput{ContextKeyNames: policy.ContextKeys(sim.allDocuments()...)}, nil
}

func (s *Service) getContextKeysForPrincipalPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetContextKeysForPrincipalPolicyInput) (*iam.GetContextKeysForPrincipalPolicyOutput, error) {
	sim := &simulation{}
	if err := s.source(tx, c, sim, aws.ToString(in.PolicySourceArn)); err != nil {
		return nil, err
	}
	extra, err := parseList("PolicyInputList", in.PolicyInputList, policy.Identity)
	if err != nil {
		return nil, err
	}
	sim.layers.Identity = append(sim.layers.Identity, extra...)
	return &iam.GetContextKeysForPrincipalPolicyOutput{ContextKeyNames: policy.ContextKeys(sim.allDocuments()...)}, nil
}
