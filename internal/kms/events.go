package kms

import (
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Outbox takes records that become durable with the transaction they tell of.
type Outbox interface {
	Outbox(tx *store.Tx, r *audit.Record) error
}

// event puts on the record, in tx, what KMS itself does to a key when its time has come: RotateKey, DeleteKey,
// DeleteExpiredKeyMaterial, SynchronizeMultiRegionKey. Source: KMS Developer Guide, "Examples of AWS KMS log entries".
func (s *Service) event(tx *store.Tx, k *Key, name string, details map[string]any) error {
	r := &audit.Record{EventVersion: "1.11", UserIdentity: audit.UserIdentity{AccountID: k.Account, InvokedBy: "AWS Internal"}, EventTime: audit.Time{Time: s.now()},
		EventSource: "kms.amazonaws.com", EventName: name, AWSRegion: k.Region, SourceIPAddress: "AWS Internal", UserAgent: "AWS Internal", EventID: ids.UUID(),
		Resources: []audit.Resource{{AccountID: k.Account, Type: "AWS::KMS::Key", ARN: k.arn()}}, EventType: "AwsServiceEvent", ManagementEvent: true,
		RecipientAccountID: k.Account, ServiceEventDetails: map[string]any{"keyId": k.ID}, EventCategory: "Management"}
	for name, v := range details {
		r.ServiceEventDetails[name] = v
	}
	return s.cfg.Events.Outbox(tx, r)
}

// rotated is the event RotateKey: previous is the ID of the material that was current.
func (s *Service) rotated(tx *store.Tx, k *Key, previous, by string) error {
	return s.event(tx, k, "RotateKey", map[string]any{"rotationType": by, "keyOrigin": k.Origin, "previousKeyMaterialId": previous, "currentKeyMaterialId": k.current().ID})
}

// inRegion puts the call on the record of another Region as well, in which it has done name to k: CreateKey for
// ReplicateKey, UpdatePrimaryRegion in the new primary Region.
func (s *Service) inRegion(tx *store.Tx, c *api.Call, k *Key, name string, parameters map[string]any) error {
	if c.Record == nil {
		return nil
	}
	r := *c.Record
	r.EventID, r.EventName, r.AWSRegion, r.UserIdentity.InvokedBy = ids.UUID(), name, k.Region, "kms.amazonaws.com"
	r.SourceIPAddress, r.UserAgent, r.AdditionalEventData = "AWS Internal", "AWS Internal", nil
	r.RequestParameters, r.ResponseElements = parameters, nil
	r.Resources = []audit.Resource{{AccountID: k.Account, Type: "AWS::KMS::Key", ARN: k.arn()}}
	return s.cfg.Events.Outbox(tx, &r)
}

// creation is what a CreateKey record shows of the wish for k, defaults included.
func creation(k *Key) map[string]any {
	m := map[string]any{"description": k.Description, "origin": k.Origin, "bypassPolicyLockoutSafetyCheck": false, "customerMasterKeySpec": k.Spec, "keySpec": k.Spec, "keyUsage": k.Usage}
	if k.MultiRegion {
		m["multiRegion"] = true
	}
	return m
}

// defaulted fills the request parameters that AWS records also when the caller left them out.
func defaulted(r *audit.Record, defaults map[string]any) {
	for name, v := range defaults {
		if _, given := r.RequestParameters[name]; !given {
			parameter(r, name, v)
		}
	}
}

func auditCreateKey(_ *api.Call, in *kms.CreateKeyInput, out *kms.CreateKeyOutput, r *audit.Record) {
	defaulted(r, map[string]any{"description": "", "bypassPolicyLockoutSafetyCheck": false})
	if out != nil {
		m := out.KeyMetadata
		defaulted(r, map[string]any{"origin": string(m.Origin), "customerMasterKeySpec": string(m.CustomerMasterKeySpec), "keySpec": string(m.KeySpec), "keyUsage": string(m.KeyUsage)})
	}
}

func auditReplicateKey(_ *api.Call, _ *kms.ReplicateKeyInput, _ *kms.ReplicateKeyOutput, r *audit.Record) {
	defaulted(r, map[string]any{"description": "", "bypassPolicyLockoutSafetyCheck": false})
}

func auditSign(_ *api.Call, in *kms.SignInput, _ *kms.SignOutput, r *audit.Record) {
	parameter(r, "messageType", messageType(in.MessageType))
}

func auditVerify(_ *api.Call, in *kms.VerifyInput, _ *kms.VerifyOutput, r *audit.Record) {
	parameter(r, "messageType", messageType(in.MessageType))
}
