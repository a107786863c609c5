"""Policy, state, evidence and decision as canonical JSON: what the ledger stores, and what its digest covers.

Equal values give equal bytes, so a digest identifies the evidence of a decision.
"""

import hashlib
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter

from retraining.config import RetrainConfig
from retraining.decision import Decision, Evidence, State
from rollout.records import finite_only

EVIDENCE, STATE = TypeAdapter(Evidence), TypeAdapter(State)
DECISION, POLICY = TypeAdapter(Decision), TypeAdapter(RetrainConfig)

T = TypeVar("T")


def as_json(adapter: TypeAdapter[T], value: T) -> dict[str, Any]:
    """A value in JSON's types. Numbers that are not finite are left out: JSON has none."""
    found: dict[str, Any] = finite_only(adapter.dump_python(value, mode="json"))
    return found


def canonical(content: Any) -> str:
    """One text for equal contents."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(content: Any) -> str:
    """sha256 of the canonical text."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def evidence_digest(evidence: Evidence) -> str:
    """What identifies a decision: evidence that was decided on before needs no second decision."""
    return digest(as_json(EVIDENCE, evidence))
