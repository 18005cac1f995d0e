package ec2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Config is what the service works with. Store, Caller, Root, Plane, VolumeDir
// and SocketDir are required.
type Config struct {
	Store  *store.Store
	Clock  clock.Clock // default: the machine's
	Root   keyring.Root
	Caller api.Caller // KMS is called through it
	Logger *slog.Logger
	Plane  Plane

	// VolumeDir holds a directory for each volume and snapshot; SocketDir the NBD
	// sockets. Both absolute. A socket's path must stay below 108 bytes.
	VolumeDir, SocketDir string
	// Host names this host among those that share the store. Default "host".
	Host string
	// StrictAWS has CreateVolume answer as AWS does when the key is refused: with a
	// volume in state creating, which then does not exist.
	StrictAWS bool
	// Retention says for how many days a snapshot with these tags that is deleted now stays in
	// the recycle bin, 0 for not at all. nil: there is no bin.
	Retention func(tx *store.Tx, account, region string, tags map[string]string) int
	// Poll is how often the data plane is compared with what should be attached. Default 1 s.
	Poll time.Duration
	// RetryAtMost bounds the pause between attempts to attach again a volume whose
	// key KMS refuses. Default 30 s.
	RetryAtMost time.Duration
}

// EnsureDefaults fills in what was left out.
func (c *Config) EnsureDefaults() {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Host == "" {
		c.Host = "host"
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.RetryAtMost == 0 {
		c.RetryAtMost = 30 * time.Second
	}
}

// Validate says what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil, c.Root == nil, c.Caller == nil, c.Plane == nil:
		return errors.New("ec2: Config needs Store, Root, Caller and Plane")
	case !filepath.IsAbs(c.VolumeDir) || !filepath.IsAbs(c.SocketDir):
		return fmt.Errorf("ec2: VolumeDir %q and SocketDir %q must be absolute", c.VolumeDir, c.SocketDir)
	case len(c.SocketDir) > 70:
		return fmt.Errorf("ec2: SocketDir %q is too long: unix socket paths hold 107 bytes; choose a shorter data directory", c.SocketDir)
	}
	return nil
}

// Service is EC2's and EBS's control plane.
type Service struct {
	cfg Config
	log *slog.Logger

	volumes   *store.Table[volume]
	tokens    *store.Table[token]
	settings  *store.Table[settings]
	snapshots *store.Table[snapshot]
	hosts     *store.Table[host]
	tags      *store.Table[tagSet]
	byID      *store.Index[volume]

	snapshotByID *store.Index[snapshot]

	instance string // this process, to tell its unfinished work from a dead one's
	locks    keyedLocks

	direct sessions
	sweep  sync.Once // of what the sessions of a dead process have left

	retryMu sync.Mutex
	retries map[string]*retry // volume key → when to try to attach again
	// hydrated tells since when a volume was seen to need its image no more.
	hydrated map[string]time.Time
	hostMu   sync.Mutex
	hostID   *host
}

// New declares the service's tables; call it before Store.Start.
func New(cfg Config) (*Service, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Logger.With("service", "ec2"), instance: ids.UUID(), retries: map[string]*retry{}, hydrated: map[string]time.Time{}, direct: sessions{open: map[string]*session{}}}
	s.volumes = store.Define[volume](cfg.Store, "ec2/volume", 1)
	s.tokens = store.Define[token](cfg.Store, "ec2/token", 1)
	s.settings = store.Define[settings](cfg.Store, "ec2/settings", 1)
	s.snapshots = store.Define[snapshot](cfg.Store, "ec2/snapshot", 1)
	s.hosts = store.Define[host](cfg.Store, "ec2/host", 1)
	s.tags = store.Define[tagSet](cfg.Store, "ec2/tags", 1)
	s.byID = store.NewIndex(s.volumes, func(_ string, v *volume) []string { return []string{v.ID} })
	s.snapshotByID = store.NewIndex(s.snapshots, func(_ string, n *snapshot) []string { return []string{n.ID} })
	return s, nil
}

// Operations is the service's part of the operation table.
func (s *Service) Operations() []api.Operation {
	var ops []api.Operation
	for _, part := range [][]api.Operation{s.volumeOperations(), s.describeOperations(), s.modifyOperations(), s.workspaceOperations(), s.workspaceImageOperations(),
		s.tagOperations(), s.defaultsOperations(), s.snapshotOperations(), s.lockOperations(), s.recycleOperations(), s.placeOperations(), s.hostOperations()} {
		ops = append(ops, part...)
	}
	api.NameResources(ops, resourceOf)
	return ops
}

// recordTypes are the types of resources in CloudTrail's event history.
var recordTypes = map[string]string{"volume": "AWS::EC2::Volume", "snapshot": "AWS::EC2::Snapshot", "instance": "AWS::EC2::Instance",
	"vpc": "AWS::EC2::VPC", "subnet": "AWS::EC2::Subnet", "security-group": "AWS::EC2::SecurityGroup"}

func resourceOf(c *api.Call, id string) audit.Resource {
	if !resourceID.MatchString(id) {
		return audit.Resource{}
	}
	kind := kindOf(id)
	return audit.Resource{AccountID: c.Account, Type: recordTypes[kind], ARN: resourceARN(c, kind, id)}
}

// The operations of EC2 differ from those of other services in one thing: most
// take DryRun. A dry run has passed authentication, validation and authorisation
// when it arrives here. Source: EC2 API Reference, "Common query parameters".

func view[In, Out any](name string, f func(context.Context, *store.Tx, *api.Call, *In) (*Out, error), opts ...api.Option) api.Operation {
	return api.NewView("ec2", name, func(ctx context.Context, tx *store.Tx, c *api.Call, in *In) (*Out, error) {
		if err := dryRun(in); err != nil {
			return nil, err
		}
		return f(ctx, tx, c, in)
	}, opts...)
}

func update[In, Out any](name string, f func(context.Context, *store.Tx, *api.Call, *In) (*Out, error), opts ...api.Option) api.Operation {
	return api.NewUpdate("ec2", name, func(ctx context.Context, tx *store.Tx, c *api.Call, in *In) (*Out, error) {
		if err := dryRun(in); err != nil {
			return nil, err
		}
		return f(ctx, tx, c, in)
	}, opts...)
}

func steps[In, Out any](name string, f func(context.Context, *api.Call, *In) (*Out, error), opts ...api.Option) api.Operation {
	return api.NewSteps("ec2", name, func(ctx context.Context, c *api.Call, in *In) (*Out, error) {
		if err := dryRun(in); err != nil {
			return nil, err
		}
		return f(ctx, c, in)
	}, opts...)
}

// dryRun is the error of a call that sets DryRun, nil for others.
func dryRun(in any) error {
	f := reflect.ValueOf(in).Elem().FieldByName("DryRun")
	if !f.IsValid() {
		return nil
	}
	if b, ok := f.Interface().(*bool); ok && aws.ToBool(b) {
		return fail("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	return nil
}

// fail is an EC2 error: EC2 has codes and no types.
// Source: EC2 API Reference, "Error codes for the Amazon EC2 API".
func fail(code, format string, a ...any) error {
	return &smithy.GenericAPIError{Code: code, Message: fmt.Sprintf(format, a...)}
}

// serviceError answers whether err is an AWS error that a caller may see.
func serviceError(err error) (smithy.APIError, bool) {
	var e smithy.APIError
	ok := errors.As(err, &e)
	return e, ok
}

// key is where a record of the call's account and region lies.
func key(account, region, id string) string { return account + "/" + region + "/" + id }

// resourceARN is the ARN of one of the caller's resources.
func resourceARN(c *api.Call, kind, id string) string {
	if kind == "snapshot" {
		return "arn:aws:ec2:" + c.Region + "::snapshot/" + id
	}
	return arnOf(c.Account, c.Region, kind, id)
}

func arnOf(account, region, kind, id string) string {
	return "arn:aws:ec2:" + region + ":" + account + ":" + kind + "/" + id
}

var resourceID = regexp.MustCompile(`^(vol|snap|i|vpc|subnet|sg)-([0-9a-f]{8}|[0-9a-f]{17})$`)

// checkID refuses what is no ID of the kind ("vol"), with EC2's words, which differ
// from kind to kind; parameter is what the call names it by. Clients match on these words.
func checkID(kind, parameter, id string) error {
	if m := resourceID.FindStringSubmatch(id); m != nil && m[1] == kind {
		return nil
	}
	switch {
	case id == "" && kind != "i":
		return fail("InvalidParameterValue", "Value () for parameter %s is invalid. Parameter may not be null or empty", parameter)
	case kind == "vol" || kind == "snap" && !strings.HasPrefix(id, "snap-"):
		return fail("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Expected: '%s-...'.", id, parameter, kind)
	case kind == "snap":
		return fail("InvalidSnapshotID.Malformed", "Value ( %s ) for parameter %s is invalid.", id, parameter)
	}
	return fail("InvalidInstanceID.Malformed", "Invalid id: %q (expecting %q)", id, kind+"-...")
}

// keyedLocks serialises the steps on one volume within this process.
type keyedLocks struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	ch    chan struct{} // holds one token when free
	users int
}

// lock waits for the key's lock; the returned function gives it back.
func (l *keyedLocks) lock(ctx context.Context, key string) (func(), error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[string]*keyedLock{}
	}
	k := l.m[key]
	if k == nil {
		k = &keyedLock{ch: make(chan struct{}, 1)}
		k.ch <- struct{}{}
		l.m[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.m, key)
		}
	}
	select {
	case <-k.ch:
		return func() { k.ch <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// finishing is a context for undoing or completing what was begun: it does not end
// with the request.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
}
