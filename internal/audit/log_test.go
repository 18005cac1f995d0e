package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// world is a store with a log beside it.
type world struct {
	testing.TB
	dir   string
	store *store.Store
	log   *audit.Log
	clock *clock.Manual
	stop  func() // ends Run
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func config(t testing.TB, dir string, s *store.Store, c clock.Clock) audit.Config {
	root, err := keyring.OpenFile(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	return audit.Config{Dir: filepath.Join(dir, "audit"), Store: s, Root: root, Clock: c}
}

// open starts a log in dir; run says whether Run runs.
func open(t testing.TB, dir string, run bool, change func(*audit.Config)) *world {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, dir: dir, store: s, clock: clock.NewManual(start), stop: func() {}}
	cfg := config(t, dir, s, w.clock)
	if change != nil {
		change(&cfg)
	}
	if w.log, err = audit.Open(cfg); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.log.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if run {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); w.log.Run(ctx) }()
		w.stop = func() { cancel(); <-done }
	}
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	if w.store == nil {
		return
	}
	w.stop()
	if err := w.log.Close(); err != nil {
		w.Errorf("Close: %v", err)
	}
	if err := w.store.Close(); err != nil {
		w.Errorf("close the store: %v", err)
	}
	w.store = nil
}

func record(n int) *audit.Record {
	return &audit.Record{EventVersion: "1.11",
		UserIdentity: audit.UserIdentity{Type: "IAMUser", PrincipalID: "AIDAEXAMPLE", ARN: "arn:aws:iam::111122223333:user/Alice", AccountID: "111122223333", AccessKeyID: "AKIAEXAMPLE", UserName: "Alice"},
		EventTime:    audit.Time{Time: start.Add(time.Duration(n) * time.Second)}, EventSource: "kms.amazonaws.com", EventName: []string{"Decrypt", "GenerateDataKey", "CreateGrant"}[n%3],
		AWSRegion: []string{"us-west-2", "eu-west-1"}[n/3%2], SourceIPAddress: "192.0.2.0", UserAgent: "aws-cli/2.9",
		RequestParameters: map[string]any{"encryptionContext": map[string]any{"aws:ebs:id": fmt.Sprintf("vol-%04d", n), "aws:workspaces:sid-directoryid": "[S-1-5-21-1-2-3-1107]@[d-1234abcd01]"}, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"},
		RequestID:         "d5239dea-63bc-11e4-bc2b-4198b6150d5c", EventID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), ReadOnly: n%3 != 2,
		Resources: []audit.Resource{{AccountID: "111122223333", Type: "AWS::KMS::Key", ARN: fmt.Sprintf("arn:aws:kms:us-west-2:111122223333:key/%d", n%5)}},
		EventType: "AwsApiCall", ManagementEvent: true, RecipientAccountID: "111122223333", EventCategory: "Management"}
}

func (w *world) append(from, to int) {
	w.Helper()
	for n := from; n < to; n++ {
		if err := w.log.Append(context.Background(), record(n)); err != nil {
			w.Fatal(err)
		}
	}
}

// ids returns the event IDs in the log, in order.
func (w *world) ids() []string {
	w.Helper()
	var out []string
	err := w.log.Read(context.Background(), 1, func(seq uint64, raw []byte) bool {
		var r audit.Record
		if err := json.Unmarshal(raw, &r); err != nil {
			w.Fatalf("record %d: %v", seq, err)
		}
		if seq != uint64(len(out)+1) {
			w.Fatalf("record %d after %d", seq, len(out))
		}
		out = append(out, r.EventID)
		return true
	})
	if err != nil {
		w.Fatal(err)
	}
	return out
}

func (w *world) verify() *audit.Report {
	w.Helper()
	r, err := audit.Verify(filepath.Join(w.dir, "audit"), w.log.PublicKey(), nil)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func TestAppendIsDurableOrderedAndVerifiable(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, false, func(c *audit.Config) { c.SegmentBytes = 8000 })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.append(g*50, g*50+50)
		}()
	}
	wg.Wait()
	got := w.ids()
	if len(got) != 400 {
		t.Fatalf("%d records in the log, want 400", len(got))
	}
	before := slices.Clone(got)
	w.close()
	w = open(t, dir, false, func(c *audit.Config) { c.SegmentBytes = 8000 })
	if got := w.ids(); !slices.Equal(got, before) {
		t.Errorf("after a restart the log holds %d records in another order or number", len(got))
	}
	w.append(400, 410)
	w.close()
	r, err := audit.Verify(filepath.Join(dir, "audit"), w.log.PublicKey(), nil)
	if err != nil || !r.OK() || r.Records != 410 || r.Segments < 10 || r.Checkpoints != 2 || r.Signed != 410 {
		t.Errorf("Verify = %+v, %v; want 410 records in many segments, 2 checkpoints and no problem", r, err)
	}
}

func TestLogIsReadableByOthers(t *testing.T) {
	w := open(t, t.TempDir(), false, nil)
	w.append(0, 3)
	b, err := os.ReadFile(filepath.Join(w.dir, "audit", "segment-00000000000000000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(lines) != 4 {
		t.Fatalf("%d lines, want a header and 3 records", len(lines))
	}
	for i, l := range lines[1:] {
		var v struct {
			Seq    uint64
			Record audit.Record
		}
		if err := json.Unmarshal(l, &v); err != nil || v.Seq != uint64(i+1) || v.Record.EventID != record(i).EventID {
			t.Errorf("line %d = %s (%v), want record %d with event %s", i+1, l, err, i+1, record(i).EventID)
		}
	}
}

func TestOutboxReachesTheLogOnce(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := open(t, dir, true, nil)
	rollback := errors.New("roll back")
	for n := range 100 {
		err := w.store.Update(ctx, func(tx *store.Tx) error {
			if err := w.log.Outbox(tx, record(n)); err != nil {
				return err
			}
			if n%10 == 9 {
				return rollback
			}
			return nil
		})
		if err != nil && !errors.Is(err, rollback) {
			t.Fatal(err)
		}
		w.clock.Advance(time.Millisecond)
	}
	w.append(100, 105)
	if err := w.log.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	got := w.ids()
	slices.Sort(got)
	if len(got) != 95 || len(slices.Compact(got)) != 95 {
		t.Errorf("%d records in the log (%d different), want 95: 90 committed ones and 5 appended", len(got), len(slices.Compact(got)))
	}
	events, _, err := w.log.Lookup(ctx, audit.Query{Account: "111122223333", Region: "us-west-2", Attribute: audit.EventID, Value: record(50).EventID, Limit: 5})
	want := 1
	if record(50).AWSRegion != "us-west-2" {
		want = 0
	}
	if err != nil || len(events) != want {
		t.Errorf("Lookup after Settled = %d events, %v; want %d", len(events), err, want)
	}
}

// A process killed between bringing records to the log and deleting them from the
// outbox must not bring them again.
func TestOutboxAfterKillBetweenAppendAndDelete(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := open(t, dir, false, nil)
	for n := range 7 {
		if err := w.store.Update(ctx, func(tx *store.Tx) error { return w.log.Outbox(tx, record(n)) }); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(time.Second)
	}
	w.append(0, 4) // what drain did before it was killed
	w.close()      // (its checkpoint may not move the pin past what is undeleted)
	w = open(t, dir, true, nil)
	if err := w.log.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	got := w.ids()
	if len(got) != 7 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 7 {
		t.Errorf("events in the log %v, want each of 7 once", got)
	}
}

// A record that an older build left in the outbox, in version 1 of its row, reaches the log.
func TestOutboxOfAnOlderBuild(t *testing.T) {
	ctx := context.Background()
	w := open(t, t.TempDir(), false, nil)
	if err := w.store.Update(ctx, func(tx *store.Tx) error { return w.log.Outbox(tx, record(5)) }); err != nil {
		t.Fatal(err)
	}
	var row store.Record
	if _, err := w.store.Each(ctx, func(r store.Record) error {
		if strings.HasPrefix(r.Key, "audit/outbox/") {
			row = r
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(row.Value) < 3 || row.Value[0] != 2 || !json.Valid(row.Value[1:]) {
		t.Fatalf("row %q = %q, want version 2 and the record's JSON", row.Key, row.Value)
	}
	old := store.Record{Key: row.Key, Value: fmt.Appendf([]byte{1}, `{"record":%s}`, row.Value[1:])}
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(ctx, func(yield func(store.Record, error) bool) { yield(old, nil) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, dir, true, nil)
	if err := w.log.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.ids(); len(got) != 1 || got[0] != record(5).EventID {
		t.Errorf("events in the log %v, want %s", got, record(5).EventID)
	}
}

func TestLookup(t *testing.T) {
	ctx := context.Background()
	const n = 500
	w := open(t, t.TempDir(), false, func(c *audit.Config) { c.SegmentBytes = 30000 })
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	// Calls end in nearly the order in which they began.
	for i := 0; i < n; i += 20 {
		slices.Sort(order)
		rand.New(rand.NewPCG(uint64(i), 2)).Shuffle(20, func(a, b int) { order[i+a], order[i+b] = order[i+b], order[i+a] })
		for _, k := range order[i : i+20] {
			w.append(k, k+1)
		}
	}
	check := func(name string, q audit.Query, match func(r *audit.Record) bool) {
		t.Helper()
		var want []string
		for k := n - 1; k >= 0; k-- {
			if r := record(k); r.AWSRegion == q.Region && match(r) {
				want = append(want, r.EventID)
			}
		}
		for _, limit := range []int{1, 7, 50} {
			if limit == 1 && len(want) > 60 {
				continue
			}
			var got []string
			q.Limit, q.After = limit, nil
			for {
				events, next, err := w.log.Lookup(ctx, q)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, e := range events {
					got = append(got, e.Record.EventID)
				}
				if next == nil {
					break
				}
				if len(events) != limit {
					t.Fatalf("%s: a page of %d with more to come, want %d", name, len(events), limit)
				}
				q.After = next
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %d events %v, want %d %v", name, limit, len(got), got[:min(3, len(got))], len(want), want[:min(3, len(want))])
			}
		}
	}
	us := audit.Query{Account: "111122223333", Region: "us-west-2"}
	with := func(a audit.Attribute, v string) audit.Query { q := us; q.Attribute, q.Value = a, v; return q }
	all := func(*audit.Record) bool { return true }
	for range 2 {
		check("all", us, all)
		check("event name", with(audit.EventName, "CreateGrant"), func(r *audit.Record) bool { return r.EventName == "CreateGrant" })
		check("read only", with(audit.ReadOnly, "false"), func(r *audit.Record) bool { return !r.ReadOnly })
		check("user", with(audit.Username, "Alice"), all)
		check("other user", with(audit.Username, "Bob"), func(*audit.Record) bool { return false })
		check("key", with(audit.ResourceName, "arn:aws:kms:us-west-2:111122223333:key/3"), func(r *audit.Record) bool { return r.Resources[0].ARN[len(r.Resources[0].ARN)-1] == '3' })
		check("access key", with(audit.AccessKeyID, "AKIAEXAMPLE"), all)
		check("type", with(audit.ResourceType, "AWS::KMS::Key"), all)
		check("source", with(audit.EventSource, "kms.amazonaws.com"), all)
		check("event", with(audit.EventID, record(123).EventID), func(r *audit.Record) bool { return r.EventID == record(123).EventID })
		q := us
		q.Start, q.End = start.Add(100*time.Second), start.Add(130*time.Second)
		check("time", q, func(r *audit.Record) bool { return !r.EventTime.Before(q.Start) && !r.EventTime.After(q.End) })
		q = us
		q.Account = "999999999999"
		check("other account", q, func(*audit.Record) bool { return false })
		// Again from a fresh process, with one index gone and one damaged.
		dir := w.dir
		w.close()
		idx, _ := filepath.Glob(filepath.Join(dir, "audit", "*.idx"))
		if len(idx) < 5 {
			t.Fatalf("%d index files, want several", len(idx))
		}
		_ = os.Remove(idx[0])
		b, _ := os.ReadFile(idx[1])
		b[len(b)/2] ^= 1
		_ = os.WriteFile(idx[1], b, 0o600)
		b, _ = os.ReadFile(idx[2])
		b[9] ^= 1
		_ = os.WriteFile(idx[2], b, 0o600)
		w = open(t, dir, false, func(c *audit.Config) { c.SegmentBytes = 30000 })
	}
}
