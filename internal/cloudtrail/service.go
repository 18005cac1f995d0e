package cloudtrail

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Log is what the service needs of the audit log.
type Log interface {
	// Settled returns once everything recorded so far can be found.
	Settled(ctx context.Context) error
	Lookup(ctx context.Context, q audit.Query) ([]audit.Event, *audit.Cursor, error)
	// Read hands records from seq on to f, in order.
	Read(ctx context.Context, seq uint64, f func(seq uint64, record []byte) bool) error
	Head() audit.Head
}

// Config is what the service needs.
type Config struct {
	Store *store.Store
	Clock clock.Clock // default clock.System
	Log   Log
	// Root wraps the keys that sign digests.
	Root keyring.Root
	// Dir holds the buckets of trails; see the package doc.
	Dir string
	// DeliverEvery is how often log files are delivered; default 5 minutes.
	DeliverEvery time.Duration
	// DigestEvery is how often digests are; default one hour.
	DigestEvery time.Duration
	Logger      *slog.Logger
}

// Service is CloudTrail.
type Service struct {
	cfg        Config
	trails     *store.Table[trail]
	deliveries *store.Table[delivery]
	keys       *store.Table[digestKey]
}

const name = "cloudtrail"

// New declares the tables; call it before the store starts.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Log == nil || cfg.Root == nil || cfg.Dir == "" {
		return nil, errors.New("cloudtrail: a store, an audit log, a root key and a directory are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.DeliverEvery <= 0 {
		cfg.DeliverEvery = 5 * time.Minute
	}
	if cfg.DigestEvery <= 0 {
		cfg.DigestEvery = time.Hour
	}
	return &Service{cfg: cfg, trails: store.Define[trail](cfg.Store, "cloudtrail/trail", 1), deliveries: store.Define[delivery](cfg.Store, "cloudtrail/delivery", 1),
		keys: store.Define[digestKey](cfg.Store, "cloudtrail/key", 1)}, nil
}

// Operations are the operations of the service.
func (s *Service) Operations() []api.Operation {
	return append([]api.Operation{
		api.NewSteps(name, "LookupEvents", s.lookupEvents, api.ReadOnly()),
		api.NewUpdate(name, "CreateTrail", s.createTrail, api.On(s.onCreateTrail)),
		api.NewView(name, "DescribeTrails", s.describeTrails),
		api.NewView(name, "GetTrail", s.getTrail, on(s, func(in *ct.GetTrailInput) *string { return in.Name })),
		api.NewView(name, "ListTrails", s.listTrails),
		api.NewUpdate(name, "UpdateTrail", s.updateTrail, on(s, func(in *ct.UpdateTrailInput) *string { return in.Name })),
		api.NewUpdate(name, "DeleteTrail", s.deleteTrail, on(s, func(in *ct.DeleteTrailInput) *string { return in.Name })),
		api.NewUpdate(name, "StartLogging", s.startLogging, on(s, func(in *ct.StartLoggingInput) *string { return in.Name })),
		api.NewUpdate(name, "StopLogging", s.stopLogging, on(s, func(in *ct.StopLoggingInput) *string { return in.Name })),
		api.NewView(name, "GetTrailStatus", s.getTrailStatus, on(s, func(in *ct.GetTrailStatusInput) *string { return in.Name })),
		api.NewUpdate(name, "PutEventSelectors", s.putEventSelectors, on(s, func(in *ct.PutEventSelectorsInput) *string { return in.TrailName })),
		api.NewView(name, "GetEventSelectors", s.getEventSelectors, on(s, func(in *ct.GetEventSelectorsInput) *string { return in.TrailName })),
		api.NewUpdate(name, "AddTags", s.addTags, api.On(s.onAddTags)),
		api.NewView(name, "ListTags", s.listTags, api.On(s.onListTags)),
		api.NewUpdate(name, "RemoveTags", s.removeTags, api.On(s.onRemoveTags)),
		api.NewView(name, "ListPublicKeys", s.listPublicKeys),
	}, s.lakeOperations()...)
}

// on declares that an operation touches the trail that id names. One that is not there is asked
// for too: who may not touch it does not learn that; the operation itself then says so.
func on[In any](s *Service, id func(*In) *string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		named := deref(id(in))
		t, err := s.find(tx, c, named)
		if _, missing := err.(*types.TrailNotFoundException); missing {
			return []api.Target{{ARN: arnOf(c, named)}}, nil
		}
		if err != nil {
			return nil, err
		}
		return []api.Target{t.target()}, nil
	})
}

func (t *trail) target() api.Target {
	keys := map[string][]string{}
	for k, v := range t.Tags {
		keys["aws:ResourceTag/"+k] = []string{v}
	}
	return api.Target{ARN: t.arn(), Account: t.Account, Keys: keys}
}

func requestTags(keys map[string][]string, tags []types.Tag) {
	for _, t := range tags {
		keys["aws:RequestTag/"+deref(t.Key)] = []string{deref(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], deref(t.Key))
	}
}

// touched names the trail in the call's record.
func touched(c *api.Call, t *trail) {
	if c.Record != nil {
		c.Record.Resources = []audit.Resource{{AccountID: t.Account, Type: "AWS::CloudTrail::Trail", ARN: t.arn()}}
	}
}

// Tokens of pages: base64 of a version, what is listed, and where the page ended.
func makeToken(what, after string) *string {
	return ptr(base64.RawURLEncoding.EncodeToString([]byte("1\x00" + what + "\x00" + after)))
}

func readToken(what string, token *string) (after string, err error) {
	if token == nil {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	after, ok := strings.CutPrefix(string(b), "1\x00"+what+"\x00")
	if err != nil || !ok || after == "" {
		return "", &types.InvalidNextTokenException{Message: ptr("The NextToken value is not valid: use the one that the previous page returned, with the same parameters.")}
	}
	return after, nil
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
