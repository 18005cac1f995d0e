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

// usageEvery is how late the last use of a key may be written down.
const usageEvery = 10 * time.Second

// usageTracker remembers the last use of each key until writeUsage stores it.
type usageTracker struct{ m sync.Map } // key path → *lastUse

type lastUse struct {
	last  atomic.Pointer[usage]
	saved atomic.Pointer[usage]
}

// touch notes a successful cryptographic operation.
func (t *usageTracker) touch(c *api.Call, k *Key, operation string) {
	u := &usage{Operation: operation, RequestID: c.RequestID, Time: c.Time}
	if c.Record != nil {
		u.EventID = c.Record.EventID
	}
	p := k.path()
	v, ok := t.m.Load(p)
	if !ok {
		v, _ = t.m.LoadOrStore(p, &lastUse{})
	}
	v.(*lastUse).last.Store(u)
}

// writeUsage stores last uses until ctx ends, and once more then.
func (s *Service) writeUsage(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			s.saveUsage(last)
			return
		case <-s.cfg.Clock.After(usageEvery):
			s.saveUsage(ctx)
		}
	}
}

func (s *Service) saveUsage(ctx context.Context) {
	type one struct {
		path string
		l    *lastUse
		u    *usage
	}
	var dirty []one
	s.used.m.Range(func(p, v any) bool {
		l := v.(*lastUse)
		if u := l.last.Load(); u != nil && u != l.saved.Load() {
			dirty = append(dirty, one{p.(string), l, u})
		}
		return true
	})
	const batch = 256
	for len(dirty) > 0 {
		part := dirty[:min(batch, len(dirty))]
		dirty = dirty[len(part):]
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			for _, d := range part {
				if s.keys.Get(tx, d.path) == nil {
					continue
				}
				if old := s.usages.Get(tx, d.path); old != nil && old.Time.After(d.u.Time) {
					continue
				}
				if err := s.usages.Put(tx, d.path, d.u); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.log.Warn("could not write down the last use of keys", "keys", len(part), "err", err)
			return
		}
		for _, d := range part {
			d.l.saved.Store(d.u)
		}
	}
}

// lastUse is the last use of the key that is known here, nil for none.
func (s *Service) lastUse(tx *store.Tx, k *Key) *usage {
	u := s.usages.Get(tx, k.path())
	if v, ok := s.used.m.Load(k.path()); ok {
		if l := v.(*lastUse).last.Load(); l != nil && (u == nil || l.Time.After(u.Time)) {
			u = l
		}
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
