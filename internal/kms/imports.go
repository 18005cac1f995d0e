package kms

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// purposeImport is the keyring purpose of import tokens.
//
// An import token is the private half of the wrapping key, wrapped under the
// root key and bound to the key's ARN; nothing is stored until the import:
//
//	+---------+--------------+------------------------------------------+
//	| version | key ARN hash | keyring.Wrap(JSON of importState)         |
//	| 1 byte  | 32 bytes     |                                          |
//	+---------+--------------+------------------------------------------+
const purposeImport = "kms/import-token"

// importValid is how long import parameters are valid.
const importValid = 24 * time.Hour

type importState struct {
	Algorithm string
	Expires   time.Time
	Private   []byte // PKCS #1 DER
}

func (k *Key) importable() error {
	if k.Origin != originExternal {
		return errUnsupported("%s origin is %s which is not valid for this operation.", k.arn(), k.Origin)
	}
	return nil
}

// getParametersForImport is GetParametersForImport.
func (s *Service) getParametersForImport(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GetParametersForImportInput) (*kms.GetParametersForImportOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if err := f.importable(); err != nil {
		return nil, err
	}
	if err := importParameters.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	bits := map[types.WrappingKeySpec]int{types.WrappingKeySpecRsa2048: 2048, types.WrappingKeySpecRsa3072: 3072, types.WrappingKeySpecRsa4096: 4096}[in.WrappingKeySpec]
	if bits == 0 {
		return nil, errUnsupported("The wrapping key spec %s is not supported in this Region.", in.WrappingKeySpec)
	}
	switch in.WrappingAlgorithm {
	case types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaesOaepSha256:
		if f.asymmetric() && f.Spec[:3] == "RSA" {
			return nil, errValidation("An RSA private key does not fit into %s: use RSA_AES_KEY_WRAP_SHA_256.", in.WrappingAlgorithm)
		}
	case types.AlgorithmSpecRsaAesKeyWrapSha1, types.AlgorithmSpecRsaAesKeyWrapSha256:
	case types.AlgorithmSpecRsaesPkcs1V15:
		return nil, errUnsupported("The wrapping algorithm RSAES_PKCS1_V1_5 is no longer supported (AWS KMS ended it on October 10, 2023).")
	default:
		return nil, errUnsupported("The wrapping algorithm %s is not supported in this Region.", in.WrappingAlgorithm)
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return nil, err
	}
	st := importState{Algorithm: string(in.WrappingAlgorithm), Expires: c.Time.Add(importValid), Private: x509.MarshalPKCS1PrivateKey(k)}
	js, err := json.Marshal(st)
	secret.Zero(st.Private)
	if err != nil {
		return nil, err
	}
	sealed := secret.New(js)
	defer sealed.Wipe()
	arn := f.arn()
	wrapped, err := s.cfg.Root.Wrap(purposeImport, sealed, []byte(arn))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(arn))
	token := append(append([]byte{1}, sum[:]...), wrapped...)
	return &kms.GetParametersForImportOutput{KeyId: ptr(arn), ImportToken: token, PublicKey: public, ParametersValidTo: ptr(st.Expires)}, nil
}

func errImportToken(message string) error {
	return &types.InvalidImportTokenException{Message: ptr(message)}
}

func errMaterial(message string) error {
	return &types.IncorrectKeyMaterialException{Message: ptr(message)}
}

// openToken returns what GetParametersForImport put into the token.
func (s *Service) openToken(c *api.Call, k *Key, token []byte) (*importState, *rsa.PrivateKey, error) {
	arn := k.arn()
	sum := sha256.Sum256([]byte(arn))
	if len(token) < 33 || token[0] != 1 || !bytes.Equal(token[1:33], sum[:]) {
		return nil, nil, errImportToken("The import token is not valid, or belongs to another key.")
	}
	js, err := s.cfg.Root.Unwrap(purposeImport, token[33:], []byte(arn))
	if err != nil {
		return nil, nil, errImportToken("The import token is not valid, or belongs to another key.")
	}
	defer js.Wipe()
	var st importState
	if err := json.Unmarshal(js.Expose(), &st); err != nil {
		return nil, nil, errImportToken("The import token is not valid.")
	}
	defer secret.Zero(st.Private)
	if !c.Time.Before(st.Expires) {
		return nil, nil, &types.ExpiredImportTokenException{Message: ptr("The import token has expired. Call GetParametersForImport for a new one.")}
	}
	p, err := x509.ParsePKCS1PrivateKey(st.Private)
	if err != nil {
		return nil, nil, errImportToken("The import token is not valid.")
	}
	return &st, p, nil
}

// unwrapImport opens EncryptedKeyMaterial.
func unwrapImport(st *importState, p *rsa.PrivateKey, wrapped []byte) (*secret.Bytes, error) {
	var h hash.Hash = sha256.New()
	switch types.AlgorithmSpec(st.Algorithm) {
	case types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaAesKeyWrapSha1:
		h = sha1.New()
	}
	bad := &types.InvalidCiphertextException{Message: ptr("The encrypted key material could not be decrypted with the wrapping key and algorithm of the import token.")}
	switch types.AlgorithmSpec(st.Algorithm) {
	case types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaesOaepSha256:
		b, err := rsa.DecryptOAEP(h, nil, p, wrapped, nil)
		if err != nil || len(b) == 0 {
			return nil, bad
		}
		return secret.New(b), nil
	}
	// PKCS #11 CKM_RSA_AES_KEY_WRAP: RSA-OAEP of an AES key, then the material
	// under that key by AES key wrap with padding (RFC 5649).
	if len(wrapped) <= p.Size() {
		return nil, bad
	}
	kek, err := rsa.DecryptOAEP(h, nil, p, wrapped[:p.Size()], nil)
	if err != nil {
		return nil, bad
	}
	defer secret.Zero(kek)
	b, err := unwrapPadded(kek, wrapped[p.Size():])
	if err != nil || len(b) == 0 {
		return nil, bad
	}
	return secret.New(b), nil
}

var errKeyWrap = errors.New("kms: AES key wrap does not open")

// unwrapPadded is AES Key Wrap with Padding, RFC 5649 section 4.2.
func unwrapPadded(kek, in []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, errKeyWrap
	}
	if len(in) < 16 || len(in)%8 != 0 {
		return nil, errKeyWrap
	}
	out := make([]byte, len(in))
	copy(out, in)
	if len(in) == 16 {
		block.Decrypt(out, out)
	} else {
		n := len(in)/8 - 1
		var b [16]byte
		copy(b[:8], out[:8])
		for j := 5; j >= 0; j-- {
			for i := n; i >= 1; i-- {
				t := uint64(n*j + i)
				var a [8]byte
				binary.BigEndian.PutUint64(a[:], binary.BigEndian.Uint64(b[:8])^t)
				copy(b[:8], a[:])
				copy(b[8:], out[i*8:i*8+8])
				block.Decrypt(b[:], b[:])
				copy(out[i*8:i*8+8], b[8:])
			}
		}
		copy(out[:8], b[:8])
	}
	length := int(binary.BigEndian.Uint32(out[4:8]))
	good := subtle.ConstantTimeCompare(out[:4], []byte{0xa6, 0x59, 0x59, 0xa6})
	if good != 1 || length > len(out)-8 || length <= len(out)-16 {
		return nil, errKeyWrap
	}
	for _, pad := range out[8+length:] {
		if pad != 0 {
			return nil, errKeyWrap
		}
	}
	return out[8 : 8+length], nil
}

// checkImported says whether material has the form the key's spec needs, and
// returns it in the form the store keeps, with the public key of a pair.
func checkImported(k *Key, material *secret.Bytes) (*secret.Bytes, []byte, error) {
	if n := specs[k.Spec].bytes; n > 0 {
		if material.Len() != n {
			return nil, nil, errMaterial("The key material for " + k.Spec + " must have " + itoa(n) + " bytes.")
		}
		return material, nil, nil
	}
	if k.Spec == "ECC_SECG_P256K1" {
		raw, err := parseSecp256k1(material.Expose())
		if err != nil {
			return nil, nil, errMaterial("The key material is not a PKCS #8 private key on secp256k1.")
		}
		material = secret.New(raw)
	}
	p, err := parsePrivate(k.Spec, material)
	if err != nil {
		return nil, nil, errMaterial("The key material is not a PKCS #8 private key for " + k.Spec + ".")
	}
	pub, err := marshalPublic(k.Spec, p)
	return material, pub, err
}

// importKeyMaterial is ImportKeyMaterial.
func (s *Service) importKeyMaterial(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ImportKeyMaterialInput) (*kms.ImportKeyMaterialOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if err := f.importable(); err != nil {
		return nil, err
	}
	k, err := s.edit(ctx, tx, c, in.KeyId, importing)
	if err != nil {
		return nil, err
	}
	expires := in.ExpirationModel == "" || in.ExpirationModel == types.ExpirationModelTypeKeyMaterialExpires
	switch {
	case expires && in.ValidTo == nil:
		return nil, errValidation("A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES")
	case !expires && in.ValidTo != nil:
		return nil, errValidation("A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE")
	case expires && (!in.ValidTo.After(c.Time) || in.ValidTo.After(c.Time.AddDate(0, 0, 365))):
		return nil, errValidation("ValidTo must be in the future, at most 365 days from now.")
	}
	st, p, err := s.openToken(c, k, in.ImportToken)
	if err != nil {
		return nil, err
	}
	given, err := unwrapImport(st, p, in.EncryptedKeyMaterial)
	if err != nil {
		return nil, err
	}
	defer given.Wipe()
	material, public, err := checkImported(k, given)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	id, err := importedMaterialID(k, material)
	if err != nil {
		return nil, err
	}
	if in.KeyMaterialId != nil && *in.KeyMaterialId != id {
		return nil, errMaterial("The key material is not the one that KeyMaterialId names.")
	}
	known := k.material(id)
	multiple := k.Spec == specSymmetric
	kind := in.ImportType
	switch {
	case !multiple && (kind != "" || in.KeyMaterialDescription != nil || in.KeyMaterialId != nil):
		return nil, errValidation("ImportType, KeyMaterialDescription and KeyMaterialId are valid only with a symmetric encryption key; %s is %s.", k.arn(), k.Spec)
	case kind == types.ImportTypeNewKeyMaterial && in.KeyMaterialId != nil:
		return nil, errValidation("KeyMaterialId must not be set if the ImportType is NEW_KEY_MATERIAL")
	}
	if kind == "" {
		kind = types.ImportTypeExistingKeyMaterial
		if len(k.Materials) == 0 {
			kind = types.ImportTypeNewKeyMaterial
		}
	}
	wrapped, err := s.wrap(k, id, material)
	if err != nil {
		return nil, err
	}
	var validTo time.Time
	if in.ValidTo != nil {
		validTo = in.ValidTo.UTC().Truncate(time.Millisecond)
	}
	switch {
	case kind == types.ImportTypeExistingKeyMaterial && known == nil:
		return nil, errMaterial("The key material is not the one that was imported into this key before. To import further material into a symmetric encryption key, use ImportType NEW_KEY_MATERIAL.")
	case kind == types.ImportTypeNewKeyMaterial && known != nil:
		return nil, errMaterial("The key material is already associated with this key. Use ImportType EXISTING_KEY_MATERIAL to import it again.")
	case known != nil:
		known.Wrapped, known.ValidTo = wrapped, validTo
		if in.KeyMaterialDescription != nil {
			known.Description = *in.KeyMaterialDescription
		}
	default:
		m := Material{ID: id, Wrapped: wrapped, Created: c.Time, Status: statusCurrent, ValidTo: validTo, Description: str(in.KeyMaterialDescription)}
		if len(k.Materials) > 0 {
			if !multiple {
				return nil, errMaterial("A " + k.Spec + " key has one key material for ever.")
			}
			if err := k.onPrimary(); err != nil {
				return nil, err
			}
			for i := range k.Materials {
				if p := &k.Materials[i]; p.pending() {
					return nil, errState("New key material (id: " + id + ") cannot be imported into KMS key " + k.arn() + ", because another key material (id: " + p.ID + ") is pending rotation.")
				}
			}
			m.Status = statusPendingRotation
			if err := s.announce(tx, k, m); err != nil {
				return nil, err
			}
		}
		k.Materials = append(k.Materials, m)
		if public != nil {
			k.PublicKey = public
		}
	}
	if k.State == statePendingImport {
		k.State = stateEnabled
		// Still PendingImport while another material the key has used is missing.
		if k.stateAt(c.Time) == statePendingImport {
			k.State = statePendingImport
		}
	}
	if err := s.put(tx, k); err != nil {
		return nil, err
	}
	return &kms.ImportKeyMaterialOutput{KeyId: ptr(k.arn()), KeyMaterialId: ptr(id)}, s.settlePending(tx, k)
}

// deleteImportedKeyMaterial is DeleteImportedKeyMaterial.
func (s *Service) deleteImportedKeyMaterial(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DeleteImportedKeyMaterialInput) (*kms.DeleteImportedKeyMaterialOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	if err := f.importable(); err != nil {
		return nil, err
	}
	k, err := s.edit(ctx, tx, c, in.KeyId, deletingMaterial)
	if err != nil {
		return nil, err
	}
	m := k.current()
	if in.KeyMaterialId != nil {
		if m = k.material(*in.KeyMaterialId); m == nil {
			return nil, errNotFound("The key %s has no key material %s.", k.arn(), *in.KeyMaterialId)
		}
	}
	out := &kms.DeleteImportedKeyMaterialOutput{KeyId: ptr(k.arn())}
	if m == nil {
		return out, nil
	}
	out.KeyMaterialId = ptr(m.ID)
	m.Wrapped, m.ValidTo = nil, time.Time{}
	if err := s.store.Erase(tx); err != nil {
		return nil, err
	}
	if m.pending() {
		if k.isReplica() {
			if err := s.put(tx, k); err != nil {
				return nil, err
			}
			return out, s.settlePending(tx, k)
		}
		id := m.ID
		return out, s.shared(tx, k, func(k *Key) {
			k.Materials = slices.DeleteFunc(k.Materials, func(x Material) bool { return x.ID == id })
		})
	} else if k.State == stateEnabled || k.State == stateDisabled {
		k.State = statePendingImport
	}
	return out, s.put(tx, k)
}

// rotateImported makes the material that waits for rotation the current one.
func (s *Service) rotateImported(tx *store.Tx, k *Key, now time.Time, by string) error {
	next := ""
	for i := range k.Materials {
		if m := &k.Materials[i]; m.Status == statusPendingRotation && len(m.Wrapped) > 0 && !m.expired(now) {
			next = m.ID
		}
	}
	if next == "" {
		return errNothingPending(k)
	}
	previous := ""
	if m := k.current(); m != nil {
		previous = m.ID
	}
	err := s.shared(tx, k, func(k *Key) {
		for i := range k.Materials {
			switch m := &k.Materials[i]; {
			case m.ID == next:
				m.Status, m.Rotated, m.RotatedBy = statusCurrent, now, by
			case m.Status == statusCurrent:
				m.Status = statusNonCurrent
			}
		}
		k.advance(now, by)
	})
	if err != nil {
		return err
	}
	return s.rotated(tx, k, previous, by)
}

func errNothingPending(k *Key) error {
	return errState("No available key material pending rotation for the key: " + k.arn() + ".")
}

// announce tells the replicas of a multi-Region key of material that was imported
// into the primary and is to be imported into each of them before it can rotate.
func (s *Service) announce(tx *store.Tx, k *Key, m Material) error {
	m.Wrapped, m.ValidTo = nil, time.Time{}
	for _, region := range k.Replicas {
		r := s.keys.Edit(tx, path(k.Account, region, k.ID))
		if r == nil {
			continue
		}
		r.Materials = append(r.Materials, m)
		if err := s.put(tx, r); err != nil {
			return err
		}
	}
	return nil
}

// settlePending gives pending material of k's multi-Region family the state that
// follows from where it has been imported. k has been put.
func (s *Service) settlePending(tx *store.Tx, k *Key) error {
	if !k.MultiRegion {
		return nil
	}
	primary := s.keys.Get(tx, path(k.Account, k.Primary, k.ID))
	if primary == nil {
		return nil
	}
	for i := range primary.Materials {
		id := primary.Materials[i].ID
		if !primary.Materials[i].pending() {
			continue
		}
		status := statusPendingRotation
		regions := append([]string{k.Primary}, primary.Replicas...)
		for _, region := range regions {
			r := s.keys.Get(tx, path(k.Account, region, k.ID))
			if r == nil {
				continue
			}
			if m := r.material(id); m == nil || len(m.Wrapped) == 0 {
				status = statusPendingReplicas
			}
		}
		for _, region := range regions {
			r := s.keys.Edit(tx, path(k.Account, region, k.ID))
			if r == nil {
				continue
			}
			if m := r.material(id); m != nil && m.Status != status {
				m.Status = status
				if err := s.put(tx, r); err != nil {
					return err
				}
			}
		}
		return nil // there is at most one
	}
	return nil
}
