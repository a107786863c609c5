"""Starts servers with the newest archive, and requests predictions for customers of the source."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ServingError
from core.workspace import Workspace
from data.mask import load_key
from handlers.settings import variables
from pipelines.context import Context, Stages

if TYPE_CHECKING:
    from serving.archive import Archive
    from serving.config import ServingConfig
    from serving.supervisor import Companion, Supervisor
    from serving.torchserve.server import TorchServe

EXAMPLES = 5
"""Customers whose predictions `churn run` shows."""
SAMPLED = 200_000
"""Most identifiers of the source that are looked up in the newest snapshot."""


def server(settings: Stages, files: Workspace, now: datetime, clock: datetime) -> AbstractContextManager[Any]:
    """A TorchServe with the archive that was packaged last; its clock shows `clock` when this process's shows
    `now`.

    Its logs and its address are in `files`. Raises ServingError if nothing was packaged, ArchiveError if the
    archive must not be served.
    """
    return maker(settings, files, now, clock)(trusted_archive(settings), "server")


def maker(
    settings: Stages, files: Workspace, now: datetime, clock: datetime, variant: str = "stable"
) -> "Callable[[Archive, str], TorchServe]":
    """A function that makes such a server, from an archive and a name for the server's record and logs.

    The server verifies the archive when it loads it: the bytes that were verified are the ones it serves.

    `variant`: the server's name in the prediction log and in its metrics.
    """
    from features.store import serving_environment
    from pipelines.verified import verified
    from serving.archive import ModelArchive
    from serving.torchserve.server import TorchServe

    load_key(settings.data, settings.files)  # a missing or unsafe key is an error here, not in a worker's log
    environment = {
        **serving_environment(settings.features, settings.files),
        **_key_environment(settings),
        **_log_environment(settings.serving, files),
        **variables(variant=variant, clock_offset_s=(clock - now).total_seconds()),
    }

    def read(path: Path) -> ModelArchive:
        return ModelArchive(path.absolute(), verified(settings, path).content)

    return lambda archive, name: TorchServe(settings.serving, archive, environment, files, name, read)


def supervised(
    settings: Stages,
    files: Workspace,
    now: datetime,
    clock: datetime,
    newest: Callable[[], Path] | None = None,
    companion: "Companion | None" = None,
) -> "Supervisor":
    """Such servers behind the gateway, with a first API key in `files.api_key` if there is none yet.

    `newest` returns the archive to serve (default: packaged last). `companion` runs in this process and moves
    the canary (serving/supervisor.py).

    Raises ServingError if ports of TorchServe itself are configured: two of them run during a change.
    """
    from rollout.rules.latency import Latency
    from serving.gateway.keys import Keys, first_key
    from serving.gateway.process import Gateway
    from serving.record import record_file
    from serving.supervisor import Servers, Supervisor

    for key in ("inference_port", "management_port", "metrics_port"):
        if getattr(settings.serving, key):
            raise ServingError(
                f"serving.{key}: behind the gateway the system chooses TorchServe's ports, since two run at a"
                " change of version; set gateway.port, or run churn serve --no-gateway"
            )
    keys = Keys(files.api_keys)
    if settings.gateway.keys:
        first_key(keys, files.api_key, now)
    latency = settings.rollout.rules.latency or Latency()
    gateway = Gateway(settings.gateway, settings.serving, files, record_file(files), latency.objective_ms)
    servers = Servers(
        newest or (lambda: trusted_archive(settings)),
        maker(settings, files, now, clock),
        maker(settings, files, now, clock, "canary"),
    )
    return Supervisor(gateway, servers, keys, files, companion)


def newest_archive(files: Workspace) -> Path:
    """The archive that was packaged last. Raises ServingError if there is none."""
    return Path(archive_record(files)["path"])


def trusted_archive(settings: Stages) -> Path:
    """The archive that was packaged last, verified. Raises ServingError if there is none, ArchiveError if its
    signature or content is wrong."""
    from pipelines.verified import verified

    record = archive_record(settings.files)
    archive = Path(record["path"])
    verified(settings, archive, record["sha256"])
    return archive


def archive_record(files: Workspace) -> dict[str, str]:
    """`path`, `sha256`, `version` of the archive packaged last. Raises ServingError if there is none.

    A workspace may have been moved or copied since, or is mounted elsewhere: its archive is then the one of
    this name in its own store.
    """
    try:
        record = dict(json.loads(files.archive_record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ServingError(f"{files.archive_record}: no archive yet; run `churn package` first") from None
    here = files.model_store / Path(record["path"]).name
    return record if Path(record["path"]).is_file() or not here.is_file() else {**record, "path": str(here)}


def query_server(context: Context) -> list[dict[str, Any]]:
    """Starts a server whose clock shows the end of the data; its predictions for EXAMPLES customers."""
    from serving.client import predict

    settings, files = context.settings, context.files
    # a separate folder, since `churn serve` may be running from this workspace
    own = Workspace(files.root / "run")
    ids = customers_online(settings, EXAMPLES)
    context.progress("starting TorchServe")
    with server(settings, own, context.as_of, data_end(files)) as running:
        context.progress(f"requesting predictions for {len(ids)} customers")
        return predict(running.inference, settings.serving.model_name, ids, running.tokens.inference)


def customers_online(settings: Stages, n: int) -> list[int | str]:
    """Up to `n` identifiers, as the source writes them, of customers in the newest snapshot.

    Some customers of the source are not in it: they are not eligible, or have only returned purchases. The
    choice is deterministic, spread over the customers in the source's first rows. Raises ServingError if none
    of them is in the snapshot.
    """
    from data.sample import sample_user_ids
    from features.build import read_feature_manifest
    from features.newest import newest

    files = settings.files
    batches = newest(settings.features, files, read_feature_manifest(files), ["user_id"])
    known = {name for batch in batches for name in batch["user_id"].to_pylist()}
    sampled = sample_user_ids(settings.data, SAMPLED)
    online = [one for one, name in zip(sampled, masked(settings, sampled), strict=True) if name in known]
    if not online:
        raise ServingError(
            "no customer in the source's first rows is in the newest snapshot; look at features.eligible, and"
            " run `churn features build` again"
        )
    spread = np.linspace(0, len(online) - 1, min(n, len(online)), dtype=int)
    return [online[place] for place in spread]


def data_end(files: Workspace) -> datetime:
    """The moment of the newest features; by a clock at this moment they are fresh."""
    features = json.loads(files.feature_manifest.read_text(encoding="utf-8"))
    return datetime.fromisoformat(features["latest"])


def masked(settings: Stages, user_ids: Sequence[int | str]) -> list[str]:
    """The masked identifiers of these customers, as in files and reports."""
    from handlers.identity import pseudonym

    key = load_key(settings.data, settings.files)
    id_type = json.loads(settings.files.manifest.read_text(encoding="utf-8"))["id_type"]
    return [pseudonym(user_id, id_type, key) for user_id in user_ids]


def _log_environment(serving: "ServingConfig", files: Workspace) -> dict[str, str]:
    """The variable for a prediction log in the workspace; empty if the config names a topic, or no log."""
    if serving.prediction_log_kafka is not None or not serving.prediction_log:
        return {}
    files.predictions.mkdir(parents=True, exist_ok=True)
    return variables(prediction_log_folder=files.predictions)


def _key_environment(settings: Stages) -> dict[str, str]:
    """The variables by which a worker finds the key that `load_key` found."""
    # during a replacement of the key, a server of the old model gets both
    names = ("CHURN_MASK_KEY_PREVIOUS", "CHURN_MASK_KEY_PREVIOUS_FILE")
    previous = {name: os.environ[name] for name in names if name in os.environ}
    text = os.environ.get(settings.data.mask_key_env)
    if text is not None:
        return {"CHURN_MASK_KEY": text, "CHURN_MASK_KEY_FILE": "", **previous}
    return {"CHURN_MASK_KEY_FILE": str(settings.files.mask_key), **previous}
