package kms

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks"
)

// backing is what a connected custom key store rests on. Its errors are *fault.
type backing interface {
	// probe tells whether keys can be used now.
	probe(ctx context.Context, m xks.Metadata) error
	// create makes, or finds, what a new key rests on.
	create(ctx context.Context, k *Key, m xks.Metadata) error
	seal(ctx context.Context, k *Key, m xks.Metadata, plaintext, aad []byte) ([]byte, error)
	// open is errBlob when the ciphertext does not open.
	open(ctx context.Context, k *Key, m xks.Metadata, sealed, aad []byte) (*secret.Bytes, error)
	// destroy destroys what is ours of a key; nothing there is success.
	destroy(ctx context.Context, k *Key) error
	close()
}

// fault is why a custom key store could not do something, in the forms the API
// gives it.
type fault struct {
	// code is what a failed ConnectCustomKeyStore leaves.
	code types.ConnectionErrorCodeType
	// manage is the error of CreateCustomKeyStore and UpdateCustomKeyStore, create
	// of CreateKey; nil: CustomKeyStoreInvalidStateException. Cryptographic
	// operations have KMSInvalidStateException always.
	manage, create func(message *string) error
	message        string
	cause          error
}

func (f *fault) Error() string { return f.message + " (" + f.cause.Error() + ")" }
func (f *fault) Unwrap() error { return f.cause }

func (f *fault) as(form func(*string) error) error {
	if form == nil {
		return &types.CustomKeyStoreInvalidStateException{Message: &f.message}
	}
	return form(&f.message)
}

// The forms of faults.
func asUnreachable(m *string) error { return &types.XksProxyUriUnreachableException{Message: m} }
func asInvalidResponse(m *string) error {
	return &types.XksProxyInvalidResponseException{Message: m}
}
func asInvalidConfiguration(m *string) error {
	return &types.XksProxyInvalidConfigurationException{Message: m}
}
func asBadCredential(m *string) error {
	return &types.XksProxyIncorrectAuthenticationCredentialException{Message: m}
}
func asKeyConfiguration(m *string) error {
	return &types.XksKeyInvalidConfigurationException{Message: m}
}
func asKeyNotFound(m *string) error { return &types.XksKeyNotFoundException{Message: m} }
func asState(m *string) error       { return &types.KMSInvalidStateException{Message: m} }

const (
	msgMalformed    = "AWS KMS cannot interpret the response from the external key store proxy. If you see this error repeatedly, report it to your external key store proxy administrator."
	msgKeyDisabled  = "The external key associated with this KMS key in an external key store is not enabled in the external key manager. Enable the external key in the external key manager and retry the request."
	msgCiphertext   = "The external key store proxy rejected the request because the specified ciphertext or encryption context is corrupted, missing, or otherwise invalid."
	msgInner        = "The ciphertext that the external key store proxy submitted for decryption, or the encryption context, is corrupted, missing, or otherwise invalid."
	msgKeyUsage     = "The external key associated with this KMS key in an external key store does not support the requested operation. Enable the operation on the key in your external key manager, and try the request again."
	msgCredential   = "The external key store proxy rejected the request because it could not authenticate AWS KMS. Verify the XKS proxy authentication credentials for your external key store and update if necessary."
	msgDenied       = "The external key store proxy denied access to the operation. Verify that the user and the external key are both authorized for this operation, and try the request again."
	msgKeyNotFound  = "The external key associated with this KMS key in an external key store was not found in its external key manager. If the external key ID associated with this KMS key is incorrect, create a new KMS key with the correct external key ID."
	msgPath         = "The external key store proxy rejected the request because of an invalid URI path. Verify the URI path for your external key store and update if necessary."
	msgUnsupported  = "The external key store proxy rejected the request because it does not support the requested operation. If you see this error repeatedly, report it to your external key store proxy administrator."
	msgDependency   = "The external key store proxy did not respond to the request in the time allotted. Retry the request. If you see this error repeatedly, report it to your external key store proxy administrator."
	msgThrottled    = "The external key store proxy rejected the request due to a very high request rate. Reduce the frequency of your calls using KMS keys in this external key store."
	msgManager      = "The external key store proxy rejected the request because it cannot communicate with the external key manager. Verify that the external key store proxy configuration is correct and that the external key manager is available."
	msgUnreachable  = "AWS KMS cannot communicate with the external key store proxy. This might be a transient network issue. If you see this error repeatedly, verify that your external key store proxy is active and is connected to the network, and that its endpoint URI is correct in your external key store."
	msgTLS          = "AWS KMS cannot establish a TLS connection to the external key store proxy. Verify the TLS configuration, including its certificate."
	msgTimeout      = "AWS KMS rejected the request because the external key store proxy did not respond in time. Retry the request. If you see this error repeatedly, report it to your external key store proxy administrator."
	msgNotConnected = "This KMS key is in a custom key store that is not connected to its external key store proxy. Connect the external key store and try the request again."
	msgKeyUnfit     = "The external key did not meet the configuration requirements for an external key store: it must be an AES-256 symmetric key that is enabled and performs encryption and decryption."

	msgCluster = "KMS cannot communicate with your CloudHSM cluster"
	msgKeyGone = "The key material of this KMS key is not in its CloudHSM cluster."
)

// xksFaults is the table "Error codes, KMS considerations" of the proxy's specification.
var xksFaults = map[xks.Kind]fault{
	xks.Validation:           {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, message: msgMalformed},
	xks.Malformed:            {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, message: msgMalformed},
	xks.InvalidState:         {code: types.ConnectionErrorCodeTypeXksProxyInvalidConfiguration, manage: asInvalidConfiguration, create: asKeyConfiguration, message: msgKeyDisabled},
	xks.InvalidCiphertext:    {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, message: msgCiphertext},
	xks.InvalidKeyUsage:      {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, create: asKeyConfiguration, message: msgKeyUsage},
	xks.AuthenticationFailed: {code: types.ConnectionErrorCodeTypeInvalidCredentials, manage: asBadCredential, message: msgCredential},
	xks.AccessDenied:         {code: types.ConnectionErrorCodeTypeXksProxyAccessDenied, manage: asInvalidConfiguration, create: asState, message: msgDenied},
	xks.KeyNotFound:          {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, create: asKeyNotFound, message: msgKeyNotFound},
	xks.InvalidURIPath:       {code: types.ConnectionErrorCodeTypeXksProxyInvalidConfiguration, manage: asInvalidConfiguration, message: msgPath},
	xks.Unsupported:          {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, message: msgUnsupported},
	xks.DependencyTimeout:    {code: types.ConnectionErrorCodeTypeXksProxyTimedOut, manage: asUnreachable, message: msgDependency},
	xks.Throttling:           {code: types.ConnectionErrorCodeTypeXksProxyNotReachable, manage: asUnreachable, message: msgThrottled},
	xks.Internal:             {code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse, manage: asInvalidResponse, message: msgManager},
	xks.NoManager:            {code: types.ConnectionErrorCodeTypeXksProxyNotReachable, manage: asUnreachable, message: msgManager},
	xks.Unreachable:          {code: types.ConnectionErrorCodeTypeXksProxyNotReachable, manage: asUnreachable, message: msgUnreachable},
	xks.BadTLS:               {code: types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration, manage: asUnreachable, message: msgTLS},
	xks.TimedOut:             {code: types.ConnectionErrorCodeTypeXksProxyTimedOut, manage: asUnreachable, message: msgTimeout},
}

// xksFault is an error of a proxy's client as a fault.
func xksFault(err error) error {
	var e *xks.Error
	if !errors.As(err, &e) {
		return &fault{code: types.ConnectionErrorCodeTypeInternalError, manage: asInvalidConfiguration, message: msgUnreachable, cause: err}
	}
	f := xksFaults[e.Kind]
	f.cause = err
	return &f
}

// proxyBacking is an external key store.
type proxyBacking struct{ client *xks.Client }

func (p proxyBacking) probe(ctx context.Context, m xks.Metadata) error {
	if _, err := p.client.Health(ctx, m); err != nil {
		return xksFault(err)
	}
	return nil
}

func (p proxyBacking) create(ctx context.Context, k *Key, m xks.Metadata) error {
	m.KMSKeyARN = "" // it has none yet
	info, err := p.client.Key(ctx, k.External, m)
	if err != nil {
		return xksFault(err)
	}
	if !info.Usable() {
		return &fault{create: asKeyConfiguration, message: msgKeyUnfit, cause: errors.New("keySpec " + info.Spec + ", keyStatus " + info.Status)}
	}
	return nil
}

func (p proxyBacking) seal(ctx context.Context, k *Key, m xks.Metadata, plaintext, aad []byte) ([]byte, error) {
	s, err := p.client.Encrypt(ctx, k.External, plaintext, aad, m)
	if err != nil {
		return nil, xksFault(err)
	}
	return s.MarshalBinary()
}

func (p proxyBacking) open(ctx context.Context, k *Key, m xks.Metadata, sealed, aad []byte) (*secret.Bytes, error) {
	var s xks.Sealed
	if s.UnmarshalBinary(sealed) != nil {
		return nil, errBlob
	}
	b, err := p.client.Decrypt(ctx, k.External, &s, aad, m)
	if err != nil {
		return nil, xksFault(err)
	}
	return b, nil
}

// destroy does nothing: KMS has no say over external keys.
func (proxyBacking) destroy(context.Context, *Key) error { return nil }
func (p proxyBacking) close()                            { p.client.Close() }

// tokenTimeout is how long a token may take for an operation, and for the login.
const (
	tokenTimeout = 5 * time.Second
	loginTimeout = 10 * time.Second
)

// tokenBacking is a CloudHSM key store. The label of a key in the token is the KMS key's ID.
type tokenBacking struct{ token *pkcs11.Token }

func hsmFault(err error) error {
	f := &fault{code: types.ConnectionErrorCodeTypeInternalError, message: msgCluster, cause: err}
	switch {
	case errors.Is(err, pkcs11.ErrPIN):
		f.code = types.ConnectionErrorCodeTypeInvalidCredentials
	case errors.Is(err, pkcs11.ErrPINLocked):
		f.code = types.ConnectionErrorCodeTypeUserLockedOut
	case errors.Is(err, pkcs11.ErrNoUser):
		f.code = types.ConnectionErrorCodeTypeUserNotFound
	case errors.Is(err, pkcs11.ErrNoToken):
		f.code = types.ConnectionErrorCodeTypeInsufficientCloudhsmHsms
	case errors.Is(err, pkcs11.ErrTokenGone):
		f.code = types.ConnectionErrorCodeTypeNetworkErrors
	case errors.Is(err, pkcs11.ErrNoKey), errors.Is(err, pkcs11.ErrManyKeys):
		f.message = msgKeyGone
	}
	return f
}

func (t tokenBacking) probe(ctx context.Context, _ xks.Metadata) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if err := t.token.Ping(ctx); err != nil {
		return hsmFault(err)
	}
	return nil
}

func (t tokenBacking) create(ctx context.Context, k *Key, _ xks.Metadata) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if err := t.token.Generate(ctx, k.ID, 256); err != nil {
		return hsmFault(err)
	}
	return nil
}

func (t tokenBacking) seal(ctx context.Context, k *Key, _ xks.Metadata, plaintext, aad []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	b, err := t.token.Seal(ctx, k.ID, plaintext, aad)
	if err != nil {
		return nil, hsmFault(err)
	}
	return b, nil
}

func (t tokenBacking) open(ctx context.Context, k *Key, _ xks.Metadata, sealed, aad []byte) (*secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	b, err := t.token.Open(ctx, k.ID, sealed, aad)
	switch {
	case errors.Is(err, pkcs11.ErrCiphertext):
		return nil, errBlob
	case err != nil:
		return nil, hsmFault(err)
	}
	return b, nil
}

func (t tokenBacking) destroy(ctx context.Context, k *Key) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if err := t.token.Destroy(ctx, k.ID); err != nil {
		return hsmFault(err)
	}
	return nil
}

func (t tokenBacking) close() { t.token.Close() }
