package workspaces

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// What the account has not: dedicated tenancy (Bring Your Own License), linked
// accounts, pools, applications of the AWS Marketplace. Lists of them are empty, and
// what is named is not found.

func (s *Service) accountOperations() []api.Operation {
	onOne := func(kind string, id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, kind, []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewView(name, "DescribeAccount", s.describeAccount),
		api.NewView(name, "DescribeAccountModifications", s.describeAccountModifications),
		api.NewUpdate(name, "ModifyAccount", s.modifyAccount),
		api.NewView(name, "ListAvailableManagementCidrRanges", s.listManagementRanges),
		api.NewView(name, "ListAccountLinks", s.listAccountLinks),
		api.NewView(name, "GetAccountLink", s.getAccountLink),
		api.NewView(name, "DescribeWorkspacesPools", s.describePools),
		never[workspaces.CreateWorkspacesPoolInput, workspaces.CreateWorkspacesPoolOutput]("CreateWorkspacesPool", "WorkSpaces Pools are not available here: a desktop belongs to one user."),
		never[workspaces.CreateStandbyWorkspacesInput, workspaces.CreateStandbyWorkspacesOutput]("CreateStandbyWorkspaces", "Standby WorkSpaces in a second region are not available here."),
		never[workspaces.CreateUpdatedWorkspaceImageInput, workspaces.CreateUpdatedWorkspaceImageOutput]("CreateUpdatedWorkspaceImage", "Only Windows images can be updated by WorkSpaces; update a WorkSpace and create an image of it."),
		never[workspaces.ImportWorkspaceImageInput, workspaces.ImportWorkspaceImageOutput]("ImportWorkspaceImage", "Importing Windows images (BYOL) is not available here; the desktop image is given to the server."),
		api.NewView(name, "DescribeApplications", s.describeApplications),
		api.NewView(name, "DescribeApplicationAssociations", s.describeApplicationAssociations,
			onOne("workspaceapplication", func(in any) *string { return in.(*workspaces.DescribeApplicationAssociationsInput).ApplicationId })),
		api.NewView(name, "DescribeBundleAssociations", s.describeBundleAssociations,
			onOne("workspacebundle", func(in any) *string { return in.(*workspaces.DescribeBundleAssociationsInput).BundleId })),
		api.NewView(name, "DescribeImageAssociations", s.describeImageAssociations,
			onOne("workspaceimage", func(in any) *string { return in.(*workspaces.DescribeImageAssociationsInput).ImageId })),
		api.NewView(name, "DescribeWorkspaceAssociations", s.describeWorkspaceAssociations,
			onOne("workspace", func(in any) *string { return in.(*workspaces.DescribeWorkspaceAssociationsInput).WorkspaceId })),
	}
}

// never makes an operation that is refused for the reason, to whoever may call it.
func never[In, Out any](operation, reason string) api.Operation {
	return api.NewUpdate(name, operation, func(context.Context, *store.Tx, *api.Call, *In) (*Out, error) { return nil, notAvailable(reason) })
}

func (s *Service) describeAccount(_ context.Context, _ *store.Tx, _ *api.Call, _ *workspaces.DescribeAccountInput) (*workspaces.DescribeAccountOutput, error) {
	return &workspaces.DescribeAccountOutput{DedicatedTenancySupport: wstypes.DedicatedTenancySupportResultEnumDisabled}, nil
}

func (s *Service) describeAccountModifications(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.DescribeAccountModificationsInput) (*workspaces.DescribeAccountModificationsOutput, error) {
	_, err := untoken(in.NextToken)
	return &workspaces.DescribeAccountModificationsOutput{AccountModifications: []wstypes.AccountModification{}}, err
}

// notEnabledForBYOL is what AWS answers accounts that may not bring licenses.
func notEnabledForBYOL() error {
	m := "The account is not enabled for Bring Your Own License (BYOL): desktops run on this host, there is no dedicated tenancy to enable."
	return &wstypes.AccessDeniedException{Message: &m}
}

func (s *Service) modifyAccount(_ context.Context, _ *store.Tx, _ *api.Call, _ *workspaces.ModifyAccountInput) (*workspaces.ModifyAccountOutput, error) {
	return nil, notEnabledForBYOL()
}

func (s *Service) listManagementRanges(_ context.Context, _ *store.Tx, _ *api.Call, _ *workspaces.ListAvailableManagementCidrRangesInput) (*workspaces.ListAvailableManagementCidrRangesOutput, error) {
	return nil, notEnabledForBYOL()
}

func (s *Service) listAccountLinks(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.ListAccountLinksInput) (*workspaces.ListAccountLinksOutput, error) {
	_, _ = in.LinkStatusFilter, in.MaxResults
	_, err := untoken(in.NextToken)
	return &workspaces.ListAccountLinksOutput{AccountLinks: []wstypes.AccountLink{}}, err
}

func (s *Service) getAccountLink(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.GetAccountLinkInput) (*workspaces.GetAccountLinkOutput, error) {
	return nil, notFound("account link", deref(in.LinkId)+deref(in.LinkedAccountId))
}

func (s *Service) describePools(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.DescribeWorkspacesPoolsInput) (*workspaces.DescribeWorkspacesPoolsOutput, error) {
	for _, f := range in.Filters {
		_, _, _ = f.Name, f.Operator, f.Values // nothing to find
	}
	_ = in.Limit
	if len(in.PoolIds) > 0 {
		return nil, notFound("pool", in.PoolIds[0])
	}
	_, err := untoken(in.NextToken)
	return &workspaces.DescribeWorkspacesPoolsOutput{WorkspacesPools: []wstypes.WorkspacesPool{}}, err
}

func (s *Service) describeApplications(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.DescribeApplicationsInput) (*workspaces.DescribeApplicationsOutput, error) {
	_, _, _, _, _ = in.ComputeTypeNames, in.LicenseType, in.OperatingSystemNames, in.Owner, in.MaxResults
	if len(in.ApplicationIds) > 0 {
		return nil, notFound("application", in.ApplicationIds[0])
	}
	_, err := untoken(in.NextToken)
	return &workspaces.DescribeApplicationsOutput{Applications: []wstypes.WorkSpaceApplication{}}, err
}

func (s *Service) describeApplicationAssociations(_ context.Context, _ *store.Tx, _ *api.Call, in *workspaces.DescribeApplicationAssociationsInput) (*workspaces.DescribeApplicationAssociationsOutput, error) {
	_, _, _ = in.AssociatedResourceTypes, in.MaxResults, in.NextToken
	return nil, notFound("application", deref(in.ApplicationId))
}

func (s *Service) describeBundleAssociations(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeBundleAssociationsInput) (*workspaces.DescribeBundleAssociationsOutput, error) {
	_ = in.AssociatedResourceTypes
	if s.bundle(tx, c, deref(in.BundleId)) == nil {
		return nil, notFound("bundle", deref(in.BundleId))
	}
	return &workspaces.DescribeBundleAssociationsOutput{Associations: []wstypes.BundleResourceAssociation{}}, nil
}

func (s *Service) describeImageAssociations(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeImageAssociationsInput) (*workspaces.DescribeImageAssociationsOutput, error) {
	_ = in.AssociatedResourceTypes
	if deref(in.ImageId) != imageID && s.imageOf(tx, c, deref(in.ImageId)) == nil {
		return nil, notFound("image", deref(in.ImageId))
	}
	return &workspaces.DescribeImageAssociationsOutput{Associations: []wstypes.ImageResourceAssociation{}}, nil
}

func (s *Service) describeWorkspaceAssociations(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceAssociationsInput) (*workspaces.DescribeWorkspaceAssociationsOutput, error) {
	_ = in.AssociatedResourceTypes
	if s.workspaces.Get(tx, key(c.Account, c.Region, deref(in.WorkspaceId))) == nil {
		return nil, notFound("WorkSpace", deref(in.WorkspaceId))
	}
	return &workspaces.DescribeWorkspaceAssociationsOutput{Associations: []wstypes.WorkspaceResourceAssociation{}}, nil
}
