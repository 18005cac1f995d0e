package kms

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

const (
	sidName = "aws:workspaces:sid-directoryid"
	ebsName = "aws:ebs:id"
)

func host(service string) *string { return ptr(api.Host(service, region)) }

func grantOn(k *types.KeyMetadata, grantee *string, ops ...types.GrantOperation) *kms.CreateGrantInput {
	return &kms.CreateGrantInput{KeyId: k.Arn, GranteePrincipal: grantee, Operations: ops}
}

// TestDesktopGrants is the path of a WorkSpace: the caller makes WorkSpaces'
// grant, WorkSpaces makes EBS's under it, EBS uses the key within it, and each
// retires its own.
func TestDesktopGrants(t *testing.T) {
	b := newBench(t)
	k := b.newKey(&kms.CreateKeyInput{})
	b.free = false
	admin := b.user(acct, "admin")
	workspaces, ec2 := b.service("workspaces"), b.service("ec2")
	sid := map[string]string{sidName: "[S-1-5-21-1]@[d-1234abcd01]"}
	both := map[string]string{sidName: sid[sidName], ebsName: "vol-1"}
	parent := grantOn(k, host("workspaces"), "CreateGrant", "GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey", "RetireGrant")
	parent.RetiringPrincipal, parent.Constraints = host("workspaces"), &types.GrantConstraints{EncryptionContextSubset: sid}
	child := grantOn(k, host("ec2"), "GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey", "RetireGrant")
	child.RetiringPrincipal, child.Constraints = host("ec2"), &types.GrantConstraints{EncryptionContextSubset: both}

	// Without kms:CreateGrant the administrator is refused; then allowed, through WorkSpaces.
	forwarded := admin.Forward("workspaces")
	b.fails(forwarded, "CreateGrant", parent, "AccessDeniedException", "")
	b.allow(admin.Principal.ARN, `{"Effect":"Allow","Action":"kms:CreateGrant","Resource":"`+*k.Arn+`","Condition":{"Bool":{"kms:GrantIsForAWSResource":"true"}}}`)
	b.fails(admin, "CreateGrant", parent, "AccessDeniedException", "") // not for an AWS resource
	b.fails(workspaces, "CreateGrant", child, "AccessDeniedException", "")
	p := must[kms.CreateGrantOutput](b, forwarded, "CreateGrant", parent)

	// A child wider than its parent in any way is refused.
	wider := map[string]func(*kms.CreateGrantInput){
		"no constraint": func(in *kms.CreateGrantInput) { in.Constraints = nil },
		"another user": func(in *kms.CreateGrantInput) {
			in.Constraints.EncryptionContextSubset = map[string]string{sidName: "x", ebsName: "vol-1"}
		},
		"only the volume": func(in *kms.CreateGrantInput) {
			in.Constraints.EncryptionContextSubset = map[string]string{ebsName: "vol-1"}
		},
		"another operation": func(in *kms.CreateGrantInput) {
			in.Operations = append(in.Operations[:len(in.Operations):len(in.Operations)], "Encrypt")
		},
	}
	for name, change := range wider {
		in := *child
		in.Constraints = &types.GrantConstraints{EncryptionContextSubset: both}
		change(&in)
		if _, _, err := b.do(workspaces, "CreateGrant", &in); codeOf(err) != "AccessDeniedException" {
			t.Errorf("child grant with %s = %v, want AccessDeniedException", name, err)
		}
	}
	g := must[kms.CreateGrantOutput](b, workspaces, "CreateGrant", child)

	data := must[kms.GenerateDataKeyWithoutPlaintextOutput](b, ec2, "GenerateDataKeyWithoutPlaintext",
		&kms.GenerateDataKeyWithoutPlaintextInput{KeyId: k.Arn, NumberOfBytes: ptr(int32(64)), EncryptionContext: both})
	decrypt := func(context map[string]string) *kms.DecryptInput {
		return &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob, EncryptionContext: context}
	}
	must[kms.DecryptOutput](b, ec2, "Decrypt", decrypt(both))
	for name, context := range map[string]map[string]string{
		"no context": nil, "another volume": {sidName: sid[sidName], ebsName: "vol-2"}, "another user": {sidName: "[S-1-5-21-2]@[d-1234abcd01]", ebsName: "vol-1"}, "only the user": sid} {
		if _, _, err := b.do(ec2, "Decrypt", decrypt(context)); codeOf(err) != "AccessDeniedException" {
			t.Errorf("Decrypt by EC2 with %s = %v, want AccessDeniedException", name, err)
		}
	}
	b.fails(ec2, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: k.Arn, NumberOfBytes: ptr(int32(64)), EncryptionContext: both}, "AccessDeniedException", "")
	b.fails(admin, "Decrypt", decrypt(both), "AccessDeniedException", "")

	// Who may retire: the holder, and not just anybody.
	b.fails(admin, "RetireGrant", &kms.RetireGrantInput{GrantToken: g.GrantToken}, "AccessDeniedException", "")
	b.fails(workspaces, "RetireGrant", &kms.RetireGrantInput{GrantToken: g.GrantToken}, "AccessDeniedException", "")
	_, rec, err := b.do(ec2, "RetireGrant", &kms.RetireGrantInput{KeyId: k.Arn, GrantId: g.GrantId})
	if err != nil {
		t.Fatal(err)
	}
	if rec.AdditionalEventData["grantId"] != *g.GrantId || len(rec.Resources) != 1 || rec.Resources[0].ARN != *k.Arn || rec.RequestParameters != nil {
		t.Errorf("record of RetireGrant = %+v, want the grant ID in additionalEventData and the key in resources", rec)
	}
	b.fails(ec2, "Decrypt", decrypt(both), "AccessDeniedException", "")
	must[kms.RetireGrantOutput](b, workspaces, "RetireGrant", &kms.RetireGrantInput{GrantToken: p.GrantToken})
	b.fails(workspaces, "CreateGrant", child, "AccessDeniedException", "")
}

func TestCreateGrantRecord(t *testing.T) {
	b := newBench(t)
	k := b.newKey(&kms.CreateKeyInput{})
	in := grantOn(k, host("ec2"), "Decrypt")
	in.KeyId = k.KeyId
	out, rec, err := b.do(b.root(acct), "CreateGrant", in)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(rec.ResponseElements); got != fmt.Sprint(map[string]any{"grantId": *out.(*kms.CreateGrantOutput).GrantId, "keyId": *k.Arn}) {
		t.Errorf("responseElements = %s, want grantId and the key's ARN", got)
	}
}

func TestGrantNamesAndTokens(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k, k2 := b.newKey(&kms.CreateKeyInput{}), b.newKey(&kms.CreateKeyInput{})
	u := ptr("arn:aws:iam::" + acct + ":user/u")
	named := func(k *types.KeyMetadata, name string, ops ...types.GrantOperation) *kms.CreateGrantOutput {
		in := grantOn(k, u, ops...)
		in.Name = ptr(name)
		return must[kms.CreateGrantOutput](b, c, "CreateGrant", in)
	}
	g := named(k, "n", "Decrypt")
	if again := named(k, "n", "Decrypt"); *again.GrantId != *g.GrantId || *again.GrantToken == *g.GrantToken {
		t.Error("the same name and parameters must give the same grant and a new token")
	}
	if x := named(k, "n", "Encrypt"); *x.GrantId == *g.GrantId {
		t.Error("other parameters under the same name must give another grant")
	}
	if x := named(k2, "n", "Decrypt"); *x.GrantId == *g.GrantId {
		t.Error("names are per key")
	}
	must[kms.RevokeGrantOutput](b, c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: g.GrantId})
	if x := named(k, "n", "Decrypt"); *x.GrantId == *g.GrantId {
		t.Error("a revoked grant came back by its name")
	}
	b.fails(c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x"), GrantTokens: []string{*g.GrantToken}}, "InvalidGrantTokenException", "")
	live := named(k, "m", "Encrypt")
	must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x"), GrantTokens: []string{*live.GrantToken}})
	for i := range len(*live.GrantToken) {
		bad := []byte(*live.GrantToken)
		bad[i] ^= 1
		if string(bad) == *live.GrantToken {
			continue
		}
		if _, _, err := b.do(c, "RetireGrant", &kms.RetireGrantInput{GrantToken: ptr(string(bad))}); codeOf(err) != "InvalidGrantTokenException" {
			t.Errorf("token with character %d changed = %v, want InvalidGrantTokenException", i, err)
		}
	}
	b.fails(c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: ptr("x")}, "InvalidGrantIdException", "")
	b.fails(c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: g.GrantId}, "NotFoundException", "")
	bad := grantOn(k, ptr("arn:aws:iam::"+acct+":user/nobody"), "Decrypt")
	b.fails(c, "CreateGrant", bad, "InvalidArnException", "")
	b.fails(c, "CreateGrant", grantOn(k, u, "Sign"), "ValidationException", "")
	dry := grantOn(k, u, "Decrypt")
	dry.DryRun = ptr(true)
	b.fails(c, "CreateGrant", dry, "DryRunOperationException", "")
	svc := &kms.CreateGrantInput{KeyId: k.KeyId, GranteeServicePrincipal: host("ec2"), Operations: []types.GrantOperation{"Decrypt"}}
	b.fails(c, "CreateGrant", svc, "ValidationException", "")
	svc.RetiringServicePrincipal, svc.Constraints = host("ec2"), &types.GrantConstraints{SourceArn: ptr("arn:aws:workspaces:us-west-2:" + acct + ":workspace/ws-1")}
	must[kms.CreateGrantOutput](b, c, "CreateGrant", svc)
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	b.free = false
	ec2 := b.service("ec2")
	b.fails(ec2, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "AccessDeniedException", "")
	ec2.SourceARN = *svc.Constraints.SourceArn
	must[kms.DecryptOutput](b, ec2, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
}

func TestListingGrants(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	u := ptr("arn:aws:iam::" + acct + ":user/u")
	for i := range 130 {
		in := grantOn(k, u, "Decrypt")
		in.Constraints = &types.GrantConstraints{EncryptionContextSubset: map[string]string{ebsName: fmt.Sprint("vol-", i)}}
		if i%2 == 0 {
			in.RetiringPrincipal = u
		} else {
			in.GranteePrincipal = host("ec2")
		}
		must[kms.CreateGrantOutput](b, c, "CreateGrant", in)
	}
	count := func(list func(marker *string) ([]types.GrantListEntry, *string)) int {
		seen := map[string]bool{}
		var marker *string
		for {
			var entries []types.GrantListEntry
			entries, marker = list(marker)
			for _, e := range entries {
				if seen[*e.GrantId] || *e.KeyId != *k.Arn {
					t.Errorf("grant %s listed twice, or of key %s", *e.GrantId, *e.KeyId)
				}
				seen[*e.GrantId] = true
			}
			if marker == nil {
				return len(seen)
			}
		}
	}
	for _, x := range []struct {
		grantee *string
		want    int
	}{{nil, 130}, {u, 65}, {host("ec2"), 65}} {
		if n := count(func(m *string) ([]types.GrantListEntry, *string) {
			o := must[kms.ListGrantsOutput](b, c, "ListGrants", &kms.ListGrantsInput{KeyId: k.KeyId, Marker: m, GranteePrincipal: x.grantee, Limit: ptr(int32(33))})
			return o.Grants, o.NextMarker
		}); n != x.want {
			t.Errorf("ListGrants with grantee %v lists %d, want %d", x.grantee, n, x.want)
		}
	}
	if n := count(func(m *string) ([]types.GrantListEntry, *string) {
		o := must[kms.ListRetirableGrantsOutput](b, c, "ListRetirableGrants", &kms.ListRetirableGrantsInput{RetiringPrincipal: u, Marker: m, Limit: ptr(int32(20))})
		return o.Grants, o.NextMarker
	}); n != 65 {
		t.Errorf("ListRetirableGrants lists %d, want 65", n)
	}
	b.fails(b.root(other), "ListRetirableGrants", &kms.ListRetirableGrantsInput{RetiringPrincipal: u}, "AccessDeniedException", "")
}

// TestGrantIndexAgrees compares the index with a look at every grant, for random
// grants and random calls.
func TestGrantIndexAgrees(t *testing.T) {
	ix := newGrantIndex()
	rng := rand.New(rand.NewPCG(1, 2))
	names, values := []string{"a", "b", "c"}, []string{"1", "2"}
	ops := []string{"CreateGrant", "Decrypt", "DescribeKey", "Encrypt"}
	keys := []string{testKeyPath, path(acct, region, "mrk-1234abcd12ab34cd56ef1234567890ab")}
	context := func() map[string]string {
		m := map[string]string{}
		for _, n := range names {
			if rng.IntN(2) == 0 {
				m[n] = values[rng.IntN(2)]
			}
		}
		return m
	}
	all := map[string]*Grant{}
	for i := range 6000 {
		if len(all) > 0 && rng.IntN(3) == 0 {
			for p, g := range all {
				ix.changed(p, g, nil)
				delete(all, p)
				break
			}
		} else {
			g := &Grant{Grantee: fmt.Sprint("g", rng.IntN(2)), Retiring: fmt.Sprint("r", rng.IntN(2))}
			for _, o := range ops {
				if rng.IntN(2) == 0 {
					g.Operations = append(g.Operations, o)
				}
			}
			switch m := context(); rng.IntN(3) {
			case 0:
				g.Equals = pairsOf(m)
			case 1:
				g.Subset = pairsOf(m)
			}
			p := grantKey(keys[rng.IntN(2)], fmt.Sprintf("%064x", i))
			all[p] = g
			ix.changed(p, nil, g)
		}
		key, grantee, op, ctx := keys[rng.IntN(2)], fmt.Sprint("g", rng.IntN(2)), ops[rng.IntN(len(ops))], context()
		want := map[string]bool{}
		n := 0
		for p, g := range all {
			if keyPathOf(p) == key {
				n++
				if g.Grantee == grantee && contains(g.Operations, op) && g.contextAllows(ctx) {
					want[p] = true
				}
			}
		}
		if ix.on(key) != n {
			t.Fatalf("step %d: %d grants on %s, want %d", i, ix.on(key), key, n)
		}
		got := map[string]bool{}
		for _, p := range ix.candidates(key, grantee, op, ctx, false, nil) {
			if g := all[p]; g != nil && g.contextAllows(ctx) {
				got[p] = true
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("step %d: candidates(%s %s %s %v) = %v, want %v", i, key, grantee, op, ctx, got, want)
		}
	}
	for p, g := range all {
		ix.changed(p, g, nil)
	}
	if len(ix.keys)+len(ix.retirers) != 0 {
		t.Errorf("the empty index still holds %d keys and %d retirers", len(ix.keys), len(ix.retirers))
	}
}

// TestChildIsNeverWider draws parents and children at random: a child that is
// accepted allows nothing that its parent does not.
func TestChildIsNeverWider(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names, values := []string{"a", "b"}, []string{"1", "2"}
	every := []map[string]string{}
	for _, a := range []string{"", "1", "2"} {
		for _, v := range []string{"", "1", "2"} {
			m := map[string]string{}
			if a != "" {
				m["a"] = a
			}
			if v != "" {
				m["b"] = v
			}
			every = append(every, m)
		}
	}
	ops := []string{"CreateGrant", "Decrypt", "Encrypt"}
	draw := func() *Grant {
		g := &Grant{}
		for _, o := range ops {
			if rng.IntN(2) == 0 {
				g.Operations = append(g.Operations, o)
			}
		}
		m := map[string]string{}
		for _, n := range names {
			if rng.IntN(2) == 0 {
				m[n] = values[rng.IntN(2)]
			}
		}
		switch rng.IntN(3) {
		case 0:
			g.Equals = pairsOf(m)
		case 1:
			g.Subset = pairsOf(m)
		}
		if rng.IntN(4) == 0 {
			g.SourceARN = "s" + fmt.Sprint(rng.IntN(2))
		}
		return g
	}
	accepted := 0
	for range 20000 {
		p, child := draw(), draw()
		if !p.narrows(child) {
			continue
		}
		accepted++
		for _, o := range child.Operations {
			if !contains(p.Operations, o) {
				t.Fatalf("parent %+v accepts child %+v with %s", p, child, o)
			}
		}
		for _, ctx := range every {
			if child.contextAllows(ctx) && !p.contextAllows(ctx) {
				t.Fatalf("parent %+v accepts child %+v, which allows %v", p, child, ctx)
			}
		}
		if p.SourceARN != "" && p.SourceARN != child.SourceARN {
			t.Fatalf("parent %+v accepts child %+v of another source", p, child)
		}
	}
	if accepted < 500 {
		t.Errorf("only %d children accepted: the test says little", accepted)
	}
}

// TestNothingAfterRevoke races Decrypt under a grant against RevokeGrant,
// RetireGrant, DisableKey and PutKeyPolicy: no call that begins after the reply
// succeeds.
func TestNothingAfterRevoke(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	u := b.user(acct, "u")
	k := b.newKey(&kms.CreateKeyInput{})
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	b.allow(c.Principal.ARN, `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	b.free = false
	open := strings.Replace(defaultPolicy(acct), `"Statement" : [`, `"Statement" : [ {"Effect":"Allow","Principal":{"AWS":"`+u.Principal.ARN+`"},"Action":"kms:Decrypt","Resource":"*"},`, 1)
	grant := func() *kms.CreateGrantOutput {
		return must[kms.CreateGrantOutput](b, c, "CreateGrant", grantOn(k, &u.Principal.ARN, "Decrypt"))
	}
	ends := map[string]func() (end func(), undo func()){
		"RevokeGrant": func() (func(), func()) {
			g := grant()
			return func() {
				must[kms.RevokeGrantOutput](b, c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: g.GrantId})
			}, func() {}
		},
		"RetireGrant": func() (func(), func()) {
			g := grant()
			return func() {
				must[kms.RetireGrantOutput](b, c, "RetireGrant", &kms.RetireGrantInput{GrantToken: g.GrantToken})
			}, func() {}
		},
		"DisableKey": func() (func(), func()) {
			g := grant()
			return func() { must[kms.DisableKeyOutput](b, c, "DisableKey", &kms.DisableKeyInput{KeyId: k.KeyId}) }, func() {
				must[kms.EnableKeyOutput](b, c, "EnableKey", &kms.EnableKeyInput{KeyId: k.KeyId})
				must[kms.RevokeGrantOutput](b, c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: g.GrantId})
			}
		},
		"PutKeyPolicy": func() (func(), func()) {
			must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: &open})
			return func() {
				must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: ptr(defaultPolicy(acct))})
			}, func() {}
		},
	}
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for name, begin := range ends {
		var before atomic.Int64
		for range rounds {
			end, undo := begin()
			must[kms.DecryptOutput](b, u, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
			var over, stop atomic.Bool
			var wg sync.WaitGroup
			for range 3 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for !stop.Load() {
						late := over.Load()
						_, _, err := b.do(u, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
						switch {
						case err == nil && late:
							t.Errorf("%s: a Decrypt that began after the reply succeeded", name)
						case err == nil:
							before.Add(1)
						}
					}
				}()
			}
			end()
			over.Store(true)
			for range 20 {
				if _, _, err := b.do(u, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}); err == nil {
					t.Errorf("%s: Decrypt after the reply succeeded", name)
				}
			}
			stop.Store(true)
			wg.Wait()
			undo()
		}
		if before.Load() == 0 {
			t.Errorf("%s: no Decrypt succeeded before it: the race was none", name)
		}
	}
}

// TestGrantOfOlderBuild: what builds stored whose grants had maps is read, and written as they did
// but for the ID, which the table key says.
func TestGrantOfOlderBuild(t *testing.T) {
	const written = `"Grantee":"ec2.us-west-2.amazonaws.com","IssuingAccount":"111122223333","Operations":["Decrypt"],` +
		`"Equals":{"aws:ebs:id":"vol-1","aws:workspaces:sid-directoryid":"[S-1]@[d-1]","quote\"":"\u003c\n"},"Created":"2026-05-01T12:00:00Z","Seed":"eR+PfKPVjoOHxhKzZXsq9Q=="}`
	var g Grant
	if err := json.Unmarshal([]byte(`{"ID":"ab",`+written), &g); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"aws:ebs:id": "vol-1", "aws:workspaces:sid-directoryid": "[S-1]@[d-1]", "quote\"": "<\n"}
	if got := g.Equals.asMap(); !maps.Equal(got, want) || g.Subset != nil {
		t.Errorf("read %v and %v, want %v and none", got, g.Subset, want)
	}
	again, err := json.Marshal(&g)
	if err != nil || string(again) != "{"+written {
		t.Errorf("written as %s, %v; want {%s", again, err, written)
	}
}
