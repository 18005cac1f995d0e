// Package process tests the processes that people run: sealdesk serve, sealdesk
// volumed and QEMU, killed with kill -9 wherever it hurts, and served volumes under the
// NBD clients of a Debian. The binary is SEALDESK_BINARY, or is built for the run.
package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

var ctx = context.Background()

const (
	region    = "us-west-2"
	account   = "111122223333"
	rootKeyID = "AKIAROOT0000000000AA"
	rootKey   = "root-secret-for-tests-0000000000000000aa"
)

// binary is the program under test: SEALDESK_BINARY, or one built for this run.
var binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("SEALDESK_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "sdbin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sealdesk")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/sealdesk/sealdesk/cmd/sealdesk").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sealdesk: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if b, _ := binary(); os.Getenv("SEALDESK_BINARY") == "" && b != "" {
		os.RemoveAll(filepath.Dir(b))
	}
	os.Exit(code)
}

// server is `sealdesk serve` as a process of its own, on a data directory that
// outlives it.
type server struct {
	t    *testing.T
	bin  string
	data string
	args []string
	env  []string

	cmd *exec.Cmd
	url string
	log bytes.Buffer
}

// newServer starts a server; its processes end with the test.
func newServer(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, bin: bin, data: data, args: args}
	s.env = append(append(os.Environ(), "SEALDESK_ACCOUNT_ID="+account, "SEALDESK_ROOT_ACCESS_KEY_ID="+rootKeyID, "SEALDESK_ROOT_SECRET_ACCESS_KEY="+rootKey), env...)
	t.Cleanup(func() {
		s.kill()
		s.killVolumed()
		for _, pid := range s.machines() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if t.Failed() {
			lines := strings.Split(s.log.String(), "\n")
			t.Logf("the server's last words:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
		os.RemoveAll(data)
	})
	s.start()
	return s
}

// start starts the server and returns when it serves.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.bin, append([]string{"serve", "--data-dir", s.data, "--listen", "127.0.0.1:0"}, s.args...)...)
	s.cmd.Env = s.env
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	i := strings.Index(line, "http://")
	if err != nil || i < 0 {
		s.kill()
		s.t.Fatalf("the server does not say where it serves: %q, %v\n%s", line, err, s.log.String())
	}
	s.url = strings.TrimSpace(line[i:])
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// killVolumed is kill -9 of volumed, if it runs.
func (s *server) killVolumed() {
	c := volumed.Client{Socket: filepath.Join(s.data, "run", "volumed.sock")}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if i, err := c.Ping(ctx); err == nil {
		_ = syscall.Kill(i.PID, syscall.SIGKILL)
	}
}

// attached is how many volumes volumed holds open.
func (s *server) attached() int {
	c := volumed.Client{Socket: filepath.Join(s.data, "run", "volumed.sock")}
	l, err := c.List(ctx)
	if err != nil {
		return -1
	}
	return len(l)
}

// machines are the QEMU processes of this data directory.
func (s *server) machines() []int {
	var pids []int
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if strings.HasPrefix(cwd, filepath.Join(s.data, "desktops")+"/") && strings.HasPrefix(filepath.Base(exe), "qemu-system-") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// config is an AWS configuration of the root user, or of the caller given.
func (s *server) config(creds ...aws.Credentials) aws.Config {
	c := aws.Credentials{AccessKeyID: rootKeyID, SecretAccessKey: rootKey}
	if len(creds) > 0 {
		c = creds[0]
	}
	url := s.url
	return aws.Config{Region: region, BaseEndpoint: &url, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, "")}
}

// command is one of the operator's tools, as the root user or the caller given.
func (s *server) command(c *aws.Credentials, args ...string) *exec.Cmd {
	if c == nil {
		c = &aws.Credentials{AccessKeyID: rootKeyID, SecretAccessKey: rootKey}
	}
	cmd := exec.Command(s.bin, args...)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+s.url, "AWS_REGION="+region, "AWS_ACCESS_KEY_ID="+c.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+c.SecretAccessKey)
	return cmd
}

func eventually(t *testing.T, within time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
	}
}

var errNotYet = errors.New("not yet")

// needs skips the test when a program is missing.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/prerequisites", tool)
		}
	}
}

// run runs a program, which must succeed, and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
