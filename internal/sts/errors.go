package sts

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
)

func validation(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "ValidationError", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

func invalidParameter(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "InvalidParameterValue", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

func accessDenied(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "AccessDenied", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

func malformedPolicy(format string, args ...any) error {
	return &types.MalformedPolicyDocumentException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func invalidIdentity(format string, args ...any) error {
	return &types.InvalidIdentityTokenException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func expiredToken(format string, args ...any) error {
	return &types.ExpiredTokenException{Message: aws.String(fmt.Sprintf(format, args...))}
}

// unreachable is an identity provider that does not answer; clients try again.
func unreachable(why error) error {
	return &types.IDPCommunicationErrorException{Message: aws.String("The identity provider that was asked to verify the token could not be reached: " + why.Error())}
}

func tooLarge(percent int) error {
	return &types.PackedPolicyTooLargeException{Message: aws.String(fmt.Sprintf("Packed size of session policies and session tags consumes %d%% of allotted space.", percent))}
}
