"""The base of every configuration, and the one place that reports an invalid one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import ConfigError

TAGS = ("cdnow", "csv", "parquet", "excel", "postgres", "of_each", "of_all")
"""Tags of discriminated unions. pydantic inserts them into the path of an error; a user omits them."""


class Config(BaseModel):
    """Base of all configs: immutable; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)


def validated(config: type[C], content: Mapping[str, Any], prefix: str = "") -> C:
    """Return `content` as a `config`.

    Raises ConfigError with one line about the first error: `prefix`, the path of the key as a user writes it
    after `--set`, what is wrong, and the value.
    """
    try:
        return config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{prefix}{_first_error(error, config)}") from None


def _first_error(error: ValidationError, config: type[Config]) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part not in TAGS]
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
