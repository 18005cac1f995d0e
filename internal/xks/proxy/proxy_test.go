package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks"
	"github.com/sealdesk/sealdesk/internal/xks/proxy"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

func newProxy(t testing.TB) (*proxy.Proxy, *xkstest.Token) {
	tok := &xkstest.Token{}
	tok.Add("k")
	p, err := proxy.New(proxy.Config{Token: tok, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Credentials: []proxy.Credential{{AccessKeyID: xkstest.AccessKeyID, Secret: secret.New([]byte(xkstest.SecretKey))}}})
	if err != nil {
		t.Fatal(err)
	}
	return p, tok
}

// request signs a request for service with key over signed, and sends body.
func request(t testing.TB, method, path, service, key, signed, body string) *http.Request {
	r := httptest.NewRequest(method, "https://"+xkstest.Host+path, bytes.NewReader([]byte(body)))
	if key == "" {
		return r
	}
	sum := sha256.Sum256([]byte(signed))
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: xkstest.AccessKeyID, SecretAccessKey: key}, r, hex.EncodeToString(sum[:]), service, "us-west-2", time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

func answer(p *proxy.Proxy, r *http.Request) (int, xks.ErrorReply) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	var e xks.ErrorReply
	_ = json.Unmarshal(w.Body.Bytes(), &e)
	return w.Code, e
}

const (
	health  = `{"requestMetadata":{"kmsRequestId":"1","kmsOperation":"x"}}`
	meta    = `"requestMetadata":{"awsPrincipalArn":"a","kmsKeyArn":"k","kmsRequestId":"1","kmsOperation":"x"}`
	base    = "/kms/xks/v1"
	encrypt = base + "/keys/k/encrypt"
	decrypt = base + "/keys/k/decrypt"
)

func TestRefuses(t *testing.T) {
	p, _ := newProxy(t)
	key := xkstest.SecretKey
	for name, v := range map[string]struct {
		r    *http.Request
		want xks.Kind
	}{
		"unsigned":               {request(t, "POST", base+"/health", xks.Service, "", health, health), xks.AuthenticationFailed},
		"wrong key":              {request(t, "POST", base+"/health", xks.Service, key[1:]+"A", health, health), xks.AuthenticationFailed},
		"another service":        {request(t, "POST", base+"/health", "kms", key, health, health), xks.AuthenticationFailed},
		"another body":           {request(t, "POST", base+"/health", xks.Service, key, health, health+" "), xks.AuthenticationFailed},
		"unsigned, unknown path": {request(t, "POST", "/", xks.Service, "", health, health), xks.AuthenticationFailed},
		"another path":           {request(t, "POST", "/two"+base+"/health", xks.Service, key, health, health), xks.InvalidURIPath},
		"GET":                    {request(t, "GET", base+"/health", xks.Service, key, health, health), xks.InvalidURIPath},
		"a path in a key ID":     {request(t, "POST", base+"/keys/a%2Fb/encrypt", xks.Service, key, health, health), xks.InvalidURIPath},
		"no JSON":                {request(t, "POST", base+"/health", xks.Service, key, "{", "{"), xks.Validation},
		"no metadata":            {request(t, "POST", base+"/health", xks.Service, key, "{}", "{}"), xks.Validation},
		"no plaintext":           signed(t, encrypt, `{`+meta+`,"encryptionAlgorithm":"AES_GCM"}`, xks.Validation),
		"another algorithm":      signed(t, encrypt, `{`+meta+`,"encryptionAlgorithm":"AES_ECB","plaintext":"eA=="}`, xks.Validation),
		"no key":                 signed(t, base+"/keys/none/encrypt", `{`+meta+`,"encryptionAlgorithm":"AES_GCM","plaintext":"eA=="}`, xks.KeyNotFound),
		"short tag":              signed(t, decrypt, `{`+meta+`,"encryptionAlgorithm":"AES_GCM","ciphertext":"eA==","initializationVector":"HMrlRw85cAJUd5Ax","authenticationTag":"eA=="}`, xks.InvalidCiphertext),
		"no ciphertext of ours":  signed(t, decrypt, `{`+meta+`,"encryptionAlgorithm":"AES_GCM","ciphertext":"eA==","initializationVector":"HMrlRw85cAJUd5Ax","authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ=="}`, xks.InvalidCiphertext),
	} {
		if status, e := answer(p, v.r); e.Name != v.want || status != xks.Status[v.want] {
			t.Errorf("%s: %d %+v, want %d %s", name, status, e, xks.Status[v.want], v.want)
		}
	}
	if status, e := answer(p, request(t, "POST", base+"/health", xks.Service, key, health, health)); status != 200 {
		t.Errorf("a good request: %d %+v, want 200", status, e)
	}
}

func signed(t *testing.T, path, body string, want xks.Kind) struct {
	r    *http.Request
	want xks.Kind
} {
	return struct {
		r    *http.Request
		want xks.Kind
	}{request(t, "POST", path, xks.Service, xkstest.SecretKey, body, body), want}
}

// FuzzBody: whatever a holder of the credential sends is answered in the API's words.
func FuzzBody(f *testing.F) {
	p, _ := newProxy(f)
	f.Add(`{` + meta + `,"encryptionAlgorithm":"AES_GCM","plaintext":"eA==","ciphertextDataIntegrityValueAlgorithm":"SHA_256"}`)
	f.Add(`{` + meta + `,"encryptionAlgorithm":"AES_GCM","ciphertext":"eA==","initializationVector":"HMrlRw85cAJUd5Ax","authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ=="}`)
	f.Add(health)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{encrypt, decrypt, base + "/keys/k/metadata", base + "/health"} {
			if status, e := answer(p, request(t, "POST", path, xks.Service, xkstest.SecretKey, body, body)); status != 200 && xks.Status[e.Name] != status {
				t.Errorf("%s %q: %d %+v", path, body, status, e)
			}
		}
	})
}
