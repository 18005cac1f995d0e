package kms

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// accept is what an operation does with a key in a state that is not Enabled.
// Source: KMS developer guide, "Key states of AWS KMS keys", the table and its
// footnotes.
type accept struct {
	disabled, pendingDeletion, pendingImport, unavailable, creating, updating bool
}

// The rows of the table that occur.
var (
	// anyState: DescribeKey, GetKeyPolicy, ListGrants, RetireGrant, PutKeyPolicy …
	anyState = accept{disabled: true, pendingDeletion: true, pendingImport: true, unavailable: true, creating: true, updating: true}
	// cryptographic: Encrypt, Decrypt, GenerateDataKey, Sign …
	cryptographic = accept{updating: true}
	// granting: CreateGrant, which works on an unavailable key.
	granting = accept{updating: true, unavailable: true}
	// switching: EnableKey, DisableKey.
	switching = accept{disabled: true, unavailable: true}
	// describing: CreateAlias, TagResource, UntagResource, UpdateKeyDescription.
	describing = accept{disabled: true, pendingImport: true, unavailable: true, creating: true, updating: true}
	// scheduling: ScheduleKeyDeletion.
	scheduling = accept{disabled: true, pendingImport: true, unavailable: true, creating: true}
	// rotating: EnableKeyRotation, DisableKeyRotation, RotateKeyOnDemand.
	rotating = accept{updating: true}
	// importing: ImportKeyMaterial; GetParametersForImport is the same without updating.
	importing        = accept{disabled: true, pendingImport: true, updating: true}
	importParameters = accept{disabled: true, pendingImport: true}
	deletingMaterial = accept{disabled: true, pendingDeletion: true, pendingImport: true, unavailable: true}
	readingRotation  = accept{disabled: true, pendingDeletion: true, creating: true, updating: true}
	replicating      = accept{}
	changingPrimary  = accept{updating: true}
)

// check refuses a key whose state the operation does not work in.
func (a accept) check(k *Key, now time.Time) error {
	arn := k.arn()
	ok := true
	switch state := k.stateAt(now); state {
	case stateEnabled:
		return nil
	case stateDisabled:
		if !a.disabled {
			return errDisabled(arn)
		}
		return nil
	case statePendingDeletion:
		if !a.pendingDeletion {
			return errState(arn + " is pending deletion.")
		}
	case statePendingReplicaDeletion:
		if !a.pendingDeletion {
			return errState(arn + " is pending replica deletion.")
		}
	case statePendingImport:
		if !a.pendingImport {
			return errState(arn + " is pending import.")
		}
	case stateUnavailable:
		if !a.unavailable {
			return errUnavailable(k)
		}
	case stateCreating:
		if !a.creating {
			return errState(arn + " is creating.")
		}
	case stateUpdating:
		if !a.updating {
			return errState(arn + " is updating.")
		}
	default:
		ok = false
	}
	if !ok {
		return &types.KMSInternalException{Message: ptr("the key is in the unknown state " + k.State)}
	}
	return nil
}
