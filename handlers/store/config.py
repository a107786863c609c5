"""feature_store.yaml as the server needs it: where registry and store are, and how they are laid out.

Feast puts environment variables into the file's text and parses it then, so that a path with ` #`, or a
password with `: `, would be cut or break the file. Here the file is parsed first: what a variable holds
arrives as it is.
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
    """Feast's file, its environment variables put in."""

    folder: Path
    """Relative paths start here."""
    project: str
    registry: Mapping[str, Any]
    online: Mapping[str, Any]
    content: Mapping[str, Any]
    """All of the file, for Feast."""
    readable_without_feast: bool
    """Neither a key format nor a provider nor versioned tables of which only Feast knows what they mean."""

    def path(self, name: str) -> Path:
        return self.folder / name


def read_store_config(folder: Path, environment: Mapping[str, str]) -> StoreConfig:
    """Of `folder`. Raises BundleError when the file cannot be read, or names an unset variable."""
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
    """The same with `${NAME}` in every text replaced, once: what a variable holds is not looked at again.

    An unset variable is an error; Feast would leave it as it is, and make an empty registry of that name.
    """
    if isinstance(content, dict):
        return {key: _expanded(value, environment) for key, value in content.items()}
    if isinstance(content, list):
        return [_expanded(value, environment) for value in content]
    return _put_in(content, environment) if isinstance(content, str) else content


def _put_in(text: str, environment: Mapping[str, str]) -> str:

    def put_in(found: re.Match[str]) -> str:
        name = found[1]
        if not environment.get(name):
            raise BundleError(f"feature_store.yaml: the environment variable {name} is not set")
        return environment[name]

    return re.sub(r"\$\{(\w+)\}", put_in, text)


def _readable_without_feast(content: Mapping[str, Any]) -> bool:
    registry = content.get("registry")
    versioned = isinstance(registry, dict) and registry.get("enable_online_feature_view_versioning")
    return (
        content.get("entity_key_serialization_version", KEY_VERSION) == KEY_VERSION
        and content.get("provider", "local") == "local"
        and not versioned
    )
