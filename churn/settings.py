"""Reads YAML into typed settings, once per command. core/layers.py has the order of precedence."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from core.config import validated
from core.errors import ConfigError
from core.layers import CONFIGS, expand, merge, parse_override, profile_file, read_layer
from core.workspace import Workspace
from monitoring.config import MonitoringConfig
from pipelines.backup.config import BackupConfig
from replay.config import ReplayConfig
from retraining.config import RetrainConfig
from rollout.config import RolloutConfig
from serving.config import GatewayConfig, ServingConfig
from stream.config import StreamConfig
from training.shape_rules import refuse_for_shape
from training.stages import Stages
from training.value_at_stake import value_at_stake


class Settings(Stages):
    """All settings, as one immutable tree."""

    serving: ServingConfig
    gateway: GatewayConfig
    rollout: RolloutConfig
    replay: ReplayConfig
    retrain: RetrainConfig
    monitoring: MonitoringConfig
    backup: BackupConfig
    stream: StreamConfig
    _given: frozenset[str] = PrivateAttr(frozenset())

    @property
    def given(self) -> frozenset[str]:
        """Keys, as after `--set`, to which an overlay or `--set` gave a value that is not null."""
        return self._given

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
    """Compose and validate the settings.

    Raises ConfigError with the file or flag, the wrong key, and the expected value.
    """
    tree: dict[str, Any] = {stage: read_layer(configs / f"{stage}.yaml") for stage in STAGES}
    tree = merge(tree, read_layer(profile_file(profile, configs)))
    given = [*map(read_layer, overlays), *map(parse_override, overrides)]
    for layer in given:
        tree = merge(tree, layer)
    settings = validated(Settings, expand(tree))
    if settings.tuning.storage == settings.training.tracking_uri:
        # both store the version of their schema in a table of the same name
        raise ConfigError(
            "tuning.storage: the same database as training.tracking_uri; choose another database"
        )
    refuse_for_shape(settings.data, settings.features, settings.model, settings.training, settings.tuning)
    decision = value_at_stake(settings.decision, settings.features, settings.data.shape)
    settings = settings.model_copy(update={"decision": decision})
    settings.decision.refuse_unknown_column(settings.features.numeric)
    settings._given = frozenset(key for layer in given for key in _leaves(layer))
    return _place_in_workspace(settings)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of all values that are not null, such as `training.epochs`."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}"


def _place_in_workspace(settings: Settings) -> Settings:
    """Replace `{workspace}` in URIs."""
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
    rollout = settings.rollout.model_copy(update={"database": placed(settings.rollout.database)})
    stream = settings.stream.model_copy(update={"state": placed(settings.stream.state)})
    places = {"training": training, "tuning": tuning, "rollout": rollout, "stream": stream}
    return settings.model_copy(update=places)
