"""`churn tune`, `train`, `gates` and `package`: from features to an archive."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import positive, seconds, whole
from churn.command import argument, command
from churn.commands.shown import show_gates, show_models
from churn.commands.step import context_of, read, reporter, run_step
from core.errors import ConfigError

if TYPE_CHECKING:
    from churn.settings import Settings

ROWS = ("training set",)
"""The step before `tune` and `train`, which has no command."""


@command(
    "tune",
    "search hyperparameters with Optuna; called again, the study goes on",
    examples=(
        "churn tune",
        "churn tune --trials 30 --workers 2",
        "churn tune --study wide --timeout 600",
        "churn tune --shared --trials 30 --profile production",
    ),
    arguments=(
        argument("--trials", type=whole, metavar="N", help="finished trials the study ends with"),
        argument("--workers", type=positive, metavar="K", help="processes that run trials"),
        argument("--timeout", type=seconds, metavar="S", help="start no trial after S seconds"),
        argument("--study", metavar="NAME", help="go on with this study, or begin it"),
        argument(
            "--shared",
            action="store_true",
            help="other processes give the same command now, on any machines, and share the trials; needs"
            " tuning.storage in PostgreSQL, and this workspace or a copy of it",
        ),
    ),
)
def tune(settings: Settings, arguments: Namespace) -> int:
    flags = {
        "trials": arguments.trials,
        "workers": arguments.workers,
        "timeout_s": arguments.timeout,
        "study": arguments.study,
    }
    tuning = settings.tuning.model_copy(
        update={key: value for key, value in flags.items() if value is not None}
    )
    settings = settings.model_copy(update={"tuning": tuning})
    if arguments.shared:
        _share_trials(settings)
    else:
        run_step(settings, "tune", after=ROWS)
    record = read(settings.files.tuned)
    if not record["study"]:
        console.out.print("No trial ran: the configs stay as they are. Next: [bold]churn train[/]")
        return 0
    facts = {"study": record["study"], "trials": record["trials"], "log-loss": record["log_loss"]}
    console.pairs("Best hyperparameters", {**facts, **record["parameters"]})
    console.out.print("Next: [bold]churn train[/]; the trials: [bold]churn dashboard optuna[/]")
    return 0


def _share_trials(settings: Settings) -> None:
    """Runs trials without the workspace's lock; whoever is the first at the end writes the result."""
    from churn.lock import alone
    from pipelines.engine import run_steps
    from pipelines.shared_study import TUNE, run_trials

    with console.steps(2) as shown:
        context = context_of(settings, shown.describe)
        shown.start("Share the trials of a study")
        run_trials(context)
        with alone(settings.files, wait=True):
            run_steps([TUNE], context, False, lambda step: shown.start(step.title), reporter(shown))


@command(
    "train",
    "fit the network and its baselines, judge them on the test rows",
    examples=("churn train", "churn train --set training.epochs=6 --set model.dropout=0.2"),
)
def train(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "train", after=ROWS)
    show_models(read(settings.files.training / "metrics.json"))
    console.out.print("Next: [bold]churn gates[/]")
    return 0


@command(
    "gates",
    "judge the trained model; exit code 3 when it is refused",
    examples=(
        "churn gates",
        "churn gates --set gates.profile=classic",
        'churn gates --override worst_segment --reason "new market, no history yet"',
    ),
    arguments=(
        argument(
            "--override",
            action="append",
            default=[],
            metavar="RULE",
            help="let a failed rule pass; needs --reason",
        ),
        argument("--reason", default="", help="why; recorded with your name"),
    ),
)
def gates(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import gate_failure

    if arguments.reason and not arguments.override:
        raise ConfigError("--reason: no rule is overridden; name one with --override")
    overrides = tuple((rule, arguments.reason) for rule in arguments.override)
    run_step(settings, "gates", overrides=overrides)
    show_gates(read(settings.files.gate_report / "gate_report.json"))
    if refusal := gate_failure(settings.files):
        raise refusal
    console.out.print("Next: [bold]churn package[/]")
    return 0


@command(
    "package",
    "archive the judged model into a .mar and register it as challenger",
    examples=("churn package",),
)
def package(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "package")
    console.pairs("Archive", read(settings.files.archive_record))
    console.out.print("Next: [bold]churn serve[/]")
    return 0
