package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Operations are the rows of the operation table that STS serves.
func (s *Service) Operations() []api.Operation {
	hidden := api.Sensitive("SecretAccessKey", "SessionToken", "TokenCode", "WebIdentityToken", "SAMLAssertion")
	// The operations that hand out credentials are readOnly to CloudTrail and show
	// their reply all the same.
	hands := func(o *api.Operation) { o.ReadOnly = true }
	return []api.Operation{
		api.NewView("sts", "GetCallerIdentity", s.getCallerIdentity, api.Open()),
		api.NewUpdate("sts", "AssumeRole", s.assumeRole, api.On(s.onAssumeRole), api.Audited(assumeRoleRecord), api.Refuses("ProvidedContexts"), hidden, hands),
		api.NewSteps("sts", "AssumeRoleWithWebIdentity", s.assumeRoleWithWebIdentity, api.Unsigned(), api.Audited(s.webIdentityRecord), api.Refuses("ProviderId"), hidden, hands),
		api.NewUpdate("sts", "AssumeRoleWithSAML", s.assumeRoleWithSAML, api.Unsigned(), api.Audited(s.samlRecord), hidden, hands),
		api.NewUpdate("sts", "GetSessionToken", s.getSessionToken, api.Open(), hidden, hands),
		api.NewUpdate("sts", "GetFederationToken", s.getFederationToken, api.On(s.onGetFederationToken), hidden, hands),
		api.NewView("sts", "GetAccessKeyInfo", s.getAccessKeyInfo),
		api.NewView("sts", "DecodeAuthorizationMessage", s.decodeAuthorizationMessage),
	}
}

func (s *Service) getCallerIdentity(_ context.Context, _ *store.Tx, c *api.Call, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	return &sts.GetCallerIdentityOutput{Account: aws.String(c.Principal.Account), Arn: aws.String(c.Principal.ARN), UserId: aws.String(c.Principal.ID)}, nil
}

// roleAccount is the account in a role's ARN, "" when it is none.
func roleAccount(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return ""
	}
	return parts[4]
}

// onAssumeRole asks the role's trust policy and, from another account, the
// caller's own policies: for sts:AssumeRole, and for sts:TagSession and
// sts:SetSourceIdentity when the request has tags and a source identity.
// Source: Service Authorization Reference, AWS STS; IAM User Guide, "Cross
// account resource access in IAM".
func (s *Service) onAssumeRole(_ context.Context, tx *store.Tx, c *api.Call, in *sts.AssumeRoleInput) ([]api.Target, error) {
	arn := aws.ToString(in.RoleArn)
	account := roleAccount(arn)
	if account == "" {
		return nil, validation("%s is invalid", arn)
	}
	if c.Principal.Type == api.Root {
		return nil, accessDenied("Roles may not be assumed by root accounts.")
	}
	keys := map[string][]string{"sts:RoleSessionName": {aws.ToString(in.RoleSessionName)}}
	if in.ExternalId != nil {
		keys["sts:ExternalId"] = []string{*in.ExternalId}
	}
	if id := sourceIdentity(c, in); id != "" {
		keys["sts:SourceIdentity"] = []string{id}
	}
	tagKeys(keys, in.Tags, in.TransitiveTagKeys)
	if in.SerialNumber != nil || in.TokenCode != nil {
		if err := s.checkMFA(tx, &c.Principal, in.SerialNumber, in.TokenCode); err != nil {
			return nil, err
		}
		keys["aws:MultiFactorAuthPresent"], keys["aws:MultiFactorAuthAge"] = []string{"true"}, []string{"0"}
	}
	t := api.Target{Action: "sts:AssumeRole", ARN: arn, Account: account, Keys: keys, Mode: policy.ModeTrust, PolicyID: "trust policy of " + arn}
	r, err := s.iam.Role(tx, arn)
	if err != nil {
		return nil, err
	}
	if r != nil {
		t.Policy = r.Trust
		for k, v := range r.Tags {
			keys["aws:ResourceTag/"+k], keys["iam:ResourceTag/"+k] = []string{v}, []string{v}
		}
	}
	targets := []api.Target{t}
	if len(in.Tags) > 0 || len(c.Principal.TransitiveTags) > 0 {
		t.Action = "sts:TagSession"
		targets = append(targets, t)
	}
	if in.SourceIdentity != nil || c.Principal.SourceIdentity != "" {
		t.Action = "sts:SetSourceIdentity"
		targets = append(targets, t)
	}
	return targets, nil
}

// sourceIdentity is the source identity of the new session: once set it stays.
func sourceIdentity(c *api.Call, in *sts.AssumeRoleInput) string {
	if c.Principal.SourceIdentity != "" {
		return c.Principal.SourceIdentity
	}
	return aws.ToString(in.SourceIdentity)
}

// checkMFA accepts the code of the caller's device.
func (s *Service) checkMFA(tx *store.Tx, p *api.Principal, serial, code *string) error {
	if serial == nil || code == nil {
		return accessDenied("MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")
	}
	ok, err := s.iam.CheckMFA(tx, p, *serial, *code)
	if err != nil {
		return err
	}
	if !ok {
		return accessDenied("MultiFactorAuthentication failed with invalid MFA one time pass code.")
	}
	return nil
}

func (s *Service) assumeRole(_ context.Context, tx *store.Tx, c *api.Call, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	p := &c.Principal
	r, err := s.iam.Role(tx, aws.ToString(in.RoleArn))
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, accessDenied("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", p.ARN, aws.ToString(in.RoleArn))
	}
	seconds, err := duration(in.DurationSeconds, defaultDuration, 43200)
	if err != nil {
		return nil, err
	}
	if seconds > r.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if p.Type == api.AssumedRole && seconds > maxChained {
		return nil, validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	if in.SourceIdentity != nil && p.SourceIdentity != "" && *in.SourceIdentity != p.SourceIdentity {
		return nil, accessDenied("The source identity of the calling session is %s and cannot be changed.", p.SourceIdentity)
	}
	sc, err := s.newScope(tx, r.Account, in.Policy, in.PolicyArns, in.Tags)
	if err != nil {
		return nil, err
	}
	tags, transitive, err := inherit(p, sc, in.TransitiveTagKeys)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.RoleSessionName)
	ses := api.Principal{Type: api.AssumedRole, Account: r.Account, ARN: "arn:aws:sts::" + r.Account + ":assumed-role/" + r.Name + "/" + name, ID: r.ID + ":" + name,
		RoleARN: r.ARN, RoleName: r.Name, SessionName: name, SessionPolicies: sc.policies, SessionPolicyARNs: sc.arns, SessionTags: tags, TransitiveTags: transitive,
		SourceIdentity: sourceIdentity(c, in), MFA: in.SerialNumber != nil || p.MFA && p.Type == api.IAMUser}
	cr, err := s.issue(tx, c, ses, seconds, in.MinimumSessionTokenSize)
	if err != nil {
		return nil, err
	}
	out := &sts.AssumeRoleOutput{Credentials: cr.Credentials, AssumedRoleUser: &types.AssumedRoleUser{Arn: aws.String(ses.ARN), AssumedRoleId: aws.String(ses.ID)},
		PackedPolicySize: sc.packedSize(), SessionTokenSize: cr.size, SessionTokenUtilization: cr.utilization}
	if ses.SourceIdentity != "" {
		out.SourceIdentity = aws.String(ses.SourceIdentity)
	}
	return out, nil
}

// assumeRoleRecord names the role in the record. Source: IAM User Guide,
// "Logging IAM and AWS STS API calls with AWS CloudTrail".
func assumeRoleRecord(_ *api.Call, in *sts.AssumeRoleInput, _ *sts.AssumeRoleOutput, r *audit.Record) {
	if arn := aws.ToString(in.RoleArn); roleAccount(arn) != "" {
		r.Resources = []audit.Resource{{AccountID: roleAccount(arn), Type: "AWS::IAM::Role", ARN: arn}}
	}
}

// longTerm refuses callers with temporary credentials.
func longTerm(c *api.Call, operation string) error {
	if !c.Principal.SessionIssued.IsZero() || c.Principal.Type != api.IAMUser && c.Principal.Type != api.Root {
		return accessDenied("Cannot call %s with session credentials", operation)
	}
	return nil
}

// userDuration is the duration of a session of a user or the root user.
func userDuration(c *api.Call, given *int32) (int32, error) {
	if c.Principal.Type == api.Root {
		if given != nil && *given > maxRootSession && *given <= maxUserDuration {
			return maxRootSession, nil // as AWS: root's sessions last an hour at most
		}
		return duration(given, maxRootSession, maxUserDuration)
	}
	return duration(given, defaultUserSession, maxUserDuration)
}

// getSessionToken needs no permission: it gives no more than the caller has.
// Source: STS API Reference, GetSessionToken.
func (s *Service) getSessionToken(_ context.Context, tx *store.Tx, c *api.Call, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	if err := longTerm(c, "GetSessionToken"); err != nil {
		return nil, err
	}
	seconds, err := userDuration(c, in.DurationSeconds)
	if err != nil {
		return nil, err
	}
	p := c.Principal
	if in.SerialNumber != nil || in.TokenCode != nil {
		if err := s.checkMFA(tx, &p, in.SerialNumber, in.TokenCode); err != nil {
			return nil, err
		}
		p.MFA = true
	}
	cr, err := s.issue(tx, c, p, seconds, in.MinimumSessionTokenSize)
	if err != nil {
		return nil, err
	}
	return &sts.GetSessionTokenOutput{Credentials: cr.Credentials, SessionTokenSize: cr.size, SessionTokenUtilization: cr.utilization}, nil
}

func federatedARN(account, name string) string {
	return "arn:aws:sts::" + account + ":federated-user/" + name
}

func (s *Service) onGetFederationToken(_ context.Context, _ *store.Tx, c *api.Call, in *sts.GetFederationTokenInput) ([]api.Target, error) {
	if err := longTerm(c, "GetFederationToken"); err != nil {
		return nil, err
	}
	keys := map[string][]string{}
	tagKeys(keys, in.Tags, nil)
	t := api.Target{Action: "sts:GetFederationToken", ARN: federatedARN(c.Account, aws.ToString(in.Name)), Keys: keys}
	targets := []api.Target{t}
	if len(in.Tags) > 0 {
		t.Action = "sts:TagSession"
		targets = append(targets, t)
	}
	return targets, nil
}

func (s *Service) getFederationToken(_ context.Context, tx *store.Tx, c *api.Call, in *sts.GetFederationTokenInput) (*sts.GetFederationTokenOutput, error) {
	if err := longTerm(c, "GetFederationToken"); err != nil {
		return nil, err
	}
	seconds, err := userDuration(c, in.DurationSeconds)
	if err != nil {
		return nil, err
	}
	sc, err := s.newScope(tx, c.Account, in.Policy, in.PolicyArns, in.Tags)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.Name)
	p := api.Principal{Type: api.FederatedUser, Account: c.Account, ARN: federatedARN(c.Account, name), ID: c.Account + ":" + name,
		IssuerARN: c.Principal.ARN, IssuerID: c.Principal.ID, IssuerName: c.Principal.UserName, SessionPolicies: sc.policies, SessionPolicyARNs: sc.arns, SessionTags: sc.tags}
	cr, err := s.issue(tx, c, p, seconds, in.MinimumSessionTokenSize)
	if err != nil {
		return nil, err
	}
	packed := sc.packedSize()
	if packed == nil {
		packed = aws.Int32(0) // as AWS: always there, unlike AssumeRole's
	}
	return &sts.GetFederationTokenOutput{Credentials: cr.Credentials, FederatedUser: &types.FederatedUser{Arn: aws.String(p.ARN), FederatedUserId: aws.String(p.ID)},
		PackedPolicySize: packed, SessionTokenSize: cr.size, SessionTokenUtilization: cr.utilization}, nil
}

func (s *Service) getAccessKeyInfo(_ context.Context, tx *store.Tx, _ *api.Call, in *sts.GetAccessKeyInfoInput) (*sts.GetAccessKeyInfoOutput, error) {
	account, ok := s.iam.AccountOfKey(tx, aws.ToString(in.AccessKeyId))
	if !ok {
		return nil, validation("%s is not an access key ID of an account here.", aws.ToString(in.AccessKeyId))
	}
	return &sts.GetAccessKeyInfoOutput{Account: aws.String(account)}, nil
}

// EncodeAuthorizationMessage seals the detail of a refusal, as EC2 encloses it,
// so that only DecodeAuthorizationMessage shows it.
func (s *Service) EncodeAuthorizationMessage(tx *store.Tx, detail any) (string, error) {
	plain, err := json.Marshal(detail)
	if err != nil {
		return "", fmt.Errorf("encode an authorization message: %w", err)
	}
	return s.seal(tx, messageInfo, plain, 0)
}

func (s *Service) decodeAuthorizationMessage(_ context.Context, tx *store.Tx, _ *api.Call, in *sts.DecodeAuthorizationMessageInput) (*sts.DecodeAuthorizationMessageOutput, error) {
	plain, err := s.open(tx, messageInfo, aws.ToString(in.EncodedMessage))
	if errors.Is(err, errToken) {
		return nil, &types.InvalidAuthorizationMessageException{Message: aws.String("Message is not valid: it was not encoded here, or not completely copied.")}
	}
	if err != nil {
		return nil, err
	}
	return &sts.DecodeAuthorizationMessageOutput{DecodedMessage: aws.String(string(plain))}, nil
}

// ConsoleSession makes the credentials of a user who signed in with a password
// (iam.SignIn); p is the principal that gave. It may do all the user may.
func (s *Service) ConsoleSession(ctx context.Context, c *api.Call, p api.Principal, seconds int32) (*types.Credentials, error) {
	p.FromConsole = true
	var out *issued
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		out, err = s.issue(tx, c, p, seconds, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.Credentials, nil
}
