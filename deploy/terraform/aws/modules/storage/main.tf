# Four buckets: data (sources and records), artifacts (MLflow), models (archives that pods load), and logs of access to them.
variable "prefix" { type = string }
variable "key_arn" { type = string }
variable "protection" { type = bool }

locals {
  purposes = toset(["data", "artifacts", "models", "logs"])
  logged   = setsubtract(local.purposes, ["logs"])
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:aws_s3_bucket_logging below logs data, artifacts and models; the logs' own bucket would log itself
  #checkov:skip=CKV_AWS_144:one region: docs/production.md states what a lost region costs and how to restore elsewhere
  #checkov:skip=CKV_AWS_145:S3 delivers access logs only to a bucket without a key of KMS; the others have ours
  #checkov:skip=CKV2_AWS_62:no program of the platform waits for events of a bucket
  for_each      = local.purposes
  bucket        = "${var.prefix}-${each.key}"
  force_destroy = !var.protection
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.purposes
  bucket   = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.purposes
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      # S3 delivers access logs only to a bucket that has no key of KMS
      sse_algorithm     = each.key == "logs" ? "AES256" : "aws:kms"
      kms_master_key_id = each.key == "logs" ? null : var.key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.purposes
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.purposes
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# Old versions of objects stay for 90 days: a deleted archive or delivery can be brought back until then.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.purposes
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    id     = "old"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
    dynamic "expiration" {
      for_each = each.key == "logs" ? [365] : []
      content {
        days = expiration.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.purposes
  bucket   = aws_s3_bucket.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "EncryptedConnectionsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      each.key != "logs" ? [] : [{
        Sid       = "AccessLogs"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.this[each.key].arn}/*"
        Condition = { ArnLike = { "aws:SourceArn" = [for purpose in local.logged : aws_s3_bucket.this[purpose].arn] } }
      }],
    )
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_logging" "this" {
  for_each      = local.logged
  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = aws_s3_bucket.this["logs"].id
  target_prefix = "${each.key}/"
}

output "names" { value = { for purpose, bucket in aws_s3_bucket.this : purpose => bucket.bucket } }
output "arns" { value = { for purpose, bucket in aws_s3_bucket.this : purpose => bucket.arn } }
