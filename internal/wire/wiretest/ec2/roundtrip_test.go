// Package ec2 holds the round trips of EC2's client, which takes a minute to
// compile.
package ec2

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire/wiretest"
)

func TestRoundTrip(t *testing.T) {
	srv := wiretest.NewServer(t, "ec2")
	wiretest.RoundTrip(t, srv, ec2.NewFromConfig(srv.Config()), nil)
}

func TestErrors(t *testing.T) {
	srv := wiretest.NewServer(t, "ec2")
	wiretest.ErrorReplies(t, srv, ec2.NewFromConfig(srv.Config()), "AttachVolume",
		&smithy.GenericAPIError{Code: "InvalidVolume.NotFound", Message: "The volume 'vol-1' does not exist."},
		&smithy.GenericAPIError{Code: "IncorrectState", Message: "<&>"})
}

func TestRequestFixtures(t *testing.T) {
	srv := wiretest.NewServer(t, "ec2")
	wiretest.RequestFixtures(t, srv.Service, "ec2", ec2.NewFromConfig(srv.Config()))
}
