package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// testKey is a data key of the size KMS gives EBS.
func testKey(seed byte) *secret.Bytes { return secret.New(bytes.Repeat([]byte{seed}, 64)) }

func create(t testing.TB, dir string, opt Options) Anchor {
	t.Helper()
	if opt.VolumeID == "" {
		opt.VolumeID = "vol-0123456789abcdef0"
	}
	if opt.SizeBytes == 0 {
		opt.SizeBytes = 64 << 20
	}
	if opt.Key == nil {
		opt.Key = testKey(1)
	}
	a, err := Create(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func openVol(t testing.TB, dir string, opt Options) *Volume {
	t.Helper()
	if opt.Key == nil {
		opt.Key = testKey(1)
	}
	v, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Abandon)
	return v
}

func mustWrite(t testing.TB, d Device, p []byte, off int64) {
	t.Helper()
	if _, err := d.WriteAt(p, off); err != nil {
		t.Fatalf("WriteAt(%d bytes, %d): %v", len(p), off, err)
	}
}

func wantRead(t testing.TB, d Device, want []byte, off int64) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, off); err != nil {
		t.Fatalf("ReadAt(%d bytes, %d): %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Fatalf("ReadAt(%d bytes, %d): byte %d is %#x, want %#x", len(want), off, i, got[i], want[i])
	}
}

func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func TestWriteReopenRead(t *testing.T) {
	for _, end := range []string{"close", "abandon"} {
		t.Run(end, func(t *testing.T) {
			dir := t.TempDir()
			create(t, dir, Options{})
			v := openVol(t, dir, Options{})
			a, b := noise(1, 5<<20), noise(2, 1000)
			wantRead(t, v, make([]byte, 8192), 0)
			mustWrite(t, v, a, 1<<20)
			mustWrite(t, v, b, 12345)
			wantRead(t, v, a, 1<<20)
			wantRead(t, v, b, 12345)
			if end == "close" {
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				v.Abandon()
			}
			v = openVol(t, dir, Options{Anchor: v.anchor})
			wantRead(t, v, a, 1<<20)
			wantRead(t, v, b, 12345)
			wantRead(t, v, make([]byte, 4096), 60<<20)
			if err := v.Discard(1<<20, 5<<20); err != nil {
				t.Fatal(err)
			}
			wantRead(t, v, make([]byte, 5<<20), 1<<20)
			if err := v.Flush(); err != nil {
				t.Fatal(err)
			}
			v.Abandon()
			v = openVol(t, dir, Options{})
			wantRead(t, v, make([]byte, 5<<20), 1<<20)
			wantRead(t, v, b, 12345)
		})
	}
}

func TestOpenRefusals(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, Options{})
	v := openVol(t, dir, Options{})
	if _, err := Open(dir, Options{Key: testKey(1)}); !errors.Is(err, ErrBusy) {
		t.Errorf("second Open: %v, want ErrBusy", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("ReadAt after Close: %v, want ErrClosed", err)
	}
	if _, err := Open(dir, Options{Key: testKey(2)}); !errors.Is(err, ErrKey) {
		t.Errorf("Open with another key: %v, want ErrKey", err)
	}
	if _, err := Open(dir, Options{Key: testKey(1), VolumeID: "vol-other"}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Open as another volume: %v, want ErrCorrupt", err)
	}
	if _, err := Create(dir, Options{VolumeID: "vol-x", SizeBytes: 1 << 20, Key: testKey(1)}); !errors.Is(err, ErrExists) {
		t.Errorf("Create over a volume: %v, want ErrExists", err)
	}
	ro := openVol(t, dir, Options{ReadOnly: true})
	if _, err := ro.WriteAt(make([]byte, 4096), 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write to a read-only volume: %v, want ErrReadOnly", err)
	}
	if _, err := ro.ReadAt(make([]byte, 2), ro.Size()-1); !errors.Is(err, ErrRange) {
		t.Errorf("read past the end: %v, want ErrRange", err)
	}
}
