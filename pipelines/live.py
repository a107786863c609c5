"""The newest archive on a real server, asked about real customers."""

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from data.errors import ServingError
from data.mask import load_key
from data.sources import sample_user_ids
from data.workspace import Workspace
from pipelines.context import Context, Stages

ASKED = 5


def server(settings: Stages, files: Workspace, now: datetime, clock: datetime) -> AbstractContextManager[Any]:
    """A TorchServe with the archive that packaging wrote last; its clock shows `clock` when ours shows `now`.

    `files` says where it keeps its logs and its address. Raises ServingError when nothing was packaged.
    """
    from features.store import serving_environment
    from serving.torchserve import TorchServe

    load_key(settings.data, settings.files)  # a missing or unsafe key is said now, not by a worker's log
    environment = {
        **serving_environment(settings.features, settings.files),
        **_key_environment(settings),
        "CHURN_CLOCK_OFFSET_S": str((clock - now).total_seconds()),
    }
    return TorchServe(settings.serving, newest_archive(settings.files), environment, files)


def newest_archive(files: Workspace) -> Path:
    try:
        record = json.loads(files.archive_record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ServingError(f"{files.archive_record}: no archive yet; run `churn package` first") from None
    return Path(record["path"])


def ask(context: Context) -> list[dict[str, Any]]:
    """What a server of its own answers about five customers of the source, on the clock of the data's end."""
    from serving.client import predict

    settings, files = context.settings, context.files
    features = json.loads(files.feature_manifest.read_text(encoding="utf-8"))
    # a folder of its own: `churn serve` may be running from this workspace
    own = Workspace(files.root / "run")
    ids = sample_user_ids(settings.data, ASKED)
    context.say("starting TorchServe")
    with server(settings, own, context.as_of, datetime.fromisoformat(features["latest"])) as running:
        context.say(f"asking about {len(ids)} customers")
        return predict(running.inference, settings.serving.model_name, ids)


def masked(settings: Stages, user_ids: Sequence[int | str]) -> list[str]:
    """How these customers are called in files and reports."""
    from handlers.identity import pseudonym

    key = load_key(settings.data, settings.files)
    id_type = json.loads(settings.files.manifest.read_text(encoding="utf-8"))["id_type"]
    return [pseudonym(user_id, id_type, key) for user_id in user_ids]


def _key_environment(settings: Stages) -> dict[str, str]:
    """How a worker finds the key that `load_key` found."""
    text = os.environ.get(settings.data.mask_key_env)
    if text is not None:
        return {"CHURN_MASK_KEY": text, "CHURN_MASK_KEY_FILE": ""}
    return {"CHURN_MASK_KEY_FILE": str(settings.files.mask_key)}
