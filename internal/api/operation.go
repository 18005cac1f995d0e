package api

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Kind says how an operation uses the store.
type Kind int

// The kinds of operation.
const (
	// View reads one snapshot.
	View Kind = iota
	// Update runs in one transaction together with its audit record; it may run
	// more than once, so it has no effect but through the transaction.
	Update
	// Steps owns its transactions and may call other services; its audit record
	// is made durable after it returns and before the reply.
	Steps
)

// Operation is one row of the operation table. Make one with NewView, NewUpdate or NewSteps.
type Operation struct {
	Service  string // SigV4 name: "kms"
	Name     string // "Decrypt"
	Kind     Kind
	ReadOnly bool   // CloudTrail's readOnly
	Action   string // IAM action, default Service:Name
	// Open operations need a valid signature and no permission
	// (sts:GetCallerIdentity).
	Open bool
	// Unsigned operations need not even a signature (AssumeRoleWithSAML).
	Unsigned bool
	// Refuses names input members that the SDK knows and we do not support; a
	// call that sets one is refused by name.
	Refuses []string
	// Sensitive names input and output members that no record shows.
	Sensitive []string
	// Records has the output in the record's responseElements.
	Records bool
	// Internal operations are called in process only; HTTP does not reach them.
	Internal bool
	// RecordName is the eventName of the record, default Name.
	RecordName string

	// Targets says what the call touches. Nil: the resource "*".
	Targets func(ctx context.Context, tx *store.Tx, c *Call, in any) ([]Target, error)
	// Admit refuses a call before anything else is asked about it (a quota of calls); nil: never.
	Admit func(c *Call) error
	// Before does what an Update needs done outside the store; see Before.
	Before func(ctx context.Context, tx *store.Tx, c *Call, in any) (undo func(), err error)
	// Audit amends the record once the call has succeeded (out nil: or failed).
	Audit func(c *Call, in, out any, r *audit.Record)

	In, Out reflect.Type // struct types
	run     func(ctx context.Context, tx *store.Tx, c *Call, in any) (any, error)
}

// Run runs the operation. tx is nil for Steps.
func (o *Operation) Run(ctx context.Context, tx *store.Tx, c *Call, in any) (any, error) {
	return o.run(ctx, tx, c, in)
}

// Target is one authorisation question that a call raises: may the caller do
// Action on ARN? A call with several targets needs a yes to each.
type Target struct {
	// Action defaults to the operation's.
	Action string
	// ARN of the resource, "*" when the action has no resource.
	ARN string
	// Account that owns the resource, "" for the caller's.
	Account string
	// Keys are service condition keys ("kms:EncryptionContext:x"); tags of the
	// resource and the request go in as aws:ResourceTag/k, aws:RequestTag/k, aws:TagKeys.
	Keys map[string][]string
	// KeysOf, when set, makes the keys in the place of Keys, when a policy asks for one.
	KeysOf func() map[string][]string
	// Policy is the resource's policy, nil when it has none; PolicyID names it in explanations.
	Policy   *policy.Document
	PolicyID string
	// Mode says how the resource policy and IAM combine.
	Mode policy.Mode
	// Granted tells whether a grant allows the call (KMS).
	Granted func() (how policy.Grant, why string)
	// Hide, when set, is returned to a caller who is refused, instead of AccessDenied.
	Hide error
}

// Option changes an Operation while it is made.
type Option func(*Operation)

// NewView makes an operation that reads one snapshot. Its record is readOnly.
func NewView[In, Out any](service, name string, f func(context.Context, *store.Tx, *Call, *In) (*Out, error), opts ...Option) Operation {
	return newOperation(service, name, View, f, opts)
}

// NewUpdate makes an operation that is one transaction.
func NewUpdate[In, Out any](service, name string, f func(context.Context, *store.Tx, *Call, *In) (*Out, error), opts ...Option) Operation {
	return newOperation(service, name, Update, f, opts)
}

// NewSteps makes an operation that owns its transactions.
func NewSteps[In, Out any](service, name string, f func(context.Context, *Call, *In) (*Out, error), opts ...Option) Operation {
	return newOperation(service, name, Steps, func(ctx context.Context, _ *store.Tx, c *Call, in *In) (*Out, error) { return f(ctx, c, in) }, opts)
}

func newOperation[In, Out any](service, name string, kind Kind, f func(context.Context, *store.Tx, *Call, *In) (*Out, error), opts []Option) Operation {
	o := Operation{Service: service, Name: name, Kind: kind, ReadOnly: kind == View, Action: service + ":" + name, Records: kind != View,
		In: reflect.TypeFor[In](), Out: reflect.TypeFor[Out]()}
	o.run = func(ctx context.Context, tx *store.Tx, c *Call, in any) (any, error) {
		typed, ok := in.(*In)
		if !ok {
			return nil, fmt.Errorf("%s:%s called with %T, want %T", service, name, in, new(In))
		}
		out, err := f(ctx, tx, c, typed)
		if err != nil {
			return nil, err // never a typed nil
		}
		return out, nil
	}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// On declares what the call touches. f sees the decoded, validated input.
func On[In any](f func(ctx context.Context, tx *store.Tx, c *Call, in *In) ([]Target, error)) Option {
	return func(o *Operation) {
		o.Targets = func(ctx context.Context, tx *store.Tx, c *Call, in any) ([]Target, error) {
			return f(ctx, tx, c, in.(*In))
		}
	}
}

// Before has f do what an Update needs done outside the store (ask a proxy, make a
// key in an HSM). f runs once, after the call was authorised on a snapshot, tx, and
// before the transaction, which is authorised anew and finds in c.Prepared what f
// put there. undo, which may be nil, is called when the transaction fails.
func Before[In any](f func(ctx context.Context, tx *store.Tx, c *Call, in *In) (undo func(), err error)) Option {
	return func(o *Operation) {
		o.Before = func(ctx context.Context, tx *store.Tx, c *Call, in any) (func(), error) {
			return f(ctx, tx, c, in.(*In))
		}
	}
}

// Audited amends the CloudTrail record; out is nil when the call failed.
func Audited[In, Out any](f func(c *Call, in *In, out *Out, r *audit.Record)) Option {
	return func(o *Operation) {
		o.Audit = func(c *Call, in, out any, r *audit.Record) {
			typedOut, _ := out.(*Out)
			typedIn, _ := in.(*In)
			if typedIn != nil {
				f(c, typedIn, typedOut, r)
			}
		}
	}
}

// Action sets the IAM action when it is not service:Name.
func Action(a string) Option { return func(o *Operation) { o.Action = a } }

// Open lets any signed caller call.
func Open() Option { return func(o *Operation) { o.Open = true } }

// Unsigned lets anybody call.
func Unsigned() Option { return func(o *Operation) { o.Unsigned, o.Open = true, true } }

// ReadOnly sets CloudTrail's readOnly for an operation that is no View.
func ReadOnly() Option { return func(o *Operation) { o.ReadOnly, o.Records = true, false } }

// Refuses names input members ("Recipient", "LaunchSpecification") that are known and not supported.
func Refuses(members ...string) Option {
	return func(o *Operation) { o.Refuses = append(o.Refuses, members...) }
}

// Internal keeps the operation off HTTP and records it under the name of the
// public operation it stands for.
func Internal(recordName string) Option {
	return func(o *Operation) { o.Internal, o.RecordName = true, recordName }
}

// Sensitive names members, at any depth, that no record shows.
func Sensitive(members ...string) Option {
	return func(o *Operation) { o.Sensitive = append(o.Sensitive, members...) }
}

// NoResponseElements keeps the output out of the record.
func NoResponseElements() Option { return func(o *Operation) { o.Records = false } }

// Set reports whether the input member (a Go field name, "A.B" for nested) is set.
func Set(in any, member string) bool {
	v := reflect.ValueOf(in)
	for _, name := range strings.Split(member, ".") {
		for v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return false
			}
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return false
		}
		v = v.FieldByName(name)
		if !v.IsValid() {
			panic("api: no member " + member)
		}
	}
	return !v.IsZero()
}
