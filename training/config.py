"""The settings of `configs/training.yaml`, `tuning.yaml`, `gates.yaml` and `decision.yaml`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, PositiveFloat, Tag

from core.config import Config
from core.errors import ConfigError

Baseline = Literal["base_rate", "logistic_regression", "random_forest", "gradient_boosting", "bg_nbd"]


class TrainingConfig(Config):
    """The settings of `configs/training.yaml`."""

    experiment: str = "churn-prediction"
    """Name of the experiment in MLflow."""
    model_name: str = "churn-prediction"
    """Name of the registered model in MLflow."""
    tracking_uri: str = "sqlite:///{workspace}/mlflow.db"
    """`{workspace}` is replaced by the workspace's absolute path."""
    artifacts_uri: str = "{workspace}/mlartifacts"
    """Where MLflow stores files of runs; `{workspace}` as in `tracking_uri`."""
    seed: int = 42
    """Seed of everything random: the split, the weights, the study."""
    test_snapshots: int = Field(3, gt=0)
    """Transaction logs: how many of the newest snapshots with a complete horizon are the test set."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Labelled tables: share of the rows in the test set, stratified by the target."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Labelled tables: share of the other rows in the validation set. Dated logs are divided by time."""
    epochs: int | None = Field(None, gt=0)
    """Null: derived from the rows of a log; for a table chosen by out-of-fold log-loss."""
    batch_size: int | None = Field(None, gt=1)
    """Rows in one step of the optimizer. Null: by the rule of `training/learn/recipe.py`."""
    learning_rate: float | None = Field(None, gt=0)
    """Null: by the rule of `training/learn/recipe.py`."""
    weight_decay: float | None = Field(None, ge=0)
    """Null: by the rule of `training/learn/recipe.py`."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    calibration: Literal["none", "auto"] = "none"
    """`auto`: Platt scaling where it lowers log-loss on other customers of the newest complete snapshot."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Score above which a customer is at risk, where `decision.threshold` is `training`."""
    baselines: tuple[Baseline, ...] | None = None
    """Null: every baseline that the shape of the source allows."""
    cross_validation: int = Field(5, ge=0)
    """Folds of a table, or test blocks of a log; 0 switches it off."""
    threads: int | None = Field(None, gt=0)
    """Threads of the network's arithmetic; default 1, since the last bits of the weights depend on it."""
    signing_key_env: str = "CHURN_SIGNING_KEY"
    """Name of an environment variable with the private key (PEM) that archives are signed with. If it is not
    set, the key of the workspace is used, and made when absent."""
    trusted_signers: Path | None = None
    """File with the public keys whose archives may be registered and served; default: the workspace's."""

    def baselines_of(self, shape: Literal["transactions", "labelled"]) -> tuple[Baseline, ...]:
        """The configured baselines, or all that the shape allows: bg_nbd needs a transaction log."""
        if self.baselines is not None:
            return self.baselines
        return tuple(name for name in get_args(Baseline) if shape == "transactions" or name != "bg_nbd")


class Range(Config):
    """One dimension of the search space."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Whether values are drawn on a logarithmic scale."""
    integer: bool = False
    """Whether values are whole numbers."""
    choices: tuple[Any, ...] | None = None
    """The values of a setting that is not a number; instead of `low` and `high`."""


TABLE_TRIALS = 2
"""The configured settings and one more point."""


class TuningConfig(Config):
    """The settings of `configs/tuning.yaml`."""

    storage: str = "sqlite:///{workspace}/optuna.db"
    """SQLAlchemy URI of the study's database; `{workspace}` is replaced by the workspace's absolute path. It
    must be another database than `training.tracking_uri`."""
    study: str = "churn-prediction"
    """A study holds trials of the same rows and configs. Other rows start a new study from its best point."""
    trials: int = Field(6, ge=0)
    """If left out, a labelled table gets TABLE_TRIALS where the network improves on the linear path and the
    trees, else none: each fit of a table chooses trees, epochs and path weights out of fold."""
    workers: int = Field(1, gt=0)
    """Processes of one thread each. With 1, trials run in the calling process, reproducible by seed."""
    timeout_s: float | None = Field(None, gt=0)
    """After this time no trial starts, except a first one; running trials are finished."""
    heartbeat_s: int = Field(5, gt=0)
    """How often a worker records that it is running."""
    grace_s: int = Field(30, gt=0)
    """A trial without a heartbeat for this many seconds is run again, since its worker was killed."""
    space: dict[str, Range]
    """`model.<field>` or `training.<field>` -> range."""

    def for_shape(self, shape: Literal["transactions", "labelled"]) -> Self:
        """The config with the number of trials for this shape, if none was configured."""
        return self.model_copy(update={"trials": TABLE_TRIALS}) if self.depends_on_shape(shape) else self

    def depends_on_shape(self, shape: Literal["transactions", "labelled"]) -> bool:
        """Whether the number of trials depends on the shape and the rows."""
        return shape == "labelled" and "trials" not in self.model_fields_set


class Division(Config):
    """A column that divides the customers into parts."""

    column: str
    """Name of a feature or another column of the records."""
    bins: int = Field(4, gt=1)
    """Quantile bins of a numeric column; a categorical one is divided by its values."""


class GatesConfig(Config):
    """The settings of `configs/gates.yaml`."""

    profile: str
    """Which of `profiles` is applied."""
    profiles: dict[str, dict[str, dict[str, Any]]]
    """profile -> rule -> its arguments; rules are the classes of `training/gates/`."""
    segments: Literal["auto"] | tuple[Division, ...] = "auto"
    """`auto`: every categorical feature, and the first three numeric ones in four quantile bins."""
    groups: tuple[Division, ...] = ()
    """The groups that the fairness rule compares."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples of the test customers."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of every bootstrap interval and bound."""


class ValueColumn(Config):
    """The value of each customer, from a numeric feature."""

    column: str
    """Name of the feature."""
    default: float = Field(gt=0)
    """The value where the feature is missing; the packaged threshold is computed for it too."""


TYPICAL_VALUE = 100.0
"""The value of a customer for whom no value is given."""


class DecisionConfig(Config):
    """The settings of `configs/decision.yaml`; all amounts of money in the same unit."""

    customer_value: (
        Annotated[
            Annotated[ValueColumn, Tag("of_each")] | Annotated[PositiveFloat, Tag("of_all")],
            Discriminator(lambda value: "of_each" if isinstance(value, dict | ValueColumn) else "of_all"),
        ]
        | None
    ) = TYPICAL_VALUE
    """The value of a customer who stays, over the time that the offer gains: one number, or a feature. Null:
    in a log the customer's recent spending, one number for a table (training/value_at_stake.py)."""
    offer_cost: float = Field(10.0, ge=0)
    """Cost of an accepted offer. Customers who would have stayed accept it too."""
    contact_cost: float = Field(1.0, ge=0)
    """Cost of making an offer to one customer."""
    acceptance_rate: float = Field(0.3, gt=0, le=1)
    """Share of the customers who would leave and accept the offer."""
    threshold: Literal["profit", "training"] = "profit"
    """A customer above it is at risk: the break-even probability of an offer, or `training.threshold`."""

    def refuse_unknown_column(self, numeric: Sequence[str]) -> None:
        """Raises ConfigError where `customer_value.column` is not one of the spec's `numeric` inputs."""
        value = self.customer_value
        if isinstance(value, ValueColumn) and value.column not in numeric:
            raise ConfigError(
                f"decision.customer_value.column: {value.column} is not a numeric feature; "
                f"name one of {', '.join(numeric)}"
            )
