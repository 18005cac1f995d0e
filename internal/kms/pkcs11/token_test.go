package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11/softhsm"
	"github.com/sealdesk/sealdesk/internal/secret"
)

func pin(s string) *secret.Bytes { return secret.New([]byte(s)) }

func open(t *testing.T, hsm *softhsm.Token) *pkcs11.Token {
	t.Helper()
	tok, err := pkcs11.Open(t.Context(), pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, pin(hsm.PIN))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return tok
}

func TestKeyLife(t *testing.T) {
	hsm := softhsm.New(t)
	tok := open(t, hsm)
	ctx := t.Context()
	if _, err := tok.Key(ctx, "k"); !errors.Is(err, pkcs11.ErrNoKey) {
		t.Fatalf("Key before Generate: %v, want ErrNoKey", err)
	}
	if err := tok.Generate(ctx, "k", 256); err != nil {
		t.Fatal(err)
	}
	if err := tok.Generate(ctx, "k", 256); !errors.Is(err, pkcs11.ErrKeyExists) {
		t.Errorf("second Generate: %v, want ErrKeyExists", err)
	}
	info, err := tok.Key(ctx, "k")
	if want := (pkcs11.KeyInfo{Label: "k", Bits: 256, Kept: true}); err != nil || info != want {
		t.Errorf("Key = %+v, %v, want %+v", info, err, want)
	}
	plain, aad := []byte("attack at dawn"), []byte("context")
	sealed, err := tok.Seal(ctx, "k", plain, aad)
	if err != nil || len(sealed) != len(plain)+pkcs11.Overhead {
		t.Fatalf("Seal: %d bytes, %v, want %d", len(sealed), err, len(plain)+pkcs11.Overhead)
	}
	again, _ := tok.Seal(ctx, "k", plain, aad)
	if bytes.Equal(sealed, again) {
		t.Error("two messages have the same ciphertext")
	}
	// Another process's view: close, open anew.
	tok.Close()
	if _, err := tok.Seal(ctx, "k", plain, aad); !errors.Is(err, pkcs11.ErrClosed) {
		t.Errorf("Seal after Close: %v, want ErrClosed", err)
	}
	tok = open(t, hsm)
	got, err := tok.Open(ctx, "k", sealed, aad)
	if err != nil || !bytes.Equal(got.Expose(), plain) {
		t.Fatalf("Open: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := tok.Open(ctx, "k", bad, aad); !errors.Is(err, pkcs11.ErrCiphertext) {
			t.Errorf("Open with byte %d changed: %v, want ErrCiphertext", i, err)
		}
	}
	for _, bad := range [][]byte{nil, sealed[:pkcs11.Overhead], sealed[:len(sealed)-1]} {
		if _, err := tok.Open(ctx, "k", bad, aad); !errors.Is(err, pkcs11.ErrCiphertext) {
			t.Errorf("Open of %d bytes: %v, want ErrCiphertext", len(bad), err)
		}
	}
	if _, err := tok.Open(ctx, "k", sealed, []byte("other")); !errors.Is(err, pkcs11.ErrCiphertext) {
		t.Errorf("Open with other additional data: %v, want ErrCiphertext", err)
	}
	if r, err := tok.Random(ctx, 24); err != nil || r.Len() != 24 {
		t.Errorf("Random: %v", err)
	}
	for range 2 {
		if err := tok.Destroy(ctx, "k"); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	if _, err := tok.Open(ctx, "k", sealed, aad); !errors.Is(err, pkcs11.ErrNoKey) {
		t.Errorf("Open after Destroy: %v, want ErrNoKey", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	hsm := softhsm.New(t)
	for _, c := range []struct {
		name string
		cfg  pkcs11.Config
		pin  string
		want error
	}{
		{"no module", pkcs11.Config{Module: "/nonexistent.so", Token: hsm.Label}, hsm.PIN, pkcs11.ErrModule},
		{"no token", pkcs11.Config{Module: hsm.Module, Token: "nobody"}, hsm.PIN, pkcs11.ErrNoToken},
		{"wrong PIN", pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, "wrong-pin", pkcs11.ErrPIN},
	} {
		if _, err := pkcs11.Open(t.Context(), c.cfg, pin(c.pin)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// A login counts for the whole process; the PIN is checked all the same.
	open(t, hsm)
	if _, err := pkcs11.Open(t.Context(), pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, pin("wrong-pin")); !errors.Is(err, pkcs11.ErrPIN) {
		t.Errorf("wrong PIN while logged in: %v, want ErrPIN", err)
	}
}

// TestManyAtOnce has more callers than sessions, on two Tokens of one login; one closes in between.
func TestManyAtOnce(t *testing.T) {
	hsm := softhsm.New(t)
	a, b := open(t, hsm), open(t, hsm)
	if err := a.Generate(t.Context(), "k", 256); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		tok := a
		if i%2 == 1 {
			tok = b
		}
		wg.Go(func() {
			for j := range 20 {
				msg := fmt.Appendf(nil, "message %d of %d", j, i)
				sealed, err := tok.Seal(t.Context(), "k", msg, nil)
				if err != nil {
					t.Errorf("Seal: %v", err)
					return
				}
				got, err := tok.Open(t.Context(), "k", sealed, nil)
				if err != nil || !bytes.Equal(got.Expose(), msg) {
					t.Errorf("Open: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	a.Close()
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("the other Token's Close logged this one out: %v", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	tok := open(t, softhsm.New(t))
	if err := tok.Generate(t.Context(), "k", 256); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	// It may have been quicker than the look at the context.
	if _, err := tok.Seal(ctx, "k", []byte("x"), nil); err != nil && !errors.Is(err, pkcs11.ErrTokenGone) {
		t.Errorf("Seal after its context: %v, want ErrTokenGone", err)
	}
	if _, err := tok.Seal(t.Context(), "k", []byte("x"), nil); err != nil {
		t.Errorf("Seal afterwards: %v", err)
	}
}

func BenchmarkSeal(b *testing.B) {
	hsm := softhsm.New(b)
	tok, err := pkcs11.Open(b.Context(), pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, pin(hsm.PIN))
	if err != nil {
		b.Fatal(err)
	}
	defer tok.Close()
	if err := tok.Generate(b.Context(), "k", 256); err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tok.Seal(b.Context(), "k", msg, nil); err != nil {
			b.Fatal(err)
		}
	}
}
