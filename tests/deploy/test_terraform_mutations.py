"""Each assertion of deploy/terraform/aws/tests fails when the line that it guards is broken, and no other
assertion does.

The lines are broken in two halves, so that the assertions of the other half show that a break is noticed
where it is.
"""

import json
from pathlib import Path

import pytest

from deploy.lint.terraform import SOURCE, START, copied, terraform
from deploy.lint.tool import Missing

# file below modules/, the line as it is, the line broken, the beginning of the message that has to appear
MUTATIONS = [
    (
        "network/main.tf",
        "var.single_nat ? { (var.zones[0]) = 0 } : local.zones",
        "{ (var.zones[0]) = 0 }",
        "Each zone has",
    ),
    (
        "network/main.tf",
        "cidrsubnet(var.cidr, 4, 4 + each.value)",
        "cidrsubnet(var.cidr, 4, 1 + each.value)",
        "Nine subnets",
    ),
    (
        "network/main.tf",
        "map_public_ip_on_launch = false",
        "map_public_ip_on_launch = true",
        "No machine gets",
    ),
    (
        "network/main.tf",
        '"kubernetes.io/role/elb" = "1"',
        '"kubernetes.io/role/elb" = "0"',
        "The load balancer controller",
    ),
    ("network/flow_log.tf", 'traffic_type    = "ALL"', 'traffic_type    = "REJECT"', "Flow logs have"),
    (
        "network/main.tf",
        'tags   = { Name = "${var.prefix}-stores" }',
        'route {\n cidr_block = "0.0.0.0/0"\n gateway_id = aws_internet_gateway.this.id\n }',
        "Subnets of stores",
    ),
    (
        "cluster/main.tf",
        "endpoint_public_access  = length(var.api_allowed_cidrs) > 0",
        "endpoint_public_access = true",
        "Without api_allowed",
    ),
    ("cluster/main.tf", 'resources = ["secrets"]', "resources = []", "Kubernetes' Secrets"),
    ("cluster/main.tf", '["api", "audit", "authenticator"', '["api", "authenticator"', "The audit log"),
    (
        "cluster/main.tf",
        "creator_admin_permissions = false",
        "creator_admin_permissions = true",
        "Who runs Terraform",
    ),
    (
        "cluster/main.tf",
        "> 0 ? var.api_allowed_cidrs : null",
        '> 0 ? ["0.0.0.0/0"] : null',
        "With api_allowed_cidrs",
    ),
    (
        "cluster/nodes.tf",
        "http_put_response_hop_limit = 1",
        "http_put_response_hop_limit = 2",
        "A pod cannot take",
    ),
    ("cluster/nodes.tf", 'effect = "NO_SCHEDULE"', 'effect = "PREFER_NO_SCHEDULE"', "Only jobs that"),
    (
        "cluster/addons.tf",
        'enableNetworkPolicy = "true"',
        'enableNetworkPolicy = "false"',
        "NetworkPolicies are",
    ),
    (
        "database/main.tf",
        "storage_encrypted     = true",
        "storage_encrypted     = false",
        "The database is encrypted",
    ),
    (
        "database/main.tf",
        "publicly_accessible    = false",
        "publicly_accessible    = true",
        "The database has no public",
    ),
    (
        "database/main.tf",
        "manage_master_user_password   = true",
        "manage_master_user_password   = false",
        "RDS makes",
    ),
    (
        "database/main.tf",
        'name  = "rds.force_ssl"\n    value = "1"',
        'name  = "rds.force_ssl"\n    value = "0"',
        "PostgreSQL refuses",
    ),
    (
        "database/main.tf",
        "referenced_security_group_id = var.client_group_id",
        'cidr_ipv4 = "0.0.0.0/0"',
        "Only the cluster reaches",
    ),
    (
        "database/main.tf",
        "skip_final_snapshot        = false",
        "skip_final_snapshot        = true",
        "The database is not deleted",
    ),
    ("database/main.tf", "= var.settings.backup_days", "= 1", "multi_az and backup_days"),
    (
        "cache/main.tf",
        "transit_encryption_enabled = true",
        "transit_encryption_enabled = false",
        "Redis is encrypted",
    ),
    ("cache/main.tf", "1 + var.settings.replicas", "1", "A replica takes over"),
    ("cache/main.tf", '"off -@all"', '"on ~* +@all"', "Who names no user"),
    ("cache/main.tf", "+@all -@admin -@dangerous", "+@all -@admin", "The platform's user"),
    (
        "cache/main.tf",
        "passwords_wo         = var.password",
        'passwords = ["in-the-state"]',
        "Redis' password",
    ),
    ("cache/main.tf", '"noeviction"', '"allkeys-lru"', "A full Redis"),
    ("stream/main.tf", "max(1, local.replicas - 1)", "1", "An acknowledged record"),
    (
        "stream/main.tf",
        "unclean.leader.election.enable=false",
        "unclean.leader.election.enable=true",
        "A broker that lacks",
    ),
    ("stream/main.tf", "unauthenticated = false", "unauthenticated = true", "Clients of Kafka"),
    ("stream/main.tf", 'client_broker = "TLS"', 'client_broker = "TLS_PLAINTEXT"', "Kafka accepts TLS"),
    ("stream/main.tf", '"AmazonMSK_${var.prefix}"', '"${var.prefix}-kafka"', "MSK takes a user"),
    (
        "stream/main.tf",
        'secret_string_wo         = jsonencode({ username = "churn", password = var.password })',
        'secret_string = "in-the-state"',
        "Kafka's password",
    ),
    ("storage/main.tf", 'status = "Enabled"\n  }\n}', 'status = "Suspended"\n  }\n}', "Each bucket keeps"),
    (
        "storage/main.tf",
        'each.key == "logs" ? null : var.key_arn',
        'each.key == "logs" ? null : "alias/aws/s3"',
        "Data, artifacts and models",
    ),
    (
        "storage/main.tf",
        "block_public_policy     = true",
        "block_public_policy     = false",
        "No bucket can be",
    ),
    (
        "storage/main.tf",
        '"aws:SecureTransport" = "false"',
        '"aws:SecureTransport" = "true"',
        "No bucket answers",
    ),
    (
        "storage/main.tf",
        "force_destroy = !var.protection",
        "force_destroy = true",
        "A bucket that is not empty",
    ),
    ("images/main.tf", '"IMMUTABLE"', '"MUTABLE"', "A tag of an image"),
    (
        "identity/main.tf",
        'churn-models = { namespace = "churn", statements = [local.list["models"], local.read["models"]',
        'churn-models = { namespace = "churn", statements = [local.list["models"], local.write["models"]',
        "The pods that answer cannot",
    ),
    (
        "identity/main.tf",
        'churn-models = { namespace = "churn", statements = [local.list["models"]',
        'churn-models = { namespace = "churn", statements = [local.list["data"]',
        "The pods that answer reach",
    ),
    (
        "identity/main.tf",
        '["s3:DeleteObject"]',
        '["s3:DeleteObject", "s3:DeleteObjectVersion"]',
        "No pod deletes",
    ),
    ("identity/main.tf", '"secretsmanager:DescribeSecret"', '"secretsmanager:*"', "No role has a wildcard"),
    ("identity/main.tf", "Resource = var.secret_arns", 'Resource = ["*"]', "Only the two controllers"),
    ("identity/main.tf", "    mlflow = {", "    tracking = {", "There is one role"),
    (
        "role/main.tf",
        "system:serviceaccount:${var.namespace}:${var.service_account}",
        "system:serviceaccount:*",
        "One service account",
    ),
]


def broken_messages(folder: Path) -> list[str]:
    """The messages of the assertions that fail in a configuration, and every other error."""
    for arguments in (["init", "-backend=false"], ["test", "-json", "-filter=tests/platform.tftest.hcl"]):
        code, said = terraform(arguments, folder)
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    errors = [
        e["diagnostic"]
        for e in events
        if e.get("type") == "diagnostic" and e["diagnostic"]["severity"] == "error"
    ]
    assert code == (1 if errors else 0)
    return [
        e["detail"] if e["summary"] == "Test assertion failed" else f"{e['summary']}: {e['detail']}"
        for e in errors
    ]


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_each_assertion_fails_when_its_line_is_broken(half: int, tmp_path: Path) -> None:
    folder = copied(SOURCE, tmp_path)
    broken = MUTATIONS[half::2]
    for name, line, wrong, _ in broken:
        file = folder / "modules" / name
        text = file.read_text(encoding="utf-8")
        assert line in text, f"{name} has no longer: {line}"
        file.write_text(text.replace(line, wrong, 1), encoding="utf-8")
    try:
        found = broken_messages(folder)
    except Missing as missing:
        pytest.skip(str(missing))
    expected = {message for *_, message in broken}
    unnoticed = {message for message in expected if not any(f.startswith(message) for f in found)}
    # whatever else fails has its line among the broken ones
    others = [f for f in found if not any(f.startswith(message) for message in expected)]
    assert (unnoticed, others) == (set(), [])


def test_the_list_has_each_assertion_of_the_modules() -> None:
    text = (SOURCE / "tests" / "platform.tftest.hcl").read_text(encoding="utf-8")
    messages = [line.split('"')[1] for line in text.splitlines() if line.strip().startswith("error_message")]
    listed = [message for *_, message in MUTATIONS]
    composed = ("With single_nat", "The outputs have", "The name of a bucket", "A message is sent")
    assert [m for m in messages if not m.startswith((*listed, *composed))] == []
    assert len(listed) >= 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line", "wrong", "complaint"),
    [
        ("storage/main.tf", "force_destroy =", "force_destoy =", 'Did you mean "force_destroy"?'),
        (
            "cache/main.tf",
            "node_type            =",
            "node_typ =",
            'argument named "node_typ" is not expected',
        ),
        ("network/main.tf", 'resource "aws_eip" "nat"', 'resource "aws_eipp" "nat"', "Invalid resource type"),
        ("network/outputs.tf", "aws_vpc.this.id ", "aws_vpc.this.idd ", "Unsupported attribute"),
    ],
)
def test_a_misspelt_name_is_found(name: str, line: str, wrong: str, complaint: str, tmp_path: Path) -> None:
    """Without a provider of AWS, and by the schema of that provider."""
    folder = copied(SOURCE, tmp_path)
    file = folder / "modules" / name
    text = file.read_text(encoding="utf-8")
    assert line in text
    file.write_text(text.replace(line, wrong, 1), encoding="utf-8")
    try:
        for arguments in START:
            code, said = terraform(arguments, folder)
    except Missing as missing:
        pytest.skip(str(missing))
    assert code == 1 and complaint in " ".join(said.split())
