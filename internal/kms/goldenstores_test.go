package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/xks"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

// memoryHSM is tokenBacking on a token in memory, whose keys a test chooses. Its
// sealed form is that of package pkcs11: AES-GCM is the same wherever it is computed.
type memoryHSM struct{ *xkstest.Token }

func (memoryHSM) probe(context.Context, xks.Metadata) error        { return nil }
func (memoryHSM) create(context.Context, *Key, xks.Metadata) error { return nil }
func (memoryHSM) destroy(context.Context, *Key) error              { return nil }
func (memoryHSM) close()                                           {}
func (h memoryHSM) seal(ctx context.Context, k *Key, _ xks.Metadata, plaintext, aad []byte) ([]byte, error) {
	return h.Seal(ctx, k.ID, plaintext, aad)
}

func (h memoryHSM) open(ctx context.Context, k *Key, _ xks.Metadata, sealed, aad []byte) (*secret.Bytes, error) {
	b, err := h.Open(ctx, k.ID, sealed, aad)
	if errors.Is(err, pkcs11.ErrCiphertext) {
		err = errBlob
	}
	return b, err
}

// storeGolden is a ciphertext of a key in a custom key store: the key in the HSM or
// in the key manager is SHA-256(External), the key material here SHA-256(Material).
type storeGolden struct {
	golden
	Store, External string
}

// TestGoldenStoreCiphertext: ciphertexts of versions 2 and 3 open for ever, through
// Decrypt, and not with another context or a byte changed.
func TestGoldenStoreCiphertext(t *testing.T) {
	ec := map[string]string{"aws:ebs:id": "vol-1234abcd", "aws:workspaces:sid-directoryid": "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]"}
	for _, v := range []struct {
		file, storeType, origin, damaged string
		version                          byte
	}{
		{"testdata/ciphertext-v2.json", storeHSM, originHSM, "InvalidCiphertextException", blobHSM},
		// AWS: cryptographic operations in an external key store fail with
		// KMSInvalidStateException whatever the proxy says, also of the ciphertext.
		{"testdata/ciphertext-v3.json", storeXKS, originXKS, "KMSInvalidStateException", blobXKS},
	} {
		t.Run(v.storeType, func(t *testing.T) {
			cases := []storeGolden{
				{golden{Material: "m1", Account: acct, KeyID: "1234abcd-12ab-34cd-56ef-1234567890a1", MaterialID: hexOf(bytes.Repeat([]byte{0xcd}, 32)), Plaintext: []byte("attack at dawn")}, "cks-1234567890abcdef0", "e1"},
				{golden{Material: "m2", Account: acct, KeyID: "1234abcd-12ab-34cd-56ef-1234567890a2", MaterialID: hexOf(bytes.Repeat([]byte{0xef}, 32)), Context: ec, Plaintext: bytes.Repeat([]byte{7}, 64)}, "cks-1234567890abcdef0", "e2"},
			}
			kept := cases
			if !*rewrite {
				js, err := os.ReadFile(v.file)
				if err != nil {
					t.Fatal(err)
				}
				kept = nil
				if err := json.Unmarshal(js, &kept); err != nil {
					t.Fatal(err)
				}
				if len(kept) < len(cases) {
					t.Errorf("%d golden ciphertexts, want %d", len(kept), len(cases))
				}
			}
			b, proxy := newBench(t), xkstest.New(t, "")
			t.Cleanup(b.s.links.close)
			token := &xkstest.Token{}
			st := &CustomStore{ID: kept[0].Store, Account: acct, Region: region, Type: v.storeType, State: storeConnected}
			err := b.st.Update(context.Background(), func(tx *store.Tx) error {
				for _, g := range kept {
					k := &Key{ID: g.KeyID, Account: acct, Region: region, Spec: specSymmetric, Usage: usageEncrypt, Origin: v.origin, State: stateEnabled, Policy: defaultPolicy(acct), Store: g.Store}
					m := Material{ID: g.MaterialID, Status: statusCurrent}
					key := sha256.Sum256([]byte(g.External))
					if v.version == blobXKS {
						k.External = g.External
						proxy.Token.Set(g.External, key[:])
						var err error
						if m.Wrapped, err = b.s.wrap(k, m.ID, goldenMaterial(g.Material)); err != nil {
							return err
						}
					} else {
						token.Set(k.ID, key[:])
					}
					k.Materials = []Material{m}
					if err := b.s.put(tx, k); err != nil {
						return err
					}
				}
				return b.s.stores.Put(tx, st.path(), st)
			})
			if err != nil {
				t.Fatal(err)
			}
			l := b.s.links.at(st.path())
			l.from = b.s.stores.Get(b.st.Snapshot(), st.path())
			l.b = memoryHSM{token}
			if v.version == blobXKS {
				roots := proxy.Roots(t)
				client, err := xks.NewClient(xks.Config{Endpoint: xkstest.Endpoint, Path: proxy.Path, Address: proxy.Address, Roots: roots, Region: region, AccessKeyID: xkstest.AccessKeyID}, secret.New([]byte(xkstest.SecretKey)))
				if err != nil {
					t.Fatal(err)
				}
				l.b = proxyBacking{client}
			}
			c := b.root(acct)
			if *rewrite {
				for i := range kept {
					g := &kept[i]
					g.Blob = must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: &g.KeyID, Plaintext: g.Plaintext, EncryptionContext: g.Context}).CiphertextBlob
				}
				js, _ := json.MarshalIndent(kept, "", " ")
				if err := os.WriteFile(v.file, append(js, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for i, g := range kept {
				if g.Blob[0] != v.version {
					t.Fatalf("golden %d has version %d, want %d", i, g.Blob[0], v.version)
				}
				decrypt := func(blob []byte, ec map[string]string) (*kms.DecryptOutput, string) {
					out, _, err := b.do(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
					if err != nil {
						return nil, codeOf(err)
					}
					return out.(*kms.DecryptOutput), "success"
				}
				out, code := decrypt(g.Blob, g.Context)
				if code != "success" || !bytes.Equal(out.Plaintext, g.Plaintext) {
					t.Errorf("golden %d opens to %+v, %s, want %x", i, out, code, g.Plaintext)
				}
				if _, code := decrypt(g.Blob, map[string]string{"another": "context"}); code != v.damaged {
					t.Errorf("golden %d with another context: %s, want %s", i, code, v.damaged)
				}
				for at := range g.Blob {
					bad := bytes.Clone(g.Blob)
					bad[at] ^= 1 << (at % 8)
					want := "InvalidCiphertextException"
					if at >= blobSealed && v.version == blobXKS {
						want = v.damaged
						if at == blobSealed || at == blobSealed+13 { // lengths: it has not the form, and the proxy is not asked
							want = "InvalidCiphertextException"
						}
					}
					if _, code := decrypt(bad, g.Context); code != want {
						t.Errorf("golden %d with byte %d changed: %s, want %s", i, at, code, want)
					}
				}
				for _, short := range []int{0, 1, blobSealed, blobSealed + gcmTag, len(g.Blob) - 1} {
					if _, code := decrypt(g.Blob[:short], g.Context); code == "success" {
						t.Errorf("golden %d cut to %d bytes opens", i, short)
					}
				}
			}
		})
	}
}
