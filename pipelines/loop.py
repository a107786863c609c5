"""`churn run`: all steps in order, a canary, a live server, and the results as run.json and as a report."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from core.errors import ChurnError, GateFailure
from core.workspace import Workspace, write_atomically
from pipelines.context import Context
from pipelines.engine import Outcome, Step, run_steps
from pipelines.live import masked, query_server
from pipelines.memory import PeakMemory
from pipelines.rehearsal import failure_of, left_out, rehearse
from pipelines.report.run_page import write_report
from pipelines.steps import STEPS

JUDGED = next(index for index, step in enumerate(STEPS) if step.name == "gates") + 1
TOTAL = len(STEPS) + 3
"""The steps, then canary, serving and report, which are never skipped."""


def run_loop(
    context: Context,
    force: bool,
    started: Callable[[str], None],
    ended: Callable[[Outcome], None],
    rollout: bool = True,
) -> tuple[dict[str, Any], list[dict[str, Any]], ChurnError | None]:
    """Runs the loop; returns the content of run.json, the answers of the server, and the refusal, if any.

    The answers contain customers' identifiers as the source writes them, so they are shown and not stored.
    The refusal is that of the gates, or of the canary that was rolled back. A model that the gates refuse is
    reported but neither archived nor served. Without `rollout` there is no canary. Every process that the
    loop started has stopped when it returns or raises.
    """
    outcomes: list[Outcome] = []

    def finished(outcome: Outcome) -> None:
        outcomes.append(outcome)
        ended(outcome)

    def title(step: Step) -> None:
        started(step.title)

    answers: list[dict[str, Any]] = []
    with PeakMemory() as peak:
        run_steps(STEPS[:JUDGED], context, force, title, finished)
        failure: ChurnError | None = gate_failure(context.files)
        trial = left_out("the gates refused the model" if failure else "switched off by --no-rollout")
        if failure is None:
            run_steps(STEPS[JUDGED:], context, force, title, finished)
            started("Try the model on customers")
            with _timed("canary", finished):
                trial, answers = _rehearsed(context, trial if not rollout else None)
            started("Ask a live server")
            with _timed("serve", finished):
                if not answers or context.settings.serving.prediction_log_kafka is not None:
                    # the canary's records stay in the workspace; this server's go to the topic
                    answers = query_server(context)
            failure = failure_of(trial)
        started("Write the report")
        with _timed("report", finished):
            record = {**_record(context, answers), "rollout": trial}
            record["report"] = str(write_report(context, record, outcomes))
    record["timings_s"] = {outcome.step: round(outcome.seconds, 3) for outcome in outcomes}
    record["skipped"] = [outcome.step for outcome in outcomes if outcome.skipped]
    record["peak_memory_bytes"] = peak.bytes
    write_atomically(context.files.run_record, json.dumps(record, indent=2))
    return record, answers, failure


def _rehearsed(
    context: Context, without: dict[str, Any] | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record of a rehearsal and the answers of its promoted model; or, if the last rehearsal promoted the
    newest archive, the record of that one."""
    trial, answers = (without, []) if without else rehearse(context)
    before = _read(context.files.run_record).get("rollout") if context.files.run_record.is_file() else None
    before = before if before and before.get("phase") == "promoted" else {}
    archive = _read(context.files.archive_record)
    if "left_out" in trial and before and before["candidate"]["sha256"] == archive["sha256"]:
        return {**before, "unchanged": True}, answers
    return trial, answers


def gate_failure(files: Workspace) -> GateFailure | None:
    """The refusal in the newest gate report, or None."""
    from training.gates import GateReport

    report = GateReport.read(files.gate_report)
    if report.passed:
        return None
    reasons = "; ".join(verdict.reason for verdict in report.refusals) or "no rule was judged"
    page = files.gate_report / "gate_report.md"
    return GateFailure(f"the gates of profile {report.profile} refuse this model: {reasons}; see {page}")


@contextmanager
def _timed(name: str, ended: Callable[[Outcome], None]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    ended(Outcome(name, time.perf_counter() - start, skipped=False))


def _record(context: Context, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    files = context.files
    training = _read(files.training / "metrics.json")
    names = masked(context.settings, [answer["user_id"] for answer in answers])
    return {
        "as_of": context.as_of.isoformat(),
        "data": _read(files.manifest),
        "tuning": _read(files.tuned),
        "metrics": training["metrics"],
        "baselines": training["baselines"],
        "gates": _read(files.gate_report / "gate_report.json"),
        "archive": _read(files.archive_record) if answers else None,
        # files contain only the masked identifier of a customer
        "answers": [
            {
                **{k: a[k] for k in ("churn_probability", "prediction", "status", "model_version")},
                "user_id": name,
            }
            for name, a in zip(names, answers, strict=True)
        ],
    }


def _read(path: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
