terraform {
  required_version = ">= 1.11" # write-only arguments: passwords pass through and are not in the state

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.69"
    }
  }

  # Where the state is stored: `terraform init -backend-config=backend.hcl` (docs/production.md, step 1).
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}
