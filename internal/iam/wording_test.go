package iam_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

const (
	ec2Trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	aPolicy  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*"}]}`
)

// answers checks code, message and HTTP status of a refusal.
func answers(t *testing.T, what string, err error, status int, code, message string) {
	t.Helper()
	var ae smithy.APIError
	var re *awshttp.ResponseError
	if !errors.As(err, &ae) || !errors.As(err, &re) {
		t.Errorf("%s = %v, want %s", what, err, code)
		return
	}
	if ae.ErrorCode() != code || ae.ErrorMessage() != message || re.HTTPStatusCode() != status {
		t.Errorf("%s = %d %s: %s\nwant %d %s: %s", what, re.HTTPStatusCode(), ae.ErrorCode(), ae.ErrorMessage(), status, code, message)
	}
}

// TestWording holds what IAM says against what was recorded of AWS in February
// 2026 (LocalStack's snapshots of its tests run against AWS).
func TestWording(t *testing.T) {
	c := apptest.New(t).IAM()
	s := aws.String
	arn := func(kind, name string) *string {
		return s("arn:aws:iam::" + apptest.Account + ":" + kind + "/" + name)
	}
	must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: s("u")}))
	must[*iam.CreateRoleOutput](t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: s("r"), AssumeRolePolicyDocument: s(ec2Trust)}))
	must[*iam.CreateGroupOutput](t)(c.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: s("g")}))
	must[*iam.CreateInstanceProfileOutput](t)(c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: s("ip")}))
	must[*iam.CreateVirtualMFADeviceOutput](t)(c.CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: s("m")}))

	_, err := c.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: arn("policy", "none"), VersionId: s("v1")})
	answers(t, "GetPolicyVersion", err, 404, "NoSuchEntity", "Policy "+*arn("policy", "none")+" version v1 does not exist or is not attachable.")
	_, err = c.SetDefaultPolicyVersion(ctx, &iam.SetDefaultPolicyVersionInput{PolicyArn: arn("policy", "none"), VersionId: s("wrong")})
	answers(t, "SetDefaultPolicyVersion", err, 400, "ValidationError", `1 validation error detected: Value at 'versionId' failed to satisfy constraint: Member must satisfy regular expression pattern: v[1-9][0-9]*(\.[A-Za-z0-9-]*)?`)
	_, err = c.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: s("r"), PolicyArn: s("longpolicynamebutnoarn")})
	answers(t, "AttachRolePolicy", err, 400, "ValidationError", "ARN longpolicynamebutnoarn is not valid.")
	_, err = c.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: s("r"), PermissionsBoundary: arn("not_a_policy", "invalid")})
	answers(t, "PutRolePermissionsBoundary", err, 400, "InvalidInput", "ARN "+*arn("not_a_policy", "invalid")+" is not valid.")
	_, err = c.RemoveUserFromGroup(ctx, &iam.RemoveUserFromGroupInput{GroupName: s("none"), UserName: s("any-user")})
	answers(t, "RemoveUserFromGroup", err, 404, "NoSuchEntity", "The user with name any-user cannot be found.")
	_, err = c.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: s("ip"), RoleName: s("r")})
	answers(t, "RemoveRoleFromInstanceProfile", err, 404, "NoSuchEntity", "Role r in Instance Profile ip cannot be found.")
	_, err = c.CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: s("m")})
	answers(t, "CreateVirtualMFADevice", err, 409, "EntityAlreadyExists", "MFA device already exists.")
	_, err = c.CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: s("n"), Path: s("test")})
	answers(t, "CreateVirtualMFADevice", err, 400, "ValidationError", "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	_, err = c.DeactivateMFADevice(ctx, &iam.DeactivateMFADeviceInput{UserName: s("u"), SerialNumber: arn("mfa", "none")})
	answers(t, "DeactivateMFADevice", err, 404, "NoSuchEntity", "MFA Device with serial number "+*arn("mfa", "none")+" does not exist.")
	_, err = c.ListVirtualMFADevices(ctx, &iam.ListVirtualMFADevicesInput{Marker: s("100")})
	answers(t, "ListVirtualMFADevices", err, 400, "ValidationError", "Invalid Marker.")
	six := []string{}
	for range 6 {
		six = append(six, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	}
	_, err = c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: s("https://o.example.com"), ThumbprintList: six})
	answers(t, "CreateOpenIDConnectProvider", err, 400, "InvalidInput", "Thumbprint list must contain fewer than 5 entries.")
	_, err = c.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn("oidc-provider", "none")})
	answers(t, "DeleteOpenIDConnectProvider", err, 404, "NoSuchEntity", "OpenId connect Provider "+*arn("oidc-provider", "none")+" cannot be found.")
	_, err = c.DeleteAccountPasswordPolicy(ctx, &iam.DeleteAccountPasswordPolicyInput{})
	answers(t, "DeleteAccountPasswordPolicy", err, 404, "NoSuchEntity", "The account policy with name PasswordPolicy cannot be found.")
	_, err = c.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: s("AKIAIOSFODNN7EXAMPLE")})
	answers(t, "GetAccessKeyLastUsed", err, 403, "AccessDenied", "User: arn:aws:iam::"+apptest.Account+":root is not authorized to perform iam:GetAccessKeyLastUsed on resource: access key AKIAIOSFODNN7EXAMPLE")
	_, err = c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: s("old"), PolicyDocument: s(`{"Statement":{"Effect":"Allow","Action":"a:b","Resource":"*"}}`)})
	answers(t, "CreatePolicy", err, 400, "MalformedPolicyDocument", "Policy document must be version 2012-10-17 or greater.")

	// Keys of tags differ by case for a policy, not for a role.
	two := []types.Tag{{Key: s("a"), Value: s("lowercase")}, {Key: s("A"), Value: s("uppercase")}}
	p := must[*iam.CreatePolicyOutput](t)(c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: s("p"), PolicyDocument: s(aPolicy), Tags: two})).Policy
	if len(p.Tags) != 2 || *p.Tags[0].Key != "a" {
		t.Errorf("CreatePolicy's tags = %v, want them as given", p.Tags)
	}
	if got := must[*iam.ListPolicyTagsOutput](t)(c.ListPolicyTags(ctx, &iam.ListPolicyTagsInput{PolicyArn: p.Arn})).Tags; len(got) != 2 || *got[0].Key != "A" {
		t.Errorf("ListPolicyTags = %v, want A before a", got)
	}
	must[*iam.UntagPolicyOutput](t)(c.UntagPolicy(ctx, &iam.UntagPolicyInput{PolicyArn: p.Arn, TagKeys: []string{"a"}}))
	if got := must[*iam.GetPolicyOutput](t)(c.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: p.Arn})).Policy.Tags; len(got) != 1 || *got[0].Value != "uppercase" {
		t.Errorf("tags after UntagPolicy(a) = %v, want A alone", got)
	}
	_, err = c.TagRole(ctx, &iam.TagRoleInput{RoleName: s("r"), Tags: two})
	answers(t, "TagRole", err, 400, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
	_, err = c.TagPolicy(ctx, &iam.TagPolicyInput{PolicyArn: p.Arn, Tags: []types.Tag{two[0], two[0]}})
	answers(t, "TagPolicy", err, 400, "InvalidInput", "Duplicate tag keys found.")

	// What is there though empty, and what is left out.
	if got := must[*iam.GetInstanceProfileOutput](t)(c.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: s("ip")})).InstanceProfile; got.Tags == nil {
		t.Error("GetInstanceProfile leaves Tags out, want an empty list")
	}
	must[*iam.UpdateRoleOutput](t)(c.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: s("r"), MaxSessionDuration: aws.Int32(7200)}))
	must[*iam.UpdateRoleOutput](t)(c.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: s("r")}))
	if got := must[*iam.GetRoleOutput](t)(c.GetRole(ctx, &iam.GetRoleInput{RoleName: s("r")})).Role; *got.MaxSessionDuration != 7200 || got.RoleLastUsed == nil || got.Tags != nil {
		t.Errorf("GetRole = %+v, want the 7200 s it had, RoleLastUsed and no Tags", got)
	}
}
