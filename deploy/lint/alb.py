"""deploy/alb: manifests by Kubernetes' schema, and the annotations of the load balancer, free text to it."""

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from deploy.lint.kubernetes import schema_complaints
from deploy.lint.tool import DEPLOY

FOLDER = DEPLOY / "alb"
PREFIX = "alb.ingress.kubernetes.io/"


def _json(text: str) -> None:
    json.loads(text)


def _networks(text: str) -> None:
    for network in text.split(","):
        ipaddress.ip_network(network.strip())


def _form(pattern: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {pattern}")

    return check


ATTRIBUTES = _form(r"[a-z0-9_.]+=[^,=]+(,[a-z0-9_.]+=[^,=]+)*")
VALUES: Mapping[str, Callable[[str], None]] = {
    "scheme": _form("internal|internet-facing"),
    "target-type": _form("ip|instance"),
    "ip-address-type": _form("ipv4|dualstack|dualstack-without-public-ipv4"),
    "listen-ports": _json,
    "ssl-redirect": _form(r"\d+"),
    "certificate-arn": _form(r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}"),
    "wafv2-acl-arn": _form(r"arn:aws[a-z-]*:wafv2:[a-z0-9-]+:\d{12}:regional/webacl/[^/]+/[0-9a-f-]{36}"),
    "inbound-cidrs": _networks,
    "healthcheck-path": _form("/.*"),
    "healthcheck-interval-seconds": _form(r"\d+"),
    "success-codes": _form(r"\d{3}([,-]\d{3})*"),
    "load-balancer-attributes": ATTRIBUTES,
    "target-group-attributes": ATTRIBUTES,
}
"""Checks of values, for the annotations that the manifests here have. Each raises ValueError."""


def complaints() -> list[str]:
    """What is wrong with the manifests. Raises Missing."""
    files = sorted(FOLDER.glob("*.yaml"))
    documents = [d for file in files for d in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return [*annotation_complaints(documents), *schema_complaints(documents)]


def annotation_complaints(documents: list[Mapping[str, Any]]) -> Iterator[str]:
    """Annotations that the controller does not read, and values that it cannot."""
    lines = (FOLDER / "annotations.txt").read_text(encoding="utf-8").splitlines()
    known = {line for line in lines if line and not line.startswith("#")}
    for document in documents:
        metadata = document.get("metadata", {})
        for name, value in metadata.get("annotations", {}).items():
            if not name.startswith(PREFIX):
                continue
            suffix = name.removeprefix(PREFIX)
            if suffix not in known and not suffix.startswith(("actions.", "conditions.")):
                yield f"{metadata['name']}: the controller reads no annotation {name}"
            elif not isinstance(value, str):
                yield f"{metadata['name']}: {name}: an annotation is text; put {value} into quotes"
            elif suffix in VALUES:
                try:
                    VALUES[suffix](value)
                except ValueError as error:
                    yield f"{metadata['name']}: {name}: {value!r}: {error}"
