package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// idp is an OpenID Connect provider.
type idp struct {
	*httptest.Server
	t     *testing.T
	key   *rsa.PrivateKey
	set   jose.JSONWebKeySet
	asked int
	bad   string // what it answers instead of its configuration
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{t: t, key: key, set: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k1", Algorithm: "RS256", Use: "sig"}}}}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked++
		switch {
		case r.URL.Path == "/.well-known/openid-configuration" && p.bad != "":
			_, _ = w.Write([]byte(p.bad))
		case r.URL.Path == "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.URL, "jwks_uri": p.URL + "/keys"})
		case r.URL.Path == "/keys":
			_ = json.NewEncoder(w).Encode(p.set)
		default:
			http.NotFound(w, r)
		}
	}))
	p.Config.ErrorLog = nil
	t.Cleanup(p.Close)
	return p
}

func (p *idp) host() string { return strings.TrimPrefix(p.URL, "https://") }

func (p *idp) thumbprint() string {
	sum := sha1.Sum(p.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// claims are those of a good token, with some replaced; nil takes one away.
func (p *idp) claims(other map[string]any) map[string]any {
	c := map[string]any{"iss": p.URL, "sub": "repo:desk/main", "aud": "sts.amazonaws.com", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range other {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func (p *idp) token(other map[string]any) string {
	return sign(p.t, jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: p.key, KeyID: "k1"}}, p.claims(other))
}

func sign(t *testing.T, k jose.SigningKey, claims any) string {
	t.Helper()
	s, err := jose.NewSigner(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(claims)
	sig, err := s.Sign(body)
	if err != nil {
		t.Fatal(err)
	}
	out, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	w := newWorld(t)
	p := newIDP(t)
	created, err := w.IAM().CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &p.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{p.thumbprint()}})
	w.must(err)
	arn := *created.OpenIDConnectProviderArn
	trust := func(condition string) string {
		return `{"Effect":"Allow","Principal":{"Federated":"` + arn + `"},"Action":["sts:AssumeRoleWithWebIdentity","sts:TagSession"],"Condition":` + condition + `}`
	}
	role := w.role("ci", trust(`{"StringEquals":{"`+p.host()+`:aud":"sts.amazonaws.com"},"StringLike":{"`+p.host()+`:sub":"repo:desk/*"}}`), allow(`"kms:CreateKey"`, "*"))
	anybody := w.STS(aws.AnonymousCredentials{})
	assume := func(role, token string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return anybody.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("run-7"), WebIdentityToken: &token})
	}
	out, err := assume(role, p.token(nil))
	w.must(err)
	if *out.SubjectFromWebIdentityToken != "repo:desk/main" || *out.Audience != "sts.amazonaws.com" || *out.Provider != arn || *out.AssumedRoleUser.Arn != "arn:aws:sts::"+apptest.Account+":assumed-role/ci/run-7" || out.PackedPolicySize != nil {
		t.Errorf("AssumeRoleWithWebIdentity = %s %s %s %s %v", *out.SubjectFromWebIdentityToken, *out.Audience, *out.Provider, *out.AssumedRoleUser.Arn, out.PackedPolicySize)
	}
	creds := temporary(out.Credentials)
	id, err := w.STS(creds).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	w.must(err)
	if *id.Arn != *out.AssumedRoleUser.Arn {
		t.Errorf("the session is %s, want %s", *id.Arn, *out.AssumedRoleUser.Arn)
	}
	_, err = w.KMS(creds).CreateKey(ctx, &kms.CreateKeyInput{})
	w.must(err)
	if _, err = w.KMS(creds).ListKeys(ctx, &kms.ListKeysInput{}); err == nil {
		t.Error("the session may ListKeys, which the role may not")
	}
	asked := p.asked
	_, err = assume(role, p.token(nil))
	w.must(err)
	if p.asked != asked {
		t.Errorf("the provider was asked %d times more for keys that are known", p.asked-asked)
	}

	other := w.role("other", trust(`{"StringEquals":{"`+p.host()+`:sub":"repo:else/main"}}`), "")
	plain := w.role("plain", `{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}`, "")
	_, err = assume(other, p.token(nil))
	fails(t, "another subject", err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	_, err = assume(plain, p.token(nil))
	fails(t, "a role for a service", err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	_, err = assume(strings.Replace(role, "role/ci", "role/none", 1), p.token(nil))
	fails(t, "no role", err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	_, err = assume("arn:aws:iam::"+apptest.Account+":user/x", p.token(nil))
	fails(t, "no role's ARN", err, "ValidationError", "is invalid")

	ours, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	parts := strings.Split(p.token(nil), ".")
	forged := strings.Split(p.token(map[string]any{"sub": "repo:desk/forged"}), ".")
	for _, tt := range []struct{ what, token, code, text string }{
		{"no token", "abcd", "InvalidIdentityToken", "not a valid JWT"},
		{"the none algorithm", "eyJhbGciOiJub25lIn0." + parts[1] + ".", "InvalidIdentityToken", "not a valid JWT"},
		{"a shared secret", sign(t, jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("k", 32))}, p.claims(nil)), "InvalidIdentityToken", "not a valid JWT"},
		{"another's key", sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: ours, KeyID: "k1"}}, p.claims(nil)), "InvalidIdentityToken", "signature"},
		{"changed claims", parts[0] + "." + forged[1] + "." + parts[2], "InvalidIdentityToken", "signature"},
		{"another issuer", p.token(map[string]any{"iss": "https://other.example.com"}), "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://other.example.com"},
		{"another audience", p.token(map[string]any{"aud": "x"}), "InvalidIdentityToken", "Incorrect token audience"},
		{"another party", p.token(map[string]any{"azp": "x"}), "InvalidIdentityToken", "Incorrect token audience"},
		{"no subject", p.token(map[string]any{"sub": nil}), "InvalidIdentityToken", "Missing a required claim: sub"},
		{"no expiry", p.token(map[string]any{"exp": nil}), "InvalidIdentityToken", "Missing a required claim: exp"},
		{"expired", p.token(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), "ExpiredTokenException", "Token expired"},
		{"not yet", p.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "InvalidIdentityToken", "not yet valid"},
	} {
		_, err := assume(role, tt.token)
		fails(t, tt.what, err, tt.code, tt.text)
	}

	// Tags and source identity come with the token; the trust policy must allow each.
	tagged := map[string]any{"https://aws.amazon.com/tags": map[string]any{"principal_tags": map[string]any{"team": []string{"desk"}}, "transitive_tag_keys": []string{"team"}}}
	w.role("tags", trust(`{"StringEquals":{"aws:RequestTag/team":"desk"}}`), "")
	_, err = assume(strings.Replace(role, "role/ci", "role/tags", 1), p.token(tagged))
	w.must(err)
	tagged["https://aws.amazon.com/source_identity"] = "jane"
	_, err = assume(strings.Replace(role, "role/ci", "role/tags", 1), p.token(tagged))
	fails(t, "a source identity", err, "AccessDenied", "Not authorized to perform sts:SetSourceIdentity")

	// The account's record names whom the token is about, and not the token.
	// It is where those of the global endpoint are: no signature names a region.
	events, err := w.CloudTrail().LookupEvents(ctx, &cloudtrail.LookupEventsInput{}, func(o *cloudtrail.Options) { o.Region = "us-east-1" })
	w.must(err)
	good, bad := 0, 0
	for _, e := range events.Events {
		if *e.EventName != "AssumeRoleWithWebIdentity" {
			continue
		}
		if strings.Contains(*e.CloudTrailEvent, parts[2]) {
			t.Error("a record shows a token")
		}
		if strings.Contains(*e.CloudTrailEvent, `"type":"WebIdentityUser"`) && strings.Contains(*e.CloudTrailEvent, `"userName":"repo:desk/main"`) {
			good++
		} else if strings.Contains(*e.CloudTrailEvent, `"errorCode"`) {
			bad++
		}
	}
	if good != 3 || bad == 0 {
		t.Errorf("%d records of sessions and %d of refusals, want 3 and some", good, bad)
	}
}

// TestProviderKeys: how the provider's keys are come by.
func TestProviderKeys(t *testing.T) {
	w := newWorld(t)
	anybody := w.STS(aws.AnonymousCredentials{})
	try := func(p *idp, thumbprint string) error {
		t.Helper()
		created, err := w.IAM().CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &p.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{thumbprint}})
		w.must(err)
		role := w.role("r"+p.host()[strings.LastIndexByte(p.host(), ':')+1:], `{"Effect":"Allow","Principal":{"Federated":"`+*created.OpenIDConnectProviderArn+`"},"Action":"sts:AssumeRoleWithWebIdentity"}`, "")
		token := p.token(nil)
		_, err = anybody.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("xx"), WebIdentityToken: &token}, func(o *sts.Options) { o.Retryer = aws.NopRetryer{} })
		return err
	}
	p := newIDP(t)
	fails(t, "another thumbprint", try(p, strings.Repeat("0", 40)), "InvalidIdentityToken", "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint")
	p = newIDP(t)
	p.bad = "{"
	fails(t, "no configuration", try(p, p.thumbprint()), "InvalidIdentityToken", "Couldn't retrieve verification key")
	p = newIDP(t)
	p.bad = `{"issuer":"` + p.URL + `","jwks_uri":"http://` + p.host() + `/keys"}`
	fails(t, "keys in the clear", try(p, p.thumbprint()), "InvalidIdentityToken", "Couldn't retrieve verification key")
	p = newIDP(t)
	p.bad = `{"issuer":"https://else.example.com","jwks_uri":"` + p.URL + `/keys"}`
	fails(t, "another's configuration", try(p, p.thumbprint()), "InvalidIdentityToken", "is not that of the token")
	p = newIDP(t)
	p.set.Keys[0].KeyID = "k2"
	fails(t, "no such key", try(p, p.thumbprint()), "InvalidIdentityToken", "signature")
	p = newIDP(t)
	thumbprint := p.thumbprint()
	p.Close()
	fails(t, "nobody there", try(p, thumbprint), "IDPCommunicationError", "could not be reached")
}

// TestSilentProvider: a provider that takes calls and does not answer is asked once, whatever
// number of forged tokens comes, and everybody is told the same.
func TestSilentProvider(t *testing.T) {
	w := newWorld(t)
	var asked atomic.Int32
	release := make(chan struct{})
	silent := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-release
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer silent.Close()
	p := newIDP(t)
	p.URL = silent.URL
	sum := sha1.Sum(silent.Certificate().Raw)
	created, err := w.IAM().CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &p.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{hex.EncodeToString(sum[:])}})
	w.must(err)
	role := w.role("silent", `{"Effect":"Allow","Principal":{"Federated":"`+*created.OpenIDConnectProviderArn+`"},"Action":"sts:AssumeRoleWithWebIdentity"}`, "")
	forged := p.token(nil)
	anybody := w.STS(aws.AnonymousCredentials{})
	try := func() error {
		_, err := anybody.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("xx"), WebIdentityToken: &forged}, func(o *sts.Options) { o.Retryer = aws.NopRetryer{} })
		return err
	}
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- try() }()
	}
	time.Sleep(300 * time.Millisecond) // for a second question to come, if one did
	close(release)
	for range cap(errs) {
		fails(t, "a silent provider", <-errs, "IDPCommunicationError", "could not be reached")
	}
	fails(t, "a provider that was silent just now", try(), "IDPCommunicationError", "could not be reached")
	if n := asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times, want once", n)
	}
}
