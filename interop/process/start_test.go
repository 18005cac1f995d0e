package process

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
)

// bare starts a server on a directory that does not exist yet, with nothing given
// but flags. It returns the process, what it prints, and the directory.
func bare(t *testing.T, data string, args ...string) (*exec.Cmd, *lines) {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"serve", "--data-dir", data}, args...)...)
	out := &lines{}
	cmd.Stdout, cmd.Stderr = out, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		(&server{t: t, data: data}).killVolumed()
	})
	return cmd, out
}

// TestStart: an empty directory becomes a server, whose root credentials are shown
// once and kept for the owner only; SIGTERM stops it cleanly; a restart shows nothing.
func TestStart(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "new")
	cmd, out := bare(t, data, "--listen", "127.0.0.1:0")
	url := out.await(t, `http://[0-9.:]+`)
	id, key := out.await(t, `AWS_ACCESS_KEY_ID=(\S+)`), out.await(t, `AWS_SECRET_ACCESS_KEY=(\S+)`)
	if resp, err := http.Get(url + "/health"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("GET /health: %v, %v; want 200", resp, err)
	}
	s := &server{t: t, data: data, url: url}
	who, err := sts.NewFromConfig(s.config(aws.Credentials{AccessKeyID: id, SecretAccessKey: key})).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || !strings.HasSuffix(*who.Arn, ":root") {
		t.Fatalf("GetCallerIdentity with the credentials shown: %v, %v; want root", who, err)
	}
	for name, mode := range map[string]os.FileMode{"root-credentials": 0o600, "root/00000001.key": 0o600, ".": 0o700} {
		fi, err := os.Stat(filepath.Join(data, name))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", name, fi, err, mode)
		}
	}
	if out, err := exec.Command("ps", "-ww", "-eo", "args").Output(); err == nil && bytes.Contains(out, []byte(key)) {
		t.Error("the root secret is in the process list")
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit status 0", err)
	}

	_, again := bare(t, data, "--listen", "127.0.0.1:0")
	s.url = again.await(t, `http://[0-9.:]+`)
	if strings.Contains(again.text(), key) {
		t.Error("the root secret is shown at the second start too")
	}
	if _, err := sts.NewFromConfig(s.config(aws.Credentials{AccessKeyID: id, SecretAccessKey: key})).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("the root credentials after a restart: %v", err)
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	second, err := exec.Command(bin, "serve", "--data-dir", data, "--listen", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(second), "another sealdesk serve runs on "+data) {
		t.Errorf("a second server on the directory: %v, %s; want a refusal that says so", err, second)
	}
}

// TestPlainHTTPOnLoopbackOnly: elsewhere TLS is served, with a certificate of a CA
// that is made with the directory.
func TestPlainHTTPOnLoopbackOnly(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	_, out := bare(t, dir, "--listen", "0.0.0.0:"+port)
	out.await(t, `(https)://`)
	pem, err := os.ReadFile(filepath.Join(dir, "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get("https://127.0.0.1:" + port + "/health")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET https /health with the CA of the directory: %v, %v", resp, err)
	}
	if resp, err := http.Get("http://127.0.0.1:" + port + "/health"); err == nil && resp.StatusCode == http.StatusOK {
		t.Error("plain HTTP is answered on an address that is not loopback")
	}
	if _, err := (&http.Client{Transport: &http.Transport{}}).Get("https://127.0.0.1:" + port + "/health"); err == nil {
		t.Error("the certificate is trusted without the CA")
	}
}

// TestStatusAndScreenshot: the operator's tools on a running desktop, and that they
// are under IAM like anything else.
func TestStatusAndScreenshot(t *testing.T) {
	f := newFarm(t)
	id, err := f.launch("jane")
	f.must(err)
	f.await(t, "jane", wstypes.WorkspaceStateAvailable)
	status, err := f.command(nil, "status").CombinedOutput()
	if err != nil {
		t.Fatalf("status: %v, %s", err, status)
	}
	want := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +jane +AVAILABLE +running \(tcg\) +%d +[0-9]+ MiB +\S+ +vol-[0-9a-f]{17} +vol-[0-9a-f]{17}`, id, f.machines()[0]))
	if !want.Match(status) {
		t.Errorf("status:\n%s\nwant a line like %s", status, want)
	}
	file := filepath.Join(t.TempDir(), "screen.png")
	if out, err := f.command(nil, "screenshot", id, "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("screenshot: %v, %s", err, out)
	}
	b, err := os.ReadFile(file)
	f.must(err)
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil || img.Bounds().Dx() < 640 {
		t.Errorf("screenshot: %v, %v; want a PNG of at least 640 pixels", img, err)
	}
	users := iam.NewFromConfig(f.config())
	_, err = users.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("nobody")})
	f.must(err)
	ak, err := users.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("nobody")})
	f.must(err)
	nobody := &aws.Credentials{AccessKeyID: *ak.AccessKey.AccessKeyId, SecretAccessKey: *ak.AccessKey.SecretAccessKey}
	for _, args := range [][]string{{"screenshot", id, "-o", file + "2"}, {"status"}, {"desktop", "type", id, "x"}} {
		if out, err := f.command(nobody, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "not authorized") {
			t.Errorf("%s by a user without permission: %v, %s; want that it is not authorized", args[0], err, out)
		}
	}
	if _, err := os.Stat(file + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refused screenshot left a file")
	}
	f.terminate(t, "jane")
	f.mustHave(t, "after terminate", 0)
}

// lines is standard output that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// await returns what the pattern's group, or the pattern, finds in the output.
func (l *lines) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if m := re.FindStringSubmatch(l.text()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("the server does not print %s: %q", pattern, l.text())
	return ""
}
