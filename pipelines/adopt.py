"""Records what a cluster serves as stable: before the first rollout, or after a change by hand."""

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ChurnError
from pipelines.candidates import candidate_at
from pipelines.context import Context, Stages
from pipelines.model_store import ModelStore, packed_path
from pipelines.verified import verified
from rollout.errors import RolloutError
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate, Target
from training.archive.signing import SUFFIX


def adopted(
    context: Context, store: Store, target: Target, reason: str, archive: Path | None = None
) -> Candidate:
    """Records what `target` serves as stable. `archive` is a copy of it on this machine, needed where it
    cannot be read from the address that the cluster loads it from.

    Raises RolloutError when the target serves nothing, or when its archive cannot be identified.
    """
    serving = target.serving()
    if serving is None:
        raise RolloutError(
            f"target {target.name}: serves nothing yet; the first model comes with: churn deploy"
        )
    known = _identified(context.settings, serving, archive)
    record_stable(store, context.settings.serving.model_name, known, context.who, reason, context.as_of)
    return known


def record_stable(store: Store, model: str, served: Candidate, who: str, reason: str, when: datetime) -> None:
    """Records in the database of rollouts that `served` is stable, unless it is recorded already."""
    before = store.stable(model)
    if before is None or before.sha256 != served.sha256:
        store.served_at_once(model, Change(served, before, who, when, reason))


def _identified(settings: Stages, serving: Candidate, archive: Path | None) -> Candidate:
    if archive is not None:
        checked = verified(settings, archive)
        if serving.sha256 not in ("", checked.sha256):
            raise RolloutError(
                f"{archive}: its sha256 {checked.sha256[:12]} is not the {serving.sha256[:12]} that is served"
            )
        return Candidate(serving.archive, checked.sha256, checked.version)
    if serving.sha256 and serving.version:
        return serving
    try:
        return _read_back(settings, serving.archive)
    except ChurnError as error:
        raise RolloutError(
            f"{serving.archive} is served, and was not deployed by a rollout: which archive it is cannot be"
            f" found out ({error}); name a copy of it: churn rollout adopt --archive FILE"
        ) from None


def _read_back(settings: Stages, uri: str) -> Candidate:
    """The archive in the folder that `churn deploy` has written, verified."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    packed = packed_path(settings)
    files = ModelStore(parent).read(name, (packed, packed + SUFFIX))
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / Path(packed).name
        copy.write_bytes(files[packed])
        copy.with_name(copy.name + SUFFIX).write_bytes(files[packed + SUFFIX])
        checked = verified(settings, copy)
        return Candidate(uri, checked.sha256, candidate_at(copy).version)
