"""The front door: one table of commands, the same flags for each."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from churn import commands
from churn.settings import Settings, load_settings
from data.errors import ChurnError

INTERRUPTED = 130
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@dataclass(frozen=True)
class Command:
    name: str
    """Two words make a sub-command."""
    help: str
    examples: tuple[str, ...]
    act: Callable[[Settings, argparse.Namespace], int]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="do every step again, changed or not")


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=_whole, metavar="N", help="finished trials the study ends with")
    parser.add_argument("--workers", type=_positive, metavar="K", help="processes that run trials")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="start no trial after S seconds")
    parser.add_argument("--study", metavar="NAME", help="go on with this study, or begin it")


def _dashboard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=0, help="default: a free one, which is printed")


def _as_of_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of",
        type=_moment,
        nargs="+",
        metavar="DATE",
        help="only these snapshots (ISO dates, UTC); default: all that the log allows",
    )


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", nargs="+", help="identifiers as they stand in the source")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON, with their features")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of",
        type=_moment,
        metavar="DATE",
        help="the server's clock starts here instead of now: features of an old log are then not stale",
    )


def _gates_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="RULE",
        help="let a failed rule pass; needs --reason",
    )
    parser.add_argument("--reason", default="", help="why; recorded with your name")


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", help="number of the version; default: the challenger")
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why; recorded with your name")


def _whole(text: str) -> int:
    return _number(text, 0)


def _positive(text: str) -> int:
    return _number(text, 1)


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _number(text: str, low: int, high: int | None = None) -> int:
    if not text.isdigit() or int(text) < low or (high is not None and int(text) > high):
        allowed = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO date such as 1998-04-01") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


COMMANDS = (
    Command(
        "run",
        "the whole loop: ingest, features, tune, train, gates, package, serve, report",
        ("churn run", "churn run --force", "churn run --config examples/telco.yaml"),
        commands.run,
        _run_arguments,
    ),
    Command(
        "ingest",
        "read the source, validate, mask, write records and a manifest",
        ("churn ingest", "churn ingest --config examples/transactions.yaml --set data.source.uri=orders.csv"),
        commands.ingest,
    ),
    Command(
        "features build",
        "compute snapshots and labels from the records",
        ("churn features build", "churn features build --as-of 1998-01-01 1998-02-01"),
        commands.features_build,
        _as_of_arguments,
    ),
    Command(
        "features materialize",
        "put the newest snapshot into the online store",
        ("churn features materialize",),
        commands.features_materialize,
    ),
    Command(
        "features show",
        "the feature contract, and each feature's values at the newest snapshot",
        ("churn features show",),
        commands.features_show,
    ),
    Command(
        "tune",
        "search hyperparameters with Optuna; called again, the study goes on",
        ("churn tune", "churn tune --trials 30 --workers 2", "churn tune --study wide --timeout 600"),
        commands.tune,
        _tune_arguments,
    ),
    Command(
        "dashboard optuna",
        "studies and trials, with each trial's plot and metrics, in the browser until interrupted",
        ("churn dashboard optuna", "churn dashboard optuna --port 8080"),
        commands.dashboard_optuna,
        _dashboard_arguments,
    ),
    Command(
        "dashboard mlflow",
        "runs and registered models in the browser until interrupted",
        ("churn dashboard mlflow", "churn dashboard mlflow --port 5000"),
        commands.dashboard_mlflow,
        _dashboard_arguments,
    ),
    Command(
        "train",
        "fit the network and its baselines, judge them on the test rows",
        ("churn train", "churn train --set training.epochs=6 --set model.dropout=0.2"),
        commands.train,
    ),
    Command(
        "gates",
        "judge the trained model; exit code 3 when it is refused",
        (
            "churn gates",
            "churn gates --set gates.profile=classic",
            'churn gates --override worst_segment --reason "new market, no history yet"',
        ),
        commands.gates,
        _gates_arguments,
    ),
    Command(
        "package",
        "archive the judged model into a .mar and register it as challenger",
        ("churn package",),
        commands.package,
    ),
    Command(
        "registry list",
        "registered versions, with their gates and aliases",
        ("churn registry list",),
        commands.registry_list,
    ),
    Command(
        "registry promote",
        "make a version the champion",
        ('churn registry promote --reason "two weeks on trial"', 'churn registry promote 7 --reason "..."'),
        commands.registry_promote,
        _promote_arguments,
    ),
    Command(
        "registry rollback",
        "make the previous champion the champion again",
        ('churn registry rollback --reason "calls rose"',),
        commands.registry_rollback,
        _rollback_arguments,
    ),
    Command(
        "registry history",
        "every change of champion and challenger: who, when, why",
        ("churn registry history",),
        commands.registry_history,
    ),
    Command(
        "serve",
        "run TorchServe on this machine until interrupted",
        ("churn serve", "churn serve --as-of 1998-07-01 --set serving.inference_port=8080"),
        commands.serve,
        _serve_arguments,
    ),
    Command(
        "predict",
        "ask the running server about customers",
        ("churn predict 42", "churn predict 42 1001 --json"),
        commands.predict,
        _predict_arguments,
    ),
    Command(
        "config show",
        "print the settings that would be used, or why they are refused",
        ("churn config show", "churn config show --profile production --set training.epochs=10"),
        commands.config_show,
    ),
)

GROUPS = {
    "features": "build, materialize and show features",
    "registry": "who serves, and why",
    "dashboard": "Optuna's and MLflow's own pages, on this machine",
    "config": "look at the settings",
}


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("settings")
    group.add_argument("--profile", default="local", help="configs/profiles/NAME.yaml (default: local)")
    group.add_argument(
        "--config", type=Path, action="append", default=[], metavar="FILE", help="YAML laid over the configs"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="one setting, for example training.epochs=2",
    )
    top = argparse.ArgumentParser(
        prog="churn", description="Customer churn as a closed loop.", epilog="Start with: churn run"
    )
    commands_of = {"": top.add_subparsers(title="commands", metavar="COMMAND", required=True)}
    for command in COMMANDS:
        group_name, _, name = command.name.rpartition(" ")
        if group_name not in commands_of:
            subgroup = commands_of[""].add_parser(group_name, help=GROUPS[group_name])
            commands_of[group_name] = subgroup.add_subparsers(metavar="COMMAND", required=True)
        sub = commands_of[group_name].add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common],
        )
        command.arguments(sub)
        sub.set_defaults(act=command.act)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 failed, 2 refused input, 3 refused by the gates."""
    # A stop asked for by a supervisor ends the servers we started, like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parser().parse_args(argv)
    try:
        settings = load_settings(arguments.profile, arguments.config, arguments.overrides)
        return int(arguments.act(settings, arguments))
    except ChurnError as error:
        commands.explain(error)
        return error.exit_code
    except BrokenPipeError:  # `churn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or "workspace"
        commands.explain(
            ChurnError(f"{where}: {error.strerror}; make room, or choose another --set workspace=DIR")
        )
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
