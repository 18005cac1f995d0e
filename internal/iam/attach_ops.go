package iam

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// The operations over attach.go, one for each kind of owner.

func (s *Service) attachUserPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AttachUserPolicyInput) (*iam.AttachUserPolicyOutput, error) {
	if err := s.attach(tx, c, "user", in.UserName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.AttachUserPolicyOutput{}, nil
}

func (s *Service) detachUserPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DetachUserPolicyInput) (*iam.DetachUserPolicyOutput, error) {
	if err := s.detach(tx, c, "user", in.UserName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.DetachUserPolicyOutput{}, nil
}

func (s *Service) listAttachedUserPolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListAttachedUserPoliciesInput) (*iam.ListAttachedUserPoliciesOutput, error) {
	list, p, err := s.listAttached(tx, c, "ListAttachedUserPolicies", "user", in.UserName, in.Marker, in.MaxItems, in.PathPrefix)
	if err != nil {
		return nil, err
	}
	return &iam.ListAttachedUserPoliciesOutput{AttachedPolicies: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) putUserPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.PutUserPolicyInput) (*iam.PutUserPolicyOutput, error) {
	if err := s.putInline(tx, c, "user", in.UserName, in.PolicyName, in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutUserPolicyOutput{}, nil
}

func (s *Service) getUserPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetUserPolicyInput) (*iam.GetUserPolicyOutput, error) {
	o, n, doc, err := s.getInline(tx, c, "user", in.UserName, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iam.GetUserPolicyOutput{UserName: &o.name, PolicyName: n, PolicyDocument: doc}, nil
}

func (s *Service) deleteUserPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteUserPolicyInput) (*iam.DeleteUserPolicyOutput, error) {
	if err := s.deleteInline(tx, c, "user", in.UserName, in.PolicyName); err != nil {
		return nil, err
	}
	return &iam.DeleteUserPolicyOutput{}, nil
}

func (s *Service) listUserPolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListUserPoliciesInput) (*iam.ListUserPoliciesOutput, error) {
	names, p, err := s.listInline(tx, c, "ListUserPolicies", "user", in.UserName, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListUserPoliciesOutput{PolicyNames: names, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) putUserPermissionsBoundary(_ context.Context, tx *store.Tx, c *api.Call, in *iam.PutUserPermissionsBoundaryInput) (*iam.PutUserPermissionsBoundaryOutput, error) {
	if err := s.changeBoundary(tx, c, "user", in.UserName, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	return &iam.PutUserPermissionsBoundaryOutput{}, nil
}

func (s *Service) deleteUserPermissionsBoundary(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteUserPermissionsBoundaryInput) (*iam.DeleteUserPermissionsBoundaryOutput, error) {
	if err := s.changeBoundary(tx, c, "user", in.UserName, nil); err != nil {
		return nil, err
	}
	return &iam.DeleteUserPermissionsBoundaryOutput{}, nil
}

func (s *Service) attachGroupPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AttachGroupPolicyInput) (*iam.AttachGroupPolicyOutput, error) {
	if err := s.attach(tx, c, "group", in.GroupName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.AttachGroupPolicyOutput{}, nil
}

func (s *Service) detachGroupPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DetachGroupPolicyInput) (*iam.DetachGroupPolicyOutput, error) {
	if err := s.detach(tx, c, "group", in.GroupName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.DetachGroupPolicyOutput{}, nil
}

func (s *Service) listAttachedGroupPolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListAttachedGroupPoliciesInput) (*iam.ListAttachedGroupPoliciesOutput, error) {
	list, p, err := s.listAttached(tx, c, "ListAttachedGroupPolicies", "group", in.GroupName, in.Marker, in.MaxItems, in.PathPrefix)
	if err != nil {
		return nil, err
	}
	return &iam.ListAttachedGroupPoliciesOutput{AttachedPolicies: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) putGroupPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.PutGroupPolicyInput) (*iam.PutGroupPolicyOutput, error) {
	if err := s.putInline(tx, c, "group", in.GroupName, in.PolicyName, in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutGroupPolicyOutput{}, nil
}

func (s *Service) getGroupPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetGroupPolicyInput) (*iam.GetGroupPolicyOutput, error) {
	o, n, doc, err := s.getInline(tx, c, "group", in.GroupName, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iam.GetGroupPolicyOutput{GroupName: &o.name, PolicyName: n, PolicyDocument: doc}, nil
}

func (s *Service) deleteGroupPolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteGroupPolicyInput) (*iam.DeleteGroupPolicyOutput, error) {
	if err := s.deleteInline(tx, c, "group", in.GroupName, in.PolicyName); err != nil {
		return nil, err
	}
	return &iam.DeleteGroupPolicyOutput{}, nil
}

func (s *Service) listGroupPolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListGroupPoliciesInput) (*iam.ListGroupPoliciesOutput, error) {
	names, p, err := s.listInline(tx, c, "ListGroupPolicies", "group", in.GroupName, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListGroupPoliciesOutput{PolicyNames: names, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) attachRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
	if err := s.attach(tx, c, "role", in.RoleName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.AttachRolePolicyOutput{}, nil
}

func (s *Service) detachRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
	if err := s.detach(tx, c, "role", in.RoleName, in.PolicyArn); err != nil {
		return nil, err
	}
	return &iam.DetachRolePolicyOutput{}, nil
}

func (s *Service) listAttachedRolePolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
	list, p, err := s.listAttached(tx, c, "ListAttachedRolePolicies", "role", in.RoleName, in.Marker, in.MaxItems, in.PathPrefix)
	if err != nil {
		return nil, err
	}
	return &iam.ListAttachedRolePoliciesOutput{AttachedPolicies: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) putRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
	if err := s.putInline(tx, c, "role", in.RoleName, in.PolicyName, in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutRolePolicyOutput{}, nil
}

func (s *Service) getRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
	o, n, doc, err := s.getInline(tx, c, "role", in.RoleName, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iam.GetRolePolicyOutput{RoleName: &o.name, PolicyName: n, PolicyDocument: doc}, nil
}

func (s *Service) deleteRolePolicy(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
	if err := s.deleteInline(tx, c, "role", in.RoleName, in.PolicyName); err != nil {
		return nil, err
	}
	return &iam.DeleteRolePolicyOutput{}, nil
}

func (s *Service) listRolePolicies(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
	names, p, err := s.listInline(tx, c, "ListRolePolicies", "role", in.RoleName, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListRolePoliciesOutput{PolicyNames: names, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) putRolePermissionsBoundary(_ context.Context, tx *store.Tx, c *api.Call, in *iam.PutRolePermissionsBoundaryInput) (*iam.PutRolePermissionsBoundaryOutput, error) {
	if err := s.changeBoundary(tx, c, "role", in.RoleName, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	return &iam.PutRolePermissionsBoundaryOutput{}, nil
}

func (s *Service) deleteRolePermissionsBoundary(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteRolePermissionsBoundaryInput) (*iam.DeleteRolePermissionsBoundaryOutput, error) {
	if err := s.changeBoundary(tx, c, "role", in.RoleName, nil); err != nil {
		return nil, err
	}
	return &iam.DeleteRolePermissionsBoundaryOutput{}, nil
}
