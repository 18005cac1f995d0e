package iam_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// TestServiceLastAccessed: ann uses KMS by her group's policy, bob nothing, and a
// session of a role uses KMS too.
func TestServiceLastAccessed(t *testing.T) {
	srv := apptest.New(t)
	c := srv.IAM()
	s := aws.String
	arn := func(kind, name string) *string {
		return s("arn:aws:iam::" + apptest.Account + ":" + kind + "/" + name)
	}
	must[*iam.CreateGroupOutput](t)(c.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: s("keys")}))
	must[*iam.PutGroupPolicyOutput](t)(c.PutGroupPolicy(ctx, &iam.PutGroupPolicyInput{GroupName: s("keys"), PolicyName: s("inline"), PolicyDocument: s(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:List*","Resource":"*"}]}`)}))
	managed := must[*iam.CreatePolicyOutput](t)(c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: s("rest"), PolicyDocument: s(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["iam:*","sts:*","ds:*","ds-data:*","cloudtrail:*","rbin:*","ebs:*"],"Resource":"*"},{"Effect":"Deny","Action":"ec2:*","Resource":"*"}]}`)})).Policy.Arn
	keys := map[string]aws.CredentialsProvider{}
	for _, n := range []string{"ann", "bob"} {
		must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: &n}))
		must[*iam.AddUserToGroupOutput](t)(c.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: s("keys"), UserName: &n}))
		k := must[*iam.CreateAccessKeyOutput](t)(c.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &n})).AccessKey
		keys[n] = apptest.Keys(*k.AccessKeyId, *k.SecretAccessKey, "")
	}
	must[*iam.CreateRoleOutput](t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: s("job"), AssumeRolePolicyDocument: s(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + *arn("user", "ann") + `"},"Action":"sts:AssumeRole"}]}`)}))
	must[*iam.AttachRolePolicyOutput](t)(c.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: s("job"), PolicyArn: managed}))
	before := time.Now().Add(-time.Second)
	must[*kms.ListKeysOutput](t)(srv.KMS(keys["ann"]).ListKeys(ctx, &kms.ListKeysInput{}))
	session := must[*sts.AssumeRoleOutput](t)(srv.STS(keys["ann"]).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: arn("role", "job"), RoleSessionName: s("now")})).Credentials
	must[*kms.ListKeysOutput](t)(srv.KMS(apptest.Keys(*session.AccessKeyId, *session.SecretAccessKey, *session.SessionToken)).ListKeys(ctx, &kms.ListKeysInput{}))

	report := func(of *string) (string, map[string]types.ServiceLastAccessed) {
		t.Helper()
		job := must[*iam.GenerateServiceLastAccessedDetailsOutput](t)(c.GenerateServiceLastAccessedDetails(ctx, &iam.GenerateServiceLastAccessedDetailsInput{Arn: of})).JobId
		out := must[*iam.GetServiceLastAccessedDetailsOutput](t)(c.GetServiceLastAccessedDetails(ctx, &iam.GetServiceLastAccessedDetailsInput{JobId: job}))
		if out.JobStatus != types.JobStatusTypeCompleted || out.JobType != types.AccessAdvisorUsageGranularityTypeServiceLevel {
			t.Errorf("report of %s: %s, %s", *of, out.JobStatus, out.JobType)
		}
		m := map[string]types.ServiceLastAccessed{}
		for _, e := range out.ServicesLastAccessed {
			m[*e.ServiceNamespace] = e
		}
		return *job, m
	}
	_, ann := report(arn("user", "ann"))
	if e := ann["kms"]; len(ann) != 1 || *e.ServiceName != "AWS Key Management Service" || e.LastAuthenticated == nil || e.LastAuthenticated.Before(before) || *e.LastAuthenticatedEntity != *arn("user", "ann") || *e.TotalAuthenticatedEntities != 1 {
		t.Errorf("ann's report = %+v, want her use of KMS alone", ann)
	}
	if _, bob := report(arn("user", "bob")); len(bob) != 1 || bob["kms"].LastAuthenticated != nil || *bob["kms"].TotalAuthenticatedEntities != 0 {
		t.Errorf("bob's report = %+v, want KMS, never used", bob)
	}
	if _, p := report(managed); len(p) != 3 || p["kms"].LastAuthenticatedEntity == nil || *p["kms"].LastAuthenticatedEntity != *arn("role", "job") || p["ec2"].LastAuthenticated != nil || p["workspaces"].ServiceName == nil {
		t.Errorf("the policy's report = %+v, want KMS by the role, EC2 and WorkSpaces by nobody", p)
	}
	job, group := report(arn("group", "keys"))
	if *group["kms"].TotalAuthenticatedEntities != 1 {
		t.Errorf("the group's report = %+v", group)
	}
	list := must[*iam.GetServiceLastAccessedDetailsWithEntitiesOutput](t)(c.GetServiceLastAccessedDetailsWithEntities(ctx, &iam.GetServiceLastAccessedDetailsWithEntitiesInput{JobId: &job, ServiceNamespace: s("kms")})).EntityDetailsList
	if len(list) != 2 || *list[0].EntityInfo.Name != "ann" || list[0].LastAuthenticated == nil || *list[1].EntityInfo.Name != "bob" || list[1].LastAuthenticated != nil {
		t.Errorf("entities of the group = %+v", list)
	}
	grants := must[*iam.ListPoliciesGrantingServiceAccessOutput](t)(c.ListPoliciesGrantingServiceAccess(ctx, &iam.ListPoliciesGrantingServiceAccessInput{Arn: arn("user", "ann"), ServiceNamespaces: []string{"kms", "iam"}})).PoliciesGrantingServiceAccess
	if len(grants) != 2 || len(grants[0].Policies) != 0 || len(grants[1].Policies) != 1 || *grants[1].Policies[0].EntityName != "keys" || grants[1].Policies[0].EntityType != types.PolicyOwnerEntityTypeGroup || grants[1].Policies[0].PolicyType != types.PolicyTypeInline {
		t.Errorf("policies that grant ann = %+v", grants)
	}

	// A report is for whom it was made, and a new ann is another.
	must[*iam.PutUserPolicyOutput](t)(c.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: s("bob"), PolicyName: s("p"), PolicyDocument: s(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:GetServiceLastAccessedDetails","Resource":"*"}]}`)}))
	_, err := srv.IAM(keys["bob"]).GetServiceLastAccessedDetails(ctx, &iam.GetServiceLastAccessedDetailsInput{JobId: &job})
	if code(err) != "NoSuchEntity" {
		t.Errorf("another's report = %v, want NoSuchEntity", err)
	}
	_, err = c.GenerateServiceLastAccessedDetails(ctx, &iam.GenerateServiceLastAccessedDetailsInput{Arn: arn("user", "nobody")})
	if code(err) != "NoSuchEntity" {
		t.Errorf("a report of nobody = %v, want NoSuchEntity", err)
	}
}
