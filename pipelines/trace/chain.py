"""The whole chain of one prediction."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.context import Stages
from pipelines.live import masked
from pipelines.trace import history, model
from pipelines.trace.link import Link
from pipelines.trace.prediction import MASKED, find_prediction, link_of, logs_of


@dataclass(frozen=True)
class TraceRequest:
    """The prediction that is looked for."""

    request_id: str
    customer: int | str | None = None
    """As the source writes it, or masked; needed for a request about several customers."""
    logs: Sequence[Path] = ()
    """Folders of predictions; empty: those of the workspace."""
    source_ids: bool = False


def trace(settings: Stages, wanted: TraceRequest, announce: Callable[[str], None]) -> list[Link]:
    """The links, from the prediction to the source. A link that cannot be verified says so in its proofs.

    Raises DataError for a prediction that is in no log, ArchiveError if its archive is lost.
    """
    files = settings.files
    announce("searching the prediction log")
    logs = list(wanted.logs) or logs_of(settings)
    record = find_prediction(logs, wanted.request_id, _masked(settings, wanted.customer))
    with tempfile.TemporaryDirectory(prefix=".trace-", dir=files.root) as folder:
        scratch = Path(folder)
        announce("verifying the archive")
        found = model.find_model(settings, record, scratch / "archive")
        links = [link_of(record), found.link]
        announce("reading registry, gates and run")
        links += [model.registered(settings, found), model.gates(settings, found)]
        links += [model.run(settings, found), model.training_data(settings, found)]
        announce("comparing the features")
        trusted = all(proof.holds for proof in found.link.proofs)
        links.append(
            history.snapshot(settings, record, found.bundle, trusted, scratch / "features", announce)
        )
    rows = history.source_rows(settings, record)
    if wanted.source_ids:
        name = history.source_id(settings, record["user_id"], announce)
        rows = Link(rows.name, {**rows.facts, "customer (source)": name}, rows.proofs, rows.rows)
    return [*links, rows]


def _masked(settings: Stages, customer: int | str | None) -> str | None:
    if customer is None or (isinstance(customer, str) and MASKED.fullmatch(customer)):
        return customer if customer is None else str(customer)
    return masked(settings, [customer])[0]
