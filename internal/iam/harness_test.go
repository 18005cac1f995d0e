package iam

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	acct       = "111122223333"
	otherAcct  = "444455556666"
	rootKey    = "AKIAROOT0000000000AA"
	rootSecret = "root-secret-for-tests-0000000000000000aa"
)

// env is IAM over a store of its own; op runs operations as the gateway does:
// targets first, then the operation, in one transaction.
type env struct {
	t     *testing.T
	s     *Service
	st    *store.Store
	clock *clock.Manual
	dir   string
	ops   map[string]*api.Operation
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, dir: t.TempDir(), clock: clock.NewManual(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
	e.start()
	t.Cleanup(func() { e.st.Close() })
	for _, a := range []struct{ id, key, secret string }{{acct, rootKey, rootSecret}, {otherAcct, "AKIAROOT0000000000BB", rootSecret + "b"}} {
		if err := e.s.Bootstrap(context.Background(), a.id, a.key, a.secret); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func (e *env) start() {
	e.t.Helper()
	st, err := store.Open(context.Background(), store.Config{DataDir: e.dir, Unsynced: true})
	if err != nil {
		e.t.Fatal(err)
	}
	root, err := keyring.OpenFile(filepath.Join(e.dir, "root.key"))
	if err != nil {
		e.t.Fatal(err)
	}
	s, err := New(Config{Store: st, Clock: e.clock, Root: root})
	if err != nil {
		e.t.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		e.t.Fatal(err)
	}
	e.s, e.st, e.ops = s, st, map[string]*api.Operation{}
	for _, o := range s.Operations() {
		if e.ops[o.Name] != nil {
			e.t.Fatalf("operation %s registered twice", o.Name)
		}
		e.ops[o.Name] = &o
	}
}

func (e *env) root() *api.Call {
	return &api.Call{Time: e.clock.Now(), Region: Region, Account: acct, Principal: api.Principal{Type: api.Root, Account: acct, ARN: "arn:aws:iam::" + acct + ":root", ID: acct}}
}

// as is a call by a user, found by its name.
func (e *env) as(name string) *api.Call {
	e.t.Helper()
	u := e.s.users.Get(e.st.Snapshot(), key(acct, name))
	if u == nil {
		e.t.Fatalf("no user %s", name)
	}
	c := e.root()
	c.Principal = api.Principal{Type: api.IAMUser, Account: acct, ARN: u.arn(), ID: u.ID, UserName: u.Name}
	return c
}

// try runs an operation; the targets it named are returned too.
func try[Out, In any](e *env, c *api.Call, in *In) (*Out, []api.Target, error) {
	e.t.Helper()
	name := strings.TrimSuffix(strings.TrimPrefix(typeName(in), "*iam."), "Input")
	op := e.ops[name]
	if op == nil {
		e.t.Fatalf("operation %s is not served", name)
	}
	var out any
	var targets []api.Target
	body := func(tx *store.Tx) error {
		var err error
		if op.Targets != nil {
			if targets, err = op.Targets(context.Background(), tx, c, in); err != nil {
				return err
			}
		}
		out, err = op.Run(context.Background(), tx, c, in)
		return err
	}
	var err error
	if op.Kind == api.View {
		err = e.st.View(context.Background(), body)
	} else {
		err = e.st.Update(context.Background(), body)
	}
	if err != nil {
		return nil, targets, err
	}
	return out.(*Out), targets, nil
}

// do is try for calls that must succeed.
func do[Out, In any](e *env, c *api.Call, in *In) *Out {
	e.t.Helper()
	out, _, err := try[Out](e, c, in)
	if err != nil {
		e.t.Fatalf("%s: %v", typeName(in), err)
	}
	return out
}

// refused checks that a call fails with that code and a message that holds text.
func refused[Out, In any](e *env, c *api.Call, in *In, code, text string) {
	e.t.Helper()
	_, _, err := try[Out](e, c, in)
	var ae smithy.APIError
	if !errors.As(err, &ae) {
		e.t.Errorf("%s = %v, want %s", typeName(in), err, code)
		return
	}
	if ae.ErrorCode() != code || !strings.Contains(ae.ErrorMessage(), text) {
		e.t.Errorf("%s = %s: %s, want %s: …%s…", typeName(in), ae.ErrorCode(), ae.ErrorMessage(), code, text)
	}
}

// decide evaluates what the policies of a principal say of an action.
func (e *env) decide(p *api.Principal, action, resource string) policy.Decision {
	e.t.Helper()
	pol, err := e.s.Policies(e.st.Snapshot(), p)
	if err != nil {
		e.t.Fatal(err)
	}
	types := map[api.PrincipalType]policy.PrincipalType{api.Root: policy.Root, api.IAMUser: policy.User, api.AssumedRole: policy.Role, api.FederatedUser: policy.Federated}
	return policy.Evaluate(&policy.Request{Principal: policy.Principal{Type: types[p.Type], Account: p.Account, ARN: p.ARN, UserID: p.ID, UserName: p.UserName, RoleARN: p.RoleARN}, Action: action, Resource: resource},
		&policy.Layers{Identity: pol.Identity, Boundary: pol.Boundary, Session: pol.Session, Scoped: pol.Scoped})
}
