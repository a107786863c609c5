"""Errors in Kong's configuration that deck does not see are found by our checks."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deploy.lint.kong import FILE, own_complaints

SHIPPED: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def plugin(document: dict[str, Any], name: str) -> dict[str, Any]:
    route = document["services"][0]["routes"][0]
    config = next(p for p in (*route["plugins"], *document["plugins"]) if p["name"] == name)["config"]
    assert isinstance(config, dict)
    return config


def test_what_ships_is_accepted() -> None:
    assert own_complaints(SHIPPED) == []


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda d: plugin(d, "rate-limiting").update(minut=5), "'minut' was unexpected"),
        (lambda d: plugin(d, "rate-limiting").update(policy="locall"), "'locall' is not one of"),
        (lambda d: plugin(d, "rate-limiting").update(policy="cluster"), "'cluster' is not one of"),
        (lambda d: plugin(d, "rate-limiting").pop("redis"), "'redis' is a required property"),
        (lambda d: plugin(d, "rate-limiting")["redis"].update(password="x"), "does not match"),
        (lambda d: plugin(d, "rate-limiting").update(minute=100), "100 a minute is fewer than 200 a second"),
        (lambda d: plugin(d, "key-auth").update(key_namez=[]), "'key_namez' was unexpected"),
        (lambda d: plugin(d, "key-auth").update(key_in_query=True), "False was expected"),
        (lambda d: plugin(d, "key-auth").update(hide_credentials=False), "True was expected"),
        (lambda d: plugin(d, "acl").update(deny=["x"]), "is valid under each of"),
        (
            lambda d: plugin(d, "acl").update(allow=["churn-writers"]),
            "no consumer has the group churn-writers",
        ),
        (lambda d: plugin(d, "request-size-limiting").update(size_unit="mb"), "'mb' is not one of"),
        (lambda d: plugin(d, "correlation-id").update(generator="uuid4"), "'uuid4' is not one of"),
        (lambda d: plugin(d, "prometheus").update(per_customer=True), "'per_customer' was unexpected"),
        (lambda d: d["plugins"].append({"name": "oauth2", "config": {}}), "'oauth2' is not one of"),
        (lambda d: d["services"][0].update(host="elsewhere"), "there is no upstream elsewhere"),
        (lambda d: d["services"][0]["routes"][0].update(paths=["v1"]), "does not match"),
        (lambda d: d["upstreams"][0]["targets"][0].update(weight=-1), "less than the minimum"),
        (lambda d: d["consumers"][0]["keyauth_credentials"][0].update(key="written"), "does not match"),
        (lambda d: d["upstreams"][0]["healthchecks"]["active"].update(intervall=5), "'intervall' was unexp"),
    ],
)
def test_an_error_is_found(harm: Callable[[dict[str, Any]], object], complaint: str) -> None:
    document = copy.deepcopy(SHIPPED)
    harm(document)
    found = own_complaints(document)
    assert any(complaint in line for line in found), found


def test_the_limit_of_a_body_is_that_of_the_server() -> None:
    serving = yaml.safe_load((FILE.parents[2] / "configs" / "serving.yaml").read_text(encoding="utf-8"))
    limit = plugin(SHIPPED, "request-size-limiting")
    assert (limit["allowed_payload_size"], limit["size_unit"]) == (serving["max_request_bytes"], "bytes")
