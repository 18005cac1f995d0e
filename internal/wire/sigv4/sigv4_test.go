package sigv4

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"crypto/sha256"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	exampleKey    = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// The examples of AWS's documentation: the signing key of "Deriving the signing key"
// and the request of "Signature Version 4 signing process: complete example"
// (IAM ListUsers, 2015-08-30).
func TestDocumentedExample(t *testing.T) {
	key := deriveKey([]byte(exampleSecret), "20120215", "us-east-1", "iam")
	if got, want := hex.EncodeToString(key[:]), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"; got != want {
		t.Errorf("signing key = %s, want %s", got, want)
	}
	key = deriveKey([]byte(exampleSecret), "20150830", "us-east-1", "iam")
	if got, want := hex.EncodeToString(key[:]), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"; got != want {
		t.Errorf("signing key = %s, want %s", got, want)
	}

	r := httptest.NewRequest("GET", "/?Action=ListUsers&Version=2010-05-08", nil)
	r.Host = "iam.amazonaws.com"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")
	a, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	empty := sha256.Sum256(nil)
	canonical := canonicalRequest(nil, a, r, "/", []byte(hex.EncodeToString(empty[:])))
	h := sha256.Sum256(canonical)
	if got, want := hex.EncodeToString(h[:]), "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"; got != want {
		t.Errorf("hash of the canonical request = %s, want %s:\n%s", got, want, canonical)
	}
	if err := NewVerifier().Verify(a, r, BodyOf(nil), []byte(exampleSecret), a.Time); err != nil {
		t.Error(err)
	}
}

// Vectors of AWS's Signature Version 4 test suite (service "service", region
// us-east-1, 2015-08-30 12:36:00).
func TestSuiteVectors(t *testing.T) {
	for _, c := range []struct {
		name, method, target string
		header               [][2]string
		body                 string
		signed, signature    string
	}{
		{"get-vanilla", "GET", "/", nil, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", nil, "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", nil, "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"get-header-value-trim", "GET", "/", [][2]string{{"My-Header1", " value1"}, {"My-Header2", ` "a   b   c"`}}, "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"post-vanilla", "POST", "/", nil, "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-x-www-form-urlencoded", "POST", "/", [][2]string{{"Content-Type", "application/x-www-form-urlencoded"}}, "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			r.Host = "example.amazonaws.com"
			for _, h := range c.header {
				r.Header.Add(h[0], h[1])
			}
			r.Header.Set("X-Amz-Date", "20150830T123600Z")
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+c.signed+", Signature="+c.signature)
			a, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := NewVerifier().Verify(a, r, BodyOf([]byte(c.body)), []byte(exampleSecret), a.Time); err != nil {
				t.Error(err)
			}
		})
	}
}

var signTime = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func sdkSign(t testing.TB, r *http.Request, body []byte, token string, at time.Time) {
	t.Helper()
	h := sha256.Sum256(body)
	creds := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret, SessionToken: token}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hex.EncodeToString(h[:]), "kms", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
}

func sdkRequest(t testing.TB, method, target string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://sealdesk.test:8443"+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "TrentService.Decrypt")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	return r
}

// arrive is what the server sees of a client's request.
func arrive(r *http.Request) *http.Request {
	c := r.Clone(context.Background())
	c.Host = r.Host
	if c.Host == "" {
		c.Host = r.URL.Host
	}
	c.RequestURI = r.URL.RequestURI()
	return c
}

func TestSDKSigner(t *testing.T) {
	for _, target := range []string{"/", "", "/a%20b/c", "/%e4%b8%96?x=%2F+&a=1&a=0&b", "/snapshots/snap-1/blocks/0?blockToken=a%2Bb%3D%3D", "/a//b", "/a/./b/", "/a%2Fb/~*'()"} {
		for _, token := range []string{"", "FwoGZXIvYXdzE+/=="} {
			body := []byte(`{"KeyId":"x"}`)
			r := sdkRequest(t, "POST", target, body)
			sdkSign(t, r, body, token, signTime)
			s := arrive(r)
			a, err := Parse(s)
			if err != nil {
				t.Fatalf("%s: Parse: %v", target, err)
			}
			if a.AccessKeyID != exampleKey || a.Region != "eu-west-1" || a.Service != "kms" || a.SessionToken != token || a.Presigned {
				t.Errorf("%s: Parse = %+v", target, a)
			}
			if err := NewVerifier().Verify(a, s, BodyOf(body), []byte(exampleSecret), signTime); err != nil {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
}

func TestPresigned(t *testing.T) {
	creds := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret, SessionToken: "tok/+="}
	empty := sha256.Sum256(nil)
	presign := func(extra string) *http.Request {
		r, _ := http.NewRequest("GET", "https://sts.test/?Action=GetCallerIdentity&Version=2011-06-15"+extra, nil)
		u, _, err := v4.NewSigner().PresignHTTP(context.Background(), creds, r, hex.EncodeToString(empty[:]), "sts", "us-east-1", signTime)
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewRequest("GET", u, nil)
	}
	v := NewVerifier()
	check := func(name string, r *http.Request, now time.Time, want Code) {
		t.Helper()
		a, err := Parse(r)
		if err == nil {
			err = v.Verify(a, r, BodyOf(nil), []byte(exampleSecret), now)
		}
		var e *Error
		if errors.As(err, &e); want == "" && err != nil || want != "" && (e == nil || e.Code != want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	r := presign("&X-Amz-Expires=60")
	check("fresh", r, signTime.Add(time.Minute), "")
	check("past its lifetime", r, signTime.Add(61*time.Second), RequestExpired)
	check("from the future", r, signTime.Add(-6*time.Minute), SignatureExpired)
	check("default lifetime", presign(""), signTime.Add(14*time.Minute), "")
	check("past the default lifetime", presign(""), signTime.Add(16*time.Minute), RequestExpired)
	check("lifetime too long", presign("&X-Amz-Expires=604801"), signTime, IncompleteSignature)
	check("lifetime no number", presign("&X-Amz-Expires=1e3"), signTime, IncompleteSignature)

	longer := presign("&X-Amz-Expires=60")
	longer.URL.RawQuery = strings.Replace(longer.URL.RawQuery, "X-Amz-Expires=60", "X-Amz-Expires=600", 1)
	longer.RequestURI = longer.URL.RequestURI()
	check("lifetime changed", longer, signTime, SignatureDoesNotMatch)
	other := presign("&X-Amz-Expires=60")
	other.URL.RawQuery = strings.Replace(other.URL.RawQuery, "GetCallerIdentity", "GetSessionToken", 1)
	check("action changed", other, signTime, SignatureDoesNotMatch)
	both := presign("&X-Amz-Expires=60")
	both.Header.Set("Authorization", "AWS4-HMAC-SHA256 x")
	check("signed twice", both, signTime, IncompleteSignature)
}

// Each change to a signed request must be noticed.
func TestTampering(t *testing.T) {
	body := []byte(`{"KeyId":"alias/x"}`)
	v := NewVerifier()
	for _, c := range []struct {
		name   string
		change func(r *http.Request, body *[]byte, secret *[]byte, now *time.Time)
		want   Code
	}{
		{"nothing", func(*http.Request, *[]byte, *[]byte, *time.Time) {}, ""},
		{"unsigned header added", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.Header.Set("Accept", "x") }, ""},
		{"body", func(_ *http.Request, b, _ *[]byte, _ *time.Time) { *b = []byte(`{}`) }, SignatureDoesNotMatch},
		{"method", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.Method = "PUT" }, SignatureDoesNotMatch},
		{"path", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.RequestURI = "/x" }, SignatureDoesNotMatch},
		{"query", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.URL.RawQuery = "a=b" }, SignatureDoesNotMatch},
		{"host", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.Host = "evil" }, SignatureDoesNotMatch},
		{"target", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Set("X-Amz-Target", "TrentService.Encrypt")
		}, SignatureDoesNotMatch},
		{"second target", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Add("X-Amz-Target", "TrentService.Encrypt")
		}, SignatureDoesNotMatch},
		{"token added", func(r *http.Request, _, _ *[]byte, _ *time.Time) { r.Header.Set("X-Amz-Security-Token", "t") }, SignatureDoesNotMatch},
		{"secret", func(_ *http.Request, _, s *[]byte, _ *time.Time) { *s = []byte("other") }, SignatureDoesNotMatch},
		{"access key", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), exampleKey, "AKIDOTHER", 1))
		}, ""}, // the key names the secret; the caller looked up this one
		{"region", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "eu-west-1", "us-east-1", 1))
		}, SignatureDoesNotMatch},
		{"signature", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-4]+"0000")
		}, SignatureDoesNotMatch},
		{"no host", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "host;", "", 1))
		}, SignatureDoesNotMatch},
		{"unsigned payload", func(r *http.Request, _, _ *[]byte, _ *time.Time) {
			r.Header.Set("X-Amz-Content-Sha256", UnsignedPayload)
		}, SignatureDoesNotMatch},
		{"4:59 late", func(_ *http.Request, _, _ *[]byte, n *time.Time) { *n = n.Add(299 * time.Second) }, ""},
		{"5:01 late", func(_ *http.Request, _, _ *[]byte, n *time.Time) { *n = n.Add(301 * time.Second) }, SignatureExpired},
		{"4:59 early", func(_ *http.Request, _, _ *[]byte, n *time.Time) { *n = n.Add(-299 * time.Second) }, ""},
		{"5:01 early", func(_ *http.Request, _, _ *[]byte, n *time.Time) { *n = n.Add(-301 * time.Second) }, SignatureExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sdkRequest(t, "POST", "/", body)
			sdkSign(t, r, body, "", signTime)
			s := arrive(r)
			b, secret, now := body, []byte(exampleSecret), signTime
			c.change(s, &b, &secret, &now)
			a, err := Parse(s)
			if err == nil {
				err = v.Verify(a, s, BodyOf(b), secret, now)
			}
			var e *Error
			errors.As(err, &e)
			if c.want == "" && err != nil || c.want != "" && (e == nil || e.Code != c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	good := "AWS4-HMAC-SHA256 Credential=A/20261124/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0a", 32)
	for _, c := range []struct {
		auth, date string
		code       Code
		text       string
	}{
		{"", "", MissingAuthenticationToken, "missing"},
		{"Bearer abc", "", MissingAuthenticationToken, "not of the form"},
		{"AWS key:sig", "", IncompleteSignature, "Unsupported AWS 'algorithm'"},
		{"AWS4-ECDSA-P256-SHA256 Credential=x", "", IncompleteSignature, "Unsupported AWS 'algorithm'"},
		{"AWS4-HMAC-SHA256", "", IncompleteSignature, "requires 'Credential'"},
		{"AWS4-HMAC-SHA256 Credential", "", IncompleteSignature, "missing equal-sign"},
		{good, "", IncompleteSignature, "existence of either a 'X-Amz-Date'"},
		{good, "yesterday", IncompleteSignature, "ISO-8601"},
		{good, "20261123T000000Z", SignatureDoesNotMatch, "Date in Credential scope does not match"},
		{strings.Replace(good, "aws4_request", "aws5", 1), "20261124T000000Z", SignatureDoesNotMatch, "terminator"},
		{strings.Replace(good, "/r/s", "/s", 1), "20261124T000000Z", IncompleteSignature, "exactly 5 slash-delimited"},
		{strings.Replace(good, "0a", "zz", 1), "20261124T000000Z", IncompleteSignature, "64 hexadecimal"},
		{strings.Replace(good, "host;x-amz-date", "x-amz-date;host", 1), "20261124T000000Z", IncompleteSignature, "ascending"},
		{strings.Replace(good, "host;x-amz-date", "Host;x-amz-date", 1), "20261124T000000Z", IncompleteSignature, "lower-case"},
		{strings.Replace(good, "host;x-amz-date", "host", 1), "20261124T000000Z", SignatureDoesNotMatch, "'X-Amz-Date' must be a 'SignedHeader'"},
		{strings.Replace(good, "host;x-amz-date", "x-amz-date", 1), "20261124T000000Z", SignatureDoesNotMatch, "'Host' or ':authority' must be"},
		{good + ", Signature=00", "20261124T000000Z", IncompleteSignature, "more than once"},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		if c.auth != "" {
			r.Header.Set("Authorization", c.auth)
		}
		if c.date != "" {
			r.Header.Set("X-Amz-Date", c.date)
		}
		_, err := Parse(r)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.text) {
			t.Errorf("Parse(%q, %q) = %v, want %s with %q", c.auth, c.date, err, c.code, c.text)
		}
	}
}

func TestUnsignedPayload(t *testing.T) {
	block := []byte("block")
	creds := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret}
	for _, header := range []bool{true, false} {
		r := sdkRequest(t, "PUT", "/snapshots/snap-1/blocks/7", block)
		if header {
			r.Header.Set("X-Amz-Content-Sha256", UnsignedPayload)
		}
		if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, UnsignedPayload, "ebs", "eu-west-1", signTime); err != nil {
			t.Fatal(err)
		}
		s := arrive(r)
		a, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		body := BodyOf(block)
		if err := NewVerifier().Verify(a, s, body, []byte(exampleSecret), signTime); err == nil {
			t.Errorf("header %v: an unsigned body passed where it is not allowed", header)
		}
		body.AllowUnsigned = true
		if err := NewVerifier().Verify(a, s, body, []byte(exampleSecret), signTime); err != nil {
			t.Errorf("header %v: %v", header, err)
		}
	}
}

// A changed secret must count at once, however warm the key cache is.
func TestKeyCache(t *testing.T) {
	v := NewVerifier()
	body := []byte("{}")
	r := sdkRequest(t, "POST", "/", body)
	sdkSign(t, r, body, "", signTime)
	s := arrive(r)
	a, _ := Parse(s)
	for range 2 {
		if err := v.Verify(a, s, BodyOf(body), []byte(exampleSecret), signTime); err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(a, s, BodyOf(body), []byte("rotated"), signTime); err == nil {
			t.Fatal("the old secret's key was used for the new secret")
		}
	}
	if len(v.keys) != 2 {
		t.Errorf("%d keys kept, want 2", len(v.keys))
	}
	for i := range 3 * maxKeys {
		c := *a
		c.Region = "r" + string(rune('a'+i%26)) + hex.EncodeToString([]byte{byte(i >> 8), byte(i)})
		v.signingKey(&c, []byte(exampleSecret))
	}
	if len(v.keys) > maxKeys {
		t.Errorf("%d keys kept, want at most %d", len(v.keys), maxKeys)
	}
}

func TestMessageHidesToken(t *testing.T) {
	body := []byte("{}")
	r := sdkRequest(t, "POST", "/", body)
	sdkSign(t, r, body, "secret-session-token", signTime)
	s := arrive(r)
	a, _ := Parse(s)
	err := NewVerifier().Verify(a, s, BodyOf(body), []byte("wrong"), signTime)
	if err == nil || strings.Contains(err.Error(), "secret-session-token") || !strings.Contains(err.Error(), "x-amz-security-token:***") {
		t.Errorf("got %v, want the canonical string with the token struck out", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=A/20261124/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0a", 32), "20261124T000000Z", "/a?b=c")
	f.Add("", "", "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A/20261124/r/s/aws4_request&X-Amz-Date=20261124T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=00")
	v := NewVerifier()
	f.Fuzz(func(t *testing.T, auth, date, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: "POST", URL: u, Host: "h", Header: http.Header{}, RequestURI: target}
		if auth != "" {
			r.Header["Authorization"] = []string{auth}
		}
		if date != "" {
			r.Header["X-Amz-Date"] = []string{date}
		}
		a, err := Parse(r)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Parse error %T, want *Error", err)
			}
			return
		}
		if err := v.Verify(a, r, BodyOf(nil), []byte("a secret nobody signed with"), a.Time); err == nil {
			t.Fatalf("a forged signature passed: %q %q %q", auth, date, target)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := []byte(`{"KeyId":"x"}`)
	r := sdkRequest(b, "POST", "/", body)
	sdkSign(b, r, body, "", signTime)
	s := arrive(r)
	v := NewVerifier()
	b.ReportAllocs()
	for b.Loop() {
		a, err := Parse(s)
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Verify(a, s, BodyOf(body), []byte(exampleSecret), signTime); err != nil {
			b.Fatal(err)
		}
	}
}
