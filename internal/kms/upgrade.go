package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sealdesk/sealdesk/internal/store"
)

// Builds of before kept grants in table kms/grant, version 1, under
// account/region/keyID/grantID, and their names in table kms/grant-name, version 1, under
// account/region/keyID/hash, all in text. The records are the same; a grant's had its ID
// in it too. One record of version 2 now lies in kms/grant, under superseded: such a build does
// not start on a store that has it, where it would see no grants.
const superseded = "superseded"

// upgradeStep bounds the records that one transaction moves.
const upgradeStep = 100

// Upgrade moves what builds of before have stored. Call it when the store has started
// and before a call is answered, while no such build uses the store. It may be killed anywhere,
// and is done again from there.
func (s *Service) Upgrade(ctx context.Context) error {
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if s.oldGrants.Get(tx, superseded) != nil {
			return nil
		}
		return s.oldGrants.Put(tx, superseded, &Grant{})
	})
	if err != nil {
		return err
	}
	grants, err := move(ctx, s, s.oldGrants, s.grants)
	if err != nil {
		return fmt.Errorf("move the grants of an older build: %w", err)
	}
	names, err := move(ctx, s, s.oldNames, s.names)
	if err != nil {
		return fmt.Errorf("move the names of the grants of an older build: %w", err)
	}
	if grants+names == 0 {
		return nil
	}
	s.log.Info("the grants of an older build have been moved", "grants", grants, "names", names)
	// etcd has the old keys in memory until its history is compacted.
	return s.store.Update(ctx, s.store.Erase)
}

// move moves the records of a table of old, and tells how many.
func move[T any](ctx context.Context, s *Service, from, to *store.Table[T]) (moved int, err error) {
	var paths []string
	from.Scan(s.store.Snapshot(), "", "", func(p string, _ *T) bool {
		switch _, _, ok := oldKey(p); {
		case ok:
			paths = append(paths, p)
		case p != superseded:
			s.log.Error("a record of an older build has no key that such a build makes, and is left where it is", "key", p)
		}
		return true
	})
	for batch := range slices.Chunk(paths, upgradeStep) {
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			for _, p := range batch {
				v := from.Get(tx, p)
				if v == nil {
					continue // another server was quicker
				}
				keyPath, id, _ := oldKey(p)
				if err := to.Put(tx, grantKey(keyPath, id), v); err != nil {
					return err
				}
				if err := from.Delete(tx, p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return moved, err
		}
		moved += len(batch)
	}
	return moved, nil
}

// oldKey is a table key of an older build: the path of a key, and a grant ID or a hash.
func oldKey(p string) (keyPath, id string, ok bool) {
	i := max(0, strings.LastIndexByte(p, '/'))
	account, _, keyID := splitPath(p[:i])
	keyPath, id = p[:i], p[min(i+1, len(p)):]
	return keyPath, id, isAccount(account) && isKeyID(keyID) && validGrantID(id)
}
