package kms

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/store"
)

var allStates = []string{stateEnabled, stateDisabled, statePendingDeletion, statePendingReplicaDeletion, statePendingImport, stateUnavailable, stateCreating, stateUpdating}

// refusal is what a mark in the state table means.
var refusal = map[string]struct{ code, message string }{
	"1":  {"DisabledException", " is disabled."},
	"2":  {"KMSInvalidStateException", " is pending deletion."},
	"3":  {"KMSInvalidStateException", " is pending replica deletion."},
	"4":  {"KMSInvalidStateException", " is not pending deletion."},
	"5":  {"KMSInvalidStateException", " is pending import."},
	"11": {"KMSInvalidStateException", " is unavailable."},
	"14": {"KMSInvalidStateException", " is creating."},
	"15": {"KMSInvalidStateException", " is updating."},
}

// TestStateTable is the table "Key states of AWS KMS keys" of the developer
// guide: each operation in each state. Columns are allStates; "." succeeds.
// Operations younger than the table follow their siblings.
func TestStateTable(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	sym := b.newKey(&kms.CreateKeyInput{})
	dst := b.newKey(&kms.CreateKeyInput{})
	rsa := b.newKey(&kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "ENCRYPT_DECRYPT"})
	ecc := b.newKey(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY"})
	dh := b.newKey(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: "KEY_AGREEMENT"})
	mac := b.newKey(&kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	kem := b.newKey(&kms.CreateKeyInput{KeySpec: "ML_KEM_768", KeyUsage: "ENCAPSULATE_DECAPSULATE"})
	mrk := b.newKey(&kms.CreateKeyInput{MultiRegion: ptr(true)})
	ext, material := importedKey(b)
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: sym.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	sig := must[kms.SignOutput](b, c, "Sign", &kms.SignInput{KeyId: ecc.KeyId, Message: []byte("x"), SigningAlgorithm: "ECDSA_SHA_256"}).Signature
	tag := must[kms.GenerateMacOutput](b, c, "GenerateMac", &kms.GenerateMacInput{KeyId: mac.KeyId, Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256"}).Mac
	peer := must[kms.GetPublicKeyOutput](b, c, "GetPublicKey", &kms.GetPublicKeyInput{KeyId: dh.KeyId}).PublicKey
	enc := must[kms.EncapsulateOutput](b, c, "Encapsulate", &kms.EncapsulateInput{KeyId: kem.KeyId, EncapsulationAlgorithm: "ML_KEM"}).SharedSecretCiphertextBlob
	must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/state"), TargetKeyId: sym.KeyId})
	must[kms.CreateAliasOutput](b, c, "CreateAlias", &kms.CreateAliasInput{AliasName: ptr("alias/other"), TargetKeyId: dst.KeyId})
	must[kms.ReplicateKeyOutput](b, c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: mrk.KeyId, ReplicaRegion: ptr("us-east-1")})
	grantee := ptr("arn:aws:iam::" + acct + ":user/u")
	newGrant := func() *string {
		return must[kms.CreateGrantOutput](b, c, "CreateGrant", &kms.CreateGrantInput{KeyId: sym.KeyId, GranteePrincipal: grantee, Operations: []types.GrantOperation{"Decrypt"}}).GrantId
	}
	params := must[kms.GetParametersForImportOutput](b, c, "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: ext.KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"})

	type row struct {
		op  string
		key *types.KeyMetadata
		in  func() any
		//       Enabled, Disabled, PendingDeletion, PendingReplicaDeletion, PendingImport, Unavailable, Creating, Updating
		want string
	}
	const crypto = ". 1 2 3 5 11 14 ."
	const every = ". . . . . . . ."
	rows := []row{
		{"CancelKeyDeletion", sym, func() any { return &kms.CancelKeyDeletionInput{KeyId: sym.KeyId} }, "4 4 . . 4 4 4 4"},
		{"CreateAlias", sym, func() any { return &kms.CreateAliasInput{AliasName: ptr("alias/new"), TargetKeyId: sym.KeyId} }, ". . 2 3 . . . ."},
		{"CreateGrant", sym, func() any {
			return &kms.CreateGrantInput{KeyId: sym.KeyId, GranteePrincipal: grantee, Operations: []types.GrantOperation{"Decrypt"}}
		}, ". 1 2 3 5 . 14 ."},
		{"Decrypt", sym, func() any { return &kms.DecryptInput{CiphertextBlob: blob} }, crypto},
		{"DeleteAlias", sym, func() any { return &kms.DeleteAliasInput{AliasName: ptr("alias/state")} }, every},
		{"DeleteImportedKeyMaterial", ext, func() any { return &kms.DeleteImportedKeyMaterialInput{KeyId: ext.KeyId} }, ". . . . . . 14 15"},
		{"DescribeKey", sym, func() any { return &kms.DescribeKeyInput{KeyId: sym.KeyId} }, every},
		{"DisableKey", sym, func() any { return &kms.DisableKeyInput{KeyId: sym.KeyId} }, ". . 2 3 5 . 14 15"},
		{"DisableKeyRotation", sym, func() any { return &kms.DisableKeyRotationInput{KeyId: sym.KeyId} }, crypto},
		{"EnableKey", sym, func() any { return &kms.EnableKeyInput{KeyId: sym.KeyId} }, ". . 2 3 5 . 14 15"},
		{"EnableKeyRotation", sym, func() any { return &kms.EnableKeyRotationInput{KeyId: sym.KeyId} }, crypto},
		{"Encrypt", sym, func() any { return &kms.EncryptInput{KeyId: sym.KeyId, Plaintext: []byte("x")} }, crypto},
		{"Encrypt", rsa, func() any {
			return &kms.EncryptInput{KeyId: rsa.KeyId, Plaintext: []byte("x"), EncryptionAlgorithm: "RSAES_OAEP_SHA_256"}
		}, crypto},
		{"GenerateDataKey", sym, func() any { return &kms.GenerateDataKeyInput{KeyId: sym.KeyId, KeySpec: "AES_256"} }, crypto},
		{"GenerateDataKeyPair", sym, func() any { return &kms.GenerateDataKeyPairInput{KeyId: sym.KeyId, KeyPairSpec: "ECC_NIST_P256"} }, crypto},
		{"GenerateDataKeyPairWithoutPlaintext", sym, func() any {
			return &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: sym.KeyId, KeyPairSpec: "ECC_NIST_P256"}
		}, crypto},
		{"GenerateDataKeyWithoutPlaintext", sym, func() any {
			return &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: sym.KeyId, KeySpec: "AES_256"}
		}, crypto},
		{"GenerateMac", mac, func() any {
			return &kms.GenerateMacInput{KeyId: mac.KeyId, Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256"}
		}, crypto},
		{"VerifyMac", mac, func() any {
			return &kms.VerifyMacInput{KeyId: mac.KeyId, Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256", Mac: tag}
		}, crypto},
		{"DeriveSharedSecret", dh, func() any {
			return &kms.DeriveSharedSecretInput{KeyId: dh.KeyId, KeyAgreementAlgorithm: "ECDH", PublicKey: peer}
		}, crypto},
		{"Encapsulate", kem, func() any { return &kms.EncapsulateInput{KeyId: kem.KeyId, EncapsulationAlgorithm: "ML_KEM"} }, crypto},
		{"Decapsulate", kem, func() any {
			return &kms.DecapsulateInput{KeyId: kem.KeyId, EncapsulationAlgorithm: "ML_KEM", SharedSecretCiphertextBlob: enc}
		}, crypto},
		{"GetKeyLastUsage", sym, func() any { return &kms.GetKeyLastUsageInput{KeyId: sym.KeyId} }, every},
		{"GetKeyPolicy", sym, func() any { return &kms.GetKeyPolicyInput{KeyId: sym.KeyId} }, every},
		{"GetKeyRotationStatus", sym, func() any { return &kms.GetKeyRotationStatusInput{KeyId: sym.KeyId} }, ". . . . 5 11 . ."},
		{"GetParametersForImport", ext, func() any {
			return &kms.GetParametersForImportInput{KeyId: ext.KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}
		}, ". . 2 3 . 11 14 15"},
		{"GetPublicKey", ecc, func() any { return &kms.GetPublicKeyInput{KeyId: ecc.KeyId} }, crypto},
		{"ImportKeyMaterial", ext, func() any {
			return &kms.ImportKeyMaterialInput{KeyId: ext.KeyId, ImportToken: params.ImportToken, EncryptedKeyMaterial: wrapOAEP(b, params.PublicKey, material),
				ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"}
		}, ". . 2 3 . 11 14 ."},
		{"ListAliases", sym, func() any { return &kms.ListAliasesInput{KeyId: sym.KeyId} }, every},
		{"ListGrants", sym, func() any { return &kms.ListGrantsInput{KeyId: sym.KeyId} }, every},
		{"ListKeyPolicies", sym, func() any { return &kms.ListKeyPoliciesInput{KeyId: sym.KeyId} }, every},
		{"ListKeyRotations", sym, func() any { return &kms.ListKeyRotationsInput{KeyId: sym.KeyId} }, every},
		{"ListResourceTags", sym, func() any { return &kms.ListResourceTagsInput{KeyId: sym.KeyId} }, every},
		{"PutKeyPolicy", sym, func() any { return &kms.PutKeyPolicyInput{KeyId: sym.KeyId, Policy: ptr(defaultPolicy(acct))} }, every},
		{"ReEncrypt", sym, func() any { return &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: dst.KeyId} }, crypto},
		{"ReEncrypt", dst, func() any { return &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: dst.KeyId} }, crypto},
		{"ReplicateKey", mrk, func() any { return &kms.ReplicateKeyInput{KeyId: mrk.KeyId, ReplicaRegion: ptr("eu-west-1")} }, ". 1 2 3 5 11 14 15"},
		{"RetireGrant", sym, func() any { return &kms.RetireGrantInput{KeyId: sym.Arn} }, every},
		{"RevokeGrant", sym, func() any { return &kms.RevokeGrantInput{KeyId: sym.KeyId} }, every},
		{"RotateKeyOnDemand", sym, func() any { return &kms.RotateKeyOnDemandInput{KeyId: sym.KeyId} }, crypto},
		{"ScheduleKeyDeletion", sym, func() any { return &kms.ScheduleKeyDeletionInput{KeyId: sym.KeyId} }, ". . 2 3 . . . 15"},
		{"Sign", ecc, func() any {
			return &kms.SignInput{KeyId: ecc.KeyId, Message: []byte("x"), SigningAlgorithm: "ECDSA_SHA_256"}
		}, crypto},
		{"TagResource", sym, func() any {
			return &kms.TagResourceInput{KeyId: sym.KeyId, Tags: []types.Tag{{TagKey: ptr("a"), TagValue: ptr("b")}}}
		}, ". . 2 3 . . . ."},
		{"UntagResource", sym, func() any { return &kms.UntagResourceInput{KeyId: sym.KeyId, TagKeys: []string{"a"}} }, ". . 2 3 . . . ."},
		{"UpdateAlias", sym, func() any { return &kms.UpdateAliasInput{AliasName: ptr("alias/other"), TargetKeyId: sym.KeyId} }, ". . 2 3 . . . ."},
		{"UpdateAlias", dst, func() any { return &kms.UpdateAliasInput{AliasName: ptr("alias/other"), TargetKeyId: sym.KeyId} }, every},
		{"UpdateKeyDescription", sym, func() any { return &kms.UpdateKeyDescriptionInput{KeyId: sym.KeyId, Description: ptr("x")} }, ". . 2 3 . . . ."},
		{"UpdatePrimaryRegion", mrk, func() any { return &kms.UpdatePrimaryRegionInput{KeyId: mrk.KeyId, PrimaryRegion: ptr("us-east-1")} }, ". 1 2 3 5 11 14 ."},
		{"Verify", ecc, func() any {
			return &kms.VerifyInput{KeyId: ecc.KeyId, Message: []byte("x"), SigningAlgorithm: "ECDSA_SHA_256", Signature: sig}
		}, crypto},
	}
	// On no key: every state is the same to them.
	keyless := map[string]bool{"ConnectCustomKeyStore": true, "CreateCustomKeyStore": true, "CreateKey": true, "DeleteCustomKeyStore": true, "DescribeCustomKeyStores": true,
		"DisconnectCustomKeyStore": true, "GenerateRandom": true, "ListKeys": true, "ListRetirableGrants": true, "UpdateCustomKeyStore": true}
	covered := map[string]bool{}
	snapshot := b.dump()
	for _, r := range rows {
		covered[r.op] = true
		for i, want := range strings.Fields(r.want) {
			state := allStates[i]
			in := r.in()
			switch x := in.(type) {
			case *kms.RetireGrantInput:
				x.GrantId = newGrant()
			case *kms.RevokeGrantInput:
				x.GrantId = newGrant()
			}
			b.setState(*r.key.KeyId, state)
			_, _, err := b.do(c, r.op, in)
			var e smithy.APIError
			switch exp, refused := refusal[want]; {
			case !refused && err != nil:
				t.Errorf("%s on a %s key in state %s = %v, want success", r.op, r.key.KeySpec, state, err)
			case refused && (!errors.As(err, &e) || e.ErrorCode() != exp.code || e.ErrorMessage() != *r.key.Arn+exp.message):
				t.Errorf("%s on a %s key in state %s = %v, want %s: %s%s", r.op, r.key.KeySpec, state, err, exp.code, *r.key.Arn, exp.message)
			}
			b.restore(snapshot)
		}
	}
	for op := range b.ops {
		if !covered[op] && !keyless[op] {
			t.Errorf("%s is not in the state table", op)
		}
	}
}

func (b *bench) setState(id, state string) {
	b.Helper()
	err := b.st.Update(context.Background(), func(tx *store.Tx) error {
		k := b.s.keys.Edit(tx, path(acct, region, id))
		k.State = state
		if state == statePendingDeletion {
			k.Deletion, k.PendingWindow = b.clk.Now().AddDate(0, 0, 7), 7
		}
		return b.s.put(tx, k)
	})
	if err != nil {
		b.Fatal(err)
	}
}

type dump struct {
	keys    map[string]*Key
	aliases map[string]*Alias
}

// dump and restore keep and bring back keys and aliases.
func (b *bench) dump() dump {
	d := dump{map[string]*Key{}, map[string]*Alias{}}
	tx := b.st.Snapshot()
	b.s.keys.Scan(tx, "", "", func(p string, k *Key) bool { d.keys[p] = k; return true })
	b.s.aliases.Scan(tx, "", "", func(p string, a *Alias) bool { d.aliases[p] = a; return true })
	return d
}

func (b *bench) restore(d dump) {
	b.Helper()
	err := b.st.Update(context.Background(), func(tx *store.Tx) error {
		var errs []error
		b.s.keys.Scan(tx, "", "", func(p string, k *Key) bool {
			if d.keys[p] == nil {
				errs = append(errs, b.s.keys.Delete(tx, p))
			}
			return true
		})
		b.s.aliases.Scan(tx, "", "", func(p string, a *Alias) bool {
			if d.aliases[p] == nil {
				errs = append(errs, b.s.aliases.Delete(tx, p))
			}
			return true
		})
		for p, k := range d.keys {
			errs = append(errs, b.s.keys.Put(tx, p, k))
		}
		for p, a := range d.aliases {
			errs = append(errs, b.s.aliases.Put(tx, p, a))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		b.Fatal(err)
	}
}
