// Package gateway is the pipeline that every call goes through, from outside
// (ServeHTTP) or from one service to another (Invoke): decode, resources,
// policy, invoke in one store transaction with the audit record, encode.
//
// What it promises: no operation runs unless the caller was authenticated and
// every target it names was allowed; no reply leaves before the record of the
// call is durable; a call that changes state commits its record in the same
// transaction; a panic becomes InternalFailure.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// AuditLog is where records go. Append returns once the record is durable;
// Outbox makes it durable with the transaction.
type AuditLog interface {
	Append(ctx context.Context, r *audit.Record) error
	Outbox(tx *store.Tx, r *audit.Record) error
}

// Config is what a Gateway needs.
type Config struct {
	Store      *store.Store
	Clock      clock.Clock
	Identities api.Identities
	Audit      AuditLog
	Logger     *slog.Logger
	// ServicePolicies are the permissions of the services themselves in calls to
	// each other, by service name: identity policies like any other.
	ServicePolicies map[string][]policy.Source
	// MaxBody bounds a request body in bytes; default 1 MiB.
	MaxBody int64
}

// Gateway routes, authorises, runs and records operations.
type Gateway struct {
	cfg Config
	log *slog.Logger
	ops map[string]map[string]*api.Operation

	verifier *sigv4.Verifier
}

// New returns a Gateway without operations.
func New(cfg Config) *Gateway {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 1 << 20
	}
	return &Gateway{cfg: cfg, log: cfg.Logger, ops: map[string]map[string]*api.Operation{}, verifier: sigv4.NewVerifier()}
}

// Register adds rows to the operation table, before the first call.
func (g *Gateway) Register(ops []api.Operation) {
	for i := range ops {
		o := &ops[i]
		if g.ops[o.Service] == nil {
			g.ops[o.Service] = map[string]*api.Operation{}
		}
		if g.ops[o.Service][o.Name] != nil {
			panic(fmt.Sprintf("gateway: %s:%s registered twice", o.Service, o.Name))
		}
		g.ops[o.Service][o.Name] = o
	}
}

// Operations is the table, for docs and tests: service → name → operation.
func (g *Gateway) Operations() map[string]map[string]*api.Operation { return g.ops }

// Invoke runs an operation for another service (api.Caller).
func (g *Gateway) Invoke(ctx context.Context, c *api.Call, service, operation string, in any) (any, error) {
	op := g.ops[service][operation]
	if op == nil {
		return nil, fmt.Errorf("in-process call of an operation that is not served: %s:%s", service, operation)
	}
	if len(c.Via) == 0 {
		return nil, fmt.Errorf("in-process call of %s:%s without a calling service", service, operation)
	}
	n := *c
	n.RequestID = ids.UUID()
	n.Time = g.now()
	host := n.InvokedBy()
	n.SourceIP, n.UserAgent = host, host
	return g.run(ctx, op, &n, in)
}

func (g *Gateway) now() time.Time { return g.cfg.Clock.Now().UTC().Truncate(time.Millisecond) }

// run authorises, runs and records one call. in is a pointer to op.In.
func (g *Gateway) run(ctx context.Context, op *api.Operation, c *api.Call, in any) (out any, err error) {
	c.GrantTokens = grantTokens(in)
	eventID := ids.UUID()
	var owners []string // accounts, other than the caller's, whose resources were touched
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic in an operation", "operation", op.Service+":"+op.Name, "requestId", c.RequestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			out, err = nil, internalFailure
			c.Record = g.newRecord(op, c, eventID)
			if aerr := g.appendRecord(ctx, op, c, in, nil, err, owners); aerr != nil {
				g.log.Error("audit record lost", "requestId", c.RequestID, "err", aerr)
			}
		}
	}()
	refused := g.refuse(op, in)
	if refused == nil && op.Admit != nil {
		refused = op.Admit(c)
	}
	body := func(tx *store.Tx) error {
		c.Record = g.newRecord(op, c, eventID)
		out = nil
		if refused != nil {
			return refused
		}
		var err error
		if owners, err = g.authorise(ctx, tx, op, c, in); err != nil {
			return err
		}
		runTx := tx
		if op.Kind == api.Steps {
			runTx = nil
		}
		out, err = op.Run(ctx, runTx, c, in)
		if err == nil {
			fillLists(op, out)
		}
		if err == nil && op.Kind == api.Update {
			for _, r := range g.finish(op, c, in, out, nil, owners) {
				if err := g.cfg.Audit.Outbox(tx, r); err != nil {
					return err
				}
			}
		}
		return err
	}
	if op.Kind == api.Update {
		undo := func() {}
		if op.Before != nil && refused == nil {
			undo, err = g.before(ctx, op, c, in, eventID)
		}
		if err == nil {
			if err = g.cfg.Store.Update(ctx, body); err == nil {
				return out, nil
			}
			undo()
		}
	} else {
		err = body(g.cfg.Store.Snapshot())
	}
	err = g.outside(op, c, err)
	if aerr := g.appendRecord(ctx, op, c, in, out, err, owners); aerr != nil {
		g.log.Error("audit record not durable, call refused", "requestId", c.RequestID, "operation", op.Service+":"+op.Name, "err", aerr)
		return nil, internalFailure
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// before does an operation's work outside the store, for a caller who may.
func (g *Gateway) before(ctx context.Context, op *api.Operation, c *api.Call, in any, eventID string) (undo func(), err error) {
	tx := g.cfg.Store.Snapshot()
	c.Record = g.newRecord(op, c, eventID)
	if _, err := g.authorise(ctx, tx, op, c, in); err != nil {
		return nil, err
	}
	if undo, err = op.Before(ctx, tx, c, in); undo == nil {
		undo = func() {}
	}
	return undo, err
}

var internalFailure error = &smithy.GenericAPIError{Code: "InternalFailure", Message: "The request processing has failed because of an unknown error, exception or failure. The server's log has the details under the request ID.", Fault: smithy.FaultServer}

// outside turns what is not an AWS error into InternalFailure, with the detail in the log.
func (g *Gateway) outside(op *api.Operation, c *api.Call, err error) error {
	if err == nil {
		return nil
	}
	var apiErr smithy.APIError
	if errors.As(err, &apiErr) {
		return apiErr
	}
	if errors.Is(err, store.ErrContended) {
		return &smithy.GenericAPIError{Code: "ThrottlingException", Message: "Too many concurrent changes to the same resource. Try again."}
	}
	g.log.Error("operation failed", "operation", op.Service+":"+op.Name, "requestId", c.RequestID, "err", err)
	return internalFailure
}

func (g *Gateway) appendRecord(ctx context.Context, op *api.Operation, c *api.Call, in, out any, err error, owners []string) error {
	// The record of a call whose client hung up is written all the same.
	ctx = context.WithoutCancel(ctx)
	for _, r := range g.finish(op, c, in, out, err, owners) {
		if err := g.cfg.Audit.Append(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// refuse names a member that is known and not supported.
func (g *Gateway) refuse(op *api.Operation, in any) error {
	for _, m := range op.Refuses {
		if api.Set(in, m) {
			code := "ValidationException"
			switch op.Service {
			case "ec2":
				code = "UnsupportedOperation"
			case "iam", "sts":
				code = "ValidationError"
			}
			return &smithy.GenericAPIError{Code: code, Message: fmt.Sprintf("The parameter %s of %s is not supported by this endpoint. Leave it out.", m, op.Name)}
		}
	}
	return nil
}

// fillLists makes the top-level lists of a List… or Describe… reply empty instead
// of absent, as AWS sends them: clients read Grants of ListGrants without asking. Of
// DescribeXAttribute the reply has the attribute asked for, and no other.
func fillLists(op *api.Operation, out any) {
	if strings.HasSuffix(op.Name, "Attribute") || !strings.HasPrefix(op.Name, "List") && !strings.HasPrefix(op.Name, "Describe") && op.Name != "LookupEvents" {
		return
	}
	v := reflect.ValueOf(out).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.IsNil() && f.CanSet() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
}

var tokenMember sync.Map // type of input → index of GrantTokens, -1 for none

// grantTokens finds the GrantTokens member (KMS).
func grantTokens(in any) []string {
	v := reflect.ValueOf(in).Elem()
	i, known := tokenMember.Load(v.Type())
	if !known {
		i = -1
		if f, ok := v.Type().FieldByName("GrantTokens"); ok && len(f.Index) == 1 && f.Type == reflect.TypeFor[[]string]() {
			i = f.Index[0]
		}
		tokenMember.Store(v.Type(), i)
	}
	if i.(int) < 0 {
		return nil
	}
	return *v.Field(i.(int)).Addr().Interface().(*[]string)
}

// Actions lists the IAM actions of the table, sorted by no order; docs and the
// console use it.
func (g *Gateway) Actions() []string {
	var out []string
	for _, ops := range g.ops {
		for _, o := range ops {
			if !o.Internal && !strings.HasSuffix(o.Action, ":") {
				out = append(out, o.Action)
			}
		}
	}
	return out
}
