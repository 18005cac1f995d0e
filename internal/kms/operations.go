package kms

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/store"
)

var (
	secretBlobs    = api.Sensitive("Plaintext", "CiphertextBlob", "PrivateKeyPlaintext", "PrivateKeyCiphertextBlob", "GrantTokens")
	secretMessages = api.Sensitive("Message", "Signature", "Mac", "GrantTokens")
)

func messageType(t types.MessageType) string {
	if t == "" {
		return string(types.MessageTypeRaw)
	}
	return string(t)
}

// onAll declares an operation on no key in particular.
func onAll[In any](action string) api.Option {
	return api.On(func(_ context.Context, _ *store.Tx, c *api.Call, _ *In) ([]api.Target, error) {
		return []api.Target{{Action: "kms:" + action, ARN: "*", Keys: caller(c)}}, nil
	})
}

// onGrants declares an operation on a key's grants.
func onGrants[In any](s *Service, action string, ref func(*In) *string) api.Option {
	return api.On(func(ctx context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		f, err := s.find(ctx, tx, c, ref(in), byForeignKey)
		if err != nil {
			return nil, err
		}
		k := s.about(f, c)
		k.flag("kms:GrantIsForAWSResource", len(c.Via) > 0)
		t, err := s.ask(c, f, action, k, nil)
		return []api.Target{t}, err
	})
}

// audited puts the key's ARN into the response elements of an operation that
// changes a key, as AWS does since December 2022 whether or not the reply has it, and
// defaults into its request parameters.
func audited[In, Out any](defaults ...map[string]any) api.Option {
	return api.Audited(func(_ *api.Call, _ *In, out *Out, r *audit.Record) {
		for _, d := range defaults {
			defaulted(r, d)
		}
		arn := keyOf(r)
		if out == nil || arn == "" {
			return
		}
		if r.ResponseElements == nil {
			r.ResponseElements = map[string]any{}
		}
		r.ResponseElements["keyId"] = arn
	})
}

// Operations is the service's part of the operation table: all of the API.
func (s *Service) Operations() []api.Operation {
	ops := s.operations()
	for i := range ops {
		ops[i].Admit = s.throttle.admit(ops[i].Name)
	}
	return ops
}

func (s *Service) operations() []api.Operation {
	return []api.Operation{
		api.NewUpdate("kms", "CancelKeyDeletion", s.cancelKeyDeletion, onKey(s, "CancelKeyDeletion", byKey, func(in *kms.CancelKeyDeletionInput) *string { return in.KeyId }, nil), audited[kms.CancelKeyDeletionInput, kms.CancelKeyDeletionOutput]()),
		api.NewUpdate("kms", "ConnectCustomKeyStore", s.connectCustomKeyStore, onAll[kms.ConnectCustomKeyStoreInput]("ConnectCustomKeyStore")),
		api.NewUpdate("kms", "CreateAlias", s.createAlias, api.On(s.onCreateAlias)),
		api.NewUpdate("kms", "CreateCustomKeyStore", s.createCustomKeyStore, onAll[kms.CreateCustomKeyStoreInput]("CreateCustomKeyStore"), api.Before(s.beforeCreateStore), api.Sensitive("KeyStorePassword", "XksProxyAuthenticationCredential")),
		api.NewUpdate("kms", "CreateGrant", s.createGrant, api.On(s.onCreateGrant), api.Sensitive("GrantToken", "GrantTokens"), api.Audited(auditCreateGrant)),
		api.NewUpdate("kms", "CreateKey", s.createKey, api.On(s.onCreateKey), api.Before(s.beforeCreateKey), api.Audited(auditCreateKey)),
		api.NewView("kms", "Decapsulate", s.decapsulate, onUse(s, "Decapsulate", func(in *kms.DecapsulateInput) *string { return in.KeyId }, nil, nil), api.Sensitive("SharedSecretCiphertextBlob", "SharedSecret", "GrantTokens")),
		api.NewView("kms", "Decrypt", s.decrypt, api.On(s.onDecrypt), api.Refuses("Recipient"), secretBlobs, api.Audited(auditDecrypt)),
		api.NewUpdate("kms", "DeleteAlias", s.deleteAlias, api.On(s.onDeleteAlias)),
		api.NewUpdate("kms", "DeleteCustomKeyStore", s.deleteCustomKeyStore, onAll[kms.DeleteCustomKeyStoreInput]("DeleteCustomKeyStore")),
		api.NewUpdate("kms", "DeleteImportedKeyMaterial", s.deleteImportedKeyMaterial, onKey(s, "DeleteImportedKeyMaterial", byKey, func(in *kms.DeleteImportedKeyMaterialInput) *string { return in.KeyId }, nil), audited[kms.DeleteImportedKeyMaterialInput, kms.DeleteImportedKeyMaterialOutput]()),
		api.NewView("kms", "DeriveSharedSecret", s.deriveSharedSecret, onUse(s, "DeriveSharedSecret", func(in *kms.DeriveSharedSecretInput) *string { return in.KeyId }, nil, func(in *kms.DeriveSharedSecretInput, f found, k conditions) {
			k.text("kms:KeyAgreementAlgorithm", string(in.KeyAgreementAlgorithm))
		}), api.Refuses("Recipient"), api.Sensitive("SharedSecret", "GrantTokens")),
		api.NewView("kms", "DescribeCustomKeyStores", s.describeCustomKeyStores, onAll[kms.DescribeCustomKeyStoresInput]("DescribeCustomKeyStores")),
		api.NewView("kms", "DescribeKey", s.describeKey, onUse(s, "DescribeKey", func(in *kms.DescribeKeyInput) *string { return in.KeyId }, nil, nil), api.Sensitive("GrantTokens")),
		api.NewUpdate("kms", "DisableKey", s.disableKey, onKey(s, "DisableKey", byKey, func(in *kms.DisableKeyInput) *string { return in.KeyId }, func(_ *kms.DisableKeyInput, f found, k conditions) {
			k.text("kms:TrailingDaysWithoutKeyUsage", s.unusedDays(f.Key, s.now()))
		}), audited[kms.DisableKeyInput, kms.DisableKeyOutput]()),
		api.NewUpdate("kms", "DisableKeyRotation", s.disableKeyRotation, onKey(s, "DisableKeyRotation", byKey, func(in *kms.DisableKeyRotationInput) *string { return in.KeyId }, nil), audited[kms.DisableKeyRotationInput, kms.DisableKeyRotationOutput]()),
		api.NewUpdate("kms", "DisconnectCustomKeyStore", s.disconnectCustomKeyStore, onAll[kms.DisconnectCustomKeyStoreInput]("DisconnectCustomKeyStore")),
		api.NewUpdate("kms", "EnableKey", s.enableKey, onKey(s, "EnableKey", byKey, func(in *kms.EnableKeyInput) *string { return in.KeyId }, nil), audited[kms.EnableKeyInput, kms.EnableKeyOutput]()),
		api.NewUpdate("kms", "EnableKeyRotation", s.enableKeyRotation, onKey(s, "EnableKeyRotation", byKey, func(in *kms.EnableKeyRotationInput) *string { return in.KeyId }, func(in *kms.EnableKeyRotationInput, f found, k conditions) {
			if in.RotationPeriodInDays != nil {
				k.text("kms:RotationPeriodInDays", itoa(int(*in.RotationPeriodInDays)))
			}
		}), audited[kms.EnableKeyRotationInput, kms.EnableKeyRotationOutput]()),
		api.NewView("kms", "Encapsulate", s.encapsulate, onUse(s, "Encapsulate", func(in *kms.EncapsulateInput) *string { return in.KeyId }, nil, nil), api.Sensitive("SharedSecretCiphertextBlob", "SharedSecret", "GrantTokens")),
		api.NewView("kms", "Encrypt", s.encrypt, onUse(s, "Encrypt", func(in *kms.EncryptInput) *string { return in.KeyId }, func(in *kms.EncryptInput) map[string]string { return in.EncryptionContext }, func(in *kms.EncryptInput, f found, k conditions) {
			k.text("kms:EncryptionAlgorithm", algorithmOr(in.EncryptionAlgorithm))
		}), secretBlobs, api.Audited(auditEncrypt)),
		api.NewView("kms", "GenerateDataKey", s.generateDataKey, onUse(s, "GenerateDataKey", func(in *kms.GenerateDataKeyInput) *string { return in.KeyId }, func(in *kms.GenerateDataKeyInput) map[string]string { return in.EncryptionContext }, func(in *kms.GenerateDataKeyInput, f found, k conditions) {
			k.text("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
		}), api.Refuses("Recipient"), secretBlobs),
		api.NewView("kms", "GenerateDataKeyPair", s.generateDataKeyPair, onUse(s, "GenerateDataKeyPair", func(in *kms.GenerateDataKeyPairInput) *string { return in.KeyId }, func(in *kms.GenerateDataKeyPairInput) map[string]string { return in.EncryptionContext }, func(in *kms.GenerateDataKeyPairInput, f found, k conditions) {
			k.text("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
			k.text("kms:DataKeyPairSpec", string(in.KeyPairSpec))
		}), api.Refuses("Recipient"), secretBlobs),
		api.NewView("kms", "GenerateDataKeyPairWithoutPlaintext", s.generateDataKeyPairWithoutPlaintext, onUse(s, "GenerateDataKeyPairWithoutPlaintext", func(in *kms.GenerateDataKeyPairWithoutPlaintextInput) *string { return in.KeyId }, func(in *kms.GenerateDataKeyPairWithoutPlaintextInput) map[string]string { return in.EncryptionContext }, func(in *kms.GenerateDataKeyPairWithoutPlaintextInput, f found, k conditions) {
			k.text("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
			k.text("kms:DataKeyPairSpec", string(in.KeyPairSpec))
		}), secretBlobs),
		api.NewView("kms", "GenerateDataKeyWithoutPlaintext", s.generateDataKeyWithoutPlaintext, onUse(s, "GenerateDataKeyWithoutPlaintext", func(in *kms.GenerateDataKeyWithoutPlaintextInput) *string { return in.KeyId }, func(in *kms.GenerateDataKeyWithoutPlaintextInput) map[string]string { return in.EncryptionContext }, func(in *kms.GenerateDataKeyWithoutPlaintextInput, f found, k conditions) {
			k.text("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
		}), secretBlobs),
		api.NewView("kms", "GenerateMac", s.generateMac, onUse(s, "GenerateMac", func(in *kms.GenerateMacInput) *string { return in.KeyId }, nil, func(in *kms.GenerateMacInput, f found, k conditions) {
			k.text("kms:MacAlgorithm", string(in.MacAlgorithm))
		}), secretMessages),
		api.NewView("kms", "GenerateRandom", s.generateRandom, onAll[kms.GenerateRandomInput]("GenerateRandom"), api.Refuses("Recipient"), secretBlobs),
		api.NewView("kms", "GetKeyLastUsage", s.getKeyLastUsage, onKey(s, "GetKeyLastUsage", byKey, func(in *kms.GetKeyLastUsageInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "GetKeyPolicy", s.getKeyPolicy, onKey(s, "GetKeyPolicy", byKey, func(in *kms.GetKeyPolicyInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "GetKeyRotationStatus", s.getKeyRotationStatus, onKey(s, "GetKeyRotationStatus", byForeignKey, func(in *kms.GetKeyRotationStatusInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "GetParametersForImport", s.getParametersForImport, onKey(s, "GetParametersForImport", byKey, func(in *kms.GetParametersForImportInput) *string { return in.KeyId }, func(in *kms.GetParametersForImportInput, f found, k conditions) {
			k.text("kms:WrappingAlgorithm", string(in.WrappingAlgorithm))
			k.text("kms:WrappingKeySpec", string(in.WrappingKeySpec))
		}), api.Sensitive("ImportToken", "PublicKey")),
		api.NewView("kms", "GetPublicKey", s.getPublicKey, onUse(s, "GetPublicKey", func(in *kms.GetPublicKeyInput) *string { return in.KeyId }, nil, nil), api.Sensitive("GrantTokens")),
		api.NewUpdate("kms", "ImportKeyMaterial", s.importKeyMaterial, onKey(s, "ImportKeyMaterial", byKey, func(in *kms.ImportKeyMaterialInput) *string { return in.KeyId }, func(in *kms.ImportKeyMaterialInput, f found, k conditions) {
			k.text("kms:ExpirationModel", string(in.ExpirationModel))
			if in.ValidTo != nil {
				k.text("kms:ValidTo", in.ValidTo.UTC().Format(time.RFC3339))
			}
		}), api.Sensitive("EncryptedKeyMaterial", "ImportToken"), audited[kms.ImportKeyMaterialInput, kms.ImportKeyMaterialOutput]()),
		api.NewView("kms", "ListAliases", s.listAliases, onAll[kms.ListAliasesInput]("ListAliases")),
		api.NewView("kms", "ListGrants", s.listGrants, onGrants(s, "ListGrants", func(in *kms.ListGrantsInput) *string { return in.KeyId })),
		api.NewView("kms", "ListKeyPolicies", s.listKeyPolicies, onKey(s, "ListKeyPolicies", byKey, func(in *kms.ListKeyPoliciesInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "ListKeyRotations", s.listKeyRotations, onKey(s, "ListKeyRotations", byKey, func(in *kms.ListKeyRotationsInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "ListKeys", s.listKeys, onAll[kms.ListKeysInput]("ListKeys")),
		api.NewView("kms", "ListResourceTags", s.listResourceTags, onKey(s, "ListResourceTags", byKey, func(in *kms.ListResourceTagsInput) *string { return in.KeyId }, nil)),
		api.NewView("kms", "ListRetirableGrants", s.listRetirableGrants, onAll[kms.ListRetirableGrantsInput]("ListRetirableGrants")),
		api.NewUpdate("kms", "PutKeyPolicy", s.putKeyPolicy, onKey(s, "PutKeyPolicy", byKey, func(in *kms.PutKeyPolicyInput) *string { return in.KeyId }, func(in *kms.PutKeyPolicyInput, f found, k conditions) {
			k.flag("kms:BypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
		}), audited[kms.PutKeyPolicyInput, kms.PutKeyPolicyOutput](map[string]any{"policyName": "default", "bypassPolicyLockoutSafetyCheck": false})),
		api.NewView("kms", "ReEncrypt", s.reEncrypt, api.On(s.onReEncrypt), secretBlobs, api.Audited(auditReEncrypt)),
		api.NewUpdate("kms", "ReplicateKey", s.replicateKey, api.On(s.onReplicateKey), api.Audited(auditReplicateKey)),
		api.NewUpdate("kms", "RetireGrant", s.retireGrant, api.On(s.onRetireGrant), api.Sensitive("GrantToken"), api.Audited(auditRetireGrant)),
		api.NewUpdate("kms", "RevokeGrant", s.revokeGrant, onGrants(s, "RevokeGrant", func(in *kms.RevokeGrantInput) *string { return in.KeyId }), audited[kms.RevokeGrantInput, kms.RevokeGrantOutput]()),
		api.NewUpdate("kms", "RotateKeyOnDemand", s.rotateKeyOnDemand, onKey(s, "RotateKeyOnDemand", byKey, func(in *kms.RotateKeyOnDemandInput) *string { return in.KeyId }, nil), audited[kms.RotateKeyOnDemandInput, kms.RotateKeyOnDemandOutput]()),
		api.NewUpdate("kms", "ScheduleKeyDeletion", s.scheduleKeyDeletion, onKey(s, "ScheduleKeyDeletion", byKey, func(in *kms.ScheduleKeyDeletionInput) *string { return in.KeyId }, func(in *kms.ScheduleKeyDeletionInput, f found, k conditions) {
			k.text("kms:ScheduleKeyDeletionPendingWindowInDays", itoa(int(window(in))))
			k.text("kms:TrailingDaysWithoutKeyUsage", s.unusedDays(f.Key, s.now()))
		}), audited[kms.ScheduleKeyDeletionInput, kms.ScheduleKeyDeletionOutput]()),
		api.NewView("kms", "Sign", s.sign, onUse(s, "Sign", func(in *kms.SignInput) *string { return in.KeyId }, nil, func(in *kms.SignInput, f found, k conditions) {
			k.text("kms:SigningAlgorithm", string(in.SigningAlgorithm))
			k.text("kms:MessageType", messageType(in.MessageType))
		}), secretMessages, api.Audited(auditSign)),
		api.NewUpdate("kms", "TagResource", s.tagResource, onKey(s, "TagResource", byKey, func(in *kms.TagResourceInput) *string { return in.KeyId }, func(in *kms.TagResourceInput, f found, k conditions) { k.requestTags(tagMap(in.Tags)) }), audited[kms.TagResourceInput, kms.TagResourceOutput]()),
		api.NewUpdate("kms", "UntagResource", s.untagResource, onKey(s, "UntagResource", byKey, func(in *kms.UntagResourceInput) *string { return in.KeyId }, func(in *kms.UntagResourceInput, f found, k conditions) { k.set("aws:TagKeys", in.TagKeys...) }), audited[kms.UntagResourceInput, kms.UntagResourceOutput]()),
		api.NewUpdate("kms", "UpdateAlias", s.updateAlias, api.On(s.onUpdateAlias)),
		api.NewUpdate("kms", "UpdateCustomKeyStore", s.updateCustomKeyStore, onAll[kms.UpdateCustomKeyStoreInput]("UpdateCustomKeyStore"), api.Before(s.beforeUpdateStore), api.Sensitive("KeyStorePassword", "XksProxyAuthenticationCredential")),
		api.NewUpdate("kms", "UpdateKeyDescription", s.updateKeyDescription, onKey(s, "UpdateKeyDescription", byKey, func(in *kms.UpdateKeyDescriptionInput) *string { return in.KeyId }, nil), audited[kms.UpdateKeyDescriptionInput, kms.UpdateKeyDescriptionOutput]()),
		api.NewUpdate("kms", "UpdatePrimaryRegion", s.updatePrimaryRegion, api.On(s.onUpdatePrimaryRegion), audited[kms.UpdatePrimaryRegionInput, kms.UpdatePrimaryRegionOutput]()),
		api.NewView("kms", "Verify", s.verify, onUse(s, "Verify", func(in *kms.VerifyInput) *string { return in.KeyId }, nil, func(in *kms.VerifyInput, f found, k conditions) {
			k.text("kms:SigningAlgorithm", string(in.SigningAlgorithm))
			k.text("kms:MessageType", messageType(in.MessageType))
		}), secretMessages, api.Audited(auditVerify)),
		api.NewView("kms", "VerifyMac", s.verifyMac, onUse(s, "VerifyMac", func(in *kms.VerifyMacInput) *string { return in.KeyId }, nil, func(in *kms.VerifyMacInput, f found, k conditions) {
			k.text("kms:MacAlgorithm", string(in.MacAlgorithm))
		}), secretMessages),
	}
}
