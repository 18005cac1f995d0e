package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	acct   = "111122223333"
	other  = "444455556666"
	region = "us-west-2"
)

// everybody is an IAM in which every principal exists but those called "nobody"
// and those whose ARN is in gone. made counts how often one was made again.
type everybody struct {
	made map[string]int
	gone map[string]bool
	arns map[string]string
}

func (e *everybody) PrincipalID(_ *store.Tx, arn string) (string, bool) {
	kind := ""
	switch {
	case strings.Contains(arn, "nobody"), e.gone[arn]:
		return "", false
	case strings.Contains(arn, ":user/"):
		kind = "AIDA"
	case strings.Contains(arn, ":role/"):
		kind = "AROA"
	case strings.Contains(arn, ":assumed-role/"):
		p := strings.Split(arn, "/")
		role, ok := e.PrincipalID(nil, strings.Replace(strings.Replace(p[0]+"/"+p[1], "assumed-role", "role", 1), ":sts:", ":iam:", 1))
		return role + ":" + p[2], ok
	default:
		return arn, true
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(arn, e.made[arn])))
	id := kind + strings.ToUpper(hex.EncodeToString(sum[:8]))
	e.arns[id] = arn
	return id, true
}

func (e *everybody) PrincipalARN(_ *store.Tx, id string) (string, bool) {
	role, session, _ := strings.Cut(id, ":")
	arn, ok := e.arns[role]
	if now, exists := e.PrincipalID(nil, arn); !ok || !exists || now != role {
		return "", false
	}
	if session != "" {
		arn = strings.Replace(strings.Replace(arn, ":role/", ":assumed-role/", 1), ":iam:", ":sts:", 1) + "/" + session
	}
	return arn, true
}

// bench is a service on a store of its own. It runs operations as the gateway
// does: resolver, authorisation, operation, in one transaction.
type bench struct {
	testing.TB
	who *everybody
	s   *Service
	st  *store.Store
	ops map[string]*api.Operation
	clk *clock.Manual
	dir string
	// events are the records that the service made by itself.
	events *recorded
	// free skips authorisation.
	free bool
	iam  map[string][]policy.Source
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return openBench(t, t.TempDir(), clock.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)))
}

func openBench(t testing.TB, dir string, clk *clock.Manual) *bench {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := newServiceOn(t, st, dir, clk)
	if err := st.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := b.s.Upgrade(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

// newServiceOn makes the service on a store that has not started.
func newServiceOn(t testing.TB, st *store.Store, dir string, clk *clock.Manual) *bench {
	t.Helper()
	root, err := keyring.OpenFile(dir + "/root.key")
	if err != nil {
		t.Fatal(err)
	}
	who := &everybody{map[string]int{}, map[string]bool{}, map[string]string{}}
	events := &recorded{}
	s, err := New(Config{Store: st, Clock: clk, Root: root, Principals: who, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, who: who, s: s, st: st, ops: map[string]*api.Operation{}, clk: clk, dir: dir, events: events, free: true, iam: map[string][]policy.Source{}}
	ops := s.Operations()
	for i := range ops {
		b.ops[ops[i].Name] = &ops[i]
	}
	return b
}

// recorded is an outbox that is read by tests. Of a transaction that is run again it has the records twice.
type recorded struct {
	mu  sync.Mutex
	all []*audit.Record
}

func (e *recorded) Outbox(_ *store.Tx, r *audit.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, r)
	return nil
}

// take returns the events of a name so far, and forgets all.
func (e *recorded) take(name string) (of []*audit.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.all {
		if r.EventName == name {
			of = append(of, r)
		}
	}
	e.all = nil
	return of
}

// root, user and service are callers.
func (b *bench) root(account string) *api.Call {
	return b.call(api.Principal{Type: api.Root, Account: account, ARN: "arn:aws:iam::" + account + ":root", ID: account})
}

func (b *bench) user(account, name string) *api.Call {
	arn := "arn:aws:iam::" + account + ":user/" + name
	id, _ := b.who.PrincipalID(nil, arn)
	return b.call(api.Principal{Type: api.IAMUser, Account: account, ARN: arn, ID: id, UserName: name})
}

func (b *bench) session(account, role, name string) *api.Call {
	arn := "arn:aws:sts::" + account + ":assumed-role/" + role + "/" + name
	id, _ := b.who.PrincipalID(nil, arn)
	return b.call(api.Principal{Type: api.AssumedRole, Account: account, ARN: arn, RoleARN: "arn:aws:iam::" + account + ":role/" + role, RoleName: role, SessionName: name, ID: id})
}

func (b *bench) service(name string) *api.Call {
	return b.root(acct).AsService(name)
}

func (b *bench) call(p api.Principal) *api.Call {
	return &api.Call{RequestID: ids.UUID(), Time: b.clk.Now(), Region: region, Account: p.Account, Principal: p, Secure: true}
}

// do runs an operation; out is nil when it was refused.
func (b *bench) do(c *api.Call, name string, in any) (any, *audit.Record, error) {
	b.Helper()
	op := b.ops[name]
	if op == nil {
		b.Fatalf("no operation %s", name)
	}
	n := *c
	n.Time = b.clk.Now()
	n.RequestID = ids.UUID()
	var out any
	body := func(tx *store.Tx) error {
		n.Record = &audit.Record{EventID: ids.UUID(), EventName: name, ReadOnly: op.ReadOnly}
		for _, m := range op.Refuses {
			if api.Set(in, m) {
				return errValidation("refused member %s", m)
			}
		}
		n.GrantTokens = grantTokensOf(in)
		targets, err := op.Targets(context.Background(), tx, &n, in)
		if err != nil {
			return err
		}
		if !b.free {
			for _, t := range targets {
				if !authorised(b, &n, t) {
					if t.Hide != nil {
						return t.Hide
					}
					return errAccessDenied("User: %s is not authorized to perform: %s on resource: %s", n.Principal.ARN, t.Action, t.ARN)
				}
			}
		}
		out, err = op.Run(context.Background(), tx, &n, in)
		return err
	}
	var err error
	if op.Kind == api.Update {
		undo := func() {}
		if op.Before != nil {
			n.Record = &audit.Record{EventID: ids.UUID(), EventName: name}
			var u func()
			if u, err = op.Before(context.Background(), b.st.Snapshot(), &n, in); u != nil {
				undo = u
			}
		}
		if err == nil {
			if err = b.st.Update(context.Background(), body); err != nil {
				undo()
			}
		}
	} else {
		err = body(b.st.Snapshot())
	}
	if err != nil {
		out = nil
	}
	if op.Audit != nil && n.Record != nil {
		op.Audit(&n, in, out, n.Record)
	}
	return out, n.Record, err
}

// must runs an operation that has to succeed.
func must[Out any](b *bench, c *api.Call, name string, in any) *Out {
	b.Helper()
	out, _, err := b.do(c, name, in)
	if err != nil {
		b.Fatalf("%s(%+v) = %v, want success", name, in, err)
	}
	return out.(*Out)
}

// fails runs an operation that has to be refused with code, and message when given.
func (b *bench) fails(c *api.Call, name string, in any, code, message string) {
	b.Helper()
	_, _, err := b.do(c, name, in)
	if got := codeOf(err); got != code {
		b.Fatalf("%s(%+v) = %v, want %s", name, in, err, code)
	}
	if message == "" {
		return
	}
	var e smithy.APIError
	if errors.As(err, &e); e.ErrorMessage() != message {
		b.Fatalf("%s: message %q, want %q", name, e.ErrorMessage(), message)
	}
}

func codeOf(err error) string {
	if err == nil {
		return "success"
	}
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprintf("no AWS error: %v", err)
}
