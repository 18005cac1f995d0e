package kms

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

// TestConditionKeys: every condition key of the service, on every operation that
// has it. An IAM policy with the key's right value lets the call through, one with
// another value, or that asks for the key's absence, does not.
// Source: KMS developer guide, "AWS KMS permissions" and "AWS KMS condition keys".
func TestConditionKeys(t *testing.T) {
	b := newBench(t)
	root := b.root(acct)
	tags := []types.Tag{{TagKey: ptr("team"), TagValue: ptr("blue")}}
	key := func(in *kms.CreateKeyInput) *types.KeyMetadata {
		in.Tags = tags
		k := b.newKey(in)
		must[kms.CreateAliasOutput](b, root, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/" + *k.KeyId), TargetKeyId: k.KeyId})
		return k
	}
	sym, sym2 := key(&kms.CreateKeyInput{}), key(&kms.CreateKeyInput{})
	ecc := key(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY"})
	mac := key(&kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	dh := key(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P384", KeyUsage: "KEY_AGREEMENT"})
	kem := key(&kms.CreateKeyInput{KeySpec: "ML_KEM_768", KeyUsage: "ENCAPSULATE_DECAPSULATE"})
	ext := key(&kms.CreateKeyInput{Origin: "EXTERNAL"})
	mrk := key(&kms.CreateKeyInput{MultiRegion: ptr(true)})
	ec := map[string]string{"a": "1", "b": "2"}
	blob := must[kms.EncryptOutput](b, root, "Encrypt", &kms.EncryptInput{KeyId: sym.KeyId, Plaintext: []byte("x"), EncryptionContext: ec}).CiphertextBlob
	user := ptr("arn:aws:iam::" + acct + ":user/grantee")
	grant := func(set func(*kms.CreateGrantInput)) *kms.CreateGrantInput {
		in := &kms.CreateGrantInput{KeyId: sym.KeyId, GranteePrincipal: user, RetiringPrincipal: user, Operations: []types.GrantOperation{"Decrypt", "Encrypt"}}
		if set != nil {
			set(in)
		}
		return in
	}
	subset := grant(func(in *kms.CreateGrantInput) {
		in.Constraints = &types.GrantConstraints{EncryptionContextSubset: ec}
	})
	made := must[kms.CreateGrantOutput](b, root, "CreateGrant", subset)
	b.clk.Advance(49 * time.Hour)
	validTo := b.clk.Now().Add(24 * time.Hour)
	params := func() *kms.GetParametersForImportInput {
		return &kms.GetParametersForImportInput{KeyId: ext.KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}
	}
	alias := func(k *types.KeyMetadata) *string { return ptr("alias/" + *k.KeyId) }

	// What every operation on a key has, and what those have that a key may be named to by alias.
	about := func(k *types.KeyMetadata, aliased bool) map[string]string {
		m := map[string]string{"kms:CallerAccount": acct, "kms:ViaService": "ec2.us-west-2.amazonaws.com", "kms:KeySpec": string(k.KeySpec), "kms:KeyUsage": string(k.KeyUsage),
			"kms:CustomerMasterKeySpec": string(k.KeySpec), "kms:CustomerMasterKeyUsage": string(k.KeyUsage), "kms:KeyOrigin": string(k.Origin),
			"kms:MultiRegion": fmt.Sprint(*k.MultiRegion), "ForAnyValue kms:ResourceAliases": *alias(k), "aws:ResourceTag/team": "blue"}
		if *k.MultiRegion {
			m["kms:MultiRegionKeyType"] = "PRIMARY"
		}
		if aliased {
			m["kms:RequestAlias"] = *alias(k)
		}
		return m
	}
	pairs := map[string]string{"kms:EncryptionContext:a": "1", "ForAnyValue kms:EncryptionContextKeys": "b"}
	symmetric := map[string]string{"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
	join := func(list ...map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range list {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	is := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	type row struct {
		op   string
		in   any
		keys map[string]string
	}
	var rows []row
	add := func(op string, in any, keys ...map[string]string) { rows = append(rows, row{op, in, join(keys...)}) }
	plain := func(op string, in any) { add(op, in, about(sym, false)) }
	plain("CancelKeyDeletion", &kms.CancelKeyDeletionInput{KeyId: sym.KeyId})
	plain("CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/new"), TargetKeyId: sym.KeyId})
	add("CreateGrant", subset, about(sym, false), pairs, is("kms:GrantConstraintType", "EncryptionContextSubset", "kms:GranteePrincipal", *user, "kms:RetiringPrincipal", *user,
		"ForAnyValue kms:GrantOperations", "Encrypt", "kms:GrantIsForAWSResource", "true"))
	add("CreateGrant", grant(func(in *kms.CreateGrantInput) {
		in.Constraints = &types.GrantConstraints{EncryptionContextEquals: ec}
	}), is("kms:GrantConstraintType", "EncryptionContextEquals"))
	add("CreateGrant", grant(func(in *kms.CreateGrantInput) {
		in.GranteePrincipal, in.RetiringPrincipal, in.GranteeServicePrincipal, in.RetiringServicePrincipal = nil, nil, host("ec2"), host("ebs")
		in.Constraints = &types.GrantConstraints{SourceArn: ptr("arn:aws:ec2:us-west-2:" + acct + ":volume/vol-1")}
	}), is("kms:GranteeServicePrincipal", *host("ec2"), "kms:RetiringServicePrincipal", *host("ebs"), "kms:GrantConstraintSourceArn", "arn:aws:ec2:us-west-2:"+acct+":volume/vol-1"))
	add("CreateKey", &kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "SIGN_VERIFY", MultiRegion: ptr(true), Tags: tags, BypassPolicyLockoutSafetyCheck: true},
		is("kms:CallerAccount", acct, "kms:ViaService", "ec2.us-west-2.amazonaws.com", "kms:KeySpec", "RSA_2048", "kms:KeyUsage", "SIGN_VERIFY", "kms:KeyOrigin", "AWS_KMS", "kms:MultiRegion", "true",
			"kms:MultiRegionKeyType", "PRIMARY", "kms:BypassPolicyLockoutSafetyCheck", "true", "aws:RequestTag/team", "blue", "ForAnyValue aws:TagKeys", "team"))
	add("Decapsulate", &kms.DecapsulateInput{KeyId: alias(kem), EncapsulationAlgorithm: "ML_KEM", SharedSecretCiphertextBlob: make([]byte, 1088)}, about(kem, true))
	add("Decrypt", &kms.DecryptInput{KeyId: alias(sym), CiphertextBlob: blob, EncryptionContext: ec}, about(sym, true), pairs, symmetric)
	plain("DeleteAlias", &kms.DeleteAliasInput{AliasName: alias(sym)})
	add("DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: ext.KeyId}, about(ext, false))
	add("DeriveSharedSecret", &kms.DeriveSharedSecretInput{KeyId: alias(dh), KeyAgreementAlgorithm: "ECDH", PublicKey: []byte("x")}, about(dh, true), is("kms:KeyAgreementAlgorithm", "ECDH"))
	add("DescribeKey", &kms.DescribeKeyInput{KeyId: alias(sym)}, about(sym, true))
	add("DisableKey", &kms.DisableKeyInput{KeyId: sym.KeyId}, about(sym, false), is("kms:TrailingDaysWithoutKeyUsage", "2"))
	add("DisableKey", &kms.DisableKeyInput{KeyId: sym2.KeyId}, is("kms:TrailingDaysWithoutKeyUsage", "2"))
	plain("DisableKeyRotation", &kms.DisableKeyRotationInput{KeyId: sym.KeyId})
	plain("EnableKey", &kms.EnableKeyInput{KeyId: sym.KeyId})
	add("EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: sym.KeyId, RotationPeriodInDays: ptr(int32(100))}, about(sym, false), is("kms:RotationPeriodInDays", "100"))
	add("Encapsulate", &kms.EncapsulateInput{KeyId: alias(kem), EncapsulationAlgorithm: "ML_KEM"}, about(kem, true))
	add("Encrypt", &kms.EncryptInput{KeyId: alias(sym), Plaintext: []byte("x"), EncryptionContext: ec}, about(sym, true), pairs, symmetric)
	add("GenerateDataKey", &kms.GenerateDataKeyInput{KeyId: alias(sym), KeySpec: "AES_256", EncryptionContext: ec}, about(sym, true), pairs, symmetric)
	add("GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: alias(sym), KeySpec: "AES_256", EncryptionContext: ec}, about(sym, true), pairs, symmetric)
	add("GenerateDataKeyPair", &kms.GenerateDataKeyPairInput{KeyId: alias(sym), KeyPairSpec: "ECC_NIST_P256", EncryptionContext: ec}, about(sym, true), pairs, symmetric, is("kms:DataKeyPairSpec", "ECC_NIST_P256"))
	add("GenerateDataKeyPairWithoutPlaintext", &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: alias(sym), KeyPairSpec: "ECC_NIST_P256", EncryptionContext: ec}, about(sym, true), pairs, symmetric, is("kms:DataKeyPairSpec", "ECC_NIST_P256"))
	add("GenerateMac", &kms.GenerateMacInput{KeyId: alias(mac), Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256"}, about(mac, true), is("kms:MacAlgorithm", "HMAC_SHA_256"))
	add("VerifyMac", &kms.VerifyMacInput{KeyId: alias(mac), Message: []byte("x"), Mac: []byte("x"), MacAlgorithm: "HMAC_SHA_256"}, about(mac, true), is("kms:MacAlgorithm", "HMAC_SHA_256"))
	plain("GetKeyLastUsage", &kms.GetKeyLastUsageInput{KeyId: sym.KeyId})
	plain("GetKeyPolicy", &kms.GetKeyPolicyInput{KeyId: sym.KeyId})
	plain("GetKeyRotationStatus", &kms.GetKeyRotationStatusInput{KeyId: sym.KeyId})
	add("GetParametersForImport", params(), about(ext, false), is("kms:WrappingAlgorithm", "RSAES_OAEP_SHA_256", "kms:WrappingKeySpec", "RSA_2048"))
	add("GetPublicKey", &kms.GetPublicKeyInput{KeyId: alias(ecc)}, about(ecc, true))
	add("ImportKeyMaterial", &kms.ImportKeyMaterialInput{KeyId: ext.KeyId, ExpirationModel: "KEY_MATERIAL_EXPIRES", ValidTo: &validTo, ImportToken: []byte("x")}, about(ext, false),
		is("kms:ExpirationModel", "KEY_MATERIAL_EXPIRES", "Date kms:ValidTo", validTo.Format(time.RFC3339)))
	add("ListGrants", &kms.ListGrantsInput{KeyId: sym.KeyId}, about(sym, false), is("kms:GrantIsForAWSResource", "true"))
	plain("ListKeyPolicies", &kms.ListKeyPoliciesInput{KeyId: sym.KeyId})
	plain("ListKeyRotations", &kms.ListKeyRotationsInput{KeyId: sym.KeyId})
	plain("ListResourceTags", &kms.ListResourceTagsInput{KeyId: sym.KeyId})
	add("PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: sym.KeyId, Policy: ptr("{}"), BypassPolicyLockoutSafetyCheck: true}, about(sym, false), is("kms:BypassPolicyLockoutSafetyCheck", "true"))
	add("ReEncrypt", &kms.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: alias(sym), SourceEncryptionContext: ec, DestinationKeyId: alias(sym), DestinationEncryptionContext: ec}, about(sym, true), pairs, symmetric, is("kms:ReEncryptOnSameKey", "true"))
	add("ReEncrypt", &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: ec, DestinationKeyId: sym2.KeyId}, is("kms:ReEncryptOnSameKey", "false"))
	add("ReplicateKey", &kms.ReplicateKeyInput{KeyId: mrk.KeyId, ReplicaRegion: ptr("eu-west-1")}, is("kms:CallerAccount", acct, "kms:KeySpec", "SYMMETRIC_DEFAULT", "kms:MultiRegion", "true"))
	add("ReplicateKey", &kms.ReplicateKeyInput{KeyId: mrk.KeyId, ReplicaRegion: ptr("eu-west-1")}, is("kms:ReplicaRegion", "eu-west-1"))
	add("RetireGrant", &kms.RetireGrantInput{GrantToken: made.GrantToken}, is("kms:CallerAccount", acct, "kms:GrantConstraintType", "EncryptionContextSubset"), pairs)
	add("RevokeGrant", &kms.RevokeGrantInput{KeyId: sym.KeyId, GrantId: made.GrantId}, about(sym, false), is("kms:GrantIsForAWSResource", "true"))
	plain("RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: sym.KeyId})
	add("ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: sym.KeyId, PendingWindowInDays: ptr(int32(9))}, about(sym, false), is("kms:ScheduleKeyDeletionPendingWindowInDays", "9", "kms:TrailingDaysWithoutKeyUsage", "2"))
	add("Sign", &kms.SignInput{KeyId: alias(ecc), Message: []byte("x"), SigningAlgorithm: "ECDSA_SHA_256"}, about(ecc, true), is("kms:SigningAlgorithm", "ECDSA_SHA_256", "kms:MessageType", "RAW"))
	add("Verify", &kms.VerifyInput{KeyId: alias(ecc), Message: make([]byte, 32), Signature: []byte("x"), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256"}, about(ecc, true), is("kms:SigningAlgorithm", "ECDSA_SHA_256", "kms:MessageType", "DIGEST"))
	add("TagResource", &kms.TagResourceInput{KeyId: sym.KeyId, Tags: tags}, about(sym, false), is("aws:RequestTag/team", "blue", "ForAnyValue aws:TagKeys", "team"))
	add("UntagResource", &kms.UntagResourceInput{KeyId: sym.KeyId, TagKeys: []string{"x"}}, about(sym, false), is("ForAnyValue aws:TagKeys", "x"))
	plain("UpdateAlias", &kms.UpdateAliasInput{AliasName: alias(sym), TargetKeyId: sym.KeyId})
	plain("UpdateKeyDescription", &kms.UpdateKeyDescriptionInput{KeyId: sym.KeyId, Description: ptr("x")})
	add("UpdatePrimaryRegion", &kms.UpdatePrimaryRegionInput{KeyId: mrk.KeyId, PrimaryRegion: ptr("eu-west-1")}, about(mrk, false), is("kms:PrimaryRegion", "eu-west-1"))

	// The operations have other resources than the key in some cases; those are let through.
	aside := `{"Effect":"Allow","Action":["kms:CreateAlias","kms:UpdateAlias","kms:DeleteAlias"],"Resource":"arn:aws:kms:*:*:alias/*"}`
	seen := map[string]bool{}
	b.free = false
	for _, r := range rows {
		for name, value := range r.keys {
			operator, key := "StringEquals", name
			other := "no " + value
			switch k, ok := strings.CutPrefix(name, "ForAnyValue "); {
			case ok:
				operator, key = "ForAnyValue:StringEquals", k
			case strings.HasPrefix(name, "Date "):
				operator, key, other = "DateEquals", name[5:], "2020-01-01T00:00:00Z"
			}
			seen[key] = true
			for _, c := range []struct {
				condition string
				allowed   bool
			}{{fmt.Sprintf(`"%s":{"%s":"%s"}`, operator, key, value), true}, {fmt.Sprintf(`"%s":{"%s":"%s"}`, operator, key, other), false}, {fmt.Sprintf(`"Null":{"%s":"true"}`, key), false}} {
				u := b.user(acct, "u")
				call := u.Forward("ec2")
				if r.op == "RetireGrant" {
					call = u
				}
				b.iam[u.Principal.ARN] = nil
				if key == "kms:ReplicaRegion" { // of the primary key; the replica is made by kms:CreateKey
					b.allow(u.Principal.ARN, `{"Effect":"Allow","Action":"kms:CreateKey","Resource":"*"}`)
				}
				b.allow(u.Principal.ARN, aside+`,{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{`+c.condition+`}}`)
				if got := b.may(call, r.op, r.in); got != c.allowed {
					t.Errorf("%s under the condition %s: allowed %v, want %v", r.op, c.condition, got, c.allowed)
				}
			}
		}
	}
	for _, key := range []string{"BypassPolicyLockoutSafetyCheck", "CallerAccount", "CustomerMasterKeySpec", "CustomerMasterKeyUsage", "DataKeyPairSpec", "EncryptionAlgorithm", "EncryptionContext:a",
		"EncryptionContextKeys", "ExpirationModel", "GrantConstraintSourceArn", "GrantConstraintType", "GrantIsForAWSResource", "GrantOperations", "GranteePrincipal", "GranteeServicePrincipal",
		"KeyAgreementAlgorithm", "KeyOrigin", "KeySpec", "KeyUsage", "MacAlgorithm", "MessageType", "MultiRegion", "MultiRegionKeyType", "PrimaryRegion", "ReEncryptOnSameKey", "ReplicaRegion", "RequestAlias",
		"ResourceAliases", "RetiringPrincipal", "RetiringServicePrincipal", "RotationPeriodInDays", "ScheduleKeyDeletionPendingWindowInDays", "SigningAlgorithm", "TrailingDaysWithoutKeyUsage",
		"ValidTo", "ViaService", "WrappingAlgorithm", "WrappingKeySpec"} {
		if !seen["kms:"+key] {
			t.Errorf("no row has the condition key kms:%s", key)
		}
	}
	covered := map[string]bool{}
	for _, r := range rows {
		covered[r.op] = true
	}
	for op := range b.ops {
		if !covered[op] && !strings.Contains(op, "CustomKeyStore") && !strings.Contains("GenerateRandom ListAliases ListKeys ListRetirableGrants", op) {
			t.Errorf("%s is not in the table of condition keys", op)
		}
	}
}

// may tells whether a call would be authorised, without running it.
func (b *bench) may(c *api.Call, name string, in any) bool {
	b.Helper()
	n := *c
	n.Time = b.clk.Now()
	targets, err := b.ops[name].Targets(context.Background(), b.st.Snapshot(), &n, in)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	for _, t := range targets {
		if !authorised(b, &n, t) {
			return false
		}
	}
	return true
}
