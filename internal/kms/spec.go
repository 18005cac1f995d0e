package kms

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// spec is what AWS documents about a key spec.
// Source: KMS API reference, CreateKey, "KeySpec" and "KeyUsage".
type spec struct {
	usages  []string
	bytes   int // size of symmetric and HMAC material
	encrypt []types.EncryptionAlgorithmSpec
	sign    []types.SigningAlgorithmSpec
	mac     []types.MacAlgorithmSpec
	agree   []types.KeyAgreementAlgorithmSpec
	kem     []types.EncapsulationAlgorithmSpec
}

const (
	usageEncrypt = string(types.KeyUsageTypeEncryptDecrypt)
	usageSign    = string(types.KeyUsageTypeSignVerify)
	usageMAC     = string(types.KeyUsageTypeGenerateVerifyMac)
	usageAgree   = string(types.KeyUsageTypeKeyAgreement)
	usageKEM     = string(types.KeyUsageTypeEncapsulateDecapsulate)

	specSymmetric = string(types.KeySpecSymmetricDefault)
)

var (
	rsaEncrypt = []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecRsaesOaepSha1, types.EncryptionAlgorithmSpecRsaesOaepSha256}
	rsaSign    = []types.SigningAlgorithmSpec{
		types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
		types.SigningAlgorithmSpecRsassaPssSha256, types.SigningAlgorithmSpecRsassaPssSha384, types.SigningAlgorithmSpecRsassaPssSha512}
	ecdh = []types.KeyAgreementAlgorithmSpec{types.KeyAgreementAlgorithmSpecEcdh}
)

func rsaSpec() spec {
	return spec{usages: []string{usageEncrypt, usageSign}, encrypt: rsaEncrypt, sign: rsaSign}
}

func nistSpec(alg types.SigningAlgorithmSpec) spec {
	return spec{usages: []string{usageSign, usageAgree}, sign: []types.SigningAlgorithmSpec{alg}, agree: ecdh}
}

func hmacSpec(bytes int, alg types.MacAlgorithmSpec) spec {
	return spec{usages: []string{usageMAC}, bytes: bytes, mac: []types.MacAlgorithmSpec{alg}}
}

func mldsaSpec() spec {
	return spec{usages: []string{usageSign}, sign: []types.SigningAlgorithmSpec{types.SigningAlgorithmSpecMlDsaShake256}}
}

func mlkemSpec() spec {
	return spec{usages: []string{usageKEM}, kem: []types.EncapsulationAlgorithmSpec{types.EncapsulationAlgorithmSpecMlKem}}
}

// specs holds every key spec that is served. SM2 exists in AWS's China Regions
// only and is refused as elsewhere.
var specs = map[string]spec{
	specSymmetric:           {usages: []string{usageEncrypt}, bytes: 32, encrypt: []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault}},
	"RSA_2048":              rsaSpec(),
	"RSA_3072":              rsaSpec(),
	"RSA_4096":              rsaSpec(),
	"ECC_NIST_P256":         nistSpec(types.SigningAlgorithmSpecEcdsaSha256),
	"ECC_NIST_P384":         nistSpec(types.SigningAlgorithmSpecEcdsaSha384),
	"ECC_NIST_P521":         nistSpec(types.SigningAlgorithmSpecEcdsaSha512),
	"ECC_SECG_P256K1":       {usages: []string{usageSign}, sign: []types.SigningAlgorithmSpec{types.SigningAlgorithmSpecEcdsaSha256}},
	"ECC_NIST_EDWARDS25519": {usages: []string{usageSign}, sign: []types.SigningAlgorithmSpec{types.SigningAlgorithmSpecEd25519Sha512, types.SigningAlgorithmSpecEd25519PhSha512}},
	"HMAC_224":              hmacSpec(28, types.MacAlgorithmSpecHmacSha224),
	"HMAC_256":              hmacSpec(32, types.MacAlgorithmSpecHmacSha256),
	"HMAC_384":              hmacSpec(48, types.MacAlgorithmSpecHmacSha384),
	"HMAC_512":              hmacSpec(64, types.MacAlgorithmSpecHmacSha512),
	"ML_DSA_44":             mldsaSpec(),
	"ML_DSA_65":             mldsaSpec(),
	"ML_DSA_87":             mldsaSpec(),
	"ML_KEM_512":            mlkemSpec(),
	"ML_KEM_768":            mlkemSpec(),
	"ML_KEM_1024":           mlkemSpec(),
}

func (k *Key) encryptionAlgorithms() []types.EncryptionAlgorithmSpec {
	if k.Usage != usageEncrypt {
		return nil
	}
	return specs[k.Spec].encrypt
}

func (k *Key) signingAlgorithms() []types.SigningAlgorithmSpec {
	if k.Usage != usageSign {
		return nil
	}
	return specs[k.Spec].sign
}

func (k *Key) macAlgorithms() []types.MacAlgorithmSpec {
	if k.Usage != usageMAC {
		return nil
	}
	return specs[k.Spec].mac
}

func (k *Key) agreementAlgorithms() []types.KeyAgreementAlgorithmSpec {
	if k.Usage != usageAgree {
		return nil
	}
	return specs[k.Spec].agree
}

func (k *Key) kemAlgorithms() []types.EncapsulationAlgorithmSpec {
	if k.Usage != usageKEM {
		return nil
	}
	return specs[k.Spec].kem
}

// asymmetric tells a key pair.
func (k *Key) asymmetric() bool { return k.Spec != specSymmetric && k.Usage != usageMAC }

// grantOperations are the operations a grant on this key may list.
// Source: KMS developer guide, "Grant operations".
func (k *Key) grantOperations() []string {
	common := []string{"CreateGrant", "DescribeKey", "RetireGrant"}
	switch {
	case k.Spec == specSymmetric:
		return append(common, "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
			"GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
	case k.Usage == usageEncrypt:
		return append(common, "Decrypt", "Encrypt", "GetPublicKey", "ReEncryptFrom", "ReEncryptTo")
	case k.Usage == usageSign:
		return append(common, "GetPublicKey", "Sign", "Verify")
	case k.Usage == usageMAC:
		return append(common, "GenerateMac", "VerifyMac")
	case k.Usage == usageAgree:
		return append(common, "DeriveSharedSecret", "GetPublicKey")
	case k.Usage == usageKEM:
		return append(common, "Decapsulate", "Encapsulate", "GetPublicKey")
	}
	return common
}

func contains[S ~[]E, E comparable](s S, e E) bool { return slices.Contains(s, e) }
