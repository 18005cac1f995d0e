package wiretest

import (
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
)

func init() {
	UnionMembers[reflect.TypeFor[wstypes.ImageSourceIdentifier]()] = &wstypes.ImageSourceIdentifierMemberEc2ImageId{}
	UnionMembers[reflect.TypeFor[iamtypes.PolicyIdentifier]()] = &iamtypes.PolicyIdentifierMemberInlinePolicyIdentifier{}
}

// Clients by signing name.
func clientOf(s *Server) any {
	cfg := s.Config()
	switch s.Service.Name {
	case "kms":
		return kms.NewFromConfig(cfg)
	case "iam":
		return iam.NewFromConfig(cfg)
	case "sts":
		return sts.NewFromConfig(cfg)
	case "ebs":
		return ebs.NewFromConfig(cfg)
	case "cloudtrail":
		return cloudtrail.NewFromConfig(cfg)
	case "workspaces":
		return workspaces.NewFromConfig(cfg)
	case "ds":
		return directoryservice.NewFromConfig(cfg)
	}
	return nil
}

var served = []string{"kms", "iam", "sts", "ebs", "cloudtrail", "workspaces", "ds"}

func TestRoundTrip(t *testing.T) {
	for _, name := range served {
		t.Run(name, func(t *testing.T) {
			srv := NewServer(t, name)
			RoundTrip(t, srv, clientOf(srv), nil)
		})
	}
}
