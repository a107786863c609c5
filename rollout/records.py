"""Rollouts as rows of the database and as JSON of commands and notices: the only codec."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from rollout.evidence import COUNTS, Arm
from rollout.rules.rule import Verdict
from rollout.situation import Decision, Observation
from rollout.state import Event, Rollout

ROLLOUT, EVENT, VERDICT = TypeAdapter(Rollout), TypeAdapter(Event), TypeAdapter(Verdict)
NESTED = ("candidate", "previous", "windows", "plan")
"""Fields of a rollout that are columns of JSON."""
RENAMED = {"lose": "unreachable", "reach": "reachable"}
"""Actions in histories that were written by earlier releases."""


# rows


def rollout_row(rollout: Rollout) -> dict[str, Any]:
    nested = finite_only(ROLLOUT.dump_python(rollout, mode="json", include=set(NESTED)))
    plain = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    row: dict[str, Any] = plain | nested
    return row | {"active": None if rollout.over else rollout.model}


def rollout_of(row: Row[Any]) -> Rollout:
    found: Rollout = ROLLOUT.validate_python(
        {field.name: getattr(row, field.name) for field in fields(Rollout)}
    )
    return found


def event_row(id: str, number: int, event: Event) -> dict[str, Any]:
    plain = {field.name: getattr(event, field.name) for field in fields(event)}
    nested = finite_only(EVENT.dump_python(event, mode="json", include={"numbers", "verdicts"}))
    row: dict[str, Any] = plain | nested
    return row | {"rollout": id, "sequence": number}


def event_of(row: Row[Any]) -> Event:
    """`row.confirmed`: when the intention was carried out; None: it was not."""
    content = {field.name: getattr(row, field.name) for field in fields(Event)}
    action = RENAMED.get(row.action, row.action)
    done = row.done or row.confirmed is not None
    found: Event = EVENT.validate_python(content | {"action": action, "done": done})
    return found


# JSON


def rollout_record(rollout: Rollout) -> dict[str, Any]:
    """A rollout and its progress."""
    content = finite_only(ROLLOUT.dump_python(rollout, mode="json"))
    named = ("id", "model", "phase", "stage", "paused", "by", "reason", "outcome", "stuck", "trouble")
    return {name: content[name] for name in named} | {
        "started": rollout.started.isoformat(),
        "ended": None if rollout.ended is None else rollout.ended.isoformat(),
        "version": rollout.candidate.version,
        "archive": rollout.candidate.archive,
        "sha256": rollout.candidate.sha256,
        "previous": None if rollout.previous is None else rollout.previous.version,
        "stages": [dict(stage) for stage in rollout.plan.get("stages", ())],
    }


def event_record(event: Event) -> dict[str, Any]:
    content: dict[str, Any] = finite_only(EVENT.dump_python(event, mode="json"))
    return content | {"at": event.at.isoformat()}


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    content: dict[str, Any] = finite_only(VERDICT.dump_python(verdict, mode="json"))
    return content


def observation_record(seen: Observation, decision: Decision, trouble: str = "") -> dict[str, Any]:
    """What `churn rollout status` and `watch` show."""
    window = seen.evidence.current if seen.evidence is not None else None
    target = seen.target
    shown = ("weight", "mirror", "canary", "stable", "ready", "detail")
    return {
        "at": seen.at.isoformat(),
        "target": None if target is None else {name: getattr(target, name) for name in shown},
        "seconds": None if window is None else window.seconds,
        "stable": None if window is None else arm_record(window.stable),
        "canary": None if window is None else arm_record(window.canary),
        "pairs": 0 if window is None else len(window.pairs),
        "verdicts": [verdict_record(verdict) for verdict in seen.verdicts],
        "action": decision.action,
        "reason": decision.reason,
        "trouble": seen.trouble or trouble,
    }


def arm_record(arm: Arm) -> dict[str, Any]:
    """Counts, p99 and mean score of one variant, without data of single customers."""
    p99_ms = arm.p99_ms
    return {
        **{name: int(getattr(arm, name)) for name in COUNTS},
        "p99_ms": None if p99_ms is None or not isfinite(p99_ms) else round(float(p99_ms), 3),
        "mean_score": float(arm.scores.mean()) if len(arm.scores) else None,
    }


def finite_only(content: Any) -> Any:
    """Without NaN and infinity in mappings: JSON cannot contain them, and PostgreSQL refuses them."""
    if isinstance(content, Mapping):
        return {name: finite_only(value) for name, value in content.items() if not _odd(value)}
    if isinstance(content, list | tuple):
        return [finite_only(value) for value in content]
    return content


def _odd(value: Any) -> bool:
    return isinstance(value, float) and not isfinite(value)
