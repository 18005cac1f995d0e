// Package keyring is the root of trust: a Root wraps what must not lie readable
// in the store (KMS key material, secret access keys, session sealing keys) under
// a root key that never leaves it.
//
// # Wrapped form, version 1
//
//	+---------+----------+----------+--------------------+
//	| version | root ID  | salt     | sealed             |
//	| 1 byte  | 8 bytes  | 32 bytes | plaintext + 16     |
//	+---------+----------+----------+--------------------+
//
// sealed is AES-256-GCM under the key HKDF-SHA256(secret: the root key, salt,
// info: "sealdesk root wrap 1\x00" + purpose), nonce zero, additional data:
// version ‖ root ID ‖ salt ‖ aad. Every wrap draws a fresh salt and so uses a
// fresh key exactly once; no (key, nonce) pair repeats unless two 256-bit salts
// collide, so the number of wraps is not a limit in practice (2^96 wraps give a
// collision chance of 2^-64).
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// ErrUnwrap is returned for a wrapped value that was changed, that belongs to
// another purpose or context, or that another root key wrapped.
var ErrUnwrap = errors.New("keyring: wrapped value does not open under this root key, purpose and context")

// Root wraps and unwraps small secrets. purpose separates uses ("kms/material",
// "iam/secret-access-key"); aad binds the value to its place (the key's ARN).
// Implementations are safe for concurrent use.
type Root interface {
	Wrap(purpose string, plaintext *secret.Bytes, aad []byte) ([]byte, error)
	Unwrap(purpose string, wrapped, aad []byte) (*secret.Bytes, error)
}

const (
	version1  = 1
	idSize    = 8
	saltSize  = 32
	headSize  = 1 + idSize + saltSize
	rootSize  = 32
	tagSize   = 16
	fileMagic = "sealdesk-root-key-1 "
)

// FileRoot keeps the root key in a file that only its owner may read (0600). It
// is the default; whoever can read the file can read everything.
type FileRoot struct {
	id  [idSize]byte
	key *secret.Bytes
}

// OpenFile reads the root key at path, making a new one when there is none.
func OpenFile(path string) (*FileRoot, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return createFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the root key: %w", err)
	}
	defer secret.Zero(b)
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the root key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the root key %s may be read by others (mode %04o): run chmod 600 on it", path, fi.Mode().Perm())
	}
	text := strings.TrimSpace(string(b))
	raw, err := hex.DecodeString(strings.TrimPrefix(text, fileMagic))
	if err != nil || !strings.HasPrefix(text, fileMagic) || len(raw) != rootSize {
		return nil, fmt.Errorf("%s is not a Sealdesk root key file", path)
	}
	return newFileRoot(raw), nil
}

func createFile(path string) (*FileRoot, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the root key: %w", err)
	}
	raw := make([]byte, rootSize)
	_, _ = rand.Read(raw)
	text := []byte(fileMagic + hex.EncodeToString(raw) + "\n")
	defer secret.Zero(text)
	if err := durable.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("write a new root key: %w", err)
	}
	return newFileRoot(raw), nil
}

func newFileRoot(raw []byte) *FileRoot {
	sum := sha256.Sum256(append([]byte("sealdesk root id\x00"), raw...))
	r := &FileRoot{key: secret.New(raw)}
	copy(r.id[:], sum[:])
	return r
}

func (r *FileRoot) aead(purpose string, salt []byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, r.key.Expose(), salt, "sealdesk root wrap 1\x00"+purpose, 32)
	if err != nil {
		return nil, err
	}
	defer secret.Zero(k)
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Wrap seals plaintext; see the package doc for the form.
func (r *FileRoot) Wrap(purpose string, plaintext *secret.Bytes, aad []byte) ([]byte, error) {
	out := make([]byte, headSize, headSize+plaintext.Len()+tagSize)
	out[0] = version1
	copy(out[1:], r.id[:])
	_, _ = rand.Read(out[1+idSize : headSize])
	a, err := r.aead(purpose, out[1+idSize:headSize])
	if err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	return a.Seal(out, make([]byte, a.NonceSize()), plaintext.Expose(), append(append([]byte(nil), out...), aad...)), nil
}

// Unwrap opens what Wrap sealed, or returns ErrUnwrap.
func (r *FileRoot) Unwrap(purpose string, wrapped, aad []byte) (*secret.Bytes, error) {
	if len(wrapped) < headSize+tagSize+1 || wrapped[0] != version1 || string(wrapped[1:1+idSize]) != string(r.id[:]) {
		return nil, ErrUnwrap
	}
	head := wrapped[:headSize:headSize]
	a, err := r.aead(purpose, head[1+idSize:])
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	plain, err := a.Open(nil, make([]byte, a.NonceSize()), wrapped[headSize:], append(head, aad...))
	if err != nil {
		return nil, ErrUnwrap
	}
	return secret.New(plain), nil
}
