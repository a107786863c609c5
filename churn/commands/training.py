"""`churn tune`, `train`, `gates` and `package`: from features to an archive."""

from argparse import Namespace

from churn import console
from churn.commands.shown import show_gates, show_models
from churn.commands.step import read, run_step
from churn.settings import Settings
from core.errors import ConfigError

ROWS = ("training set",)


def tune(settings: Settings, arguments: Namespace) -> int:
    asked = {
        "trials": arguments.trials,
        "workers": arguments.workers,
        "timeout_s": arguments.timeout,
        "study": arguments.study,
    }
    tuning = settings.tuning.model_copy(
        update={key: value for key, value in asked.items() if value is not None}
    )
    settings = settings.model_copy(update={"tuning": tuning})
    run_step(settings, "tune", after=ROWS)
    record = read(settings.files.tuned)
    if not record["study"]:
        console.out.print("No trial ran: the configs stay as they are. Next: [bold]churn train[/]")
        return 0
    facts = {"study": record["study"], "trials": record["trials"], "log-loss": record["log_loss"]}
    console.pairs("Best hyperparameters", {**facts, **record["parameters"]})
    console.out.print("Next: [bold]churn train[/]; look with: [bold]churn dashboard optuna[/]")
    return 0


def train(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "train", after=ROWS)
    show_models(read(settings.files.training / "metrics.json"))
    console.out.print("Next: [bold]churn gates[/]")
    return 0


def gates(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import gate_failure

    if arguments.reason and not arguments.override:
        raise ConfigError("--reason: of what? name the rule with --override")
    overrides = tuple((rule, arguments.reason) for rule in arguments.override)
    run_step(settings, "gates", overrides=overrides)
    show_gates(read(settings.files.gate_report / "gate_report.json"))
    if refusal := gate_failure(settings.files):
        raise refusal
    console.out.print("Next: [bold]churn package[/]")
    return 0


def package(settings: Settings, arguments: Namespace) -> int:
    run_step(settings, "package")
    console.pairs("Archive", read(settings.files.archive_record))
    console.out.print("Next: [bold]churn serve[/]")
    return 0
