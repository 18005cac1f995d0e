package kms_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// newKey makes a key through the official client.
func newKey(t *testing.T, c *kms.Client, in *kms.CreateKeyInput) *types.KeyMetadata {
	t.Helper()
	out, err := c.CreateKey(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

// TestErrorContract: the code and the words of errors that clients match on.
// Most words are as recorded from AWS in public test suites.
func TestErrorContract(t *testing.T) {
	s := apptest.New(t)
	c, ctx := s.KMS(), context.Background()
	sym, sym2 := newKey(t, c, &kms.CreateKeyInput{}), newKey(t, c, &kms.CreateKeyInput{})
	mac := newKey(t, c, &kms.CreateKeyInput{KeySpec: "HMAC_224", KeyUsage: "GENERATE_VERIFY_MAC"})
	ecc := newKey(t, c, &kms.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY"})
	rsa := newKey(t, c, &kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "ENCRYPT_DECRYPT"})
	ext := newKey(t, c, &kms.CreateKeyInput{Origin: "EXTERNAL"})
	disabled, deleted := newKey(t, c, &kms.CreateKeyInput{}), newKey(t, c, &kms.CreateKeyInput{})
	disabledRSA := newKey(t, c, &kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "ENCRYPT_DECRYPT"})
	if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: disabledRSA.KeyId}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: disabled.KeyId}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: deleted.KeyId}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/taken"), TargetKeyId: sym.KeyId}); err != nil {
		t.Fatal(err)
	}
	enc, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: sym.KeyId, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	str, here := aws.String, "arn:aws:kms:us-west-2:"+apptest.Account
	const none = "1234abcd-12ab-34cd-56ef-1234567890ab"
	tag := func(k, v string) types.Tag { return types.Tag{TagKey: &k, TagValue: &v} }
	var many []types.Tag
	for i := range 51 {
		many = append(many, tag("k"+strings.Repeat("x", i), "v"))
	}
	root := str("arn:aws:iam::" + apptest.Account + ":root")
	sign := func(k *types.KeyMetadata, kind types.MessageType, alg types.SigningAlgorithmSpec) func() error {
		return func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: k.KeyId, Message: []byte("x"), MessageType: kind, SigningAlgorithm: alg})
			return err
		}
	}
	create := func(in *kms.CreateKeyInput) func() error {
		return func() error { _, err := c.CreateKey(ctx, in); return err }
	}
	alias := func(name string, target *string) func() error {
		return func() error {
			_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: target})
			return err
		}
	}
	describe := func(id string) func() error {
		return func() error { _, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id}); return err }
	}
	encrypt := func(k *types.KeyMetadata, alg types.EncryptionAlgorithmSpec, n int) func() error {
		return func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyId, Plaintext: make([]byte, n), EncryptionAlgorithm: alg})
			return err
		}
	}
	decrypt := func(k *types.KeyMetadata, blob []byte) func() error {
		return func() error {
			_, err := c.Decrypt(ctx, &kms.DecryptInput{KeyId: k.KeyId, CiphertextBlob: blob})
			return err
		}
	}
	dataKey := func(k *types.KeyMetadata, spec types.DataKeySpec, n *int32) func() error {
		return func() error {
			_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: spec, NumberOfBytes: n})
			return err
		}
	}
	random := func(n *int32) func() error {
		return func() error {
			_, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: n})
			return err
		}
	}
	rotate := func(k *types.KeyMetadata) func() error {
		return func() error {
			_, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
			return err
		}
	}
	deletion := func(days int32) func() error {
		return func() error {
			_, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: sym.KeyId, PendingWindowInDays: &days})
			return err
		}
	}
	grant := func(in kms.CreateGrantInput) func() error {
		in.KeyId = sym.KeyId
		return func() error { _, err := c.CreateGrant(ctx, &in); return err }
	}
	policy := func(text string) func() error {
		return func() error {
			_, err := c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: sym.KeyId, Policy: &text})
			return err
		}
	}
	imported := func(in kms.ImportKeyMaterialInput) func() error {
		in.KeyId, in.ImportToken, in.EncryptedKeyMaterial = ext.KeyId, []byte("x"), []byte("x")
		return func() error { _, err := c.ImportKeyMaterial(ctx, &in); return err }
	}
	parameters := func(k *types.KeyMetadata, alg types.AlgorithmSpec, spec types.WrappingKeySpec) func() error {
		return func() error {
			_, err := c.GetParametersForImport(ctx, &kms.GetParametersForImportInput{KeyId: k.KeyId, WrappingAlgorithm: alg, WrappingKeySpec: spec})
			return err
		}
	}
	for _, r := range []struct {
		name string
		call func() error
		code string
		want string // "" for any, "…" at the end for a beginning
	}{
		{"CreateKey HMAC without usage", create(&kms.CreateKeyInput{KeySpec: "HMAC_256"}), "ValidationException", "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."},
		{"CreateKey ECC to encrypt", create(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P521", KeyUsage: "ENCRYPT_DECRYPT"}), "ValidationException", "KeyUsage ENCRYPT_DECRYPT is not compatible with KeySpec ECC_NIST_P521"},
		{"CreateKey both specs", create(&kms.CreateKeyInput{KeySpec: "RSA_2048", CustomerMasterKeySpec: "RSA_2048", KeyUsage: "SIGN_VERIFY"}), "ValidationException", ""},
		{"CreateKey unknown spec", create(&kms.CreateKeyInput{KeySpec: "HMAC_random"}), "ValidationException", "1 validation error detected: Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: […"},
		{"CreateKey SM2", create(&kms.CreateKeyInput{KeySpec: "SM2", KeyUsage: "SIGN_VERIFY"}), "UnsupportedOperationException", ""},
		{"CreateKey 51 tags", create(&kms.CreateKeyInput{Tags: many}), "TagException", "Too many tags"},
		{"CreateKey aws: tag", create(&kms.CreateKeyInput{Tags: []types.Tag{tag("AWS:x", "v")}}), "TagException", "Tags beginning with aws: are reserved"},
		{"CreateKey tag twice", create(&kms.CreateKeyInput{Tags: []types.Tag{tag("x", "v"), tag("x", "w")}}), "TagException", "Duplicate tag keys"},
		{"CreateKey long tag", create(&kms.CreateKeyInput{Tags: []types.Tag{tag(strings.Repeat("a", 129), "v")}}), "ValidationException",
			"1 validation error detected: Value '" + strings.Repeat("a", 129) + "' at 'tags.1.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 128"},
		{"CreateKey policy for nobody", create(&kms.CreateKeyInput{Policy: str(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + apptest.Account + `:user/none"},"Action":"kms:*","Resource":"*"}]}`)}), "MalformedPolicyDocumentException", "Policy contains a statement with one or more invalid principals…"},
		{"PutKeyPolicy that locks out", policy(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + *root + `"},"Action":"kms:Encrypt","Resource":"*"}]}`), "MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future."},
		{"PutKeyPolicy too long", policy(`{"Version":"2012-10-17","Id":"` + strings.Repeat("x", 32768) + `","Statement":[]}`), "LimitExceededException", ""},
		{"PutKeyPolicy no JSON", policy("{"), "MalformedPolicyDocumentException", ""},
		{"CreateAlias without prefix", alias("x", sym.KeyId), "ValidationException", `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`},
		{"CreateAlias of AWS", alias("alias/aws/x", sym.KeyId), "NotAuthorizedException", ""},
		{"CreateAlias twice", alias("alias/taken", sym2.KeyId), "AlreadyExistsException", "An alias with the name " + here + ":alias/taken already exists"},
		{"CreateAlias of an alias", alias("alias/x", str("alias/taken")), "ValidationException", "Aliases must refer to keys. Not aliases"},
		{"CreateAlias of no key", alias("alias/x", str(none)), "NotFoundException", "Key '" + here + ":key/" + none + "' does not exist"},
		{"DeleteAlias none", func() error {
			_, err := c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: str("alias/none")})
			return err
		}, "NotFoundException", "Alias " + here + ":alias/none is not found."},
		{"UpdateAlias to another usage", func() error {
			_, err := c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: str("alias/taken"), TargetKeyId: ecc.KeyId})
			return err
		}, "KMSInvalidStateException", ""},
		{"DescribeKey no ID", describe("fake-key-id"), "NotFoundException", "Invalid keyId 'fake-key-id'"},
		{"DescribeKey no mrk ID", describe("mrk-fake-key-id"), "NotFoundException", "Invalid keyId 'mrk-fake-key-id'"},
		{"DescribeKey unknown", describe(none), "NotFoundException", "Key '" + here + ":key/" + none + "' does not exist"},
		{"DescribeKey unknown mrk", describe("mrk-d3b95762d3b95762d3b95762d3b95762"), "NotFoundException", "Key '" + here + ":key/mrk-d3b95762d3b95762d3b95762d3b95762' does not exist"},
		{"DescribeKey other Region", describe("arn:aws:kms:ap-southeast-1:" + apptest.Account + ":key/" + *sym.KeyId), "NotFoundException", "Invalid arn ap-southeast-1"},
		{"DescribeKey no alias", describe("alias/none"), "NotFoundException", "Alias " + here + ":alias/none is not found."},
		{"DescribeKey no alias by ARN", describe(here + ":alias/none"), "NotFoundException", "Alias " + here + ":alias/none is not found."},
		{"DescribeKey bad ARN", describe(here + ":table/x"), "InvalidArnException", ""},
		{"EnableKeyRotation by alias", func() error {
			_, err := c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: str("alias/taken")})
			return err
		}, "NotFoundException", "Invalid keyId 'alias/taken'"},
		{"EnableKeyRotation 89 days", func() error {
			_, err := c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: sym.KeyId, RotationPeriodInDays: aws.Int32(89)})
			return err
		}, "ValidationException", "1 validation error detected: Value '89' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value greater than or equal to 90"},
		{"EnableKeyRotation of a signing key", func() error {
			_, err := c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: ecc.KeyId})
			return err
		}, "UnsupportedOperationException", ""},
		{"RotateKeyOnDemand RSA", rotate(rsa), "UnsupportedOperationException", ""},
		{"RotateKeyOnDemand RSA disabled", rotate(disabledRSA), "DisabledException", *disabledRSA.Arn + " is disabled."},
		{"RotateKeyOnDemand disabled", rotate(disabled), "DisabledException", *disabled.Arn + " is disabled."},
		{"RotateKeyOnDemand nothing imported", rotate(ext), "KMSInvalidStateException", "No available key material pending rotation for the key: " + *ext.Arn + "."},
		{"ScheduleKeyDeletion 6", deletion(6), "ValidationException", ""},
		{"ScheduleKeyDeletion 31", deletion(31), "ValidationException", ""},
		{"CancelKeyDeletion of a live key", func() error {
			_, err := c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: sym.KeyId})
			return err
		}, "KMSInvalidStateException", *sym.Arn + " is not pending deletion."},
		{"Encrypt disabled", encrypt(disabled, "", 1), "DisabledException", *disabled.Arn + " is disabled."},
		{"Encrypt pending deletion", encrypt(deleted, "", 1), "KMSInvalidStateException", *deleted.Arn + " is pending deletion."},
		{"Encrypt pending import", encrypt(ext, "", 1), "KMSInvalidStateException", *ext.Arn + " is pending import."},
		{"Encrypt 4097 bytes", encrypt(sym, "", 4097), "ValidationException", "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096"},
		{"Encrypt nothing", encrypt(sym, "", 0), "ValidationException", "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"Encrypt RSA SHA-1 215 bytes", encrypt(rsa, "RSAES_OAEP_SHA_1", 215), "ValidationException", "Algorithm RSAES_OAEP_SHA_1 and key spec RSA_2048 cannot encrypt data larger than 214 bytes."},
		{"Encrypt RSA SHA-256 191 bytes", encrypt(rsa, "RSAES_OAEP_SHA_256", 191), "ValidationException", "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than 190 bytes."},
		{"Encrypt RSA symmetric", encrypt(rsa, "", 1), "InvalidKeyUsageException", "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048."},
		{"Encrypt with a signing key", encrypt(ecc, "", 1), "InvalidKeyUsageException", *ecc.Arn + " key usage is SIGN_VERIFY which is not valid for Encrypt."},
		{"Decrypt under another key", decrypt(sym2, enc.CiphertextBlob), "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation."},
		{"Decrypt under an HMAC key", decrypt(mac, enc.CiphertextBlob), "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation."},
		{"Decrypt rubbish under an HMAC key", decrypt(mac, []byte("x")), "InvalidKeyUsageException", *mac.Arn + " key usage is GENERATE_VERIFY_MAC which is not valid for Decrypt."},
		{"Decrypt rubbish", decrypt(sym, []byte("x")), "InvalidCiphertextException", ""},
		{"GenerateDataKey both", dataKey(sym, "AES_256", aws.Int32(32)), "ValidationException", "Please specify either number of bytes or key spec."},
		{"GenerateDataKey neither", dataKey(sym, "", nil), "ValidationException", "Please specify either number of bytes or key spec."},
		{"GenerateDataKey 1025", dataKey(sym, "", aws.Int32(1025)), "ValidationException", "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
		{"GenerateDataKey HMAC", dataKey(mac, "AES_256", nil), "InvalidKeyUsageException", *mac.Arn + " key usage is GENERATE_VERIFY_MAC which is not valid for GenerateDataKey."},
		{"GenerateDataKey RSA", dataKey(rsa, "AES_256", nil), "InvalidKeyUsageException", ""},
		{"GenerateRandom", random(nil), "ValidationException", "NumberOfBytes is required."},
		{"GenerateRandom 0", random(aws.Int32(0)), "ValidationException", "1 validation error detected: Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"GenerateRandom 1025", random(aws.Int32(1025)), "ValidationException", "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
		{"GenerateMac wrong size", func() error {
			_, err := c.GenerateMac(ctx, &kms.GenerateMacInput{KeyId: mac.KeyId, Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256"})
			return err
		}, "InvalidKeyUsageException", "Algorithm HMAC_SHA_256 is incompatible with key spec HMAC_224."},
		{"GenerateMac symmetric", func() error {
			_, err := c.GenerateMac(ctx, &kms.GenerateMacInput{KeyId: sym.KeyId, Message: []byte("x"), MacAlgorithm: "HMAC_SHA_256"})
			return err
		}, "InvalidKeyUsageException", *sym.Arn + " key usage is ENCRYPT_DECRYPT which is not valid for GenerateMac."},
		{"VerifyMac wrong", func() error {
			_, err := c.VerifyMac(ctx, &kms.VerifyMacInput{KeyId: mac.KeyId, Message: []byte("x"), Mac: []byte("x"), MacAlgorithm: "HMAC_SHA_224"})
			return err
		}, "KMSInvalidMacException", ""},
		{"Sign short digest", sign(ecc, "DIGEST", "ECDSA_SHA_256"), "ValidationException", "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"Sign wrong algorithm", sign(ecc, "", "ECDSA_SHA_384"), "InvalidKeyUsageException", "Algorithm ECDSA_SHA_384 is incompatible with key spec ECC_NIST_P256."},
		{"Sign with an HMAC key", sign(mac, "", "ECDSA_SHA_256"), "InvalidKeyUsageException", *mac.Arn + " key usage is GENERATE_VERIFY_MAC which is not valid for Sign."},
		{"Verify rubbish", func() error {
			_, err := c.Verify(ctx, &kms.VerifyInput{KeyId: ecc.KeyId, Message: []byte("x"), Signature: []byte("x"), SigningAlgorithm: "ECDSA_SHA_256"})
			return err
		}, "KMSInvalidSignatureException", ""},
		{"GetPublicKey symmetric", func() error {
			_, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: sym.KeyId})
			return err
		}, "UnsupportedOperationException", ""},
		{"GetParametersForImport AWS_KMS", parameters(sym, "RSAES_OAEP_SHA_256", "RSA_2048"), "UnsupportedOperationException", *sym.Arn + " origin is AWS_KMS which is not valid for this operation."},
		{"GetParametersForImport SM2", parameters(ext, "SM2PKE", "SM2"), "UnsupportedOperationException", ""},
		{"GetParametersForImport PKCS1", parameters(ext, "RSAES_PKCS1_V1_5", "RSA_2048"), "UnsupportedOperationException", ""},
		{"ImportKeyMaterial without ValidTo", imported(kms.ImportKeyMaterialInput{}), "ValidationException", "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"},
		{"ImportKeyMaterial in the past", imported(kms.ImportKeyMaterialInput{ValidTo: aws.Time(time.Now().Add(-time.Hour))}), "ValidationException", ""},
		{"ImportKeyMaterial bad token", imported(kms.ImportKeyMaterialInput{ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"}), "InvalidImportTokenException", ""},
		{"CreateGrant no principal", grant(kms.CreateGrantInput{GranteePrincipal: str("x"), Operations: []types.GrantOperation{"Decrypt"}}), "InvalidArnException", "ARN does not refer to a valid principal: x"},
		{"CreateGrant wrong operation", grant(kms.CreateGrantInput{GranteePrincipal: root, Operations: []types.GrantOperation{"Sign"}}), "ValidationException", ""},
		{"CreateGrant long name", grant(kms.CreateGrantInput{GranteePrincipal: root, Name: str(strings.Repeat("x", 257)), Operations: []types.GrantOperation{"Decrypt"}}), "ValidationException", ""},
		{"RevokeGrant none", func() error {
			_, err := c.RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: sym.KeyId, GrantId: str(strings.Repeat("0", 64))})
			return err
		}, "NotFoundException", "Grant ID " + strings.Repeat("0", 64) + " not found"},
		{"GetKeyPolicy of another name", func() error {
			_, err := c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: sym.KeyId, PolicyName: str("x")})
			return err
		}, "NotFoundException", "No such policy exists"},
		{"ListKeys bad marker", func() error {
			_, err := c.ListKeys(ctx, &kms.ListKeysInput{Marker: str("x")})
			return err
		}, "InvalidMarkerException", ""},
		{"ReplicateKey single Region", func() error {
			_, err := c.ReplicateKey(ctx, &kms.ReplicateKeyInput{KeyId: sym.KeyId, ReplicaRegion: str("eu-west-1")})
			return err
		}, "UnsupportedOperationException", ""},
	} {
		err := r.call()
		var e smithy.APIError
		if !errors.As(err, &e) || e.ErrorCode() != r.code {
			t.Errorf("%s = %v, want %s", r.name, err, r.code)
			continue
		}
		got := e.ErrorMessage()
		if begin, ok := strings.CutSuffix(r.want, "…"); ok && strings.HasPrefix(got, begin) || r.want == "" || got == r.want {
			continue
		}
		t.Errorf("%s: message %q, want %q", r.name, got, r.want)
	}
	// Never an error: tools ask for it of every key whose origin is AWS_KMS.
	for _, k := range []*types.KeyMetadata{sym, mac, ecc, rsa, disabled, deleted} {
		if out, err := c.GetKeyRotationStatus(ctx, &kms.GetKeyRotationStatusInput{KeyId: k.KeyId}); err != nil || out.KeyRotationEnabled || aws.ToString(out.KeyId) != *k.Arn {
			t.Errorf("GetKeyRotationStatus of a %s key = %+v, %v, want false", k.KeySpec, out, err)
		}
	}
}

// TestEd25519Prehash: KMS hashes the digest it is given once more.
func TestEd25519Prehash(t *testing.T) {
	c, ctx := apptest.New(t).KMS(), context.Background()
	k := newKey(t, c, &kms.CreateKeyInput{KeySpec: "ECC_NIST_EDWARDS25519", KeyUsage: "SIGN_VERIFY"})
	once := sha512.Sum512([]byte("message"))
	sig, err := c.Sign(ctx, &kms.SignInput{KeyId: k.KeyId, Message: once[:], MessageType: "DIGEST", SigningAlgorithm: "ED25519_PH_SHA_512"})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: k.KeyId})
	if err != nil {
		t.Fatal(err)
	}
	p, err := x509.ParsePKIXPublicKey(pub.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	twice := sha512.Sum512(once[:])
	if err := ed25519.VerifyWithOptions(p.(ed25519.PublicKey), twice[:], sig.Signature, &ed25519.Options{Hash: crypto.SHA512}); err != nil {
		t.Errorf("the signature does not verify over the digest of the digest: %v", err)
	}
	if _, err := c.Verify(ctx, &kms.VerifyInput{KeyId: k.KeyId, Message: once[:], MessageType: "DIGEST", SigningAlgorithm: "ED25519_PH_SHA_512", Signature: sig.Signature}); err != nil {
		t.Errorf("Verify = %v", err)
	}
}
