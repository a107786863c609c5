"""One real training in a replay: the steps of `churn run` from the training set to the archive."""

import json
from dataclasses import dataclass, replace

from features.store import apply
from pipelines.candidates import candidate_at
from pipelines.context import Context
from pipelines.engine import Step, run_steps
from pipelines.loop import gate_failure
from pipelines.steps import STEPS
from replay.served import program_digest
from rollout.targets.target import Candidate
from training.gates import GateReport

DATA = ("ingest", "features")
LEARNING = ("training set", "tune", "train", "gates")


@dataclass(frozen=True)
class Trained:
    """The result of a training. `refusal` is why the gates refused it, or empty."""

    refusal: str
    candidate: Candidate | None
    loss: float
    """Log-loss on the test rows, in nats."""
    rows: int
    """Training rows."""
    program: str
    """12 digits of the sha256 of the exported program."""


def materialise(context: Context, serve: bool) -> None:
    """Ingest what is known, compute features, and register them; with `serve` fill the online store too."""
    online = _step("online store")
    if not serve:
        online = replace(online, act=_register, is_intact=lambda context: True)
    run_steps([*map(_step, DATA), online], context)


def train_model(context: Context) -> Trained:
    """Train, judge and package. Raises TrainingError where the history is too short."""
    run_steps([*map(_step, LEARNING)], context)
    metrics = json.loads((context.files.training / "metrics.json").read_text(encoding="utf-8"))
    refusal = gate_failure(context.files)
    candidate = None
    if refusal is None:
        run_steps([_step("package")], context)
        record = json.loads(context.files.archive_record.read_text(encoding="utf-8"))
        candidate = candidate_at(context.files.root / record["path"])
    return Trained(
        _reasons(context) if refusal is not None else "",
        candidate,
        metrics["metrics"]["log_loss"],
        metrics["rows"]["train"],
        program_digest(context.files.training / "model.pt2"),
    )


def _reasons(context: Context) -> str:
    """Why the gates refused, without the path of the report, which is another one in each replay."""
    report = GateReport.read(context.files.gate_report)
    return "; ".join(verdict.reason for verdict in report.refusals) or "no rule was judged"


def _register(context: Context) -> None:
    apply(context.settings.features, context.files)


def _step(name: str) -> Step:
    return next(step for step in STEPS if step.name == name)
