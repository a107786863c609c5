import json
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from core.errors import PackagingError
from training.archive.sbom import sbom, serve_requirements

WHEN = datetime(1998, 7, 1, tzinfo=UTC)


def test_it_is_cyclonedx_1_6_by_its_own_schema() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom("churn", WHEN)) is None


def test_it_lists_what_the_worker_needs_all_the_way_down() -> None:
    content = json.loads(sbom("churn", WHEN))
    found = {component["name"]: component for component in content["components"]}

    assert {"torch", "torchserve", "feast"} <= set(found)
    assert found["sympy"]["version"] == version("sympy")  # torch needs it
    assert "mpmath" in found  # and it needs this one
    assert not {"mlflow", "optuna", "evidently", "pytest"} & set(found)
    references = {component["bom-ref"] for component in content["components"]} | {"churn"}
    needs = {entry["ref"]: set(entry["dependsOn"]) for entry in content["dependencies"]}
    assert set(needs) == references
    assert set().union(*needs.values()) <= references
    assert found["sympy"]["bom-ref"] in needs[found["torch"]["bom-ref"]]
    roots = {requirement.partition("[")[0] for requirement in serve_requirements()}
    assert needs["churn"] == {found[name]["bom-ref"] for name in roots}


def test_equal_environments_give_equal_bytes() -> None:
    assert sbom("churn", WHEN) == sbom("churn", WHEN)
    assert sbom("churn", WHEN) != sbom("other", WHEN)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(PackagingError, match="no-such-package"):
        sbom("churn", WHEN, ["no-such-package>=1"])
