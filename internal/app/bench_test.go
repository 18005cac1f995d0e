package app_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
)

// sink is a ResponseWriter that keeps nothing.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

// capture is an HTTP client that sends nothing and keeps the signed request.
type capture struct {
	r    *http.Request
	body []byte
}

func (c *capture) Do(r *http.Request) (*http.Response, error) {
	c.r = r
	c.body, _ = io.ReadAll(r.Body)
	return nil, errors.New("captured")
}

// BenchmarkPipeline is what a signed call costs between net/http's server and
// back: signature, decoding, authorization by key policy and identity policy, the
// operation, its record in the log (written, not synced), encoding. Bytes and
// allocations are the pipeline's; "cpu-ns/op" is the CPU time of the process.
func BenchmarkPipeline(b *testing.B) {
	s := apptest.New(b, func(c *app.Config) { c.AuditSync = audit.Written })
	ctx := b.Context()
	root := s.IAM()
	user := func(name string) aws.CredentialsProvider {
		if _, err := root.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String(name)}); err != nil {
			b.Fatal(err)
		}
		k, err := root.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(name)})
		if err != nil {
			b.Fatal(err)
		}
		return apptest.Keys(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")
	}
	admin, grantee := user("admin"), user("grantee")
	if _, err := root.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("admin"), PolicyName: aws.String("keys"),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:Decrypt","kms:GenerateDataKey*"],"Resource":"arn:aws:kms:*:` + apptest.Account + `:key/*"}]}`)}); err != nil {
		b.Fatal(err)
	}
	keys := s.KMS()
	made, err := keys.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		b.Fatal(err)
	}
	id := made.KeyMetadata.KeyId
	ec := map[string]string{"aws:workspaces:sid-directoryid": "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]", "aws:ebs:id": "vol-1234abcd"}
	if _, err := keys.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String("arn:aws:iam::" + apptest.Account + ":user/grantee"),
		Operations: []kmstypes.GrantOperation{kmstypes.GrantOperationDecrypt}, Constraints: &kmstypes.GrantConstraints{EncryptionContextEquals: ec}}); err != nil {
		b.Fatal(err)
	}
	sealed, err := keys.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: make([]byte, 32), EncryptionContext: ec})
	if err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct {
		name string
		as   aws.CredentialsProvider
		call func(c *kms.Client) error
	}{
		{"Decrypt", admin, func(c *kms.Client) error {
			_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: ec})
			return err
		}},
		{"DecryptByGrant", grantee, func(c *kms.Client) error {
			_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: ec})
			return err
		}},
		{"GenerateDataKeyWithoutPlaintext", admin, func(c *kms.Client) error {
			_, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: id, KeySpec: "AES_256", EncryptionContext: ec})
			return err
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			var c capture
			_ = bm.call(kms.New(kms.Options{Region: apptest.Region, BaseEndpoint: aws.String(s.URL), Credentials: bm.as, HTTPClient: &c, RetryMaxAttempts: 1}))
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header, r.Host, r.ContentLength = c.r.Header, c.r.URL.Host, c.r.ContentLength
			gw := s.App.Gateway()
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			rd := bytes.NewReader(nil)
			for b.Loop() {
				rd.Reset(c.body)
				req := *r
				req.Body = io.NopCloser(rd)
				w := sink{h: make(http.Header, 4)}
				gw.ServeHTTP(&w, &req)
				if w.status != http.StatusOK {
					b.Fatalf("%s answered %d", bm.name, w.status)
				}
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
		})
	}
}
