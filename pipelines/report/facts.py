"""Everything that the page of the loop shows, read once from workspace, registry and database."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core.errors import ChurnError, ServingError
from monitoring.findings import Monitored
from monitoring.stored import MonitorStore
from pipelines.context import Stages
from pipelines.rollout import open_store
from pipelines.score import ScoreRequest, score_customers
from retraining.ledger import Entry, Grade, Ledger, Run
from rollout.database.projections import Projection
from rollout.state import Event, Rollout
from training.registry.mlflow_client import client_of, mlflow_errors
from training.registry.model_registry import Decision, Registry, Version

RUNS_SHOWN = 200
"""Most runs of the monitor, rollouts and refused models that are read, the newest ones."""


@dataclass(frozen=True)
class Refused:
    """A model that the gates refused. It is a run in MLflow and no registered version."""

    run: str
    at: datetime
    failed: str


@dataclass(frozen=True)
class Customers:
    """The list of customers to call: rows as `churn score` writes them."""

    as_of: datetime
    scored: int
    model_version: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Facts:
    """What is known. Empty parts: nothing was recorded yet."""

    model: str
    manifest: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    """`metrics` and `baselines` of the newest training."""
    gates: Mapping[str, Any] | None = None
    """The newest gate report."""
    scores: Any = None
    """The newest training's test rows: a table of `churned` and `score`, or None."""
    versions: Sequence[Version] = ()
    aliases: Mapping[str, str] | None = None
    registry: Sequence[Decision] = ()
    refused: Sequence[Refused] = ()
    stable: str = ""
    """The model version that serves by the record."""
    rollouts: Sequence[tuple[Rollout, Sequence[Event]]] = ()
    """The newest first."""
    trial: Mapping[str, Any] | None = None
    """The canary at the end of the last `churn run`, as run.json has it."""
    projections: Sequence[Projection] = ()
    monitored: Sequence[Monitored] = ()
    """The oldest first."""
    decisions: Sequence[Entry] = ()
    grades: Mapping[int, Grade] | None = None
    runs: Sequence[Run] = ()
    customers: Customers | None = None
    unread: Sequence[str] = ()
    """Sources that could not be read, each as one line."""


def collect(
    settings: Stages, scratch: Path, customers: int, source_ids: bool, announce: Callable[[str], None]
) -> Facts:
    """Read everything. A source that cannot be reached is named on the page, and the rest is shown.

    `customers`: how many customers to call are listed. Raises ServingError if there is nothing to report.
    """
    files = settings.files
    if not files.manifest.is_file():
        raise ServingError(f"{files.root}: nothing to report yet; run `churn run` first")
    facts = Facts(settings.serving.model_name, _json(files.manifest) or {})
    facts = replace(
        facts,
        training=_json(files.training / "metrics.json"),
        gates=_json(files.gate_report / "gate_report.json"),
        trial=(_json(files.run_record) or {}).get("rollout"),
        scores=_scores(files.training / "test_scores.parquet"),
    )
    parts: list[tuple[str, Callable[[Facts], Facts]]] = [
        ("registry", lambda known: _of_registry(settings, known)),
        ("database of rollouts", lambda known: _of_database(settings, known)),
    ]
    if customers and files.archive_record.is_file():
        listed = ScoreRequest(
            scratch / "customers.parquet", None, customers, reasons=3, source_ids=source_ids
        )
        parts.append(("customers to call", lambda known: _of_customers(settings, known, listed, announce)))
    for name, read in parts:
        announce(f"reading {name}")
        try:
            facts = read(facts)
        except ChurnError as error:
            facts = replace(facts, unread=(*facts.unread, f"{name}: {error}"))
    return facts


def _of_registry(settings: Stages, facts: Facts) -> Facts:
    registry = Registry(settings.training)
    if not registry.exists:
        return facts
    return replace(
        facts,
        versions=tuple(registry.versions()),
        aliases=registry.aliases(),
        registry=tuple(registry.history()),
        refused=tuple(_refused(settings)),
    )


def _refused(settings: Stages) -> list[Refused]:
    training = settings.training
    with mlflow_errors(training.tracking_uri):
        client = client_of(training.tracking_uri)
        experiment = client.get_experiment_by_name(training.experiment)
        if experiment is None:
            return []
        found = client.search_runs(
            [experiment.experiment_id], "tags.gates = 'refused'", max_results=RUNS_SHOWN
        )
    made = [
        Refused(
            run.info.run_id,
            datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            run.data.tags.get("gates_failed", ""),
        )
        for run in found
    ]
    return sorted(made, key=lambda one: (one.at, one.run))


def _of_database(settings: Stages, facts: Facts) -> Facts:
    uri, model = settings.rollout.database, facts.model
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        return facts  # opening it would create it
    store, ledger = open_store(settings), Ledger(uri)
    stable = store.stable(model)
    return replace(
        facts,
        stable="" if stable is None else stable.version,
        rollouts=tuple((one, tuple(store.history(one.id))) for one in store.all(model, RUNS_SHOWN)),
        projections=tuple(store.projections(model)),
        monitored=tuple(MonitorStore(uri).runs(model)[-RUNS_SHOWN:]),
        decisions=tuple(ledger.entries(model)),
        grades=ledger.grades(model),
        runs=tuple(ledger.runs(model)),
    )


def _of_customers(
    settings: Stages, facts: Facts, wanted: ScoreRequest, announce: Callable[[str], None]
) -> Facts:
    done = score_customers(settings, wanted, announce)
    rows = pq.read_table(wanted.out).to_pylist()
    return replace(facts, customers=Customers(done.as_of, done.ranked.scored, done.model_version, rows))


def _scores(file: Path) -> Any:
    return pq.read_table(file, columns=["churned", "score"]).to_pandas() if file.is_file() else None


def _json(file: Path) -> dict[str, Any] | None:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
