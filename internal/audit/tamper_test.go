package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/store"
)

// copyDir copies the files of a log.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func write(t *testing.T, path string, lines []string) {
	t.Helper()
	text := strings.Join(lines, "")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rechain writes the records of a segment anew with correct hashes, as an
// intruder would who has read the format's description.
func rechain(t *testing.T, ls []string) []string {
	t.Helper()
	var h struct {
		Prev  string
		First uint64
	}
	if err := json.Unmarshal([]byte(ls[0]), &h); err != nil {
		t.Fatal(err)
	}
	prev, _ := hex.DecodeString(h.Prev)
	out := []string{ls[0]}
	for i, l := range ls[1:] {
		rec := l[strings.Index(l, `"record":`)+9 : strings.LastIndex(l, `,"hash":`)]
		seq := h.First + uint64(i)
		leaf := sha256.Sum256([]byte(rec))
		msg := append([]byte{1, 0, 0, 0, 0, 0, 0, byte(seq >> 8), byte(seq)}, prev...)
		sum := sha256.Sum256(append(msg, leaf[:]...))
		out = append(out, fmt.Sprintf("{\"seq\":%d,\"prev\":\"%x\",\"record\":%s,\"hash\":\"%x\"}\n", seq, prev, rec, sum))
		prev = sum[:]
	}
	return out
}

func TestVerifyNamesWhatWasDone(t *testing.T) {
	w := open(t, t.TempDir(), true, func(c *audit.Config) { c.SegmentBytes = 10000; c.CheckpointEvery = 1e9 })
	for n := range 60 {
		w.append(n, n+1)
		if n%7 == 6 { // a checkpoint now and then
			want := len(checkpoints(w)) + 1
			for len(checkpoints(w)) < want {
				w.clock.Advance(1e9)
			}
		}
	}
	src, pub, head := filepath.Join(w.dir, "audit"), w.log.PublicKey(), w.log.Head()
	w.close()
	segs, _ := filepath.Glob(filepath.Join(src, "segment-*.jsonl"))
	if len(segs) < 5 {
		t.Fatalf("%d segments, want several", len(segs))
	}
	for i := range segs {
		segs[i] = filepath.Base(segs[i])
	}
	mid, last := segs[2], segs[len(segs)-1]
	edit := func(name string, f func(ls []string) []string) func(dir string) {
		return func(dir string) { p := filepath.Join(dir, name); write(t, p, f(lines(t, p))) }
	}
	for _, c := range []struct {
		name   string
		do     func(dir string)
		pinned *audit.Head
		want   []audit.Finding // in the order found, one of each at least; nil: intact
	}{
		{"nothing", func(string) {}, &head, nil},
		{"edit a record", edit(mid, func(ls []string) []string { ls[3] = strings.Replace(ls[3], "Alice", "Mallo", 1); return ls }), nil, []audit.Finding{audit.Changed}},
		{"edit a record and its hash", edit(mid, func(ls []string) []string {
			one := rechain(t, append([]string{ls[0]}, strings.Replace(ls[1], "Alice", "Mallo", 1)))
			ls[1] = one[1]
			return ls
		}), nil, []audit.Finding{audit.Unlinked}},
		{"edit a record and rewrite the segment", edit(mid, func(ls []string) []string {
			ls[1] = strings.Replace(ls[1], "Alice", "Mallo", 1)
			return rechain(t, ls)
		}), nil, []audit.Finding{audit.Unlinked}},
		{"edit the last segment and rewrite it", edit(last, func(ls []string) []string {
			ls[1] = strings.Replace(ls[1], "Alice", "Mallo", 1)
			return rechain(t, ls)
		}), nil, []audit.Finding{audit.Rewritten}},
		{"delete a record", edit(mid, func(ls []string) []string { return append(ls[:3:3], ls[4:]...) }), nil, []audit.Finding{audit.Removed}},
		{"delete the last record of a segment", edit(mid, func(ls []string) []string { return ls[:len(ls)-1] }), nil, []audit.Finding{audit.Removed}},
		{"swap two records", edit(mid, func(ls []string) []string { ls[3], ls[4] = ls[4], ls[3]; return ls }), nil, []audit.Finding{audit.Removed, audit.Moved}},
		{"a record twice", edit(mid, func(ls []string) []string { ls[3] += ls[3]; return ls }), nil, []audit.Finding{audit.Moved}},
		{"garbage for a record", edit(mid, func(ls []string) []string { ls[3] = "x\n"; return ls }), nil, []audit.Finding{audit.Damaged}},
		{"a space more", edit(mid, func(ls []string) []string { ls[3] = " " + ls[3]; return ls }), nil, []audit.Finding{audit.Damaged}},
		{"edit a header", edit(mid, func(ls []string) []string { ls[0] = strings.Replace(ls[0], `"version":1`, `"version":2`, 1); return ls }), nil, []audit.Finding{audit.Damaged}},
		{"truncate the log", edit(last, func(ls []string) []string { return ls[:len(ls)-1] }), nil, []audit.Finding{audit.Truncated}},
		{"truncate the log and its checkpoints", func(dir string) {
			edit(last, func(ls []string) []string { return ls[:len(ls)-1] })(dir)
			edit("checkpoints.jsonl", func(ls []string) []string { return ls[:len(ls)-1] })(dir)
		}, &head, []audit.Finding{audit.Truncated}},
		{"delete a segment", func(dir string) { _ = os.Remove(filepath.Join(dir, mid)) }, nil, []audit.Finding{audit.Removed}},
		{"delete the last segment", func(dir string) { _ = os.Remove(filepath.Join(dir, last)) }, nil, []audit.Finding{audit.Truncated}},
		{"replace a segment by another", func(dir string) {
			b, _ := os.ReadFile(filepath.Join(dir, segs[1]))
			_ = os.WriteFile(filepath.Join(dir, mid), b, 0o600)
		}, nil, []audit.Finding{audit.Changed, audit.Moved}},
		{"delete everything", func(dir string) {
			for _, s := range segs {
				_ = os.Remove(filepath.Join(dir, s))
			}
		}, &head, []audit.Finding{audit.Truncated}},
		{"remove a checkpoint", edit("checkpoints.jsonl", func(ls []string) []string { return append(ls[:2:2], ls[3:]...) }), nil, []audit.Finding{audit.Forged}},
		{"forge a checkpoint", edit("checkpoints.jsonl", func(ls []string) []string {
			i := strings.Index(ls[2], `"hash":"`) + 8
			ls[2] = ls[2][:i] + strings.Repeat("0", 64) + ls[2][i+64:]
			return ls
		}), nil, []audit.Finding{audit.Forged}},
		{"another log in its place", func(dir string) {
			other := open(t, t.TempDir(), false, nil)
			other.append(0, 60)
			other.close()
			_ = os.RemoveAll(dir)
			_ = os.CopyFS(dir, os.DirFS(filepath.Join(other.dir, "audit")))
		}, &head, []audit.Finding{audit.Forged, audit.Rewritten}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyDir(t, src)
			c.do(dir)
			r, err := audit.Verify(dir, pub, c.pinned)
			if err != nil {
				t.Fatal(err)
			}
			if r.OK() != (len(c.want) == 0) {
				t.Fatalf("Verify found %v, want %v", r.Problems, c.want)
			}
			for _, want := range c.want {
				found := false
				for _, p := range r.Problems {
					found = found || p.Finding == want
				}
				if !found {
					t.Errorf("Verify found %v, want %q among them", r.Problems, want)
				}
			}
		})
	}
	// No byte of the log can change unseen.
	t.Run("every byte", func(t *testing.T) {
		dir := copyDir(t, src)
		p := filepath.Join(dir, segs[1])
		b, _ := os.ReadFile(p)
		step := 3
		if testing.Short() {
			step = 37
		}
		for i := 0; i < min(len(b), 2000); i += step {
			b[i] ^= 1
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := audit.Verify(dir, pub, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.OK() {
				t.Fatalf("byte %d changed to %q: Verify found nothing", i, b[i])
			}
			b[i] ^= 1
		}
	})
}

func checkpoints(w *world) []byte {
	b, _ := os.ReadFile(filepath.Join(w.dir, "audit", "checkpoints.jsonl"))
	return bytes.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return -1
	}, b)
}

// A log that was cut behind our back does not start, and the operator's override
// stands in the log for ever.
func TestStartComparesWithThePinnedHead(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := open(t, dir, false, nil)
	w.append(0, 10)
	w.close()
	p := filepath.Join(dir, "audit", "segment-00000000000000000001.jsonl")
	ls := lines(t, p)
	try := func(accept bool) (*audit.Log, *store.Store, error) {
		s, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t, dir, s, nil)
		cfg.AcceptLoss = accept
		l, err := audit.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		return l, s, l.Start(ctx)
	}
	write(t, p, ls[:len(ls)-2])
	l, s, err := try(false)
	if !errors.Is(err, audit.ErrTampered) {
		t.Fatalf("Start of a truncated log = %v, want ErrTampered", err)
	}
	_ = l.Close()
	_ = s.Close()
	if l, s, err = try(true); err != nil {
		t.Fatalf("Start with AcceptLoss = %v", err)
	}
	last := ""
	if err := l.Read(ctx, 1, func(_ uint64, b []byte) bool { last = string(b); return true }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(last, "AcceptAuditLogLoss") || !strings.Contains(last, `"pinnedSeq":10`) {
		t.Errorf("last record %s does not tell of the loss", last)
	}
	_ = l.Close()
	_ = s.Close()
	if l, s, err = try(false); err != nil {
		t.Errorf("Start after the loss was accepted = %v", err)
	}
	_ = l.Close()
	_ = s.Close()
	// A rewritten record.
	ls = lines(t, p)
	ls[2] = strings.Replace(ls[2], "Alice", "Mallo", 1)
	write(t, p, rechain(t, ls))
	l, s, err = try(false)
	if !errors.Is(err, audit.ErrTampered) {
		t.Errorf("Start of a rewritten log = %v, want ErrTampered", err)
	}
	_ = l.Close()
	_ = s.Close()
}

// A record that was changed is an error of Lookup, not a result.
func TestLookupRefusesChangedRecord(t *testing.T) {
	w := open(t, t.TempDir(), false, nil)
	w.append(0, 1)
	p := filepath.Join(w.dir, "audit", "segment-00000000000000000001.jsonl")
	ls := lines(t, p)
	ls[1] = strings.Replace(ls[1], "192.0.2.0", "192.0.2.9", 1)
	write(t, p, ls)
	_, _, err := w.log.Lookup(context.Background(), audit.Query{Account: "111122223333", Region: "us-west-2", Limit: 1})
	if !errors.Is(err, audit.ErrTampered) {
		t.Errorf("Lookup of a changed record = %v, want ErrTampered", err)
	}
}

var rewrite = flag.Bool("rewrite", false, "write golden files anew")

// Version 1 stays readable and correct for ever.
func TestGoldenVersion1(t *testing.T) {
	const dir = "testdata/v1"
	if *rewrite {
		w := open(t, t.TempDir(), false, func(c *audit.Config) { c.SegmentBytes = 3000 })
		w.append(0, 7)
		w.close()
		_ = os.RemoveAll(dir)
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(w.dir, "audit"))); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(dir, "LOCK"))
	}
	b, err := os.ReadFile(filepath.Join(dir, "checkpoint-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := audit.ParsePublicKey(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(dir, pub, nil)
	if err != nil || !r.OK() || r.Records != 7 || r.Signed != 7 || r.Segments < 2 {
		t.Errorf("Verify of the golden log = %+v, %v; want 7 records, all signed", r, err)
	}
}
