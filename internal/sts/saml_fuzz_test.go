package sts

import (
	"testing"
	"time"

	dsig "github.com/russellhaering/goxmldsig"
)

// FuzzSAML: whatever comes as response and metadata is read or refused, and
// nothing is read without a certificate that signed it.
func FuzzSAML(f *testing.F) {
	const ns = `xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" xmlns="urn:oasis:names:tc:SAML:2.0:assertion"`
	f.Add([]byte(`<p:Response `+ns+`><p:Status><p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></p:Status><Assertion ID="a"><Issuer>i</Issuer><Subject><NameID>n</NameID></Subject><Conditions/></Assertion></p:Response>`), `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="i"/>`)
	f.Add([]byte(`<p:Response `+ns+`><Signature xmlns="http://www.w3.org/2000/09/xmldsig#"><SignedInfo/></Signature></p:Response>`), `<x/>`)
	now := time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, raw []byte, metadata string) {
		entityID, certs, err := idpMetadata(metadata)
		if err != nil || len(certs) == 0 {
			certs = nil
		}
		el, err := readResponse(raw, certs, dsig.NewFakeClockAt(now))
		if err != nil {
			return
		}
		if certs != nil {
			t.Fatalf("a response passes: %s", raw)
		}
		// Without certificates nothing is checked: what is read must still be sound.
		if a, err := readAssertion(el, entityID, now); (a == nil) == (err == nil) {
			t.Fatalf("readAssertion = %v, %v", a, err)
		}
	})
}
