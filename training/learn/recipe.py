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

from model.config import ModelConfig
from training.config import TrainingConfig
from training.learn.split import Shape

TABLE_STEPS = 150
"""Optimiser steps at which the search for a table's epochs begins; they double while log-loss falls."""


def resolve_settings(
    model: ModelConfig, training: TrainingConfig, shape: Shape, rows: int
) -> tuple[ModelConfig, TrainingConfig]:
    """Both configs with null settings filled in for `rows` training rows.

    `training.epochs` stays null: it is chosen in the fit.
    """
    of_model, of_training = _log(rows) if shape == "transactions" else _table(rows)
    return model.model_copy(update=_gaps(model, of_model)), training.model_copy(
        update=_gaps(training, of_training)
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


def _gaps(config: ModelConfig | TrainingConfig, rule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if getattr(config, name) is None}
