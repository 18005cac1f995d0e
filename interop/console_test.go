package interop

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/compute/qemu"
	"github.com/sealdesk/sealdesk/internal/console"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

func TestMain(m *testing.M) { apptest.Main(m) }

// must fails the test when an API call did not succeed.
func must[T any](t *testing.T, what string) func(T, error) T {
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return out
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// consoleServer is what the browser tests are told, as SEALDESK_CONSOLE.
type consoleServer struct {
	URL             string `json:"url"`
	Region          string `json:"region"`
	Account         string `json:"account"`
	AccessKeyID     string `json:"accessKeyId"` // of the root user
	SecretAccessKey string `json:"secretAccessKey"`
	Admin           struct {
		Name     string `json:"name"`
		Password string `json:"password"`
	} `json:"admin"`
	Operator struct { // of WorkSpaces, without kms:CreateGrant
		Name     string `json:"name"`
		Password string `json:"password"`
	} `json:"operator"`
	KeyID       string `json:"keyId"`
	Asymmetric  string `json:"asymmetricKeyId"`
	DirectoryID string `json:"directoryId"`
	WorkspaceID string `json:"workspaceId"`
	UserName    string `json:"userName"` // of the directory
	Password    string `json:"userPassword"`
	// A proxy that the server reaches at an endpoint: what an external key store needs. It has the key "ext-1".
	Proxy struct {
		Endpoint    string `json:"endpoint"`
		Path        string `json:"path"`
		AccessKeyID string `json:"accessKeyId"`
		Secret      string `json:"secretAccessKey"`
	} `json:"proxy"`
}

// newConsoleServer starts a server, with desktops that are not machines, and makes in it what a
// console shows: an administrator with a password, users and a role, a key, a directory, a desktop.
func newConsoleServer(t *testing.T) consoleServer {
	image := filepath.Join(t.TempDir(), "desktop.raw")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p := xkstest.New(t, "/store-1")
	p.Token.Add("ext-1")
	stores, err := json.Marshal(map[string]any{"xks": map[string]any{"ca": p.CAFile, "timeout": "5s", "endpoints": map[string]any{
		xkstest.Endpoint: map[string]string{"address": p.Address},
		"com.amazonaws.vpce.us-west-2.vpce-svc-0123456789abcdef0": map[string]string{"address": "127.0.0.1:1"}, // nobody is there
	}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key-stores.json")
	if err := os.WriteFile(file, stores, 0o600); err != nil {
		t.Fatal(err)
	}
	s := apptest.New(t, func(c *app.Config) { c.Image, c.KeyStoresFile = image, file })
	c := furnish(t, s)
	c.Proxy.Endpoint, c.Proxy.Path, c.Proxy.AccessKeyID, c.Proxy.Secret = xkstest.Endpoint, "/store-1/kms/xks/v1", xkstest.AccessKeyID, xkstest.SecretKey
	c.launch(t, s)
	return c
}

// furnish makes all but the desktop.
func furnish(t *testing.T, s *apptest.Server) consoleServer {
	ctx := context.Background()
	c := consoleServer{URL: s.URL, Region: apptest.Region, Account: apptest.Account, AccessKeyID: apptest.RootAccessKeyID, SecretAccessKey: apptest.RootSecret, UserName: "jane", Password: "Correct-Horse-7"}
	c.Admin.Name, c.Admin.Password = "alex", "Battery-Staple-7"
	for _, u := range []string{c.Admin.Name, "wendy", "priya", "marcus"} {
		must[*iam.CreateUserOutput](t, "create user "+u)(s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: &u}))
	}
	must[*iam.CreateLoginProfileOutput](t, "set password")(s.IAM().CreateLoginProfile(ctx, &iam.CreateLoginProfileInput{UserName: &c.Admin.Name, Password: &c.Admin.Password}))
	must[*iam.AttachUserPolicyOutput](t, "attach")(s.IAM().AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &c.Admin.Name, PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")}))
	c.Operator.Name, c.Operator.Password = "wendy", "Battery-Staple-7"
	must[*iam.CreateLoginProfileOutput](t, "set password")(s.IAM().CreateLoginProfile(ctx, &iam.CreateLoginProfileInput{UserName: &c.Operator.Name, Password: &c.Operator.Password}))
	must[*iam.PutUserPolicyOutput](t, "put policy")(s.IAM().PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &c.Operator.Name, PolicyName: aws.String("desktops"),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["workspaces:*","ds:Describe*","ds:AccessDSData","ds-data:*","kms:DescribeKey","kms:ListKeys","kms:ListAliases"],"Resource":"*"}]}`)}))
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + apptest.Account + `:root"},"Action":"sts:AssumeRole"}]}`
	must[*iam.CreateRoleOutput](t, "create role")(s.IAM().CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("desktop-operators"), AssumeRolePolicyDocument: &trust, Description: aws.String("Launches and restarts desktops")}))
	key := must[*kms.CreateKeyOutput](t, "create key")(s.KMS().CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("Volumes of the finance desktops")}))
	c.KeyID = *key.KeyMetadata.KeyId
	must[*kms.CreateAliasOutput](t, "create alias")(s.KMS().CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/finance-desktops"), TargetKeyId: &c.KeyID}))

	signing := must[*kms.CreateKeyOutput](t, "create key")(s.KMS().CreateKey(ctx, &kms.CreateKeyInput{KeySpec: kmstypes.KeySpecEccNistP256, KeyUsage: kmstypes.KeyUsageTypeSignVerify, Description: aws.String("Signs releases")}))
	c.Asymmetric = *signing.KeyMetadata.KeyId

	d := must[*directoryservice.CreateDirectoryOutput](t, "create directory")(s.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall}))
	c.DirectoryID = *d.DirectoryId
	eventually(t, "the directory is Active", func() bool {
		out, err := s.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{})
		return err == nil && out.DirectoryDescriptions[0].Stage == dstypes.DirectoryStageActive
	})
	for _, u := range [][3]string{{"jane", "Jane", "Doe"}, {"kenji", "Kenji", "Sato"}} {
		must[*dsdata.CreateUserOutput](t, "create user "+u[0])(s.DSData().CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: &c.DirectoryID, SAMAccountName: &u[0], GivenName: &u[1], Surname: &u[2]}))
		must[*directoryservice.ResetUserPasswordOutput](t, "set password")(s.DS().ResetUserPassword(ctx, &directoryservice.ResetUserPasswordInput{DirectoryId: &c.DirectoryID, UserName: &u[0], NewPassword: &c.Password}))
	}
	must[*workspaces.RegisterWorkspaceDirectoryOutput](t, "register directory")(s.WorkSpaces().RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &c.DirectoryID}))
	return c
}

// launch gives the directory's user a desktop.
func (c *consoleServer) launch(t *testing.T, s *apptest.Server) {
	ctx := context.Background()
	ws := must[*workspaces.CreateWorkspacesOutput](t, "create WorkSpace")(s.WorkSpaces().CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []wstypes.WorkspaceRequest{{
		DirectoryId: &c.DirectoryID, UserName: &c.UserName, BundleId: aws.String("wsb-standard1"), VolumeEncryptionKey: &c.KeyID, RootVolumeEncryptionEnabled: aws.Bool(true), UserVolumeEncryptionEnabled: aws.Bool(true),
	}}}))
	if len(ws.PendingRequests) != 1 {
		t.Fatalf("create WorkSpace: %+v", ws.FailedRequests)
	}
	c.WorkspaceID = *ws.PendingRequests[0].WorkspaceId
	eventually(t, "the desktop is AVAILABLE", func() bool {
		out, err := s.WorkSpaces().DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{c.WorkspaceID}})
		return err == nil && len(out.Workspaces) == 1 && out.Workspaces[0].State == wstypes.WorkspaceStateAvailable
	})
}

// TestConsoleUnits runs the console's unit and component tests.
func TestConsoleUnits(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("needs node")
	}
	cmd := exec.CommandContext(t.Context(), "node", "node_modules/vitest/vitest.mjs", "run")
	cmd.Dir = "../console"
	if _, err := os.Stat(filepath.Join(cmd.Dir, cmd.Args[1])); err != nil {
		t.Skip("needs the console's modules: run make console")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestConsole does in a browser what an administrator does, and looks at every page: see
// console/e2e. CONSOLE_TEST names the files to run, as a pattern; CONSOLE_HOLD=1 runs none and
// keeps the server up until it is interrupted.
func TestConsole(t *testing.T) {
	top := needBrowser(t)
	c := newConsoleServer(t)
	told, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("CONSOLE_HOLD") != "" {
		os.Stdout.WriteString("export SEALDESK_CONSOLE='" + string(told) + "'\n")
		<-t.Context().Done()
	}
	pattern := os.Getenv("CONSOLE_TEST")
	if pattern == "" {
		pattern = "*"
	}
	files, err := filepath.Glob(filepath.Join(top, "console/e2e", pattern+".test.mjs"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no browser tests match %q: %v", pattern, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".test.mjs"), func(t *testing.T) { drive(t, f, told) })
	}
}

// needBrowser skips where a browser cannot be driven; top is the repository.
func needBrowser(t *testing.T) (top string) {
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"node", "chromium"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/prerequisites", tool)
		}
	}
	if _, err := os.Stat(filepath.Join(top, "console/node_modules/playwright-core")); err != nil || !console.Built() {
		t.Skip("needs the console: run make console")
	}
	if testing.Short() {
		t.Skip("drives a browser")
	}
	return top
}

// drive runs one file of browser tests.
func drive(t *testing.T, file string, told []byte) {
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=spec", file)
	cmd.Env = append(os.Environ(), "SEALDESK_CONSOLE="+string(told))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(file), err)
	}
}

// TestDesktopInBrowser launches a real desktop through the console, connects to it through the
// portal and types into it.
func TestDesktopInBrowser(t *testing.T) {
	if os.Getenv("SEALDESK_E2E") == "" {
		t.Skip("boots a real desktop, which takes minutes: run make e2e")
	}
	top := needBrowser(t)
	image, err := filepath.EvalSymlinks(filepath.Join(top, "build/images/desktop.raw"))
	if err != nil {
		t.Skip("needs the desktop image: run make image")
	}
	dir, err := os.MkdirTemp("", "sdq") // short: sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	drv, err := qemu.New(qemu.Options{Dir: dir})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { drv.Close() })
	s := apptest.New(t, func(c *app.Config) { c.Image, c.Compute = image, drv })
	t.Cleanup(func() { // while the server still runs
		list, _ := drv.List(context.Background())
		for _, m := range list {
			if err := drv.Remove(context.Background(), m.ID); err != nil {
				t.Errorf("remove %s: %v", m.ID, err)
			}
		}
	})
	told, err := json.Marshal(furnish(t, s))
	if err != nil {
		t.Fatal(err)
	}
	drive(t, filepath.Join(top, "console/e2e/desktop.real.mjs"), told)
}
