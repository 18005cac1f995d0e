package workspaces

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	tick       = time.Second
	poll       = 250 * time.Millisecond
	minBackoff = 2 * time.Second
	maxBackoff = time.Minute
	// maxBoots is how many desktops power on at the same time: a boot is bound by
	// the processor, and more at once make all of them slow.
	maxBoots = 4
)

// errSuperseded: another task was asked for while this one ran.
var errSuperseded = errors.New("superseded by another request")

// Run brings every WorkSpace to what its record asks for, until ctx ends. It may
// be killed at any line: every step looks first whether it is done already.
func (s *Service) Run(ctx context.Context) {
	s.cfg.Store.Lead(ctx, name, s.reconcile)
}

func (s *Service) reconcile(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Add(1)
	go func() {
		defer workers.Done()
		for ctx.Err() == nil {
			s.watch(ctx)
			s.upkeep(ctx)
			select {
			case <-ctx.Done():
			case <-s.cfg.Clock.After(tick):
			}
		}
	}()
	workers.Go(func() {
		for ctx.Err() == nil {
			s.imageUpkeep(ctx)
			select {
			case <-ctx.Done():
			case <-s.cfg.Clock.After(tick):
			}
		}
	})
	boots := make(chan struct{}, maxBoots)
	for ctx.Err() == nil {
		changed := s.cfg.Store.Changed()
		now := s.cfg.Clock.Now()
		for _, k := range s.due(now) {
			workers.Add(1)
			go func() {
				defer workers.Done()
				defer s.release(k)
				select {
				case boots <- struct{}{}:
					defer func() { <-boots }()
				case <-ctx.Done():
					return
				}
				s.work(ctx, k)
			}()
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-s.cfg.Clock.After(tick): // a task's time may have come
		}
	}
}

// due claims the records that have a task whose time has come and no worker.
func (s *Service) due(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	s.workspaces.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, w *workspace) bool {
		if w.Task != taskNone && !s.working[k] && !now.Before(w.NotBefore) {
			s.working[k] = true
			keys = append(keys, k)
		}
		return true
	})
	return keys
}

func (s *Service) release(k string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.working, k)
}

// work does the task of one WorkSpace once, and records success or the reason
// and time of the next try.
func (s *Service) work(ctx context.Context, k string) {
	w := s.workspaces.Get(s.cfg.Store.Snapshot(), k)
	if w == nil || w.Task == taskNone {
		return
	}
	started := s.cfg.Clock.Now()
	err := s.perform(ctx, w)
	log := s.log.With("workspace", w.ID, "task", string(w.Task))
	switch {
	case err == nil:
		log.Info("task done", "took", s.cfg.Clock.Now().Sub(started))
		return
	case ctx.Err() != nil, errors.Is(err, errSuperseded):
		return
	}
	code, message := reason(err)
	log.Warn("task failed, will be tried again", "err", err, "attempt", w.Attempts+1)
	now := s.cfg.Clock.Now()
	_, err = s.advance(ctx, w, func(r *workspace) {
		r.Attempts++
		backoff := min(minBackoff<<min(r.Attempts-1, 10), maxBackoff)
		r.NotBefore, r.Progress = now.Add(backoff), ""
		st := inError
		if r.Task == taskTerminate {
			st = terminating
		}
		r.setState(now, st, code, message)
	})
	if err != nil && !errors.Is(err, errSuperseded) {
		log.Error("the outcome of a task could not be recorded", "err", err)
	}
}

// reason is what a user is told about an error.
func reason(err error) (code, message string) {
	var f *failure
	if errors.As(err, &f) {
		return f.code, f.message
	}
	var apiErr smithy.APIError
	if errors.As(err, &apiErr) {
		return apiErr.ErrorCode(), err.Error()
	}
	return "InternalFailure", err.Error()
}

// advance edits the record of a task unless another task has taken its place.
func (s *Service) advance(ctx context.Context, was *workspace, f func(w *workspace)) (*workspace, error) {
	var w *workspace
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if w = s.workspaces.Edit(tx, was.key()); w == nil || w.Task != was.Task {
			return errSuperseded
		}
		f(w)
		return s.workspaces.Put(tx, w.key(), w)
	})
	return w, err
}

func (s *Service) progress(ctx context.Context, w *workspace, what string) (*workspace, error) {
	if w.Progress == what {
		return w, nil
	}
	return s.advance(ctx, w, func(w *workspace) { w.Progress = what })
}

// perform does a whole task, from wherever it was left.
func (s *Service) perform(ctx context.Context, w *workspace) error {
	var err error
	switch w.Task {
	case taskCreate, taskStart:
		return s.up(ctx, w)
	case taskStop:
		if err := s.down(ctx, w, s.cfg.StopGrace); err != nil {
			return err
		}
		_, err := s.done(ctx, w, stopped)
		return err
	case taskReboot, taskRecover, taskRebuild, taskRestore:
		if !w.Down {
			if err := s.down(ctx, w, s.cfg.StopGrace); err != nil {
				return err
			}
			if w.Task == taskRebuild && w.RootVolume != "" {
				from, err := s.source(w)
				if err != nil {
					return err
				}
				if err := s.cfg.Volumes.Reset(ctx, s.call(w), w.RootVolume, from); err != nil {
					return fmt.Errorf("renew the root volume %s: %w", w.RootVolume, err)
				}
			}
			if w.Task == taskRestore {
				if err := s.goBack(ctx, w); err != nil {
					return err
				}
			}
			if w, err = s.advance(ctx, w, func(w *workspace) { w.Down = true }); err != nil {
				return err
			}
		}
		return s.up(ctx, w)
	case taskImage:
		return s.makeImage(ctx, w)
	case taskMigrate:
		return s.migrate(ctx, w)
	case taskTerminate:
		return s.remove(ctx, w)
	}
	return fmt.Errorf("record of %s has an unknown task %q", w.ID, w.Task)
}

// done ends a task in a state.
func (s *Service) done(ctx context.Context, w *workspace, st wstypes.WorkspaceState) (*workspace, error) {
	now := s.cfg.Clock.Now()
	return s.advance(ctx, w, func(w *workspace) {
		if w.Task == taskCreate || w.Task == taskRebuild || w.Task == taskRestore {
			w.NextSnapshot = now.Add(min(firstSnapshot, s.cfg.SnapshotEvery))
		}
		w.Task, w.Down, w.Attempts, w.Progress, w.ImageID, w.Stopped = taskNone, false, 0, "", "", false
		w.LastActive, w.Connected = now, false
		w.setState(now, st, "", "")
	})
}

// call is a call of WorkSpaces itself on behalf of who launched the WorkSpace.
func (s *Service) call(w *workspace) *api.Call {
	c := api.ServiceCall(name, w.Account, w.Region, s.cfg.Clock.Now())
	caller := w.Caller
	c.OnBehalfOf = &caller
	c.SourceARN = fmt.Sprintf("arn:aws:workspaces:%s:%s:workspace/%s", w.Region, w.Account, w.ID)
	return c
}

// up makes a WorkSpace run: grant, volumes, attachment, machine, painted desktop.
func (s *Service) up(ctx context.Context, w *workspace) error {
	var err error
	if w.encrypted() && w.GrantID == "" {
		// The launch call was cut off between its record and its grant: make the
		// grant in the caller's name, as the call would have.
		c := s.call(w)
		c.Principal = w.Caller
		grant, err := s.createGrant(ctx, c, w)
		if err != nil {
			return err
		}
		if w, err = s.advance(ctx, w, func(w *workspace) { w.GrantID = grant }); err != nil {
			return err
		}
	}
	if w, err = s.ensureVolumes(ctx, w); err != nil {
		return err
	}
	st, err := s.cfg.Compute.Status(ctx, w.ID)
	if err != nil && !errors.Is(err, compute.ErrNotFound) {
		return fmt.Errorf("look for the machine: %w", err)
	}
	if !st.State.Alive() || st.State == compute.StatePanicked {
		if w, err = s.progress(ctx, w, "attaching volumes"); err != nil {
			return err
		}
		disks, err := s.attachVolumes(ctx, w)
		if err != nil {
			return err
		}
		if w, err = s.progress(ctx, w, "starting the machine"); err != nil {
			return err
		}
		if err := s.startMachine(ctx, w, disks); err != nil {
			return err
		}
	}
	if w, err = s.progress(ctx, w, "waiting for the desktop"); err != nil {
		return err
	}
	if err := s.awaitDesktop(ctx, w); err != nil {
		return err
	}
	_, err = s.done(ctx, w, available)
	return err
}

// ensureVolumes creates what is missing and waits until both can be attached.
func (s *Service) ensureVolumes(ctx context.Context, w *workspace) (*workspace, error) {
	var err error
	if w.RootVolume == "" {
		from, err := s.source(w)
		if err != nil {
			return nil, err
		}
		id, err := s.cfg.Volumes.Create(ctx, s.call(w), s.volume(w, compute.RoleRoot, w.RootGiB, w.EncryptRoot, from, w.ID+"-root"))
		if err != nil {
			return nil, fmt.Errorf("create the root volume: %w", err)
		}
		if w, err = s.advance(ctx, w, func(w *workspace) { w.RootVolume = id }); err != nil {
			return nil, err
		}
	}
	if w.UserVolume == "" {
		id, err := s.cfg.Volumes.Create(ctx, s.call(w), s.volume(w, compute.RoleUser, w.UserGiB, w.EncryptUser, Source{}, w.ID+"-user"))
		if err != nil {
			return nil, fmt.Errorf("create the user volume: %w", err)
		}
		if w, err = s.advance(ctx, w, func(w *workspace) { w.UserVolume = id }); err != nil {
			return nil, err
		}
	}
	for _, id := range []string{w.RootVolume, w.UserVolume} {
		for {
			st, err := s.cfg.Volumes.Status(ctx, s.call(w), id)
			if err != nil {
				return nil, fmt.Errorf("look at volume %s: %w", id, err)
			}
			if st.State == "available" || st.State == "in-use" {
				break
			}
			if st.State != "creating" {
				return nil, refuse("ResourceUnavailable.Volume", "Volume %s is %s: %s", id, orGone(st.State), st.Reason)
			}
			if w, err = s.progress(ctx, w, "creating volumes"); err != nil {
				return nil, err
			}
			if err := s.pause(ctx); err != nil {
				return nil, err
			}
		}
	}
	return w, err
}

// source finds what a root volume begins with: the snapshot of the bundle's own image,
// or the desktop image, or says why there is none.
func (s *Service) source(w *workspace) (Source, error) {
	tx := s.cfg.Store.Snapshot()
	if b := s.bundles.Get(tx, key(w.Account, w.Region, w.BundleID)); b != nil && b.ImageID != imageID {
		if i := s.images.Get(tx, key(w.Account, w.Region, b.ImageID)); i != nil && i.State == wstypes.WorkspaceImageStateAvailable {
			return Source{Snapshot: i.SnapshotID}, nil
		}
		return Source{}, refuse("ResourceUnavailable.Image", "The image %s of the bundle %s is not available.", b.ImageID, b.ID)
	}
	path, err := s.cfg.Image()
	if err != nil {
		return Source{}, refuse("ResourceUnavailable.Image", "There is no desktop image to start from: %v", err)
	}
	return Source{Path: path}, nil
}

func orGone(state string) string {
	if state == "" {
		return "gone"
	}
	return state
}

func (s *Service) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.cfg.Clock.After(poll):
		return nil
	}
}

func (s *Service) volume(w *workspace, role compute.DiskRole, sizeGiB int, encrypted bool, from Source, token string) VolumeRequest {
	v := VolumeRequest{WorkspaceID: w.ID, Role: role, SizeGiB: sizeGiB, Encrypted: encrypted, From: from, ClientToken: token}
	if encrypted {
		v.KeyARN, v.SidDirectoryID = w.KeyARN, w.sidDirectoryID()
	}
	return v
}

// attachVolumes has EBS open both volumes, for which KMS must decrypt their keys.
func (s *Service) attachVolumes(ctx context.Context, w *workspace) ([]compute.Disk, error) {
	if err := s.cfg.Volumes.HandOver(ctx, s.call(w), w.UserVolume, w.ID); err != nil {
		return nil, fmt.Errorf("take over the user volume %s: %w", w.UserVolume, err)
	}
	var disks []compute.Disk
	for _, d := range []struct {
		role           compute.DiskRole
		volume, device string
	}{{compute.RoleRoot, w.RootVolume, "/dev/sda1"}, {compute.RoleUser, w.UserVolume, "/dev/sdf"}} {
		disk, err := s.cfg.Volumes.Attach(ctx, s.call(w), d.volume, w.ID, d.device)
		if err != nil {
			return nil, fmt.Errorf("attach the %s volume %s: %w", d.role, d.volume, err)
		}
		disk.Role = d.role
		disks = append(disks, disk)
	}
	return disks, nil
}

func (s *Service) startMachine(ctx context.Context, w *workspace, disks []compute.Disk) error {
	user, ok := s.cfg.Directories.User(s.cfg.Store.Snapshot(), w.Account, w.Region, w.DirectoryID, w.UserName)
	if !ok || user.SID != w.SID {
		return refuse("InvalidUserConfiguration.Workspace", "The user was either not found or is misconfigured. (%s in %s)", w.UserName, w.DirectoryID)
	}
	sz := machineSizes[w.Compute]
	spec := compute.Spec{ID: w.ID, VCPUs: sz.vcpus, MemoryMiB: sz.memoryMiB, Disks: disks,
		Seed: compute.Seed{UserName: strings.ToLower(w.UserName), FullName: plain(user.DisplayName), Hostname: w.ComputerName}}
	err := s.cfg.Compute.Start(ctx, spec.WithDefaults())
	if errors.Is(err, compute.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start the machine: %w", err)
	}
	return nil
}

// plain keeps of a display name what a guest's account database can hold.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || strings.ContainsRune(":,\"\\", r) || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, name)
}

// awaitDesktop waits until the guest says that its desktop is painted.
func (s *Service) awaitDesktop(ctx context.Context, w *workspace) error {
	deadline := s.cfg.Clock.Now().Add(s.cfg.BootTimeout)
	for {
		st, err := s.cfg.Compute.Status(ctx, w.ID)
		if err != nil {
			return fmt.Errorf("watch the machine: %w", err)
		}
		switch {
		case st.GuestReady:
			return nil
		case !st.State.Alive():
			return refuse("WorkspaceUnhealthy", "The machine stopped before its desktop appeared: %s", st.Reason)
		case st.State == compute.StatePanicked:
			return refuse("WorkspaceUnhealthy", "The guest's kernel stopped: %s. RebuildWorkspaces renews the root volume.", st.Reason)
		case s.cfg.Clock.Now().After(deadline):
			return refuse("WorkspaceUnhealthy", "The desktop did not appear within %v (the machine is %s). RebootWorkspaces tries again, RebuildWorkspaces renews the root volume.", s.cfg.BootTimeout, st.State)
		}
		if now := s.workspaces.Get(s.cfg.Store.Snapshot(), w.key()); now == nil || now.Task != w.Task {
			return errSuperseded
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
}

// down powers the machine off and detaches the volumes, upon which their keys
// leave memory.
func (s *Service) down(ctx context.Context, w *workspace, grace time.Duration) error {
	var err error
	if w, err = s.progress(ctx, w, "powering off"); err != nil {
		return err
	}
	if err := s.cfg.Compute.Stop(ctx, w.ID, grace); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	if err := s.cfg.Compute.Remove(ctx, w.ID); err != nil {
		return fmt.Errorf("remove the machine: %w", err)
	}
	for _, id := range []string{w.RootVolume, w.UserVolume} {
		if id == "" {
			continue
		}
		if err := s.cfg.Volumes.Detach(ctx, s.call(w), id); err != nil {
			return fmt.Errorf("detach volume %s: %w", id, err)
		}
	}
	return nil
}

// deleteVolume deletes a volume and waits until it is gone.
func (s *Service) deleteVolume(ctx context.Context, w *workspace, id string) error {
	if err := s.cfg.Volumes.Delete(ctx, s.call(w), id); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}
	for {
		st, err := s.cfg.Volumes.Status(ctx, s.call(w), id)
		if err != nil {
			return fmt.Errorf("look at volume %s: %w", id, err)
		}
		if st.State == "" || st.State == "deleted" {
			return nil
		}
		if st.State != "deleting" {
			return refuse("ResourceUnavailable.Volume", "Volume %s could not be deleted, it is %s: %s", id, st.State, st.Reason)
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
}

// remove is step 9 of MISSION: the volumes go (EBS retires its grants), then
// WorkSpaces retires its own, then the record goes.
func (s *Service) remove(ctx context.Context, w *workspace) error {
	if err := s.down(ctx, w, 0); err != nil {
		return err
	}
	if err := s.cfg.Volumes.DeleteSnapshots(ctx, s.call(w), w.ID); err != nil {
		return fmt.Errorf("delete the snapshots: %w", err)
	}
	for _, id := range []string{w.RootVolume, w.UserVolume} {
		if id != "" {
			if err := s.deleteVolume(ctx, w, id); err != nil {
				return err
			}
		}
	}
	if w.GrantID != "" {
		_, err := api.Do[kms.RetireGrantOutput](ctx, s.cfg.Caller, s.call(w), "kms", "RetireGrant", &kms.RetireGrantInput{KeyId: &w.KeyARN, GrantId: &w.GrantID})
		var apiErr smithy.APIError
		if err != nil && !(errors.As(err, &apiErr) && (apiErr.ErrorCode() == "NotFoundException" || apiErr.ErrorCode() == "InvalidGrantIdException")) {
			return fmt.Errorf("retire the grant: %w", err)
		}
	}
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error { return s.workspaces.Delete(tx, w.key()) })
}

// watch compares what runs with what should, and asks for what follows.
func (s *Service) watch(ctx context.Context) {
	list, err := s.cfg.Compute.List(ctx)
	if err != nil {
		s.log.Warn("the machines could not be listed", "err", err)
		return
	}
	machines := make(map[string]compute.Status, len(list))
	for _, st := range list {
		machines[st.ID] = st
	}
	now := s.cfg.Clock.Now()
	var keys []string
	s.workspaces.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, w *workspace) bool {
		if w.Task == taskNone {
			if verdict(w, machines[w.ID], now) != nil {
				keys = append(keys, k)
			}
		}
		return true
	})
	for _, k := range keys {
		_, err := s.change(ctx, k, func(w *workspace) {
			if w.Task != taskNone {
				return
			}
			if f := verdict(w, machines[w.ID], now); f != nil {
				f(w)
			}
		})
		if err != nil && ctx.Err() == nil {
			s.log.Warn("a WorkSpace's state could not be recorded", "workspace", k, "err", err)
		}
	}
}

// verdict says what must change about a WorkSpace that has no task, given its
// machine; nil when nothing.
func verdict(w *workspace, m compute.Status, now time.Time) func(w *workspace) {
	running := w.State == available || w.State == impaired || w.State == unhealthy || w.State == adminMaint
	if !running {
		return nil
	}
	healthy := func(w *workspace) {
		if w.State != adminMaint {
			w.setState(now, available, "", "")
		}
	}
	switch {
	case !m.State.Alive():
		why := m.Reason
		if why == "" {
			why = "its process is gone"
		}
		return func(w *workspace) {
			w.Connected, w.Attempts, w.Down = false, 0, false
			if w.RunningMode == wstypes.RunningModeAlwaysOn || w.State == adminMaint {
				w.Task = taskRecover
				w.setState(now, unhealthy, "WorkspaceUnhealthy", "The machine stopped by itself ("+why+") and is being started again.")
				return
			}
			w.Task = taskStop
			w.setState(now, stopping, "", "")
		}
	case m.State == compute.StateIOError && w.State != impaired:
		return func(w *workspace) {
			w.setState(now, impaired, "VolumeUnavailable", "The desktop is paused because a volume does not answer ("+m.Reason+"); it goes on when the volume is back.")
		}
	case m.State == compute.StatePanicked && w.State != unhealthy:
		return func(w *workspace) {
			w.setState(now, unhealthy, "WorkspaceUnhealthy", "The guest's kernel stopped: "+m.Reason+". Reboot it.")
		}
	case m.State == compute.StateRunning && (w.State == impaired || w.State == unhealthy):
		return healthy
	case m.State == compute.StateRunning && w.RunningMode == wstypes.RunningModeAutoStop && w.State == available && !w.Connected &&
		now.Sub(w.LastActive) > time.Duration(w.AutoStopMinutes)*time.Minute:
		return func(w *workspace) {
			w.Task, w.Attempts, w.Down = taskStop, 0, false
			w.setState(now, stopping, "", "")
		}
	}
	return nil
}
