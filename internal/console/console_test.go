package console_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/coder/websocket"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/compute/fake"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

func TestMain(m *testing.M) { apptest.Main(m) }

var ctx = context.Background()

// browser is a browser with cookies that has a page of the console open.
type browser struct {
	t      testing.TB
	url    string
	origin string
	c      *http.Client
}

func newBrowser(t testing.TB, url string) *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{t, url, url, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// post sends JSON as a page does; edit may spoil the request.
func (b *browser) post(path string, in any, edit ...func(*http.Request)) (status int, out map[string]any) {
	b.t.Helper()
	body, _ := json.Marshal(in)
	r, _ := http.NewRequest("POST", b.url+path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", b.origin)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, e := range edit {
		e(r)
	}
	resp, err := b.c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if json.Unmarshal(text, &out) != nil {
		b.t.Fatalf("POST %s: %d with %q, want JSON", path, resp.StatusCode, text)
	}
	return resp.StatusCode, out
}

func creds(out map[string]any) aws.CredentialsProvider {
	c, _ := out["credentials"].(map[string]any)
	if c == nil {
		return apptest.Keys("none", "none", "none")
	}
	return apptest.Keys(c["accessKeyId"].(string), c["secretAccessKey"].(string), c["sessionToken"].(string))
}

func consoleUser(t testing.TB, s *apptest.Server, name, password string, reset bool) {
	t.Helper()
	if _, err := s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: &name}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.IAM().CreateLoginProfile(ctx, &iam.CreateLoginProfileInput{UserName: &name, Password: &password, PasswordResetRequired: reset}); err != nil {
		t.Fatal(err)
	}
}

func TestSignIn(t *testing.T) {
	s := apptest.New(t)
	consoleUser(t, s, "alice", "a-long-Passw0rd", false)
	b := newBrowser(t, s.URL)
	status, out := b.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "alice", "password": "wrong"})
	if status != 403 || out["code"] != "AuthFailure" || out["requestId"] == "" {
		t.Errorf("wrong password: %d %v, want 403 AuthFailure with a request ID", status, out)
	}
	if st, o := b.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "nobody", "password": "wrong"}); st != status || o["message"] != out["message"] {
		t.Errorf("unknown user: %d %v, want the same as a wrong password: %v", st, o["message"], out["message"])
	}
	status, out = b.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "alice", "password": "a-long-Passw0rd"})
	if status != 200 || out["userName"] != "alice" {
		t.Fatalf("sign-in: %d %v", status, out)
	}
	first := creds(out)
	id, err := s.STS(first).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || aws.ToString(id.Arn) != "arn:aws:iam::"+apptest.Account+":user/alice" {
		t.Fatalf("GetCallerIdentity with the console's credentials = %v, %v", id, err)
	}
	// A reload: new credentials by the cookie; then sign-out ends both.
	status, out = b.post("/console/refresh", struct{}{})
	if status != 200 {
		t.Fatalf("refresh: %d %v", status, out)
	}
	second := creds(out)
	status, out = b.post("/console/sessions", struct{}{})
	if l, _ := out["sessions"].([]any); status != 200 || len(l) != 1 {
		t.Errorf("sessions: %d %v, want one", status, out)
	}
	if status, out = b.post("/console/signout", struct{}{}); status != 200 {
		t.Fatalf("sign-out: %d %v", status, out)
	}
	for i, c := range []aws.CredentialsProvider{first, second} {
		if _, err := s.STS(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err == nil {
			t.Errorf("credentials %d still work after sign-out", i+1)
		}
	}
	if status, out = b.post("/console/refresh", struct{}{}); status != 401 {
		t.Errorf("refresh after sign-out: %d %v, want 401", status, out)
	}
	want := []string{"alice Success", "HIDDEN_DUE_TO_SECURITY_REASONS Failure", "alice Failure"}
	if got := logins(t, s); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("ConsoleLogin records, newest first = %v, want %v", got, want)
	}
}

// logins are the ConsoleLogin records, newest first.
func logins(t *testing.T, s *apptest.Server) (got []string) {
	t.Helper()
	cfg := s.Config()
	cfg.Region = "us-east-1"
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && len(got) < 1; time.Sleep(50 * time.Millisecond) {
		got = nil
		ev, err := cloudtrail.NewFromConfig(cfg).LookupEvents(ctx, &cloudtrail.LookupEventsInput{LookupAttributes: []cttypes.LookupAttribute{{AttributeKey: cttypes.LookupAttributeKeyEventName, AttributeValue: aws.String("ConsoleLogin")}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ev.Events {
			var rec struct {
				UserIdentity     struct{ UserName string }
				ResponseElements struct{ ConsoleLogin string }
				EventType        string
			}
			if err := json.Unmarshal([]byte(*e.CloudTrailEvent), &rec); err != nil || rec.EventType != "AwsConsoleSignIn" {
				t.Fatalf("record %s: %v, want an AwsConsoleSignIn", *e.CloudTrailEvent, err)
			}
			if strings.Contains(*e.CloudTrailEvent, "Passw0rd") {
				t.Fatalf("the record shows the password: %s", *e.CloudTrailEvent)
			}
			got = append(got, rec.UserIdentity.UserName+" "+rec.ResponseElements.ConsoleLogin)
		}
	}
	return got
}

func TestSignInWithANewPassword(t *testing.T) {
	s := apptest.New(t)
	consoleUser(t, s, "bob", "temporary-Passw0rd", true)
	// As in AWS, who must set a new password needs the permission to.
	if _, err := s.IAM().AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: aws.String("arn:aws:iam::aws:policy/IAMUserChangePassword")}); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, s.URL)
	_, out := b.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "bob", "password": "temporary-Passw0rd"})
	ticket, _ := out["passwordTicket"].(string)
	if ticket == "" || out["credentials"] != nil {
		t.Fatalf("sign-in = %v, want a ticket and no credentials", out)
	}
	set := func(old, fresh string) (int, map[string]any) {
		return b.post("/console/signin/password", map[string]string{"ticket": ticket, "oldPassword": old, "newPassword": fresh})
	}
	if st, o := set("another", "my-own-Passw0rd"); st != 403 {
		t.Errorf("another old password: %d %v, want 403", st, o)
	}
	if st, o := set("temporary-Passw0rd", "x"); st != 400 {
		t.Errorf("a short new password: %d %v, want 400", st, o)
	}
	if st, o := set("temporary-Passw0rd", "my-own-Passw0rd"); st != 200 || o["credentials"] == nil {
		t.Errorf("a new password: %d %v, want credentials", st, o)
	}
	if st, o := set("temporary-Passw0rd", "yet-another-Passw0rd"); st != 403 {
		t.Errorf("the ticket again: %d %v, want 403", st, o)
	}
	if st, o := newBrowser(t, s.URL).post("/console/signin", map[string]string{"account": apptest.Account, "userName": "bob", "password": "my-own-Passw0rd"}); st != 200 {
		t.Errorf("sign-in with the new password: %d %v", st, o)
	}
}

// signed signs a page's request with a long-term key, as the browser does.
func signed(t testing.TB, id, secret, body string) func(*http.Request) {
	return func(r *http.Request) {
		sum := sha256.Sum256([]byte(body))
		r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		if err := v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, r, hex.EncodeToString(sum[:]), "signin", "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSignInWithAccessKey(t *testing.T) {
	s := apptest.New(t)
	b := newBrowser(t, s.URL)
	if st, o := b.post("/console/signin/key", struct{}{}, signed(t, apptest.RootAccessKeyID, "wrong", "{}")); st != 403 {
		t.Errorf("wrong secret: %d %v, want 403", st, o)
	}
	if st, o := b.post("/console/signin/key", struct{}{}); st != 403 {
		t.Errorf("unsigned: %d %v, want 403", st, o)
	}
	st, o := b.post("/console/signin/key", struct{}{}, signed(t, apptest.RootAccessKeyID, apptest.RootSecret, "{}"))
	if st != 200 || o["root"] != true {
		t.Fatalf("sign-in: %d %v, want the root user", st, o)
	}
	if _, err := s.IAM(creds(o)).ListUsers(ctx, &iam.ListUsersInput{}); err != nil {
		t.Errorf("ListUsers with the console's credentials: %v", err)
	}
	// The root user ends another's session.
	consoleUser(t, s, "carol", "a-long-Passw0rd", false)
	other := newBrowser(t, s.URL)
	_, theirs := other.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "carol", "password": "a-long-Passw0rd"})
	if st, o := other.post("/console/sessions/revoke", map[string]any{"id": o["session"]}); st != 404 {
		t.Errorf("carol ends the root user's session: %d %v, want 404", st, o)
	}
	if st, o := b.post("/console/sessions/revoke", map[string]any{"id": theirs["session"]}); st != 200 {
		t.Errorf("the root user ends carol's session: %d %v", st, o)
	}
	if _, err := s.STS(creds(theirs)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err == nil {
		t.Error("carol's credentials work after the revocation")
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	s := apptest.New(t)
	b := newBrowser(t, s.URL)
	for name, edit := range map[string]func(*http.Request){
		"another origin":   func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"no origin":        func(r *http.Request) { r.Header.Del("Origin") },
		"origin null":      func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a cross-site one": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a form":           func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") },
		"plain text":       func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
	} {
		for _, path := range []string{"/console/signin", "/console/refresh", "/portal/signin", "/portal/connect"} {
			if st, o := b.post(path, struct{}{}, edit); st != 403 && st != 415 {
				t.Errorf("%s to %s: %d %v, want a refusal", name, path, st, o)
			}
		}
	}
}

func TestGuessingIsSlowed(t *testing.T) {
	s := apptest.New(t)
	b := newBrowser(t, s.URL)
	last := 0
	for range 8 {
		last, _ = b.post("/console/signin", map[string]string{"account": apptest.Account, "userName": "alice", "password": "guess"})
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the eighth guess: %d, want 429", last)
	}
}

func TestPagesAndHeaders(t *testing.T) {
	s := apptest.New(t)
	b := newBrowser(t, s.URL)
	get := func(path, accept string) *http.Response {
		r, _ := http.NewRequest("GET", s.URL+path, nil)
		r.Header.Set("Accept", accept)
		resp, err := b.c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if r := get("/", "text/html,*/*"); r.StatusCode != 302 || r.Header.Get("Location") != "/console/" {
		t.Errorf("a browser at /: %d %s, want a way to /console/", r.StatusCode, r.Header.Get("Location"))
	}
	if r := get("/", "application/json"); r.StatusCode == 302 {
		t.Error("an API client at / is sent to the console")
	}
	for _, path := range []string{"/console/", "/console/kms/home", "/portal/"} {
		r := get(path, "text/html")
		csp := r.Header.Get("Content-Security-Policy")
		if r.StatusCode != 200 && r.StatusCode != 503 || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("GET %s: %d, CSP %q", path, r.StatusCode, csp)
		}
	}
	if r := get("/console/assets/none.js", "*/*"); r.StatusCode != 404 {
		t.Errorf("a missing asset: %d, want 404", r.StatusCode)
	}
}

// A desktop for one user, on a fake machine whose screen this test serves.
type deskEstate struct {
	*apptest.Server
	t                            testing.TB
	directory, code, workspaceID string
	screen                       chan net.Conn
	machines                     *fake.Host
}

func newDesk(t testing.TB, opts ...func(*app.Config)) *deskEstate {
	dir, err := os.MkdirTemp("", "scr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	image := filepath.Join(dir, "desktop.raw")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	machines := fake.NewHost(fake.Options{CheckDisks: true, Dir: dir})
	drv := fake.New(machines)
	opts = append(opts, func(c *app.Config) { c.Image, c.Compute = image, drv })
	e := &deskEstate{Server: apptest.New(t, opts...), t: t, machines: machines, screen: make(chan net.Conn, 200)}
	d, err := e.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall})
	e.must(err)
	e.directory = *d.DirectoryId
	e.eventually("the directory is Active", func() bool {
		out, err := e.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{})
		return err == nil && out.DirectoryDescriptions[0].Stage == dstypes.DirectoryStageActive
	})
	for _, u := range []string{"jane", "mallory"} {
		_, err = e.DSData().CreateUser(ctx, &dsdata.CreateUserInput{DirectoryId: &e.directory, SAMAccountName: &u})
		e.must(err)
		_, err = e.DS().ResetUserPassword(ctx, &directoryservice.ResetUserPasswordInput{DirectoryId: &e.directory, UserName: &u, NewPassword: aws.String("Correct-Horse-7")})
		e.must(err)
	}
	_, err = e.WorkSpaces().RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &e.directory})
	e.must(err)
	dirs, err := e.WorkSpaces().DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{})
	e.must(err)
	e.code = *dirs.Directories[0].RegistrationCode
	bundles, err := e.WorkSpaces().DescribeWorkspaceBundles(ctx, &workspaces.DescribeWorkspaceBundlesInput{Owner: aws.String("AMAZON")})
	e.must(err)
	out, err := e.WorkSpaces().CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []wstypes.WorkspaceRequest{{DirectoryId: &e.directory, UserName: aws.String("jane"), BundleId: bundles.Bundles[0].BundleId,
		WorkspaceProperties: &wstypes.WorkspaceProperties{RunningMode: wstypes.RunningModeAutoStop}}}})
	e.must(err)
	if len(out.PendingRequests) != 1 {
		t.Fatalf("CreateWorkspaces refused: %s", aws.ToString(out.FailedRequests[0].ErrorMessage))
	}
	e.workspaceID = *out.PendingRequests[0].WorkspaceId
	e.eventually("the WorkSpace is AVAILABLE", func() bool { return e.state() == wstypes.WorkspaceStateAvailable })
	socket, err := drv.VNCSocket(ctx, e.workspaceID)
	e.must(err)
	e.must(os.MkdirAll(filepath.Dir(socket), 0o700))
	l, err := net.Listen("unix", socket)
	e.must(err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveRFB(c, e.screen)
		}
	}()
	return e
}

func (e *deskEstate) state() wstypes.WorkspaceState {
	out, err := e.WorkSpaces().DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{e.workspaceID}})
	if err != nil || len(out.Workspaces) == 0 {
		return ""
	}
	return out.Workspaces[0].State
}

func (e *deskEstate) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *deskEstate) eventually(what string, f func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// serveRFB is a small VNC server: it answers every key with a bell.
func serveRFB(c net.Conn, opened chan<- net.Conn) {
	defer c.Close()
	opened <- c
	fmt.Fprint(c, "RFB 003.008\n")
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	c.Write([]byte{1, 1})
	io.ReadFull(c, b[:1])
	c.Write([]byte{0, 0, 0, 0})
	io.ReadFull(c, b[:1])
	c.Write(append([]byte{4, 0, 3, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4}, "desk"...))
	for {
		if _, err := io.ReadFull(c, b[:8]); err != nil {
			return
		}
		c.Write([]byte{2})
	}
}

func (e *deskEstate) user(name string) *browser {
	e.t.Helper()
	b := newBrowser(e.t, e.URL)
	if st, o := b.post("/portal/signin", map[string]string{"directory": e.code, "userName": name, "password": "Correct-Horse-7"}); st != 200 {
		e.t.Fatalf("sign-in of %s: %d %v", name, st, o)
	}
	return b
}

// ticket asks for the right to connect.
func (e *deskEstate) ticket(b *browser) (path, token string) {
	e.t.Helper()
	st, o := b.post("/portal/connect", map[string]string{"workspaceId": e.workspaceID})
	if st != 200 {
		e.t.Fatalf("connect: %d %v", st, o)
	}
	return o["path"].(string), o["token"].(string)
}

func (e *deskEstate) dial(path, token, origin string) (*websocket.Conn, error) {
	dctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(dctx, "ws"+strings.TrimPrefix(e.URL, "http")+path, &websocket.DialOptions{Subprotocols: []string{"sealdesk.desktop", "token." + token}, HTTPHeader: http.Header{"Origin": {origin}}})
	if err == nil {
		c.SetReadLimit(1 << 20)
		return c, nil
	}
	if resp != nil {
		return nil, fmt.Errorf("%d", resp.StatusCode)
	}
	return nil, err
}

// open connects and goes through the handshake until a key is answered.
func (e *deskEstate) open(b *browser) *websocket.Conn {
	e.t.Helper()
	path, token := e.ticket(b)
	c, err := e.dial(path, token, e.URL)
	e.must(err)
	rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r := &wsReader{ctx: rctx, c: c}
	want := func(n int) []byte {
		buf := make([]byte, n)
		if _, err := io.ReadFull(r, buf); err != nil {
			e.t.Fatalf("read %d bytes of RFB: %v", n, err)
		}
		return buf
	}
	send := func(s string) { e.must(c.Write(rctx, websocket.MessageBinary, []byte(s))) }
	want(12)
	send("RFB 003.008\n")
	want(2)
	send("\x01")
	want(4)
	send("\x01")
	want(28)
	send("\x04\x01\x00\x00\x00\x00\x00a")
	if bell := want(1); bell[0] != 2 {
		e.t.Fatalf("answer to a key = %d, want a bell (2)", bell[0])
	}
	return c
}

type wsReader struct {
	ctx  context.Context
	c    *websocket.Conn
	rest []byte
}

func (r *wsReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		kind, b, err := r.c.Read(r.ctx)
		if err != nil {
			return 0, err
		}
		if kind == websocket.MessageBinary { // text is for the page
			r.rest = b
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// closed waits for the end of a connection and returns code and reason.
func closed(t testing.TB, c *websocket.Conn) (websocket.StatusCode, string) {
	t.Helper()
	rctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		if _, _, err := c.Read(rctx); err != nil {
			var ce websocket.CloseError
			if !errors.As(err, &ce) {
				t.Fatalf("the connection ended with %v, want a reason", err)
			}
			return ce.Code, ce.Reason
		}
	}
}

func TestPortalAndRelay(t *testing.T) {
	if testing.Short() {
		t.Skip("launches a WorkSpace on the fake machine")
	}
	e := newDesk(t)

	b := newBrowser(t, e.URL)
	if st, o := b.post("/portal/signin", map[string]string{"directory": e.code, "userName": "jane", "password": "wrong"}); st != 403 || o["code"] != "AuthFailure" {
		t.Errorf("wrong password: %d %v", st, o)
	}
	if st, o := b.post("/portal/signin", map[string]string{"directory": "SLD+NOSUCHCODE", "userName": "jane", "password": "Correct-Horse-7"}); st != 403 || o["code"] != "AuthFailure" {
		t.Errorf("unknown directory: %d %v", st, o)
	}
	jane, mallory := e.user("jane"), e.user("mallory")
	_, o := jane.post("/portal/desktops", struct{}{})
	list, _ := o["desktops"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["id"] != e.workspaceID || list[0].(map[string]any)["state"] != "AVAILABLE" {
		t.Fatalf("jane's desktops = %v, want %s AVAILABLE", o, e.workspaceID)
	}
	if _, o := mallory.post("/portal/desktops", struct{}{}); len(o["desktops"].([]any)) != 0 {
		t.Errorf("mallory sees %v", o)
	}
	if st, o := mallory.post("/portal/connect", map[string]string{"workspaceId": e.workspaceID}); st != 404 {
		t.Errorf("mallory connects to jane's desktop: %d %v, want 404", st, o)
	}
	_, err := e.WorkSpaces().ModifySelfservicePermissions(ctx, &workspaces.ModifySelfservicePermissionsInput{ResourceId: &e.directory, SelfservicePermissions: &wstypes.SelfservicePermissions{RestartWorkspace: wstypes.ReconnectEnumDisabled}})
	e.must(err)
	if st, o := jane.post("/portal/action", map[string]string{"workspaceId": e.workspaceID, "action": "reboot"}); st != 403 {
		t.Errorf("reboot without self-service: %d %v, want 403", st, o)
	}

	t.Run("tokens", func(t *testing.T) {
		path, token := e.ticket(jane)
		for name, try := range map[string]func() error{
			"no token":       func() error { _, err := e.dial(path, "", e.URL); return err },
			"guessed token":  func() error { _, err := e.dial(path, strings.Repeat("A", 43), e.URL); return err },
			"another origin": func() error { _, err := e.dial(path, token, "https://evil.example"); return err },
		} {
			if err := try(); err == nil || err.Error() != "403" {
				t.Errorf("%s: %v, want 403", name, err)
			}
		}
		c, err := e.dial(path, token, e.URL) // refused origins did not use it up
		e.must(err)
		defer c.CloseNow()
		if _, err := e.dial(path, token, e.URL); err == nil || err.Error() != "403" {
			t.Errorf("the token again: %v, want 403", err)
		}
		path, token = e.ticket(jane)
		other, _ := e.ticket(jane)
		if _, err := e.dial(other, token, e.URL); err == nil || err.Error() != "403" {
			t.Errorf("the token at another path: %v, want 403", err)
		}
		if _, err := e.dial(path, token, e.URL); err == nil || err.Error() != "403" {
			t.Errorf("the token after it was tried at another path: %v, want 403", err)
		}
	})

	t.Run("connection state", func(t *testing.T) {
		connected := func() wstypes.ConnectionState {
			out, err := e.WorkSpaces().DescribeWorkspacesConnectionStatus(ctx, &workspaces.DescribeWorkspacesConnectionStatusInput{WorkspaceIds: []string{e.workspaceID}})
			if err != nil || len(out.WorkspacesConnectionStatus) == 0 {
				return ""
			}
			return out.WorkspacesConnectionStatus[0].ConnectionState
		}
		c := e.open(jane)
		e.eventually("CONNECTED", func() bool { return connected() == wstypes.ConnectionStateConnected })
		c2 := e.open(jane)
		if code, why := closed(t, c); code != 4001 {
			t.Errorf("the first connection ended with %d %q, want 4001", code, why)
		}
		time.Sleep(100 * time.Millisecond)
		if s := connected(); s != wstypes.ConnectionStateConnected {
			t.Errorf("after another window took over: %s, want CONNECTED", s)
		}
		c2.Close(websocket.StatusNormalClosure, "")
		e.eventually("DISCONNECTED", func() bool { return connected() == wstypes.ConnectionStateDisconnected })
	})

	t.Run("not RFB", func(t *testing.T) {
		path, token := e.ticket(jane)
		c, err := e.dial(path, token, e.URL)
		e.must(err)
		e.must(c.Write(ctx, websocket.MessageBinary, []byte("GET / HTTP/1.1\r\n\r\n")))
		if code, why := closed(t, c); code != 4003 {
			t.Errorf("closed with %d %q, want 4003", code, why)
		}
	})

	t.Run("what the page says", func(t *testing.T) {
		c := e.open(jane)
		defer c.CloseNow()
		next := func() string { // the next text
			rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			for {
				kind, b, err := c.Read(rctx)
				if err != nil {
					t.Fatalf("wait for a text: %v", err)
				}
				if kind == websocket.MessageText {
					return string(b)
				}
			}
		}
		say := func(kind websocket.MessageType, s string) { e.must(c.Write(ctx, kind, []byte(s))) }
		say(websocket.MessageText, "ping 4711")
		if got := next(); got != "pong 4711" {
			t.Errorf("answer to ping 4711 = %q, want pong 4711", got)
		}
		say(websocket.MessageText, "keyboard jp")
		e.eventually("the guest is told the layout", func() bool { return e.machines.Arranged(e.workspaceID).KeyboardLayout == "jp" })
		say(websocket.MessageBinary, "\xfb\x00\x05\xa0\x03\x84\x01\x00"+strings.Repeat("\x00", 16))
		e.eventually("the guest is told the size", func() bool { w := e.machines.Arranged(e.workspaceID); return w.Width == 1440 && w.Height == 900 })
		_, err := e.WorkSpaces().ModifyStreamingProperties(ctx, &workspaces.ModifyStreamingPropertiesInput{ResourceId: &e.directory, StreamingProperties: &wstypes.StreamingProperties{
			UserSettings: []wstypes.UserSetting{{Action: wstypes.UserSettingActionEnumClipboardCopyToLocalDevice, Permission: wstypes.UserSettingPermissionEnumDisabled}}}})
		e.must(err)
		if got := next(); got != `{"clipboard":{"fromLocal":true,"toLocal":false}}` {
			t.Errorf("after the directory changed: %s", got)
		}
		out, err := e.WorkSpaces().DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{e.directory}})
		e.must(err)
		if got := fmt.Sprint(out.Directories[0].StreamingProperties.UserSettings); !strings.Contains(got, "CLIPBOARD_COPY_TO_LOCAL_DEVICE DISABLED") || !strings.Contains(got, "CLIPBOARD_COPY_FROM_LOCAL_DEVICE ENABLED") {
			t.Errorf("StreamingProperties = %s", got)
		}
		say(websocket.MessageText, "reboot")
		if code, why := closed(t, c); code != 4003 {
			t.Errorf("an unknown text: closed with %d %q, want 4003", code, why)
		}
	})

	t.Run("address no longer allowed", func(t *testing.T) {
		g, err := e.WorkSpaces().CreateIpGroup(ctx, &workspaces.CreateIpGroupInput{GroupName: aws.String("office"), UserRules: []wstypes.IpRuleItem{{IpRule: aws.String("192.0.2.0/24")}}})
		e.must(err)
		c := e.open(jane)
		_, err = e.WorkSpaces().AssociateIpGroups(ctx, &workspaces.AssociateIpGroupsInput{DirectoryId: &e.directory, GroupIds: []string{*g.GroupId}})
		e.must(err)
		if code, why := closed(t, c); code != 4000 || !strings.Contains(why, "IP access control group") {
			t.Errorf("closed with %d %q", code, why)
		}
		if st, o := jane.post("/portal/connect", map[string]string{"workspaceId": e.workspaceID}); st != 403 {
			t.Errorf("connect from elsewhere: %d %v, want 403", st, o)
		}
		if st, _ := newBrowser(t, e.URL).post("/portal/signin", map[string]string{"directory": e.directory, "userName": "jane", "password": "Correct-Horse-7"}); st != 403 {
			t.Errorf("sign-in from elsewhere: %d, want 403", st)
		}
		_, err = e.WorkSpaces().DisassociateIpGroups(ctx, &workspaces.DisassociateIpGroupsInput{DirectoryId: &e.directory, GroupIds: []string{*g.GroupId}})
		e.must(err)
	})

	t.Run("signed out", func(t *testing.T) {
		b := e.user("jane")
		c := e.open(b)
		b.post("/portal/signout", struct{}{})
		if code, why := closed(t, c); code != 4000 || !strings.Contains(why, "signed out") {
			t.Errorf("closed with %d %q", code, why)
		}
	})

	t.Run("user disabled", func(t *testing.T) {
		c := e.open(jane)
		started := time.Now()
		_, err := e.DSData().DisableUser(ctx, &dsdata.DisableUserInput{DirectoryId: &e.directory, SAMAccountName: aws.String("jane")})
		e.must(err)
		if code, why := closed(t, c); code != 4000 || !strings.Contains(why, "disabled") {
			t.Errorf("closed with %d %q", code, why)
		}
		t.Logf("cut %v after DisableUser was called", time.Since(started).Round(time.Millisecond))
		if st, _ := jane.post("/portal/desktops", struct{}{}); st != 403 {
			t.Errorf("desktops of a disabled user: %d, want 403", st)
		}
		_, err = e.DSData().UpdateUser(ctx, &dsdata.UpdateUserInput{DirectoryId: &e.directory, SAMAccountName: aws.String("jane")})
		if err != nil {
			t.Logf("UpdateUser: %v", err)
		}
		// AWS has no EnableUser: resetting the password enables a disabled user.
		_, err = e.DS().ResetUserPassword(ctx, &directoryservice.ResetUserPasswordInput{DirectoryId: &e.directory, UserName: aws.String("jane"), NewPassword: aws.String("Correct-Horse-7")})
		e.must(err)
	})

	t.Run("stopped", func(t *testing.T) {
		b := newBrowser(t, e.URL)
		if st, o := b.post("/portal/signin", map[string]string{"directory": e.code, "userName": "jane", "password": "Correct-Horse-7"}); st != 200 {
			t.Skipf("jane is still disabled: %v", o)
		}
		c := e.open(b)
		_, err := e.WorkSpaces().StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []wstypes.StopRequest{{WorkspaceId: &e.workspaceID}}})
		e.must(err)
		if code, why := closed(t, c); code != 4000 && code != 4002 {
			t.Errorf("closed with %d %q", code, why)
		}
		e.eventually("STOPPED", func() bool { return e.state() == wstypes.WorkspaceStateStopped })
		if st, o := b.post("/portal/connect", map[string]string{"workspaceId": e.workspaceID}); st != 409 {
			t.Errorf("connect to a stopped desktop: %d %v, want 409", st, o)
		}
		if st, o := b.post("/portal/action", map[string]string{"workspaceId": e.workspaceID, "action": "start"}); st != 200 {
			t.Errorf("start: %d %v", st, o)
		}
		e.eventually("AVAILABLE", func() bool { return e.state() == wstypes.WorkspaceStateAvailable })
	})
}

// laterClock runs with the system's clock, and can be put forward.
type laterClock struct{ ahead atomic.Int64 }

func (c *laterClock) Now() time.Time                         { return clock.System.Now().Add(time.Duration(c.ahead.Load())) }
func (c *laterClock) After(d time.Duration) <-chan time.Time { return clock.System.After(d) }

// An AUTO_STOP desktop stops its timeout after the user has gone, and not while
// somebody is connected.
func TestAutoStop(t *testing.T) {
	if testing.Short() {
		t.Skip("launches a WorkSpace on the fake machine")
	}
	later := &laterClock{}
	e := newDesk(t, func(c *app.Config) { c.Clock = later })
	jane := e.user("jane")
	desktop := func() map[string]any { // by the portal: signatures of SDK clients would be too old
		st, o := jane.post("/portal/desktops", struct{}{})
		if st != 200 {
			t.Fatalf("desktops: %d %v", st, o)
		}
		return o["desktops"].([]any)[0].(map[string]any)
	}
	c := e.open(jane)
	later.ahead.Add(int64(2 * time.Hour))
	time.Sleep(2500 * time.Millisecond) // the reconciler looks every second
	if d := desktop(); d["state"] != "AVAILABLE" || d["connected"] != true {
		t.Fatalf("two hours into a connection: %v, want AVAILABLE and connected", d)
	}
	c.Close(websocket.StatusNormalClosure, "")
	e.eventually("disconnected", func() bool { return desktop()["connected"] == false })
	later.ahead.Add(int64(55 * time.Minute))
	time.Sleep(2500 * time.Millisecond)
	if d := desktop(); d["state"] != "AVAILABLE" {
		t.Fatalf("55 minutes after the user went: %v, want AVAILABLE", d)
	}
	later.ahead.Add(int64(6 * time.Minute))
	e.eventually("STOPPED", func() bool { return desktop()["state"] == "STOPPED" })
	if d := desktop(); d["mayStart"] != true || d["lastUsed"] == nil {
		t.Errorf("the stopped desktop: %v, want one that was used and may be started", d)
	}
}
