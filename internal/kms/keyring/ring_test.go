package keyring_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/kms/keyring/keyringtest"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11/softhsm"
	"github.com/sealdesk/sealdesk/internal/secret"
)

var cheap = keyring.Cost{MemoryKiB: 64, Time: 1, Lanes: 1}

func sec(s string) *secret.Bytes { return secret.New([]byte(s)) }

func passphraseSeal(t *testing.T, text string) keyring.Seal {
	t.Helper()
	s, err := keyring.NewPassphrase(sec(text), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFileSeal(t *testing.T) {
	keyringtest.Seal(t, func() keyring.Seal { return keyring.FileSeal{} }, func(s keyring.Seal) keyring.Seal { return s }, nil)
}

func TestPassphraseSeal(t *testing.T) {
	keyringtest.Seal(t, func() keyring.Seal { return passphraseSeal(t, "correct horse battery") },
		func(s keyring.Seal) keyring.Seal { return s }, // a Ring opens it again: TestRing
		func() keyring.Seal { return passphraseSeal(t, "wrong horse battery") })
}

func token(hsm *softhsm.Token, key string) keyring.TokenConfig {
	return keyring.TokenConfig{Config: pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, Key: key}
}

func TestTokenSeal(t *testing.T) {
	hsm := softhsm.New(t)
	open := func(key string, make bool) keyring.Seal {
		s, err := keyring.NewToken(token(hsm, key), sec(hsm.PIN), make)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	keyringtest.Seal(t, func() keyring.Seal { return open("root", true) }, func(keyring.Seal) keyring.Seal { return open("root", false) },
		func() keyring.Seal { return open("other", true) })
	if _, err := keyring.NewToken(token(hsm, "none"), sec(hsm.PIN), false); !errors.Is(err, pkcs11.ErrNoKey) {
		t.Errorf("a key that is not there = %v, want ErrNoKey", err)
	}
	if _, err := keyring.NewToken(token(hsm, "root"), sec("000000"), false); !errors.Is(err, pkcs11.ErrPIN) {
		t.Errorf("a wrong PIN = %v, want ErrPIN", err)
	}
}

func open(t *testing.T, cfg keyring.Config) *keyring.Ring {
	t.Helper()
	cfg.Cost = cheap
	r, err := keyring.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// wrapped wraps a text and checks that r opens it.
func wrapped(t *testing.T, r *keyring.Ring, text string) []byte {
	t.Helper()
	w, err := r.Wrap("p", sec(text), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	opens(t, r, w, text)
	return w
}

func opens(t *testing.T, r *keyring.Ring, w []byte, text string) {
	t.Helper()
	got, err := r.Unwrap("p", w, []byte("aad"))
	if err != nil || string(got.Expose()) != text {
		t.Fatalf("Unwrap = %v, want %q", err, text)
	}
}

func TestRingOfEachKind(t *testing.T) {
	const right, wrong = "correct horse battery", "wrong horse battery"
	for _, kind := range []string{keyring.File, keyring.Passphrase, keyring.PKCS11} {
		t.Run(kind, func(t *testing.T) {
			cfg := keyring.Config{Dir: filepath.Join(t.TempDir(), "root"), Kind: kind}
			secretText := right
			if kind == keyring.PKCS11 {
				hsm := softhsm.New(t)
				cfg.Token, secretText = keyring.Tokens(token(hsm, "root")), hsm.PIN
			}
			first := cfg
			if kind != keyring.File {
				if _, err := keyring.Open(cfg); err == nil {
					t.Error("a first root key was made without its secret")
				}
				first.Secret = sec(secretText)
			}
			r := open(t, first)
			w := wrapped(t, r, "hello")
			if st := r.Status(); len(st) != 1 || st[0].Seal != kind || !st[0].Current || !st[0].Open {
				t.Errorf("Status = %+v", st)
			}
			r.Close()
			if _, err := r.Wrap("p", sec("x"), nil); !errors.Is(err, keyring.ErrSealed) {
				t.Errorf("Wrap after Close = %v, want ErrSealed", err)
			}
			again := open(t, cfg) // without the secret
			if kind == keyring.File {
				opens(t, again, w, "hello")
				return
			}
			err := again.Sealed()
			if !errors.Is(err, keyring.ErrSealed) {
				t.Fatalf("Sealed = %v, want ErrSealed", err)
			}
			if _, err := again.Unwrap("p", w, []byte("aad")); !errors.Is(err, keyring.ErrSealed) {
				t.Errorf("Unwrap while sealed = %v, want ErrSealed", err)
			}
			err = again.Unseal(sec(wrong))
			if kind == keyring.Passphrase && !errors.Is(err, keyring.ErrPassphrase) || kind == keyring.PKCS11 && !errors.Is(err, pkcs11.ErrPIN) {
				t.Errorf("Unseal with the wrong secret = %v", err)
			}
			if again.Sealed() == nil {
				t.Error("unsealed by the wrong secret")
			}
			if err := again.Unseal(sec(secretText)); err != nil {
				t.Fatalf("Unseal = %v", err)
			}
			opens(t, again, w, "hello")
			if err := again.Unseal(sec(wrong)); err != nil {
				t.Errorf("Unseal of an open ring = %v, want nil", err)
			}
			bad := cfg
			if bad.Secret = sec(wrong); kind == keyring.Passphrase {
				if _, err := keyring.Open(bad); !errors.Is(err, keyring.ErrPassphrase) {
					t.Errorf("Open with the wrong passphrase = %v, want ErrPassphrase", err)
				}
			}
			raw, err := os.ReadFile(filepath.Join(cfg.Dir, "00000001.key"))
			if err != nil || bytes.Contains(raw, []byte(secretText)) {
				t.Errorf("the key file holds the secret, or cannot be read: %v", err)
			}
		})
	}
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	legacy := filepath.Join(dir, "root.key")
	k, err := keyring.OpenFile(legacy) // the form of before
	if err != nil {
		t.Fatal(err)
	}
	old, err := k.Wrap("p", sec("old"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	legacyText, err := os.ReadFile(legacy)
	if err != nil {
		t.Fatal(err)
	}
	cfg := keyring.Config{Dir: filepath.Join(dir, "root"), Legacy: legacy}
	r := open(t, cfg)
	opens(t, r, old, "old")
	if err := r.Rotate(passphraseSeal(t, "correct horse battery")); err != nil {
		t.Fatal(err)
	}
	opens(t, r, old, "old")
	newer := wrapped(t, r, "new")
	if bytes.Equal(newer[1:9], old[1:9]) {
		t.Error("after Rotate the old root key still wraps")
	}
	if err := r.Rotate(nil); !errors.Is(err, keyring.ErrRotating) {
		t.Errorf("a second Rotate = %v, want ErrRotating", err)
	}
	if _, err := os.Stat(legacy); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file of the old root key is still there under no passphrase")
	}
	raw, _ := hex.DecodeString(strings.TrimSpace(strings.TrimPrefix(string(legacyText), "sealdesk-root-key-1 ")))
	files, _ := filepath.Glob(filepath.Join(dir, "root", "*"))
	if len(files) != 2 {
		t.Errorf("root key files: %v, want two", files)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString(raw))) {
			t.Errorf("%s holds the old root key in the clear (%v)", f, err)
		}
	}
	r.Close()
	again := open(t, cfg)
	if again.Sealed() == nil {
		t.Fatal("open without the new passphrase")
	}
	if err := again.Unseal(sec("correct horse battery")); err != nil {
		t.Fatal(err)
	}
	opens(t, again, old, "old")
	opens(t, again, newer, "new")
}

func TestDamagedKeyFile(t *testing.T) {
	cfg := keyring.Config{Dir: filepath.Join(t.TempDir(), "root"), Kind: keyring.Passphrase, Secret: sec("correct horse battery")}
	open(t, cfg).Close()
	path := filepath.Join(cfg.Dir, "00000001.key")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte) error {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := keyring.Open(keyring.Config{Dir: cfg.Dir, Secret: sec("correct horse battery")})
		return err
	}
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(good, &f); err != nil {
		t.Fatal(err)
	}
	for member, value := range map[string]any{"generation": 2, "id": "0011223344556677", "created": "2001-01-01T00:00:00Z", "sealed": "AAAA", "check": "0011223344556677",
		"parameters": map[string]any{"kdf": "argon2id", "memoryKiB": 1 << 30, "time": 1, "lanes": 1, "salt": "AAAAAAAAAAAAAAAAAAAAAA=="}, "format": "x", "extra": 1} {
		changed := map[string]any{}
		for k, v := range f {
			changed[k] = v
		}
		changed[member] = value
		b, _ := json.Marshal(changed)
		if err := try(b); !errors.Is(err, keyring.ErrDamaged) {
			t.Errorf("%s changed: Open = %v, want ErrDamaged", member, err)
		}
	}
	for _, n := range []int{0, 1, len(good) / 2, len(good) - 3} {
		if err := try(good[:n]); !errors.Is(err, keyring.ErrDamaged) {
			t.Errorf("cut to %d bytes: Open = %v, want ErrDamaged", n, err)
		}
	}
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(cfg); err == nil {
		t.Error("a root key file that others may read was accepted")
	}
}

// The files of version 1 stay readable for ever.
func TestGoldenKeyFiles(t *testing.T) {
	for name, passphrase := range map[string]string{"file": "", "passphrase": "golden passphrase"} {
		b, err := os.ReadFile("testdata/root-v1-" + name + ".key")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000001.key"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := keyring.Open(keyring.Config{Dir: dir, Secret: sec(passphrase)})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		w, err := os.ReadFile("testdata/wrapped-v1-" + name + ".base64")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(w)))
		if err != nil {
			t.Fatal(err)
		}
		opens(t, r, raw, "golden")
	}
}

func FuzzParseKeyFile(f *testing.F) {
	for _, name := range []string{"file", "passphrase"} {
		b, err := os.ReadFile("testdata/root-v1-" + name + ".key")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"format":"sealdesk root key","version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := keyring.ParseKeyFile(b)
		if err == nil && (k.Generation < 0 || len(k.ID) != 16) {
			t.Errorf("accepted %+v", k)
		}
	})
}
