# The platform on AWS: a network, the stores in its isolated subnets, a cluster beside them, and roles for what runs there.
data "aws_caller_identity" "current" {}

locals {
  prefix  = "${var.name}-${var.environment}"
  account = data.aws_caller_identity.current.account_id
  tags    = { project = var.name, environment = var.environment, managed-by = "terraform" }
}

module "key" {
  source  = "./modules/key"
  prefix  = local.prefix
  account = local.account
  region  = var.region
}

module "network" {
  source     = "./modules/network"
  prefix     = local.prefix
  region     = var.region
  zones      = [for letter in var.zones : "${var.region}${letter}"]
  cidr       = var.vpc_cidr
  single_nat = var.single_nat
  key_arn    = module.key.arn
  log_days   = var.log_days
}

module "storage" {
  source     = "./modules/storage"
  prefix     = "${local.prefix}-${local.account}"
  key_arn    = module.key.arn
  protection = var.deletion_protection
}

module "images" {
  source  = "./modules/images"
  prefix  = local.prefix
  key_arn = module.key.arn
  names   = ["churn-serve", "churn-train"] # those that `make images` builds
}

module "cluster" {
  source             = "./modules/cluster"
  prefix             = local.prefix
  kubernetes_version = var.kubernetes_version
  subnet_ids         = module.network.node_subnet_ids
  api_allowed_cidrs  = var.api_allowed_cidrs
  admins             = var.cluster_admins
  nodes              = var.nodes
  key_arn            = module.key.arn
  log_days           = var.log_days
  protection         = var.deletion_protection
}

module "database" {
  source             = "./modules/database"
  prefix             = local.prefix
  settings           = var.database
  vpc_id             = module.network.vpc_id
  subnet_ids         = module.network.store_subnet_ids
  client_group_id    = module.cluster.security_group_id
  key_arn            = module.key.arn
  deletion_protected = var.deletion_protection
}

module "cache" {
  source           = "./modules/cache"
  prefix           = local.prefix
  settings         = var.cache
  vpc_id           = module.network.vpc_id
  subnet_ids       = module.network.store_subnet_ids
  client_group_id  = module.cluster.security_group_id
  key_arn          = module.key.arn
  password         = var.redis_password
  password_version = var.passwords_version
}

module "stream" {
  source           = "./modules/stream"
  prefix           = local.prefix
  settings         = var.stream
  vpc_id           = module.network.vpc_id
  subnet_ids       = module.network.store_subnet_ids
  client_group_id  = module.cluster.security_group_id
  key_arn          = module.key.arn
  log_days         = var.log_days
  password         = var.kafka_password
  password_version = var.passwords_version
}

module "secrets" {
  source  = "./modules/secrets"
  prefix  = local.prefix
  key_arn = module.key.arn
}

module "identity" {
  source       = "./modules/identity"
  prefix       = local.prefix
  region       = var.region
  account      = local.account
  cluster_name = module.cluster.name
  issuer       = module.cluster.issuer
  provider_arn = module.cluster.oidc_provider_arn
  buckets      = module.storage.arns
  key_arn      = module.key.arn
  secret_arns  = concat(module.secrets.arns, [module.database.master_secret_arn, module.stream.secret_arn])
}

resource "aws_budgets_budget" "month" {
  name         = "${local.prefix}-month"
  budget_type  = "COST"
  limit_amount = tostring(var.budget.usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = ["user:project$${var.name}"]
  }

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }
    content {
      notification_type          = notification.key
      comparison_operator        = "GREATER_THAN"
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = var.budget.emails
    }
  }
}
