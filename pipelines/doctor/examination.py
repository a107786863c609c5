"""Runs all checks: each with a time limit, and each error as a result."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.errors import ChurnError
from pipelines.doctor.check import Installation, Named, Result, State, broken

LONGEST_DETAIL = 400
"""Characters of an error of a library that are shown."""


@dataclass(frozen=True)
class Examined:
    """A check and its result."""

    name: str
    result: Result


def examine(installation: Installation, checks: Sequence[Named]) -> Iterator[Examined]:
    """The result of each check, in order. A check that raises an error or does not end is broken."""
    for named in checks:
        yield Examined(named.name, _within(named, installation))


def is_broken(examined: Sequence[Examined]) -> bool:
    return any(one.result.state is State.BROKEN for one in examined)


def _within(named: Named, installation: Installation) -> Result:
    """The check runs in a thread. One that does not end is left behind; it ends with the process."""
    found: list[Result] = []
    thread = threading.Thread(
        target=lambda: found.append(_checked(named, installation)), name=named.name, daemon=True
    )
    thread.start()
    thread.join(named.timeout_s)
    return (
        found[0]
        if found
        else broken(
            f"no answer within {named.timeout_s:g} s", "check that the address is right and the host answers"
        )
    )


def _checked(named: Named, installation: Installation) -> Result:
    try:
        return named.check(installation)
    except ChurnError as error:  # its message contains the remedy after the last semicolon
        detail, _, remedy = str(error).rpartition("; ")
        return broken(detail or str(error), remedy if detail else "see the message")
    except Exception as error:  # a check must not end the examination, whatever a library raises
        detail = " ".join(str(error).split())[:LONGEST_DETAIL]
        return broken(f"{type(error).__name__}: {detail}", "report this as an error of churn doctor")
