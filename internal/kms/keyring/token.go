package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// TokenConfig names the key in a PKCS #11 token that seals root keys.
type TokenConfig struct {
	pkcs11.Config
	// Key is the label of an AES key of 256 bits; it is made when the token has none.
	Key string
	// PIN returns the user's PIN, which the Seal wipes; nil: there is none before Unseal.
	PIN func() (*secret.Bytes, error)
}

// tokenTimeout bounds an operation of the token.
const tokenTimeout = 30 * time.Second

type tokenParameters struct {
	Token string `json:"token"`
	Key   string `json:"key"`
}

// TokenSeal seals with a key that never leaves a token.
type TokenSeal struct {
	token  *pkcs11.Token
	params json.RawMessage
	key    string
}

// Tokens is a Config.Token that opens the tokens of cfg's module.
func Tokens(cfg TokenConfig) func(json.RawMessage, *secret.Bytes) (Seal, error) {
	return func(parameters json.RawMessage, pin *secret.Bytes) (Seal, error) {
		cfg := cfg
		if parameters != nil {
			var p tokenParameters
			if err := json.Unmarshal(parameters, &p); err != nil {
				return nil, fmt.Errorf("%w: parameters: %w", ErrDamaged, err)
			}
			cfg.Token, cfg.Key = p.Token, p.Key
		}
		if pin.Len() == 0 {
			if cfg.PIN == nil {
				return nil, errors.New("no PIN was given")
			}
			var err error
			if pin, err = cfg.PIN(); err != nil {
				return nil, err
			}
			defer pin.Wipe()
			if pin.Len() == 0 {
				return nil, errors.New("no PIN was given")
			}
		}
		return NewToken(cfg, pin, parameters == nil)
	}
}

// NewToken opens the token; with make the key is made when the token has none.
func NewToken(cfg TokenConfig, pin *secret.Bytes, make bool) (*TokenSeal, error) {
	params, err := json.Marshal(tokenParameters{cfg.Token, cfg.Key})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	t, err := pkcs11.Open(ctx, cfg.Config, pin)
	if err != nil {
		return nil, err
	}
	info, err := t.Key(ctx, cfg.Key)
	if errors.Is(err, pkcs11.ErrNoKey) && make {
		if err = t.Generate(ctx, cfg.Key, 256); err == nil {
			info, err = t.Key(ctx, cfg.Key)
		}
	}
	if err == nil && (info.Bits != 256 || !info.Kept) {
		err = fmt.Errorf("the key %q: %w: 256 bits that never left the token are needed", cfg.Key, pkcs11.ErrUnsuitable)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return &TokenSeal{t, params, cfg.Key}, nil
}

// Kind is PKCS11.
func (s *TokenSeal) Kind() string { return PKCS11 }

// Parameters are the labels of token and key.
func (s *TokenSeal) Parameters() json.RawMessage { return s.params }

// Seal has the token encrypt the key.
func (s *TokenSeal) Seal(key *secret.Bytes, head []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	return s.token.Seal(ctx, s.key, key.Expose(), head)
}

// Open has the token decrypt the key.
func (s *TokenSeal) Open(sealed, head []byte) (*secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	k, err := s.token.Open(ctx, s.key, sealed, head)
	if errors.Is(err, pkcs11.ErrCiphertext) {
		return nil, fmt.Errorf("the key %q in the token is not the one that sealed the root key: %w", s.key, err)
	}
	return k, err
}

// Close logs out of the token.
func (s *TokenSeal) Close() error {
	s.token.Close()
	return nil
}
