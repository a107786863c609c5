"""YAML to typed settings, once, at the door.

`configs/<stage>.yaml`, then the profile, then each `--config` file, then each `--set key=value`: later
wins, mappings merge, lists and scalars replace.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data.config import Config, DataConfig
from data.errors import ConfigError
from data.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from serving.config import ServingConfig
from training.config import DecisionConfig, GatesConfig, TrainingConfig, TuningConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class Settings(Config):
    """All that a command may read, as one frozen tree."""

    workspace: Path
    data: DataConfig
    features: FeaturesConfig
    model: ModelConfig
    training: TrainingConfig
    tuning: TuningConfig
    gates: GatesConfig
    decision: DecisionConfig
    serving: ServingConfig

    @property
    def files(self) -> Workspace:
        return Workspace(self.workspace.absolute())


STAGES = tuple(name for name in Settings.model_fields if name != "workspace")


def load_settings(
    profile: str = "local",
    overlays: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    configs: Path = CONFIGS,
) -> Settings:
    """Compose and check the settings.

    Raises ConfigError that names the file or flag, the wrong key and what was expected of it.
    """
    tree: dict[str, Any] = {stage: _read(configs / f"{stage}.yaml") for stage in STAGES}
    profile_file = configs / "profiles" / f"{profile}.yaml"
    if not profile_file.is_file():
        known = ", ".join(sorted(p.stem for p in profile_file.parent.glob("*.yaml")))
        raise ConfigError(f"--profile {profile}: no such profile; there are {known}")
    for file in (profile_file, *overlays):
        tree = merge(tree, _read(file))
    for override in overrides:
        tree = merge(tree, _parse_override(override))
    try:
        settings = Settings.model_validate(_expand(tree))
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
    return _place_in_workspace(settings)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `under`; only mappings merge. A source of another kind replaces the whole source."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(below, Mapping)
            and value.get("kind", below.get("kind")) == below.get("kind")
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected `key: value` lines, found {type(content).__name__}")
    return content


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise ConfigError(f"--set {override}: write it as key.path=value, for example training.epochs=2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML; quote it") from None
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _expand(node: Any) -> Any:
    """Put environment variables in for `${NAME}`; secrets and addresses of a platform come this way."""
    if isinstance(node, dict):
        return {key: _expand(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_expand(value) for value in node]
    if isinstance(node, str):
        for name in re.findall(r"\$\{(\w+)\}", node):
            if name not in os.environ:
                raise ConfigError(f"the profile needs the environment variable {name}; export it")
            node = node.replace(f"${{{name}}}", os.environ[name])
    return node


def _place_in_workspace(settings: Settings) -> Settings:
    """Fill `{workspace}` in URIs."""
    root = str(settings.workspace.absolute())

    def placed(uri: str) -> str:
        return uri.replace("{workspace}", root)

    training = settings.training.model_copy(
        update={
            "tracking_uri": placed(settings.training.tracking_uri),
            "artifacts_uri": placed(settings.training.artifacts_uri),
        }
    )
    tuning = settings.tuning.model_copy(update={"storage": placed(settings.tuning.storage)})
    return settings.model_copy(update={"training": training, "tuning": tuning})


def _one_line(error: ValidationError) -> str:
    """The first complaint, with the path of the key as a user would write it after `--set`."""
    first = error.errors()[0]
    # pydantic puts the tag of a discriminated union into the path; a user never wrote it
    path = [str(p) for p in first["loc"] if p not in ("cdnow", "csv", "parquet")]
    key = ".".join(path) or "config"
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{_did_you_mean(path)}; remove it or correct its name"
    if first["type"] == "missing":
        return f"{key}: missing; add it"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    given = "" if isinstance(first["input"], dict | list) else f", not {first['input']!r}"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{given}{more}"


def _did_you_mean(path: Sequence[str]) -> str:
    from difflib import get_close_matches

    model: Any = Settings
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    close = get_close_matches(path[-1], getattr(model, "model_fields", {}), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
