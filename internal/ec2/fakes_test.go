package ec2

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	account = "111122223333"
	region  = "us-west-2"
)

var errDead = errors.New("the process is dead")

// mortal stops the effects of a service after a number of calls to the outside, as a
// kill -9 would: before the effect of the last call, or after it.
type mortal struct {
	mu    sync.Mutex
	calls []string
	at    int  // the call to die at, from 1; 0: immortal
	after bool // die after the effect
	dead  bool
}

// enter is called before an effect; the returned function after it.
func (m *mortal) enter(what string) (leave func() error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errDead
	}
	m.calls = append(m.calls, what)
	if m.at != len(m.calls) {
		return func() error { return nil }, nil
	}
	m.dead = true
	if !m.after {
		return nil, errDead
	}
	return func() error { return errDead }, nil
}

// fakeKMS is a working key service in memory: keys, states, grants, contexts.
type fakeKMS struct {
	t  *testing.T
	m  *mortal
	mu sync.Mutex

	keys    map[string]*fakeKey // by ARN
	aliases map[string]string   // account/region/name → ARN
	grants  map[string]*fakeGrant
	blobs   map[string]fakeBlob
	calls   []fakeCall
	// denied are operations refused to callers that are not services.
	denied map[string]bool
}

type fakeKey struct {
	meta kmstypes.KeyMetadata
}

type fakeGrant struct {
	id, key, name, grantee, retiring string
	subset                           map[string]string
	ops                              []kmstypes.GrantOperation
}

type fakeBlob struct {
	key       string
	context   map[string]string
	plaintext []byte
}

type fakeCall struct {
	op        string
	principal api.Principal
	via       []string
	context   map[string]string
	bytes     int32
	err       error
}

func newFakeKMS(t *testing.T) *fakeKMS {
	return &fakeKMS{t: t, m: &mortal{}, keys: map[string]*fakeKey{}, aliases: map[string]string{}, grants: map[string]*fakeGrant{}, blobs: map[string]fakeBlob{}, denied: map[string]bool{}}
}

func (f *fakeKMS) newKey(spec kmstypes.KeySpec, usage kmstypes.KeyUsageType) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := ids.UUID()
	arn := "arn:aws:kms:" + region + ":" + account + ":key/" + id
	f.keys[arn] = &fakeKey{meta: kmstypes.KeyMetadata{Arn: aws.String(arn), KeyId: aws.String(id), KeySpec: spec, KeyUsage: usage, KeyState: kmstypes.KeyStateEnabled, KeyManager: kmstypes.KeyManagerTypeCustomer}}
	return arn
}

func (f *fakeKMS) symmetric() string {
	return f.newKey(kmstypes.KeySpecSymmetricDefault, kmstypes.KeyUsageTypeEncryptDecrypt)
}

func (f *fakeKMS) setState(arn string, st kmstypes.KeyState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[arn].meta.KeyState = st
}

func (f *fakeKMS) grantList() []*fakeGrant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.grants))
}

func (f *fakeKMS) callsOf(op string) []fakeCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fakeCall
	for _, c := range f.calls {
		if c.op == op {
			out = append(out, c)
		}
	}
	return out
}

func kmsErr(code, format string, a ...any) error {
	return &smithy.GenericAPIError{Code: code, Message: fmt.Sprintf(format, a...)}
}

func (f *fakeKMS) find(c *api.Call, named string) (string, *fakeKey, error) {
	arn := named
	switch {
	case strings.HasPrefix(named, "alias/"):
		arn = f.aliases[c.Account+"/"+c.Region+"/"+named]
		if arn == "" && named == "alias/aws/ebs" {
			f.mu.Unlock()
			arn = f.symmetric()
			f.mu.Lock()
			f.keys[arn].meta.KeyManager = kmstypes.KeyManagerTypeAws
			f.aliases[c.Account+"/"+c.Region+"/"+named] = arn
		}
	case strings.Contains(named, ":alias/"):
		arn = f.aliases[c.Account+"/"+c.Region+"/"+named[strings.Index(named, "alias/"):]]
	case !strings.HasPrefix(named, "arn:"):
		arn = "arn:aws:kms:" + c.Region + ":" + c.Account + ":key/" + named
	}
	k := f.keys[arn]
	if k == nil {
		return "", nil, kmsErr("NotFoundException", "Key '%s' does not exist", named)
	}
	return arn, k, nil
}

// allowed decides as KMS would for these tests: people may do what is not denied, the
// service EBS what a grant allows.
func (f *fakeKMS) allowed(c *api.Call, op kmstypes.GrantOperation, key string, context map[string]string) error {
	if c.Principal.Type != api.AWSService {
		if f.denied[string(op)] {
			return kmsErr("AccessDeniedException", "User: %s is not authorized to perform: kms:%s", c.Principal.ARN, op)
		}
		return nil
	}
	for _, g := range f.grants {
		if g.key != key || g.grantee != c.Principal.ARN || !slices.Contains(g.ops, op) {
			continue
		}
		ok := true
		for k, v := range g.subset {
			if op != kmstypes.GrantOperationDescribeKey && op != kmstypes.GrantOperationCreateGrant && context[k] != v {
				ok = false
			}
		}
		if ok {
			return nil
		}
	}
	return kmsErr("AccessDeniedException", "User: %s is not authorized to perform: kms:%s", c.Principal.ARN, op)
}

func usable(k *fakeKey) error {
	switch k.meta.KeyState {
	case kmstypes.KeyStateEnabled:
		return nil
	case kmstypes.KeyStateDisabled:
		return kmsErr("DisabledException", "%s is disabled.", *k.meta.Arn)
	}
	return kmsErr("KMSInvalidStateException", "%s is pending deletion.", *k.meta.Arn)
}

func (f *fakeKMS) Invoke(ctx context.Context, c *api.Call, service, operation string, in any) (out any, err error) {
	if service != "kms" {
		return nil, fmt.Errorf("unexpected call of %s:%s", service, operation)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	leave, err := f.m.enter("kms:" + operation)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := fakeCall{op: operation, principal: c.Principal, via: c.Via}
	switch in := in.(type) {
	case *kms.DescribeKeyInput:
		out, err = f.describeKey(c, in)
	case *kms.CreateGrantInput:
		out, err = f.createGrant(c, in)
	case *kms.GenerateDataKeyWithoutPlaintextInput:
		rec.context, rec.bytes = in.EncryptionContext, aws.ToInt32(in.NumberOfBytes)
		out, err = f.generate(c, in)
	case *kms.DecryptInput:
		rec.context = in.EncryptionContext
		out, err = f.decrypt(c, in)
	case *kms.ReEncryptInput:
		out, err = f.reEncrypt(c, in)
	case *kms.RetireGrantInput:
		out, err = f.retire(c, in)
	case *kms.ListRetirableGrantsInput:
		out, err = f.listRetirable(c, in)
	default:
		return nil, fmt.Errorf("unexpected input %T", in)
	}
	rec.err = err
	f.calls = append(f.calls, rec)
	if derr := leave(); derr != nil {
		return nil, derr
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (f *fakeKMS) describeKey(c *api.Call, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	arn, k, err := f.find(c, *in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := f.allowed(c, kmstypes.GrantOperationDescribeKey, arn, nil); err != nil {
		return nil, err
	}
	meta := k.meta
	return &kms.DescribeKeyOutput{KeyMetadata: &meta}, nil
}

func (f *fakeKMS) createGrant(c *api.Call, in *kms.CreateGrantInput) (*kms.CreateGrantOutput, error) {
	if !strings.HasPrefix(*in.KeyId, "arn:") {
		return nil, kmsErr("InvalidArnException", "%s", *in.KeyId)
	}
	arn, k, err := f.find(c, *in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := f.allowed(c, kmstypes.GrantOperationCreateGrant, arn, nil); err != nil {
		return nil, err
	}
	if err := usable(k); err != nil {
		return nil, err
	}
	for _, g := range f.grants {
		if g.key == arn && g.name == *in.Name {
			return &kms.CreateGrantOutput{GrantId: aws.String(g.id), GrantToken: aws.String("token-" + g.id)}, nil
		}
	}
	g := &fakeGrant{id: ids.Hex("", 64), key: arn, name: *in.Name, grantee: *in.GranteePrincipal, retiring: *in.RetiringPrincipal, subset: in.Constraints.EncryptionContextSubset, ops: in.Operations}
	f.grants[g.id] = g
	return &kms.CreateGrantOutput{GrantId: aws.String(g.id), GrantToken: aws.String("token-" + g.id)}, nil
}

func (f *fakeKMS) generate(c *api.Call, in *kms.GenerateDataKeyWithoutPlaintextInput) (*kms.GenerateDataKeyWithoutPlaintextOutput, error) {
	arn, k, err := f.find(c, *in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := f.allowed(c, kmstypes.GrantOperationGenerateDataKeyWithoutPlaintext, arn, in.EncryptionContext); err != nil {
		return nil, err
	}
	if err := usable(k); err != nil {
		return nil, err
	}
	plain := make([]byte, *in.NumberOfBytes)
	_, _ = rand.Read(plain)
	return &kms.GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: f.seal(arn, in.EncryptionContext, plain), KeyId: aws.String(arn)}, nil
}

func (f *fakeKMS) seal(arn string, context map[string]string, plain []byte) []byte {
	id := ids.Hex("blob-", 32)
	f.blobs[id] = fakeBlob{arn, maps.Clone(context), bytes.Clone(plain)}
	return []byte(id)
}

func (f *fakeKMS) open(c *api.Call, op kmstypes.GrantOperation, blob []byte, context map[string]string) (fakeBlob, error) {
	b, ok := f.blobs[string(blob)]
	if !ok || !maps.Equal(b.context, context) {
		return b, kmsErr("InvalidCiphertextException", "")
	}
	if err := f.allowed(c, op, b.key, context); err != nil {
		return b, err
	}
	return b, usable(f.keys[b.key])
}

func (f *fakeKMS) decrypt(c *api.Call, in *kms.DecryptInput) (*kms.DecryptOutput, error) {
	b, err := f.open(c, kmstypes.GrantOperationDecrypt, in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &kms.DecryptOutput{Plaintext: bytes.Clone(b.plaintext), KeyId: aws.String(b.key)}, nil
}

func (f *fakeKMS) reEncrypt(c *api.Call, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	b, err := f.open(c, kmstypes.GrantOperationReEncryptFrom, in.CiphertextBlob, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	return &kms.ReEncryptOutput{CiphertextBlob: f.seal(*in.DestinationKeyId, in.DestinationEncryptionContext, b.plaintext)}, nil
}

func (f *fakeKMS) retire(c *api.Call, in *kms.RetireGrantInput) (*kms.RetireGrantOutput, error) {
	g := f.grants[*in.GrantId]
	if g == nil || g.key != *in.KeyId {
		return nil, kmsErr("NotFoundException", "Grant %s not found", *in.GrantId)
	}
	if g.retiring != c.Principal.ARN {
		return nil, kmsErr("AccessDeniedException", "%s may not retire it", c.Principal.ARN)
	}
	delete(f.grants, g.id)
	return &kms.RetireGrantOutput{}, nil
}

func (f *fakeKMS) listRetirable(c *api.Call, in *kms.ListRetirableGrantsInput) (*kms.ListRetirableGrantsOutput, error) {
	if c.Principal.ARN != *in.RetiringPrincipal || f.denied["ListRetirableGrants"] {
		return nil, kmsErr("AccessDeniedException", "not yours")
	}
	out := &kms.ListRetirableGrantsOutput{}
	for _, g := range f.grants {
		if g.retiring == *in.RetiringPrincipal {
			out.Grants = append(out.Grants, kmstypes.GrantListEntry{GrantId: aws.String(g.id), KeyId: aws.String(g.key), Name: aws.String(g.name)})
		}
	}
	return out, nil
}

// fakePlane is a working data plane in memory. Kill has it forget what is attached.
type fakePlane struct {
	m  *mortal
	mu sync.Mutex

	places  map[string]*fakePlace // by directory
	served  map[string]*fakeServed
	failing map[string]error // method → error
}

type fakePlace struct {
	Volume  string
	Key     string // hex
	Version int
	Size    int64
	Content string
}

type fakeServed struct {
	place  *fakePlace
	attach Attach
	failed string
	image  int64
}

func newFakePlane(m *mortal) *fakePlane {
	return &fakePlane{m: m, places: map[string]*fakePlace{}, served: map[string]*fakeServed{}, failing: map[string]error{}}
}

func (p *fakePlane) do(what string, f func() error) error {
	leave, err := p.m.enter("plane:" + what)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failing[what]; err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return leave()
}

func hexKey(k *secret.Bytes) string { return hex.EncodeToString(k.Expose()) }

func (pl *fakePlace) anchor() []byte {
	js, _ := json.Marshal(pl.Version)
	return js
}

func (p *fakePlane) Create(_ context.Context, v NewVolume) (anchor []byte, err error) {
	err = p.do("Create", func() error {
		if p.places[v.Dir] != nil {
			return block.ErrExists
		}
		pl := &fakePlace{Volume: v.VolumeID, Key: hexKey(v.Key), Version: 1, Size: v.Size, Content: "image:" + v.Image}
		p.places[v.Dir], anchor = pl, pl.anchor()
		return nil
	})
	return anchor, err
}

func (p *fakePlane) Attach(_ context.Context, a Attach) (anchor []byte, err error) {
	err = p.do("Attach", func() error {
		pl := p.places[a.Dir]
		switch {
		case pl == nil:
			return errors.New("no such directory")
		case pl.Key != hexKey(a.Key):
			return block.ErrKey
		case pl.Volume != a.VolumeID:
			return block.ErrCorrupt
		}
		if sv := p.served[a.VolumeID]; sv != nil {
			anchor = pl.anchor()
			return nil
		}
		var pinned int
		_ = json.Unmarshal(a.Anchor, &pinned)
		if pl.Version < pinned {
			return block.ErrRollback
		}
		pl.Version++
		a.Key = nil
		sv := &fakeServed{place: pl, attach: a}
		if a.Image != "" {
			sv.image = 1 << 20
		}
		p.served[a.VolumeID], anchor = sv, pl.anchor()
		return nil
	})
	return anchor, err
}

func (p *fakePlane) Detach(_ context.Context, id string) (anchor []byte, err error) {
	err = p.do("Detach", func() error {
		sv := p.served[id]
		if sv == nil {
			return ErrNotServed
		}
		sv.place.Version++
		anchor = sv.place.anchor()
		delete(p.served, id)
		return nil
	})
	return anchor, err
}

func (p *fakePlane) Served(context.Context) ([]Served, error) {
	p.m.mu.Lock()
	dead := p.m.dead
	p.m.mu.Unlock()
	if dead {
		return nil, errDead
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failing["Served"]; err != nil {
		return nil, err
	}
	var out []Served
	for id, sv := range p.served {
		out = append(out, Served{VolumeID: id, Socket: sv.attach.Socket, Anchor: sv.place.anchor(), Failed: sv.failed, ImageBytes: sv.image, ImageTotal: sv.image})
	}
	return out, nil
}

func (p *fakePlane) Destroy(_ context.Context, id, dir string) error {
	return p.do("Destroy", func() error {
		if p.served[id] != nil {
			return errors.New("volume is attached")
		}
		delete(p.places, dir)
		return nil
	})
}

func (p *fakePlane) Grow(_ context.Context, g Growth) (anchor []byte, err error) {
	err = p.do("Grow", func() error {
		pl := p.places[g.Dir]
		if g.Key != nil && pl.Key != hexKey(g.Key) {
			return block.ErrKey
		}
		pl.Size = g.Size
		pl.Version++
		anchor = pl.anchor()
		return nil
	})
	return anchor, err
}

func (p *fakePlane) Snapshot(_ context.Context, s Snapshot) (k Kept, err error) {
	err = p.do("Snapshot", func() error {
		pl := p.places[s.VolumeDir]
		if s.Key != nil && pl.Key != hexKey(s.Key) {
			return block.ErrKey
		}
		c := *pl
		c.Volume = s.SnapshotID
		p.places[s.Dir] = &c
		k.Bytes = 4096
		return nil
	})
	return k, err
}

func (p *fakePlane) SnapshotSet(ctx context.Context, set []Snapshot) (ks []Kept, err error) {
	for _, s := range set {
		k, err := p.Snapshot(ctx, s)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	return ks, nil
}

func (p *fakePlane) Restore(_ context.Context, r Restore) (anchor []byte, err error) {
	err = p.do("Restore", func() error {
		from := p.places[r.SnapshotDir]
		switch {
		case from == nil:
			return errors.New("the snapshot has no data")
		case from.Key != hexKey(r.SnapshotKey):
			return block.ErrKey
		case p.places[r.Dir] != nil:
			return block.ErrExists
		}
		pl := &fakePlace{Volume: r.VolumeID, Key: hexKey(r.Key), Version: 1, Size: r.Size, Content: from.Content}
		p.places[r.Dir], anchor = pl, pl.anchor()
		return nil
	})
	return anchor, err
}

// kill is a kill -9 of the data plane, and its restart.
func (p *fakePlane) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served = map[string]*fakeServed{}
}

// env is a service over a store, with the fakes.
type env struct {
	*testing.T
	s     *Service
	store *store.Store
	kms   *fakeKMS
	plane *fakePlane
	clock *clock.Manual
	dir   string
	ops   map[string]api.Operation
	root  keyring.Root
	conf  func(*Config)
}

func newEnv(t *testing.T, conf func(*Config)) *env {
	t.Helper()
	f := newFakeKMS(t)
	e := &env{T: t, kms: f, plane: newFakePlane(f.m), clock: clock.NewManual(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)), dir: t.TempDir(), conf: conf}
	root, err := keyring.OpenFile(e.dir + "/root.key")
	if err != nil {
		t.Fatal(err)
	}
	e.root = root
	e.start()
	t.Cleanup(func() { _ = e.store.Close() })
	return e
}

func (e *env) start() {
	e.Helper()
	st, err := store.Open(context.Background(), store.Config{DataDir: e.dir, Unsynced: true})
	if err != nil {
		e.Fatal(err)
	}
	cfg := Config{Store: st, Clock: e.clock, Root: e.root, Caller: e.kms, Plane: e.plane, VolumeDir: e.dir + "/volumes", SocketDir: "/run/sealdesk-test"}
	if e.conf != nil {
		e.conf(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		e.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		e.Fatal(err)
	}
	e.s, e.store = s, st
	e.ops = map[string]api.Operation{}
	for _, o := range s.Operations() {
		e.ops[o.Name] = o
	}
}

// restart is a kill -9 of the control plane, and its restart.
func (e *env) restart() {
	e.Helper()
	if err := e.store.Close(); err != nil {
		e.Fatal(err)
	}
	e.kms.m.mu.Lock()
	e.kms.m.dead, e.kms.m.at = false, 0
	e.kms.m.mu.Unlock()
	e.start()
}

func (e *env) person() *api.Call {
	return &api.Call{RequestID: ids.UUID(), Time: e.clock.Now(), Region: region, Account: account,
		Principal: api.Principal{Type: api.IAMUser, Account: account, ARN: "arn:aws:iam::" + account + ":user/admin", UserName: "admin"}}
}

func (e *env) workspaces() *api.Call {
	return api.ServiceCall("workspaces", account, region, e.clock.Now())
}

// do runs an operation as the gateway would, without deciding on its targets.
func (e *env) do(c *api.Call, name string, in any) (any, error) {
	o, ok := e.ops[name]
	if !ok {
		return nil, fmt.Errorf("operation %s is not registered", name)
	}
	ctx := context.Background()
	if o.Targets != nil {
		ts, err := o.Targets(ctx, e.store.Snapshot(), c, in)
		if err != nil {
			return nil, err
		}
		for _, t := range ts {
			if !strings.HasPrefix(t.ARN, "arn:aws:") && t.ARN != "*" {
				return nil, fmt.Errorf("%s: target %q is no ARN", name, t.ARN)
			}
		}
	}
	switch o.Kind {
	case api.Update:
		var out any
		err := e.store.Update(ctx, func(tx *store.Tx) (err error) { out, err = o.Run(ctx, tx, c, in); return err })
		return out, err
	case api.View:
		return o.Run(ctx, e.store.Snapshot(), c, in)
	}
	return o.Run(ctx, nil, c, in)
}

func call[Out any](e *env, c *api.Call, name string, in any) (*Out, error) {
	out, err := e.do(c, name, in)
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

// must is call that may not fail.
func must[Out any](e *env, name string, in any) *Out {
	e.Helper()
	out, err := call[Out](e, e.person(), name, in)
	if err != nil {
		e.Fatalf("%s(%+v): %v", name, in, err)
	}
	return out
}

// refused checks that a call fails with the code, and a message that contains text.
func (e *env) refused(c *api.Call, name string, in any, code, text string) {
	e.Helper()
	_, err := e.do(c, name, in)
	var ae smithy.APIError
	if !errors.As(err, &ae) || ae.ErrorCode() != code || !strings.Contains(ae.ErrorMessage(), text) {
		e.Errorf("%s = %v, want %s with %q", name, err, code, text)
	}
}

func (e *env) volume(id string) *volume {
	return e.s.volumes.Get(e.store.Snapshot(), key(account, region, id))
}

func (e *env) instance() string {
	e.Helper()
	out := must[ec2.DescribeInstancesOutput](e, "DescribeInstances", &ec2.DescribeInstancesInput{})
	return *out.Reservations[0].Instances[0].InstanceId
}

// empty checks that nothing is left of any volume or snapshot: no record, no client
// token, no grant, no place on disk, nothing served.
func (e *env) empty(when string) {
	e.Helper()
	tx := e.store.Snapshot()
	if n := e.s.volumes.Len(tx); n != 0 {
		e.Errorf("%s: %d volume records are left, want 0", when, n)
	}
	if n := e.s.tokens.Len(tx); n != 0 {
		e.Errorf("%s: %d client tokens are left, want 0", when, n)
	}
	if n := e.s.snapshots.Len(tx); n != 0 {
		e.Errorf("%s: %d snapshot records are left, want 0", when, n)
	}
	if g := e.kms.grantList(); len(g) != 0 {
		e.Errorf("%s: %d grants are left, want 0: %+v", when, len(g), *g[0])
	}
	e.plane.mu.Lock()
	defer e.plane.mu.Unlock()
	if len(e.plane.places) != 0 || len(e.plane.served) != 0 {
		e.Errorf("%s: the data plane has %d places and serves %d volumes, want none", when, len(e.plane.places), len(e.plane.served))
	}
}
