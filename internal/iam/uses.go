package iam

import (
	"context"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	// flushEvery is how often last-used dates are written.
	flushEvery = 5 * time.Second
	// useResolution is how exact they are: a key in constant use costs one small
	// write in that time.
	useResolution = time.Minute
)

// uses are the last-used dates not yet in the store, by table key.
type uses struct {
	mu    sync.Mutex
	fresh map[string]lastUsed
	wrote map[string]time.Time // what the store has, for keys seen by this process
}

// Used notes that an access key signed an authenticated request to a service.
// It costs a map write; Run stores it later.
func (s *Service) Used(account, accessKeyID, service, region string, at time.Time) {
	s.noteUse(account+"/"+accessKeyID, lastUsed{Time: at.UTC().Truncate(time.Second), Service: service, Region: region})
}

// RoleUsed notes that a session of a role, by its unique ID, made a request.
func (s *Service) RoleUsed(account, roleID, service, region string, at time.Time) {
	s.noteUse(account+"/"+roleID, lastUsed{Time: at.UTC().Truncate(time.Second), Service: service, Region: region})
}

func (s *Service) noteUse(k string, u lastUsed) {
	s.uses.mu.Lock()
	defer s.uses.mu.Unlock()
	if s.uses.fresh == nil {
		s.uses.fresh, s.uses.wrote = map[string]lastUsed{}, map[string]time.Time{}
	}
	if old, ok := s.uses.fresh[k]; !ok || u.Time.After(old.Time) {
		s.uses.fresh[k] = u
	}
}

// lastUse is when an access key or role was last used, by memory or store.
func (s *Service) lastUse(tx *store.Tx, k string) (lastUsed, bool) {
	s.uses.mu.Lock()
	u, ok := s.uses.fresh[k]
	s.uses.mu.Unlock()
	if st := s.used.Get(tx, k); st != nil && (!ok || st.Time.After(u.Time)) {
		return *st, true
	}
	return u, ok
}

// flushUses stores the dates that have moved by useResolution or more. The
// others stay in memory for a later round.
func (s *Service) flushUses(ctx context.Context) {
	s.uses.mu.Lock()
	due := map[string]lastUsed{}
	for k, u := range s.uses.fresh {
		w, seen := s.uses.wrote[k]
		if seen && !u.Time.After(w) {
			delete(s.uses.fresh, k)
			continue
		}
		if !seen || u.Time.Sub(w) >= useResolution {
			due[k] = u
			if len(due) == 500 {
				break
			}
		}
	}
	s.uses.mu.Unlock()
	if len(due) == 0 {
		return
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		for k, u := range due {
			if old := s.used.Get(tx, k); old != nil && !u.Time.After(old.Time) {
				continue // another node saw a later use
			}
			if err := s.used.Put(tx, k, &u); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("last-used dates were not stored; trying again", "err", err)
		}
		return
	}
	s.uses.mu.Lock()
	defer s.uses.mu.Unlock()
	for k, u := range due {
		s.uses.wrote[k] = u.Time
		if s.uses.fresh[k] == u {
			delete(s.uses.fresh, k)
		}
	}
	if len(s.uses.wrote) > 100_000 {
		clear(s.uses.wrote)
	}
}
