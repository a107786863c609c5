"""deploy/kong/kong.yaml: by deck, which sees no plugin, by our schema of the plugins, and further rules."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from deploy.lint.tool import DEPLOY, Missing, find, output

FILE = DEPLOY / "kong" / "kong.yaml"
PERIODS = ("second", "minute", "hour", "day", "month", "year")


def complaints() -> list[str]:
    """What is wrong with the file. Raises Missing, without deck, once our own checks have found nothing."""
    found = own_complaints(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    if found:
        return found
    try:
        deck = find("deck", "apt-get install deck")
    except Missing as missing:
        raise Missing(f"{missing}; the schema of the plugins found nothing") from missing
    code, said = output(deck, "validate", "--state", FILE)
    return said.splitlines() if code != 0 else []


def own_complaints(document: Mapping[str, Any]) -> list[str]:
    """Complaints of the JSON schema, and of the rules that span several fields; each names its place."""
    schema = json.loads((DEPLOY / "kong" / "schema.json").read_text(encoding="utf-8"))
    errors = [
        f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(document)
    ]
    return errors or [*_periods(document), *_references(document)]


def _periods(document: Mapping[str, Any]) -> Iterator[str]:
    """A limit for a longer time that is lower than one for a shorter: Kong refuses to start."""
    for place, plugin in _plugins(document):
        limits = [(period, plugin["config"][period]) for period in PERIODS if period in plugin["config"]]
        for (short, few), (long, many) in pairwise(limits):
            if many < few:
                yield f"{place}.{plugin['name']}: {many} a {long} is fewer than {few} a {short}"


def _references(document: Mapping[str, Any]) -> Iterator[str]:
    """A service without its upstream, and a route for groups that no consumer has."""
    upstreams = {upstream["name"] for upstream in document["upstreams"]}
    for service in document["services"]:
        if "." not in service["host"] and service["host"] not in upstreams:
            yield f"services.{service['name']}.host: there is no upstream {service['host']}"
    groups = {acl["group"] for consumer in document["consumers"] for acl in consumer["acls"]}
    for place, plugin in _plugins(document):
        for group in plugin["config"].get("allow", []) if plugin["name"] == "acl" else []:
            if group not in groups:
                yield f"{place}.acl.allow: no consumer has the group {group}"


def _plugins(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from (("plugins", plugin) for plugin in document["plugins"])
    for service in document["services"]:
        for holder in (service, *service["routes"]):
            yield from ((holder["name"], plugin) for plugin in holder.get("plugins", []))
