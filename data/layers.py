"""How settings are laid over one another, whichever command reads them.

`configs/<stage>.yaml`, then the profile, then each `--config` file, then each `--set key=value`: later
wins, mappings merge, lists and scalars replace.
"""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data.errors import ConfigError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


TAGS = ("cdnow", "csv", "parquet", "excel", "postgres", "of_each", "of_all")
"""Which of several shapes a setting has; pydantic names it in the path of an error."""


IN_FILES = ("csv", "parquet", "excel")
"""Kinds of a source that have the same settings."""


def profile_file(name: str, configs: Path = CONFIGS) -> Path:
    """Raises ConfigError that names the profiles there are."""
    file = configs / "profiles" / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.yaml")))
        raise ConfigError(f"--profile {name}: no such profile; there are {known}")
    return file


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `under`; only mappings merge. A source of another kind replaces the whole source, save
    where both are tables in files, an online store of another type the whole store."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(below, Mapping)
            and all(_alike(value.get(tag, below.get(tag)), below.get(tag)) for tag in ("kind", "type"))
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _alike(kind: Any, other: Any) -> bool:
    return bool(kind == other or (kind in IN_FILES and other in IN_FILES))


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
    """Whether YAML would take a value for what it is not: a path or a password with ` #` would be cut there,
    one with `: ` would be a mapping (which has to stand in braces), and an IPv6 address a list.
    """
    if re.match(r"\[[0-9a-fA-F:.]+\]:\d", value):
        return True
    return value.lstrip()[:1] not in ("{", "[", '"', "'") and bool(re.search(r"\s#|:\s|:$|^#", value))


def expand(node: Any) -> Any:
    """Put environment variables in for `${NAME}`; secrets and addresses of a platform come this way."""
    if isinstance(node, dict):
        return {key: expand(value) for key, value in node.items()}
    if isinstance(node, list):
        return [expand(value) for value in node]
    if isinstance(node, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: _variable(found[1]), node)
    return node


def _variable(name: str) -> str:
    """What it holds, as it is."""
    if name not in os.environ:
        raise ConfigError(f"the profile needs the environment variable {name}; export it")
    return os.environ[name]


def one_line(error: ValidationError, config: Any) -> str:
    """The first complaint, with the path of the key as a user would write it after `--set`; `config` is
    the class that refused."""
    first = error.errors()[0]
    # pydantic puts the tag of a discriminated union into the path; a user never wrote it
    path = [str(p) for p in first["loc"] if p not in TAGS]
    key = ".".join(path) or "config"
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{_did_you_mean(path, config)}; remove it or correct its name"
    if first["type"] == "missing":
        return f"{key}: missing; add it"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    given = "" if isinstance(first["input"], dict | list) else f", not {first['input']!r}"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{given}{more}"


def _did_you_mean(path: Sequence[str], config: Any) -> str:
    model = config
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    close = get_close_matches(path[-1], getattr(model, "model_fields", {}), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
