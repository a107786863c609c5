# What a cluster needs before a pod of ours starts. The network comes before the nodes, the others need nodes.
resource "aws_eks_addon" "network" {
  cluster_name = aws_eks_cluster.this.name
  addon_name   = "vpc-cni"
  # without it, every NetworkPolicy of kserve/base is accepted and ignored
  configuration_values = jsonencode({ enableNetworkPolicy = "true" })
}

resource "aws_eks_addon" "proxy" {
  cluster_name = aws_eks_cluster.this.name
  addon_name   = "kube-proxy"
}

# metrics-server: the HPA reads CPU from it
resource "aws_eks_addon" "on_nodes" {
  for_each     = toset(["coredns", "metrics-server"])
  cluster_name = aws_eks_cluster.this.name
  addon_name   = each.key
  depends_on   = [aws_eks_node_group.this]
}

# Volumes, for Prometheus.
module "volumes_role" {
  source          = "../role"
  name            = "${var.prefix}-volumes"
  issuer          = local.issuer
  provider_arn    = aws_iam_openid_connect_provider.this.arn
  namespace       = "kube-system"
  service_account = "ebs-csi-controller-sa"
  managed_policy  = "service-role/AmazonEBSCSIDriverPolicy"
}

resource "aws_eks_addon" "volumes" {
  cluster_name             = aws_eks_cluster.this.name
  addon_name               = "aws-ebs-csi-driver"
  service_account_role_arn = module.volumes_role.arn
  depends_on               = [aws_eks_node_group.this]
}
