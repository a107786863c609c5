variable "name" {
  description = "Prefix of all names: lower-case letters, digits and hyphens."
  type        = string
  default     = "churn"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name has 3 to 20 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "environment" {
  description = "production or staging; it is a part of all names."
  type        = string

  validation {
    condition     = contains(["production", "staging"], var.environment)
    error_message = "environment is production or staging."
  }
}

variable "region" {
  description = "AWS region, as eu-central-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region is the name of an AWS region, as eu-central-1."
  }
}

variable "zones" {
  description = "Letters of the availability zones, two or three. Brokers, replicas and nodes are spread over them."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition = (
      contains([2, 3], length(var.zones)) && length(distinct(var.zones)) == length(var.zones)
      && alltrue([for zone in var.zones : can(regex("^[a-f]$", zone))])
    )
    error_message = "zones names two or three different zones by their letters, as [\"a\", \"b\", \"c\"]."
  }
  validation {
    condition     = length(var.zones) == 3 || var.environment != "production"
    error_message = "zones names three zones in production: of two Kafka brokers, none may fail without loss."
  }
}

variable "vpc_cidr" {
  description = "Private IPv4 range of the VPC, /16 to /19; a load balancer needs subnets of /27 or larger."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition = (
      can(cidrnetmask(var.vpc_cidr)) && can(regex("/1[6-9]$", var.vpc_cidr))
      && can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.vpc_cidr))
    )
    error_message = "vpc_cidr is a private IPv4 range from /16 to /19, as 10.40.0.0/16."
  }
}

variable "single_nat" {
  description = "One NAT gateway for all zones: cheaper, but without its zone no node reaches the internet."
  type        = bool
  default     = false
}

variable "kubernetes_version" {
  description = "Minor version of EKS. KServe 0.21 needs 1.32 or later."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.(3[2-9]|4[0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version is 1.32 or later, as 1.34."
  }
}

variable "api_allowed_cidrs" {
  description = "Networks that may reach the cluster's API from outside of the VPC; empty: none, then work through a VPN."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.api_allowed_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")
    ])
    error_message = "api_allowed_cidrs are IPv4 networks of yours, as 203.0.113.0/24; not the whole internet."
  }
}

variable "cluster_admins" {
  description = "ARNs of the IAM roles that administrate the cluster; whoever runs Terraform is no administrator by that alone."
  type        = list(string)

  validation {
    condition = length(var.cluster_admins) > 0 && alltrue([
      for arn in var.cluster_admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", arn))
    ])
    error_message = "cluster_admins has at least one ARN of an IAM role; without one, nobody reaches the cluster."
  }
}

variable "nodes" {
  description = "Groups of nodes by name: instance types, smallest, largest and first count, disk in GB, and whether only jobs run there."
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    desired        = number
    disk_gb        = optional(number, 80)
    jobs_only      = optional(bool, false)
  }))
  default = {
    serving = { instance_types = ["m7i.xlarge"], min = 3, max = 6, desired = 3 }
    jobs    = { instance_types = ["m7i.2xlarge"], min = 0, max = 4, desired = 0, jobs_only = true }
  }

  validation {
    condition = anytrue([for group in var.nodes : !group.jobs_only && group.min >= 2]) && alltrue([
      for group in var.nodes :
      0 <= group.min && group.min <= group.desired && group.desired <= group.max && group.disk_gb >= 50
    ])
    error_message = "Of each group in nodes, 0 <= min <= desired <= max and disk_gb >= 50; one group that is not jobs_only has min >= 2."
  }
}

variable "database" {
  description = "RDS PostgreSQL: MLflow, Optuna, Feast's registry, rollouts and retraining."
  type = object({
    instance_class = optional(string, "db.m7g.large")
    storage_gb     = optional(number, 100)
    max_storage_gb = optional(number, 500)
    multi_az       = optional(bool, true)
    backup_days    = optional(number, 14)
  })
  default = {}

  validation {
    condition     = var.database.backup_days >= 7 && var.database.backup_days <= 35
    error_message = "database.backup_days is 7 to 35."
  }
  validation {
    condition     = var.database.storage_gb >= 20 && var.database.max_storage_gb > var.database.storage_gb
    error_message = "database.storage_gb is at least 20, and max_storage_gb is larger: storage grows up to it."
  }
  validation {
    condition     = startswith(var.database.instance_class, "db.")
    error_message = "database.instance_class is a class of RDS, as db.m7g.large."
  }
  validation {
    condition     = var.database.multi_az || var.environment != "production"
    error_message = "database.multi_az is true in production."
  }
}

variable "cache" {
  description = "ElastiCache Redis: online features. Replicas take over when the primary fails."
  type = object({
    node_type = optional(string, "cache.m7g.large")
    replicas  = optional(number, 1)
  })
  default = {}

  validation {
    condition     = startswith(var.cache.node_type, "cache.") && var.cache.replicas >= 1 && var.cache.replicas <= 5
    error_message = "cache.node_type is a type of ElastiCache, as cache.m7g.large, and cache.replicas is 1 to 5."
  }
}

variable "stream" {
  description = "MSK: the prediction log and purchases."
  type = object({
    instance_type    = optional(string, "kafka.m7g.large")
    brokers_per_zone = optional(number, 1)
    storage_gb       = optional(number, 100)
    retention_hours  = optional(number, 168)
  })
  default = {}

  validation {
    condition     = startswith(var.stream.instance_type, "kafka.") && contains([1, 2, 3, 4, 5], var.stream.brokers_per_zone)
    error_message = "stream.instance_type is a type of MSK, as kafka.m7g.large, and stream.brokers_per_zone is 1 to 5."
  }
  validation {
    condition     = var.stream.storage_gb >= 10 && var.stream.retention_hours >= 24
    error_message = "stream.storage_gb is at least 10, and stream.retention_hours at least 24: a consumer may be away for a day."
  }
}

variable "deletion_protection" {
  description = "Refuse the deletion of cluster and database, and of buckets that are not empty."
  type        = bool
  default     = true

  validation {
    condition     = var.deletion_protection || var.environment != "production"
    error_message = "deletion_protection is true in production."
  }
}

variable "log_days" {
  description = "Days that CloudWatch stores logs."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_days)
    error_message = "log_days is one of 30, 60, 90, 120, 150, 180, 365, 400, 545 and 731: CloudWatch has no other."
  }
}

variable "budget" {
  description = "USD a month, and who receives a message at 80 % of it and when a forecast exceeds it."
  type = object({
    usd    = number
    emails = list(string)
  })

  validation {
    condition = (
      var.budget.usd > 0 && length(var.budget.emails) > 0
      && alltrue([for email in var.budget.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    )
    error_message = "budget has usd above 0 and at least one address in emails."
  }
}

variable "redis_password" {
  description = "Password of the user churn in Redis, 24 to 128 characters, from TF_VAR_redis_password. Not in the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{24,128}$", var.redis_password))
    error_message = "redis_password has 24 to 128 letters, digits, hyphens and underscores: others need quotes in Feast's connection string."
  }
}

variable "kafka_password" {
  description = "Password of the user churn in Kafka (SCRAM), from TF_VAR_kafka_password. Not in the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{24,128}$", var.kafka_password))
    error_message = "kafka_password has 24 to 128 letters, digits, hyphens and underscores."
  }
}

variable "passwords_version" {
  description = "Raise it by one to set both passwords anew: Terraform cannot compare what it does not store."
  type        = number
  default     = 1

  validation {
    condition     = var.passwords_version >= 1 && floor(var.passwords_version) == var.passwords_version
    error_message = "passwords_version is a whole number from 1."
  }
}
