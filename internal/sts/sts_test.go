package sts_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

var ctx = context.Background()

// world is a server with what the tests of roles need.
type world struct {
	*apptest.Server
	t *testing.T
}

func newWorld(t *testing.T) *world { return &world{apptest.New(t), t} }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// user makes a user with a policy ("" for none) and returns its credentials.
func (w *world) user(name, policy string) aws.CredentialsProvider {
	w.t.Helper()
	_, err := w.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
	w.must(err)
	if policy != "" {
		_, err = w.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("p"), PolicyDocument: &policy})
		w.must(err)
	}
	k, err := w.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	w.must(err)
	return apptest.Keys(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")
}

// role makes a role whose trust statement is given and that has a policy.
func (w *world) role(name, trust, policy string) string {
	w.t.Helper()
	out, err := w.IAM().CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(doc(trust)), MaxSessionDuration: aws.Int32(7200)})
	w.must(err)
	if policy != "" {
		_, err = w.IAM().PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("p"), PolicyDocument: &policy})
		w.must(err)
	}
	return *out.Role.Arn
}

func doc(statement string) string { return `{"Version":"2012-10-17","Statement":[` + statement + `]}` }

func allow(action, resource string) string {
	return doc(`{"Effect":"Allow","Action":` + action + `,"Resource":"` + resource + `"}`)
}

func temporary(c *types.Credentials) aws.CredentialsProvider {
	return apptest.Keys(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

// fails checks the code of an error and that its message holds text.
func fails(t *testing.T, what string, err error, code, text string) {
	t.Helper()
	var ae smithy.APIError
	if !errors.As(err, &ae) || ae.ErrorCode() != code || !strings.Contains(ae.ErrorMessage(), text) {
		t.Errorf("%s = %v, want %s: …%s…", what, err, code, text)
	}
}

const (
	account = apptest.Account
	userARN = "arn:aws:iam::" + account + ":user/"
	trusts  = `"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]`
	assume  = `["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]`
)

func TestAssumeRole(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allow(assume, "*"))
	role := w.role("ops", `{`+trusts+`}`, allow(`["kms:ListKeys","kms:ListAliases","iam:ListUsers"]`, "*"))
	in := func() *sts.AssumeRoleInput {
		return &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("s1")}
	}
	out, err := w.STS(bob).AssumeRole(ctx, in())
	w.must(err)
	if got, want := *out.AssumedRoleUser.Arn, "arn:aws:sts::"+account+":assumed-role/ops/s1"; got != want {
		t.Errorf("assumed role user %s, want %s", got, want)
	}
	if d := time.Until(*out.Credentials.Expiration); d < 3500*time.Second || d > 3700*time.Second {
		t.Errorf("the session lasts %v, want an hour", d)
	}
	who, err := w.STS(temporary(out.Credentials)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	w.must(err)
	if *who.Arn != *out.AssumedRoleUser.Arn || *who.UserId != *out.AssumedRoleUser.AssumedRoleId || *who.Account != account {
		t.Errorf("GetCallerIdentity = %s, %s", *who.Arn, *who.UserId)
	}
	keys := w.KMS(temporary(out.Credentials))
	if _, err = keys.ListKeys(ctx, &kms.ListKeysInput{}); err != nil {
		t.Errorf("what the role may: %v", err)
	}
	if _, err = w.IAM(temporary(out.Credentials)).ListUsers(ctx, &iam.ListUsersInput{}); err != nil {
		t.Errorf("IAM in a role's session, which needs no MFA: %v", err)
	}
	_, err = w.IAM(temporary(out.Credentials)).ListRoles(ctx, &iam.ListRolesInput{})
	fails(t, "what of IAM the role may not", err, "AccessDenied", "assumed-role/ops/s1 is not authorized to perform: iam:ListRoles")
	_, err = keys.CreateKey(ctx, &kms.CreateKeyInput{})
	fails(t, "what the role may not", err, "AccessDeniedException", "assumed-role/ops/s1 is not authorized to perform: kms:CreateKey")

	// A session policy narrows, and never widens.
	narrow := in()
	narrow.Policy = aws.String(allow(`["kms:ListKeys","kms:CreateKey"]`, "*"))
	n, err := w.STS(bob).AssumeRole(ctx, narrow)
	w.must(err)
	if n.PackedPolicySize == nil || *n.PackedPolicySize < 1 {
		t.Errorf("PackedPolicySize = %v, want 1 or more", n.PackedPolicySize)
	}
	keys = w.KMS(temporary(n.Credentials))
	if _, err = keys.ListKeys(ctx, &kms.ListKeysInput{}); err != nil {
		t.Errorf("within the session policy: %v", err)
	}
	_, err = keys.ListAliases(ctx, &kms.ListAliasesInput{})
	fails(t, "outside the session policy", err, "AccessDeniedException", "session policy")
	_, err = keys.CreateKey(ctx, &kms.CreateKeyInput{})
	fails(t, "in the session policy only", err, "AccessDeniedException", "")

	// Refusals.
	eve := w.user("eve", "")
	_, err = w.STS(eve).AssumeRole(ctx, in())
	fails(t, "a caller without sts:AssumeRole, the account being trusted", err, "AccessDenied", "is not authorized to perform: sts:AssumeRole on resource: "+role)
	_, err = w.STS().AssumeRole(ctx, in())
	fails(t, "root", err, "AccessDenied", "Roles may not be assumed by root accounts.")
	only := w.role("only-bob", `{"Effect":"Allow","Principal":{"AWS":"`+userARN+`bob"},"Action":"sts:AssumeRole"}`, "")
	if _, err = w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &only, RoleSessionName: aws.String("s0")}); err != nil {
		t.Errorf("a user named by the trust policy: %v", err)
	}
	_, err = w.STS(w.user("mallory", allow(assume, "*"))).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &only, RoleSessionName: aws.String("s0")})
	fails(t, "a user whom the trust policy does not name", err, "AccessDenied", "sts:AssumeRole")
	none := "arn:aws:iam::" + account + ":role/none"
	_, err = w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &none, RoleSessionName: aws.String("s0")})
	fails(t, "a role that is not there", err, "AccessDenied", "sts:AssumeRole")

	// Durations and role chaining.
	for _, tt := range []struct {
		creds   aws.CredentialsProvider
		seconds int32
		want    string
	}{
		{bob, 7200, ""}, {bob, 7201, "exceeds the MaxSessionDuration set for this role"}, {bob, 43201, "durationSeconds"}, {bob, 899, "durationSeconds"},
		{temporary(out.Credentials), 3600, ""}, {temporary(out.Credentials), 3601, "1 hour session limit for roles assumed by role chaining"},
	} {
		_, err := w.IAM().PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("ops"), PolicyName: aws.String("chain"), PolicyDocument: aws.String(allow(assume, "*"))})
		w.must(err)
		d := in()
		d.DurationSeconds = &tt.seconds
		if _, err = w.STS(tt.creds).AssumeRole(ctx, d); tt.want == "" && err != nil {
			t.Errorf("%d seconds: %v", tt.seconds, err)
		} else if tt.want != "" {
			fails(t, fmt.Sprint(tt.seconds, " seconds"), err, "ValidationError", tt.want)
		}
	}

	// The role goes, and with it the session, even if one of its name returns.
	for _, p := range []string{"p", "chain"} {
		_, err = w.IAM().DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: aws.String("ops"), PolicyName: &p})
		w.must(err)
	}
	_, err = w.IAM().DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: aws.String("ops")})
	w.must(err)
	w.role("ops", `{`+trusts+`}`, allow(`"kms:*"`, "*"))
	_, err = w.KMS(temporary(out.Credentials)).ListKeys(ctx, &kms.ListKeysInput{})
	if err == nil {
		t.Error("a session of a deleted role works again under its namesake")
	}
}

func TestTrustConditions(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allow(assume, "*"))
	role := w.role("partner", `{`+trusts+`,"Condition":{"StringEquals":{"sts:ExternalId":"e-123","sts:RoleSessionName":"${aws:username}"}}}`, "")
	for _, tt := range []struct {
		external *string
		session  string
		ok       bool
	}{{aws.String("e-123"), "bob", true}, {nil, "bob", false}, {aws.String("e-124"), "bob", false}, {aws.String("e-123"), "alice", false}} {
		_, err := w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &tt.session, ExternalId: tt.external})
		if tt.ok && err != nil {
			t.Errorf("%s, %s: %v", aws.ToString(tt.external), tt.session, err)
		}
		if !tt.ok {
			fails(t, aws.ToString(tt.external)+", "+tt.session, err, "AccessDenied", "sts:AssumeRole")
		}
	}
}

// TestTagsAndSourceIdentity: session tags are aws:PrincipalTag; transitive ones
// and the source identity follow through a chain of roles.
func TestTagsAndSourceIdentity(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allow(assume, "*"))
	first := w.role("first", `{`+trusts+`}`, allow(assume, "*"))
	second := w.role("second", `{`+trusts+`}`, doc(`{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"blue","aws:SourceIdentity":"bob@example.com"}}},
		{"Effect":"Allow","Action":"kms:ListAliases","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/cost":"7"}}}`))
	in := &sts.AssumeRoleInput{RoleArn: &first, RoleSessionName: aws.String("s0"), SourceIdentity: aws.String("bob@example.com"), TransitiveTagKeys: []string{"Team"},
		Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("blue")}, {Key: aws.String("cost"), Value: aws.String("7")}}}
	one, err := w.STS(bob).AssumeRole(ctx, in)
	w.must(err)
	two, err := w.STS(temporary(one.Credentials)).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.String("s2")})
	w.must(err)
	if aws.ToString(two.SourceIdentity) != "bob@example.com" {
		t.Errorf("source identity %q, want bob@example.com", aws.ToString(two.SourceIdentity))
	}
	keys := w.KMS(temporary(two.Credentials))
	if _, err = keys.ListKeys(ctx, &kms.ListKeysInput{}); err != nil {
		t.Errorf("by a transitive tag and the source identity: %v", err)
	}
	_, err = keys.ListAliases(ctx, &kms.ListAliasesInput{})
	fails(t, "by a tag that is not transitive", err, "AccessDeniedException", "")

	_, err = w.STS(temporary(one.Credentials)).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.String("s0"), Tags: []types.Tag{{Key: aws.String("TEAM"), Value: aws.String("red")}}})
	fails(t, "overwriting a transitive tag", err, "InvalidParameterValue", "transitive tag key")
	_, err = w.STS(temporary(one.Credentials)).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.String("s0"), SourceIdentity: aws.String("eve")})
	fails(t, "changing the source identity", err, "AccessDenied", "cannot be changed")
	bad := *in
	bad.TransitiveTagKeys = []string{"other"}
	_, err = w.STS(bob).AssumeRole(ctx, &bad)
	fails(t, "a transitive key without its tag", err, "InvalidParameterValue", "must be included")

	// Without sts:TagSession in the trust policy, no tags.
	plain := w.role("plain", `{"Effect":"Allow","Principal":{"AWS":"`+userARN+`bob"},"Action":"sts:AssumeRole"}`, "")
	_, err = w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &plain, RoleSessionName: aws.String("s0"), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
	fails(t, "tags where the trust policy has no sts:TagSession", err, "AccessDenied", "sts:TagSession")
	_, err = w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &plain, RoleSessionName: aws.String("s0"), SourceIdentity: aws.String("bob")})
	fails(t, "a source identity where the trust policy has no sts:SetSourceIdentity", err, "AccessDenied", "sts:SetSourceIdentity")
}

// TestCrossAccount: both sides must agree.
func TestCrossAccount(t *testing.T) {
	w := newWorld(t)
	other, keyID, secret, err := w.App.CreateAccount(ctx, "444455556666", "")
	w.must(err)
	theirs := apptest.Keys(keyID, secret, "")
	_, err = w.IAM(theirs).CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("ann")})
	w.must(err)
	k, err := w.IAM(theirs).CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("ann")})
	w.must(err)
	ann := apptest.Keys(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")
	role := w.role("shared", `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+other+`:root"},"Action":"sts:AssumeRole"}`, allow(`"kms:ListKeys"`, "*"))
	closed := w.role("closed", `{`+trusts+`}`, "")
	try := func(arn string) error {
		_, err := w.STS(ann).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.String("ann")})
		return err
	}
	fails(t, "trusted, but not allowed at home", try(role), "AccessDenied", "sts:AssumeRole")
	_, err = w.IAM(theirs).PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("ann"), PolicyName: aws.String("p"), PolicyDocument: aws.String(allow(`"sts:AssumeRole"`, "*"))})
	w.must(err)
	if err := try(role); err != nil {
		t.Errorf("allowed by both accounts: %v", err)
	}
	fails(t, "allowed at home, not trusted", try(closed), "AccessDenied", "sts:AssumeRole")
	info, err := w.STS().GetAccessKeyInfo(ctx, &sts.GetAccessKeyInfoInput{AccessKeyId: k.AccessKey.AccessKeyId})
	if err != nil || *info.Account != other {
		t.Errorf("GetAccessKeyInfo = %v, %v, want %s", info, err, other)
	}
	_, err = w.STS().GetAccessKeyInfo(ctx, &sts.GetAccessKeyInfoInput{AccessKeyId: aws.String("AKIAAAAAAAAAAAAAAAAA")})
	fails(t, "GetAccessKeyInfo of no key", err, "ValidationError", "")
}

func TestFederationAndSessionTokens(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", doc(`{"Effect":"Allow","Action":["sts:*","kms:ListKeys","kms:ListAliases","iam:ListUsers"],"Resource":"*"}`))
	fed, err := w.STS(bob).GetFederationToken(ctx, &sts.GetFederationTokenInput{Name: aws.String("fred"), Policy: aws.String(allow(`["kms:ListKeys","kms:CreateKey","iam:ListUsers"]`, "*"))})
	w.must(err)
	if *fed.FederatedUser.Arn != "arn:aws:sts::"+account+":federated-user/fred" || *fed.FederatedUser.FederatedUserId != account+":fred" {
		t.Errorf("federated user = %s, %s", *fed.FederatedUser.Arn, *fed.FederatedUser.FederatedUserId)
	}
	fred := temporary(fed.Credentials)
	if _, err = w.KMS(fred).ListKeys(ctx, &kms.ListKeysInput{}); err != nil {
		t.Errorf("allowed by user and session: %v", err)
	}
	_, err = w.KMS(fred).ListAliases(ctx, &kms.ListAliasesInput{})
	fails(t, "allowed by the user only", err, "AccessDeniedException", "")
	_, err = w.KMS(fred).CreateKey(ctx, &kms.CreateKeyInput{})
	fails(t, "allowed by the session only", err, "AccessDeniedException", "")
	_, err = w.IAM(fred).ListUsers(ctx, &iam.ListUsersInput{})
	fails(t, "IAM as a federated user", err, "InvalidClientTokenId", "")
	_, err = w.STS(fred).GetFederationToken(ctx, &sts.GetFederationTokenInput{Name: aws.String("more")})
	fails(t, "federation from a session", err, "AccessDenied", "session credentials")
	bare, err := w.STS(bob).GetFederationToken(ctx, &sts.GetFederationTokenInput{Name: aws.String("bare")})
	w.must(err)
	_, err = w.KMS(temporary(bare.Credentials)).ListKeys(ctx, &kms.ListKeysInput{})
	fails(t, "a federated session without policies", err, "AccessDeniedException", "")
	if _, err = w.STS(temporary(bare.Credentials)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("GetCallerIdentity: %v", err)
	}

	ses, err := w.STS(bob).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	w.must(err)
	same := temporary(ses.Credentials)
	if _, err = w.KMS(same).ListAliases(ctx, &kms.ListAliasesInput{}); err != nil {
		t.Errorf("a session of the user: %v", err)
	}
	_, err = w.IAM(same).ListUsers(ctx, &iam.ListUsersInput{})
	fails(t, "IAM in a session without MFA", err, "InvalidClientTokenId", "The security token included in the request is invalid")
	_, err = w.STS(same).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	fails(t, "a session from a session", err, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	_, err = w.STS(apptest.Keys(*ses.Credentials.AccessKeyId, *ses.Credentials.SecretAccessKey, *fed.Credentials.SessionToken)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	fails(t, "another session's token", err, "InvalidClientTokenId", "")
}

// totp is the code of a seed in base32 at a time: RFC 6238.
func totp(seed []byte, at time.Time) string {
	key, _ := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(string(seed))
	m := hmac.New(sha1.New, key)
	_ = binary.Write(m, binary.BigEndian, at.Unix()/30)
	sum := m.Sum(nil)
	o := sum[len(sum)-1] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[o:])&0x7fffffff)%1000000)
}

func TestMFA(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", doc(`{"Effect":"Allow","Action":"*","Resource":"*"}`))
	role := w.role("careful", `{`+trusts+`,"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}`, "")
	dev, err := w.IAM().CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: aws.String("phone")})
	w.must(err)
	serial, seed := dev.VirtualMFADevice.SerialNumber, dev.VirtualMFADevice.Base32StringSeed
	now := time.Now()
	_, err = w.IAM().EnableMFADevice(ctx, &iam.EnableMFADeviceInput{UserName: aws.String("bob"), SerialNumber: serial,
		AuthenticationCode1: aws.String(totp(seed, now.Add(-60*time.Second))), AuthenticationCode2: aws.String(totp(seed, now.Add(-30*time.Second)))})
	w.must(err)
	in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("s0")}
	_, err = w.STS(bob).AssumeRole(ctx, in)
	fails(t, "without a code", err, "AccessDenied", "sts:AssumeRole")
	in.SerialNumber, in.TokenCode = serial, aws.String(totp(seed, now.Add(-time.Hour)))
	_, err = w.STS(bob).AssumeRole(ctx, in)
	fails(t, "with an old code", err, "AccessDenied", "invalid MFA one time pass code")
	in.TokenCode = aws.String(totp(seed, now))
	_, err = w.STS(bob).AssumeRole(ctx, in)
	w.must(err)
	_, err = w.STS(bob).AssumeRole(ctx, in)
	fails(t, "with the same code again", err, "AccessDenied", "invalid MFA one time pass code")
	ses, err := w.STS(bob).GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: serial, TokenCode: aws.String(totp(seed, now.Add(30*time.Second)))})
	w.must(err)
	if _, err = w.IAM(temporary(ses.Credentials)).ListUsers(ctx, &iam.ListUsersInput{}); err != nil {
		t.Errorf("IAM in a session with MFA: %v", err)
	}
	if _, err = w.STS(temporary(ses.Credentials)).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("s0")}); err != nil {
		t.Errorf("the role from a session with MFA: %v", err)
	}
}

// TestRecords: the trail of CreateAccessKey and AssumeRole, without their secrets.
func TestRecords(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allow(assume, "*"))
	role := w.role("ops", `{`+trusts+`}`, "")
	out, err := w.STS(bob).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("s1")})
	w.must(err)
	bobKey, err := bob.Retrieve(ctx)
	w.must(err)
	cfg := w.Config()
	cfg.Region = "us-east-1" // IAM's records are there
	events := ""
	for range 50 {
		got, err := cloudtrail.NewFromConfig(cfg).LookupEvents(ctx, &cloudtrail.LookupEventsInput{})
		w.must(err)
		events = ""
		for _, e := range got.Events {
			events += *e.CloudTrailEvent + "\n"
		}
		if strings.Contains(events, `"CreateAccessKey"`) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !strings.Contains(events, `"eventName":"CreateAccessKey"`) || !strings.Contains(events, bobKey.AccessKeyID) {
		t.Errorf("no record of CreateAccessKey with the key's ID in us-east-1:\n%s", events)
	}
	got, err := w.CloudTrail().LookupEvents(ctx, &cloudtrail.LookupEventsInput{})
	w.must(err)
	for _, e := range got.Events {
		events += *e.CloudTrailEvent + "\n"
	}
	for what, s := range map[string]string{"secret access key": bobKey.SecretAccessKey, "session's secret": *out.Credentials.SecretAccessKey, "session token": *out.Credentials.SessionToken} {
		if strings.Contains(events, s) {
			t.Errorf("a record holds the %s", what)
		}
	}
	if !strings.Contains(events, `"eventName":"AssumeRole"`) || !strings.Contains(events, `"ARN":"`+role+`"`) {
		t.Errorf("no record of AssumeRole with the role as resource:\n%s", events)
	}
	used, err := w.IAM().GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &bobKey.AccessKeyID})
	if err != nil || aws.ToString(used.AccessKeyLastUsed.ServiceName) != "sts" || *used.UserName != "bob" {
		t.Errorf("GetAccessKeyLastUsed = %+v, %v, want bob's use of sts", used, err)
	}
}
