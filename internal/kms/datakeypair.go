package kms

import (
	"context"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// privateKeyInfo is PKCS #8 (RFC 5208).
type privateKeyInfo struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

// ecPrivateKey is RFC 5915 without parameters, which are in the algorithm.
type ecPrivateKey struct {
	Version    int
	PrivateKey []byte
	PublicKey  asn1.BitString `asn1:"optional,explicit,tag:1"`
}

// exportPair is a new data key pair: the private key in PKCS #8, the public key
// as SubjectPublicKeyInfo, both DER.
func exportPair(keySpec string) (private, public []byte, err error) {
	raw, public, err := generate(keySpec)
	if err != nil {
		return nil, nil, err
	}
	defer raw.Wipe()
	switch keySpec {
	case "ECC_SECG_P256K1":
		p := secp256k1.PrivKeyFromBytes(raw.Expose())
		defer p.Zero()
		curve, err := asn1.Marshal(oidSecp256k1)
		if err != nil {
			return nil, nil, err
		}
		point := p.PubKey().SerializeUncompressed()
		inner, err := asn1.Marshal(ecPrivateKey{Version: 1, PrivateKey: raw.Expose(), PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
		if err != nil {
			return nil, nil, err
		}
		defer secret.Zero(inner)
		private, err = asn1.Marshal(privateKeyInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: curve}}, PrivateKey: inner})
		return private, public, err
	case "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024":
		// RFC 9935: the private key is CHOICE { seed [0] OCTET STRING (SIZE (64)), … }.
		inner := append([]byte{0x80, 64}, raw.Expose()...)
		defer secret.Zero(inner)
		private, err = asn1.Marshal(privateKeyInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPQ[keySpec]}, PrivateKey: inner})
		return private, public, err
	}
	return append([]byte(nil), raw.Expose()...), public, nil
}

// newPair makes a data key pair under a symmetric key.
func (s *Service) newPair(ctx context.Context, c *api.Call, f found, m *Material, keySpec types.DataKeyPairSpec, context map[string]string) (private, public, blob []byte, err error) {
	if f.inStore() {
		return nil, nil, nil, errUnsupported("%s is in a custom key store: data key pairs cannot be made under it.", f.arn())
	}
	if keySpec == types.DataKeyPairSpecSm2 {
		return nil, nil, nil, errUnsupported("The key pair spec SM2 is not supported in this Region.")
	}
	if sp, ok := specs[string(keySpec)]; !ok || sp.bytes > 0 {
		return nil, nil, nil, errValidation("1 validation error detected: Value '%s' at 'keyPairSpec' failed to satisfy constraint: Member must satisfy enum value set", keySpec)
	}
	private, public, err = exportPair(string(keySpec))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a %s data key pair: %w", keySpec, err)
	}
	blob, err = s.seal(ctx, c, f.Key, m, private, context)
	if err != nil {
		secret.Zero(private)
		return nil, nil, nil, err
	}
	return private, public, blob, nil
}

// generateDataKeyPair is GenerateDataKeyPair.
func (s *Service) generateDataKeyPair(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateDataKeyPairInput) (*kms.GenerateDataKeyPairOutput, error) {
	f, m, err := s.wrapping(ctx, tx, c, in.KeyId, "GenerateDataKeyPair")
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	private, public, blob, err := s.newPair(ctx, c, f, m, in.KeyPairSpec, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	s.used.touch(c, f.Key, "GenerateDataKeyPair")
	noteMaterial(c, "keyMaterialId", ptr(m.ID))
	return &kms.GenerateDataKeyPairOutput{KeyId: ptr(f.arn()), KeyMaterialId: ptr(m.ID), KeyPairSpec: in.KeyPairSpec, PrivateKeyCiphertextBlob: blob, PrivateKeyPlaintext: private, PublicKey: public}, nil
}

// generateDataKeyPairWithoutPlaintext is GenerateDataKeyPairWithoutPlaintext.
func (s *Service) generateDataKeyPairWithoutPlaintext(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateDataKeyPairWithoutPlaintextInput) (*kms.GenerateDataKeyPairWithoutPlaintextOutput, error) {
	f, m, err := s.wrapping(ctx, tx, c, in.KeyId, "GenerateDataKeyPairWithoutPlaintext")
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	private, public, blob, err := s.newPair(ctx, c, f, m, in.KeyPairSpec, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	secret.Zero(private)
	s.used.touch(c, f.Key, "GenerateDataKeyPairWithoutPlaintext")
	noteMaterial(c, "keyMaterialId", ptr(m.ID))
	return &kms.GenerateDataKeyPairWithoutPlaintextOutput{KeyId: ptr(f.arn()), KeyMaterialId: ptr(m.ID), KeyPairSpec: in.KeyPairSpec, PrivateKeyCiphertextBlob: blob, PublicKey: public}, nil
}
