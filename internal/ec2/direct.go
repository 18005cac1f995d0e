package ec2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/nbd"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// What the EBS direct APIs (service ebs) ask of snapshots. A snapshot is read through
// a session: a clone of it under a key that is drawn for the session and never stored,
// attached to the data plane, and gone when the session ends. A session belongs to one
// principal, whose own permissions opened the snapshot's data key (Decrypt, forwarded);
// it ends when it was idle for sessionIdle, or after sessionAge, so that a permission taken away
// ends the reading. A snapshot that is being written (StartSnapshot) has its place and
// its key from the start, and is attached by EBS itself under its own grant.

const (
	sessionIdle   = time.Minute
	sessionAge    = 5 * time.Minute
	sessionPrefix = "session-"
	// DirectBlock is the unit of the EBS direct APIs in bytes.
	DirectBlock = 512 << 10
)

// direct is the state of a snapshot that is written block by block.
type direct struct {
	Parent  string `json:",omitempty"`
	Timeout time.Duration
	// Deadline moves with each write; after it the snapshot is given up.
	Deadline time.Time
}

// session is an open snapshot.
type session struct {
	id, dir string // in the data plane
	socket  string
	dev     *nbd.Client
	scratch bool // a clone that goes with the session
	users   int
	opened  time.Time
	last    time.Time
}

type sessions struct {
	mu   sync.Mutex
	open map[string]*session // by snapshot key and principal; writing ones by snapshot key alone
}

// live are the IDs under which sessions of this process are attached.
func (x *sessions) live(id string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, se := range x.open {
		if se.id == id {
			return true
		}
	}
	return false
}

// SnapshotInfo tells the EBS direct APIs about a snapshot that the caller may read.
// state is completed, pending or error; written tells that it was made by StartSnapshot.
func (s *Service) SnapshotInfo(c *api.Call, id string) (sizeGiB int32, volumeID, state string, written bool, err error) {
	n := s.visible(s.cfg.Store.Snapshot(), c.Account, c.Region, id)
	if n == nil {
		return 0, "", "", false, noSnapshot(id)
	}
	return n.SizeGiB, n.VolumeID, n.State, n.Direct != nil, nil
}

// DirectTarget is the authorisation target for a snapshot, or "*" for one to be made.
func (s *Service) DirectTarget(tx *store.Tx, c *api.Call, id string) api.Target {
	t := s.onSnapshot(tx, c, id)
	delete(t.Keys, "ec2:Region")
	delete(t.Keys, "ec2:SnapshotID")
	return t
}

// ReadSnapshot opens a completed snapshot for reading, with the caller's permissions on
// its key. release must be called. A snapshot without data yields a nil device: all zeros.
func (s *Service) ReadSnapshot(ctx context.Context, c *api.Call, id string) (dev block.Device, release func(), err error) {
	n, err := s.usableSnapshot(s.cfg.Store.Snapshot(), c, id)
	if err != nil {
		return nil, nil, err
	}
	if n.Blank {
		return nil, func() {}, nil
	}
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, nil, errNoSnapshots
	}
	who := n.key() + "|" + c.Principal.ARN + "|" + c.Principal.AccessKeyID
	scratch := ids.Hex(sessionPrefix, 16)
	return s.session(ctx, who, &session{id: scratch, dir: filepath.Join(s.cfg.VolumeDir, scratch), scratch: true}, func(se *session) error {
		call := c.Forward("ec2")
		from, err := s.openKey(ctx, call, n.Key)
		if err != nil {
			return err
		}
		defer from.Wipe()
		own := secret.Random(dataKeyBytes)
		defer own.Wipe()
		if err := s.cfg.Plane.Destroy(ctx, se.id, se.dir); err != nil {
			return err
		}
		nv := NewVolume{VolumeID: se.id, Dir: se.dir, Size: int64(n.SizeGiB) << 30, Key: own}
		anchor, err := sn.Restore(ctx, Restore{NewVolume: nv, SnapshotID: n.ID, SnapshotDir: s.snapshotDir(n), SnapshotKey: from, SnapshotAnchor: n.Anchor, Scratch: true})
		if err != nil {
			return err
		}
		_, err = s.cfg.Plane.Attach(ctx, Attach{VolumeID: se.id, Dir: se.dir, Socket: se.socket, Key: own, ReadOnly: true, Anchor: anchor})
		return err
	})
}

// session joins the session of who, or begins se, which open attaches.
func (s *Service) session(ctx context.Context, who string, se *session, open func(*session) error) (block.Device, func(), error) {
	unlock, err := s.locks.lock(ctx, "session|"+who)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	now := s.cfg.Clock.Now()
	x := &s.direct
	x.mu.Lock()
	if old := x.open[who]; old != nil {
		if old.dev.Err() == nil && (now.Sub(old.opened) < sessionAge || !old.scratch) {
			old.users++
			x.mu.Unlock()
			return old.dev, s.leave(old), nil
		}
		// Too old, or the data plane died: it goes when its last user has left.
		delete(x.open, who)
		if old.scratch {
			x.open[who+"|"+old.id] = old
		}
	}
	se.opened, se.last, se.users = now, now, 1
	se.socket = filepath.Join(s.cfg.SocketDir, ids.Hex("s-", 16)+".sock")
	x.open[who] = se // before it is attached: the reconciler must not take it for a stray
	x.mu.Unlock()
	err = open(se)
	if err == nil {
		se.dev, err = nbd.Dial(ctx, se.socket, se.id)
	}
	if err != nil {
		x.mu.Lock()
		delete(x.open, who)
		x.mu.Unlock()
		end, cancel := finishing(ctx)
		defer cancel()
		s.closeSession(end, se)
		return nil, nil, outward(err)
	}
	return se.dev, s.leave(se), nil
}

func (s *Service) leave(se *session) func() {
	return sync.OnceFunc(func() {
		s.direct.mu.Lock()
		defer s.direct.mu.Unlock()
		se.users--
		se.last = s.cfg.Clock.Now()
	})
}

// closeSession detaches a session, which wipes its key, and removes its clone.
func (s *Service) closeSession(ctx context.Context, se *session) {
	if se.dev != nil {
		_ = se.dev.Close()
	}
	if se.id == "" {
		return
	}
	if _, err := s.cfg.Plane.Detach(ctx, se.id); err != nil && !errors.Is(err, ErrNotServed) {
		s.log.Warn("session not detached", "session", se.id, "err", err)
		return
	}
	if se.scratch {
		if err := s.cfg.Plane.Destroy(ctx, se.id, se.dir); err != nil {
			s.log.Warn("clone of a session not removed", "session", se.id, "err", err)
		}
	}
}

// reconcileSessions ends sessions that are idle or too old, removes what the sessions of
// a dead process have left, and gives up snapshots that nobody completes.
func (s *Service) reconcileSessions(ctx context.Context) {
	now := s.cfg.Clock.Now()
	var over []*session
	s.direct.mu.Lock()
	for who, se := range s.direct.open {
		if se.users == 0 && (now.Sub(se.last) >= sessionIdle || se.scratch && now.Sub(se.opened) >= sessionAge) {
			over = append(over, se)
			delete(s.direct.open, who)
		}
	}
	s.direct.mu.Unlock()
	for _, se := range over {
		s.closeSession(ctx, se)
	}
	s.sweep.Do(func() {
		left, _ := filepath.Glob(filepath.Join(s.cfg.VolumeDir, sessionPrefix+"*"))
		for _, dir := range left {
			s.direct.mu.Lock()
			mine := slices.ContainsFunc(mapsValues(s.direct.open), func(se *session) bool { return se.dir == dir })
			s.direct.mu.Unlock()
			if !mine {
				s.closeSession(ctx, &session{id: filepath.Base(dir), dir: dir, scratch: true})
			}
		}
	})
	var late []*snapshot
	s.snapshots.Scan(s.cfg.Store.Snapshot(), "", "", func(_ string, n *snapshot) bool {
		if n.Direct != nil && n.State == "pending" && !n.Draft && !n.Deleting && n.Host == s.cfg.Host && now.After(n.Direct.Deadline) {
			late = append(late, n)
		}
		return true
	})
	for _, n := range late {
		if err := s.giveUp(ctx, n); err != nil && ctx.Err() == nil {
			s.log.Warn("snapshot that was not completed in time is still there", "snapshot", n.ID, "err", err)
		}
	}
}

func mapsValues(m map[string]*session) []*session {
	var out []*session
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// giveUp ends a snapshot that was not completed in time: its key and data go, the
// record stays in state error with the reason.
func (s *Service) giveUp(ctx context.Context, n *snapshot) error {
	s.endWriting(ctx, n)
	if err := s.cfg.Plane.Destroy(ctx, n.ID, s.snapshotDir(n)); err != nil {
		return err
	}
	_ = os.Remove(s.writtenFile(n))
	if err := s.retire(ctx, n.Account, n.Region, n.Key); err != nil {
		return err
	}
	return s.editSnapshot(ctx, n.key(), func(e *snapshot) {
		e.State, e.Reason, e.Key.Wrapped, e.Key.GrantName, e.Key.GrantID = "error", "The snapshot was not completed in time and was cancelled.", nil, "", ""
	})
}

// endWriting closes the writing session of a snapshot, if there is one.
func (s *Service) endWriting(ctx context.Context, n *snapshot) {
	unlock, err := s.locks.lock(ctx, "session|"+n.key())
	if err != nil {
		return
	}
	defer unlock()
	s.direct.mu.Lock()
	se := s.direct.open[n.key()]
	delete(s.direct.open, n.key())
	s.direct.mu.Unlock()
	if se != nil {
		s.closeSession(ctx, se)
	}
}

// StartSnapshot begins a snapshot that is written block by block. It is encrypted
// under the key named, the parent's, or the default, by the rules of the EBS API.
func (s *Service) StartSnapshot(ctx context.Context, c *api.Call, in *ebs.StartSnapshotInput) (*ebs.StartSnapshotOutput, error) {
	sn, ok := s.cfg.Plane.(Snapshotter)
	if !ok {
		return nil, errNoSnapshots
	}
	tx := s.cfg.Store.Snapshot()
	size := aws.ToInt64(in.VolumeSize)
	if size < 1 || size > 65536 {
		return nil, fail("InvalidParameterValue", "VolumeSize %d is out of range: 1 to 65536 GiB.", size)
	}
	timeout := time.Duration(60) * time.Minute
	if in.Timeout != nil {
		timeout = time.Duration(*in.Timeout) * time.Minute
	}
	tags := map[string]string{}
	var list []types.Tag
	for _, t := range in.Tags {
		list = append(list, types.Tag{Key: t.Key, Value: t.Value})
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	if err := checkTags(list); err != nil {
		return nil, err
	}
	var parent *snapshot
	if id := aws.ToString(in.ParentSnapshotId); id != "" {
		var err error
		if in.Encrypted != nil {
			return nil, fail("InvalidParameterCombination", "Encrypted and ParentSnapshotId cannot both be specified: the parent decides.")
		}
		if parent, err = s.usableSnapshot(tx, c, id); err != nil {
			return nil, err
		}
		if int64(parent.SizeGiB) > size {
			return nil, fail("InvalidParameterValue", "VolumeSize %d is smaller than the parent snapshot's %d GiB.", size, parent.SizeGiB)
		}
		if in.KmsKeyArn != nil && (!parent.Key.Encrypted || parent.Key.KeyARN != *in.KmsKeyArn) {
			return nil, fail("InvalidKMSKey.InvalidUsage", "KmsKeyArn %s is not the key of the parent snapshot %s.", *in.KmsKeyArn, id)
		}
	}
	set := s.settingsOf(tx, c.Account, c.Region)
	encrypted := aws.ToBool(in.Encrypted) || set.EncryptByDefault || parent != nil && parent.Key.Encrypted
	named := aws.ToString(in.KmsKeyArn)
	switch {
	case named != "" && !encrypted:
		return nil, fail("InvalidParameterDependency", "KmsKeyArn requires Encrypted.")
	case encrypted && named == "" && parent != nil && parent.Key.Encrypted:
		named = parent.Key.KeyARN
	case encrypted && named == "":
		named = set.key()
	}
	n := &snapshot{ID: ids.EC2("snap"), Account: c.Account, Region: c.Region, VolumeID: "vol-ffffffff", SizeGiB: int32(size), Description: aws.ToString(in.Description), StartTime: c.Time,
		State: "pending", Tags: tags, Draft: true, Owner: s.instance, Host: s.cfg.Host, Key: keyState{Encrypted: encrypted}, Token: aws.ToString(in.ClientToken),
		Direct: &direct{Timeout: timeout, Deadline: c.Time.Add(timeout), Parent: aws.ToString(in.ParentSnapshotId)}}
	if parent != nil {
		n.VolumeID = parent.VolumeID // one lineage
	}
	if encrypted {
		n.Key.Context = map[string]string{contextVolume: n.ID}
	}
	js, _ := json.Marshal([]any{size, n.Description, in.Encrypted, in.KmsKeyArn, in.ParentSnapshotId, tags, timeout})
	hash := sha256.Sum256(js)
	before, err := s.claimSnapshot(ctx, n, hash[:])
	if err != nil {
		return nil, err
	}
	if before == nil {
		if err := s.fillStart(ctx, c, sn, n, parent, named); err != nil {
			end, cancel := finishing(ctx)
			defer cancel()
			if last := s.snapshots.Get(s.cfg.Store.Snapshot(), n.key()); last != nil {
				if uerr := s.undoSnapshot(end, last); uerr != nil {
					s.log.Warn("a refused snapshot is not undone yet", "snapshot", n.ID, "err", uerr)
				}
			}
			return nil, outward(err)
		}
		before = s.snapshots.Get(s.cfg.Store.Snapshot(), n.key())
	}
	out := &ebs.StartSnapshotOutput{BlockSize: aws.Int32(DirectBlock), OwnerId: aws.String(before.Account), SnapshotId: aws.String(before.ID), StartTime: aws.Time(before.StartTime),
		Status: ebstypes.Status(before.State), Tags: in.Tags, VolumeSize: aws.Int64(int64(before.SizeGiB)), SseType: ebstypes.SSETypeNone}
	if before.Description != "" {
		out.Description = aws.String(before.Description)
	}
	if before.Direct.Parent != "" {
		out.ParentSnapshotId = aws.String(before.Direct.Parent)
	}
	if before.Key.Encrypted {
		out.KmsKeyArn, out.SseType = aws.String(before.Key.KeyARN), ebstypes.SSETypeSseKms
	}
	return out, nil
}

// claimSnapshot records the intent; with a client token used before it returns that snapshot.
func (s *Service) claimSnapshot(ctx context.Context, n *snapshot, hash []byte) (before *snapshot, err error) {
	tokenKey := key(n.Account, n.Region, "StartSnapshot/"+n.Token)
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		before = nil
		if n.Token != "" {
			if t := s.tokens.Get(tx, tokenKey); t != nil {
				if old := s.snapshots.Get(tx, key(n.Account, n.Region, t.ID)); old != nil && !old.Deleting {
					if !bytes.Equal(t.Hash, hash) {
						return fail("IdempotentParameterMismatch", "The client token was used with other parameters for %s.", t.ID)
					}
					if old.Draft {
						return fail("ConcurrentLimitExceeded", "A call with the same client token is under way. Try again.")
					}
					before = old
					return nil
				}
			}
			if err := s.tokens.Put(tx, tokenKey, &token{ID: n.ID, Hash: hash}); err != nil {
				return err
			}
		}
		return s.snapshots.Put(tx, n.key(), n)
	})
	return before, err
}

func (s *Service) fillStart(ctx context.Context, c *api.Call, sn Snapshotter, n, parent *snapshot, named string) error {
	k, managed := n.Key, false
	if k.Encrypted {
		var err error
		if k.KeyARN, managed, err = s.describeKey(ctx, c, named); err != nil {
			return err
		}
	}
	k, err := s.makeKey(ctx, c, n.arn(), k, func(k keyState) error {
		return s.editSnapshot(ctx, n.key(), func(e *snapshot) { e.Key = k })
	})
	if err != nil {
		return err
	}
	dek, err := s.openKey(ctx, c.AsService("ec2"), k)
	if err != nil {
		return err
	}
	defer dek.Wipe()
	nv := NewVolume{VolumeID: n.ID, Dir: s.snapshotDir(n), Size: int64(n.SizeGiB) << 30, Key: dek}
	var anchor []byte
	if parent != nil && !parent.Blank {
		from, err := s.openKey(ctx, c.Forward("ec2"), parent.Key)
		if err != nil {
			return err
		}
		defer from.Wipe()
		anchor, err = sn.Restore(ctx, Restore{NewVolume: nv, SnapshotID: parent.ID, SnapshotDir: s.snapshotDir(parent), SnapshotKey: from, SnapshotAnchor: parent.Anchor})
		if err != nil {
			return err
		}
	} else if anchor, err = s.cfg.Plane.Create(ctx, nv); err != nil {
		return err
	}
	return s.editSnapshot(ctx, n.key(), func(e *snapshot) {
		e.Key, e.DefaultKey, e.Draft, e.Owner, e.Anchor = k, managed, false, "", anchor
	})
}

// pendingSnapshot is the caller's own snapshot that is being written.
func (s *Service) pendingSnapshot(tx *store.Tx, c *api.Call, id string) (*snapshot, error) {
	n, err := s.findSnapshot(tx, c, id)
	if err != nil {
		return nil, err
	}
	if n.Direct == nil || n.State != "pending" {
		return nil, fail("IncorrectState", "Snapshot %s is %s: blocks can be written only to a snapshot begun by StartSnapshot and not yet completed.", id, n.State)
	}
	return n, nil
}

// writtenFile lists the indices of the blocks written so far, 4 bytes each, big endian.
func (s *Service) writtenFile(n *snapshot) string { return s.snapshotDir(n) + ".written" }

// WriteSnapshotBlock writes one block of a snapshot begun by StartSnapshot.
func (s *Service) WriteSnapshotBlock(ctx context.Context, c *api.Call, id string, index int32, data []byte) error {
	n, err := s.pendingSnapshot(s.cfg.Store.Snapshot(), c, id)
	if err != nil {
		return err
	}
	if len(data) != DirectBlock || index < 0 || int64(index) >= int64(n.SizeGiB)<<30/DirectBlock {
		return fail("InvalidParameterValue", "Block %d of %d bytes does not fit: blocks have %d bytes, and the snapshot has %d of them.", index, len(data), DirectBlock, int64(n.SizeGiB)<<30/DirectBlock)
	}
	dev, release, err := s.session(ctx, n.key(), &session{id: n.ID, dir: s.snapshotDir(n)}, func(se *session) error {
		dek, err := s.openKey(ctx, c.AsService("ec2"), n.Key)
		if err != nil {
			return err
		}
		defer dek.Wipe()
		// A session of a process that died may still be attached, on another socket.
		if _, err := s.cfg.Plane.Detach(ctx, n.ID); err != nil && !errors.Is(err, ErrNotServed) {
			return err
		}
		_, err = s.cfg.Plane.Attach(ctx, Attach{VolumeID: n.ID, Dir: se.dir, Socket: se.socket, Key: dek, Anchor: n.Anchor})
		return err
	})
	if err != nil {
		return err
	}
	defer release()
	if _, err := dev.WriteAt(data, int64(index)*DirectBlock); err != nil {
		s.endWriting(context.WithoutCancel(ctx), n)
		return fmt.Errorf("write block %d of %s: %w", index, id, outward(err))
	}
	f, err := os.OpenFile(s.writtenFile(n), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(binary.BigEndian.AppendUint32(nil, uint32(index)))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("note block %d of %s: %w", index, id, err)
	}
	if c.Time.Add(n.Direct.Timeout).Sub(n.Direct.Deadline) < time.Minute {
		return nil
	}
	return s.editSnapshot(ctx, n.key(), func(e *snapshot) { e.Direct.Deadline = c.Time.Add(e.Direct.Timeout) })
}

// CompleteSnapshot ends the writing. changed must be the number of blocks written;
// checksum, when not nil, the SHA-256 of the SHA-256 sums of the blocks written, in order of index (LINEAR).
func (s *Service) CompleteSnapshot(ctx context.Context, c *api.Call, id string, changed int32, checksum []byte) (state string, err error) {
	n, err := s.pendingSnapshot(s.cfg.Store.Snapshot(), c, id)
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(s.writtenFile(n))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var written []uint32
	for ; len(raw) >= 4; raw = raw[4:] {
		written = append(written, binary.BigEndian.Uint32(raw))
	}
	slices.Sort(written)
	written = slices.Compact(written)
	if int(changed) != len(written) {
		return "", fail("InvalidParameterValue", "ChangedBlocksCount is %d, and %d blocks were written to %s.", changed, len(written), id)
	}
	s.endWriting(ctx, n)
	dek, err := s.openKey(ctx, c.AsService("ec2"), n.Key)
	if err != nil {
		return "", err
	}
	defer dek.Wipe()
	if checksum != nil {
		if err := s.verifyLinear(ctx, n, dek, written, checksum); err != nil {
			return "", err
		}
	}
	// Opened and closed once more, so that the last anchor is known and everything is durable.
	if _, err := s.cfg.Plane.Attach(ctx, Attach{VolumeID: n.ID, Dir: s.snapshotDir(n), Key: dek, Anchor: n.Anchor}); err != nil {
		return "", outward(err)
	}
	end, cancel := finishing(ctx)
	defer cancel()
	anchor, err := s.cfg.Plane.Detach(end, n.ID)
	if err != nil && !errors.Is(err, ErrNotServed) {
		return "", outward(err)
	}
	err = s.editSnapshot(end, n.key(), func(e *snapshot) {
		e.State, e.Progress, e.CompletionTime, e.Bytes = "completed", 100, s.now(), int64(len(written))*DirectBlock
		if anchor != nil {
			e.Anchor = anchor
		}
	})
	if err != nil {
		return "", err
	}
	_ = os.Remove(s.writtenFile(n))
	return "completed", nil
}

func (s *Service) verifyLinear(ctx context.Context, n *snapshot, dek *secret.Bytes, written []uint32, want []byte) error {
	dev, release, err := s.session(ctx, n.key(), &session{id: n.ID, dir: s.snapshotDir(n)}, func(se *session) error {
		_, err := s.cfg.Plane.Attach(ctx, Attach{VolumeID: n.ID, Dir: se.dir, Socket: se.socket, Key: dek, Anchor: n.Anchor})
		return err
	})
	if err != nil {
		return err
	}
	defer s.endWriting(context.WithoutCancel(ctx), n)
	defer release()
	all := sha256.New()
	p := make([]byte, DirectBlock)
	for _, i := range written {
		if _, err := dev.ReadAt(p, int64(i)*DirectBlock); err != nil {
			return fmt.Errorf("read block %d of %s: %w", i, n.ID, err)
		}
		sum := sha256.Sum256(p)
		all.Write(sum[:])
	}
	if !bytes.Equal(all.Sum(nil), want) {
		return fail("InvalidParameterValue", "The checksum does not match the blocks written to %s.", n.ID)
	}
	return nil
}
