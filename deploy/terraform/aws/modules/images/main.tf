# A repository for each image. A tag, once pushed, cannot be moved: what was tested is what starts.
variable "prefix" { type = string }
variable "key_arn" { type = string }
variable "names" { type = set(string) }

resource "aws_ecr_repository" "this" {
  for_each             = var.names
  name                 = "${var.prefix}/${each.key}"
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }
  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each   = var.names
  repository = aws_ecr_repository.this[each.key].name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "The newest 30 images stay"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 30 }
      action       = { type = "expire" }
    }]
  })
}

output "urls" { value = { for name, repository in aws_ecr_repository.this : name => repository.repository_url } }
