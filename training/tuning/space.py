"""The search space of a study: settings by name, and the conversion of a point to a configuration."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.config import validated
from core.errors import ConfigError
from model.config import ModelConfig
from training.config import Range, TrainingConfig
from training.learn.resolved import FitSettings

if TYPE_CHECKING:
    import optuna


def suggest(trial: "optuna.Trial", key: str, within: Range) -> Any:
    """The trial's value for the setting `key`. Raises ConfigError for a range without bounds or choices."""
    if within.choices is not None:
        # as JSON, since the storage does not accept a list as a category
        return decoded(
            within, trial.suggest_categorical(key, [json.dumps(choice) for choice in within.choices])
        )
    if within.low is None or within.high is None:
        raise ConfigError(f"tuning.space.{key}: give low and high, or choices")
    if within.integer:
        return trial.suggest_int(key, int(within.low), int(within.high), log=within.log)
    return trial.suggest_float(key, within.low, within.high, log=within.log)


def apply(chosen: Mapping[str, Any], settings: FitSettings) -> FitSettings:
    """The settings with the values of `chosen` (`{"model.dropout": 0.2, ...}`).

    Raises ConfigError for an unknown setting or an invalid value.
    """
    trees: dict[str, dict[str, Any]] = {
        "model": settings.model.model_dump(),
        "training": settings.training.model_dump(),
    }
    for key, value in chosen.items():
        section, _, field = key.partition(".")
        if field not in trees.get(section, {}):
            raise ConfigError(
                f"tuning.space.{key}: no such setting; write it as model.<field> or training.<field>"
            )
        trees[section][field] = value
    model = validated(ModelConfig, trees["model"], "tuning.space.model.")
    training = validated(TrainingConfig, trees["training"], "tuning.space.training.")
    return FitSettings(settings.shape, settings.spec, model, training)


def point_of_configs(space: Mapping[str, Range], settings: FitSettings) -> dict[str, Any] | None:
    """The settings as a point of the space; None if one of them is outside of it."""
    trees = {name: getattr(settings, name).model_dump(mode="json") for name in ("model", "training")}
    point: dict[str, Any] = {}
    for key, within in space.items():
        section, _, field = key.partition(".")
        value = trees.get(section, {}).get(field)
        if within.choices is not None:
            inside, value = value in json.loads(json.dumps(within.choices)), json.dumps(value)
        else:
            inside = value is not None and (within.low or 0) <= value <= (within.high or 0)
        if not inside:
            return None
        point[key] = value
    return point


def decoded(within: Range, value: Any) -> Any:
    """The value of a setting, decoded from JSON if it is one of `choices`."""
    return value if within.choices is None else json.loads(value)
