package iam_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

var ctx = context.Background()

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func code(err error) string {
	var ae smithy.APIError
	if errors.As(err, &ae) {
		return ae.ErrorCode()
	}
	return ""
}

// TestDelegatedAdministrator is the example of the IAM User Guide, "Delegating
// responsibility to others using permissions boundaries": Maria may make users
// and give them policies only under the boundary XCompanyBoundaries.
func TestDelegatedAdministrator(t *testing.T) {
	s := apptest.New(t)
	root := s.IAM()
	boundary := *must[*iam.CreatePolicyOutput](t)(root.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("XCompanyBoundaries"),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:*","iam:ListUsers"],"Resource":"*"}]}`)})).Policy.Arn
	must[*iam.CreateUserOutput](t)(root.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("maria")}))
	must[*iam.PutUserPolicyOutput](t)(root.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("maria"), PolicyName: aws.String("delegated"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[
	{"Sid":"CreateOrChangeOnlyWithBoundary","Effect":"Allow","Action":["iam:AttachUserPolicy","iam:CreateUser","iam:DeleteUserPolicy","iam:DetachUserPolicy","iam:PutUserPermissionsBoundary","iam:PutUserPolicy"],"Resource":"*",
	 "Condition":{"StringEquals":{"iam:PermissionsBoundary":"` + boundary + `"}}},
	{"Sid":"NoBoundaryPolicyEdit","Effect":"Deny","Action":["iam:CreatePolicyVersion","iam:DeletePolicy","iam:DeletePolicyVersion","iam:SetDefaultPolicyVersion"],"Resource":["` + boundary + `"]},
	{"Sid":"NoBoundaryUserDelete","Effect":"Deny","Action":"iam:DeleteUserPermissionsBoundary","Resource":"*"}]}`)}))
	k := must[*iam.CreateAccessKeyOutput](t)(root.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("maria")})).AccessKey
	maria := s.IAM(apptest.Keys(*k.AccessKeyId, *k.SecretAccessKey, ""))
	must[*iam.CreateUserOutput](t)(maria.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("zhang"), PermissionsBoundary: &boundary}))
	must[*iam.AttachUserPolicyOutput](t)(maria.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("zhang"), PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")}))
	must[*iam.CreateUserOutput](t)(root.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("free")}))
	for what, f := range map[string]func() error{
		"CreateUser without the boundary": func() error {
			_, err := maria.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("x")})
			return err
		},
		"AttachUserPolicy to a user without it": func() error {
			_, err := maria.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("free"), PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")})
			return err
		},
		"PutUserPolicy on herself": func() error {
			_, err := maria.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("maria"), PolicyName: aws.String("p"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)})
			return err
		},
		"DeleteUserPermissionsBoundary": func() error {
			_, err := maria.DeleteUserPermissionsBoundary(ctx, &iam.DeleteUserPermissionsBoundaryInput{UserName: aws.String("zhang")})
			return err
		},
		"CreatePolicyVersion of the boundary": func() error {
			_, err := maria.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &boundary, SetAsDefault: true, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)})
			return err
		},
	} {
		if err := f(); code(err) != "AccessDenied" {
			t.Errorf("%s = %v, want AccessDenied", what, err)
		}
	}
	zk := must[*iam.CreateAccessKeyOutput](t)(root.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("zhang")})).AccessKey
	zhang := s.IAM(apptest.Keys(*zk.AccessKeyId, *zk.SecretAccessKey, ""))
	must[*iam.ListUsersOutput](t)(zhang.ListUsers(ctx, &iam.ListUsersInput{}))
	if _, err := zhang.ListRoles(ctx, &iam.ListRolesInput{}); code(err) != "AccessDenied" {
		t.Errorf("AdministratorAccess outside the boundary = %v, want AccessDenied", err)
	}
}

// TestOverTheWire sends what has a form of its own on the wire: lists, maps,
// blobs, unions, encoded documents, paginators.
func TestOverTheWire(t *testing.T) {
	s := apptest.New(t)
	c := s.IAM()
	tags := []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b c"), Value: aws.String("ü +=@")}}
	doc := `{"Version":"2012-10-17","Statement":[{"Sid":"S1","Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	role := must[*iam.CreateRoleOutput](t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("r1"), AssumeRolePolicyDocument: &doc, Tags: tags})).Role
	if got, err := url.PathUnescape(*role.AssumeRolePolicyDocument); err != nil || got != doc {
		t.Errorf("AssumeRolePolicyDocument = %s, want it percent-encoded", *role.AssumeRolePolicyDocument)
	}
	if len(role.Tags) != 2 || *role.Tags[1].Value != "ü +=@" {
		t.Errorf("tags = %v, want %v", role.Tags, tags)
	}
	for _, n := range strings.Fields("u1 u2 u3 u4 u5") {
		must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: &n}))
	}
	var names []string
	pages := 0
	for p := iam.NewListUsersPaginator(c, &iam.ListUsersInput{MaxItems: aws.Int32(2)}); p.HasMorePages(); pages++ {
		for _, u := range must[*iam.ListUsersOutput](t)(p.NextPage(ctx)).Users {
			names = append(names, *u.UserName)
		}
	}
	if got := strings.Join(names, " "); got != "u1 u2 u3 u4 u5" || pages != 3 {
		t.Errorf("paginator gave %q in %d pages, want u1…u5 in 3", got, pages)
	}
	if m := must[*iam.GetAccountSummaryOutput](t)(c.GetAccountSummary(ctx, &iam.GetAccountSummaryInput{})).SummaryMap; m["Users"] != 5 || m["Roles"] != 1 {
		t.Errorf("summary: Users %d, Roles %d, want 5 and 1", m["Users"], m["Roles"])
	}
	d := must[*iam.CreateVirtualMFADeviceOutput](t)(c.CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: aws.String("m")})).VirtualMFADevice
	if len(d.Base32StringSeed) != 32 || string(d.QRCodePNG[1:4]) != "PNG" {
		t.Errorf("virtual MFA device: seed of %d characters, %d bytes of PNG", len(d.Base32StringSeed), len(d.QRCodePNG))
	}
	must[*iam.GenerateCredentialReportOutput](t)(c.GenerateCredentialReport(ctx, &iam.GenerateCredentialReportInput{}))
	if rep := must[*iam.GetCredentialReportOutput](t)(c.GetCredentialReport(ctx, &iam.GetCredentialReportInput{})); !strings.HasPrefix(string(rep.Content), "user,arn,") {
		t.Errorf("credential report begins %.40q", rep.Content)
	}
	must[*iam.AttachUserPolicyOutput](t)(c.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("u1"), PolicyArn: aws.String("arn:aws:iam::aws:policy/PowerUserAccess")}))
	sim := func(x ...types.PolicyIdentifier) types.PolicyEvaluationDecisionType {
		t.Helper()
		out := must[*iam.SimulatePrincipalPolicyOutput](t)(c.SimulatePrincipalPolicy(ctx, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: aws.String("arn:aws:iam::" + apptest.Account + ":user/u1"), ActionNames: []string{"kms:CreateKey"}, PolicyExclusionList: x,
			ContextEntries: []types.ContextEntry{{ContextKeyName: aws.String("aws:SourceIp"), ContextKeyType: types.ContextKeyTypeEnumIp, ContextKeyValues: []string{"10.0.0.1"}}}}))
		return out.EvaluationResults[0].EvalDecision
	}
	if got := sim(); got != types.PolicyEvaluationDecisionTypeAllowed {
		t.Errorf("simulation = %s, want allowed", got)
	}
	if got := sim(&types.PolicyIdentifierMemberPolicyArn{Value: "arn:aws:iam::aws:policy/PowerUserAccess"}); got != types.PolicyEvaluationDecisionTypeImplicitDeny {
		t.Errorf("simulation without PowerUserAccess = %s, want implicitDeny", got)
	}
	if _, err := c.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("bad name")}); code(err) != "ValidationError" {
		t.Errorf("CreateUser(bad name) = %v, want ValidationError", err)
	}
}
