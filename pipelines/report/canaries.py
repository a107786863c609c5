"""Canaries: each rollout with its outcome, and the decisions that led to it."""

from collections.abc import Mapping
from typing import Any

from pipelines.report.blocks import Block, Cell, More, Section, Table, Text, Tone, words
from pipelines.report.facts import Facts

DETAILED = 10
"""Rollouts whose decisions are listed, the newest ones."""


def section(facts: Facts) -> Section:
    blocks = _of_run(facts.trial) if facts.trial else []
    if not facts.rollouts:
        none = Text("No rollout is recorded yet: churn deploy starts one beside churn serve.")
        return Section("canaries", "Canaries", [none, *blocks])
    rows = []
    for rollout, _ in facts.rollouts:
        length = None if rollout.ended is None else (rollout.ended - rollout.started).total_seconds()
        tone: Tone = "good" if rollout.promoted and not rollout.ending else "bad" if rollout.over else "warn"
        rows.append(
            [
                Cell(f"{rollout.started:%Y-%m-%d %H:%M}"),
                Cell(rollout.candidate.version),
                Cell("–" if rollout.previous is None else rollout.previous.version),
                Cell(words(rollout.phase), tone),
                Cell("runs" if length is None else f"{length:,.0f} s"),
                Cell(rollout.by),
                Cell(rollout.outcome or rollout.reason),
            ]
        )
    columns = ("started (UTC)", "candidate", "stable before", "phase", "time", "by", "why")
    blocks = [Table("Rollouts", columns, rows), *blocks]
    for rollout, events in facts.rollouts[:DETAILED]:
        listed = [
            [
                Cell(f"{event.at:%Y-%m-%d %H:%M:%S}"),
                Cell(words(event.action)),
                Cell("shadow" if event.mirror else f"{event.weight} %"),
                Cell(event.reason),
            ]
            for event in events
        ]
        title = f"Decisions of {rollout.id}"
        blocks.append(More(title, [Table(title, ("when (UTC)", "decision", "canary", "why"), listed)]))
    return Section("canaries", "Canaries", blocks)


def _of_run(trial: Mapping[str, Any]) -> list[Block]:
    """The canary at the end of `churn run`."""
    if "left_out" in trial:
        return [Text(f"The last churn run had no canary: {trial['left_out']}.")]
    listed = [
        [
            Cell(f"{one['at_s']:,.1f} s"),
            Cell(words(one["action"])),
            Cell("shadow" if one["mirror"] else f"{one['weight']:g} %"),
            Cell(one["reason"]),
        ]
        for one in trial["decisions"]
    ]
    title = (
        f"The canary of the last churn run, version {trial['candidate']['version']}: {words(trial['phase'])}"
    )
    table = Table("Decisions of that canary", ("after", "decision", "canary", "why"), listed)
    return [Text(trial["outcome"]), More(title, [table])]
