package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
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

// ID names a root key: the beginning of a hash of it.
type ID [idSize]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

const (
	version1  = 1
	idSize    = 8
	saltSize  = 32
	headSize  = 1 + idSize + saltSize
	rootSize  = 32
	tagSize   = 16
	fileMagic = "sealdesk-root-key-1 "
)

// Key is one root key in memory. It is a Root by itself, which is what a test
// needs; a server has a Ring.
type Key struct {
	id  ID
	key *secret.Bytes
}

// OpenFile reads the root key at path, making a new one when there is none.
func OpenFile(path string) (*Key, error) {
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
	return newKey(raw), nil
}

func createFile(path string) (*Key, error) {
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
	return newKey(raw), nil
}

// newKey makes a Key of raw, which it wipes.
func newKey(raw []byte) *Key {
	r := &Key{id: rootID(raw), key: secret.New(raw)}
	r.key.Lock()
	return r
}

func rootID(raw []byte) (id ID) {
	h := sha256.New()
	h.Write([]byte("sealdesk root id\x00"))
	copy(id[:], sumSecret(h, raw))
	return id
}

// sumSecret is the sum of h with the secret last. A hash keeps the last block it was given,
// so it is given another before it becomes garbage.
func sumSecret(h hash.Hash, secret []byte) []byte {
	h.Write(secret)
	sum := h.Sum(nil)
	h.Write(make([]byte, h.BlockSize()))
	return sum
}

// wrappedUnder is the root key that a wrapped value names.
func wrappedUnder(wrapped []byte) (id ID, ok bool) {
	if len(wrapped) < headSize+tagSize+1 || wrapped[0] != version1 {
		return id, false
	}
	return ID(wrapped[1 : 1+idSize]), true
}

// needle is what a stored record that holds a value wrapped under id contains.
func needle(id ID) []byte {
	return []byte(`"` + base64.StdEncoding.EncodeToString(append([]byte{version1}, id[:]...)))
}

func (r *Key) aead(purpose string, salt []byte) (cipher.AEAD, error) {
	h := hmac.New(sha256.New, salt) // HKDF-Extract, RFC 5869 section 2.2
	prk := sumSecret(h, r.key.Expose())
	defer secret.Zero(prk)
	k, err := hkdf.Expand(sha256.New, prk, "sealdesk root wrap 1\x00"+purpose, 32)
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
func (r *Key) Wrap(purpose string, plaintext *secret.Bytes, aad []byte) ([]byte, error) {
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
func (r *Key) Unwrap(purpose string, wrapped, aad []byte) (*secret.Bytes, error) {
	if id, ok := wrappedUnder(wrapped); !ok || id != r.id {
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
