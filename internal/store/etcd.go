package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

// Config says where the state lives.
type Config struct {
	// DataDir holds the embedded etcd. Ignored when Endpoints is set.
	DataDir string
	// Endpoints of an external etcd cluster, for example https://10.0.0.1:2379.
	Endpoints []string
	// CAFile, CertFile and KeyFile are the TLS files for Endpoints.
	CAFile, CertFile, KeyFile string
	// Prefix is put before every key, so that several installations share the
	// cluster of Endpoints, for example /sealdesk-of-acme.
	Prefix string
	// Unsynced has the embedded etcd skip fsync. Tests only: a power cut loses data.
	Unsynced bool
	// EraseDelay is how long after an Erase the store's files are rewritten; what is
	// erased meanwhile goes with it. Default 30 seconds.
	EraseDelay time.Duration
	// Logger receives what goes wrong; default slog.Default().
	Logger *slog.Logger
}

// EnsureDefaults fills what was left out.
func (c *Config) EnsureDefaults() {
	if c.EraseDelay == 0 {
		c.EraseDelay = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// Validate says what is missing.
func (c *Config) Validate() error {
	if len(c.Endpoints) == 0 && c.DataDir == "" {
		return errors.New("store: either a data directory or etcd endpoints are needed")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("store: an etcd client certificate and its key go together")
	}
	return nil
}

const (
	quotaBytes = 8 << 30 // the largest etcd recommends
	maxTxnOps  = 4096
)

// segmentOnce sets what etcd has as a variable of the process.
var segmentOnce sync.Once

// embedded starts a single-member etcd that listens on no TCP port.
func embedded(ctx context.Context, cfg Config) (*clientv3.Client, *embed.Etcd, error) {
	dir := filepath.Join(cfg.DataDir, "etcd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the state directory: %w", err)
	}
	ec := embed.NewConfig()
	ec.Name = "sealdesk"
	ec.Dir = dir
	// etcd insists on URLs for its member record; sockets in the data directory
	// keep it off the network. Relative paths, as etcd takes them as host:port.
	peer := url.URL{Scheme: "http", Host: "localhost:0"}
	ec.ListenPeerUrls = nil
	ec.ListenClientUrls = nil
	ec.AdvertisePeerUrls = []url.URL{peer}
	ec.AdvertiseClientUrls = []url.URL{peer}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	ec.QuotaBackendBytes = quotaBytes
	ec.MaxTxnOps = maxTxnOps
	ec.AutoCompactionMode = "revision"
	ec.AutoCompactionRetention = "10000"
	ec.UnsafeNoFsync = cfg.Unsynced
	ec.TickMs = 10
	ec.ElectionMs = 100
	// Small, so that the write-ahead log does not keep what was erased; see erase.go.
	ec.SnapshotCount = snapshotCount
	ec.MaxWalFiles = 1
	segmentOnce.Do(func() { wal.SegmentSizeBytes = walSegment })
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, nil, fmt.Errorf("start the embedded etcd in %s: %w (is another sealdesk using this data directory?)", dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		return nil, nil, fmt.Errorf("the embedded etcd in %s stopped while starting", dir)
	case <-ctx.Done():
		e.Close()
		return nil, nil, ctx.Err()
	}
	return v3client.New(e.Server), e, nil
}

// dial connects to an external cluster and checks that it answers.
func dial(ctx context.Context, cfg Config) (*clientv3.Client, error) {
	var tc *tls.Config
	if cfg.CAFile != "" || cfg.CertFile != "" {
		var err error
		tc, err = transport.TLSInfo{TrustedCAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile}.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("read the etcd TLS files: %w", err)
		}
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: cfg.Endpoints, TLS: tc, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", cfg.Endpoints, err)
	}
	if cfg.Prefix != "" {
		c.KV = namespace.NewKV(c.KV, cfg.Prefix)
		c.Watcher = namespace.NewWatcher(c.Watcher, cfg.Prefix)
		c.Lease = namespace.NewLease(c.Lease, cfg.Prefix)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	large := make([]clientv3.Cmp, maxTxnOps)
	for i := range large {
		large[i] = clientv3.Compare(clientv3.Version(root), ">", -1)
	}
	_, err = c.Txn(ctx).If(large...).Commit()
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		err = fmt.Errorf("its members must be started with --max-txn-ops=%d or more: %w", maxTxnOps, err)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("use etcd at %v: %w", cfg.Endpoints, err)
	}
	return c, nil
}

// Lead runs f on exactly one node of the cluster at a time: it waits to be
// elected, runs f with a context that ends when the office is lost, and stands
// again until ctx ends. With an embedded etcd there is one node, which leads.
func (s *Store) Lead(ctx context.Context, office string, f func(ctx context.Context)) {
	if len(s.cfg.Endpoints) == 0 {
		f(ctx)
		return
	}
	for ctx.Err() == nil {
		if err := s.leadOnce(ctx, office, f); err != nil && ctx.Err() == nil {
			s.log.Warn("lost or could not win an election", "office", office, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (s *Store) leadOnce(ctx context.Context, office string, f func(ctx context.Context)) error {
	lease, err := s.client.Grant(ctx, 5)
	if err != nil {
		return err
	}
	// Not with ctx: when that ends, Close must still give up the office at once.
	session, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID))
	if err != nil {
		return err
	}
	defer session.Close()
	e := concurrency.NewElection(session, "/sealdesk-election/"+office)
	host, _ := os.Hostname()
	if err := e.Campaign(ctx, host); err != nil {
		return err
	}
	term, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-session.Done():
			cancel()
		case <-term.Done():
		}
	}()
	f(term)
	return nil
}
