# Bad input is refused by its variable, before anything is planned.
mock_provider "aws" {}

variables {
  environment    = "production"
  region         = "eu-central-1"
  cluster_admins = ["arn:aws:iam::111122223333:role/platform-admin"]
  budget         = { usd = 2500, emails = ["platform@example.com"] }
  redis_password = "not-a-real-password-000000"
  kafka_password = "not-a-real-password-000000"
}

run "values_that_cannot_be" {
  command = plan
  variables {
    name               = "Churn"
    region             = "Frankfurt"
    vpc_cidr           = "10.40.0.0/24"
    kubernetes_version = "1.29"
    api_allowed_cidrs  = ["0.0.0.0/0"]
    cluster_admins     = []
    nodes              = { serving = { instance_types = ["m7i.xlarge"], min = 4, max = 2, desired = 3 } }
    database           = { storage_gb = 100, max_storage_gb = 50 }
    cache              = { replicas = 0 }
    stream             = { retention_hours = 1 }
    log_days           = 100
    budget             = { usd = 100, emails = [] }
    redis_password     = "short"
    kafka_password     = "a password with blanks and, a comma"
    passwords_version  = 0
  }
  expect_failures = [
    var.name, var.region, var.vpc_cidr, var.kubernetes_version, var.api_allowed_cidrs, var.cluster_admins, var.nodes,
    var.database, var.cache, var.stream, var.log_days, var.budget, var.redis_password, var.kafka_password,
    var.passwords_version,
  ]
}

run "production_is_not_made_cheaper_by_its_safety" {
  command = plan
  variables {
    vpc_cidr            = "8.8.0.0/16" # a public range
    zones               = ["a", "b"]
    database            = { multi_az = false }
    deletion_protection = false
  }
  expect_failures = [var.vpc_cidr, var.zones, var.database, var.deletion_protection]
}
