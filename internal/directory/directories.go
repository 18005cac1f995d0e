package directory

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// directoryLimit is how many directories of a kind an account has in a region.
// Source: Directory Service Administration Guide, quotas.
const directoryLimit = 10

func (s *Service) createDirectory(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.CreateDirectoryInput) (*directoryservice.CreateDirectoryOutput, error) {
	d := &directory{Type: simpleAD, Name: deref(in.Name), ShortName: deref(in.ShortName), Description: deref(in.Description), Size: string(in.Size)}
	if in.Size != dstypes.DirectorySizeSmall && in.Size != dstypes.DirectorySizeLarge {
		return nil, invalid("Size must be Small or Large, not %q.", in.Size)
	}
	if err := s.create(tx, c, d, deref(in.Password), in.NetworkType, in.VpcSettings, in.Tags); err != nil {
		return nil, err
	}
	return &directoryservice.CreateDirectoryOutput{DirectoryId: &d.ID}, nil
}

func (s *Service) createMicrosoftAD(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.CreateMicrosoftADInput) (*directoryservice.CreateMicrosoftADOutput, error) {
	d := &directory{Type: microsoftAD, Name: deref(in.Name), ShortName: deref(in.ShortName), Description: deref(in.Description), Edition: string(in.Edition)}
	switch in.Edition {
	case "":
		d.Edition = string(dstypes.DirectoryEditionEnterprise)
	case dstypes.DirectoryEditionStandard, dstypes.DirectoryEditionEnterprise:
	default:
		return nil, invalid("Edition must be Standard or Enterprise, not %q.", in.Edition)
	}
	if err := s.create(tx, c, d, deref(in.Password), in.NetworkType, in.VpcSettings, in.Tags); err != nil {
		return nil, err
	}
	return &directoryservice.CreateMicrosoftADOutput{DirectoryId: &d.ID}, nil
}

// create stores a directory as Requested, with the password of its
// administrator; Run does the rest.
func (s *Service) create(tx *store.Tx, c *api.Call, d *directory, secret string, network dstypes.NetworkType, vpc *dstypes.DirectoryVpcSettings, tags []dstypes.Tag) error {
	if err := checkDomainName(d.Name); err != nil {
		return invalid("Invalid directory name: %v.", err)
	}
	if d.ShortName == "" {
		d.ShortName = shortNameOf(d.Name)
	}
	if err := checkShortName(d.ShortName); err != nil {
		return invalid("Invalid short name: %v.", err)
	}
	if network != "" && network != dstypes.NetworkTypeIpv4Only {
		return invalid("NetworkType %s is not supported: use %s.", network, dstypes.NetworkTypeIpv4Only)
	}
	if vpc != nil {
		if len(vpc.SubnetIds) != 2 || vpc.SubnetIds[0] == vpc.SubnetIds[1] {
			return invalid("Invalid subnet ID(s). They must correspond to two subnets in different Availability Zones.")
		}
		d.VPCID, d.SubnetIDs, d.SecurityGroup = deref(vpc.VpcId), slices.Clone(vpc.SubnetIds), ids.EC2("sg")
	}
	n := 0
	s.directories.Scan(tx, c.Account+"/"+c.Region+"/", "", func(_ string, o *directory) bool {
		if o.Type == d.Type {
			n++
		}
		return true
	})
	if n >= directoryLimit {
		return &dstypes.DirectoryLimitExceededException{Message: sprintf("Directory limit exceeded. A maximum of %d directories may be created: there are %d of type %s in %s.", directoryLimit, n, d.Type, c.Region)}
	}
	var err error
	if d.Tags, err = mergeTags(nil, tags); err != nil {
		return err
	}
	d.Account, d.Region, d.ID = c.Account, c.Region, ids.Directory()
	d.SID, d.DNSIPs, d.DataAccess = newDomainSID(), newDNSIPs(), true
	d.Stage, d.StageAt, d.Launched = string(dstypes.DirectoryStageRequested), c.Time, c.Time
	if err := checkPassword(secret, d.adminName()); err != nil {
		return invalid("Invalid password: %v.", err)
	}
	if err := s.setPassword(tx, objectKey(d, d.adminName()), secret); err != nil {
		return err
	}
	touched(c, d)
	return s.directories.Put(tx, d.key(), d)
}

// newDNSIPs draws the two addresses that a directory is known by, from the shared
// address space (RFC 6598). The embedded driver serves no DNS.
func newDNSIPs() []string {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return []string{fmt.Sprintf("100.64.%d.%d", b[0], 1+b[1]%254), fmt.Sprintf("100.65.%d.%d", b[0], 1+b[1]%254)}
}

const maxDescribed = 100

func (s *Service) describeDirectories(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeDirectoriesInput) (*directoryservice.DescribeDirectoriesOutput, error) {
	out := &directoryservice.DescribeDirectoriesOutput{DirectoryDescriptions: []dstypes.DirectoryDescription{}}
	after, ok := readToken("directories", in.NextToken)
	if !ok {
		return nil, badToken()
	}
	limit := int(deref(in.Limit))
	if limit <= 0 || limit > maxDescribed {
		limit = maxDescribed
	}
	add := func(d *directory) bool {
		if len(out.DirectoryDescriptions) == limit {
			out.NextToken = makeToken("directories", after)
			return false
		}
		after = d.ID
		out.DirectoryDescriptions = append(out.DirectoryDescriptions, s.describe(tx, d))
		return true
	}
	if len(in.DirectoryIds) > 0 {
		asked := slices.Compact(slices.Sorted(slices.Values(in.DirectoryIds)))
		for _, id := range asked {
			d, err := s.find(tx, c, id)
			if err != nil {
				return nil, err
			}
			if id > after && !add(d) {
				break
			}
		}
		return out, nil
	}
	prefix := c.Account + "/" + c.Region + "/"
	from := ""
	if after != "" {
		from = prefix + after
	}
	s.directories.Scan(tx, prefix, from, func(_ string, d *directory) bool { return add(d) })
	return out, nil
}

func (s *Service) describe(tx *store.Tx, d *directory) dstypes.DirectoryDescription {
	name := d.Alias
	if name == "" {
		name = d.ID
	}
	out := dstypes.DirectoryDescription{DirectoryId: &d.ID, Name: &d.Name, ShortName: &d.ShortName, Description: opt(d.Description), Type: dstypes.DirectoryType(d.Type),
		Alias: &name, AccessUrl: ptr(name + ".awsapps.com"), DnsIpAddrs: d.DNSIPs, LaunchTime: &d.Launched, Stage: dstypes.DirectoryStage(d.Stage),
		StageLastUpdatedDateTime: &d.StageAt, NetworkType: dstypes.NetworkTypeIpv4Only}
	switch d.Type {
	case simpleAD:
		out.Size, out.DesiredNumberOfDomainControllers = dstypes.DirectorySize(d.Size), ptr(int32(0))
	case microsoftAD:
		out.Edition = dstypes.DirectoryEdition(d.Edition)
		out.DesiredNumberOfDomainControllers = ptr(int32(controllers))
		out.RegionsInfo = &dstypes.RegionsInfo{PrimaryRegion: &d.Region}
	}
	if r := s.radiuses.Get(tx, d.key()); r != nil {
		out.RadiusSettings, out.RadiusStatus = r.describe(), dstypes.RadiusStatus(r.Status)
	}
	if d.VPCID != "" {
		out.VpcSettings = &dstypes.DirectoryVpcSettingsDescription{VpcId: &d.VPCID, SubnetIds: d.SubnetIDs, SecurityGroupId: &d.SecurityGroup,
			AvailabilityZones: s.zones(d)}
	}
	return out
}

// zones are those of the directory's subnets; a subnet that is not known counts as one
// of the region's first.
func (s *Service) zones(d *directory) []string {
	out := make([]string, len(d.SubnetIDs))
	for i, id := range d.SubnetIDs {
		if out[i] = s.cfg.Zone(d.Account, d.Region, id); out[i] == "" {
			out[i] = d.Region + string(rune('a'+i))
		}
	}
	return out
}

func (s *Service) deleteDirectory(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DeleteDirectoryInput) (*directoryservice.DeleteDirectoryOutput, error) {
	d, err := s.edit(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if s.cfg.Registered(tx, c.Account, c.Region, d.ID) {
		return nil, &dstypes.ClientException{Message: sprintf("Cannot delete the directory %s because it still has authorized applications: Amazon WorkSpaces. Deregister it with workspaces:DeregisterWorkspaceDirectory first.", d.ID)}
	}
	touched(c, d)
	if d.Stage != string(dstypes.DirectoryStageDeleting) {
		d.Stage, d.StageAt = string(dstypes.DirectoryStageDeleting), c.Time
		if err := s.directories.Put(tx, d.key(), d); err != nil {
			return nil, err
		}
	}
	return &directoryservice.DeleteDirectoryOutput{DirectoryId: &d.ID}, nil
}

func (s *Service) createAlias(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.CreateAliasInput) (*directoryservice.CreateAliasOutput, error) {
	d, err := s.edit(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if err := available(d); err != nil {
		return nil, err
	}
	name := deref(in.Alias)
	low := strings.ToLower(name)
	if name == "" || len(name) > 62 || strings.HasPrefix(low, "d-") || strings.Trim(low, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(low, "-") != low {
		return nil, invalid("Alias %q is not valid: 1 to 62 letters, digits and hyphens, not beginning with d- and neither beginning nor ending with a hyphen.", name)
	}
	if d.Alias != "" {
		return nil, invalid("The directory in the request already has an alias. That alias must be deleted before a new alias can be created. (%s)", d.Alias)
	}
	if s.aliases.Get(tx, low) != nil {
		return nil, &dstypes.EntityAlreadyExistsException{Message: sprintf("Alias '%s' already exists.", name)}
	}
	touched(c, d)
	d.Alias = name
	if err := s.aliases.Put(tx, low, &alias{Directory: d.key()}); err != nil {
		return nil, err
	}
	if err := s.directories.Put(tx, d.key(), d); err != nil {
		return nil, err
	}
	return &directoryservice.CreateAliasOutput{Alias: &d.Alias, DirectoryId: &d.ID}, nil
}

// resetUserPassword sets a user's password and, as AWS says, enables a disabled user.
func (s *Service) resetUserPassword(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.ResetUserPasswordInput) (*directoryservice.ResetUserPasswordOutput, error) {
	d, err := s.find(tx, c, deref(in.DirectoryId))
	if err != nil {
		return nil, err
	}
	if err := available(d); err != nil {
		return nil, err
	}
	key := objectKey(d, deref(in.UserName))
	o := s.objects.Edit(tx, key)
	if o == nil || o.Kind != user {
		return nil, &dstypes.UserDoesNotExistException{Message: sprintf("User %s does not exist in directory %s.", deref(in.UserName), d.ID)}
	}
	if err := checkPassword(deref(in.NewPassword), o.Name, o.displayName()); err != nil {
		return nil, &dstypes.InvalidPasswordException{Message: sprintf("The new password is not valid: %v.", err)}
	}
	if err := s.setPassword(tx, key, deref(in.NewPassword)); err != nil {
		return nil, err
	}
	touched(c, d)
	if !o.Enabled {
		o.Enabled, o.Changed = true, c.Time
		if err := s.objects.Put(tx, key, o); err != nil {
			return nil, err
		}
	}
	tx.AfterCommit(func() { s.guesses.forget(key) })
	return &directoryservice.ResetUserPasswordOutput{}, nil
}

func (s *Service) getDirectoryLimits(_ context.Context, tx *store.Tx, c *api.Call, _ *directoryservice.GetDirectoryLimitsInput) (*directoryservice.GetDirectoryLimitsOutput, error) {
	n := map[string]int32{}
	s.directories.Scan(tx, c.Account+"/"+c.Region+"/", "", func(_ string, d *directory) bool { n[d.Type]++; return true })
	return &directoryservice.GetDirectoryLimitsOutput{DirectoryLimits: &dstypes.DirectoryLimits{
		CloudOnlyDirectoriesLimit: ptr(int32(directoryLimit)), CloudOnlyDirectoriesCurrentCount: ptr(n[simpleAD]), CloudOnlyDirectoriesLimitReached: n[simpleAD] >= directoryLimit,
		CloudOnlyMicrosoftADLimit: ptr(int32(directoryLimit)), CloudOnlyMicrosoftADCurrentCount: ptr(n[microsoftAD]), CloudOnlyMicrosoftADLimitReached: n[microsoftAD] >= directoryLimit,
		// AD Connector is not served: its limit is zero and reached.
		ConnectedDirectoriesLimit: ptr(int32(0)), ConnectedDirectoriesCurrentCount: ptr(int32(0)), ConnectedDirectoriesLimitReached: true}}, nil
}

func (s *Service) enableDataAccess(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.EnableDirectoryDataAccessInput) (*directoryservice.EnableDirectoryDataAccessOutput, error) {
	return &directoryservice.EnableDirectoryDataAccessOutput{}, s.setDataAccess(tx, c, deref(in.DirectoryId), true)
}

func (s *Service) disableDataAccess(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DisableDirectoryDataAccessInput) (*directoryservice.DisableDirectoryDataAccessOutput, error) {
	return &directoryservice.DisableDirectoryDataAccessOutput{}, s.setDataAccess(tx, c, deref(in.DirectoryId), false)
}

func (s *Service) setDataAccess(tx *store.Tx, c *api.Call, id string, want bool) error {
	d, err := s.edit(tx, c, id)
	if err != nil {
		return &dstypes.DirectoryDoesNotExistException{Message: sprintf("Directory %s does not exist.", id)}
	}
	if err := available(d); err != nil {
		return err
	}
	if d.DataAccess == want {
		return &dstypes.DirectoryInDesiredStateException{Message: sprintf("Data access of directory %s is already as asked for.", d.ID)}
	}
	touched(c, d)
	d.DataAccess = want
	return s.directories.Put(tx, d.key(), d)
}

func (s *Service) describeDataAccess(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.DescribeDirectoryDataAccessInput) (*directoryservice.DescribeDirectoryDataAccessOutput, error) {
	d := s.lookup(tx, c, deref(in.DirectoryId))
	if d == nil {
		return nil, &dstypes.DirectoryDoesNotExistException{Message: sprintf("Directory %s does not exist.", deref(in.DirectoryId))}
	}
	status := dstypes.DataAccessStatusDisabled
	if d.DataAccess {
		status = dstypes.DataAccessStatusEnabled
	}
	return &directoryservice.DescribeDirectoryDataAccessOutput{DataAccessStatus: status}, nil
}
