package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// freeRADIUS runs a FreeRADIUS server that knows one user's code, and tells its port.
func freeRADIUS(t *testing.T, secret, user, code string) int32 {
	binary, err := exec.LookPath("freeradius")
	if err != nil {
		t.Skip("needs freeradius (Debian: freeradius)")
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"users": fmt.Sprintf("%s Cleartext-Password := \"%s\"\n", user, code),
		"radiusd.conf": fmt.Sprintf(`
confdir = %[1]s
run_dir = %[1]s
logdir = %[1]s
libdir = /usr/lib/freeradius
pidfile = %[1]s/pid
log {
	destination = stdout
}
security {
	reject_delay = 0
}
thread pool {
	start_servers = 1
}
modules {
	files {
		usersfile = %[1]s/users
	}
	pap {
	}
	chap {
	}
	mschap {
		use_mppe = no
	}
}
client test {
	ipaddr = 127.0.0.1
	secret = %[2]s
	require_message_authenticator = yes
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[3]d
	}
	authorize {
		files
		chap
		mschap
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type CHAP {
			chap
		}
		Auth-Type MS-CHAP {
			mschap
		}
	}
}
`, dir, secret, port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, "-f", "-l", "stdout", "-d", dir, "-n", "radiusd")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("freeradius: %s", &said)
		}
	})
	return int32(port)
}

// TestRadius signs directory users in with a second factor that FreeRADIUS checks, by every
// protocol, and through the portal's page.
func TestRadius(t *testing.T) {
	ctx := context.Background()
	const shared, code = "shared-with-freeradius", "424242"
	port := freeRADIUS(t, shared, "jane", code)
	s := apptest.New(t)
	d := must[*directoryservice.CreateMicrosoftADOutput](t, "create directory")(s.DS().CreateMicrosoftAD(ctx, &directoryservice.CreateMicrosoftADInput{Name: aws.String("ad.example.com"), Password: aws.String("Adm1n-of-the-corp"),
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: aws.String("vpc-12345678"), SubnetIds: []string{"subnet-12345678", "subnet-12345679"}}}))
	describe := func() dstypes.DirectoryDescription {
		out := must[*directoryservice.DescribeDirectoriesOutput](t, "describe")(s.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{DirectoryIds: []string{*d.DirectoryId}}))
		return out.DirectoryDescriptions[0]
	}
	eventually(t, "the directory is Active", func() bool { return describe().Stage == dstypes.DirectoryStageActive })
	c := consoleServer{URL: s.URL, Region: apptest.Region, Account: apptest.Account, DirectoryID: *d.DirectoryId, UserName: "jane", Password: "Correct-Horse-7"}
	for _, u := range []string{"jane", "kenji"} {
		must[*dsdata.CreateUserOutput](t, "create user")(s.DSData().CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: d.DirectoryId, SAMAccountName: &u}))
		must[*directoryservice.ResetUserPasswordOutput](t, "set password")(s.DS().ResetUserPassword(ctx, &directoryservice.ResetUserPasswordInput{DirectoryId: d.DirectoryId, UserName: &u, NewPassword: &c.Password}))
	}
	must[*workspaces.RegisterWorkspaceDirectoryOutput](t, "register directory")(s.WorkSpaces().RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: d.DirectoryId}))

	signIn := func(user, password, code string) string { // what the answer's code is, "" for success
		body, _ := json.Marshal(map[string]string{"directory": *d.DirectoryId, "userName": user, "password": password, "code": code})
		r, _ := http.NewRequest("POST", s.URL+"/portal/signin", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", s.URL)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out struct{ Code, Label string }
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		if out.Label != "" {
			return out.Code + " " + out.Label
		}
		return out.Code
	}
	if got := signIn("jane", c.Password, ""); got != "" {
		t.Errorf("before EnableRadius: %q, want success", got)
	}
	settings := &dstypes.RadiusSettings{RadiusServers: []string{"127.0.0.1"}, RadiusPort: &port, RadiusTimeout: aws.Int32(2), RadiusRetries: 1, SharedSecret: aws.String(shared), AuthenticationProtocol: dstypes.RadiusAuthenticationProtocolPap, DisplayLabel: aws.String("Token code")}
	must[*directoryservice.EnableRadiusOutput](t, "EnableRadius")(s.DS().EnableRadius(ctx, &directoryservice.EnableRadiusInput{DirectoryId: d.DirectoryId, RadiusSettings: settings}))
	eventually(t, "RadiusStatus is Completed", func() bool { return describe().RadiusStatus == dstypes.RadiusStatusCompleted })
	if got := signIn("jane", "wrong", ""); got != "MFARequired Token code" {
		t.Errorf("without a code: %q, want MFARequired, whatever the password", got)
	}
	for _, p := range dstypes.RadiusAuthenticationProtocol("").Values() {
		must[*directoryservice.UpdateRadiusOutput](t, "UpdateRadius")(s.DS().UpdateRadius(ctx, &directoryservice.UpdateRadiusInput{DirectoryId: d.DirectoryId, RadiusSettings: &dstypes.RadiusSettings{AuthenticationProtocol: p, RadiusRetries: 1}}))
		eventually(t, string(p)+": RadiusStatus is Completed", func() bool { return describe().RadiusStatus == dstypes.RadiusStatusCompleted })
		for _, x := range [][4]string{{"jane", c.Password, code, ""}, {"JANE@ad.example.com", c.Password, code, ""}, {"jane", c.Password, "424243", "AuthFailure"}, {"jane", "wrong", code, "AuthFailure"}, {"kenji", c.Password, code, "AuthFailure"}} {
			if got := signIn(x[0], x[1], x[2]); got != x[3] {
				t.Errorf("%s: sign-in of %s with %s, %s: %q, want %q", p, x[0], x[1], x[2], got, x[3])
			}
			if x[3] == "" {
				continue
			}
			_ = signIn("jane", c.Password, code) // forgets jane's wrong guesses
		}
	}
	c.Admin.Name, c.Admin.Password = "alex", "Battery-Staple-7"
	must[*iam.CreateUserOutput](t, "create user")(s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: &c.Admin.Name}))
	must[*iam.CreateLoginProfileOutput](t, "set password")(s.IAM().CreateLoginProfile(ctx, &iam.CreateLoginProfileInput{UserName: &c.Admin.Name, Password: &c.Admin.Password}))
	must[*iam.AttachUserPolicyOutput](t, "attach")(s.IAM().AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &c.Admin.Name, PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")}))
	t.Run("page", func(t *testing.T) {
		top := needBrowser(t)
		told, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		drive(t, filepath.Join(top, "console/e2e/portal-code.mjs"), told)
	})
	// Another secret: no answer counts, and nobody is let in without one.
	must[*directoryservice.UpdateRadiusOutput](t, "UpdateRadius")(s.DS().UpdateRadius(ctx, &directoryservice.UpdateRadiusInput{DirectoryId: d.DirectoryId, RadiusSettings: &dstypes.RadiusSettings{SharedSecret: aws.String("not-what-they-have"), RadiusTimeout: aws.Int32(1)}}))
	eventually(t, "RadiusStatus is Failed", func() bool { return describe().RadiusStatus == dstypes.RadiusStatusFailed })
	if got := signIn("jane", c.Password, code); got != "MFAUnavailable" {
		t.Errorf("with another secret: %q, want MFAUnavailable", got)
	}
	must[*directoryservice.DisableRadiusOutput](t, "DisableRadius")(s.DS().DisableRadius(ctx, &directoryservice.DisableRadiusInput{DirectoryId: d.DirectoryId}))
	if got := signIn("jane", c.Password, ""); got != "" {
		t.Errorf("after DisableRadius: %q, want success", got)
	}
}
