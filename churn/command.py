"""Declares a command: name, help, examples and arguments, above the function that executes it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # not imported for `churn --help`, which has to be quick
    from churn.settings import Settings

    Act = Callable[[Settings, Namespace], int]


@dataclass(frozen=True)
class Argument:
    """The parameters of `ArgumentParser.add_argument`."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    name: str
    """Two words name a command of a group."""
    help: str
    examples: tuple[str, ...]
    arguments: tuple[Argument, ...]
    """Besides the flags of the settings, which all commands have."""
    act: Act
    """Executes the command and returns its exit code. Imports the rooms that it needs when it is called."""


def command(
    name: str, help: str, *, examples: tuple[str, ...], arguments: tuple[Argument, ...] = ()
) -> Callable[[Act], Command]:
    """Declare the decorated function as a command. churn/commands/__init__.py lists all of them."""
    return lambda act: Command(name, help, examples, arguments, act)


def argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


REASON = argument("--reason", required=True, help="why; recorded with your name")
JSON = argument("--json", action="store_true", help="for machines")
