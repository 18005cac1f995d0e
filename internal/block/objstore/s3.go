package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/ids"
)

// S3 keeps objects in a bucket of an S3-compatible service, all under one prefix.
type S3 struct {
	client *s3.Client
	bucket string
	prefix string
}

var _ block.ObjectStore = (*S3)(nil)

// OpenS3 opens a place in a bucket that exists:
//
//	s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION
//
// endpoint is left out for AWS. Credentials come from where the AWS SDKs look for them (environment, shared files, roles). It
// fails when the service does not honour create-only puts.
func OpenS3(ctx context.Context, place string) (*S3, error) {
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("object store %q is not of the form s3://BUCKET/PREFIX?endpoint=URL&region=REGION", place)
	}
	region := u.Query().Get("region")
	if region == "" {
		region = "us-east-1"
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return nil, fmt.Errorf("object store: %w", err)
	}
	s := &S3{bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	if s.prefix != "" {
		s.prefix += "/"
	}
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		if e := u.Query().Get("endpoint"); e != "" {
			o.BaseEndpoint, o.UsePathStyle = &e, true
			// services older than AWS's checksum headers refuse them
			o.RequestChecksumCalculation, o.ResponseChecksumValidation = aws.RequestChecksumCalculationWhenRequired, aws.ResponseChecksumValidationWhenRequired
		}
	})
	return s, s.probe(ctx)
}

// At is the place of one volume.
func (s *S3) At(name string) *S3 {
	return &S3{client: s.client, bucket: s.bucket, prefix: s.prefix + name + "/"}
}

func (s *S3) probe(ctx context.Context) error {
	name := "probe-" + ids.Hex("", 16)
	if err := s.Put(ctx, name, []byte("1")); err != nil {
		return fmt.Errorf("object store: %w", err)
	}
	err := s.Put(ctx, name, []byte("2"))
	if derr := s.Delete(ctx, name); derr != nil {
		return fmt.Errorf("object store: %w", derr)
	}
	if !errors.Is(err, block.ErrObjectExists) {
		return fmt.Errorf("object store: the service does not honour If-None-Match: * (a second put of one name: %v); two hosts could write one volume", err)
	}
	return nil
}

// Put implements block.ObjectStore.
func (s *S3) Put(ctx context.Context, name string, data []byte) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + name), Body: bytes.NewReader(data), IfNoneMatch: aws.String("*")})
	var e smithy.APIError
	if errors.As(err, &e) && (e.ErrorCode() == "PreconditionFailed" || e.ErrorCode() == "ConditionalRequestConflict") {
		return fmt.Errorf("%s: %w", name, block.ErrObjectExists)
	}
	return err
}

// Get implements block.ObjectStore.
func (s *S3) Get(ctx context.Context, name string) ([]byte, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + name)})
	if err != nil {
		var e smithy.APIError
		if errors.As(err, &e) && e.ErrorCode() == "NoSuchKey" {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// List implements block.ObjectStore.
func (s *S3) List(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	for p := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + prefix)}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range out.Contents {
			names = append(names, strings.TrimPrefix(aws.ToString(o.Key), s.prefix))
		}
	}
	return names, nil
}

// Delete implements block.ObjectStore.
func (s *S3) Delete(ctx context.Context, name string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + name)})
	return err
}
