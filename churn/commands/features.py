"""`churn features ...`: from the records to features in the store."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from churn import console
from churn.argument_types import moment
from churn.command import argument, command
from churn.commands.step import read, run_step
from churn.lock import alone

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "features build",
    "compute snapshots and labels from the records",
    examples=("churn features build", "churn features build --as-of 1998-01-01 1998-02-01"),
    arguments=(
        argument(
            "--as-of",
            type=moment,
            nargs="+",
            metavar="DATE",
            help="only these snapshots (ISO dates, UTC); default: all that the log allows",
        ),
    ),
)
def build(settings: Settings, arguments: Namespace) -> int:
    if arguments.as_of:
        from features.build import build_features

        with alone(settings.files), console.steps(1) as shown:
            build_features(settings.features, settings.files, arguments.as_of, shown.describe)
    else:
        run_step(settings, "features")
    record = read(settings.files.feature_manifest)
    facts = {key: record[key] for key in ("rows", "label_rows", "latest")}
    facts |= {key: len(record[key]) for key in ("snapshots", "labelled_snapshots")}
    console.pairs("Features", facts)
    console.out.print("Next: [bold]churn features materialize[/]")
    return 0


@command(
    "features materialize",
    "put the newest snapshot into the online store",
    examples=("churn features materialize",),
)
def materialize(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "online store")
    console.out.print("The newest snapshot is online. Next: [bold]churn train[/]")
    return 0


@command(
    "features show",
    "the feature contract, and each feature's values at the newest snapshot",
    examples=("churn features show",),
)
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
