package iam

import (
	"crypto/sha256"
	"encoding/base32"
	"sort"
	"time"
)

// AWS managed policies, by ARN. Each is the policy of that name in the AWS
// Managed Policy Reference, the large ones restricted to the services that
// Sealdesk has. They are the same in every account and change only with the program.
var (
	awsManaged     = map[string]*managed{}
	awsManagedList []*managed // in order of ARN
)

type awsPolicy struct {
	name, path, version, description, document string
}

var awsPolicies = []awsPolicy{
	{"AdministratorAccess", "/", "v1", "Provides full access to AWS services and resources.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`},
	{"AWSDenyAll", "/", "v2", "Deny all access.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"DenyAll","Effect":"Deny","Action":["*"],"Resource":"*"}]}`},
	{"PowerUserAccess", "/", "v5", "Provides full access to AWS services and resources, but does not allow management of Users and groups.",
		`{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","NotAction":["iam:*","organizations:*","account:*"],"Resource":"*"},
  {"Effect":"Allow","Action":["account:GetAccountInformation","account:GetPrimaryEmail","account:ListRegions","iam:CreateServiceLinkedRole","iam:DeleteServiceLinkedRole","iam:ListRoles","organizations:DescribeEffectivePolicy","organizations:DescribeOrganization"],"Resource":"*"}]}`},
	{"ReadOnlyAccess", "/", "v1", "Provides read-only access to AWS services and resources.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"ReadOnlyActions","Effect":"Allow","Action":[
  "cloudtrail:Describe*","cloudtrail:Get*","cloudtrail:List*","cloudtrail:LookupEvents",
  "ds:Check*","ds:Describe*","ds:Get*","ds:List*","ds:Verify*",
  "ds-data:Describe*","ds-data:List*","ds-data:Search*","ds:AccessDSData",
  "ec2:Describe*","ec2:Get*","ec2:ListImagesInRecycleBin","ec2:ListSnapshotsInRecycleBin","ec2:SearchLocalGatewayRoutes","ec2:SearchTransitGatewayRoutes",
  "iam:Generate*","iam:Get*","iam:List*","iam:Simulate*",
  "kms:Describe*","kms:Get*","kms:List*",
  "sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken",
  "tag:Get*","workspaces:Describe*","workspaces:Get*","workspaces:List*"],"Resource":"*"}]}`},
	{"SecurityAudit", "/", "v1", "The security audit template grants access to read security configuration metadata. It is useful for software that audits the configuration of an AWS account.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"BaseSecurityAuditStatement","Effect":"Allow","Action":[
  "cloudtrail:DescribeTrails","cloudtrail:GetEventSelectors","cloudtrail:GetInsightSelectors","cloudtrail:GetTrail","cloudtrail:GetTrailStatus","cloudtrail:ListEventDataStores","cloudtrail:ListPublicKeys","cloudtrail:ListTags","cloudtrail:ListTrails","cloudtrail:LookupEvents",
  "ds:DescribeDirectories","ds:DescribeConditionalForwarders","ds:DescribeEventTopics","ds:DescribeLDAPSSettings","ds:DescribeSettings","ds:DescribeTrusts","ds:ListAuthorizedApplications","ds:ListLogSubscriptions","ds:ListTagsForResource",
  "ec2:Describe*","ec2:GetEbsDefaultKmsKeyId","ec2:GetEbsEncryptionByDefault","ec2:GetImageBlockPublicAccessState","ec2:GetManagedPrefixListAssociations","ec2:GetManagedPrefixListEntries","ec2:GetSerialConsoleAccessStatus","ec2:GetSnapshotBlockPublicAccessState",
  "iam:GenerateCredentialReport","iam:GenerateServiceLastAccessedDetails","iam:Get*","iam:List*","iam:SimulateCustomPolicy","iam:SimulatePrincipalPolicy",
  "kms:Describe*","kms:GetKeyPolicy","kms:GetKeyRotationStatus","kms:List*",
  "workspaces:Describe*"],"Resource":"*"}]}`},
	{"ViewOnlyAccess", "/job-function/", "v1", "This policy grants permissions to view resources and basic metadata across all AWS services.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
  "cloudtrail:DescribeTrails","cloudtrail:GetTrailStatus","cloudtrail:ListTrails","cloudtrail:LookupEvents",
  "ds:DescribeDirectories",
  "ec2:DescribeAvailabilityZones","ec2:DescribeImages","ec2:DescribeInstanceAttribute","ec2:DescribeInstanceStatus","ec2:DescribeInstances","ec2:DescribeKeyPairs","ec2:DescribeRegions","ec2:DescribeSnapshotAttribute","ec2:DescribeSnapshots","ec2:DescribeTags","ec2:DescribeVolumeAttribute","ec2:DescribeVolumes","ec2:DescribeVolumeStatus","ec2:DescribeVpcs","ec2:DescribeSubnets","ec2:DescribeSecurityGroups",
  "iam:GetAccountSummary","iam:GetLoginProfile","iam:List*",
  "kms:ListAliases","kms:ListKeys",
  "workspaces:DescribeTags","workspaces:DescribeWorkspaceBundles","workspaces:DescribeWorkspaceDirectories","workspaces:DescribeWorkspaceImages","workspaces:DescribeWorkspaces","workspaces:DescribeWorkspacesConnectionStatus"],"Resource":"*"}]}`},
	{"IAMFullAccess", "/", "v2", "Provides full access to IAM via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","organizations:DescribeAccount","organizations:DescribeOrganization","organizations:DescribeOrganizationalUnit","organizations:DescribePolicy","organizations:ListChildren","organizations:ListParents","organizations:ListPoliciesForTarget","organizations:ListRoots","organizations:ListPolicies","organizations:ListTargetsForPolicy"],"Resource":"*"}]}`},
	{"IAMReadOnlyAccess", "/", "v4", "Provides read only access to IAM via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:GenerateCredentialReport","iam:GenerateServiceLastAccessedDetails","iam:Get*","iam:List*","iam:SimulateCustomPolicy","iam:SimulatePrincipalPolicy"],"Resource":"*"}]}`},
	{"IAMUserChangePassword", "/", "v2", "Provides the ability for an IAM user to change their own password.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:ChangePassword"],"Resource":["arn:aws:iam::*:user/${aws:username}"]},{"Effect":"Allow","Action":["iam:GetAccountPasswordPolicy"],"Resource":"*"}]}`},
	{"AWSKeyManagementServicePowerUser", "/", "v2", "Provides access to AWS Key Management Service (KMS).",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:CreateAlias","kms:CreateKey","kms:DeleteAlias","kms:Describe*","kms:GenerateRandom","kms:Get*","kms:List*","kms:TagResource","kms:UntagResource","iam:ListGroups","iam:ListRoles","iam:ListUsers"],"Resource":"*"}]}`},
	{"AmazonWorkSpacesAdmin", "/", "v5", "Provides access to Amazon WorkSpaces administrative actions via AWS SDK and CLI.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"AmazonWorkSpacesAdmin","Effect":"Allow","Action":["kms:DescribeKey","kms:ListAliases","kms:ListKeys",
  "workspaces:CreateTags","workspaces:CreateWorkspaceImage","workspaces:CreateWorkspaces","workspaces:CreateWorkspacesPool","workspaces:CreateStandbyWorkspaces","workspaces:DeleteTags","workspaces:DeregisterWorkspaceDirectory",
  "workspaces:DescribeTags","workspaces:DescribeWorkspaceBundles","workspaces:DescribeWorkspaceDirectories","workspaces:DescribeWorkspaces","workspaces:DescribeWorkspacesPools","workspaces:DescribeWorkspacesPoolSessions","workspaces:DescribeWorkspacesConnectionStatus",
  "workspaces:ModifyCertificateBasedAuthProperties","workspaces:ModifySamlProperties","workspaces:ModifyStreamingProperties","workspaces:ModifyWorkspaceCreationProperties","workspaces:ModifyWorkspaceProperties",
  "workspaces:RebootWorkspaces","workspaces:RebuildWorkspaces","workspaces:RegisterWorkspaceDirectory","workspaces:RestoreWorkspace","workspaces:StartWorkspaces","workspaces:StartWorkspacesPool","workspaces:StopWorkspaces","workspaces:StopWorkspacesPool","workspaces:TerminateWorkspaces","workspaces:TerminateWorkspacesPool","workspaces:TerminateWorkspacesPoolSession","workspaces:UpdateWorkspacesPool"],"Resource":"*"}]}`},
	{"AmazonWorkSpacesSelfServiceAccess", "/", "v1", "Provides access to Amazon WorkSpaces backend service to perform Workspace Self Service actions.",
		`{"Version":"2012-10-17","Statement":[{"Action":["workspaces:RebootWorkspaces","workspaces:RebuildWorkspaces","workspaces:ModifyWorkspaceProperties"],"Effect":"Allow","Resource":"*"}]}`},
	{"AmazonWorkSpacesServiceAccess", "/", "v1", "Provides customer account access to AWS WorkSpaces service for launching a Workspace.",
		`{"Version":"2012-10-17","Statement":[{"Action":["ec2:CreateNetworkInterface","ec2:DeleteNetworkInterface","ec2:DescribeNetworkInterfaces"],"Effect":"Allow","Resource":"*"}]}`},
	{"AmazonEC2FullAccess", "/", "v5", "Provides full access to Amazon EC2 via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Action":"ec2:*","Effect":"Allow","Resource":"*"},
  {"Effect":"Allow","Action":"iam:CreateServiceLinkedRole","Resource":"*","Condition":{"StringEquals":{"iam:AWSServiceName":["autoscaling.amazonaws.com","ec2scheduled.amazonaws.com","elasticloadbalancing.amazonaws.com","spot.amazonaws.com","spotfleet.amazonaws.com","transitgateway.amazonaws.com"]}}}]}`},
	{"AmazonEC2ReadOnlyAccess", "/", "v2", "Provides read only access to Amazon EC2 via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:Describe*","ec2:GetSecurityGroupsForVpc"],"Resource":"*"}]}`},
	{"AWSCloudTrail_FullAccess", "/", "v1", "Provides full access to AWS CloudTrail.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"cloudtrail:*","Resource":"*"},{"Effect":"Allow","Action":["iam:GetRolePolicy","iam:GetUser","iam:ListRoles","kms:CreateKey","kms:CreateAlias","kms:ListKeys","kms:ListAliases"],"Resource":"*"},
  {"Effect":"Allow","Action":["iam:PassRole"],"Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"cloudtrail.amazonaws.com"}}}]}`},
	{"AWSCloudTrail_ReadOnlyAccess", "/", "v2", "Provides read only access to AWS CloudTrail.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"CloudTrailReadOnly","Effect":"Allow","Action":["cloudtrail:Get*","cloudtrail:Describe*","cloudtrail:List*","cloudtrail:LookupEvents"],"Resource":"*"}]}`},
	{"AWSDirectoryServiceFullAccess", "/", "v4", "Provides full access to AWS Directory Service.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"DirectoryServiceFullAccess","Effect":"Allow","Action":["ds:*","ec2:AuthorizeSecurityGroupEgress","ec2:AuthorizeSecurityGroupIngress","ec2:CreateNetworkInterface","ec2:CreateSecurityGroup","ec2:CreateTags","ec2:DeleteNetworkInterface","ec2:DeleteSecurityGroup","ec2:DescribeNetworkInterfaces","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","ec2:RevokeSecurityGroupEgress","ec2:RevokeSecurityGroupIngress","iam:ListRoles"],"Resource":"*"}]}`},
	{"AWSDirectoryServiceReadOnlyAccess", "/", "v4", "Provides read only access to AWS Directory Service.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ds:Check*","ds:Describe*","ds:Get*","ds:List*","ds:Verify*","ec2:DescribeNetworkInterfaces","ec2:DescribeSubnets","ec2:DescribeVpcs"],"Resource":"*"}]}`},
	{"AWSDirectoryServiceDataFullAccess", "/", "v1", "Provides full access to AWS Directory Service Data.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"DirectoryServiceDataFullAccess","Effect":"Allow","Action":["ds:AccessDSData","ds-data:*"],"Resource":"*"}]}`},
	{"AWSDirectoryServiceDataReadOnlyAccess", "/", "v1", "Provides read only access to AWS Directory Service Data.",
		`{"Version":"2012-10-17","Statement":[{"Sid":"DirectoryServiceDataReadOnlyAccess","Effect":"Allow","Action":["ds:AccessDSData","ds-data:Describe*","ds-data:List*","ds-data:Search*"],"Resource":"*"}]}`},

	// Policies of other services that templates and examples attach by their ARN.
	{"AmazonS3FullAccess", "/", "v2", "Provides full access to all buckets via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*","s3-object-lambda:*"],"Resource":"*"}]}`},
	{"AmazonS3ReadOnlyAccess", "/", "v3", "Provides read only access to all buckets via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*","s3-object-lambda:Get*","s3-object-lambda:List*"],"Resource":"*"}]}`},
	{"AmazonSQSFullAccess", "/", "v1", "Provides full access to Amazon SQS via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Action":["sqs:*"],"Effect":"Allow","Resource":"*"}]}`},
	{"AmazonSNSFullAccess", "/", "v1", "Provides full access to Amazon SNS via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Action":["sns:*"],"Effect":"Allow","Resource":"*"}]}`},
	{"AmazonDynamoDBFullAccess", "/", "v15", "Provides full access to Amazon DynamoDB via the AWS Management Console.",
		`{"Version":"2012-10-17","Statement":[{"Action":["dynamodb:*","dax:*","ec2:DescribeVpcs","ec2:DescribeSubnets","ec2:DescribeSecurityGroups","iam:GetRole","iam:ListRoles","kms:DescribeKey","kms:ListAliases","tag:GetResources"],"Effect":"Allow","Resource":"*"}]}`},
	{"AmazonSSMReadOnlyAccess", "/", "v1", "Provides read only access to Amazon SSM.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:Describe*","ssm:Get*","ssm:List*"],"Resource":"*"}]}`},
	{"AmazonSSMManagedInstanceCore", "/", "v2", "The policy for Amazon EC2 Role to enable AWS Systems Manager service core functionality.",
		`{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":["ssm:DescribeAssociation","ssm:GetDeployablePatchSnapshotForInstance","ssm:GetDocument","ssm:DescribeDocument","ssm:GetManifest","ssm:GetParameter","ssm:GetParameters","ssm:ListAssociations","ssm:ListInstanceAssociations","ssm:PutInventory","ssm:PutComplianceItems","ssm:PutConfigurePackageResult","ssm:UpdateAssociationStatus","ssm:UpdateInstanceAssociationStatus","ssm:UpdateInstanceInformation"],"Resource":"*"},
  {"Effect":"Allow","Action":["ssmmessages:CreateControlChannel","ssmmessages:CreateDataChannel","ssmmessages:OpenControlChannel","ssmmessages:OpenDataChannel"],"Resource":"*"},
  {"Effect":"Allow","Action":["ec2messages:AcknowledgeMessage","ec2messages:DeleteMessage","ec2messages:FailMessage","ec2messages:GetEndpoint","ec2messages:GetMessages","ec2messages:SendReply"],"Resource":"*"}]}`},
	{"AmazonEC2ContainerRegistryReadOnly", "/", "v3", "Provides read-only access to Amazon EC2 Container Registry repositories.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:GetAuthorizationToken","ecr:BatchCheckLayerAvailability","ecr:GetDownloadUrlForLayer","ecr:GetRepositoryPolicy","ecr:DescribeRepositories","ecr:ListImages","ecr:DescribeImages","ecr:BatchGetImage","ecr:GetLifecyclePolicy","ecr:GetLifecyclePolicyPreview","ecr:ListTagsForResource","ecr:DescribeImageScanFindings"],"Resource":"*"}]}`},
	{"AWSSupportAccess", "/", "v1", "Allows users to access the AWS Support Center.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["support:*"],"Resource":"*"}]}`},
	{"AWSLambdaBasicExecutionRole", "/service-role/", "v1", "Provides write permissions to CloudWatch Logs.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}`},
	{"AWSLambdaExecute", "/", "v3", "Provides Put, Get access to S3 and full access to CloudWatch Logs.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:*"],"Resource":"arn:aws:logs:*:*:*"},{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::*"}]}`},
}

func init() {
	since := time.Date(2015, 2, 6, 18, 40, 0, 0, time.UTC)
	for _, p := range awsPolicies {
		m := &managed{Account: "aws", Name: p.name, Path: p.path, Created: since, Updated: since, Description: p.description, Default: p.version,
			Versions: []version{{ID: p.version, Created: since, Document: newDocument(p.document)}}}
		sum := sha256.Sum256([]byte(m.arn()))
		m.ID = "ANPA" + base32.StdEncoding.EncodeToString(sum[:])[:17]
		awsManaged[m.arn()] = m
		awsManagedList = append(awsManagedList, m)
	}
	sort.Slice(awsManagedList, func(i, j int) bool { return awsManagedList[i].arn() < awsManagedList[j].arn() })
}
