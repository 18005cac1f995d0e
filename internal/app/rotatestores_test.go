package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11/softhsm"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

// TestRotationRewrapsStoreSecrets: the credential for an external key store's proxy and the
// PIN of a CloudHSM key store are wrapped anew by a rotation of the root key, also by
// one that a stop of the server interrupts, and the stores work on and can be opened anew.
func TestRotationRewrapsStoreSecrets(t *testing.T) {
	hsm, proxy := softhsm.New(t), xkstest.New(t, "")
	_, anchor := xkstest.Certificate(t, "cluster CA")
	proxy.Token.Add("ext")
	file := filepath.Join(t.TempDir(), "stores.json")
	js, err := json.Marshal(map[string]any{
		"xks":      map[string]any{"ca": proxy.CAFile, "timeout": "5s", "endpoints": map[string]any{xkstest.Endpoint: map[string]any{"address": proxy.Address}}},
		"clusters": map[string]any{"cluster-abcdefghijk": map[string]any{"module": hsm.Module, "token": hsm.Label}},
	})
	if err == nil {
		err = os.WriteFile(file, js, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := apptest.New(t, func(c *app.Config) { c.KeyStoresFile = file })
	stores := map[types.OriginType]*kms.CreateCustomKeyStoreInput{
		types.OriginTypeAwsCloudhsm: {CustomKeyStoreName: aws.String("hsm"), CloudHsmClusterId: aws.String("cluster-abcdefghijk"), KeyStorePassword: &hsm.PIN, TrustAnchorCertificate: aws.String(string(anchor))},
		types.OriginTypeExternalKeyStore: {CustomKeyStoreName: aws.String("ext"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore, XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint,
			XksProxyUriEndpoint: aws.String(xkstest.Endpoint), XksProxyUriPath: &proxy.Path,
			XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{AccessKeyId: aws.String(xkstest.AccessKeyID), RawSecretAccessKey: aws.String(xkstest.SecretKey)}},
	}
	ids, blobs := map[types.OriginType]*string{}, map[types.OriginType][]byte{}
	connect := func(origin types.OriginType) {
		t.Helper()
		if _, err := s.KMS().ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: ids[origin]}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			out, err := s.KMS().DescribeCustomKeyStores(ctx, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: ids[origin]})
			if err != nil {
				t.Fatal(err)
			}
			if st := out.CustomKeyStores[0]; st.ConnectionState == types.ConnectionStateTypeConnected {
				return
			} else if st.ConnectionState == types.ConnectionStateTypeFailed || time.Now().After(deadline) {
				t.Fatalf("the store of %s is %s, %s", origin, st.ConnectionState, st.ConnectionErrorCode)
			}
		}
	}
	for origin, in := range stores {
		out, err := s.KMS().CreateCustomKeyStore(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		ids[origin] = out.CustomKeyStoreId
		connect(origin)
		create := &kms.CreateKeyInput{Origin: origin, CustomKeyStoreId: out.CustomKeyStoreId}
		if origin == types.OriginTypeExternalKeyStore {
			create.XksKeyId = aws.String("ext")
		}
		k, err := s.KMS().CreateKey(ctx, create)
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.KMS().Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyMetadata.KeyId, Plaintext: []byte("buried")})
		if err != nil {
			t.Fatal(err)
		}
		blobs[origin] = e.CiphertextBlob
	}
	dig := func(when string) {
		t.Helper()
		for origin, blob := range blobs {
			if d, err := s.KMS().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob}); err != nil || string(d.Plaintext) != "buried" {
				t.Errorf("Decrypt under a key of %s %s: %v", origin, when, err)
			}
		}
	}
	for round := range 4 {
		old := *roots(t, s)[0].Id
		if n, tables := under(t, s, old); n == 0 || !slices.Contains(tables, "kms/store") {
			t.Fatalf("%d records under the root key, in %v: none of the stores", n, tables)
		}
		if round == 0 {
			rotate(t, s, app.RotateRootKeyInput{})
		} else { // the server stops while it wraps anew, each time a little later
			if err := s.Extension("RotateRootKey", app.RotateRootKeyInput{}, &app.DescribeRootKeyOutput{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(round-1) * 10 * time.Millisecond)
			s.Restart()
			for deadline := time.Now().Add(time.Minute); len(roots(t, s)) > 1; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the rotation does not go on after a restart: %v", roots(t, s))
				}
			}
		}
		if n, tables := under(t, s, old); n != 0 {
			t.Errorf("round %d: %d records are still under the old root key, in %v", round, n, tables)
		}
		dig(fmt.Sprint("after rotation ", round))
	}
	for origin := range stores {
		if _, err := s.KMS().DisconnectCustomKeyStore(ctx, &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: ids[origin]}); err != nil {
			t.Fatal(err)
		}
		connect(origin)
	}
	dig("when connected anew")
	if found := holding(t, s.Dir, []byte(xkstest.SecretKey), []byte(hsm.PIN)); len(found) > 0 {
		t.Errorf("a secret of a custom key store lies in %v", found)
	}
}
