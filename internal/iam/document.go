package iam

import (
	"errors"
	"net/url"
	"strings"
	"sync"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
)

// document is a policy document: the text as it was given, and the compiled form,
// made when first used and kept as long as the record is.
type document struct {
	text string
	once sync.Once
	doc  *policy.Document
	err  error
}

func newDocument(text string) *document { return &document{text: text} }

// MarshalText stores the text alone.
func (d *document) MarshalText() ([]byte, error) { return []byte(d.text), nil }

// UnmarshalText reads what MarshalText stored.
func (d *document) UnmarshalText(b []byte) error {
	d.text = string(b)
	return nil
}

// compiled is the document as the kind that it is always used as.
func (d *document) compiled(kind policy.Kind) (*policy.Document, error) {
	d.once.Do(func() { d.doc, d.err = policy.Parse([]byte(d.text), kind) })
	return d.doc, d.err
}

// encoded is the text as the Get operations show it: percent-encoded, RFC 3986.
func (d *document) encoded() string { return encodeDocument(d.text) }

func encodeDocument(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

func (d *document) size() int { return policy.Size(d.text) }

// textCache holds compiled documents of a kind that come as text with each call.
type textCache struct {
	kind policy.Kind
	mu   sync.Mutex
	m    map[string]*document
}

// maxTexts bounds the cache; a session policy has at most some 2 KiB.
const maxTexts = 4096

func (t *textCache) compile(text string) (*policy.Document, error) {
	t.mu.Lock()
	d := t.m[text]
	if d == nil {
		if t.m == nil || len(t.m) >= maxTexts {
			t.m = map[string]*document{}
		}
		d = newDocument(text)
		t.m[text] = d
	}
	t.mu.Unlock()
	return d.compiled(t.kind)
}

// Documents that IAM itself contributes.
var (
	allowAll = policy.Source{ID: "account root", Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`, policy.Identity)}
	nothing  = policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`, policy.Boundary)

	// What temporary credentials of a user cannot do, whatever its policies say.
	// Source: IAM User Guide, "Compare AWS STS credentials".
	// (All IAM operations, which iam:PassRole is not.)
	federatedLimits = policy.Source{ID: "limits of GetFederationToken sessions", Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Sid":"FederatedSession","Effect":"Deny","Action":["iam:A*","iam:C*","iam:D*","iam:E*","iam:G*","iam:L*","iam:Put*","iam:R*","iam:S*","iam:T*","iam:U*","sts:*"],"Resource":"*"}]}`, policy.Identity)}
	sessionNoMFA    = policy.Source{ID: "limits of GetSessionToken sessions without MFA", Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Sid":"SessionWithoutMFA","Effect":"Deny","Action":["iam:A*","iam:C*","iam:D*","iam:E*","iam:G*","iam:L*","iam:Put*","iam:R*","iam:S*","iam:T*","iam:U*"],"Resource":"*"}]}`, policy.Identity)}

	// mayChangePassword is what the password policy's AllowUsersToChangePassword
	// gives every user; ChangePassword is about the caller only.
	mayChangePassword = policy.Source{ID: "account password policy", Document: policy.MustParse(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:ChangePassword","iam:GetAccountPasswordPolicy"],"Resource":"*"}]}`, policy.Identity)}
)

// sessionLimits are the limits of temporary credentials that stand for a user.
// Those of the console are not limited: the user signed in with a password.
func sessionLimits(p *api.Principal) []policy.Source {
	switch {
	case p.SessionIssued.IsZero() || p.FromConsole:
		return nil
	case p.Type == api.FederatedUser:
		return []policy.Source{federatedLimits}
	case !p.MFA && (p.Type == api.IAMUser || p.Type == api.Root):
		return []policy.Source{sessionNoMFA}
	}
	return nil
}

// parse compiles a document that a caller gave.
func parse(text string, kind policy.Kind) (*document, error) {
	d := newDocument(text)
	if _, err := d.compiled(kind); err != nil {
		var pe *policy.ParseError
		if errors.As(err, &pe) {
			return nil, malformedPolicy("%s", pe.Text())
		}
		return nil, malformedPolicy("%s", err)
	}
	return d, nil
}

// identityDocument checks a document that is to be attached to a user, group or role.
func identityDocument(text string) (*document, error) { return parse(text, policy.Identity) }
