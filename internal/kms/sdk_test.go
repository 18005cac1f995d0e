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
	"github.com/aws/aws-sdk-go-v2/service/iam"
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
	if a, _ := m["additionalEventData"].(map[string]any); a["keyMaterialId"] != *k.KeyMetadata.CurrentKeyMaterialId {
		t.Errorf("record of Decrypt: %s, want the key material", text)
	}
	m, text = record(t, s, "CreateKey")
	if p, _ := m["requestParameters"].(map[string]any); p["description"] != "over the wire" || p["origin"] != "AWS_KMS" || p["keySpec"] != "SYMMETRIC_DEFAULT" || p["bypassPolicyLockoutSafetyCheck"] != false {
		t.Errorf("record of CreateKey: %s, want the defaults in requestParameters", text)
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
}

// TestUserMadeAgain: a user who is deleted and made again under the same name has
// none of the old one's grants, nor what the key policy gave the old one.
func TestUserMadeAgain(t *testing.T) {
	s := apptest.New(t)
	c, users, ctx := s.KMS(), s.IAM(), context.Background()
	name := aws.String("jane")
	made := func() (arn string, keys *kms.Client, drop func()) {
		u, err := users.CreateUser(ctx, &iam.CreateUserInput{UserName: name})
		if err != nil {
			t.Fatal(err)
		}
		k, err := users.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: name})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(u.User.Arn), s.KMS(apptest.Keys(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")), func() {
			if _, err := users.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: name, AccessKeyId: k.AccessKey.AccessKeyId}); err != nil {
				t.Fatal(err)
			}
			if _, err := users.DeleteUser(ctx, &iam.DeleteUserInput{UserName: name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	arn, jane, drop := made()
	k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Policy: aws.String(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + apptest.Account + `:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":"` + arn + `"},"Action":"kms:GenerateMac","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":"` + arn + `"},"Action":"kms:DescribeKey","Resource":"*"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	id := k.KeyMetadata.KeyId
	if _, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: id, GranteePrincipal: &arn, Operations: []types.GrantOperation{"Encrypt"}}); err != nil {
		t.Fatal(err)
	}
	use := func(c *kms.Client) (granted, named error) {
		_, granted = c.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("x")})
		_, named = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: id})
		return
	}
	if granted, named := use(jane); granted != nil || named != nil {
		t.Fatalf("jane: Encrypt by grant = %v, DescribeKey by key policy = %v, want success", granted, named)
	}
	p, err := c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: id})
	if err != nil || strings.Count(*p.Policy, `"`+arn+`"`) != 2 {
		t.Fatalf("GetKeyPolicy = %+v, %v, want the ARN twice", p, err)
	}
	drop()
	_, jane, _ = made()
	if granted, named := use(jane); granted == nil || named == nil || !strings.Contains(granted.Error()+named.Error(), "AccessDenied") {
		t.Errorf("the second jane: Encrypt = %v, DescribeKey = %v, want AccessDeniedException", granted, named)
	}
	p, err = c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: id})
	if err != nil || strings.Count(*p.Policy, `"AWS":"AIDA`) != 2 || strings.Contains(*p.Policy, arn) {
		t.Errorf("GetKeyPolicy after jane was deleted = %s, %v, want her unique ID in the ARN's place", aws.ToString(p.Policy), err)
	}
	g, err := c.ListGrants(ctx, &kms.ListGrantsInput{KeyId: id})
	if err != nil || len(g.Grants) != 1 || !strings.HasPrefix(*g.Grants[0].GranteePrincipal, "AIDA") {
		t.Errorf("ListGrants after jane was deleted = %+v, %v, want one to her unique ID", g, err)
	}
}
