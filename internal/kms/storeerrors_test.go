package kms_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
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

func externalStore(name string, p *xkstest.Proxy) *kms.CreateCustomKeyStoreInput {
	return &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: &name, CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore, XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint,
		XksProxyUriEndpoint: aws.String(xkstest.Endpoint), XksProxyUriPath: &p.Path,
		XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{AccessKeyId: aws.String(xkstest.AccessKeyID), RawSecretAccessKey: aws.String(xkstest.SecretKey)}}
}

// TestConnectionErrors: each way in which a proxy can fail is the ConnectionErrorCode that AWS
// documents for it, and a store that has failed can be connected when the proxy is well again.
func TestConnectionErrors(t *testing.T) {
	p := xkstest.New(t, "")
	config := func(address string) object {
		return object{"xks": object{"ca": p.CAFile, "timeout": "1s", "endpoints": object{xkstest.Endpoint: object{"address": address}}}}
	}
	s := apptest.New(t, withStores(t, config(p.Address)))
	c := stores{t, s.KMS(), s}
	out, err := c.CreateCustomKeyStore(ctx, externalStore("ext", p))
	if err != nil {
		t.Fatal(err)
	}
	id := *out.CustomKeyStoreId
	says := func(status int, name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"errorName":"` + name + `"}`))
		}
	}
	for want, h := range map[types.ConnectionErrorCodeType]http.HandlerFunc{
		"INVALID_CREDENTIALS":             says(401, "AuthenticationFailedException"),
		"XKS_PROXY_ACCESS_DENIED":         says(403, "AccessDeniedException"),
		"XKS_PROXY_INVALID_CONFIGURATION": says(404, "InvalidUriPathException"),
		"XKS_PROXY_INVALID_RESPONSE":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"XKS_PROXY_NOT_REACHABLE":         says(429, "ThrottlingException"),
		"XKS_PROXY_TIMED_OUT":             func(http.ResponseWriter, *http.Request) { time.Sleep(2 * time.Second) },
	} {
		p.Interfere(h)
		c.failed(id, want)
	}
	p.Interfere(nil)
	c.connected(id)
	c.disconnect(id)

	// A proxy whose certificate nobody we trust has signed.
	stranger := xkstest.New(t, "")
	s.RestartWith(withStores(t, config(stranger.Address)))
	c.Client = s.KMS()
	c.failed(id, types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration)
}

// TestClusterNotFound: a cluster that has left the configuration cannot be connected to.
func TestClusterNotFound(t *testing.T) {
	hsm := softhsm.New(t)
	_, ca := xkstest.Certificate(t, "cluster CA")
	s := apptest.New(t, withStores(t, object{"clusters": object{cluster: object{"module": hsm.Module, "token": hsm.Label}}}))
	c := stores{t, s.KMS(), s}
	out, err := c.CreateCustomKeyStore(ctx, &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: aws.String("hsm"), CloudHsmClusterId: aws.String(cluster), KeyStorePassword: &hsm.PIN, TrustAnchorCertificate: aws.String(string(ca))})
	if err != nil {
		t.Fatal(err)
	}
	s.RestartWith(withStores(t, object{}))
	c.Client = s.KMS()
	_, err = c.ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: out.CustomKeyStoreId})
	wantCode(t, "ConnectCustomKeyStore", err, "CloudHsmClusterNotActiveException")
	if e := c.entry(*out.CustomKeyStoreId); e.ConnectionState != types.ConnectionStateTypeDisconnected {
		t.Errorf("the store is %s, want DISCONNECTED", e.ConnectionState)
	}
}

// TestMutualTLS: a proxy that asks for a certificate gets the configured one; with none, or
// with one of a CA it does not know, the store cannot be made, nor connected.
func TestMutualTLS(t *testing.T) {
	files := func() (cert, key string, ca []byte) {
		pair, ca := xkstest.Certificate(t, "kms.corp.example.com")
		dir := t.TempDir()
		der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, key = filepath.Join(dir, "us.pem"), filepath.Join(dir, "us.key")
		for file, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cert, key, ca
	}
	cert, key, ca := files()
	otherCert, otherKey, _ := files()
	p := xkstest.New(t, "", func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM(ca)
	})
	p.Token.Add("ext-1")
	with := func(more object) func(*app.Config) {
		more["address"] = p.Address
		return withStores(t, object{"xks": object{"ca": p.CAFile, "timeout": "3s", "endpoints": object{xkstest.Endpoint: more}}})
	}
	s := apptest.New(t, with(object{}))
	c := stores{t, s.KMS(), s}
	refused := func(how string) {
		t.Helper()
		_, err := c.CreateCustomKeyStore(ctx, externalStore("refused", p))
		wantCode(t, "CreateCustomKeyStore "+how, err, "XksProxyUriUnreachableException")
	}
	refused("without a certificate")
	s.RestartWith(with(object{"cert": otherCert, "key": otherKey}))
	c.Client = s.KMS()
	refused("with a certificate of an unknown CA")
	s.RestartWith(with(object{"cert": cert, "key": key}))
	c.Client = s.KMS()
	out, err := c.CreateCustomKeyStore(ctx, externalStore("ext", p))
	if err != nil {
		t.Fatal(err)
	}
	c.connected(*out.CustomKeyStoreId)
	k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: out.CustomKeyStoreId, XksKeyId: aws.String("ext-1")})
	if err != nil {
		t.Fatal(err)
	}
	c.works(k.KeyMetadata.KeyId)
	c.disconnect(*out.CustomKeyStoreId)
	s.RestartWith(with(object{"cert": otherCert, "key": otherKey}))
	c.Client = s.KMS()
	c.failed(*out.CustomKeyStoreId, types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration)
}
