package ec2

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/wiretest"
)

func decode(t *testing.T, op, form string, in any) ([]string, error) {
	t.Helper()
	s := wiretest.NewServer(t, "ec2").Service
	model, ok := s.Operation(op)
	if !ok {
		t.Fatalf("ec2 has no operation %s", op)
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	var unknown []string
	return unknown, model.Decode(r, []byte(form), in, func(m string) { unknown = append(unknown, m) })
}

func TestValidation(t *testing.T) {
	s := wiretest.NewServer(t, "ec2").Service
	for _, c := range []struct {
		op, form   string
		in         any
		code, want string
	}{
		{"AttachVolume", "Device=/dev/sdf&InstanceId=i-1", new(ec2.AttachVolumeInput), "MissingParameter", "The request must contain the parameter VolumeId"},
		{"DescribeVolumeAttribute", "VolumeId=vol-1&Attribute=size", new(ec2.DescribeVolumeAttributeInput), "InvalidParameterValue", "Value (size) for parameter Attribute is invalid. Expected: 'autoEnableIO', "},
		{"CreateVolume", "AvailabilityZone=a&Size=big", new(ec2.CreateVolumeInput), "InvalidParameterValue", "Invalid value 'big' for Size"},
		{"CreateVolume", "AvailabilityZone=a&Encrypted=maybe", new(ec2.CreateVolumeInput), "InvalidParameterValue", "Invalid value 'maybe' for Encrypted"},
		{"DescribeVpcs", "MaxResults=3", new(ec2.DescribeVpcsInput), "InvalidParameterValue", "Value (3) for parameter MaxResults is invalid. Expecting a value greater than or equal to 5."},
		{"CreateTags", "ResourceId.1=vol-1", new(ec2.CreateTagsInput), "MissingParameter", "The request must contain the parameter tagSet"},
	} {
		_, err := decode(t, c.op, c.form, c.in)
		r := s.Resolve(err)
		if err == nil || r.Code != c.code || r.Status != 400 || !strings.Contains(r.Message, c.want) {
			t.Errorf("%s(%s) = %s %d %q, want %s 400 with %q", c.op, c.form, r.Code, r.Status, r.Message, c.code, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	in := new(ec2.DescribeVolumesInput)
	form := "Action=DescribeVolumes&Version=2016-11-15&DryRun=true&VolumeId.1=vol-1&VolumeId.2=vol-2&Filter.1.Name=attachment.instance-id&Filter.1.Value.1=i-1&Filter.1.Value.2=i-2&MaxResults=100&AWSAccessKeyId=x"
	if _, err := decode(t, "DescribeVolumes", form, in); err != nil {
		t.Fatal(err)
	}
	want := &ec2.DescribeVolumesInput{DryRun: aws.Bool(true), VolumeIds: []string{"vol-1", "vol-2"}, MaxResults: aws.Int32(100),
		Filters: []types.Filter{{Name: aws.String("attachment.instance-id"), Values: []string{"i-1", "i-2"}}}}
	if !reflect.DeepEqual(in, want) {
		t.Errorf("got %+v, want %+v", in, want)
	}
	set := wire.SetMembers(&ec2.RunInstancesInput{ImageId: aws.String("ami-1"), MinCount: aws.Int32(1),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda"), Ebs: &types.EbsBlockDevice{Iops: aws.Int32(3)}}}})
	if w := []string{"BlockDeviceMappings.DeviceName", "BlockDeviceMappings.Ebs.Iops", "ImageId", "MinCount"}; !reflect.DeepEqual(set, w) {
		t.Errorf("SetMembers = %q, want %q", set, w)
	}
}

func TestReply(t *testing.T) {
	s := wiretest.NewServer(t, "ec2").Service
	op, _ := s.Operation("CreateVolume")
	b, err := op.AppendOutput(nil, "r-1", &ec2.CreateVolumeOutput{VolumeId: aws.String("vol-1"), Encrypted: aws.Bool(true), State: types.VolumeStateCreating,
		CreateTime: aws.Time(time.Unix(1700000000, 0)), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("<b>")}}})
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<CreateVolumeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r-1</requestId>` +
		`<createTime>2023-11-14T22:13:20.000Z</createTime><encrypted>true</encrypted><status>creating</status><tagSet><item><key>a</key><value>&lt;b&gt;</value></item></tagSet><volumeId>vol-1</volumeId></CreateVolumeResponse>`
	if err != nil || string(b) != want {
		t.Errorf("got  %s, %v\nwant %s", b, err, want)
	}
	del, _ := s.Operation("DeleteVolume")
	b, err = del.AppendOutput(nil, "r-1", &ec2.DeleteVolumeOutput{})
	if want := "<requestId>r-1</requestId><return>true</return></DeleteVolumeResponse>"; err != nil || !strings.HasSuffix(string(b), want) {
		t.Errorf("got %s, %v, want …%s", b, err, want)
	}
}
