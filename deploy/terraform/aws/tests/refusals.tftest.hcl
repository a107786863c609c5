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

run "names_and_places" {
  command = plan
  variables {
    name     = "Churn"
    region   = "Frankfurt"
    vpc_cidr = "10.40.0.0/24"
  }
  expect_failures = [var.name, var.region, var.vpc_cidr]
}

run "a_public_range_is_no_vpc" {
  command = plan
  variables {
    vpc_cidr = "8.8.0.0/16"
  }
  expect_failures = [var.vpc_cidr]
}

run "the_internet_is_no_network_of_ours" {
  command = plan
  variables {
    api_allowed_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.api_allowed_cidrs]
}

run "a_cluster_without_an_administrator" {
  command = plan
  variables {
    cluster_admins = []
  }
  expect_failures = [var.cluster_admins]
}

run "sizes_that_contradict_each_other" {
  command = plan
  variables {
    nodes    = { serving = { instance_types = ["m7i.xlarge"], min = 4, max = 2, desired = 3 } }
    database = { storage_gb = 100, max_storage_gb = 50 }
    cache    = { replicas = 0 }
    stream   = { retention_hours = 1 }
  }
  expect_failures = [var.nodes, var.database, var.cache, var.stream]
}

run "production_is_not_made_cheaper_by_its_safety" {
  command = plan
  variables {
    zones               = ["a", "b"]
    database            = { multi_az = false }
    deletion_protection = false
  }
  expect_failures = [var.zones, var.database, var.deletion_protection]
}

run "secrets_that_a_connection_string_cannot_hold" {
  command = plan
  variables {
    redis_password = "short"
    kafka_password = "a password with blanks and, a comma"
  }
  expect_failures = [var.redis_password, var.kafka_password]
}

run "what_cloudwatch_and_a_budget_do_not_take" {
  command = plan
  variables {
    log_days           = 100
    kubernetes_version = "1.29"
    budget             = { usd = 100, emails = [] }
  }
  expect_failures = [var.log_days, var.kubernetes_version, var.budget]
}
