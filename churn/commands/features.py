"""`churn features ...`: from the records to features in the store."""

from argparse import Namespace
from typing import Any

from churn import console
from churn.commands.step import read, run_step
from churn.lock import alone
from churn.settings import Settings


def build(settings: Settings, arguments: Namespace) -> int:
    if arguments.as_of:
        from features.build import build_features

        with alone(settings.files), console.steps(1) as shown:
            build_features(settings.features, settings.files, arguments.as_of, shown.say)
    else:
        run_step(settings, "features")
    record = read(settings.files.feature_manifest)
    facts = {key: record[key] for key in ("rows", "label_rows", "latest")}
    facts |= {key: len(record[key]) for key in ("snapshots", "labelled_snapshots")}
    console.pairs("Features", facts)
    console.out.print("Next: [bold]churn features materialize[/]")
    return 0


def materialize(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "online store")
    console.out.print("The newest snapshot is online. Next: [bold]churn train[/]")
    return 0


def show(settings: Settings, arguments: Namespace) -> int:
    from features.show import describe

    rows = describe(settings.features, settings.files)
    console.table(
        f"{settings.features.service}  spec {settings.features.digest()[:12]}",
        ("feature", "type", "default", "present", "min", "median", "max", "meaning"),
        [
            (
                *(row[key] for key in ("feature", "type", "default")),
                f"{row['non_null_share']:.1%}",
                *(_short(row[key]) for key in ("min", "median", "max")),
                row["description"],
            )
            for row in rows
        ],
    )
    return 0


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
