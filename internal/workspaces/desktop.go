package workspaces

import (
	"context"
	"errors"
	"strings"
	"time"

	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/store"
)

// extension is the service name of the operations that AWS does not have: they
// go through the same gateway, IAM (sealdesk:…) and audit as all others.
const extension = "sealdesk"

// GetDesktopScreenshotInput names a WorkSpace.
type GetDesktopScreenshotInput struct{ WorkspaceId *string }

// GetDesktopScreenshotOutput is its screen.
type GetDesktopScreenshotOutput struct{ Png []byte }

// SendDesktopInputInput types on the keyboard of a WorkSpace: chords such as
// "ctrl-alt-t" first, then text (printable ASCII, newline and tab).
type SendDesktopInputInput struct {
	WorkspaceId *string
	Keys        []string
	Text        *string
}

// SendDesktopInputOutput is empty.
type SendDesktopInputOutput struct{}

// DescribeDesktopsInput names WorkSpaces; none: all of the account and region.
type DescribeDesktopsInput struct{ WorkspaceIds []string }

// DescribeDesktopsOutput is what runs behind them.
type DescribeDesktopsOutput struct{ Desktops []Desktop }

// Desktop is a WorkSpace as the machine it is.
type Desktop struct {
	WorkspaceId, State, Progress, ErrorMessage      *string
	RootVolumeId, UserVolumeId, GrantId, KeyId      *string
	MachineState, Accelerator                       *string
	ProcessId                                       *int32
	MemoryBytes                                     *int64
	StartedAt, DesktopReadyAt                       *time.Time
	SidDirectoryId, UserName, DirectoryId, BundleId *string
}

func (s *Service) desktopOperations() []api.Operation {
	onOne := func(id func(any) []string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "workspace", id(in)), nil
			}
		}
	}
	return []api.Operation{
		api.NewSteps(extension, "GetDesktopScreenshot", s.screenshot, api.ReadOnly(), api.Sensitive("Png"), onOne(func(in any) []string { return []string{deref(in.(*GetDesktopScreenshotInput).WorkspaceId)} })),
		api.NewSteps(extension, "SendDesktopInput", s.sendInput, api.Sensitive("Text", "Keys"), onOne(func(in any) []string { return []string{deref(in.(*SendDesktopInputInput).WorkspaceId)} })),
		api.NewSteps(extension, "DescribeDesktops", s.describeDesktops, api.ReadOnly()),
	}
}

// running finds a WorkSpace whose machine is there.
func (s *Service) running(c *api.Call, id *string) (*workspace, error) {
	w := s.workspaces.Get(s.cfg.Store.Snapshot(), key(c.Account, c.Region, deref(id)))
	if w == nil {
		return nil, notFound("WorkSpace", deref(id))
	}
	return w, nil
}

func (s *Service) machineError(w *workspace, err error) error {
	if errors.Is(err, compute.ErrNotFound) || errors.Is(err, compute.ErrNotRunning) {
		m := "The WorkSpace " + w.ID + " is " + string(w.State) + ": it has no screen now."
		return &wstypes.InvalidResourceStateException{Message: &m}
	}
	return err
}

// screenshot is the screen of a desktop, as a PNG file.
func (s *Service) screenshot(ctx context.Context, c *api.Call, in *GetDesktopScreenshotInput) (*GetDesktopScreenshotOutput, error) {
	w, err := s.running(c, in.WorkspaceId)
	if err != nil {
		return nil, err
	}
	png, err := s.cfg.Compute.Screendump(ctx, w.ID)
	if err != nil {
		return nil, s.machineError(w, err)
	}
	return &GetDesktopScreenshotOutput{Png: png}, nil
}

// sendInput types on a desktop's keyboard. What was typed is not recorded, that
// it was is.
func (s *Service) sendInput(ctx context.Context, c *api.Call, in *SendDesktopInputInput) (*SendDesktopInputOutput, error) {
	w, err := s.running(c, in.WorkspaceId)
	if err != nil {
		return nil, err
	}
	for _, k := range in.Keys {
		chord, err := parseChord(k)
		if err != nil {
			return nil, invalidValues(err.Error())
		}
		if err := s.cfg.Compute.SendKeys(ctx, w.ID, chord); err != nil {
			return nil, s.machineError(w, err)
		}
	}
	if t := deref(in.Text); t != "" {
		if err := s.cfg.Compute.TypeText(ctx, w.ID, t); err != nil {
			return nil, s.machineError(w, err)
		}
	}
	return &SendDesktopInputOutput{}, nil
}

// describeDesktops shows the machines behind WorkSpaces.
func (s *Service) describeDesktops(ctx context.Context, c *api.Call, in *DescribeDesktopsInput) (*DescribeDesktopsOutput, error) {
	wanted := map[string]bool{}
	for _, id := range in.WorkspaceIds {
		wanted[id] = true
	}
	out := &DescribeDesktopsOutput{Desktops: []Desktop{}}
	var err error
	s.workspaces.Scan(s.cfg.Store.Snapshot(), key(c.Account, c.Region, ""), "", func(_ string, w *workspace) bool {
		if len(wanted) > 0 && !wanted[w.ID] {
			return true
		}
		sid, state := w.sidDirectoryID(), string(w.State)
		d := Desktop{WorkspaceId: &w.ID, State: &state, Progress: opt(w.Progress), ErrorMessage: opt(w.ErrorMessage), RootVolumeId: opt(w.RootVolume), UserVolumeId: opt(w.UserVolume),
			GrantId: opt(w.GrantID), KeyId: opt(w.KeyARN), SidDirectoryId: &sid, UserName: &w.UserName, DirectoryId: &w.DirectoryID, BundleId: &w.BundleID}
		st, serr := s.cfg.Compute.Status(ctx, w.ID)
		switch {
		case serr == nil:
			ms, pid, mem := string(st.State), int32(st.PID), st.MemoryRSSByte
			d.MachineState, d.Accelerator, d.ProcessId, d.MemoryBytes = &ms, opt(st.Accelerator), &pid, &mem
			if !st.StartedAt.IsZero() {
				d.StartedAt = &st.StartedAt
			}
			if st.GuestReady {
				d.DesktopReadyAt = &st.GuestReadyAt
			}
		case !errors.Is(serr, compute.ErrNotFound):
			err = serr
			return false
		}
		out.Desktops = append(out.Desktops, d)
		return true
	})
	return out, err
}

func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Screen is what a relay needs to show a desktop: whether it may be shown now,
// and where the machine serves its screen.
type Screen struct {
	WorkspaceID, UserName, SID string
	Socket                     string
}

// Screen finds the running desktop of a WorkSpace.
func (s *Service) Screen(ctx context.Context, account, region, id string) (Screen, error) {
	w := s.workspaces.Get(s.cfg.Store.Snapshot(), key(account, region, id))
	if w == nil {
		return Screen{}, notFound("WorkSpace", id)
	}
	if w.State != available {
		m := "The WorkSpace is " + string(w.State) + "."
		return Screen{}, &wstypes.InvalidResourceStateException{Message: &m}
	}
	socket, err := s.cfg.Compute.VNCSocket(ctx, w.ID)
	if err != nil {
		return Screen{}, s.machineError(w, err)
	}
	return Screen{WorkspaceID: w.ID, UserName: w.UserName, SID: w.SID, Socket: socket}, nil
}

// Connection records that a user's connection to a desktop began or ended; it
// feeds DescribeWorkspacesConnectionStatus and AUTO_STOP.
func (s *Service) Connection(ctx context.Context, account, region, id string, connected bool) error {
	now := s.cfg.Clock.Now()
	_, err := s.change(ctx, key(account, region, id), func(w *workspace) {
		w.Connected, w.LastActive = connected, now
		if connected {
			w.LastConnected = now
		}
	})
	return err
}

// OfUser lists the WorkSpaces of a directory user, for the user's own portal.
func (s *Service) OfUser(tx *store.Tx, account, region, directoryID, sid string) []*wstypes.Workspace {
	var out []*wstypes.Workspace
	for _, k := range s.byUser.Keys(userKey(account, region, directoryID, sid), "", 0) {
		if w := s.workspaces.Get(tx, k); w != nil {
			out = append(out, show(w))
		}
	}
	return out
}

// parseChord reads keys pressed together, such as "ctrl-alt-t".
func parseChord(s string) (compute.Chord, error) {
	var c compute.Chord
	for k := range strings.SplitSeq(s, "-") {
		c = append(c, compute.Key(k))
	}
	return c, compute.ValidateChords([]compute.Chord{c})
}
