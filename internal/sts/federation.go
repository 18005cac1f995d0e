package sts

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// An identity that a provider vouches for: who it is, what it brings, and the
// condition keys that it gives the role's trust policy.
type federated struct {
	provider       *api.IdentityProvider
	keys           map[string][]string
	tags           []types.Tag
	transitive     []string
	sourceIdentity string
}

// federatedRole is what an AssumeRoleWith… request asks for.
type federatedRole struct {
	operation, roleARN, session string
	policy                      *string
	policyARNs                  []types.PolicyDescriptorType
	seconds, tokenSize          *int32
}

// assumed is the outcome.
type assumed struct {
	*issued
	user  *types.AssumedRoleUser
	scope *scope
}

// federatedRoleOf finds the role; one that is not there is refused like one that
// may not be assumed.
func (s *Service) federatedRoleOf(tx *store.Tx, in *federatedRole) (*api.Role, error) {
	if roleAccount(in.roleARN) == "" {
		return nil, validation("%s is invalid", in.roleARN)
	}
	r, err := s.iam.Role(tx, in.roleARN)
	if err == nil && r == nil {
		err = accessDenied("Not authorized to perform sts:%s", in.operation)
	}
	return r, err
}

// assumeFederated asks the trust policy and makes the session.
func (s *Service) assumeFederated(tx *store.Tx, c *api.Call, in *federatedRole, f *federated) (*assumed, error) {
	r, err := s.federatedRoleOf(tx, in)
	if err != nil {
		return nil, err
	}
	keys := f.keys
	keys["sts:RoleSessionName"] = []string{in.session}
	if f.sourceIdentity != "" {
		keys["sts:SourceIdentity"] = []string{f.sourceIdentity}
	}
	tagKeys(keys, f.tags, f.transitive)
	for k, v := range r.Tags {
		keys["aws:ResourceTag/"+k], keys["iam:ResourceTag/"+k] = []string{v}, []string{v}
	}
	if c.SourceIP != "" {
		keys["aws:SourceIp"] = []string{c.SourceIP}
	}
	actions := []string{"sts:" + in.operation}
	if len(f.tags) > 0 {
		actions = append(actions, "sts:TagSession")
	}
	if f.sourceIdentity != "" {
		actions = append(actions, "sts:SetSourceIdentity")
	}
	trust := policy.Layers{Mode: policy.ModeTrust, Resource: &policy.Source{ID: "trust policy of " + r.ARN, Type: "resource", Document: r.Trust}}
	for _, action := range actions {
		q := policy.Request{Principal: policy.Principal{Type: policy.Provider, Provider: f.provider.ARN}, Action: action, Resource: r.ARN, ResourceAccount: r.Account, Time: c.Time, Context: keys}
		if d := policy.Evaluate(&q, &trust); !d.Allowed() {
			s.log.Info("call refused", "requestId", c.RequestID, "why", policy.Explain(&q, &trust, &d).String())
			return nil, accessDenied("Not authorized to perform %s", action)
		}
	}
	seconds, err := duration(in.seconds, defaultDuration, 43200)
	if err != nil {
		return nil, err
	}
	if seconds > r.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	sc, err := s.newScope(tx, r.Account, in.policy, in.policyARNs, f.tags)
	if err != nil {
		return nil, err
	}
	nobody := &api.Principal{}
	tags, transitive, err := inherit(nobody, sc, f.transitive)
	if err != nil {
		return nil, err
	}
	ses := api.Principal{Type: api.AssumedRole, Account: r.Account, ARN: "arn:aws:sts::" + r.Account + ":assumed-role/" + r.Name + "/" + in.session, ID: r.ID + ":" + in.session,
		RoleARN: r.ARN, RoleName: r.Name, SessionName: in.session, SessionPolicies: sc.policies, SessionPolicyARNs: sc.arns, SessionTags: tags, TransitiveTags: transitive, SourceIdentity: f.sourceIdentity}
	cr, err := s.issue(tx, c, ses, seconds, in.tokenSize)
	if err != nil {
		return nil, err
	}
	return &assumed{issued: cr, user: &types.AssumedRoleUser{Arn: aws.String(ses.ARN), AssumedRoleId: aws.String(ses.ID)}, scope: sc}, nil
}

// assumeRoleWithWebIdentity needs no signature: the token of an OpenID Connect
// provider, which the role's account has in IAM and its trust policy names, is
// what the caller shows. Source: STS API Reference, AssumeRoleWithWebIdentity.
func (s *Service) assumeRoleWithWebIdentity(ctx context.Context, c *api.Call, in *sts.AssumeRoleWithWebIdentityInput) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	ask := &federatedRole{operation: "AssumeRoleWithWebIdentity", roleARN: aws.ToString(in.RoleArn), session: aws.ToString(in.RoleSessionName), policy: in.Policy, policyARNs: in.PolicyArns, seconds: in.DurationSeconds, tokenSize: in.MinimumSessionTokenSize}
	tx := s.store.Snapshot()
	role, err := s.federatedRoleOf(tx, ask)
	if err != nil {
		return nil, err
	}
	sig, token, err := parseIDToken(aws.ToString(in.WebIdentityToken))
	if err != nil {
		return nil, invalidIdentity("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	p := s.iam.OIDCProvider(tx, role.Account, token.Issuer)
	if p == nil {
		return nil, invalidIdentity("No OpenIDConnect provider found in your account for %s", token.Issuer)
	}
	if err := token.check(p, s.clock.Now()); err != nil {
		return nil, err
	}
	if err := s.verify(ctx, p, token.Issuer, sig); err != nil {
		return nil, err
	}
	f := &federated{provider: p, sourceIdentity: token.SourceIdentity, transitive: token.Tags.Transitive}
	for k, v := range token.Tags.Principal {
		if len(v) != 1 {
			return nil, invalidIdentity("The session tag %s must have one value.", k)
		}
		f.tags = append(f.tags, types.Tag{Key: aws.String(k), Value: aws.String(v[0])})
	}
	slices.SortFunc(f.tags, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	var out *sts.AssumeRoleWithWebIdentityOutput
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		f.keys = token.keys(p)
		a, err := s.assumeFederated(tx, c, ask, f)
		if err != nil {
			return err
		}
		out = &sts.AssumeRoleWithWebIdentityOutput{AssumedRoleUser: a.user, Credentials: a.Credentials, PackedPolicySize: a.scope.packedSize(), SessionTokenSize: a.size, SessionTokenUtilization: a.utilization,
			Audience: aws.String(token.audiences()[0]), Provider: aws.String(p.ARN), SubjectFromWebIdentityToken: aws.String(token.Subject)}
		if f.sourceIdentity != "" {
			out.SourceIdentity = aws.String(f.sourceIdentity)
		}
		return nil
	})
	return out, err
}

// webIdentityRecord: the caller of the record is whom the token names, once it was
// found genuine; the record belongs to the role's account.
// Source: IAM User Guide, "Logging IAM and AWS STS API calls with AWS CloudTrail".
func (s *Service) webIdentityRecord(_ *api.Call, in *sts.AssumeRoleWithWebIdentityInput, out *sts.AssumeRoleWithWebIdentityOutput, r *audit.Record) {
	s.federatedRecord(aws.ToString(in.RoleArn), r)
	r.UserIdentity = audit.UserIdentity{Type: "WebIdentityUser"}
	if out != nil {
		sub := aws.ToString(out.SubjectFromWebIdentityToken)
		r.UserIdentity.PrincipalID = aws.ToString(out.Provider) + ":" + aws.ToString(out.Audience) + ":" + sub
		r.UserIdentity.UserName, r.UserIdentity.IdentityProvider = sub, aws.ToString(out.Provider)
	}
}

func (s *Service) federatedRecord(roleARN string, r *audit.Record) {
	account := roleAccount(roleARN)
	if role, err := s.iam.Role(s.store.Snapshot(), roleARN); err != nil || role == nil {
		return
	}
	r.RecipientAccountID = account
	r.Resources = []audit.Resource{{AccountID: account, Type: "AWS::IAM::Role", ARN: roleARN}}
}

// assumeRoleWithSAML needs no signature of AWS's: the assertion of a SAML provider,
// which the role's account has in IAM and its trust policy names, is what the
// caller shows. Source: STS API Reference, AssumeRoleWithSAML.
func (s *Service) assumeRoleWithSAML(_ context.Context, tx *store.Tx, c *api.Call, in *sts.AssumeRoleWithSAMLInput) (*sts.AssumeRoleWithSAMLOutput, error) {
	ask := &federatedRole{operation: "AssumeRoleWithSAML", roleARN: aws.ToString(in.RoleArn), policy: in.Policy, policyARNs: in.PolicyArns, tokenSize: in.MinimumSessionTokenSize}
	role, err := s.federatedRoleOf(tx, ask)
	if err != nil {
		return nil, err
	}
	p := s.iam.SAMLProvider(tx, role.Account, aws.ToString(in.PrincipalArn))
	if p == nil {
		return nil, accessDenied("Not authorized to perform sts:AssumeRoleWithSAML")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(aws.ToString(in.SAMLAssertion)), ""))
	if err != nil {
		return nil, invalidIdentity("Invalid base64 SAMLResponse")
	}
	entityID, certs, err := idpMetadata(p.Metadata)
	if err != nil || len(certs) == 0 {
		return nil, invalidIdentity("The metadata of %s has no certificate that is readable.", p.ARN)
	}
	now := s.clock.Now()
	el, err := readResponse(raw, certs, dsig.NewFakeClockAt(now))
	if err != nil {
		return nil, err
	}
	a, err := readAssertion(el, entityID, now)
	if err != nil {
		return nil, err
	}
	if !a.names(role.ARN, p.ARN) {
		return nil, accessDenied("Not authorized to perform sts:AssumeRoleWithSAML")
	}
	if ask.session = a.one("RoleSessionName"); ask.session == "" {
		return nil, invalidIdentity("RoleSessionName is required in AuthnResponse")
	}
	if !sessionNames.MatchString(ask.session) {
		return nil, invalidIdentity("RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}")
	}
	if ask.seconds, err = a.duration(in.DurationSeconds); err != nil {
		return nil, err
	}
	f := &federated{provider: p, keys: a.keys(role.Account, p), sourceIdentity: a.one("SourceIdentity")}
	if f.tags, f.transitive, err = a.tags(); err != nil {
		return nil, err
	}
	got, err := s.assumeFederated(tx, c, ask, f)
	if err != nil {
		return nil, err
	}
	out := &sts.AssumeRoleWithSAMLOutput{AssumedRoleUser: got.user, Credentials: got.Credentials, PackedPolicySize: got.scope.packedSize(), SessionTokenSize: got.size, SessionTokenUtilization: got.utilization,
		Audience: aws.String(a.recipient), Issuer: aws.String(a.issuer), Subject: aws.String(a.subject), SubjectType: aws.String(a.subjectType), NameQualifier: aws.String(a.qualifier(role.Account, p.Name))}
	if f.sourceIdentity != "" {
		out.SourceIdentity = aws.String(f.sourceIdentity)
	}
	return out, nil
}

// samlRecord is webIdentityRecord for AssumeRoleWithSAML.
func (s *Service) samlRecord(_ *api.Call, in *sts.AssumeRoleWithSAMLInput, out *sts.AssumeRoleWithSAMLOutput, r *audit.Record) {
	s.federatedRecord(aws.ToString(in.RoleArn), r)
	r.UserIdentity = audit.UserIdentity{Type: "SAMLUser"}
	if out != nil {
		r.UserIdentity.PrincipalID = aws.ToString(out.NameQualifier) + ":" + aws.ToString(out.Subject)
		r.UserIdentity.UserName, r.UserIdentity.IdentityProvider = aws.ToString(out.Subject), aws.ToString(out.NameQualifier)
	}
}
