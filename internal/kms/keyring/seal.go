package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/argon2"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Errors that callers branch on.
var (
	// ErrSealed: a root key is needed and has not been opened yet.
	ErrSealed = errors.New("the root key is sealed")
	// ErrPassphrase: the passphrase does not open the root key.
	ErrPassphrase = errors.New("wrong passphrase: it does not open the root key")
	// ErrDamaged: a root key file is not what was written.
	ErrDamaged = errors.New("the root key file is damaged")
)

// Kinds of Seal.
const (
	File       = "file"
	Passphrase = "passphrase"
	PKCS11     = "pkcs11"
)

// Seal protects root keys while they lie in files. Safe for concurrent use.
type Seal interface {
	// Kind is File, Passphrase or PKCS11.
	Kind() string
	// Parameters are what Open will need to know that is not secret, fixed as long as
	// the Seal lives.
	Parameters() json.RawMessage
	// Seal returns key (32 bytes) as it may lie in a file, bound to head.
	Seal(key *secret.Bytes, head []byte) ([]byte, error)
	// Open undoes Seal for a Seal with equal Parameters.
	Open(sealed, head []byte) (*secret.Bytes, error)
	// Close wipes what the Seal holds.
	Close() error
}

// FileSeal leaves the key as it is: the mode of the file protects it.
type FileSeal struct{}

// Kind is File.
func (FileSeal) Kind() string { return File }

// Parameters are none.
func (FileSeal) Parameters() json.RawMessage { return json.RawMessage(`{}`) }

// Seal returns the key itself.
func (FileSeal) Seal(key *secret.Bytes, _ []byte) ([]byte, error) {
	return append([]byte(nil), key.Expose()...), nil
}

// Open returns what lay in the file.
func (FileSeal) Open(sealed, _ []byte) (*secret.Bytes, error) {
	if len(sealed) != rootSize {
		return nil, ErrDamaged
	}
	return secret.New(append([]byte(nil), sealed...)), nil
}

// Close does nothing.
func (FileSeal) Close() error { return nil }

// Cost is what one guess of a passphrase costs.
type Cost struct {
	MemoryKiB uint32
	Time      uint32
	Lanes     uint8
}

// DefaultCost is beyond what RFC 9106 section 4 recommends second (64 MiB, 3 passes):
// one guess takes a quarter of a GiB and about half a second of a core.
var DefaultCost = Cost{MemoryKiB: 256 << 10, Time: 3, Lanes: 4}

// Bounds of what a file may ask for, so that a damaged one cannot exhaust the machine.
const (
	maxMemoryKiB = 4 << 20
	maxTime      = 64
	saltBytes    = 16
)

// MinPassphrase is the shortest passphrase taken for a new seal, in bytes.
const MinPassphrase = 12

// passphraseParameters are stored beside the sealed key.
type passphraseParameters struct {
	KDF       string `json:"kdf"`
	MemoryKiB uint32 `json:"memoryKiB"`
	Time      uint32 `json:"time"`
	Lanes     uint8  `json:"lanes"`
	Salt      []byte `json:"salt"`
}

// PassphraseSeal seals under a key derived from a passphrase, which it does not keep.
type PassphraseSeal struct {
	params json.RawMessage
	mu     sync.RWMutex
	kek    *secret.Bytes
}

// NewPassphrase derives a new seal, with a salt of its own, from a passphrase.
func NewPassphrase(passphrase *secret.Bytes, cost Cost) (*PassphraseSeal, error) {
	if passphrase.Len() < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d bytes: at least %d are needed", passphrase.Len(), MinPassphrase)
	}
	p := passphraseParameters{KDF: "argon2id", MemoryKiB: cost.MemoryKiB, Time: cost.Time, Lanes: cost.Lanes, Salt: make([]byte, saltBytes)}
	_, _ = rand.Read(p.Salt)
	js, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return passphraseSeal(passphrase, js)
}

// passphraseSeal derives the seal that stored parameters describe.
func passphraseSeal(passphrase *secret.Bytes, params json.RawMessage) (*PassphraseSeal, error) {
	var p passphraseParameters
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, fmt.Errorf("%w: parameters: %w", ErrDamaged, err)
	}
	if p.KDF != "argon2id" {
		return nil, fmt.Errorf("the passphrase is stretched with %q, which this program does not know", p.KDF)
	}
	if len(p.Salt) < saltBytes || p.Time == 0 || p.Time > maxTime || p.Lanes == 0 || p.MemoryKiB < 8*uint32(p.Lanes) || p.MemoryKiB > maxMemoryKiB {
		return nil, fmt.Errorf("%w: parameters of the passphrase are out of bounds", ErrDamaged)
	}
	if passphrase.Len() == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	s := &PassphraseSeal{params: params, kek: secret.New(argon2.IDKey(passphrase.Expose(), p.Salt, p.Time, p.MemoryKiB, p.Lanes, 32))}
	s.kek.Lock()
	return s, nil
}

// Kind is Passphrase.
func (s *PassphraseSeal) Kind() string { return Passphrase }

// Parameters are the costs and the salt.
func (s *PassphraseSeal) Parameters() json.RawMessage { return s.params }

func (s *PassphraseSeal) aead() (cipher.AEAD, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.kek.Len() == 0 {
		return nil, ErrSealed
	}
	block, err := aes.NewCipher(s.kek.Expose())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Seal seals with a random nonce: a seal is used for a handful of root keys, far from
// the 2^32 messages that SP 800-38D allows with random nonces.
func (s *PassphraseSeal) Seal(key *secret.Bytes, head []byte) ([]byte, error) {
	a, err := s.aead()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, a.NonceSize())
	_, _ = rand.Read(nonce)
	return a.Seal(nonce, nonce, key.Expose(), head), nil
}

// Open returns ErrPassphrase when the passphrase was another.
func (s *PassphraseSeal) Open(sealed, head []byte) (*secret.Bytes, error) {
	a, err := s.aead()
	if err != nil {
		return nil, err
	}
	if len(sealed) != a.NonceSize()+rootSize+tagSize {
		return nil, ErrDamaged
	}
	plain, err := a.Open(nil, sealed[:a.NonceSize()], sealed[a.NonceSize():], head)
	if err != nil {
		return nil, ErrPassphrase
	}
	return secret.New(plain), nil
}

// Close wipes the derived key.
func (s *PassphraseSeal) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kek.Wipe()
	return nil
}
