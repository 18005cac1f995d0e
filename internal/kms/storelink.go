package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/xks"
)

// links are this node's connections to custom key stores, by store path. The
// record of a store says whether it is connected; each node opens what it needs
// when it needs it, and lets go of it when the record changes.
type links struct {
	m    sync.Map      // store path → *link
	wake chan struct{} // a store wants to be connected
}

type link struct {
	connected, connecting atomic.Bool // as the record says

	// mu is held for reading by operations, for writing to open and close.
	mu   sync.RWMutex
	from *CustomStore // the record that b was opened for
	b    backing
	err  error // why it could not be opened, believed for retryOpen
	at   time.Time
}

// retryOpen is how soon opening is tried again.
const retryOpen = time.Second

func (l *links) at(storePath string) *link {
	v, ok := l.m.Load(storePath)
	if !ok {
		v, _ = l.m.LoadOrStore(storePath, &link{})
	}
	return v.(*link)
}

// changed follows the table of stores.
func (l *links) changed(p string, _, new *CustomStore) {
	k := l.at(p)
	k.connected.Store(new != nil && new.State == storeConnected)
	k.connecting.Store(new != nil && new.State == storeConnecting)
	if new == nil || new.State != storeConnected {
		go k.drop(false) // it waits for operations that run
	}
	if new != nil && new.State == storeConnecting {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// wanted reports whether a store is to be connected. That is known before it can be
// read (store.Table.OnChange).
func (l *links) wanted() (yes bool) {
	l.m.Range(func(_, v any) bool { yes = v.(*link).connecting.Load(); return !yes })
	return yes
}

// close lets go of all connections, after the operations that run.
func (l *links) close() {
	l.m.Range(func(_, v any) bool { v.(*link).drop(true); return true })
}

func (k *link) drop(always bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.b != nil && (always || !k.connected.Load()) {
		k.b.close()
		k.b, k.from = nil, nil
	}
}

var errNotConnected = errors.New("kms: the custom key store is not connected")

// withStore calls f with the backing of a connected store.
func (s *Service) withStore(ctx context.Context, storePath string, f func(backing) error) error {
	k := s.links.at(storePath)
	for range 3 {
		st := s.stores.Get(s.store.Snapshot(), storePath)
		if st == nil || st.State != storeConnected {
			return errNotConnected
		}
		k.mu.RLock()
		if k.from == st && k.b != nil {
			defer k.mu.RUnlock()
			return f(k.b)
		}
		k.mu.RUnlock()
		if err := s.reopen(ctx, k, st); err != nil {
			return err
		}
	}
	return errNotConnected
}

// reopen opens the backing for a record, unless it is that already.
func (s *Service) reopen(ctx context.Context, k *link, st *CustomStore) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from == st && (k.b != nil || k.err != nil && time.Since(k.at) < retryOpen) {
		return k.err
	}
	if k.b != nil {
		k.b.close()
	}
	k.from, k.at = st, time.Now()
	k.b, k.err = s.openBacking(ctx, st)
	return k.err
}

// openBacking opens what the store rests on.
func (s *Service) openBacking(ctx context.Context, st *CustomStore) (backing, error) {
	key, err := s.unwrapSecret(st)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if st.Type == storeXKS {
		return s.openProxy(st, key)
	}
	c, ok := s.cfg.KeyStores.Clusters[st.Cluster]
	if !ok {
		return nil, &fault{code: "CLUSTER_NOT_FOUND", message: msgCluster, cause: errors.New("the cluster is not in the configuration")}
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	t, err := pkcs11.Open(ctx, c.token(), key)
	if err != nil {
		return nil, hsmFault(err)
	}
	return tokenBacking{t}, nil
}

func (s *Service) openProxy(st *CustomStore, key *secret.Bytes) (backing, error) {
	x := &s.cfg.KeyStores.XKS
	cfg := xks.Config{Endpoint: st.Endpoint, Path: st.Path, Roots: x.roots, Region: st.Region, AccessKeyID: st.AccessKeyID, Timeout: time.Duration(x.Timeout), Now: s.cfg.Clock.Now}
	name := st.Endpoint
	if st.Connectivity == connectVPC {
		name = st.VPCService
	}
	if e := x.Endpoints[name]; e != nil {
		cfg.Address, cfg.Roots, cfg.Certificate = e.Address, e.roots, e.cert
	}
	c, err := xks.NewClient(cfg, key)
	if err != nil {
		return nil, xksFault(err)
	}
	return proxyBacking{c}, nil
}

// tryProxy asks a proxy whether it is there and knows the credential, for
// CreateCustomKeyStore and UpdateCustomKeyStore.
func (s *Service) tryProxy(ctx context.Context, c *api.Call, st *CustomStore, value string) error {
	key := secret.New([]byte(value))
	defer key.Wipe()
	b, err := s.openProxy(st, key)
	if err == nil {
		defer b.close()
		err = b.probe(ctx, metaOf(c))
	}
	var f *fault
	if errors.As(err, &f) {
		s.log.Warn("an external key store proxy was tried in vain", "requestId", c.RequestID, "endpoint", st.Endpoint, "err", err)
		return f.as(f.manage)
	}
	return err
}

// metaOf is what a proxy is told about a call.
func metaOf(c *api.Call) xks.Metadata {
	m := xks.Metadata{AWSPrincipalARN: c.Principal.ARN, KMSRequestID: c.RequestID, KMSViaService: c.ViaService()}
	if c.Principal.Type == api.AWSService {
		m.AWSPrincipalARN = c.Principal.Service + ".amazonaws.com"
	}
	if c.Record != nil {
		m.KMSOperation = c.Record.EventName
	}
	return m
}

// runStores connects stores until ctx ends, on one node of the cluster.
func (s *Service) runStores(ctx context.Context) {
	s.store.Lead(ctx, "kms-stores", func(ctx context.Context) {
		for ctx.Err() == nil {
			again := time.Minute
			if err := s.connectStores(ctx); err != nil {
				s.log.Error("custom key stores could not be connected; it is tried again", "err", err)
				again = time.Second
			} else if s.links.wanted() {
				again = 10 * time.Millisecond
			}
			select {
			case <-ctx.Done():
			case <-s.links.wake:
			case <-time.After(again):
			}
		}
	})
}

// connectStores makes the connections that are asked for and records what
// became of them. It may be interrupted anywhere.
func (s *Service) connectStores(ctx context.Context) error {
	var due []*CustomStore
	s.stores.Scan(s.store.Snapshot(), "", "", func(_ string, st *CustomStore) bool {
		if st.State == storeConnecting {
			due = append(due, st)
		}
		return true
	})
	var errs []error
	for _, st := range due {
		outcome := s.tryStore(ctx, st)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, s.store.Update(ctx, func(tx *store.Tx) error {
			now := s.stores.Edit(tx, st.path())
			if now == nil || now.State != storeConnecting || now.Attempt != st.Attempt {
				return nil // disconnected, or asked for anew, meanwhile
			}
			now.State = storeConnected
			if outcome != nil {
				now.State, now.ErrorCode = storeFailed, "INTERNAL_ERROR"
				if f, ok := errors.AsType[*fault](outcome); ok {
					now.ErrorCode = string(f.code)
				}
			}
			return s.stores.Put(tx, st.path(), now)
		}))
		if outcome != nil {
			s.log.Warn("a custom key store could not be connected", "requestId", st.Attempt, "store", st.ID, "err", outcome)
		}
	}
	return errors.Join(errs...)
}

// tryStore opens a store's backing and asks for a sign of life.
func (s *Service) tryStore(ctx context.Context, st *CustomStore) error {
	b, err := s.openBacking(ctx, st)
	if err != nil {
		return err
	}
	defer b.close()
	return b.probe(ctx, xks.Metadata{KMSOperation: "ConnectCustomKeyStore", KMSRequestID: st.Attempt})
}
