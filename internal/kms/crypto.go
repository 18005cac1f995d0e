package kms

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"hash"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

func isTrue(b *bool) bool { return b != nil && *b }

// algorithm checks the encryption algorithm against the key; symmetric keys have
// a default.
func (k *Key) algorithm(operation string, given types.EncryptionAlgorithmSpec) (types.EncryptionAlgorithmSpec, error) {
	if k.Usage != usageEncrypt {
		return "", errUsage("%s key usage is %s which is not valid for %s.", k.arn(), k.Usage, operation)
	}
	if given == "" {
		given = types.EncryptionAlgorithmSpecSymmetricDefault
	}
	if !contains(k.encryptionAlgorithms(), given) {
		return "", errUsage("Algorithm %s is incompatible with key spec %s.", given, k.Spec)
	}
	return given, nil
}

func algorithmOr(a types.EncryptionAlgorithmSpec) string {
	if a == "" {
		return string(types.EncryptionAlgorithmSpecSymmetricDefault)
	}
	return string(a)
}

// noContext refuses an encryption context with an asymmetric key.
func (k *Key) noContext(context map[string]string) error {
	if len(context) > 0 && k.Spec != specSymmetric {
		return errValidation("EncryptionContext is valid only with a symmetric encryption key; %s is %s.", k.arn(), k.Spec)
	}
	return nil
}

// usable is a key in a state for cryptography and its current material.
func (s *Service) usable(f found, c *api.Call) (*Material, error) {
	if err := cryptographic.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	m := f.current()
	if m == nil || len(m.Wrapped) == 0 && f.Origin != originHSM {
		return nil, errState(f.arn() + " is pending import.")
	}
	return m, nil
}

// lost turns material that was destroyed while the call ran into the state error.
func lost(k *Key, err error) error {
	if errors.Is(err, errMaterialGone) {
		return errState(k.arn() + " is pending import.")
	}
	return err
}

// seal encrypts under a symmetric key's current material.
func (s *Service) seal(ctx context.Context, c *api.Call, k *Key, m *Material, plaintext []byte, context map[string]string) (blob []byte, err error) {
	if k.inStore() {
		return s.sealInStore(ctx, c, k, m, plaintext, context)
	}
	err = s.use(k, m, func(raw *secret.Bytes, _ any) error {
		blob, err = sealBlob(blobRef{account: k.Account, keyID: k.ID, materialID: m.ID}, raw, plaintext, context)
		return err
	})
	return blob, lost(k, err)
}

func oaepHash(a types.EncryptionAlgorithmSpec) hash.Hash {
	if a == types.EncryptionAlgorithmSpecRsaesOaepSha1 {
		return sha1.New()
	}
	return sha256.New()
}

// encryptUnder encrypts under any key for ENCRYPT_DECRYPT.
func (s *Service) encryptUnder(ctx context.Context, c *api.Call, k *Key, m *Material, a types.EncryptionAlgorithmSpec, plaintext []byte, context map[string]string) ([]byte, error) {
	if k.Spec == specSymmetric {
		return s.seal(ctx, c, k, m, plaintext, context)
	}
	var out []byte
	err := s.use(k, m, func(_ *secret.Bytes, private any) error {
		p, ok := private.(*rsa.PrivateKey)
		if !ok {
			return errors.New("kms: encryption key is no RSA key")
		}
		h := oaepHash(a)
		if most := p.Size() - 2*h.Size() - 2; len(plaintext) > most {
			return errValidation("Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", a, k.Spec, most)
		}
		var err error
		out, err = rsa.EncryptOAEP(h, rand.Reader, &p.PublicKey, plaintext, nil)
		return err
	})
	return out, lost(k, err)
}

// decryptUnder opens a ciphertext of the key. For a symmetric key ref names the material.
func (s *Service) decryptUnder(ctx context.Context, c *api.Call, k *Key, ref blobRef, a types.EncryptionAlgorithmSpec, blob []byte, context map[string]string) (plain []byte, materialID string, err error) {
	if k.Spec == specSymmetric {
		m := k.material(ref.materialID)
		if m == nil {
			return nil, "", errCiphertext()
		}
		if k.inStore() {
			plain, err = s.openInStore(ctx, c, k, m, blob, context)
			return plain, "", err
		}
		if blob[0] != blobVersion {
			return nil, "", errCiphertext()
		}
		if len(m.Wrapped) == 0 {
			return nil, "", errState(k.arn() + " is pending import.")
		}
		err = s.use(k, m, func(raw *secret.Bytes, _ any) error {
			plain, err = openBlob(blob, raw, context)
			return err
		})
		if errors.Is(err, errBlob) {
			return nil, "", errCiphertext()
		}
		return plain, m.ID, lost(k, err)
	}
	m := k.current()
	if m == nil {
		return nil, "", errState(k.arn() + " is pending import.")
	}
	err = s.use(k, m, func(_ *secret.Bytes, private any) error {
		p, ok := private.(*rsa.PrivateKey)
		if !ok {
			return errors.New("kms: encryption key is no RSA key")
		}
		var err error
		if plain, err = rsa.DecryptOAEP(oaepHash(a), nil, p, blob, nil); err != nil {
			return errCiphertext()
		}
		return nil
	})
	return plain, "", lost(k, err)
}

// encrypt is Encrypt.
func (s *Service) encrypt(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.EncryptInput) (*kms.EncryptOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byAny)
	if err != nil {
		return nil, err
	}
	m, err := s.usable(f, c)
	if err != nil {
		return nil, err
	}
	a, err := f.algorithm("Encrypt", in.EncryptionAlgorithm)
	if err != nil {
		return nil, err
	}
	if err := f.noContext(in.EncryptionContext); err != nil {
		return nil, err
	}
	blob, err := s.encryptUnder(ctx, c, f.Key, m, a, in.Plaintext, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	s.used.touch(c, f.Key, "Encrypt")
	noteMaterial(c, "keyMaterialId", f.shownMaterial(m))
	return &kms.EncryptOutput{CiphertextBlob: blob, KeyId: ptr(f.arn()), EncryptionAlgorithm: a}, nil
}

// source is the key a ciphertext is to be opened with.
type source struct {
	found
	ref blobRef
	// implied: the ciphertext named the key, the caller did not.
	implied bool
}

// findSource finds the key of a Decrypt or of the first half of a ReEncrypt.
func (s *Service) findSource(ctx context.Context, tx *store.Tx, c *api.Call, keyID *string, a types.EncryptionAlgorithmSpec, blob []byte, ignoreBlob bool) (source, error) {
	var src source
	var err error
	if keyID != nil {
		src.found, err = s.find(ctx, tx, c, keyID, byAny)
		return src, err
	}
	if ignoreBlob {
		return src, errValidation("With the DryRun modifier IGNORE_CIPHERTEXT the key ID is required.")
	}
	if a != "" && a != types.EncryptionAlgorithmSpecSymmetricDefault {
		return src, errValidation("The key ID is required when the ciphertext was encrypted under an asymmetric key (%s).", a)
	}
	if src.ref, err = parseBlob(blob); err != nil {
		return src, errCiphertext()
	}
	src.implied = true
	k := s.keys.Get(tx, path(src.ref.account, c.Region, src.ref.keyID))
	if k == nil {
		return src, errCiphertextKey()
	}
	src.Key = k
	return src, nil
}

// check says whether the source can open the ciphertext.
func (src *source) check(c *api.Call, operation string, a types.EncryptionAlgorithmSpec, blob []byte, context map[string]string) (types.EncryptionAlgorithmSpec, error) {
	if err := cryptographic.check(src.Key, c.Time); err != nil {
		return "", err
	}
	// A ciphertext that names another key comes before what the key could do.
	if !src.implied && blob != nil && (a == "" || a == types.EncryptionAlgorithmSpecSymmetricDefault) {
		var err error
		if src.ref, err = parseBlob(blob); err == nil && (src.ref.account != src.Account || src.ref.keyID != src.ID) {
			return "", &types.IncorrectKeyException{Message: ptr("The key ID in the request does not identify a CMK that can perform this operation.")}
		} else if err != nil && src.Spec == specSymmetric {
			return "", errCiphertext()
		}
	}
	a, err := src.algorithm(operation, a)
	if err != nil {
		return "", err
	}
	if err := src.noContext(context); err != nil {
		return "", err
	}
	return a, nil
}

// ignores tells whether the DryRun modifier IGNORE_CIPHERTEXT is given.
func ignores(mods []types.DryRunModifierType, dryRun *bool) (bool, error) {
	if !contains(mods, types.DryRunModifierTypeIgnoreCiphertext) {
		return false, nil
	}
	if !isTrue(dryRun) {
		return false, errValidation("DryRunModifiers is valid only with DryRun.")
	}
	return true, nil
}

func (s *Service) onDecrypt(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DecryptInput) ([]api.Target, error) {
	ignore, err := ignores(in.DryRunModifiers, in.DryRun)
	if err != nil {
		return nil, err
	}
	if len(in.CiphertextBlob) == 0 && !ignore {
		return nil, errValidation("1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must not be null")
	}
	src, err := s.findSource(ctx, tx, c, in.KeyId, in.EncryptionAlgorithm, in.CiphertextBlob, ignore)
	if err != nil {
		return nil, err
	}
	if err := s.checkTokens(tx, c); err != nil {
		return nil, err
	}
	c.Prepared = &src // decrypt has the same snapshot and input
	t, err := s.askLater(c, src.found, "Decrypt", func() map[string][]string {
		k := s.about(src.found, c)
		k.text("kms:EncryptionAlgorithm", algorithmOr(in.EncryptionAlgorithm))
		k.context(in.EncryptionContext)
		return k
	}, func() (policy.Grant, string) { return s.granted(tx, c, src.Key, "Decrypt", in.EncryptionContext) })
	if src.implied && src.Account != c.Account {
		t.Hide = errCiphertextKey()
	}
	return []api.Target{t}, err
}

// decrypt is Decrypt.
func (s *Service) decrypt(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.DecryptInput) (*kms.DecryptOutput, error) {
	ignore, err := ignores(in.DryRunModifiers, in.DryRun)
	if err != nil {
		return nil, err
	}
	src, ok := c.Prepared.(*source)
	if !ok {
		return nil, errors.New("kms: Decrypt without its target")
	}
	blob := in.CiphertextBlob
	if ignore {
		blob = nil
	}
	a, err := src.check(c, "Decrypt", in.EncryptionAlgorithm, blob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if ignore {
		return nil, errDryRun()
	}
	plain, material, err := s.decryptUnder(ctx, c, src.Key, src.ref, a, in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		secret.Zero(plain)
		return nil, errDryRun()
	}
	s.used.touch(c, src.Key, "Decrypt")
	out := &kms.DecryptOutput{Plaintext: plain, KeyId: ptr(src.arn()), EncryptionAlgorithm: a}
	if material != "" {
		out.KeyMaterialId = ptr(material)
		noteMaterial(c, "keyMaterialId", out.KeyMaterialId)
	}
	return out, nil
}

func (s *Service) onReEncrypt(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ReEncryptInput) ([]api.Target, error) {
	ignore, err := ignores(in.DryRunModifiers, in.DryRun)
	if err != nil {
		return nil, err
	}
	if len(in.CiphertextBlob) == 0 && !ignore {
		return nil, errValidation("1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must not be null")
	}
	src, err := s.findSource(ctx, tx, c, in.SourceKeyId, in.SourceEncryptionAlgorithm, in.CiphertextBlob, ignore)
	if err != nil {
		return nil, err
	}
	dst, err := s.find(ctx, tx, c, in.DestinationKeyId, byAny)
	if err != nil {
		return nil, err
	}
	if err := s.checkTokens(tx, c); err != nil {
		return nil, err
	}
	same := src.path() == dst.path()
	from := s.about(src.found, c)
	from.text("kms:EncryptionAlgorithm", algorithmOr(in.SourceEncryptionAlgorithm))
	from.context(in.SourceEncryptionContext)
	from.flag("kms:ReEncryptOnSameKey", same)
	to := s.about(dst, c)
	to.text("kms:EncryptionAlgorithm", algorithmOr(in.DestinationEncryptionAlgorithm))
	to.context(in.DestinationEncryptionContext)
	to.flag("kms:ReEncryptOnSameKey", same)
	t1, err := s.ask(c, src.found, "ReEncryptFrom", from, func() (policy.Grant, string) {
		return s.granted(tx, c, src.Key, "ReEncryptFrom", in.SourceEncryptionContext)
	})
	if err != nil {
		return nil, err
	}
	if src.implied && src.Account != c.Account {
		t1.Hide = errCiphertextKey()
	}
	t2, err := s.ask(c, dst, "ReEncryptTo", to, func() (policy.Grant, string) {
		return s.granted(tx, c, dst.Key, "ReEncryptTo", in.DestinationEncryptionContext)
	})
	return []api.Target{t1, t2}, err
}

// reEncrypt is ReEncrypt. The plaintext stays in here.
func (s *Service) reEncrypt(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	ignore, err := ignores(in.DryRunModifiers, in.DryRun)
	if err != nil {
		return nil, err
	}
	src, err := s.findSource(ctx, tx, c, in.SourceKeyId, in.SourceEncryptionAlgorithm, in.CiphertextBlob, ignore)
	if err != nil {
		return nil, err
	}
	dst, err := s.find(ctx, tx, c, in.DestinationKeyId, byAny)
	if err != nil {
		return nil, err
	}
	blob := in.CiphertextBlob
	if ignore {
		blob = nil
	}
	from, err := src.check(c, "ReEncryptFrom", in.SourceEncryptionAlgorithm, blob, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	m, err := s.usable(dst, c)
	if err != nil {
		return nil, err
	}
	to, err := dst.algorithm("ReEncryptTo", in.DestinationEncryptionAlgorithm)
	if err != nil {
		return nil, err
	}
	if err := dst.noContext(in.DestinationEncryptionContext); err != nil {
		return nil, err
	}
	if ignore {
		return nil, errDryRun()
	}
	plain, material, err := s.decryptUnder(ctx, c, src.Key, src.ref, from, in.CiphertextBlob, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	defer secret.Zero(plain)
	blob, err = s.encryptUnder(ctx, c, dst.Key, m, to, plain, in.DestinationEncryptionContext)
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	s.used.touch(c, src.Key, "ReEncrypt")
	s.used.touch(c, dst.Key, "ReEncrypt")
	out := &kms.ReEncryptOutput{CiphertextBlob: blob, KeyId: ptr(dst.arn()), SourceKeyId: ptr(src.arn()), SourceEncryptionAlgorithm: from, DestinationEncryptionAlgorithm: to}
	if material != "" {
		out.SourceKeyMaterialId = ptr(material)
		noteMaterial(c, "sourceKeyMaterialId", out.SourceKeyMaterialId)
	}
	if dst.Spec == specSymmetric && !dst.inStore() {
		out.DestinationKeyMaterialId = ptr(m.ID)
		noteMaterial(c, "destinationKeyMaterialId", out.DestinationKeyMaterialId)
	}
	return out, nil
}

// dataKeySize is the number of bytes a data key is to have.
func dataKeySize(keySpec types.DataKeySpec, n *int32) (int, error) {
	switch {
	case keySpec != "" && n != nil, keySpec == "" && n == nil:
		return 0, errValidation("Please specify either number of bytes or key spec.")
	case keySpec == types.DataKeySpecAes256:
		return 32, nil
	case keySpec == types.DataKeySpecAes128:
		return 16, nil
	case n == nil:
		return 0, errValidation("1 validation error detected: Value '%s' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [AES_256, AES_128]", keySpec)
	case *n < 1 || *n > 1024:
		return 0, errValidation("1 validation error detected: Value '%d' at 'numberOfBytes' failed to satisfy constraint: Member must have value between 1 and 1024", *n)
	}
	return int(*n), nil
}

// wrapping is a symmetric encryption key for a GenerateDataKey operation, with its
// current material.
func (s *Service) wrapping(ctx context.Context, tx *store.Tx, c *api.Call, id *string, operation string) (found, *Material, error) {
	f, err := s.find(ctx, tx, c, id, byAny)
	if err != nil {
		return f, nil, err
	}
	m, err := s.usable(f, c)
	if err != nil {
		return f, nil, err
	}
	_, err = f.algorithm(operation, types.EncryptionAlgorithmSpecSymmetricDefault)
	return f, m, err
}

// generateDataKey is GenerateDataKey.
func (s *Service) generateDataKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	n, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	f, m, err := s.wrapping(ctx, tx, c, in.KeyId, "GenerateDataKey")
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	plain := make([]byte, n)
	_, _ = rand.Read(plain)
	blob, err := s.seal(ctx, c, f.Key, m, plain, in.EncryptionContext)
	if err != nil {
		secret.Zero(plain)
		return nil, err
	}
	s.used.touch(c, f.Key, "GenerateDataKey")
	noteMaterial(c, "keyMaterialId", f.shownMaterial(m))
	return &kms.GenerateDataKeyOutput{CiphertextBlob: blob, Plaintext: plain, KeyId: ptr(f.arn()), KeyMaterialId: f.shownMaterial(m)}, nil
}

// generateDataKeyWithoutPlaintext is GenerateDataKeyWithoutPlaintext: the data key
// is forgotten before the reply.
func (s *Service) generateDataKeyWithoutPlaintext(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateDataKeyWithoutPlaintextInput) (*kms.GenerateDataKeyWithoutPlaintextOutput, error) {
	n, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	f, m, err := s.wrapping(ctx, tx, c, in.KeyId, "GenerateDataKeyWithoutPlaintext")
	if err != nil {
		return nil, err
	}
	if isTrue(in.DryRun) {
		return nil, errDryRun()
	}
	var buf [1024]byte
	plain := buf[:n]
	defer secret.Zero(plain)
	_, _ = rand.Read(plain)
	blob, err := s.seal(ctx, c, f.Key, m, plain, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	s.used.touch(c, f.Key, "GenerateDataKeyWithoutPlaintext")
	noteMaterial(c, "keyMaterialId", f.shownMaterial(m))
	return &kms.GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: blob, KeyId: ptr(f.arn()), KeyMaterialId: f.shownMaterial(m)}, nil
}

// generateRandom is GenerateRandom.
func (s *Service) generateRandom(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GenerateRandomInput) (*kms.GenerateRandomOutput, error) {
	if in.NumberOfBytes == nil {
		return nil, errValidation("NumberOfBytes is required.")
	}
	if in.CustomKeyStoreId != nil {
		b, err := s.randomFromStore(ctx, tx, c, in.CustomKeyStoreId, int(*in.NumberOfBytes))
		return &kms.GenerateRandomOutput{Plaintext: b}, err
	}
	b := make([]byte, *in.NumberOfBytes)
	_, _ = rand.Read(b)
	return &kms.GenerateRandomOutput{Plaintext: b}, nil
}

// noteMaterial puts the key material that was used on the record; name is AWS's, id nil where AWS shows none.
func noteMaterial(c *api.Call, name string, id *string) {
	if id == nil || c.Record == nil {
		return
	}
	if c.Record.AdditionalEventData == nil {
		c.Record.AdditionalEventData = map[string]any{}
	}
	c.Record.AdditionalEventData[name] = *id
}

// parameter sets one request parameter.
func parameter(r *audit.Record, name string, v any) {
	if r.RequestParameters == nil {
		r.RequestParameters = map[string]any{}
	}
	r.RequestParameters[name] = v
}

func auditEncrypt(_ *api.Call, in *kms.EncryptInput, _ *kms.EncryptOutput, r *audit.Record) {
	parameter(r, "encryptionAlgorithm", algorithmOr(in.EncryptionAlgorithm))
}

func auditDecrypt(_ *api.Call, in *kms.DecryptInput, _ *kms.DecryptOutput, r *audit.Record) {
	parameter(r, "encryptionAlgorithm", algorithmOr(in.EncryptionAlgorithm))
}

func auditReEncrypt(_ *api.Call, in *kms.ReEncryptInput, _ *kms.ReEncryptOutput, r *audit.Record) {
	parameter(r, "sourceEncryptionAlgorithm", algorithmOr(in.SourceEncryptionAlgorithm))
	parameter(r, "destinationEncryptionAlgorithm", algorithmOr(in.DestinationEncryptionAlgorithm))
}
