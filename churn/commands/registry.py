"""`churn registry ...`: versions and aliases. What serves is decided by rollouts; the champion follows it."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.commands.step import who
from churn.settings import Settings
from core.errors import TrainingError

if TYPE_CHECKING:
    from training.registry.model_registry import Registry


def versions(settings: Settings, arguments: Namespace) -> int:
    from training.registry.model_registry import Registry

    registry = Registry(settings.training)
    names: dict[str, list[str]] = {}
    for alias, number in registry.aliases().items():
        names.setdefault(number, []).append(alias)
    rows = [
        (
            version.number,
            ", ".join(sorted(names.get(version.number, []))),
            version.tags.get("gates"),
            version.tags.get("model_version"),
            version.run_id,
        )
        for version in registry.versions()
    ]
    console.table(settings.training.model_name, ("version", "alias", "gates", "model", "run"), rows)
    return 0


def promote(settings: Settings, arguments: Namespace) -> int:
    from training.registry.model_registry import CHALLENGER, Registry
    from training.release.register import numbers_of

    registry = Registry(settings.training)
    number = arguments.version or registry.aliases().get(CHALLENGER)
    if number is None:
        raise TrainingError("registry promote: there is no challenger; name a version")
    with _writing(settings, registry, number):
        numbers = numbers_of(settings.training, registry.version(number).run_id)
        done = registry.promote(number, who(), datetime.now(UTC), arguments.reason, numbers)
    words = "is the champion" if done else "was the champion already"
    console.out.print(f"Version {number} {words}. Next: [bold]churn registry history[/]")
    return 0


def rollback(settings: Settings, arguments: Namespace) -> int:
    from training.registry.model_registry import CHAMPION, PREVIOUS, Registry

    registry = Registry(settings.training)
    with _writing(settings, registry, registry.aliases().get(PREVIOUS)):
        registry.rollback(who(), datetime.now(UTC), arguments.reason)
    console.out.print(f"Version {registry.aliases()[CHAMPION]} is the champion again.")
    return 0


@contextmanager
def _writing(settings: Settings, registry: "Registry", number: str | None) -> Iterator[None]:
    """While the aliases are written, by one process at a time, the controller included.

    Raises RolloutError where `number` would name another archive as champion than the one that is recorded as
    what customers are answered by: the controller would set it back.
    """
    from pipelines.rollout import open_store
    from rollout.errors import RolloutError
    from rollout.registry import locked_by

    store = open_store(settings)
    stable = store.stable(settings.serving.model_name)
    if stable is not None and number is not None:
        archive = registry.version(number).tags.get("archive_sha256")
        if archive != stable.sha256:
            raise RolloutError(
                f"registry: version {number} is not what customers are answered by, which is model version"
                f" {stable.version}; the champion follows it: bring another with `churn deploy` or `churn"
                " rollback`"
            )
    with locked_by(store, settings.training.model_name, lambda: datetime.now(UTC)):
        yield


def history(settings: Settings, arguments: Namespace) -> int:
    from training.registry.model_registry import Registry

    rows = [
        (
            d.when[:19],
            d.who,
            d.action,
            d.version,
            d.numbers.get("log_loss"),
            d.why,
            "" if d.applied else "cut short",
        )
        for d in Registry(settings.training).history()
    ]
    console.table("Decisions", ("when", "who", "action", "version", "log-loss", "why", ""), rows)
    return 0
