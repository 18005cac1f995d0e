package kms

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/store"
)

// oldRows puts rows as an older build stored them into an empty store.
func oldRows(t testing.TB, dir string, rows []store.Record) {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	var all iter.Seq2[store.Record, error] = func(yield func(store.Record, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
	if err := st.Fill(context.Background(), all); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenGrants: what the last build with text keys has stored, grants and names of them, is
// served as it was: listed, used, found by name, and retired by the tokens of then.
func TestGoldenGrants(t *testing.T) {
	var golden struct {
		Root, Ciphertext []byte
		Grants           []struct{ KeyID, GrantID, Token, Name string }
		Rows             []store.Record
	}
	js, err := os.ReadFile("testdata/grants-v1.json")
	if err == nil {
		err = json.Unmarshal(js, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.key"), golden.Root, 0o600); err != nil {
		t.Fatal(err)
	}
	oldRows(t, dir, golden.Rows)
	clk := clock.NewManual(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC))
	b := openBench(t, dir, clk)
	c := b.root(acct)
	count := func(b *bench) (now, before, names int) {
		tx := b.st.Snapshot()
		return b.s.grants.Len(tx), b.s.oldGrants.Len(tx) + b.s.oldNames.Len(tx), b.s.names.Len(tx)
	}
	if now, before, names := count(b); now != 5 || before != 1 || names != 3 {
		t.Fatalf("after the upgrade there are %d grants, %d records of old and %d names; want 5, 1 (that they are superseded), 3", now, before, names)
	}
	if err := b.s.Upgrade(context.Background()); err != nil {
		t.Errorf("a second upgrade: %v", err)
	}
	listed := map[string]types.GrantListEntry{}
	for _, id := range []string{golden.Grants[0].KeyID, golden.Grants[4].KeyID} {
		for _, g := range must[kms.ListGrantsOutput](b, c, "ListGrants", &kms.ListGrantsInput{KeyId: &id}).Grants {
			listed[*g.GrantId] = g
		}
	}
	for i, want := range golden.Grants {
		g := listed[want.GrantID]
		if !strings.HasSuffix(str(g.KeyId), want.KeyID) || str(g.Name) != want.Name || g.CreationDate == nil || !g.CreationDate.Equal(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)) {
			t.Errorf("grant %d is listed as %+v, want %+v of 2026-05-01", i, g, want)
		}
	}
	if g := listed[golden.Grants[1].GrantID]; g.Constraints == nil || g.Constraints.EncryptionContextSubset["aws:ebs:id"] != "vol-1234abcd" || str(g.RetiringPrincipal) != "ec2.us-west-2.amazonaws.com" {
		t.Errorf("EBS's grant is listed as %+v", g)
	}
	b.s.grants.Scan(b.st.Snapshot(), "", "", func(_ string, g *Grant) bool {
		if child := g.id() == golden.Grants[1].GrantID; child != (g.Parent.String() == golden.Grants[0].GrantID) {
			t.Errorf("the parent of %s is %q", g.id(), g.Parent)
		}
		return true
	})
	b.free = false
	decrypt := &kms.DecryptInput{CiphertextBlob: golden.Ciphertext, EncryptionContext: map[string]string{"aws:ebs:id": "vol-1234abcd"}}
	jane := b.user(acct, "jane")
	if got := must[kms.DecryptOutput](b, jane, "Decrypt", decrypt); string(got.Plaintext) != "attack at dawn" {
		t.Errorf("Jane's grant opens %q", got.Plaintext)
	}
	b.fails(b.user(acct, "joe"), "Decrypt", decrypt, "AccessDeniedException", "")
	b.free = true
	// By name, the grant that is there.
	ws := "workspaces." + region + ".amazonaws.com"
	first := listed[golden.Grants[0].GrantID]
	again := must[kms.CreateGrantOutput](b, c, "CreateGrant", &kms.CreateGrantInput{KeyId: &golden.Grants[0].KeyID, Name: first.Name, GranteePrincipal: &ws, RetiringPrincipal: &ws,
		Operations: first.Operations, Constraints: first.Constraints})
	if *again.GrantId != golden.Grants[0].GrantID {
		t.Errorf("CreateGrant of the same name makes grant %s, want %s", *again.GrantId, golden.Grants[0].GrantID)
	}
	for _, g := range golden.Grants {
		must[kms.RetireGrantOutput](b, c, "RetireGrant", &kms.RetireGrantInput{GrantToken: &g.Token})
	}
	b.fails(jane, "RetireGrant", &kms.RetireGrantInput{GrantToken: &golden.Grants[2].Token}, "InvalidGrantTokenException", "")
	if now, _, names := count(b); now != 0 || names != 0 {
		t.Errorf("%d grants and %d names are left after all were retired", now, names)
	}
	// An older build does not start on this store, where it would see no grants.
	_ = b.st.Close()
	st, err := store.Open(context.Background(), store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	store.Define[Grant](st, "kms/grant", 1)
	if err := st.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "newer Sealdesk") {
		t.Errorf("a build that knows kms/grant of version 1 starts: %v", err)
	}
}

// manyOldRows are n named grants, and names of them, on three keys, as older builds stored them.
func manyOldRows(n int) []store.Record {
	var rows []store.Record
	for i := range n {
		at := fmt.Sprintf("%s/us-west-2/1234abcd-12ab-34cd-56ef-12345678900%d/", acct, i%3)
		id := fmt.Sprintf("%064x", i)
		rows = append(rows,
			store.Record{Key: "kms/grant/" + at + id, Value: fmt.Appendf(nil, "\x01"+`{"ID":"%s","Name":"n","Grantee":"ec2.us-west-2.amazonaws.com","IssuingAccount":"%s","Operations":["Decrypt"],"Created":"2026-05-01T12:00:00Z","Seed":"eR+PfKPVjoOHxhKzZXsq9Q=="}`, id, acct)},
			store.Record{Key: "kms/grant-name/" + at + id, Value: fmt.Appendf(nil, "\x01"+`{"GrantID":"%s"}`, id)})
	}
	return rows
}

// TestUpgradeIsKilled kills the upgrade with SIGKILL again and again: at every moment each
// grant is there exactly once, and at last all are where they belong.
func TestUpgradeIsKilled(t *testing.T) {
	const n = 4000
	if dir := os.Getenv("KMS_UPGRADE_DIR"); dir != "" {
		b := openStopped(t, dir)
		fmt.Println("upgrading")
		if err := b.s.Upgrade(context.Background()); err != nil {
			t.Fatal(err)
		}
		fmt.Println("upgraded")
		return
	}
	dir := t.TempDir()
	oldRows(t, dir, manyOldRows(n))
	partly := 0
	for round := 1; ; round++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUpgradeIsKilled$", "-test.v")
		cmd.Env = append(os.Environ(), "KMS_UPGRADE_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "upgrading" {
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond)
		_ = cmd.Process.Kill()
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		b := openStopped(t, dir)
		tx := b.st.Snapshot()
		at, before, done := map[string]int{}, 0, 0
		b.s.oldGrants.Scan(tx, "", "", func(p string, g *Grant) bool {
			if p != superseded {
				keyPath, id, ok := oldKey(p)
				if !ok {
					t.Fatalf("there is a record under %q", p)
				}
				at[keyPath+"/"+id]++
				before++
			}
			return true
		})
		b.s.grants.Scan(tx, "", "", func(p string, g *Grant) bool {
			at[keyPathOf(p)+"/"+g.id()]++
			done++
			return true
		})
		for i := range n {
			id := fmt.Sprintf("%s/us-west-2/1234abcd-12ab-34cd-56ef-12345678900%d/%064x", acct, i%3, i)
			if at[id] != 1 {
				t.Fatalf("round %d: grant %s is there %d times", round, id, at[id])
			}
		}
		names := b.s.names.Len(tx)
		if got := names + b.s.oldNames.Len(tx); len(at) != n || got != n {
			t.Fatalf("round %d: there are %d grants and %d names, want %d of each", round, len(at), got, n)
		}
		if before > 0 && done > 0 || names > 0 && names < n {
			partly++
			if b.s.oldGrants.Get(tx, superseded) == nil {
				t.Error("grants were moved before older builds were told to keep out")
			}
		}
		_ = b.st.Close()
		if done == n && names == n {
			t.Logf("the upgrade was killed %d times, %d of them part of the way; its last words: %q", round-1, partly, bytes.TrimSpace(rest))
			break
		}
	}
	if partly == 0 {
		t.Error("the upgrade was never killed part of the way: this test has shown nothing")
	}
}

// openStopped is openBench without the upgrade.
func openStopped(t *testing.T, dir string) *bench {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := newServiceOn(t, st, dir, clock.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)))
	if err := st.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUpgradeLeavesWhatItDoesNotKnow: a record under a key that no build makes keeps nothing
// from starting, and is named in the log.
func TestUpgradeLeavesWhatItDoesNotKnow(t *testing.T) {
	b := newBench(t)
	var log strings.Builder
	b.s.log = slog.New(slog.NewTextHandler(&log, nil))
	for _, odd := range []string{"x", "a/b/c/d", acct + "/us-west-2/1234abcd-12ab-34cd-56ef-1234567890ab/1", acct + "/us-west-2/k/" + strings.Repeat("0", 64)} {
		if err := b.st.Update(context.Background(), func(tx *store.Tx) error { return b.s.oldGrants.Put(tx, odd, &Grant{}) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.s.Upgrade(context.Background()); err != nil || strings.Count(log.String(), "left where it is") != 4 {
		t.Errorf("the upgrade: %v; log: %s", err, log.String())
	}
}

// FuzzGrantKey: what is taken for a table key, as it is of a marker, is one.
func FuzzGrantKey(f *testing.F) {
	f.Add(grantKey(testKeyPath, strings.Repeat("ab", 32)))
	f.Add(grantKey(path(acct, strings.Repeat("r", 70), "mrk-1234abcd12ab34cd56ef1234567890ab"), strings.Repeat("0", 64)))
	f.Add(grantKey(path(acct, "", "1234abcd-12ab-34cd-56ef-1234567890ab"), strings.Repeat("f", 64)))
	f.Add("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Fuzz(func(t *testing.T, p string) {
		region, _, ok := grantRegion(p)
		if !ok {
			return
		}
		g := &Grant{key: p}
		if kp := keyPathOf(p); !validGrantID(g.id()) || !strings.Contains(kp, "/"+region+"/") {
			t.Fatalf("%q is grant %s on %s, Region %q", p, g.id(), kp, region)
		} else if account, r, keyID := splitPath(kp); r == region && isAccount(account) && p[0] < 0x80 {
			if again := grantKey(kp, g.id()); again != p || !isKeyID(keyID) {
				t.Fatalf("%q is on %s, whose keys are as %q", p, kp, again)
			}
		}
	})
}

// TestGrantKeysAreShort: what a grant takes in etcd's memory and in ours hangs on this.
func TestGrantKeysAreShort(t *testing.T) {
	if full := len("/sealdesk/kms/g/" + grantKey(testKeyPath, newMaterialID())); full > 80 {
		t.Errorf("a grant's key in etcd has %d bytes, want at most 80, a size that Go allocates", full)
	}
	seen := map[string]string{}
	for _, kp := range []string{testKeyPath, path(other, region, "1234abcd-12ab-34cd-56ef-1234567890ab"), path(acct, region+"2", "1234abcd-12ab-34cd-56ef-1234567890ab"),
		path(acct, "us-west-1", "1234abcd-12ab-34cd-56ef-1234567890ab"), path(acct, region, "mrk-1234abcd12ab34cd56ef1234567890ab")} {
		p := grantPrefix(kp)
		for old, of := range seen {
			if strings.HasPrefix(p, old) || strings.HasPrefix(old, p) {
				t.Errorf("the keys of grants on %s and %s begin alike", kp, of)
			}
		}
		seen[p] = kp
		if got := keyPathOf(grantKey(kp, newMaterialID())); got != kp {
			t.Errorf("a grant on %s is found on %s", kp, got)
		}
	}
}
