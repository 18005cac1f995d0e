package sts

import (
	"crypto/sha1" //nolint:gosec // the form of NameQualifier
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/beevik/etree"
	validator "github.com/mattermost/xml-roundtrip-validator"
	dsig "github.com/russellhaering/goxmldsig"
	"github.com/russellhaering/goxmldsig/etreeutils"

	"github.com/sealdesk/sealdesk/internal/api"
)

// This file is what a SAML 2.0 provider vouches for: responses with one assertion.
// Of a document only what the provider's signature covers is read.
// Sources: SAML 2.0 Core, sections 2 and 3.3.3; IAM User Guide, "Configure SAML
// assertions for the authentication response".

const (
	protocolNS  = "urn:oasis:names:tc:SAML:2.0:protocol"
	assertionNS = "urn:oasis:names:tc:SAML:2.0:assertion"
	signatureNS = "http://www.w3.org/2000/09/xmldsig#"
	statusOK    = "urn:oasis:names:tc:SAML:2.0:status:Success"
	bearer      = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
	attributes  = "https://aws.amazon.com/SAML/Attributes/"
)

// signInAddress is where an assertion is sent to: AWS's, of whatever Region.
var signInAddress = regexp.MustCompile(`^https://([a-z0-9-]+\.)?signin\.aws\.amazon\.com/saml$`)

// oldAudience is the audience that providers set up long ago name.
const oldAudience = "urn:amazon:webservices"

var sessionNames = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// redeem is how long after its issue an assertion is taken.
const redeem = 5 * time.Minute

// assertion is what is read of one.
type assertion struct {
	issuer, subject, subjectType string
	recipient                    string
	values                       map[string][]string // of attributes, by name
}

var errSAML = errors.New("not a SAML response")

// idpMetadata are the issuer and the certificates of a metadata document.
func idpMetadata(text string) (entityID string, certs []*x509.Certificate, err error) {
	var d struct {
		EntityID string `xml:"entityID,attr"`
		IDP      []struct {
			Keys []struct {
				Use  string   `xml:"use,attr"`
				Cert []string `xml:"http://www.w3.org/2000/09/xmldsig# KeyInfo>X509Data>X509Certificate"`
			} `xml:"urn:oasis:names:tc:SAML:2.0:metadata KeyDescriptor"`
		} `xml:"urn:oasis:names:tc:SAML:2.0:metadata IDPSSODescriptor"`
	}
	if err := xml.Unmarshal([]byte(text), &d); err != nil {
		return "", nil, err
	}
	for _, idp := range d.IDP {
		for _, k := range idp.Keys {
			if k.Use == "encryption" {
				continue
			}
			for _, c := range k.Cert {
				der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(c), ""))
				if err != nil {
					return "", nil, err
				}
				cert, err := x509.ParseCertificate(der)
				if err != nil {
					return "", nil, err
				}
				certs = append(certs, cert)
			}
		}
	}
	return d.EntityID, certs, nil
}

func is(el *etree.Element, ns, tag string) bool { return el.Tag == tag && el.NamespaceURI() == ns }

// children are the direct children of that name.
func children(el *etree.Element, ns, tag string) []*etree.Element {
	return slices.DeleteFunc(el.ChildElements(), func(c *etree.Element) bool { return !is(c, ns, tag) })
}

// child is the only child of that name, or nil.
func child(el *etree.Element, tag string) *etree.Element {
	if el == nil {
		return nil
	}
	if list := children(el, assertionNS, tag); len(list) == 1 {
		return list[0]
	}
	return nil
}

// text is the text of an element; comments in it would cut it short, so there may
// be none.
func text(el *etree.Element) string {
	if el == nil {
		return ""
	}
	for _, t := range el.Child {
		if _, ok := t.(*etree.CharData); !ok {
			return ""
		}
	}
	return strings.TrimSpace(el.Text())
}

// signed is the part of el that one of the certificates signed, apart from the
// document it was in, or an error.
func signed(el *etree.Element, certs []*x509.Certificate, clock *dsig.Clock) (*etree.Element, error) {
	ctx, err := etreeutils.NSBuildParentContext(el)
	if err != nil {
		return nil, err
	}
	if ctx, err = ctx.SubContext(el); err != nil {
		return nil, err
	}
	err = errSAML
	for _, cert := range certs {
		apart, derr := etreeutils.NSDetatch(ctx, el)
		if derr != nil {
			return nil, derr
		}
		for _, sig := range children(apart, signatureNS, "Signature") {
			// Whose key it is the metadata say; what the signature says of it is not signed.
			for _, info := range children(sig, signatureNS, "KeyInfo") {
				sig.RemoveChild(info)
			}
		}
		v := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}})
		v.IdAttribute, v.Clock = "ID", clock
		var out *etree.Element
		if out, err = v.Validate(apart); err == nil {
			return out, nil
		}
	}
	return nil, err
}

// readResponse finds the one assertion of a response that a certificate signed, by
// itself or with the whole response.
func readResponse(raw []byte, certs []*x509.Certificate, clock *dsig.Clock) (*etree.Element, error) {
	bad := func(why string) error { return invalidIdentity("%s", why) }
	if validator.Validate(strings.NewReader(string(raw))) != nil {
		return nil, bad("Invalid SAML response: it is not well-formed XML.")
	}
	doc := etree.NewDocument()
	if doc.ReadFromBytes(raw) != nil || doc.Root() == nil || !is(doc.Root(), protocolNS, "Response") {
		return nil, bad("Invalid SAML response: it is no samlp:Response.")
	}
	root := doc.Root()
	if len(children(root, signatureNS, "Signature")) > 0 {
		whole, err := signed(root, certs, clock)
		if err != nil || !is(whole, protocolNS, "Response") {
			return nil, bad("Response signature invalid")
		}
		root = whole
		certs = nil // what is in it is signed with it
	}
	status := children(root, protocolNS, "Status")
	if len(status) != 1 {
		return nil, bad("Invalid SAML response: it has no Status.")
	}
	if codes := children(status[0], protocolNS, "StatusCode"); len(codes) != 1 || codes[0].SelectAttrValue("Value", "") != statusOK {
		return nil, bad("Invalid SAML response: its status is not Success.")
	}
	if len(children(root, assertionNS, "EncryptedAssertion")) > 0 {
		return nil, bad("Invalid SAML response: encrypted assertions are not taken; no private key was given for this provider.")
	}
	list := children(root, assertionNS, "Assertion")
	if len(list) != 1 {
		return nil, bad("Invalid SAML response: it must have one Assertion.")
	}
	if certs == nil {
		return list[0], nil
	}
	a, err := signed(list[0], certs, clock)
	if err != nil || !is(a, assertionNS, "Assertion") {
		return nil, bad("Response signature invalid")
	}
	return a, nil
}

// readAssertion checks an assertion that was signed: issuer, times, audience, recipient.
func readAssertion(el *etree.Element, entityID string, now time.Time) (*assertion, error) {
	out := &assertion{issuer: text(child(el, "Issuer")), values: map[string][]string{}}
	if out.issuer == "" || out.issuer != entityID {
		return nil, invalidIdentity("Issuer not present in specified provider")
	}
	at := func(el *etree.Element, attr string) (time.Time, bool) {
		if el == nil {
			return time.Time{}, false
		}
		t, err := time.Parse(time.RFC3339, el.SelectAttrValue(attr, ""))
		return t, err == nil
	}
	issued, ok := at(el, "IssueInstant")
	if !ok || issued.After(now.Add(skew)) {
		return nil, invalidIdentity("Invalid SAML response: the assertion's IssueInstant is missing or in the future.")
	}
	if now.Sub(issued) > redeem {
		return nil, expiredToken("Token must be redeemed within 5 minutes of issuance")
	}
	conditions := child(el, "Conditions")
	if before, ok := at(conditions, "NotBefore"); ok && before.After(now.Add(skew)) {
		return nil, invalidIdentity("Invalid SAML response: the assertion is not valid yet.")
	}
	if until, ok := at(conditions, "NotOnOrAfter"); ok && !now.Before(until) {
		return nil, expiredToken("Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), until.Unix())
	}
	if conditions == nil || len(children(conditions, assertionNS, "AudienceRestriction")) == 0 {
		return nil, invalidIdentity("Invalid SAML response: the assertion has no AudienceRestriction.")
	}
	for _, r := range children(conditions, assertionNS, "AudienceRestriction") { // each must hold
		if !slices.ContainsFunc(children(r, assertionNS, "Audience"), func(a *etree.Element) bool {
			return text(a) == oldAudience || signInAddress.MatchString(text(a))
		}) {
			return nil, invalidIdentity("Invalid SAML response: the assertion's audience is not https://signin.aws.amazon.com/saml.")
		}
	}
	subject := child(el, "Subject")
	name := child(subject, "NameID")
	if out.subject = text(name); out.subject == "" {
		return nil, invalidIdentity("Invalid SAML response: the assertion has no NameID.")
	}
	format := name.SelectAttrValue("Format", "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified")
	out.subjectType = strings.TrimPrefix(format, "urn:oasis:names:tc:SAML:2.0:nameid-format:")
	for _, c := range children(subject, assertionNS, "SubjectConfirmation") {
		data := child(c, "SubjectConfirmationData")
		if c.SelectAttrValue("Method", "") != bearer || data == nil {
			continue
		}
		to := data.SelectAttrValue("Recipient", "")
		if until, ok := at(data, "NotOnOrAfter"); signInAddress.MatchString(to) && ok && now.Before(until) {
			out.recipient = to
		}
	}
	if out.recipient == "" {
		return nil, invalidIdentity("Invalid SAML response: the assertion has no bearer confirmation whose Recipient is https://signin.aws.amazon.com/saml and that is still valid.")
	}
	for _, s := range children(el, assertionNS, "AttributeStatement") {
		for _, a := range children(s, assertionNS, "Attribute") {
			n := a.SelectAttrValue("Name", "")
			for _, v := range children(a, assertionNS, "AttributeValue") {
				out.values[n] = append(out.values[n], text(v))
			}
		}
	}
	return out, nil
}

// one is the only value of one of AWS's attributes.
func (a *assertion) one(name string) string {
	if v := a.values[attributes+name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// names tells whether the assertion gives the subject that role by that provider.
func (a *assertion) names(role, provider string) bool {
	return slices.ContainsFunc(a.values[attributes+"Role"], func(v string) bool {
		x, y, ok := strings.Cut(v, ",")
		x, y = strings.TrimSpace(x), strings.TrimSpace(y)
		return ok && (x == role && y == provider || x == provider && y == role)
	})
}

// duration is the shorter of what the request and the assertion ask for.
func (a *assertion) duration(asked *int32) (*int32, error) {
	v, ok := a.values[attributes+"SessionDuration"]
	if !ok {
		return asked, nil
	}
	n, err := strconv.ParseInt(a.one("SessionDuration"), 10, 32)
	if err != nil || n < minDuration || n > 43200 {
		return nil, invalidIdentity("SessionDuration in the SAML response must be from %d to 43200 seconds, not %q.", minDuration, strings.Join(v, " "))
	}
	if asked == nil || int32(n) < *asked {
		return aws.Int32(int32(n)), nil
	}
	return asked, nil
}

// tags are the session tags, and which of them go on to further sessions.
func (a *assertion) tags() (tags []types.Tag, transitive []string, err error) {
	for n, v := range a.values {
		k, ok := strings.CutPrefix(n, attributes+"PrincipalTag:")
		if !ok {
			continue
		}
		if len(v) != 1 {
			return nil, nil, invalidIdentity("The session tag %s must have one value.", k)
		}
		tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(v[0])})
	}
	slices.SortFunc(tags, func(x, y types.Tag) int { return strings.Compare(*x.Key, *y.Key) })
	return tags, a.values[attributes+"TransitiveTagKeys"], nil
}

// qualifier is the NameQualifier of a provider's subjects.
// Source: STS API Reference, AssumeRoleWithSAML.
func (a *assertion) qualifier(account, provider string) string {
	sum := sha1.Sum([]byte(a.issuer + account + "/" + provider))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// keys are the condition keys that an assertion gives a trust policy.
// Source: IAM User Guide, "Available keys for SAML-based AWS STS federation".
func (a *assertion) keys(account string, p *api.IdentityProvider) map[string][]string {
	return map[string][]string{
		"SAML:aud": {a.recipient}, "SAML:iss": {a.issuer}, "SAML:sub": {a.subject}, "SAML:sub_type": {a.subjectType},
		"SAML:namequalifier": {a.qualifier(account, p.Name)}, "SAML:doc": {account + "/" + p.Name}, "aws:FederatedProvider": {p.ARN},
	}
}
