"""The one rule by which settings that nobody gave follow from the source's kind and the number of rows.

What stands in `configs/model.yaml`, `configs/training.yaml` or on the command line wins over it. The
figures it was measured with are those of `make bench-quality`: CDNOW and Telco, and no other source yet.

A transaction log says less than its many rows suggest, and drifts: a plain network of three seeds beside a
logistic regression, and boosted trees where they certainly help; newer snapshots decide, forward in time
(training/learn/forward_stacking.py). A labelled table may be anything between linear and a maze of
thresholds: a network of embedded numbers, a logistic regression and boosted trees, and out-of-fold scores
that decide (training/learn/stacking.py).
"""

from typing import Any

from model.config import ModelConfig
from training.config import TrainingConfig
from training.learn.split import Shape

TABLE_STEPS = 150
"""Where the search for a table's number of epochs begins; it doubles while out-of-fold log-loss falls."""


def settle(
    model: ModelConfig, training: TrainingConfig, shape: Shape, rows: int
) -> tuple[ModelConfig, TrainingConfig]:
    """Both configs with their gaps filled for `rows` training rows.

    `training.epochs` stays open: the rows decide in the fit.
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
