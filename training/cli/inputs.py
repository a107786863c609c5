"""Reads what a command works on: settings from the parsed flags, rows and their shape from the workspace."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from core.config import validated
from core.errors import TrainingError
from core.layers import CONFIGS, merge, read_layer
from core.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.cli.arguments import FROM_CONFIG
from training.config import TrainingConfig
from training.learn.resolved import FitSettings
from training.learn.split import Shape


def fit_settings(given: dict[str, Any], files: Workspace) -> FitSettings:
    """The settings of a fit from the parsed flags, with the shape of the workspace's source.

    Raises ConfigError with the first wrong key, TrainingError for a missing checkpoint or manifest.
    """
    if given["seed_everything"] is not None:
        given["seed"] = given["seed_everything"]
    model = validated(ModelConfig, given["model"], "model.")
    wanted = {key: given[key] for key in TrainingConfig.model_fields}
    for flag, key in zip(FROM_CONFIG, ("epochs", "gradient_clip"), strict=True):
        if given["trainer"][flag] is not None:
            wanted[key] = given["trainer"][flag]
    training = validated(TrainingConfig, wanted, "")
    spec = validated(FeaturesConfig, _features(given["features"]), "features.")
    if given["ckpt_path"] and not Path(given["ckpt_path"]).is_file():
        raise TrainingError(
            f"--ckpt_path {given['ckpt_path']}: not there; leave it out to start from the beginning"
        )
    return FitSettings(shape_of(files), spec, model, training)


def _features(given: str | dict[str, Any] | None) -> dict[str, Any]:
    ours = CONFIGS / "features.yaml"
    if isinstance(given, dict):
        return merge(read_layer(ours), given)
    return read_layer(Path(given) if given else ours)


def read_rows(files: Workspace) -> pd.DataFrame:
    """The training set. Raises TrainingError if it was not built."""
    try:
        return pd.read_parquet(files.training_set)
    except FileNotFoundError:
        raise TrainingError(f"{files.training_set}: not there; run `churn run` first") from None


def shape_of(files: Workspace) -> Shape:
    """The shape of the source, from its manifest. Raises TrainingError if nothing was ingested."""
    try:
        shape: Shape = json.loads(files.manifest.read_text(encoding="utf-8"))["shape"]
    except FileNotFoundError:
        raise TrainingError(f"{files.manifest}: not there; run `churn ingest` first") from None
    return shape
