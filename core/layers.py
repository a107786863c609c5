"""Merges the layers of settings, in the same way for every command.

The order is `configs/<stage>.yaml`, the profile, each `--config` file, each `--set key=value`. A later layer
overrides an earlier one. Mappings are merged; lists and scalars are replaced.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

VARIABLE = re.compile(r"\$\{(\w+)\}")

FILE_KINDS = ("csv", "parquet", "excel")
"""Kinds of file sources. They share the same settings."""


def profile_file(name: str, configs: Path = CONFIGS) -> Path:
    """Return the file of the profile. Raises ConfigError, with the existing profiles, when there is none."""
    file = configs / "profiles" / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.yaml")))
        raise ConfigError(f"--profile {name}: no such profile; there are {known}")
    return file


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the values of `over`; only mappings are merged, recursively.

    A source of another kind replaces the whole source, except when both are tables in files. An online store
    of another type replaces the whole store.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(below, Mapping)
            and all(_is_same_kind(value.get(tag, below.get(tag)), below.get(tag)) for tag in ("kind", "type"))
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _is_same_kind(kind: Any, other: Any) -> bool:
    return bool(kind == other or (kind in FILE_KINDS and other in FILE_KINDS))


def read_layer(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected `key: value` lines, found {type(content).__name__}")
    return content


def parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise ConfigError(f"--set {override}: write it as key.path=value, for example training.epochs=2")
    try:
        tree: Any = text if _is_text(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML; quote it") from None
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _is_text(value: str) -> bool:
    """Whether a value has to be read as text because YAML would misread it. YAML cuts a path or a password at
    ` #`, reads a value with `: ` as a mapping (which needs braces here), and an IPv6 address as a list.
    """
    if re.match(r"\[[0-9a-fA-F:.]+\]:\d", value):
        return True
    return value.lstrip()[:1] not in ("{", "[", '"', "'") and bool(re.search(r"\s#|:\s|:$|^#", value))


def expand(node: Any) -> Any:
    """Replace `${NAME}` by the environment variable NAME, as used for secrets and addresses.

    Raises ConfigError, which names all variables that are not set.
    """
    missing = list(dict.fromkeys(name for name in _variables(node) if name not in os.environ))
    if missing:
        names = f"variable{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise ConfigError(
            f"the profile needs the environment {names}; export {'them' if missing[1:] else 'it'}"
        )
    return _expanded(node)


def _expanded(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _expanded(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_expanded(value) for value in node]
    if isinstance(node, str):  # a variable's value is not parsed as YAML
        return VARIABLE.sub(lambda found: os.environ[found[1]], node)
    return node


def _variables(node: Any) -> Iterator[str]:
    """The names of all variables in the tree."""
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _variables(value)
    elif isinstance(node, str):
        yield from VARIABLE.findall(node)
