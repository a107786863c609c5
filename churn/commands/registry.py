"""`churn registry ...`: who serves, and why."""

from argparse import Namespace
from datetime import UTC, datetime

from churn import console
from churn.commands.step import who
from churn.lock import alone
from churn.settings import Settings
from data.errors import TrainingError


def versions(settings: Settings, arguments: Namespace) -> int:
    from training.registry import Registry

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
    from training.registry import CHALLENGER, Registry
    from training.tracking import numbers_of

    registry = Registry(settings.training)
    number = arguments.version or registry.aliases().get(CHALLENGER)
    if number is None:
        raise TrainingError("registry promote: there is no challenger; name a version")
    with alone(settings.files):
        numbers = numbers_of(settings.training, registry.version(number).run_id)
        done = registry.promote(number, who(), datetime.now(UTC), arguments.reason, numbers)
    words = "is the champion" if done else "was the champion already"
    console.out.print(f"Version {number} {words}. Next: [bold]churn registry history[/]")
    return 0


def rollback(settings: Settings, arguments: Namespace) -> int:
    from training.registry import CHAMPION, Registry

    registry = Registry(settings.training)
    with alone(settings.files):
        registry.rollback(who(), datetime.now(UTC), arguments.reason)
    console.out.print(f"Version {registry.aliases()[CHAMPION]} is the champion again.")
    return 0


def history(settings: Settings, arguments: Namespace) -> int:
    from training.registry import Registry

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
