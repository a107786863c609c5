"""The one rule for settings that are not given: values by shape of the source and number of rows.

Values in `configs/model.yaml`, `configs/training.yaml` or on the command line override it. It was measured by
`make bench-quality` on CDNOW and Telco, and on no other source yet.

The many rows of a transaction log are not independent, and a log drifts. So it gets a plain network of three
seeds, a logistic regression, and boosted trees if they help significantly; newer snapshots decide, forward in
time (training/learn/forward_stacking.py). A labelled table may be linear or full of thresholds. So it gets a
network with embedded numbers, a logistic regression and boosted trees; out-of-fold scores decide
(training/learn/stacking.py).
"""

from typing import Any

from core.config import Config
from training.learn.resolved import FitSettings, ResolvedModel, ResolvedSettings, ResolvedTraining

FIRST_STEPS = 150
"""Optimiser steps at which the search for the epochs begins; they double while log-loss falls."""


def resolve(settings: FitSettings, rows: int) -> ResolvedSettings:
    """The settings with every gap filled for `rows` training rows; resolved settings are returned unchanged.

    `training.epochs` stays null if it is not given: the fit chooses it.
    """
    if isinstance(settings, ResolvedSettings):
        return settings
    of_model, of_training = _log(rows) if settings.shape == "transactions" else _table(rows)
    return ResolvedSettings(
        settings.shape,
        settings.spec,
        ResolvedModel.model_validate(_filled(settings.model, of_model)),
        ResolvedTraining.model_validate(_filled(settings.training, of_training)),
    )


def _log(rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    model = {
        "architecture": "mlp",
        "hidden": (128, 128),
        "dropout": 0.3,
        "submodels": 1,
        "numeric_embedding": "none",
        "wide": True,
        "trees": True,
        "seeds": (0, 1, 2),
    }
    return model, {"batch_size": 512, "learning_rate": 1e-3, "weight_decay": 1e-2}


def _table(rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    model = {
        "architecture": "tabm",
        "hidden": (64, 64),
        "dropout": 0.3,
        "submodels": 8,
        "numeric_embedding": "piecewise_linear",
        "wide": True,
        "trees": True,
        "seeds": (0, 1) if rows < 100_000 else (0,),
    }
    batch_size = 256 if rows < 50_000 else 1024
    return model, {"batch_size": batch_size, "learning_rate": 2e-3, "weight_decay": 1e-2}


def _filled(config: Config, rule: dict[str, Any]) -> dict[str, Any]:
    """The fields of `config`, those that are null with the value of `rule`."""
    fields = dict(config)
    return fields | {name: value for name, value in rule.items() if fields[name] is None}
