package wiretest

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	cttypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata/client"
)

func TestRequestFixtures(t *testing.T) {
	for _, name := range []string{"kms", "iam", "sts", "ebs"} {
		t.Run(name, func(t *testing.T) {
			srv := NewServer(t, name)
			RequestFixtures(t, srv.Service, name, clientOf(srv))
		})
	}
}

type doFunc func(*http.Request) (*http.Response, error)

func (f doFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestReplyFixtures(t *testing.T) {
	for _, name := range []string{"kms", "ebs"} {
		t.Run(name, func(t *testing.T) {
			srv := NewServer(t, name)
			ReplyFixtures(t, srv, name, func(do func(*http.Request) (*http.Response, error)) any {
				cfg := srv.Config()
				cfg.HTTPClient = doFunc(do)
				if name == "kms" {
					return kms.NewFromConfig(cfg)
				}
				return ebs.NewFromConfig(cfg)
			})
		})
	}
}

func TestErrorReplies(t *testing.T) {
	msg := aws.String("Why: <é> \"x\" & so on")
	try := func(name, op string, errs ...smithy.APIError) {
		t.Run(name, func(t *testing.T) {
			srv := NewServer(t, name)
			ErrorReplies(t, srv, clientOf(srv), op, errs...)
		})
	}
	try("kms", "Decrypt", &kmstypes.NotFoundException{Message: msg}, &kmstypes.InvalidCiphertextException{},
		&kmstypes.KMSInternalException{Message: msg}, &kmstypes.DependencyTimeoutException{Message: msg},
		&smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"})
	try("iam", "CreateUser", &iamtypes.NoSuchEntityException{Message: msg}, &iamtypes.EntityAlreadyExistsException{Message: msg},
		&smithy.GenericAPIError{Code: "AccessDenied", Message: "no"})
	try("sts", "AssumeRole", &ststypes.MalformedPolicyDocumentException{Message: msg}, &ststypes.RegionDisabledException{Message: msg})
	try("cloudtrail", "CreateTrail", &cttypes.TrailAlreadyExistsException{Message: msg}, &cttypes.InsufficientEncryptionPolicyException{Message: msg})
	try("workspaces", "AssociateIpGroups", &wstypes.ResourceNotFoundException{Message: msg, ResourceId: aws.String("ws-1")}, &wstypes.AccessDeniedException{Message: msg})
	try("ds", "CreateDirectory", &dstypes.ClientException{Message: msg, RequestId: aws.String("r-1")}, &dstypes.ServiceException{Message: msg})
	try("ebs", "ListSnapshotBlocks", &ebstypes.ValidationException{Message: msg, Reason: ebstypes.ValidationExceptionReasonInvalidPageToken},
		&ebstypes.ResourceNotFoundException{Message: msg, Reason: ebstypes.ResourceNotFoundExceptionReasonSnapshotNotFound},
		&ebstypes.InternalServerException{Message: msg})
}

func TestErrorStatus(t *testing.T) {
	for _, c := range []struct {
		service string
		err     error
		code    string
		status  int
	}{
		{"iam", &iamtypes.NoSuchEntityException{}, "NoSuchEntity", 404},
		{"iam", &iamtypes.EntityAlreadyExistsException{}, "EntityAlreadyExists", 409},
		{"sts", &ststypes.IDPCommunicationErrorException{}, "IDPCommunicationError", 400},
		{"kms", &kmstypes.NotFoundException{}, "NotFoundException", 400},
		{"kms", &kmstypes.KMSInternalException{}, "KMSInternalException", 500},
		{"kms", &kmstypes.DependencyTimeoutException{}, "DependencyTimeoutException", 503},
		{"ebs", &ebstypes.ResourceNotFoundException{}, "ResourceNotFoundException", 404},
		{"ebs", &ebstypes.ServiceQuotaExceededException{}, "ServiceQuotaExceededException", 402},
		{"ds-data", &dsdata.ThrottlingException{}, "ThrottlingException", 429},
		{"ec2", &smithy.GenericAPIError{Code: "DryRunOperation"}, "DryRunOperation", 412},
	} {
		srv := NewServer(t, c.service)
		if r := srv.Service.Resolve(c.err); r.Code != c.code || r.Status != c.status {
			t.Errorf("%s: Resolve(%T) = %s %d, want %s %d", c.service, c.err, r.Code, r.Status, c.code, c.status)
		}
	}
}

func TestDirectoryServiceData(t *testing.T) {
	UnionMembers[reflect.TypeFor[dsdata.AttributeValue]()] = &dsdata.AttributeValueMemberSS{}
	srv := NewServer(t, "ds-data")
	c := client.NewFromConfig(srv.Config())
	if n := len(Calls(c)); n != 17 {
		t.Errorf("the client has %d operations, want 17", n)
	}
	RoundTrip(t, srv, c, nil)
	ErrorReplies(t, srv, c, "CreateUser", &smithy.GenericAPIError{Code: "ConflictException", Message: "exists"},
		&smithy.GenericAPIError{Code: "DirectoryUnavailableException", Message: "é"})
}
