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

// uses are the last-used dates not yet in the store.
type uses struct {
	mu    sync.Mutex
	fresh map[use]lastUsed
	wrote map[use]time.Time // what the store has, for keys seen by this process
}

// use is what is used: an access key or a role, or, with a service, whatever a
// user or a role used of that service.
type use struct{ account, id, service string }

// key is the key in the table.
func (u use) key() string {
	if u.service == "" {
		return u.account + "/" + u.id
	}
	return u.account + "/" + u.id + "/" + u.service
}

// Used notes that an access key signed an authenticated request to a service.
// It costs a map write; Run stores it later.
func (s *Service) Used(account, accessKeyID, service, region string, at time.Time) {
	s.noteUse(use{account, accessKeyID, ""}, lastUsed{Time: at.UTC().Truncate(time.Second), Service: service, Region: region})
}

// RoleUsed notes that a session of a role, by its unique ID, made a request.
func (s *Service) RoleUsed(account, roleID, service, region string, at time.Time) {
	s.noteUse(use{account, roleID, ""}, lastUsed{Time: at.UTC().Truncate(time.Second), Service: service, Region: region})
}

// ServiceUsed notes that a user or a session of a role, by its unique ID, made a
// request to a service.
func (s *Service) ServiceUsed(account, id, service, region string, at time.Time) {
	s.noteUse(use{account, id, service}, lastUsed{Time: at.UTC().Truncate(time.Second), Service: service, Region: region})
}

func (s *Service) noteUse(k use, u lastUsed) {
	s.uses.mu.Lock()
	defer s.uses.mu.Unlock()
	if s.uses.fresh == nil {
		s.uses.fresh, s.uses.wrote = map[use]lastUsed{}, map[use]time.Time{}
	}
	if old, ok := s.uses.fresh[k]; !ok || u.Time.After(old.Time) {
		s.uses.fresh[k] = u
	}
}

// lastUse is when that was last used, by memory or store.
func (s *Service) lastUse(tx *store.Tx, k use) (lastUsed, bool) {
	s.uses.mu.Lock()
	u, ok := s.uses.fresh[k]
	s.uses.mu.Unlock()
	if st := s.used.Get(tx, k.key()); st != nil && (!ok || st.Time.After(u.Time)) {
		return *st, true
	}
	return u, ok
}

// forgetUses removes what a user or role used.
func (s *Service) forgetUses(tx *store.Tx, account, id string) error {
	keys := []string{account + "/" + id}
	s.used.Scan(tx, account+"/"+id+"/", "", func(k string, _ *lastUsed) bool { keys = append(keys, k); return true })
	for _, k := range keys {
		if err := s.used.Delete(tx, k); err != nil {
			return err
		}
	}
	return nil
}

// flushUses stores the dates that have moved by useResolution or more. The
// others stay in memory for a later round.
func (s *Service) flushUses(ctx context.Context) {
	s.uses.mu.Lock()
	due := map[use]lastUsed{}
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
			if old := s.used.Get(tx, k.key()); old != nil && !u.Time.After(old.Time) {
				continue // another node saw a later use
			}
			if err := s.used.Put(tx, k.key(), &u); err != nil {
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
