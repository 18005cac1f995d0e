package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Config is what the service needs.
type Config struct {
	Store      *store.Store
	Clock      clock.Clock
	Root       keyring.Root
	Principals Principals
	Events     Outbox // what the service does by itself goes on the record there
	Logger     *slog.Logger
	Quotas     Quotas
	// Regions in which multi-Region keys may be replicated; empty: any Region
	// with a well-formed name.
	Regions []string
	// KeyStores is what the operator says about custom key stores.
	KeyStores KeyStores
	// ReapEvery is how often deletion, rotation and expiry are looked after;
	// default one minute.
	ReapEvery time.Duration
}

// EnsureDefaults fills what was left out.
func (c *Config) EnsureDefaults() {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.ReapEvery == 0 {
		c.ReapEvery = time.Minute
	}
	for _, d := range []struct {
		v *int
		n int
	}{{&c.Quotas.Keys, 100_000}, {&c.Quotas.AliasesPerKey, 50}, {&c.Quotas.GrantsPerKey, 50_000}, {&c.Quotas.PolicyBytes, 32_768},
		{&c.Quotas.OnDemandRotations, 25}, {&c.Quotas.TagsPerKey, 50}} {
		if *d.v == 0 {
			*d.v = d.n
		}
	}
}

// Validate says what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("kms: Config.Store is missing")
	case c.Root == nil:
		return errors.New("kms: Config.Root is missing: without a root key no key material can be kept")
	case c.Principals == nil:
		return errors.New("kms: Config.Principals is missing")
	case c.Events == nil:
		return errors.New("kms: Config.Events is missing")
	}
	return nil
}

// Service is the key service. Make it before the store is started.
type Service struct {
	throttle throttle
	cfg      Config
	log      *slog.Logger
	store    *store.Store

	keys    *store.Table[Key]
	aliases *store.Table[Alias]
	grants  *store.Table[Grant]
	names   *store.Table[grantName]

	oldGrants *store.Table[Grant] // see Upgrade
	oldNames  *store.Table[grantName]

	usages *store.Table[usage]

	stores    *store.Table[CustomStore]
	storeKeys *store.Table[storeKey]
	links     links

	byTarget *store.Index[Alias] // key path → alias paths
	index    *grantIndex
	counts   keyCounts
	policies keyPolicies
	used     usageTracker
}

// New declares the tables and returns the service.
func New(cfg Config) (*Service, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := cfg.KeyStores.load(); err != nil {
		return nil, fmt.Errorf("kms: configuration of custom key stores: %w", err)
	}
	s := &Service{cfg: cfg, log: cfg.Logger, store: cfg.Store, throttle: throttle{rates: cfg.Quotas.RequestsPerSecond, m: map[string]*rate.Limiter{}}}
	s.keys = store.Define[Key](cfg.Store, "kms/key", 1)
	s.aliases = store.Define[Alias](cfg.Store, "kms/alias", 1)
	s.grants = store.Define[Grant](cfg.Store, "kms/g", 1)
	s.names = store.Define[grantName](cfg.Store, "kms/n", 1)
	s.oldGrants = store.Define[Grant](cfg.Store, "kms/grant", 2).Upgrade(func(_ byte, raw []byte) (*Grant, error) {
		g := new(Grant)
		return g, json.Unmarshal(raw, g)
	})
	s.oldNames = store.Define[grantName](cfg.Store, "kms/grant-name", 1)
	s.usages = store.Define[usage](cfg.Store, "kms/usage", 1)
	s.stores = store.Define[CustomStore](cfg.Store, "kms/store", 1)
	s.storeKeys = store.Define[storeKey](cfg.Store, "kms/store-key", 1)
	s.links.wake = make(chan struct{}, 1)
	s.stores.OnChange(s.links.changed)
	s.byTarget = store.NewIndex(s.aliases, func(key string, a *Alias) []string {
		account, region, _ := splitPath(key)
		return []string{path(account, region, a.Target)}
	})
	s.index = newGrantIndex()
	s.grants.OnChange(s.index.changed)
	s.keys.OnChange(func(p string, old, new *Key) {
		if new != nil {
			new.settle(p, &s.policies, old)
			if new.inStore() {
				new.derived.link = s.links.at(new.storePath())
			}
		}
		keyChanged(old, new)
		s.counts.changed(p, old, new)
		if old != nil {
			s.policies.release(old.derived.policy)
		}
	})
	return s, nil
}

func (s *Service) now() time.Time { return s.cfg.Clock.Now().UTC().Truncate(time.Millisecond) }

// Run looks after what happens by the clock (deletion, rotation, expiry of
// imported material), connects custom key stores and writes down last usage, until
// ctx ends. In a cluster the first two are done by one node at a time.
func (s *Service) Run(ctx context.Context) {
	s.reportUnbound()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.writeUsage(ctx) })
	wg.Go(func() { s.runStores(ctx) })
	defer s.links.close()
	s.store.Lead(ctx, "kms-reaper", func(ctx context.Context) {
		for {
			if err := s.Reap(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the key reaper could not finish its round; it tries again", "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-s.cfg.Clock.After(s.cfg.ReapEvery):
			}
		}
	})
}

// keyCounts counts customer managed keys by account and Region.
type keyCounts struct {
	mu sync.Mutex
	m  map[string]int
}

func (n *keyCounts) changed(p string, old, new *Key) {
	account, region, _ := splitPath(p)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		n.m = map[string]int{}
	}
	if old != nil && old.Service == "" {
		n.m[account+"/"+region]--
	}
	if new != nil && new.Service == "" {
		n.m[account+"/"+region]++
	}
}

func (n *keyCounts) get(account, region string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m[account+"/"+region]
}

func splitPath(p string) (account, region, rest string) {
	for i := range len(p) {
		if p[i] == '/' {
			for j := i + 1; j < len(p); j++ {
				if p[j] == '/' {
					return p[:i], p[i+1 : j], p[j+1:]
				}
			}
			break
		}
	}
	return "", "", p
}
