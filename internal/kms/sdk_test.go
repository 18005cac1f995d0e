package kms_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// record finds the newest CloudTrail record of an event.
func record(t *testing.T, s *apptest.Server, event string) (map[string]any, string) {
	t.Helper()
	for range 50 {
		out, err := s.CloudTrail().LookupEvents(context.Background(), &cloudtrail.LookupEventsInput{LookupAttributes: []cttypes.LookupAttribute{
			{AttributeKey: cttypes.LookupAttributeKeyEventName, AttributeValue: aws.String(event)}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Events) > 0 {
			var m map[string]any
			text := aws.ToString(out.Events[0].CloudTrailEvent)
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatal(err)
			}
			return m, text
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no %s record", event)
	return nil, ""
}

// TestOverTheWire is the service through the official client: errors keep their
// types, records their shapes, and no record holds plaintext, ciphertext or a token.
func TestOverTheWire(t *testing.T) {
	s := apptest.New(t)
	c, ctx := s.KMS(), context.Background()
	k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("over the wire"), Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}}})
	if err != nil {
		t.Fatal(err)
	}
	arn := k.KeyMetadata.Arn
	if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/wire"), TargetKeyId: arn}); err != nil {
		t.Fatal(err)
	}
	ec := map[string]string{"aws:ebs:id": "vol-1234abcd"}
	g, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: aws.String("alias/wire"), NumberOfBytes: aws.Int32(64), EncryptionContext: ec})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: g.CiphertextBlob, EncryptionContext: ec})
	if err != nil || len(d.Plaintext) != 64 || aws.ToString(d.KeyId) != *arn {
		t.Fatalf("Decrypt = %+v, %v, want 64 bytes under %s", d, err, *arn)
	}
	m, text := record(t, s, "Decrypt")
	p, _ := m["requestParameters"].(map[string]any)
	if p["encryptionAlgorithm"] != "SYMMETRIC_DEFAULT" || p["encryptionContext"].(map[string]any)["aws:ebs:id"] != "vol-1234abcd" || m["readOnly"] != true || m["responseElements"] != nil {
		t.Errorf("record of Decrypt: %s", text)
	}
	if r, _ := m["resources"].([]any); len(r) != 1 || r[0].(map[string]any)["ARN"] != *arn {
		t.Errorf("resources of Decrypt = %v, want the key", m["resources"])
	}
	m, text = record(t, s, "GenerateDataKeyWithoutPlaintext")
	if p, _ := m["requestParameters"].(map[string]any); p["keyId"] != "alias/wire" || p["numberOfBytes"] != 64.0 {
		t.Errorf("record of GenerateDataKeyWithoutPlaintext: %s", text)
	}

	var invalid *types.InvalidCiphertextException
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: g.CiphertextBlob}); !errors.As(err, &invalid) || invalid.ErrorMessage() != "" {
		t.Errorf("Decrypt without the context = %v, want InvalidCiphertextException without message", err)
	}
	grant, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: arn, GranteePrincipal: aws.String("ec2.us-west-2.amazonaws.com"), RetiringPrincipal: aws.String("arn:aws:iam::" + apptest.Account + ":root"),
		Operations: []types.GrantOperation{"Decrypt"}, Constraints: &types.GrantConstraints{EncryptionContextSubset: ec}})
	if err != nil {
		t.Fatal(err)
	}
	m, text = record(t, s, "CreateGrant")
	if r, _ := m["responseElements"].(map[string]any); len(r) != 2 || r["grantId"] != *grant.GrantId || r["keyId"] != *arn || strings.Contains(text, *grant.GrantToken) {
		t.Errorf("record of CreateGrant: %s", text)
	}
	if _, err := c.RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: grant.GrantToken}); err != nil {
		t.Fatal(err)
	}
	m, text = record(t, s, "RetireGrant")
	if a, _ := m["additionalEventData"].(map[string]any); a["grantId"] != *grant.GrantId || m["requestParameters"] != nil || strings.Contains(text, *grant.GrantToken) {
		t.Errorf("record of RetireGrant: %s", text)
	}
	var dry *types.DryRunOperationException
	if _, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: arn, Plaintext: []byte("x"), DryRun: aws.Bool(true)}); !errors.As(err, &dry) {
		t.Errorf("Encrypt with DryRun = %v, want DryRunOperationException", err)
	}
	if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: arn}); err != nil {
		t.Fatal(err)
	}
	var disabled *types.DisabledException
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: g.CiphertextBlob, EncryptionContext: ec}); !errors.As(err, &disabled) || disabled.ErrorMessage() != *arn+" is disabled." {
		t.Errorf("Decrypt with a disabled key = %v, want DisabledException", err)
	}
	var missing *types.NotFoundException
	if _, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/none")}); !errors.As(err, &missing) {
		t.Errorf("DescribeKey(alias/none) = %v, want NotFoundException", err)
	}
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: g.CiphertextBlob, Recipient: &types.RecipientInfo{AttestationDocument: []byte("x")}}); err == nil || !strings.Contains(err.Error(), "Recipient") {
		t.Errorf("Decrypt with Recipient = %v, want a refusal that names it", err)
	}
	if _, err := c.CreateCustomKeyStore(ctx, &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: aws.String("x")}); err == nil || !strings.Contains(err.Error(), "UnsupportedOperation") {
		t.Errorf("CreateCustomKeyStore = %v, want UnsupportedOperationException", err)
	}
}
