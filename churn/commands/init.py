"""`churn init FILE`: a config for a table of one's own."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.prompt import Prompt

from churn import console
from churn.settings import Settings, load_settings
from core.errors import ConfigError

if TYPE_CHECKING:
    from churn.init.belief import Doubt
    from churn.init.proposal import Proposal


def init(settings: Settings, arguments: Namespace) -> int:
    from churn.init.overlay import render
    from churn.init.propose import propose
    from churn.init.sample import stem

    out: Path = arguments.out or Path(f"{stem(arguments.file)}.churn.yaml")
    if out.exists() and not (arguments.force or arguments.dry_run):
        raise ConfigError(f"{out}: is there already; choose another --out, or replace it with --force")
    answers = _answers(arguments.answer)
    asking = not arguments.yes and not arguments.dry_run and sys.stdin.isatty() and sys.stdout.isatty()
    with console.err.status("looking at the file"):
        proposal = propose(arguments.file, settings.features, answers)
    while asking and (doubt := next(iter(proposal.notes.doubts), None)) is not None:
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
            f"not certain of {keys}: take the guesses with --yes, or settle each with --answer KEY=VALUE"
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


def _ask(doubt: "Doubt") -> str:
    console.out.print(f"\n[bold]{escape(doubt.key)}[/]: {escape(doubt.why)}", soft_wrap=True)
    choices = list(doubt.options) if doubt.options else None
    return Prompt.ask("Which is it?", choices=choices, default=doubt.value, console=console.out)


def _show(where: Console, proposal: "Proposal") -> None:
    from churn.init.overlay import shown_doubts

    where.print(f"Looked at {escape(proposal.looked_at)}.")
    console.table(
        "What churn init believes",
        ("what", "value", "why"),
        [(f.what, f.value, f.why) for f in proposal.notes.findings],
        where=where,
    )
    if proposal.notes.left_out:
        rows = list(proposal.notes.left_out.items())
        console.table("Columns left out", ("column", "why"), rows, where=where)
    if doubts := shown_doubts(proposal):
        console.table("Not certain", ("what", "guess", "why", "or"), doubts, where=where)


def _write(out: Path, text: str, arguments: Namespace) -> None:
    """Written only when the settings as a whole accept it; never half of it."""
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        load_settings(arguments.profile, [*arguments.config, part], arguments.overrides)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
