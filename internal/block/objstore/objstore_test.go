package objstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
)

func TestDir(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "vol-1"))
	blocktest.ObjectStore(t, func() block.ObjectStore { return d })
	p, err := Open(t.Context(), "dir:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	moves(t, p, "vol-1")
	blocktest.Place(t, p, "test")
}

// TestS3 runs against a small server of its own, or one that interop/ceph starts, or any other:
//
//	SEALDESK_TEST_S3='s3://BUCKET/?endpoint=http://127.0.0.1:7480' AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… go test ./internal/block/objstore
func TestS3(t *testing.T) {
	place := os.Getenv("SEALDESK_TEST_S3")
	if place == "" {
		place = startS3(t)
	}
	s, err := OpenS3(context.Background(), place)
	if err != nil {
		t.Fatal(err)
	}
	at := s.At("test-" + ids.Hex("", 16))
	blocktest.ObjectStore(t, func() block.ObjectStore { return at })
	p, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("volume", func(t *testing.T) { moves(t, p, "test-"+ids.Hex("", 16)) })
	t.Run("snapshots", func(t *testing.T) {
		name := "test-" + ids.Hex("", 16)
		start := time.Now()
		blocktest.Place(t, p, name)
		t.Logf("the suite: %v", time.Since(start))
	})
}

// moves takes a volume from host to host: what is flushed to the store is there, and the host that was overtaken stops.
func moves(t *testing.T, p block.Place, id string) {
	key := secret.New(bytes.Repeat([]byte{3}, 64))
	host := func() (string, block.Options) {
		dir := filepath.Join(t.TempDir(), "v")
		r, err := block.NewRemote(block.RemoteConfig{Dir: dir, Place: p, ID: id, FlushRemote: true})
		if err != nil {
			t.Fatal(err)
		}
		return dir, block.Options{VolumeID: id, SizeBytes: 64 << 20, Key: key, FS: r, FlushCheckpoints: true, CheckpointInterval: -1}
	}
	dir, opt := host()
	if _, err := block.Create(dir, opt); err != nil {
		t.Fatal(err)
	}
	open := func(dir string, opt block.Options) *block.Volume {
		v, err := block.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Abandon)
		return v
	}
	a := open(dir, opt)
	data := bytes.Repeat([]byte("sealdesk"), 20<<17) // 20 MiB
	if _, err := a.WriteAt(data, 4096); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := a.WriteAt(data[:4096], 0); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("4 KiB and a flush to the store: %v", time.Since(start))
	start = time.Now()
	b := open(host())
	got := make([]byte, len(data))
	if _, err := b.ReadAt(got[:4096], 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("taken over, first block read after %v", time.Since(start))
	if _, err := b.ReadAt(got, 4096); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the other host reads something else: %v", err)
	}
	_, werr := a.WriteAt(data[:4096], 0)
	if err := errors.Join(werr, a.Flush()); !errors.Is(err, block.ErrFenced) {
		t.Errorf("flush of the host that was overtaken: %v, want ErrFenced", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := block.DestroyRemote(context.Background(), p, id); err != nil {
		t.Error(err)
	}
}

func TestPlaces(t *testing.T) {
	for _, place := range []string{"", "bucket", "http://x/y", "s3:///prefix", "s3://user:secret@bucket/"} {
		if _, err := OpenS3(context.Background(), place); err == nil {
			t.Errorf("OpenS3(%q) succeeded", place)
		}
	}
}
