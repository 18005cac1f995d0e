package kms

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// How last uses are written down: a round begins every usageEvery, and writes a
// transaction of usageBatch keys every usagePause, so no more than 400 keys a second
// whatever the number in use. When the service stops, what is left is written
// without pause for usageGrace at most.
const (
	usageEvery = 10 * time.Second
	usageBatch = 100
	usagePause = 250 * time.Millisecond
	usageGrace = 5 * time.Second
)

// usageTracker has the keys whose last use is yet to be stored.
type usageTracker struct {
	mu   sync.Mutex
	keys []usedKey
}

type usedKey struct {
	path string
	mem  *keyMem
}

// touch notes a successful cryptographic operation.
func (t *usageTracker) touch(c *api.Call, k *Key, operation string) {
	u := &usage{Operation: operation, RequestID: c.RequestID, Time: c.Time}
	if c.Record != nil {
		u.EventID = c.Record.EventID
	}
	// A record that is being made or edited has no memory; nobody uses one.
	if mem := k.derived.mem; mem != nil && mem.used.Swap(u) == nil {
		t.add(usedKey{k.path(), mem})
	}
}

func (t *usageTracker) add(keys ...usedKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = append(t.keys, keys...)
}

func (t *usageTracker) take() []usedKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := t.keys
	t.keys = nil
	return keys
}

// writeUsage stores last uses until ctx ends, and what is left then.
func (s *Service) writeUsage(ctx context.Context) {
	for s.sleep(ctx, usageEvery) {
		s.saveUsage(ctx, func() bool { return s.sleep(ctx, usagePause) })
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), usageGrace)
	defer cancel()
	s.saveUsage(last, func() bool { return true })
}

// sleep is false when ctx has ended.
func (s *Service) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-s.cfg.Clock.After(d):
		return true
	}
}

// saveUsage stores the last uses there are now, a batch at a time, as long as
// pause, which is called between two batches, says so.
func (s *Service) saveUsage(ctx context.Context, pause func() bool) {
	keys := s.used.take()
	for first := true; len(keys) > 0; first = false {
		if !first && !pause() {
			break
		}
		part := keys[:min(usageBatch, len(keys))]
		uses := make([]*usage, len(part))
		for i, k := range part {
			uses[i] = k.mem.used.Load()
		}
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			for i, k := range part {
				u := uses[i]
				if s.keys.Get(tx, k.path) == nil {
					continue
				}
				if old := s.usages.Get(tx, k.path); old != nil && old.Time.After(u.Time) {
					continue
				}
				if err := s.usages.Put(tx, k.path, u); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.log.Warn("could not write down the last use of keys; it stays to be done", "keys", len(keys), "err", err)
			break
		}
		keys = keys[len(part):]
		for i, k := range part {
			if !k.mem.used.CompareAndSwap(uses[i], nil) {
				s.used.add(k) // used again meanwhile
			}
		}
	}
	s.used.add(keys...)
}

// lastUse is the last use of the key that is known here, nil for none.
func (s *Service) lastUse(tx *store.Tx, k *Key) *usage {
	u := s.usages.Get(tx, k.path())
	var l *usage
	if k.derived.mem != nil {
		l = k.derived.mem.used.Load()
	}
	if l != nil && (u == nil || l.Time.After(u.Time)) {
		u = l
	}
	return u
}

// unusedDays is kms:TrailingDaysWithoutKeyUsage: whole days since the last use,
// or since the key was made.
func (s *Service) unusedDays(k *Key, now time.Time) string {
	since := k.Created
	if u := s.lastUse(s.store.Snapshot(), k); u != nil {
		since = u.Time
	}
	return itoa(max(0, int(now.Sub(since)/(24*time.Hour))))
}

// getKeyLastUsage is GetKeyLastUsage.
func (s *Service) getKeyLastUsage(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	out := &kms.GetKeyLastUsageOutput{KeyId: ptr(f.arn()), KeyCreationDate: ptr(f.Created), TrackingStartDate: ptr(f.Created)}
	if u := s.lastUse(tx, f.Key); u != nil {
		out.KeyLastUsage = &types.KeyLastUsageData{Operation: types.KeyLastUsageTrackingOperation(u.Operation), Timestamp: ptr(u.Time), KmsRequestId: ptr(u.RequestID)}
		if u.EventID != "" {
			out.KeyLastUsage.CloudTrailEventId = ptr(u.EventID)
		}
	}
	return out, nil
}
