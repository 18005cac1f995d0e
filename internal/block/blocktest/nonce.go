package blocktest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"sync"
)

// NonceWatch is a block.Suite (AES-256-GCM) that remembers every key and nonce sealed
// under, across any number of volumes and processes.
type NonceWatch struct {
	mu    sync.Mutex
	seen  map[[16 + 12]byte]struct{}
	err   error
	seals int
}

// NewAEAD implements block.Suite.
func (w *NonceWatch) NewAEAD(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	s := sha256.Sum256(key)
	return &watched{a, w, [16]byte(s[:16])}, nil
}

// Check returns how many seals were seen, and an error if a (key, nonce) pair came twice.
func (w *NonceWatch) Check() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seals, w.err
}

type watched struct {
	cipher.AEAD
	w   *NonceWatch
	key [16]byte
}

func (a *watched) Seal(dst, nonce, plaintext, ad []byte) []byte {
	var k [28]byte
	copy(k[:], a.key[:])
	copy(k[16:], nonce)
	a.w.mu.Lock()
	if a.w.seen == nil {
		a.w.seen = map[[28]byte]struct{}{}
	}
	if _, twice := a.w.seen[k]; twice && a.w.err == nil {
		a.w.err = fmt.Errorf("nonce %x came twice under one key", nonce)
	}
	a.w.seen[k] = struct{}{}
	a.w.seals++
	a.w.mu.Unlock()
	return a.AEAD.Seal(dst, nonce, plaintext, ad)
}
