package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/store/etcdtest"
)

const passphrase = "correct horse battery"

var cheap = keyring.Cost{MemoryKiB: 64, Time: 1, Lanes: 1}

// secretFile writes a passphrase where a server reads it.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(p, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

// treasure is something of every kind that lies under the root key, with the means to
// see that it still opens.
type treasure struct {
	key     string // KMS
	blob    []byte // its ciphertext
	access  *iam.CreateAccessKeyOutput
	session *sts.GetSessionTokenOutput
}

func bury(t *testing.T, s *apptest.Server) *treasure {
	t.Helper()
	k, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.KMS().Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyMetadata.KeyId, Plaintext: []byte("buried")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("ann")}); err != nil {
		t.Fatal(err)
	}
	ak, err := s.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("ann")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.IAM().CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: aws.String("ann")}); err != nil {
		t.Fatal(err)
	}
	tok, err := s.STS(apptest.Keys(*ak.AccessKey.AccessKeyId, *ak.AccessKey.SecretAccessKey, "")).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Passw0rd-of-admin"), Size: dstypes.DirectorySizeSmall})
	if err != nil {
		t.Fatal(err)
	}
	var snap *directoryservice.CreateSnapshotOutput
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if snap == nil {
			snap, err = s.DS().CreateSnapshot(ctx, &directoryservice.CreateSnapshotInput{DirectoryId: d.DirectoryId}) // once it is Active
		} else if out, err := s.DS().DescribeSnapshots(ctx, &directoryservice.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}); err == nil && out.Snapshots[0].Status == dstypes.SnapshotStatusCompleted {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the directory has no snapshot: %v", err)
		}
	}
	return &treasure{key: *k.KeyMetadata.KeyId, blob: e.CiphertextBlob, access: ak, session: tok}
}

// dig checks that all of it opens.
func (b *treasure) dig(t *testing.T, s *apptest.Server) {
	t.Helper()
	d, err := s.KMS().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: b.blob})
	if err != nil || string(d.Plaintext) != "buried" {
		t.Errorf("Decrypt of an old ciphertext = %v", err)
	}
	id, sec := *b.access.AccessKey.AccessKeyId, *b.access.AccessKey.SecretAccessKey
	if _, err := s.STS(apptest.Keys(id, sec, "")).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("an old access key: %v", err)
	}
	c := b.session.Credentials
	if _, err := s.STS(apptest.Keys(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("an old session token: %v", err)
	}
}

// under counts the stored records that hold a value wrapped under a root key.
func under(t *testing.T, s *apptest.Server, id string) (n int, tables []string) {
	t.Helper()
	raw := []byte{1}
	for i := 0; i < len(id); i += 2 {
		var b byte
		if _, err := fmt.Sscanf(id[i:i+2], "%02x", &b); err != nil {
			t.Fatal(err)
		}
		raw = append(raw, b)
	}
	needle := []byte(`"` + base64.StdEncoding.EncodeToString(raw))
	_, err := s.App.Store().Each(ctx, func(r store.Record) error {
		if bytes.Contains(r.Value, needle) {
			n++
			table := strings.Join(strings.SplitN(r.Key, "/", 3)[:2], "/")
			if !slices.Contains(tables, table) {
				tables = append(tables, table)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, tables
}

func roots(t *testing.T, s *apptest.Server) []app.RootKey {
	t.Helper()
	var out app.DescribeRootKeyOutput
	if err := s.Extension("DescribeRootKey", struct{}{}, &out); err != nil {
		t.Fatal(err)
	}
	return out.Keys
}

// rotate rotates and waits until one root key is left.
func rotate(t *testing.T, s *apptest.Server, in app.RotateRootKeyInput) {
	t.Helper()
	if err := s.Extension("RotateRootKey", in, &app.DescribeRootKeyOutput{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(roots(t, s)) > 1; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the rotation has not ended: %v", roots(t, s))
		}
	}
}

// recorded finds records of an event in the log.
func recorded(t *testing.T, dir, event string) int {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "audit", "segment-*.jsonl"))
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(b, []byte(`"eventName":"`+event+`"`))
	}
	return n
}

// holding lists the files below dir that contain one of the byte strings.
func holding(t *testing.T, dir string, what ...[]byte) (found []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // gone meanwhile
		}
		b, err := os.ReadFile(p)
		for _, w := range what {
			if err == nil && bytes.Contains(b, w) {
				found = append(found, p)
				break
			}
		}
		return nil
	})
	return found
}

func TestSealedServer(t *testing.T) {
	s := apptest.New(t, func(c *app.Config) {
		c.Root = app.RootConfig{Seal: keyring.Passphrase, SecretFile: secretFile(t, passphrase), Cost: cheap}
	})
	b := bury(t, s)
	s.RestartWith(func(c *app.Config) { c.Root.SecretFile = "" })
	health := func() (int, string) {
		resp, err := http.Get(s.URL + "/health")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if status, body := health(); status != http.StatusServiceUnavailable || !strings.Contains(body, "sealed") {
		t.Errorf("health of a sealed server = %d %s, want 503 and the reason", status, body)
	}
	_, err := s.KMS().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: b.blob})
	var internal *kmstypes.KMSInternalException
	if !errors.As(err, &internal) || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("Decrypt while sealed = %v, want KMSInternalException that says what to do", err)
	}
	if _, err := s.STS().GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); code(err) != "ServiceUnavailable" {
		t.Errorf("GetCallerIdentity while sealed = %v, want ServiceUnavailable", err)
	}
	if _, err := s.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{}); code(err) != "ServiceUnavailableException" && code(err) != "ServiceException" {
		t.Errorf("DescribeDirectories while sealed = %v, want ServiceUnavailableException", err)
	}
	if _, err := app.Unseal(ctx, s.Dir, secret.New([]byte("wrong horse battery"))); err == nil || !strings.Contains(err.Error(), "wrong passphrase") {
		t.Errorf("Unseal with a wrong passphrase = %v", err)
	}
	if status, _ := health(); status != http.StatusServiceUnavailable {
		t.Errorf("health after a wrong passphrase = %d", status)
	}
	if _, err := app.Unseal(ctx, s.Dir, secret.New([]byte(passphrase))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if status, _ := health(); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not healthy after unsealing")
		}
	}
	b.dig(t, s)
	if n := recorded(t, s.Dir, "UnsealRootKey"); n != 1 {
		t.Errorf("%d UnsealRootKey on the record, want 1", n)
	}
	if found := holding(t, s.Dir, []byte(passphrase)); len(found) > 0 {
		t.Errorf("the passphrase lies in %v", found)
	}
}

// A rotation wraps everything anew while the server works, and nothing is under the
// old root key afterwards, on any byte of the disk.
func TestRotateRootOnline(t *testing.T) {
	s := apptest.New(t)
	b := bury(t, s)
	keyFile := filepath.Join(s.Dir, "root", "00000001.key")
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	f, err := keyring.ParseKeyFile(text)
	if err != nil {
		t.Fatal(err)
	}
	old := f.ID
	n, tables := under(t, s, old)
	for _, want := range []string{"kms/key", "iam/access-key", "iam/mfa", "sts/seal-key", "directory/password", "directory/snapshot-part", "audit/key"} {
		if !slices.Contains(tables, want) {
			t.Errorf("nothing in %s is under the root key: this test misses it", want)
		}
	}
	t.Logf("%d records under the root key, in %v", n, tables)
	work, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var calls int
	wg.Add(1)
	go func() {
		defer wg.Done()
		for work.Err() == nil {
			k, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
			if err != nil {
				t.Errorf("CreateKey during the rotation: %v", err)
				return
			}
			e, err := s.KMS().Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyMetadata.KeyId, Plaintext: []byte("x")})
			if err == nil {
				_, err = s.KMS().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob})
			}
			if err != nil {
				t.Errorf("use of a key during the rotation: %v", err)
				return
			}
			calls++
		}
	}()
	rotate(t, s, app.RotateRootKeyInput{Seal: aws.String(keyring.Passphrase), Secret: aws.String(passphrase)})
	rotate(t, s, app.RotateRootKeyInput{})
	stop()
	wg.Wait()
	t.Logf("%d rounds of work meanwhile", calls)
	b.dig(t, s)
	if n, tables := under(t, s, old); n != 0 {
		t.Errorf("%d records are still under the old root key, in %v", n, tables)
	}
	if found := holding(t, s.Dir, f.Sealed, []byte(base64.StdEncoding.EncodeToString(f.Sealed))); len(found) > 0 {
		t.Errorf("the old root key lies in %v", found)
	}
	if found := holding(t, s.Dir, []byte(passphrase)); len(found) > 0 {
		t.Errorf("the passphrase lies in %v", found)
	}
	if n := recorded(t, s.Dir, "DestroyRootKey"); n != 2 {
		t.Errorf("%d DestroyRootKey on the record, want 2", n)
	}
	s.RestartWith(func(c *app.Config) { c.Root = app.RootConfig{SecretFile: secretFile(t, passphrase), Cost: cheap} })
	b.dig(t, s)
	// Another account's root user has all rights there, and none here.
	_, id, sec, err := s.App.CreateAccount(ctx, "444455556666", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"DescribeRootKey", "RotateRootKey", "CreateBackup"} {
		if err := s.Extension(op, struct{}{}, &struct{}{}, apptest.Keys(id, sec, "")); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s by another account = %v, want AccessDenied", op, err)
		}
	}
	if err := s.Extension("RotateRootKey", app.RotateRootKeyInput{Seal: aws.String(keyring.Passphrase), Secret: aws.String("short")}, &struct{}{}); err == nil || !strings.Contains(err.Error(), "ValidationException") {
		t.Errorf("a short passphrase = %v, want ValidationException", err)
	}
}

// After the waiting period a key's material is in no file of the store, in no form;
// the same after DeleteImportedKeyMaterial.
func TestDeletionDestroysTheMaterial(t *testing.T) {
	if testing.Short() {
		t.Skip("the store's files are rewritten within 30 seconds or so")
	}
	if etcdtest.External() {
		t.Skip("the files of an external cluster are its operator's to erase")
	}
	now := clock.NewManual(time.Now())
	s := apptest.New(t, func(c *app.Config) {
		c.Clock = now
		c.Etcd.EraseDelay = 10 * time.Millisecond
	})
	b := bury(t, s)
	ext, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{Origin: kmstypes.OriginTypeExternal})
	if err != nil {
		t.Fatal(err)
	}
	importMaterial(t, s, *ext.KeyMetadata.KeyId, bytes.Repeat([]byte{7}, 32))
	// As it lies in etcd: the JSON of the record holds it in base64.
	wrapped := map[string][]byte{}
	_, err = s.App.Store().Each(ctx, func(r store.Record) error {
		for _, id := range []string{b.key, *ext.KeyMetadata.KeyId} {
			if strings.HasPrefix(r.Key, "kms/key/") && strings.HasSuffix(r.Key, id) {
				_, rest, _ := strings.Cut(string(r.Value), `"Wrapped":"`)
				text, _, _ := strings.Cut(rest, `"`)
				wrapped[id] = []byte(text)
			}
		}
		return nil
	})
	if err != nil || len(wrapped) != 2 {
		t.Fatalf("found the wrapped material of %d keys, %v", len(wrapped), err)
	}
	dir := filepath.Join(s.Dir, "etcd")
	for id, w := range wrapped {
		if len(w) < 100 || len(holding(t, dir, w)) == 0 {
			t.Fatalf("the wrapped material of %s is in no file before it is deleted: this test looks for the wrong thing", id)
		}
	}
	gone := func(id string) {
		t.Helper()
		raw, err := base64.StdEncoding.DecodeString(string(wrapped[id]))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) {
			left := holding(t, s.Dir, wrapped[id], raw)
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the wrapped material of %s is still in %v", id, left)
			}
		}
	}
	if _, err := s.KMS().DeleteImportedKeyMaterial(ctx, &kms.DeleteImportedKeyMaterialInput{KeyId: ext.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	gone(*ext.KeyMetadata.KeyId)
	if len(holding(t, dir, wrapped[b.key])) == 0 {
		t.Fatal("the material of a key that was not deleted is gone")
	}
	b.dig(t, s)
	if _, err := s.KMS().ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &b.key, PendingWindowInDays: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
	now.Advance(7*24*time.Hour + time.Minute)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		now.Advance(time.Minute) // the reaper looks once a minute
		found := false
		_, err := s.App.Store().Each(ctx, func(r store.Record) error {
			found = found || strings.HasPrefix(r.Key, "kms/key/") && strings.HasSuffix(r.Key, b.key)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the key was not deleted")
		}
	}
	gone(b.key)
}

func TestBackupAndRestore(t *testing.T) {
	for _, seal := range []string{keyring.File, keyring.Passphrase} {
		t.Run(seal, func(t *testing.T) {
			s := apptest.New(t, func(c *app.Config) {
				c.Root = app.RootConfig{Seal: seal, Cost: cheap}
				if seal == keyring.Passphrase {
					c.Root.SecretFile = secretFile(t, passphrase)
				}
			})
			b := bury(t, s)
			var made app.CreateBackupOutput
			if err := s.Extension("CreateBackup", app.CreateBackupInput{}, &made); err != nil {
				t.Fatal(err)
			}
			var archive []byte
			for len(archive) < int(*made.Bytes) {
				var part app.GetBackupPartOutput
				if err := s.Extension("GetBackupPart", app.GetBackupPartInput{Name: made.Name, Offset: aws.Int64(int64(len(archive)))}, &part); err != nil {
					t.Fatal(err)
				}
				archive = append(archive, part.Data...)
			}
			if err := s.Extension("DeleteBackup", app.DeleteBackupInput{Name: made.Name}, &struct{}{}); err != nil {
				t.Fatal(err)
			}
			if err := s.Extension("GetBackupPart", app.GetBackupPartInput{Name: aws.String("../../etc/passwd")}, &struct{}{}); err == nil {
				t.Error("a backup of a strange name was read")
			}
			if n := recorded(t, s.Dir, "CreateBackup"); n != 1 {
				t.Errorf("%d CreateBackup on the record, want 1", n)
			}
			// After the backup: not in it.
			late, err := s.KMS().CreateKey(ctx, &kms.CreateKeyInput{})
			if err != nil {
				t.Fatal(err)
			}
			s.Stop()
			work := t.TempDir()
			file := filepath.Join(work, "b.backup")
			write := func(b []byte) {
				if err := os.WriteFile(file, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for name, bad := range map[string][]byte{"cut": archive[:len(archive)*2/3], "changed": flip(archive, len(archive)/2), "empty": nil} {
				write(bad)
				dir := filepath.Join(work, name)
				if _, err := app.Restore(ctx, dir, file, ""); err == nil || !strings.Contains(err.Error(), "damaged") {
					t.Errorf("Restore of an archive that is %s = %v, want damaged", name, err)
				}
				if _, err := os.Stat(dir); err == nil {
					t.Errorf("an archive that is %s left something in the data directory", name)
				}
			}
			write(archive)
			for what, w := range map[string]string{"the root secret": apptest.RootSecret, "an access key": *b.access.AccessKey.SecretAccessKey, "the passphrase": passphrase} {
				if bytes.Contains(archive, []byte(w)) {
					t.Errorf("the backup holds %s", what)
				}
			}
			fresh, err := os.MkdirTemp("", "sdr")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(fresh) })
			rootKeys := ""
			if seal == keyring.File {
				if raw, _ := os.ReadFile(filepath.Join(s.Dir, "root", "00000001.key")); bytes.Contains(archive, raw) {
					t.Error("the backup holds the root key in the clear")
				}
				if _, err := app.Restore(ctx, fresh, file, ""); err == nil || !strings.Contains(err.Error(), "--root-keys") {
					t.Errorf("Restore without the root key = %v", err)
				}
				rootKeys = filepath.Join(s.Dir, "root")
			}
			if _, err := app.Restore(ctx, fresh, file, rootKeys); err != nil {
				t.Fatal(err)
			}
			if _, err := app.Restore(ctx, fresh, file, rootKeys); err == nil {
				t.Error("a backup was restored over another")
			}
			r := apptest.New(t, func(c *app.Config) {
				c.DataDir = fresh
				c.Etcd = store.Config{DataDir: fresh, Unsynced: true} // restore fills the embedded one
				c.Root = app.RootConfig{Cost: cheap}
				if seal == keyring.Passphrase {
					c.Root.SecretFile = secretFile(t, passphrase)
				}
				c.AccountID, c.RootAccessKeyID, c.RootSecretAccessKey = "", "", ""
			})
			b.dig(t, r)
			if _, err := r.KMS().DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: late.KeyMetadata.KeyId}); code(err) != "NotFoundException" {
				t.Errorf("DescribeKey of a key made after the backup = %v, want NotFoundException", err)
			}
			if n := recorded(t, fresh, "RestoreBackup"); n != 1 {
				t.Errorf("%d RestoreBackup on the record, want 1", n)
			}
			report, err := audit.Verify(filepath.Join(fresh, "audit"), nil, nil)
			if err != nil || !report.OK() || report.Records < 10 {
				t.Errorf("the restored audit log: %+v, %v", report, err)
			}
			r.Restart() // and it starts again as any other
			b.dig(t, r)
		})
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// importMaterial imports bytes as the material of a key.
func importMaterial(t *testing.T, s *apptest.Server, key string, material []byte) {
	t.Helper()
	p, err := s.KMS().GetParametersForImport(ctx, &kms.GetParametersForImportInput{KeyId: &key, WrappingAlgorithm: kmstypes.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: kmstypes.WrappingKeySpecRsa2048})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub.(*rsa.PublicKey), material, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.KMS().ImportKeyMaterial(ctx, &kms.ImportKeyMaterialInput{KeyId: &key, ImportToken: p.ImportToken, EncryptedKeyMaterial: sealed, ExpirationModel: kmstypes.ExpirationModelTypeKeyMaterialDoesNotExpire}); err != nil {
		t.Fatal(err)
	}
}
