"""The entry of the command line: parses arguments, loads settings, and turns errors into exit codes."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from churn.commands import COMMANDS, GROUPS
from core.errors import ChurnError

INTERRUPTED = 130
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 failed, 2 refused input, 3 refused by the gates."""
    # TERM from a supervisor stops the servers that this process started, as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parser().parse_args(argv)
    # after parsing, so that `--help` does not wait for these imports
    from churn.commands.shown import explain
    from churn.settings import load_settings

    try:
        for place in ("_of_group", "_of_command"):
            arguments.config = arguments.config + getattr(arguments, f"config{place}", [])
            arguments.overrides = arguments.overrides + getattr(arguments, f"overrides{place}", [])
        settings = load_settings(arguments.profile, arguments.config, arguments.overrides)
        return int(arguments.act(settings, arguments))
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


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Imports no room."""
    top = argparse.ArgumentParser(
        prog="churn", description="Customer churn as a closed loop.", epilog="Start with: churn run"
    )
    _add_settings(top, "", "local")
    common, of_group = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    _add_settings(common, "_of_command", argparse.SUPPRESS)
    _add_settings(of_group, "_of_group", argparse.SUPPRESS)
    groups = {"": top.add_subparsers(title="commands", metavar="COMMAND", required=True)}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            group_parser = groups[""].add_parser(group, help=GROUPS[group])
            groups[group] = group_parser.add_subparsers(metavar="COMMAND", required=True)
        sub = groups[group].add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[of_group if command.name in GROUPS else common],
        )
        for argument in command.arguments:
            sub.add_argument(*argument.names, **argument.options)
        sub.set_defaults(act=command.act)
        if command.name in GROUPS:  # a command with further commands, such as `churn retrain status`
            groups[command.name] = sub.add_subparsers(title="commands", metavar="COMMAND", required=False)
            sub.set_defaults(config_of_command=[], overrides_of_command=[])
    return top


def _add_settings(to: argparse.ArgumentParser, suffix: str, profile: str) -> None:
    """Add the flags of the settings, which may precede the command, follow it, or both.

    For argparse, a default after the command would replace a value before the command. Therefore the lists
    have a different destination at each place.
    """
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
