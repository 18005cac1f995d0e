// Package apptest gives a test a whole Sealdesk, on a port of its own with a
// store of its own, and official SDK clients that talk to it over HTTP.
//
//	func TestAliases(t *testing.T) {
//		s := apptest.New(t)
//		out, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
//
// Desktops run on the fake compute driver, which is a working one in memory.
// Volumes are real: they need the volumed process, which is the test binary
// itself when TestMain is apptest.Main.
//
// The state is in an embedded etcd; with SEALDESK_TEST_ETCD=external it is in a
// cluster of three whose members are killed while the tests run (etcdtest).
package apptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/block/volumed"
	"github.com/sealdesk/sealdesk/internal/compute/fake"
	"github.com/sealdesk/sealdesk/internal/store/etcdtest"
	dsdata "github.com/sealdesk/sealdesk/internal/wire/dsdata/client"
)

// The account that New makes, and the region of its clients.
const (
	Account         = "111122223333"
	RootAccessKeyID = "AKIAROOT0000000000AA"
	RootSecret      = "root-secret-for-tests-0000000000000000aa"
	Region          = "us-west-2"
)

var canVolume bool

// Main is TestMain for packages whose tests use volumes: the server starts this
// binary again as volumed.
func Main(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "volumed" {
		var cfg volumed.Config
		f := flag.NewFlagSet("volumed", flag.ExitOnError)
		f.StringVar(&cfg.ControlSocket, "control", "", "")
		f.StringVar(&cfg.ObjectStore, "object-store", "", "")
		f.BoolVar(&cfg.FlushRemote, "flush-to-store", false, "")
		_ = f.Parse(os.Args[2:])
		if err := volumed.Main(cfg); err != nil {
			slog.Error("volumed", "err", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	canVolume = true
	os.Exit(m.Run())
}

// Server is a running Sealdesk.
type Server struct {
	App *app.App
	URL string
	Dir string
	// Host is where the fake desktops run; it outlives a Restart. Nil when the test
	// brought a driver of its own.
	Host *fake.Host

	t    testing.TB
	stop context.CancelFunc
	done chan error
	cfg  app.Config
}

// New starts a server and stops it when the test ends. opts change its Config.
func New(t testing.TB, opts ...func(*app.Config)) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var logs testLog
	level := slog.LevelWarn
	if os.Getenv("SEALDESK_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	logs.t = t
	cfg := app.Config{DataDir: dir, Listen: "127.0.0.1:0", AccountID: Account, RootAccessKeyID: RootAccessKeyID, RootSecretAccessKey: RootSecret,
		Self: app.NoVolumed, Logger: slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: level}))}
	if cfg.Etcd, err = etcdtest.Config(dir); err != nil {
		t.Fatal(err)
	}
	cfg.Etcd.Unsynced = true
	if canVolume {
		cfg.Self = "" // this binary
	}
	for _, o := range opts {
		o(&cfg)
	}
	s := &Server{Dir: dir, t: t, cfg: cfg}
	if cfg.Compute == nil {
		s.Host = fake.NewHost(fake.Options{CheckDisks: canVolume})
	}
	s.start()
	t.Cleanup(func() {
		logs.end()
		s.Stop()
		s.killVolumed()
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	if s.Host != nil {
		s.cfg.Compute = fake.New(s.Host)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a, err := app.New(ctx, s.cfg)
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	s.App, s.URL, s.stop, s.done = a, a.URL(), cancel, make(chan error, 1)
	go func() { s.done <- a.Run(ctx) }()
}

// Stop stops the server cleanly; volumes stay attached.
func (s *Server) Stop() {
	if s.stop == nil {
		return
	}
	s.stop()
	if err := <-s.done; err != nil {
		s.t.Errorf("server stopped with %v", err)
	}
	s.stop = nil
}

// Restart stops the server and starts it again on the same data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start()
}

// RestartWith stops the server and starts it again, on the same data, told otherwise.
func (s *Server) RestartWith(change func(*app.Config)) {
	s.t.Helper()
	s.Stop()
	change(&s.cfg)
	s.start()
}

// Move loses the host, with all its disk but the state and the root keys, and starts the server on another one in its place.
func (s *Server) Move() {
	s.t.Helper()
	s.KillVolumed()
	s.Stop()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	es, err := os.ReadDir(s.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range es {
		var err error
		from := filepath.Join(s.Dir, e.Name())
		switch {
		case e.Name() == "etcd" || strings.HasPrefix(e.Name(), "root"):
			err = os.Rename(from, filepath.Join(dir, e.Name()))
		default:
			err = os.RemoveAll(from)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.Dir, s.cfg.DataDir = dir, dir
	if s.cfg.Etcd.DataDir != "" {
		s.cfg.Etcd.DataDir = dir
	}
	s.start()
}

// Extension calls an operation of the service "sealdesk", which the SDK does not have.
// The error is "Code: message".
func (s *Server) Extension(operation string, in, out any, creds ...aws.CredentialsProvider) error {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, s.URL+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Sealdesk_20261101."+operation)
	c, err := s.Config(creds...).Credentials.Retrieve(context.Background())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), c, req, hex.EncodeToString(sum[:]), "sealdesk", Region, time.Now()); err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			return fmt.Errorf("%s: HTTP %s", operation, resp.Status)
		}
		return errors.New(e.Type + ": " + e.Message)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// KillVolumed ends volumed as kill -9 does.
func (s *Server) KillVolumed() {
	s.t.Helper()
	c := volumed.Client{Socket: s.Dir + "/run/volumed.sock"}
	i, err := c.Ping(context.Background())
	if err != nil {
		s.t.Fatalf("volumed does not answer: %v", err)
	}
	if p, err := os.FindProcess(i.PID); err == nil {
		_ = p.Kill()
	}
}

func (s *Server) killVolumed() {
	c := volumed.Client{Socket: s.Dir + "/run/volumed.sock"}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if i, err := c.Ping(ctx); err == nil {
		if p, err := os.FindProcess(i.PID); err == nil {
			_ = p.Signal(os.Interrupt)
			for range 100 {
				if _, err := c.Ping(context.Background()); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			_ = p.Kill()
		}
	}
}

// Config is an AWS configuration for a caller; no arguments: the root user in Region.
// Retries are off, so that a test sees what the server said.
func (s *Server) Config(creds ...aws.CredentialsProvider) aws.Config {
	var c aws.CredentialsProvider = credentials.NewStaticCredentialsProvider(RootAccessKeyID, RootSecret, "")
	if len(creds) > 0 {
		c = creds[0]
	}
	return aws.Config{Region: Region, BaseEndpoint: &s.URL, Credentials: c, Retryer: func() aws.Retryer { return retry.AddWithMaxAttempts(aws.NopRetryer{}, 1) }}
}

// Keys are credentials with an access key.
func Keys(id, secret, token string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(id, secret, token)
}

// KMS is a client of KMS as the root user, or as the caller given.
func (s *Server) KMS(creds ...aws.CredentialsProvider) *kms.Client {
	return kms.NewFromConfig(s.Config(creds...))
}

// IAM is a client of IAM.
func (s *Server) IAM(creds ...aws.CredentialsProvider) *iam.Client {
	return iam.NewFromConfig(s.Config(creds...))
}

// STS is a client of STS.
func (s *Server) STS(creds ...aws.CredentialsProvider) *sts.Client {
	return sts.NewFromConfig(s.Config(creds...))
}

// CloudTrail is a client of CloudTrail.
func (s *Server) CloudTrail(creds ...aws.CredentialsProvider) *cloudtrail.Client {
	return cloudtrail.NewFromConfig(s.Config(creds...))
}

// WorkSpaces is a client of WorkSpaces.
func (s *Server) WorkSpaces(creds ...aws.CredentialsProvider) *workspaces.Client {
	return workspaces.NewFromConfig(s.Config(creds...))
}

// DS is a client of Directory Service.
func (s *Server) DS(creds ...aws.CredentialsProvider) *directoryservice.Client {
	return directoryservice.NewFromConfig(s.Config(creds...))
}

// DSData is a client of Directory Service Data.
func (s *Server) DSData(creds ...aws.CredentialsProvider) *dsdata.Client {
	return dsdata.NewFromConfig(s.Config(creds...))
}

// testLog writes to a test's log as long as the test runs.
type testLog struct {
	t     testing.TB
	ended atomic.Bool
}

func (l *testLog) Write(b []byte) (int, error) {
	if !l.ended.Load() {
		l.t.Log(strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}

func (l *testLog) end() { l.ended.Store(true) }
