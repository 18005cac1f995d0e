package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"

	"filippo.io/mldsa"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// hashes of the signing algorithms that sign a digest.
var hashes = map[types.SigningAlgorithmSpec]crypto.Hash{
	types.SigningAlgorithmSpecRsassaPssSha256:      crypto.SHA256,
	types.SigningAlgorithmSpecRsassaPssSha384:      crypto.SHA384,
	types.SigningAlgorithmSpecRsassaPssSha512:      crypto.SHA512,
	types.SigningAlgorithmSpecRsassaPkcs1V15Sha256: crypto.SHA256,
	types.SigningAlgorithmSpecRsassaPkcs1V15Sha384: crypto.SHA384,
	types.SigningAlgorithmSpecRsassaPkcs1V15Sha512: crypto.SHA512,
	types.SigningAlgorithmSpecEcdsaSha256:          crypto.SHA256,
	types.SigningAlgorithmSpecEcdsaSha384:          crypto.SHA384,
	types.SigningAlgorithmSpecEcdsaSha512:          crypto.SHA512,
	types.SigningAlgorithmSpecEd25519PhSha512:      crypto.SHA512,
}

func pss(a types.SigningAlgorithmSpec) bool {
	return a == types.SigningAlgorithmSpecRsassaPssSha256 || a == types.SigningAlgorithmSpecRsassaPssSha384 || a == types.SigningAlgorithmSpecRsassaPssSha512
}

// signed is what goes into the signature primitive: the digest for algorithms
// that sign one, else the message.
func signed(a types.SigningAlgorithmSpec, kind types.MessageType, message []byte) ([]byte, error) {
	if kind == "" {
		kind = types.MessageTypeRaw
	}
	h, hashed := hashes[a]
	switch {
	case a == types.SigningAlgorithmSpecMlDsaShake256:
		if kind == types.MessageTypeDigest {
			return nil, errValidation("The message type %s is not valid with the signing algorithm %s: use RAW or EXTERNAL_MU.", kind, a)
		}
		if kind == types.MessageTypeExternalMu && len(message) != muSize {
			return nil, errValidation("The message must have %d bytes with the message type EXTERNAL_MU.", muSize)
		}
		return message, nil
	case kind == types.MessageTypeExternalMu:
		return nil, errValidation("The message type EXTERNAL_MU is valid only with the signing algorithm ML_DSA_SHAKE_256.")
	case a == types.SigningAlgorithmSpecEd25519Sha512:
		if kind != types.MessageTypeRaw {
			return nil, errValidation("The signing algorithm %s needs the message type RAW.", a)
		}
		return message, nil
	case a == types.SigningAlgorithmSpecEd25519PhSha512:
		// KMS applies the prehash to what it is given: the caller has hashed once
		// already. Source: KMS API reference, Sign, MessageType.
		if kind != types.MessageTypeDigest {
			return nil, errValidation("The signing algorithm %s needs the message type DIGEST.", a)
		}
		if len(message) != h.Size() {
			return nil, errValidation("Digest is invalid length for algorithm %s.", a)
		}
	case !hashed:
		return nil, errValidation("The signing algorithm %s is not supported.", a)
	case kind == types.MessageTypeDigest:
		if len(message) != h.Size() {
			return nil, errValidation("Digest is invalid length for algorithm %s.", a)
		}
		return message, nil
	}
	d := h.New()
	d.Write(message)
	return d.Sum(nil), nil
}

// signWith makes a signature; input comes from signed.
func signWith(private any, a types.SigningAlgorithmSpec, kind types.MessageType, input []byte) ([]byte, error) {
	switch p := private.(type) {
	case *rsa.PrivateKey:
		if pss(a) {
			return rsa.SignPSS(rand.Reader, p, hashes[a], input, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, p, hashes[a], input)
	case *ecdsa.PrivateKey:
		return ecdsa.SignASN1(rand.Reader, p, input)
	case *secp256k1.PrivateKey:
		return secpecdsa.Sign(p, input).Serialize(), nil
	case ed25519.PrivateKey:
		if a == types.SigningAlgorithmSpecEd25519PhSha512 {
			return p.Sign(nil, input, &ed25519.Options{Hash: crypto.SHA512})
		}
		return ed25519.Sign(p, input), nil
	case *mldsa44.PrivateKey:
		if kind == types.MessageTypeExternalMu {
			return signMu(mldsa.MLDSA44(), p.Seed(), input)
		}
		sig := make([]byte, mldsa44.SignatureSize)
		return sig, mldsa44.SignTo(p, input, nil, true, sig)
	case *mldsa65.PrivateKey:
		if kind == types.MessageTypeExternalMu {
			return signMu(mldsa.MLDSA65(), p.Seed(), input)
		}
		sig := make([]byte, mldsa65.SignatureSize)
		return sig, mldsa65.SignTo(p, input, nil, true, sig)
	case *mldsa87.PrivateKey:
		if kind == types.MessageTypeExternalMu {
			return signMu(mldsa.MLDSA87(), p.Seed(), input)
		}
		sig := make([]byte, mldsa87.SignatureSize)
		return sig, mldsa87.SignTo(p, input, nil, true, sig)
	}
	return nil, fmt.Errorf("kms: no signature with a %T", private)
}

// verifyWith checks a signature; input comes from signed.
func verifyWith(private any, a types.SigningAlgorithmSpec, kind types.MessageType, input, sig []byte) bool {
	switch p := private.(type) {
	case *rsa.PrivateKey:
		if pss(a) {
			return rsa.VerifyPSS(&p.PublicKey, hashes[a], input, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(&p.PublicKey, hashes[a], input, sig) == nil
	case *ecdsa.PrivateKey:
		return ecdsa.VerifyASN1(&p.PublicKey, input, sig)
	case *secp256k1.PrivateKey:
		parsed, err := secpecdsa.ParseDERSignature(sig)
		return err == nil && parsed.Verify(input, p.PubKey())
	case ed25519.PrivateKey:
		pub := p.Public().(ed25519.PublicKey)
		if a == types.SigningAlgorithmSpecEd25519PhSha512 {
			return ed25519.VerifyWithOptions(pub, input, sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
		}
		return ed25519.Verify(pub, input, sig)
	case *mldsa44.PrivateKey:
		public := p.Public().(*mldsa44.PublicKey)
		if kind == types.MessageTypeExternalMu {
			return set44.verifyMu(public.Bytes(), input, sig)
		}
		return mldsa44.Verify(public, input, nil, sig)
	case *mldsa65.PrivateKey:
		public := p.Public().(*mldsa65.PublicKey)
		if kind == types.MessageTypeExternalMu {
			return set65.verifyMu(public.Bytes(), input, sig)
		}
		return mldsa65.Verify(public, input, nil, sig)
	case *mldsa87.PrivateKey:
		public := p.Public().(*mldsa87.PublicKey)
		if kind == types.MessageTypeExternalMu {
			return set87.verifyMu(public.Bytes(), input, sig)
		}
		return mldsa87.Verify(public, input, nil, sig)
	}
	return false
}

// pair is a key of one usage in a state for cryptography.
func (s *Service) pair(ctx context.Context, tx *store.Tx, c *api.Call, id *string, usage, operation string) (found, *Material, error) {
	f, err := s.find(ctx, tx, c, id, byAny)
	if err != nil {
		return f, nil, err
	}
	m, err := s.usable(f, c)
	if err != nil {
		return f, nil, err
	}
	if f.Usage != usage {
		return f, nil, errUsage("%s key usage is %s which is not valid for %s.", f.arn(), f.Usage, operation)
	}
	return f, m, nil
}

func (k *Key) canSign(a types.SigningAlgorithmSpec) error {
	if !contains(k.signingAlgorithms(), a) {
		return errUsage("Algorithm %s is incompatible with key spec %s.", a, k.Spec)
	}
	return nil
}

// sign is Sign.
func (s *Service) sign(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.SignInput) (*kms.SignOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageSign, "Sign")
	if err != nil {
		return nil, err
	}
	if err := f.canSign(in.SigningAlgorithm); err != nil {
		return nil, err
	}
	input, err := signed(in.SigningAlgorithm, in.MessageType, in.Message)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	var sig []byte
	if err := s.use(f.Key, m, func(_ *secret.Bytes, private any) error {
		sig, err = signWith(private, in.SigningAlgorithm, in.MessageType, input)
		return err
	}); err != nil {
		return nil, lost(f.Key, err)
	}
	s.used.touch(c, f.Key, "Sign")
	return &kms.SignOutput{KeyId: ptr(f.arn()), Signature: sig, SigningAlgorithm: in.SigningAlgorithm}, nil
}

// verify is Verify.
func (s *Service) verify(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.VerifyInput) (*kms.VerifyOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageSign, "Verify")
	if err != nil {
		return nil, err
	}
	if err := f.canSign(in.SigningAlgorithm); err != nil {
		return nil, err
	}
	input, err := signed(in.SigningAlgorithm, in.MessageType, in.Message)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	valid := false
	if err := s.use(f.Key, m, func(_ *secret.Bytes, private any) error {
		valid = verifyWith(private, in.SigningAlgorithm, in.MessageType, input, in.Signature)
		return nil
	}); err != nil {
		return nil, lost(f.Key, err)
	}
	s.used.touch(c, f.Key, "Verify")
	if !valid {
		return nil, &types.KMSInvalidSignatureException{}
	}
	return &kms.VerifyOutput{KeyId: ptr(f.arn()), SignatureValid: true, SigningAlgorithm: in.SigningAlgorithm}, nil
}

// getPublicKey is GetPublicKey.
func (s *Service) getPublicKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GetPublicKeyInput) (*kms.GetPublicKeyOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byAny)
	if err != nil {
		return nil, err
	}
	if !f.asymmetric() {
		return nil, errUnsupported("%s is a %s key: it has no public key.", f.arn(), f.Spec)
	}
	if _, err := s.usable(f, c); err != nil {
		return nil, err
	}
	return &kms.GetPublicKeyOutput{KeyId: ptr(f.arn()), PublicKey: f.PublicKey, KeySpec: types.KeySpec(f.Spec), CustomerMasterKeySpec: types.CustomerMasterKeySpec(f.Spec),
		KeyUsage: types.KeyUsageType(f.Usage), EncryptionAlgorithms: f.encryptionAlgorithms(), SigningAlgorithms: f.signingAlgorithms(),
		KeyAgreementAlgorithms: f.agreementAlgorithms(), EncapsulationAlgorithms: f.kemAlgorithms()}, nil
}

func macHash(a types.MacAlgorithmSpec) func() hash.Hash {
	switch a {
	case types.MacAlgorithmSpecHmacSha224:
		return sha256.New224
	case types.MacAlgorithmSpecHmacSha256:
		return sha256.New
	case types.MacAlgorithmSpecHmacSha384:
		return sha512.New384
	case types.MacAlgorithmSpecHmacSha512:
		return sha512.New
	}
	return nil
}

func (s *Service) mac(f found, m *Material, a types.MacAlgorithmSpec, message []byte) (sum []byte, err error) {
	if !contains(f.macAlgorithms(), a) {
		return nil, errUsage("Algorithm %s is incompatible with key spec %s.", a, f.Spec)
	}
	err = s.use(f.Key, m, func(raw *secret.Bytes, _ any) error {
		h := hmac.New(macHash(a), raw.Expose())
		h.Write(message)
		sum = h.Sum(nil)
		return nil
	})
	return sum, lost(f.Key, err)
}

// generateMac is GenerateMac.
func (s *Service) generateMac(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateMacInput) (*kms.GenerateMacOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageMAC, "GenerateMac")
	if err != nil {
		return nil, err
	}
	sum, err := s.mac(f, m, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	s.used.touch(c, f.Key, "GenerateMac")
	return &kms.GenerateMacOutput{KeyId: ptr(f.arn()), Mac: sum, MacAlgorithm: in.MacAlgorithm}, nil
}

// verifyMac is VerifyMac.
func (s *Service) verifyMac(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.VerifyMacInput) (*kms.VerifyMacOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageMAC, "VerifyMac")
	if err != nil {
		return nil, err
	}
	sum, err := s.mac(f, m, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	s.used.touch(c, f.Key, "VerifyMac")
	if !hmac.Equal(sum, in.Mac) {
		return nil, &types.KMSInvalidMacException{}
	}
	return &kms.VerifyMacOutput{KeyId: ptr(f.arn()), MacAlgorithm: in.MacAlgorithm, MacValid: true}, nil
}

// deriveSharedSecret is DeriveSharedSecret: ECDH as in SP 800-56A section 5.7.1.2.
func (s *Service) deriveSharedSecret(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DeriveSharedSecretInput) (*kms.DeriveSharedSecretOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageAgree, "DeriveSharedSecret")
	if err != nil {
		return nil, err
	}
	if !contains(f.agreementAlgorithms(), in.KeyAgreementAlgorithm) {
		return nil, errUsage("Algorithm %s is incompatible with key spec %s.", in.KeyAgreementAlgorithm, f.Spec)
	}
	public, err := x509.ParsePKIXPublicKey(in.PublicKey)
	peer, ok := public.(*ecdsa.PublicKey)
	if err != nil || !ok || peer.Curve != nistCurve(f.Spec) {
		return nil, errValidation("PublicKey must be the DER-encoded SubjectPublicKeyInfo of a key on the curve of %s.", f.Spec)
	}
	theirs, err := peer.ECDH()
	if err != nil {
		return nil, errValidation("PublicKey is not a point on the curve of %s.", f.Spec)
	}
	var shared []byte
	if err := s.use(f.Key, m, func(_ *secret.Bytes, private any) error {
		p, ok := private.(*ecdsa.PrivateKey)
		if !ok {
			return errors.New("kms: key agreement key is not on a NIST curve")
		}
		ours, err := p.ECDH()
		if err != nil {
			return err
		}
		shared, err = ours.ECDH(theirs)
		return err
	}); err != nil {
		return nil, lost(f.Key, err)
	}
	if isTrue(in.DryRun) {
		secret.Zero(shared)
		return nil, errDryRun()
	}
	s.used.touch(c, f.Key, "DeriveSharedSecret")
	return &kms.DeriveSharedSecretOutput{KeyId: ptr(f.arn()), KeyAgreementAlgorithm: in.KeyAgreementAlgorithm, KeyOrigin: types.OriginType(f.Origin), SharedSecret: shared}, nil
}

func (k *Key) canEncapsulate(a types.EncapsulationAlgorithmSpec) error {
	if !contains(k.kemAlgorithms(), a) {
		return errUsage("Algorithm %s is incompatible with key spec %s.", a, k.Spec)
	}
	return nil
}

// encapsulate is Encapsulate (FIPS 203).
func (s *Service) encapsulate(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.EncapsulateInput) (*kms.EncapsulateOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageKEM, "Encapsulate")
	if err != nil {
		return nil, err
	}
	if err := f.canEncapsulate(in.EncapsulationAlgorithm); err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	var shared, ciphertext []byte
	if err := s.use(f.Key, m, func(_ *secret.Bytes, private any) error {
		switch p := private.(type) {
		case *mlkem512.PrivateKey:
			var err error
			ciphertext, shared, err = mlkem512.Scheme().Encapsulate(p.Public())
			return err
		case *mlkem.DecapsulationKey768:
			shared, ciphertext = p.EncapsulationKey().Encapsulate()
		case *mlkem.DecapsulationKey1024:
			shared, ciphertext = p.EncapsulationKey().Encapsulate()
		default:
			return fmt.Errorf("kms: no encapsulation with a %T", private)
		}
		return nil
	}); err != nil {
		return nil, lost(f.Key, err)
	}
	s.used.touch(c, f.Key, "Encapsulate")
	return &kms.EncapsulateOutput{KeyId: ptr(f.arn()), EncapsulationAlgorithm: in.EncapsulationAlgorithm, SharedSecret: shared, SharedSecretCiphertextBlob: ciphertext}, nil
}

// decapsulate is Decapsulate. A ciphertext of the right length always yields a
// secret (FIPS 203, implicit rejection).
func (s *Service) decapsulate(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DecapsulateInput) (*kms.DecapsulateOutput, error) {
	f, m, err := s.pair(ctx, tx, c, in.KeyId, usageKEM, "Decapsulate")
	if err != nil {
		return nil, err
	}
	if err := f.canEncapsulate(in.EncapsulationAlgorithm); err != nil {
		return nil, err
	}
	var shared []byte
	if err := s.use(f.Key, m, func(_ *secret.Bytes, private any) error {
		var err error
		switch p := private.(type) {
		case *mlkem512.PrivateKey:
			if len(in.SharedSecretCiphertextBlob) != mlkem512.CiphertextSize {
				return errCiphertext()
			}
			shared, err = mlkem512.Scheme().Decapsulate(p, in.SharedSecretCiphertextBlob)
		case *mlkem.DecapsulationKey768:
			shared, err = p.Decapsulate(in.SharedSecretCiphertextBlob)
		case *mlkem.DecapsulationKey1024:
			shared, err = p.Decapsulate(in.SharedSecretCiphertextBlob)
		default:
			return fmt.Errorf("kms: no decapsulation with a %T", private)
		}
		if err != nil {
			return errCiphertext()
		}
		return nil
	}); err != nil {
		return nil, lost(f.Key, err)
	}
	if isTrue(in.DryRun) {
		secret.Zero(shared)
		return nil, errDryRun()
	}
	s.used.touch(c, f.Key, "Decapsulate")
	return &kms.DecapsulateOutput{KeyId: ptr(f.arn()), EncapsulationAlgorithm: in.EncapsulationAlgorithm, SharedSecret: shared}, nil
}
