# An estate as people describe it: keys, volumes, directories, a desktop, a trail.
# later changes what can be changed in place.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  skip_metadata_api_check = true
}

variable "later" {
  type    = bool
  default = false
}

locals {
  tags    = var.later ? { team = "red", stage = "later" } : { team = "blue" }
  subnets = slice(sort(data.aws_subnets.all.ids), 0, 2)
}

data "aws_region" "here" {}

data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "all" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
}

resource "aws_kms_key" "desktops" {
  deletion_window_in_days = 7
  tags                    = local.tags
}

resource "aws_ebs_volume" "data" {
  availability_zone = "${data.aws_region.here.name}a"
  size              = var.later ? 2 : 1
  type              = "gp3"
  encrypted         = true
  kms_key_id        = aws_kms_key.desktops.arn
  tags              = local.tags
}

resource "aws_ebs_snapshot" "data" {
  volume_id = aws_ebs_volume.data.id
  tags      = local.tags
}

resource "aws_ebs_snapshot_copy" "data" {
  source_snapshot_id = aws_ebs_snapshot.data.id
  source_region      = data.aws_region.here.name
  encrypted          = true
  kms_key_id         = aws_kms_key.desktops.arn
}

resource "aws_snapshot_create_volume_permission" "data" {
  snapshot_id = aws_ebs_snapshot.data.id
  account_id  = "444455556666"
}

resource "aws_ebs_encryption_by_default" "on" {
  enabled = true
}

resource "aws_ebs_default_kms_key" "desktops" {
  key_arn = aws_kms_key.desktops.arn
}

resource "aws_ebs_snapshot_block_public_access" "all" {
  state = "block-all-sharing"
}

resource "aws_rbin_rule" "keep" {
  description   = "deleted snapshots"
  resource_type = "EBS_SNAPSHOT"
  resource_tags {
    resource_tag_key   = "keep"
    resource_tag_value = "yes"
  }
  retention_period {
    retention_period_value = var.later ? 9 : 7
    retention_period_unit  = "DAYS"
  }
  tags = local.tags
}

resource "aws_directory_service_directory" "corp" {
  name     = "corp.example.com"
  password = "Correct-Horse-7"
  size     = "Small"
  alias    = "terraform-corp"
  vpc_settings {
    vpc_id     = data.aws_vpc.default.id
    subnet_ids = local.subnets
  }
  tags = local.tags
}

resource "aws_directory_service_directory" "microsoft" {
  name                                 = "ms.example.com"
  password                             = "Correct-Horse-7"
  edition                              = "Standard"
  type                                 = "MicrosoftAD"
  desired_number_of_domain_controllers = 2
  vpc_settings {
    vpc_id     = data.aws_vpc.default.id
    subnet_ids = local.subnets
  }
}

resource "aws_workspaces_ip_group" "office" {
  name        = "office"
  description = "the office"
  rules {
    source      = var.later ? "198.51.100.0/24" : "203.0.113.0/24"
    description = "office"
  }
  tags = local.tags
}

resource "aws_workspaces_directory" "corp" {
  directory_id = aws_directory_service_directory.corp.id
  subnet_ids   = local.subnets
  ip_group_ids = [aws_workspaces_ip_group.office.id]
  self_service_permissions {
    restart_workspace    = true
    increase_volume_size = var.later
  }
  workspace_access_properties {
    device_type_android    = "DENY"
    device_type_chromeos   = "ALLOW"
    device_type_ios        = "DENY"
    device_type_linux      = "DENY"
    device_type_osx        = "ALLOW"
    device_type_web        = "ALLOW"
    device_type_windows    = "ALLOW"
    device_type_zeroclient = "DENY"
  }
  workspace_creation_properties {
    enable_internet_access              = false
    enable_maintenance_mode             = true
    user_enabled_as_local_administrator = true
  }
  saml_properties {
    relay_state_parameter_name = var.later ? "Later" : "RelayState"
    status                     = "DISABLED"
  }
  tags = local.tags
}

data "aws_workspaces_bundle" "value" {
  owner = "AMAZON"
  name  = "Value with Debian 12"
}

resource "aws_workspaces_workspace" "administrator" {
  directory_id                   = aws_workspaces_directory.corp.id
  bundle_id                      = data.aws_workspaces_bundle.value.id
  user_name                      = "Administrator"
  root_volume_encryption_enabled = true
  user_volume_encryption_enabled = true
  volume_encryption_key          = aws_kms_key.desktops.arn
  workspace_properties {
    compute_type_name                         = "VALUE"
    root_volume_size_gib                      = 80
    user_volume_size_gib                      = 10
    running_mode                              = "AUTO_STOP"
    running_mode_auto_stop_timeout_in_minutes = var.later ? 120 : 60
  }
  tags = local.tags
}

resource "aws_workspaces_connection_alias" "name" {
  connection_string = "desktops.example.com"
  tags              = local.tags
}

resource "aws_cloudtrail" "trail" {
  name                       = "terraform"
  s3_bucket_name             = "terraform-bucket"
  is_multi_region_trail      = true
  enable_log_file_validation = true
  advanced_event_selector {
    name = "writes"
    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
    field_selector {
      field  = "readOnly"
      equals = [var.later ? "true" : "false"]
    }
  }
  tags = local.tags
}
