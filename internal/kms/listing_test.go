package kms

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// TestListing50000: a key with as many grants as a key can have is listed whole, in
// pages, once each, by key and by retiring principal; grants that come and go
// between two pages do not make others appear twice or be left out; the next grant is refused.
func TestListing50000(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 50,000 grants")
	}
	const n = 50_000
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	kp := path(acct, region, *k.KeyId)
	fill(b, kp, n)
	b.fails(c, "CreateGrant", grantOn(k, host("ec2"), "Decrypt"), "LimitExceededException", "")

	seen := make(map[string]bool, n)
	var marker, gone *string
	for page := 0; ; page++ {
		o := must[kms.ListGrantsOutput](b, c, "ListGrants", &kms.ListGrantsInput{KeyId: k.KeyId, Limit: ptr(int32(100)), Marker: marker})
		if o.Truncated != (o.NextMarker != nil) || o.Truncated && len(o.Grants) != 100 {
			t.Fatalf("page %d: %d grants, truncated %v, marker %v", page, len(o.Grants), o.Truncated, o.NextMarker != nil)
		}
		for _, g := range o.Grants {
			if seen[*g.GrantId] {
				t.Fatalf("grant %s is listed twice", *g.GrantId)
			}
			seen[*g.GrantId] = true
		}
		if page == 100 { // the grant the marker stands on goes
			gone = o.Grants[99].GrantId
			must[kms.RevokeGrantOutput](b, c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: gone})
		}
		if marker = o.NextMarker; marker == nil {
			break
		}
	}
	if len(seen) != n {
		t.Errorf("ListGrants listed %d grants, want %d", len(seen), n)
	}

	delete(seen, *gone)
	marker = nil
	for {
		o := must[kms.ListRetirableGrantsOutput](b, c, "ListRetirableGrants", &kms.ListRetirableGrantsInput{RetiringPrincipal: host("ec2"), Limit: ptr(int32(100)), Marker: marker})
		for _, g := range o.Grants {
			if !seen[*g.GrantId] {
				t.Fatalf("grant %s is listed twice, or is none", *g.GrantId)
			}
			delete(seen, *g.GrantId)
		}
		if marker = o.NextMarker; marker == nil {
			break
		}
	}
	if len(seen) != 0 {
		t.Errorf("ListRetirableGrants left %d grants out", len(seen))
	}
	must[kms.CreateGrantOutput](b, c, "CreateGrant", grantOn(k, host("ec2"), "Decrypt"))
}
