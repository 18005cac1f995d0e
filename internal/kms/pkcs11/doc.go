// Package pkcs11 works with AES keys that live in a PKCS #11 token (an HSM, a
// smart card, SoftHSM) and never leave it.
//
// # Promises
//
//   - A key made here is CKA_SENSITIVE and not CKA_EXTRACTABLE: the token does
//     the cryptography, and gives the key to nobody.
//   - A PIN is checked by every Open, also when the process is logged in to the
//     token already (a PKCS #11 login counts for the whole process).
//   - A Token may be used by many goroutines; each operation has a session of its
//     own from a pool. Every operation ends with its context: a token that hangs
//     costs sessions, not callers. Sessions that the token has closed (a restarted
//     HSM) are opened again.
//   - Plaintext that comes out of the token is a secret.Bytes with one owner.
//
// # Sealed form
//
//	+----------+---------------------+----------+
//	| nonce    | ciphertext          | tag      |
//	| 12 bytes | as the plaintext    | 16 bytes |
//	+----------+---------------------+----------+
//
// It is CKM_AES_GCM (PKCS #11 v2.40 mechanisms, 2.12) with a random nonce. NIST SP
// 800-38D section 8.3 allows 2^32 messages under one key with random 96-bit nonces;
// callers whose keys may see more wrap a key of their own for each period. A token that insists
// on making the nonce itself and writes it back in the parameters is served too.
//
// Source: OASIS PKCS #11 Base Specification v2.40 and Current Mechanisms v2.40.
//
// BUG(pkcs11): the binding copies what the token decrypts out of a C buffer that
// it frees without wiping.
package pkcs11

import (
	"errors"
	"fmt"
)

// Errors of Open and of the operations on a Token. They are wrapped with what was being done.
var (
	ErrModule     = errors.New("the PKCS #11 module cannot be loaded")
	ErrNoToken    = errors.New("no token has that label")
	ErrPIN        = errors.New("the PIN is not correct")
	ErrPINLocked  = errors.New("the token has locked the user's PIN")
	ErrNoUser     = errors.New("the token has no user PIN yet")
	ErrTokenGone  = errors.New("the token does not answer")
	ErrClosed     = errors.New("the token was closed")
	ErrNoKey      = errors.New("the token has no such key")
	ErrManyKeys   = errors.New("the token has more than one such key")
	ErrKeyExists  = errors.New("the token has a key of that label already")
	ErrUnsuitable = errors.New("the key is not a secret AES key that the token keeps to itself")
	ErrCiphertext = errors.New("the ciphertext does not open under this key and additional data")
)

const (
	nonceSize = 12
	tagSize   = 16

	// Overhead is how much longer a sealed message is than its plaintext.
	Overhead = nonceSize + tagSize
)

// Config names a token.
type Config struct {
	// Module is the path of the shared library, such as
	// /usr/lib/softhsm/libsofthsm2.so.
	Module string
	// Token is the token's label (CKA_LABEL of CK_TOKEN_INFO).
	Token string
	// Sessions is how many operations may run at once; default 8.
	Sessions int
}

// Validate says what is missing.
func (c Config) Validate() error {
	switch {
	case c.Module == "":
		return errors.New("pkcs11: the path of the module is missing")
	case c.Token == "":
		return errors.New("pkcs11: the label of the token is missing")
	case len(c.Token) > 32:
		return fmt.Errorf("pkcs11: the token label %q is longer than 32 bytes", c.Token)
	}
	return nil
}

// Info describes a token.
type Info struct{ Manufacturer, Model, Serial string }

// KeyInfo describes a key in the token.
type KeyInfo struct {
	Label string
	Bits  int
	// Kept: the key is sensitive, not extractable, and was never otherwise.
	Kept bool
}
