package workspaces

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) directoryOperations() []api.Operation {
	onDirectory := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, _ *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return s.targets(c, "directory", []string{deref(id(in))}), nil
			}
		}
	}
	return []api.Operation{
		api.NewUpdate(name, "RegisterWorkspaceDirectory", s.registerDirectory,
			api.Refuses("ActiveDirectoryConfig", "IdcInstanceArn", "MicrosoftEntraConfig", "WorkspaceDirectoryName", "WorkspaceDirectoryDescription"),
			onDirectory(func(in any) *string { return in.(*workspaces.RegisterWorkspaceDirectoryInput).DirectoryId })),
		api.NewUpdate(name, "DeregisterWorkspaceDirectory", s.deregisterDirectory,
			onDirectory(func(in any) *string { return in.(*workspaces.DeregisterWorkspaceDirectoryInput).DirectoryId })),
		api.NewView(name, "DescribeWorkspaceDirectories", s.describeDirectories),
		api.NewUpdate(name, "ModifyWorkspaceCreationProperties", s.modifyCreationProperties, api.Refuses("WorkspaceCreationProperties.InstanceIamRoleArn"),
			onDirectory(func(in any) *string { return in.(*workspaces.ModifyWorkspaceCreationPropertiesInput).ResourceId })),
		api.NewUpdate(name, "ModifyWorkspaceAccessProperties", s.modifyAccessProperties, api.Refuses("WorkspaceAccessProperties.AccessEndpointConfig"),
			onDirectory(func(in any) *string { return in.(*workspaces.ModifyWorkspaceAccessPropertiesInput).ResourceId })),
		api.NewUpdate(name, "ModifyStreamingProperties", s.modifyStreaming, api.Refuses("StreamingProperties.StorageConnectors", "StreamingProperties.GlobalAccelerator"),
			onDirectory(func(in any) *string { return in.(*workspaces.ModifyStreamingPropertiesInput).ResourceId })),
		api.NewUpdate(name, "ModifySelfservicePermissions", s.modifySelfservice,
			onDirectory(func(in any) *string { return in.(*workspaces.ModifySelfservicePermissionsInput).ResourceId })),
	}
}

// Registered reports whether the directory is registered with WorkSpaces; a
// registered directory cannot be deleted.
func (s *Service) Registered(tx *store.Tx, account, region, directoryID string) bool {
	return s.directories.Get(tx, key(account, region, directoryID)) != nil
}

// registerDirectory makes a directory usable for desktops. AWS wants the role
// workspaces_DefaultRole to exist, with which it reaches into the account's VPC;
// nothing here needs it, so it is not asked for.
func (s *Service) registerDirectory(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.RegisterWorkspaceDirectoryInput) (*workspaces.RegisterWorkspaceDirectoryOutput, error) {
	id := deref(in.DirectoryId)
	d, ok := s.cfg.Directories.Directory(tx, c.Account, c.Region, id)
	if !ok {
		return nil, notFound("directory", id)
	}
	if in.WorkspaceType == wstypes.WorkspaceTypePools {
		m := "WorkSpaces Pools are not available here."
		return nil, &wstypes.OperationNotSupportedException{Message: &m}
	}
	if in.UserIdentityType != "" && in.UserIdentityType != wstypes.UserIdentityTypeAwsDirectoryService {
		m := "UserIdentityType " + string(in.UserIdentityType) + " is not available here; use AWS_DIRECTORY_SERVICE."
		return nil, &wstypes.OperationNotSupportedException{Message: &m}
	}
	if d.Stage != "Active" {
		m := "The directory " + id + " is " + d.Stage + "; it must be Active to be registered."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	k := key(c.Account, c.Region, id)
	if s.directories.Get(tx, k) != nil {
		m := "The directory " + id + " is registered already."
		return nil, &wstypes.ResourceAlreadyExistsException{Message: &m}
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	subnets := in.SubnetIds
	if len(subnets) == 0 {
		subnets = d.SubnetIDs
	}
	tenancy := in.Tenancy
	if tenancy == "" {
		tenancy = wstypes.TenancyShared
	}
	r := &registration{Account: c.Account, Region: c.Region, ID: id, SubnetIDs: subnets, RegistrationCode: "SLD" + strings.ToUpper(ids.Hex("", 2)) + "+" + strings.ToUpper(ids.Hex("", 6)),
		Tenancy: tenancy, State: wstypes.WorkspaceDirectoryStateRegistered, Creation: creationProperties{LocalAdministrator: true, MaintenanceMode: true},
		Access: map[string]string{}, SelfService: map[string]string{}, Tags: tags}
	for _, f := range deviceTypes(nil) {
		r.Access[f.name] = "ALLOW"
	}
	for _, f := range permissions(nil) {
		r.SelfService[f.name] = "DISABLED"
		if f.name == "RestartWorkspace" || aws.ToBool(in.EnableSelfService) {
			r.SelfService[f.name] = "ENABLED"
		}
	}
	return &workspaces.RegisterWorkspaceDirectoryOutput{DirectoryId: &id, State: r.State}, s.directories.Put(tx, k, r)
}

func (s *Service) deregisterDirectory(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeregisterWorkspaceDirectoryInput) (*workspaces.DeregisterWorkspaceDirectoryOutput, error) {
	id := deref(in.DirectoryId)
	k := key(c.Account, c.Region, id)
	if s.directories.Get(tx, k) == nil {
		return nil, notFound("directory", id)
	}
	var users []string
	s.workspaces.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, w *workspace) bool {
		if w.DirectoryID == id {
			users = append(users, w.ID)
		}
		return len(users) < 5
	})
	if alias := s.aliasOf(tx, c, id); alias != "" {
		m := "The directory " + id + " is associated with the connection alias " + alias + ". Disassociate it first."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	if len(users) > 0 {
		m := "The directory " + id + " still has WorkSpaces: " + strings.Join(users, ", ") + ". Terminate them first."
		return nil, &wstypes.InvalidResourceStateException{Message: &m}
	}
	return &workspaces.DeregisterWorkspaceDirectoryOutput{}, s.directories.Delete(tx, k)
}

func (s *Service) describeDirectories(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeWorkspaceDirectoriesInput) (*workspaces.DescribeWorkspaceDirectoriesOutput, error) {
	after, err := untoken(in.NextToken)
	if err != nil {
		return nil, err
	}
	for _, f := range in.Filters {
		if f.Name != wstypes.DescribeWorkspaceDirectoriesFilterNameWorkspaceType && f.Name != wstypes.DescribeWorkspaceDirectoriesFilterNameUserIdentityType {
			return nil, invalidValues("Filter " + string(f.Name) + " is not supported.")
		}
	}
	if len(in.WorkspaceDirectoryNames) > 0 {
		return nil, invalidValues("WorkspaceDirectoryNames are names of WorkSpaces Pools directories, of which there are none; use DirectoryIds.")
	}
	limit := int(aws.ToInt32(in.Limit))
	if limit == 0 {
		limit = pageSize
	}
	out := &workspaces.DescribeWorkspaceDirectoriesOutput{Directories: []wstypes.WorkspaceDirectory{}}
	last := ""
	s.directories.Scan(tx, key(c.Account, c.Region, ""), after, func(k string, r *registration) bool {
		if len(in.DirectoryIds) > 0 && !slices.Contains(in.DirectoryIds, r.ID) {
			return true
		}
		for _, f := range in.Filters {
			want := string(wstypes.WorkspaceTypePersonal)
			if f.Name == wstypes.DescribeWorkspaceDirectoriesFilterNameUserIdentityType {
				want = string(wstypes.UserIdentityTypeAwsDirectoryService)
			}
			if !slices.Contains(f.Values, want) {
				return true
			}
		}
		if len(out.Directories) == limit {
			out.NextToken = token(last)
			return false
		}
		d, _ := s.cfg.Directories.Directory(tx, c.Account, c.Region, r.ID)
		out.Directories = append(out.Directories, showDirectory(r, d))
		last = k
		return true
	})
	return out, nil
}

func showDirectory(r *registration, d Directory) wstypes.WorkspaceDirectory {
	kind := wstypes.WorkspaceDirectoryTypeSimpleAd
	if d.Type != "SimpleAD" {
		kind = wstypes.WorkspaceDirectoryTypeAdConnector
	}
	alias := d.Alias
	if alias == "" {
		alias = r.ID
	}
	o := wstypes.WorkspaceDirectory{DirectoryId: &r.ID, DirectoryName: &d.Name, Alias: &alias, DirectoryType: kind, DnsIpAddresses: d.DNSIPs, SubnetIds: r.SubnetIDs,
		RegistrationCode: &r.RegistrationCode, State: r.State, Tenancy: r.Tenancy, IpGroupIds: r.IPGroups, CustomerUserName: aws.String("Administrator"),
		UserIdentityType: wstypes.UserIdentityTypeAwsDirectoryService, WorkspaceType: wstypes.WorkspaceTypePersonal,
		WorkspaceCreationProperties: &wstypes.DefaultWorkspaceCreationProperties{EnableInternetAccess: &r.Creation.InternetAccess, EnableMaintenanceMode: &r.Creation.MaintenanceMode,
			UserEnabledAsLocalAdministrator: &r.Creation.LocalAdministrator},
		WorkspaceAccessProperties: &wstypes.WorkspaceAccessProperties{}, SelfservicePermissions: &wstypes.SelfservicePermissions{}}
	if r.Creation.CustomSecurityGroup != "" {
		o.WorkspaceCreationProperties.CustomSecurityGroupId = &r.Creation.CustomSecurityGroup
	}
	if r.Creation.DefaultOU != "" {
		o.WorkspaceCreationProperties.DefaultOu = &r.Creation.DefaultOU
	}
	o.StreamingProperties = showStreaming(r)
	r.showSignIn(&o)
	// AWS acts through this role and puts desktops into this group; here they are names alone.
	o.IamRoleId = aws.String("arn:aws:iam::" + r.Account + ":role/workspaces_DefaultRole")
	o.WorkspaceSecurityGroupId = aws.String(r.membersGroup())
	for _, f := range deviceTypes(o.WorkspaceAccessProperties) {
		*f.value = wstypes.AccessPropertyValue(r.Access[f.name])
	}
	for _, f := range permissions(o.SelfservicePermissions) {
		*f.value = wstypes.ReconnectEnum(r.SelfService[f.name])
	}
	return o
}

// membersGroup is the ID of the security group "<directory ID>_workspacesMembers".
func (r *registration) membersGroup() string {
	h := sha256.Sum256([]byte("workspaces members\x00" + key(r.Account, r.Region, r.ID)))
	return "sg-0" + hex.EncodeToString(h[:8])
}

type accessField struct {
	name  string
	value *wstypes.AccessPropertyValue
}

// deviceTypes lists the members of a WorkspaceAccessProperties by name.
func deviceTypes(p *wstypes.WorkspaceAccessProperties) []accessField {
	if p == nil {
		p = &wstypes.WorkspaceAccessProperties{}
	}
	return []accessField{{"DeviceTypeAndroid", &p.DeviceTypeAndroid}, {"DeviceTypeChromeOs", &p.DeviceTypeChromeOs}, {"DeviceTypeIos", &p.DeviceTypeIos},
		{"DeviceTypeLinux", &p.DeviceTypeLinux}, {"DeviceTypeOsx", &p.DeviceTypeOsx}, {"DeviceTypeWeb", &p.DeviceTypeWeb}, {"DeviceTypeWindows", &p.DeviceTypeWindows},
		{"DeviceTypeZeroClient", &p.DeviceTypeZeroClient}, {"DeviceTypeWorkSpacesThinClient", &p.DeviceTypeWorkSpacesThinClient}}
}

type permissionField struct {
	name  string
	value *wstypes.ReconnectEnum
}

// permissions lists the members of a SelfservicePermissions by name.
func permissions(p *wstypes.SelfservicePermissions) []permissionField {
	if p == nil {
		p = &wstypes.SelfservicePermissions{}
	}
	return []permissionField{{"RestartWorkspace", &p.RestartWorkspace}, {"IncreaseVolumeSize", &p.IncreaseVolumeSize}, {"ChangeComputeType", &p.ChangeComputeType},
		{"SwitchRunningMode", &p.SwitchRunningMode}, {"RebuildWorkspace", &p.RebuildWorkspace}}
}

// editRegistration changes a registered directory.
func (s *Service) editRegistration(tx *store.Tx, c *api.Call, id *string, f func(r *registration) error) error {
	k := key(c.Account, c.Region, deref(id))
	r := s.directories.Edit(tx, k)
	if r == nil {
		return notFound("directory", deref(id))
	}
	if err := f(r); err != nil {
		return err
	}
	return s.directories.Put(tx, k, r)
}

func (s *Service) modifyCreationProperties(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifyWorkspaceCreationPropertiesInput) (*workspaces.ModifyWorkspaceCreationPropertiesOutput, error) {
	return &workspaces.ModifyWorkspaceCreationPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(r *registration) error {
		p := in.WorkspaceCreationProperties
		if aws.ToBool(p.EnableInternetAccess) {
			return invalidValues("EnableInternetAccess: desktops have no way out unless the host's administrator configures a bridge.")
		}
		setIf(&r.Creation.CustomSecurityGroup, p.CustomSecurityGroupId)
		setIf(&r.Creation.DefaultOU, p.DefaultOu)
		setIf(&r.Creation.MaintenanceMode, p.EnableMaintenanceMode)
		setIf(&r.Creation.LocalAdministrator, p.UserEnabledAsLocalAdministrator)
		return nil
	})
}

func setIf[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

func (s *Service) modifyAccessProperties(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifyWorkspaceAccessPropertiesInput) (*workspaces.ModifyWorkspaceAccessPropertiesOutput, error) {
	return &workspaces.ModifyWorkspaceAccessPropertiesOutput{}, s.editRegistration(tx, c, in.ResourceId, func(r *registration) error {
		for _, f := range deviceTypes(in.WorkspaceAccessProperties) {
			if *f.value != "" {
				r.Access[f.name] = string(*f.value)
			}
		}
		return nil
	})
}

func (s *Service) modifySelfservice(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.ModifySelfservicePermissionsInput) (*workspaces.ModifySelfservicePermissionsOutput, error) {
	return &workspaces.ModifySelfservicePermissionsOutput{}, s.editRegistration(tx, c, in.ResourceId, func(r *registration) error {
		for _, f := range permissions(in.SelfservicePermissions) {
			if *f.value != "" {
				r.SelfService[f.name] = string(*f.value)
			}
		}
		return nil
	})
}
