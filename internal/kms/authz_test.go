package kms

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

// TestKeyPolicyIsTheGate: IAM alone gives nothing, the key policy to the account
// lets IAM decide, the key policy to a user suffices.
func TestKeyPolicyIsTheGate(t *testing.T) {
	b := newBench(t)
	root := b.root(acct)
	u := b.user(acct, "u")
	k := b.newKey(&kms.CreateKeyInput{})
	set := func(statement string) {
		b.free = true
		must[kms.PutKeyPolicyOutput](b, root, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId, BypassPolicyLockoutSafetyCheck: true,
			Policy: ptr(`{"Version":"2012-10-17","Statement":[` + statement + `]}`)})
		b.free = false
	}
	enc := &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x"), EncryptionContext: map[string]string{"dept": "it"}}
	toAccount := `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + acct + `:root"},"Action":"kms:*","Resource":"*"}`
	toUser := func(condition string) string {
		return `{"Effect":"Allow","Principal":{"AWS":"` + u.Principal.ARN + `"},"Action":"kms:*","Resource":"*"` + condition + `}`
	}
	set(toAccount)
	b.fails(u, "Encrypt", enc, "AccessDeniedException", "")
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":"kms:Encrypt","Resource":"`+*k.Arn+`"}`)
	must[kms.EncryptOutput](b, u, "Encrypt", enc)
	set(strings.ReplaceAll(toUser(""), "/u\"", "/v\""))
	b.fails(u, "Encrypt", enc, "AccessDeniedException", "")
	b.fails(root, "Encrypt", enc, "AccessDeniedException", "") // root has no right of its own
	set(toUser(""))
	must[kms.EncryptOutput](b, u, "Encrypt", enc)
	for condition, ok := range map[string]bool{
		`"StringEquals":{"kms:EncryptionContext:dept":"it"}`:                                                            true,
		`"StringEquals":{"kms:EncryptionContext:dept":"hr"}`:                                                            false,
		`"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["dept","x"]}`:                                        true,
		`"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["x"]}`:                                               false,
		`"StringEquals":{"kms:KeySpec":"SYMMETRIC_DEFAULT","kms:KeyUsage":"ENCRYPT_DECRYPT","kms:KeyOrigin":"AWS_KMS"}`: true,
		`"StringEquals":{"kms:EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`:                                                true,
		`"StringEquals":{"kms:EncryptionAlgorithm":"RSAES_OAEP_SHA_1"}`:                                                 false,
		`"Bool":{"kms:MultiRegion":"false"}`:                                                                            true,
		`"StringEquals":{"kms:CallerAccount":"` + acct + `"}`:                                                           true,
		`"StringEquals":{"kms:CallerAccount":"` + other + `"}`:                                                          false,
		`"StringEquals":{"kms:ViaService":"workspaces.us-west-2.amazonaws.com"}`:                                        false,
	} {
		set(toUser(`,"Condition":{` + condition + `}`))
		if _, _, err := b.do(u, "Encrypt", enc); (err == nil) != ok {
			t.Errorf("Encrypt under condition %s = %v, want allowed %v", condition, err, ok)
		}
	}
	set(toUser(`,"Condition":{"StringEquals":{"kms:ViaService":"workspaces.us-west-2.amazonaws.com"}}`))
	must[kms.EncryptOutput](b, u.Forward("workspaces"), "Encrypt", enc)
	b.fails(u.Forward("ec2"), "Encrypt", enc, "AccessDeniedException", "")
}

// TestAliasConditions: kms:RequestAlias and kms:ResourceAliases.
func TestAliasConditions(t *testing.T) {
	b := newBench(t)
	root, u := b.root(acct), b.user(acct, "u")
	k := b.newKey(&kms.CreateKeyInput{Tags: []types.Tag{{TagKey: ptr("team"), TagValue: ptr("blue")}}})
	must[kms.CreateAliasOutput](b, root, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/app"), TargetKeyId: k.KeyId})
	b.free = false
	by := func(ref string) *kms.EncryptInput { return &kms.EncryptInput{KeyId: ptr(ref), Plaintext: []byte("x")} }
	for condition, want := range map[string][2]bool{ // by alias, by ID
		`"StringEquals":{"kms:RequestAlias":"alias/app"}`:                  {true, false},
		`"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/app"}`:   {true, true},
		`"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/other"}`: {false, false},
		`"StringEquals":{"aws:ResourceTag/team":"blue"}`:                   {true, true},
		`"StringEquals":{"aws:ResourceTag/team":"red"}`:                    {false, false},
	} {
		b.iam[u.Principal.ARN] = nil
		b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":"kms:Encrypt","Resource":"*","Condition":{`+condition+`}}`)
		for i, ref := range []string{"alias/app", *k.KeyId} {
			if _, _, err := b.do(u, "Encrypt", by(ref)); (err == nil) != want[i] {
				t.Errorf("Encrypt(%s) under %s = %v, want allowed %v", ref, condition, err, want[i])
			}
		}
	}
}

// TestCrossAccount: both sides must allow, and nothing tells whether a key exists.
func TestCrossAccount(t *testing.T) {
	b := newBench(t)
	root, u := b.root(acct), b.user(other, "u")
	k := b.newKey(&kms.CreateKeyInput{})
	blob := must[kms.EncryptOutput](b, root, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	b.free = false
	dec := &kms.DecryptInput{CiphertextBlob: blob}
	b.fails(u, "Decrypt", dec, "AccessDeniedException", errCiphertextKey().Error()[len("api error AccessDeniedException: "):])
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":"kms:*","Resource":"*"}`)
	b.fails(u, "Decrypt", dec, "AccessDeniedException", "")
	b.free = true
	must[kms.PutKeyPolicyOutput](b, root, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId,
		Policy: ptr(strings.Replace(defaultPolicy(acct), `"Statement" : [`, `"Statement" : [ {"Effect":"Allow","Principal":{"AWS":"`+other+`"},"Action":["kms:Decrypt","kms:DescribeKey"],"Resource":"*"},`, 1))})
	b.free = false
	must[kms.DecryptOutput](b, u, "Decrypt", dec)
	must[kms.DescribeKeyOutput](b, u, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.Arn})
	b.fails(u, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId}, "NotFoundException", "") // an ID means the caller's account
	b.iam[u.Principal.ARN] = nil
	b.fails(u, "Decrypt", dec, "AccessDeniedException", "")
	// A grant serves across accounts without IAM.
	b.free = true
	must[kms.CreateGrantOutput](b, root, "CreateGrant", grantOn(k, &u.Principal.ARN, "Decrypt"))
	b.free = false
	must[kms.DecryptOutput](b, u, "Decrypt", dec)
}

// TestManagedKeyPolicy: an AWS managed key serves its service's callers only.
func TestManagedKeyPolicy(t *testing.T) {
	b := newBench(t)
	u := b.user(acct, "u")
	b.free = true
	k := must[kms.DescribeKeyOutput](b, b.root(acct), "DescribeKey", &kms.DescribeKeyInput{KeyId: ptr("alias/aws/workspaces")}).KeyMetadata
	b.free = false
	g := grantOn(k, host("workspaces"), "Decrypt", "CreateGrant")
	g.KeyId = ptr("alias/aws/workspaces")
	must[kms.CreateGrantOutput](b, u.Forward("workspaces"), "CreateGrant", g)
	b.fails(u, "CreateGrant", g, "AccessDeniedException", "")
	b.fails(u.Forward("ec2"), "CreateGrant", g, "AccessDeniedException", "")
	b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":"kms:*","Resource":"*"}`)
	b.fails(u, "DisableKey", &kms.DisableKeyInput{KeyId: k.KeyId}, "AccessDeniedException", "")
	b.fails(u, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: ptr(defaultPolicy(acct))}, "AccessDeniedException", "")
	must[kms.GetKeyPolicyOutput](b, u, "GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: k.KeyId})
}

// TestRoleSessions: a grant to a role serves its sessions, one to a session only it.
func TestRoleSessions(t *testing.T) {
	b := newBench(t)
	k := b.newKey(&kms.CreateKeyInput{})
	session := func(name string) *api.Call {
		return b.session(acct, "r", name)
	}
	enc := &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}
	g := must[kms.CreateGrantOutput](b, b.root(acct), "CreateGrant", grantOn(k, ptr("arn:aws:iam::"+acct+":role/r"), "Encrypt"))
	b.free = false
	must[kms.EncryptOutput](b, session("a"), "Encrypt", enc)
	b.free = true
	must[kms.RevokeGrantOutput](b, b.root(acct), "RevokeGrant", &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: g.GrantId})
	must[kms.CreateGrantOutput](b, b.root(acct), "CreateGrant", grantOn(k, ptr("arn:aws:sts::"+acct+":assumed-role/r/a"), "Encrypt"))
	b.free = false
	must[kms.EncryptOutput](b, session("a"), "Encrypt", enc)
	b.fails(session("b"), "Encrypt", enc, "AccessDeniedException", "")
}
