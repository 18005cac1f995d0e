package directory

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Config is what the service needs.
type Config struct {
	Store *store.Store
	Clock clock.Clock // default clock.System
	// Root wraps password hashes and the secrets shared with RADIUS servers.
	Root keyring.Root
	// Registered tells whether WorkSpaces uses a directory, which then cannot be
	// deleted. Nil: none is used.
	Registered func(tx *store.Tx, account, region, directoryID string) bool
	// Zone tells which Availability Zone a subnet is in, "" when it is not known. Nil: none is known.
	Zone   func(account, region, subnetID string) string
	Logger *slog.Logger
}

// Service is ds and ds-data.
type Service struct {
	cfg Config
	tables
	hashing chan struct{} // bounds the memory of password hashing
	guesses guesses
}

const (
	simpleAD    = string(dstypes.DirectoryTypeSimpleAd)
	microsoftAD = string(dstypes.DirectoryTypeMicrosoftAd)
)

// New declares the tables; call it before the store starts.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Root == nil {
		return nil, errors.New("directory: a store and a root key are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Registered == nil {
		cfg.Registered = func(*store.Tx, string, string, string) bool { return false }
	}
	if cfg.Zone == nil {
		cfg.Zone = func(string, string, string) string { return "" }
	}
	return &Service{cfg: cfg, tables: define(cfg.Store), hashing: make(chan struct{}, 2), guesses: guesses{m: map[string]*guess{}}}, nil
}

// Operations are the operations of both services.
func (s *Service) Operations() []api.Operation {
	const ds = "ds"
	ops := []api.Operation{
		api.NewUpdate(ds, "CreateDirectory", s.createDirectory, api.Sensitive("Password"),
			api.On(func(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.CreateDirectoryInput) ([]api.Target, error) {
				return onNew(in.Tags), nil
			})),
		api.NewUpdate(ds, "CreateMicrosoftAD", s.createMicrosoftAD, api.Sensitive("Password"),
			api.On(func(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.CreateMicrosoftADInput) ([]api.Target, error) {
				return onNew(in.Tags), nil
			})),
		api.NewView(ds, "DescribeDirectories", s.describeDirectories),
		api.NewUpdate(ds, "DeleteDirectory", s.deleteDirectory, on(s, func(in *directoryservice.DeleteDirectoryInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "CreateAlias", s.createAlias, on(s, func(in *directoryservice.CreateAliasInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "ResetUserPassword", s.resetUserPassword, api.Sensitive("NewPassword"),
			on(s, func(in *directoryservice.ResetUserPasswordInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "EnableRadius", s.enableRadius, api.Sensitive("SharedSecret"), on(s, func(in *directoryservice.EnableRadiusInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "UpdateRadius", s.updateRadius, api.Sensitive("SharedSecret"), on(s, func(in *directoryservice.UpdateRadiusInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "DisableRadius", s.disableRadius, on(s, func(in *directoryservice.DisableRadiusInput) *string { return in.DirectoryId })),
		api.NewView(ds, "GetDirectoryLimits", s.getDirectoryLimits),
		api.NewUpdate(ds, "AddTagsToResource", s.addTags, api.On(s.onTags)),
		api.NewView(ds, "ListTagsForResource", s.listTags, on(s, func(in *directoryservice.ListTagsForResourceInput) *string { return in.ResourceId })),
		api.NewUpdate(ds, "RemoveTagsFromResource", s.removeTags, api.On(s.onUntag)),
		api.NewUpdate(ds, "EnableDirectoryDataAccess", s.enableDataAccess,
			onExisting(s, func(in *directoryservice.EnableDirectoryDataAccessInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "DisableDirectoryDataAccess", s.disableDataAccess,
			onExisting(s, func(in *directoryservice.DisableDirectoryDataAccessInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeDirectoryDataAccess", s.describeDataAccess,
			onExisting(s, func(in *directoryservice.DescribeDirectoryDataAccessInput) *string { return in.DirectoryId })),
	}
	ops = append(ops, s.absentOperations()...)
	ops = append(ops, s.snapshotOperations()...)
	ops = append(ops, s.refusedOperations()...)
	return append(ops, s.dataOperations()...)
}

// on declares that an operation touches the directory that id names.
func on[In any](s *Service, id func(*In) *string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		d, err := s.find(tx, c, deref(id(in)))
		if err != nil {
			return nil, err
		}
		return []api.Target{d.target()}, nil
	})
}

// onExisting is on, with the error of the data access operations.
func onExisting[In any](s *Service, id func(*In) *string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		d := s.lookup(tx, c, deref(id(in)))
		if d == nil {
			return nil, &dstypes.DirectoryDoesNotExistException{Message: sprintf("Directory %s does not exist.", deref(id(in)))}
		}
		return []api.Target{d.target()}, nil
	})
}

func (d *directory) target() api.Target {
	keys := map[string][]string{}
	for k, v := range d.Tags {
		keys["aws:ResourceTag/"+k] = []string{v}
	}
	return api.Target{ARN: d.arn(), Account: d.Account, Keys: keys}
}

// onNew is the target of a creation: no resource yet, the tags it will have.
func onNew(tags []dstypes.Tag) []api.Target {
	return []api.Target{{ARN: "*", Keys: requestTags(map[string][]string{}, tags)}}
}

func requestTags(keys map[string][]string, tags []dstypes.Tag) map[string][]string {
	for _, t := range tags {
		keys["aws:RequestTag/"+deref(t.Key)] = []string{deref(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], deref(t.Key))
	}
	return keys
}

// lookup finds a directory of the caller's account and region, nil when there is none.
func (s *Service) lookup(tx *store.Tx, c *api.Call, id string) *directory {
	if id == "" {
		return nil
	}
	return s.directories.Get(tx, c.Account+"/"+c.Region+"/"+id)
}

// find is lookup with ds's error.
func (s *Service) find(tx *store.Tx, c *api.Call, id string) (*directory, error) {
	if d := s.lookup(tx, c, id); d != nil {
		return d, nil
	}
	return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("Directory %s does not exist.", id)}
}

// edit is find with a private copy, for an operation that changes the directory.
func (s *Service) edit(tx *store.Tx, c *api.Call, id string) (*directory, error) {
	if _, err := s.find(tx, c, id); err != nil {
		return nil, err
	}
	return s.directories.Edit(tx, c.Account+"/"+c.Region+"/"+id), nil
}

// touched names the directory in the call's record.
func touched(c *api.Call, d *directory) {
	if c.Record != nil {
		c.Record.Resources = []audit.Resource{{AccountID: d.Account, Type: "AWS::DirectoryService::" + d.Type, ARN: d.arn()}}
	}
}

// available refuses a directory that is not Active.
func available(d *directory) error {
	if d.Stage != string(dstypes.DirectoryStageActive) {
		return &dstypes.DirectoryUnavailableException{Message: sprintf("Directory %s is not available: its stage is %s, not Active.", d.ID, d.Stage)}
	}
	return nil
}

// token makes and reads tokens of pages: base64 of a version, what is listed, and
// the key of the last item given, so that one list's token is refused by another.
func makeToken(what, after string) *string {
	return ptr(base64.RawURLEncoding.EncodeToString([]byte("1\x00" + what + "\x00" + after)))
}

func readToken(what string, token *string) (after string, ok bool) {
	if token == nil || *token == "" {
		return "", true
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	if err != nil {
		return "", false
	}
	after, ok = strings.CutPrefix(string(b), "1\x00"+what+"\x00")
	return after, ok && after != ""
}

func invalid(format string, args ...any) error {
	return &dstypes.InvalidParameterException{Message: sprintf(format, args...)}
}

func sprintf(format string, args ...any) *string { return ptr(fmt.Sprintf(format, args...)) }

func ptr[T any](v T) *T { return &v }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// opt is a pointer to s, nil when empty.
func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
