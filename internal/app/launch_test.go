package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

func TestMain(m *testing.M) { apptest.Main(m) }

var ctx = context.Background()

// imageCanary is in the bundle image of these tests, so in the clear on the host;
// nothing of a volume must be.
const imageCanary = "this-is-the-bundle-image"

// estate is what a launch needs: a directory with users, a key, an administrator
// with exactly the permissions of MISSION.
type estate struct {
	*apptest.Server
	t         testing.TB
	directory string
	sid       string // of jane
	key       string // ARN
	admin     aws.CredentialsProvider
	adminARN  string
}

func newEstate(t *testing.T, opts ...func(*app.Config)) *estate {
	t.Helper()
	image := filepath.Join(t.TempDir(), "desktop.raw")
	if err := os.WriteFile(image, []byte(strings.Repeat(imageCanary+"\n", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	opts = append([]func(*app.Config){func(c *app.Config) { c.Image = image }}, opts...)
	e := &estate{Server: apptest.New(t, opts...), t: t}
	d, err := e.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall})
	e.must(err)
	e.directory = *d.DirectoryId
	e.eventually("the directory is Active", func() bool {
		out, err := e.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{DirectoryIds: []string{e.directory}})
		e.must(err)
		return out.DirectoryDescriptions[0].Stage == dstypes.DirectoryStageActive
	})
	e.sid = e.user("jane")
	_, err = e.WorkSpaces().RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &e.directory})
	e.must(err)
	k, err := e.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
	e.must(err)
	e.key = *k.KeyMetadata.Arn
	e.admin, e.adminARN = e.administrator("wsadmin", e.key, true, true)
	return e
}

func (e *estate) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) eventually(what string, f func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func (e *estate) user(name string) (sid string) {
	e.t.Helper()
	out, err := e.DSData().CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: &e.directory, SAMAccountName: &name})
	e.must(err)
	return *out.SID
}

// administrator makes a WorkSpaces administrator: a key user by the key's policy,
// allowed to create grants by IAM, or one of them not.
func (e *estate) administrator(name, key string, keyUser, createGrant bool) (aws.CredentialsProvider, string) {
	e.t.Helper()
	u, err := e.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
	e.must(err)
	put := func(policyName, doc string) {
		_, err := e.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: &policyName, PolicyDocument: &doc})
		e.must(err)
	}
	put("workspaces", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "workspaces:*", "Resource": "*"}]}`)
	if createGrant {
		put("part2", `{ "Version": "2012-10-17", "Statement": [
  { "Effect": "Allow", "Action": "kms:CreateGrant", "Resource": "`+key+`" },
  { "Effect": "Allow", "Action": ["kms:ListAliases", "kms:ListKeys"], "Resource": "*" } ] }`)
	}
	if keyUser {
		e.addKeyUser(key, *u.User.Arn, createGrant)
	}
	ak, err := e.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	e.must(err)
	return apptest.Keys(*ak.AccessKey.AccessKeyId, *ak.AccessKey.SecretAccessKey, ""), *u.User.Arn
}

// addKeyUser is MISSION B by API: GetKeyPolicy, edit, PutKeyPolicy.
func (e *estate) addKeyUser(key, principal string, grants bool) {
	e.t.Helper()
	p, err := e.KMS().GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &key})
	e.must(err)
	var doc map[string]any
	e.must(json.Unmarshal([]byte(*p.Policy), &doc))
	st := doc["Statement"].([]any)
	st = append(st, map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": principal}, "Resource": "*",
		"Action": []string{"kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"}})
	if grants {
		st = append(st, map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": principal}, "Resource": "*",
			"Action": []string{"kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"}, "Condition": map[string]any{"Bool": map[string]any{"kms:GrantIsForAWSResource": "true"}}})
	}
	doc["Statement"] = st
	b, err := json.Marshal(doc)
	e.must(err)
	_, err = e.KMS().PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: &key, Policy: aws.String(string(b))})
	e.must(err)
}

func (e *estate) request(user, key string) wstypes.WorkspaceRequest {
	return wstypes.WorkspaceRequest{DirectoryId: &e.directory, UserName: &user, BundleId: aws.String("wsb-standard1"), VolumeEncryptionKey: &key,
		RootVolumeEncryptionEnabled: aws.Bool(true), UserVolumeEncryptionEnabled: aws.Bool(true)}
}

// launch asks as the administrator given; the failure is nil when it is pending.
func (e *estate) launch(who aws.CredentialsProvider, r wstypes.WorkspaceRequest) (id string, failed *wstypes.FailedCreateWorkspaceRequest) {
	e.t.Helper()
	out, err := e.WorkSpaces(who).CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []wstypes.WorkspaceRequest{r}})
	e.must(err)
	if len(out.FailedRequests) == 1 {
		return "", &out.FailedRequests[0]
	}
	return *out.PendingRequests[0].WorkspaceId, nil
}

func (e *estate) launched(user string) string {
	e.t.Helper()
	id, failed := e.launch(e.admin, e.request(user, e.key))
	if failed != nil {
		e.t.Fatalf("launch refused: %s: %s", *failed.ErrorCode, *failed.ErrorMessage)
	}
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	return id
}

func (e *estate) describe(id string) *wstypes.Workspace {
	e.t.Helper()
	out, err := e.WorkSpaces(e.admin).DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{id}})
	e.must(err)
	if len(out.Workspaces) == 0 {
		return nil
	}
	return &out.Workspaces[0]
}

func (e *estate) awaitState(id string, want wstypes.WorkspaceState) {
	e.t.Helper()
	var last *wstypes.Workspace
	defer func() {
		if last != nil && last.State != want {
			e.t.Logf("last: %s %s", last.State, aws.ToString(last.ErrorMessage))
		}
	}()
	e.eventually(fmt.Sprintf("%s is %s", id, want), func() bool {
		last = e.describe(id)
		return last != nil && last.State == want
	})
}

func (e *estate) awaitGone(id string) {
	e.t.Helper()
	e.eventually(id+" is gone", func() bool { return e.describe(id) == nil })
}

func (e *estate) grants(key string) []kmstypes.GrantListEntry {
	e.t.Helper()
	out, err := e.KMS().ListGrants(ctx, &kms.ListGrantsInput{KeyId: &key})
	e.must(err)
	return out.Grants
}

// volumeDirs are the volumes that have data on disk.
func (e *estate) volumeDirs() []string {
	var dirs []string
	_ = filepath.WalkDir(filepath.Join(e.Dir, "volumes"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "vol-") {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// events are the records of an API call, oldest first.
func (e *estate) events(name string) []audit.Record {
	e.t.Helper()
	var out []audit.Record
	in := &cloudtrail.LookupEventsInput{LookupAttributes: []cttypes.LookupAttribute{{AttributeKey: cttypes.LookupAttributeKeyEventName, AttributeValue: &name}}}
	for {
		page, err := e.CloudTrail().LookupEvents(ctx, in)
		e.must(err)
		for _, ev := range page.Events {
			var r audit.Record
			e.must(json.Unmarshal([]byte(*ev.CloudTrailEvent), &r))
			out = append([]audit.Record{r}, out...)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return out
		}
	}
}

// clean fails the test unless nothing is left of any launch.
func (e *estate) clean(key string) {
	e.t.Helper()
	if g := e.grants(key); len(g) != 0 {
		e.t.Errorf("%d grants are left over, first: %s for %s", len(g), aws.ToString(g[0].GrantId), aws.ToString(g[0].GranteePrincipal))
	}
	e.eventually("no volume is left", func() bool { return len(e.volumeDirs()) == 0 })
	out, err := e.WorkSpaces().DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{})
	e.must(err)
	if len(out.Workspaces) != 0 {
		e.t.Errorf("%d WorkSpaces are left over", len(out.Workspaces))
	}
}

func str(m map[string]any, path ...string) string {
	var v any = m
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

// TestNineSteps is MISSION's launch: each numbered step is on the record, on real
// volumes, and the end leaves nothing.
func TestNineSteps(t *testing.T) {
	e := newEstate(t)
	id := e.launched("jane")
	sidDirectory := "[" + e.sid + "]@[" + e.directory + "]"

	grants := e.grants(e.key)
	if len(grants) != 3 {
		t.Fatalf("%d grants on the key, want WorkSpaces' and one for each of two volumes", len(grants))
	}
	volumes := map[string]bool{}
	for _, g := range grants {
		subset := g.Constraints.EncryptionContextSubset
		if subset["aws:workspaces:sid-directoryid"] != sidDirectory {
			t.Errorf("grant %s is constrained to %v, want aws:workspaces:sid-directoryid %s", *g.Name, subset, sidDirectory)
		}
		switch *g.GranteePrincipal {
		case "workspaces.us-west-2.amazonaws.com":
			if len(subset) != 1 {
				t.Errorf("WorkSpaces' grant has constraints %v, want one", subset)
			}
		case "ec2.us-west-2.amazonaws.com":
			volumes[subset["aws:ebs:id"]] = true
		default:
			t.Errorf("a grant for %s", *g.GranteePrincipal)
		}
		if *g.RetiringPrincipal != *g.GranteePrincipal {
			t.Errorf("grant for %s is retired by %s", *g.GranteePrincipal, *g.RetiringPrincipal)
		}
	}
	if len(volumes) != 2 || volumes[""] {
		t.Fatalf("EBS's grants name the volumes %v, want two", volumes)
	}

	// Step 1: WorkSpaces' grant, in the administrator's name.
	g := e.events("CreateGrant")
	if len(g) != 3 || g[0].UserIdentity.UserName != "wsadmin" || g[0].UserIdentity.InvokedBy != "workspaces.amazonaws.com" {
		t.Errorf("CreateGrant events: %+v, want the first by wsadmin through WorkSpaces", g)
	}
	// Steps 3 and 5: the exact context, by EBS.
	for _, name := range []string{"GenerateDataKeyWithoutPlaintext", "Decrypt"} {
		seen := map[string]bool{}
		for _, r := range e.events(name) {
			if str(r.RequestParameters, "encryptionContext", "aws:workspaces:sid-directoryid") != sidDirectory {
				t.Errorf("%s with context %v, want %s", name, r.RequestParameters["encryptionContext"], sidDirectory)
			}
			if c, _ := r.RequestParameters["encryptionContext"].(map[string]any); len(c) != 2 {
				t.Errorf("%s has a context of %d pairs, want exactly 2", name, len(c))
			}
			seen[str(r.RequestParameters, "encryptionContext", "aws:ebs:id")] = true
			if len(r.Resources) == 0 || r.Resources[0].ARN != e.key {
				t.Errorf("%s does not name the key among its resources: %+v", name, r.Resources)
			}
		}
		for v := range volumes {
			if !seen[v] {
				t.Errorf("no %s event for volume %s", name, v)
			}
		}
	}
	if n := len(e.events("CreateVolume")); n != 2 {
		t.Errorf("%d CreateVolume events, want 2", n)
	}

	// Step 8: reboot and rebuild ask KMS again with the stored key; no new data key.
	before := len(e.events("Decrypt"))
	_, err := e.WorkSpaces(e.admin).RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.eventually("KMS decrypts both keys again", func() bool { return len(e.events("Decrypt")) >= before+2 })
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	_, err = e.WorkSpaces(e.admin).RebuildWorkspaces(ctx, &workspaces.RebuildWorkspacesInput{RebuildWorkspaceRequests: []wstypes.RebuildRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.eventually("KMS decrypts both keys again", func() bool { return len(e.events("Decrypt")) >= before+4 })
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	if n := len(e.events("GenerateDataKeyWithoutPlaintext")); n != 2 {
		t.Errorf("%d data keys were made, want 2: the rebuild uses the stored ones", n)
	}

	// Step 7: nothing of the image can be read in the data directory.
	_ = filepath.WalkDir(e.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(path); strings.Contains(string(b), imageCanary) {
				t.Errorf("%s holds plaintext of the volume", path)
			}
		}
		return nil
	})

	// Step 9: each holder retires its own grants; nothing is left.
	_, err = e.WorkSpaces(e.admin).TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitGone(id)
	by := map[string]int{}
	for _, r := range e.events("RetireGrant") {
		if r.ErrorCode == "" {
			by[r.UserIdentity.InvokedBy]++
		}
	}
	if by["workspaces.amazonaws.com"] != 1 || by["ec2.amazonaws.com"] != 2 {
		t.Errorf("grants retired by %v, want one by WorkSpaces and two by EC2", by)
	}
	e.clean(e.key)
}

// TestManagedKey: without a key of one's own, alias/aws/workspaces is made on
// first use and nobody can edit its policy.
func TestManagedKey(t *testing.T) {
	e := newEstate(t)
	r := e.request("jane", "")
	r.VolumeEncryptionKey = nil
	id, failed := e.launch(e.admin, r)
	if failed != nil {
		t.Fatalf("refused: %s", *failed.ErrorMessage)
	}
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	k, err := e.KMS().DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/aws/workspaces")})
	e.must(err)
	if k.KeyMetadata.KeyManager != kmstypes.KeyManagerTypeAws {
		t.Errorf("alias/aws/workspaces has key manager %s, want AWS", k.KeyMetadata.KeyManager)
	}
	if _, err := e.KMS().PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.KeyMetadata.Arn, Policy: aws.String(`{"Version":"2012-10-17","Statement":[]}`)}); err == nil {
		t.Error("the policy of an AWS managed key could be changed")
	}
}

// calendar is the machine's clock with time that passed on top. Who waits looks again often.
type calendar struct{ ahead atomic.Int64 }

func (c *calendar) pass(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *calendar) Now() time.Time       { return clock.System.Now().Add(time.Duration(c.ahead.Load())) }
func (c *calendar) After(d time.Duration) <-chan time.Time {
	return time.After(min(d, time.Second))
}

// TestLaunchRefused: each reason is told, recorded, and leaves nothing behind.
func TestLaunchRefused(t *testing.T) {
	now := &calendar{}
	e := newEstate(t, func(c *app.Config) { c.Clock = now })
	k := e.KMS()
	create := func(in kms.CreateKeyInput) string {
		out, err := k.CreateKey(ctx, &in)
		e.must(err)
		e.addKeyUser(*out.KeyMetadata.Arn, e.adminARN, true)
		name := "grants-" + *out.KeyMetadata.KeyId
		_, err = e.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("wsadmin"), PolicyName: &name,
			PolicyDocument: aws.String(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:CreateGrant", "Resource": "` + *out.KeyMetadata.Arn + `"}]}`)})
		e.must(err)
		return *out.KeyMetadata.Arn
	}
	disabled := create(kms.CreateKeyInput{})
	_, err := k.DisableKey(ctx, &kms.DisableKeyInput{KeyId: &disabled})
	e.must(err)
	gone := create(kms.CreateKeyInput{})
	_, err = k.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &gone, PendingWindowInDays: aws.Int32(7)})
	e.must(err)
	now.pass(8 * 24 * time.Hour)
	e.eventually("the key is deleted", func() bool {
		left := false
		_, err := e.App.Store().Each(ctx, func(r store.Record) error {
			left = left || strings.HasPrefix(r.Key, "kms/key/") && strings.HasSuffix(gone, path.Base(r.Key))
			return nil
		})
		e.must(err)
		return !left
	})
	now.pass(-8 * 24 * time.Hour) // requests are signed with today's date
	deleted := create(kms.CreateKeyInput{})
	_, err = k.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &deleted, PendingWindowInDays: aws.Int32(7)})
	e.must(err)
	rsa := create(kms.CreateKeyInput{KeySpec: kmstypes.KeySpecRsa2048, KeyUsage: kmstypes.KeyUsageTypeEncryptDecrypt})
	hmac := create(kms.CreateKeyInput{KeySpec: kmstypes.KeySpecHmac256, KeyUsage: kmstypes.KeyUsageTypeGenerateVerifyMac})
	noGrant, _ := e.administrator("no-grant", e.key, true, false)
	notUser, _ := e.administrator("not-user", "arn:aws:kms:us-west-2:111122223333:key/none", false, true)

	for _, c := range []struct {
		name, key, code, say string
		who                  aws.CredentialsProvider
	}{
		{"disabled", disabled, "InvalidKeyState", "DisabledException", e.admin},
		{"pending deletion", deleted, "InvalidKeyState", "KMSInvalidStateException", e.admin},
		{"deleted", gone, "ResourceNotFound.Key", "could not be found", e.admin},
		{"asymmetric", rsa, "UnsupportedKey", "symmetric", e.admin},
		{"HMAC", hmac, "UnsupportedKey", "symmetric", e.admin},
		{"unknown", "arn:aws:kms:us-west-2:111122223333:key/11111111-2222-3333-4444-555555555555", "ResourceNotFound.Key", "could not be found", e.admin},
		{"alias spelled without alias/", "aws/workspaces", "ResourceNotFound.Key", "could not be found", e.admin},
		{"of another region", strings.Replace(e.key, "us-west-2", "eu-west-1", 1), "ResourceNotFound.Key", "", e.admin},
		{"of another account", strings.Replace(e.key, apptest.Account, "999988887777", 1), "AccessDenied.Key", "", e.admin},
		{"caller without CreateGrant", e.key, "AccessDenied.Key", "kms:CreateGrant", noGrant},
		{"caller no key user", e.key, "AccessDenied.Key", "kms:CreateGrant", notUser},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, failed := e.launch(c.who, e.request("jane", c.key))
			if failed == nil {
				t.Fatalf("launched %s", id)
			}
			if *failed.ErrorCode != c.code || !strings.Contains(*failed.ErrorMessage, c.say) {
				t.Errorf("refused with %s: %s; want %s saying %q", *failed.ErrorCode, *failed.ErrorMessage, c.code, c.say)
			}
		})
	}
	for _, c := range []struct {
		name string
		r    wstypes.WorkspaceRequest
		code string
	}{
		{"unknown user", e.request("nobody", e.key), "ResourceNotFound.User"},
		{"unknown bundle", func() wstypes.WorkspaceRequest {
			r := e.request("jane", e.key)
			r.BundleId = aws.String("wsb-unknown00")
			return r
		}(), "ResourceNotFound.Bundle"},
		{"unknown directory", func() wstypes.WorkspaceRequest {
			r := e.request("jane", e.key)
			r.DirectoryId = aws.String("d-0123456789")
			return r
		}(), "ResourceNotFound.Directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failed := e.launch(e.admin, c.r)
			if failed == nil || *failed.ErrorCode != c.code {
				t.Errorf("got %+v, want %s", failed, c.code)
			}
		})
	}
	refused := 0
	for _, r := range append(e.events("CreateGrant"), e.events("DescribeKey")...) {
		if r.ErrorCode != "" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no refusal is on the record")
	}
	e.clean(e.key)
}

// TestContextIsBound: EBS's right to a data key ends at the user, the directory
// and the volume that the grant names.
func TestContextIsBound(t *testing.T) {
	e := newEstate(t)
	other := e.user("john")
	e.launched("jane")
	ebs := api.ServiceCall("ec2", apptest.Account, apptest.Region, time.Now())
	var volume string
	for _, g := range e.grants(e.key) {
		if v := g.Constraints.EncryptionContextSubset["aws:ebs:id"]; v != "" {
			volume = v
		}
	}
	right := map[string]string{"aws:workspaces:sid-directoryid": "[" + e.sid + "]@[" + e.directory + "]", "aws:ebs:id": volume}
	generate := func(context map[string]string) ([]byte, error) {
		out, err := api.Do[kms.GenerateDataKeyWithoutPlaintextOutput](ctx, e.App.Gateway(), ebs, "kms", "GenerateDataKeyWithoutPlaintext",
			&kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &e.key, NumberOfBytes: aws.Int32(64), EncryptionContext: context})
		if err != nil {
			return nil, err
		}
		return out.CiphertextBlob, nil
	}
	blob, err := generate(right)
	e.must(err)
	for name, context := range map[string]map[string]string{
		"another user's SID": {"aws:workspaces:sid-directoryid": "[" + other + "]@[" + e.directory + "]", "aws:ebs:id": volume},
		"another volume":     {"aws:workspaces:sid-directoryid": right["aws:workspaces:sid-directoryid"], "aws:ebs:id": "vol-0123456789abcdef0"},
		"another directory":  {"aws:workspaces:sid-directoryid": "[" + e.sid + "]@[d-0000000000]", "aws:ebs:id": volume},
		"no user":            {"aws:ebs:id": volume},
		"nothing":            nil,
	} {
		var apiErr smithy.APIError
		if _, err := generate(context); !errors.As(err, &apiErr) || apiErr.ErrorCode() != "AccessDeniedException" {
			t.Errorf("GenerateDataKeyWithoutPlaintext with %s: %v, want AccessDeniedException", name, err)
		}
		_, err := api.Do[kms.DecryptOutput](ctx, e.App.Gateway(), ebs, "kms", "Decrypt", &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context})
		if !errors.As(err, &apiErr) || apiErr.ErrorCode() != "AccessDeniedException" {
			t.Errorf("Decrypt with %s: %v, want AccessDeniedException", name, err)
		}
		// With every right on the key, the context is still part of the ciphertext.
		_, err = e.KMS().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context})
		var invalid *kmstypes.InvalidCiphertextException
		if !errors.As(err, &invalid) {
			t.Errorf("Decrypt by root with %s: %v, want InvalidCiphertextException", name, err)
		}
	}
	for _, g := range e.grants(e.key) {
		_, err := e.KMS().RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: &e.key, GrantId: g.GrantId})
		e.must(err)
	}
	var apiErr smithy.APIError
	if _, err := generate(right); !errors.As(err, &apiErr) || apiErr.ErrorCode() != "AccessDeniedException" {
		t.Errorf("after the grants were revoked: %v, want AccessDeniedException", err)
	}
}

// TestDisabledKey: it does not hurt a running desktop; the next attach fails with
// the reason; enabling it recovers the desktop.
func TestDisabledKey(t *testing.T) {
	e := newEstate(t)
	id := e.launched("jane")
	_, err := e.KMS().DisableKey(ctx, &kms.DisableKeyInput{KeyId: &e.key})
	e.must(err)
	time.Sleep(1500 * time.Millisecond)
	if w := e.describe(id); w.State != wstypes.WorkspaceStateAvailable {
		t.Fatalf("a running desktop whose key was disabled is %s: %s", w.State, aws.ToString(w.ErrorMessage))
	}
	_, err = e.WorkSpaces(e.admin).RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []wstypes.RebootRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitState(id, wstypes.WorkspaceStateError)
	if w := e.describe(id); !strings.Contains(aws.ToString(w.ErrorMessage), "disabled") {
		t.Errorf("it says %q, want that the key is disabled", aws.ToString(w.ErrorMessage))
	}
	_, err = e.KMS().EnableKey(ctx, &kms.EnableKeyInput{KeyId: &e.key})
	e.must(err)
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	_, err = e.WorkSpaces(e.admin).TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitGone(id)
	e.clean(e.key)
}

// TestRestarts: the control plane, volumed and the machine each go away under a
// running desktop; afterwards it runs again and nothing is left over.
func TestRestarts(t *testing.T) {
	e := newEstate(t)
	id := e.launched("jane")

	e.Restart()
	e.awaitState(id, wstypes.WorkspaceStateAvailable)

	before := len(e.events("Decrypt"))
	e.KillVolumed()
	e.eventually("the keys are fetched again through KMS after volumed died", func() bool { return len(e.events("Decrypt")) >= before+2 })
	e.awaitState(id, wstypes.WorkspaceStateAvailable)

	before = len(e.events("Decrypt"))
	e.must(e.Host.Crash(id))
	e.eventually("the lost machine is brought up again, for which KMS decrypts its keys", func() bool { return len(e.events("Decrypt")) >= before+2 })
	e.awaitState(id, wstypes.WorkspaceStateAvailable)
	_, err := e.WorkSpaces(e.admin).TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []wstypes.TerminateRequest{{WorkspaceId: &id}}})
	e.must(err)
	e.awaitGone(id)
	e.clean(e.key)
}
