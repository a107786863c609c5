variable "prefix" { type = string }
variable "region" { type = string }
variable "account" { type = string }
variable "cluster_name" { type = string }
variable "issuer" { type = string }
variable "provider_arn" { type = string }
variable "key_arn" { type = string }
variable "buckets" {
  description = "ARNs of the buckets by purpose: data, artifacts, models."
  type        = map(string)
}
variable "secret_arns" {
  description = "The secrets that External Secrets may read."
  type        = list(string)
}
