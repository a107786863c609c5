"""`--profile`, `--config OVERLAY` and `--set` of `churn`, for Lightning's command line.

An overlay has the keys of stages (`training: {epochs: 6}`), the command line of training has its settings as
flags (`--epochs 6`, or a file with `epochs: 6`). Each overlay is turned into such a file at its place among
the arguments, after the whole tree was validated as in `churn`. A later argument overrides an earlier one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.config import validated
from core.errors import ConfigError
from core.layers import CONFIGS, expand, merge, parse_override, profile_file, read_layer
from training.stages import Stages

OPTIONS = ("--profile", "--config", "--set")
STAGES = tuple(name for name in Stages.model_fields if name != "workspace")
ONLY_STAGES = {"data", "training", "tuning", "gates", "decision", "serving", "gateway"}
"""Keys that a file of flags cannot have; `model` and `workspace` have the same meaning in both."""
ONLY_FLAGS = {"trainer", "checkpoint", "early_stopping", "rows"}


def as_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments with every overlay converted to flags.

    Raises ConfigError that names the file or flag, and the key that no stage has.
    """
    tree: dict[str, Any] = {stage: read_layer(CONFIGS / f"{stage}.yaml") for stage in STAGES}
    tree["workspace"] = "var"
    overlays: dict[str, Any] = {}
    flags: list[str] = []
    last: list[str] = []
    for option, value in _options(arguments):
        layer = _layer(option, value)
        if layer is None:
            flags.append(f"{option}={value}" if option else value)
            continue
        tree, overlays = merge(tree, layer), merge(overlays, layer)
        validated(Stages, tree, "--set: " if option == "--set" else f"{option} {value}: ")
        # `--set` overrides the rest at any position, as in `churn`; features are passed on as a whole
        place = last if option == "--set" else flags
        place.append(f"--config={yaml.safe_dump(_as_file(layer, overlays))}")
    return [*flags, *last]


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) for each of OPTIONS, ("", argument) for all others."""
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
    """The tree that is merged over the configs; None for a file that Lightning's command line reads."""
    if option == "--set":
        return parse_override(value)
    if option == "--profile":
        return read_layer(profile_file(value))
    if option != "--config" or not Path(value).is_file():
        return None
    content = read_layer(Path(value))
    staged = content.keys() & ONLY_STAGES or isinstance(content.get("features"), Mapping)
    return content if staged and not content.keys() & ONLY_FLAGS else None


def _as_file(layer: Mapping[str, Any], overlays: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of flags; stages that a fit does not use are left out."""
    content = dict(expand(layer.get("training", {})))
    for name in ("workspace", "model"):
        if name in layer:
            content[name] = expand(layer[name])
    if "features" in layer:
        content["features"] = expand(overlays["features"])
    return content
