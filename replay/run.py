"""`churn replay`: each policy over the same history, and a report that compares them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from core.errors import ReplayError
from pipelines.context import Stages
from replay.clock import Step, moments
from replay.config import ReplayConfig
from replay.loop import replay_policy
from replay.report import COLUMNS, PolicyResult, summarised, write_report
from replay.torchserve import LiveServer
from replay.triggers import policy_of
from replay.workspace import replay_folder, replay_settings


class ReplayStages(Stages, Protocol):
    """The settings of all stages and of a replay."""

    @property
    def replay(self) -> ReplayConfig: ...


@dataclass(frozen=True)
class ReplayRequest:
    """The arguments of a replay."""

    first: datetime
    last: datetime
    step: Step
    policies: Sequence[str]
    fast: bool
    seed: int


@dataclass(frozen=True)
class Done:
    """A replay that has ended."""

    folder: Path
    report: Path
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """A row for each policy."""


def run_replay(
    settings: ReplayStages,
    request: ReplayRequest,
    present: Callable[[], datetime],
    progress: Callable[[str], None] = lambda message: None,
) -> Done:
    """Replay each policy in a workspace of its own below `<workspace>/replay/`, which is emptied first.

    `present` reads the machine's clock, for servers only. Writes `<policy>/ledger.jsonl` and the report.
    Equal settings, sources and seeds give equal ledgers. Raises ReplayError for an unknown policy, moments
    that are too close, or a labelled table.
    """
    if settings.data.shape != "transactions":
        raise ReplayError("data.shape: a replay needs dated transactions, not a labelled table")
    times = moments(request.first, request.last, request.step)
    days = (times[-1] - times[0]) / timedelta(days=len(times) - 1)
    rules = {name: policy_of(name, settings.replay) for name in request.policies}
    folder = replay_folder(
        settings, {**asdict(request), "policies": None, "replay": settings.replay.model_dump()}
    )
    found: list[PolicyResult] = []
    for name, policy in rules.items():
        own = replay_settings(settings, settings.replay, folder / name.replace(":", "-"), request.seed, days)
        ledger = own.files.root / "ledger.jsonl"
        server = None if request.fast else LiveServer(own, present)
        rows = replay_policy(own, settings.replay, policy, times, request.seed, ledger, progress, server)
        found.append(summarised(name, rows, settings.replay.costs))
    title = f"Replay of {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}, {len(times)} steps of a {request.step}"
    report = write_report(folder, title, found)
    return Done(folder, report, COLUMNS, [result.row() for result in found])
