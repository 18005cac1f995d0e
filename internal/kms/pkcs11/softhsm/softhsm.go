// Package softhsm gives tests a PKCS #11 token in software: SoftHSM, Debian's
// package softhsm2.
package softhsm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Token is a token that was made for one test.
type Token struct {
	Module, Label, PIN, SOPIN string
	conf                      string
	deleted                   bool
}

var modules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so"}

// The library reads SOFTHSM2_CONF once, so all tests of a process share a
// directory. It is there while a token is.
var (
	mu         sync.Mutex
	dir        string
	made, live int
)

func enter() (label string, err error) {
	mu.Lock()
	defer mu.Unlock()
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sealdesk-softhsm-"); err != nil {
			return "", err
		}
		if err = os.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf")); err != nil {
			return "", err
		}
	}
	tokens := filepath.Join(dir, "tokens")
	if err = os.MkdirAll(tokens, 0o700); err != nil {
		return "", err
	}
	conf := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err = os.WriteFile(filepath.Join(dir, "softhsm2.conf"), []byte(conf), 0o600); err != nil {
		return "", err
	}
	made++
	live++
	return fmt.Sprintf("sealdesk-test-%d", made), nil
}

func leave() {
	mu.Lock()
	defer mu.Unlock()
	if live--; live == 0 {
		_ = os.RemoveAll(dir)
	}
}

// New makes a token, or skips the test when SoftHSM is not installed.
func New(t testing.TB) *Token {
	t.Helper()
	module := ""
	for _, m := range modules {
		if _, err := os.Stat(m); err == nil {
			module = m
			break
		}
	}
	if module == "" {
		t.Skip("needs SoftHSM: install the package softhsm2")
	}
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		t.Skip("needs softhsm2-util: install the package softhsm2")
	}
	label, err := enter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	tok := &Token{Module: module, Label: label, PIN: "kmsuser1", SOPIN: "officer1", conf: filepath.Join(dir, "softhsm2.conf")}
	tok.util(t, "--init-token", "--free", "--label", tok.Label, "--pin", tok.PIN, "--so-pin", tok.SOPIN)
	t.Cleanup(func() {
		if !tok.deleted {
			tok.Delete(t)
		}
	})
	return tok
}

// Env is the environment a process needs to find the token.
func (tok *Token) Env() string { return "SOFTHSM2_CONF=" + tok.conf }

// Dir is where the library keeps its tokens.
func (tok *Token) Dir() string { return filepath.Join(filepath.Dir(tok.conf), "tokens") }

// Delete destroys the token, as a lost HSM would be.
func (tok *Token) Delete(t testing.TB) {
	t.Helper()
	tok.deleted = true
	tok.util(t, "--delete-token", "--token", tok.Label)
}

func (tok *Token) util(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command("softhsm2-util", args...)
	cmd.Env = append(os.Environ(), tok.Env())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util %v: %v: %s", args[:1], err, out)
	}
}
