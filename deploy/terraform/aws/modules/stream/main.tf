# Kafka for the prediction log and purchases: TLS everywhere, users by SCRAM, records on as many brokers as there are zones.
variable "prefix" { type = string }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "client_group_id" { type = string }
variable "key_arn" { type = string }
variable "log_days" { type = number }
variable "settings" {
  type = object({
    instance_type    = string
    brokers_per_zone = number
    storage_gb       = number
    retention_hours  = number
  })
}
variable "password" {
  type      = string
  sensitive = true
  ephemeral = true
}
variable "password_version" { type = number }

locals {
  brokers  = length(var.subnet_ids) * var.settings.brokers_per_zone
  replicas = min(3, local.brokers)
}

resource "aws_security_group" "this" {
  name        = "${var.prefix}-stream"
  description = "Kafka, from the cluster only"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  security_group_id            = aws_security_group.this.id
  description                  = "Pods of the cluster; 9096 is TLS with SCRAM"
  referenced_security_group_id = var.client_group_id
  ip_protocol                  = "tcp"
  from_port                    = 9096
  to_port                      = 9096
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  security_group_id            = aws_security_group.this.id
  description                  = "Prometheus in the cluster; the exporters of JMX and of the node"
  referenced_security_group_id = var.client_group_id
  ip_protocol                  = "tcp"
  from_port                    = 11001
  to_port                      = 11002
}

resource "aws_msk_configuration" "this" {
  name           = var.prefix
  kafka_versions = ["3.9.x"]
  # With three zones, a record that is acknowledged to acks=all is on two brokers. None that lacks records becomes the leader.
  server_properties = join("\n", [
    "auto.create.topics.enable=false",
    "default.replication.factor=${local.replicas}",
    "min.insync.replicas=${max(1, local.replicas - 1)}",
    "unclean.leader.election.enable=false",
    "log.retention.hours=${var.settings.retention_hours}",
  ])
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/msk/${var.prefix}"
  retention_in_days = var.log_days
  kms_key_id        = var.key_arn
}

resource "aws_msk_cluster" "this" {
  cluster_name           = var.prefix
  kafka_version          = "3.9.x"
  number_of_broker_nodes = local.brokers

  broker_node_group_info {
    instance_type   = var.settings.instance_type
    client_subnets  = var.subnet_ids
    security_groups = [aws_security_group.this.id]

    storage_info {
      ebs_storage_info {
        volume_size = var.settings.storage_gb
      }
    }
  }
  configuration_info {
    arn      = aws_msk_configuration.this.arn
    revision = aws_msk_configuration.this.latest_revision
  }
  client_authentication {
    unauthenticated = false
    sasl {
      scram = true
    }
  }
  encryption_info {
    encryption_at_rest_kms_key_arn = var.key_arn
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }
  open_monitoring {
    prometheus {
      jmx_exporter {
        enabled_in_broker = true
      }
      node_exporter {
        enabled_in_broker = true
      }
    }
  }
  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.this.name
      }
    }
  }
}

# MSK asks for this prefix, and for a key of the customer's own.
resource "aws_secretsmanager_secret" "user" {
  #checkov:skip=CKV2_AWS_57:renewed by raising passwords_version, when the clients are given the new one too
  name                    = "AmazonMSK_${var.prefix}"
  description             = "User and password of the platform in Kafka"
  kms_key_id              = var.key_arn
  recovery_window_in_days = 30
}

resource "aws_secretsmanager_secret_version" "user" {
  secret_id                = aws_secretsmanager_secret.user.id
  secret_string_wo         = jsonencode({ username = "churn", password = var.password })
  secret_string_wo_version = var.password_version
}

resource "aws_msk_scram_secret_association" "this" {
  cluster_arn     = aws_msk_cluster.this.arn
  secret_arn_list = [aws_secretsmanager_secret.user.arn]
  depends_on      = [aws_secretsmanager_secret_version.user]
}

output "brokers" { value = aws_msk_cluster.this.bootstrap_brokers_sasl_scram }
output "secret_arn" { value = aws_secretsmanager_secret.user.arn }
