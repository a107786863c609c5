"""A CycloneDX bill of materials: the packages that serving needs, with their dependencies."""

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from core.errors import PackagingError
from data.config import utc_text

PROJECT, EXTRA = "churn-prediction", "serve"
"""The extra in pyproject.toml that lists the packages of a worker."""


def sbom(name: str, when: datetime, roots: Iterable[str] | None = None) -> str:
    """CycloneDX 1.6 as JSON: `name`, each package that it needs with its version, and the dependencies.

    `roots` are requirements, by default those of the serving image. The versions are the installed ones,
    which are those that the gates measured. Equal environments and times give equal bytes. Raises
    PackagingError for a package that is not installed.
    """
    requirements = sorted(serve_requirements() if roots is None else roots)
    needs = _closure(requirements)
    references = {package: _reference(package) for package in needs}
    content: dict[str, Any] = {
        "metadata": {
            "timestamp": utc_text(when),
            "component": {"type": "machine-learning-model", "bom-ref": name, "name": name},
        },
        "components": [_component(package, references[package]) for package in sorted(needs)],
        "dependencies": [
            {
                "ref": name,
                "dependsOn": sorted(
                    {references[canonicalize_name(Requirement(r).name)] for r in requirements}
                ),
            },
            *(
                {"ref": references[package], "dependsOn": sorted(references[need] for need in found)}
                for package, found in sorted(needs.items())
            ),
        ],
    }
    digest = json.dumps(content, sort_keys=True)
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
    }
    return json.dumps(head | content, indent=1) + "\n"


def serve_requirements() -> list[str]:
    """The requirements of the extra `serve` in pyproject.toml. Raises PackagingError if it has none."""
    found = [
        requirement
        for requirement in map(Requirement, _installed(PROJECT).requires or ())
        if requirement.marker is not None
        and requirement.marker.evaluate({"extra": EXTRA})
        and not requirement.marker.evaluate({"extra": ""})
    ]
    if not found:
        raise PackagingError(f"{PROJECT}: installed before it had the extra {EXTRA}; run `make install`")
    for requirement in found:
        requirement.marker = None
    return [str(requirement) for requirement in found]


def _closure(roots: Iterable[str]) -> Mapping[str, set[str]]:
    """Each package of `roots` and of their dependencies, and its direct dependencies."""
    needs: dict[str, set[str]] = {}
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        # the empty extra is the package without extras
        new = {"", *requirement.extras} - extras.setdefault(package, set())
        extras[package] |= new
        found = needs.setdefault(package, set())
        for text in (_installed(package).requires or ()) if new else ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in new):
                found.add(canonicalize_name(need.name))
                waiting.append(need)
    return needs


def _component(package: str, reference: str) -> dict[str, Any]:
    found = _installed(package)
    component: dict[str, Any] = {"type": "library", "bom-ref": reference, "name": package}
    component["version"] = found.version
    expressions = found.metadata.get_all("License-Expression", [])
    if expressions:
        component["licenses"] = [{"expression": expressions[0]}]
    return component | {"purl": reference}


def _reference(package: str) -> str:
    """The package URL of one version of one package."""
    return f"pkg:pypi/{package}@{quote(_installed(package).version, safe='.-_~')}"


def _installed(package: str) -> Distribution:
    try:
        return distribution(package)
    except PackageNotFoundError:
        raise PackagingError(f"{package}: needed for serving and not installed; run `make install`") from None
