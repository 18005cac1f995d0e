package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/spf13/cobra"
)

// client is how an operator's command reaches a server: the same endpoint,
// region and credentials that the AWS CLI takes from its environment; without
// credentials there, the root credentials of a data directory that we may read.
type client struct {
	endpoint, region, profile, dataDir string
}

func (c *client) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&c.endpoint, "endpoint-url", "", "server (default: AWS_ENDPOINT_URL, else http://127.0.0.1:8443)")
	f.StringVar(&c.region, "region", "", "region (default: AWS_REGION, AWS_DEFAULT_REGION, else us-east-1)")
	f.StringVar(&c.profile, "profile", "", "profile of the AWS configuration")
	f.StringVar(&c.dataDir, "data-dir", defaultDataDir(), "data directory whose root credentials are used when there are no others")
}

// config resolves endpoint, region and credentials.
func (c *client) config(ctx context.Context) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{config.WithEC2IMDSClientEnableState(imds.ClientDisabled)} // not AWS's machine
	if c.profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(c.profile))
	}
	if kept := filepath.Join(c.dataDir, "root-credentials"); os.Getenv("AWS_ACCESS_KEY_ID") == "" && c.profile == "" && os.Getenv("AWS_PROFILE") == "" {
		if _, err := os.Stat(kept); err == nil {
			opts = append(opts, config.WithSharedCredentialsFiles([]string{kept}))
		}
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if c.region != "" {
		cfg.Region = c.region
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if c.endpoint != "" {
		cfg.BaseEndpoint = &c.endpoint
	}
	if cfg.BaseEndpoint == nil {
		cfg.BaseEndpoint = aws.String("http://127.0.0.1:8443")
	}
	return cfg, nil
}

// extension calls an operation of the service "sealdesk", which AWS does not have.
func extension(ctx context.Context, cfg aws.Config, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *cfg.BaseEndpoint+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Sealdesk_20261101."+operation)
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --data-dir: %w", err)
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), "sealdesk", cfg.Region, time.Now()); err != nil {
		return fmt.Errorf("sign the request: %w", err)
	}
	var httpClient aws.HTTPClient = http.DefaultClient
	if cfg.HTTPClient != nil {
		httpClient = cfg.HTTPClient
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return fmt.Errorf("reach the server: %w (is `sealdesk serve` running? --endpoint-url says where)", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the reply: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
			Capital string `json:"Message"`
		}
		_ = json.Unmarshal(b, &e)
		if e.Message == "" {
			e.Message = e.Capital
		}
		if e.Type == "" {
			return fmt.Errorf("%s: HTTP %s", operation, resp.Status)
		}
		return errors.New(strings.TrimSpace(e.Type + ": " + e.Message))
	}
	return json.Unmarshal(b, out)
}
