package iam

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"
)

// The errors below carry the wording AWS uses, since clients match on it.

func noSuchEntity(format string, args ...any) error {
	return &types.NoSuchEntityException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func noUser(name string) error  { return noSuchEntity("The user with name %s cannot be found.", name) }
func noGroup(name string) error { return noSuchEntity("The group with name %s cannot be found.", name) }
func noRole(name string) error  { return noSuchEntity("The role with name %s cannot be found.", name) }
func noPolicy(arn string) error { return noSuchEntity("Policy %s was not found.", arn) }
func noProfile(name string) error {
	return noSuchEntity("Instance Profile %s cannot be found.", name)
}
func noAccessKey(id string) error {
	return noSuchEntity("The Access Key with id %s cannot be found.", id)
}

func entityExists(format string, args ...any) error {
	return &types.EntityAlreadyExistsException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func deleteConflict(format string, args ...any) error {
	return &types.DeleteConflictException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func limitExceeded(format string, args ...any) error {
	return &types.LimitExceededException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func invalidInput(format string, args ...any) error {
	return &types.InvalidInputException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func malformedPolicy(format string, args ...any) error {
	return &types.MalformedPolicyDocumentException{Message: aws.String(fmt.Sprintf(format, args...))}
}

func unmodifiable(format string, args ...any) error {
	return &types.UnmodifiableEntityException{Message: aws.String(fmt.Sprintf(format, args...))}
}

// validation is the error common to all Query services; the SDK has no type for it.
func validation(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "ValidationError", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

func accessDenied(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "AccessDenied", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

// The quotas of the IAM User Guide, "IAM and AWS STS quotas", at their defaults.
const (
	maxUsers                    = 5000
	maxGroups                   = 300
	maxRoles                    = 1000
	maxPolicies                 = 1500
	maxProfiles                 = 1000
	maxAccessKeys               = 2
	maxGroupsOfUser             = 10
	maxAttached                 = 10
	maxVersions                 = 5
	maxTags                     = 50
	maxMFAPerUser               = 8
	maxProviders                = 100
	maxSSHKeys                  = 5
	maxCertificates             = 2
	maxServerCertificates       = 20
	maxServiceCredentials       = 2    // of one service
	maxManagedSize              = 6144 // characters without white space, here and below
	maxUserInline               = 2048
	maxGroupInline              = 5120
	maxRoleInline               = 10240
	maxTrustSize                = 2048
	defaultSession        int32 = 3600
)
