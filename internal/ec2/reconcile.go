package ec2

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// retry is when to try next to attach a volume that KMS or the plane refused.
type retry struct {
	at    time.Time
	pause time.Duration
}

// Run completes what was begun and keeps what should be attached attached, until
// ctx ends. It may be killed at any line.
func (s *Service) Run(ctx context.Context) {
	for {
		s.Reconcile(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Clock.After(s.cfg.Poll):
		}
	}
}

// Reconcile is one round of Run.
func (s *Service) Reconcile(ctx context.Context) {
	tx := s.cfg.Store.Snapshot()
	served, err := s.cfg.Plane.Served(ctx)
	plane := err == nil
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the data plane does not answer", "err", err)
	}
	bySocket := make(map[string]*Served, len(served))
	for i := range served {
		bySocket[served[i].VolumeID] = &served[i]
	}
	known := map[string]bool{}
	var todo []string
	s.volumes.Scan(tx, "", "", func(k string, v *volume) bool {
		if v.Host != s.cfg.Host {
			return true
		}
		known[v.ID] = true
		if s.needsWork(v, bySocket[v.ID], plane) {
			todo = append(todo, k)
		}
		return true
	})
	for _, k := range todo {
		if ctx.Err() != nil {
			return
		}
		if err := s.converge(ctx, k, plane); err != nil && ctx.Err() == nil {
			s.log.Warn("volume not settled yet", "volume", k, "err", err)
		}
	}
	for id := range bySocket {
		if known[id] || len(s.byID.Keys(id, "", 1)) > 0 || s.direct.live(id) {
			continue
		}
		s.log.Warn("the data plane serves a volume that no record knows: detached", "volume", id)
		if _, err := s.cfg.Plane.Detach(ctx, id); err != nil && !errors.Is(err, ErrNotServed) {
			s.log.Warn("cannot detach it", "volume", id, "err", err)
		}
	}
	s.reconcileSnapshots(ctx)
	s.reconcileSessions(ctx)
}

// needsWork is a cheap look: is the record as it should be, and the plane as the record says?
func (s *Service) needsWork(v *volume, sv *Served, plane bool) bool {
	switch {
	case v.Draft:
		return v.Owner != s.instance
	case v.State == stateDeleting:
		return true
	case !plane:
		return false
	case v.Modification != nil && v.Modification.State == "modifying":
		return true
	case v.Attachment == nil:
		return sv != nil
	case v.Attachment.State == detaching || v.Attachment.State == attaching:
		return true
	default:
		return sv == nil || sv.Failed != "" || v.Image != "" && s.imageDone(v, sv) || sv.Anchor != nil && !bytes.Equal(sv.Anchor, v.Anchor)
	}
}

// converge takes one volume to where its record says it should be.
func (s *Service) converge(ctx context.Context, volumeKey string, plane bool) error {
	unlock, err := s.locks.lock(ctx, volumeKey)
	if err != nil {
		return err
	}
	defer unlock()
	// Look again: an operation may have had the lock.
	v := s.volumes.Get(s.cfg.Store.Snapshot(), volumeKey)
	switch {
	case v == nil:
		return nil
	case v.Draft:
		if v.Owner == s.instance {
			return nil
		}
		return s.undoDraft(ctx, volumeKey)
	case v.State == stateDeleting:
		return s.finishDelete(ctx, volumeKey)
	case !plane:
		return nil
	case v.Attachment != nil && v.Attachment.State == detaching:
		return s.finishDetach(ctx, volumeKey)
	}
	if err := s.finishModification(ctx, s.serviceCall(v.Account, v.Region), volumeKey); err != nil {
		return err
	}
	sv, err := s.servedNow(ctx, v.ID)
	if err != nil {
		return err
	}
	switch {
	case v.Attachment == nil:
		if sv == nil {
			return nil
		}
		_, err := s.cfg.Plane.Detach(ctx, v.ID)
		if errors.Is(err, ErrNotServed) {
			err = nil
		}
		return err
	case sv != nil && sv.Failed == "":
		return s.editVolume(ctx, volumeKey, func(e *volume) error {
			if e.Attachment == nil {
				return nil
			}
			if s.imageDone(v, sv) {
				e.Image = "" // needed no more; it may be removed
			}
			e.Attachment.State, e.Attachment.Once, e.Reason = attached, true, ""
			if sv.Anchor != nil {
				e.Anchor = sv.Anchor
			}
			return nil
		})
	}
	return s.reattach(ctx, v, sv)
}

// imageGrace is how long a volume must have done without its image before the
// record forgets the image: longer than the checkpoint that makes it durable takes.
const imageGrace = time.Minute

// imageDone tells that the volume has taken over its whole image, for some time already.
func (s *Service) imageDone(v *volume, sv *Served) bool {
	s.retryMu.Lock()
	defer s.retryMu.Unlock()
	k := v.key()
	if sv.ImageBytes > 0 || sv.Failed != "" {
		delete(s.hydrated, k)
		return false
	}
	since, seen := s.hydrated[k]
	if !seen {
		s.hydrated[k] = s.cfg.Clock.Now()
		return false
	}
	if s.cfg.Clock.Now().Sub(since) < imageGrace {
		return false
	}
	return true
}

func (s *Service) servedNow(ctx context.Context, id string) (*Served, error) {
	served, err := s.cfg.Plane.Served(ctx)
	if err != nil {
		return nil, err
	}
	for i := range served {
		if served[i].VolumeID == id {
			return &served[i], nil
		}
	}
	return nil, nil
}

// reattach serves again a volume that should be attached and is not: the data
// plane died, or stopped the volume, or the process that was attaching it died. A
// refusal is recorded with its reason and tried again later; one that was never
// served is undone.
func (s *Service) reattach(ctx context.Context, v *volume, sv *Served) error {
	if !s.due(v.key()) {
		return nil
	}
	if sv != nil { // failed: drop it first
		if _, err := s.cfg.Plane.Detach(ctx, v.ID); err != nil && !errors.Is(err, ErrNotServed) {
			return s.broken(ctx, v, err)
		}
	}
	if v.Attachment.State == attached {
		err := s.editVolume(ctx, v.key(), func(e *volume) error {
			if e.Attachment != nil {
				e.Attachment.State, e.Reason = attaching, "the data plane stopped serving the volume; it is being attached again"
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := s.serve(ctx, s.serviceCall(v.Account, v.Region), v.key())
	if err == nil {
		s.forget(v.key())
		s.log.Info("volume attached again", "volume", v.ID)
		return nil
	}
	if !v.Attachment.Once {
		s.forget(v.key())
		if uerr := s.undoAttach(ctx, v.key()); uerr != nil {
			return errors.Join(err, uerr)
		}
		return s.editVolume(ctx, v.key(), func(e *volume) error { e.Reason = reasonOf(err); return nil })
	}
	return s.broken(ctx, v, err)
}

// broken records why an attachment is not served.
func (s *Service) broken(ctx context.Context, v *volume, cause error) error {
	s.later(v.key())
	reason := reasonOf(cause)
	s.log.Warn("volume cannot be attached again", "volume", v.ID, "reason", reason)
	if v.Reason == reason {
		return nil
	}
	return s.editVolume(ctx, v.key(), func(e *volume) error {
		if e.Attachment == nil {
			return nil
		}
		e.Attachment.State, e.Reason = attaching, reason
		return nil
	})
}

// reasonOf is an error in the words that a reader of DescribeVolumeStatus sees.
func reasonOf(err error) string {
	err = outward(err)
	if e, ok := serviceError(err); ok {
		return e.ErrorCode() + ": " + e.ErrorMessage()
	}
	return err.Error()
}

func (s *Service) due(volumeKey string) bool {
	s.retryMu.Lock()
	defer s.retryMu.Unlock()
	r := s.retries[volumeKey]
	return r == nil || !s.cfg.Clock.Now().Before(r.at)
}

// later doubles the pause before the next attempt, from a second up to RetryAtMost.
func (s *Service) later(volumeKey string) {
	s.retryMu.Lock()
	defer s.retryMu.Unlock()
	r := s.retries[volumeKey]
	if r == nil {
		r = &retry{pause: time.Second / 2}
		s.retries[volumeKey] = r
	}
	r.pause = min(2*r.pause, s.cfg.RetryAtMost)
	r.at = s.cfg.Clock.Now().Add(r.pause)
}

func (s *Service) forget(volumeKey string) {
	s.retryMu.Lock()
	defer s.retryMu.Unlock()
	delete(s.retries, volumeKey)
	delete(s.hydrated, volumeKey)
}
