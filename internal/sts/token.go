package sts

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	tokenVersion = 1
	keyIDSize    = 8
	saltSize     = 32
	headSize     = 1 + keyIDSize + saltSize
	tagSize      = 16
	// maxToken is the most characters a session token has.
	maxToken = 4096
	// maxPlain bounds what an opened token inflates to.
	maxPlain = 1 << 18

	sealPurpose = "sts/seal-key"
	sessionInfo = "sealdesk sts session 1"
	messageInfo = "sealdesk sts message 1"

	// rotateAfter is when a new sealing key takes over; keepFor is when no token
	// sealed by an old one can still be valid (36 hours is the longest session).
	rotateAfter = 30 * 24 * time.Hour
	keepFor     = rotateAfter + 3*24*time.Hour
)

// sealKey is a stored sealing key.
type sealKey struct {
	ID      string
	Created time.Time
	Wrapped []byte
}

// session is what a token holds. The principal's Tags are left out: they are read
// anew at each call.
type session struct {
	AccessKeyID string
	Secret      string
	Expires     time.Time
	Principal   api.Principal
}

var errToken = errors.New("not a token of this installation")

// newest is the newest sealing key, or nil.
func (s *Service) newest(tx *store.Tx) *sealKey {
	var best *sealKey
	s.sealKeys.Scan(tx, "", "", func(_ string, k *sealKey) bool {
		if best == nil || k.Created.After(best.Created) {
			best = k
		}
		return true
	})
	return best
}

// sealer is the key to seal with, made or renewed in tx when it is time.
func (s *Service) sealer(tx *store.Tx) (id string, key *secret.Bytes, err error) {
	now := s.clock.Now()
	k := s.newest(tx)
	if k == nil || now.Sub(k.Created) >= rotateAfter {
		id := make([]byte, keyIDSize)
		_, _ = rand.Read(id)
		k = &sealKey{ID: hex.EncodeToString(id), Created: now}
		fresh := secret.Random(32)
		if k.Wrapped, err = s.root.Wrap(sealPurpose, fresh, []byte(k.ID)); err != nil {
			return "", nil, fmt.Errorf("wrap a sealing key: %w", err)
		}
		var old []string
		s.sealKeys.Scan(tx, "", "", func(id string, k *sealKey) bool {
			if now.Sub(k.Created) >= keepFor+rotateAfter {
				old = append(old, id)
			}
			return true
		})
		for _, id := range old {
			if err := s.sealKeys.Delete(tx, id); err != nil {
				return "", nil, err
			}
		}
		if err := s.sealKeys.Put(tx, k.ID, k); err != nil {
			return "", nil, err
		}
	}
	key, err = s.unwrap(k)
	return k.ID, key, err
}

// Wrapped are the values that the service keeps under the root key.
func (s *Service) Wrapped() []keyring.Holder {
	return []keyring.Holder{keyring.Holds(s.store, s.sealKeys, func(_ string, k *sealKey) []keyring.Field {
		return []keyring.Field{{Purpose: sealPurpose, AAD: []byte(k.ID), Value: &k.Wrapped}}
	})}
}

// unwrap opens a sealing key, once for each.
func (s *Service) unwrap(k *sealKey) (*secret.Bytes, error) {
	if v, ok := s.opened.Load(string(k.Wrapped)); ok {
		return v.(*secret.Bytes), nil
	}
	key, err := s.root.Unwrap(sealPurpose, k.Wrapped, []byte(k.ID))
	if err != nil {
		return nil, fmt.Errorf("unwrap sealing key %s: %w (was the root key replaced?)", k.ID, err)
	}
	s.opened.Store(string(k.Wrapped), key)
	return key, nil
}

func aead(key *secret.Bytes, salt []byte, info string) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key.Expose(), salt, info, 32)
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

// deflate packs what a token carries.
func deflate(plain []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write(plain)                              // to memory
	_ = w.Close()
	return b.Bytes()
}

// seal makes a token of at least min characters.
func (s *Service) seal(tx *store.Tx, info string, plain []byte, min int) (string, error) {
	id, key, err := s.sealer(tx)
	if err != nil {
		return "", err
	}
	return sealWith(id, key, info, plain, min)
}

func sealWith(id string, key *secret.Bytes, info string, plain []byte, min int) (string, error) {
	packed := deflate(plain)
	defer secret.Zero(packed)
	if pad := base64.StdEncoding.DecodedLen(min) - headSize - tagSize - len(packed); pad > 0 {
		packed = append(packed, make([]byte, pad)...)
	}
	head := make([]byte, headSize, headSize+len(packed)+tagSize)
	head[0] = tokenVersion
	if _, err := hex.Decode(head[1:1+keyIDSize], []byte(id)); err != nil {
		return "", fmt.Errorf("sealing key ID %q: %w", id, err)
	}
	_, _ = rand.Read(head[1+keyIDSize:])
	a, err := aead(key, head[1+keyIDSize:headSize], info)
	if err != nil {
		return "", fmt.Errorf("seal a token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(a.Seal(head, make([]byte, a.NonceSize()), packed, bytes.Clone(head))), nil
}

// open is the inverse of seal; errToken for anything that seal did not make.
func (s *Service) open(tx *store.Tx, info, token string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) < headSize+tagSize || raw[0] != tokenVersion {
		return nil, errToken
	}
	k := s.sealKeys.Get(tx, hex.EncodeToString(raw[1:1+keyIDSize]))
	if k == nil {
		return nil, errToken
	}
	key, err := s.unwrap(k)
	if err != nil {
		return nil, err
	}
	a, err := aead(key, raw[1+keyIDSize:headSize], info)
	if err != nil {
		return nil, err
	}
	packed, err := a.Open(nil, make([]byte, a.NonceSize()), raw[headSize:], raw[:headSize])
	if err != nil {
		return nil, errToken
	}
	defer secret.Zero(packed)
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxPlain))
	if err != nil {
		return nil, errToken
	}
	return plain, nil
}

// openSession is the session of a token.
func (s *Service) openSession(tx *store.Tx, token string) (*session, error) {
	plain, err := s.open(tx, sessionInfo, token)
	if err != nil {
		return nil, err
	}
	defer secret.Zero(plain)
	ses := new(session)
	if err := json.Unmarshal(plain, ses); err != nil {
		return nil, errToken
	}
	return ses, nil
}
