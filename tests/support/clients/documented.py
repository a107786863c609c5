"""The calls that docs/clients.md promises, and whether an address keeps that promise."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.clients.run import outcomes_of

IDS = list(range(1, 41))
CLIENTS = {"tritonclient": "triton_calls", "KServe SDK": "kserve_calls", "curl": "curl_calls"}
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "clients.md"
ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \| (yes|no)[^|]* \| (yes|no)[^|]* \|$", re.MULTILINE)
"""Client, call, and whether it works through the gateway (and so to a pod) and with TorchServe alone."""
PARTS: dict[str, Any] = {
    # calls whose answers have no scores of customers
    "outputs": ["status", "churn_probability"],
    "request_outputs": ["status", "churn_probability"],
    "request_id": "q",
    "explain": 5,
    "Check": "SERVING",
}
Call = tuple[str, str]
"""Client and call."""


def documented(gateway: bool) -> dict[Call, bool]:
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    return {(client, call): (there if gateway else alone) == "yes" for client, call, there, alone in rows}


def outcomes(
    address: str,
    headers: Mapping[str, str],
    grpc_address: str,
    masked: Sequence[str],
    version: str | None = None,
) -> dict[Call, Any]:
    """What came of every call. `masked`: the customers IDS by their masked names; `version`: of the model,
    where it is not that of tests/support/served_bundle.py."""
    return {
        (client, call): found
        for client, script in CLIENTS.items()
        if script != "curl_calls" or shutil.which("curl")
        for call, found in outcomes_of(script, address, headers, grpc_address, masked, version).items()
    }


def is_right(call: str, found: Any, expected: list[float]) -> bool:
    """Whether the client got what it requested; scores have the expected bits."""
    part = next((part for name, part in PARTS.items() if name in call), None)
    return found is True or found in (part, expected, expected[:1])


def wrong(found: Mapping[Call, Any], expected: list[float]) -> dict[Call, Any]:
    """The calls that did not get what they requested, and what they got. `expected`: the scores of IDS."""
    return {call: answer for call, answer in found.items() if not is_right(call[1], answer, expected)}
