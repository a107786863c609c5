"""What a cluster serves, recorded as stable: before the first rollout, or after a change by hand."""

from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ChurnError
from pipelines.candidates import candidate_at
from pipelines.context import Context, Stages
from pipelines.model_store import ModelStore
from pipelines.verified import verified
from rollout.errors import RolloutError
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate, Target
from training.archive.signing import SUFFIX


def adopted(
    context: Context, store: Store, target: Target, reason: str, archive: Path | None = None
) -> Candidate:
    """What `target` serves, from now on recorded as stable. `archive`: a copy of it on this machine, where it
    cannot be read from the address that the cluster loads it from.

    Raises RolloutError when the target serves nothing, or when nobody can say which archive that is.
    """
    serving = target.serving()
    if serving is None:
        raise RolloutError(f"target {target.name}: serves nothing yet that a canary could be compared with")
    known = _identified(context.settings, serving, archive)
    model = context.settings.serving.model_name
    before = store.stable(model)
    if before is None or before.sha256 != known.sha256:
        store.served_at_once(model, Change(known, before, context.who, context.as_of, reason))
    return known


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
    """From the folder that `churn deploy` has written, with its signature checked."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    packed = f"model-store/{settings.serving.model_name}.mar"
    files = ModelStore(parent).read(name, (packed, packed + SUFFIX))
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / Path(packed).name
        copy.write_bytes(files[packed])
        copy.with_name(copy.name + SUFFIX).write_bytes(files[packed + SUFFIX])
        checked = verified(settings, copy)
        return Candidate(uri, checked.sha256, candidate_at(copy).version)
