package sts_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// samlIDP is a SAML provider: a key with its certificate.
type samlIDP struct {
	t    *testing.T
	key  *rsa.PrivateKey
	cert []byte
}

func newSAML(t *testing.T) *samlIDP {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &samlIDP{t, key, der}
}

// GetKeyPair is dsig.X509KeyStore.
func (p *samlIDP) GetKeyPair() (*rsa.PrivateKey, []byte, error) { return p.key, p.cert, nil }

const entity = "https://idp.example.com/saml"

func (p *samlIDP) metadata() string {
	return `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="` + entity + `"><IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">` +
		`<KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>` + base64.StdEncoding.EncodeToString(p.cert) + `</X509Certificate></X509Data></KeyInfo></KeyDescriptor>` +
		`<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.com/sso"/></IDPSSODescriptor>` + strings.Repeat(" ", 1000) + `</EntityDescriptor>`
}

// response is a good response for a role, changed by pairs of old and new text.
func response(role, provider string, change ...string) *etree.Element {
	now := time.Now().UTC()
	stamp := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	attribute := func(name string, values ...string) string {
		out := `<saml:Attribute Name="https://aws.amazon.com/SAML/Attributes/` + name + `">`
		for _, v := range values {
			out += `<saml:AttributeValue>` + v + `</saml:AttributeValue>`
		}
		return out + `</saml:Attribute>`
	}
	text := fmt.Sprintf(`<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="_r" Version="2.0" IssueInstant="%[1]s" Destination="https://signin.aws.amazon.com/saml">`+
		`<saml:Issuer>`+entity+`</saml:Issuer><samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>`+
		`<saml:Assertion ID="_a" Version="2.0" IssueInstant="%[1]s"><saml:Issuer>`+entity+`</saml:Issuer>`+
		`<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">jane</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">`+
		`<saml:SubjectConfirmationData NotOnOrAfter="%[2]s" Recipient="https://signin.aws.amazon.com/saml"/></saml:SubjectConfirmation></saml:Subject>`+
		`<saml:Conditions NotBefore="%[1]s" NotOnOrAfter="%[2]s"><saml:AudienceRestriction><saml:Audience>urn:amazon:webservices</saml:Audience></saml:AudienceRestriction></saml:Conditions>`+
		`<saml:AttributeStatement>%[3]s</saml:AttributeStatement></saml:Assertion></samlp:Response>`,
		stamp(0), stamp(4*time.Minute), attribute("Role", role+","+provider, "arn:aws:iam::"+apptest.Account+":role/else,"+provider)+attribute("RoleSessionName", "jane@example.com")+attribute("SessionDuration", "1800")+attribute("PrincipalTag:team", "desk"))
	doc := etree.NewDocument()
	if err := doc.ReadFromString(strings.NewReplacer(append(change, "\x00", "")...).Replace(text)); err != nil {
		panic(err)
	}
	return doc.Root()
}

// sign signs the assertion, or the whole response.
func (p *samlIDP) sign(r *etree.Element, whole bool) *etree.Element {
	p.t.Helper()
	ctx := dsig.NewDefaultSigningContext(p)
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	if whole {
		out, err := ctx.SignEnveloped(r)
		if err != nil {
			p.t.Fatal(err)
		}
		return out
	}
	a := r.SelectElement("saml:Assertion")
	at := a.Index()
	r.RemoveChild(a)
	a.CreateAttr("xmlns:saml", "urn:oasis:names:tc:SAML:2.0:assertion")
	out, err := ctx.SignEnveloped(a)
	if err != nil {
		p.t.Fatal(err)
	}
	r.InsertChildAt(at, out)
	return r
}

func encode(r *etree.Element) string {
	doc := etree.NewDocument()
	doc.SetRoot(r)
	b, err := doc.WriteToBytes()
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func TestAssumeRoleWithSAML(t *testing.T) {
	w := newWorld(t)
	p := newSAML(t)
	created, err := w.IAM().CreateSAMLProvider(ctx, &iam.CreateSAMLProviderInput{Name: aws.String("corp"), SAMLMetadataDocument: aws.String(p.metadata())})
	w.must(err)
	provider := *created.SAMLProviderArn
	role := w.role("desk", `{"Effect":"Allow","Principal":{"Federated":"`+provider+`"},"Action":["sts:AssumeRoleWithSAML","sts:TagSession"],"Condition":{"StringEquals":{"SAML:aud":"https://signin.aws.amazon.com/saml","SAML:sub":"jane","aws:RequestTag/team":"desk"}}}`, allow(`"kms:CreateKey"`, "*"))
	anybody := w.STS(aws.AnonymousCredentials{})
	assume := func(role string, doc string) (*sts.AssumeRoleWithSAMLOutput, error) {
		return anybody.AssumeRoleWithSAML(ctx, &sts.AssumeRoleWithSAMLInput{RoleArn: &role, PrincipalArn: &provider, SAMLAssertion: &doc})
	}
	for _, whole := range []bool{false, true} {
		out, err := assume(role, encode(p.sign(response(role, provider), whole)))
		w.must(err)
		if *out.AssumedRoleUser.Arn != "arn:aws:sts::"+apptest.Account+":assumed-role/desk/jane@example.com" || *out.Issuer != entity || *out.Subject != "jane" || *out.SubjectType != "persistent" || *out.Audience != "https://signin.aws.amazon.com/saml" || len(*out.NameQualifier) != 28 {
			t.Errorf("AssumeRoleWithSAML = %s %s %s %s %s %s", *out.AssumedRoleUser.Arn, *out.Issuer, *out.Subject, *out.SubjectType, *out.Audience, *out.NameQualifier)
		}
		if left := time.Until(*out.Credentials.Expiration); left > 1800*time.Second || left < 1700*time.Second {
			t.Errorf("the session lasts %s, want the assertion's 1800 s", left)
		}
		_, err = w.KMS(temporary(out.Credentials)).CreateKey(ctx, &kms.CreateKeyInput{})
		w.must(err)
	}

	_, err = assume(w.role("else", `{"Effect":"Allow","Principal":{"Federated":"`+provider+`"},"Action":"sts:AssumeRoleWithSAML","Condition":{"StringEquals":{"SAML:sub":"john"}}}`, ""), encode(p.sign(response(role, provider), false)))
	fails(t, "another subject", err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithSAML")
	_, err = assume(w.role("unnamed", `{"Effect":"Allow","Principal":{"Federated":"`+provider+`"},"Action":"sts:AssumeRoleWithSAML"}`, ""), encode(p.sign(response(role, provider), false)))
	fails(t, "a role that the assertion does not name", err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithSAML")

	old := time.Now().UTC().Add(-10 * time.Minute).Format(time.RFC3339)
	aged := response(role, provider)
	aged.FindElement("//saml:Assertion").CreateAttr("IssueInstant", old)
	for _, tt := range []struct{ what, doc, code, text string }{
		{"no base64", "****", "InvalidIdentityToken", "Invalid base64 SAMLResponse"},
		{"no XML", base64.StdEncoding.EncodeToString([]byte("<a")), "InvalidIdentityToken", "not well-formed"},
		{"no response", base64.StdEncoding.EncodeToString([]byte("<a/>")), "InvalidIdentityToken", "no samlp:Response"},
		{"unsigned", encode(response(role, provider)), "InvalidIdentityToken", "Response signature invalid"},
		{"another's key", encode(newSAML(t).sign(response(role, provider), false)), "InvalidIdentityToken", "Response signature invalid"},
		{"another issuer", encode(p.sign(response(role, provider, entity+"</saml:Issuer><saml:Subject>", "https://x</saml:Issuer><saml:Subject>"), false)), "InvalidIdentityToken", "Issuer not present in specified provider"},
		{"issued long ago", encode(p.sign(aged, true)), "ExpiredTokenException", "within 5 minutes"},
		{"another audience", encode(p.sign(response(role, provider, "urn:amazon:webservices", "urn:x"), false)), "InvalidIdentityToken", "audience"},
		{"another recipient", encode(p.sign(response(role, provider, `Recipient="https://signin.aws.amazon.com/saml"`, `Recipient="https://x.example.com/saml"`), false)), "InvalidIdentityToken", "Recipient"},
		{"no success", encode(p.sign(response(role, provider, "status:Success", "status:Responder"), false)), "InvalidIdentityToken", "status"},
		{"no session name", encode(p.sign(response(role, provider, "RoleSessionName", "X"), false)), "InvalidIdentityToken", "RoleSessionName is required in AuthnResponse"},
		{"a bad session name", encode(p.sign(response(role, provider, "jane@example.com", "jane doe"), false)), "InvalidIdentityToken", "RoleSessionName in AuthnResponse must match"},
	} {
		_, err := assume(role, tt.doc)
		fails(t, tt.what, err, tt.code, tt.text)
	}

	// Changed after it was signed, and wrapped: a forged assertion beside or around the genuine one.
	forged := p.sign(response(role, provider), false)
	forged.FindElement("//saml:NameID").SetText("john")
	_, err = assume(role, encode(forged))
	fails(t, "a changed subject", err, "InvalidIdentityToken", "Response signature invalid")
	beside := p.sign(response(role, provider), false)
	beside.InsertChildAt(0, response(role, provider, ">jane<", ">john<").SelectElement("saml:Assertion"))
	_, err = assume(role, encode(beside))
	fails(t, "two assertions", err, "InvalidIdentityToken", "one Assertion")
	around := response(role, provider, ">jane<", ">john<")
	genuine := p.sign(response(role, provider), false).SelectElement("Assertion")
	outer := around.SelectElement("saml:Assertion")
	outer.CreateElement("saml:Advice").AddChild(genuine.Copy())
	if sig := genuine.FindElement("./Signature"); sig != nil {
		outer.AddChild(sig.Copy())
	}
	_, err = assume(role, encode(around))
	fails(t, "a wrapped assertion", err, "InvalidIdentityToken", "Response signature invalid")
}
