// Package proxy is an external key store proxy (package xks) in front of a PKCS #11
// token: a key service elsewhere uses AES keys in the token, and the keys never leave it.
//
// # Promises
//
//   - Nothing is done for a request that does not carry a Signature Version 4 of
//     one of the credentials, made within five minutes, over the whole body.
//     Two sets of credentials may be valid at once, so that they can be replaced without a gap.
//   - An external key ID is the label (CKA_LABEL) of a key in the token.
//   - Every message is decrypted once before its ciphertext is returned.
//   - A log line for each request has its operation, key, KMS request ID, principal, duration and
//     error, and nothing of what was encrypted or decrypted.
package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
	"github.com/sealdesk/sealdesk/internal/xks"
)

// Credential is one key to sign requests with.
type Credential struct {
	AccessKeyID string
	Secret      *secret.Bytes
}

var (
	accessKeyPattern = regexp.MustCompile(`^[A-Z2-7]{20,30}$`)
	secretKeyPattern = regexp.MustCompile(`^[a-zA-Z0-9/+=]{43,64}$`)
	prefixPattern    = regexp.MustCompile(`^(/[a-zA-Z0-9/_-]+)?$`)
)

// Config is what a proxy needs.
type Config struct {
	// Token is the PKCS #11 token with the keys.
	Token Token
	// Credentials are those that may sign; at least one.
	Credentials []Credential
	// Prefix comes before /kms/xks/v1 in every path; "" or "/…".
	Prefix string
	// Timeout is how long the token may take; default 5 seconds.
	Timeout time.Duration
	Now     func() time.Time
	Logger  *slog.Logger
}

// Token is what the proxy asks of a *pkcs11.Token.
type Token interface {
	Info() pkcs11.Info
	Ping(ctx context.Context) error
	Key(ctx context.Context, label string) (pkcs11.KeyInfo, error)
	Seal(ctx context.Context, label string, plaintext, aad []byte) ([]byte, error)
	Open(ctx context.Context, label string, sealed, aad []byte) (*secret.Bytes, error)
}

// Proxy is an http.Handler.
type Proxy struct {
	cfg      Config
	base     string
	verifier *sigv4.Verifier
}

// New checks the configuration and returns a proxy.
func New(cfg Config) (*Proxy, error) {
	if cfg.Token == nil {
		return nil, errors.New("xks proxy: no token")
	}
	if len(cfg.Credentials) == 0 {
		return nil, errors.New("xks proxy: no credential: nobody could sign a request")
	}
	seen := map[string]bool{}
	for _, c := range cfg.Credentials {
		switch {
		case !accessKeyPattern.MatchString(c.AccessKeyID):
			return nil, fmt.Errorf("xks proxy: the access key ID %q is not 20 to 30 characters of A-Z and 2-7", c.AccessKeyID)
		case seen[c.AccessKeyID]:
			return nil, fmt.Errorf("xks proxy: the access key ID %s is there twice", c.AccessKeyID)
		case c.Secret.Len() == 0 || !secretKeyPattern.Match(c.Secret.Expose()):
			return nil, fmt.Errorf("xks proxy: the secret access key of %s is not 43 to 64 characters of a-z, A-Z, 0-9, /, + and =", c.AccessKeyID)
		}
		seen[c.AccessKeyID] = true
	}
	if !prefixPattern.MatchString(cfg.Prefix) || strings.HasSuffix(cfg.Prefix, "/") {
		return nil, fmt.Errorf("xks proxy: the path prefix %q is not / and letters, digits, /, _ and -", cfg.Prefix)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Proxy{cfg: cfg, base: cfg.Prefix + "/kms/xks/v1", verifier: sigv4.NewVerifier()}, nil
}

// Path is what a key service is told as XksProxyUriPath.
func (p *Proxy) Path() string { return p.base }

func fail(k xks.Kind, format string, a ...any) error {
	return &xks.Error{Kind: k, Detail: fmt.Sprintf(format, a...)}
}

// ServeHTTP answers one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	in, op, key := &xks.Request{}, "", ""
	out, err := func() (any, error) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, xks.MaxBody))
		defer secret.Zero(body)
		if err != nil {
			return nil, fail(xks.Validation, "the body cannot be read, or is larger than %d bytes", xks.MaxBody)
		}
		if err := p.authenticate(r, body); err != nil {
			return nil, err
		}
		if op, key, err = p.route(r); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, in); err != nil || in.Metadata == nil {
			return nil, fail(xks.Validation, "the body is not a JSON object with requestMetadata and base64 where it belongs")
		}
		ctx, cancel := context.WithTimeout(r.Context(), p.cfg.Timeout)
		defer cancel()
		return p.run(ctx, op, key, in)
	}()
	defer secret.Zero(in.Plaintext)
	log := p.cfg.Logger.With("operation", op, "key", key, "duration", time.Since(start))
	if m := in.Metadata; m != nil {
		log = log.With("kmsRequestId", m.KMSRequestID, "kmsOperation", m.KMSOperation, "principal", m.AWSPrincipalARN, "kmsKey", m.KMSKeyARN)
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		e := asError(err)
		log.Warn("request refused", "error", e.Kind, "detail", err)
		w.WriteHeader(xks.Status[e.Kind])
		out = xks.ErrorReply{Name: e.Kind, Message: e.Detail}
	} else {
		log.Info("request served")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return
	}
	_, _ = w.Write(b)
	if s, ok := out.(*plaintextReply); ok {
		secret.Zero(s.Plaintext)
		secret.Zero(b)
	}
}

type plaintextReply struct {
	Plaintext []byte `json:"plaintext"`
}

// authenticate checks the signature. What exactly is wrong with it is told to nobody.
func (p *Proxy) authenticate(r *http.Request, body []byte) error {
	a, err := sigv4.Parse(r)
	if err != nil || a.Presigned || a.Service != xks.Service {
		return fail(xks.AuthenticationFailed, "the request is not signed by Signature Version 4 for the service %s", xks.Service)
	}
	for _, c := range p.cfg.Credentials {
		if c.AccessKeyID != a.AccessKeyID {
			continue
		}
		if err := p.verifier.Verify(a, r, sigv4.BodyOf(body), c.Secret.Expose(), p.cfg.Now()); err != nil {
			break
		}
		return nil
	}
	return fail(xks.AuthenticationFailed, "the signature is not one of a credential of this proxy, or too old")
}

func (p *Proxy) route(r *http.Request) (op, key string, err error) {
	rest, ok := strings.CutPrefix(r.URL.Path, p.base+"/")
	if ok && r.Method == http.MethodPost {
		if rest == xks.OpHealth {
			return xks.OpHealth, "", nil
		}
		parts := strings.Split(rest, "/")
		if len(parts) == 3 && parts[0] == "keys" && xks.ValidKeyID(parts[1]) && (parts[2] == xks.OpMetadata || parts[2] == xks.OpEncrypt || parts[2] == xks.OpDecrypt) {
			return parts[2], parts[1], nil
		}
	}
	return "", "", fail(xks.InvalidURIPath, "the path is not one of this proxy")
}

func (p *Proxy) run(ctx context.Context, op, key string, in *xks.Request) (any, error) {
	if in.Metadata.KMSRequestID == "" || in.Metadata.KMSOperation == "" || op != xks.OpHealth && in.Metadata.AWSPrincipalARN == "" {
		return nil, fail(xks.Validation, "a required member of requestMetadata is missing")
	}
	switch op {
	case xks.OpHealth:
		return p.health(ctx)
	case xks.OpMetadata:
		return p.metadata(ctx, key)
	}
	switch {
	case in.Algorithm == "":
		return nil, fail(xks.Validation, "encryptionAlgorithm is missing")
	case in.Algorithm != "AES_GCM":
		return nil, fail(xks.Validation, "encryptionAlgorithm must be AES_GCM")
	case len(in.AAD) > 8192:
		return nil, fail(xks.Unsupported, "additionalAuthenticatedData is longer than 8192 bytes")
	}
	if op == xks.OpEncrypt {
		return p.encrypt(ctx, key, in)
	}
	return p.decrypt(ctx, key, in)
}

// aad is the additional data as the specification wants it: lengths included, so
// that no ciphertextMetadata can pass for additional data.
func aad(in *xks.Request) []byte {
	b := []byte{byte(len(in.AAD) >> 8), byte(len(in.AAD))}
	b = append(b, in.AAD...)
	return append(append(b, byte(len(in.CiphertextMetadata))), in.CiphertextMetadata...)
}

const ivSize, tagSize = 12, 16

func (p *Proxy) encrypt(ctx context.Context, key string, in *xks.Request) (any, error) {
	switch {
	case len(in.Plaintext) == 0:
		return nil, fail(xks.Validation, "plaintext is missing")
	case len(in.Plaintext) > 32<<10:
		return nil, fail(xks.Unsupported, "plaintext is too long")
	case in.IntegrityAlgorithm != "" && in.IntegrityAlgorithm != "SHA_256":
		return nil, fail(xks.Validation, "ciphertextDataIntegrityValueAlgorithm must be SHA_256")
	}
	in.CiphertextMetadata = nil
	sealed, err := p.cfg.Token.Seal(ctx, key, in.Plaintext, aad(in))
	if err != nil {
		return nil, err
	}
	n := len(sealed) - tagSize
	out := &xks.Sealed{IV: sealed[:ivSize], Ciphertext: sealed[ivSize:n], Tag: sealed[n:]}
	// The integrity value first, then the proof that the message opens: in the other
	// order a bit that flips in between would be vouched for (appendix C).
	if in.IntegrityAlgorithm != "" {
		out.Integrity = out.IntegrityOf(in.AAD)
	}
	back, err := p.cfg.Token.Open(ctx, key, sealed, aad(in))
	if err != nil {
		return nil, fmt.Errorf("what the token has encrypted does not open: %v", err)
	}
	defer back.Wipe()
	if string(back.Expose()) != string(in.Plaintext) {
		return nil, errors.New("what the token has encrypted opens to something else")
	}
	return out, nil
}

func (p *Proxy) decrypt(ctx context.Context, key string, in *xks.Request) (any, error) {
	switch {
	case len(in.Ciphertext) == 0 || len(in.IV) == 0 || len(in.Tag) == 0:
		return nil, fail(xks.Validation, "ciphertext, initializationVector or authenticationTag is missing")
	case len(in.CiphertextMetadata) > 20:
		return nil, fail(xks.Validation, "ciphertextMetadata is longer than 20 bytes")
	case len(in.IV) != ivSize || len(in.Tag) != tagSize:
		return nil, fail(xks.InvalidCiphertext, "initializationVector and authenticationTag must have %d and %d bytes", ivSize, tagSize)
	}
	sealed := append(append(append([]byte(nil), in.IV...), in.Ciphertext...), in.Tag...)
	plain, err := p.cfg.Token.Open(ctx, key, sealed, aad(in))
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	return &plaintextReply{append([]byte(nil), plain.Expose()...)}, nil
}

func (p *Proxy) metadata(ctx context.Context, key string) (any, error) {
	k, err := p.cfg.Token.Key(ctx, key)
	if errors.Is(err, pkcs11.ErrUnsuitable) {
		return &xks.KeyMetadata{Spec: "OTHER", Usage: []string{}, Status: xks.StatusEnabled}, nil
	}
	if err != nil {
		return nil, err
	}
	return &xks.KeyMetadata{Spec: fmt.Sprintf("AES_%d", k.Bits), Usage: []string{xks.UsageEncrypt, xks.UsageDecrypt}, Status: xks.StatusEnabled}, nil
}

func (p *Proxy) health(ctx context.Context) (any, error) {
	i := p.cfg.Token.Info()
	m := xks.Manager{ID: or(i.Serial, "token"), Model: or(i.Model, "PKCS #11 token"), Status: xks.Active}
	if err := p.cfg.Token.Ping(ctx); err != nil {
		p.cfg.Logger.Error("the token does not answer", "err", err)
		m.Status = xks.Unavailable
	}
	return &xks.Health{FleetSize: 1, Vendor: "Sealdesk", Model: "Sealdesk xks-proxy 1", EKMVendor: or(i.Manufacturer, "unknown"), EKMs: []xks.Manager{m}}, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// asError gives an error of the token the name the API has for it.
func asError(err error) *xks.Error {
	var e *xks.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, pkcs11.ErrNoKey), errors.Is(err, pkcs11.ErrManyKeys):
		return &xks.Error{Kind: xks.KeyNotFound, Detail: "the token has no key, or more than one, of that label"}
	case errors.Is(err, pkcs11.ErrUnsuitable):
		return &xks.Error{Kind: xks.InvalidKeyUsage, Detail: "the key is not an AES key that encrypts and decrypts"}
	case errors.Is(err, pkcs11.ErrCiphertext):
		return &xks.Error{Kind: xks.InvalidCiphertext, Detail: "the ciphertext does not open under this key and additional data"}
	case errors.Is(err, context.DeadlineExceeded):
		return &xks.Error{Kind: xks.DependencyTimeout, Detail: "the token did not answer in time"}
	}
	return &xks.Error{Kind: xks.Internal, Detail: "the token could not do it; the proxy's log has the details"}
}
