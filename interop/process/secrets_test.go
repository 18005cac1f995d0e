package process

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"golang.org/x/sys/unix"
)

// memory tells whether the needle is in what a core dump of the process would hold.
func memory(t *testing.T, pid int, needle []byte) (found bool) {
	t.Helper()
	return copies(t, pid, needle) > 0
}

// copies reads what a core dump of the process would hold, its private writable
// mappings, and counts the needle in it.
func copies(t *testing.T, pid int, needle []byte) (found int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Skipf("needs to read the memory of another process: %v", err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("needs to read the memory of another process: %v", err)
	}
	defer mem.Close()
	lines := bufio.NewScanner(bytes.NewReader(maps))
	buf := make([]byte, 1<<20)
	read := 0
	for lines.Scan() {
		var from, to int64
		var perm string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &perm); err != nil || !strings.HasPrefix(perm, "rw-p") {
			continue
		}
		const overlap = 64
		for at := from; at < to; at += int64(len(buf)) - overlap {
			n, err := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			for part := buf[:n]; ; found++ {
				i := bytes.Index(part, needle)
				if i < 0 || len(buf)-len(part)+i >= len(buf)-overlap { // the next part has it
					break
				}
				part = part[i+1:]
			}
			if err != nil {
				break
			}
			read += n
		}
	}
	if read < 1<<20 {
		t.Fatalf("only %d bytes of process %d could be read", read, pid)
	}
	return found
}

// TestOneCopyOfTheRootKey: after starts, rotations, and hundreds of keys that were wrapped and
// unwrapped, the root key is in memory once, where it is locked, and in no other form.
func TestOneCopyOfTheRootKey(t *testing.T) {
	s := newServer(t, nil)
	use := func() {
		c := kms.NewFromConfig(s.config())
		for range 300 {
			k, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyMetadata.KeyId, Plaintext: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string, generation int) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(s.data, "root", fmt.Sprintf("%08d.key", generation)))
		if err != nil {
			t.Fatal(err)
		}
		var f struct{ Sealed []byte }
		if err := json.Unmarshal(text, &f); err != nil || len(f.Sealed) != 32 {
			t.Fatalf("the root key file: %v, a key of %d bytes", err, len(f.Sealed))
		}
		if n := copies(t, s.cmd.Process.Pid, f.Sealed); n != 1 {
			t.Errorf("%s the root key is in memory %d times, want once", when, n)
		}
		for form, b := range map[string]string{"base64": base64.StdEncoding.EncodeToString(f.Sealed), "hexadecimal": hex.EncodeToString(f.Sealed)} {
			if n := copies(t, s.cmd.Process.Pid, []byte(b)); n != 0 {
				t.Errorf("%s the root key is in memory %d times in %s", when, n, form)
			}
		}
	}
	use()
	check("after its making", 1)
	s.kill()
	s.start()
	use()
	check("after a start", 1)
	if out, err := s.command(nil, "root", "rotate").CombinedOutput(); err != nil {
		t.Fatalf("root rotate: %v\n%s", err, out)
	}
	use()
	check("after a rotation", 2)
}

// TestSecretsOfTheProcess: key material that a user imports and messages that are
// encrypted are in no file of the data directory, in no line of the log, and in no
// core file, since the process can leave none. Deleted material is gone from memory.
func TestSecretsOfTheProcess(t *testing.T) {
	s := newServer(t, nil)
	c := kms.NewFromConfig(s.config())
	k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Origin: "EXTERNAL"})
	if err != nil {
		t.Fatal(err)
	}
	id := k.KeyMetadata.KeyId
	material := make([]byte, 32)
	_, _ = rand.Read(material)
	p, err := c.GetParametersForImport(ctx, &kms.GetParametersForImportInput{KeyId: id, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"})
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), material, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ImportKeyMaterial(ctx, &kms.ImportKeyMaterialInput{KeyId: id, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped, ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE"}); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 48)
	_, _ = rand.Read(message)
	for range 20 {
		e, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: message, EncryptionContext: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob, EncryptionContext: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
		// Errors must not show it either.
		if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob}); err == nil {
			t.Fatal("decrypted without the encryption context")
		}
	}
	pid := s.cmd.Process.Pid
	if !memory(t, pid, material) {
		t.Fatal("the material of a key in use is not in the memory of the process: the test looks in the wrong place")
	}
	if _, err := c.DeleteImportedKeyMaterial(ctx, &kms.DeleteImportedKeyMaterialInput{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); memory(t, pid, material); {
		if time.Now().After(deadline) {
			t.Error("deleted key material is still in the memory of the process")
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	var core unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		t.Errorf("the process may leave core files of %d bytes, %v, want 0", core.Max, err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	if w, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || w.CoreDump() {
		t.Errorf("the process left a core file: %v", s.cmd.ProcessState)
	}
	s.cmd = nil

	look := func(where string, body []byte) {
		for what, secret := range map[string][]byte{"key material": material, "a message": message} {
			for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret))} {
				if bytes.Contains(body, form) {
					t.Errorf("%s is in %s", what, where)
				}
			}
		}
	}
	look("the log", s.log.Bytes())
	seen := false
	err = filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		seen = seen || bytes.Contains(body, []byte(aws.ToString(id)))
		look(path, body)
		return err
	})
	if err != nil || !seen {
		t.Errorf("the key is in no file of the data directory (%v): the test looks in the wrong place", err)
	}
}
