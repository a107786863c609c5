"""The command line: one table of commands, the same flags for each."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from churn import arguments
from churn.commands import (
    archives,
    config,
    dashboards,
    data,
    deploy,
    features,
    forget,
    init,
    loop,
    registry,
    rollout,
    rollout_judged,
    serving,
    training,
)
from churn.commands.shown import explain
from churn.settings import Settings, load_settings
from core.errors import ChurnError

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


COMMANDS = (
    Command(
        "run",
        "the whole loop: ingest, features, tune, train, gates, package, serve, canary, report",
        (
            "churn run",
            "churn run --force",
            "churn run --no-rollout",
            "churn run --config examples/telco.yaml",
        ),
        loop.run,
        arguments.run,
    ),
    Command(
        "init",
        "look at a table of your own and write the config that churn run takes",
        (
            "churn init orders.csv",
            "churn init s3://bucket/events/ --yes --out events.yaml",
            "churn init customers.xlsx --dry-run --answer target=Exited",
        ),
        init.init,
        arguments.init,
    ),
    Command(
        "ingest",
        "read the source, validate, mask, write records and a manifest",
        (
            "churn ingest",
            "churn ingest --config examples/transactions.yaml --set data.source.uri=orders.csv",
            "churn ingest --config examples/transactions.yaml --append orders-2024-06.csv",
        ),
        data.ingest,
        arguments.ingest,
    ),
    Command(
        "data versions",
        "the versions of the records that are in the workspace, the current one first",
        ("churn data versions",),
        data.versions,
    ),
    Command(
        "features build",
        "compute snapshots and labels from the records",
        ("churn features build", "churn features build --as-of 1998-01-01 1998-02-01"),
        features.build,
        arguments.as_of,
    ),
    Command(
        "features materialize",
        "put the newest snapshot into the online store",
        ("churn features materialize",),
        features.materialize,
    ),
    Command(
        "features show",
        "the feature contract, and each feature's values at the newest snapshot",
        ("churn features show",),
        features.show,
    ),
    Command(
        "tune",
        "search hyperparameters with Optuna; called again, the study goes on",
        ("churn tune", "churn tune --trials 30 --workers 2", "churn tune --study wide --timeout 600"),
        training.tune,
        arguments.tune,
    ),
    Command(
        "dashboard optuna",
        "studies and trials, with each trial's plot and metrics, in the browser until interrupted",
        ("churn dashboard optuna", "churn dashboard optuna --port 8080"),
        dashboards.optuna,
        arguments.dashboard,
    ),
    Command(
        "dashboard mlflow",
        "runs and registered models in the browser until interrupted",
        ("churn dashboard mlflow", "churn dashboard mlflow --port 5000"),
        dashboards.mlflow,
        arguments.dashboard,
    ),
    Command(
        "train",
        "fit the network and its baselines, judge them on the test rows",
        ("churn train", "churn train --set training.epochs=6 --set model.dropout=0.2"),
        training.train,
    ),
    Command(
        "gates",
        "judge the trained model; exit code 3 when it is refused",
        (
            "churn gates",
            "churn gates --set gates.profile=classic",
            'churn gates --override worst_segment --reason "new market, no history yet"',
        ),
        training.gates,
        arguments.gates,
    ),
    Command(
        "package",
        "archive the judged model into a .mar and register it as challenger",
        ("churn package",),
        training.package,
    ),
    Command(
        "verify",
        "check an archive's signature, its parts and its gates; exit code 2 or 3 when it is not to be used",
        ("churn verify var/model-store/churn-0123456789ab.mar",),
        archives.verify,
        arguments.verify,
    ),
    Command(
        "deploy",
        "check signature and gates, upload, start the rollout; exit code 2 or 3 when it is refused, 5 when no"
        " controller runs",
        (
            "churn deploy",
            'churn deploy --reason "trained on March" --set rollout.store=s3://models/churn',
            "churn deploy churn-0123456789ab.mar --report gates/gate_report.json --store-only",
        ),
        deploy.deploy,
        arguments.deploy,
    ),
    Command(
        "score",
        "every customer at one moment, ranked by what an offer is expected to bring",
        (
            "churn score --as-of 1998-07-01 --out customers.parquet",
            "churn score --out calls.csv --top 500 --reasons 3",
            "churn score --out calls.csv --top 500 --source-ids",
        ),
        archives.score,
        arguments.score,
    ),
    Command(
        "forget",
        "remove customers from records, features, stores, scores and logs, and write a proof",
        ('churn forget 4711 --reason "request 2026-17"',),
        forget.forget,
        arguments.forget,
    ),
    Command(
        "rollout start",
        "put the newest archive on trial: the same checks as churn deploy",
        (
            'churn rollout start --reason "trained on March"',
            'churn rollout start --archive churn-0123456789ab.mar --reason "again"',
        ),
        rollout.start,
        arguments.rollout_start,
    ),
    Command(
        "rollout status",
        "how far it is and what it waits for; exit code 0 promoted, 3 taken back, 4 running, 5 needs a person"
        " (paused, stuck, or no controller runs)",
        ("churn rollout status", "churn rollout status --json"),
        rollout.status,
        arguments.rollout_status,
    ),
    Command(
        "rollout watch",
        "the same, live, until it has ended; with --json a line each time something changes",
        ("churn rollout watch", "churn rollout watch --json"),
        rollout.watch,
        arguments.rollout_status,
    ),
    Command(
        "rollout pause",
        "stay at this weight; harm is still taken back",
        ('churn rollout pause --reason "call centre is closed"',),
        rollout.pause,
        arguments.reason,
    ),
    Command(
        "rollout resume",
        "go on where it was paused",
        ("churn rollout resume",),
        rollout.resume,
        arguments.optional_reason,
    ),
    Command(
        "rollout promote",
        "skip the stages that are left; your name and reason are recorded",
        ('churn rollout promote --reason "it fixes the outage"',),
        rollout.promote,
        arguments.reason,
    ),
    Command(
        "rollout abort",
        "all customers back to stable, before anything else that was asked; on a cluster this process does it"
        " where no controller runs",
        ('churn rollout abort --reason "calls rose"',),
        rollout.abort,
        arguments.reason,
    ),
    Command(
        "rollout history",
        "every decision with its reason: who, when, at which weight",
        ("churn rollout history", "churn rollout history --all", "churn rollout history --json"),
        rollout.history,
        arguments.rollout_history,
    ),
    Command(
        "rollout judge",
        "judge a past rollout again, by what was counted then and the rules of today's settings",
        (
            "churn rollout judge",
            "churn rollout judge 20261126-120000-0123ab-4f2e --set rollout.alpha=0.001",
        ),
        rollout_judged.judge,
        arguments.rollout_judge,
    ),
    Command(
        "rollout run",
        "control the rollouts of a cluster from this process; on one machine churn serve does",
        ("churn rollout run --set rollout.target=knative",),
        rollout.run,
    ),
    Command(
        "rollout adopt",
        "record what a cluster serves now as stable, after it was changed by hand",
        (
            'churn rollout adopt --reason "restored from a backup"',
            'churn rollout adopt --archive churn-0123456789ab.mar --reason "deployed before rollouts"',
        ),
        rollout.adopt,
        arguments.adopt,
    ),
    Command(
        "rollout restore",
        "bring what is recorded as stable back to a cluster that serves something else",
        ("churn rollout restore",),
        rollout.restore,
    ),
    Command(
        "rollback",
        "bring back what was stable before, on live traffic and in the registry",
        ('churn rollback --reason "calls rose"',),
        rollout.rollback,
        arguments.reason,
    ),
    Command(
        "registry list",
        "registered versions, with their gates and aliases",
        ("churn registry list",),
        registry.versions,
    ),
    Command(
        "registry promote",
        "make a version the champion",
        ('churn registry promote --reason "two weeks on trial"', 'churn registry promote 7 --reason "..."'),
        registry.promote,
        arguments.promote,
    ),
    Command(
        "registry rollback",
        "make the previous champion the champion again",
        ('churn registry rollback --reason "calls rose"',),
        registry.rollback,
        arguments.rollback,
    ),
    Command(
        "registry history",
        "every change of champion and challenger: who, when, why",
        ("churn registry history",),
        registry.history,
    ),
    Command(
        "serve",
        "run TorchServe behind the gateway on this machine until interrupted",
        ("churn serve", "churn serve --as-of 1998-07-01 --set gateway.port=0", "churn serve --no-gateway"),
        serving.serve,
        arguments.serve,
    ),
    Command(
        "reload",
        "have the running server take the archive that was packaged last; no request is cut",
        ("churn reload",),
        serving.reload,
    ),
    Command(
        "keys add",
        "make an API key for a client of the gateway; it is shown once",
        (
            "churn keys add call-centre",
            "churn keys add trial --expires 30 --scopes predict --requests-per-s 50",
        ),
        serving.keys_add,
        arguments.new_key,
    ),
    Command(
        "keys rotate",
        "make another key for a client that has one; both are good for a while, so that no request is cut",
        ("churn keys rotate call-centre --overlap 7",),
        serving.keys_rotate,
        arguments.rotated_key,
    ),
    Command(
        "keys list",
        "the clients that have a key: until when, for what, and when it was used last",
        ("churn keys list",),
        serving.keys_list,
    ),
    Command(
        "keys revoke",
        "take a client's key back, also from a running gateway",
        ("churn keys revoke call-centre",),
        serving.keys_revoke,
        arguments.key,
    ),
    Command(
        "predict",
        "ask the running server about customers",
        ("churn predict 42", "churn predict 42 1001 --json"),
        serving.predict,
        arguments.predict,
    ),
    Command(
        "config show",
        "print the settings that would be used, or why they are refused",
        ("churn config show", "churn config show --profile production --set training.epochs=10"),
        config.show,
    ),
)

GROUPS = {
    "features": "build, materialize and show features",
    "data": "versions of the records",
    "keys": "who may ask the gateway",
    "registry": "versions and aliases",
    "rollout": "a candidate on live traffic",
    "dashboard": "Optuna's and MLflow's own pages, on this machine",
    "config": "look at the settings",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="churn", description="Customer churn as a closed loop.", epilog="Start with: churn run"
    )
    _add_settings(top, "", "local")
    common = argparse.ArgumentParser(add_help=False)
    _add_settings(common, "_of_command", argparse.SUPPRESS)
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


def _add_settings(to: argparse.ArgumentParser, suffix: str, profile: str) -> None:
    """Before the command or after it, and in both places at once. argparse would let what is not given after
    the command replace what was given before it, so that each place has names of its own."""
    group = to.add_argument_group("settings")
    group.add_argument("--profile", default=profile, help="configs/profiles/NAME.yaml (default: local)")
    group.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        dest=f"config{suffix}",
        help="YAML laid over the configs",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest=f"overrides{suffix}",
        help="one setting, for example training.epochs=2",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 failed, 2 refused input, 3 refused by the gates."""
    # A stop asked for by a supervisor ends the servers we started, like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    asked = parser().parse_args(argv)
    try:
        asked.config = asked.config + asked.config_of_command
        asked.overrides = asked.overrides + asked.overrides_of_command
        settings = load_settings(asked.profile, asked.config, asked.overrides)
        return int(asked.act(settings, asked))
    except ChurnError as error:
        explain(error)
        return error.exit_code
    except BrokenPipeError:  # `churn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or "workspace"
        explain(ChurnError(f"{where}: {error.strerror}; make room, or choose another --set workspace=DIR"))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
