# Who in the cluster may do what in AWS: one role for each service account, each with what it does and nothing more.
locals {
  decrypt = { Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.key_arn] }
  encrypt = { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.key_arn] }

  list = { for purpose, arn in var.buckets : purpose => {
    Effect = "Allow", Action = ["s3:ListBucket", "s3:GetBucketLocation"], Resource = [arn]
  } }
  read = { for purpose, arn in var.buckets : purpose => {
    Effect = "Allow", Action = ["s3:GetObject"], Resource = ["${arn}/*"]
  } }
  # an object can be replaced and is then an older version; no pod deletes versions
  write = { for purpose, arn in var.buckets : purpose => {
    Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], Resource = ["${arn}/*"]
  } }
  delete = { for purpose, arn in var.buckets : purpose => {
    Effect = "Allow", Action = ["s3:DeleteObject"], Resource = ["${arn}/*"]
  } }

  roles = {
    # the pods that answer: the archive, nothing else
    churn-models = { namespace = "churn", statements = [local.list["models"], local.read["models"], local.decrypt] }
    # the controller: looks at archives, compares signatures
    churn-rollout = { namespace = "churn", statements = [local.list["models"], local.read["models"], local.decrypt] }
    # training, scoring and retraining: records in and out, a new archive; `churn forget` deletes records
    churn-jobs = {
      namespace = "churn"
      statements = [
        local.list["data"], local.write["data"], local.delete["data"], local.list["models"], local.write["models"], local.encrypt,
      ]
    }
    # MLflow's server is the only one that touches artifacts: clients go through it
    mlflow = {
      namespace  = "mlflow"
      statements = [local.list["artifacts"], local.write["artifacts"], local.delete["artifacts"], local.encrypt]
    }
    external-secrets = {
      namespace = "external-secrets"
      statements = [
        { Effect = "Allow", Action = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], Resource = var.secret_arns },
        local.decrypt,
      ]
    }
    cluster-autoscaler = {
      namespace = "kube-system"
      statements = [
        {
          Effect = "Allow"
          Action = [
            "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances",
            "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities",
            "ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions",
            "ec2:GetInstanceTypesFromInstanceRequirements", "eks:DescribeNodegroup",
          ]
          Resource = ["*"] # these actions know no resources
        },
        {
          Effect    = "Allow"
          Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
          Resource  = ["*"]
          Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.cluster_name}" = "owned" } }
        },
      ]
    }
    aws-load-balancer-controller = {
      namespace  = "kube-system"
      statements = local.load_balancer
    }
  }
}

module "role" {
  source          = "../role"
  for_each        = local.roles
  name            = "${var.prefix}-${each.key}"
  issuer          = var.issuer
  provider_arn    = var.provider_arn
  namespace       = each.value.namespace
  service_account = each.key
  statements      = each.value.statements
}

output "arns" { value = { for account, role in module.role : account => role.arn } }
