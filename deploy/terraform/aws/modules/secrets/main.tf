# Secrets without a value: who operates the platform sets each by `aws secretsmanager put-secret-value`, so that none is in
# this repository or in Terraform's state. External Secrets copies them into the namespace `churn` (deploy/aws/secrets.yaml).
variable "prefix" { type = string }
variable "key_arn" { type = string }

locals {
  secrets = {
    churn-features       = "online: Redis as Feast's connection string; registry: PostgreSQL's URI"
    churn-mask-key       = "key: the key that masks identifiers"
    churn-rollout        = "database: PostgreSQL's URI; tracking-uri: MLflow's address"
    churn-prediction-log = "user, password: of Kafka"
    churn-gateway-keys   = "The API keys of Kong's consumers"
  }
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:renewing these is a procedure with a time of two valid values (docs/how-to/keys-and-tls.md), no timer
  for_each                = local.secrets
  name                    = "${var.prefix}/${each.key}"
  description             = each.value
  kms_key_id              = var.key_arn
  recovery_window_in_days = 30
}

output "arns" { value = [for secret in aws_secretsmanager_secret.this : secret.arn] }
output "names" { value = { for name, secret in aws_secretsmanager_secret.this : name => secret.name } }
