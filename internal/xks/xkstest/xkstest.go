// Package xkstest gives tests an external key store proxy on a real TLS port,
// with its keys in memory, that can be told to misbehave.
package xkstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks/proxy"
)

// The credential every proxy of this package accepts, and its host name.
const (
	AccessKeyID = "ABCDEFGHIJKLMNOPQRSTUV"
	SecretKey   = "sUqHN5PckBdGQ2fPBUv/mFYXnMnrWYxOjqkZ0ccFYDM="
	Host        = "xks.corp.example.com"
	Endpoint    = "https://" + Host
)

// Token is a working token in memory.
type Token struct {
	mu   sync.Mutex
	keys map[string]cipher.AEAD
	// Describe is what Key says of a key, by label; an entry makes the key exist.
	Describe map[string]pkcs11.KeyInfo
	// Fail, when set, is what every operation returns; see SetFail.
	Fail error
}

// Add makes a key.
func (t *Token) Add(label string) {
	k := make([]byte, 32)
	_, _ = rand.Read(k)
	t.Set(label, k)
}

// Set makes a key that is known.
func (t *Token) Set(label string, key []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	block, _ := aes.NewCipher(key)
	if t.keys == nil {
		t.keys = map[string]cipher.AEAD{}
	}
	t.keys[label], _ = cipher.NewGCM(block)
}

// Remove destroys a key.
func (t *Token) Remove(label string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, label)
}

// SetFail makes every operation fail, until it is called with nil.
func (t *Token) SetFail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Fail = err
}

func (t *Token) key(label string) (cipher.AEAD, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Fail != nil {
		return nil, t.Fail
	}
	if a := t.keys[label]; a != nil {
		return a, nil
	}
	return nil, pkcs11.ErrNoKey
}

// Info describes the token.
func (*Token) Info() pkcs11.Info {
	return pkcs11.Info{Manufacturer: "Test", Model: "memory", Serial: "1"}
}

// Ping is a sign of life.
func (t *Token) Ping(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Fail
}

// Key describes a key.
func (t *Token) Key(_ context.Context, label string) (pkcs11.KeyInfo, error) {
	if i, ok := t.Describe[label]; ok {
		return i, nil
	}
	_, err := t.key(label)
	return pkcs11.KeyInfo{Label: label, Bits: 256, Kept: true}, err
}

// Seal encrypts.
func (t *Token) Seal(_ context.Context, label string, plaintext, aad []byte) ([]byte, error) {
	a, err := t.key(label)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	return a.Seal(nonce, nonce, plaintext, aad), nil
}

// Open decrypts.
func (t *Token) Open(_ context.Context, label string, sealed, aad []byte) (*secret.Bytes, error) {
	a, err := t.key(label)
	if err != nil {
		return nil, err
	}
	if len(sealed) <= 12 {
		return nil, pkcs11.ErrCiphertext
	}
	b, err := a.Open(nil, sealed[:12], sealed[12:], aad)
	if err != nil {
		return nil, pkcs11.ErrCiphertext
	}
	return secret.New(b), nil
}

// Proxy is a running proxy.
type Proxy struct {
	Token *Token
	// Address is where it listens, CAFile the PEM file of the CA of its certificate.
	Address, CAFile string
	Path            string
	// Log is what the proxy logged.
	Log *Log

	srv       *httptest.Server
	interfere atomic.Pointer[http.HandlerFunc]
	requests  atomic.Int64
}

// Requests is how many requests have come.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

// Interfere has every request answered by h, until it is called with nil.
func (p *Proxy) Interfere(h http.HandlerFunc) {
	if h == nil {
		p.interfere.Store(nil)
		return
	}
	p.interfere.Store(&h)
}

// Stop ends the proxy as kill does: no connection is answered any more.
func (p *Proxy) Stop() {
	p.srv.CloseClientConnections()
	p.srv.Close()
}

// New starts a proxy with the path prefix. change may change what it asks of TLS.
func New(t testing.TB, prefix string, change ...func(*tls.Config)) *Proxy {
	t.Helper()
	p := &Proxy{Token: &Token{}, Log: &Log{}}
	h, err := proxy.New(proxy.Config{Token: p.Token, Prefix: prefix, Logger: slog.New(slog.NewTextHandler(p.Log, nil)),
		Credentials: []proxy.Credential{{AccessKeyID: AccessKeyID, Secret: secret.New([]byte(SecretKey))}}})
	if err != nil {
		t.Fatal(err)
	}
	cert, ca := Certificate(t, Host)
	p.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(p.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Path = h.Path()
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		if i := p.interfere.Load(); i != nil {
			(*i)(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	p.srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	for _, f := range change {
		f(p.srv.TLS)
	}
	p.srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	p.srv.StartTLS()
	p.Address = p.srv.Listener.Addr().(*net.TCPAddr).String()
	t.Cleanup(p.srv.Close)
	return p
}

// Roots is a pool with the CA of the proxy's certificate.
func (p *Proxy) Roots(t testing.TB) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(p.CAFile)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(b) {
		t.Fatalf("the CA of the proxy: %v", err)
	}
	return roots
}

// Certificate makes a server certificate for host and the PEM of the CA that signed it.
func Certificate(t testing.TB, host string) (tls.Certificate, []byte) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	life := func(c *x509.Certificate) *x509.Certificate {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		return c
	}
	ca := life(&x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := life(&x509.Certificate{Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
}

// Log keeps what is written to it.
type Log struct {
	mu sync.Mutex
	b  []byte
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

// String is all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
