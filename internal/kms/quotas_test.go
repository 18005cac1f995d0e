package kms_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	ourkms "github.com/sealdesk/sealdesk/internal/kms"
)

// TestRequestQuotas: who calls more often than allowed is told so; what is not named is
// not held back; another Region has its own count.
func TestRequestQuotas(t *testing.T) {
	s := apptest.New(t, func(c *app.Config) {
		c.KMSQuotas.RequestsPerSecond = map[string]float64{"ListAliases": 0.001, ourkms.SharedSymmetric: 2}
	})
	client := func(region string) *kms.Client {
		return kms.NewFromConfig(s.Config(), func(o *kms.Options) { o.Region, o.Retryer = region, aws.NopRetryer{} })
	}
	ctx, c := context.Background(), client(apptest.Region)
	list := func(c *kms.Client) error {
		_, err := c.ListAliases(ctx, &kms.ListAliasesInput{})
		return err
	}
	if err := list(c); err != nil {
		t.Fatal(err)
	}
	if err := list(c); err == nil || !strings.Contains(err.Error(), "ThrottlingException") {
		t.Errorf("a second ListAliases = %v, want ThrottlingException", err)
	}
	if err := list(client("eu-central-1")); err != nil {
		t.Errorf("ListAliases in another Region = %v", err)
	}
	for range 5 {
		if _, err := c.ListKeys(ctx, &kms.ListKeysInput{}); err != nil {
			t.Errorf("ListKeys = %v", err)
		}
	}
	refused := 0
	for range 20 {
		if _, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(8)}); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("20 calls of GenerateRandom at once, 2 a second allowed: none was refused")
	}
}

func TestLoadQuotas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "q.json")
	for text, want := range map[string]string{
		`{"Keys": 7, "RequestsPerSecond": {"CreateKey": 1.5}}`: "",
		`{"Key": 7}`:                               "unknown field",
		`{"RequestsPerSecond": {"MakeKey": 1}}`:    "MakeKey",
		`{"RequestsPerSecond": {"CreateKey": -1}}`: "CreateKey",
		`{`: "unexpected EOF",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := ourkms.LoadQuotas(file)
		if want == "" && (err != nil || q.Keys != 7 || q.RequestsPerSecond["CreateKey"] != 1.5) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("LoadQuotas(%s) = %+v, %v, want %q", text, q, err, want)
		}
	}
	if q, err := ourkms.LoadQuotas("aws"); err != nil || q.RequestsPerSecond["CreateKey"] != 5 {
		t.Errorf("LoadQuotas(aws) = %+v, %v", q, err)
	}
}
