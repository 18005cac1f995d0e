package kms

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/store"
)

// fillKeys puts n symmetric keys straight into the store, each with the policy,
// and returns their IDs.
func fillKeys(b *bench, n int, policy string) []string {
	b.Helper()
	c := b.root(acct)
	out := make([]string, 0, n)
	for len(out) < n {
		err := b.st.Update(context.Background(), func(tx *store.Tx) error {
			for range min(500, n-len(out)) {
				k, err := b.s.newKey(tx, c, &kms.CreateKeyInput{KeySpec: types.KeySpecSymmetricDefault, Policy: &policy})
				if err != nil {
					return err
				}
				if err := b.s.addMaterial(k, b.clk.Now()); err != nil {
					return err
				}
				if err := b.s.put(tx, k); err != nil {
					return err
				}
				out = append(out, k.ID)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return out
}

func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// flushLog has etcd forget the large among the latest entries of its log, which it
// keeps in memory whatever the number of records.
func flushLog(b *bench) {
	for range 8000 {
		if err := b.st.Update(context.Background(), func(tx *store.Tx) error {
			return b.s.names.Put(tx, "x", &grantName{GrantID: packedID(make([]byte, idSize))})
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeyHeap reports the heap of the whole process, embedded etcd included, for each of
// 100,000 keys (KEYS=n for another number) that are stored, and that have been used.
func BenchmarkKeyHeap(b *testing.B) {
	n := 100_000
	if v, err := strconv.Atoi(os.Getenv("KEYS")); err == nil {
		n = v
	}
	for b.Loop() {
		x := newBench(b)
		x.s.cfg.Quotas.Keys = n
		before := heapNow()
		ids := fillKeys(x, n, defaultPolicy(acct))
		flushLog(x)
		stored := heapNow()
		c := x.root(acct)
		for _, id := range ids {
			must[kms.GenerateDataKeyWithoutPlaintextOutput](x, c, "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &id, KeySpec: types.DataKeySpecAes256})
		}
		x.s.saveUsage(context.Background(), func() bool { return true })
		flushLog(x)
		used := heapNow()
		b.ReportMetric(float64(stored-before)/float64(n), "B/stored-key")
		b.ReportMetric(float64(used-before)/float64(n), "B/used-key")
	}
}

// TestPoliciesAreShared: keys with equal policies share text and parsed form, and
// nothing is kept of a policy that no key has any more.
func TestPoliciesAreShared(t *testing.T) {
	b := newBench(t)
	own := func(action string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":["kms:*","` + action + `"],"Resource":"*"}]}`
	}
	ids := fillKeys(b, 40, defaultPolicy(acct))
	ids = append(ids, fillKeys(b, 20, own("kms:Decrypt"))...)
	docs := map[any]int{}
	for _, id := range ids {
		d, err := b.s.keys.Get(b.st.Snapshot(), path(acct, region, id)).document()
		if err != nil {
			t.Fatal(err)
		}
		docs[d]++
	}
	if len(docs) != 2 || len(b.s.policies.m) != 2 {
		t.Errorf("60 keys with 2 policies have %d parsed forms, %d are kept", len(docs), len(b.s.policies.m))
	}
	c := b.root(acct)
	for i, id := range ids[:20] {
		p := own("kms:Encrypt")
		if i < 10 {
			p = own("kms:Get" + itoa(i))
		}
		must[kms.PutKeyPolicyOutput](b, c, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: &id, Policy: &p})
	}
	if got, want := len(b.s.policies.m), 2+10+1; got != want {
		t.Errorf("%d policies are kept after PutKeyPolicy, want %d", got, want)
	}
	for _, id := range ids {
		must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: &id, PendingWindowInDays: ptr(int32(7))})
	}
	b.clk.Advance(8 * 24 * time.Hour)
	if err := b.s.Reap(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(b.s.policies.m); n != 0 {
		t.Errorf("%d policies are kept when all keys are deleted", n)
	}
}

// TestGrantHeap measures what the index holds for a grant beyond its record.
func TestGrantHeap(t *testing.T) {
	const n = 50_000
	paths, grants := make([]string, n), make([]*Grant, n)
	ops := []string{"Decrypt"}
	for i := range grants {
		paths[i] = grantKey(testKeyPath, newMaterialID())
		grants[i] = &Grant{Grantee: "ec2.us-west-2.amazonaws.com", Retiring: "ec2.us-west-2.amazonaws.com", Operations: ops, Subset: pairsOf(map[string]string{ebsName: "vol-" + itoa(i)})}
	}
	before := heapNow()
	ix := newGrantIndex()
	for i := range grants {
		ix.changed(paths[i], nil, grants[i])
	}
	per := float64(heapNow()-before) / n
	t.Logf("%.0f bytes a grant", per)
	if per > 200 {
		t.Errorf("the index holds %.0f bytes a grant, want under 200", per)
	}
	runtime.KeepAlive(ix)
	runtime.KeepAlive(paths)
	runtime.KeepAlive(grants)
}

// BenchmarkGrantHeap reports the heap of the whole process, embedded etcd included, for each of
// 50,000 stored grants: all of it, what a decoded record that shares nothing with others takes
// with its ID, and what is beyond that.
func BenchmarkGrantHeap(b *testing.B) {
	const n = 50_000
	for b.Loop() {
		x := newBench(b)
		k := x.newKey(&kms.CreateKeyInput{})
		kp := path(acct, region, *k.KeyId)
		before := heapNow()
		fill(x, kp, n)
		flushLog(x)
		all := heapNow() - before
		var raw [][]byte
		x.s.grants.Scan(x.st.Snapshot(), grantPrefix(kp), "", func(_ string, g *Grant) bool {
			js, _ := json.Marshal(g)
			raw = append(raw, js)
			return true
		})
		from := heapNow()
		type record struct {
			ID string
			Grant
		}
		records := make([]*record, n)
		for i := range records {
			records[i] = &record{ID: newMaterialID()}
			_ = json.Unmarshal(raw[i], records[i])
		}
		plain := heapNow() - from
		b.ReportMetric(float64(all)/n, "B/grant")
		b.ReportMetric(float64(plain)/n, "B/record")
		b.ReportMetric(float64(all-plain)/n, "B/beyond")
		runtime.KeepAlive(records)
		runtime.KeepAlive(raw)
	}
}
