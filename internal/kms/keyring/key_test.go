package keyring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealdesk/sealdesk/internal/secret"
)

func TestOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	r, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("0123456789abcdef")
	w, err := r.Wrap("p", secret.New(bytes.Clone(plain)), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Unwrap("p", w, []byte("aad"))
	if err != nil || !bytes.Equal(got.Expose(), plain) {
		t.Fatalf("Unwrap after reopening = %v, want the plaintext", err)
	}
	for i := range w {
		bad := bytes.Clone(w)
		bad[i] ^= 1
		if _, err := r.Unwrap("p", bad, []byte("aad")); !errors.Is(err, ErrUnwrap) {
			t.Fatalf("byte %d flipped: Unwrap = %v, want ErrUnwrap", i, err)
		}
	}
	for n := range w {
		if _, err := r.Unwrap("p", w[:n], []byte("aad")); !errors.Is(err, ErrUnwrap) {
			t.Fatalf("cut to %d bytes: Unwrap = %v, want ErrUnwrap", n, err)
		}
	}
	if _, err := r.Unwrap("q", w, []byte("aad")); !errors.Is(err, ErrUnwrap) {
		t.Errorf("another purpose: Unwrap = %v, want ErrUnwrap", err)
	}
	if _, err := r.Unwrap("p", w, []byte("AAD")); !errors.Is(err, ErrUnwrap) {
		t.Errorf("another context: Unwrap = %v, want ErrUnwrap", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path); err == nil {
		t.Error("a root key that others may read was accepted")
	}
}
