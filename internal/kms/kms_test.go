package kms

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

func grantTokensOf(in any) []string {
	f := reflect.ValueOf(in).Elem().FieldByName("GrantTokens")
	if !f.IsValid() {
		return nil
	}
	return f.Interface().([]string)
}

func (b *bench) newKey(in *kms.CreateKeyInput) *types.KeyMetadata {
	b.Helper()
	return must[kms.CreateKeyOutput](b, b.root(acct), "CreateKey", in).KeyMetadata
}

func TestRoundTrip(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{Description: ptr("d")})
	must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/a"), TargetKeyId: k.KeyId})
	ec := map[string]string{"a": "1", "b": "2"}
	for _, ref := range []string{*k.KeyId, *k.Arn, "alias/a", "arn:aws:kms:us-west-2:" + acct + ":alias/a"} {
		e := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: ptr(ref), Plaintext: []byte("hello"), EncryptionContext: ec})
		if *e.KeyId != *k.Arn {
			t.Errorf("Encrypt(%s).KeyId = %s, want %s", ref, *e.KeyId, *k.Arn)
		}
		d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob, EncryptionContext: map[string]string{"b": "2", "a": "1"}})
		if string(d.Plaintext) != "hello" || *d.KeyId != *k.Arn || *d.KeyMaterialId != *k.CurrentKeyMaterialId {
			t.Errorf("Decrypt = %q %s %s, want hello %s %s", d.Plaintext, *d.KeyId, *d.KeyMaterialId, *k.Arn, *k.CurrentKeyMaterialId)
		}
		must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob, EncryptionContext: ec, KeyId: ptr(ref)})
		b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob, EncryptionContext: ec, DryRun: ptr(true)}, "DryRunOperationException", "")
	}
}

// TestCiphertextIsBound changes every bit of a blob, and the context in every
// way: nothing but InvalidCiphertextException without a message may come out.
func TestCiphertextIsBound(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	k2 := b.newKey(&kms.CreateKeyInput{})
	ec := map[string]string{"user": "a", "volume": "v"}
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("secret"), EncryptionContext: ec}).CiphertextBlob
	for i := range len(blob) * 8 {
		bad := bytes.Clone(blob)
		bad[i/8] ^= 1 << (i % 8)
		b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: bad, EncryptionContext: ec}, "InvalidCiphertextException", "")
	}
	for n := range len(blob) {
		if n == 0 {
			continue
		}
		b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob[:n], EncryptionContext: ec}, "InvalidCiphertextException", "")
	}
	for name, bad := range map[string]map[string]string{
		"none": nil, "one pair": {"user": "a"}, "value": {"user": "b", "volume": "v"}, "case": {"User": "a", "volume": "v"},
		"more": {"user": "a", "volume": "v", "x": "y"}, "swapped": {"user": "v", "volume": "a"}, "shifted": {"userv": "a", "olume": "v"},
	} {
		_, _, err := b.do(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: bad})
		e, ok := err.(*types.InvalidCiphertextException)
		if !ok || e.Message != nil {
			t.Errorf("Decrypt with context %s = %v, want InvalidCiphertextException without message", name, err)
		}
	}
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec, KeyId: k2.KeyId}, "IncorrectKeyException", "")
}

func TestReEncrypt(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k1, k2 := b.newKey(&kms.CreateKeyInput{}), b.newKey(&kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "ENCRYPT_DECRYPT"})
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k1.KeyId, Plaintext: []byte("x"), EncryptionContext: map[string]string{"a": "b"}}).CiphertextBlob
	r := must[kms.ReEncryptOutput](b, c, "ReEncrypt", &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: map[string]string{"a": "b"}, DestinationKeyId: k2.Arn, DestinationEncryptionAlgorithm: "RSAES_OAEP_SHA_256"})
	back := must[kms.ReEncryptOutput](b, c, "ReEncrypt", &kms.ReEncryptInput{CiphertextBlob: r.CiphertextBlob, SourceKeyId: k2.KeyId, SourceEncryptionAlgorithm: "RSAES_OAEP_SHA_256", DestinationKeyId: k1.KeyId})
	d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: back.CiphertextBlob})
	if string(d.Plaintext) != "x" {
		t.Errorf("plaintext after two ReEncrypts = %q, want x", d.Plaintext)
	}
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: r.CiphertextBlob, EncryptionAlgorithm: "RSAES_OAEP_SHA_256"}, "ValidationException", "")
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: r.CiphertextBlob, KeyId: k2.KeyId, EncryptionAlgorithm: "RSAES_OAEP_SHA_1"}, "InvalidCiphertextException", "")
}

func TestKeyReferences(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	id := "1234abcd-12ab-34cd-56ef-1234567890ab"
	arn := "arn:aws:kms:us-west-2:" + acct + ":key/" + id
	for _, x := range []struct{ ref, code, message string }{
		{id, "NotFoundException", "Key '" + arn + "' does not exist"},
		{arn, "NotFoundException", "Key '" + arn + "' does not exist"},
		{"alias/none", "NotFoundException", "Alias arn:aws:kms:us-west-2:" + acct + ":alias/none is not found."},
		{"arn:aws:kms:us-west-2:" + acct + ":alias/none", "NotFoundException", "Alias arn:aws:kms:us-west-2:" + acct + ":alias/none is not found."},
		{"arn:aws:kms:eu-west-1:" + acct + ":key/" + id, "NotFoundException", "Invalid arn eu-west-1"},
		{"nonsense", "NotFoundException", "Invalid keyId 'nonsense'"},
		{"arn:aws:kms:us-west-2:" + acct + ":key/nonsense", "InvalidArnException", ""},
		{"arn:aws:s3:::bucket", "InvalidArnException", ""},
		{"arn:aws:kms:us-west-2:12:key/" + id, "InvalidArnException", ""},
		{"arn:aws:kms:us-west-2:" + other + ":key/" + id, "AccessDeniedException", "User: arn:aws:iam::" + acct + ":root is not authorized to perform: kms:DescribeKey on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"},
		{"arn:aws:kms:us-west-2:" + other + ":alias/x", "AccessDeniedException", ""},
		{"alias/aws/unknown", "NotFoundException", ""},
	} {
		b.fails(c, "DescribeKey", &kms.DescribeKeyInput{KeyId: ptr(x.ref)}, x.code, x.message)
	}
	k := b.newKey(&kms.CreateKeyInput{})
	must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/a"), TargetKeyId: k.KeyId})
	b.fails(c, "DisableKey", &kms.DisableKeyInput{KeyId: ptr("alias/a")}, "NotFoundException", "")
	b.fails(b.root(other), "DisableKey", &kms.DisableKeyInput{KeyId: k.Arn}, "AccessDeniedException", "")
}

func TestManagedKey(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	// Before its first use an AWS managed key has an alias and no ID.
	own := b.newKey(&kms.CreateKeyInput{})
	for _, name := range []string{"alias/a", "alias/b", "alias/x"} {
		must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr(name), TargetKeyId: own.KeyId})
	}
	list := func(limit int32) (names []string) {
		t.Helper()
		for marker := (*string)(nil); ; {
			l := must[kms.ListAliasesOutput](b, c, "ListAliases", &kms.ListAliasesInput{Limit: ptr(limit), Marker: marker})
			for _, a := range l.Aliases {
				name := *a.AliasName
				if a.TargetKeyId == nil {
					name += " unused"
				}
				if *a.AliasArn != "arn:aws:kms:us-west-2:"+acct+":"+*a.AliasName {
					t.Errorf("the ARN of %s is %s", *a.AliasName, *a.AliasArn)
				}
				names = append(names, name)
			}
			if !l.Truncated {
				return names
			}
			marker = l.NextMarker
		}
	}
	for limit := int32(1); limit < 7; limit++ {
		if got, want := list(limit), []string{"alias/a", "alias/aws/ebs unused", "alias/aws/workspaces unused", "alias/b", "alias/x"}; !slices.Equal(got, want) {
			t.Errorf("ListAliases by %d = %q, want %q", limit, got, want)
		}
	}
	k := must[kms.DescribeKeyOutput](b, c, "DescribeKey", &kms.DescribeKeyInput{KeyId: ptr("alias/aws/workspaces")}).KeyMetadata
	if got, want := list(2), []string{"alias/a", "alias/aws/ebs unused", "alias/aws/workspaces", "alias/b", "alias/x"}; !slices.Equal(got, want) {
		t.Errorf("ListAliases after the first use = %q, want %q", got, want)
	}
	if l := must[kms.ListAliasesOutput](b, c, "ListAliases", &kms.ListAliasesInput{KeyId: own.KeyId}); len(l.Aliases) != 3 {
		t.Errorf("ListAliases of a key = %+v, want its three", l.Aliases)
	}
	if k.KeyManager != types.KeyManagerTypeAws || k.KeySpec != types.KeySpecSymmetricDefault {
		t.Errorf("manager %s spec %s, want AWS SYMMETRIC_DEFAULT", k.KeyManager, k.KeySpec)
	}
	again := must[kms.GenerateDataKeyWithoutPlaintextOutput](b, c, "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: ptr("alias/aws/workspaces"), NumberOfBytes: ptr(int32(64))})
	if *again.KeyId != *k.Arn {
		t.Errorf("second use made another key: %s, want %s", *again.KeyId, *k.Arn)
	}
	g := must[kms.GenerateDataKeyWithoutPlaintextOutput](b, c, "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: ptr("alias/aws/ebs"), NumberOfBytes: ptr(int32(64))})
	if *g.KeyId == *k.Arn {
		t.Error("EBS and WorkSpaces share a key")
	}
	must[kms.CreateGrantOutput](b, b.root(other), "CreateGrant", &kms.CreateGrantInput{KeyId: ptr("alias/aws/workspaces"), GranteePrincipal: ptr("workspaces.us-west-2.amazonaws.com"), Operations: []types.GrantOperation{"Decrypt"}})
	p := must[kms.GetKeyPolicyOutput](b, c, "GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: k.KeyId})
	if !strings.Contains(*p.Policy, `"kms:ViaService" : "workspaces.us-west-2.amazonaws.com"`) {
		t.Errorf("policy of the AWS managed key lacks kms:ViaService: %s", *p.Policy)
	}
	b.fails(c, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: ptr(defaultPolicy(acct))}, "AccessDeniedException", "")
	b.fails(c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId}, "AccessDeniedException", "")
	if got, want := list(100), []string{"alias/a", "alias/aws/ebs", "alias/aws/workspaces", "alias/b", "alias/x"}; !slices.Equal(got, want) {
		t.Errorf("ListAliases = %q, want %q", got, want)
	}
	b.fails(c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/aws/mine"), TargetKeyId: k.KeyId}, "NotAuthorizedException", "")
	b.fails(c, "DeleteAlias", &kms.DeleteAliasInput{AliasName: ptr("alias/aws/ebs")}, "NotAuthorizedException", "")
}

func TestAliases(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k1, k2 := b.newKey(&kms.CreateKeyInput{}), b.newKey(&kms.CreateKeyInput{})
	h := b.newKey(&kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	create := func(name string, k *types.KeyMetadata) *kms.CreateAliasInput {
		return &kms.CreateAliasInput{AliasName: ptr(name), TargetKeyId: k.KeyId}
	}
	must[kms.CreateAliasOutput](b, c, "CreateAlias", create("alias/x", k1))
	b.fails(c, "CreateAlias", create("alias/x", k2), "AlreadyExistsException", "An alias with the name arn:aws:kms:us-west-2:"+acct+":alias/x already exists")
	b.fails(c, "CreateAlias", create("x", k2), "ValidationException", "")
	for _, target := range []string{"alias/x", "arn:aws:kms:us-west-2:" + acct + ":alias/x"} {
		b.fails(c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/z"), TargetKeyId: ptr(target)}, "ValidationException", "Aliases must refer to keys. Not aliases")
		b.fails(c, "UpdateAlias", &kms.UpdateAliasInput{AliasName: ptr("alias/x"), TargetKeyId: ptr(target)}, "ValidationException", "Aliases must refer to keys. Not aliases")
	}
	b.fails(c, "CreateAlias", create("alias/a b", k2), "ValidationException", "")
	must[kms.UpdateAliasOutput](b, c, "UpdateAlias", &kms.UpdateAliasInput{AliasName: ptr("alias/x"), TargetKeyId: k2.KeyId})
	if d := must[kms.DescribeKeyOutput](b, c, "DescribeKey", &kms.DescribeKeyInput{KeyId: ptr("alias/x")}); *d.KeyMetadata.KeyId != *k2.KeyId {
		t.Errorf("alias/x names %s after UpdateAlias, want %s", *d.KeyMetadata.KeyId, *k2.KeyId)
	}
	b.fails(c, "UpdateAlias", &kms.UpdateAliasInput{AliasName: ptr("alias/x"), TargetKeyId: h.KeyId}, "KMSInvalidStateException", "")
	b.fails(c, "UpdateAlias", &kms.UpdateAliasInput{AliasName: ptr("alias/y"), TargetKeyId: k1.KeyId}, "NotFoundException", "")
	must[kms.DeleteAliasOutput](b, c, "DeleteAlias", &kms.DeleteAliasInput{AliasName: ptr("alias/x")})
	b.fails(c, "DeleteAlias", &kms.DeleteAliasInput{AliasName: ptr("alias/x")}, "NotFoundException", "")
	for i := range 50 {
		must[kms.CreateAliasOutput](b, c, "CreateAlias", create("alias/n"+itoa(i), k1))
	}
	b.fails(c, "CreateAlias", create("alias/n50", k1), "LimitExceededException", "")
	seen := map[string]bool{}
	var marker *string
	for {
		l := must[kms.ListAliasesOutput](b, c, "ListAliases", &kms.ListAliasesInput{KeyId: k1.KeyId, Limit: ptr(int32(7)), Marker: marker})
		for _, a := range l.Aliases {
			if seen[*a.AliasName] {
				t.Errorf("%s listed twice", *a.AliasName)
			}
			seen[*a.AliasName] = true
		}
		if !l.Truncated {
			break
		}
		marker = l.NextMarker
	}
	if len(seen) != 50 {
		t.Errorf("%d aliases listed, want 50", len(seen))
	}
	b.fails(c, "ListAliases", &kms.ListAliasesInput{Marker: ptr("bogus")}, "InvalidMarkerException", "")
	b.fails(c, "ListKeys", &kms.ListKeysInput{Marker: marker}, "InvalidMarkerException", "")
}

func TestPolicyChecks(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	put := func(p string) *kms.PutKeyPolicyInput { return &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: ptr(p)} }
	must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", put(defaultPolicy(acct)))
	b.fails(c, "PutKeyPolicy", put(strings.ReplaceAll(defaultPolicy(acct), ":root", ":user/nobody")), "MalformedPolicyDocumentException", "")
	// An account of another installation may be named; it does not keep the caller in control.
	must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", put(strings.Replace(defaultPolicy(acct), `"AWS" : "arn:aws:iam::`+acct+`:root"`, `"AWS" : [ "arn:aws:iam::`+acct+`:root", "arn:aws:iam::999999999999:root", "888888888888" ]`, 1)))
	b.fails(c, "PutKeyPolicy", put(strings.ReplaceAll(defaultPolicy(acct), acct, "999999999999")), "MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future.")
	b.fails(c, "PutKeyPolicy", put("{"), "MalformedPolicyDocumentException", "")
	b.fails(c, "PutKeyPolicy", put(defaultPolicy(acct)+strings.Repeat(" ", 33000)), "LimitExceededException", "")
	locked := strings.ReplaceAll(defaultPolicy(acct), "kms:*", "kms:Encrypt")
	b.fails(c, "PutKeyPolicy", put(locked), "MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future.")
	in := put(locked)
	in.BypassPolicyLockoutSafetyCheck = true
	must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", in)
	if got := *must[kms.GetKeyPolicyOutput](b, c, "GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: k.KeyId}).Policy; got != locked {
		t.Errorf("GetKeyPolicy = %s, want what was put", got)
	}
	b.fails(c, "GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: k.KeyId, PolicyName: ptr("x")}, "NotFoundException", "No such policy exists")
	b.fails(c, "CreateKey", &kms.CreateKeyInput{Policy: ptr(locked)}, "MalformedPolicyDocumentException", "")
}

// TestAllSpecs uses a key of every spec for each of its usages.
func TestAllSpecs(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	for name, sp := range specs {
		if strings.HasPrefix(name, "RSA_") && name != "RSA_2048" && testing.Short() {
			continue
		}
		for _, usage := range sp.usages {
			k := b.newKey(&kms.CreateKeyInput{KeySpec: types.KeySpec(name), KeyUsage: types.KeyUsageType(usage)})
			if usage != usageMAC && name != specSymmetric {
				p := must[kms.GetPublicKeyOutput](b, c, "GetPublicKey", &kms.GetPublicKeyInput{KeyId: k.KeyId})
				if len(p.PublicKey) == 0 {
					t.Errorf("%s: no public key", name)
				}
			}
			for _, a := range k.EncryptionAlgorithms {
				e := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("m"), EncryptionAlgorithm: a})
				d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{KeyId: k.KeyId, CiphertextBlob: e.CiphertextBlob, EncryptionAlgorithm: a})
				if string(d.Plaintext) != "m" {
					t.Errorf("%s %s: decrypted %q, want m", name, a, d.Plaintext)
				}
			}
			for _, a := range k.SigningAlgorithms {
				kind, msg := types.MessageTypeRaw, []byte("message")
				if a == types.SigningAlgorithmSpecEd25519PhSha512 {
					kind, msg = types.MessageTypeDigest, make([]byte, 64)
				}
				sig := must[kms.SignOutput](b, c, "Sign", &kms.SignInput{KeyId: k.KeyId, Message: msg, MessageType: kind, SigningAlgorithm: a}).Signature
				must[kms.VerifyOutput](b, c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: msg, MessageType: kind, SigningAlgorithm: a, Signature: sig})
				sig[len(sig)/2] ^= 1
				b.fails(c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: msg, MessageType: kind, SigningAlgorithm: a, Signature: sig}, "KMSInvalidSignatureException", "")
			}
			for _, a := range k.MacAlgorithms {
				m := must[kms.GenerateMacOutput](b, c, "GenerateMac", &kms.GenerateMacInput{KeyId: k.KeyId, Message: []byte("m"), MacAlgorithm: a}).Mac
				must[kms.VerifyMacOutput](b, c, "VerifyMac", &kms.VerifyMacInput{KeyId: k.KeyId, Message: []byte("m"), MacAlgorithm: a, Mac: m})
				m[0] ^= 1
				b.fails(c, "VerifyMac", &kms.VerifyMacInput{KeyId: k.KeyId, Message: []byte("m"), MacAlgorithm: a, Mac: m}, "KMSInvalidMacException", "")
			}
			for range k.KeyAgreementAlgorithms {
				k2 := b.newKey(&kms.CreateKeyInput{KeySpec: types.KeySpec(name), KeyUsage: types.KeyUsageType(usage)})
				pub := func(k *types.KeyMetadata) []byte {
					return must[kms.GetPublicKeyOutput](b, c, "GetPublicKey", &kms.GetPublicKeyInput{KeyId: k.KeyId}).PublicKey
				}
				s1 := must[kms.DeriveSharedSecretOutput](b, c, "DeriveSharedSecret", &kms.DeriveSharedSecretInput{KeyId: k.KeyId, KeyAgreementAlgorithm: "ECDH", PublicKey: pub(k2)}).SharedSecret
				s2 := must[kms.DeriveSharedSecretOutput](b, c, "DeriveSharedSecret", &kms.DeriveSharedSecretInput{KeyId: k2.KeyId, KeyAgreementAlgorithm: "ECDH", PublicKey: pub(k)}).SharedSecret
				if !bytes.Equal(s1, s2) || len(s1) == 0 {
					t.Errorf("%s: the two sides derive different secrets", name)
				}
			}
			for _, a := range k.EncapsulationAlgorithms {
				e := must[kms.EncapsulateOutput](b, c, "Encapsulate", &kms.EncapsulateInput{KeyId: k.KeyId, EncapsulationAlgorithm: a})
				d := must[kms.DecapsulateOutput](b, c, "Decapsulate", &kms.DecapsulateInput{KeyId: k.KeyId, EncapsulationAlgorithm: a, SharedSecretCiphertextBlob: e.SharedSecretCiphertextBlob})
				if !bytes.Equal(e.SharedSecret, d.SharedSecret) || len(d.SharedSecret) != 32 {
					t.Errorf("%s: Decapsulate and Encapsulate differ", name)
				}
				b.fails(c, "Decapsulate", &kms.DecapsulateInput{KeyId: k.KeyId, EncapsulationAlgorithm: a, SharedSecretCiphertextBlob: e.SharedSecretCiphertextBlob[1:]}, "InvalidCiphertextException", "")
			}
		}
	}
	b.fails(c, "CreateKey", &kms.CreateKeyInput{KeySpec: "SM2", KeyUsage: "SIGN_VERIFY"}, "UnsupportedOperationException", "")
	b.fails(c, "CreateKey", &kms.CreateKeyInput{KeySpec: "RSA_2048"}, "ValidationException", "")
	b.fails(c, "CreateKey", &kms.CreateKeyInput{KeySpec: "HMAC_224", KeyUsage: "SIGN_VERIFY"}, "ValidationException", "")
}

func TestDataKeys(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	g := must[kms.GenerateDataKeyOutput](b, c, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: "AES_256"})
	if d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: g.CiphertextBlob}); !bytes.Equal(d.Plaintext, g.Plaintext) || len(d.Plaintext) != 32 {
		t.Error("the data key does not decrypt to what was returned")
	}
	w := must[kms.GenerateDataKeyWithoutPlaintextOutput](b, c, "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: k.KeyId, NumberOfBytes: ptr(int32(64))})
	if d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: w.CiphertextBlob}); len(d.Plaintext) != 64 {
		t.Errorf("data key of %d bytes, want 64", len(d.Plaintext))
	}
	b.fails(c, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: k.KeyId}, "ValidationException", "")
	b.fails(c, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: "AES_256", NumberOfBytes: ptr(int32(1))}, "ValidationException", "")
	for _, spec := range types.DataKeyPairSpec("").Values() {
		if spec == "SM2" {
			b.fails(c, "GenerateDataKeyPair", &kms.GenerateDataKeyPairInput{KeyId: k.KeyId, KeyPairSpec: spec}, "UnsupportedOperationException", "")
			continue
		}
		if spec == "RSA_4096" && testing.Short() {
			continue
		}
		p := must[kms.GenerateDataKeyPairOutput](b, c, "GenerateDataKeyPair", &kms.GenerateDataKeyPairInput{KeyId: k.KeyId, KeyPairSpec: spec})
		if d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: p.PrivateKeyCiphertextBlob}); !bytes.Equal(d.Plaintext, p.PrivateKeyPlaintext) {
			t.Errorf("%s: the private key does not decrypt to what was returned", spec)
		}
	}
	h := b.newKey(&kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	b.fails(c, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: h.KeyId, KeySpec: "AES_256"}, "InvalidKeyUsageException", "")
	b.fails(c, "Encrypt", &kms.EncryptInput{KeyId: h.KeyId, Plaintext: []byte("x")}, "InvalidKeyUsageException", *h.Arn+" key usage is GENERATE_VERIFY_MAC which is not valid for Encrypt.")
}

// TestDeletionDestroys schedules a deletion, passes the time and looks whether
// the material is gone from the store's records and from memory.
func TestDeletionDestroys(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/gone"), TargetKeyId: k.KeyId})
	must[kms.CreateGrantOutput](b, c, "CreateGrant", &kms.CreateGrantInput{KeyId: k.KeyId, GranteePrincipal: ptr("arn:aws:iam::" + acct + ":user/u"), Operations: []types.GrantOperation{"Decrypt"}})
	b.fails(c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(6))}, "ValidationException", "")
	out := must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(7))})
	if want := b.clk.Now().AddDate(0, 0, 7); !out.DeletionDate.Equal(want) {
		t.Errorf("DeletionDate = %v, want %v", out.DeletionDate, want)
	}
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "KMSInvalidStateException", *k.Arn+" is pending deletion.")
	must[kms.CancelKeyDeletionOutput](b, c, "CancelKeyDeletion", &kms.CancelKeyDeletionInput{KeyId: k.KeyId})
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "DisabledException", *k.Arn+" is disabled.")
	must[kms.EnableKeyOutput](b, c, "EnableKey", &kms.EnableKeyInput{KeyId: k.KeyId})
	must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
	must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(7))})
	b.clk.Advance(7*24*time.Hour - time.Second)
	if err := b.s.Reap(context.Background()); err != nil {
		t.Fatal(err)
	}
	must[kms.DescribeKeyOutput](b, c, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId})
	mem := b.s.keys.Get(b.st.Snapshot(), path(acct, region, *k.KeyId)).derived.mem.find(*k.CurrentKeyMaterialId)
	b.clk.Advance(time.Second)
	if err := b.s.Reap(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.fails(c, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId}, "NotFoundException", "")
	b.fails(c, "DescribeKey", &kms.DescribeKeyInput{KeyId: ptr("alias/gone")}, "NotFoundException", "")
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "AccessDeniedException", "")
	if !mem.gone || mem.raw.Len() != 0 {
		t.Error("the material of a destroyed key is still in memory")
	}
	if n := b.s.grants.Len(b.st.Snapshot()); n != 0 {
		t.Errorf("%d grants left of a destroyed key, want 0", n)
	}
}

func TestRotationKeepsOldMaterial(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	var blobs [][]byte
	seal := func() {
		blobs = append(blobs, must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte{byte(len(blobs))}}).CiphertextBlob)
	}
	seal()
	must[kms.EnableKeyRotationOutput](b, c, "EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: k.KeyId, RotationPeriodInDays: ptr(int32(90))})
	b.clk.Advance(90 * 24 * time.Hour)
	if err := b.s.Reap(context.Background()); err != nil {
		t.Fatal(err)
	}
	seal()
	for range 25 {
		must[kms.RotateKeyOnDemandOutput](b, c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
		seal()
	}
	b.fails(c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId}, "LimitExceededException", "")
	materials := map[string]bool{}
	for i, blob := range blobs {
		d := must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
		if d.Plaintext[0] != byte(i) {
			t.Errorf("blob %d decrypts to %v", i, d.Plaintext)
		}
		materials[*d.KeyMaterialId] = true
	}
	if len(materials) != 27 {
		t.Errorf("%d key materials used, want 27", len(materials))
	}
	l := must[kms.ListKeyRotationsOutput](b, c, "ListKeyRotations", &kms.ListKeyRotationsInput{KeyId: k.KeyId})
	if len(l.Rotations) != 26 || l.Rotations[0].RotationType != types.RotationTypeAutomatic || l.Rotations[25].RotationType != types.RotationTypeOnDemand {
		t.Errorf("ListKeyRotations = %d entries, want 26, the first automatic", len(l.Rotations))
	}
	h := b.newKey(&kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	b.fails(c, "EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: h.KeyId}, "UnsupportedOperationException", "")
}

// TestNothingPlainOnDisk looks for material and plaintexts in the data directory.
func TestNothingPlainOnDisk(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	g := must[kms.GenerateDataKeyOutput](b, c, "GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: "AES_256"})
	canary := []byte("canary-5f0c1e7a-plaintext")
	must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: canary})
	mem := b.s.keys.Get(b.st.Snapshot(), path(acct, region, *k.KeyId)).derived.mem.find(*k.CurrentKeyMaterialId)
	raw := mem.raw.Expose()
	needles := map[string][]byte{"key material": raw, "data key": g.Plaintext, "plaintext": canary}
	files, seen := 0, 0
	err := filepath.Walk(b.dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil || fi.IsDir() {
			return err
		}
		files++
		body, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if bytes.Contains(body, []byte(*k.KeyId)) {
			seen++
		}
		for what, n := range needles {
			if bytes.Contains(body, n) || bytes.Contains(body, []byte(b64(n))) || bytes.Contains(body, []byte(hexOf(n))) {
				t.Errorf("%s found in %s", what, p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Errorf("the key's record is in none of %d files: the test looks in the wrong place", files)
	}
}

// TestTheTableIsWhole compares with the SDK: every operation of the API is there.
func TestTheTableIsWhole(t *testing.T) {
	b := newBench(t)
	client := reflect.TypeFor[*kms.Client]()
	n := 0
	for i := range client.NumMethod() {
		m := client.Method(i)
		if m.Type.NumIn() != 4 || !strings.HasSuffix(m.Type.In(2).String(), "Input") {
			continue
		}
		n++
		if b.ops[m.Name] == nil {
			t.Errorf("operation %s is not served", m.Name)
		}
	}
	if n != len(b.ops) || n < 50 {
		t.Errorf("%d operations in the SDK, %d served", n, len(b.ops))
	}
	for name, op := range b.ops {
		if op.Targets == nil {
			t.Errorf("%s has no authorisation targets", name)
		}
	}
}

var _ = api.View
