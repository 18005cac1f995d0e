package xks_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

var meta = xks.Metadata{AWSPrincipalARN: "arn:aws:iam::111122223333:user/alice", KMSOperation: "Encrypt", KMSRequestID: "4112f4d6-db54-4af4-ae30-c55a22a8dfae"}

func client(t *testing.T, p *xkstest.Proxy, change ...func(*xks.Config)) *xks.Client {
	t.Helper()
	pem, err := os.ReadFile(p.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	cfg := xks.Config{Endpoint: xkstest.Endpoint, Path: p.Path, Address: p.Address, Roots: roots, Region: "us-west-2", AccessKeyID: xkstest.AccessKeyID, Timeout: 10 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	c, err := xks.NewClient(cfg, secret.New([]byte(xkstest.SecretKey)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func kind(err error) xks.Kind {
	var e *xks.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return xks.Kind(fmt.Sprint("no *xks.Error: ", err))
}

func TestRoundTrip(t *testing.T) {
	p := xkstest.New(t, "/store-1")
	p.Token.Add("k")
	c, ctx := client(t, p), t.Context()
	if h, err := c.Health(ctx, meta); err != nil || h.EKMVendor != "Test" {
		t.Fatalf("Health = %+v, %v", h, err)
	}
	if k, err := c.Key(ctx, "k", meta); err != nil || !k.Usable() {
		t.Fatalf("Key = %+v, %v, want a usable one", k, err)
	}
	plain, aad := bytes.Repeat([]byte{7}, xks.MaxPlaintext), bytes.Repeat([]byte{9}, 8192)
	s, err := c.Encrypt(ctx, "k", plain, aad, meta)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var back xks.Sealed
	if err := back.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	got, err := c.Decrypt(ctx, "k", &back, aad, meta)
	if err != nil || !bytes.Equal(got.Expose(), plain) {
		t.Fatalf("Decrypt: %v", err)
	}
	if _, err := c.Decrypt(ctx, "k", s, nil, meta); kind(err) != xks.InvalidCiphertext {
		t.Errorf("Decrypt with other additional data: %v, want %s", err, xks.InvalidCiphertext)
	}
	// Additional data must not pass for ciphertext metadata, nor the other way round.
	short, err := c.Encrypt(ctx, "k", plain, []byte("ab"), meta)
	if err != nil {
		t.Fatal(err)
	}
	short.CiphertextMetadata = []byte("b")
	if _, err := c.Decrypt(ctx, "k", short, []byte("a"), meta); kind(err) != xks.InvalidCiphertext {
		t.Errorf("Decrypt with moved bytes: %v, want %s", err, xks.InvalidCiphertext)
	}
	if _, err := c.Key(ctx, "none", meta); kind(err) != xks.KeyNotFound {
		t.Errorf("Key of none: %v, want %s", err, xks.KeyNotFound)
	}
	if log := p.Log.String(); strings.Contains(log, xkstest.SecretKey) || !strings.Contains(log, meta.KMSRequestID) || !strings.Contains(log, "alice") {
		t.Errorf("log of the proxy: %s", log)
	}
}

// TestIntegrityVector is the example of appendix C of the specification.
func TestIntegrityVector(t *testing.T) {
	var s xks.Sealed
	if err := json.Unmarshal([]byte(`{"authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ==","ciphertext":"ghxkK1txeDNn3q8Y",
		"ciphertextDataIntegrityValue":"qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc=","ciphertextMetadata":"a2V5X3ZlcnNpb249MQ==","initializationVector":"HMrlRw85cAJUd5Ax"}`), &s); err != nil {
		t.Fatal(err)
	}
	if got := s.IntegrityOf([]byte("project=nile,department=marketing")); !bytes.Equal(got, s.Integrity) {
		t.Errorf("IntegrityOf = %s, want %s", hex.EncodeToString(got), hex.EncodeToString(s.Integrity))
	}
}

// TestBadReplies: what is not of the form is not believed.
func TestBadReplies(t *testing.T) {
	p := xkstest.New(t, "")
	p.Token.Add("k")
	c, ctx := client(t, p, func(c *xks.Config) { c.Timeout = time.Second }), t.Context()
	reply := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	good, err := c.Encrypt(ctx, "k", []byte("x"), nil, meta)
	if err != nil {
		t.Fatal(err)
	}
	edited := func(f func(*xks.Sealed)) string {
		s := *good
		f(&s)
		b, _ := json.Marshal(s)
		return string(b)
	}
	encrypt := func() error { _, err := c.Encrypt(ctx, "k", []byte("x"), nil, meta); return err }
	health := func() error { _, err := c.Health(ctx, meta); return err }
	for name, v := range map[string]struct {
		h    http.HandlerFunc
		call func() error
		want xks.Kind
	}{
		"no JSON":            {reply(200, "<html>"), encrypt, xks.Malformed},
		"empty":              {reply(200, ""), encrypt, xks.Malformed},
		"empty object":       {reply(200, "{}"), encrypt, xks.Malformed},
		"too large":          {reply(200, `{"ciphertext":"`+strings.Repeat("A", xks.MaxReply)+`"}`), encrypt, xks.Malformed},
		"no integrity":       {reply(200, edited(func(s *xks.Sealed) { s.Integrity = nil })), encrypt, xks.Malformed},
		"flipped bit":        {reply(200, edited(func(s *xks.Sealed) { s.Ciphertext = []byte{s.Ciphertext[0] ^ 1} })), encrypt, xks.Malformed},
		"short tag":          {reply(200, edited(func(s *xks.Sealed) { s.Tag = s.Tag[:12]; s.Integrity = s.IntegrityOf(nil) })), encrypt, xks.Malformed},
		"odd IV":             {reply(200, edited(func(s *xks.Sealed) { s.IV = s.IV[:8]; s.Integrity = s.IntegrityOf(nil) })), encrypt, xks.Malformed},
		"longer ciphertext":  {reply(200, edited(func(s *xks.Sealed) { s.Ciphertext = []byte("xx"); s.Integrity = s.IntegrityOf(nil) })), encrypt, xks.Malformed},
		"long metadata":      {reply(200, edited(func(s *xks.Sealed) { s.CiphertextMetadata = make([]byte, 21); s.Integrity = s.IntegrityOf(nil) })), encrypt, xks.Malformed},
		"error without name": {reply(500, "oops"), encrypt, xks.Malformed},
		"unknown name":       {reply(400, `{"errorName":"Surprise"}`), encrypt, xks.Malformed},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusTemporaryRedirect)
		}, encrypt, xks.Malformed},
		"throttled":           {reply(429, `{"errorName":"ThrottlingException","errorMessage":"slow"}`), encrypt, xks.Throttling},
		"denied":              {reply(403, `{"errorName":"AccessDeniedException"}`), encrypt, xks.AccessDenied},
		"slow":                {func(http.ResponseWriter, *http.Request) { time.Sleep(1500 * time.Millisecond) }, encrypt, xks.TimedOut},
		"hangs up":            {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, encrypt, xks.Unreachable},
		"health of nothing":   {reply(200, `{}`), health, xks.Malformed},
		"health without EKMs": {reply(200, `{"xksProxyFleetSize":1,"xksProxyVendor":"a","xksProxyModel":"b","ekmVendor":"c","ekmFleetDetails":[]}`), health, xks.Malformed},
		"all EKMs unavailable": {reply(200, `{"xksProxyFleetSize":1,"xksProxyVendor":"a","xksProxyModel":"b","ekmVendor":"c","ekmFleetDetails":[{"id":"1","model":"m","healthStatus":"UNAVAILABLE"}]}`),
			health, xks.NoManager},
	} {
		t.Run(name, func(t *testing.T) {
			p.Interfere(v.h)
			defer p.Interfere(nil)
			if err := v.call(); kind(err) != v.want {
				t.Errorf("error %v, want kind %q", err, v.want)
			}
		})
	}
	if err := encrypt(); err != nil {
		t.Errorf("the proxy behaves again: %v", err)
	}
	p.Stop()
	if err := encrypt(); kind(err) != xks.Unreachable {
		t.Errorf("stopped proxy: %v, want %s", err, xks.Unreachable)
	}
}

// TestTLS: HTTPS with a certificate that is trusted and names the host, or nothing.
func TestTLS(t *testing.T) {
	p := xkstest.New(t, "")
	health := func(c *xks.Client) xks.Kind { _, err := c.Health(t.Context(), meta); return kind(err) }
	if got := health(client(t, p, func(c *xks.Config) { c.Roots = nil })); got != xks.BadTLS {
		t.Errorf("unknown CA: %s, want %s", got, xks.BadTLS)
	}
	if got := health(client(t, p, func(c *xks.Config) { c.Endpoint = "https://other.example.com" })); got != xks.BadTLS {
		t.Errorf("certificate of another host: %s, want %s", got, xks.BadTLS)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = srv.Serve(plain) }()
	defer srv.Close()
	if got := health(client(t, p, func(c *xks.Config) { c.Address = plain.Addr().String() })); got != xks.BadTLS {
		t.Errorf("plain HTTP: %s, want %s", got, xks.BadTLS)
	}
	for _, bad := range []string{"http://" + xkstest.Host, "https://", "https://h/path", "ftp://h", "://"} {
		if _, err := xks.NewClient(xks.Config{Endpoint: bad}, secret.New([]byte("x"))); err == nil {
			t.Errorf("NewClient(%q) succeeds", bad)
		}
	}
	old := client(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := old.Health(ctx, meta); err == nil {
		t.Error("Health with an ended context succeeds")
	}
}

func TestWrongCredentials(t *testing.T) {
	p := xkstest.New(t, "")
	for name, change := range map[string]func(*xks.Config){
		"unknown access key": func(c *xks.Config) { c.AccessKeyID = "ZZZZZZZZZZZZZZZZZZZZZZ" },
		"stale clock":        func(c *xks.Config) { c.Now = func() time.Time { return time.Now().Add(-6 * time.Minute) } },
		"clock ahead":        func(c *xks.Config) { c.Now = func() time.Time { return time.Now().Add(6 * time.Minute) } },
	} {
		if _, err := client(t, p, change).Health(t.Context(), meta); kind(err) != xks.AuthenticationFailed {
			t.Errorf("%s: %v, want %s", name, err, xks.AuthenticationFailed)
		}
	}
}
