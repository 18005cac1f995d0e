package kms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
)

const purposeMaterial = "kms/material"

// Material of a key, unwrapped, by spec:
//
//	SYMMETRIC_DEFAULT, HMAC_*                 the bytes
//	RSA_*, ECC_NIST_* (Ed25519 included)      PKCS #8 DER (RFC 5208)
//	ECC_SECG_P256K1                           the scalar, 32 bytes big endian
//	ML_DSA_*                                  the seed xi, 32 bytes (FIPS 204)
//	ML_KEM_*                                  the seed d ‖ z, 64 bytes (FIPS 203)

// generate makes key material for a spec, and the DER of its public key for a pair.
func generate(keySpec string) (*secret.Bytes, []byte, error) {
	switch keySpec {
	case "RSA_2048", "RSA_3072", "RSA_4096":
		bits := map[string]int{"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}[keySpec]
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, nil, fmt.Errorf("generate an RSA key: %w", err)
		}
		return marshalPair(k, &k.PublicKey)
	case "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521":
		k, err := ecdsa.GenerateKey(nistCurve(keySpec), rand.Reader)
		if err != nil {
			return nil, nil, fmt.Errorf("generate an elliptic curve key: %w", err)
		}
		return marshalPair(k, &k.PublicKey)
	case "ECC_NIST_EDWARDS25519":
		pub, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, nil, fmt.Errorf("generate an Ed25519 key: %w", err)
		}
		return marshalPair(k, pub)
	case "ECC_SECG_P256K1":
		k, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			return nil, nil, fmt.Errorf("generate a secp256k1 key: %w", err)
		}
		defer k.Zero()
		pub, err := marshalSecp256k1(k.PubKey())
		return secret.New(k.Serialize()), pub, err
	case "ML_DSA_44", "ML_DSA_65", "ML_DSA_87":
		seed := secret.Random(32)
		p, err := parsePrivate(keySpec, seed)
		if err != nil {
			return nil, nil, err
		}
		pub, err := marshalPublic(keySpec, p)
		return seed, pub, err
	case "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024":
		seed := secret.Random(64)
		p, err := parsePrivate(keySpec, seed)
		if err != nil {
			return nil, nil, err
		}
		pub, err := marshalPublic(keySpec, p)
		return seed, pub, err
	}
	if s, ok := specs[keySpec]; ok && s.bytes > 0 {
		return secret.Random(s.bytes), nil, nil
	}
	return nil, nil, fmt.Errorf("no generator for key spec %s", keySpec)
}

func nistCurve(keySpec string) elliptic.Curve {
	switch keySpec {
	case "ECC_NIST_P256":
		return elliptic.P256()
	case "ECC_NIST_P384":
		return elliptic.P384()
	case "ECC_NIST_P521":
		return elliptic.P521()
	}
	return nil
}

func marshalPair(private, public any) (*secret.Bytes, []byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a private key: %w", err)
	}
	pub, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a public key: %w", err)
	}
	return secret.New(der), pub, nil
}

// Object identifiers of SubjectPublicKeyInfo: SEC 2 and RFC 5480; FIPS 204 and
// 203 keys as in RFC 9881 and RFC 9935.
var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	oidPQ          = map[string]asn1.ObjectIdentifier{
		"ML_DSA_44":   {2, 16, 840, 1, 101, 3, 4, 3, 17},
		"ML_DSA_65":   {2, 16, 840, 1, 101, 3, 4, 3, 18},
		"ML_DSA_87":   {2, 16, 840, 1, 101, 3, 4, 3, 19},
		"ML_KEM_512":  {2, 16, 840, 1, 101, 3, 4, 4, 1},
		"ML_KEM_768":  {2, 16, 840, 1, 101, 3, 4, 4, 2},
		"ML_KEM_1024": {2, 16, 840, 1, 101, 3, 4, 4, 3},
	}
)

type publicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

func marshalSecp256k1(pub *secp256k1.PublicKey) ([]byte, error) {
	curve, err := asn1.Marshal(oidSecp256k1)
	if err != nil {
		return nil, err
	}
	raw := pub.SerializeUncompressed()
	return asn1.Marshal(publicKeyInfo{pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: curve}},
		asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)}})
}

// marshalPublic encodes the public half of a parsed private key.
func marshalPublic(keySpec string, private any) ([]byte, error) {
	var raw []byte
	switch p := private.(type) {
	case *rsa.PrivateKey:
		return x509.MarshalPKIXPublicKey(&p.PublicKey)
	case *ecdsa.PrivateKey:
		return x509.MarshalPKIXPublicKey(&p.PublicKey)
	case ed25519.PrivateKey:
		return x509.MarshalPKIXPublicKey(p.Public())
	case *secp256k1.PrivateKey:
		return marshalSecp256k1(p.PubKey())
	case *mldsa44.PrivateKey:
		raw = p.Public().(*mldsa44.PublicKey).Bytes()
	case *mldsa65.PrivateKey:
		raw = p.Public().(*mldsa65.PublicKey).Bytes()
	case *mldsa87.PrivateKey:
		raw = p.Public().(*mldsa87.PublicKey).Bytes()
	case *mlkem512.PrivateKey:
		var err error
		if raw, err = p.Public().MarshalBinary(); err != nil {
			return nil, err
		}
	case *mlkem.DecapsulationKey768:
		raw = p.EncapsulationKey().Bytes()
	case *mlkem.DecapsulationKey1024:
		raw = p.EncapsulationKey().Bytes()
	default:
		return nil, fmt.Errorf("no public key form for %s (%T)", keySpec, private)
	}
	return asn1.Marshal(publicKeyInfo{pkix.AlgorithmIdentifier{Algorithm: oidPQ[keySpec]}, asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)}})
}

// parsePrivate turns unwrapped material of a pair into a key to work with.
func parsePrivate(keySpec string, material *secret.Bytes) (any, error) {
	raw := material.Expose()
	switch keySpec {
	case "ECC_SECG_P256K1":
		if len(raw) != 32 {
			return nil, errors.New("a secp256k1 scalar has 32 bytes")
		}
		return secp256k1.PrivKeyFromBytes(raw), nil
	case "ML_DSA_44", "ML_DSA_65", "ML_DSA_87":
		if len(raw) != 32 {
			return nil, errors.New("an ML-DSA seed has 32 bytes")
		}
		seed := [32]byte(raw)
		defer secret.Zero(seed[:])
		switch keySpec {
		case "ML_DSA_44":
			_, k := mldsa44.NewKeyFromSeed(&seed)
			return k, nil
		case "ML_DSA_65":
			_, k := mldsa65.NewKeyFromSeed(&seed)
			return k, nil
		}
		_, k := mldsa87.NewKeyFromSeed(&seed)
		return k, nil
	case "ML_KEM_512":
		if len(raw) != mlkem512.KeySeedSize {
			return nil, errors.New("an ML-KEM seed has 64 bytes")
		}
		_, k := mlkem512.NewKeyFromSeed(raw)
		return k, nil
	case "ML_KEM_768":
		return mlkem.NewDecapsulationKey768(raw)
	case "ML_KEM_1024":
		return mlkem.NewDecapsulationKey1024(raw)
	}
	k, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("parse the private key of a %s key: %w", keySpec, err)
	}
	switch p := k.(type) {
	case *rsa.PrivateKey:
		if fmt.Sprintf("RSA_%d", p.N.BitLen()) != keySpec {
			return nil, fmt.Errorf("the private key has %d bits, want %s", p.N.BitLen(), keySpec)
		}
	case *ecdsa.PrivateKey:
		if p.Curve != nistCurve(keySpec) {
			return nil, fmt.Errorf("the private key is on %s, want %s", p.Curve.Params().Name, keySpec)
		}
	case ed25519.PrivateKey:
		if keySpec != "ECC_NIST_EDWARDS25519" {
			return nil, fmt.Errorf("the private key is Ed25519, want %s", keySpec)
		}
	default:
		return nil, fmt.Errorf("the private key is a %T, want %s", k, keySpec)
	}
	return k.(crypto.Signer), nil
}

// newMaterialID is the ID of material KMS makes: random.
func newMaterialID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// importedMaterialID is the ID of imported material: a one-way function of it
// and of the key, so that importing the same material again is recognised.
func importedMaterialID(k *Key, material *secret.Bytes) (string, error) {
	// HKDF-SHA256, its first half by hand: the hash keeps the last block it was
	// given, which would leave the material in memory after it is wiped.
	h := hmac.New(sha256.New, []byte("sealdesk kms material id 1"))
	h.Write(material.Expose())
	prk := h.Sum(nil)
	h.Write(make([]byte, sha256.BlockSize))
	b, err := hkdf.Expand(sha256.New, prk, k.Account+"/"+k.ID, 32)
	if err != nil {
		return "", fmt.Errorf("derive a key material ID: %w", err)
	}
	return hex.EncodeToString(b), nil
}

func materialAAD(k *Key, materialID string) []byte {
	return []byte(k.Account + "/" + k.ID + "/" + materialID)
}

// wrap seals material for the store. A multi-Region key's replicas share the
// wrapped form: it is bound to account and key ID, not to the Region.
func (s *Service) wrap(k *Key, materialID string, material *secret.Bytes) ([]byte, error) {
	w, err := s.cfg.Root.Wrap(purposeMaterial, material, materialAAD(k, materialID))
	if err != nil {
		return nil, fmt.Errorf("wrap the material of key %s: %w", k.ID, err)
	}
	return w, nil
}

// Wrapped are the values that the service keeps under the root key.
func (s *Service) Wrapped() []keyring.Holder {
	return []keyring.Holder{keyring.Holds(s.store, s.stores, func(_ string, st *CustomStore) []keyring.Field {
		return []keyring.Field{{Purpose: purposeStore, AAD: []byte(st.path()), Value: &st.Secret}}
	}), keyring.Holds(s.store, s.keys, func(_ string, k *Key) []keyring.Field {
		fields := make([]keyring.Field, len(k.Materials))
		for i := range k.Materials {
			m := &k.Materials[i]
			fields[i] = keyring.Field{Purpose: purposeMaterial, AAD: materialAAD(k, m.ID), Value: &m.Wrapped}
		}
		return fields
	})}
}

// loaded is key material in memory. use holds mu while it works with it, forget
// takes it alone to wipe.
type loaded struct {
	id      string // of the material
	mu      sync.RWMutex
	raw     *secret.Bytes
	private any
	gone    bool
}

// keyMem is what a process has in mind about a stored key: all versions of its
// record have the same one, until the key is deleted.
type keyMem struct {
	materials atomic.Pointer[[]*loaded] // those in use; a list is not changed once it is here
	used      atomic.Pointer[usage]     // the last use, nil when it is stored
}

// find is the material in memory, nil for none.
func (h *keyMem) find(id string) *loaded {
	if list := h.materials.Load(); list != nil {
		for _, l := range *list {
			if l.id == id {
				return l
			}
		}
	}
	return nil
}

// add puts l in memory, or returns what is there of the same material.
func (h *keyMem) add(l *loaded) *loaded {
	for {
		old := h.materials.Load()
		if there := h.find(l.id); there != nil {
			return there
		}
		list := make([]*loaded, 0, 1)
		if old != nil {
			list = append(list, *old...)
		}
		list = append(list, l)
		if h.materials.CompareAndSwap(old, &list) {
			return l
		}
	}
}

// drop takes the material out of memory as it is.
func (h *keyMem) drop(id string) {
	for {
		old := h.materials.Load()
		if old == nil {
			return
		}
		list := slices.DeleteFunc(slices.Clone(*old), func(l *loaded) bool { return l.id == id })
		if h.materials.CompareAndSwap(old, &list) {
			return
		}
	}
}

var errMaterialGone = errors.New("kms: key material was destroyed")

// use calls f with the unwrapped material m of k.
func (s *Service) use(k *Key, m *Material, f func(raw *secret.Bytes, private any) error) error {
	mem := k.derived.mem
	if mem == nil { // a record that is being edited: nothing is kept of it
		mem = new(keyMem)
		defer mem.forget(m.ID)
	}
	l := mem.find(m.ID)
	if l == nil {
		mine, err := s.load(k, m)
		if err != nil {
			return err
		}
		if l = mem.add(mine); l != mine {
			mine.raw.Wipe()
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.gone {
		return errMaterialGone
	}
	return f(l.raw, l.private)
}

func (s *Service) load(k *Key, m *Material) (*loaded, error) {
	if len(m.Wrapped) == 0 {
		return nil, errMaterialGone
	}
	raw, err := s.cfg.Root.Unwrap(purposeMaterial, m.Wrapped, materialAAD(k, m.ID))
	if err != nil {
		return nil, fmt.Errorf("unwrap the material of key %s: %w", k.ID, err)
	}
	l := &loaded{id: m.ID, raw: raw}
	if k.asymmetric() {
		if l.private, err = parsePrivate(k.Spec, raw); err != nil {
			raw.Wipe()
			return nil, err
		}
	}
	return l, nil
}

// forget wipes a material from memory. A gravestone stays in its place, so that
// a call that still holds the old record cannot load the material again.
func (h *keyMem) forget(id string) {
	l := h.add(&loaded{id: id, gone: true})
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.gone {
		l.gone = true
		l.raw.Wipe()
		l.private = nil
	}
}

// keyChanged keeps memory in step with the store: material that is no longer
// stored is wiped, material that was imported again may be loaded again.
func keyChanged(old, new *Key) {
	if old == nil {
		return
	}
	has := func(k *Key, id string) bool {
		if k == nil {
			return false
		}
		m := k.material(id)
		return m != nil && len(m.Wrapped) > 0
	}
	for i := range old.Materials {
		if id := old.Materials[i].ID; has(old, id) && !has(new, id) {
			old.derived.mem.forget(id)
		}
	}
	if new == nil {
		return
	}
	for i := range new.Materials {
		if id := new.Materials[i].ID; has(new, id) && !has(old, id) {
			new.derived.mem.drop(id)
		}
	}
}
