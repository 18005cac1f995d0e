package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// What clients read of a directory beside the directory itself. The driver is embedded:
// there are no trusts, routes, certificates, topics, shares, forwarders or log
// subscriptions, and no operation makes any, so their lists are empty; what is named is
// not found.

func (s *Service) absentOperations() []api.Operation {
	const ds = "ds"
	return []api.Operation{
		api.NewView(ds, "DescribeDomainControllers", s.describeControllers, on(s, func(in *directoryservice.DescribeDomainControllersInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "UpdateNumberOfDomainControllers", s.updateControllers, on(s, func(in *directoryservice.UpdateNumberOfDomainControllersInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeRegions", s.describeRegions, onExisting(s, func(in *directoryservice.DescribeRegionsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeLDAPSSettings", s.describeLDAPS, onExisting(s, func(in *directoryservice.DescribeLDAPSSettingsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeClientAuthenticationSettings", s.describeClientAuthentication,
			onExisting(s, func(in *directoryservice.DescribeClientAuthenticationSettingsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeSettings", s.describeSettings, onExisting(s, func(in *directoryservice.DescribeSettingsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "ListCertificates", s.listCertificates, onExisting(s, func(in *directoryservice.ListCertificatesInput) *string { return in.DirectoryId })),
		api.NewView(ds, "ListIpRoutes", s.listRoutes, on(s, func(in *directoryservice.ListIpRoutesInput) *string { return in.DirectoryId })),
		api.NewView(ds, "ListSchemaExtensions", s.listSchemaExtensions, on(s, func(in *directoryservice.ListSchemaExtensionsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeSharedDirectories", s.describeShares, on(s, func(in *directoryservice.DescribeSharedDirectoriesInput) *string { return in.OwnerDirectoryId })),
		api.NewView(ds, "DescribeConditionalForwarders", s.describeForwarders, on(s, func(in *directoryservice.DescribeConditionalForwardersInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeTrusts", s.describeTrusts, onMaybe(s, func(in *directoryservice.DescribeTrustsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "DescribeEventTopics", s.describeTopics, onMaybe(s, func(in *directoryservice.DescribeEventTopicsInput) *string { return in.DirectoryId })),
		api.NewView(ds, "ListLogSubscriptions", s.listLogSubscriptions, onMaybe(s, func(in *directoryservice.ListLogSubscriptionsInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "EnableSso", s.enableSSO, api.Sensitive("Password"), on(s, func(in *directoryservice.EnableSsoInput) *string { return in.DirectoryId })),
		api.NewUpdate(ds, "DisableSso", s.disableSSO, api.Sensitive("Password"), on(s, func(in *directoryservice.DisableSsoInput) *string { return in.DirectoryId })),
	}
}

// onMaybe is on for an operation that need not name a directory.
func onMaybe[In any](s *Service, id func(*In) *string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		if id(in) == nil {
			return []api.Target{{ARN: "*"}}, nil
		}
		d, err := s.find(tx, c, deref(id(in)))
		if err != nil {
			return nil, err
		}
		return []api.Target{d.target()}, nil
	})
}

// controllers of a directory, as AWS runs them: one for each of its addresses.
const controllers = 2

func (s *Service) controllersOf(d *directory) []dstypes.DomainController {
	out, zones := []dstypes.DomainController{}, s.zones(d)
	for i, ip := range d.DNSIPs {
		h := sha256.Sum256([]byte("domain controller\x00" + d.ID + "\x00" + ip))
		dc := dstypes.DomainController{DirectoryId: &d.ID, DomainControllerId: ptr("dc-" + hex.EncodeToString(h[:5])), DnsIpAddr: &d.DNSIPs[i], LaunchTime: &d.Launched,
			Status: dstypes.DomainControllerStatusActive, StatusLastUpdatedDateTime: &d.StageAt}
		switch dstypes.DirectoryStage(d.Stage) {
		case dstypes.DirectoryStageActive:
		case dstypes.DirectoryStageDeleting:
			dc.Status = dstypes.DomainControllerStatusDeleting
		case dstypes.DirectoryStageRestoring:
			dc.Status = dstypes.DomainControllerStatusRestoring
		default:
			dc.Status = dstypes.DomainControllerStatusCreating
		}
		if d.VPCID != "" && i < len(d.SubnetIDs) {
			dc.VpcId, dc.SubnetId, dc.AvailabilityZone = &d.VPCID, &d.SubnetIDs[i], &zones[i]
		}
		out = append(out, dc)
	}
	slices.SortFunc(out, func(a, b dstypes.DomainController) int {
		return strings.Compare(*a.DomainControllerId, *b.DomainControllerId)
	})
	return out
}

func (s *Service) describeControllers(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeDomainControllersInput) (*directoryservice.DescribeDomainControllersOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	what := "controllers " + d.ID
	after, ok := readToken(what, in.NextToken)
	if !ok {
		return nil, badToken()
	}
	out := &directoryservice.DescribeDomainControllersOutput{DomainControllers: []dstypes.DomainController{}}
	all := s.controllersOf(d)
	for _, id := range in.DomainControllerIds {
		if !slices.ContainsFunc(all, func(dc dstypes.DomainController) bool { return *dc.DomainControllerId == id }) {
			return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("Domain controller %s does not exist in directory %s.", id, d.ID)}
		}
	}
	for _, dc := range all {
		id := *dc.DomainControllerId
		if id <= after || len(in.DomainControllerIds) > 0 && !slices.Contains(in.DomainControllerIds, id) {
			continue
		}
		if n := len(out.DomainControllers); deref(in.Limit) > 0 && n == int(*in.Limit) {
			out.NextToken = makeToken(what, *out.DomainControllers[n-1].DomainControllerId)
			break
		}
		out.DomainControllers = append(out.DomainControllers, dc)
	}
	return out, nil
}

// updateControllers accepts the number there is.
func (s *Service) updateControllers(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.UpdateNumberOfDomainControllersInput) (*directoryservice.UpdateNumberOfDomainControllersOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if d.Type != microsoftAD {
		return nil, unsupported(d)
	}
	if err := available(d); err != nil {
		return nil, err
	}
	if n := deref(in.DesiredNumber); n > controllers {
		return nil, &dstypes.DomainControllerLimitExceededException{Message: sprintf("Directory %s has %d domain controllers and cannot have %d: the directory is served by this host.", d.ID, controllers, n)}
	}
	return &directoryservice.UpdateNumberOfDomainControllersOutput{}, nil
}

func unsupported(d *directory) error {
	return &dstypes.UnsupportedOperationException{Message: sprintf("The operation is not supported for directory %s of type %s.", d.ID, d.Type)}
}

func badToken() error {
	return &dstypes.InvalidNextTokenException{Message: ptr("Invalid value passed for the NextToken parameter: use the one that the previous page returned.")}
}

// onePage refuses the token of a list that has one page.
func onePage(token *string) error {
	if deref(token) == "" {
		return nil
	}
	return badToken()
}

// microsoft finds a Microsoft AD; some operations know no other type.
func (s *Service) microsoft(tx *store.Tx, c *api.Call, id, token *string) (*directory, error) {
	d := s.lookup(tx, c, deref(id))
	switch {
	case d == nil:
		return nil, &dstypes.DirectoryDoesNotExistException{Message: sprintf("Directory %s does not exist.", deref(id))}
	case d.Type != microsoftAD:
		return nil, unsupported(d)
	}
	return d, onePage(token)
}

func (s *Service) describeRegions(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeRegionsInput) (*directoryservice.DescribeRegionsOutput, error) {
	d, err := s.microsoft(tx, c, in.DirectoryId, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &directoryservice.DescribeRegionsOutput{RegionsDescription: []dstypes.RegionDescription{}}
	if in.RegionName != nil && *in.RegionName != d.Region {
		return out, nil
	}
	r := dstypes.RegionDescription{DirectoryId: &d.ID, RegionName: &d.Region, RegionType: dstypes.RegionTypePrimary, Status: dstypes.DirectoryStage(d.Stage),
		DesiredNumberOfDomainControllers: ptr(int32(controllers)), LaunchTime: &d.Launched, LastUpdatedDateTime: &d.StageAt, StatusLastUpdatedDateTime: &d.StageAt}
	if d.VPCID != "" {
		r.VpcSettings = &dstypes.DirectoryVpcSettings{VpcId: &d.VPCID, SubnetIds: d.SubnetIDs}
	}
	out.RegionsDescription = append(out.RegionsDescription, r)
	return out, nil
}

func (s *Service) describeLDAPS(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeLDAPSSettingsInput) (*directoryservice.DescribeLDAPSSettingsOutput, error) {
	_ = in.Limit
	d, err := s.microsoft(tx, c, in.DirectoryId, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &directoryservice.DescribeLDAPSSettingsOutput{LDAPSSettingsInfo: []dstypes.LDAPSSettingInfo{{LDAPSStatus: dstypes.LDAPSStatusDisabled, LastUpdatedDateTime: &d.Launched}}}, nil
}

func (s *Service) describeClientAuthentication(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeClientAuthenticationSettingsInput) (*directoryservice.DescribeClientAuthenticationSettingsOutput, error) {
	_ = in.Limit
	d, err := s.microsoft(tx, c, in.DirectoryId, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &directoryservice.DescribeClientAuthenticationSettingsOutput{ClientAuthenticationSettingsInfo: []dstypes.ClientAuthenticationSettingInfo{}}
	for _, t := range []dstypes.ClientAuthenticationType{dstypes.ClientAuthenticationTypeSmartCard, dstypes.ClientAuthenticationTypeSmartCardOrPassword} {
		if in.Type == "" || in.Type == t {
			out.ClientAuthenticationSettingsInfo = append(out.ClientAuthenticationSettingsInfo, dstypes.ClientAuthenticationSettingInfo{Type: t,
				Status: dstypes.ClientAuthenticationStatusDisabled, LastUpdatedDateTime: &d.Launched})
		}
	}
	return out, nil
}

func (s *Service) describeSettings(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeSettingsInput) (*directoryservice.DescribeSettingsOutput, error) {
	_ = in.Status
	d, err := s.microsoft(tx, c, in.DirectoryId, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &directoryservice.DescribeSettingsOutput{DirectoryId: &d.ID, SettingEntries: []dstypes.SettingEntry{}}, nil
}

func (s *Service) listCertificates(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.ListCertificatesInput) (*directoryservice.ListCertificatesOutput, error) {
	_ = in.Limit
	_, err := s.microsoft(tx, c, in.DirectoryId, in.NextToken)
	return &directoryservice.ListCertificatesOutput{CertificatesInfo: []dstypes.CertificateInfo{}}, err
}

func (s *Service) listRoutes(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.ListIpRoutesInput) (*directoryservice.ListIpRoutesOutput, error) {
	_, _ = in.DirectoryId, in.Limit
	return &directoryservice.ListIpRoutesOutput{IpRoutesInfo: []dstypes.IpRouteInfo{}}, onePage(in.NextToken)
}

func (s *Service) listSchemaExtensions(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.ListSchemaExtensionsInput) (*directoryservice.ListSchemaExtensionsOutput, error) {
	_, _ = in.DirectoryId, in.Limit
	return &directoryservice.ListSchemaExtensionsOutput{SchemaExtensionsInfo: []dstypes.SchemaExtensionInfo{}}, onePage(in.NextToken)
}

func (s *Service) describeShares(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.DescribeSharedDirectoriesInput) (*directoryservice.DescribeSharedDirectoriesOutput, error) {
	_, _ = in.OwnerDirectoryId, in.Limit
	for _, id := range in.SharedDirectoryIds {
		return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("Shared directory %s does not exist.", id)}
	}
	return &directoryservice.DescribeSharedDirectoriesOutput{SharedDirectories: []dstypes.SharedDirectory{}}, onePage(in.NextToken)
}

func (s *Service) describeForwarders(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.DescribeConditionalForwardersInput) (*directoryservice.DescribeConditionalForwardersOutput, error) {
	_ = in.DirectoryId
	for _, n := range in.RemoteDomainNames {
		return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("There is no conditional forwarder for %s.", n)}
	}
	return &directoryservice.DescribeConditionalForwardersOutput{ConditionalForwarders: []dstypes.ConditionalForwarder{}}, nil
}

func (s *Service) describeTrusts(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.DescribeTrustsInput) (*directoryservice.DescribeTrustsOutput, error) {
	_, _ = in.DirectoryId, in.Limit
	for _, id := range in.TrustIds {
		return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("Trust %s does not exist.", id)}
	}
	return &directoryservice.DescribeTrustsOutput{Trusts: []dstypes.Trust{}}, onePage(in.NextToken)
}

func (s *Service) describeTopics(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.DescribeEventTopicsInput) (*directoryservice.DescribeEventTopicsOutput, error) {
	_ = in.DirectoryId
	for _, n := range in.TopicNames {
		return nil, &dstypes.EntityDoesNotExistException{Message: sprintf("There is no topic %s of the directory.", n)}
	}
	return &directoryservice.DescribeEventTopicsOutput{EventTopics: []dstypes.EventTopic{}}, nil
}

func (s *Service) listLogSubscriptions(_ context.Context, _ *store.Tx, _ *api.Call, in *directoryservice.ListLogSubscriptionsInput) (*directoryservice.ListLogSubscriptionsOutput, error) {
	_, _ = in.DirectoryId, in.Limit
	return &directoryservice.ListLogSubscriptionsOutput{LogSubscriptions: []dstypes.LogSubscription{}}, onePage(in.NextToken)
}

// enableSSO is refused: single sign-on rests on Kerberos, which the embedded driver
// does not speak, and saying that it is on would be false.
func (s *Service) enableSSO(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.EnableSsoInput) (*directoryservice.EnableSsoOutput, error) {
	_, _ = in.UserName, in.Password
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if d.Alias == "" {
		return nil, &dstypes.ClientException{Message: sprintf("An alias is required before enabling SSO. DomainId=%s", d.ID)}
	}
	return nil, &dstypes.ClientException{Message: sprintf("Single sign-on cannot be enabled for directory %s: it needs Kerberos, which the directory does not serve.", d.ID)}
}

// disableSSO leaves single sign-on off.
func (s *Service) disableSSO(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DisableSsoInput) (*directoryservice.DisableSsoOutput, error) {
	_, _ = in.UserName, in.Password
	_, err := s.find(tx, c, deref(in.DirectoryId))
	return &directoryservice.DisableSsoOutput{}, err
}
