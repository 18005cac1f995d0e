package sts

import (
	"context"
	"crypto/sha1" //nolint:gosec // the form of IAM's thumbprints
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sealdesk/sealdesk/internal/api"
)

// This file is what an OpenID Connect provider vouches for: ID tokens, and the
// keys they are signed with, which are fetched from the provider.
// Sources: OpenID Connect Core 1.0, section 3.1.3.7; Discovery 1.0, section 4;
// IAM User Guide, "Create an OpenID Connect (OIDC) identity provider in IAM".

// idToken are the claims of a token that matter here.
type idToken struct {
	Issuer   string    `json:"iss"`
	Subject  string    `json:"sub"`
	Audience audience  `json:"aud"`
	Party    string    `json:"azp"`
	Methods  audience  `json:"amr"`
	Expires  *unixTime `json:"exp"`
	Issued   *unixTime `json:"iat"`
	Before   *unixTime `json:"nbf"`

	// Session tags and source identity, by IAM's names for them.
	Tags struct {
		Principal  map[string]audience `json:"principal_tags"`
		Transitive []string            `json:"transitive_tag_keys"`
	} `json:"https://aws.amazon.com/tags"`
	SourceIdentity string `json:"https://aws.amazon.com/source_identity"`
}

// audience is one string or a list of them.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// unixTime is a NumericDate of RFC 7519: seconds, perhaps with a fraction.
type unixTime struct{ time.Time }

func (t *unixTime) UnmarshalJSON(b []byte) error {
	var s float64
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s < 0 || s > 1<<40 {
		return errors.New("a time out of range")
	}
	t.Time = time.Unix(int64(s), 0).UTC()
	return nil
}

// algorithms are those a token may be signed with: no shared secrets, no "none".
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// parseIDToken takes a token apart. Nothing in it is to be believed before
// (*jose.JSONWebSignature).Verify agrees.
func parseIDToken(text string) (*jose.JSONWebSignature, *idToken, error) {
	sig, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil {
		return nil, nil, err
	}
	var t idToken
	if err := json.Unmarshal(sig.UnsafePayloadWithoutVerification(), &t); err != nil {
		return nil, nil, err
	}
	return sig, &t, nil
}

// skew is how far a provider's clock may be ahead.
const skew = 5 * time.Minute

// check holds the claims against the provider and the time.
func (t *idToken) check(p *api.IdentityProvider, now time.Time) error {
	switch {
	case t.Subject == "":
		return invalidIdentity("Missing a required claim: sub")
	case t.Expires == nil:
		return invalidIdentity("Missing a required claim: exp")
	case t.Issued == nil:
		return invalidIdentity("Missing a required claim: iat")
	case len(t.Audience) == 0:
		return invalidIdentity("Missing a required claim: aud")
	case !now.Before(t.Expires.Time):
		return expiredToken("Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), t.Expires.Unix())
	case t.Issued.After(now.Add(skew)), t.Before != nil && t.Before.After(now.Add(skew)):
		return invalidIdentity("Token is not yet valid: current date/time %d", now.Unix())
	}
	for _, a := range t.audiences() {
		if slices.Contains(p.ClientIDs, a) {
			return nil
		}
	}
	return invalidIdentity("Incorrect token audience")
}

// audiences are whom the token is for: the authorized party when there is one.
func (t *idToken) audiences() []string {
	if t.Party != "" {
		return []string{t.Party}
	}
	return t.Audience
}

// keys are the condition keys that a provider's token gives a trust policy.
// Source: IAM User Guide, "Available keys for AWS OIDC federation".
func (t *idToken) keys(p *api.IdentityProvider) map[string][]string {
	k := map[string][]string{"aws:FederatedProvider": {p.ARN}}
	issuer := strings.TrimPrefix(t.Issuer, "https://")
	for _, name := range []string{p.Name, issuer} { // with and without a slash at the end
		k[name+":aud"], k[name+":sub"] = t.audiences(), []string{t.Subject}
		if t.Party != "" {
			k[name+":oaud"] = t.Audience
		}
		if len(t.Methods) > 0 {
			k[name+":amr"] = t.Methods
		}
	}
	return k
}

// verify checks the token's signature with the provider's keys.
func (s *Service) verify(ctx context.Context, p *api.IdentityProvider, issuer string, sig *jose.JSONWebSignature) error {
	id := issuer + " " + strings.Join(p.Thumbprints, " ")
	for _, least := range []time.Duration{keySetAge, keySetRetry} {
		keys, err := s.idps.get(ctx, id, least, func(ctx context.Context) (*jose.JSONWebKeySet, error) { return fetchKeys(ctx, p, issuer) })
		if err != nil {
			return err
		}
		for _, k := range keys.Keys {
			if kid := sig.Signatures[0].Header.KeyID; kid != "" && k.KeyID != kid || k.Use == "enc" || !k.IsPublic() {
				continue
			}
			if _, err := sig.Verify(k); err == nil {
				return nil
			}
		}
	}
	return invalidIdentity("The ID Token's signature is not by a key of its issuer, or it was changed.")
}

// fetchKeys asks the issuer where its keys are, and there for the keys.
func fetchKeys(ctx context.Context, p *api.IdentityProvider, issuer string) (*jose.JSONWebKeySet, error) {
	client := providerClient(p.Thumbprints)
	defer client.CloseIdleConnections()
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := fetch(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != issuer {
		return nil, invalidIdentity("The issuer in the provider's OpenID configuration, %s, is not that of the token.", discovery.Issuer)
	}
	set := &jose.JSONWebKeySet{}
	if err := fetch(ctx, client, discovery.Keys, set); err != nil {
		return nil, err
	}
	return set, nil
}

// errThumbprint is a server whose certificate neither a CA of this host nor a
// thumbprint of the provider vouches for.
var errThumbprint = errors.New("OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint")

// providerClient trusts servers whose certificates a CA of this host signed, and
// those under a certificate with one of the thumbprints. It follows no redirects.
func providerClient(thumbprints []string) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // VerifyConnection verifies
			VerifyConnection: func(cs tls.ConnectionState) error {
				return verifyServer(cs.PeerCertificates, cs.ServerName, thumbprints)
			}}},
	}
}

func verifyServer(chain []*x509.Certificate, name string, thumbprints []string) error {
	if len(chain) == 0 {
		return errThumbprint
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Intermediates: between}); err == nil {
		return nil
	}
	for _, c := range chain {
		sum := sha1.Sum(c.Raw)
		if !slices.ContainsFunc(thumbprints, func(t string) bool { return strings.EqualFold(t, hex.EncodeToString(sum[:])) }) {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Intermediates: between, Roots: roots}); err == nil {
			return nil
		}
	}
	return errThumbprint
}

// maxDocument is how many bytes a discovery document or key set may have.
const maxDocument = 1 << 20

const noKey = "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements"

// fetch reads a JSON document over HTTPS.
func fetch(ctx context.Context, client *http.Client, address string, into any) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return invalidIdentity("%s", noKey)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return invalidIdentity("%s", noKey)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if errors.Is(err, errThumbprint) {
		return invalidIdentity("%s", errThumbprint)
	}
	if err != nil {
		return unreachable(fmt.Errorf("ask %s: %w", u.Host, err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil || resp.StatusCode >= 500:
		return unreachable(fmt.Errorf("%s answered %s, %v", u.Host, resp.Status, err))
	case resp.StatusCode != http.StatusOK || len(body) > maxDocument || json.Unmarshal(body, into) != nil:
		return invalidIdentity("%s", noKey)
	}
	return nil
}
