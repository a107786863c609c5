# Redis for online features: TLS, one user with a password and few commands, a replica in another zone.
variable "prefix" { type = string }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "client_group_id" { type = string }
variable "key_arn" { type = string }
variable "settings" {
  type = object({
    node_type = string
    replicas  = number
  })
}
variable "password" {
  type      = string
  sensitive = true
  ephemeral = true
}
variable "password_version" { type = number }

resource "aws_elasticache_subnet_group" "this" {
  name       = var.prefix
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "this" {
  name        = "${var.prefix}-cache"
  description = "Redis, from the cluster only"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  security_group_id            = aws_security_group.this.id
  description                  = "Pods of the cluster"
  referenced_security_group_id = var.client_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

# Whoever names no user is this one, and may do nothing. ElastiCache asks for a user of the name `default` in each group.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.prefix}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off -@all"

  authentication_mode {
    type = "no-password-required"
  }
}

# What Feast and our reader send: reads, writes, scripts and pipelines; nothing that administrates or lists all keys' owners.
resource "aws_elasticache_user" "churn" {
  user_id              = "${var.prefix}-churn"
  user_name            = "churn"
  engine               = "redis"
  access_string        = "on ~* +@all -@admin -@dangerous +info"
  passwords_wo         = var.password
  passwords_wo_version = var.password_version
}

resource "aws_elasticache_user_group" "this" {
  user_group_id = var.prefix
  engine        = "redis"
  user_ids      = [aws_elasticache_user.default.user_id, aws_elasticache_user.churn.user_id]
}

resource "aws_elasticache_parameter_group" "this" {
  name   = "${var.prefix}-redis7"
  family = "redis7"

  # Features are no cache: a full store refuses writes and alerts, it does not drop customers.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id = var.prefix
  description          = "Online features"
  engine               = "redis"
  engine_version       = "7.1"
  node_type            = var.settings.node_type
  parameter_group_name = aws_elasticache_parameter_group.this.name
  port                 = 6379

  num_cache_clusters         = 1 + var.settings.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.this.id]

  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  kms_key_id                 = var.key_arn
  user_group_ids             = [aws_elasticache_user_group.this.id]

  snapshot_retention_limit   = 7
  auto_minor_version_upgrade = true
}

output "address" { value = aws_elasticache_replication_group.this.primary_endpoint_address }
