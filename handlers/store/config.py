"""Reads feature_store.yaml: the addresses of registry and online store, and whether only Feast can read them.

Feast expands environment variables in the file's text and parses it afterwards, so that a path with ` #` is
cut, and a password with `: ` is a syntax error. Here the file is parsed first, so that the value of a
variable is not changed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from handlers.bundle import BundleError
from handlers.store.wire import KEY_VERSION


@dataclass(frozen=True)
class StoreConfig:
    """The content of feature_store.yaml, with environment variables expanded."""

    folder: Path
    """Relative paths are resolved to it."""
    project: str
    registry: Mapping[str, Any]
    online: Mapping[str, Any]
    content: Mapping[str, Any]
    """The whole file, for Feast."""
    readable_without_feast: bool
    """False for a key format, a provider or versioned tables that only Feast supports."""

    def path(self, name: str) -> Path:
        return self.folder / name


def read_store_config(folder: Path, environment: Mapping[str, str]) -> StoreConfig:
    """Read the file in `folder`. Raises BundleError when it is unreadable or names an unset variable."""
    try:
        text = (folder / "feature_store.yaml").read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(f"feature_store.yaml: {error.strerror}; package the model again") from None
    try:
        content = _expanded(yaml.safe_load(text), environment)
        registry = content.get("registry", "data/registry.db")
        return StoreConfig(
            folder=folder,
            project=str(content["project"]),
            registry={"path": registry} if isinstance(registry, str) else dict(registry),
            online=dict(content["online_store"]),
            content=content,
            readable_without_feast=_readable_without_feast(content),
        )
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"feature_store.yaml: {type(error).__name__} while reading project, registry and online_store; "
            "package the model again"
        ) from None


def _expanded(content: Any, environment: Mapping[str, str]) -> Any:
    """The content with each `${NAME}` replaced by the variable's value, which is not expanded again.

    An unset variable is an error. Feast would retain the text, and create an empty registry of that name.
    """
    if isinstance(content, dict):
        return {key: _expanded(value, environment) for key, value in content.items()}
    if isinstance(content, list):
        return [_expanded(value, environment) for value in content]
    return _expanded_text(content, environment) if isinstance(content, str) else content


def _expanded_text(text: str, environment: Mapping[str, str]) -> str:

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if not environment.get(name):
            raise BundleError(f"feature_store.yaml: the environment variable {name} is not set")
        return environment[name]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _readable_without_feast(content: Mapping[str, Any]) -> bool:
    registry = content.get("registry")
    versioned = isinstance(registry, dict) and registry.get("enable_online_feature_view_versioning")
    return (
        content.get("entity_key_serialization_version", KEY_VERSION) == KEY_VERSION
        and content.get("provider", "local") == "local"
        and not versioned
    )
