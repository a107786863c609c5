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
    "compute snapshots and labels from the records, for the settings' service and those of models in use",
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
        from pipelines.services import needed_services

        with alone(settings.files), console.steps(1) as shown:
            for service in needed_services(settings, progress=shown.describe):
                build_features(service.spec, service.files, arguments.as_of, shown.describe)
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
    "put the newest snapshot into the online store, for the settings' service and those of models in use",
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


@command(
    "features prune",
    "remove the feature services that no model in use needs, after a change of the features",
    examples=(
        "churn features prune --dry-run",
        "churn features prune",
        "churn features prune churn_prediction_v1 --give-up-rollback",
    ),
    arguments=(
        argument("service", nargs="?", metavar="SERVICE", help="only this one; default: all that none needs"),
        argument("--dry-run", action="store_true", help="show what would be removed"),
        argument(
            "--give-up-rollback",
            action="store_true",
            help="also what only a rollback would need, which is then refused",
        ),
    ),
)
def prune(settings: Settings, arguments: Namespace) -> int:
    from pipelines.prune import plan_of
    from pipelines.prune import prune as remove
    from pipelines.streaming import is_configured

    with alone(settings.files), console.steps(1) as shown:
        shown.start("features of models in use")
        plan = plan_of(settings, arguments.service, arguments.give_up_rollback)
        removed = {} if arguments.dry_run else remove(settings, plan)
    for name, why in plan.needed.items():
        console.out.print(f"{name}: stays, {why}", soft_wrap=True, markup=False)
    for name in plan.removed:
        done = (
            "would be removed"
            if arguments.dry_run
            else f"removed, with the values of {removed[name]:,} customers"
        )
        console.out.print(f"{name}: {done}", soft_wrap=True, markup=False)
    if removed and is_configured(settings):
        console.out.print("Restart churn stream: it pushes to the services that there were when it started.")
    if not plan.removed:
        console.out.print("There is no service that nothing needs.")
    return 0


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
