package kms

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/store"
)

// remake deletes a principal and makes another under the same name.
func (b *bench) remake(arn string) {
	b.who.made[arn]++
}

// TestRemadePrincipal: who is made again under the name of a deleted user or role
// holds neither its grants nor its place in key policies; both show the unique ID.
func TestRemadePrincipal(t *testing.T) {
	b := newBench(t)
	root := b.root(acct)
	for _, p := range []string{"user/u", "role/r", "session"} {
		arn := "arn:aws:iam::" + acct + ":" + p
		principal := arn
		caller := b.user(acct, "u")
		if p != "user/u" {
			arn = "arn:aws:iam::" + acct + ":role/r"
			principal, caller = arn, b.session(acct, "r", "s")
		}
		if p == "session" {
			principal = caller.Principal.ARN
		}
		id, _ := b.who.PrincipalID(nil, principal)
		k, byPolicy := b.newKey(&kms.CreateKeyInput{}), b.newKey(&kms.CreateKeyInput{})
		g := grantOn(k, &principal, "Encrypt", "RetireGrant")
		g.RetiringPrincipal = &principal
		granted := must[kms.CreateGrantOutput](b, root, "CreateGrant", g)
		given := strings.Replace(defaultPolicy(acct), `"Statement" : [`, `"Statement" : [ {"Effect":"Allow","Principal":{"AWS":["`+principal+`"]},"Action":"kms:Encrypt","Resource":"*",
			"Condition":{"ArnEquals":{"aws:PrincipalArn":"`+arn+`"}}},`, 1)
		must[kms.PutKeyPolicyOutput](b, root, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: byPolicy.KeyId, Policy: &given})
		shown := func() (policy string, grantee, retiring string, retirable int) {
			b.free = true
			policy = *must[kms.GetKeyPolicyOutput](b, root, "GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: byPolicy.KeyId}).Policy
			e := must[kms.ListGrantsOutput](b, root, "ListGrants", &kms.ListGrantsInput{KeyId: k.KeyId}).Grants[0]
			retirable = len(must[kms.ListRetirableGrantsOutput](b, root, "ListRetirableGrants", &kms.ListRetirableGrantsInput{RetiringPrincipal: &principal}).Grants)
			return policy, *e.GranteePrincipal, *e.RetiringPrincipal, retirable
		}
		if policy, grantee, retiring, n := shown(); policy != given || grantee != principal || retiring != principal || n != 1 {
			t.Errorf("%s: shown %s, %s, %s, %d retirable, want what was given", p, policy, grantee, retiring, n)
		}
		b.free = false
		onGrant, onPolicy := &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}, &kms.EncryptInput{KeyId: byPolicy.KeyId, Plaintext: []byte("x")}
		must[kms.EncryptOutput](b, caller, "Encrypt", onGrant)
		must[kms.EncryptOutput](b, caller, "Encrypt", onPolicy)

		b.remake(arn)
		caller = b.user(acct, "u")
		if p != "user/u" {
			caller = b.session(acct, "r", "s")
		}
		b.fails(caller, "Encrypt", onGrant, "AccessDeniedException", "")
		b.fails(caller, "Encrypt", onPolicy, "AccessDeniedException", "")
		b.fails(caller, "RetireGrant", &kms.RetireGrantInput{GrantToken: granted.GrantToken}, "AccessDeniedException", "")
		want := strings.Replace(given, `["`+principal+`"]`, `["`+id+`"]`, 1)
		if policy, grantee, retiring, n := shown(); policy != want || grantee != id || retiring != id || n != 0 {
			t.Errorf("%s made again: shown %s, %s, %s, %d retirable, want %s in the place of the ARN", p, policy, grantee, retiring, n, id)
		}
		b.who.gone[arn] = true
		b.fails(root, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: byPolicy.KeyId, Policy: &given}, "MalformedPolicyDocumentException", "")
		b.who.gone[arn] = false
	}
}

// TestGrantToAccount: a grant to an account serves its principals as far as the
// account's IAM policies let them, and its root user.
func TestGrantToAccount(t *testing.T) {
	b := newBench(t)
	u := b.user(other, "u")
	k := b.newKey(&kms.CreateKeyInput{})
	g := grantOn(k, ptr("arn:aws:iam::"+other+":root"), "Encrypt", "CreateGrant", "RetireGrant")
	g.Constraints = &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "1"}}
	granted := must[kms.CreateGrantOutput](b, b.root(acct), "CreateGrant", g)
	b.free = false
	enc := &kms.EncryptInput{KeyId: k.Arn, Plaintext: []byte("x"), EncryptionContext: map[string]string{"a": "1"}}
	b.fails(u, "Encrypt", enc, "AccessDeniedException", "")
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":["kms:Encrypt","kms:Decrypt"],"Resource":"`+*k.Arn+`"}`)
	must[kms.EncryptOutput](b, u, "Encrypt", enc)
	b.fails(u, "Encrypt", &kms.EncryptInput{KeyId: k.Arn, Plaintext: []byte("x")}, "AccessDeniedException", "")
	b.fails(u, "Decrypt", &kms.DecryptInput{KeyId: k.Arn, CiphertextBlob: []byte("x")}, "AccessDeniedException", "")
	must[kms.EncryptOutput](b, b.root(other), "Encrypt", enc)
	child := grantOn(k, &u.Principal.ARN, "Encrypt")
	child.KeyId, child.Constraints = k.Arn, g.Constraints
	b.fails(u, "CreateGrant", child, "AccessDeniedException", "")
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":["kms:CreateGrant"],"Resource":"*"}`)
	must[kms.CreateGrantOutput](b, u, "CreateGrant", child)
	retire := &kms.RetireGrantInput{GrantToken: granted.GrantToken}
	b.fails(u, "RetireGrant", retire, "AccessDeniedException", "")
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":["kms:RetireGrant"],"Resource":"*"}`)
	must[kms.RetireGrantOutput](b, u, "RetireGrant", retire)
}

// TestUnboundGrant: a grant that an older build stored under an ARN serves nobody who
// has that ARN now, the log says so by name, and it can be revoked.
func TestUnboundGrant(t *testing.T) {
	b := newBench(t)
	var log strings.Builder
	b.s.log = slog.New(slog.NewTextHandler(&log, nil))
	k := b.newKey(&kms.CreateKeyInput{})
	u := b.user(acct, "u")
	kp := path(acct, region, *k.KeyId)
	old := &Grant{key: grantKey(kp, newMaterialID()), Grantee: u.Principal.ARN, Retiring: "arn:aws:iam::" + acct + ":root", IssuingAccount: acct, Operations: []string{"Encrypt"}, Created: b.clk.Now()}
	if err := b.st.Update(context.Background(), func(tx *store.Tx) error { return b.s.grants.Put(tx, old.key, old) }); err != nil {
		t.Fatal(err)
	}
	must[kms.CreateGrantOutput](b, b.root(acct), "CreateGrant", grantOn(k, &u.Principal.ARN, "Decrypt"))
	b.s.reportUnbound()
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, old.id()) || !strings.Contains(got, *k.Arn) || !strings.Contains(got, u.Principal.ARN) {
		t.Errorf("the log = %q, want one line with key, grant and principal", got)
	}
	b.free = false
	b.fails(u, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}, "AccessDeniedException", "")
	b.free = true
	must[kms.RevokeGrantOutput](b, b.root(acct), "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: ptr(old.id())})
}
