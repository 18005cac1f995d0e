package kms

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
)

func ptr[T any](v T) *T { return &v }

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// The errors of KMS, with AWS's wording where clients match on it.

func errValidation(format string, a ...any) error {
	return &smithy.GenericAPIError{Code: "ValidationException", Message: fmt.Sprintf(format, a...), Fault: smithy.FaultClient}
}

func errAccessDenied(format string, a ...any) error {
	return &smithy.GenericAPIError{Code: "AccessDeniedException", Message: fmt.Sprintf(format, a...), Fault: smithy.FaultClient}
}

// errCiphertextKey answers a ciphertext whose key the caller cannot use, in the
// same words whether the key exists or not.
func errCiphertextKey() error {
	return errAccessDenied("The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
}

// errForeignKey answers a key of another account that is not there or that the
// operation cannot use, in the words of a refusal by its key policy: whether the
// key exists is not told.
func errForeignKey(c *api.Call) error {
	action := "*"
	if c.Record != nil {
		action = c.Record.EventName
	}
	return errAccessDenied("User: %s is not authorized to perform: kms:%s%s", c.Principal.ARN, action, policy.ForeignKey)
}

func errNotFound(format string, a ...any) error {
	return &types.NotFoundException{Message: ptr(fmt.Sprintf(format, a...))}
}

func errNoKey(arn string) error    { return errNotFound("Key '%s' does not exist", arn) }
func errNoAlias(arn string) error  { return errNotFound("Alias %s is not found.", arn) }
func errInvalidARN(s string) error { return &types.InvalidArnException{Message: ptr(s)} }
func errDisabled(arn string) error {
	return &types.DisabledException{Message: ptr(arn + " is disabled.")}
}
func errState(message string) error { return &types.KMSInvalidStateException{Message: ptr(message)} }

// errCiphertext has no message: what is wrong with a ciphertext or its context
// is not told.
func errCiphertext() error { return &types.InvalidCiphertextException{} }

func errDryRun() error {
	return &types.DryRunOperationException{Message: ptr("The request would have succeeded, but the DryRun option is set.")}
}

func errLimit(format string, a ...any) error {
	return &types.LimitExceededException{Message: ptr(fmt.Sprintf(format, a...))}
}

func errUsage(format string, a ...any) error {
	return &types.InvalidKeyUsageException{Message: ptr(fmt.Sprintf(format, a...))}
}

func errUnsupported(format string, a ...any) error {
	return &types.UnsupportedOperationException{Message: ptr(fmt.Sprintf(format, a...))}
}

func errMarker() error {
	return &types.InvalidMarkerException{Message: ptr("The marker is not valid: it must be the NextMarker of an earlier response to the same operation.")}
}

func errPolicy(format string, a ...any) error {
	return &types.MalformedPolicyDocumentException{Message: ptr(fmt.Sprintf(format, a...))}
}
