"""Refuses settings that the shape of the source cannot have, when the settings are read.

A setting for the other shape has no effect. Its default value is accepted; a changed value is refused, since
the user expected an effect.
"""

from collections.abc import Collection, Iterator
from typing import Any, Literal

from core.errors import ConfigError
from data.config import DataConfig, TableSource
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig, TuningConfig

Shape = Literal["transactions", "labelled"]


def refuse_for_shape(
    data: DataConfig,
    features: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
) -> None:
    """Raises ConfigError with the first setting that `data.shape` cannot have, and the remedy."""
    rules = _of_table if data.shape == "labelled" else _of_log
    for problem in rules(data, features, model, training, tuning):
        raise ConfigError(problem)


def refuse_baselines(names: Collection[str], shape: Shape) -> None:
    """Raises ConfigError for a baseline that cannot be computed for the shape of the source."""
    if shape == "labelled" and "bg_nbd" in names:
        raise ConfigError(
            "training.baselines: bg_nbd needs a transaction log; remove it for a labelled table"
        )


def _of_table(
    data: DataConfig,
    features: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
) -> Iterator[str]:
    refuse_baselines(training.baselines or (), "labelled")
    needs_log = "needs a transaction log; remove it for a labelled table"
    if model.purchase_process:
        yield f"model.purchase_process: {needs_log}"
    searched = tuning.space.get("model.purchase_process")
    if searched is not None and True in (searched.choices or ()):
        yield f"tuning.space.model.purchase_process: {needs_log}"
    if _changed(training, "test_snapshots"):
        yield "training.test_snapshots: a labelled table has no snapshots; set training.test_share instead"
    if features.returns_count_as_life:
        yield f"features.returns_count_as_life: {needs_log}"
    if _changed(features, "snapshots"):
        yield f"features.snapshots: {needs_log}; each row of a labelled table has its time"
    for feature in features.features:
        if feature.over != "purchases":
            yield f"features.features.{feature.name}.over: a labelled table has no returns; leave it out"
    if isinstance(data.source, TableSource):
        if data.source.group_by:
            yield f"data.source.group_by: {needs_log}"
        if _changed(data.source, "returns") and data.source.returns is not None:
            yield f"data.source.returns: {needs_log}"


def _of_log(
    data: DataConfig,
    features: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
) -> Iterator[str]:
    needs_table = "is for labelled tables; remove it for a transaction log"
    for name in ("test_share", "validation_share"):
        if _changed(training, name):
            yield f"training.{name}: {needs_table}, whose newest snapshots judge (training.test_snapshots)"
    if data.observed_at is not None:
        yield f"data.observed_at: {needs_table}"
    if isinstance(data.source, TableSource):
        for name in ("positive", "ignore"):
            if _changed(data.source, name):
                yield f"data.source.{name}: {needs_table}, whose label is derived"
    if model.purchase_process:
        named = model.purchase_columns
        for field in ("purchase_days", "age", "recency"):
            if (column := getattr(named, field)) not in features.numeric:
                yield (
                    f"model.purchase_columns.{field}: {column} is not a numeric feature; name another one, "
                    "or set model.purchase_process: false"
                )


def _changed(config: Any, name: str) -> bool:
    """Whether a setting differs from its default."""
    field = type(config).model_fields[name]
    return bool(getattr(config, name) != field.get_default(call_default_factory=True))
