package xks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Config says how to reach one proxy.
type Config struct {
	// Endpoint is https:// and a host name, as in XksProxyUriEndpoint; Path the base path, which ends in /kms/xks/v1.
	Endpoint, Path string
	// Address is the host:port that is dialled instead of the endpoint's, port
	// 443. The certificate must be the endpoint's all the same.
	Address string
	// Roots are the trusted CAs; nil: the system's.
	Roots *x509.CertPool
	// Certificate is presented to a proxy that asks for one; nil: none.
	Certificate *tls.Certificate
	Region      string
	AccessKeyID string
	// Timeout of a request, connecting included; default 250 ms, which is AWS's.
	Timeout time.Duration
	Now     func() time.Time
}

// DefaultTimeout is how long AWS KMS waits for a proxy.
const DefaultTimeout = 250 * time.Millisecond

// Client sends requests to one proxy. It is safe for concurrent use.
type Client struct {
	cfg    Config
	key    *secret.Bytes
	http   *http.Client
	signer *v4.Signer
}

// NewClient returns a client that signs with the secret access key, of which it keeps a copy until Close.
func NewClient(cfg Config, key *secret.Bytes) (*Client, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" {
		return nil, fmt.Errorf("xks: the endpoint %q is not https:// and a host name", cfg.Endpoint)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots, ServerName: u.Hostname()}
	if cfg.Certificate != nil {
		conf.Certificates = []tls.Certificate{*cfg.Certificate}
	}
	var d net.Dialer
	t := &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if cfg.Address != "" {
				addr = cfg.Address
			}
			return d.DialContext(ctx, network, addr)
		}}
	return &Client{cfg: cfg, key: key.Clone(), signer: v4.NewSigner(), http: &http.Client{Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Close lets go of idle connections and wipes the key. No request may run or follow.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.key.Wipe()
}

// Health asks the proxy and its key managers whether they can work. All of
// them unavailable is an *Error of the kind NoManager.
func (c *Client) Health(ctx context.Context, m Metadata) (*Health, error) {
	var h Health
	if err := c.do(ctx, "/health", &Request{Metadata: &Metadata{KMSOperation: m.KMSOperation, KMSRequestID: m.KMSRequestID}}, &h); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, &Error{Malformed, err.Error()}
	}
	for _, e := range h.EKMs {
		if e.Status != Unavailable {
			return &h, nil
		}
	}
	return nil, &Error{NoManager, "the proxy reports every external key manager as UNAVAILABLE"}
}

// Key describes an external key.
func (c *Client) Key(ctx context.Context, keyID string, m Metadata) (*KeyMetadata, error) {
	var k KeyMetadata
	if err := c.do(ctx, "/keys/"+keyID+"/"+OpMetadata, &Request{Metadata: &m}, &k); err != nil {
		return nil, err
	}
	if k.Spec == "" || len(k.Usage) > 10 || k.Status != StatusEnabled && k.Status != StatusDisabled {
		return nil, &Error{Malformed, "key metadata is not of the form"}
	}
	return &k, nil
}

// Encrypt encrypts under an external key.
func (c *Client) Encrypt(ctx context.Context, keyID string, plaintext, aad []byte, m Metadata) (*Sealed, error) {
	var s Sealed
	if err := c.do(ctx, "/keys/"+keyID+"/"+OpEncrypt, &Request{Metadata: &m, AAD: aad, Plaintext: plaintext, Algorithm: algorithmGCM, IntegrityAlgorithm: algorithmCheck}, &s); err != nil {
		return nil, err
	}
	if err := s.check(len(plaintext), aad); err != nil {
		return nil, &Error{Malformed, err.Error()}
	}
	return &s, nil
}

// Decrypt opens what Encrypt sealed.
func (c *Client) Decrypt(ctx context.Context, keyID string, s *Sealed, aad []byte, m Metadata) (*secret.Bytes, error) {
	var out struct {
		Plaintext []byte `json:"plaintext"`
	}
	err := c.do(ctx, "/keys/"+keyID+"/"+OpDecrypt, &Request{Metadata: &m, AAD: aad, Algorithm: algorithmGCM, Ciphertext: s.Ciphertext,
		CiphertextMetadata: s.CiphertextMetadata, IV: s.IV, Tag: s.Tag}, &out)
	if err != nil {
		return nil, err
	}
	if len(out.Plaintext) == 0 || len(out.Plaintext) != len(s.Ciphertext) {
		secret.Zero(out.Plaintext)
		return nil, &Error{Malformed, fmt.Sprintf("plaintext of %d bytes for a ciphertext of %d", len(out.Plaintext), len(s.Ciphertext))}
	}
	return secret.New(out.Plaintext), nil
}

// do sends one request. Its errors are *Error.
func (c *Client) do(ctx context.Context, path string, in *Request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Endpoint+c.cfg.Path+path, nil)
	if err != nil {
		return &Error{Unreachable, "the proxy's URI is not one"}
	}
	sum := sha256.Sum256(body)
	creds := aws.Credentials{AccessKeyID: c.cfg.AccessKeyID, SecretAccessKey: string(c.key.Expose())}
	// Signed headers are host and x-amz-date, as the specification says: the body
	// and its headers come after signing.
	if err := c.signer.SignHTTP(ctx, creds, r, hex.EncodeToString(sum[:]), Service, c.cfg.Region, c.cfg.Now()); err != nil {
		return &Error{Unreachable, "the request could not be signed"}
	}
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(body))
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	resp, err := c.http.Do(r)
	if err != nil {
		return transportError(err)
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, MaxReply+1))
	defer secret.Zero(reply)
	switch {
	case err != nil:
		return transportError(err)
	case len(reply) > MaxReply:
		return &Error{Malformed, fmt.Sprintf("the reply is larger than %d bytes", MaxReply)}
	}
	return parseReply(resp.StatusCode, reply, out)
}

// transportError tells apart how a request without a reply failed.
func transportError(err error) error {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var dial *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &Error{TimedOut, err.Error()}
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return &Error{BadTLS, err.Error()}
	case errors.As(err, &dial) && dial.Op == "remote error": // a TLS alert of the proxy
		return &Error{BadTLS, err.Error()}
	}
	return &Error{Unreachable, err.Error()}
}
