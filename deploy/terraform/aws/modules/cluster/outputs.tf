locals {
  issuer = trimprefix(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://")
}

output "name" { value = aws_eks_cluster.this.name }
output "issuer" { value = local.issuer }
output "oidc_provider_arn" { value = aws_iam_openid_connect_provider.this.arn }
output "security_group_id" { value = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id }
