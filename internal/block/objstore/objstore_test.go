package objstore

import (
	"context"
	"os"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
	"github.com/sealdesk/sealdesk/internal/ids"
)

func TestDir(t *testing.T) {
	d := Dir(t.TempDir())
	blocktest.ObjectStore(t, func() block.ObjectStore { return d })
}

// TestS3 runs against a service that interop/ceph starts, or any other:
//
//	SEALDESK_TEST_S3='s3://BUCKET/?endpoint=http://127.0.0.1:7480' AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… go test ./internal/block/objstore
func TestS3(t *testing.T) {
	place := os.Getenv("SEALDESK_TEST_S3")
	if place == "" {
		t.Skip("SEALDESK_TEST_S3 names no S3 service; interop/ceph runs one")
	}
	s, err := OpenS3(context.Background(), place)
	if err != nil {
		t.Fatal(err)
	}
	at := s.At("test-" + ids.Hex("", 16))
	blocktest.ObjectStore(t, func() block.ObjectStore { return at })
}

func TestPlaces(t *testing.T) {
	for _, place := range []string{"", "bucket", "http://x/y", "s3:///prefix", "s3://user:secret@bucket/"} {
		if _, err := OpenS3(context.Background(), place); err == nil {
			t.Errorf("OpenS3(%q) succeeded", place)
		}
	}
}
