package kms

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// TestEvents: what the service does by itself is on the record, once each, with the key and what was done.
func TestEvents(t *testing.T) {
	b := newBench(t)
	c := b.root(acct)
	reap := func(d time.Duration) {
		b.clk.Advance(d)
		if err := b.s.Reap(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name, arn string, details map[string]any) {
		t.Helper()
		all := b.events.take(name)
		if len(all) != 1 {
			t.Fatalf("%d records of %s, want 1", len(all), name)
		}
		r := all[0]
		if r.EventType != "AwsServiceEvent" || r.UserIdentity.InvokedBy != "AWS Internal" || r.RequestID != "" || len(r.Resources) != 1 || r.Resources[0].ARN != arn {
			t.Errorf("%s = %+v, want a service event on %s", name, r, arn)
		}
		for k, v := range details {
			if r.ServiceEventDetails[k] != v {
				t.Errorf("%s: serviceEventDetails.%s = %v, want %v", name, k, r.ServiceEventDetails[k], v)
			}
		}
	}
	k := b.newKey(&kms.CreateKeyInput{})
	current := func() string {
		return *must[kms.DescribeKeyOutput](b, c, "DescribeKey", &kms.DescribeKeyInput{KeyId: k.KeyId}).KeyMetadata.CurrentKeyMaterialId
	}
	must[kms.EnableKeyRotationOutput](b, c, "EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: k.KeyId, RotationPeriodInDays: ptr(int32(90))})
	reap(90 * 24 * time.Hour)
	first := current()
	want("RotateKey", *k.Arn, map[string]any{"keyId": *k.KeyId, "rotationType": "AUTOMATIC", "keyOrigin": "AWS_KMS", "previousKeyMaterialId": *k.CurrentKeyMaterialId, "currentKeyMaterialId": first})
	must[kms.RotateKeyOnDemandOutput](b, c, "RotateKeyOnDemand", &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	want("RotateKey", *k.Arn, map[string]any{"rotationType": "ON_DEMAND", "previousKeyMaterialId": first, "currentKeyMaterialId": current()})
	must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: ptr(int32(7))})
	reap(7 * 24 * time.Hour)
	want("DeleteKey", *k.Arn, map[string]any{"keyId": *k.KeyId})

	x, material := importedKey(b)
	must[kms.DeleteImportedKeyMaterialOutput](b, c, "DeleteImportedKeyMaterial", &kms.DeleteImportedKeyMaterialInput{KeyId: x.KeyId})
	if _, err := b.importInto(*x.KeyId, material, "", ptr(b.clk.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	reap(time.Hour)
	want("DeleteExpiredKeyMaterial", *x.Arn, map[string]any{"keyId": *x.KeyId, "keyMaterialId": *x.CurrentKeyMaterialId})

	m := b.newKey(&kms.CreateKeyInput{MultiRegion: ptr(true)})
	replica := must[kms.ReplicateKeyOutput](b, c, "ReplicateKey", &kms.ReplicateKeyInput{KeyId: m.KeyId, ReplicaRegion: ptr("eu-west-1")}).ReplicaKeyMetadata
	if r := b.events.take("CreateKey"); len(r) != 1 || r[0].AWSRegion != "eu-west-1" || r[0].Resources[0].ARN != *replica.Arn || r[0].RequestParameters["multiRegion"] != true {
		t.Errorf("ReplicateKey: records of CreateKey = %+v, want one, of the replica in its Region", r)
	}
	must[kms.EnableKeyRotationOutput](b, c, "EnableKeyRotation", &kms.EnableKeyRotationInput{KeyId: m.KeyId})
	want("SynchronizeMultiRegionKey", *m.Arn, map[string]any{"keyId": *m.KeyId})
	must[kms.UpdatePrimaryRegionOutput](b, c, "UpdatePrimaryRegion", &kms.UpdatePrimaryRegionInput{KeyId: m.KeyId, PrimaryRegion: ptr("eu-west-1")})
	if r := b.events.take("UpdatePrimaryRegion"); len(r) != 1 || r[0].AWSRegion != "eu-west-1" || r[0].RequestParameters["primaryRegion"] != "eu-west-1" {
		t.Errorf("records of UpdatePrimaryRegion in other Regions = %+v, want one, in the new primary Region", r)
	}
}
