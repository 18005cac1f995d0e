package kms

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func always() bool { return true }

func TestLastUsage(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	k := b.newKey(&kms.CreateKeyInput{})
	if u := must[kms.GetKeyLastUsageOutput](b, c, "GetKeyLastUsage", &kms.GetKeyLastUsageInput{KeyId: k.KeyId}); u.KeyLastUsage != nil {
		t.Errorf("last usage of an unused key: %+v", u.KeyLastUsage)
	}
	must[kms.EncryptOutput](b, c, "Encrypt", &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
	b.s.saveUsage(context.Background(), always)
	if b.s.keys.Get(b.st.Snapshot(), path(acct, region, *k.KeyId)).derived.mem.used.Load() != nil || len(b.s.used.keys) != 0 {
		t.Error("a last use that was stored is kept in memory still")
	}
	u := must[kms.GetKeyLastUsageOutput](b, c, "GetKeyLastUsage", &kms.GetKeyLastUsageInput{KeyId: k.KeyId}).KeyLastUsage
	if u == nil || u.Operation != "Encrypt" || u.CloudTrailEventId == nil {
		t.Errorf("last usage = %+v, want Encrypt with its event ID", u)
	}
}

// TestUsagePace: last uses are written a batch at a time; what a round leaves, or a
// key's use meanwhile, is neither lost nor forgotten before it is stored.
func TestUsagePace(t *testing.T) {
	b := newBench(t)
	const n = 3*usageBatch + 7
	ids := fillKeys(b, n, defaultPolicy(acct))
	use := func(id, request string) {
		c := b.root(acct)
		c.RequestID, c.Time = request, b.clk.Now()
		b.s.used.touch(c, b.s.keys.Get(b.st.Snapshot(), path(acct, region, id)), "Encrypt")
	}
	for _, id := range ids {
		use(id, "first")
	}
	stored := func() int { return b.s.usages.Len(b.st.Snapshot()) }
	var after []int
	b.s.saveUsage(context.Background(), func() bool {
		after = append(after, stored())
		b.clk.Advance(time.Millisecond)
		for _, id := range ids {
			use(id, "while")
		}
		return len(after) < 2
	})
	if fmt.Sprint(after) != fmt.Sprint([]int{usageBatch, 2 * usageBatch}) {
		t.Errorf("keys stored at each pause: %v, want %d more each time", after, usageBatch)
	}
	for _, id := range ids {
		if u := b.s.lastUse(b.st.Snapshot(), b.s.keys.Get(b.st.Snapshot(), path(acct, region, id))); u == nil || u.RequestID != "while" {
			t.Fatalf("last use = %+v, want the one made while others were written", u)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.s.writeUsage(ctx) // the service stops
	left := len(b.s.used.keys)
	if stored() != n || left != 0 {
		t.Errorf("after the stop %d of %d keys are stored, %d are left in memory", stored(), n, left)
	}
	for _, id := range ids {
		if u := b.s.usages.Get(b.st.Snapshot(), path(acct, region, id)); u.RequestID != "while" {
			t.Fatalf("stored last use = %+v, want the latest", u)
		}
	}
}

// TestUsageRace: of uses and writes at the same time the latest use is what is stored in the end.
func TestUsageRace(t *testing.T) {
	b := newBench(t)
	id := fillKeys(b, 1, defaultPolicy(acct))[0]
	k := b.s.keys.Get(b.st.Snapshot(), path(acct, region, id))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20_000 {
			c := b.root(acct)
			c.RequestID, c.Time = itoa(i), b.clk.Now()
			b.s.used.touch(c, k, "Encrypt")
		}
	})
	for range 50 {
		b.s.saveUsage(context.Background(), always)
	}
	wg.Wait()
	if u := b.s.lastUse(b.st.Snapshot(), k); u == nil || u.RequestID != "19999" {
		t.Errorf("last use = %+v, want request 19999", u)
	}
	b.s.saveUsage(context.Background(), always)
	if u := b.s.usages.Get(b.st.Snapshot(), k.path()); u == nil || u.RequestID != "19999" {
		t.Errorf("stored last use = %+v, want request 19999", u)
	}
}
