package ec2

import "github.com/aws/aws-sdk-go-v2/service/ec2/types"

// Filters that EC2 documents for what no instance, VPC, subnet, security group or route
// table here has: clients may name them, and they match nothing.

var instanceAbsent = []string{
	"affinity", "architecture", "boot-mode", "capacity-reservation-id", "capacity-reservation-specification.capacity-reservation-preference",
	"capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
	"capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn", "client-token",
	"current-instance-boot-mode", "dns-name", "ena-support", "enclave-options.enabled", "hibernation-options.configured", "host-id", "hypervisor",
	"iam-instance-profile.arn", "iam-instance-profile.id", "image-id", "instance-lifecycle", "ip-address", "ipv6-address", "kernel-id", "key-name",
	"launch-index", "maintenance-options.auto-recovery", "metadata-options.http-endpoint", "metadata-options.http-protocol-ipv4",
	"metadata-options.http-protocol-ipv6", "metadata-options.http-put-response-hop-limit", "metadata-options.http-tokens",
	"metadata-options.instance-metadata-tags", "metadata-options.state", "monitoring-state", "network-interface.addresses.association.allocation-id",
	"network-interface.addresses.association.association-id", "network-interface.addresses.association.carrier-ip",
	"network-interface.addresses.association.customer-owned-ip", "network-interface.addresses.association.ip-owner-id",
	"network-interface.addresses.association.public-dns-name", "network-interface.addresses.association.public-ip",
	"network-interface.addresses.primary", "network-interface.addresses.private-dns-name", "network-interface.addresses.private-ip-address",
	"network-interface.association.allocation-id", "network-interface.association.association-id", "network-interface.association.carrier-ip",
	"network-interface.association.customer-owned-ip", "network-interface.association.ip-owner-id", "network-interface.association.public-dns-name",
	"network-interface.association.public-ip", "network-interface.attachment.attach-time", "network-interface.attachment.attachment-id",
	"network-interface.attachment.delete-on-termination", "network-interface.attachment.device-index", "network-interface.attachment.instance-id",
	"network-interface.attachment.instance-owner-id", "network-interface.attachment.network-card-index", "network-interface.attachment.status",
	"network-interface.availability-zone", "network-interface.deny-all-igw-traffic", "network-interface.description", "network-interface.group-id",
	"network-interface.group-name", "network-interface.ipv4-prefixes.ipv4-prefix", "network-interface.ipv6-address",
	"network-interface.ipv6-addresses.ipv6-address", "network-interface.ipv6-addresses.is-primary-ipv6", "network-interface.ipv6-native",
	"network-interface.ipv6-prefixes.ipv6-prefix", "network-interface.mac-address", "network-interface.network-interface-id",
	"network-interface.operator.managed", "network-interface.operator.principal", "network-interface.outpost-arn", "network-interface.owner-id",
	"network-interface.private-dns-name", "network-interface.private-ip-address", "network-interface.public-dns-name", "network-interface.requester-id",
	"network-interface.requester-managed", "network-interface.status", "network-interface.source-dest-check", "network-interface.subnet-id",
	"network-interface.tag-key", "network-interface.tag-value", "network-interface.vpc-id", "network-performance-options.bandwidth-weighting",
	"operator.principal", "outpost-arn", "placement-group-name", "placement-partition-number", "platform", "platform-details", "private-dns-name",
	"private-dns-name-options.enable-resource-name-dns-a-record", "private-dns-name-options.enable-resource-name-dns-aaaa-record",
	"private-dns-name-options.hostname-type", "private-ip-address", "product-code", "product-code.type", "ramdisk-id", "reason", "requester-id",
	"root-device-name", "source-dest-check", "spot-instance-request-id", "state-reason-code", "state-reason-message", "tpm-support", "usage-operation",
	"usage-operation-update-time", "virtualization-type",
}

var ipv6Absent = []string{
	"ipv6-cidr-block-association.association-id", "ipv6-cidr-block-association.ipv6-cidr-block", "ipv6-cidr-block-association.ipv6-pool", "ipv6-cidr-block-association.state",
}

var groupAbsent = []string{
	"egress.ip-permission.cidr", "egress.ip-permission.from-port", "egress.ip-permission.group-id", "egress.ip-permission.group-name",
	"egress.ip-permission.ipv6-cidr", "egress.ip-permission.prefix-list-id", "egress.ip-permission.protocol", "egress.ip-permission.to-port",
	"egress.ip-permission.user-id", "ip-permission.cidr", "ip-permission.from-port", "ip-permission.group-id", "ip-permission.group-name",
	"ip-permission.ipv6-cidr", "ip-permission.prefix-list-id", "ip-permission.protocol", "ip-permission.to-port", "ip-permission.user-id",
}

// routeTableFilters know no value at all: there is no route table.
var routeTableFilters = fields[*types.RouteTable]{
	absent: []string{
		"association.gateway-id", "association.route-table-association-id", "association.route-table-id", "association.subnet-id", "association.main",
		"owner-id", "route-table-id", "route.destination-cidr-block", "route.destination-ipv6-cidr-block", "route.destination-prefix-list-id",
		"route.egress-only-internet-gateway-id", "route.gateway-id", "route.instance-id", "route.nat-gateway-id", "route.transit-gateway-id",
		"route.origin", "route.state", "route.vpc-peering-connection-id", "vpc-id",
	},
	tags: func(*types.RouteTable) map[string]string { return nil },
}
