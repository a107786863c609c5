"""Prints results to stdout, and progress and messages to stderr."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    emphasise_first: bool = False,
    where: Console = out,
) -> None:
    """Print rows: numbers to the right, with four decimals; no header when all column names are empty."""
    grid = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_header=any(columns),
    )
    rows = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for index, row in enumerate(rows):
        grid.add_row(*map(_text, row), style="bold cyan" if emphasise_first and index == 0 else None)
    where.print(grid)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


def pairs(title: str, facts: Mapping[str, Any]) -> None:
    table(title, ("", ""), [(key, str(value)) for key, value in facts.items()])


class Steps:
    """A bar that counts the steps, with the progress of the current one; plain lines without a terminal."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)
        self._title = ""

    def start(self, title: str) -> None:
        self._title = title
        self._progress.update(self._task, description=title)

    def describe(self, message: str) -> None:
        self._progress.update(self._task, description=f"{self._title} [dim]{message}[/]")

    def end(self, line: str) -> None:
        self._progress.console.print(line)
        self._progress.advance(self._task)


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    with Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    ) as progress:
        yield Steps(progress, total)


class Bar:
    """A bar that shows how many of how many are done, and a description."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)

    def show(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def describe(self, message: str) -> None:
        self._progress.update(self._task, description=message)


@contextmanager
def bar(description: str) -> Iterator[Bar]:
    with Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    ) as progress:
        yield Bar(progress, description)
