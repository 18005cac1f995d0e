package app_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// registered makes another directory, registered with WorkSpaces.
func (e *estate) registered(name string, selfService bool) string {
	e.t.Helper()
	d, err := e.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: &name, Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall})
	e.must(err)
	e.eventually("the directory can be registered", func() bool {
		_, err := e.WorkSpaces().RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: d.DirectoryId, EnableSelfService: &selfService})
		return err == nil
	})
	return *d.DirectoryId
}

// TestDirectoryInSubnets: a directory is in the Availability Zones of its subnets.
func TestDirectoryInSubnets(t *testing.T) {
	s := apptest.New(t)
	subnets, err := ec2.NewFromConfig(s.Config()).DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	two := subnets.Subnets[1:]
	d, err := s.DS().CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("corp.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall,
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: two[0].VpcId, SubnetIds: []string{*two[0].SubnetId, *two[1].SubnetId}}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.DS().DescribeDirectories(ctx, &directoryservice.DescribeDirectoriesInput{DirectoryIds: []string{*d.DirectoryId}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out.DirectoryDescriptions[0].VpcSettings.AvailabilityZones, []string{*two[0].AvailabilityZone, *two[1].AvailabilityZone}; !slices.Equal(got, want) {
		t.Errorf("the directory is in %v, want %v", got, want)
	}
}

// TestRegisteredDirectory: a directory shows every member that clients read, what is
// not available can be switched off and not on, and an account has what it has.
func TestRegisteredDirectory(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces()
	show := func(id string) wstypes.WorkspaceDirectory {
		t.Helper()
		out, err := ws.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{id}})
		e.must(err)
		return out.Directories[0]
	}
	d := show(e.directory)
	if !strings.HasSuffix(aws.ToString(d.IamRoleId), ":role/workspaces_DefaultRole") || !strings.HasPrefix(aws.ToString(d.WorkspaceSecurityGroupId), "sg-0") {
		t.Errorf("role %v and group %v, want the default role and a security group", aws.ToString(d.IamRoleId), aws.ToString(d.WorkspaceSecurityGroupId))
	}
	if d.SamlProperties.Status != "DISABLED" || *d.SamlProperties.RelayStateParameterName != "RelayState" || d.CertificateBasedAuthProperties.Status != "DISABLED" {
		t.Errorf("SAML %+v, certificates %+v; want both DISABLED", d.SamlProperties, d.CertificateBasedAuthProperties)
	}
	if p := d.SelfservicePermissions; p.RestartWorkspace != "ENABLED" || p.RebuildWorkspace != "DISABLED" || p.IncreaseVolumeSize != "DISABLED" {
		t.Errorf("self-service %+v, want RestartWorkspace alone", p)
	}
	if p := show(e.registered("two.example.com", true)).SelfservicePermissions; p.RestartWorkspace != "ENABLED" || p.RebuildWorkspace != "ENABLED" || p.ChangeComputeType != "ENABLED" || p.SwitchRunningMode != "ENABLED" || p.IncreaseVolumeSize != "ENABLED" {
		t.Errorf("with EnableSelfService %+v, want all", p)
	}

	saml := func(p wstypes.SamlProperties, remove ...wstypes.DeletableSamlProperty) error {
		_, err := ws.ModifySamlProperties(ctx, &workspaces.ModifySamlPropertiesInput{ResourceId: &e.directory, SamlProperties: &p, PropertiesToDelete: remove})
		return err
	}
	e.must(saml(wstypes.SamlProperties{Status: "DISABLED", RelayStateParameterName: aws.String("Where"), UserAccessUrl: aws.String("https://idp.example.com/")}))
	if p := show(e.directory).SamlProperties; *p.RelayStateParameterName != "Where" || *p.UserAccessUrl != "https://idp.example.com/" {
		t.Errorf("SAML %+v, want what was set", p)
	}
	e.must(saml(wstypes.SamlProperties{}, wstypes.DeletableSamlPropertySamlPropertiesRelayStateParameterName, wstypes.DeletableSamlPropertySamlPropertiesUserAccessUrl))
	if p := show(e.directory).SamlProperties; *p.RelayStateParameterName != "RelayState" || p.UserAccessUrl != nil {
		t.Errorf("SAML %+v after the deletion, want the defaults", p)
	}
	if err := saml(wstypes.SamlProperties{Status: "ENABLED"}); codeOf(err) != "OperationNotSupportedException" {
		t.Errorf("SAML on: %v, want OperationNotSupportedException", err)
	}
	certificates := func(st wstypes.CertificateBasedAuthStatusEnum) error {
		_, err := ws.ModifyCertificateBasedAuthProperties(ctx, &workspaces.ModifyCertificateBasedAuthPropertiesInput{ResourceId: &e.directory, CertificateBasedAuthProperties: &wstypes.CertificateBasedAuthProperties{Status: st}})
		return err
	}
	e.must(certificates("DISABLED"))
	if err := certificates("ENABLED"); codeOf(err) != "OperationNotSupportedException" {
		t.Errorf("certificates on: %v, want OperationNotSupportedException", err)
	}
	client := func(p wstypes.ClientProperties) error {
		_, err := ws.ModifyClientProperties(ctx, &workspaces.ModifyClientPropertiesInput{ResourceId: &e.directory, ClientProperties: &p})
		return err
	}
	e.must(client(wstypes.ClientProperties{ReconnectEnabled: "DISABLED", LogUploadEnabled: "DISABLED"}))
	for _, p := range []wstypes.ClientProperties{{ReconnectEnabled: "ENABLED"}, {LogUploadEnabled: "ENABLED"}} {
		if err := client(p); codeOf(err) != "OperationNotSupportedException" {
			t.Errorf("client properties %+v: %v, want OperationNotSupportedException", p, err)
		}
	}
	props, err := ws.DescribeClientProperties(ctx, &workspaces.DescribeClientPropertiesInput{ResourceIds: []string{e.directory}})
	e.must(err)
	if p := props.ClientPropertiesList[0]; *p.ResourceId != e.directory || p.ClientProperties.ReconnectEnabled != "DISABLED" || p.ClientProperties.LogUploadEnabled != "DISABLED" {
		t.Errorf("client properties %+v, want both DISABLED", p)
	}
	if _, err := ws.DescribeClientProperties(ctx, &workspaces.DescribeClientPropertiesInput{ResourceIds: []string{"d-0123456789"}}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("client properties of an unknown directory: %v, want ResourceNotFoundException", err)
	}

	account, err := ws.DescribeAccount(ctx, &workspaces.DescribeAccountInput{})
	if err != nil || account.DedicatedTenancySupport != "DISABLED" {
		t.Errorf("DescribeAccount = %+v, %v; want DISABLED", account, err)
	}
	if _, err := ws.ListAvailableManagementCidrRanges(ctx, &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String("10.0.0.0/8")}); codeOf(err) != "AccessDeniedException" {
		t.Errorf("management ranges: %v, want AccessDeniedException", err)
	}
	for what, err := range map[string]error{
		"an updated image": second(ws.CreateUpdatedWorkspaceImage(ctx, &workspaces.CreateUpdatedWorkspaceImageInput{Name: aws.String("x"), Description: aws.String("x"), SourceImageId: aws.String("wsi-123456789")})),
		"a standby": second(ws.CreateStandbyWorkspaces(ctx, &workspaces.CreateStandbyWorkspacesInput{PrimaryRegion: aws.String("us-east-1"),
			StandbyWorkspaces: []wstypes.StandbyWorkspace{{DirectoryId: &e.directory, PrimaryWorkspaceId: aws.String("ws-123456789")}}})),
		"an import": second(ws.ImportWorkspaceImage(ctx, &workspaces.ImportWorkspaceImageInput{Ec2ImageId: aws.String("ami-12345678"), ImageName: aws.String("x"), ImageDescription: aws.String("x"), IngestionProcess: "BYOL_REGULAR"})),
	} {
		if codeOf(err) != "OperationNotSupportedException" {
			t.Errorf("%s: %v, want OperationNotSupportedException", what, err)
		}
	}
	id := e.launched("jane")
	apps, err := ws.DescribeWorkspaceAssociations(ctx, &workspaces.DescribeWorkspaceAssociationsInput{WorkspaceId: &id, AssociatedResourceTypes: []wstypes.WorkSpaceAssociatedResourceType{"APPLICATION"}})
	if err != nil || apps.Associations == nil || len(apps.Associations) != 0 {
		t.Errorf("applications of a WorkSpace: %+v, %v; want an empty list", apps, err)
	}
	if _, err := ws.DescribeWorkspaceAssociations(ctx, &workspaces.DescribeWorkspaceAssociationsInput{WorkspaceId: aws.String("ws-123456789"), AssociatedResourceTypes: []wstypes.WorkSpaceAssociatedResourceType{"APPLICATION"}}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("applications of an unknown WorkSpace: %v, want ResourceNotFoundException", err)
	}
	if _, err := ws.DescribeBundleAssociations(ctx, &workspaces.DescribeBundleAssociationsInput{BundleId: aws.String("wsb-standard1"), AssociatedResourceTypes: []wstypes.BundleAssociatedResourceType{"APPLICATION"}}); err != nil {
		t.Error(err)
	}
	if _, err := ws.DescribeImageAssociations(ctx, &workspaces.DescribeImageAssociationsInput{ImageId: aws.String("wsi-123456789"), AssociatedResourceTypes: []wstypes.ImageAssociatedResourceType{"APPLICATION"}}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("applications of an unknown image: %v, want ResourceNotFoundException", err)
	}
}

// TestConnectionAlias: a domain name leads to the directory it is associated with, from
// association to disassociation, and who owns or shares it decides.
func TestConnectionAlias(t *testing.T) {
	e := newEstate(t)
	ws := e.WorkSpaces(e.admin)
	create := func(text string) (string, error) {
		out, err := ws.CreateConnectionAlias(ctx, &workspaces.CreateConnectionAliasInput{ConnectionString: &text})
		if err != nil {
			return "", err
		}
		return *out.AliasId, nil
	}
	id, err := create("desktop.example.com")
	e.must(err)
	for text, want := range map[string]string{"Desktop.example.com": "ResourceAlreadyExistsException", "desktop": "InvalidParameterValuesException", "a..example.com": "InvalidParameterValuesException"} {
		if _, err := create(text); codeOf(err) != want {
			t.Errorf("an alias %s: %v, want %s", text, err, want)
		}
	}
	show := func() wstypes.ConnectionAlias {
		t.Helper()
		out, err := ws.DescribeConnectionAliases(ctx, &workspaces.DescribeConnectionAliasesInput{AliasIds: []string{id}})
		e.must(err)
		return out.ConnectionAliases[0]
	}
	if a := show(); a.State != "CREATED" || *a.ConnectionString != "desktop.example.com" || len(a.Associations) != 1 || a.Associations[0].AssociationStatus != "NOT_ASSOCIATED" {
		t.Errorf("the alias is %+v, want it CREATED and not associated", a)
	}
	const password = "Correct-Horse-7"
	_, err = e.DS().ResetUserPassword(ctx, &directoryservice.ResetUserPasswordInput{DirectoryId: &e.directory, UserName: aws.String("jane"), NewPassword: aws.String(password)})
	e.must(err)
	// leads tells whether Jane can sign in with the name in the place of a registration code.
	leads := func() bool {
		t.Helper()
		body := `{"directory": "Desktop.Example.com", "userName": "jane", "password": "` + password + `"}`
		r, err := http.NewRequest(http.MethodPost, e.URL+"/portal/signin", strings.NewReader(body))
		e.must(err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", e.URL)
		status, reply := do(t, r)
		if status != http.StatusOK && !strings.Contains(reply, "AuthFailure") {
			t.Fatalf("sign-in with the name: %d %s", status, reply)
		}
		return status == http.StatusOK
	}
	if leads() {
		t.Error("before it is associated the name leads somewhere")
	}
	associate := func(alias, directory string) (*workspaces.AssociateConnectionAliasOutput, error) {
		return ws.AssociateConnectionAlias(ctx, &workspaces.AssociateConnectionAliasInput{AliasId: &alias, ResourceId: &directory})
	}
	if _, err := associate(id, "d-0123456789"); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("with an unknown directory: %v, want ResourceNotFoundException", err)
	}
	out, err := associate(id, e.directory)
	e.must(err)
	if a := show().Associations[0]; a.AssociationStatus != "ASSOCIATED_WITH_OWNER_ACCOUNT" || *a.ResourceId != e.directory || *a.ConnectionIdentifier != *out.ConnectionIdentifier {
		t.Errorf("the association is %+v, want the directory by its identifier", a)
	}
	if !leads() {
		t.Error("the name does not lead to the directory it is associated with")
	}
	other, err := create("other.example.com")
	e.must(err)
	for what, err := range map[string]error{"an associated alias": second(associate(id, e.directory)), "an associated directory": second(associate(other, e.directory)),
		"deleting it": second(ws.DeleteConnectionAlias(ctx, &workspaces.DeleteConnectionAliasInput{AliasId: &id}))} {
		if codeOf(err) != "ResourceAssociatedException" {
			t.Errorf("%s: %v, want ResourceAssociatedException", what, err)
		}
	}
	if _, err := ws.DeregisterWorkspaceDirectory(ctx, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &e.directory}); codeOf(err) != "InvalidResourceStateException" {
		t.Errorf("deregistering the directory: %v, want InvalidResourceStateException", err)
	}
	byResource, err := ws.DescribeConnectionAliases(ctx, &workspaces.DescribeConnectionAliasesInput{ResourceId: &e.directory})
	if err != nil || len(byResource.ConnectionAliases) != 1 || *byResource.ConnectionAliases[0].AliasId != id {
		t.Errorf("by directory: %+v, %v; want the one alias", byResource, err)
	}
	var paged int
	for p := (&workspaces.DescribeConnectionAliasesInput{Limit: aws.Int32(1)}); ; {
		page, err := ws.DescribeConnectionAliases(ctx, p)
		e.must(err)
		paged += len(page.ConnectionAliases)
		if p.NextToken = page.NextToken; p.NextToken == nil {
			break
		}
	}
	if paged != 2 {
		t.Errorf("in pages of one: %d aliases, want 2", paged)
	}

	permit := func(with string, allow bool) error {
		_, err := ws.UpdateConnectionAliasPermission(ctx, &workspaces.UpdateConnectionAliasPermissionInput{AliasId: &id, ConnectionAliasPermission: &wstypes.ConnectionAliasPermission{SharedAccountId: &with, AllowAssociation: &allow}})
		return err
	}
	e.must(permit("999988887777", true))
	if err := permit("999988887776", true); codeOf(err) != "ResourceLimitExceededException" {
		t.Errorf("sharing with a second account: %v, want ResourceLimitExceededException", err)
	}
	perms, err := ws.DescribeConnectionAliasPermissions(ctx, &workspaces.DescribeConnectionAliasPermissionsInput{AliasId: &id})
	if err != nil || len(perms.ConnectionAliasPermissions) != 1 || *perms.ConnectionAliasPermissions[0].SharedAccountId != "999988887777" {
		t.Errorf("permissions %+v, %v; want the account", perms, err)
	}
	_, err = ws.DisassociateConnectionAlias(ctx, &workspaces.DisassociateConnectionAliasInput{AliasId: &id})
	e.must(err)
	if leads() {
		t.Error("after disassociation the name leads somewhere")
	}
	if _, err := ws.DisassociateConnectionAlias(ctx, &workspaces.DisassociateConnectionAliasInput{AliasId: &id}); codeOf(err) != "InvalidResourceStateException" {
		t.Errorf("disassociating again: %v, want InvalidResourceStateException", err)
	}
	if _, err := ws.DeleteConnectionAlias(ctx, &workspaces.DeleteConnectionAliasInput{AliasId: &id}); codeOf(err) != "ResourceAssociatedException" {
		t.Errorf("deleting a shared alias: %v, want ResourceAssociatedException", err)
	}
	// The other account may associate it with a directory of its own, and only it ends that.
	_, accessKey, secretKey, err := e.App.CreateAccount(ctx, "999988887777", "")
	e.must(err)
	guest := apptest.Keys(accessKey, secretKey, "")
	theirs := e.WorkSpaces(guest)
	d, err := e.DS(guest).CreateDirectory(ctx, &directoryservice.CreateDirectoryInput{Name: aws.String("guest.example.com"), Password: aws.String("Adm1n-of-the-corp"), Size: dstypes.DirectorySizeSmall})
	e.must(err)
	e.eventually("their directory can be registered", func() bool {
		_, err := theirs.RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: d.DirectoryId})
		return err == nil
	})
	if _, err := theirs.AssociateConnectionAlias(ctx, &workspaces.AssociateConnectionAliasInput{AliasId: &other, ResourceId: d.DirectoryId}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("another account associates an alias that is not shared: %v, want ResourceNotFoundException", err)
	}
	_, err = theirs.AssociateConnectionAlias(ctx, &workspaces.AssociateConnectionAliasInput{AliasId: &id, ResourceId: d.DirectoryId})
	e.must(err)
	if a := show().Associations[0]; a.AssociationStatus != "ASSOCIATED_WITH_SHARED_ACCOUNT" || *a.AssociatedAccountId != "999988887777" {
		t.Errorf("the association is %+v, want one with the shared account", a)
	}
	if leads() {
		t.Error("the name leads to the owner's directory")
	}
	if _, err := ws.DisassociateConnectionAlias(ctx, &workspaces.DisassociateConnectionAliasInput{AliasId: &id}); codeOf(err) != "OperationNotSupportedException" {
		t.Errorf("the owner ends the other account's association: %v, want OperationNotSupportedException", err)
	}
	if err := permit("999988887777", false); codeOf(err) != "ResourceAssociatedException" {
		t.Errorf("unsharing while associated: %v, want ResourceAssociatedException", err)
	}
	if _, err := theirs.DeleteConnectionAlias(ctx, &workspaces.DeleteConnectionAliasInput{AliasId: &id}); codeOf(err) != "ResourceNotFoundException" {
		t.Errorf("the other account deletes the alias: %v, want ResourceNotFoundException", err)
	}
	_, err = theirs.DisassociateConnectionAlias(ctx, &workspaces.DisassociateConnectionAliasInput{AliasId: &id})
	e.must(err)
	e.must(permit("999988887777", false))
	for _, a := range []string{id, other} {
		_, err := ws.DeleteConnectionAlias(ctx, &workspaces.DeleteConnectionAliasInput{AliasId: &a})
		e.must(err)
	}
	if left, err := ws.DescribeConnectionAliases(ctx, &workspaces.DescribeConnectionAliasesInput{}); err != nil || len(left.ConnectionAliases) != 0 {
		t.Errorf("left over: %+v, %v", left, err)
	}
}

func second[T any](_ T, err error) error { return err }
