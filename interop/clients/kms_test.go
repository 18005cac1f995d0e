// Package clients runs the clients that users of a key service have, as they are
// released, against the server: the AWS CLI, boto3, the AWS SDK for JavaScript, the AWS
// Encryption SDK, sops and Terraform's AWS provider. Each test skips with the reason when its client is not installed;
// scripts/interop-clients installs what Debian has not.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// environment is what tells an unmodified client where the server is.
func environment(t *testing.T, s *apptest.Server) []string {
	home := t.TempDir()
	env := []string{"HOME=" + home, "AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=" + apptest.RootAccessKeyID, "AWS_SECRET_ACCESS_KEY=" + apptest.RootSecret,
		"AWS_DEFAULT_REGION=" + apptest.Region, "AWS_REGION=" + apptest.Region, "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "ACCOUNT=" + apptest.Account}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "HOME" && !strings.HasPrefix(name, "AWS_") {
			env = append(env, v)
		}
	}
	return env
}

// run runs a client, which fails the test unless it ends well.
func run(t *testing.T, env []string, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = env, dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &out, &errs)
	}
	return out.String()
}

func tool(t *testing.T, name, reason string) string {
	t.Helper()
	for _, p := range []string{"../../build/tools/" + name, name} {
		if found, err := exec.LookPath(p); err == nil {
			abs, _ := filepath.Abs(found)
			return abs
		}
	}
	t.Skipf("needs %s: %s", name, reason)
	return ""
}

// TestAWSCLI: the AWS CLI, from key to import of a user's own material that openssl wrapped.
func TestAWSCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the AWS CLI some fifty times")
	}
	tool(t, "aws", "run scripts/prerequisites")
	tool(t, "openssl", "install openssl")
	tool(t, "jq", "run scripts/prerequisites")
	s := apptest.New(t)
	script, _ := filepath.Abs("testdata/kms.sh")
	t.Log(run(t, environment(t, s), t.TempDir(), "bash", "-euo", "pipefail", script))
}

// TestBoto3: errors as boto3's exception classes, paginators, every data type.
func TestBoto3(t *testing.T) {
	python := ""
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(p, "-c", "import boto3").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		t.Skip("needs boto3: run scripts/prerequisites")
	}
	s := apptest.New(t)
	script, _ := filepath.Abs("testdata/kms.py")
	t.Log(run(t, environment(t, s), t.TempDir(), python, script))
}

// TestJavaScript: the AWS SDK for JavaScript v3 and the AWS Encryption SDK, installed from their lock file.
func TestJavaScript(t *testing.T) {
	tool(t, "node", "install Node.js 20 or newer")
	dir, _ := filepath.Abs("js")
	for _, c := range []struct{ script, needs string }{{"kms.mjs", "@aws-sdk/client-kms"}, {"encryption.mjs", "@aws-crypto/client-node"}} {
		t.Run(c.script, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(dir, "node_modules", c.needs)); err != nil {
				t.Skip("needs " + c.needs + ": run scripts/interop-clients")
			}
			s := apptest.New(t)
			t.Log(run(t, environment(t, s), dir, "node", c.script))
		})
	}
}

// TestSops: a file is encrypted and decrypted under a key with an encryption context,
// which is on the record; with another context in the file it does not open.
func TestSops(t *testing.T) {
	sops := tool(t, "sops", "run scripts/interop-clients")
	s := apptest.New(t)
	ctx := context.Background()
	k, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	dir, env := t.TempDir(), environment(t, s)
	const plain = "password: correct horse battery staple\nuser: jane\n"
	file, sealed := filepath.Join(dir, "plain.yaml"), filepath.Join(dir, "sealed.yaml")
	if err := os.WriteFile(file, []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, env, dir, sops, "encrypt", "--kms", aws.ToString(k.KeyMetadata.Arn), "--encryption-context", "Role:app,Env:test", file)
	if strings.Contains(out, "battery") || !strings.Contains(out, *k.KeyMetadata.Arn) {
		t.Fatalf("sops encrypt = %s, want the value sealed under the key", out)
	}
	if err := os.WriteFile(sealed, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t, env, dir, sops, "decrypt", sealed); got != plain {
		t.Errorf("sops decrypt = %q, want %q", got, plain)
	}
	// Set back the context, and the data key does not open.
	if err := os.WriteFile(sealed, []byte(strings.Replace(out, "Env: test", "Env: prod", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sops, "decrypt", sealed)
	cmd.Env = env
	if got, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(got), "InvalidCiphertextException") {
		t.Errorf("sops decrypt with another context = %s, %v, want InvalidCiphertextException", got, err)
	}
	// Rotating the data key makes sops decrypt and encrypt again.
	if err := os.WriteFile(sealed, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, env, dir, sops, "rotate", "--in-place", sealed)
	if got := run(t, env, dir, sops, "decrypt", sealed); got != plain {
		t.Errorf("sops decrypt after rotate = %q, want %q", got, plain)
	}
	for range 50 {
		events, err := s.CloudTrail().LookupEvents(ctx, &cloudtrail.LookupEventsInput{LookupAttributes: []cttypes.LookupAttribute{
			{AttributeKey: cttypes.LookupAttributeKeyEventName, AttributeValue: aws.String("Decrypt")}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Events {
			var r struct {
				RequestParameters struct{ EncryptionContext map[string]string }
			}
			if err := json.Unmarshal([]byte(aws.ToString(e.CloudTrailEvent)), &r); err != nil {
				t.Fatal(err)
			}
			if c := r.RequestParameters.EncryptionContext; c["Role"] == "app" && c["Env"] == "test" {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("no record of a Decrypt with the file's encryption context")
}
