package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Keys in custom key stores. The record of such a key has one material. In a
// CloudHSM key store it has an ID only: the material is in the token. In an external key
// store it is AES-256 as for any key, and messages are encrypted under it first and
// under the external key then, so that neither side alone can read them.

// inStore tells a key that lives in a custom key store.
func (k *Key) inStore() bool { return k.Store != "" }

func (k *Key) storePath() string { return path(k.Account, k.Region, k.Store) }

// claim is the key's row in the table of store keys.
func (k *Key) claim() string {
	if k.Origin == originHSM {
		return k.storePath() + "/" + k.ID
	}
	sum := sha256.Sum256([]byte(k.External))
	return k.storePath() + "/" + hex.EncodeToString(sum[:])
}

// placeInStore prepares a new key for the custom key store that the input names.
func (s *Service) placeInStore(tx *store.Tx, c *api.Call, k *Key, in *kms.CreateKeyInput) error {
	if in.CustomKeyStoreId == nil {
		return errValidation("A key with the origin %s needs CustomKeyStoreId.", k.Origin)
	}
	st, err := s.findStore(tx, c, in.CustomKeyStoreId)
	if err != nil {
		return err
	}
	wants := originHSM
	if st.Type == storeXKS {
		wants = originXKS
	}
	switch {
	case k.Origin != wants:
		return errValidation("The custom key store %s is of the type %s: a key in it has the origin %s.", st.ID, st.Type, wants)
	case k.Spec != specSymmetric || k.MultiRegion:
		return errUnsupported("A custom key store holds symmetric encryption keys of a single Region only, not %s keys or multi-Region keys.", k.Spec)
	case k.Origin == originXKS && in.XksKeyId == nil:
		return errValidation("A key with the origin EXTERNAL_KEY_STORE needs XksKeyId.")
	case st.State != storeConnected && st.Type == storeXKS:
		return &types.CustomKeyStoreInvalidStateException{Message: ptr(msgNotConnected)}
	case st.State != storeConnected:
		return errStoreState(st, "given a key before it is connected")
	}
	k.Store, k.External = st.ID, str(in.XksKeyId)
	if s.storeKeys.Get(tx, k.claim()) != nil {
		return &types.XksKeyAlreadyInUseException{Message: ptr("The external key " + k.External + " is already associated with a KMS key in the custom key store " + k.Store + ".")}
	}
	return nil
}

// beforeCreateKey does the outside part of a CreateKey in a custom key store:
// the key is made in the token, or the external key is looked at. What it
// prepares is the record, whose ID names the key in the token.
func (s *Service) beforeCreateKey(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateKeyInput) (func(), error) {
	if in.Origin != types.OriginTypeAwsCloudhsm && in.Origin != types.OriginTypeExternalKeyStore {
		return nil, nil
	}
	k, err := s.newKey(tx, c, in)
	if err != nil {
		return nil, err
	}
	err = s.withStore(ctx, k.storePath(), func(b backing) error { return b.create(ctx, k, metaOf(c)) })
	if err != nil {
		return nil, s.storeError(c, k, err, func(f *fault) error { return f.as(f.create) })
	}
	c.Prepared = k.ID
	return func() {
		ctx := context.WithoutCancel(ctx)
		if err := s.withStore(ctx, k.storePath(), func(b backing) error { return b.destroy(ctx, k) }); err != nil {
			s.log.Error("a key that was not created stays in its custom key store", "store", k.Store, "label", k.ID, "err", err)
		}
	}, nil
}

// addStoreMaterial completes a key that placeInStore has placed and whose
// backing is there, and claims the backing.
func (s *Service) addStoreMaterial(tx *store.Tx, k *Key, now time.Time) error {
	if k.Origin == originXKS {
		if err := s.addMaterial(k, now); err != nil {
			return err
		}
	} else {
		k.Materials = []Material{{ID: newMaterialID(), Created: now, Status: statusCurrent}}
	}
	return s.storeKeys.Put(tx, k.claim(), &storeKey{KeyID: k.ID})
}

// storeError is what a caller sees of a custom key store's trouble; the log has
// the rest.
func (s *Service) storeError(c *api.Call, k *Key, err error, form func(*fault) error) error {
	if errors.Is(err, errNotConnected) {
		return errUnavailable(k)
	}
	if f, ok := errors.AsType[*fault](err); ok {
		s.log.Warn("a custom key store refused or failed", "requestId", c.RequestID, "store", k.Store, "key", k.ID, "err", err)
		return form(f)
	}
	return err
}

func asInvalidState(f *fault) error { return f.as(asState) }

// errUnavailable: the key's custom key store is not connected.
func errUnavailable(k *Key) error {
	if k.Origin == originXKS {
		return errState(msgNotConnected)
	}
	return errState(k.arn() + " is unavailable.")
}

// sealInStore encrypts under a key in a custom key store.
func (s *Service) sealInStore(ctx context.Context, c *api.Call, k *Key, m *Material, plaintext []byte, context_ map[string]string) ([]byte, error) {
	version := byte(blobHSM)
	if k.Origin == originXKS {
		version = blobXKS
	}
	head, err := blobHeader(version, blobRef{account: k.Account, keyID: k.ID, materialID: m.ID}, len(plaintext)+96)
	if err != nil {
		return nil, err
	}
	if k.Origin == originXKS {
		err := s.use(k, m, func(raw *secret.Bytes, _ any) error {
			a, err := blobAEAD(raw, head[blobN:blobCheck])
			if err != nil {
				return err
			}
			plaintext = a.Seal(nil, zeroNonce[:], plaintext, blobAAD(head, context_))
			return nil
		})
		if err != nil {
			return nil, lost(k, err)
		}
	}
	meta := metaOf(c)
	meta.KMSKeyARN = k.arn()
	blob := head
	err = s.withStore(ctx, k.storePath(), func(b backing) error {
		sealed, err := b.seal(ctx, k, meta, plaintext, storeAAD(head, context_))
		blob = append(blob, sealed...)
		return err
	})
	if err != nil {
		return nil, s.storeError(c, k, err, asInvalidState)
	}
	return blob, nil
}

// openInStore opens what sealInStore has sealed.
func (s *Service) openInStore(ctx context.Context, c *api.Call, k *Key, m *Material, blob []byte, context_ map[string]string) ([]byte, error) {
	if (blob[0] == blobXKS) != (k.Origin == originXKS) || blob[0] == blobVersion {
		return nil, errCiphertext()
	}
	head := blob[:blobSealed:blobSealed]
	meta := metaOf(c)
	meta.KMSKeyARN = k.arn()
	var outer *secret.Bytes
	err := s.withStore(ctx, k.storePath(), func(b backing) (err error) {
		outer, err = b.open(ctx, k, meta, blob[blobSealed:], storeAAD(head, context_))
		return err
	})
	if errors.Is(err, errBlob) {
		return nil, errCiphertext()
	}
	if err != nil {
		return nil, s.storeError(c, k, err, asInvalidState)
	}
	defer outer.Wipe()
	if k.Origin == originHSM {
		return append([]byte(nil), outer.Expose()...), nil
	}
	var plain []byte
	err = s.use(k, m, func(raw *secret.Bytes, _ any) error {
		a, err := blobAEAD(raw, head[blobN:blobCheck])
		if err != nil {
			return err
		}
		if plain, err = a.Open(nil, zeroNonce[:], outer.Expose(), blobAAD(head, context_)); err != nil {
			return errState(msgInner)
		}
		return nil
	})
	return plain, lost(k, err)
}

// storeAAD is the additional data for a token or a proxy: a hash, because both
// limit its size, and because a proxy need not know the encryption context.
func storeAAD(head []byte, context_ map[string]string) []byte {
	sum := sha256.Sum256(blobAAD(head, context_))
	return sum[:]
}

// destroyInStore destroys what a key that is due for deletion rests on, before
// its record goes: first it is written down that there is no way back. A store
// that is not connected cannot be asked: what is in it stays, as in AWS.
func (s *Service) destroyInStore(ctx context.Context, keyPath string, now time.Time) error {
	var k *Key
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if k = s.keys.Edit(tx, keyPath); k == nil || !k.inStore() || k.State != statePendingDeletion || !k.due(now) {
			k = nil
			return nil
		}
		k.Doomed = true
		return s.put(tx, k)
	})
	if err != nil || k == nil {
		return err
	}
	err = s.withStore(ctx, k.storePath(), func(b backing) error { return b.destroy(ctx, k) })
	if !errors.Is(err, errNotConnected) {
		return err
	}
	if k.Origin == originHSM {
		s.log.Warn("a key is deleted while its custom key store is not connected: its material stays in the token, where it must be destroyed by hand",
			"store", k.Store, "label", k.ID)
	}
	return nil
}

// randomFromStore is GenerateRandom with CustomKeyStoreId.
func (s *Service) randomFromStore(ctx context.Context, tx *store.Tx, c *api.Call, id *string, n int) ([]byte, error) {
	st, err := s.findStore(tx, c, id)
	switch {
	case err != nil:
		return nil, err
	case st.Type != storeHSM:
		return nil, errUnsupported("GenerateRandom is not supported for the custom key store %s of the type %s.", st.ID, st.Type)
	}
	out := make([]byte, n)
	err = s.withStore(ctx, st.path(), func(b backing) error {
		ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
		defer cancel()
		r, err := b.(tokenBacking).token.Random(ctx, n)
		if err != nil {
			return hsmFault(err)
		}
		defer r.Wipe()
		copy(out, r.Expose())
		return nil
	})
	if errors.Is(err, errNotConnected) {
		return nil, errStoreState(st, "asked for random bytes before it is connected")
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return nil, f.as(nil)
	}
	return out, err
}
