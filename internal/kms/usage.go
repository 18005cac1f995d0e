package kms

import (
	"context"
	"sync"
	"sync/atomic"
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

// usageTracker has the last use of each key that is yet to be stored.
type usageTracker struct{ m sync.Map } // key path → *lastUse

// lastUse is stored once it has been written down, and is then no part of the tracker any more.
type lastUse = atomic.Pointer[usage]

var stored = new(usage)

// touch notes a successful cryptographic operation.
func (t *usageTracker) touch(c *api.Call, k *Key, operation string) {
	u := &usage{Operation: operation, RequestID: c.RequestID, Time: c.Time}
	if c.Record != nil {
		u.EventID = c.Record.EventID
	}
	p := k.path()
	for {
		v, ok := t.m.Load(p)
		if !ok {
			v, _ = t.m.LoadOrStore(p, new(lastUse))
		}
		l := v.(*lastUse)
		old := l.Load()
		if old == stored {
			t.m.CompareAndDelete(p, v)
		} else if l.CompareAndSwap(old, u) {
			return
		}
	}
}

// get is the last use of a key that is yet to be stored, nil for none.
func (t *usageTracker) get(path string) *usage {
	if v, ok := t.m.Load(path); ok {
		if u := v.(*lastUse).Load(); u != stored {
			return u
		}
	}
	return nil
}

// done says that u has been stored. A later use stays to be stored.
func (t *usageTracker) done(path string, u *usage) {
	if v, ok := t.m.Load(path); ok && v.(*lastUse).CompareAndSwap(u, stored) {
		t.m.CompareAndDelete(path, v)
	}
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
	var paths []string
	s.used.m.Range(func(p, _ any) bool {
		paths = append(paths, p.(string))
		return true
	})
	for first := true; len(paths) > 0; first = false {
		if !first && !pause() {
			return
		}
		part := paths[:min(usageBatch, len(paths))]
		paths = paths[len(part):]
		uses := make([]*usage, len(part))
		for i, p := range part {
			uses[i] = s.used.get(p)
		}
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			for i, p := range part {
				u := uses[i]
				if u == nil || s.keys.Get(tx, p) == nil {
					continue
				}
				if old := s.usages.Get(tx, p); old != nil && old.Time.After(u.Time) {
					continue
				}
				if err := s.usages.Put(tx, p, u); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.log.Warn("could not write down the last use of keys; it stays to be done", "keys", len(part)+len(paths), "err", err)
			return
		}
		for i, p := range part {
			s.used.done(p, uses[i])
		}
	}
}

// lastUse is the last use of the key that is known here, nil for none.
func (s *Service) lastUse(tx *store.Tx, k *Key) *usage {
	u := s.usages.Get(tx, k.path())
	if l := s.used.get(k.path()); l != nil && (u == nil || l.Time.After(u.Time)) {
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
