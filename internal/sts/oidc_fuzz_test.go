package sts

import (
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
)

// FuzzIDToken: a token is taken apart or refused, and one that was not signed by a
// known algorithm is never taken.
func FuzzIDToken(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJodHRwczovL28uZXhhbXBsZS5jb20iLCJzdWIiOiJzIiwiYXVkIjpbImEiXSwiZXhwIjoxfQ.AAAA")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("a.b.c")
	p := &api.IdentityProvider{ARN: "arn:aws:iam::111122223333:oidc-provider/o.example.com", Name: "o.example.com", ClientIDs: []string{"a"}}
	f.Fuzz(func(t *testing.T, text string) {
		sig, token, err := parseIDToken(text)
		if err != nil {
			return
		}
		if len(sig.Signatures) != 1 || sig.Signatures[0].Header.Algorithm == "none" {
			t.Fatalf("signatures of %q: %+v", text, sig.Signatures)
		}
		if token.check(p, time.Unix(1_700_000_000, 0)) == nil && token.keys(p)["o.example.com:sub"][0] == "" {
			t.Fatal("a token without subject passes")
		}
	})
}
