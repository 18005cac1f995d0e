package directory

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A snapshot is all users, groups, memberships and passwords of a directory at one
// moment. A restore makes the directory hold these and nothing else; only the next
// relative ID never goes back, so that no SID is given twice. Tags, alias, RADIUS and
// the directory itself are no part of it.

// snapshotLimit is how many manual snapshots a directory has. Source: Directory Service quotas.
const snapshotLimit = 5

// snapshot is a stored snapshot. Key: account/region/s-….
type snapshot struct {
	Account   string    `json:"account"`
	Region    string    `json:"region"`
	ID        string    `json:"id"`
	Directory string    `json:"directory"` // its ID
	Name      string    `json:"name,omitempty"`
	Status    string    `json:"status"`
	Started   time.Time `json:"started"`
	NextRID   uint32    `json:"nextRid,omitempty"`
	Deleting  bool      `json:"deleting,omitempty"` // gone for callers; its parts are still to go
}

func (n *snapshot) key() string          { return n.Account + "/" + n.Region + "/" + n.ID }
func (n *snapshot) directoryKey() string { return n.Account + "/" + n.Region + "/" + n.Directory }

// snapshotPart is some of what a snapshot holds, by the part of its key that follows the
// directory's. Key: that of the snapshot, and a number. Parts are small, because
// a rotation of the root key wraps many of them anew in one transaction.
type snapshotPart struct {
	Directory string                `json:"directory"` // its key, which passwords are bound to
	Objects   map[string]object     `json:"objects,omitempty"`
	Members   map[string]membership `json:"members,omitempty"`
	Passwords map[string]*password  `json:"passwords,omitempty"`
}

// recordsInPart keeps a part below some 20 KiB for users with usual attributes.
const recordsInPart = 30

func (p *snapshotPart) full() bool {
	return len(p.Objects)+len(p.Members)+len(p.Passwords) >= recordsInPart
}

// wrapped are the password hashes in a part.
func (p *snapshotPart) wrapped() []keyring.Field {
	var out []keyring.Field
	for name, w := range p.Passwords {
		out = append(out, keyring.Field{Purpose: purpose, AAD: []byte(p.Directory + "/" + name), Value: &w.Wrapped})
	}
	return out
}

func (s *Service) snapshotOperations() []api.Operation {
	const ds = "ds"
	return []api.Operation{
		api.NewUpdate(ds, "CreateSnapshot", s.createSnapshot, on(s, func(in *directoryservice.CreateSnapshotInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeSnapshots", s.describeSnapshots, onMaybe(s, func(in *directoryservice.DescribeSnapshotsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "GetSnapshotLimits", s.getSnapshotLimits, on(s, func(in *directoryservice.GetSnapshotLimitsInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "DeleteSnapshot", s.deleteSnapshot, onSnapshot(s, func(in *directoryservice.DeleteSnapshotInput) *string { return in.SnapshotId })),
		api.NewUpdate(ds, "RestoreFromSnapshot", s.restoreFromSnapshot, onSnapshot(s, func(in *directoryservice.RestoreFromSnapshotInput) *string { return in.SnapshotId })),
	}
}

// onSnapshot declares that an operation touches the directory of the snapshot that id names.
func onSnapshot[In any](s *Service, id func(*In) *string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		n, err := s.findSnapshot(tx, c, deref(id(in)))
		if err != nil {
			return nil, err
		}
		d, err := s.find(tx, c, n.Directory)
		if err != nil {
			return nil, err
		}
		return []api.Target{d.target()}, nil
	})
}

func (s *Service) findSnapshot(tx *store.Tx, c *api.Call, id string) (*snapshot, error) {
	if n := s.snapshots.Get(tx, c.Account+"/"+c.Region+"/"+id); n != nil && !n.Deleting {
		return n, nil
	}
	return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("Snapshot %s does not exist.", id)}
}

// count is how many snapshots a directory has.
func (s *Service) countSnapshots(tx *store.Tx, d *directory) int {
	n := 0
	s.snapshots.Scan(tx, d.Account+"/"+d.Region+"/", "", func(_ string, x *snapshot) bool {
		if x.Directory == d.ID && !x.Deleting {
			n++
		}
		return true
	})
	return n
}

func (s *Service) createSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.CreateSnapshotInput) (*directoryservice.CreateSnapshotOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if d.Stage != string(dstypes.DirectoryStageActive) {
		return nil, &dstypes.ClientException{Message: sprintf("Directory %s is not available: its stage is %s, not Active.", d.ID, d.Stage)}
	}
	if n := s.countSnapshots(tx, d); n >= snapshotLimit {
		return nil, &dstypes.SnapshotLimitExceededException{Message: sprintf("Directory %s has %d manual snapshots, which is the limit. Delete one first.", d.ID, n)}
	}
	n := &snapshot{Account: d.Account, Region: d.Region, ID: ids.Hex("s-", 10), Directory: d.ID, Name: deref(in.Name), Status: string(dstypes.SnapshotStatusCreating), Started: c.Time}
	touched(c, d)
	return &directoryservice.CreateSnapshotOutput{SnapshotId: &n.ID}, s.snapshots.Put(tx, n.key(), n)
}

func (s *Service) describeSnapshots(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeSnapshotsInput) (*directoryservice.DescribeSnapshotsOutput, error) {
	after, ok := readToken("snapshots", in.NextToken)
	if !ok {
		return nil, badToken()
	}
	for _, id := range in.SnapshotIds {
		if _, err := s.findSnapshot(tx, c, id); err != nil {
			return nil, err
		}
	}
	limit := int(deref(in.Limit))
	if limit <= 0 || limit > maxDescribed {
		limit = maxDescribed
	}
	out := &directoryservice.DescribeSnapshotsOutput{Snapshots: []dstypes.Snapshot{}}
	prefix, from := c.Account+"/"+c.Region+"/", ""
	if after != "" {
		from = prefix + after
	}
	s.snapshots.Scan(tx, prefix, from, func(_ string, n *snapshot) bool {
		if n.Deleting || in.DirectoryId != nil && n.Directory != *in.DirectoryId || len(in.SnapshotIds) > 0 && !slices.Contains(in.SnapshotIds, n.ID) {
			return true
		}
		if len(out.Snapshots) == limit {
			out.NextToken = makeToken("snapshots", *out.Snapshots[limit-1].SnapshotId)
			return false
		}
		out.Snapshots = append(out.Snapshots, dstypes.Snapshot{SnapshotId: &n.ID, DirectoryId: &n.Directory, Name: opt(n.Name), Type: dstypes.SnapshotTypeManual, Status: dstypes.SnapshotStatus(n.Status), StartTime: &n.Started})
		return true
	})
	return out, nil
}

func (s *Service) getSnapshotLimits(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.GetSnapshotLimitsInput) (*directoryservice.GetSnapshotLimitsOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	n := s.countSnapshots(tx, d)
	return &directoryservice.GetSnapshotLimitsOutput{SnapshotLimits: &dstypes.SnapshotLimits{ManualSnapshotsLimit: ptr(int32(snapshotLimit)), ManualSnapshotsCurrentCount: ptr(int32(n)), ManualSnapshotsLimitReached: n >= snapshotLimit}}, nil
}

func (s *Service) deleteSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DeleteSnapshotInput) (*directoryservice.DeleteSnapshotOutput, error) {
	n, err := s.findSnapshot(tx, c, deref(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	if d := s.lookup(tx, c, n.Directory); d != nil {
		if d.RestoreFrom == n.ID {
			return nil, &dstypes.ClientException{Message: sprintf("Snapshot %s is being restored to directory %s.", n.ID, d.ID)}
		}
		touched(c, d)
	}
	n = s.snapshots.Edit(tx, n.key())
	n.Deleting = true
	return &directoryservice.DeleteSnapshotOutput{SnapshotId: &n.ID}, s.snapshots.Put(tx, n.key(), n)
}

// restoreFromSnapshot asks for a restore; the directory is not available until it is done.
func (s *Service) restoreFromSnapshot(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.RestoreFromSnapshotInput) (*directoryservice.RestoreFromSnapshotOutput, error) {
	n, err := s.findSnapshot(tx, c, deref(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	d, err := s.edit(tx, c, n.Directory)
	switch {
	case err != nil:
		return nil, err
	case n.Status != string(dstypes.SnapshotStatusCompleted):
		return nil, &dstypes.ClientException{Message: sprintf("Snapshot %s is %s, not Completed.", n.ID, n.Status)}
	case d.Stage != string(dstypes.DirectoryStageActive):
		return nil, &dstypes.ClientException{Message: sprintf("Directory %s is not available: its stage is %s, not Active.", d.ID, d.Stage)}
	}
	touched(c, d)
	d.Stage, d.StageAt, d.RestoreFrom = string(dstypes.DirectoryStageRestoring), c.Time, n.ID
	return &directoryservice.RestoreFromSnapshotOutput{}, s.directories.Put(tx, d.key(), d)
}

// unfinishedSnapshots are those to make or to remove.
func (s *Service) unfinishedSnapshots() (keys []string) {
	s.snapshots.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, n *snapshot) bool {
		if n.Deleting || n.Status == string(dstypes.SnapshotStatusCreating) {
			keys = append(keys, k)
		}
		return true
	})
	return keys
}

// finishSnapshot makes or removes a snapshot. It may be killed at any line: what a dead
// attempt left of the parts goes first.
func (s *Service) finishSnapshot(ctx context.Context, key string) error {
	if err := s.removeParts(ctx, key); err != nil {
		return err
	}
	tx := s.cfg.Store.Snapshot()
	n := s.snapshots.Get(tx, key)
	if n == nil {
		return nil
	}
	if n.Deleting {
		return s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.snapshots.Delete(tx, key) })
	}
	for i, p := range s.parts(tx, n.directoryKey()) {
		err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			// A password that was not set meanwhile may have been wrapped anew.
			for name, w := range p.Passwords {
				if now := s.passwords.Get(tx, p.Directory+"/"+name); now != nil && now.Set.Equal(w.Set) {
					w.Wrapped = now.Wrapped
				}
			}
			return s.snapshotParts.Put(tx, fmt.Sprintf("%s/%08d", key, i), p)
		})
		if err != nil {
			return err
		}
	}
	next := s.rids.Get(tx, n.directoryKey())
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		e := s.snapshots.Edit(tx, key)
		if e == nil || e.Deleting {
			return nil
		}
		e.Status = string(dstypes.SnapshotStatusCompleted)
		if next != nil {
			e.NextRID = next.Next
		}
		return s.snapshots.Put(tx, key, e)
	})
}

// parts are the records of a directory at one moment.
func (s *Service) parts(tx *store.Tx, directory string) []*snapshotPart {
	var out []*snapshotPart
	part := func() *snapshotPart {
		if len(out) == 0 || out[len(out)-1].full() {
			out = append(out, &snapshotPart{Directory: directory, Objects: map[string]object{}, Members: map[string]membership{}, Passwords: map[string]*password{}})
		}
		return out[len(out)-1]
	}
	prefix := directory + "/"
	s.objects.Scan(tx, prefix, "", func(k string, o *object) bool { part().Objects[k[len(prefix):]] = *o; return true })
	s.members.Scan(tx, prefix, "", func(k string, m *membership) bool { part().Members[k[len(prefix):]] = *m; return true })
	s.passwords.Scan(tx, prefix, "", func(k string, p *password) bool {
		part().Passwords[k[len(prefix):]] = &password{Wrapped: p.Wrapped, Set: p.Set}
		return true
	})
	return out
}

func (s *Service) removeParts(ctx context.Context, snapshotKey string) error {
	var keys []string
	s.snapshotParts.Scan(s.cfg.Store.Snapshot(), snapshotKey+"/", "", func(k string, _ *snapshotPart) bool { keys = append(keys, k); return true })
	return s.each(ctx, keys, s.snapshotParts.Delete)
}

// each does f for every key, in transactions that are not too large.
func (s *Service) each(ctx context.Context, keys []string, f func(tx *store.Tx, key string) error) error {
	for some := range slices.Chunk(keys, deleteAtOnce) {
		err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for _, k := range some {
				if err := f(tx, k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// restore makes a directory hold what its snapshot does. It may be killed at any line
// and repeated: each time it looks for what differs.
func (s *Service) restore(ctx context.Context, key string) error {
	tx := s.cfg.Store.Snapshot()
	d := s.directories.Get(tx, key)
	if d == nil || d.Stage != string(dstypes.DirectoryStageRestoring) {
		return nil
	}
	n := s.snapshots.Get(tx, d.Account+"/"+d.Region+"/"+d.RestoreFrom)
	if n == nil {
		return s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.restored(tx, key, nil) })
	}
	want := snapshotPart{Objects: map[string]object{}, Members: map[string]membership{}, Passwords: map[string]*password{}}
	s.snapshotParts.Scan(tx, n.key()+"/", "", func(_ string, p *snapshotPart) bool {
		maps.Copy(want.Objects, p.Objects)
		maps.Copy(want.Members, p.Members)
		maps.Copy(want.Passwords, p.Passwords)
		return true
	})
	at := func(name string) string { return key + "/" + name }
	objects, gone := differing(want.Objects, func(f func(string, object) bool) {
		s.objects.Scan(tx, key+"/", "", func(k string, o *object) bool { return f(strings.TrimPrefix(k, key+"/"), *o) })
	})
	members, left := differing(want.Members, func(f func(string, membership) bool) {
		s.members.Scan(tx, key+"/", "", func(k string, m *membership) bool { return f(strings.TrimPrefix(k, key+"/"), *m) })
	})
	passwords, stale := differing(want.Passwords, func(f func(string, *password) bool) {
		s.passwords.Scan(tx, key+"/", "", func(k string, p *password) bool { return f(strings.TrimPrefix(k, key+"/"), p) })
	})
	for _, step := range []struct {
		names []string
		do    func(tx *store.Tx, name string) error
	}{
		{left, func(tx *store.Tx, name string) error { return s.members.Delete(tx, at(name)) }},
		{stale, func(tx *store.Tx, name string) error { return s.passwords.Delete(tx, at(name)) }},
		{gone, func(tx *store.Tx, name string) error { return s.objects.Delete(tx, at(name)) }},
		{objects, func(tx *store.Tx, name string) error { return s.objects.Put(tx, at(name), ptr(want.Objects[name])) }},
		{passwords, func(tx *store.Tx, name string) error { return s.restorePassword(tx, n, at(name), name) }},
		{members, func(tx *store.Tx, name string) error { return s.members.Put(tx, at(name), ptr(want.Members[name])) }},
	} {
		if err := s.each(ctx, step.names, step.do); err != nil {
			return err
		}
	}
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.restored(tx, key, n) })
}

// restorePassword puts a password back as the snapshot holds it now: it may have been
// wrapped anew since it was looked at.
func (s *Service) restorePassword(tx *store.Tx, n *snapshot, key, name string) error {
	var err error
	s.snapshotParts.Scan(tx, n.key()+"/", "", func(_ string, p *snapshotPart) bool {
		w := p.Passwords[name]
		if w == nil {
			return true
		}
		err = s.passwords.Put(tx, key, &password{Wrapped: w.Wrapped, Set: w.Set})
		return false
	})
	tx.AfterCommit(func() { s.guesses.forget(key) })
	return err
}

// restored ends a restore. Relative IDs given since the snapshot are not given again.
func (s *Service) restored(tx *store.Tx, key string, n *snapshot) error {
	d := s.directories.Edit(tx, key)
	if d == nil || d.Stage != string(dstypes.DirectoryStageRestoring) {
		return nil
	}
	if r := s.rids.Edit(tx, key); n != nil && r != nil && r.Next < n.NextRID {
		r.Next = n.NextRID
		if err := s.rids.Put(tx, key, r); err != nil {
			return err
		}
	}
	d.Stage, d.StageAt, d.RestoreFrom = string(dstypes.DirectoryStageActive), s.cfg.Clock.Now().UTC().Truncate(time.Millisecond), ""
	return s.directories.Put(tx, key, d)
}

// differing compares what should be with what is: the names to put, and those to delete.
func differing[T any](want map[string]T, have func(f func(name string, v T) bool)) (put, gone []string) {
	same := map[string]bool{}
	have(func(name string, v T) bool {
		if w, ok := want[name]; !ok {
			gone = append(gone, name)
		} else {
			same[name] = reflect.DeepEqual(w, v)
		}
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !same[name] {
			put = append(put, name)
		}
	}
	return put, gone
}
