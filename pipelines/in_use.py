"""Which archives are in use: what serves, a canary, the champion, and what a rollback returns to."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import TrainingError
from pipelines.context import Stages
from pipelines.doctor.stores import sqlite_file, unreachable
from training.registry.model_registry import CHAMPION, PREVIOUS, Registry

STABLE, CANARY, BEFORE = "stable", "canary", "what a rollback returns to"
ALIASES = ((CHAMPION, CHAMPION), (PREVIOUS, BEFORE))
"""Aliases of the registry whose versions are in use, and their roles."""


@dataclass(frozen=True)
class Use:
    """An archive in use."""

    sha256: str
    version: str
    """Of the model, as in its bundle."""
    archive: str
    """Where servers load it, if a rollout recorded it."""
    roles: tuple[str, ...]

    @property
    def can_be_given_up(self) -> bool:
        """Whether the archive serves nothing now, and only a rollback would need it."""
        return set(self.roles) == {BEFORE}

    def __str__(self) -> str:
        return f"version {self.version} ({', '.join(self.roles)})"


def in_use(settings: Stages, strict: bool = False) -> list[Use]:
    """The archives in use. The database of rollouts decides; a registry that cannot be reached adds nothing,
    unless `strict`: then it raises TrainingError. Raises RolloutError for the database."""
    roles: dict[str, tuple[str, str, list[str]]] = {}
    for role, sha256, version, archive in (*_of_rollouts(settings), *_of_registry(settings, strict)):
        known = roles.setdefault(sha256, (version, archive, []))[2]
        if role not in known:
            known.append(role)
    return [
        Use(sha256, version, archive, tuple(names)) for sha256, (version, archive, names) in roles.items()
    ]


def _of_rollouts(settings: Stages) -> Iterator[tuple[str, str, str, str]]:
    """Role, sha256, version and address of each archive that the database of rollouts records as in use."""
    from pipelines.rollout import open_store

    file = sqlite_file(settings.rollout.database)
    if file is not None and not file.is_file():
        return  # opening it would create it
    store, model = open_store(settings), settings.serving.model_name
    running, stable = store.current(model), store.stable(model)
    found = [(STABLE, stable)]
    if running is not None:
        found += [(CANARY, running.candidate), (BEFORE, running.previous)]
    elif stable is not None:
        found.append((BEFORE, store.before(model, stable)))
    for role, one in found:
        if one is not None:
            yield role, one.sha256, one.version, one.archive


def _of_registry(settings: Stages, strict: bool) -> Iterator[tuple[str, str, str, str]]:
    uri = settings.training.tracking_uri
    if fault := unreachable(uri):
        if strict:
            raise TrainingError(f"training.tracking_uri: {fault}; start the MLflow server")
        return
    registry = Registry(settings.training)
    if not registry.exists:
        return
    try:
        aliases = registry.aliases()
        found = [(role, registry.version(aliases[name])) for name, role in ALIASES if name in aliases]
    except TrainingError:
        if strict:
            raise
        return
    for role, version in found:
        yield role, version.tags.get("archive_sha256", ""), version.tags.get("model_version", ""), ""
