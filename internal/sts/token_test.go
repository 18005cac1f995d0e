package sts

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

const account = "111122223333"

// people is a Directory of one user, who may leave.
type people struct{ gone bool }

func (d *people) Role(*store.Tx, string) (*api.Role, error) { return nil, nil }
func (d *people) Refresh(_ *store.Tx, p *api.Principal) bool {
	p.Tags = map[string]string{"fresh": "yes"}
	return !d.gone
}
func (d *people) CheckMFA(_ *store.Tx, _ *api.Principal, _, code string) (bool, error) {
	return code == "123456", nil
}
func (d *people) OIDCProvider(*store.Tx, string, string) *api.IdentityProvider { return nil }
func (d *people) SAMLProvider(*store.Tx, string, string) *api.IdentityProvider { return nil }
func (d *people) AccountOfKey(*store.Tx, string) (string, bool)                { return "", false }
func (d *people) ManagedPolicyExists(_ *store.Tx, _ string, arn string) bool {
	return strings.Contains(arn, "/Known")
}

type env struct {
	*Service
	people *people
	clock  *clock.Manual
	st     *store.Store
	dir    string
	stop   func()
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{people: &people{}, clock: clock.NewManual(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)), dir: t.TempDir()}
	st, err := store.Open(context.Background(), store.Config{DataDir: e.dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	e.stop = sync.OnceFunc(func() { st.Close() })
	t.Cleanup(e.stop)
	root, err := keyring.OpenFile(filepath.Join(e.dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Service, err = New(Config{Store: st, Clock: e.clock, Root: root, IAM: e.people}); err != nil {
		t.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	e.st = st
	return e
}

func (e *env) call() *api.Call {
	return &api.Call{Time: e.clock.Now(), Region: "us-east-1", Account: account,
		Principal: api.Principal{Type: api.IAMUser, Account: account, ARN: "arn:aws:iam::" + account + ":user/bob", ID: "AIDABOB", UserName: "bob", AccessKeyID: "AKIABOB"}}
}

// session makes a session as GetSessionToken does.
func (e *env) session(t *testing.T, in *sts.GetSessionTokenInput) *types.Credentials {
	t.Helper()
	var out *sts.GetSessionTokenOutput
	if err := e.st.Update(context.Background(), func(tx *store.Tx) error {
		var err error
		out, err = e.getSessionToken(context.Background(), tx, e.call(), in)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out.Credentials
}

func (e *env) check(cr *types.Credentials) error {
	_, err := e.Credential(context.Background(), *cr.AccessKeyId, *cr.SessionToken, e.clock.Now())
	return err
}

func TestSessionLife(t *testing.T) {
	e := newEnv(t)
	cr := e.session(t, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(900)})
	cred, err := e.Credential(context.Background(), *cr.AccessKeyId, *cr.SessionToken, e.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if string(cred.SecretAccessKey.Expose()) != *cr.SecretAccessKey || cred.Principal.UserName != "bob" || cred.Principal.AccessKeyID != *cr.AccessKeyId ||
		!cred.Principal.SessionIssued.Equal(e.clock.Now()) || cred.Principal.Tags["fresh"] != "yes" {
		t.Errorf("credential = %+v", cred.Principal)
	}
	other := e.session(t, &sts.GetSessionTokenInput{})
	for what, tt := range map[string]struct {
		id, token string
		want      error
	}{
		"no token":           {*cr.AccessKeyId, "", api.ErrUnknownAccessKey},
		"another's token":    {*cr.AccessKeyId, *other.SessionToken, api.ErrInvalidToken},
		"another's key":      {*other.AccessKeyId, *cr.SessionToken, api.ErrInvalidToken},
		"no base64":          {*cr.AccessKeyId, "%%%", api.ErrInvalidToken},
		"short":              {*cr.AccessKeyId, "AQID", api.ErrInvalidToken},
		"longer than tokens": {*cr.AccessKeyId, strings.Repeat("A", maxToken+4), api.ErrInvalidToken},
	} {
		if _, err := e.Credential(context.Background(), tt.id, tt.token, e.clock.Now()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
	}
	e.clock.Advance(899 * time.Second)
	if err := e.check(cr); err != nil {
		t.Errorf("a second before its expiry: %v", err)
	}
	e.clock.Advance(time.Second)
	if err := e.check(cr); !errors.Is(err, api.ErrExpiredToken) {
		t.Errorf("at its expiry: %v, want ErrExpiredToken", err)
	}
	if err := e.check(other); err != nil {
		t.Errorf("a session of 12 hours: %v", err)
	}
	e.people.gone = true
	if err := e.check(other); !errors.Is(err, api.ErrInvalidToken) {
		t.Errorf("after the user is gone: %v, want ErrInvalidToken", err)
	}
}

// TestTampering flips every byte of a token; none of the results opens.
func TestTampering(t *testing.T) {
	e := newEnv(t)
	cr := e.session(t, &sts.GetSessionTokenInput{})
	raw, err := base64.StdEncoding.DecodeString(*cr.SessionToken)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := append([]byte(nil), raw...)
		bad[i] ^= 1 << (i % 8)
		_, err := e.Credential(context.Background(), *cr.AccessKeyId, base64.StdEncoding.EncodeToString(bad), e.clock.Now())
		if !errors.Is(err, api.ErrInvalidToken) {
			t.Fatalf("byte %d of %d flipped: %v, want ErrInvalidToken", i, len(raw), err)
		}
	}
	for _, n := range []int{0, 1, headSize, len(raw) - 1} {
		_, err := e.Credential(context.Background(), *cr.AccessKeyId, base64.StdEncoding.EncodeToString(raw[:n]), e.clock.Now())
		if n == 0 && errors.Is(err, api.ErrUnknownAccessKey) {
			continue
		}
		if !errors.Is(err, api.ErrInvalidToken) {
			t.Errorf("cut to %d bytes: %v, want ErrInvalidToken", n, err)
		}
	}
	// A token sealed as something else is no session.
	var msg string
	if err := e.st.Update(context.Background(), func(tx *store.Tx) error {
		var err error
		msg, err = e.EncodeAuthorizationMessage(tx, map[string]string{"allowed": "false"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Credential(context.Background(), *cr.AccessKeyId, msg, e.clock.Now()); !errors.Is(err, api.ErrInvalidToken) {
		t.Errorf("an authorization message as session token: %v, want ErrInvalidToken", err)
	}
	out, err := e.decodeAuthorizationMessage(context.Background(), e.st.Snapshot(), e.call(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: &msg})
	if err != nil || *out.DecodedMessage != `{"allowed":"false"}` {
		t.Errorf("DecodeAuthorizationMessage = %v, %v", out, err)
	}
	var invalid *types.InvalidAuthorizationMessageException
	if _, err := e.decodeAuthorizationMessage(context.Background(), e.st.Snapshot(), e.call(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: cr.SessionToken}); !errors.As(err, &invalid) {
		t.Errorf("a session token as message: %v, want InvalidAuthorizationMessageException", err)
	}
}

// TestAnotherNode: a second service over the same store opens the tokens, one
// with another root key does not.
func TestAnotherNode(t *testing.T) {
	e := newEnv(t)
	cr := e.session(t, &sts.GetSessionTokenInput{})
	second := &Service{store: e.st, clock: e.clock, root: e.root, iam: e.people, sealKeys: e.sealKeys, sessions: map[[32]byte]*live{}}
	if _, err := second.Credential(context.Background(), *cr.AccessKeyId, *cr.SessionToken, e.clock.Now()); err != nil {
		t.Errorf("another node: %v", err)
	}
	foreign, err := keyring.OpenFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	third := &Service{store: e.st, clock: e.clock, root: foreign, iam: e.people, sealKeys: e.sealKeys, sessions: map[[32]byte]*live{}}
	if _, err := third.Credential(context.Background(), *cr.AccessKeyId, *cr.SessionToken, e.clock.Now()); err == nil {
		t.Error("a node with another root key opens the token")
	}
}

func TestSealKeysRotate(t *testing.T) {
	e := newEnv(t)
	count := func() int { return e.sealKeys.Len(e.st.Snapshot()) }
	e.session(t, &sts.GetSessionTokenInput{})
	e.clock.Advance(rotateAfter - time.Hour)
	late := e.session(t, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(maxUserDuration)})
	if n := count(); n != 1 {
		t.Fatalf("%d sealing keys before rotation, want 1", n)
	}
	e.clock.Advance(time.Hour)
	e.session(t, &sts.GetSessionTokenInput{})
	if n := count(); n != 2 {
		t.Errorf("%d sealing keys after 30 days, want 2", n)
	}
	if err := e.check(late); err != nil {
		t.Errorf("a session sealed by the old key: %v", err)
	}
	e.clock.Advance(2*rotateAfter + keepFor)
	e.session(t, &sts.GetSessionTokenInput{})
	if n := count(); n != 1 {
		t.Errorf("%d sealing keys when the old ones are of no use, want 1", n)
	}
}

func TestTokenSizes(t *testing.T) {
	e := newEnv(t)
	for _, want := range []int32{0, 1, 1000, 2048, 4096} {
		cr := e.session(t, &sts.GetSessionTokenInput{MinimumSessionTokenSize: &want})
		if n := len(*cr.SessionToken); n < int(want) || n > maxToken {
			t.Errorf("MinimumSessionTokenSize %d: the token has %d characters", want, n)
		}
		if err := e.check(cr); err != nil {
			t.Errorf("a padded token: %v", err)
		}
	}
}

func TestScope(t *testing.T) {
	e := newEnv(t)
	doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}`
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	var many []types.Tag
	for i := range 51 {
		many = append(many, tag(strings.Repeat("k", i+1), "v"))
	}
	long := strings.Repeat(" ", 2048) + doc
	for _, tt := range []struct {
		name   string
		policy *string
		arns   []string
		tags   []types.Tag
		want   string
	}{
		{"good", &doc, []string{"arn:aws:iam::aws:policy/Known"}, []types.Tag{tag("a", "b")}, ""},
		{"nothing", nil, nil, nil, ""},
		{"bad policy", aws.String("{"), nil, nil, "Syntax errors in policy."},
		{"principal", aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}`), nil, nil, "should not specify a principal"},
		{"unknown policy", nil, []string{"arn:aws:iam::aws:policy/Other"}, nil, "does not exist"},
		{"too many policies", nil, strings.Split(strings.Repeat("arn:aws:iam::aws:policy/Known ", 11), " ")[:11], nil, "at most 10"},
		{"too long", &long, nil, nil, "Packed size"},
		{"too many tags", nil, nil, many, "at most 50"},
		{"twice", nil, nil, []types.Tag{tag("a", "1"), tag("A", "2")}, "Duplicate tag keys"},
		{"reserved", nil, nil, []types.Tag{tag("aws:x", "1")}, "reserved"},
	} {
		var arns []types.PolicyDescriptorType
		for _, a := range tt.arns {
			arns = append(arns, types.PolicyDescriptorType{Arn: aws.String(a)})
		}
		sc, err := e.newScope(e.st.Snapshot(), account, tt.policy, arns, tt.tags)
		switch {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		case tt.name == "good" && (sc.percent < 1 || sc.percent > 100), tt.name == "nothing" && sc.packedSize() != nil:
			t.Errorf("%s: packed size %d%%", tt.name, sc.percent)
		}
	}
}

// TestNoSecretAtRest: the store holds neither the token nor the secret.
func TestNoSecretAtRest(t *testing.T) {
	e := newEnv(t)
	cr := e.session(t, &sts.GetSessionTokenInput{})
	var key string
	e.opened.Range(func(_, v any) bool {
		key = string(v.(interface{ Expose() []byte }).Expose())
		return false
	})
	e.stop() // so that all of it is in the files
	seen := false
	err := filepath.WalkDir(filepath.Join(e.dir, "etcd"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		seen = seen || strings.Contains(string(b), "sts/seal-key")
		for what, s := range map[string]string{"secret": *cr.SecretAccessKey, "token": *cr.SessionToken, "sealing key": key} {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds the %s", path, what)
			}
		}
		return err
	})
	if err != nil || !seen {
		t.Errorf("sealing key record seen: %v, err %v: the test looks in the wrong place", seen, err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("")
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, headSize+tagSize)))
	f.Add(base64.StdEncoding.EncodeToString(append([]byte{tokenVersion}, make([]byte, 200)...)))
	st, err := store.Open(context.Background(), store.Config{DataDir: f.TempDir(), Unsynced: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	root, err := keyring.OpenFile(filepath.Join(f.TempDir(), "root.key"))
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Config{Store: st, Root: root, IAM: &people{}})
	if err != nil {
		f.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.Credential(context.Background(), "ASIAX", token, time.Now()); err == nil {
			t.Errorf("Credential accepts %q", token)
		}
	})
}

func BenchmarkCredential(b *testing.B) {
	st, _ := store.Open(context.Background(), store.Config{DataDir: b.TempDir(), Unsynced: true})
	defer st.Close()
	root, _ := keyring.OpenFile(filepath.Join(b.TempDir(), "root.key"))
	s, err := New(Config{Store: st, Root: root, IAM: &people{}})
	if err != nil {
		b.Fatal(err)
	}
	if err := st.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	e := &env{Service: s, st: st, clock: clock.NewManual(time.Now())}
	var out *sts.GetSessionTokenOutput
	if err := st.Update(context.Background(), func(tx *store.Tx) error {
		out, err = s.getSessionToken(context.Background(), tx, e.call(), &sts.GetSessionTokenInput{})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	for _, cached := range []bool{true, false} {
		b.Run(map[bool]string{true: "seen", false: "new"}[cached], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !cached {
					clear(s.sessions)
				}
				if _, err := s.Credential(context.Background(), *out.Credentials.AccessKeyId, *out.Credentials.SessionToken, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
