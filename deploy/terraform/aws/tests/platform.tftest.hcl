# Plans of the whole platform without AWS: the provider is mocked, its computed values are those below. Each assertion guards
# a property that somebody relies on; tests/deploy/test_terraform_mutations.py breaks each of the lines and expects its message.
mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_eks_cluster" {
    defaults = {
      identity = [{ oidc = [{ issuer = "https://oidc.example.com/id/ABC" }] }]
    }
  }
  mock_resource "aws_db_instance" {
    defaults = { master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds" }] }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::bucket" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/role" }
  }
  mock_resource "aws_ecr_repository" {
    defaults = { repository_url = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/churn" }
  }
}

variables {
  environment    = "production"
  region         = "eu-central-1"
  cluster_admins = ["arn:aws:iam::111122223333:role/platform-admin"]
  budget         = { usd = 2500, emails = ["platform@example.com"] }
  redis_password = "not-a-real-password-000000"
  kafka_password = "not-a-real-password-000000"
}

run "network" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    prefix     = "churn-production"
    zones      = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    cidr       = "10.40.0.0/16"
    single_nat = false
    key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/1"
    log_days   = 365
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "Each zone has its own NAT gateway: a zone that fails takes no other with it."
  }
  assert {
    condition     = length(aws_route_table.stores.route) == 0
    error_message = "Subnets of stores have no route to the internet, in or out."
  }
  assert {
    condition = length(distinct(concat(
      [for subnet in aws_subnet.public : subnet.cidr_block],
      [for subnet in aws_subnet.nodes : subnet.cidr_block],
      [for subnet in aws_subnet.stores : subnet.cidr_block],
    ))) == 9
    error_message = "Nine subnets have nine different ranges."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "No machine gets a public address by being started."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"])
    error_message = "The load balancer controller finds public subnets by their tag."
  }
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL"
    error_message = "Flow logs have all traffic, accepted and rejected."
  }
}

run "one_nat_for_all_zones" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    prefix     = "churn-staging"
    zones      = ["eu-central-1a", "eu-central-1b"]
    cidr       = "10.40.0.0/19"
    single_nat = true
    key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/1"
    log_days   = 30
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a"] && length(aws_route_table.nodes) == 2
    error_message = "With single_nat, one gateway serves the nodes of all zones."
  }
}

run "cluster" {
  command = plan
  module {
    source = "./modules/cluster"
  }
  variables {
    prefix             = "churn-production"
    kubernetes_version = "1.34"
    subnet_ids         = ["subnet-1", "subnet-2", "subnet-3"]
    api_allowed_cidrs  = []
    admins             = ["arn:aws:iam::111122223333:role/platform-admin"]
    key_arn            = "arn:aws:kms:eu-central-1:111122223333:key/1"
    log_days           = 365
    protection         = true
    nodes = {
      serving = { instance_types = ["m7i.xlarge"], min = 3, max = 6, desired = 3, disk_gb = 80, jobs_only = false }
      jobs    = { instance_types = ["m7i.xlarge"], min = 0, max = 4, desired = 0, disk_gb = 80, jobs_only = true }
    }
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "Without api_allowed_cidrs, the cluster's API is reached from the VPC only."
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"])
    error_message = "Kubernetes' Secrets are encrypted with our key."
  }
  assert {
    condition     = contains(aws_eks_cluster.this.enabled_cluster_log_types, "audit")
    error_message = "The audit log is stored."
  }
  assert {
    condition     = !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Who runs Terraform is no administrator of the cluster by that alone."
  }
  assert {
    condition = alltrue([
      for template in aws_launch_template.node :
      template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1
    ])
    error_message = "A pod cannot take the credentials of its node."
  }
  assert {
    condition     = jsondecode(aws_eks_addon.network.configuration_values).enableNetworkPolicy == "true"
    error_message = "NetworkPolicies are carried out: without the add-on's setting they are accepted and ignored."
  }
  assert {
    condition = (
      length(aws_eks_node_group.this["serving"].taint) == 0
      && one(aws_eks_node_group.this["jobs"].taint).effect == "NO_SCHEDULE"
    )
    error_message = "Only jobs that tolerate it run on the machines for jobs."
  }
}

run "an_api_for_named_networks" {
  command = plan
  module {
    source = "./modules/cluster"
  }
  variables {
    prefix             = "churn-staging"
    kubernetes_version = "1.34"
    subnet_ids         = ["subnet-1", "subnet-2"]
    api_allowed_cidrs  = ["203.0.113.0/24"]
    admins             = ["arn:aws:iam::111122223333:role/platform-admin"]
    key_arn            = "arn:aws:kms:eu-central-1:111122223333:key/1"
    log_days           = 30
    protection         = false
    nodes              = {}
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "With api_allowed_cidrs, these networks and no others reach the cluster's API."
  }
}

run "database" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    prefix             = "churn-production"
    vpc_id             = "vpc-1"
    subnet_ids         = ["subnet-1", "subnet-2", "subnet-3"]
    client_group_id    = "sg-cluster"
    key_arn            = "arn:aws:kms:eu-central-1:111122223333:key/1"
    deletion_protected = true
    settings           = { instance_class = "db.m7g.large", storage_gb = 100, max_storage_gb = 500, multi_az = true, backup_days = 14 }
  }

  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == var.key_arn
    error_message = "The database is encrypted with our key."
  }
  assert {
    condition     = !aws_db_instance.this.publicly_accessible
    error_message = "The database has no public address."
  }
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null
    error_message = "RDS makes the administrator's password: it is in no file and not in the state."
  }
  assert {
    condition = anytrue([
      for parameter in aws_db_parameter_group.this.parameter : parameter.name == "rds.force_ssl" && parameter.value == "1"
    ])
    error_message = "PostgreSQL refuses connections without TLS."
  }
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.clients.referenced_security_group_id == "sg-cluster"
      && aws_vpc_security_group_ingress_rule.clients.cidr_ipv4 == null
    )
    error_message = "Only the cluster reaches PostgreSQL."
  }
  assert {
    condition     = aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot
    error_message = "The database is not deleted by accident, and not without a snapshot."
  }
  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.backup_retention_period == 14
    error_message = "multi_az and backup_days reach the database."
  }
}

run "cache" {
  command = plan
  module {
    source = "./modules/cache"
  }
  variables {
    prefix           = "churn-production"
    vpc_id           = "vpc-1"
    subnet_ids       = ["subnet-1", "subnet-2", "subnet-3"]
    client_group_id  = "sg-cluster"
    key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/1"
    password         = "not-a-real-password-000000"
    password_version = 1
    settings         = { node_type = "cache.m7g.large", replicas = 1 }
  }

  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.at_rest_encryption_enabled
    error_message = "Redis is encrypted on the wire and on disk."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.num_cache_clusters == 2 && aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "A replica takes over when the primary fails."
  }
  assert {
    condition     = aws_elasticache_user.default.access_string == "off -@all"
    error_message = "Who names no user may do nothing in Redis."
  }
  assert {
    condition     = strcontains(aws_elasticache_user.churn.access_string, "-@admin") && strcontains(aws_elasticache_user.churn.access_string, "-@dangerous")
    error_message = "The platform's user may not administrate Redis."
  }
  assert {
    condition     = aws_elasticache_user.churn.passwords == null
    error_message = "Redis' password passes through and is not stored in the state."
  }
  assert {
    condition = anytrue([
      for parameter in aws_elasticache_parameter_group.this.parameter :
      parameter.name == "maxmemory-policy" && parameter.value == "noeviction"
    ])
    error_message = "A full Redis refuses writes; it does not drop customers."
  }
}

run "stream" {
  command = plan
  module {
    source = "./modules/stream"
  }
  variables {
    prefix           = "churn-production"
    vpc_id           = "vpc-1"
    subnet_ids       = ["subnet-1", "subnet-2", "subnet-3"]
    client_group_id  = "sg-cluster"
    key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/1"
    log_days         = 365
    password         = "not-a-real-password-000000"
    password_version = 1
    settings         = { instance_type = "kafka.m7g.large", brokers_per_zone = 1, storage_gb = 100, retention_hours = 168 }
  }

  assert {
    condition     = strcontains(aws_msk_configuration.this.server_properties, "min.insync.replicas=2")
    error_message = "An acknowledged record is on two of three brokers."
  }
  assert {
    condition     = strcontains(aws_msk_configuration.this.server_properties, "unclean.leader.election.enable=false")
    error_message = "A broker that lacks records does not become the leader."
  }
  assert {
    condition = (
      !aws_msk_cluster.this.client_authentication[0].unauthenticated
      && aws_msk_cluster.this.client_authentication[0].sasl[0].scram
    )
    error_message = "Clients of Kafka have a user and a password."
  }
  assert {
    condition     = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].client_broker == "TLS"
    error_message = "Kafka accepts TLS only."
  }
  assert {
    condition     = startswith(aws_secretsmanager_secret.user.name, "AmazonMSK_")
    error_message = "MSK takes a user from a secret whose name starts with AmazonMSK_ only."
  }
  assert {
    condition     = aws_secretsmanager_secret_version.user.secret_string == null
    error_message = "Kafka's password passes through and is not stored in the state."
  }
}

run "storage" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    prefix     = "churn-production-111122223333"
    key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/1"
    protection = true
  }

  assert {
    condition     = alltrue([for versioning in aws_s3_bucket_versioning.this : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "Each bucket keeps old versions."
  }
  assert {
    condition = alltrue([
      for purpose in ["data", "artifacts", "models"] :
      one(aws_s3_bucket_server_side_encryption_configuration.this[purpose].rule).apply_server_side_encryption_by_default[0].kms_master_key_id == var.key_arn
    ])
    error_message = "Data, artifacts and models are encrypted with our key."
  }
  assert {
    condition = alltrue([
      for block in aws_s3_bucket_public_access_block.this :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "No bucket can be made public."
  }
  assert {
    condition = alltrue([
      for policy in aws_s3_bucket_policy.this : anytrue([
        for statement in jsondecode(policy.policy).Statement :
        statement.Effect == "Deny" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"
      ])
    ])
    error_message = "No bucket answers without TLS."
  }
  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : !bucket.force_destroy])
    error_message = "A bucket that is not empty is not deleted."
  }
}

run "images" {
  command = plan
  module {
    source = "./modules/images"
  }
  variables {
    prefix  = "churn-production"
    key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1"
    names   = ["churn-serve", "churn-train"]
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE"])
    error_message = "A tag of an image is never moved."
  }
}

run "identity" {
  command = plan
  module {
    source = "./modules/identity"
  }
  variables {
    prefix       = "churn-production"
    account      = "111122223333"
    cluster_name = "churn-production"
    issuer       = "oidc.example.com/id/ABC"
    provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC"
    key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/1"
    secret_arns  = ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:churn-production/churn-mask-key"]
    buckets      = { data = "arn:aws:s3:::d", artifacts = "arn:aws:s3:::a", models = "arn:aws:s3:::m", logs = "arn:aws:s3:::l" }
  }

  assert {
    condition     = !contains(flatten([for statement in local.roles["churn-models"].statements : statement.Action]), "s3:PutObject")
    error_message = "The pods that answer cannot write a model."
  }
  assert {
    condition = toset(flatten([for statement in local.roles["churn-models"].statements : statement.Resource])) == toset([
      "arn:aws:s3:::m", "arn:aws:s3:::m/*", var.key_arn,
    ])
    error_message = "The pods that answer reach the bucket of models and no other."
  }
  assert {
    condition = !anytrue(flatten([
      for account, role in local.roles : [
        for statement in role.statements : strcontains(join(" ", statement.Action), "*")
      ]
    ]))
    error_message = "No role has a wildcard among its actions."
  }
  assert {
    condition = alltrue(flatten([
      for account, role in local.roles : [
        for statement in role.statements : account == "cluster-autoscaler" || account == "aws-load-balancer-controller" || !contains(statement.Resource, "*")
      ]
    ]))
    error_message = "Only the two controllers of the cluster have statements about all resources."
  }
  assert {
    condition = !anytrue(flatten([
      for account, role in local.roles : [for statement in role.statements : contains(statement.Action, "s3:DeleteObjectVersion")]
    ]))
    error_message = "No pod deletes an old version of an object."
  }
  assert {
    condition     = toset(keys(output.arns)) == toset(["churn-models", "churn-rollout", "churn-jobs", "mlflow", "external-secrets", "cluster-autoscaler", "aws-load-balancer-controller"])
    error_message = "There is one role for each service account."
  }
}

run "role" {
  command = plan
  module {
    source = "./modules/role"
  }
  variables {
    name            = "churn-production-churn-models"
    issuer          = "oidc.example.com/id/ABC"
    provider_arn    = "arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC"
    namespace       = "churn"
    service_account = "churn-models"
    statements      = [{ Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::m/*"] }]
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition.StringEquals == {
      "oidc.example.com/id/ABC:aud" = "sts.amazonaws.com"
      "oidc.example.com/id/ABC:sub" = "system:serviceaccount:churn:churn-models"
    }
    error_message = "One service account of one namespace may take the role, and no other."
  }
}

run "whole" {
  command = plan

  assert {
    condition     = length(output.roles) == 7 && keys(output.repositories) == ["churn-serve", "churn-train"]
    error_message = "The outputs have what the next steps of docs/production.md ask for."
  }
  assert {
    condition     = output.buckets["models"] == "churn-production-111122223333-models"
    error_message = "The name of a bucket has the account in it: names of buckets are unique in the world."
  }
  assert {
    condition     = length(aws_budgets_budget.month.notification) == 2
    error_message = "A message is sent before the budget is spent, and when a forecast exceeds it."
  }
}
