"""The settings in `configs/retrain.yaml`."""

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from core.config import Config


class SomeOf(Config):
    """A condition that has to hold in some of the newest checks."""

    windows: int = Field(1, gt=0)
    """In so many checks it has to hold."""
    of: int = Field(2, gt=0)
    """Of so many newest checks."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.windows > self.of:
            raise ValueError(f"windows: {self.windows} is more than of: {self.of}")
        return self


class Ageing(Config):
    """A training is due when the loss of an old model costs more than another training would: at the period
    with the least costs, by the ageing that the monitor has measured (retraining/tempo.py)."""

    step_days: float = Field(30, gt=0)
    """So often all customers are scored and acted upon."""
    value: float = Field(1.0, gt=0)
    """Of one nat of one customer's log-loss in a step."""
    cost: float = Field(60.0, ge=0)
    """Of a training with its rollout, in the unit of `value`."""
    expected_nats: float = Field(0.0005, ge=0)
    """Loss of a customer for each step of age, as long as little was measured."""
    expected_weight: float = Field(1.0, gt=0)
    """The expectation counts at each age like so many measurements."""
    half_life_steps: float = Field(3.0, gt=0)
    """After so many steps a measurement has half of its weight."""
    longest_steps: int = Field(60, gt=1)
    """A period of so many steps or more is none."""


class Triggers(Config):
    """What asks for a training; null switches a trigger off. A person can always ask."""

    performance: SomeOf | None = SomeOf()
    """Findings of harm on matured labels."""
    early_labels: SomeOf | None = SomeOf()
    """Findings of harm on customers who returned before the horizon."""
    drift: SomeOf | None = SomeOf(windows=3, of=4)
    """The same finding of drift, which also has to be in the newest check."""
    schedule_days: float | None = Field(90, gt=0)
    """Days since the last training, whatever became of its candidate. With `ageing`, only as long as nothing
    was measured."""
    ageing: Ageing | None = None
    """Days since the last training, as many as cost least."""
    new_labels: int | None = Field(None, gt=0)
    """Labels that matured since the last training."""

    @property
    def of(self) -> int:
        """How many of the newest checks the triggers read."""
        return max((some.of for some in (self.performance, self.early_labels, self.drift) if some), default=1)


class Budget(Config):
    """The largest number of runs in a span of time."""

    runs: int = Field(2, gt=0)
    """So many runs may start, those that a person forced included."""
    days: float = Field(7, gt=0)
    """In any span of so many days."""


class Vetoes(Config):
    """So many of the newest checks have to be without a finding of this cause; 0 switches a veto off."""

    corruption: int = Field(2, ge=0)
    """Wrong data: their rows would be training rows."""
    skew: int = Field(1, ge=0)
    """The server computes other features than the history holds."""
    staleness: int = Field(1, ge=0)
    """Data that are too old or too few."""
    unmonitored_days: float | None = Field(30, gt=0)
    """The newest check may be so old; null: models are trained without any check of the data."""

    @property
    def of(self) -> int:
        """How many of the newest checks the vetoes read."""
        return max(self.corruption, self.skew, self.staleness)


class Windows(Config):
    """The spans of history that a model may be trained on. A model is fitted to each of them, and the one
    with the least loss on newer validation rows becomes the candidate. Labelled tables use all rows."""

    all: bool = True
    """All snapshots."""
    recent_days: tuple[PositiveFloat, ...] = (180, 365)
    """The snapshots of the last so many days."""
    season_days: float | None = Field(45, gt=0, le=183)
    """The snapshots of every year within so many days of the same day of the year; null: none."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if not (self.all or self.recent_days or self.season_days):
            raise ValueError("windows: none is configured; set all: true")
        return self


class RetrainConfig(Config):
    """The settings of `configs/retrain.yaml`: the policy of the governor, and the run that it grants."""

    triggers: Triggers = Triggers()
    cooldown_hours: float = Field(24, ge=0)
    """Hours after the end of any run and of its rollout, also after a candidate that was refused."""
    budget: Budget = Budget()
    minimum_labels: int = Field(1000, ge=0)
    """Matured labels without which no model is trained."""
    minimum_new_labels: int = Field(1, ge=0)
    """Labels that have to be new since the last training: the same labels would give the same model."""
    vetoes: Vetoes = Vetoes()
    windows: Windows = Windows()
    lease_s: float = Field(120, gt=0)
    """A runner that has not renewed its lease for so long is replaced by the next one."""

    @property
    def checks_read(self) -> int:
        """How many of the newest checks a decision reads."""
        return max(self.triggers.of, self.vetoes.of)
