# A role for one service account of the cluster (IRSA): its token, and no other, may take the role.
variable "name" { type = string }
variable "issuer" {
  description = "The cluster's OIDC issuer without https://"
  type        = string
}
variable "provider_arn" { type = string }
variable "namespace" { type = string }
variable "service_account" { type = string }
variable "statements" {
  description = "Statements of the role's own policy; empty: none."
  type        = any
  default     = []
}
variable "managed_policy" {
  description = "Path of a policy that AWS maintains; empty: none."
  type        = string
  default     = ""
}

resource "aws_iam_role" "this" {
  name = var.name
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = var.provider_arn }
      Condition = {
        StringEquals = {
          "${var.issuer}:aud" = "sts.amazonaws.com"
          "${var.issuer}:sub" = "system:serviceaccount:${var.namespace}:${var.service_account}"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  count  = length(var.statements) > 0 ? 1 : 0
  name   = "own"
  role   = aws_iam_role.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = var.statements })
}

resource "aws_iam_role_policy_attachment" "this" {
  count      = var.managed_policy != "" ? 1 : 0
  role       = aws_iam_role.this.name
  policy_arn = "arn:aws:iam::aws:policy/${var.managed_policy}"
}

output "arn" { value = aws_iam_role.this.arn }
