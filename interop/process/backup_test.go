package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// killedAfter starts a command and kills it with kill -9 after a while. It tells
// whether the command had ended well before.
func killedAfter(t *testing.T, cmd *exec.Cmd, after time.Duration) (ended bool) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.Wait() == nil
}

// TestBackupAndRestoreKilled kills `sealdesk backup`, the server that makes one, and
// `sealdesk restore` at ten moments each: a backup is whole or not there, and what a
// restore has left is never served before a restore has ended, which needs no more than to be run again.
func TestBackupAndRestoreKilled(t *testing.T) {
	const moments = 10
	s := newServer(t, nil)
	c := kms.NewFromConfig(s.config())
	blobs := map[string][]byte{} // by key
	for range 200 {
		k, err := c.CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String(strings.Repeat("padding ", 1000))})
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyMetadata.KeyId, Plaintext: []byte("kept")})
		if err != nil {
			t.Fatal(err)
		}
		blobs[*k.KeyMetadata.KeyId] = e.CiphertextBlob
	}
	work := t.TempDir()
	whole := filepath.Join(work, "whole.backup")
	from := time.Now()
	if out, err := s.command(nil, "backup", "-o", whole).CombinedOutput(); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	took := time.Since(from)

	restore := func(dir, archive string) *exec.Cmd {
		return exec.Command(s.bin, "restore", "--data-dir", dir, "--root-keys", filepath.Join(s.data, "root"), archive)
	}
	must := func(cmd *exec.Cmd) {
		t.Helper()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args[1:], err, out)
		}
	}
	cut := 0
	for i := range moments {
		file := filepath.Join(work, fmt.Sprintf("b%d.backup", i))
		if !killedAfter(t, s.command(nil, "backup", "-o", file), took*time.Duration(i+1)/moments) {
			cut++
		}
		if _, err := os.Stat(file); err == nil {
			must(restore(filepath.Join(work, fmt.Sprintf("b%d", i)), file)) // it checks the archive from end to end
		}
	}
	for i := range moments {
		cmd := s.command(nil, "backup", "-o", filepath.Join(work, "lost.backup"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(took * time.Duration(i+1) / moments)
		s.kill()
		if cmd.Wait() != nil {
			cut++
		}
		s.start()
	}
	if cut < 3 {
		t.Errorf("%d of %d backups were cut short: the test says little", cut, 2*moments)
	}
	must(s.command(nil, "backup", "-o", filepath.Join(work, "after.backup")))
	if parts, _ := filepath.Glob(filepath.Join(s.data, "backups", "*.part")); len(parts) > 0 {
		t.Errorf("left of servers that were killed: %v", parts)
	}
	archives, _ := filepath.Glob(filepath.Join(s.data, "backups", "*.backup"))
	for i, a := range append(archives, filepath.Join(work, "after.backup")) {
		must(restore(filepath.Join(work, fmt.Sprintf("a%d", i)), a))
	}

	took = time.Hour
	for i := range 3 { // the shortest: one that the machine held up would have the kills come too late
		from = time.Now()
		must(restore(filepath.Join(work, fmt.Sprintf("timed%d", i)), whole))
		took = min(took, time.Since(from))
	}
	cut = 0
	dir := ""
	for i := range moments {
		dir = filepath.Join(work, fmt.Sprintf("r%d", i))
		ended := killedAfter(t, restore(dir, whole), took*time.Duration(i+1)/moments)
		if _, err := os.Stat(filepath.Join(dir, "RESTORING")); err == nil {
			cut++
			cmd := exec.Command(s.bin, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			out, err := cmd.CombinedOutput()
			timer.Stop()
			if err == nil || !strings.Contains(string(out), "run the same sealdesk restore again") || strings.Contains(string(out), "panic") {
				t.Errorf("serve on an interrupted restore: %v, %s; want a refusal that says what to do", err, out)
			}
		} else if _, err := os.Stat(filepath.Join(dir, "etcd")); err == nil && !ended {
			if _, err := os.Stat(filepath.Join(dir, "root-credentials")); err != nil {
				t.Errorf("killed after %d tenths, the restore is neither marked as interrupted nor whole", i+1)
			}
			continue
		}
		if !ended {
			must(restore(dir, whole))
		}
	}
	if cut < 3 {
		t.Errorf("%d of %d restores were interrupted: the test says little", cut, moments)
	}
	// The last of them serves all there was.
	s.kill()
	s.killVolumed()
	old := s.data
	s.data = dir
	defer func() {
		s.kill()
		s.killVolumed()
		s.data = old
	}()
	s.start()
	c = kms.NewFromConfig(s.config())
	for key, blob := range blobs {
		if d, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob}); err != nil || string(d.Plaintext) != "kept" {
			t.Fatalf("Decrypt under %s after the restore: %v", key, err)
		}
	}
}
