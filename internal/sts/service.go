package sts

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Directory is what STS asks of IAM.
type Directory interface {
	// Role finds a role by its ARN, nil when there is none.
	Role(tx *store.Tx, arn string) (*api.Role, error)
	// Refresh brings the principal of a session up to date; false when it is gone.
	Refresh(tx *store.Tx, p *api.Principal) bool
	// CheckMFA accepts one code of p's device, once.
	CheckMFA(tx *store.Tx, p *api.Principal, serial, code string) (bool, error)
	// AccountOfKey is the account of an access key ID.
	AccountOfKey(tx *store.Tx, accessKeyID string) (account string, ok bool)
	// OIDCProvider is the account's provider for an issuer's URL, nil when there is none.
	OIDCProvider(tx *store.Tx, account, issuer string) *api.IdentityProvider
	// SAMLProvider is the account's SAML provider of that ARN, nil when there is none.
	SAMLProvider(tx *store.Tx, account, arn string) *api.IdentityProvider
	// ManagedPolicyExists tells whether the account has or may use a managed policy.
	ManagedPolicyExists(tx *store.Tx, account, arn string) bool
}

// Config is what a Service needs. Store, Root and IAM are required.
type Config struct {
	Store *store.Store
	Clock clock.Clock
	// Root wraps the keys that seal session tokens.
	Root   keyring.Root
	IAM    Directory
	Logger *slog.Logger
}

// Service is STS. It is safe for concurrent use once the store has started.
type Service struct {
	store    *store.Store
	clock    clock.Clock
	root     keyring.Root
	iam      Directory
	log      *slog.Logger
	sealKeys *store.Table[sealKey]
	opened   sync.Map // wrapped key → *secret.Bytes

	idps *keySets

	mu       sync.Mutex
	sessions map[[32]byte]*live // by SHA-256 of the token
}

// live is a session that was opened, with its secret ready for use.
type live struct {
	session
	secret *secret.Bytes
}

// maxSessions bounds the sessions kept open in memory.
const maxSessions = 8192

// New declares the table of sealing keys; the store must not have started.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Root == nil || cfg.IAM == nil {
		return nil, errors.New("sts: Store, Root and IAM are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Service{store: cfg.Store, clock: cfg.Clock, root: cfg.Root, iam: cfg.IAM, log: cfg.Logger,
		sealKeys: store.Define[sealKey](cfg.Store, "sts/seal-key", 1), sessions: map[[32]byte]*live{}, idps: newKeySets(cfg.Clock.Now)}, nil
}

// Credential checks a temporary access key (ASIA…) and its token:
// api.Identities.
func (s *Service) Credential(_ context.Context, accessKeyID, token string, now time.Time) (*api.Credential, error) {
	if token == "" {
		return nil, api.ErrUnknownAccessKey // as AWS: a temporary key is none without its token
	}
	tx := s.store.Snapshot()
	l, err := s.live(tx, token)
	if errors.Is(err, errToken) {
		return nil, api.ErrInvalidToken
	}
	if err != nil {
		return nil, err
	}
	if l.AccessKeyID != accessKeyID {
		return nil, api.ErrInvalidToken
	}
	if !now.Before(l.Expires) {
		return nil, api.ErrExpiredToken
	}
	p := l.Principal
	if !s.iam.Refresh(tx, &p) {
		return nil, api.ErrInvalidToken
	}
	return &api.Credential{SecretAccessKey: l.secret, Principal: p}, nil
}

// live opens a token, or finds it opened. A sealing key that was deleted takes
// its sessions with it.
func (s *Service) live(tx *store.Tx, token string) (*live, error) {
	if len(token) > maxToken {
		return nil, errToken
	}
	sum := sha256.Sum256([]byte(token))
	s.mu.Lock()
	l := s.sessions[sum]
	s.mu.Unlock()
	if l != nil {
		return l, nil
	}
	ses, err := s.openSession(tx, token)
	if err != nil {
		return nil, err
	}
	l = &live{session: *ses, secret: secret.New([]byte(ses.Secret))}
	l.session.Secret = ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= maxSessions {
		clear(s.sessions)
	}
	s.sessions[sum] = l
	return l, nil
}
