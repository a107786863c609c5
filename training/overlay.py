"""`--profile`, `--config OVERLAY` and `--set` of `churn`, for Lightning's command line.

An overlay speaks of stages (`training: {epochs: 6}`), the command line of training's own settings
(`--epochs 6`, or a file with `epochs: 6`). Overlays become such files here, in their place among the
arguments, once the whole tree has been checked as `churn` checks it; so later still wins.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data.errors import ConfigError
from data.layers import CONFIGS, expand, merge, one_line, parse_override, profile_file, read_layer
from training.stages import Stages

OPTIONS = ("--profile", "--config", "--set")
STAGES = tuple(name for name in Stages.model_fields if name != "workspace")
ONLY_STAGES = {"data", "training", "tuning", "gates", "decision", "serving", "gateway"}
"""Keys that a file of flags cannot have; `model` and `workspace` mean the same in both."""
ONLY_FLAGS = {"trainer", "checkpoint", "early_stopping", "rows"}


def as_flags(arguments: Sequence[str]) -> list[str]:
    """The same command, every overlay written as flags.

    Raises ConfigError of one line that names the file or flag and the key that no stage has.
    """
    tree: dict[str, Any] = {stage: read_layer(CONFIGS / f"{stage}.yaml") for stage in STAGES}
    tree["workspace"] = "var"
    said: dict[str, Any] = {}
    flags: list[str] = []
    last: list[str] = []
    for option, value in _options(arguments):
        layer = _layer(option, value)
        if layer is None:
            flags.append(f"{option}={value}" if option else value)
            continue
        tree, said = merge(tree, layer), merge(said, layer)
        _check(tree, option if option == "--set" else f"{option} {value}")
        # `--set` wins wherever it stands, as it does with `churn`; features are passed on as a whole
        place = last if option == "--set" else flags
        place.append(f"--config={yaml.safe_dump(_as_file(layer, said))}")
    return [*flags, *last]


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of ours, ("", argument) of all others."""
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name not in OPTIONS:
            yield "", argument
            continue
        if not equals:
            value = next(left, "")
        if not value:
            raise ConfigError(f"{name}: give a value")
        yield name, value


def _layer(option: str, value: str) -> dict[str, Any] | None:
    """What is laid over the configs; None for what Lightning's command line reads by itself."""
    if option == "--set":
        return parse_override(value)
    if option == "--profile":
        return read_layer(profile_file(value))
    if option != "--config" or not Path(value).is_file():
        return None
    content = read_layer(Path(value))
    staged = content.keys() & ONLY_STAGES or isinstance(content.get("features"), Mapping)
    return content if staged and not content.keys() & ONLY_FLAGS else None


def _check(tree: Mapping[str, Any], where: str) -> None:
    try:
        Stages.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error, Stages)}") from None


def _as_file(layer: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A file of flags; stages that take no part in a fit have none."""
    content = dict(expand(layer.get("training", {})))
    for name in ("workspace", "model"):
        if name in layer:
            content[name] = expand(layer[name])
    if "features" in layer:
        content["features"] = expand(said["features"])
    return content
