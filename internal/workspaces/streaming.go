package workspaces

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/store"
)

// The clipboard's two directions, as StreamingProperties name them.
const (
	copyFromLocal = wstypes.UserSettingActionEnumClipboardCopyFromLocalDevice
	copyToLocal   = wstypes.UserSettingActionEnumClipboardCopyToLocalDevice
)

// showStreaming tells both directions of the clipboard.
func showStreaming(r *registration) *wstypes.StreamingProperties {
	o := &wstypes.StreamingProperties{}
	for _, a := range []wstypes.UserSettingActionEnum{copyFromLocal, copyToLocal} {
		p := wstypes.UserSettingPermissionEnumEnabled
		if r.Streaming[string(a)] == string(wstypes.UserSettingPermissionEnumDisabled) {
			p = wstypes.UserSettingPermissionEnumDisabled
		}
		o.UserSettings = append(o.UserSettings, wstypes.UserSetting{Action: a, Permission: p})
	}
	return o
}

// modifyStreaming decides over the clipboard of a directory's desktops; open
// connections follow at once. There is nothing else to stream: no files, no
// printer, one protocol.
func (s *Service) modifyStreaming(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifyStreamingPropertiesInput) (*workspaces.ModifyStreamingPropertiesOutput, error) {
	return &workspaces.ModifyStreamingPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(r *registration) error {
		p := in.StreamingProperties
		if p == nil {
			return invalidValues("StreamingProperties is empty: name what to change.")
		}
		if p.StreamingExperiencePreferredProtocol != "" {
			return invalidValues("StreamingExperiencePreferredProtocol: desktops are shown in the browser only.")
		}
		if r.Streaming == nil {
			r.Streaming = map[string]string{}
		}
		for _, u := range p.UserSettings {
			if u.Action != copyFromLocal && u.Action != copyToLocal {
				if u.Permission == wstypes.UserSettingPermissionEnumDisabled {
					continue // it is not there in the first place
				}
				return invalidValues("UserSettings: " + string(u.Action) + " is not available here, only " + string(copyFromLocal) + " and " + string(copyToLocal) + ".")
			}
			if u.MaximumLength != nil {
				return invalidValues("UserSettings: MaximumLength is not available here; at most 1 MiB passes.")
			}
			r.Streaming[string(u.Action)] = string(u.Permission)
		}
		return nil
	})
}

// Clipboard tells whether a directory lets text be copied from its users' devices
// to their desktops, and back.
func (s *Service) Clipboard(tx *store.Tx, account, region, directoryID string) (fromLocal, toLocal bool) {
	r := s.directories.Get(tx, key(account, region, directoryID))
	if r == nil {
		return false, false
	}
	off := string(wstypes.UserSettingPermissionEnumDisabled)
	return r.Streaming[string(copyFromLocal)] != off, r.Streaming[string(copyToLocal)] != off
}

// Arrange fits a desktop to the window and the keyboard it is shown with.
func (s *Service) Arrange(ctx context.Context, account, region, id string, wish compute.Session) error {
	w := s.workspaces.Get(s.cfg.Store.Snapshot(), key(account, region, id))
	if w == nil {
		return notFound("WorkSpace", id)
	}
	if err := s.cfg.Compute.Arrange(ctx, w.ID, wish); err != nil {
		return s.machineError(w, err)
	}
	return nil
}
