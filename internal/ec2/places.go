package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) placeOperations() []api.Operation {
	return []api.Operation{
		view("DescribeAvailabilityZones", s.describeZones),
		view("DescribeRegions", s.describeRegions),
		view("DescribeInstances", s.describeInstances),
		view("DescribeInstanceStatus", s.describeInstanceStatus),
		view("DescribeVpcs", s.describeVpcs),
		view("DescribeVpcAttribute", s.describeVpcAttribute),
		view("DescribeRouteTables", s.describeRouteTables),
		view("DescribeSubnets", s.describeSubnets),
		view("DescribeSecurityGroups", s.describeSecurityGroups),
		view("DescribeAccountAttributes", s.describeAccountAttributes),
	}
}

// zonesOf are the zones of a region, hostZone the one that the host is in.
func zonesOf(region string) []string { return []string{region + "a", region + "b", region + "c"} }
func hostZone(region string) string  { return region + "a" }

// zoneID is the zone's ID: "usw2-az1" for us-west-2a.
func zoneID(zone string) string {
	n := int(zone[len(zone)-1]-'a') + 1
	parts := strings.Split(zone[:len(zone)-1], "-")
	short := map[string]string{"north": "n", "south": "s", "east": "e", "west": "w", "central": "c",
		"northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw"}
	var b strings.Builder
	for _, p := range parts {
		if s, ok := short[p]; ok {
			p = s
		}
		b.WriteString(p)
	}
	return b.String() + "-az" + string(rune('0'+n))
}

// regions that DescribeRegions shows, besides the one called: those of AWS that
// need no opt-in. Any region name works; its resources appear when it is used.
var regions = []string{"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1",
	"eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2"}

var zoneFilters = fields[*types.AvailabilityZone]{of: map[string]func(*types.AvailabilityZone) []string{
	"group-name":    func(z *types.AvailabilityZone) []string { return one(*z.GroupName) },
	"opt-in-status": func(z *types.AvailabilityZone) []string { return one(string(z.OptInStatus)) },
	"region-name":   func(z *types.AvailabilityZone) []string { return one(*z.RegionName) },
	"state":         func(z *types.AvailabilityZone) []string { return one(string(z.State)) },
	"zone-id":       func(z *types.AvailabilityZone) []string { return one(*z.ZoneId) },
	"zone-name":     func(z *types.AvailabilityZone) []string { return one(*z.ZoneName) },
	"zone-type":     func(z *types.AvailabilityZone) []string { return one(*z.ZoneType) },
}, absent: []string{"group-long-name", "message", "parent-zone-id", "parent-zone-name"}}

func (s *Service) describeZones(_ context.Context, _ *store.Tx, c *api.Call, in *ec2.DescribeAvailabilityZonesInput) (*ec2.DescribeAvailabilityZonesOutput, error) {
	match, err := zoneFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_ = in.AllAvailabilityZones // every zone is enabled
	for _, n := range in.ZoneNames {
		if !slices.Contains(zonesOf(c.Region), n) {
			return nil, fail("InvalidParameterValue", "Invalid availability zone: [%s]", n)
		}
	}
	for _, n := range in.ZoneIds {
		if !slices.ContainsFunc(zonesOf(c.Region), func(z string) bool { return zoneID(z) == n }) {
			return nil, fail("InvalidParameterValue", "Invalid availability zone-id: [%s]", n)
		}
	}
	out := &ec2.DescribeAvailabilityZonesOutput{AvailabilityZones: []types.AvailabilityZone{}}
	for _, z := range zonesOf(c.Region) {
		if len(in.ZoneNames) > 0 && !slices.Contains(in.ZoneNames, z) || len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneIds, zoneID(z)) {
			continue
		}
		d := types.AvailabilityZone{ZoneName: aws.String(z), ZoneId: aws.String(zoneID(z)), RegionName: aws.String(c.Region), State: types.AvailabilityZoneStateAvailable,
			ZoneType: aws.String("availability-zone"), GroupName: aws.String(c.Region), NetworkBorderGroup: aws.String(c.Region),
			OptInStatus: types.AvailabilityZoneOptInStatusOptInNotRequired, Messages: []types.AvailabilityZoneMessage{}}
		if match(&d) {
			out.AvailabilityZones = append(out.AvailabilityZones, d)
		}
	}
	return out, nil
}

var regionFilters = fields[*types.Region]{of: map[string]func(*types.Region) []string{
	"endpoint":      func(r *types.Region) []string { return one(*r.Endpoint) },
	"opt-in-status": func(r *types.Region) []string { return one(*r.OptInStatus) },
	"region-name":   func(r *types.Region) []string { return one(*r.RegionName) },
}}

func (s *Service) describeRegions(_ context.Context, _ *store.Tx, c *api.Call, in *ec2.DescribeRegionsInput) (*ec2.DescribeRegionsOutput, error) {
	match, err := regionFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_ = in.AllRegions // no region needs an opt-in
	all := slices.Clone(regions)
	if !slices.Contains(all, c.Region) {
		all = append(all, c.Region)
		slices.Sort(all)
	}
	for _, n := range in.RegionNames {
		if !slices.Contains(all, n) {
			return nil, fail("InvalidParameterValue", "Invalid region: [%s]", n)
		}
	}
	out := &ec2.DescribeRegionsOutput{Regions: []types.Region{}}
	for _, r := range all {
		if len(in.RegionNames) > 0 && !slices.Contains(in.RegionNames, r) {
			continue
		}
		d := types.Region{RegionName: aws.String(r), Endpoint: aws.String("ec2." + r + ".amazonaws.com"), OptInStatus: aws.String("opt-in-not-required")}
		if match(&d) {
			out.Regions = append(out.Regions, d)
		}
	}
	return out, nil
}

// thisHost is the identity of this host, made and stored when it is first asked for.
func (s *Service) thisHost(ctx context.Context) (*host, error) {
	s.hostMu.Lock()
	defer s.hostMu.Unlock()
	if s.hostID != nil {
		return s.hostID, nil
	}
	var h *host
	err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if h = s.hosts.Get(tx, s.cfg.Host); h != nil {
			return nil
		}
		h = &host{Seed: ids.UUID(), Since: s.now()}
		return s.hosts.Put(tx, s.cfg.Host, h)
	})
	if err != nil {
		return nil, err
	}
	s.hostID = h
	return h, nil
}

// placeID is the ID of a thing that every account has in every region: derived,
// so that it is the same whenever it is asked for.
func placeID(prefix, seed, account, region, what string) string {
	h := sha256.Sum256([]byte("sealdesk place\x00" + seed + "\x00" + account + "\x00" + region + "\x00" + what))
	return prefix + "-0" + hex.EncodeToString(h[:8])
}

func instanceID(h *host, c *api.Call) string {
	return placeID("i", h.Seed, c.Account, c.Region, "host")
}
func vpcID(c *api.Call) string { return placeID("vpc", "", c.Account, c.Region, "default") }
func subnetID(c *api.Call, zone string) string {
	return placeID("subnet", "", c.Account, c.Region, zone)
}

// SubnetZone is the zone of one of the account's subnets, "" when there is no such subnet.
func SubnetZone(account, region, subnet string) string {
	c := &api.Call{Account: account, Region: region}
	for _, z := range zonesOf(region) {
		if subnetID(c, z) == subnet {
			return z
		}
	}
	return ""
}

func groupID(c *api.Call) string { return placeID("sg", "", c.Account, c.Region, "default") }

// isPlace tells whether the ID is an instance, VPC, subnet or security group of the caller's.
func (s *Service) isPlace(c *api.Call, id string) bool {
	if h, err := s.thisHost(context.Background()); err == nil && id == instanceID(h, c) {
		return true
	}
	if id == vpcID(c) || id == groupID(c) {
		return true
	}
	return slices.ContainsFunc(zonesOf(c.Region), func(z string) bool { return id == subnetID(c, z) })
}

// checkInstance refuses an instance that is not this host.
func (s *Service) checkInstance(c *api.Call, h *host, id string) error {
	if err := checkID("i", "instanceId", id); err != nil {
		return err
	}
	if id != instanceID(h, c) {
		return fail("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist. Volumes are attached to this host, which is instance %s here (see DescribeInstances).", id, instanceID(h, c))
	}
	return nil
}

func (s *Service) onInstance(tx *store.Tx, c *api.Call, id string) api.Target {
	if workspaceMachine.MatchString(id) {
		return api.Target{ARN: "arn:aws:workspaces:" + c.Region + ":" + c.Account + ":workspace/" + id}
	}
	t := api.Target{ARN: arnOf(c.Account, c.Region, "instance", id), Keys: map[string][]string{"ec2:Region": {c.Region}, "ec2:InstanceID": {id}}}
	if tags := s.tags.Get(tx, key(c.Account, c.Region, id)); tags != nil {
		resourceTagKeys(t.Keys, tags.Tags)
	}
	return t
}

func (s *Service) placeTags(tx *store.Tx, c *api.Call, id string) []types.Tag {
	if t := s.tags.Get(tx, key(c.Account, c.Region, id)); t != nil {
		return tagList(t.Tags)
	}
	return nil
}

// eachDisk makes a filter value of every volume attached to an instance.
func eachDisk(f func(m *types.InstanceBlockDeviceMapping) string) func(*types.Instance) []string {
	return func(i *types.Instance) []string {
		var out []string
		for n := range i.BlockDeviceMappings {
			out = append(out, f(&i.BlockDeviceMappings[n]))
		}
		return out
	}
}

var instanceFilters = fields[*types.Instance]{
	of: map[string]func(*types.Instance) []string{
		"availability-zone":                func(i *types.Instance) []string { return one(*i.Placement.AvailabilityZone) },
		"availability-zone-id":             func(i *types.Instance) []string { return one(*i.Placement.AvailabilityZoneId) },
		"block-device-mapping.attach-time": eachDisk(func(m *types.InstanceBlockDeviceMapping) string { return timeText(m.Ebs.AttachTime) }),
		"block-device-mapping.delete-on-termination": eachDisk(func(m *types.InstanceBlockDeviceMapping) string {
			return flag(aws.ToBool(m.Ebs.DeleteOnTermination))[0]
		}),
		"block-device-mapping.device-name": eachDisk(func(m *types.InstanceBlockDeviceMapping) string { return *m.DeviceName }),
		"block-device-mapping.status":      eachDisk(func(m *types.InstanceBlockDeviceMapping) string { return string(m.Ebs.Status) }),
		"block-device-mapping.volume-id":   eachDisk(func(m *types.InstanceBlockDeviceMapping) string { return *m.Ebs.VolumeId }),
		"ebs-optimized":                    func(i *types.Instance) []string { return flag(aws.ToBool(i.EbsOptimized)) },
		"instance.group-id":                func(i *types.Instance) []string { return one(*i.SecurityGroups[0].GroupId) },
		"instance.group-name":              func(i *types.Instance) []string { return one(*i.SecurityGroups[0].GroupName) },
		"instance-id":                      func(i *types.Instance) []string { return one(*i.InstanceId) },
		"instance-state-name":              func(i *types.Instance) []string { return one(string(i.State.Name)) },
		"instance-state-code":              func(*types.Instance) []string { return one("16") },
		"instance-type":                    func(i *types.Instance) []string { return one(string(i.InstanceType)) },
		"launch-time":                      func(i *types.Instance) []string { return one(timeText(i.LaunchTime)) },
		"operator.managed":                 func(*types.Instance) []string { return flag(false) },
		"root-device-type":                 func(i *types.Instance) []string { return one(string(i.RootDeviceType)) },
		"subnet-id":                        func(i *types.Instance) []string { return one(*i.SubnetId) },
		"tenancy":                          func(i *types.Instance) []string { return one(string(i.Placement.Tenancy)) },
		"vpc-id":                           func(i *types.Instance) []string { return one(*i.VpcId) },
	},
	absent: instanceAbsent,
	tags:   func(i *types.Instance) map[string]string { return tagMap(i.Tags) },
}

// describeInstances shows the host as the one instance of the account and region,
// with the volumes attached to it. There is nothing to be said of type or image.
func (s *Service) describeInstances(ctx context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	if _, err := pageOf("DescribeInstances", in.MaxResults, in.NextToken, 5, 1000, "instancesSet", in.InstanceIds); err != nil {
		return nil, err
	}
	_ = in.IncludeManagedResources // desktops are WorkSpaces', not instances
	h, err := s.thisHost(ctx)
	if err != nil {
		return nil, err
	}
	reservation, filters := placeID("r", h.Seed, c.Account, c.Region, "host"), instanceFilters
	filters.of = maps.Clone(filters.of)
	filters.of["owner-id"] = func(*types.Instance) []string { return one(c.Account) }
	filters.of["reservation-id"] = func(*types.Instance) []string { return one(reservation) }
	match, err := filters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, id := range in.InstanceIds {
		if err := s.checkInstance(c, h, id); err != nil {
			return nil, err
		}
	}
	id := instanceID(h, c)
	inst := types.Instance{InstanceId: aws.String(id), LaunchTime: aws.Time(h.Since), State: &types.InstanceState{Code: aws.Int32(16), Name: types.InstanceStateNameRunning},
		Placement: &types.Placement{AvailabilityZone: aws.String(hostZone(c.Region)), AvailabilityZoneId: aws.String(zoneID(hostZone(c.Region))), Tenancy: types.TenancyHost},
		VpcId:     aws.String(vpcID(c)), SubnetId: aws.String(subnetID(c, hostZone(c.Region))), Tags: s.placeTags(tx, c, id), EbsOptimized: aws.Bool(true),
		RootDeviceType: types.DeviceTypeInstanceStore, SecurityGroups: []types.GroupIdentifier{{GroupId: aws.String(groupID(c)), GroupName: aws.String("default")}},
		BlockDeviceMappings: []types.InstanceBlockDeviceMapping{}}
	s.volumes.Scan(tx, key(c.Account, c.Region, ""), "", func(_ string, v *volume) bool {
		if a := v.Attachment; a != nil && a.Instance == id {
			inst.BlockDeviceMappings = append(inst.BlockDeviceMappings, types.InstanceBlockDeviceMapping{DeviceName: aws.String(a.Device),
				Ebs: &types.EbsInstanceBlockDevice{VolumeId: aws.String(v.ID), AttachTime: aws.Time(a.Since), Status: types.AttachmentStatus(a.State), DeleteOnTermination: aws.Bool(a.DeleteOnTermination)}})
		}
		return true
	})
	out := &ec2.DescribeInstancesOutput{Reservations: []types.Reservation{}}
	if match(&inst) {
		out.Reservations = append(out.Reservations, types.Reservation{OwnerId: aws.String(c.Account), ReservationId: aws.String(reservation),
			Groups: []types.GroupIdentifier{}, Instances: []types.Instance{inst}})
	}
	return out, nil
}

var instanceStatusFilters = fields[*types.InstanceStatus]{of: map[string]func(*types.InstanceStatus) []string{
	"availability-zone":      func(i *types.InstanceStatus) []string { return one(*i.AvailabilityZone) },
	"instance-state-name":    func(i *types.InstanceStatus) []string { return one(string(i.InstanceState.Name)) },
	"instance-status.status": func(i *types.InstanceStatus) []string { return one(string(i.InstanceStatus.Status)) },
	"system-status.status":   func(i *types.InstanceStatus) []string { return one(string(i.SystemStatus.Status)) },

	"availability-zone-id":         func(i *types.InstanceStatus) []string { return one(*i.AvailabilityZoneId) },
	"instance-state-code":          func(*types.InstanceStatus) []string { return one("16") },
	"instance-status.reachability": func(i *types.InstanceStatus) []string { return one(string(i.InstanceStatus.Details[0].Status)) },
	"system-status.reachability":   func(i *types.InstanceStatus) []string { return one(string(i.SystemStatus.Details[0].Status)) },
	"operator.managed":             func(*types.InstanceStatus) []string { return flag(false) },
}, absent: []string{"attached-ebs-status.status", "event.code", "event.description", "event.instance-event-id", "event.not-after", "event.not-before", "event.not-before-deadline", "operator.principal"}}

func (s *Service) describeInstanceStatus(ctx context.Context, _ *store.Tx, c *api.Call, in *ec2.DescribeInstanceStatusInput) (*ec2.DescribeInstanceStatusOutput, error) {
	if _, err := pageOf("DescribeInstanceStatus", in.MaxResults, in.NextToken, 5, 1000, "instancesSet", in.InstanceIds); err != nil {
		return nil, err
	}
	match, err := instanceStatusFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	_, _ = in.IncludeAllInstances, in.IncludeManagedResources // there is one, and it runs
	h, err := s.thisHost(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range in.InstanceIds {
		if err := s.checkInstance(c, h, id); err != nil {
			return nil, err
		}
	}
	ok := &types.InstanceStatusSummary{Status: types.SummaryStatusOk, Details: []types.InstanceStatusDetails{{Name: types.StatusNameReachability, Status: types.StatusTypePassed}}}
	d := types.InstanceStatus{InstanceId: aws.String(instanceID(h, c)), AvailabilityZone: aws.String(hostZone(c.Region)), AvailabilityZoneId: aws.String(zoneID(hostZone(c.Region))),
		InstanceState: &types.InstanceState{Code: aws.Int32(16), Name: types.InstanceStateNameRunning}, InstanceStatus: ok, SystemStatus: ok}
	out := &ec2.DescribeInstanceStatusOutput{InstanceStatuses: []types.InstanceStatus{}}
	if match(&d) {
		out.InstanceStatuses = append(out.InstanceStatuses, d)
	}
	return out, nil
}

var vpcFilters = fields[*types.Vpc]{
	of: map[string]func(*types.Vpc) []string{
		"cidr":            func(v *types.Vpc) []string { return one(*v.CidrBlock) },
		"is-default":      func(*types.Vpc) []string { return flag(true) },
		"isDefault":       func(*types.Vpc) []string { return flag(true) },
		"owner-id":        func(v *types.Vpc) []string { return one(*v.OwnerId) },
		"state":           func(v *types.Vpc) []string { return one(string(v.State)) },
		"vpc-id":          func(v *types.Vpc) []string { return one(*v.VpcId) },
		"dhcp-options-id": func(v *types.Vpc) []string { return one(aws.ToString(v.DhcpOptionsId)) },

		"cidr-block-association.association-id": func(v *types.Vpc) []string { return one(*v.CidrBlockAssociationSet[0].AssociationId) },
		"cidr-block-association.cidr-block":     func(v *types.Vpc) []string { return one(*v.CidrBlockAssociationSet[0].CidrBlock) },
		"cidr-block-association.state":          func(v *types.Vpc) []string { return one(string(v.CidrBlockAssociationSet[0].CidrBlockState.State)) },
	},
	absent: ipv6Absent,
	tags:   func(v *types.Vpc) map[string]string { return tagMap(v.Tags) },
}

const vpcBlock = "172.31.0.0/16"

// describeVpcs shows the default VPC: a record that clients can name when they
// register a directory. Nothing is routed through it.
func (s *Service) describeVpcs(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeVpcsInput) (*ec2.DescribeVpcsOutput, error) {
	if _, err := pageOf("DescribeVpcs", in.MaxResults, in.NextToken, 5, 1000, "vpcIds", in.VpcIds); err != nil {
		return nil, err
	}
	match, err := vpcFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, id := range in.VpcIds {
		if id != vpcID(c) {
			return nil, fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
		}
	}
	v := types.Vpc{VpcId: aws.String(vpcID(c)), CidrBlock: aws.String(vpcBlock), IsDefault: aws.Bool(true), OwnerId: aws.String(c.Account), State: types.VpcStateAvailable,
		InstanceTenancy: types.TenancyDefault, Tags: s.placeTags(tx, c, vpcID(c)), DhcpOptionsId: aws.String("default"),
		CidrBlockAssociationSet: []types.VpcCidrBlockAssociation{{AssociationId: aws.String(placeID("vpc-cidr-assoc", "", c.Account, c.Region, "default")), CidrBlock: aws.String(vpcBlock),
			CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated}}}}
	out := &ec2.DescribeVpcsOutput{Vpcs: []types.Vpc{}}
	if match(&v) {
		out.Vpcs = append(out.Vpcs, v)
	}
	return out, nil
}

// describeVpcAttribute: names are not resolved in the VPC, nor are addresses counted.
func (s *Service) describeVpcAttribute(_ context.Context, _ *store.Tx, c *api.Call, in *ec2.DescribeVpcAttributeInput) (*ec2.DescribeVpcAttributeOutput, error) {
	id, no := aws.ToString(in.VpcId), &types.AttributeBooleanValue{Value: aws.Bool(false)}
	if id != vpcID(c) {
		return nil, fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
	}
	out := &ec2.DescribeVpcAttributeOutput{VpcId: &id}
	switch in.Attribute {
	case types.VpcAttributeNameEnableDnsSupport:
		out.EnableDnsSupport = no
	case types.VpcAttributeNameEnableDnsHostnames:
		out.EnableDnsHostnames = no
	default:
		out.EnableNetworkAddressUsageMetrics = no
	}
	return out, nil
}

// describeRouteTables: nothing is routed through the VPC, so it has no route table.
func (s *Service) describeRouteTables(_ context.Context, _ *store.Tx, _ *api.Call, in *ec2.DescribeRouteTablesInput) (*ec2.DescribeRouteTablesOutput, error) {
	if _, err := pageOf("DescribeRouteTables", in.MaxResults, in.NextToken, 5, 100, "routeTableIds", in.RouteTableIds); err != nil {
		return nil, err
	}
	if _, err := routeTableFilters.matcher(in.Filters); err != nil {
		return nil, err
	}
	if len(in.RouteTableIds) > 0 {
		return nil, fail("InvalidRouteTableID.NotFound", "The routeTable ID '%s' does not exist", in.RouteTableIds[0])
	}
	return &ec2.DescribeRouteTablesOutput{RouteTables: []types.RouteTable{}}, nil
}

var subnetFilters = fields[*types.Subnet]{
	of: map[string]func(*types.Subnet) []string{
		"availability-zone":    func(v *types.Subnet) []string { return one(*v.AvailabilityZone) },
		"availabilityZone":     func(v *types.Subnet) []string { return one(*v.AvailabilityZone) },
		"availability-zone-id": func(v *types.Subnet) []string { return one(*v.AvailabilityZoneId) },
		"cidr-block":           func(v *types.Subnet) []string { return one(*v.CidrBlock) },
		"default-for-az":       func(*types.Subnet) []string { return flag(true) },
		"defaultForAz":         func(*types.Subnet) []string { return flag(true) },
		"owner-id":             func(v *types.Subnet) []string { return one(*v.OwnerId) },
		"state":                func(v *types.Subnet) []string { return one(string(v.State)) },
		"subnet-arn":           func(v *types.Subnet) []string { return one(*v.SubnetArn) },
		"subnet-id":            func(v *types.Subnet) []string { return one(*v.SubnetId) },
		"vpc-id":               func(v *types.Subnet) []string { return one(*v.VpcId) },

		"available-ip-address-count": func(v *types.Subnet) []string { return number(v.AvailableIpAddressCount) },
		"ipv6-native":                func(*types.Subnet) []string { return flag(false) },
		"map-public-ip-on-launch":    func(v *types.Subnet) []string { return flag(aws.ToBool(v.MapPublicIpOnLaunch)) },
	},
	absent: append([]string{"customer-owned-ipv4-pool", "enable-dns64", "enable-lni-at-device-index", "map-customer-owned-ip-on-launch", "outpost-arn", "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
		"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record", "private-dns-name-options-on-launch.hostname-type"}, ipv6Absent...),
	tags: func(v *types.Subnet) map[string]string { return tagMap(v.Tags) },
}

func (s *Service) describeSubnets(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
	p, err := pageOf("DescribeSubnets", in.MaxResults, in.NextToken, 5, 1000, "subnetIds", in.SubnetIds)
	if err != nil {
		return nil, err
	}
	match, err := subnetFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	list := []types.Subnet{}
	known := map[string]bool{}
	for i, z := range zonesOf(c.Region) {
		id := subnetID(c, z)
		known[id] = true
		d := types.Subnet{SubnetId: aws.String(id), SubnetArn: aws.String(arnOf(c.Account, c.Region, "subnet", id)), VpcId: aws.String(vpcID(c)), OwnerId: aws.String(c.Account),
			AvailabilityZone: aws.String(z), AvailabilityZoneId: aws.String(zoneID(z)), CidrBlock: aws.String([]string{"172.31.0.0/20", "172.31.16.0/20", "172.31.32.0/20"}[i]),
			DefaultForAz: aws.Bool(true), MapPublicIpOnLaunch: aws.Bool(false), AssignIpv6AddressOnCreation: aws.Bool(false), State: types.SubnetStateAvailable,
			AvailableIpAddressCount: aws.Int32(4091), Tags: s.placeTags(tx, c, id)}
		if (len(in.SubnetIds) == 0 || slices.Contains(in.SubnetIds, id)) && match(&d) {
			list = append(list, d)
		}
	}
	for _, id := range in.SubnetIds {
		if !known[id] {
			return nil, fail("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
		}
	}
	slices.SortFunc(list, func(a, b types.Subnet) int { return strings.Compare(*a.SubnetId, *b.SubnetId) })
	out := &ec2.DescribeSubnetsOutput{}
	out.Subnets, out.NextToken = cut(p, list, func(v *types.Subnet) string { return *v.SubnetId })
	return out, nil
}

var groupFilters = fields[*types.SecurityGroup]{
	of: map[string]func(*types.SecurityGroup) []string{
		"description": func(g *types.SecurityGroup) []string { return one(*g.Description) },
		"group-id":    func(g *types.SecurityGroup) []string { return one(*g.GroupId) },
		"group-name":  func(g *types.SecurityGroup) []string { return one(*g.GroupName) },
		"owner-id":    func(g *types.SecurityGroup) []string { return one(*g.OwnerId) },
		"vpc-id":      func(g *types.SecurityGroup) []string { return one(*g.VpcId) },
	},
	absent: groupAbsent,
	tags:   func(g *types.SecurityGroup) map[string]string { return tagMap(g.Tags) },
}

func (s *Service) describeSecurityGroups(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	if _, err := pageOf("DescribeSecurityGroups", in.MaxResults, in.NextToken, 5, 1000, "groupIds", in.GroupIds); err != nil {
		return nil, err
	}
	match, err := groupFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, id := range in.GroupIds {
		if id != groupID(c) {
			return nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
		}
	}
	for _, n := range in.GroupNames {
		if n != "default" {
			return nil, fail("InvalidGroup.NotFound", "The security group '%s' does not exist in default VPC '%s'", n, vpcID(c))
		}
	}
	g := types.SecurityGroup{GroupId: aws.String(groupID(c)), GroupName: aws.String("default"), Description: aws.String("default VPC security group"), VpcId: aws.String(vpcID(c)),
		OwnerId: aws.String(c.Account), SecurityGroupArn: aws.String(arnOf(c.Account, c.Region, "security-group", groupID(c))), Tags: s.placeTags(tx, c, groupID(c)),
		IpPermissions: []types.IpPermission{}, IpPermissionsEgress: []types.IpPermission{}}
	out := &ec2.DescribeSecurityGroupsOutput{SecurityGroups: []types.SecurityGroup{}}
	if match(&g) {
		out.SecurityGroups = append(out.SecurityGroups, g)
	}
	return out, nil
}

func (s *Service) describeAccountAttributes(_ context.Context, _ *store.Tx, c *api.Call, in *ec2.DescribeAccountAttributesInput) (*ec2.DescribeAccountAttributesOutput, error) {
	all := []struct{ name, value string }{{"supported-platforms", "VPC"}, {"default-vpc", vpcID(c)}, {"max-instances", "1"}}
	out := &ec2.DescribeAccountAttributesOutput{AccountAttributes: []types.AccountAttribute{}}
	for _, a := range all {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, types.AccountAttributeName(a.name)) {
			continue
		}
		out.AccountAttributes = append(out.AccountAttributes, types.AccountAttribute{AttributeName: aws.String(a.name), AttributeValues: []types.AccountAttributeValue{{AttributeValue: aws.String(a.value)}}})
	}
	return out, nil
}
