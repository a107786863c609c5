"""What `configs/training.yaml`, `tuning.yaml` and `gates.yaml` may say."""

from typing import Any, Literal

from pydantic import Field

from data.config import Config


class TrainingConfig(Config):
    experiment: str = "churn-prediction"
    model_name: str = "churn-prediction"
    tracking_uri: str = "sqlite:///{workspace}/mlflow.db"
    """`{workspace}` stands for the workspace's absolute path."""
    artifacts_uri: str = "{workspace}/mlartifacts"
    seed: int = 42
    test_snapshots: int = Field(3, gt=0)
    test_share: float = Field(0.2, gt=0, lt=1)
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Labelled tables: stratified shares of all rows, and of the rest. Dated logs split by time instead."""
    epochs: int = Field(4, gt=0)
    batch_size: int = Field(512, gt=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    calibration: Literal["none", "auto"] = "none"
    """`auto`: Platt scaling where it lowers log-loss on other customers of the newest complete snapshot."""
    threshold: float = Field(0.5, gt=0, lt=1)
    baselines: tuple[
        Literal["base_rate", "logistic_regression", "random_forest", "gradient_boosting", "bg_nbd"], ...
    ]
    threads: int | None = Field(None, gt=0)
    """Of the network's arithmetic; default 1, since the last bits of the weights depend on it."""


class Range(Config):
    """One dimension of the search space."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] | None = None


class TuningConfig(Config):
    storage: str = "sqlite:///{workspace}/optuna.db"
    study: str = "churn-prediction"
    trials: int = Field(6, ge=0)
    timeout_s: float | None = None
    space: dict[str, Range]
    """`model.<field>` or `training.<field>` -> range."""


class GatesConfig(Config):
    profile: str
    profiles: dict[str, dict[str, dict[str, Any]]]
    """profile -> rule -> its arguments; rules are the classes of `training/gates/`."""
