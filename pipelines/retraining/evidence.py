"""Reads what the governor decides from: checks of the monitor, labels, requests, and what serves."""

import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import ChurnError
from monitoring import ageing
from monitoring.stored import MonitorStore
from pipelines.context import Stages
from pipelines.live import archive_record
from pipelines.rollout import open_store
from retraining.decision import Aged, Evidence, Labels, Outcome, State, Window
from retraining.ledger import Ledger


@dataclass(frozen=True)
class Served:
    """The model that serves."""

    version: str
    data_end: datetime | None
    """The end of the data that it was trained on; None: its archive is not on this machine."""


def read_evidence(settings: Stages, ledger: Ledger, now: datetime) -> tuple[State, Evidence]:
    """State and evidence at `now`. Rows that became known later are left out."""
    model, served = settings.serving.model_name, served_model(settings)
    state = ledger.state(model, served.version, served.data_end)
    evidence = Evidence(
        model,
        _checks(settings, model, now),
        labels_at(settings, now, _labels_until(ledger, model, served)),
        ledger.waiting(model),
        _ageing(settings, model, now),
    )
    return state, evidence


def served_model(settings: Stages) -> Served:
    """What is stable by the database of rollouts; before the first record, what was packaged last."""
    stable = open_store(settings).stable(settings.serving.model_name)
    if stable is not None:
        return Served(stable.version, _data_end(settings, stable.archive, stable.version))
    try:
        record = archive_record(settings.files)
    except ChurnError:
        return Served("", None)
    return Served(record["version"], _data_end(settings, record["path"], record["version"]))


def labels_at(settings: Stages, now: datetime, after: datetime | None) -> Labels:
    """Labels whose horizon has passed at `now`; those that ended after `after` are new."""
    file = settings.files.labels
    if not file.is_file():
        return Labels(0, 0)
    horizon = settings.features.horizon if settings.data.shape == "transactions" else timedelta(0)
    moments = pq.read_table(file, columns=["event_timestamp"])["event_timestamp"]
    ends = pc.add(moments, horizon)
    known = ends.filter(pc.less_equal(ends, now))
    newest = pc.max(known)
    customers = pc.sum(pc.equal(known, newest)).as_py() or 0
    new = len(known) if after is None else pc.sum(pc.greater(known, after)).as_py() or 0
    return Labels(len(known), new, newest.as_py(), customers)


def _checks(settings: Stages, model: str, now: datetime) -> tuple[Window, ...]:
    store, number = MonitorStore(settings.rollout.database), settings.retrain.checks_read
    newest = store.newest(model, now)
    if newest is None:
        return ()
    # twice as far back as needed, since a check may be missing
    reach = 2 * (number + 1) * max(newest.at - newest.since, timedelta(days=settings.monitoring.every_days))
    runs = store.runs(model, after=newest.at - reach, until=now)
    return tuple(Window.of(run) for run in runs[-number:])


def _ageing(settings: Stages, model: str, now: datetime) -> tuple[Aged, ...]:
    """What the monitor has measured within ten half-lives; older measurements have no weight."""
    config = settings.retrain.triggers.ageing
    if config is None:
        return ()
    span = timedelta(days=10 * config.half_life_steps * config.step_days)
    found: dict[tuple[float, str], Aged] = {}
    for run in MonitorStore(settings.rollout.database).runs(model, after=now - span, until=now):
        measurements = run.checked.measurements
        moment = next((one.value for one in measurements if one.name == ageing.MOMENT), None)
        for one in measurements:
            if one.name == ageing.NATS and moment is not None:
                at = datetime.fromtimestamp(moment, UTC)
                found[moment, one.subject] = Aged(at, float(one.subject), one.value)
    return tuple(found.values())


def _labels_until(ledger: Ledger, model: str, served: Served) -> datetime | None:
    """Until when labels were used by the last training."""
    trained = [run for run in ledger.runs(model) if run.outcome in (Outcome.ROLLED_OUT, Outcome.REFUSED)]
    until = [run.labels_until for run in trained if run.labels_until is not None]
    return max([*until, *([served.data_end] if served.data_end else [])], default=None)


def _data_end(settings: Stages, archive: str, version: str) -> datetime | None:
    store, name = settings.files.model_store, f"{settings.serving.model_name}-{version}.mar"
    for place in (Path(archive), store / name):
        try:
            with zipfile.ZipFile(place) as content:
                return datetime.fromisoformat(json.loads(content.read("bundle.json"))["window"]["end"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
    return None
