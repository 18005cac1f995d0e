package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) describeSnapshotAttribute(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeSnapshotAttributeInput) (*ec2.DescribeSnapshotAttributeOutput, error) {
	n, err := s.findSnapshot(tx, c, aws.ToString(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeSnapshotAttributeOutput{SnapshotId: aws.String(n.ID)}
	switch in.Attribute {
	case types.SnapshotAttributeNameProductCodes:
		out.ProductCodes = []types.ProductCode{}
	case types.SnapshotAttributeNameCreateVolumePermission:
		out.CreateVolumePermissions = []types.CreateVolumePermission{}
		for _, a := range n.Shared {
			if a == "all" {
				out.CreateVolumePermissions = append(out.CreateVolumePermissions, types.CreateVolumePermission{Group: types.PermissionGroupAll})
			} else {
				out.CreateVolumePermissions = append(out.CreateVolumePermissions, types.CreateVolumePermission{UserId: aws.String(a)})
			}
		}
	default:
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Expecting createVolumePermission or productCodes.", in.Attribute)
	}
	return out, nil
}

// modifySnapshotAttribute shares a snapshot with accounts, or no longer. A snapshot under the
// AWS managed key cannot be shared, since no other account can use that key; an encrypted one
// cannot be public. Source: EBS User Guide, "Share a snapshot".
func (s *Service) modifySnapshotAttribute(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ModifySnapshotAttributeInput) (*ec2.ModifySnapshotAttributeOutput, error) {
	n, err := s.ownSnapshot(tx, c, aws.ToString(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	if in.Attribute != "" && in.Attribute != types.SnapshotAttributeNameCreateVolumePermission {
		return nil, fail("InvalidParameterValue", "Only createVolumePermission can be modified.")
	}
	for _, g := range in.GroupNames {
		if g != "all" {
			return nil, fail("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for userGroup item type.", g)
		}
	}
	var add, remove []string
	name := func(p types.CreateVolumePermission) string {
		if p.Group != "" {
			return string(p.Group)
		}
		return aws.ToString(p.UserId)
	}
	if m := in.CreateVolumePermission; m != nil {
		for _, p := range m.Add {
			add = append(add, name(p))
		}
		for _, p := range m.Remove {
			remove = append(remove, name(p))
		}
	}
	switch more := append(slices.Clone(in.UserIds), in.GroupNames...); in.OperationType {
	case types.OperationTypeAdd:
		add = append(add, more...)
	case types.OperationTypeRemove:
		remove = append(remove, more...)
	default:
		if len(more) > 0 {
			return nil, fail("MissingParameter", "The request must contain the parameter operationType")
		}
	}
	if len(add)+len(remove) == 0 {
		return nil, fail("InvalidParameterCombination", "No attributes specified.")
	}
	for _, a := range append(slices.Clone(add), remove...) {
		if a != "all" && (len(a) != 12 || strings.Trim(a, "0123456789") != "") {
			return nil, fail("InvalidUserID.Malformed", "Invalid user id: %q", a)
		}
	}
	if slices.Contains(add, "all") && s.settingsOf(tx, c.Account, c.Region).BlockPublicSnapshots != "" {
		return nil, fail("OperationNotPermitted", "Block public access for snapshots is on in this Region (GetSnapshotBlockPublicAccessState): snapshots cannot be shared publicly.")
	}
	if len(add) > 0 && n.Key.Encrypted {
		if slices.Contains(add, "all") {
			return nil, fail("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly.")
		}
		if n.DefaultKey {
			return nil, fail("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
		}
	}
	e := s.snapshots.Edit(tx, n.key())
	for _, a := range add {
		if !slices.Contains(e.Shared, a) {
			e.Shared = append(e.Shared, a)
		}
	}
	e.Shared = slices.DeleteFunc(e.Shared, func(a string) bool { return slices.Contains(remove, a) })
	slices.Sort(e.Shared)
	return &ec2.ModifySnapshotAttributeOutput{}, s.snapshots.Put(tx, n.key(), e)
}

func (s *Service) resetSnapshotAttribute(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.ResetSnapshotAttributeInput) (*ec2.ResetSnapshotAttributeOutput, error) {
	n, err := s.ownSnapshot(tx, c, aws.ToString(in.SnapshotId))
	if err != nil {
		return nil, err
	}
	if in.Attribute != types.SnapshotAttributeNameCreateVolumePermission {
		return nil, fail("InvalidParameterValue", "Only createVolumePermission can be reset.")
	}
	e := s.snapshots.Edit(tx, n.key())
	e.Shared = nil
	return &ec2.ResetSnapshotAttributeOutput{}, s.snapshots.Put(tx, n.key(), e)
}
