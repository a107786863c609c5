"""The OpenAPI document: in docs/, at the gateway, and correct for real answers."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from serving.config import GatewayConfig, ServingConfig
from serving.gateway.openapi import document
from support.served_bundle import ServedBundle
from support.servers.stack import Stack, supervisor_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
CALLS = int(os.environ.get("OPENAPI_CALLS", "10000"))
CHECKED = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


@pytest.fixture(scope="module")
def stack(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    unlimited = GatewayConfig(requests_per_s=100_000, burst=100_000)
    made = supervisor_of(bundle, tmp_path_factory.mktemp("openapi"), unlimited)
    with made.supervisor:
        yield made


def test_the_document_in_docs_is_current() -> None:
    """`python -m serving.gateway.openapi > docs/openapi.json` writes it."""
    found = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    assert found == document("churn", {}, ServingConfig().max_instances)


def test_every_schema_is_json_schema() -> None:
    for schema in document("churn", {}, 1000)["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_gateway_serves_the_document_of_its_own_model(stack: Stack) -> None:
    served = stack.ask("GET", "/openapi.json")
    assert served.status_code == 200
    features = served.json()["components"]["schemas"]["Features"]["properties"]
    assert set(features) == set(stack.ask("GET", "/v2/models/churn").json()["parameters"]["features"])
    assert stack.ask("GET", "/openapi.json", headers={"x-api-key": "guessed"}).status_code == 401


@pytest.mark.parametrize("path", ["/v2/models/churn%2Fx", "/v2/models/churn/versions/a%5cb", "/%00"])
def test_a_path_that_the_gateway_refuses_is_a_400_in_json(stack: Stack, path: str) -> None:
    answer = stack.ask("GET", path)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json()["error"].startswith("path: ")


def check_against(stack: Stack, calls: int) -> int:
    """Make at least so many calls, right ones and wrong ones, of all operations. Returns how many.

    An operation that takes few different requests makes fewer than its share: the others then make up for it
    in a further round, with another seed. Raises what schemathesis raises for an answer that the document
    does not allow.
    """
    schema = schemathesis.openapi.from_dict(stack.ask("GET", "/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    made = 0
    for number in itertools.count():
        share = -(-(calls - made) // len(operations))
        counts = [_ask_often(stack, operation, share, number) for operation in operations]
        made += sum(counts)
        operations = [one for one, count in zip(operations, counts, strict=True) if count >= share]
        if made >= calls:
            return made
        assert operations, f"every operation has run out of different requests after {made} calls"
    raise AssertionError


def _ask_often(stack: Stack, operation: Any, calls: int, number: int) -> int:
    """Make up to `calls` calls of one operation; return how many were answered. `number`: the seed."""
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes)
    answered = 0

    @seed(number)
    @settings(
        max_examples=calls,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        nonlocal answered
        response = case.call(base_url=stack.url, headers=stack.headers)
        case.validate_response(response, checks=CHECKED, headers=stack.headers)
        answered += 1

    given(case=cases)(send)()
    return answered


def test_real_answers_conform_to_the_document(stack: Stack) -> None:
    assert check_against(stack, 340) >= 340


@pytest.mark.slow
def test_10_000_real_answers_conform_to_the_document(stack: Stack) -> None:
    made = check_against(stack, CALLS)
    print(f"{made:,} answers checked against the document")
    assert made >= CALLS
