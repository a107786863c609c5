"""What a check of the installation receives and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from core.workspace import Workspace
from pipelines.context import Context, Stages


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works now, and needs attention."""
    BROKEN = "broken"
    """A command or a server will fail."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check, in one line."""

    state: State
    detail: str
    """What was found, or what is wrong. No key, no password, no value of a customer."""
    remedy: str = ""
    """The command that mends it; empty when the state is ok."""


@dataclass(frozen=True)
class Installation:
    """What is checked."""

    settings: Stages
    clock: Callable[[], datetime]

    @property
    def files(self) -> Workspace:
        return self.settings.files

    @property
    def context(self) -> Context:
        """For functions of the steps, which report no progress here."""
        return Context(self.settings, self.clock(), lambda message: None)


Check = Callable[[Installation], Result]


@dataclass(frozen=True)
class Named:
    """A check with its name and its time limit."""

    name: str
    check: Check
    timeout_s: float = 20.0


def ok(detail: str) -> Result:
    return Result(State.OK, detail)


def warning(detail: str, remedy: str) -> Result:
    return Result(State.WARNING, detail, remedy)


def broken(detail: str, remedy: str) -> Result:
    return Result(State.BROKEN, detail, remedy)
