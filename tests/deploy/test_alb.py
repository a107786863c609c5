"""Errors in the ingress of the load balancer, which Kubernetes accepts, are found."""

import copy
import shutil
from typing import Any

import pytest
import yaml

from deploy.lint.alb import FOLDER, PREFIX, annotation_complaints
from deploy.lint.tool import BIN, output

SHIPPED: dict[str, Any] = yaml.safe_load((FOLDER / "ingress.yaml").read_text(encoding="utf-8"))


def complaints(name: str, value: object) -> list[str]:
    document = copy.deepcopy(SHIPPED)
    document["metadata"]["annotations"][PREFIX + name] = value
    return list(annotation_complaints([document]))


def test_what_ships_is_accepted() -> None:
    assert list(annotation_complaints([SHIPPED])) == []


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("schema", "internal", "reads no annotation"),
        ("ssl-redirect", 443, "put 443 into quotes"),
        ("scheme", "public", "internal|internet-facing"),
        ("listen-ports", '[{"HTTP": 80}', "Expecting"),
        ("inbound-cidrs", "203.0.113.1/24", "host bits set"),
        ("certificate-arn", "arn:aws:acm:eu-central-1:1:certificate/x", "expected"),
        ("target-group-attributes", "deregistration_delay.timeout_seconds", "expected"),
    ],
)
def test_an_error_is_found(name: str, value: object, complaint: str) -> None:
    assert any(complaint in line for line in complaints(name, value))


def test_actions_have_names_of_their_own() -> None:
    assert complaints("actions.blue-green", "{}") == []


@pytest.mark.slow
def test_a_misspelt_field_is_found() -> None:
    if not shutil.which("python", path=str(BIN)):
        pytest.skip("kubernetes-validate is not here: make deploy-tools")
    code = (
        "import yaml; from deploy.lint import alb, kubernetes; "
        "d = yaml.safe_load((alb.FOLDER / 'ingress.yaml').read_text()); d['spec']['ingressClazz'] = 'alb'; "
        "print(kubernetes.schema_complaints([d]))"
    )
    done, said = output(BIN / "python", "-c", code)
    assert done == 0
    assert "Ingress churn" in said and "ingressClazz" in said
