package kms

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/secret"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew; only ever add versions, never change one")

// golden is a ciphertext of one version of the format, which must open for ever.
type golden struct {
	Material, Account, KeyID, MaterialID string
	Context                              map[string]string
	Plaintext, Blob                      []byte
}

func goldenMaterial(s string) *secret.Bytes {
	sum := sha256.Sum256([]byte(s))
	return secret.New(sum[:])
}

const goldenFile = "testdata/ciphertext-v1.json"

func TestGoldenCiphertext(t *testing.T) {
	id := hex.EncodeToString(bytes.Repeat([]byte{0xab}, 32))
	cases := []golden{
		{Material: "one", Account: acct, KeyID: "1234abcd-12ab-34cd-56ef-1234567890ab", MaterialID: id, Plaintext: []byte("attack at dawn")},
		{Material: "two", Account: "000000000001", KeyID: "mrk-1234abcd12ab34cd56ef1234567890ab", MaterialID: id,
			Context:   map[string]string{"aws:workspaces:sid-directoryid": "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]", "aws:ebs:id": "vol-1234abcd"},
			Plaintext: bytes.Repeat([]byte{1}, 64)},
		{Material: "three", Account: acct, KeyID: "1234abcd-12ab-34cd-56ef-1234567890ab", MaterialID: id, Context: map[string]string{"": "", "é": "\x00"}, Plaintext: bytes.Repeat([]byte{7}, 4096)},
	}
	if *rewrite {
		for i := range cases {
			g := &cases[i]
			var err error
			if g.Blob, err = sealBlob(blobRef{g.Account, g.KeyID, g.MaterialID}, goldenMaterial(g.Material), g.Plaintext, g.Context); err != nil {
				t.Fatal(err)
			}
		}
		js, _ := json.MarshalIndent(cases, "", " ")
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, append(js, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	js, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var kept []golden
	if err := json.Unmarshal(js, &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept) < len(cases) {
		t.Errorf("%d golden ciphertexts, want %d", len(kept), len(cases))
	}
	for i, g := range kept {
		ref, err := parseBlob(g.Blob)
		if err != nil || ref != (blobRef{g.Account, g.KeyID, g.MaterialID}) {
			t.Errorf("golden %d: header %+v, %v, want %+v", i, ref, err, g)
			continue
		}
		plain, err := openBlob(g.Blob, goldenMaterial(g.Material), g.Context)
		if err != nil || !bytes.Equal(plain, g.Plaintext) {
			t.Errorf("golden %d opens to %x, %v, want %x", i, plain, err, g.Plaintext)
		}
		if _, err := openBlob(g.Blob, goldenMaterial("other"), g.Context); err == nil {
			t.Errorf("golden %d opens under other material", i)
		}
	}
}

// TestContextForm: no two contexts have the same canonical form.
func TestContextForm(t *testing.T) {
	seen := map[string]map[string]string{}
	for _, m := range []map[string]string{nil, {"a": "b"}, {"ab": ""}, {"": "ab"}, {"a": "b", "c": "d"}, {"a": "bc", "d": ""}, {"a": "d", "c": "b"}, {"a\x00": "b"}, {"a": "\x00b"}} {
		form := string(appendContext(nil, m))
		if other, dup := seen[form]; dup {
			t.Errorf("%v and %v have the same form", m, other)
		}
		seen[form] = m
	}
	if a, b := appendContext(nil, map[string]string{"x": "1", "y": "2"}), appendContext(nil, map[string]string{"y": "2", "x": "1"}); !bytes.Equal(a, b) {
		t.Error("the form depends on the order of the map")
	}
}

// FuzzBlob: no input makes parse or open panic, or opens.
func FuzzBlob(f *testing.F) {
	js, _ := os.ReadFile(goldenFile)
	var kept []golden
	_ = json.Unmarshal(js, &kept)
	for _, g := range kept {
		f.Add(g.Blob)
	}
	f.Add([]byte{1})
	material := goldenMaterial("unused")
	f.Fuzz(func(t *testing.T, blob []byte) {
		if _, err := parseBlob(blob); err != nil {
			return
		}
		if plain, err := openBlob(blob, material, nil); err == nil {
			t.Fatalf("%x opens to %x", blob, plain)
		}
	})
}

// FuzzToken: what parses prints back to the same bytes.
func FuzzToken(f *testing.F) {
	g := &Grant{key: grantKey(testKeyPath, hexOf(make([]byte, 32)))}
	tok, err := newToken(acct, "1234abcd-12ab-34cd-56ef-1234567890ab", g)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok)
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		account, keyID, grantID, raw, err := parseToken(token)
		if err != nil {
			return
		}
		if !validGrantID(grantID) || !isKeyID(keyID) {
			t.Fatalf("token %q names key %q grant %q", token, keyID, grantID)
		}
		if len(account) == 12 {
			b := make([]byte, 25)
			if err := packKey(b, account, keyID); err != nil || !bytes.Equal(b, raw[1:tokenGrant]) {
				t.Fatalf("token %q does not print back: %x, %v", token, b, err)
			}
		}
	})
}

// FuzzImport: no wrapped material makes unwrapping panic.
func FuzzImport(f *testing.F) {
	f.Add(make([]byte, 16), []byte("138bdeaa9b8fa7fc61f97742e72248ee"))
	f.Add(make([]byte, 32), []byte{})
	f.Fuzz(func(t *testing.T, kek, in []byte) {
		out, err := unwrapPadded(kek, in)
		if err == nil && len(out) > len(in)-8 {
			t.Fatalf("unwrapPadded(%x) = %x", in, out)
		}
	})
}

// BenchmarkDecrypt is the service's own part of a Decrypt: targets and operation,
// without authorisation.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkDecrypt(b *testing.B) {
	h := newBench(b)
	c := h.root(acct)
	k := h.newKey(&kms.CreateKeyInput{})
	ec := map[string]string{sidName: "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]", ebsName: "vol-1234abcd"}
	blob := must[kms.GenerateDataKeyWithoutPlaintextOutput](h, c, "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: k.KeyId, NumberOfBytes: ptr(int32(64)), EncryptionContext: ec}).CiphertextBlob
	in := &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec}
	op := h.ops["Decrypt"]
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	defer func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") }()
	for range b.N {
		tx := h.st.Snapshot()
		if _, err := op.Targets(b.Context(), tx, c, in); err != nil {
			b.Fatal(err)
		}
		if _, err := op.Run(b.Context(), tx, c, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecryptGranted adds the authorisation under one of many grants.
func BenchmarkDecryptGranted(b *testing.B) {
	for _, n := range []int{10, 50_000} {
		b.Run(itoa(n), func(b *testing.B) {
			h := newBench(b)
			k := h.newKey(&kms.CreateKeyInput{})
			kp := path(acct, region, *k.KeyId)
			fill(h, kp, n)
			ec := map[string]string{sidName: "s", ebsName: "vol-3"}
			blob := must[kms.EncryptOutput](h, h.root(acct), "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: make([]byte, 64), EncryptionContext: ec}).CiphertextBlob
			in := &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec}
			h.free = false
			c := h.service("ec2")
			op := h.ops["Decrypt"]
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			defer func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") }()
			for range b.N {
				tx := h.st.Snapshot()
				ts, err := op.Targets(b.Context(), tx, c, in)
				if err != nil || !authorised(h, c, ts[0]) {
					b.Fatal("refused", err)
				}
				if _, err := op.Run(b.Context(), tx, c, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestMessageKey(t *testing.T) {
	for range 100 {
		material, n := make([]byte, 32), make([]byte, 32)
		_, _ = rand.Read(material)
		_, _ = rand.Read(n)
		h := hmac.New(sha256.New, material)
		h.Write([]byte(blobInfo))
		h.Write(n)
		h.Write([]byte{1})
		if got, want := messageKey(material, n), h.Sum(nil); !bytes.Equal(got[:], want) {
			t.Fatalf("messageKey(%x, %x) = %x, want %x", material, n, got, want)
		}
	}
}
