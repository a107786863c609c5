"""The report of a rollout: a JSON record, a section of the run's report, or a separate page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from core.workspace import Workspace, write_atomically
from pipelines import rollout_plots
from rollout.evidence import Evidence, Window
from rollout.records import arm_record, event_record, verdict_record
from rollout.rules.rule import Verdict
from rollout.state import Event, Rollout

BINS = 20
"""Bins of the histogram of scores."""


def report_record(rollout: Rollout, events: Sequence[Event], evidence: Evidence) -> dict[str, Any]:
    """The content of the page as JSON, without data of single customers. Times are seconds from the start."""
    end = rollout.ended or (events[-1].at if events else rollout.started)
    begun = [(window.begun - rollout.started).total_seconds() for window in rollout.windows]
    return {
        "id": rollout.id,
        "model": rollout.model,
        "phase": rollout.phase,
        "outcome": rollout.outcome,
        "reason": rollout.reason,
        "by": rollout.by,
        "candidate": _named(rollout.candidate),
        "previous": None if rollout.previous is None else _named(rollout.previous),
        "started": rollout.started.isoformat(),
        "seconds": round((end - rollout.started).total_seconds(), 3),
        "decisions": [_decision(event, rollout) for event in events],
        "rules": [verdict_record(verdict) for verdict in _decisive(events)],
        "windows": [
            {"name": _name(window, index, rollout), "begin_s": round(begin, 3), **_window(window)}
            for index, (begin, window) in enumerate(zip(begun, evidence.windows, strict=False))
        ],
        "scores": {
            name: _histogram([getattr(window, name).scores for window in evidence.windows])
            for name in ("stable", "canary")
        },
    }


def section(record: Mapping[str, Any]) -> str:
    """The HTML of a rollout, as a part of a page."""
    if "left_out" in record:
        note: str = _page("rollout_left_out.html.j2").render(reason=record["left_out"])
        return note
    drawn = [rollout_plots.requests, rollout_plots.p99, rollout_plots.scores]
    page: str = _page("rollout_section.html.j2").render(
        rollout=record,
        timeline=rollout_plots.timeline(record),
        plots=[draw(record) for draw in drawn] if record["windows"] else [],
    )
    return page


def write_rollout_page(record: Mapping[str, Any], files: Workspace) -> Path:
    """Writes a self-contained page to `files.reports`; its path."""
    target = files.reports / f"rollout-{record['id']}.html"
    write_atomically(target, _page("rollout.html.j2").render(rollout=record, section=section(record)))
    return target


def _page(name: str) -> Any:
    return Environment(
        loader=PackageLoader("pipelines"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template(name)


def _name(window: Window, index: int, rollout: Rollout) -> str:
    if window.mirror:
        return "shadow"
    stages = len(rollout.plan.get("stages", ())) or index + 1
    return f"{window.weight:g} %" if index < stages else "after"


def _named(candidate: Any) -> dict[str, str]:
    return {"version": candidate.version, "sha256": candidate.sha256}


def _decisive(events: Sequence[Event]) -> tuple[Verdict, ...]:
    """The verdicts of the rules at the decision about the candidate; before it, their last verdicts."""
    judged = [event for event in events if event.verdicts]
    final = [event for event in judged if event.action in ("promote", "roll_back", "fall_back")]
    return (final or judged)[-1].verdicts if judged else ()


def _decision(event: Event, rollout: Rollout) -> dict[str, Any]:
    known = event_record(event)
    shown = ("action", "reason", "weight", "mirror", "phase", "who", "done", "numbers", "verdicts")
    at_s = round((event.at - rollout.started).total_seconds(), 3)
    return {"at_s": at_s} | {name: known[name] for name in shown}


def _window(window: Window) -> dict[str, Any]:
    pairs = np.asarray(window.pairs, dtype=np.float64)
    return {
        "weight": window.weight,
        "mirror": window.mirror,
        "seconds": round(window.seconds, 3),
        "stable": arm_record(window.stable),
        "canary": arm_record(window.canary),
        "pairs": len(pairs),
        "mean_difference": float(pairs.mean()) if len(pairs) else None,
        "largest_difference": float(np.abs(pairs).max()) if len(pairs) else None,
    }


def _histogram(parts: Sequence[Any]) -> list[int]:
    values = np.concatenate([np.empty(0), *parts])
    return [int(n) for n in np.histogram(values[np.isfinite(values)], BINS, (0.0, 1.0))[0]]
