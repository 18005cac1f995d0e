package directory_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	ds "github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"
)

// What clients read beside a directory: two domain controllers, its region, and lists
// of what it has not.
func TestBesideADirectory(t *testing.T) {
	w := open(t)
	simple := w.directory()
	out := must[ds.CreateMicrosoftADOutput](w, "ds:CreateMicrosoftAD", &ds.CreateMicrosoftADInput{Name: aws.String("ms.example.com"), Password: aws.String(goodPassword),
		VpcSettings: &dstypes.DirectoryVpcSettings{VpcId: aws.String("vpc-1"), SubnetIds: []string{"subnet-1", "subnet-2"}}})
	id := *out.DirectoryId
	w.await(id, dstypes.DirectoryStageActive)
	d := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{DirectoryIds: []string{id}}).DirectoryDescriptions[0]
	dcs := must[ds.DescribeDomainControllersOutput](w, "ds:DescribeDomainControllers", &ds.DescribeDomainControllersInput{DirectoryId: &id}).DomainControllers
	if len(dcs) != int(*d.DesiredNumberOfDomainControllers) || *dcs[0].DomainControllerId == *dcs[1].DomainControllerId || *dcs[0].DnsIpAddr == *dcs[1].DnsIpAddr || *dcs[0].SubnetId == *dcs[1].SubnetId ||
		dcs[0].Status != dstypes.DomainControllerStatusActive || *dcs[0].VpcId != "vpc-1" {
		t.Errorf("domain controllers %+v, want two, Active, in the two subnets", dcs)
	}
	first := must[ds.DescribeDomainControllersOutput](w, "ds:DescribeDomainControllers", &ds.DescribeDomainControllersInput{DirectoryId: &id, Limit: aws.Int32(1)})
	next := must[ds.DescribeDomainControllersOutput](w, "ds:DescribeDomainControllers", &ds.DescribeDomainControllersInput{DirectoryId: &id, Limit: aws.Int32(1), NextToken: first.NextToken})
	if len(first.DomainControllers) != 1 || len(next.DomainControllers) != 1 || *first.DomainControllers[0].DomainControllerId == *next.DomainControllers[0].DomainControllerId || next.NextToken != nil {
		t.Errorf("pages of one: %+v, then %+v", first, next)
	}
	refused(w, "EntityDoesNotExistException", "ds:DescribeDomainControllers", &ds.DescribeDomainControllersInput{DirectoryId: &id, DomainControllerIds: []string{"dc-0123456789"}})
	refused(w, "EntityDoesNotExistException", "ds:DescribeDomainControllers", &ds.DescribeDomainControllersInput{DirectoryId: aws.String("d-0123456789")})
	must[ds.UpdateNumberOfDomainControllersOutput](w, "ds:UpdateNumberOfDomainControllers", &ds.UpdateNumberOfDomainControllersInput{DirectoryId: &id, DesiredNumber: aws.Int32(2)})
	refused(w, "DomainControllerLimitExceededException", "ds:UpdateNumberOfDomainControllers", &ds.UpdateNumberOfDomainControllersInput{DirectoryId: &id, DesiredNumber: aws.Int32(3)})
	refused(w, "UnsupportedOperationException", "ds:UpdateNumberOfDomainControllers", &ds.UpdateNumberOfDomainControllersInput{DirectoryId: &simple, DesiredNumber: aws.Int32(2)})

	r := must[ds.DescribeRegionsOutput](w, "ds:DescribeRegions", &ds.DescribeRegionsInput{DirectoryId: &id}).RegionsDescription
	if len(r) != 1 || *r[0].RegionName != w.region || r[0].RegionType != dstypes.RegionTypePrimary || r[0].Status != dstypes.DirectoryStageActive {
		t.Errorf("regions %+v, want the primary one", r)
	}
	if r := must[ds.DescribeRegionsOutput](w, "ds:DescribeRegions", &ds.DescribeRegionsInput{DirectoryId: &id, RegionName: aws.String("eu-west-1")}).RegionsDescription; len(r) != 0 {
		t.Errorf("another region %+v, want none", r)
	}
	refused(w, "UnsupportedOperationException", "ds:DescribeRegions", &ds.DescribeRegionsInput{DirectoryId: &simple})
	refused(w, "DirectoryDoesNotExistException", "ds:DescribeRegions", &ds.DescribeRegionsInput{DirectoryId: aws.String("d-0123456789")})
	if l := must[ds.DescribeLDAPSSettingsOutput](w, "ds:DescribeLDAPSSettings", &ds.DescribeLDAPSSettingsInput{DirectoryId: &id}).LDAPSSettingsInfo; len(l) != 1 || l[0].LDAPSStatus != dstypes.LDAPSStatusDisabled {
		t.Errorf("LDAPS %+v, want Disabled", l)
	}
	if a := must[ds.DescribeClientAuthenticationSettingsOutput](w, "ds:DescribeClientAuthenticationSettings", &ds.DescribeClientAuthenticationSettingsInput{DirectoryId: &id, Type: dstypes.ClientAuthenticationTypeSmartCard}).ClientAuthenticationSettingsInfo; len(a) != 1 || a[0].Status != dstypes.ClientAuthenticationStatusDisabled {
		t.Errorf("client authentication %+v, want smart cards Disabled", a)
	}
	if n := len(must[ds.ListIpRoutesOutput](w, "ds:ListIpRoutes", &ds.ListIpRoutesInput{DirectoryId: &id}).IpRoutesInfo) +
		len(must[ds.DescribeTrustsOutput](w, "ds:DescribeTrusts", &ds.DescribeTrustsInput{}).Trusts) +
		len(must[ds.DescribeEventTopicsOutput](w, "ds:DescribeEventTopics", &ds.DescribeEventTopicsInput{DirectoryId: &id}).EventTopics) +
		len(must[ds.ListLogSubscriptionsOutput](w, "ds:ListLogSubscriptions", &ds.ListLogSubscriptionsInput{}).LogSubscriptions) +
		len(must[ds.DescribeSharedDirectoriesOutput](w, "ds:DescribeSharedDirectories", &ds.DescribeSharedDirectoriesInput{OwnerDirectoryId: &id}).SharedDirectories) +
		len(must[ds.DescribeConditionalForwardersOutput](w, "ds:DescribeConditionalForwarders", &ds.DescribeConditionalForwardersInput{DirectoryId: &id}).ConditionalForwarders) +
		len(must[ds.ListSchemaExtensionsOutput](w, "ds:ListSchemaExtensions", &ds.ListSchemaExtensionsInput{DirectoryId: &id}).SchemaExtensionsInfo) +
		len(must[ds.ListCertificatesOutput](w, "ds:ListCertificates", &ds.ListCertificatesInput{DirectoryId: &id}).CertificatesInfo) +
		len(must[ds.DescribeSettingsOutput](w, "ds:DescribeSettings", &ds.DescribeSettingsInput{DirectoryId: &id}).SettingEntries); n != 0 {
		t.Errorf("%d things are listed that cannot be", n)
	}
	refused(w, "EntityDoesNotExistException", "ds:ListIpRoutes", &ds.ListIpRoutesInput{DirectoryId: aws.String("d-0123456789")})
	refused(w, "EntityDoesNotExistException", "ds:DescribeTrusts", &ds.DescribeTrustsInput{TrustIds: []string{"t-0123456789"}})
	refused(w, "InvalidNextTokenException", "ds:ListIpRoutes", &ds.ListIpRoutesInput{DirectoryId: &id, NextToken: aws.String("bogus")})

	// What would make one of them is refused as its page says, and only to whom the directory is.
	for code, ops := range map[string]map[string]any{
		"UnsupportedOperationException": {"ds:CreateTrust": &ds.CreateTrustInput{DirectoryId: &id}, "ds:ShareDirectory": &ds.ShareDirectoryInput{DirectoryId: &id}, "ds:AddRegion": &ds.AddRegionInput{DirectoryId: &id},
			"ds:EnableLDAPS": &ds.EnableLDAPSInput{DirectoryId: &id}, "ds:RegisterCertificate": &ds.RegisterCertificateInput{DirectoryId: &id}, "ds:UpdateSettings": &ds.UpdateSettingsInput{DirectoryId: &id},
			"ds:EnableClientAuthentication": &ds.EnableClientAuthenticationInput{DirectoryId: &id}, "ds:CreateConditionalForwarder": &ds.CreateConditionalForwarderInput{DirectoryId: &id},
			"ds:CreateLogSubscription": &ds.CreateLogSubscriptionInput{DirectoryId: &id}},
		"ClientException":                 {"ds:AddIpRoutes": &ds.AddIpRoutesInput{DirectoryId: &id}, "ds:RegisterEventTopic": &ds.RegisterEventTopicInput{DirectoryId: &id}, "ds:StartSchemaExtension": &ds.StartSchemaExtensionInput{DirectoryId: &id}},
		"DirectoryLimitExceededException": {"ds:ConnectDirectory": &ds.ConnectDirectoryInput{Name: aws.String("corp.example.com")}},
		"EntityDoesNotExistException":     {"ds:CreateTrust": &ds.CreateTrustInput{DirectoryId: aws.String("d-0123456789")}},
	} {
		for op, in := range ops {
			refused(w, code, op, in)
		}
	}

	if err := refused(w, "ClientException", "ds:EnableSso", &ds.EnableSsoInput{DirectoryId: &simple}); err != nil && !strings.Contains(err.Error(), "An alias is required before enabling SSO. DomainId="+simple) {
		t.Errorf("EnableSso without an alias: %v", err)
	}
	must[ds.CreateAliasOutput](w, "ds:CreateAlias", &ds.CreateAliasInput{DirectoryId: &simple, Alias: aws.String("office")})
	refused(w, "ClientException", "ds:EnableSso", &ds.EnableSsoInput{DirectoryId: &simple})
	must[ds.DisableSsoOutput](w, "ds:DisableSso", &ds.DisableSsoInput{DirectoryId: &simple})
	if d := must[ds.DescribeDirectoriesOutput](w, "ds:DescribeDirectories", &ds.DescribeDirectoriesInput{DirectoryIds: []string{simple}}).DirectoryDescriptions[0]; d.SsoEnabled {
		t.Error("SsoEnabled is true")
	}
}
