package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// AcceptVolumeStateInput names a volume.
type AcceptVolumeStateInput struct{ VolumeId *string }

// AcceptVolumeStateOutput tells which state was expected until then, as "version:MAC"; empty when none was.
type AcceptVolumeStateOutput struct{ VolumeId, ExpectedState *string }

// acceptVolumeState is the operator's word that a volume restored from a backup is meant to be older than its last recorded state. The next attach
// takes the state it finds, whatever its age, and records that. Who does it stands in the audit log with the
// state that was given up; nothing but rollback is accepted by it: blocks must still authenticate.
func (s *Service) acceptVolumeState(_ context.Context, tx *store.Tx, c *api.Call, in *AcceptVolumeStateInput) (*AcceptVolumeStateOutput, error) {
	v, err := s.find(tx, c, aws.ToString(in.VolumeId))
	if err != nil {
		return nil, err
	}
	if v.Attachment != nil {
		return nil, fail("IncorrectState", "The volume '%s' is attached. Detach it before its present state on the host is accepted.", v.ID)
	}
	expected := string(v.Anchor)
	if c.Record != nil {
		c.Record.AdditionalEventData = map[string]any{"volumeId": v.ID, "expectedState": expected}
	}
	e := s.volumes.Edit(tx, v.key())
	e.Anchor = nil
	return &AcceptVolumeStateOutput{VolumeId: &v.ID, ExpectedState: &expected}, s.volumes.Put(tx, v.key(), e)
}
