package iam

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

func allow(action, resource string) *string {
	return aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"` + action + `","Resource":"` + resource + `"}]}`)
}

func trust(principal string) *string {
	return aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"sts:AssumeRole"}]}`)
}

func (e *env) user(name string) *types.User {
	e.t.Helper()
	return do[iam.CreateUserOutput](e, e.root(), &iam.CreateUserInput{UserName: &name}).User
}

func (e *env) policy(name string, doc *string) string {
	e.t.Helper()
	return *do[iam.CreatePolicyOutput](e, e.root(), &iam.CreatePolicyInput{PolicyName: &name, PolicyDocument: doc}).Policy.Arn
}

func TestUserLife(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	u := do[iam.CreateUserOutput](e, c, &iam.CreateUserInput{UserName: aws.String("Alice"), Path: aws.String("/eng/"), Tags: []types.Tag{{Key: aws.String("Team"), Value: aws.String("Blue")}}}).User
	if got, want := *u.Arn, "arn:aws:iam::111122223333:user/eng/Alice"; got != want {
		t.Errorf("Arn = %s, want %s", got, want)
	}
	if !strings.HasPrefix(*u.UserId, "AIDA") || len(*u.UserId) != 21 || !u.CreateDate.Equal(e.clock.Now()) {
		t.Errorf("UserId %s, CreateDate %v, want AIDA and 17 characters, %v", *u.UserId, u.CreateDate, e.clock.Now())
	}
	refused[iam.CreateUserOutput](e, c, &iam.CreateUserInput{UserName: aws.String("ALICE")}, "EntityAlreadyExists", "User with name ALICE already exists.")
	refused[iam.GetUserOutput](e, c, &iam.GetUserInput{UserName: aws.String("bob")}, "NoSuchEntity", "The user with name bob cannot be found.")
	if got := do[iam.GetUserOutput](e, e.as("alice"), &iam.GetUserInput{}).User; *got.UserName != "Alice" || len(got.Tags) != 1 {
		t.Errorf("GetUser of the caller = %+v, want Alice with a tag", got)
	}
	if got := do[iam.GetUserOutput](e, c, &iam.GetUserInput{}).User; *got.Arn != "arn:aws:iam::111122223333:root" {
		t.Errorf("GetUser by root = %s, want root", *got.Arn)
	}
	session := e.root()
	session.Principal = api.Principal{Type: api.AssumedRole, Account: acct}
	refused[iam.GetUserOutput](e, session, &iam.GetUserInput{}, "ValidationError", "Must specify userName when calling with non-User credentials")

	// A rename keeps ID, keys and permissions.
	k := do[iam.CreateAccessKeyOutput](e, c, &iam.CreateAccessKeyInput{UserName: aws.String("Alice")}).AccessKey
	do[iam.PutUserPolicyOutput](e, c, &iam.PutUserPolicyInput{UserName: aws.String("Alice"), PolicyName: aws.String("p"), PolicyDocument: allow("kms:*", "*")})
	do[iam.UpdateUserOutput](e, c, &iam.UpdateUserInput{UserName: aws.String("Alice"), NewUserName: aws.String("Carol"), NewPath: aws.String("/ops/")})
	cred, err := e.s.Credential(context.Background(), *k.AccessKeyId, "", e.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := cred.Principal; got.ARN != "arn:aws:iam::111122223333:user/ops/Carol" || got.ID != *u.UserId || got.Tags["Team"] != "Blue" {
		t.Errorf("principal after the rename = %+v", got)
	}
	if d := e.decide(&cred.Principal, "kms:Encrypt", "*"); !d.Allowed() {
		t.Errorf("after the rename kms:Encrypt: %+v, want allowed", d)
	}
	refused[iam.GetUserOutput](e, c, &iam.GetUserInput{UserName: aws.String("Alice")}, "NoSuchEntity", "Alice")

	// Deleting asks for the parts to go first, in AWS's words.
	do[iam.CreateGroupOutput](e, c, &iam.CreateGroupInput{GroupName: aws.String("G")})
	do[iam.AddUserToGroupOutput](e, c, &iam.AddUserToGroupInput{GroupName: aws.String("g"), UserName: aws.String("carol")})
	do[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("carol"), PolicyArn: aws.String("arn:aws:iam::aws:policy/ReadOnlyAccess")})
	do[iam.CreateLoginProfileOutput](e, c, &iam.CreateLoginProfileInput{UserName: aws.String("carol"), Password: aws.String("Correct-horse-1")})
	del := &iam.DeleteUserInput{UserName: aws.String("Carol")}
	for _, step := range []struct {
		want string
		undo func()
	}{
		{"must remove users from group first", func() {
			do[iam.RemoveUserFromGroupOutput](e, c, &iam.RemoveUserFromGroupInput{GroupName: aws.String("G"), UserName: aws.String("Carol")})
		}},
		{"must detach all policies first", func() {
			do[iam.DetachUserPolicyOutput](e, c, &iam.DetachUserPolicyInput{UserName: aws.String("carol"), PolicyArn: aws.String("arn:aws:iam::aws:policy/ReadOnlyAccess")})
		}},
		{"must delete policies first", func() {
			do[iam.DeleteUserPolicyOutput](e, c, &iam.DeleteUserPolicyInput{UserName: aws.String("carol"), PolicyName: aws.String("P")})
		}},
		{"must delete access keys first", func() {
			do[iam.DeleteAccessKeyOutput](e, c, &iam.DeleteAccessKeyInput{UserName: aws.String("carol"), AccessKeyId: k.AccessKeyId})
		}},
		{"must delete login profile first", func() {
			do[iam.DeleteLoginProfileOutput](e, c, &iam.DeleteLoginProfileInput{UserName: aws.String("carol")})
		}},
	} {
		refused[iam.DeleteUserOutput](e, c, del, "DeleteConflict", step.want)
		step.undo()
	}
	do[iam.DeleteUserOutput](e, c, del)
	do[iam.DeleteGroupOutput](e, c, &iam.DeleteGroupInput{GroupName: aws.String("G")})
	if _, err := e.s.Credential(context.Background(), *k.AccessKeyId, "", e.clock.Now()); !errors.Is(err, api.ErrUnknownAccessKey) {
		t.Errorf("Credential of a deleted user's key = %v, want ErrUnknownAccessKey", err)
	}
}

func TestAccessKeys(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	bob := &iam.CreateAccessKeyInput{UserName: aws.String("bob")}
	k1 := do[iam.CreateAccessKeyOutput](e, c, bob).AccessKey
	k2 := do[iam.CreateAccessKeyOutput](e, e.as("bob"), &iam.CreateAccessKeyInput{}).AccessKey
	refused[iam.CreateAccessKeyOutput](e, c, bob, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
	if acc, ok := ids.AccountOfAccessKey(*k1.AccessKeyId); !ok || acc != acct || !strings.HasPrefix(*k1.AccessKeyId, "AKIA") || len(*k1.AccessKeyId) != 20 {
		t.Errorf("key ID %s holds account %q, want %s", *k1.AccessKeyId, acc, acct)
	}
	cred, err := e.s.Credential(context.Background(), *k1.AccessKeyId, "", e.clock.Now())
	if err != nil || string(cred.SecretAccessKey.Expose()) != *k1.SecretAccessKey {
		t.Fatalf("Credential = %v, %v, want the secret that CreateAccessKey gave", cred, err)
	}
	if _, err := e.s.Credential(context.Background(), *k1.AccessKeyId, "token", e.clock.Now()); !errors.Is(err, api.ErrInvalidToken) {
		t.Errorf("long-term key with a token: %v, want ErrInvalidToken", err)
	}
	do[iam.UpdateAccessKeyOutput](e, c, &iam.UpdateAccessKeyInput{UserName: aws.String("bob"), AccessKeyId: k1.AccessKeyId, Status: types.StatusTypeInactive})
	if _, err := e.s.Credential(context.Background(), *k1.AccessKeyId, "", e.clock.Now()); !errors.Is(err, api.ErrUnknownAccessKey) {
		t.Errorf("inactive key: %v, want ErrUnknownAccessKey", err)
	}
	refused[iam.DeleteAccessKeyOutput](e, c, &iam.DeleteAccessKeyInput{AccessKeyId: k1.AccessKeyId}, "NoSuchEntity", "The Access Key with id "+*k1.AccessKeyId+" cannot be found.")
	list := do[iam.ListAccessKeysOutput](e, c, &iam.ListAccessKeysInput{UserName: aws.String("bob")}).AccessKeyMetadata
	if len(list) != 2 {
		t.Errorf("ListAccessKeys has %d, want 2", len(list))
	}

	// Last used: from memory at once, from the store after a flush and restart.
	e.s.Used(acct, *k2.AccessKeyId, "kms", "us-west-2", e.clock.Now())
	e.s.flushUses(context.Background())
	last := do[iam.GetAccessKeyLastUsedOutput](e, c, &iam.GetAccessKeyLastUsedInput{AccessKeyId: k2.AccessKeyId})
	if *last.UserName != "bob" || *last.AccessKeyLastUsed.ServiceName != "kms" || *last.AccessKeyLastUsed.Region != "us-west-2" {
		t.Errorf("last used = %+v", last)
	}
	never := do[iam.GetAccessKeyLastUsedOutput](e, c, &iam.GetAccessKeyLastUsedInput{AccessKeyId: k1.AccessKeyId})
	if never.AccessKeyLastUsed.LastUsedDate != nil || *never.AccessKeyLastUsed.ServiceName != "N/A" {
		t.Errorf("never used = %+v, want N/A", never.AccessKeyLastUsed)
	}
	e.st.Close()
	e.start()
	if _, ok := e.s.lastUse(e.st.Snapshot(), use{acct, *k2.AccessKeyId, ""}); !ok {
		t.Error("the last-used date is gone after a restart")
	}
	if cred, err := e.s.Credential(context.Background(), *k2.AccessKeyId, "", e.clock.Now()); err != nil || string(cred.SecretAccessKey.Expose()) != *k2.SecretAccessKey {
		t.Errorf("after a restart Credential = %v, want the same secret", err)
	}
}

// TestNoSecretAtRest looks for every secret that was handed out in the files of the store.
func TestNoSecretAtRest(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	secrets := map[string]string{"root secret": rootSecret, "password": "Canary-Password-77"}
	k := do[iam.CreateAccessKeyOutput](e, c, &iam.CreateAccessKeyInput{UserName: aws.String("bob")}).AccessKey
	secrets["secret access key"] = *k.SecretAccessKey
	do[iam.CreateLoginProfileOutput](e, c, &iam.CreateLoginProfileInput{UserName: aws.String("bob"), Password: aws.String(secrets["password"])})
	d := do[iam.CreateVirtualMFADeviceOutput](e, c, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: aws.String("phone")}).VirtualMFADevice
	secrets["MFA seed"] = string(d.Base32StringSeed)
	e.st.Close()
	files, seen := 0, false
	err := filepath.WalkDir(filepath.Join(e.dir, "etcd"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		seen = seen || strings.Contains(string(b), *k.AccessKeyId)
		for what, s := range secrets {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds the %s in the clear", path, what)
			}
		}
		return nil
	})
	if err != nil || files == 0 || !seen {
		t.Fatalf("looked at %d files, key ID seen %v, err %v: the test looks in the wrong place", files, seen, err)
	}
	e.start()
}

func TestPoliciesOfPrincipals(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	do[iam.CreateGroupOutput](e, c, &iam.CreateGroupInput{GroupName: aws.String("admins")})
	do[iam.AddUserToGroupOutput](e, c, &iam.AddUserToGroupInput{GroupName: aws.String("admins"), UserName: aws.String("bob")})
	p := e.as("bob").Principal
	check := func(action string, want bool) {
		t.Helper()
		if d := e.decide(&p, action, "*"); d.Allowed() != want {
			t.Errorf("%s: allowed %v (%s: %s), want %v", action, d.Allowed(), d.Layer, d.Reason, want)
		}
	}
	check("kms:CreateKey", false)
	do[iam.PutUserPolicyOutput](e, c, &iam.PutUserPolicyInput{UserName: aws.String("bob"), PolicyName: aws.String("own"), PolicyDocument: allow("kms:CreateKey", "*")})
	check("kms:CreateKey", true)
	check("ec2:CreateVolume", false)
	do[iam.PutGroupPolicyOutput](e, c, &iam.PutGroupPolicyInput{GroupName: aws.String("admins"), PolicyName: aws.String("g"), PolicyDocument: allow("ec2:CreateVolume", "*")})
	check("ec2:CreateVolume", true)
	arn := e.policy("managed", allow("ds:*", "*"))
	do[iam.AttachGroupPolicyOutput](e, c, &iam.AttachGroupPolicyInput{GroupName: aws.String("admins"), PolicyArn: &arn})
	check("ds:CreateDirectory", true)
	// A new default version counts from the next call on.
	do[iam.CreatePolicyVersionOutput](e, c, &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: allow("workspaces:*", "*")})
	check("ds:CreateDirectory", true)
	do[iam.SetDefaultPolicyVersionOutput](e, c, &iam.SetDefaultPolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v2")})
	check("ds:CreateDirectory", false)
	check("workspaces:CreateWorkspaces", true)
	// The boundary limits all of it.
	limit := e.policy("limit", allow("kms:*", "*"))
	do[iam.PutUserPermissionsBoundaryOutput](e, c, &iam.PutUserPermissionsBoundaryInput{UserName: aws.String("bob"), PermissionsBoundary: &limit})
	check("kms:CreateKey", true)
	check("workspaces:CreateWorkspaces", false)
	refused[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &limit}, "DeleteConflict", "")
	do[iam.DeleteUserPermissionsBoundaryOutput](e, c, &iam.DeleteUserPermissionsBoundaryInput{UserName: aws.String("bob")})
	check("workspaces:CreateWorkspaces", true)
	// A user of the same name is another user.
	old := p
	do[iam.RemoveUserFromGroupOutput](e, c, &iam.RemoveUserFromGroupInput{GroupName: aws.String("admins"), UserName: aws.String("bob")})
	do[iam.DeleteUserPolicyOutput](e, c, &iam.DeleteUserPolicyInput{UserName: aws.String("bob"), PolicyName: aws.String("own")})
	do[iam.DeleteUserOutput](e, c, &iam.DeleteUserInput{UserName: aws.String("bob")})
	e.user("bob")
	do[iam.PutUserPolicyOutput](e, c, &iam.PutUserPolicyInput{UserName: aws.String("bob"), PolicyName: aws.String("own"), PolicyDocument: allow("*", "*")})
	if d := e.decide(&old, "kms:CreateKey", "*"); d.Allowed() {
		t.Error("the credentials of a deleted user have the permissions of its namesake")
	}
	if rootDecision := e.decide(&c.Principal, "kms:CreateKey", "*"); !rootDecision.Allowed() {
		t.Error("root may not kms:CreateKey in its own account")
	}
}

func TestManagedPolicies(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	arn := e.policy("P1", allow("kms:*", "*"))
	refused[iam.CreatePolicyOutput](e, c, &iam.CreatePolicyInput{PolicyName: aws.String("p1"), PolicyDocument: allow("kms:*", "*")}, "EntityAlreadyExists", "A policy called p1 already exists. Duplicate names are not allowed.")
	for i := range 4 {
		v := do[iam.CreatePolicyVersionOutput](e, c, &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: allow("kms:List*", "*"), SetAsDefault: i == 1}).PolicyVersion
		if want := fmt.Sprintf("v%d", i+2); *v.VersionId != want {
			t.Errorf("version %s, want %s", *v.VersionId, want)
		}
	}
	refused[iam.CreatePolicyVersionOutput](e, c, &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: allow("kms:*", "*")}, "LimitExceeded", "A managed policy can have up to 5 versions.")
	refused[iam.DeletePolicyVersionOutput](e, c, &iam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v3")}, "DeleteConflict", "Cannot delete the default version of a policy.")
	refused[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &arn}, "DeleteConflict", "This policy has more than one version.")
	v := do[iam.GetPolicyVersionOutput](e, c, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v1")}).PolicyVersion
	if doc, err := url.QueryUnescape(*v.Document); err != nil || doc != *allow("kms:*", "*") || !strings.HasPrefix(*v.Document, "%7B%22Version%22%3A%222012-10-17%22") {
		t.Errorf("Document = %s, want the percent-encoded text", *v.Document)
	}
	var versions []string
	for _, v := range do[iam.ListPolicyVersionsOutput](e, c, &iam.ListPolicyVersionsInput{PolicyArn: &arn}).Versions {
		versions = append(versions, *v.VersionId)
	}
	if want := []string{"v5", "v4", "v3", "v2", "v1"}; !slices.Equal(versions, want) {
		t.Errorf("versions %v, want %v", versions, want)
	}
	for _, id := range []string{"v1", "v2", "v4", "v5"} {
		do[iam.DeletePolicyVersionOutput](e, c, &iam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: &id})
	}
	e.user("bob")
	do[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: aws.String("R"), AssumeRolePolicyDocument: trust(acct), PermissionsBoundary: &arn})
	do[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn})
	do[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn})
	got := do[iam.GetPolicyOutput](e, c, &iam.GetPolicyInput{PolicyArn: &arn}).Policy
	if *got.AttachmentCount != 1 || *got.PermissionsBoundaryUsageCount != 1 || *got.DefaultVersionId != "v3" {
		t.Errorf("GetPolicy: %d attachments, %d boundaries, default %s; want 1, 1, v3", *got.AttachmentCount, *got.PermissionsBoundaryUsageCount, *got.DefaultVersionId)
	}
	ents := do[iam.ListEntitiesForPolicyOutput](e, c, &iam.ListEntitiesForPolicyInput{PolicyArn: &arn})
	if len(ents.PolicyUsers) != 1 || len(ents.PolicyRoles) != 1 || len(ents.PolicyGroups) != 0 {
		t.Errorf("ListEntitiesForPolicy = %+v, want bob and R", ents)
	}
	only := do[iam.ListEntitiesForPolicyOutput](e, c, &iam.ListEntitiesForPolicyInput{PolicyArn: &arn, PolicyUsageFilter: types.PolicyUsageTypePermissionsBoundary})
	if len(only.PolicyUsers) != 0 || len(only.PolicyRoles) != 1 {
		t.Errorf("ListEntitiesForPolicy of boundaries = %+v, want R", only)
	}
	refused[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &arn}, "DeleteConflict", "Cannot delete a policy attached to entities.")
	do[iam.DetachUserPolicyOutput](e, c, &iam.DetachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn})
	refused[iam.DetachUserPolicyOutput](e, c, &iam.DetachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn}, "NoSuchEntity", "Policy "+arn+" was not found.")
	do[iam.DeleteRoleOutput](e, c, &iam.DeleteRoleInput{RoleName: aws.String("R")})
	do[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &arn})
	refused[iam.GetPolicyOutput](e, c, &iam.GetPolicyInput{PolicyArn: &arn}, "NoSuchEntity", "Policy "+arn+" was not found.")
	refused[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn}, "NoSuchEntity", "does not exist or is not attachable.")
	refused[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: aws.String("arn:aws:iam::" + otherAcct + ":policy/X")}, "NoSuchEntity", "not attachable")
	refused[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: aws.String("nonsense-nonsense-nonsense")}, "ValidationError", "ARN nonsense-nonsense-nonsense is not valid.")
	admin := "arn:aws:iam::aws:policy/AdministratorAccess"
	refused[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &admin}, "AccessDenied", "belong to AWS")
	for i := range 10 {
		a := e.policy(fmt.Sprintf("q%d", i), allow("kms:*", "*"))
		do[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &a})
	}
	refused[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &admin}, "LimitExceeded", "Cannot exceed quota for PoliciesPerUser: 10")
	attached := do[iam.ListPoliciesOutput](e, c, &iam.ListPoliciesInput{OnlyAttached: true})
	if len(attached.Policies) != 10 {
		t.Errorf("ListPolicies(OnlyAttached) has %d, want 10", len(attached.Policies))
	}
}

// TestAWSManaged: every AWS managed policy parses and grants what its name says.
func TestAWSManaged(t *testing.T) {
	for _, tt := range []struct {
		name, action string
		want         bool
	}{
		{"AdministratorAccess", "iam:CreateUser", true}, {"PowerUserAccess", "kms:CreateKey", true}, {"PowerUserAccess", "iam:CreateUser", false}, {"PowerUserAccess", "iam:ListRoles", true},
		{"ReadOnlyAccess", "kms:DescribeKey", true}, {"ReadOnlyAccess", "kms:Decrypt", false}, {"ReadOnlyAccess", "workspaces:DescribeWorkspaces", true}, {"ReadOnlyAccess", "workspaces:CreateWorkspaces", false},
		{"IAMFullAccess", "iam:DeleteUser", true}, {"IAMFullAccess", "kms:CreateKey", false}, {"AWSKeyManagementServicePowerUser", "kms:CreateKey", true}, {"AWSKeyManagementServicePowerUser", "kms:CreateGrant", false},
		{"AmazonWorkSpacesAdmin", "workspaces:CreateWorkspaces", true}, {"AmazonWorkSpacesAdmin", "kms:CreateGrant", false}, {"AmazonWorkSpacesAdmin", "kms:ListAliases", true}, {"AmazonEC2FullAccess", "ec2:CreateVolume", true},
		{"AWSCloudTrail_ReadOnlyAccess", "cloudtrail:LookupEvents", true}, {"AWSDirectoryServiceFullAccess", "ds:CreateDirectory", true}, {"SecurityAudit", "kms:GetKeyPolicy", true}, {"SecurityAudit", "kms:Decrypt", false},
		{"job-function/ViewOnlyAccess", "ec2:DescribeVolumes", true}, {"AWSDenyAll", "kms:ListKeys", false},
		{"AmazonS3ReadOnlyAccess", "s3:GetObject", true}, {"AmazonS3ReadOnlyAccess", "s3:PutObject", false}, {"service-role/AWSLambdaBasicExecutionRole", "logs:PutLogEvents", true}, {"AmazonSSMManagedInstanceCore", "kms:Decrypt", false},
	} {
		t.Run(tt.name+" "+tt.action, func(t *testing.T) {
			e := envOnce(t)
			name := "u" + strings.NewReplacer(":", "", "/", "").Replace(tt.name+tt.action)
			e.user(name)
			do[iam.AttachUserPolicyOutput](e, e.root(), &iam.AttachUserPolicyInput{UserName: &name, PolicyArn: aws.String("arn:aws:iam::aws:policy/" + tt.name)})
			p := e.as(name).Principal
			if d := e.decide(&p, tt.action, "*"); d.Allowed() != tt.want {
				t.Errorf("allowed %v, want %v", d.Allowed(), tt.want)
			}
		})
	}
	for arn, m := range awsManaged {
		if _, err := m.version("").Document.compiled(0); err != nil {
			t.Errorf("%s: %v", arn, err)
		}
	}
}

var shared struct {
	sync.Mutex
	e *env
}

// envOnce is one environment for the cases of a table.
func envOnce(t *testing.T) *env {
	shared.Lock()
	defer shared.Unlock()
	if shared.e == nil {
		dir, err := os.MkdirTemp("", "iam")
		if err != nil {
			t.Fatal(err)
		}
		shared.e = &env{t: t, dir: dir, clock: clock.NewManual(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
		shared.e.start()
		if err := shared.e.s.Bootstrap(context.Background(), acct, rootKey, rootSecret); err != nil {
			t.Fatal(err)
		}
	}
	e := *shared.e
	e.t = t
	return &e
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.e != nil {
		shared.e.st.Close()
		os.RemoveAll(shared.e.dir)
	}
	os.Exit(code)
}

func TestDocuments(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	for _, tt := range []struct{ doc, code, text string }{
		{`{`, "MalformedPolicyDocument", "Syntax errors in policy."},
		{`{"Version":"2012-10-18","Statement":[]}`, "MalformedPolicyDocument", "Syntax errors in policy."},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"CreateKey","Resource":"*"}]}`, "MalformedPolicyDocument", "Actions/Conditions must be prefaced by a vendor"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*"}]}`, "MalformedPolicyDocument", "Policy statement must contain resources."},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}`, "MalformedPolicyDocument", "Policy document should not specify a principal."},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"mykey"}]}`, "MalformedPolicyDocument", "must be in ARN format"},
		{`{"Version":"2012-10-17","Statement":[{"Sid":"` + strings.Repeat("a", 2048) + `","Effect":"Allow","Action":"kms:*","Resource":"*"}]}`, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user bob"},
	} {
		refused[iam.PutUserPolicyOutput](e, c, &iam.PutUserPolicyInput{UserName: aws.String("bob"), PolicyName: aws.String("p"), PolicyDocument: &tt.doc}, tt.code, tt.text)
	}
	big := `{"Version":"2012-10-17","Statement":[{"Sid":"` + strings.Repeat("a", 6144) + `","Effect":"Allow","Action":"kms:*","Resource":"*"}]}`
	refused[iam.CreatePolicyOutput](e, c, &iam.CreatePolicyInput{PolicyName: aws.String("big"), PolicyDocument: &big}, "LimitExceeded", "Cannot exceed quota for PolicySize: 6144")
	for _, tt := range []struct{ doc, text string }{
		{*trust("arn:aws:iam::" + acct + ":user/nobody"), "Invalid principal in policy"},
		{*trust("arn:aws:iam::999999999999:user/nobody"), "Invalid principal in policy"},
		{*trust("99999999999"), "Invalid principal in policy"},
		{*trust("arn:aws:iam::" + acct + ":user/*"), "Invalid principal in policy"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"example.com"},"Action":"sts:AssumeRole"}]}`, "Invalid principal in policy"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::` + acct + `:oidc-provider/none.example"},"Action":"sts:AssumeRoleWithWebIdentity"}]}`, "Invalid principal in policy"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Resource":"*"}]}`, "Has prohibited field Resource"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}`, "Missing required field Principal"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:Decrypt"}]}`, "AssumeRole policy may only specify STS AssumeRole actions."},
	} {
		refused[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: aws.String("r"), AssumeRolePolicyDocument: &tt.doc}, "MalformedPolicyDocument", tt.text)
	}
	// An account of another installation may be trusted, by its ID or its root.
	for i, who := range []string{"999999999999", "arn:aws:iam::999999999999:root"} {
		name := fmt.Sprintf("partner%d", i)
		do[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: trust(who)})
	}
}

func TestRoles(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	r := do[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: aws.String("Ops"), Path: aws.String("/a/b/"), AssumeRolePolicyDocument: trust("arn:aws:iam::" + acct + ":user/bob"), MaxSessionDuration: aws.Int32(7200), Description: aws.String("d")}).Role
	if *r.Arn != "arn:aws:iam::111122223333:role/a/b/Ops" || r.MaxSessionDuration != nil || r.Description != nil || !strings.HasPrefix(*r.RoleId, "AROA") {
		t.Errorf("role = %+v", r)
	}
	refused[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: aws.String("OPS"), AssumeRolePolicyDocument: trust(acct)}, "EntityAlreadyExists", "Role with name OPS already exists.")
	refused[iam.GetRoleOutput](e, c, &iam.GetRoleInput{RoleName: aws.String("x")}, "NoSuchEntity", "The role with name x cannot be found.")
	// Another bob is not the bob that the role trusts.
	old := e.as("bob").Principal.ID
	do[iam.DeleteUserOutput](e, c, &iam.DeleteUserInput{UserName: aws.String("bob")})
	e.user("bob")
	doc, _ := url.QueryUnescape(*do[iam.GetRoleOutput](e, c, &iam.GetRoleInput{RoleName: aws.String("Ops")}).Role.AssumeRolePolicyDocument)
	if !strings.Contains(doc, `"`+old+`"`) || strings.Contains(doc, "user/bob") {
		t.Errorf("trust policy after bob was replaced = %s, want the unique ID %s in place of the ARN", doc, old)
	}
	role, err := e.s.Role(e.st.Snapshot(), *r.Arn)
	if err != nil || role == nil || role.Trust.Principals()[0].Value != old {
		t.Errorf("Role = %+v, %v, want the trust policy to name %s", role, err, old)
	}
	// Instance profiles.
	do[iam.CreateInstanceProfileOutput](e, c, &iam.CreateInstanceProfileInput{InstanceProfileName: aws.String("ip")})
	add := &iam.AddRoleToInstanceProfileInput{InstanceProfileName: aws.String("ip"), RoleName: aws.String("Ops")}
	_, targets, err := try[iam.AddRoleToInstanceProfileOutput](e, c, add)
	if err != nil || len(targets) != 2 || targets[1].Action != "iam:PassRole" || targets[1].ARN != *r.Arn || targets[1].Keys["iam:PassedToService"][0] != "ec2.amazonaws.com" {
		t.Errorf("AddRoleToInstanceProfile asks %+v, %v; want iam:PassRole on the role too", targets, err)
	}
	refused[iam.AddRoleToInstanceProfileOutput](e, c, add, "LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
	refused[iam.DeleteRoleOutput](e, c, &iam.DeleteRoleInput{RoleName: aws.String("Ops")}, "DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.")
	refused[iam.DeleteInstanceProfileOutput](e, c, &iam.DeleteInstanceProfileInput{InstanceProfileName: aws.String("ip")}, "DeleteConflict", "must remove roles")
	if got := do[iam.ListInstanceProfilesForRoleOutput](e, c, &iam.ListInstanceProfilesForRoleInput{RoleName: aws.String("ops")}).InstanceProfiles; len(got) != 1 || len(got[0].Roles) != 1 {
		t.Errorf("ListInstanceProfilesForRole = %+v", got)
	}
	do[iam.RemoveRoleFromInstanceProfileOutput](e, c, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: aws.String("ip"), RoleName: aws.String("Ops")})
	do[iam.DeleteInstanceProfileOutput](e, c, &iam.DeleteInstanceProfileInput{InstanceProfileName: aws.String("ip")})
	refused[iam.UpdateRoleOutput](e, c, &iam.UpdateRoleInput{RoleName: aws.String("Ops"), MaxSessionDuration: aws.Int32(60)}, "ValidationError", "maxSessionDuration")
	do[iam.DeleteRoleOutput](e, c, &iam.DeleteRoleInput{RoleName: aws.String("Ops")})
	// Service-linked roles.
	slr := do[iam.CreateServiceLinkedRoleOutput](e, c, &iam.CreateServiceLinkedRoleInput{AWSServiceName: aws.String("cloudtrail.amazonaws.com")}).Role
	if *slr.Arn != "arn:aws:iam::111122223333:role/aws-service-role/cloudtrail.amazonaws.com/AWSServiceRoleForCloudTrail" {
		t.Errorf("service-linked role = %s", *slr.Arn)
	}
	refused[iam.CreateServiceLinkedRoleOutput](e, c, &iam.CreateServiceLinkedRoleInput{AWSServiceName: aws.String("cloudtrail.amazonaws.com")}, "InvalidInput", "has been taken in this account")
	refused[iam.CreateServiceLinkedRoleOutput](e, c, &iam.CreateServiceLinkedRoleInput{AWSServiceName: aws.String("x.amazonaws.com")}, "InvalidInput", "Cannot find Service Linked Role template")
	refused[iam.DeleteRoleOutput](e, c, &iam.DeleteRoleInput{RoleName: slr.RoleName}, "UnmodifiableEntity", "only modifiable by AWS")
	refused[iam.PutRolePolicyOutput](e, c, &iam.PutRolePolicyInput{RoleName: slr.RoleName, PolicyName: aws.String("p"), PolicyDocument: allow("*", "*")}, "UnmodifiableEntity", "protected role")
	task := do[iam.DeleteServiceLinkedRoleOutput](e, c, &iam.DeleteServiceLinkedRoleInput{RoleName: slr.RoleName}).DeletionTaskId
	if st := do[iam.GetServiceLinkedRoleDeletionStatusOutput](e, c, &iam.GetServiceLinkedRoleDeletionStatusInput{DeletionTaskId: task}).Status; st != types.DeletionTaskStatusTypeSucceeded {
		t.Errorf("deletion status %s, want SUCCEEDED", st)
	}
	refused[iam.GetRoleOutput](e, c, &iam.GetRoleInput{RoleName: slr.RoleName}, "NoSuchEntity", "")
}

// TestPaging reads lists in pages of every size and wants the same items.
func TestPaging(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	var want []string
	for i := range 7 {
		n := fmt.Sprintf("u%02d", i)
		do[iam.CreateUserOutput](e, c, &iam.CreateUserInput{UserName: &n, Path: aws.String([]string{"/", "/x/"}[i%2])})
		want = append(want, n)
	}
	for size := int32(1); size <= 8; size++ {
		var got []string
		var marker *string
		for {
			out := do[iam.ListUsersOutput](e, c, &iam.ListUsersInput{MaxItems: &size, Marker: marker})
			for _, u := range out.Users {
				got = append(got, *u.UserName)
			}
			if out.IsTruncated != (out.Marker != nil) || len(out.Users) > int(size) {
				t.Fatalf("page of %d: %d items, IsTruncated %v, Marker %v", size, len(out.Users), out.IsTruncated, out.Marker)
			}
			if marker = out.Marker; marker == nil {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d give %v, want %v", size, got, want)
		}
	}
	if out := do[iam.ListUsersOutput](e, c, &iam.ListUsersInput{PathPrefix: aws.String("/x")}); len(out.Users) != 3 {
		t.Errorf("PathPrefix /x gives %d users, want 3", len(out.Users))
	}
	first := do[iam.ListUsersOutput](e, c, &iam.ListUsersInput{MaxItems: aws.Int32(1)})
	for _, m := range []string{"", "!!", "AAAA", *first.Marker + "x"} {
		if m == *first.Marker+"x" {
			refused[iam.ListGroupsOutput](e, c, &iam.ListGroupsInput{Marker: first.Marker}, "ValidationError", "Invalid Marker")
			continue
		}
		refused[iam.ListUsersOutput](e, c, &iam.ListUsersInput{Marker: &m}, "ValidationError", "Invalid Marker")
	}
	var all int
	var marker *string
	for {
		out := do[iam.GetAccountAuthorizationDetailsOutput](e, c, &iam.GetAccountAuthorizationDetailsInput{MaxItems: aws.Int32(2), Marker: marker})
		all += len(out.UserDetailList) + len(out.GroupDetailList) + len(out.RoleDetailList) + len(out.Policies)
		if marker = out.Marker; marker == nil {
			break
		}
	}
	if all != 7 {
		t.Errorf("GetAccountAuthorizationDetails in pages has %d, want 7", all)
	}
	other := e.root()
	other.Account = otherAcct
	if out := do[iam.ListUsersOutput](e, other, &iam.ListUsersInput{}); len(out.Users) != 0 {
		t.Errorf("another account sees %d users, want 0", len(out.Users))
	}
}

func TestTags(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	do[iam.TagUserOutput](e, c, &iam.TagUserInput{UserName: aws.String("bob"), Tags: []types.Tag{tag("b", "1"), tag("A", "2")}})
	do[iam.TagUserOutput](e, c, &iam.TagUserInput{UserName: aws.String("bob"), Tags: []types.Tag{tag("a", "3")}})
	got := do[iam.ListUserTagsOutput](e, c, &iam.ListUserTagsInput{UserName: aws.String("bob")}).Tags
	if len(got) != 2 || *got[0].Key != "a" || *got[0].Value != "3" {
		t.Errorf("tags = %+v, want a=3, b=1", got)
	}
	refused[iam.TagUserOutput](e, c, &iam.TagUserInput{UserName: aws.String("bob"), Tags: []types.Tag{tag("x", "1"), tag("X", "2")}}, "InvalidInput", "Duplicate tag keys found.")
	refused[iam.TagUserOutput](e, c, &iam.TagUserInput{UserName: aws.String("bob"), Tags: []types.Tag{tag("AWS:x", "1")}}, "InvalidInput", "reserved")
	_, targets, _ := try[iam.UntagUserOutput](e, c, &iam.UntagUserInput{UserName: aws.String("bob"), TagKeys: []string{"A"}})
	if k := targets[0].Keys; k["aws:ResourceTag/a"][0] != "3" || k["iam:ResourceTag/b"][0] != "1" || k["aws:TagKeys"][0] != "A" {
		t.Errorf("UntagUser condition keys %v", k)
	}
	if got := do[iam.ListUserTagsOutput](e, c, &iam.ListUserTagsInput{UserName: aws.String("bob")}).Tags; len(got) != 1 {
		t.Errorf("after UntagUser(A) %d tags, want 1", len(got))
	}
}

// TestConcurrentAttachAndDelete: a policy is never deleted while something names it.
func TestConcurrentAttachAndDelete(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	for i := range 10 {
		arn := e.policy(fmt.Sprintf("p%d", i), allow("kms:*", "*"))
		var wg sync.WaitGroup
		var attach, remove error
		wg.Add(2)
		go func() {
			defer wg.Done()
			_, _, attach = try[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn})
		}()
		go func() {
			defer wg.Done()
			_, _, remove = try[iam.DeletePolicyOutput](e, c, &iam.DeletePolicyInput{PolicyArn: &arn})
		}()
		wg.Wait()
		if (attach == nil) == (remove == nil) {
			t.Fatalf("attach: %v, delete: %v; want exactly one to succeed", attach, remove)
		}
		if attach == nil {
			do[iam.DetachUserPolicyOutput](e, c, &iam.DetachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: &arn})
		}
	}
}

func TestConditionKeysOfBoundary(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	arn := e.policy("limit", allow("*", "*"))
	_, targets, err := try[iam.CreateUserOutput](e, c, &iam.CreateUserInput{UserName: aws.String("x"), Path: aws.String("/p/"), PermissionsBoundary: &arn})
	if err != nil || targets[0].ARN != "arn:aws:iam::111122223333:user/p/x" || targets[0].Keys["iam:PermissionsBoundary"][0] != arn {
		t.Errorf("CreateUser asks %+v, %v", targets, err)
	}
	_, targets, err = try[iam.AttachUserPolicyOutput](e, c, &iam.AttachUserPolicyInput{UserName: aws.String("x"), PolicyArn: aws.String("arn:aws:iam::aws:policy/ReadOnlyAccess")})
	if err != nil || targets[0].Keys["iam:PermissionsBoundary"][0] != arn || targets[0].Keys["iam:PolicyARN"][0] != "arn:aws:iam::aws:policy/ReadOnlyAccess" {
		t.Errorf("AttachUserPolicy asks %+v, %v; want the user's boundary and the policy's ARN", targets, err)
	}
}

func TestPrincipalExists(t *testing.T) {
	e := newEnv(t)
	e.user("bob")
	do[iam.CreateRoleOutput](e, e.root(), &iam.CreateRoleInput{RoleName: aws.String("R"), Path: aws.String("/p/"), AssumeRolePolicyDocument: trust(acct)})
	for arn, want := range map[string]bool{
		acct: true, "999999999999": false, "arn:aws:iam::" + acct + ":root": true, "arn:aws:iam::999999999999:root": false,
		"arn:aws:iam::" + acct + ":user/bob": true, "arn:aws:iam::" + acct + ":user/Bob": false, "arn:aws:iam::" + acct + ":user/x/bob": false, "arn:aws:iam::" + otherAcct + ":user/bob": false,
		"arn:aws:iam::" + acct + ":role/p/R": true, "arn:aws:iam::" + acct + ":role/R": false, "arn:aws:sts::" + acct + ":assumed-role/R/s": true, "arn:aws:sts::" + acct + ":assumed-role/Q/s": false,
		"arn:aws:sts::" + acct + ":federated-user/x": true, "arn:aws:iam::" + acct + ":group/bob": false, "": false, "*": false, "arn:aws:iam::" + acct + ":user/": false,
	} {
		if got := e.s.PrincipalExists(e.st.Snapshot(), arn); got != want {
			t.Errorf("PrincipalExists(%q) = %v, want %v", arn, got, want)
		}
	}
}

func TestAccounts(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	if err := e.s.Bootstrap(ctx, acct, rootKey, "another-secret-of-enough-length"); err != nil {
		t.Fatal(err)
	}
	cred, err := e.s.Credential(ctx, rootKey, "", e.clock.Now())
	if err != nil || string(cred.SecretAccessKey.Expose()) != "another-secret-of-enough-length" || cred.Principal.Type != api.Root {
		t.Errorf("after Bootstrap with another secret: %v, %v", cred, err)
	}
	if err := e.s.Bootstrap(ctx, otherAcct, rootKey, rootSecret); err == nil {
		t.Error("Bootstrap of another account took over a root access key, want an error")
	}
	id, keyID, sec, err := e.s.CreateAccount(ctx, "", "my-alias")
	if err != nil || len(id) != 12 {
		t.Fatalf("CreateAccount = %s, %v", id, err)
	}
	if cred, err := e.s.Credential(ctx, keyID, "", e.clock.Now()); err != nil || cred.Principal.Account != id || string(cred.SecretAccessKey.Expose()) != sec {
		t.Errorf("root key of the new account: %v, %v", cred, err)
	}
	if _, _, _, err := e.s.CreateAccount(ctx, "", "my-alias"); err == nil {
		t.Error("two accounts have the same alias")
	}
	refused[iam.CreateAccountAliasOutput](e, e.root(), &iam.CreateAccountAliasInput{AccountAlias: aws.String("my-alias")}, "EntityAlreadyExists", "my-alias already exists.")
	do[iam.CreateAccountAliasOutput](e, e.root(), &iam.CreateAccountAliasInput{AccountAlias: aws.String("first")})
	do[iam.CreateAccountAliasOutput](e, e.root(), &iam.CreateAccountAliasInput{AccountAlias: aws.String("second")})
	if got := do[iam.ListAccountAliasesOutput](e, e.root(), &iam.ListAccountAliasesInput{}).AccountAliases; !slices.Equal(got, []string{"second"}) {
		t.Errorf("aliases %v, want [second]", got)
	}
	refused[iam.DeleteAccountAliasOutput](e, e.root(), &iam.DeleteAccountAliasInput{AccountAlias: aws.String("first")}, "NoSuchEntity", "first")
	sum := do[iam.GetAccountSummaryOutput](e, e.root(), &iam.GetAccountSummaryInput{}).SummaryMap
	if sum["AccountAccessKeysPresent"] != 1 || sum["UsersQuota"] != 5000 {
		t.Errorf("summary = %v", sum)
	}
}

func TestSimulate(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	u := e.user("bob")
	do[iam.PutUserPolicyOutput](e, c, &iam.PutUserPolicyInput{UserName: aws.String("bob"), PolicyName: aws.String("own"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"kms:*","Resource":"*"},
 {"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"},
 {"Effect":"Allow","Action":"ec2:*","Resource":"*","Condition":{"StringEquals":{"aws:RequestedRegion":"us-west-2"}}}]}`)})
	sim := func(in *iam.SimulatePrincipalPolicyInput) map[string]types.EvaluationResult {
		t.Helper()
		in.PolicySourceArn = u.Arn
		out := map[string]types.EvaluationResult{}
		for _, r := range do[iam.SimulatePrincipalPolicyOutput](e, c, in).EvaluationResults {
			out[*r.EvalActionName] = r
		}
		return out
	}
	got := sim(&iam.SimulatePrincipalPolicyInput{ActionNames: []string{"kms:Encrypt", "kms:Decrypt", "ec2:CreateVolume", "ds:CreateDirectory"}})
	for action, want := range map[string]types.PolicyEvaluationDecisionType{"kms:Encrypt": "allowed", "kms:Decrypt": "explicitDeny", "ec2:CreateVolume": "implicitDeny", "ds:CreateDirectory": "implicitDeny"} {
		if got[action].EvalDecision != want {
			t.Errorf("%s = %s, want %s", action, got[action].EvalDecision, want)
		}
	}
	m := got["kms:Encrypt"].MatchedStatements
	if len(m) != 1 || *m[0].SourcePolicyId != "user_bob_own" || m[0].SourcePolicyType != types.PolicySourceTypeUser || m[0].StartPosition.Line != 2 {
		t.Errorf("matched %+v, want user_bob_own at line 2", m)
	}
	if miss := got["ec2:CreateVolume"].MissingContextValues; !slices.Equal(miss, []string{"aws:RequestedRegion"}) {
		t.Errorf("missing context %v, want aws:RequestedRegion", miss)
	}
	got = sim(&iam.SimulatePrincipalPolicyInput{ActionNames: []string{"ec2:CreateVolume"}, ContextEntries: []types.ContextEntry{{ContextKeyName: aws.String("aws:requestedregion"), ContextKeyType: types.ContextKeyTypeEnumString, ContextKeyValues: []string{"us-west-2"}}}})
	if got["ec2:CreateVolume"].EvalDecision != "allowed" {
		t.Errorf("with the region in the context: %s, want allowed", got["ec2:CreateVolume"].EvalDecision)
	}
	got = sim(&iam.SimulatePrincipalPolicyInput{ActionNames: []string{"kms:Encrypt"}, PermissionsBoundaryPolicyInputList: []string{*allow("ec2:*", "*")}})
	if r := got["kms:Encrypt"]; r.EvalDecision != "implicitDeny" || r.PermissionsBoundaryDecisionDetail == nil || r.PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary {
		t.Errorf("within a boundary: %+v, want implicitDeny by the boundary", r)
	}
	got = sim(&iam.SimulatePrincipalPolicyInput{ActionNames: []string{"kms:Encrypt"}, PolicyExclusionList: []types.PolicyIdentifier{&types.PolicyIdentifierMemberInlinePolicyIdentifier{Value: types.InlinePolicyIdentifierType{AttachmentType: "user", AttachmentName: aws.String("b*"), PolicyName: aws.String("own")}}}})
	if got["kms:Encrypt"].EvalDecision != "implicitDeny" {
		t.Errorf("without its policy: %s, want implicitDeny", got["kms:Encrypt"].EvalDecision)
	}
	custom := do[iam.SimulateCustomPolicyOutput](e, c, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{*allow("kms:Encrypt", "arn:aws:kms:*:*:key/1")}, ActionNames: []string{"kms:Encrypt"},
		ResourceArns: []string{"arn:aws:kms:us-west-2:111122223333:key/1", "arn:aws:kms:us-west-2:111122223333:key/2"}}).EvaluationResults
	if len(custom) != 2 || custom[0].EvalDecision != "allowed" || custom[1].EvalDecision != "implicitDeny" || *custom[0].MatchedStatements[0].SourcePolicyId != "PolicyInputList.1" {
		t.Errorf("custom = %+v", custom)
	}
	keys := do[iam.GetContextKeysForPrincipalPolicyOutput](e, c, &iam.GetContextKeysForPrincipalPolicyInput{PolicySourceArn: u.Arn}).ContextKeyNames
	if !slices.Equal(keys, []string{"aws:RequestedRegion"}) {
		t.Errorf("context keys %v", keys)
	}
	refused[iam.SimulatePrincipalPolicyOutput](e, c, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: aws.String("arn:aws:iam::" + acct + ":user/x"), ActionNames: []string{"kms:Encrypt"}}, "NoSuchEntity", "x cannot be found")
	refused[iam.SimulateCustomPolicyOutput](e, c, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{"{"}, ActionNames: []string{"kms:Encrypt"}}, "InvalidInput", "PolicyInputList.1")
	refused[iam.SimulateCustomPolicyOutput](e, c, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{*allow("*", "*")}, ActionNames: []string{"Encrypt"}}, "InvalidInput", "Encrypt")
}

func TestProvidersAndReport(t *testing.T) {
	e := newEnv(t)
	c := e.root()
	e.user("bob")
	arn := do[iam.CreateOpenIDConnectProviderOutput](e, c, &iam.CreateOpenIDConnectProviderInput{Url: aws.String("https://id.example.com/realm"), ClientIDList: []string{"app"}}).OpenIDConnectProviderArn
	if *arn != "arn:aws:iam::111122223333:oidc-provider/id.example.com/realm" {
		t.Errorf("OIDC provider = %s", *arn)
	}
	refused[iam.CreateOpenIDConnectProviderOutput](e, c, &iam.CreateOpenIDConnectProviderInput{Url: aws.String("https://id.example.com/realm/")}, "EntityAlreadyExists", "already exists")
	refused[iam.CreateOpenIDConnectProviderOutput](e, c, &iam.CreateOpenIDConnectProviderInput{Url: aws.String("http://id.example.com")}, "ValidationError", "Invalid Open ID Connect Provider URL")
	do[iam.CreateRoleOutput](e, c, &iam.CreateRoleInput{RoleName: aws.String("web"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + *arn + `"},"Action":"sts:AssumeRoleWithWebIdentity"}]}`)})
	do[iam.DeleteOpenIDConnectProviderOutput](e, c, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
	refused[iam.GetOpenIDConnectProviderOutput](e, c, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}, "NoSuchEntity", "not found")
	refused[iam.CreateSAMLProviderOutput](e, c, &iam.CreateSAMLProviderInput{Name: aws.String("adfs"), SAMLMetadataDocument: aws.String("<x/>")}, "InvalidInput", "Could not parse metadata")
	meta := `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.example"><IDPSSODescriptor/></EntityDescriptor>`
	saml := do[iam.CreateSAMLProviderOutput](e, c, &iam.CreateSAMLProviderInput{Name: aws.String("adfs"), SAMLMetadataDocument: &meta}).SAMLProviderArn
	if got := do[iam.GetSAMLProviderOutput](e, c, &iam.GetSAMLProviderInput{SAMLProviderArn: saml}); *got.SAMLMetadataDocument != meta {
		t.Errorf("metadata = %s", *got.SAMLMetadataDocument)
	}

	refused[iam.GetCredentialReportOutput](e, c, &iam.GetCredentialReportInput{}, "ReportNotPresent", "")
	do[iam.GenerateCredentialReportOutput](e, c, &iam.GenerateCredentialReportInput{})
	rep := string(do[iam.GetCredentialReportOutput](e, c, &iam.GetCredentialReportInput{}).Content)
	lines := strings.Split(strings.TrimSpace(rep), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "<root_account>,arn:aws:iam::111122223333:root,") || strings.Count(lines[2], ",") != len(reportColumns)-1 {
		t.Errorf("report:\n%s", rep)
	}
	e.clock.Advance(5 * time.Hour)
	refused[iam.GetCredentialReportOutput](e, e.root(), &iam.GetCredentialReportInput{}, "ReportExpired", "")
}
