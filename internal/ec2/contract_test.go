package ec2_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

func TestMain(m *testing.M) { apptest.Main(m) }

var ctx = context.Background()

// env is a server and a client of EC2.
type env struct {
	*testing.T
	s *apptest.Server
	*ec2.Client
}

func start(t *testing.T) *env {
	s := apptest.New(t)
	return &env{t, s, ec2.NewFromConfig(s.Config())}
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) refused(err error, code, text string) {
	e.Helper()
	var a smithy.APIError
	if !errors.As(err, &a) || a.ErrorCode() != code || !strings.Contains(a.ErrorMessage(), text) {
		e.Errorf("got %v, want %s: …%s…", err, code, text)
	}
}

func (e *env) volume(change ...func(*ec2.CreateVolumeInput)) *ec2.CreateVolumeOutput {
	e.Helper()
	in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String(apptest.Region + "a"), Size: aws.Int32(1)}
	for _, f := range change {
		f(in)
	}
	out, err := e.CreateVolume(ctx, in)
	e.must(err)
	return out
}

// query sends a form as it is.
func (e *env) query(form string) (int, string) {
	e.Helper()
	r, err := http.NewRequest(http.MethodGet, e.s.URL+"/?Version=2016-11-15&"+form, nil)
	e.must(err)
	cred, err := e.s.Config().Credentials.Retrieve(ctx)
	e.must(err)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	e.must(v4.NewSigner().SignHTTP(ctx, cred, r, empty, "ec2", apptest.Region, time.Now()))
	resp, err := http.DefaultClient.Do(r)
	e.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	e.must(err)
	return resp.StatusCode, string(b)
}

// What EC2 does not know it refuses by name, and it leaves out what there is not: the
// tags of what has none, the attributes that were not asked for.
func TestQueryProtocol(t *testing.T) {
	e := start(t)
	v := e.volume()
	if v.Tags == nil {
		t.Error("CreateVolume answers without Tags, want an empty list")
	}
	for _, c := range []struct {
		form   string
		status int
		text   string
	}{
		{"Action=DescribeVolumes&Foo=1", 400, "<Code>UnknownParameter</Code><Message>The parameter Foo is not recognized</Message>"},
		{"Action=DescribeVolumes&Filter.1.Name=size&Filter.1.Value.1=1&Filter.1.Foo=2", 400, "The parameter Filter.1.Foo is not recognized"},
		{"Action=CreateTags&Tag.1.Key=a", 400, "<Code>MissingParameter</Code><Message>The request must contain the parameter resourceIdSet</Message>"},
		{"Action=CreateTags&ResourceId.1=" + *v.VolumeId, 400, "<Code>MissingParameter</Code><Message>The request must contain the parameter tagSet</Message>"},
		{"Action=CopySnapshot&SourceRegion=us-east-1&SourceSnapshotId=snap-1&DestinationRegion=us-east-1", 400, "<Code>InvalidSnapshotID.Malformed</Code>"},
		{"Action=DescribeVolumes&" + url.QueryEscape("VolumeId.1") + "=" + *v.VolumeId, 200, "<volumeId>" + *v.VolumeId},
	} {
		if status, body := e.query(c.form); status != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s: %d %s, want %d and %s", c.form, status, body, c.status, c.text)
		} else if strings.Contains(body, "<tagSet") {
			t.Errorf("%s: tags of a volume that has none: %s", c.form, body)
		}
	}
	if _, body := e.query("Action=DescribeVolumeAttribute&Attribute=autoEnableIO&VolumeId=" + *v.VolumeId); strings.Contains(body, "productCodes") {
		t.Errorf("the attribute autoEnableIO came with product codes: %s", body)
	}
}

// Errors that are not those of other enums.
func TestUnknownTypes(t *testing.T) {
	e := start(t)
	in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String(apptest.Region + "a"), Size: aws.Int32(1), VolumeType: "gp9"}
	_, err := e.CreateVolume(ctx, in)
	e.refused(err, "UnknownVolumeType", "Unsupported volume type 'gp9' for volume creation.")
	in.VolumeType, in.TagSpecifications = "gp3", []types.TagSpecification{{ResourceType: "window", Tags: []types.Tag{{Key: aws.String("a")}}}}
	_, err = e.CreateVolume(ctx, in)
	e.refused(err, "InvalidParameterValue", "'window' is not a valid taggable resource type for this operation.")
	_, err = e.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: e.volume().VolumeId, VolumeType: "gp9"})
	e.refused(err, "UnknownVolumeType", "'gp9'")
}

// Event history finds a call by the volume or snapshot that it made or named.
func TestEventsByResource(t *testing.T) {
	e := start(t)
	v := e.volume()
	n, err := e.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: v.VolumeId})
	e.must(err)
	_, err = e.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*v.VolumeId, *n.SnapshotId}, Tags: []types.Tag{{Key: aws.String("a"), Value: v.VolumeId}}})
	e.must(err)
	_, err = e.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v.VolumeId})
	e.must(err)
	look := func(k ct.LookupAttributeKey, value string) (names []string, of []ct.Resource) {
		out, err := e.s.CloudTrail().LookupEvents(ctx, &cloudtrail.LookupEventsInput{LookupAttributes: []ct.LookupAttribute{{AttributeKey: k, AttributeValue: &value}}})
		e.must(err)
		for _, x := range out.Events {
			names, of = append(names, *x.EventName), x.Resources
		}
		return names, of
	}
	names, of := look(ct.LookupAttributeKeyResourceName, *v.VolumeId)
	if want := []string{"DeleteVolume", "CreateTags", "CreateSnapshot", "CreateVolume"}; !slices.Equal(names, want) {
		t.Errorf("events of %s: %v, want %v", *v.VolumeId, names, want)
	}
	if len(of) != 1 || *of[0].ResourceName != *v.VolumeId || *of[0].ResourceType != "AWS::EC2::Volume" {
		t.Errorf("resources of CreateVolume: %+v", of)
	}
	if names, _ := look(ct.LookupAttributeKeyResourceType, "AWS::EC2::Snapshot"); !slices.Equal(names, []string{"CreateTags", "CreateSnapshot"}) {
		t.Errorf("events of snapshots: %v", names)
	}
}
