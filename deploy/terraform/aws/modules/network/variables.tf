variable "prefix" { type = string }
variable "region" { type = string }
variable "zones" { type = list(string) }
variable "cidr" { type = string }
variable "single_nat" { type = bool }
variable "key_arn" { type = string }
variable "log_days" { type = number }
