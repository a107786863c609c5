"""`churn init FILE`: writes the config for a table of the user."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from churn.init.belief import Doubt
    from churn.init.proposal import Proposal
    from churn.settings import Settings


@command(
    "init",
    "look at a table of your own and write the config that churn run takes",
    examples=(
        "churn init orders.csv",
        "churn init s3://bucket/events/ --yes --out events.yaml",
        "churn init customers.xlsx --dry-run --answer target=Exited",
    ),
    arguments=(
        argument(
            "file",
            metavar="FILE",
            help="CSV, TSV, Parquet or Excel; a folder or pattern of files; any fsspec URI",
        ),
        argument("--out", type=Path, metavar="YAML", help="default: <name of FILE>.churn.yaml, here"),
        argument("--force", action="store_true", help="replace the YAML when it is there already"),
        argument("--yes", action="store_true", help="ask nothing: take the best guess of each doubt"),
        argument("--dry-run", action="store_true", help="print the YAML and write nothing"),
        argument(
            "--answer",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="settle a doubt or correct a belief, for example target=Exited or dates=day_first",
        ),
    ),
)
def init(settings: Settings, arguments: Namespace) -> int:
    from churn.init.overlay import render
    from churn.init.propose import propose
    from churn.init.sample.files import stem

    out: Path = arguments.out or Path(f"{stem(arguments.file)}.churn.yaml")
    if out.exists() and not (arguments.force or arguments.dry_run):
        raise ConfigError(f"{out}: exists already; choose another --out, or replace it with --force")
    answers = _answers(arguments.answer)
    interactive = not arguments.yes and not arguments.dry_run and sys.stdin.isatty() and sys.stdout.isatty()
    with console.err.status("reading the file"):
        proposal = propose(arguments.file, settings.features, answers)
    while interactive and (doubt := next(iter(proposal.notes.doubts), None)) is not None:
        answers[doubt.key] = _ask(doubt)
        proposal = propose(arguments.file, settings.features, answers)
    text = render(proposal)
    _show(console.err if arguments.dry_run else console.out, proposal)
    if arguments.dry_run:
        sys.stdout.write(text)
        return 0
    if proposal.notes.doubts and not arguments.yes:
        keys = ", ".join(doubt.key for doubt in proposal.notes.doubts)
        raise ConfigError(
            f"not certain of {keys}: accept the guesses with --yes, or decide each with --answer KEY=VALUE"
        )
    _write(out, text, arguments)
    console.out.print(
        f"Written: {out}. Read its comments, then: [bold]churn run --config {out}[/]", soft_wrap=True
    )
    return 0


def _answers(given: list[str]) -> dict[str, str]:
    answers = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--answer {one}: write it as KEY=VALUE, for example target=Exited")
        answers[key] = value
    return answers


def _ask(doubt: Doubt) -> str:
    from rich.prompt import Prompt

    console.out.print(f"\n[bold]{console.escape(doubt.key)}[/]: {console.escape(doubt.why)}", soft_wrap=True)
    choices = list(doubt.options) if doubt.options else None
    return Prompt.ask("Your choice?", choices=choices, default=doubt.value, console=console.out)


def _show(where: Console, proposal: Proposal) -> None:
    from churn.init.overlay import shown_doubts

    where.print(f"Read {console.escape(proposal.looked_at)}.")
    console.table(
        "What churn init found",
        ("what", "value", "why"),
        [(f.what, f.value, f.why) for f in proposal.notes.findings],
        where=where,
    )
    if proposal.notes.left_out:
        console.table("Columns left out", ("column", "why"), proposal.notes.left_out.items(), where=where)
    if doubts := shown_doubts(proposal):
        console.table("Not certain", ("what", "guess", "why", "or"), doubts, where=where)


def _write(out: Path, text: str, arguments: Namespace) -> None:
    """Write the file atomically, and only if the settings are valid with it."""
    from churn.settings import load_settings

    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        load_settings(arguments.profile, [*arguments.config, part], arguments.overrides)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
