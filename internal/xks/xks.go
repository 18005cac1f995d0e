// Package xks speaks the AWS KMS External Key Store Proxy API, version 1: how a
// key service uses keys in somebody else's key manager. It holds the words of the
// API and the client, which is the key service's half; package proxy is the other.
//
// Source: github.com/aws/aws-kms-xksproxy-api-spec, xks_proxy_api_spec.md.
//
// # Promises of the client
//
//   - HTTPS only, TLS 1.2 or later, with a certificate that chains to the trusted
//     CAs and names the host of the endpoint; no redirect and no HTTP proxy is followed.
//   - Requests are signed by Signature Version 4 for the service kms-xks-proxy.
//   - A reply is believed only when it is of the form the specification gives, is no
//     larger than MaxReply, and its integrity value is right. Anything else is an *Error of the kind Malformed.
//   - Every request ends within the timeout.
package xks

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

const (
	// Service is the SigV4 name of a proxy.
	Service = "kms-xks-proxy"
	// MaxBody is the largest request, MaxReply the largest reply in bytes: 8 KiB of
	// additional data and 4300 bytes of text in base64, and room for metadata.
	MaxBody, MaxReply = 64 << 10, 64 << 10
	// MaxPlaintext is what every proxy must be able to encrypt, in bytes.
	MaxPlaintext = 4300

	algorithmGCM   = "AES_GCM"
	algorithmCheck = "SHA_256"
	maxMetadata    = 20
	tagSize        = 16
)

// Operations, which are the last part of a path.
const (
	OpMetadata = "metadata"
	OpEncrypt  = "encrypt"
	OpDecrypt  = "decrypt"
	OpHealth   = "health"
)

var keyIDPattern = regexp.MustCompile(`^[a-zA-Z0-9-_.]{1,128}$`)

// ValidKeyID tells whether s can name an external key.
func ValidKeyID(s string) bool { return keyIDPattern.MatchString(s) }

// Metadata says for whom and why a request is made (requestMetadata).
type Metadata struct {
	AWSPrincipalARN string `json:"awsPrincipalArn,omitempty"`
	AWSSourceVPC    string `json:"awsSourceVpc,omitempty"`
	AWSSourceVPCE   string `json:"awsSourceVpce,omitempty"`
	KMSKeyARN       string `json:"kmsKeyArn,omitempty"`
	KMSOperation    string `json:"kmsOperation"`
	KMSRequestID    string `json:"kmsRequestId"`
	KMSViaService   string `json:"kmsViaService,omitempty"`
}

// Request is the body of every request; an operation uses some of its members.
type Request struct {
	Metadata           *Metadata `json:"requestMetadata"`
	AAD                []byte    `json:"additionalAuthenticatedData,omitempty"`
	Plaintext          []byte    `json:"plaintext,omitempty"`
	Algorithm          string    `json:"encryptionAlgorithm,omitempty"`
	IntegrityAlgorithm string    `json:"ciphertextDataIntegrityValueAlgorithm,omitempty"`
	Ciphertext         []byte    `json:"ciphertext,omitempty"`
	CiphertextMetadata []byte    `json:"ciphertextMetadata,omitempty"`
	IV                 []byte    `json:"initializationVector,omitempty"`
	Tag                []byte    `json:"authenticationTag,omitempty"`
}

// Sealed is the reply to encrypt.
type Sealed struct {
	Ciphertext         []byte `json:"ciphertext"`
	CiphertextMetadata []byte `json:"ciphertextMetadata,omitempty"`
	IV                 []byte `json:"initializationVector"`
	Tag                []byte `json:"authenticationTag"`
	Integrity          []byte `json:"ciphertextDataIntegrityValue,omitempty"`
}

// IntegrityOf is the ciphertextDataIntegrityValue (appendix C of the specification).
func (s *Sealed) IntegrityOf(aad []byte) []byte {
	h := sha256.New()
	for _, b := range [][]byte{aad, s.CiphertextMetadata, s.IV, s.Ciphertext, s.Tag} {
		h.Write(b)
	}
	return h.Sum(nil)
}

// check says what is wrong with a reply to encrypt.
func (s *Sealed) check(plaintext int, aad []byte) error {
	switch {
	case len(s.Ciphertext) != plaintext:
		return fmt.Errorf("ciphertext of %d bytes for a plaintext of %d", len(s.Ciphertext), plaintext)
	case len(s.CiphertextMetadata) > maxMetadata:
		return fmt.Errorf("ciphertextMetadata of %d bytes, at most %d are allowed", len(s.CiphertextMetadata), maxMetadata)
	case len(s.IV) != 12 && len(s.IV) != 16:
		return fmt.Errorf("initializationVector of %d bytes, want 12 or 16", len(s.IV))
	case len(s.Tag) != tagSize:
		return fmt.Errorf("authenticationTag of %d bytes, want %d", len(s.Tag), tagSize)
	case !bytes.Equal(s.Integrity, s.IntegrityOf(aad)):
		return errors.New("ciphertextDataIntegrityValue is missing or wrong")
	}
	return nil
}

// MarshalBinary is the reply as a key service keeps it in a ciphertext:
//
//	+-------+----+-------+----------+-----+------------+
//	| n     | IV | m     | metadata | tag | ciphertext |
//	| 1     | n  | 1     | m        | 16  | the rest   |
//	+-------+----+-------+----------+-----+------------+
func (s *Sealed) MarshalBinary() ([]byte, error) {
	if len(s.IV) > 255 || len(s.CiphertextMetadata) > maxMetadata || len(s.Tag) != tagSize {
		return nil, errors.New("xks: sealed message is not of the form")
	}
	out := append([]byte{byte(len(s.IV))}, s.IV...)
	out = append(append(out, byte(len(s.CiphertextMetadata))), s.CiphertextMetadata...)
	return append(append(out, s.Tag...), s.Ciphertext...), nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *Sealed) UnmarshalBinary(b []byte) error {
	bad := errors.New("xks: sealed message is not of the form")
	take := func(n int) (part []byte) {
		if n < 0 || n > len(b) {
			b, n = nil, 0
			return nil
		}
		part, b = b[:n:n], b[n:]
		return part
	}
	n := take(1)
	if n == nil {
		return bad
	}
	s.IV = take(int(n[0]))
	m := take(1)
	if m == nil || len(s.IV) != 12 && len(s.IV) != 16 || m[0] > maxMetadata {
		return bad
	}
	s.CiphertextMetadata = take(int(m[0]))
	s.Tag = take(tagSize)
	s.Ciphertext = b
	if len(s.CiphertextMetadata) != int(m[0]) || len(s.Tag) != tagSize || len(b) == 0 {
		return bad
	}
	return nil
}

// KeyMetadata is the reply to metadata.
type KeyMetadata struct {
	Spec   string   `json:"keySpec"`   // AES_256
	Usage  []string `json:"keyUsage"`  // ENCRYPT, DECRYPT, and others
	Status string   `json:"keyStatus"` // ENABLED, DISABLED
}

// Words of KeyMetadata.
const (
	SpecAES256     = "AES_256"
	UsageEncrypt   = "ENCRYPT"
	UsageDecrypt   = "DECRYPT"
	StatusEnabled  = "ENABLED"
	StatusDisabled = "DISABLED"
)

// Usable tells whether a KMS key can rest on the external key.
func (m *KeyMetadata) Usable() bool {
	return m.Spec == SpecAES256 && m.Status == StatusEnabled && slices.Contains(m.Usage, UsageEncrypt) && slices.Contains(m.Usage, UsageDecrypt)
}

// Health is the reply to health.
type Health struct {
	FleetSize int       `json:"xksProxyFleetSize"`
	Vendor    string    `json:"xksProxyVendor"`
	Model     string    `json:"xksProxyModel"`
	EKMVendor string    `json:"ekmVendor"`
	EKMs      []Manager `json:"ekmFleetDetails"`
}

// Manager is one external key manager behind a proxy.
type Manager struct {
	ID     string `json:"id"`
	Model  string `json:"model"`
	Status string `json:"healthStatus"`
}

// Words of Manager.Status.
const (
	Active      = "ACTIVE"
	Degraded    = "DEGRADED"
	Unavailable = "UNAVAILABLE"
)

// check says what is wrong with a reply to health.
func (h *Health) check() error {
	if h.FleetSize < 1 || h.Vendor == "" || h.Model == "" || h.EKMVendor == "" || len(h.EKMs) < 1 || len(h.EKMs) > 10 {
		return errors.New("a member of the health status is missing or out of range")
	}
	for _, m := range h.EKMs {
		if m.ID == "" || m.Model == "" || m.Status != Active && m.Status != Degraded && m.Status != Unavailable {
			return errors.New("ekmFleetDetails is not of the form")
		}
	}
	return nil
}

// Kind says how a request failed: the errorName of a proxy, or what came before a reply.
type Kind string

// Kinds that a proxy reports (errorName), with their HTTP status codes in Status.
const (
	Validation           Kind = "ValidationException"
	InvalidState         Kind = "InvalidStateException"
	InvalidCiphertext    Kind = "InvalidCiphertextException"
	InvalidKeyUsage      Kind = "InvalidKeyUsageException"
	AuthenticationFailed Kind = "AuthenticationFailedException"
	AccessDenied         Kind = "AccessDeniedException"
	KeyNotFound          Kind = "KeyNotFoundException"
	InvalidURIPath       Kind = "InvalidUriPathException"
	Throttling           Kind = "ThrottlingException"
	Unsupported          Kind = "UnsupportedOperationException"
	DependencyTimeout    Kind = "DependencyTimeoutException"
	Internal             Kind = "InternalException"
)

// Kinds that the client finds.
const (
	Malformed   Kind = "malformed reply"
	Unreachable Kind = "not reachable"
	BadTLS      Kind = "no TLS connection"
	TimedOut    Kind = "timed out"
	NoManager   Kind = "no external key manager available"
)

// Status is the HTTP status code of what a proxy reports.
var Status = map[Kind]int{Validation: 400, InvalidState: 400, InvalidCiphertext: 400, InvalidKeyUsage: 400, AuthenticationFailed: 401, AccessDenied: 403,
	KeyNotFound: 404, InvalidURIPath: 404, Throttling: 429, Unsupported: 501, DependencyTimeout: 503, Internal: 500}

// ErrorReply is the body of a reply that is no success.
type ErrorReply struct {
	Name    Kind   `json:"errorName"`
	Message string `json:"errorMessage,omitempty"`
}

// Error is a request that failed.
type Error struct {
	Kind Kind
	// Detail is for the log of the key service; callers of KMS do not see it.
	Detail string
}

func (e *Error) Error() string {
	return "external key store proxy: " + string(e.Kind) + ": " + e.Detail
}

// parseReply reads a reply into out, a pointer, and gives an *Error for
// anything but a success of the form.
func parseReply(status int, body []byte, out any) error {
	if status == 200 {
		if err := json.Unmarshal(body, out); err != nil {
			return &Error{Malformed, "the body is not the JSON object that was expected"}
		}
		return nil
	}
	var e ErrorReply
	if err := json.Unmarshal(body, &e); err != nil || Status[e.Name] == 0 {
		return &Error{Malformed, fmt.Sprintf("status %d without a known errorName", status)}
	}
	return &Error{e.Name, printable(e.Message)}
}

// printable is a message of a proxy, made safe for a log.
func printable(s string) string {
	if len(s) > 512 {
		s = s[:512]
	}
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}
