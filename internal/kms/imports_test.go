package kms

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
)

func wrapOAEP(b *bench, public, material []byte) []byte {
	return wrapWith(b, sha256.New(), public, material)
}

func wrapWith(b *bench, h hash.Hash, public, material []byte) []byte {
	b.Helper()
	p, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		b.Fatal(err)
	}
	out, err := rsa.EncryptOAEP(h, rand.Reader, p.(*rsa.PublicKey), material, nil)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// wrapPadded is RFC 5649 section 4.1, the other half of unwrapPadded.
func wrapPadded(kek, in []byte) []byte {
	block, _ := aes.NewCipher(kek)
	padded := append(bytes.Clone(in), make([]byte, (8-len(in)%8)%8)...)
	out := append([]byte{0xa6, 0x59, 0x59, 0xa6}, binary.BigEndian.AppendUint32(nil, uint32(len(in)))...)
	out = append(out, padded...)
	if len(padded) == 8 {
		block.Encrypt(out, out)
		return out
	}
	n := len(padded) / 8
	var x [16]byte
	copy(x[:8], out[:8])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(x[8:], out[i*8:i*8+8])
			block.Encrypt(x[:], x[:])
			copy(out[i*8:], x[8:])
			binary.BigEndian.PutUint64(x[:8], binary.BigEndian.Uint64(x[:8])^uint64(n*j+i))
		}
	}
	copy(out[:8], x[:8])
	return out
}

// TestKeyWrapVectors are the examples of RFC 5649 section 6.
func TestKeyWrapVectors(t *testing.T) {
	un := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	kek := un("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for _, v := range []struct{ key, wrapped string }{
		{"c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		got, err := unwrapPadded(kek, un(v.wrapped))
		if err != nil || !bytes.Equal(got, un(v.key)) {
			t.Errorf("unwrap(%s) = %x, %v, want %s", v.wrapped, got, err, v.key)
		}
		if w := wrapPadded(kek, un(v.key)); hex.EncodeToString(w) != v.wrapped {
			t.Errorf("wrap(%s) = %x, want %s", v.key, w, v.wrapped)
		}
		bad := un(v.wrapped)
		bad[3] ^= 4
		if _, err := unwrapPadded(kek, bad); err == nil {
			t.Errorf("a changed wrapping of %s opens", v.key)
		}
	}
}

func (b *bench) importInto(id string, material []byte, kind types.ImportType, validTo *time.Time) (*kms.ImportKeyMaterialOutput, error) {
	b.Helper()
	p := must[kms.GetParametersForImportOutput](b, b.root(acct), "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: ptr(id), WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"})
	in := &kms.ImportKeyMaterialInput{KeyId: ptr(id), ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapOAEP(b, p.PublicKey, material), ImportType: kind,
		ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"}
	if validTo != nil {
		in.ExpirationModel, in.ValidTo = "KEY_MATERIAL_EXPIRES", validTo
	}
	out, _, err := b.do(b.root(acct), "ImportKeyMaterial", in)
	if err != nil {
		return nil, err
	}
	return out.(*kms.ImportKeyMaterialOutput), nil
}

// importedKey is a symmetric key with imported material.
func importedKey(b *bench) (*types.KeyMetadata, []byte) {
	b.Helper()
	k := b.newKey(&kms.CreateKeyInput{Origin: "EXTERNAL"})
	if k.KeyState != types.KeyStatePendingImport {
		b.Fatalf("state of a new EXTERNAL key = %s, want PendingImport", k.KeyState)
	}
	material := make([]byte, 32)
	_, _ = rand.Read(material)
	if _, err := b.importInto(*k.KeyId, material, "", nil); err != nil {
		b.Fatal(err)
	}
	return must[kms.DescribeKeyOutput](b, b.root(acct), "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId}).KeyMetadata, material
}

func TestImport(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k, material := importedKey(b)
	first := *k.CurrentKeyMaterialId
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	must[kms.DeleteImportedKeyMaterialOutput](b, c, "DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: k.KeyId})
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "KMSInvalidStateException", *k.Arn+" is pending import.")
	if _, err := b.importInto(*k.KeyId, bytes.Repeat([]byte{7}, 32), "", nil); codeOf(err) != "IncorrectKeyMaterialException" {
		t.Errorf("import of other material = %v, want IncorrectKeyMaterialException", err)
	}
	if _, err := b.importInto(*k.KeyId, material[:31], "", nil); codeOf(err) != "IncorrectKeyMaterialException" {
		t.Errorf("import of 31 bytes = %v, want IncorrectKeyMaterialException", err)
	}
	// Again, to expire in an hour.
	soon := b.clk.Now().Add(time.Hour)
	out, err := b.importInto(*k.KeyId, material, "", &soon)
	if err != nil || *out.KeyMaterialId != first {
		t.Fatalf("import of the same material again = %v, %v, want material %s", out, err, first)
	}
	must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob})
	b.clk.Advance(time.Hour)
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "KMSInvalidStateException", *k.Arn+" is pending import.")
	if err := b.s.Reap(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}, "KMSInvalidStateException", *k.Arn+" is pending import.")
	if m := b.s.keys.Get(b.st.Snapshot(), path(acct, region, *k.KeyId)).current(); len(m.Wrapped) != 0 {
		t.Error("expired material is still stored")
	}
	if _, err := b.importInto(*k.KeyId, material, "", nil); err != nil {
		t.Fatal(err)
	}
	// A second material, current after rotation on demand; the first still decrypts.
	second := bytes.Repeat([]byte{9}, 32)
	if _, err := b.importInto(*k.KeyId, second, types.ImportTypeNewKeyMaterial, nil); err != nil {
		t.Fatal(err)
	}
	b.fails(c, "EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: k.KeyId}, "UnsupportedOperationException", "")
	must[kms.RotateKeyOnDemandOutput](b, c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	b.fails(c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId}, "KMSInvalidStateException", "")
	blob2 := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("y")}).CiphertextBlob
	for _, bl := range [][]byte{blob, blob2} {
		must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: bl})
	}
	l := must[kms.ListKeyRotationsOutput](b, c, "ListKeyRotations", &kms.ListKeyRotationsInput{KeyId: k.KeyId, IncludeKeyMaterial: "ALL_KEY_MATERIAL"}).Rotations
	if len(l) != 2 || l[0].KeyMaterialState != "NON_CURRENT" || l[1].KeyMaterialState != "CURRENT" || l[1].ImportState != "IMPORTED" {
		t.Errorf("ListKeyRotations = %+v, want NON_CURRENT then CURRENT", l)
	}
	// Deleting the old material makes the whole key unusable, as in AWS.
	must[kms.DeleteImportedKeyMaterialOutput](b, c, "DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: k.KeyId, KeyMaterialId: &first})
	b.fails(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob2}, "KMSInvalidStateException", "")
	b.fails(c, "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: b.newKey(&kms.CreateKeyInput{}).KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}, "UnsupportedOperationException", "")
}

func TestImportToken(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k, material := importedKey(b)
	k2, _ := importedKey(b)
	p := must[kms.GetParametersForImportOutput](b, c, "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: k.KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_1", WrappingKeySpec: "RSA_2048"})
	in := func(key *string) *kms.ImportKeyMaterialInput {
		return &kms.ImportKeyMaterialInput{KeyId: key, ImportToken: bytes.Clone(p.ImportToken), EncryptedKeyMaterial: wrapWith(b, sha1.New(), p.PublicKey, material), ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"}
	}
	must[kms.ImportKeyMaterialOutput](b, c, "ImportKeyMaterial", in(k.KeyId))
	b.fails(c, "ImportKeyMaterial", in(k2.KeyId), "InvalidImportTokenException", "")
	x := in(k.KeyId)
	x.ImportToken[len(x.ImportToken)/2] ^= 1
	b.fails(c, "ImportKeyMaterial", x, "InvalidImportTokenException", "")
	x = in(k.KeyId)
	x.EncryptedKeyMaterial[5] ^= 1
	b.fails(c, "ImportKeyMaterial", x, "InvalidCiphertextException", "")
	b.clk.Advance(24 * time.Hour)
	b.fails(c, "ImportKeyMaterial", in(k.KeyId), "ExpiredImportTokenException", "")
	for _, n := range []int{0, 1, 32, 33, 40, 100} {
		x := in(k.KeyId)
		x.ImportToken = x.ImportToken[:n]
		b.fails(c, "ImportKeyMaterial", x, "InvalidImportTokenException", "")
	}
}

// TestImportAsymmetric imports private keys wrapped by RSA_AES_KEY_WRAP and signs with them.
func TestImportAsymmetric(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	for _, x := range []struct {
		spec, usage string
		sign        types.SigningAlgorithmSpec
	}{{"RSA_2048", "SIGN_VERIFY", "RSASSA_PSS_SHA_256"}, {"ECC_NIST_P384", "SIGN_VERIFY", "ECDSA_SHA_384"}, {"ECC_SECG_P256K1", "SIGN_VERIFY", "ECDSA_SHA_256"}, {"ECC_NIST_EDWARDS25519", "SIGN_VERIFY", "ED25519_SHA_512"}} {
		private, public, err := exportPair(x.spec)
		if err != nil {
			t.Fatal(err)
		}
		k := b.newKey(&kms.CreateKeyInput{Origin: "EXTERNAL", KeySpec: types.KeySpec(x.spec), KeyUsage: types.KeyUsageType(x.usage)})
		for _, alg := range []types.AlgorithmSpec{"RSA_AES_KEY_WRAP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1"} {
			h := sha256.New()
			if alg == "RSA_AES_KEY_WRAP_SHA_1" {
				h = sha1.New()
			}
			p := must[kms.GetParametersForImportOutput](b, c, "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: k.KeyId, WrappingAlgorithm: alg, WrappingKeySpec: "RSA_2048"})
			kek := make([]byte, 32)
			_, _ = rand.Read(kek)
			wrapped := append(wrapWith(b, h, p.PublicKey, kek), wrapPadded(kek, private)...)
			must[kms.ImportKeyMaterialOutput](b, c, "ImportKeyMaterial", &kms.ImportKeyMaterialInput{KeyId: k.KeyId, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped, ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"})
		}
		got := must[kms.GetPublicKeyOutput](b, c, "GetPublicKey", &kms.GetPublicKeyInput{KeyId: k.KeyId}).PublicKey
		if !bytes.Equal(got, public) {
			t.Errorf("%s: public key of the import is another", x.spec)
		}
		sig := must[kms.SignOutput](b, c, "Sign", &kms.SignInput{KeyId: k.KeyId, Message: []byte("m"), SigningAlgorithm: x.sign}).Signature
		must[kms.VerifyOutput](b, c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: []byte("m"), SigningAlgorithm: x.sign, Signature: sig})
	}
}

func TestMultiRegion(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{MultiRegion: ptr(true)})
	r := must[kms.ReplicateKeyOutput](b, c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: k.KeyId, ReplicaRegion: ptr("eu-west-1")}).ReplicaKeyMetadata
	east := b.root(acct)
	east.Region = "eu-west-1"
	blob := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	if d := must[kms.DecryptOutput](b, east, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}); *d.KeyId != *r.Arn {
		t.Errorf("decrypted with %s, want the replica %s", *d.KeyId, *r.Arn)
	}
	must[kms.RotateKeyOnDemandOutput](b, c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	b.fails(east, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId}, "UnsupportedOperationException", "")
	blob2 := must[kms.EncryptOutput](b, east, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("y")}).CiphertextBlob
	must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob2})
	b.fails(c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: k.KeyId, ReplicaRegion: ptr("eu-west-1")}, "AlreadyExistsException", "")
	b.fails(c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: k.KeyId, ReplicaRegion: ptr(region)}, "ValidationException", "")
	must[kms.UpdatePrimaryRegionOutput](b, c, "UpdatePrimaryRegion", &kms.UpdatePrimaryRegionInput{KeyId: k.KeyId, PrimaryRegion: ptr("eu-west-1")})
	if m := must[kms.DescribeKeyOutput](b, c, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId}).KeyMetadata.MultiRegionConfiguration; m.MultiRegionKeyType != "REPLICA" || *m.PrimaryKey.Region != "eu-west-1" || len(m.ReplicaKeys) != 1 || *m.ReplicaKeys[0].Region != region {
		t.Errorf("after UpdatePrimaryRegion the old primary shows %+v", m)
	}
	// The primary waits for its replicas.
	s := must[kms.ScheduleKeyDeletionOutput](b, east, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(7))})
	if s.KeyState != "PendingReplicaDeletion" || s.DeletionDate != nil {
		t.Errorf("ScheduleKeyDeletion of a primary with a replica = %+v, want PendingReplicaDeletion", s)
	}
	must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(7))})
	for i, want := range []types.KeyState{"PendingDeletion", ""} {
		b.clk.Advance(7 * 24 * time.Hour)
		if err := b.s.Reap(context.Background()); err != nil {
			t.Fatal(err)
		}
		d, _, err := b.do(east, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId})
		if want == "" {
			if codeOf(err) != "NotFoundException" {
				t.Errorf("round %d: %v, want NotFoundException", i, err)
			}
			continue
		}
		if err != nil || d.(*kms.DescribeKeyOutput).KeyMetadata.KeyState != want {
			t.Errorf("round %d: %+v %v, want %s", i, d, err, want)
		}
	}
}

// TestImportMultiRegion: new material goes into the primary, then into each
// replica, and only then can the family rotate to it.
func TestImportMultiRegion(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	east := b.root(acct)
	east.Region = "eu-west-1"
	k := b.newKey(&kms.CreateKeyInput{Origin: "EXTERNAL", MultiRegion: ptr(true)})
	first, second := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	put := func(c *api.Call, material []byte, kind types.ImportType) error {
		p := must[kms.GetParametersForImportOutput](b, c, "GetParametersForImport", &kms.GetParametersForImportInput{KeyId: k.KeyId, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"})
		_, _, err := b.do(c, "ImportKeyMaterial", &kms.ImportKeyMaterialInput{KeyId: k.KeyId, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapOAEP(b, p.PublicKey, material), ImportType: kind, ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"})
		return err
	}
	good := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	states := func(c *api.Call) string {
		var s []string
		for _, r := range must[kms.ListKeyRotationsOutput](b, c, "ListKeyRotations", &kms.ListKeyRotationsInput{KeyId: k.KeyId, IncludeKeyMaterial: "ALL_KEY_MATERIAL"}).Rotations {
			s = append(s, string(r.KeyMaterialState)+" "+string(r.ImportState))
		}
		return strings.Join(s, ", ")
	}
	both := func(primary, replica string) {
		t.Helper()
		if got := states(c); got != primary {
			t.Errorf("materials of the primary: %s, want %s", got, primary)
		}
		if got := states(east); got != replica {
			t.Errorf("materials of the replica: %s, want %s", got, replica)
		}
	}
	rotate := &kms.RotateKeyOnDemandInput{KeyId: k.KeyId}
	good(put(c, first, ""))
	must[kms.ReplicateKeyOutput](b, c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: k.KeyId, ReplicaRegion: ptr("eu-west-1")})
	both("CURRENT IMPORTED", "CURRENT PENDING_IMPORT")
	good(put(east, first, ""))
	if err := put(east, second, "NEW_KEY_MATERIAL"); codeOf(err) != "UnsupportedOperationException" {
		t.Errorf("new material into a replica = %v, want UnsupportedOperationException", err)
	}
	good(put(c, second, "NEW_KEY_MATERIAL"))
	both("CURRENT IMPORTED, PENDING_MULTI_REGION_IMPORT_AND_ROTATION IMPORTED", "CURRENT IMPORTED, PENDING_MULTI_REGION_IMPORT_AND_ROTATION PENDING_IMPORT")
	b.fails(c, "RotateKeyOnDemand", rotate, "KMSInvalidStateException", "No available key material pending rotation for the key: "+*k.Arn+".")
	blob := must[kms.EncryptOutput](b, east, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")}).CiphertextBlob
	good(put(east, second, "EXISTING_KEY_MATERIAL"))
	both("CURRENT IMPORTED, PENDING_ROTATION IMPORTED", "CURRENT IMPORTED, PENDING_ROTATION IMPORTED")
	// Pending material is not yet the key's: it can be deleted, everywhere.
	id := b.s.keys.Get(b.st.Snapshot(), path(acct, region, *k.KeyId)).Materials[1].ID
	must[kms.DeleteImportedKeyMaterialOutput](b, east, "DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: k.KeyId, KeyMaterialId: &id})
	both("CURRENT IMPORTED, PENDING_MULTI_REGION_IMPORT_AND_ROTATION IMPORTED", "CURRENT IMPORTED, PENDING_MULTI_REGION_IMPORT_AND_ROTATION PENDING_IMPORT")
	must[kms.DeleteImportedKeyMaterialOutput](b, c, "DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: k.KeyId, KeyMaterialId: &id})
	both("CURRENT IMPORTED", "CURRENT IMPORTED")
	good(put(c, second, "NEW_KEY_MATERIAL"))
	if err := put(c, bytes.Repeat([]byte{3}, 32), "NEW_KEY_MATERIAL"); codeOf(err) != "KMSInvalidStateException" || !strings.Contains(err.Error(), "is pending rotation.") {
		t.Errorf("a second new material = %v, want KMSInvalidStateException", err)
	}
	good(put(east, second, ""))
	must[kms.RotateKeyOnDemandOutput](b, c, "RotateKeyOnDemand", rotate)
	both("NON_CURRENT IMPORTED, CURRENT IMPORTED", "NON_CURRENT IMPORTED, CURRENT IMPORTED")
	after := must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("y")}).CiphertextBlob
	for _, bl := range [][]byte{blob, after} {
		must[kms.DecryptOutput](b, c, "Decrypt", &kms.DecryptInput{CiphertextBlob: bl})
		must[kms.DecryptOutput](b, east, "Decrypt", &kms.DecryptInput{CiphertextBlob: bl})
	}
}
