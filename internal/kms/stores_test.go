package kms_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11/softhsm"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

const cluster = "cluster-abcdefghijk"

// withStores gives a server the file of custom key stores.
func withStores(t *testing.T, config any) func(*app.Config) {
	t.Helper()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stores.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *app.Config) { c.KeyStoresFile = file }
}

type object = map[string]any

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	if err == nil {
		return "success"
	}
	return err.Error()
}

func wantCode(t *testing.T, doing string, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s = %v, want %s", doing, err, want)
	}
}

// stores is a client with the steps that the tests of both types share.
type stores struct {
	*testing.T
	*kms.Client
	s *apptest.Server
}

var ctx = context.Background()

func (c stores) entry(id string) types.CustomKeyStoresListEntry {
	c.Helper()
	out, err := c.DescribeCustomKeyStores(ctx, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: &id})
	if err != nil || len(out.CustomKeyStores) != 1 {
		c.Fatalf("DescribeCustomKeyStores(%s) = %+v, %v", id, out, err)
	}
	return out.CustomKeyStores[0]
}

// connect connects a store and waits for what becomes of it.
func (c stores) connect(id string) types.CustomKeyStoresListEntry {
	c.Helper()
	if _, err := c.ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: &id}); err != nil {
		c.Fatal(err)
	}
	for range 1200 { // a minute: the members of an external cluster are killed meanwhile
		if e := c.entry(id); e.ConnectionState != types.ConnectionStateTypeConnecting {
			return e
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.Fatal("the store is CONNECTING for ever")
	return types.CustomKeyStoresListEntry{}
}

func (c stores) disconnect(id string) {
	c.Helper()
	if _, err := c.DisconnectCustomKeyStore(ctx, &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: &id}); err != nil {
		c.Fatal(err)
	}
}

func (c stores) connected(id string) {
	c.Helper()
	if e := c.connect(id); e.ConnectionState != types.ConnectionStateTypeConnected {
		c.Fatalf("the store is %s, %s, want CONNECTED", e.ConnectionState, e.ConnectionErrorCode)
	}
}

func (c stores) failed(id string, want types.ConnectionErrorCodeType) {
	c.Helper()
	if e := c.connect(id); e.ConnectionState != types.ConnectionStateTypeFailed || e.ConnectionErrorCode != want {
		c.Errorf("the store is %s, %q, want FAILED, %s", e.ConnectionState, e.ConnectionErrorCode, want)
	}
	_, err := c.ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: &id})
	wantCode(c.T, "ConnectCustomKeyStore of a FAILED store", err, "CustomKeyStoreInvalidStateException")
	c.disconnect(id)
}

func (c stores) state(key *string) types.KeyState {
	c.Helper()
	out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		c.Fatal(err)
	}
	return out.KeyMetadata.KeyState
}

var ec = map[string]string{"dept": "sales"}

// works proves that a key encrypts, decrypts and wraps, and what it must not open.
func (c stores) works(key *string) (blob []byte) {
	c.Helper()
	plain := bytes.Repeat([]byte("0123456789abcdef"), 256) // 4096 bytes, the most
	enc, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: plain, EncryptionContext: ec})
	if err != nil {
		c.Fatal(err)
	}
	dec, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: enc.CiphertextBlob, EncryptionContext: ec})
	if err != nil || !bytes.Equal(dec.Plaintext, plain) || len(enc.CiphertextBlob) > 6144 {
		c.Fatalf("Decrypt = %d bytes, %v; the ciphertext has %d", len(dec.Plaintext), err, len(enc.CiphertextBlob))
	}
	data, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: types.DataKeySpecAes256})
	if err != nil {
		c.Fatal(err)
	}
	if dec, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob}); err != nil || !bytes.Equal(dec.Plaintext, data.Plaintext) {
		c.Fatalf("Decrypt of a data key: %v", err)
	}
	plainKey, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		c.Fatal(err)
	}
	re, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: enc.CiphertextBlob, SourceEncryptionContext: ec, DestinationKeyId: plainKey.KeyMetadata.KeyId})
	if err == nil {
		re, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: re.CiphertextBlob, DestinationKeyId: key})
	}
	if err != nil {
		c.Fatalf("ReEncrypt out of and into the store: %v", err)
	}
	if dec, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: re.CiphertextBlob}); err != nil || *dec.KeyId != *re.KeyId {
		c.Errorf("Decrypt of what was encrypted anew: %v", err)
	}
	_, err = c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
	wantCode(c.T, "GenerateDataKeyPair", err, "UnsupportedOperationException")
	_, err = c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: key})
	wantCode(c.T, "EnableKeyRotation", err, "UnsupportedOperationException")
	// A flipped byte anywhere is refused, and never opens to something else.
	for _, i := range []int{0, 1, 12, 40, 70, 97, 98, 105, 130, len(data.CiphertextBlob) - 1} {
		bad := bytes.Clone(data.CiphertextBlob)
		bad[i] ^= 4
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: bad})
		if got := code(err); got != "InvalidCiphertextException" && got != "KMSInvalidStateException" {
			c.Errorf("Decrypt with byte %d changed = %v", i, err)
		}
	}
	return enc.CiphertextBlob
}

// silent proves that a secret is on no record and nowhere in the data directory.
func (c stores) silent(secrets ...string) {
	c.Helper()
	err := filepath.WalkDir(c.s.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		b, _ := os.ReadFile(p)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				c.Errorf("%s has the secret of a custom key store", p)
			}
		}
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
}

func TestExternalKeyStore(t *testing.T) {
	p := xkstest.New(t, "/one")
	p.Token.Add("ext-1")
	p.Token.Add("ext-2")
	p.Token.Describe = map[string]pkcs11.KeyInfo{"short": {Label: "short", Bits: 128}}
	s := apptest.New(t, withStores(t, object{"xks": object{"ca": p.CAFile, "timeout": "3s", "endpoints": object{xkstest.Endpoint: object{"address": p.Address}}}}))
	c := stores{t, s.KMS(), s}
	in := func(change ...func(*kms.CreateCustomKeyStoreInput)) *kms.CreateCustomKeyStoreInput {
		i := &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: aws.String("ext"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore, XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint,
			XksProxyUriEndpoint: aws.String(xkstest.Endpoint), XksProxyUriPath: aws.String("/one/kms/xks/v1"),
			XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{AccessKeyId: aws.String(xkstest.AccessKeyID), RawSecretAccessKey: aws.String(xkstest.SecretKey)}}
		for _, f := range change {
			f(i)
		}
		return i
	}
	wrong := strings.Repeat("x", 43)
	for want, f := range map[string]func(*kms.CreateCustomKeyStoreInput){
		"XksProxyIncorrectAuthenticationCredentialException": func(i *kms.CreateCustomKeyStoreInput) {
			i.XksProxyAuthenticationCredential.RawSecretAccessKey = &wrong
		},
		"XksProxyInvalidConfigurationException": func(i *kms.CreateCustomKeyStoreInput) { i.XksProxyUriPath = aws.String("/two/kms/xks/v1") },
		"XksProxyUriUnreachableException":       func(i *kms.CreateCustomKeyStoreInput) { i.XksProxyUriEndpoint = aws.String("https://nowhere.invalid") },
		"ValidationException":                   func(i *kms.CreateCustomKeyStoreInput) { i.XksProxyUriEndpoint = aws.String("http://" + xkstest.Host) },
		"XksProxyVpcEndpointServiceNotFoundException": func(i *kms.CreateCustomKeyStoreInput) {
			i.XksProxyConnectivity, i.XksProxyVpcEndpointServiceName = types.XksProxyConnectivityTypeVpcEndpointService, aws.String("com.amazonaws.vpce.us-west-2.vpce-svc-0123456789abcdef0")
		},
	} {
		_, err := c.CreateCustomKeyStore(ctx, in(f))
		wantCode(t, "CreateCustomKeyStore", err, want)
	}
	p.Interfere(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	_, err := c.CreateCustomKeyStore(ctx, in())
	wantCode(t, "CreateCustomKeyStore with a proxy that talks nonsense", err, "XksProxyInvalidResponseException")
	p.Interfere(nil)
	out, err := c.CreateCustomKeyStore(ctx, in())
	if err != nil {
		t.Fatal(err)
	}
	id := *out.CustomKeyStoreId
	m, text := record(t, s, "CreateCustomKeyStore")
	if r, _ := m["responseElements"].(map[string]any); r["customKeyStoreId"] != id || strings.Contains(text, xkstest.SecretKey) {
		t.Errorf("record of CreateCustomKeyStore: %s", text)
	}
	_, err = c.CreateCustomKeyStore(ctx, in())
	wantCode(t, "CreateCustomKeyStore again", err, "CustomKeyStoreNameInUseException")
	_, err = c.CreateCustomKeyStore(ctx, in(func(i *kms.CreateCustomKeyStoreInput) { i.CustomKeyStoreName = aws.String("second") }))
	wantCode(t, "CreateCustomKeyStore with the same URI", err, "XksProxyUriInUseException")
	if e := c.entry(id); e.ConnectionState != types.ConnectionStateTypeDisconnected || *e.XksProxyConfiguration.AccessKeyId != xkstest.AccessKeyID || *e.XksProxyConfiguration.UriPath != "/one/kms/xks/v1" {
		t.Errorf("new store: %+v, %+v", e, e.XksProxyConfiguration)
	}
	newKey := func(ext string) (*kms.CreateKeyOutput, error) {
		return c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: &id, XksKeyId: &ext})
	}
	_, err = newKey("ext-1")
	wantCode(t, "CreateKey in a store that is not connected", err, "CustomKeyStoreInvalidStateException")
	c.connected(id)
	for ext, want := range map[string]string{"none": "XksKeyNotFoundException", "short": "XksKeyInvalidConfigurationException"} {
		_, err = newKey(ext)
		wantCode(t, "CreateKey on "+ext, err, want)
	}
	k, err := newKey("ext-1")
	if err != nil {
		t.Fatal(err)
	}
	key := k.KeyMetadata.KeyId
	if k.KeyMetadata.KeyState != types.KeyStateEnabled || *k.KeyMetadata.XksKeyConfiguration.Id != "ext-1" || *k.KeyMetadata.CustomKeyStoreId != id {
		t.Errorf("metadata of the key: %+v", k.KeyMetadata)
	}
	_, err = newKey("ext-1")
	wantCode(t, "CreateKey on an external key in use", err, "XksKeyAlreadyInUseException")
	_, err = c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: &id, XksKeyId: aws.String("ext-2"), MultiRegion: aws.Bool(true)})
	wantCode(t, "CreateKey of a multi-Region key", err, "UnsupportedOperationException")
	_, err = c.GenerateRandom(ctx, &kms.GenerateRandomInput{CustomKeyStoreId: &id, NumberOfBytes: aws.Int32(8)})
	wantCode(t, "GenerateRandom", err, "UnsupportedOperationException")
	blob := c.works(key)
	decrypt := func() error {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
		return err
	}
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, "Decrypt without the context", err, "KMSInvalidStateException")

	// The proxy in trouble.
	p.Token.SetFail(errors.New("HSM on fire"))
	wantCode(t, "Decrypt with a broken token", decrypt(), "KMSInvalidStateException")
	p.Token.SetFail(nil)
	p.Interfere(func(http.ResponseWriter, *http.Request) { time.Sleep(4 * time.Second) })
	if err := decrypt(); code(err) != "KMSInvalidStateException" || !strings.Contains(err.Error(), "did not respond in time") {
		t.Errorf("Decrypt with a proxy that sleeps: %v", err)
	}
	p.Interfere(nil)
	wantCode(t, "Decrypt afterwards", decrypt(), "success")

	// Disconnected: the key is unavailable, and what was set of it comes back.
	c.disconnect(id)
	before := p.Requests()
	if err := decrypt(); code(err) != "KMSInvalidStateException" || !strings.Contains(err.Error(), "not connected to its external key store proxy") {
		t.Errorf("Decrypt with a disconnected store: %v", err)
	}
	if got := c.state(key); got != types.KeyStateUnavailable {
		t.Errorf("state %s, want Unavailable", got)
	}
	if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key}); err != nil || c.state(key) != types.KeyStateUnavailable {
		t.Errorf("DisableKey of an unavailable key: %v, state %s", err, c.state(key))
	}
	if _, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: key, GranteePrincipal: aws.String("arn:aws:iam::" + apptest.Account + ":root"), Operations: []types.GrantOperation{"Decrypt"}}); code(err) != "KMSInvalidStateException" && err != nil {
		t.Errorf("CreateGrant on an unavailable key: %v", err)
	}
	if n := p.Requests(); n != before {
		t.Errorf("%d requests to the proxy of a disconnected store", n-before)
	}
	_, err = c.DisconnectCustomKeyStore(ctx, &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: &id})
	wantCode(t, "DisconnectCustomKeyStore again", err, "CustomKeyStoreInvalidStateException")
	c.connected(id)
	if got := c.state(key); got != types.KeyStateDisabled {
		t.Errorf("state after reconnection %s, want Disabled", got)
	}
	if _, err := c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "Decrypt after reconnection", decrypt(), "success")

	// Update: what may change while connected, and what not.
	update := func(i *kms.UpdateCustomKeyStoreInput) error {
		i.CustomKeyStoreId = &id
		_, err := c.UpdateCustomKeyStore(ctx, i)
		return err
	}
	wantCode(t, "UpdateCustomKeyStore of the name", update(&kms.UpdateCustomKeyStoreInput{NewCustomKeyStoreName: aws.String("renamed")}), "success")
	wantCode(t, "Decrypt after an update", decrypt(), "success")
	wantCode(t, "UpdateCustomKeyStore with a wrong credential", update(&kms.UpdateCustomKeyStoreInput{XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
		AccessKeyId: aws.String(xkstest.AccessKeyID), RawSecretAccessKey: &wrong}}), "XksProxyIncorrectAuthenticationCredentialException")
	wantCode(t, "UpdateCustomKeyStore of the endpoint of a connected store", update(&kms.UpdateCustomKeyStoreInput{XksProxyUriEndpoint: aws.String("https://other.example.com")}), "CustomKeyStoreInvalidStateException")
	wantCode(t, "UpdateCustomKeyStore with a password", update(&kms.UpdateCustomKeyStoreInput{KeyStorePassword: aws.String("kmsuser1")}), "ValidationException")
	_, err = c.DeleteCustomKeyStore(ctx, &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: &id})
	wantCode(t, "DeleteCustomKeyStore with keys", err, "CustomKeyStoreHasCMKsException")

	// It outlives a restart, and dies with its proxy.
	s.Restart()
	c.Client = s.KMS()
	wantCode(t, "Decrypt after a restart", decrypt(), "success")
	p.Stop()
	if err := decrypt(); code(err) != "KMSInvalidStateException" || !strings.Contains(err.Error(), "cannot communicate with the external key store proxy") {
		t.Errorf("Decrypt with a dead proxy: %v", err)
	}
	c.disconnect(id)
	c.failed(id, types.ConnectionErrorCodeTypeXksProxyNotReachable)
	c.silent(xkstest.SecretKey)
}

func TestHSMKeyStore(t *testing.T) {
	hsm := softhsm.New(t)
	_, ca := xkstest.Certificate(t, "cluster CA")
	_, otherCA := xkstest.Certificate(t, "another CA")
	anchor := filepath.Join(t.TempDir(), "customerCA.crt")
	if err := os.WriteFile(anchor, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	const empty = "cluster-emptyempty2"
	s := apptest.New(t, withStores(t, object{"clusters": object{cluster: object{"module": hsm.Module, "token": hsm.Label, "trustAnchor": anchor},
		empty: object{"module": hsm.Module, "token": "nobody"}}}))
	c := stores{t, s.KMS(), s}
	in := func(cluster, password string, ca []byte) *kms.CreateCustomKeyStoreInput {
		return &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: aws.String("of " + cluster), CloudHsmClusterId: &cluster, KeyStorePassword: &password, TrustAnchorCertificate: aws.String(string(ca))}
	}
	for want, i := range map[string]*kms.CreateCustomKeyStoreInput{
		"CloudHsmClusterNotFoundException": in("cluster-nosuchcluster", hsm.PIN, ca),
		"IncorrectTrustAnchorException":    in(cluster, hsm.PIN, otherCA),
		"ValidationException":              {CustomKeyStoreName: aws.String("x"), CloudHsmClusterId: aws.String(cluster)},
	} {
		_, err := c.CreateCustomKeyStore(ctx, i)
		wantCode(t, "CreateCustomKeyStore", err, want)
	}
	out, err := c.CreateCustomKeyStore(ctx, in(cluster, "not-the-pin", ca))
	if err != nil {
		t.Fatal(err)
	}
	id := *out.CustomKeyStoreId
	if _, text := record(t, s, "CreateCustomKeyStore"); strings.Contains(text, "not-the-pin") {
		t.Errorf("record of CreateCustomKeyStore: %s", text)
	}
	second := in(cluster, hsm.PIN, ca)
	second.CustomKeyStoreName = aws.String("second")
	_, err = c.CreateCustomKeyStore(ctx, second)
	wantCode(t, "CreateCustomKeyStore with the same cluster", err, "CloudHsmClusterInUseException")
	none, err := c.CreateCustomKeyStore(ctx, in(empty, hsm.PIN, ca))
	if err != nil {
		t.Fatal(err)
	}
	c.failed(*none.CustomKeyStoreId, types.ConnectionErrorCodeTypeInsufficientCloudhsmHsms)
	if _, err := c.DeleteCustomKeyStore(ctx, &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: none.CustomKeyStoreId}); err != nil {
		t.Error(err)
	}
	c.failed(id, types.ConnectionErrorCodeTypeInvalidCredentials)
	if _, err := c.UpdateCustomKeyStore(ctx, &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: &id, KeyStorePassword: &hsm.PIN}); err != nil {
		t.Fatal(err)
	}
	c.connected(id)
	k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeAwsCloudhsm, CustomKeyStoreId: &id})
	if err != nil {
		t.Fatal(err)
	}
	key := k.KeyMetadata.KeyId
	if aws.ToString(k.KeyMetadata.CloudHsmClusterId) != cluster || k.KeyMetadata.Origin != types.OriginTypeAwsCloudhsm {
		t.Errorf("metadata of the key: %+v", k.KeyMetadata)
	}
	_, err = c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeAwsCloudhsm, CustomKeyStoreId: &id, KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify})
	wantCode(t, "CreateKey of an RSA key", err, "UnsupportedOperationException")
	tok, err := pkcs11.Open(ctx, pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, secret.New([]byte(hsm.PIN)))
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	if info, err := tok.Key(ctx, *key); err != nil || !info.Kept || info.Bits != 256 {
		t.Errorf("the key in the token: %+v, %v, want 256 bits that cannot leave it", info, err)
	}
	blob := c.works(key)
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, "Decrypt without the context", err, "InvalidCiphertextException")
	if r, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{CustomKeyStoreId: &id, NumberOfBytes: aws.Int32(24)}); err != nil || len(r.Plaintext) != 24 {
		t.Errorf("GenerateRandom = %v", err)
	}

	// Disconnected while in use: every call succeeds or is refused, none after the reply.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
				if got := code(err); got != "success" && got != "KMSInvalidStateException" {
					t.Errorf("Decrypt while the store is disconnected = %v", err)
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	c.disconnect(id)
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
	close(stop)
	wg.Wait()
	var state *types.KMSInvalidStateException
	if !errors.As(err, &state) || state.ErrorMessage() != *k.KeyMetadata.Arn+" is unavailable." {
		t.Errorf("Decrypt after DisconnectCustomKeyStore = %v, want KMSInvalidStateException", err)
	}
	_, err = c.GenerateRandom(ctx, &kms.GenerateRandomInput{CustomKeyStoreId: &id, NumberOfBytes: aws.Int32(24)})
	wantCode(t, "GenerateRandom of a disconnected store", err, "CustomKeyStoreInvalidStateException")
	if _, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: key, PendingWindowInDays: aws.Int32(7)}); err != nil || c.state(key) != types.KeyStatePendingDeletion {
		t.Errorf("ScheduleKeyDeletion of an unavailable key: %v, state %s", err, c.state(key))
	}
	if _, err := c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: key}); err != nil || c.state(key) != types.KeyStateUnavailable {
		t.Errorf("CancelKeyDeletion: %v, state %s", err, c.state(key))
	}
	c.connected(id)
	if _, err := c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	c.Client = s.KMS()
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec}); err != nil {
		t.Errorf("Decrypt after a restart: %v", err)
	}
	// The key is lost in the HSM.
	if err := tok.Destroy(ctx, *key); err != nil {
		t.Fatal(err)
	}
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
	wantCode(t, "Decrypt when the key is gone from the token", err, "KMSInvalidStateException")
	c.silent(hsm.PIN, "not-the-pin")
}
