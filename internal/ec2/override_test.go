package ec2

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// An old copy of a volume is refused until an operator accepts it, once, and never while the volume is attached.
func TestAcceptVolumeState(t *testing.T) {
	e := newEnv(t, nil)
	id := *must[ec2.CreateVolumeOutput](e, "CreateVolume", encryptedVolume(e.kms.symmetric())).VolumeId
	att := &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: aws.String(e.instance()), Device: aws.String("/dev/sdf")}
	accept := &AcceptVolumeStateInput{VolumeId: &id}
	must[ec2.AttachVolumeOutput](e, "AttachVolume", att)
	e.refused(e.person(), "AcceptVolumeState", accept, "IncorrectState", "is attached")
	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: &id})

	for _, p := range e.plane.places { // the files of yesterday
		p.Version--
	}
	e.refused(e.person(), "AttachVolume", att, "IncorrectState", "an old copy was put back")
	if out := must[AcceptVolumeStateOutput](e, "AcceptVolumeState", accept); *out.VolumeId != id || *out.ExpectedState == "" {
		t.Errorf("AcceptVolumeState = %q, %q, want the state that was expected", *out.VolumeId, *out.ExpectedState)
	}
	must[ec2.AttachVolumeOutput](e, "AttachVolume", att)
	must[ec2.DetachVolumeOutput](e, "DetachVolume", &ec2.DetachVolumeInput{VolumeId: &id})
	for _, p := range e.plane.places { // it holds for one time
		p.Version--
	}
	e.refused(e.person(), "AttachVolume", att, "IncorrectState", "an old copy was put back")
	e.refused(e.person(), "AcceptVolumeState", &AcceptVolumeStateInput{VolumeId: aws.String("vol-00000000000000000")}, "InvalidVolume.NotFound", "vol-00000000000000000")
}
