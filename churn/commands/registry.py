"""`churn registry ...`: versions and aliases. Rollouts decide what serves; the champion follows them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.command import REASON, argument, command
from churn.commands.step import who
from core.errors import TrainingError

if TYPE_CHECKING:
    from churn.settings import Settings
    from training.registry.model_registry import Registry


@command(
    "registry list",
    "registered versions, with their gates and aliases",
    examples=("churn registry list",),
)
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


@command(
    "registry promote",
    "make a version the champion",
    examples=(
        'churn registry promote --reason "two weeks on trial"',
        'churn registry promote 7 --reason "..."',
    ),
    arguments=(
        argument("version", nargs="?", help="number of the version; default: the challenger"),
        REASON,
    ),
)
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


@command(
    "registry rollback",
    "make the previous champion the champion again",
    examples=('churn registry rollback --reason "calls rose"',),
    arguments=(REASON,),
)
def rollback(settings: Settings, arguments: Namespace) -> int:
    from training.registry.model_registry import CHAMPION, PREVIOUS, Registry

    registry = Registry(settings.training)
    with _writing(settings, registry, registry.aliases().get(PREVIOUS)):
        registry.rollback(who(), datetime.now(UTC), arguments.reason)
    console.out.print(f"Version {registry.aliases()[CHAMPION]} is the champion again.")
    return 0


@contextmanager
def _writing(settings: Settings, registry: Registry, number: str | None) -> Iterator[None]:
    """Lock the aliases against other processes, including the controller, while the block writes them.

    Raises RolloutError if version `number` is not the archive that is recorded as stable, because the
    controller would set the champion back to the stable archive.
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
                f"registry: customers are served by model version {stable.version}, not by version {number};"
                " the champion follows what is served: change that with `churn deploy` or `churn rollback`"
            )
    with locked_by(store, settings.training.model_name, lambda: datetime.now(UTC)):
        yield


@command(
    "registry history",
    "every change of champion and challenger: who, when, why",
    examples=("churn registry history",),
)
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
            "" if d.applied else "interrupted",
        )
        for d in Registry(settings.training).history()
    ]
    console.table("Decisions", ("when", "who", "action", "version", "log-loss", "why", ""), rows)
    return 0
