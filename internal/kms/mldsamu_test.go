package kms

import (
	"bytes"
	"crypto/sha3"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// muOf is the message representative of a message with an empty context, FIPS 204
// algorithms 2 and 7: H(H(public key, 64) ‖ 0 ‖ 0 ‖ message, 64).
func muOf(public, message []byte) []byte {
	tr := sha3.SumSHAKE256(public, 64)
	return sha3.SumSHAKE256(append(append(tr, 0, 0), message...), 64)
}

// TestExternalMu: a signature over μ is a signature over the message, whichever of
// the two signs and verifies (two implementations and our verifier agree).
func TestExternalMu(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	const alg = types.SigningAlgorithmSpecMlDsaShake256
	for _, spec := range []types.KeySpec{"ML_DSA_44", "ML_DSA_65", "ML_DSA_87"} {
		k := b.newKey(&kms.CreateKeyInput{KeySpec: spec, KeyUsage: "SIGN_VERIFY"})
		der := must[kms.GetPublicKeyOutput](b, c, "GetPublicKey", &kms.GetPublicKeyInput{KeyId: k.KeyId}).PublicKey
		size := map[types.KeySpec]int{"ML_DSA_44": 1312, "ML_DSA_65": 1952, "ML_DSA_87": 2592}[spec]
		public := der[len(der)-size:]
		for i := range 8 {
			message := bytes.Repeat([]byte{byte(i)}, 100*i)
			mu := muOf(public, message)
			for _, signer := range []struct {
				kind  types.MessageType
				input []byte
			}{{"EXTERNAL_MU", mu}, {"RAW", append([]byte(nil), message...)}} {
				if len(signer.input) == 0 {
					continue
				}
				sig := must[kms.SignOutput](b, c, "Sign", &kms.SignInput{KeyId: k.KeyId, Message: signer.input, MessageType: signer.kind, SigningAlgorithm: alg}).Signature
				must[kms.VerifyOutput](b, c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: mu, MessageType: "EXTERNAL_MU", SigningAlgorithm: alg, Signature: sig})
				if len(message) > 0 {
					must[kms.VerifyOutput](b, c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: message, MessageType: "RAW", SigningAlgorithm: alg, Signature: sig})
				}
				if i > 1 {
					continue
				}
				// A changed bit anywhere: challenge, response, hint, message representative.
				for _, at := range []int{0, 40, len(sig) / 2, len(sig) - 90, len(sig) - 1} {
					bad := bytes.Clone(sig)
					bad[at] ^= 1
					b.fails(c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: mu, MessageType: "EXTERNAL_MU", SigningAlgorithm: alg, Signature: bad}, "KMSInvalidSignatureException", "")
				}
				other := bytes.Clone(mu)
				other[63] ^= 0x80
				b.fails(c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: other, MessageType: "EXTERNAL_MU", SigningAlgorithm: alg, Signature: sig}, "KMSInvalidSignatureException", "")
				b.fails(c, "Verify", &kms.VerifyInput{KeyId: k.KeyId, Message: mu, MessageType: "EXTERNAL_MU", SigningAlgorithm: alg, Signature: sig[1:]}, "KMSInvalidSignatureException", "")
			}
		}
		b.fails(c, "Sign", &kms.SignInput{KeyId: k.KeyId, Message: make([]byte, 63), MessageType: "EXTERNAL_MU", SigningAlgorithm: alg}, "ValidationException", "")
		b.fails(c, "Sign", &kms.SignInput{KeyId: k.KeyId, Message: make([]byte, 64), MessageType: "DIGEST", SigningAlgorithm: alg}, "ValidationException", "")
	}
	ecc := b.newKey(&kms.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY"})
	b.fails(c, "Sign", &kms.SignInput{KeyId: ecc.KeyId, Message: make([]byte, 64), MessageType: "EXTERNAL_MU", SigningAlgorithm: "ECDSA_SHA_256"}, "ValidationException", "")
}

// FuzzVerifyMu: no signature makes the verifier fail in another way than by saying no.
func FuzzVerifyMu(f *testing.F) {
	for _, p := range []mldsaSet{set44, set65, set87} {
		f.Add(make([]byte, p.lambda/4+p.l*32*(p.gamma1Bits+1)+p.omega+p.k))
	}
	f.Fuzz(func(t *testing.T, sig []byte) {
		for _, p := range []mldsaSet{set44, set65, set87} {
			if p.verifyMu(make([]byte, 32+320*p.k), make([]byte, 64), sig) {
				t.Error("a signature nobody made verifies")
			}
		}
	})
}
