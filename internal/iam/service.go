package iam

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Region is the region that IAM's records carry.
const Region = "us-east-1"

// Config is what a Service needs. Store, Clock and Root are required.
type Config struct {
	Store *store.Store
	Clock clock.Clock
	// Root wraps secret access keys and MFA seeds.
	Root keyring.Root
	// Logger receives what goes wrong in the background; default slog.Default().
	Logger *slog.Logger
}

// Service is IAM. It is safe for concurrent use once the store has started.
type Service struct {
	tables
	store *store.Store
	clock clock.Clock
	root  keyring.Root
	log   *slog.Logger

	// secrets holds each access key's secret once unwrapped: table key → *opened.
	secrets sync.Map
	// texts holds compiled session policies by their text, trusts trust policies
	// in which a principal was replaced.
	texts, trusts textCache
	uses          uses
	// hashing bounds how many passwords are hashed at a time: each takes 64 MiB.
	hashing chan struct{}
	reports reports
}

// opened is an unwrapped secret and the record it came from.
type opened struct {
	wrapped string
	secret  *secret.Bytes
}

// New declares IAM's tables; the store must not have started.
func New(cfg Config) (*Service, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Service{tables: define(cfg.Store), store: cfg.Store, clock: cfg.Clock, root: cfg.Root, log: cfg.Logger, hashing: make(chan struct{}, 2)}
	s.texts.kind, s.trusts.kind = policy.Session, policy.Trust
	s.keys.OnChange(func(key string, _, now *accessKey) {
		// Dropped, not wiped: a request may be verifying with it at this moment.
		if v, ok := s.secrets.Load(key); ok && (now == nil || string(now.Wrapped) != v.(*opened).wrapped) {
			s.secrets.Delete(key)
		}
	})
	return s, nil
}

// Run keeps the last-used dates until ctx ends. What is lost when it is killed
// is at most flushEvery of them.
func (s *Service) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			s.flushUses(last)
			cancel()
			return
		case <-s.clock.After(flushEvery):
			s.flushUses(ctx)
		}
	}
}

// now is the time of the call, or the clock's outside one.
func (s *Service) now(c *api.Call) time.Time {
	if c != nil && !c.Time.IsZero() {
		return c.Time.UTC().Truncate(time.Second)
	}
	return s.clock.Now().UTC().Truncate(time.Second)
}
