variable "prefix" { type = string }
variable "kubernetes_version" { type = string }
variable "subnet_ids" { type = list(string) }
variable "api_allowed_cidrs" { type = list(string) }
variable "admins" { type = list(string) }
variable "key_arn" { type = string }
variable "log_days" { type = number }
variable "protection" { type = bool }
variable "nodes" {
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    desired        = number
    disk_gb        = number
    jobs_only      = bool
  }))
}
