output "cluster" {
  description = "`aws eks update-kubeconfig --name` takes it."
  value       = module.cluster.name
}

output "vpc_id" {
  description = "The load balancer controller asks for it."
  value       = module.network.vpc_id
}

output "store_cidrs" {
  description = "Networks of the stores: the ipBlocks of the NetworkPolicy churn-predictor."
  value       = module.network.store_cidrs
}

output "buckets" {
  description = "Names of the buckets by purpose."
  value       = module.storage.names
}

output "repositories" {
  description = "Where `churn-serve` and `churn-train` are pushed."
  value       = module.images.urls
}

output "database" {
  description = "Host and port of PostgreSQL, and the secret that RDS made for its administrator."
  value = {
    address    = module.database.address
    port       = 5432
    secret_arn = module.database.master_secret_arn
  }
}

output "redis" {
  description = "Host of Redis for Feast's connection string: HOST:6379,username=churn,password=...,ssl=true"
  value       = module.cache.address
}

output "kafka" {
  description = "Brokers of Kafka, SASL_SSL with SCRAM-SHA-512."
  value       = module.stream.brokers
}

output "roles" {
  description = "ARNs by service account, for the annotation eks.amazonaws.com/role-arn."
  value       = module.identity.arns
}

output "secrets" {
  description = "Secrets without a value; docs/production.md has the command for each."
  value       = module.secrets.names
}
