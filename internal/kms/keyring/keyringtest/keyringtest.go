// Package keyringtest is what every keyring.Seal must do, as a test.
package keyringtest

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Seal tests a driver. fresh makes a seal, again opens one anew with the same
// passphrase, token or nothing, other makes one that must not open what fresh sealed
// (nil: the driver has no secret).
func Seal(t *testing.T, fresh func() keyring.Seal, again func(keyring.Seal) keyring.Seal, other func() keyring.Seal) {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	head := []byte("head")
	a := fresh()
	defer a.Close()
	first, err := a.Seal(secret.New(bytes.Clone(raw)), head)
	if err != nil {
		t.Fatalf("Seal = %v", err)
	}
	second, err := a.Seal(secret.New(bytes.Clone(raw)), head)
	if err != nil {
		t.Fatalf("Seal again = %v", err)
	}
	params := bytes.Clone(a.Parameters())
	if other != nil {
		if bytes.Contains(first, raw) || bytes.Contains(params, raw) {
			t.Error("the key can be read in its sealed form")
		}
		if bytes.Equal(first, second) {
			t.Error("sealing twice gave the same bytes: a nonce was used again")
		}
	}
	b := again(a)
	defer b.Close()
	if b.Kind() != a.Kind() || !bytes.Equal(b.Parameters(), params) {
		t.Errorf("opened again: kind %s, parameters %s; want %s, %s", b.Kind(), b.Parameters(), a.Kind(), params)
	}
	for _, s := range []keyring.Seal{a, b} {
		for _, sealed := range [][]byte{first, second} {
			k, err := s.Open(sealed, head)
			if err != nil || !bytes.Equal(k.Expose(), raw) {
				t.Fatalf("Open = %v, want the key", err)
			}
			k.Wipe()
		}
	}
	for n := range first {
		if _, err := b.Open(first[:n], head); err == nil {
			t.Fatalf("cut to %d bytes: it opened", n)
		}
	}
	if other == nil {
		return
	}
	for i := range first {
		bad := bytes.Clone(first)
		bad[i] ^= 1
		if _, err := b.Open(bad, head); err == nil {
			t.Fatalf("byte %d flipped: it opened", i)
		}
	}
	if _, err := b.Open(first, []byte("other head")); err == nil {
		t.Error("it opened with another head")
	}
	o := other()
	defer o.Close()
	if _, err := o.Open(first, head); err == nil {
		t.Error("another secret opened it")
	}
}
