package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/store"
)

// Run brings directories on: Requested → Creating → Active, Restoring → Active, and
// Deleting → gone; and makes and removes snapshots. It may be killed at any line.
func (s *Service) Run(ctx context.Context) {
	var radius sync.WaitGroup
	radius.Go(func() { s.runRadius(ctx) })
	defer radius.Wait()
	sweep := s.cfg.Clock.After(0)
	for ctx.Err() == nil {
		changed := s.cfg.Store.Changed()
		moved, err := s.reconcile(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("directory not brought on; trying again", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-sweep:
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("old client tokens not removed", "err", err)
			}
			sweep = s.cfg.Clock.After(time.Hour)
		}
	}
}

// reconcile does one step for every directory that is under way.
func (s *Service) reconcile(ctx context.Context) (moved bool, err error) {
	var keys []string
	s.directories.Scan(s.cfg.Store.Snapshot(), "", "", func(key string, d *directory) bool {
		if d.Stage != string(dstypes.DirectoryStageActive) {
			keys = append(keys, key)
		}
		return true
	})
	var failed []error
	for _, key := range keys {
		if err := errors.Join(s.restore(ctx, key), s.step(ctx, key)); err != nil {
			failed = append(failed, fmt.Errorf("directory %s: %w", key, err))
			continue
		}
		moved = true
	}
	for _, key := range s.unfinishedSnapshots() {
		if err := s.finishSnapshot(ctx, key); err != nil {
			failed = append(failed, fmt.Errorf("snapshot %s of a directory: %w", key, err))
			continue
		}
		moved = true
	}
	return moved, errors.Join(failed...)
}

// step brings one directory one stage on.
func (s *Service) step(ctx context.Context, key string) error {
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		d := s.directories.Edit(tx, key)
		if d == nil {
			return nil
		}
		switch dstypes.DirectoryStage(d.Stage) {
		case dstypes.DirectoryStageRequested:
			d.Stage = string(dstypes.DirectoryStageCreating)
		case dstypes.DirectoryStageCreating:
			if err := s.populate(tx, d); err != nil {
				return err
			}
			d.Stage = string(dstypes.DirectoryStageActive)
		case dstypes.DirectoryStageDeleting:
			more, err := s.depopulate(tx, d)
			if err != nil || more {
				return err
			}
			return s.directories.Delete(tx, key)
		default:
			return nil
		}
		d.StageAt = s.cfg.Clock.Now().UTC().Truncate(time.Millisecond)
		return s.directories.Put(tx, key, d)
	})
}

// populate makes what a new domain has. Source of the relative IDs: Microsoft,
// "Well-known SIDs".
func (s *Service) populate(tx *store.Tx, d *directory) error {
	now := s.cfg.Clock.Now()
	next := uint32(firstRID)
	admin := uint32(500)
	if d.Type == microsoftAD { // AWS keeps the domain's own administrator to itself
		admin = next
		next++
	}
	builtin := []*object{
		{Kind: user, Name: d.adminName(), RID: admin, Enabled: true},
		{Kind: group, Name: "Domain Admins", RID: 512, Scope: "Global"},
		{Kind: group, Name: "Domain Users", RID: 513, Scope: "Global"},
		{Kind: group, Name: "Administrators", RID: 544, SID: "S-1-5-32-544", Scope: "BuiltinLocal"},
		{Kind: group, Name: "Remote Desktop Users", RID: 555, SID: "S-1-5-32-555", Scope: "BuiltinLocal"},
	}
	for _, o := range builtin {
		o.Builtin, o.Created, o.Changed = true, now, now
		if o.SID == "" {
			o.SID = fmt.Sprintf("%s-%d", d.SID, o.RID)
		}
		if o.Kind == group {
			o.Type = "Security"
		}
		if err := s.objects.Put(tx, objectKey(d, o.Name), o); err != nil {
			return err
		}
	}
	for _, m := range [][2]string{{"domain admins", strings.ToLower(d.adminName())}, {"administrators", "domain admins"}} {
		if err := s.members.Put(tx, d.key()+"/"+m[0]+"/"+m[1], &membership{Since: now}); err != nil {
			return err
		}
	}
	return s.rids.Put(tx, d.key(), &ridPool{Next: next})
}

// deleteAtOnce bounds a transaction: an external etcd takes 128 operations.
const deleteAtOnce = 40

// depopulate removes some of what belongs to a directory; more tells that there is more.
func (s *Service) depopulate(tx *store.Tx, d *directory) (more bool, err error) {
	n := 0
	prefix := d.key() + "/"
	some := func(scan func(f func(key string) bool), del func(tx *store.Tx, key string) error) {
		var keys []string
		scan(func(key string) bool {
			if n == deleteAtOnce {
				more = true
				return false
			}
			n++
			keys = append(keys, key)
			return true
		})
		for _, k := range keys {
			if e := del(tx, k); e != nil {
				err = e
			}
		}
	}
	some(func(f func(string) bool) {
		s.members.Scan(tx, prefix, "", func(k string, _ *membership) bool { return f(k) })
	}, s.members.Delete)
	some(func(f func(string) bool) {
		s.passwords.Scan(tx, prefix, "", func(k string, _ *password) bool { return f(k) })
	}, s.passwords.Delete)
	some(func(f func(string) bool) {
		s.objects.Scan(tx, prefix, "", func(k string, _ *object) bool { return f(k) })
	}, s.objects.Delete)
	some(func(f func(string) bool) {
		s.replays.Scan(tx, prefix, "", func(k string, _ *replay) bool { return f(k) })
	}, s.replays.Delete)
	if err != nil || more {
		return more, err
	}
	if d.Alias != "" {
		if err := s.aliases.Delete(tx, strings.ToLower(d.Alias)); err != nil {
			return false, err
		}
	}
	if err := s.radiuses.Delete(tx, d.key()); err != nil {
		return false, err
	}
	var orphans []*snapshot
	s.snapshots.Scan(tx, d.Account+"/"+d.Region+"/", "", func(_ string, n *snapshot) bool {
		if n.Directory == d.ID && !n.Deleting {
			orphans = append(orphans, n)
		}
		return true
	})
	for _, n := range orphans {
		e := s.snapshots.Edit(tx, n.key())
		e.Deleting = true
		if err := s.snapshots.Put(tx, e.key(), e); err != nil {
			return false, err
		}
	}
	return false, s.rids.Delete(tx, d.key())
}

// sweep forgets client tokens that have expired.
func (s *Service) sweep(ctx context.Context) error {
	for {
		var keys []string
		now := s.cfg.Clock.Now()
		s.replays.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, r *replay) bool {
			if !r.Expires.After(now) {
				keys = append(keys, k)
			}
			return len(keys) < deleteAtOnce
		})
		if len(keys) == 0 {
			return nil
		}
		err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for _, k := range keys {
				if err := s.replays.Delete(tx, k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
