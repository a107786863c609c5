"""What `configs/training.yaml`, `tuning.yaml` and `gates.yaml` may say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, PositiveFloat, Tag

from data.config import Config
from data.errors import ConfigError

Baseline = Literal["base_rate", "logistic_regression", "random_forest", "gradient_boosting", "bg_nbd"]


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
    epochs: int | None = Field(None, gt=0)
    """Left out, it follows the rows of a log; for a table it is found by out-of-fold log-loss."""
    batch_size: int | None = Field(None, gt=1)
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    """Left out, or null, these follow `training/learn/recipe.py`."""
    gradient_clip: float = Field(1.0, gt=0)
    calibration: Literal["none", "auto"] = "none"
    """`auto`: Platt scaling where it lowers log-loss on other customers of the newest complete snapshot."""
    threshold: float = Field(0.5, gt=0, lt=1)
    baselines: tuple[Baseline, ...] | None = None
    """Null: every one that the shape of the source allows."""
    cross_validation: int = Field(5, ge=0)
    """Folds of a table, or test blocks of a log; 0 switches it off."""
    threads: int | None = Field(None, gt=0)
    """Of the network's arithmetic; default 1, since the last bits of the weights depend on it."""
    signing_key_env: str = "CHURN_SIGNING_KEY"
    """This environment variable may hold the private key (PEM) that archives are signed with; else the
    workspace's own is used, and made when absent."""
    trusted_signers: Path | None = None
    """Public keys of those whose archives may be registered and served; default: the workspace's file."""

    def baselines_of(self, shape: Literal["transactions", "labelled"]) -> tuple[Baseline, ...]:
        """Those that are given, else all that the shape allows: bg_nbd reads a transaction log."""
        if self.baselines is not None:
            return self.baselines
        return tuple(name for name in get_args(Baseline) if shape == "transactions" or name != "bg_nbd")


class Range(Config):
    """One dimension of the search space."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] | None = None


TABLE_TRIALS = 2
"""The given settings and one more point."""


class TuningConfig(Config):
    storage: str = "sqlite:///{workspace}/optuna.db"
    study: str = "churn-prediction"
    """Trials of one study are those of the same rows and configs; other rows begin another with its best."""
    trials: int = Field(6, ge=0)
    """Left out, a labelled table gets TABLE_TRIALS where the network adds to line and trees, else none: each
    of its fits chooses trees, epochs and the weights of the paths out of fold by itself."""
    workers: int = Field(1, gt=0)
    """Processes of one thread each. One runs within ours, and gives the same trials again under the seed."""
    timeout_s: float | None = Field(None, gt=0)
    """No trial but the first starts after it; those that run are finished."""
    heartbeat_s: int = Field(5, gt=0)
    grace_s: int = Field(30, gt=0)
    """A trial that has not been heard of for so long is run again: its worker was killed."""
    space: dict[str, Range]
    """`model.<field>` or `training.<field>` -> range."""

    def for_shape(self, shape: Literal["transactions", "labelled"]) -> Self:
        """With the number of trials that follows from the shape, where none was given."""
        return self.model_copy(update={"trials": TABLE_TRIALS}) if self.follows(shape) else self

    def follows(self, shape: Literal["transactions", "labelled"]) -> bool:
        """Whether the number of trials is left to the shape, and to the rows."""
        return shape == "labelled" and "trials" not in self.model_fields_set


class Division(Config):
    """A column by which customers are told apart."""

    column: str
    bins: int = Field(4, gt=1)
    """Quantile bins of a numeric column; a categorical one is divided by its values."""


class GatesConfig(Config):
    profile: str
    profiles: dict[str, dict[str, dict[str, Any]]]
    """profile -> rule -> its arguments; rules are the classes of `training/gates/`."""
    segments: Literal["auto"] | tuple[Division, ...] = "auto"
    """`auto`: every categorical feature, and the first three numeric ones in four quantile bins."""
    groups: tuple[Division, ...] = ()
    """Whom the fairness rule compares."""
    resamples: int = Field(1000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of every bootstrap interval and bound."""


class ValueColumn(Config):
    """Each customer's own worth, from a numeric feature."""

    column: str
    default: float = Field(gt=0)
    """Where the feature is missing; the threshold that ships is of this worth too."""


TYPICAL_VALUE = 100.0
"""Of a customer, where nothing is known of her own."""


class DecisionConfig(Config):
    """What `configs/decision.yaml` may say; money in any one unit."""

    customer_value: (
        Annotated[
            Annotated[ValueColumn, Tag("of_each")] | Annotated[PositiveFloat, Tag("of_all")],
            Discriminator(lambda value: "of_each" if isinstance(value, dict | ValueColumn) else "of_all"),
        ]
        | None
    ) = TYPICAL_VALUE
    """What a customer who stays is worth over the time that the offer buys: one number, or a feature. Null:
    in a log each customer's recent spending, one number for a table (training/value_at_stake.py)."""
    offer_cost: float = Field(10.0, ge=0)
    contact_cost: float = Field(1.0, ge=0)
    acceptance_rate: float = Field(0.3, gt=0, le=1)
    threshold: Literal["profit", "training"] = "profit"
    """Above what a customer is at risk: where an offer begins to pay, or `training.threshold`."""

    def refuse_unknown_column(self, numeric: Sequence[str]) -> None:
        """Raises ConfigError where `customer_value.column` is not one of the spec's `numeric` inputs."""
        value = self.customer_value
        if isinstance(value, ValueColumn) and value.column not in numeric:
            raise ConfigError(
                f"decision.customer_value.column: {value.column} is not a numeric feature; "
                f"name one of {', '.join(numeric)}"
            )
