"""The workspace of a replay: its own files, registry and databases, so that the user's stay as they are."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from core.config import Config, validated
from core.errors import DataError
from core.layers import merge
from core.private_file import make_private, read_private
from core.workspace import Workspace
from data.mask import load_key
from pipelines.context import Stages
from replay.config import ReplayConfig
from rollout.config import Notify

C = TypeVar("C", bound=Config)


def replay_folder(settings: Stages, request: Mapping[str, Any]) -> Path:
    """`<workspace>/replay/<digest>` of all settings and of the request: another replay has another
    folder."""
    sections = (
        "data",
        "features",
        "model",
        "training",
        "gates",
        "decision",
        "rollout",
        "monitoring",
        "retrain",
    )
    content = {name: getattr(settings, name).model_dump(mode="json") for name in sections}
    text = json.dumps([content, dict(request)], sort_keys=True, default=str)
    return settings.files.root / "replay" / hashlib.sha256(text.encode()).hexdigest()[:16]


def replay_settings(
    settings: Stages, replay: ReplayConfig, folder: Path, seed: int, step_days: float
) -> Stages:
    """The settings of a replay in `folder`, which is emptied. Trainings are smaller (section `replay`), and
    all files, registry and databases are below the folder. Customers are masked by the workspace's key, so
    that a replay can be repeated. Monitors run once a step, and ageing is weighed at the
    prices of the replay. Raises ConfigError for an override that is no setting.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _same_mask_key(settings, Workspace(folder))
    training = _with(settings.training, replay.training, "replay.training.").model_copy(
        update={
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "artifacts_uri": f"{folder}/mlartifacts",
            "trusted_signers": None,
            "seed": seed,
        }
    )
    rollout = _with(settings.rollout, replay.rollout, "replay.rollout.").model_copy(
        update={
            "target": "envoy",
            "database": f"sqlite:///{folder}/rollout.db",
            "store": None,
            "notify": Notify(),
            "labels": None,
            "segments": (),
            "health_address": None,
        }
    )
    default = type(settings.features).model_fields
    features = settings.features.model_copy(
        update={name: default[name].get_default() for name in ("online_store", "registry")}
    )
    triggers = settings.retrain.triggers
    if triggers.ageing is not None:
        prices = {"step_days": step_days, "value": replay.costs.value, "cost": replay.costs.model}
        triggers = triggers.model_copy(update={"ageing": triggers.ageing.model_copy(update=prices)})
    tuning = settings.tuning.model_copy(update={"storage": f"sqlite:///{folder}/optuna.db", "trials": 0})
    return settings.model_copy(
        update={
            "workspace": folder,
            "features": features,
            "model": _with(settings.model, replay.model, "replay.model."),
            "training": training,
            "tuning": tuning,
            "monitoring": settings.monitoring.model_copy(update={"every_days": step_days}),
            "retrain": settings.retrain.model_copy(update={"triggers": triggers}),
            "rollout": rollout,
        }
    )


def _with(config: C, overrides: Mapping[str, Any], prefix: str) -> C:
    return validated(type(config), merge(config.model_dump(), overrides), prefix)


def _same_mask_key(settings: Stages, own: Workspace) -> None:
    """Gives the replay the workspace's mask key, or one that all replays of this workspace share."""
    if settings.data.mask_key_env in os.environ:
        return  # it is read from there, and not written to a file
    shared = settings.files
    if not shared.mask_key.exists():
        shared = Workspace(settings.files.root / "replay")
        load_key(settings.data, shared)  # makes it when absent
    make_private(own.mask_key, read_private(shared.mask_key, "mask key", DataError))
